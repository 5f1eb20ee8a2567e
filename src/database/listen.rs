//! One LISTEN connection a process: what other processes changed in the platform schema, and word of tenants' changes in both
//! directions.
//!
//! A message that is lost is a delay and no more: the connection is probed, its loss is an event, and so is its return.

use super::changes::Changes;
use super::wakes::Wakes;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{AssertSqlSafe, Executor as _};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::AbortHandle;
use tokio::time::{sleep, sleep_until, timeout};
use uuid::Uuid;

/// Where all news goes: `tenant:<id>` of the registry, and what [`Changes`] says.
pub(super) const CHANNEL: &str = "bulkhead";
const TENANT: &str = "tenant:";
/// How often a connection that is silent is asked whether it is there, and how long it may take to say so.
const PROBE: Duration = Duration::from_secs(1);
/// How long until a lost connection is tried again.
const AGAIN: Duration = Duration::from_millis(200);
/// How long between two messages about tenants' changes at least.
const GAP: Duration = Duration::from_millis(50);
/// The same of those about jobs: so much later may a job start than it could.
const JOBS_GAP: Duration = Duration::from_millis(3);

/// What a listener hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// From here on nothing is missed; before it, anything may have changed.
    Listening,
    /// From here on nothing is heard.
    Deaf,
    /// A tenant's row, or one of its domains, has changed.
    Tenant(Uuid),
}

/// Listens until it is dropped.
#[derive(Debug)]
pub struct Listener(AbortHandle);

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The statement that tells every process, once it is committed. For the platform's own acts, which are rare: a NOTIFY
/// serialises commits.
pub(super) fn notify_tenant(id: Uuid) -> String {
    format!("NOTIFY {CHANNEL}, '{TENANT}{id}'")
}

/// Hands every event to `hear`, and carries word of changes and jobs, from a task of its own.
#[expect(
    clippy::disallowed_methods,
    reason = "it lives as long as the process, and ends with its handle"
)]
pub(super) fn listen(
    options: PgConnectOptions,
    (changes, wakes): (Arc<Changes>, Arc<Wakes>),
    hear: impl Fn(Event) + Send + Sync + 'static,
) -> Listener {
    let task = tokio::spawn(async move {
        loop {
            if let Err(error) = follow(&options, (&changes, &wakes), &hear).await {
                tracing::debug!(%error, "no news from PostgreSQL");
            }
            hear(Event::Deaf);
            sleep(AGAIN).await;
        }
    });
    Listener(task.abort_handle())
}

/// Listens until the connection is lost.
async fn follow(
    options: &PgConnectOptions,
    (changes, wakes): (&Changes, &Wakes),
    hear: &impl Fn(Event),
) -> Result<(), sqlx::Error> {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(PROBE)
        .connect_lazy_with(options.clone().application_name("bulkhead listener"));
    let mut listener = PgListener::connect_with(&pool).await?;
    // Whoever flushes before it listens again misses what comes between the two.
    listener.eager_reconnect(false);
    listener.listen(CHANNEL).await?;
    hear(Event::Listening);
    changes.wake_all();
    wakes.wake_all();
    let mut told = Instant::now();
    loop {
        let untold = async {
            tokio::select! {
                () = async { changes.due().await; sleep_until((told + GAP).into()).await } => {}
                () = async { wakes.due().await; sleep_until((told + JOBS_GAP).into()).await } => {}
            }
        };
        let statement = tokio::select! {
            news = timeout(PROBE, listener.try_recv()) => match news {
                Ok(Ok(Some(news))) => {
                    match news.payload().strip_prefix(TENANT) {
                        Some(id) => Uuid::parse_str(id).into_iter().map(Event::Tenant).for_each(hear),
                        None if wakes.hear(news.payload()) => {}
                        None => changes.hear(news.payload()),
                    }
                    continue;
                }
                Ok(Ok(None)) => return Ok(()),
                Ok(Err(error)) => return Err(error),
                Err(_silent) => "SELECT 1".to_owned(),
            },
            () = untold => {
                told = Instant::now();
                let words: Vec<_> = changes.tell().into_iter().chain(wakes.tell()).collect();
                tell(&words.join("; "))
            }
        };
        let done = timeout(
            PROBE,
            listener.execute(sqlx::raw_sql(AssertSqlSafe(statement))),
        );
        done.await.map_err(|_| sqlx::Error::PoolTimedOut)??;
    }
}

/// NOTIFY takes a lock of the whole cluster until its commit is on the disk: these do not wait for the disk.
fn tell(words: &str) -> String {
    format!("BEGIN; SET LOCAL synchronous_commit = off; {words}; COMMIT")
}

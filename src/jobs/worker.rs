//! A worker of this process: fang's pool, the dispatcher behind it, and what keeps its leases.

use super::breaker::Breakers;
use super::claim::{self, Claimed};
use super::cron;
use super::dispatcher::{Counter, Dispatcher};
use super::ends::{self, End, Outcome};
use super::fang;
use super::held::Held;
use super::kinds::Kinds;
use super::means::Means;
use super::tend;
use crate::error::Result;
use crate::services::Services;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use uuid::Uuid;

/// How long running jobs may go on when the worker stops.
const DRAIN: Duration = Duration::from_secs(25);
/// How long their ends may take to be written down.
const LAST_WORDS: Duration = Duration::from_secs(4);
/// How often a thread of the runtime is woken.
const STIR: Duration = Duration::from_millis(100);
/// How long until a registration is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// A worker of this process: as many jobs side by side as it was started with.
#[derive(Debug)]
pub struct Worker {
    inner: Arc<Inner>,
    tasks: [AbortHandle; 3],
}

/// What its parts share.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) id: Uuid,
    pub(super) services: Arc<Services>,
    pub(super) kinds: Kinds,
    pub(super) counter: Counter,
    pub(super) held: Held,
    pub(super) means: Means,
    pub(super) breakers: Breakers,
    /// A job ended: its lane may run another.
    pub(super) room: Notify,
    freed: Mutex<BTreeSet<i32>>,
    ends: mpsc::UnboundedSender<End>,
    stop: CancellationToken,
    abort: CancellationToken,
    running: TaskTracker,
    /// Jobs that fang is told of by their ids, and has not begun.
    told: Mutex<HashMap<Uuid, InHand>>,
}

/// A claimed job whose run has not begun.
#[derive(Debug)]
pub(super) struct InHand {
    pub(super) job: Claimed,
    /// What a stop waits for.
    pub(super) token: TaskTrackerToken,
}

impl Worker {
    /// Starts claiming.
    #[expect(
        clippy::disallowed_methods,
        reason = "its tasks live as long as the worker"
    )]
    pub async fn start(services: Arc<Services>, kinds: Kinds) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        let inner = Arc::new(Inner {
            id: services.database.clock().new_id(),
            breakers: Breakers::new(&services.config),
            services,
            kinds,
            counter: Counter::default(),
            held: Held::default(),
            means: Means::default(),
            room: Notify::new(),
            freed: Mutex::default(),
            ends: sender,
            stop: CancellationToken::new(),
            abort: CancellationToken::new(),
            running: TaskTracker::new(),
            told: Mutex::default(),
        });
        let tasks = [
            tokio::spawn(ends::write(Arc::clone(&inner), receiver)).abort_handle(),
            tokio::spawn(tend::tend(Arc::clone(&inner))).abort_handle(),
            tokio::spawn(cron::tick(Arc::clone(&inner))).abort_handle(),
        ];
        let dispatching = Arc::clone(&inner);
        tokio::spawn(async move {
            while let Err(error) = register(&dispatching).await {
                tracing::warn!(?error, "cannot register as a worker");
                tokio::select! {
                    () = sleep(AGAIN) => {}
                    () = dispatching.stopped() => break,
                }
            }
            Dispatcher::new(dispatching).run().await;
        });
        fang::start(&inner).await;
        stir(Arc::downgrade(&inner));
        Self { inner, tasks }
    }

    /// Claims nothing more, gives back what is not begun, and waits for the running jobs; what is not finished within 25 seconds
    /// goes back to the queue, uncharged.
    pub async fn stop(self) {
        let inner = &self.inner;
        inner.stop.cancel();
        inner.running.close();
        if timeout(DRAIN, inner.running.wait()).await.is_err() {
            tracing::warn!(
                jobs = inner.running.len(),
                "jobs are still running; they go back to the queue"
            );
            inner.abort.cancel();
            if timeout(LAST_WORDS, inner.running.wait()).await.is_err() {
                tracing::warn!("some cannot be stopped or given back; their leases will end");
            }
        }
        fang::forget(inner);
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Wakes one of the runtime's threads now and then, as long as the worker is there. One thread watches the sockets and the clock
/// for all; if a job blocks just that one, none that sleeps would ever take over.
fn stir(inner: Weak<Inner>) {
    let runtime = Handle::current();
    let stirring = std::thread::Builder::new().name("stir".to_owned());
    let stirring = stirring.spawn(move || {
        while inner.strong_count() > 0 {
            std::thread::sleep(STIR);
            runtime.spawn(std::future::ready(()));
        }
    });
    if let Err(error) = stirring {
        tracing::warn!(
            ?error,
            "a job that blocks its thread may hold up the others"
        );
    }
}

async fn register(inner: &Inner) -> Result<()> {
    let tx = inner.services.database.platform().await?;
    let name = std::process::id().to_string();
    let served = (
        inner.kinds.names(),
        inner.services.config.worker_queues.as_slice(),
    );
    claim::register(&tx, inner.id, &name, served).await?;
    tx.commit().await
}

impl Inner {
    pub(super) fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Something that a stop waits for.
    pub(super) fn running(&self) -> TaskTrackerToken {
        self.running.token()
    }

    /// Returns when nothing more is to be claimed.
    pub(super) async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// Returns when the runs that are left are to end.
    pub(super) async fn aborted(&self) {
        self.abort.cancelled().await;
    }

    /// The job is ours from here on.
    pub(super) fn take(&self, job: Claimed) -> InHand {
        self.held.add(&job);
        if let Some(tenant) = job.tenant_id {
            self.services.database.note_change(tenant);
        }
        let token = self.running.token();
        InHand { job, token }
    }

    /// Keeps it until fang begins it; returns what fang is told.
    pub(super) fn tell(&self, taken: InHand) -> Uuid {
        let id = taken.job.id;
        self.told().insert(id, taken);
        id
    }

    /// What fang begins.
    pub(super) fn begun(&self, job: Uuid) -> Option<InHand> {
        self.told().remove(&job)
    }

    fn told(&self) -> MutexGuard<'_, HashMap<Uuid, InHand>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It goes back to the queue, uncharged.
    pub(super) fn give_back(&self, InHand { job, token }: InHand) {
        self.means.gave_back(job.lane, job.cost.into());
        self.end(End {
            job,
            outcome: Outcome::Released,
            completed: false,
            _token: token,
        });
    }

    /// Has it written down.
    pub(super) fn end(&self, end: End) {
        if let Some(hold) = self.held.get(end.job.id) {
            hold.end();
        }
        // The writer lives as long as this sender.
        let _ = self.ends.send(end);
    }

    /// Jobs of these lanes have ended.
    pub(super) fn freed(&self, lanes: impl Iterator<Item = i32>) {
        let mut freed = self.freed.lock().unwrap_or_else(PoisonError::into_inner);
        freed.extend(lanes);
        drop(freed);
        self.room.notify_one();
    }

    pub(super) fn take_freed(&self) -> BTreeSet<i32> {
        std::mem::take(&mut self.freed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

//! A pool of connections that is sure of each one it hands out.
//!
//! sqlx's own pool (0.9.0) can hand on a connection inside the transaction of a cancelled `begin`, and pings on every
//! return. Here a connection comes back only when its last statement was answered: after its `COMMIT` or
//! `ROLLBACK`, or, from a read, to be ended by the next begin. One whose last statement was cut short is closed.

use super::unit::Unit;
use crate::error::{Error, Result};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};
use std::fmt;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

/// How long a unit of work waits for a connection before it is refused.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
/// How old a transaction may be for another read to go on with it: locks on what was read go no later than this.
const REUSE: Duration = Duration::from_millis(50);
/// How long a read that is over may stay open on an idle connection.
const LINGER: Duration = Duration::from_millis(5);
/// How long an answer may take, statement timeouts and all, before the connection is given up.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long an abandoned transaction may take to roll back before its connection is closed instead.
const ROLLBACK_TIMEOUT: Duration = Duration::from_secs(1);

/// Connections of one login role.
#[derive(Clone, Debug)]
pub(super) struct Pool(Arc<Inner>);

struct Inner {
    options: PgConnectOptions,
    permits: Arc<Semaphore>,
    size: usize,
    idle: Mutex<Vec<Idle>>,
    sweeping: AtomicBool,
}

/// Without the options: they hold the password.
impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("permits", &self.permits)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Idle {
    connection: PgConnection,
    /// The transaction of a read that is over, if it is still open.
    open: Option<Open>,
    /// Whom it served last: coming back to the same tenant spares PostgreSQL from planning the statements again.
    tenant: Option<Uuid>,
}

/// A transaction that was for reading, and is still bound to the tenant it read.
#[derive(Clone, Copy, Debug)]
struct Open {
    began: Instant,
    /// When its last read ended.
    over: Instant,
}

impl Pool {
    pub(super) fn new(options: PgConnectOptions, size: usize) -> Self {
        Self(Arc::new(Inner {
            options,
            permits: Arc::new(Semaphore::new(size)),
            size,
            idle: Mutex::default(),
            sweeping: AtomicBool::new(false),
        }))
    }

    /// Begins a transaction with `begin`, which binds it in the same round trip.
    ///
    /// An idle connection may have died unseen (PostgreSQL was restarted): then all idle ones are dropped, and a new one is
    /// tried once.
    pub(super) async fn begin(&self, tenant: Option<Uuid>, begin: String) -> Result<Unit> {
        let permit = self.permit().await?;
        self.begin_with(permit, tenant, begin).await
    }

    /// The same for reading. A read of the same tenant that ended a moment ago, its transaction still open, is gone on with:
    /// it is bound as this one would be, and each of its statements sees what is committed by then.
    pub(super) async fn begin_read(&self, tenant: Uuid, begin: String) -> Result<Unit> {
        let permit = self.permit().await?;
        let Some((connection, began)) = self.take_open(tenant) else {
            return Ok(self
                .begin_with(permit, Some(tenant), begin)
                .await?
                .reading());
        };
        let mut lease = Lease::new(self.clone(), permit, Some(tenant), connection);
        lease.began = began;
        Ok(Unit::new(lease).reading())
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit> {
        timeout(ACQUIRE_TIMEOUT, Arc::clone(&self.0.permits).acquire_owned())
            .await
            .ok()
            .and_then(std::result::Result::ok)
            .ok_or(Error::Unavailable)
    }

    async fn begin_with(
        &self,
        permit: OwnedSemaphorePermit,
        tenant: Option<Uuid>,
        begin: String,
    ) -> Result<Unit> {
        let reused = self.take(tenant);
        let fresh = reused.is_none();
        let (connection, first) = match reused {
            Some(Idle {
                connection,
                open: Some(_),
                ..
            }) => (connection, format!("COMMIT; {begin}")),
            Some(Idle { connection, .. }) => (connection, begin.clone()),
            None => (self.connect().await?, begin.clone()),
        };
        let mut lease = Lease::new(self.clone(), permit, tenant, connection);
        match lease.run(&first).await {
            Ok(()) => Ok(Unit::new(lease)),
            Err(error) => {
                let Some(permit) = lease.forget() else {
                    return Err(error.into());
                };
                if fresh || !is_lost(&error) {
                    return Err(error.into());
                }
                self.idle().clear();
                let mut lease = Lease::new(self.clone(), permit, tenant, self.connect().await?);
                lease.run(&begin).await?;
                Ok(Unit::new(lease))
            }
        }
    }

    /// Closes the idle connections and refuses to begin anything.
    pub(super) async fn close(&self) {
        self.0.permits.close();
        let idle = std::mem::take(&mut *self.idle());
        for Idle { connection, .. } in idle {
            // A connection that cannot say goodbye is gone already.
            let _ = timeout(ROLLBACK_TIMEOUT, connection.close()).await;
        }
    }

    fn take(&self, tenant: Option<Uuid>) -> Option<Idle> {
        let mut idle = self.idle();
        let same = idle.iter().rposition(|i| i.tenant == tenant);
        // Otherwise the one that has been idle longest: the others are more likely to be asked for by their tenants.
        let index = same.or(if idle.is_empty() { None } else { Some(0) })?;
        Some(idle.remove(index))
    }

    fn take_open(&self, tenant: Uuid) -> Option<(PgConnection, Instant)> {
        let mut idle = self.idle();
        let fits = |idle: &Idle| {
            let open = idle.open.filter(|open| open.began.elapsed() < REUSE);
            idle.tenant == Some(tenant) && open.is_some()
        };
        let index = idle.iter().rposition(fits)?;
        let Idle {
            connection, open, ..
        } = idle.remove(index);
        open.map(|open| (connection, open.began))
    }

    async fn connect(&self) -> Result<PgConnection> {
        let connected = timeout(ACQUIRE_TIMEOUT, self.0.options.connect()).await;
        Ok(connected.map_err(|_| Error::Unavailable)??)
    }

    fn put(&self, connection: PgConnection, tenant: Option<Uuid>, open: Option<Open>) {
        let mut idle = self.idle();
        // One more than fits may come back when the sweeper had it while another was made.
        if !self.0.permits.is_closed() && idle.len() < self.0.size {
            idle.push(Idle {
                connection,
                open,
                tenant,
            });
        }
    }

    /// Takes back a connection whose last read is over but not ended: the tenant's next read goes on with it, another begin
    /// here ends it in the same round trip, and the sweeper does if there is neither soon. So a read of one statement costs
    /// one round trip, not three.
    fn put_open(&self, connection: PgConnection, tenant: Option<Uuid>, began: Instant) {
        let over = Instant::now();
        self.put(connection, tenant, Some(Open { began, over }));
        if !self.0.sweeping.swap(true, Ordering::AcqRel) {
            let pool = self.clone();
            tokio::runtime::Handle::current().spawn(async move { pool.sweep().await });
        }
    }

    /// Ends the reads that nobody has ended for a moment, until there is none.
    async fn sweep(&self) {
        loop {
            sleep(LINGER).await;
            while let Some((mut connection, tenant)) = self.take_stale() {
                let commit = connection.execute(sqlx::raw_sql("COMMIT"));
                if matches!(timeout(ROLLBACK_TIMEOUT, commit).await, Ok(Ok(_))) {
                    self.put(connection, tenant, None);
                }
            }
            let idle = self.idle();
            if !idle.iter().any(|idle| idle.open.is_some()) {
                self.0.sweeping.store(false, Ordering::Release);
                return;
            }
        }
    }

    fn take_stale(&self) -> Option<(PgConnection, Option<Uuid>)> {
        let mut idle = self.idle();
        let stale = |idle: &Idle| idle.open.is_some_and(|open| open.over.elapsed() >= LINGER);
        let index = idle.iter().position(stale)?;
        let Idle {
            connection, tenant, ..
        } = idle.remove(index);
        Some((connection, tenant))
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Idle>> {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the connection is gone: a new one can succeed where this one failed.
fn is_lost(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(_) | sqlx::Error::Protocol(_))
        || error
            .as_database_error()
            .and_then(|e| e.code().map(|code| code.starts_with("57P")))
            .unwrap_or(false)
}

/// A borrowed connection, in a transaction from the first statement on. Dropped before [`Lease::finish`], it rolls back.
#[derive(Debug)]
pub(super) struct Lease {
    pool: Pool,
    tenant: Option<Uuid>,
    held: Option<(PgConnection, OwnedSemaphorePermit)>,
    began: Instant,
    /// A statement was sent and its answer not read to the end. Stays true when the future that sent it is dropped.
    busy: bool,
}

impl Lease {
    fn new(
        pool: Pool,
        permit: OwnedSemaphorePermit,
        tenant: Option<Uuid>,
        connection: PgConnection,
    ) -> Self {
        Self {
            pool,
            tenant,
            held: Some((connection, permit)),
            began: Instant::now(),
            busy: false,
        }
    }

    /// Runs one call on the connection, and knows if it was cut short.
    pub(super) async fn with<T>(
        &mut self,
        call: impl AsyncFnOnce(&mut PgConnection) -> std::result::Result<T, sqlx::Error>,
    ) -> std::result::Result<T, sqlx::Error> {
        let Some((connection, _)) = &mut self.held else {
            return Err(sqlx::Error::PoolClosed);
        };
        if self.busy {
            return Err(sqlx::Error::Protocol(
                "the last statement was cut short".into(),
            ));
        }
        self.busy = true;
        // PostgreSQL ends a statement by itself; this is for one that was cut off and never answers.
        let answer = timeout(PATIENCE, call(connection)).await;
        let answer =
            answer.unwrap_or_else(|_| Err(std::io::Error::from(ErrorKind::TimedOut).into()));
        // Only the server's own word leaves the connection in a known state.
        self.busy = matches!(&answer, Err(e) if e.as_database_error().is_none() && !matches!(e, sqlx::Error::RowNotFound));
        answer
    }

    /// Runs statements of ours by the simple protocol.
    pub(super) async fn run(&mut self, statements: &str) -> std::result::Result<(), sqlx::Error> {
        let statements = AssertSqlSafe(statements.to_owned());
        self.with(async |connection| connection.execute(sqlx::raw_sql(statements)).await)
            .await
            .map(drop)
    }

    /// Ends the transaction and gives the connection back.
    pub(super) async fn finish(
        mut self,
        statement: &'static str,
    ) -> std::result::Result<(), sqlx::Error> {
        self.with(async |connection| connection.execute(sqlx::raw_sql(statement)).await)
            .await?;
        if let Some((connection, _permit)) = self.held.take() {
            self.pool.put(connection, self.tenant, None);
        }
        Ok(())
    }

    /// Gives the connection back with its transaction still open: for reads, whose end nobody waits for.
    pub(super) fn leave(mut self) {
        if self.busy {
            return;
        }
        if let Some((connection, _permit)) = self.held.take() {
            self.pool.put_open(connection, self.tenant, self.began);
        }
    }

    /// Closes the connection, keeping its place in the pool.
    fn forget(mut self) -> Option<OwnedSemaphorePermit> {
        self.held.take().map(|(_connection, permit)| permit)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some((mut connection, permit)) = self.held.take() else {
            return;
        };
        // Closing is safe too: PostgreSQL rolls back when it sees the end of the connection.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        if self.busy {
            return;
        }
        let (pool, tenant) = (self.pool.clone(), self.tenant);
        runtime.spawn(async move {
            let rolled_back = timeout(
                ROLLBACK_TIMEOUT,
                connection.execute(sqlx::raw_sql("ROLLBACK")),
            )
            .await;
            if matches!(rolled_back, Ok(Ok(_))) {
                pool.put(connection, tenant, None);
            }
            drop(permit);
        });
    }
}

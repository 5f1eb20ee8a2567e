//! A pool of connections that is sure of each one it hands out.
//!
//! sqlx's own pool (0.9.0) can hand on a connection inside the transaction of a cancelled `begin`, and pings on every
//! return. Here a connection comes back only after a `COMMIT` or `ROLLBACK` of ours was answered; one whose last statement
//! was cut short is closed.

use super::unit::Unit;
use crate::error::{Error, Result};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};
use std::fmt;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use uuid::Uuid;

/// How long a unit of work waits for a connection before it is refused.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
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
    idle: Mutex<Vec<Idle>>,
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
    /// Whom it served last: coming back to the same tenant spares PostgreSQL from planning the statements again.
    tenant: Option<Uuid>,
}

impl Pool {
    pub(super) fn new(options: PgConnectOptions, size: usize) -> Self {
        Self(Arc::new(Inner {
            options,
            permits: Arc::new(Semaphore::new(size)),
            idle: Mutex::default(),
        }))
    }

    /// Begins a transaction with `begin`, which binds it in the same round trip.
    ///
    /// An idle connection may have died unseen (PostgreSQL was restarted): then all idle ones are dropped, and a new one is
    /// tried once.
    pub(super) async fn begin(&self, tenant: Option<Uuid>, begin: String) -> Result<Unit> {
        let permit = timeout(ACQUIRE_TIMEOUT, Arc::clone(&self.0.permits).acquire_owned())
            .await
            .ok()
            .and_then(std::result::Result::ok)
            .ok_or(Error::Unavailable)?;
        let reused = self.take(tenant);
        let fresh = reused.is_none();
        let connection = match reused {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let mut lease = Lease::new(self.clone(), permit, tenant, connection);
        match lease.run(&begin).await {
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

    fn take(&self, tenant: Option<Uuid>) -> Option<PgConnection> {
        let mut idle = self.idle();
        let same = idle.iter().rposition(|i| i.tenant == tenant);
        // Otherwise the one that has been idle longest: the others are more likely to be asked for by their tenants.
        let index = same.or(if idle.is_empty() { None } else { Some(0) })?;
        Some(idle.remove(index).connection)
    }

    async fn connect(&self) -> Result<PgConnection> {
        let connected = timeout(ACQUIRE_TIMEOUT, self.0.options.connect()).await;
        Ok(connected.map_err(|_| Error::Unavailable)??)
    }

    fn put(&self, connection: PgConnection, tenant: Option<Uuid>) {
        if !self.0.permits.is_closed() {
            self.idle().push(Idle { connection, tenant });
        }
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
            self.pool.put(connection, self.tenant);
        }
        Ok(())
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
                pool.put(connection, tenant);
            }
            drop(permit);
        });
    }
}

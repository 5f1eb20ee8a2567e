//! A borrowed connection, and its way back.

use super::places::Place;
use super::tenants::Admission;
use super::{Connection, Holder, Pool};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor as _};
use std::io::ErrorKind;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// How long an answer may take, statement timeouts and all, before the connection is given up.
const PATIENCE: Duration = Duration::from_mins(1);

/// A borrowed connection, in a transaction from the first statement on. Dropped before [`Lease::finish`], it rolls back.
#[derive(Debug)]
pub(in crate::database) struct Lease {
    pool: Pool,
    /// In this order: the connection is closed or back before the next of the tenant is admitted.
    held: Option<(Option<Admission>, Connection)>,
    began: Instant,
    /// A statement was sent and its answer not read to the end. Stays true when the future that sent it is dropped.
    busy: bool,
}

impl Lease {
    pub(super) fn new(
        pool: Pool,
        holder: Holder,
        admission: Option<Admission>,
        mut connection: Connection,
    ) -> Self {
        connection.serve(holder);
        Self {
            pool,
            held: Some((admission, connection)),
            began: Instant::now(),
            busy: false,
        }
    }

    /// The same, on a transaction that is open since `began`.
    pub(super) fn since(mut self, began: Instant) -> Self {
        self.began = began;
        self
    }

    /// Whether a transaction pooler is in front: it cannot keep prepared statements.
    pub(in crate::database) fn is_pooled(&self) -> bool {
        self.pool.0.logins.is_pooled()
    }

    /// Notes that the connection makes or furnishes so many schemas.
    pub(in crate::database) fn make(&mut self, schemas: usize) {
        if let Some((_, connection)) = &mut self.held {
            connection.make(schemas);
        }
    }

    /// Runs one call on the connection, and knows if it was cut short.
    pub(in crate::database) async fn with<T>(
        &mut self,
        call: impl AsyncFnOnce(&mut PgConnection) -> std::result::Result<T, sqlx::Error>,
    ) -> std::result::Result<T, sqlx::Error> {
        // PostgreSQL ends a statement by itself; this is for one that was cut off and never answers.
        self.within(PATIENCE, call).await
    }

    async fn within<T>(
        &mut self,
        limit: Duration,
        call: impl AsyncFnOnce(&mut PgConnection) -> std::result::Result<T, sqlx::Error>,
    ) -> std::result::Result<T, sqlx::Error> {
        let Some((_, connection)) = &mut self.held else {
            return Err(sqlx::Error::PoolClosed);
        };
        if self.busy {
            // The connection was lost, or a statement on it given up: its other users may try again.
            return Err(std::io::Error::from(ErrorKind::ConnectionAborted).into());
        }
        self.busy = true;
        let answer = timeout(limit, call(&mut connection.session)).await;
        let answer =
            answer.unwrap_or_else(|_| Err(std::io::Error::from(ErrorKind::TimedOut).into()));
        // Only the server's own word leaves the connection in a known state.
        self.busy = matches!(&answer, Err(e) if e.as_database_error().is_none() && !matches!(e, sqlx::Error::RowNotFound));
        answer
    }

    /// Runs the statements that begin a unit of work, by the simple protocol.
    pub(super) async fn begin(
        &mut self,
        statements: String,
        deadline: Instant,
    ) -> std::result::Result<(), sqlx::Error> {
        let limit = deadline.saturating_duration_since(Instant::now());
        let statements = AssertSqlSafe(statements);
        self.within(limit, async |c| c.execute(sqlx::raw_sql(statements)).await)
            .await
            .map(drop)
    }

    /// Ends the transaction and gives the connection back.
    pub(in crate::database) async fn finish(
        mut self,
        statement: &'static str,
    ) -> std::result::Result<(), sqlx::Error> {
        self.with(async |connection| connection.execute(sqlx::raw_sql(statement)).await)
            .await?;
        if let Some((_admission, connection)) = self.held.take() {
            self.pool.put(connection, None);
        }
        Ok(())
    }

    /// Gives the connection back with its transaction still open: for reads, whose end nobody waits for.
    pub(in crate::database) fn leave(mut self) {
        if self.busy {
            return;
        }
        if let Some((_admission, connection)) = self.held.take() {
            self.pool.put_open(connection, self.began);
        }
    }

    /// Drops the connection, but for its place.
    pub(super) fn forget(mut self) -> Option<(Place, Option<Admission>)> {
        let (admission, connection) = self.held.take()?;
        Some((connection.place, admission))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some((admission, mut connection)) = self.held.take() else {
            return;
        };
        // Closing is safe too: PostgreSQL rolls back when it sees the end of the connection.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        if self.busy {
            return;
        }
        let pool = self.pool.clone();
        runtime.spawn(async move {
            if connection.end("ROLLBACK").await {
                pool.put(connection, None);
            }
            drop(admission);
        });
    }
}

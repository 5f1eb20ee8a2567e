//! Units of work: one transaction each, on which SeaORM's entities and statements run.

use super::pool::Lease;
use super::{Database, Tenant, quote};
use crate::actor::Attribution;
use crate::clock::{Clock, Timestamp};
use crate::error::{Error, Result};
use sea_orm::{
    ConnectionTrait, DbBackend, DbErr, ExecResult, QueryResult, RuntimeErr, Statement, Values,
};
use sea_query_sqlx::SqlxValues;
use sqlx::AssertSqlSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{Mutex, Notify};
use uuid::Uuid;

/// An open transaction. Fields of one GraphQL query share it, so it takes turns.
#[derive(Debug)]
pub(super) struct Unit {
    lease: Mutex<Lease>,
    /// It only reads: nothing is lost or held up when its end is not waited for.
    read_only: bool,
    /// A statement failed: PostgreSQL would answer `COMMIT` with a silent rollback.
    failed: AtomicBool,
}

impl Unit {
    pub(super) fn new(lease: Lease) -> Self {
        Self {
            lease: Mutex::new(lease),
            read_only: false,
            failed: AtomicBool::new(false),
        }
    }

    async fn with<T>(
        &self,
        call: impl AsyncFnOnce(&mut sqlx::PgConnection) -> std::result::Result<T, sqlx::Error>,
    ) -> std::result::Result<T, DbErr> {
        let mut lease = self.lease.lock().await;
        let answer = lease.with(call).await;
        drop(lease);
        answer.map_err(|error| {
            self.failed.store(true, Ordering::Relaxed);
            DbErr::Query(RuntimeErr::SqlxError(error.into()))
        })
    }

    async fn batch(&self, statements: &str) -> std::result::Result<(), DbErr> {
        let statements = AssertSqlSafe(statements.to_owned());
        self.with(async |c| sqlx::Executor::execute(c, sqlx::raw_sql(statements)).await)
            .await
            .map(drop)
    }

    /// The same, for reading only.
    pub(super) fn reading(self) -> Self {
        Self {
            read_only: true,
            ..self
        }
    }

    async fn commit(self) -> Result<()> {
        let failed = self.failed.into_inner();
        let lease = self.lease.into_inner();
        if self.read_only && !failed {
            lease.leave();
            return Ok(());
        }
        if failed {
            lease.finish("ROLLBACK").await?;
            return Err(Error::internal(
                "a statement of this unit of work failed; nothing was committed",
            ));
        }
        Ok(lease.finish("COMMIT").await?)
    }

    async fn rollback(self) -> Result<()> {
        let failed = self.failed.into_inner();
        let lease = self.lease.into_inner();
        if self.read_only && !failed {
            lease.leave();
            return Ok(());
        }
        Ok(lease.finish("ROLLBACK").await?)
    }
}

/// A unit of work and what it is bound to.
#[derive(Debug)]
pub struct Bound<S> {
    unit: Unit,
    clock: Clock,
    scope: S,
}

/// A unit of work bound to one tenant: the only way to a tenant's rows.
pub type TenantTx = Bound<TenantScope>;

/// A unit of work on the platform's tables.
pub type PlatformTx = Bound<PlatformScope>;

/// The tenant of a [`TenantTx`].
#[derive(Debug)]
pub struct TenantScope {
    tenant: Arc<Tenant>,
    enqueued: AtomicBool,
    wake: Arc<Notify>,
}

/// The scope of a [`PlatformTx`].
#[derive(Debug)]
pub struct PlatformScope {
    wake: Arc<Notify>,
}

impl<S> Bound<S> {
    /// The time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A new id.
    pub fn new_id(&self) -> Uuid {
        self.clock.new_id()
    }

    /// Whether a statement of it failed: PostgreSQL refuses all that follow.
    pub fn is_broken(&self) -> bool {
        self.unit.failed.load(Ordering::Relaxed)
    }

    /// Undoes it.
    pub async fn rollback(self) -> Result<()> {
        self.unit.rollback().await
    }
}

impl TenantTx {
    pub(super) fn new(unit: Unit, database: &Database, tenant: Arc<Tenant>) -> Self {
        Self {
            unit,
            clock: database.clock,
            scope: TenantScope {
                tenant,
                enqueued: AtomicBool::new(false),
                wake: Arc::clone(&database.enqueued),
            },
        }
    }

    /// The tenant it is bound to.
    pub fn tenant(&self) -> &Arc<Tenant> {
        &self.scope.tenant
    }

    /// Notes that a job was added, so that the commit wakes this process's workers.
    pub(crate) fn note_enqueued(&self) {
        self.scope.enqueued.store(true, Ordering::Relaxed);
    }

    /// Makes it so: rows, history and jobs together.
    pub async fn commit(self) -> Result<()> {
        self.unit.commit().await?;
        if self.scope.enqueued.into_inner() {
            self.scope.wake.notify_one();
        }
        Ok(())
    }

    /// Commits what succeeded, undoes what failed, and hands on the result.
    pub async fn settle<T>(self, result: Result<T>) -> Result<T> {
        match result {
            Ok(value) => self.commit().await.map(|()| value),
            Err(error) => {
                // The error to tell is the first; a connection that cannot roll back is closed.
                let _ = self.rollback().await;
                Err(error)
            }
        }
    }
}

impl PlatformTx {
    pub(super) fn new(unit: Unit, database: &Database) -> Self {
        Self {
            unit,
            clock: database.clock,
            scope: PlatformScope {
                wake: Arc::clone(&database.enqueued),
            },
        }
    }

    /// Runs statements that carry no data, DDL above all, in one round trip.
    pub async fn batch(&self, statements: &str) -> Result<()> {
        Ok(self.unit.batch(statements).await?)
    }

    /// Goes on in a new tenant's schema within the same transaction: how onboarding writes the first rows. The owner of the
    /// schema does it, so no role is taken.
    pub async fn enter(self, tenant: Arc<Tenant>, attribution: &Attribution) -> Result<TenantTx> {
        let bind = format!(
            "{}; {}",
            quote::search_path(&tenant)?,
            quote::attribution(attribution)?
        );
        self.batch(&bind).await?;
        Ok(Bound {
            unit: self.unit,
            clock: self.clock,
            scope: TenantScope {
                tenant,
                enqueued: AtomicBool::new(false),
                wake: self.scope.wake,
            },
        })
    }

    /// Makes it so.
    pub async fn commit(self) -> Result<()> {
        self.unit.commit().await
    }
}

/// The same for both scopes. Statements with data go by the extended protocol, which takes one statement only; there is no
/// door to the other.
#[async_trait::async_trait]
impl<S: Send + Sync> ConnectionTrait for Bound<S> {
    fn get_database_backend(&self) -> DbBackend {
        DbBackend::Postgres
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.unit
            .with(async |c| query(statement).execute(c).await.map(ExecResult::from))
            .await
    }

    async fn execute_unprepared(&self, _sql: &str) -> Result<ExecResult, DbErr> {
        Err(DbErr::Custom(
            "unprepared statements are refused in a unit of work".into(),
        ))
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        Ok(self.query_all_raw(statement).await?.into_iter().next())
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.unit
            .with(async |c| {
                let rows = query(statement).fetch_all(c).await?;
                Ok(rows.into_iter().map(QueryResult::from).collect())
            })
            .await
    }
}

fn query(statement: Statement) -> sqlx::query::Query<'static, sqlx::Postgres, SqlxValues> {
    let values = statement.values.unwrap_or(Values(Vec::new()));
    sqlx::query_with(AssertSqlSafe(statement.sql), SqlxValues(values))
}

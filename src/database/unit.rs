//! Units of work: one transaction each, on which SeaORM's entities and statements run.

use super::changes::Changes;
use super::pool::Lease;
use super::wakes::Noted;
use super::{Database, Tenant, listen, quote, statement, wakes};
use crate::actor::Attribution;
use crate::clock::{Clock, Timestamp};
use crate::error::{DeadlinePassed, Error, Result};
use sea_orm::{
    ConnectionTrait, DbBackend, DbErr, ExecResult, QueryResult, RuntimeErr, Statement, Values,
};
use sea_query_sqlx::SqlxValues;
use sqlx::AssertSqlSafe;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use uuid::Uuid;

/// An open transaction. Fields of one GraphQL query share it, so it takes turns.
#[derive(Debug)]
pub(super) struct Unit {
    lease: Mutex<Lease>,
    /// It only reads: nothing is lost or held up when its end is not waited for.
    read_only: bool,
    /// A statement failed, or a savepoint was left in the middle: PostgreSQL would answer `COMMIT` with a silent rollback, or
    /// commit a half.
    failed: AtomicBool,
    /// Statements are prepared under a name, and kept for the next time.
    prepares: bool,
    savepoints: AtomicU32,
    deadline: Option<Deadline>,
}

impl Unit {
    pub(super) fn new(lease: Lease) -> Self {
        Self {
            prepares: !lease.is_pooled(),
            lease: Mutex::new(lease),
            read_only: false,
            failed: AtomicBool::new(false),
            savepoints: AtomicU32::new(0),
            deadline: None,
        }
    }

    async fn with<T>(
        &self,
        call: impl AsyncFnOnce(&mut sqlx::PgConnection) -> std::result::Result<T, sqlx::Error>,
    ) -> std::result::Result<T, DbErr> {
        let mut lease = self.lease.lock().await;
        let answer = match self.in_time(&mut lease).await {
            Ok(()) => lease.with(call).await,
            Err(error) => Err(error),
        };
        drop(lease);
        answer.map_err(|error| {
            self.failed.store(true, Ordering::Relaxed);
            DbErr::Query(RuntimeErr::SqlxError(error.into()))
        })
    }

    /// Refuses a statement once the time is over, and lets one that is begun late have what is left of it: PostgreSQL itself
    /// ends it then, and the connection lives on.
    async fn in_time(&self, lease: &mut Lease) -> std::result::Result<(), sqlx::Error> {
        let Some(deadline) = &self.deadline else {
            return Ok(());
        };
        let left = deadline.at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(sqlx::Error::Io(io::Error::other(DeadlinePassed)));
        }
        let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1);
        // Telling it is a round trip: not for the tenth part.
        if left + deadline.whole / 10 >= deadline.allowed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let narrow = AssertSqlSafe(format!("SET LOCAL statement_timeout = {left}"));
        lease
            .with(async |c| sqlx::Executor::execute(c, sqlx::raw_sql(narrow)).await)
            .await?;
        deadline.allowed.store(left, Ordering::Relaxed);
        deadline.narrowed.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Whether the next read of the tenant may go on with it as it is.
    fn may_stay_open(&self) -> bool {
        let narrowed = |deadline: &Deadline| deadline.narrowed.load(Ordering::Relaxed);
        self.read_only && !self.deadline.as_ref().is_some_and(narrowed)
    }

    async fn batch(&self, statements: &str) -> std::result::Result<(), DbErr> {
        let statements = AssertSqlSafe(statements.to_owned());
        self.with(async |c| sqlx::Executor::execute(c, sqlx::raw_sql(statements)).await)
            .await
            .map(drop)
    }

    /// The statement as a query, if it is one that a unit of work runs. Values travel apart from it.
    fn query(&self, statement: Statement) -> std::result::Result<Query, DbErr> {
        if !statement::is_allowed(&statement.sql) {
            return Err(DbErr::Custom(format!(
                "a unit of work only reads and changes rows; refused: {}",
                statement.sql.chars().take(40).collect::<String>()
            )));
        }
        let values = statement.values.unwrap_or(Values(Vec::new()));
        let query = sqlx::query_with(AssertSqlSafe(statement.sql), SqlxValues(values));
        Ok(query.persistent(self.prepares))
    }

    /// Runs the work between a savepoint and its end.
    async fn savepoint<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        // A name of its own: one that was left in the middle must not be taken for the one around it.
        let name = format!("s{}", self.savepoints.fetch_add(1, Ordering::Relaxed));
        self.batch(&format!("SAVEPOINT {name}")).await?;
        let mut middle = Middle {
            failed: &self.failed,
            over: false,
        };
        let mut result = work.await;
        if result.is_ok() && self.failed.load(Ordering::Relaxed) {
            result = Err(Error::internal(
                "a statement of this savepoint failed; nothing of it is kept",
            ));
        }
        match &result {
            Ok(_) => self.batch(&format!("RELEASE {name}")).await?,
            Err(_) => {
                let undo = format!("ROLLBACK TO {name}; RELEASE {name}");
                self.batch(&undo).await?;
                self.failed.store(false, Ordering::Relaxed);
                // What PostgreSQL was told of the deadline meanwhile is undone too.
                if let Some(deadline) = &self.deadline {
                    deadline.allowed.store(deadline.whole, Ordering::Relaxed);
                }
            }
        }
        middle.over = true;
        result
    }

    /// The same, for reading only.
    pub(super) fn reading(self) -> Self {
        Self {
            read_only: true,
            ..self
        }
    }

    async fn commit(self) -> Result<()> {
        let may_stay_open = self.may_stay_open();
        let failed = self.failed.into_inner();
        let lease = self.lease.into_inner();
        if may_stay_open && !failed {
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
        let may_stay_open = self.may_stay_open();
        let failed = self.failed.into_inner();
        let lease = self.lease.into_inner();
        if may_stay_open && !failed {
            lease.leave();
            return Ok(());
        }
        Ok(lease.finish("ROLLBACK").await?)
    }
}

/// When the operation that a unit of work is for is over.
#[derive(Debug)]
struct Deadline {
    at: Instant,
    /// Milliseconds that PostgreSQL gives a statement unless told otherwise.
    whole: u64,
    /// The same, as it is told now.
    allowed: AtomicU64,
    narrowed: AtomicBool,
}

type Query = sqlx::query::Query<'static, sqlx::Postgres, SqlxValues>;

/// A savepoint whose end has not come. Dropped, it spoils its unit of work.
struct Middle<'a> {
    failed: &'a AtomicBool,
    over: bool,
}

impl Drop for Middle<'_> {
    fn drop(&mut self) {
        if !self.over {
            self.failed.store(true, Ordering::Relaxed);
        }
    }
}

/// A unit of work and what it is bound to.
#[derive(Debug)]
pub struct Bound<S> {
    unit: Unit,
    clock: Clock,
    /// What it does to jobs, of which its commit brings word.
    jobs: Noted,
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
    changes: Arc<Changes>,
    /// Whom its commit is left to.
    deferred: Option<Deferred>,
}

/// Where a unit of work waits whose commit was put off. Dropped, it is undone.
#[derive(Clone, Debug, Default)]
pub struct Deferred(Arc<std::sync::Mutex<Option<Arc<TenantTx>>>>);

impl Deferred {
    /// The one that waits.
    pub fn get(&self) -> Option<Arc<TenantTx>> {
        self.lock().clone()
    }

    /// The same, to commit it.
    pub fn take(&self) -> Option<Arc<TenantTx>> {
        self.lock().take()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<TenantTx>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The scope of a [`PlatformTx`].
#[derive(Debug)]
pub struct PlatformScope {
    changes: Arc<Changes>,
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

    /// What it does to jobs, of which its commit brings word.
    pub(crate) fn jobs(&self) -> &Noted {
        &self.jobs
    }

    /// Undoes it.
    pub async fn rollback(self) -> Result<()> {
        self.unit.rollback().await
    }

    /// It is for an operation that ends at `deadline`, after `whole`, which is what PostgreSQL gives a statement: from then on
    /// its statements are refused. What was done by then can still be committed.
    #[must_use]
    pub fn until(mut self, deadline: Instant, whole: Duration) -> Self {
        let whole = u64::try_from(whole.as_millis()).unwrap_or(u64::MAX);
        self.unit.deadline = Some(Deadline {
            at: deadline,
            whole,
            allowed: AtomicU64::new(whole),
            narrowed: AtomicBool::new(false),
        });
        self
    }
}

impl TenantTx {
    pub(super) fn new(unit: Unit, database: &Database, tenant: Arc<Tenant>) -> Self {
        Self {
            unit,
            clock: database.clock,
            jobs: Noted::new(&database.wakes),
            scope: TenantScope {
                tenant,
                changes: Arc::clone(&database.changes),
                deferred: None,
            },
        }
    }

    /// Puts its commit off: when it would be committed it waits there, and what is read or written on it goes on. Whoever
    /// takes it commits it.
    #[must_use]
    pub fn deferred(mut self, to: &Deferred) -> Self {
        self.scope.deferred = Some(to.clone());
        self
    }

    /// The tenant it is bound to.
    pub fn tenant(&self) -> &Arc<Tenant> {
        &self.scope.tenant
    }

    /// Runs the work inside a savepoint: kept if it succeeds; undone if it fails, and then the unit of work goes on as if it had
    /// not begun. Left in the middle (its future dropped), it spoils the unit of work, which can only be rolled back.
    ///
    /// Nothing else may run on the unit of work meanwhile.
    pub async fn savepoint<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.unit.savepoint(work).await
    }

    /// From here on what it changes takes this change back, and the history says so.
    pub async fn reverting(&self, change: Uuid) -> Result<()> {
        let told = format!("SET LOCAL bulkhead.reverts = '{change}'");
        Ok(self.unit.batch(&told).await?)
    }

    /// Makes it so: rows, history and jobs together.
    pub async fn commit(mut self) -> Result<()> {
        if let Some(deferred) = self.scope.deferred.take().filter(|_| !self.is_broken()) {
            *deferred.lock() = Some(Arc::new(self));
            return Ok(());
        }
        let writes = !self.unit.read_only;
        self.unit.commit().await?;
        if writes {
            self.scope.changes.note(self.scope.tenant.id);
        }
        self.jobs.committed();
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
            jobs: Noted::new(&database.wakes),
            scope: PlatformScope {
                changes: Arc::clone(&database.changes),
            },
        }
    }

    /// Runs statements that carry no data, DDL above all, in one round trip.
    pub async fn batch(&self, statements: &str) -> Result<()> {
        Ok(self.unit.batch(statements).await?)
    }

    /// Everything it reads from here on is as of its first statement, which is to come.
    pub async fn snapshot(&self) -> Result<()> {
        self.batch("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            .await
    }

    /// Lets its commit return before the disk has it. For what is made again if it is lost; whoever builds on it and commits
    /// makes it last too.
    pub async fn relax(&self) -> Result<()> {
        self.batch("SET LOCAL synchronous_commit = off").await
    }

    /// Tells every process, when this is committed, that a tenant's row or one of its domains has changed.
    pub async fn notify_tenant(&self, id: Uuid) -> Result<()> {
        self.batch(&listen::notify_tenant(id)).await
    }

    /// Tells every process, when this is committed, that these lanes have jobs to run, or that running ones are to end.
    pub async fn notify_jobs(&self, lanes: &[i32], cancelled: bool) -> Result<()> {
        match wakes::notify(lanes, cancelled) {
            Some(notify) => self.batch(&notify).await,
            None => Ok(()),
        }
    }

    /// Makes so many schemas by these statements, and writes their first rows, as this actor.
    pub async fn make(
        &self,
        schemas: usize,
        attribution: &Attribution,
        statements: &str,
    ) -> Result<()> {
        self.unit.lease.lock().await.make(schemas);
        let actor = quote::attribution(attribution)?;
        self.batch(&format!("{actor}; {statements}")).await
    }

    /// Runs statements in a schema that is no tenant's yet, as this actor, and goes on there.
    pub async fn within(
        &self,
        schema: &str,
        attribution: &Attribution,
        statements: &str,
    ) -> Result<()> {
        let path = quote::search_path(schema)?;
        let actor = quote::attribution(attribution)?;
        self.batch(&format!("{path}; {actor}; {statements}")).await
    }

    /// Goes on in a new tenant's schema within the same transaction: how onboarding writes the first rows. The owner of the
    /// schema does it, so no role is taken.
    pub async fn enter(
        mut self,
        tenant: Arc<Tenant>,
        attribution: &Attribution,
    ) -> Result<TenantTx> {
        self.unit.lease.get_mut().make(1);
        self.within(&tenant.schema_name, attribution, "").await?;
        Ok(Bound {
            unit: self.unit,
            clock: self.clock,
            jobs: self.jobs,
            scope: TenantScope {
                tenant,
                changes: self.scope.changes,
                deferred: None,
            },
        })
    }

    /// Makes it so.
    pub async fn commit(self) -> Result<()> {
        self.unit.commit().await?;
        self.jobs.committed();
        Ok(())
    }
}

/// The same for both scopes. Statements with data go by the extended protocol, which takes one statement only, and only
/// those that read and change rows; there is no door to the others.
#[async_trait::async_trait]
impl<S: Send + Sync> ConnectionTrait for Bound<S> {
    fn get_database_backend(&self) -> DbBackend {
        DbBackend::Postgres
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        let query = self.unit.query(statement)?;
        self.unit
            .with(async |c| query.execute(c).await.map(ExecResult::from))
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
        let query = self.unit.query(statement)?;
        self.unit
            .with(async |c| {
                let rows = query.fetch_all(c).await?;
                Ok(rows.into_iter().map(QueryResult::from).collect())
            })
            .await
    }
}

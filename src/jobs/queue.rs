//! The rows of jobs: claimed, kept alive, finished. Every change of state names the state and the claim it starts from, so
//! that a run that lost its job changes nothing.

use super::Kinds;
use crate::clock::Timestamp;
use crate::database::{Database, PlatformTx, TenantTx};
use crate::error::{Error, Result};
use crate::tenancy::lifecycle;
use entity::platform::plan::Limit;
use entity::platform::tenant;
use sea_orm::sea_query::LockType;
use sea_orm::{
    ConnectionTrait as _, DbBackend, EntityTrait as _, FromQueryResult, QuerySelect as _,
    Statement, Value,
};
use std::time::Duration;
use uuid::Uuid;

/// How long a claim holds without a sign of life.
const LEASE: &str = "interval '30 seconds'";

/// States of a job, as stored; but for the last, which is what [`list`] and [`find`] make of a ready job whose time is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i16)]
pub enum State {
    /// Waits for its time and a worker.
    Ready = 1,
    /// A worker has it.
    Running = 2,
    /// Succeeded.
    Done = 3,
    /// Failed for good.
    Dead = 4,
    /// Ended before it ran.
    Cancelled = 5,
    /// Waits for its time.
    Scheduled = 6,
}

/// A job as its tenant sees it.
#[derive(Clone, Debug, FromQueryResult)]
pub struct JobRow {
    /// Identity.
    pub id: Uuid,
    /// Kind.
    pub kind: String,
    /// A number of [`State`].
    pub state: i16,
    /// Runs begun.
    pub attempt: i32,
    /// What the last failed run said, fit for the tenant.
    pub last_error: Option<String>,
    /// When it may run.
    pub run_at: Timestamp,
    /// When its last run began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// The media that it made.
    pub result_id: Option<Uuid>,
}

/// Some of the tenant's jobs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Listed {
    /// In this state.
    pub state: Option<State>,
    /// Made before this one.
    pub before: Option<Uuid>,
    /// Made after this one.
    pub after: Option<Uuid>,
    /// The oldest of them, and the oldest first; else the newest.
    pub oldest: bool,
    /// How many at most.
    pub limit: u64,
}

/// Those of the tenant's jobs.
pub async fn list(tx: &TenantTx, listed: Listed) -> Result<Vec<JobRow>> {
    let values = [
        None::<Vec<Uuid>>.into(),
        listed.state.map(|state| state as i16).into(),
        listed.before.into(),
        i32::try_from(listed.limit).map_err(Error::internal)?.into(),
        listed.after.into(),
        listed.oldest.into(),
    ];
    rows(tx, values).await
}

/// Those of the tenant's jobs that have these ids.
pub async fn find(tx: &TenantTx, ids: Vec<Uuid>) -> Result<Vec<JobRow>> {
    let limit = i32::try_from(ids.len()).map_err(Error::internal)?;
    let values = [
        ids.into(),
        None::<i16>.into(),
        None::<Uuid>.into(),
        limit.into(),
        None::<Uuid>.into(),
        false.into(),
    ];
    rows(tx, values).await
}

async fn rows(tx: &TenantTx, values: [Value; 6]) -> Result<Vec<JobRow>> {
    let query = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "SELECT id, kind, state, attempt, last_error, run_at, started_at, finished_at, result_id
         FROM jobs($1, $2, $3, $4, $5, $6)",
        values,
    );
    Ok(JobRow::find_by_statement(query).all(tx).await?)
}

/// A job that this process holds.
#[derive(Clone, Debug, FromQueryResult, serde::Serialize, serde::Deserialize)]
pub(super) struct Claimed {
    pub(super) id: Uuid,
    pub(super) tenant_id: Uuid,
    pub(super) kind: String,
    pub(super) args: serde_json::Value,
    pub(super) claim: i64,
    pub(super) attempt: i32,
    pub(super) max_attempts: i32,
    pub(super) timeout_ms: i32,
    pub(super) actor: String,
    pub(super) request_id: Option<String>,
}

/// How a run ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The media that it made, if it made one.
    Done(Option<Uuid>),
    /// Again after this time.
    Retry(Duration, Failure),
    Dead(Failure),
    /// Given back unused: the attempt does not count.
    Released,
    /// The same, and not to be claimed before this time has passed.
    Later(Duration),
}

/// Why a run failed: whole for operators, and what the tenant may read.
#[derive(Debug, serde::Serialize)]
pub(super) struct Failure {
    pub(super) public: String,
    pub(super) detail: String,
}

/// Claims the job that has waited longest, of a kind that this binary knows and a tenant that may run one more, in one
/// statement. (The array keeps the plan on the primary key: joined to the sub-select it is a hash join over all jobs.)
///
/// Two claims at once do not see each other, so for a tenant with a limit on its jobs it is looked at again, one by one.
pub(super) async fn claim(
    database: &Database,
    kinds: &Kinds,
    worker: &str,
) -> Result<Option<Claimed>> {
    let sql = format!(
        "UPDATE job SET state = 2, attempt = attempt + 1, claim = nextval('job_claim'), worker = $1,
             lease_until = now() + {LEASE}, started_at = clock_timestamp()
         WHERE id = ANY (ARRAY(
             SELECT id FROM job WHERE state = 1 AND run_at <= now() AND kind = ANY ($2)
                 AND tenant_id <> ALL (ARRAY(
                     SELECT t.id FROM tenant t
                     WHERE (t.state <> 'active' OR t.limits ? 'concurrent_jobs') AND (t.state <> 'active'
                         OR (t.limits->>'concurrent_jobs')::bigint
                             <= (SELECT count(*) FROM job r WHERE r.tenant_id = t.id AND r.state = 2))))
             ORDER BY run_at, seq LIMIT 1 FOR UPDATE SKIP LOCKED))
         RETURNING id, tenant_id, kind, args, claim, attempt, max_attempts, timeout_ms, actor, request_id,
             EXISTS (SELECT FROM tenant t WHERE t.id = tenant_id AND t.limits ? 'concurrent_jobs') AS limited"
    );
    let kinds: Vec<String> = kinds.0.keys().map(|&kind| kind.to_owned()).collect();
    let query =
        Statement::from_sql_and_values(DbBackend::Postgres, sql, [worker.into(), kinds.into()]);
    loop {
        let tx = database.platform().await?;
        let Some(row) = tx.query_one_raw(query.clone()).await? else {
            tx.commit().await?;
            return Ok(None);
        };
        let claimed = Claimed::from_query_result(&row, "")?;
        if !row.try_get::<bool>("", "limited")? || fits(&tx, claimed.tenant_id).await? {
            tx.commit().await?;
            return Ok(Some(claimed));
        }
        tx.rollback().await?;
    }
}

/// Whether the tenant's limit holds with the job that is being claimed. The tenant's row is the turnstile: who has passed it
/// has committed.
async fn fits(tx: &PlatformTx, id: Uuid) -> Result<bool> {
    let tenant = tenant::Entity::find_by_id(id)
        .lock(LockType::NoKeyUpdate)
        .one(tx)
        .await?;
    let max = tenant.and_then(|tenant| tenant.limits.get(Limit::ConcurrentJobs));
    let running = lifecycle::running(tx, id).await?;
    Ok(max.is_none_or(|max| running <= max))
}

/// Prolongs the claim. False: it is lost, and the run must stop.
pub(super) async fn beat(database: &Database, job: &Claimed) -> Result<bool> {
    let sql = format!(
        "UPDATE job SET lease_until = now() + {LEASE} WHERE id = $1 AND claim = $2 AND state = 2"
    );
    change(database, sql, vec![job.id.into(), job.claim.into()])
        .await
        .map(|rows| rows == 1)
}

/// Writes down how the run ended. False: the claim was lost meanwhile, and somebody else decides.
pub(super) async fn finish(database: &Database, job: &Claimed, outcome: &Outcome) -> Result<bool> {
    let (state, attempts_back, delay, failure) = match outcome {
        Outcome::Done(_) => (State::Done, 0, Duration::ZERO, None),
        Outcome::Retry(after, failure) => (State::Ready, 0, *after, Some(failure)),
        Outcome::Dead(failure) => (State::Dead, 0, Duration::ZERO, Some(failure)),
        Outcome::Released => (State::Ready, 1, Duration::ZERO, None),
        Outcome::Later(after) => (State::Ready, 1, *after, None),
    };
    let ended = matches!(state, State::Done | State::Dead);
    let made = match outcome {
        Outcome::Done(made) => *made,
        _ => None,
    };
    let errors = failure.map_or(serde_json::json!([]), |failure| {
        serde_json::json!([{ "attempt": job.attempt, "public": failure.public, "detail": failure.detail }])
    });
    // The last five errors are kept.
    let sql = "UPDATE job SET state = $3, attempt = attempt - $4, lease_until = NULL,
             run_at = CASE WHEN $3 = 1 THEN now() + $5 * interval '1 millisecond' ELSE run_at END,
             finished_at = CASE WHEN $6 THEN clock_timestamp() END,
             errors = jsonb_path_query_array(errors || $7, '$[last - 4 to last]'), result_id = $8
         WHERE id = $1 AND claim = $2 AND state = 2";
    let values = vec![
        job.id.into(),
        job.claim.into(),
        (state as i16).into(),
        attempts_back.into(),
        i64::try_from(delay.as_millis())
            .map_err(Error::internal)?
            .into(),
        ended.into(),
        errors.into(),
        made.into(),
    ];
    change(database, sql.to_owned(), values)
        .await
        .map(|rows| rows == 1)
}

/// Takes jobs from workers that gave no sign of life for a whole lease, and puts them back. One that had its last attempt
/// is claimed once more, to be buried. By the database's clock alone.
pub(super) async fn reap(database: &Database) -> Result<u64> {
    let sql = "UPDATE job SET state = 1, lease_until = NULL,
             errors = jsonb_path_query_array(errors || jsonb_build_array(jsonb_build_object('attempt', attempt,
                 'public', 'The worker was lost.', 'detail', 'no sign of life from ' || worker)), '$[last - 4 to last]')
         WHERE id = ANY (ARRAY(
             SELECT id FROM job WHERE state = 2 AND lease_until < now() FOR UPDATE SKIP LOCKED))";
    change(database, sql.to_owned(), Vec::new()).await
}

async fn change(database: &Database, sql: String, values: Vec<Value>) -> Result<u64> {
    let tx = database.platform().await?;
    let statement = Statement::from_sql_and_values(DbBackend::Postgres, sql, values);
    let changed = tx.execute_raw(statement).await?.rows_affected();
    tx.commit().await?;
    Ok(changed)
}

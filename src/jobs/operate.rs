//! What operators see of the queue, and do to it: lanes of all tenants, jobs with their whole errors.

use super::{Kinds, rows};
use crate::clock::Timestamp;
use crate::database::{PlatformTx, Tenant};
use crate::error::{Error, Result};
use crate::services::Services;
use crate::tenancy::Act;
use entity::platform::tenant::State;
use sea_orm::{ConnectionTrait as _, DbBackend, FromQueryResult, Statement, Value};
use serde::Serialize;
use serde_json::json;
use std::sync::Arc;
use uuid::Uuid;

/// Jobs of a lane that are counted at most: more are more, and a count takes its time.
const COUNTED: i64 = 100_000;

/// Some lanes; of a tenant, in a queue, or both.
#[derive(Clone, Debug, Default)]
pub struct Which {
    /// Of this tenant; none is any, the platform's too.
    pub tenant: Option<Uuid>,
    /// In this queue.
    pub queue: Option<String>,
}

/// A lane, and what is in it.
#[derive(Clone, Debug, FromQueryResult, Serialize)]
pub struct Lane {
    /// Its number.
    pub id: i32,
    /// Whose; the platform's if none.
    pub tenant: Option<String>,
    /// In which queue.
    pub queue: String,
    /// Its share, beside the others'.
    pub weight: f32,
    /// Jobs that run at once at most.
    pub cap: Option<i32>,
    /// Jobs that begin in a second at most.
    pub rate: Option<f32>,
    /// The same at once.
    pub burst: i32,
    /// Why it is paused, if it is.
    pub paused: Option<String>,
    /// Jobs that wait for a worker, up to 100,000.
    pub ready: i64,
    /// Jobs that run.
    pub running: i64,
    /// Seconds that the first one waits.
    pub oldest: Option<f64>,
    /// Kinds that are held back because they keep failing: `kind`, `failures` in a row, `until`.
    pub held: serde_json::Value,
}

/// What is changed of a lane; what is not given stays.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change {
    /// Its share.
    pub weight: Option<f32>,
    /// Jobs at once; none is any number.
    pub cap: Option<Option<i32>>,
    /// Jobs in a second; none is any number.
    pub rate: Option<Option<f32>>,
    /// The same at once.
    pub burst: Option<i32>,
}

/// A job as operators see it.
#[derive(Clone, Debug, FromQueryResult, Serialize)]
pub struct JobDetail {
    /// Identity.
    pub id: Uuid,
    /// Whose; the platform's if none.
    #[serde(skip)]
    tenant_id: Option<Uuid>,
    /// The same, by name.
    pub tenant: Option<String>,
    /// In which queue.
    pub queue: String,
    /// Kind.
    pub kind: String,
    /// ready, running, scheduled, waiting (for others), done, dead or cancelled.
    pub state: String,
    /// Runs begun.
    pub attempt: i32,
    /// Runs that it may have.
    pub max_attempts: i32,
    /// What it is about.
    pub args: serde_json::Value,
    /// Who caused it.
    pub actor: String,
    /// The request that caused it.
    pub request_id: Option<String>,
    /// The trace that it belongs to, as a `traceparent`.
    pub trace: Option<String>,
    /// Who ran it last.
    pub worker: Option<String>,
    /// Its last failures, whole.
    pub errors: serde_json::Value,
    /// When it was added.
    pub created_at: Timestamp,
    /// When it may run.
    pub run_at: Timestamp,
    /// When its last run began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

/// Some jobs.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// In these lanes.
    pub which: Which,
    /// Of this kind.
    pub kind: Option<String>,
    /// In this state.
    pub state: Option<String>,
    /// How many at most, the newest first.
    pub limit: u32,
}

/// The lanes, those of the platform first.
pub async fn lanes(tx: &PlatformTx, which: &Which) -> Result<Vec<Lane>> {
    let query = Statement::from_sql_and_values(
        DbBackend::Postgres,
        format!(
            "SELECT l.id, t.slug AS tenant, l.queue, l.weight, l.cap, l.rate, l.burst, l.paused,
                 (SELECT count(*) FROM (SELECT FROM job WHERE lane = l.id AND state = 1 LIMIT {COUNTED}) j) AS ready,
                 (SELECT count(*) FROM job WHERE lane = l.id AND state = 2) AS running,
                 (SELECT extract(epoch FROM clock_timestamp() - run_at)::float8 FROM job WHERE lane = l.id AND state = 1
                     ORDER BY priority, seq LIMIT 1) AS oldest,
                 (SELECT coalesce(jsonb_agg(jsonb_build_object('kind', b.kind, 'failures', b.failures, 'until', b.held_until)
                     ORDER BY b.kind), '[]') FROM breaker b WHERE b.lane = l.id AND b.held_until IS NOT NULL) AS held
             FROM lane l LEFT JOIN tenant t ON t.id = l.tenant_id
             WHERE ($1::uuid IS NULL OR l.tenant_id = $1) AND ($2::text IS NULL OR l.queue = $2)
             ORDER BY t.slug NULLS FIRST, l.queue"
        ),
        [which.tenant.into(), which.queue.clone().into()],
    );
    Ok(Lane::find_by_statement(query).all(tx).await?)
}

/// Where all lanes of a queue are meant, the platform has one: those that are opened later are like it.
async fn for_all(tx: &PlatformTx, which: &Which) -> Result<()> {
    if which.tenant.is_some() {
        return Ok(());
    }
    let open = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "INSERT INTO lane (queue) SELECT DISTINCT queue FROM lane WHERE queue = $1 ON CONFLICT DO NOTHING",
        [which.queue.clone().into()],
    );
    tx.execute_raw(open).await?;
    Ok(())
}

/// Pauses lanes, saying why, or resumes them, kinds that are held back in them too. Of a whole queue, those too that are opened
/// later. Returns how many it changed. In force from the next claim on.
pub async fn pause(tx: &PlatformTx, which: &Which, why: Option<&str>, act: &Act) -> Result<u64> {
    for_all(tx, which).await?;
    let action = if why.is_some() {
        "jobs.pause"
    } else {
        "jobs.resume"
    };
    let set = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "UPDATE lane SET paused = $3
         WHERE ($1::uuid IS NULL OR tenant_id = $1) AND ($2::text IS NULL OR queue = $2) AND paused IS DISTINCT FROM $3
         RETURNING id",
        [which.tenant.into(), which.queue.clone().into(), why.into()],
    );
    let changed = tx.query_all_raw(set).await?;
    let lanes: Vec<i32> = changed
        .iter()
        .map(|row| row.try_get("", "id"))
        .collect::<Result<_, _>>()?;
    if why.is_none() {
        forget_failures(tx, which).await?;
    }
    tx.notify_jobs(&lanes, false).await?;
    let detail = json!({ "queue": which.queue, "reason": why, "lanes": changed.len() });
    act.log(tx, (action, which.tenant), detail).await?;
    u64::try_from(changed.len()).map_err(Error::internal)
}

/// Kinds that are held back in these lanes are not any more.
async fn forget_failures(tx: &PlatformTx, which: &Which) -> Result<()> {
    let forget = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "DELETE FROM breaker b USING lane l WHERE l.id = b.lane
             AND ($1::uuid IS NULL OR l.tenant_id = $1) AND ($2::text IS NULL OR l.queue = $2)",
        [which.tenant.into(), which.queue.clone().into()],
    );
    tx.execute_raw(forget).await?;
    Ok(())
}

/// Changes lanes; of a whole queue, those too that are opened later. Returns how many there are. In force from the next claim on.
pub async fn set(tx: &PlatformTx, which: &Which, change: Change, act: &Act) -> Result<u64> {
    for_all(tx, which).await?;
    let values: [Value; 8] = [
        which.tenant.into(),
        which.queue.clone().into(),
        change.weight.into(),
        change.cap.is_some().into(),
        change.cap.flatten().into(),
        change.rate.is_some().into(),
        change.rate.flatten().into(),
        change.burst.into(),
    ];
    let set = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "UPDATE lane SET weight = coalesce($3, weight), cap = CASE WHEN $4 THEN $5 ELSE cap END,
             rate = CASE WHEN $6 THEN $7 ELSE rate END, burst = coalesce($8, burst)
         WHERE ($1::uuid IS NULL OR tenant_id = $1) AND ($2::text IS NULL OR queue = $2) RETURNING id",
        values,
    );
    let changed = tx.query_all_raw(set).await?;
    let lanes: Vec<i32> = changed
        .iter()
        .map(|row| row.try_get("", "id"))
        .collect::<Result<_, _>>()?;
    tx.notify_jobs(&lanes, false).await?;
    let detail = json!({
        "queue": which.queue, "weight": change.weight, "cap": change.cap, "rate": change.rate, "burst": change.burst,
    });
    act.log(tx, ("jobs.set", which.tenant), detail).await?;
    u64::try_from(changed.len()).map_err(Error::internal)
}

const COLUMNS: &str = "j.id, j.tenant_id, t.slug AS tenant, l.queue, j.kind,
    (ARRAY['ready', 'running', 'done', 'dead', 'cancelled', 'scheduled', 'waiting'])[j.state] AS state, j.attempt, j.max_attempts, j.args,
    j.actor, j.request_id, j.trace, j.worker, j.errors, j.created_at, j.run_at, j.started_at";

/// The newest of them.
pub async fn list(tx: &PlatformTx, filter: &Filter) -> Result<Vec<JobDetail>> {
    let wanted = "JOIN lane l ON l.id = j.lane LEFT JOIN tenant t ON t.id = l.tenant_id
        WHERE ($1::uuid IS NULL OR j.tenant_id = $1) AND ($2::text IS NULL OR l.queue = $2)
            AND ($3::text IS NULL OR j.kind = $3) AND j.state = ANY ($4) ORDER BY j.id DESC LIMIT $5";
    let states = match filter.state.as_deref() {
        None => (1..=7).collect(),
        Some(name) => vec![state(name)?],
    };
    let query = Statement::from_sql_and_values(
        DbBackend::Postgres,
        format!(
            "SELECT * FROM (
                 (SELECT {COLUMNS}, NULL::timestamptz AS finished_at FROM job j {wanted})
                 UNION ALL (SELECT {COLUMNS}, j.finished_at FROM job_done j {wanted})) j
             ORDER BY id DESC LIMIT $5"
        ),
        [
            filter.which.tenant.into(),
            filter.which.queue.clone().into(),
            filter.kind.clone().into(),
            states.into(),
            i64::from(filter.limit).into(),
        ],
    );
    Ok(JobDetail::find_by_statement(query).all(tx).await?)
}

/// One job.
pub async fn find(tx: &PlatformTx, id: Uuid) -> Result<JobDetail> {
    let lane =
        "JOIN lane l ON l.id = j.lane LEFT JOIN tenant t ON t.id = l.tenant_id WHERE j.id = $1";
    let query = Statement::from_sql_and_values(
        DbBackend::Postgres,
        format!(
            "SELECT {COLUMNS}, NULL::timestamptz AS finished_at FROM job j {lane}
             UNION ALL SELECT {COLUMNS}, j.finished_at FROM job_done j {lane}"
        ),
        [id.into()],
    );
    let found = JobDetail::find_by_statement(query).one(tx).await?;
    found.ok_or_else(|| Error::invalid("id", format!("There is no job {id}, or not any more.")))
}

/// Ends a job that waits, and tells one that runs to end. False: it is over. A tenant's is ended in a unit of work of that
/// tenant's, for its kind may have something to tidy up there; so it is in the log before. Where a tenant has none now, because
/// it is archived or not migrated, nothing is tidied up.
pub async fn cancel(services: &Services, kinds: &Kinds, id: Uuid, act: &Act) -> Result<bool> {
    let database = &services.database;
    let tx = database.platform().await?;
    let job = find(&tx, id).await?;
    tx.commit().await?;
    let tenant = match job.tenant_id {
        Some(owner) => with_units(services, owner).await?,
        None => None,
    };
    let tx = database.platform().await?;
    let detail = json!({ "job": id, "kind": job.kind, "tenant": job.tenant });
    act.log(&tx, ("jobs.cancel", None), detail).await?;
    let is_ended = match tenant {
        None => {
            let done: Option<String> = call(&tx, "cancel_job", id).await?;
            tx.commit().await?;
            done.is_some_and(|done| done != "over")
        }
        Some(tenant) => {
            tx.commit().await?;
            let tx = database.write(&tenant, &act.attribution()).await?;
            let cancelled = rows::cancel(&tx, kinds, id).await;
            tx.settle(cancelled).await?.unwrap_or(false)
        }
    };
    // This process may be over before it tells the others by itself.
    let tx = database.platform().await?;
    tx.notify_jobs(&[], is_ended).await?;
    tx.commit().await?;
    Ok(is_ended)
}

/// The tenant, if units of work begin in it now.
async fn with_units(services: &Services, id: Uuid) -> Result<Option<Arc<Tenant>>> {
    match services.registry.get(id).await {
        Ok(tenant) => {
            Ok(Some(tenant).filter(|t| matches!(t.state, State::Active | State::Suspended)))
        }
        Err(Error::TenantUpgrading | Error::TenantNotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Begins a job anew that is dead or cancelled; one that waits for its time has it now. False: it runs, or is done.
pub async fn retry(tx: &PlatformTx, id: Uuid, act: &Act) -> Result<bool> {
    let job = find(tx, id).await?;
    let lane: Option<i32> = call(tx, "retry_job", id).await?;
    tx.notify_jobs(lane.as_slice(), false).await?;
    act.log(
        tx,
        ("jobs.retry", None),
        json!({ "job": id, "kind": job.kind, "tenant": job.tenant }),
    )
    .await?;
    Ok(lane.is_some())
}

/// Calls one of the platform's functions that change a job, for whoever owns it.
async fn call<T: sea_orm::TryGetable>(
    tx: &PlatformTx,
    function: &str,
    id: Uuid,
) -> Result<Option<T>> {
    let call = Statement::from_sql_and_values(
        DbBackend::Postgres,
        format!(
            "SELECT {function}(owner, $1) AS done FROM (
                 SELECT tenant_id AS owner FROM job WHERE id = $1
                 UNION ALL SELECT tenant_id FROM job_done WHERE id = $1 LIMIT 1) j"
        ),
        [id.into()],
    );
    let row = tx.query_one_raw(call).await?;
    Ok(row.map_or(Ok(None), |row| row.try_get("", "done"))?)
}

/// The number of a state.
fn state(name: &str) -> Result<i16> {
    let names = [
        "ready",
        "running",
        "done",
        "dead",
        "cancelled",
        "scheduled",
        "waiting",
    ];
    let place = names.iter().position(|known| *known == name);
    let place = place.and_then(|place| i16::try_from(place + 1).ok());
    place.ok_or_else(|| Error::invalid("state", format!("A state is one of {}.", names.join(", "))))
}

/// How a tenant's jobs are doing.
#[derive(Clone, Debug, FromQueryResult, Serialize)]
pub struct Load {
    /// Whose; the platform's if none.
    pub tenant: Option<String>,
    /// Jobs that wait for a worker, up to 100,000 a lane.
    pub ready: i64,
    /// Seconds that the first one waits.
    pub oldest: Option<f64>,
    /// Jobs that run.
    pub running: i64,
    /// Jobs that ended in the last minute.
    pub done: i64,
    /// Those of them that failed.
    pub dead: i64,
    /// Seconds from the time they could run to their start: the median of those that were not cancelled.
    pub wait: Option<f64>,
    /// The same of all but a hundredth.
    pub wait_99: Option<f64>,
    /// Seconds that they ran: the median.
    pub run: Option<f64>,
    /// The same of all but a hundredth.
    pub run_99: Option<f64>,
    /// Kinds that are held back because they keep failing.
    pub held: i64,
}

/// The tenants with jobs that wait, run, are held back, or ended in the last minute; the busiest first.
pub async fn top(tx: &PlatformTx, most: u32) -> Result<Vec<Load>> {
    let query = Statement::from_sql_and_values(
        DbBackend::Postgres,
        format!(
            "WITH RECURSIVE waiting AS (
                 (SELECT lane FROM job WHERE state = 1 ORDER BY lane LIMIT 1)
                 UNION ALL
                 SELECT (SELECT j.lane FROM job j WHERE j.state = 1 AND j.lane > w.lane ORDER BY j.lane LIMIT 1)
                 FROM waiting w WHERE w.lane IS NOT NULL
             ), ready AS (
                 SELECT l.tenant_id, sum((SELECT count(*) FROM (
                         SELECT FROM job WHERE lane = l.id AND state = 1 LIMIT {COUNTED}) j)) AS jobs,
                     max((SELECT extract(epoch FROM clock_timestamp() - run_at)::float8 FROM job
                         WHERE lane = l.id AND state = 1 ORDER BY priority, seq LIMIT 1)) AS oldest
                 FROM waiting w JOIN lane l ON l.id = w.lane GROUP BY l.tenant_id
             ), running AS (
                 SELECT tenant_id, count(*) AS jobs FROM job WHERE state = 2 GROUP BY tenant_id
             ), over AS (
                 SELECT tenant_id, count(*) AS jobs, count(*) FILTER (WHERE state = 4) AS dead,
                     percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY extract(epoch FROM started_at - run_at)::float8)
                         FILTER (WHERE state <> 5 AND started_at >= run_at) AS waits,
                     percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY extract(epoch FROM finished_at - started_at)::float8)
                         FILTER (WHERE state <> 5 AND started_at >= run_at) AS runs
                 FROM job_done WHERE finished_at > now() - interval '1 minute' GROUP BY tenant_id
             ), held AS (
                 SELECT l.tenant_id, count(*) AS kinds FROM breaker b JOIN lane l ON l.id = b.lane
                 WHERE b.held_until IS NOT NULL GROUP BY l.tenant_id
             ), who AS (
                 SELECT tenant_id FROM ready UNION SELECT tenant_id FROM running UNION SELECT tenant_id FROM over
                 UNION SELECT tenant_id FROM held)
             SELECT t.slug AS tenant, coalesce(r.jobs, 0)::bigint AS ready, r.oldest, coalesce(n.jobs, 0) AS running,
                 coalesce(o.jobs, 0) AS done, coalesce(o.dead, 0) AS dead, o.waits[1] AS wait, o.waits[2] AS wait_99, o.runs[1] AS run,
                 o.runs[2] AS run_99, coalesce(h.kinds, 0) AS held
             FROM who w LEFT JOIN tenant t ON t.id = w.tenant_id
             LEFT JOIN ready r ON r.tenant_id IS NOT DISTINCT FROM w.tenant_id
             LEFT JOIN running n ON n.tenant_id IS NOT DISTINCT FROM w.tenant_id
             LEFT JOIN over o ON o.tenant_id IS NOT DISTINCT FROM w.tenant_id
             LEFT JOIN held h ON h.tenant_id IS NOT DISTINCT FROM w.tenant_id
             ORDER BY running DESC, ready DESC, done DESC, tenant LIMIT $1"
        ),
        [i64::from(most).into()],
    );
    Ok(Load::find_by_statement(query).all(tx).await?)
}

/// How the jobs of a queue are doing, over all tenants.
#[derive(Clone, Debug, FromQueryResult)]
pub struct QueueLoad {
    /// Its name.
    pub queue: String,
    /// Jobs that wait for a worker, up to 100,000 a lane.
    pub ready: i64,
    /// Seconds that the first one waits.
    pub oldest: Option<f64>,
    /// Jobs that run.
    pub running: i64,
    /// Kinds that are held back for a tenant.
    pub held: i64,
}

/// The queues.
pub async fn queues(tx: &PlatformTx) -> Result<Vec<QueueLoad>> {
    let query = Statement::from_string(
        DbBackend::Postgres,
        format!(
            "WITH RECURSIVE waiting AS (
                 (SELECT lane FROM job WHERE state = 1 ORDER BY lane LIMIT 1)
                 UNION ALL
                 SELECT (SELECT j.lane FROM job j WHERE j.state = 1 AND j.lane > w.lane ORDER BY j.lane LIMIT 1)
                 FROM waiting w WHERE w.lane IS NOT NULL
             ), ready AS (
                 SELECT l.queue, sum((SELECT count(*) FROM (
                         SELECT FROM job WHERE lane = l.id AND state = 1 LIMIT {COUNTED}) j)) AS jobs,
                     max((SELECT extract(epoch FROM clock_timestamp() - run_at)::float8 FROM job
                         WHERE lane = l.id AND state = 1 ORDER BY priority, seq LIMIT 1)) AS oldest
                 FROM waiting w JOIN lane l ON l.id = w.lane GROUP BY l.queue
             ), running AS (
                 SELECT l.queue, count(*) AS jobs FROM job j JOIN lane l ON l.id = j.lane WHERE j.state = 2 GROUP BY l.queue
             ), held AS (
                 SELECT l.queue, count(*) AS kinds FROM breaker b JOIN lane l ON l.id = b.lane
                 WHERE b.held_until IS NOT NULL GROUP BY l.queue)
             SELECT q.queue, coalesce(r.jobs, 0)::bigint AS ready, r.oldest, coalesce(n.jobs, 0) AS running,
                 coalesce(h.kinds, 0) AS held
             FROM (SELECT DISTINCT queue FROM lane) q LEFT JOIN ready r USING (queue) LEFT JOIN running n USING (queue)
             LEFT JOIN held h USING (queue) ORDER BY q.queue"
        ),
    );
    Ok(QueueLoad::find_by_statement(query).all(tx).await?)
}

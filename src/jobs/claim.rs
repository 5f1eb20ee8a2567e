//! The calls that take jobs from the queue: what may be taken, and taking it.

use super::lanes::{Lanes, Standing};
use crate::database::{Database, PlatformTx};
use crate::error::{Error, Result};
use crate::telemetry::Trace;
use sea_orm::{ConnectionTrait as _, DbBackend, FromQueryResult, QueryResult, Statement, Value};
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;

/// Jobs whose time has come that are made ready in one statement.
const PROMOTED: i32 = 1000;

/// A job that this process holds.
#[derive(Debug, FromQueryResult)]
pub(super) struct Claimed {
    pub(super) id: Uuid,
    pub(super) lane: i32,
    pub(super) tenant_id: Option<Uuid>,
    pub(super) kind: String,
    /// As text: what cannot be read ends this job, and not the claim.
    args: String,
    pub(super) claim: i64,
    pub(super) attempt: i32,
    pub(super) max_attempts: i32,
    pub(super) timeout_ms: i32,
    pub(super) actor: String,
    pub(super) request_id: Option<String>,
    pub(super) cost: f32,
    /// The job that waits for this one.
    pub(super) batch: Option<Uuid>,
    /// What it belongs to, as a `traceparent`.
    pub(super) trace: Option<String>,
    /// Seconds for which it could have been run.
    pub(super) waited: f32,
    priority: i16,
    seq: i64,
}

impl Claimed {
    /// What it is about; nothing, which fits no kind, if it cannot be read.
    pub(super) fn args(&self) -> serde_json::Value {
        serde_json::from_str(&self.args).unwrap_or_default()
    }

    /// Where it was caused.
    pub(super) fn parent(&self) -> Option<Trace> {
        self.trace.as_deref().and_then(Trace::parse)
    }

    /// Its own span, in the trace of what caused it.
    pub(super) fn span(&self) -> Trace {
        Trace::within(self.parent(), self.id)
    }

    /// How long one run may take.
    pub(super) fn timeout(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.timeout_ms).unwrap_or_default())
    }
}

/// What is asked for.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) node: Uuid,
    pub(super) lanes: &'a [i32],
    pub(super) jobs: usize,
    /// Only of these; of all if there are none.
    pub(super) queues: &'a [String],
    pub(super) costs: serde_json::Value,
    pub(super) corrections: &'a [(i32, f64)],
}

/// What a claim took, in the order in which it is to start, and the lanes that it looked at.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) jobs: Vec<Claimed>,
    pub(super) lanes: Vec<(i32, Looked)>,
}

/// What a claim saw of a lane.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Looked {
    /// Its virtual time before.
    start: f64,
    weight: f32,
    /// How much it was charged, in virtual time.
    charged: f64,
    /// Jobs that there was room for.
    room: i64,
    /// Ready jobs of those.
    found: i64,
    /// Jobs that it gave.
    pub(super) taken: i64,
}

impl Looked {
    pub(super) fn standing(&self) -> Standing {
        let vtime = self.start + self.charged;
        if self.room == 0 {
            Standing::Blocked(vtime)
        } else if self.found >= self.room || self.taken < self.found {
            Standing::More(vtime)
        } else {
            Standing::Empty
        }
    }
}

/// Takes jobs.
pub(super) async fn claim(database: &Database, wanted: &Wanted<'_>) -> Result<Taken> {
    let corrections: serde_json::Map<String, serde_json::Value> = wanted
        .corrections
        .iter()
        .map(|(lane, seconds)| (lane.to_string(), (*seconds).into()))
        .collect();
    let query = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "SELECT * FROM take_jobs($1, $2, $3, $4, $5, $6)",
        [
            wanted.node.into(),
            wanted.lanes.to_vec().into(),
            i32::try_from(wanted.jobs).map_err(Error::internal)?.into(),
            queues(wanted.queues),
            wanted.costs.clone().into(),
            serde_json::Value::Object(corrections).into(),
        ],
    );
    let mut jobs: Vec<Claimed> = Vec::new();
    let mut lanes: BTreeMap<i32, Looked> = BTreeMap::new();
    for row in all(database, query).await? {
        if let Some(room) = row.try_get::<Option<i32>>("", "room")? {
            let lane = lanes.entry(row.try_get("", "lane")?).or_default();
            lane.room = i64::from(room);
            lane.start = row.try_get("", "start")?;
            lane.weight = row.try_get("", "weight")?;
        } else if let Some(found) = row.try_get::<Option<i64>>("", "found")? {
            lanes.entry(row.try_get("", "lane")?).or_default().found = found;
        } else {
            jobs.push(Claimed::from_query_result(&row, "")?);
        }
    }
    let jobs = in_order(jobs, &mut lanes);
    let lanes = lanes.into_iter().collect();
    Ok(Taken { jobs, lanes })
}

/// The jobs by their start tags: what was charged in their lanes before each.
fn in_order(mut jobs: Vec<Claimed>, lanes: &mut BTreeMap<i32, Looked>) -> Vec<Claimed> {
    jobs.sort_unstable_by_key(|job| (job.lane, job.priority, job.seq));
    let tagged = jobs.into_iter().map(|job| {
        let lane = lanes.entry(job.lane).or_default();
        let tag = lane.start + lane.charged;
        lane.taken += 1;
        lane.charged += f64::from(job.cost) / f64::from(lane.weight);
        (tag, job)
    });
    let mut tagged: Vec<(f64, Claimed)> = tagged.collect();
    tagged.sort_by(|a, b| a.0.total_cmp(&b.0));
    tagged.into_iter().map(|(_, job)| job).collect()
}

/// The lanes that have ready jobs, each found by one step through the index, with their virtual times.
pub(super) async fn scan(database: &Database, of: &[String], lanes: &mut Lanes) -> Result<()> {
    let query = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "WITH RECURSIVE active AS (
             (SELECT lane FROM job WHERE state = 1 ORDER BY lane LIMIT 1)
             UNION ALL
             SELECT (SELECT j.lane FROM job j WHERE j.state = 1 AND j.lane > a.lane ORDER BY j.lane LIMIT 1)
             FROM active a WHERE a.lane IS NOT NULL)
         SELECT l.id, l.vtime FROM active a JOIN lane l ON l.id = a.lane LEFT JOIN tenant t ON t.id = l.tenant_id
         WHERE l.paused IS NULL AND ($1::text[] IS NULL OR l.queue = ANY ($1)) AND (t.id IS NULL OR t.state = 'active')",
        [queues(of)],
    );
    let found = all(database, query).await?;
    let found: Vec<(i32, f64)> = found
        .iter()
        .map(|row| Ok((row.try_get("", "id")?, row.try_get("", "vtime")?)))
        .collect::<Result<_>>()?;
    lanes.scanned(found);
    Ok(())
}

/// Of lanes that a claim did not name: those that are of other queues, and those that may not be claimed from.
pub(super) async fn shut(
    database: &Database,
    lanes: &[i32],
    of: &[String],
) -> Result<(Vec<i32>, Vec<i32>)> {
    let query = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "SELECT l.id, $2::text[] IS NULL OR l.queue = ANY ($2) AS ours FROM lane l LEFT JOIN tenant t ON t.id = l.tenant_id
         WHERE l.id = ANY ($1) AND (NOT ($2::text[] IS NULL OR l.queue = ANY ($2)) OR l.paused IS NOT NULL OR t.state <> 'active')",
        [lanes.to_vec().into(), queues(of)],
    );
    let (mut others, mut closed) = (Vec::new(), Vec::new());
    for row in all(database, query).await? {
        let lane = row.try_get("", "id")?;
        if row.try_get("", "ours")? {
            closed.push(lane);
        } else {
            others.push(lane);
        }
    }
    Ok((others, closed))
}

/// Makes those ready whose time has come. Returns their lanes, and how long until the next one's.
pub(super) async fn promote(database: &Database) -> Result<(Vec<i32>, Option<Duration>)> {
    let query = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "SELECT lane, tenant_id, next FROM promote_jobs($1)",
        [PROMOTED.into()],
    );
    let rows = all(database, query).await?;
    let (mut lanes, mut next) = (Vec::new(), None);
    for row in rows {
        match row.try_get::<Option<i32>>("", "lane")? {
            Some(lane) => {
                lanes.push(lane);
                if let Some(tenant) = row.try_get("", "tenant_id")? {
                    database.note_change(tenant);
                }
            }
            None => next = row.try_get::<Option<f64>>("", "next")?,
        }
    }
    Ok((
        lanes,
        next.map(|next| Duration::from_secs_f64(next.max(0.0))),
    ))
}

/// Says that this process runs jobs.
pub(super) async fn register(
    tx: &PlatformTx,
    node: Uuid,
    name: &str,
    (kinds, of): (Vec<String>, &[String]),
) -> Result<()> {
    let insert = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "INSERT INTO node (id, name, version, kinds, queues) VALUES ($1, $2, $3, $4, $5)",
        [
            node.into(),
            name.into(),
            env!("CARGO_PKG_VERSION").into(),
            kinds.into(),
            queues(of),
        ],
    );
    tx.execute_raw(insert).await?;
    Ok(())
}

fn queues(queues: &[String]) -> Value {
    let queues = (!queues.is_empty()).then(|| queues.to_vec());
    queues.into()
}

async fn all(database: &Database, query: Statement) -> Result<Vec<QueryResult>> {
    let tx = database.platform().await?;
    let rows = tx.query_all_raw(query).await?;
    tx.commit().await?;
    Ok(rows)
}

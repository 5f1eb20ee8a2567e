//! Jobs by the clock: those whose kinds have a schedule in the code. Every process looks once a second which times of which kinds
//! are due, by the database's clock; who writes down a time first adds its jobs, in one transaction, so each time has its jobs
//! once, however many look.

use super::kinds::Kinds;
use super::times::{CatchUp, Times};
use super::worker::Inner;
use super::{key, schedule};
use crate::clock::Timestamp;
use crate::database::{Database, PlatformTx};
use crate::error::{Error, Result};
use crate::tenancy::Act;
use sea_orm::{ConnectionTrait as _, DbBackend, FromQueryResult, Statement};
use serde::Serialize;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;
use uuid::Uuid;

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(1);
/// When a kind's jobs are added.
#[derive(Clone, Copy, Debug)]
pub struct Cron {
    expression: &'static str,
    time_zone: &'static str,
    catch_up: CatchUp,
}

impl Cron {
    /// By five fields: minute, hour, day of the month, month, day of the week (POSIX crontab); in UTC, the last missed time made
    /// up for.
    pub const fn new(expression: &'static str) -> Self {
        Self {
            expression,
            time_zone: "UTC",
            catch_up: CatchUp::Last,
        }
    }

    /// In a time zone of the IANA database, such as `Europe/Berlin`.
    #[must_use]
    pub const fn in_zone(self, time_zone: &'static str) -> Self {
        Self { time_zone, ..self }
    }

    /// The same with another way to catch up.
    #[must_use]
    pub const fn catching_up(self, catch_up: CatchUp) -> Self {
        Self { catch_up, ..self }
    }

    /// The times after `last` up to `now`, oldest first, and whether each is to have its jobs.
    fn due(&self, last: Timestamp, now: Timestamp) -> Result<Vec<(Timestamp, bool)>> {
        Ok(self.times()?.due(self.catch_up, last, now))
    }

    fn times(&self) -> Result<Times> {
        let Self {
            expression,
            time_zone,
            ..
        } = self;
        let wrong =
            |e: String| Error::config(format!("the schedule {expression:?} in {time_zone:?}: {e}"));
        Times::parse(expression, time_zone).map_err(wrong)
    }
}

/// A kind that has a schedule.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scheduled {
    pub(super) cron: Cron,
    pub(super) how: How,
    pub(super) for_tenants: bool,
}

/// How jobs of a kind are added.
#[derive(Clone, Copy, Debug)]
pub(super) struct How {
    pub(super) kind: &'static str,
    pub(super) queue: &'static str,
    pub(super) priority: i16,
    pub(super) timeout: Duration,
    pub(super) max_attempts: i32,
    pub(super) unique: bool,
}

/// A kind that has a schedule, as operators see it.
#[derive(Clone, Debug, Serialize)]
pub struct ByClock {
    /// Its name.
    pub kind: &'static str,
    /// The five fields.
    pub expression: &'static str,
    /// In which they are meant.
    pub time_zone: &'static str,
    /// Each tenant has a job of its own; or the platform one.
    pub for_tenants: bool,
    /// Operators have not switched it off.
    pub enabled: bool,
    /// The last time that was taken care of.
    pub last: Option<Timestamp>,
    /// The next one, if it is on.
    pub next: Option<Timestamp>,
}

/// The kinds that have a schedule.
pub async fn list(tx: &PlatformTx, kinds: &Kinds) -> Result<Vec<ByClock>> {
    let query = Statement::from_string(
        DbBackend::Postgres,
        "SELECT c.kind, c.enabled, (SELECT max(t.due_at) FROM cron_tick t WHERE t.kind = c.kind) AS last FROM cron c",
    );
    let mut known: HashMap<String, (bool, Option<Timestamp>)> = HashMap::new();
    for row in tx.query_all_raw(query).await? {
        let standing = (row.try_get("", "enabled")?, row.try_get("", "last")?);
        known.insert(row.try_get("", "kind")?, standing);
    }
    let one = |each: &Scheduled| {
        let (enabled, last) = known.get(each.how.kind).copied().unwrap_or((true, None));
        let next = each.cron.times()?.after(tx.now()).next();
        Ok(ByClock {
            kind: each.how.kind,
            expression: each.cron.expression,
            time_zone: each.cron.time_zone,
            for_tenants: each.for_tenants,
            enabled,
            last,
            next: next.filter(|_| enabled),
        })
    };
    kinds.scheduled().iter().map(one).collect()
}

/// Switches a kind's schedule off, or on again: then it begins with the next time, and none that has passed is made up for.
pub async fn switch(
    tx: &PlatformTx,
    kinds: &Kinds,
    (kind, enabled): (&str, bool),
    act: &Act,
) -> Result<()> {
    if !kinds.scheduled().iter().any(|each| each.how.kind == kind) {
        let told = format!(
            "No kind {kind:?} runs by the clock; `bulkhead jobs cron` lists those that do."
        );
        return Err(Error::invalid("kind", told));
    }
    let set = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "INSERT INTO cron AS c (kind, enabled) VALUES ($1, $2) ON CONFLICT (kind) DO UPDATE SET enabled = $2,
             since = CASE WHEN $2 AND NOT c.enabled THEN clock_timestamp() ELSE c.since END",
        [kind.into(), enabled.into()],
    );
    tx.execute_raw(set).await?;
    let detail = serde_json::json!({ "kind": kind, "enabled": enabled });
    act.log(tx, ("jobs.cron", None), detail).await
}

/// Ticks until it is dropped.
pub(super) async fn tick(inner: Arc<Inner>) {
    let database = &inner.services.database;
    let mut known = false;
    loop {
        if !known {
            known = said(introduce(database, &inner.kinds).await);
        }
        if known {
            said(look(database, inner.kinds.scheduled()).await);
            said(schedule::look(database, &inner.kinds).await);
        }
        sleep(LOOK).await;
    }
}

fn said(result: Result<()>) -> bool {
    if let Err(error) = &result {
        tracing::warn!(?error, "cannot look which jobs are due by the clock");
    }
    result.is_ok()
}

async fn introduce(database: &Database, kinds: &Kinds) -> Result<()> {
    let names: Vec<String> = kinds
        .scheduled()
        .iter()
        .map(|each| each.how.kind.to_owned())
        .collect();
    let tx = database.platform().await?;
    let insert = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "INSERT INTO cron (kind) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING",
        [names.into()],
    );
    tx.execute_raw(insert).await?;
    tx.commit().await
}

/// How far a kind's times are taken care of.
#[derive(Debug, FromQueryResult)]
struct Standing {
    kind: String,
    last: Timestamp,
    now: Timestamp,
}

async fn look(database: &Database, scheduled: &[Scheduled]) -> Result<()> {
    if scheduled.is_empty() {
        return Ok(());
    }
    let tx = database.platform().await?;
    let query = Statement::from_string(
        DbBackend::Postgres,
        "SELECT c.kind, greatest(c.since, (SELECT max(t.due_at) FROM cron_tick t WHERE t.kind = c.kind)) AS last,
             clock_timestamp() AS now
         FROM cron c WHERE c.enabled",
    );
    let standing = Standing::find_by_statement(query).all(&tx).await?;
    tx.commit().await?;
    let standing: HashMap<String, Standing> = standing
        .into_iter()
        .map(|each| (each.kind.clone(), each))
        .collect();
    for each in scheduled {
        let Some(at) = standing.get(each.how.kind) else {
            continue;
        };
        for (time, runs) in each.cron.due(at.last, at.now)? {
            take(database, each, time, runs).await?;
        }
    }
    Ok(())
}

/// Takes care of one time, if nobody has, and the kind was not switched off meanwhile.
async fn take(
    database: &Database,
    scheduled: &Scheduled,
    time: Timestamp,
    runs: bool,
) -> Result<()> {
    let tx = database.platform().await?;
    let insert = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "WITH old AS (DELETE FROM cron_tick WHERE kind = $1 AND due_at < $2 - interval '30 days')
         INSERT INTO cron_tick (kind, due_at) SELECT c.kind, $2 FROM cron c WHERE c.kind = $1 AND c.enabled FOR SHARE
         ON CONFLICT DO NOTHING",
        [scheduled.how.kind.into(), time.into()],
    );
    if tx.execute_raw(insert).await?.rows_affected() == 0 || !runs {
        return tx.commit().await;
    }
    let owners = if scheduled.for_tenants {
        tenants(&tx).await?
    } else {
        vec![Uuid::nil()]
    };
    for some in owners.chunks(1000) {
        add(&tx, &scheduled.how, some).await?;
    }
    tx.commit().await
}

/// The tenants in use.
async fn tenants(tx: &PlatformTx) -> Result<Vec<Uuid>> {
    let query = Statement::from_string(
        DbBackend::Postgres,
        "SELECT id FROM tenant WHERE state = 'active' ORDER BY id",
    );
    let rows = tx.query_all_raw(query).await?;
    let ids = rows.iter().map(|row| row.try_get("", "id"));
    Ok(ids.collect::<Result<_, _>>()?)
}

/// Adds a job for each of them; the id that is nil is the platform.
async fn add(tx: &PlatformTx, how: &How, owners: &[Uuid]) -> Result<()> {
    let args = serde_json::json!({});
    let key = how.unique.then(|| key(how.kind, &args));
    let ids: Vec<Uuid> = owners.iter().map(|_| tx.new_id()).collect();
    let timeout = i32::try_from(how.timeout.as_millis()).map_err(Error::internal)?;
    // The platform's at once; a tenant's within a minute, always at the same second.
    let statement = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "SELECT added.lane FROM (SELECT nullif(o, '00000000-0000-0000-0000-000000000000') AS owner, j AS job
             FROM unnest($1::uuid[], $2::uuid[]) AS u (o, j)) s, LATERAL add_job(s.owner, s.job, $3, $4, $5, $6,
             $7, $8, CASE WHEN s.owner IS NOT NULL THEN
                 now() + mod(hashtext(s.owner::text)::bigint + 2147483648, 60) * interval '1 second' END,
             $9, 'system:cron', NULL) AS added",
        [
            owners.to_vec().into(),
            ids.into(),
            how.kind.into(),
            args.into(),
            how.max_attempts.into(),
            timeout.into(),
            how.queue.into(),
            how.priority.into(),
            key.into(),
        ],
    );
    for row in tx.query_all_raw(statement).await? {
        tx.jobs().job(row.try_get("", "lane")?);
    }
    Ok(())
}

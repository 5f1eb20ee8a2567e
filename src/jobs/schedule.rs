//! Schedules of tenants: jobs by the clock that a tenant's own people ask for, of kinds that allow it. Their rows are the
//! tenant's; the clock goes by a copy of them that the database keeps. Whoever finds one that is due adds its job and notes its
//! next time in one transaction.

use super::Kinds;
use super::cron::How;
use super::key;
use super::times::{CatchUp, Times};
use crate::clock::Timestamp;
use crate::database::{Database, PlatformTx, TenantTx};
use crate::error::{Error, Result};
use crate::tenancy::quota::take_turn;
use entity::tenant::schedule::{ActiveModel, Column, Entity, Model};
use sea_orm::{
    ActiveEnum as _, ActiveModelTrait as _, ColumnTrait as _, ConnectionTrait as _, DbBackend,
    EntityTrait as _, FromQueryResult, PaginatorTrait as _, QueryFilter as _, QuerySelect as _,
    Set, Statement,
};
use serde_json::Value;
use std::time::Duration;
use uuid::Uuid;

/// Schedules that a tenant has at most, of all kinds.
const MOST: u64 = 100;
/// Bytes that the arguments have at most.
const ARGUMENTS: usize = 16 * 1024;
/// Times that are looked at for how close they are.
const LOOKED: usize = 1000;
/// Schedules whose jobs are added in one transaction.
const BATCH: u64 = 100;
/// When one is looked at again that has no time any more.
const NEVER: Duration = Duration::from_hours(24 * 365);

/// Within which bounds tenants may put a kind on schedules of their own.
#[derive(Clone, Copy, Debug)]
pub struct Schedules {
    /// How many of the kind.
    pub most: u32,
    /// How much time is from one run to the next, at least.
    pub every: Duration,
}

/// A kind that tenants may put on schedules.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedulable {
    pub(super) how: How,
    pub(super) schedules: Schedules,
    /// Whether these are its arguments.
    pub(super) takes: fn(Value) -> bool,
}

/// A schedule to be made, or what is to be of one.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Kind of the jobs.
    pub kind: String,
    /// What they are about.
    pub args: Value,
    /// Five fields: minute, hour, day of the month, month, day of the week (POSIX crontab).
    pub expression: String,
    /// Of the IANA database.
    pub time_zone: String,
    /// What becomes of times that were missed.
    pub catch_up: CatchUp,
    /// Whether it has times.
    pub enabled: bool,
}

/// What to change of a schedule; what is not given stays.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// What the jobs are about.
    pub args: Option<Value>,
    /// When they are.
    pub expression: Option<String>,
    /// Where that is.
    pub time_zone: Option<String>,
    /// What becomes of times that were missed.
    pub catch_up: Option<CatchUp>,
    /// Whether it has times.
    pub enabled: Option<bool>,
    /// Refuse unless this is its version.
    pub if_version: Option<i32>,
}

/// Makes a schedule, if the kind allows it and the tenant may have one more.
pub async fn create(tx: &TenantTx, kinds: &Kinds, wanted: Wanted) -> Result<Model> {
    let now = tx.now();
    let bounds = check(kinds, &wanted, now)?;
    take_turn(tx).await?;
    let of_kind = Entity::find().filter(Column::Kind.eq(&wanted.kind));
    if of_kind.count(tx).await? >= u64::from(bounds.most) {
        let told = format!(
            "There are {} schedules of {} already, and no more are allowed.",
            bounds.most, wanted.kind
        );
        return Err(Error::invalid("kind", told));
    }
    if Entity::find().count(tx).await? >= MOST {
        let told = format!("A tenant has at most {MOST} schedules.");
        return Err(Error::invalid("kind", told));
    }
    let made = ActiveModel {
        id: Set(tx.new_id()),
        kind: Set(wanted.kind),
        args: Set(wanted.args),
        expression: Set(wanted.expression),
        time_zone: Set(wanted.time_zone),
        catch_up: Set(wanted.catch_up),
        enabled: Set(wanted.enabled),
        created_at: Set(now),
        updated_at: Set(now),
        version: Set(1),
    };
    Ok(made.insert(tx).await?)
}

/// Changes a schedule. Other times count from now on.
pub async fn update(tx: &TenantTx, kinds: &Kinds, id: Uuid, change: Change) -> Result<Model> {
    let before = lock(tx, id).await?;
    if change
        .if_version
        .is_some_and(|version| version != before.version)
    {
        return Err(Error::VersionConflict(before.version));
    }
    let wanted = Wanted {
        kind: before.kind.clone(),
        args: change.args.unwrap_or_else(|| before.args.clone()),
        expression: change
            .expression
            .unwrap_or_else(|| before.expression.clone()),
        time_zone: change.time_zone.unwrap_or_else(|| before.time_zone.clone()),
        catch_up: change.catch_up.unwrap_or(before.catch_up),
        enabled: change.enabled.unwrap_or(before.enabled),
    };
    // One that is switched off only may be of a kind that allows it no more.
    if wanted.enabled {
        check(kinds, &wanted, tx.now())?;
    }
    let changed = ActiveModel {
        id: Set(id),
        args: Set(wanted.args),
        expression: Set(wanted.expression),
        time_zone: Set(wanted.time_zone),
        catch_up: Set(wanted.catch_up),
        enabled: Set(wanted.enabled),
        ..Default::default()
    };
    Ok(changed.update(tx).await?)
}

/// Removes a schedule. Jobs that it added go on.
pub async fn delete(tx: &TenantTx, id: Uuid) -> Result<()> {
    lock(tx, id).await?;
    Entity::delete_by_id(id).exec(tx).await?;
    Ok(())
}

/// The next times of a schedule, so many of them; none of one that is switched off.
pub fn next_runs(schedule: &Model, now: Timestamp, most: usize) -> Vec<Timestamp> {
    match Times::parse(&schedule.expression, &schedule.time_zone) {
        Ok(times) if schedule.enabled => times.after(now).take(most).collect(),
        _ => Vec::new(),
    }
}

async fn lock(tx: &TenantTx, id: Uuid) -> Result<Model> {
    let found = Entity::find_by_id(id).lock_exclusive().one(tx).await?;
    found.ok_or(Error::NotFound("schedule"))
}

fn check(kinds: &Kinds, wanted: &Wanted, now: Timestamp) -> Result<Schedules> {
    let Wanted { kind, args, .. } = wanted;
    let Some(known) = kinds.schedulable_named(kind) else {
        let names: Vec<_> = kinds.schedulable().map(|(name, _)| name).collect();
        let told = format!(
            "Jobs of the kind {kind:?} are not for schedules; there are {}.",
            names.join(", ")
        );
        return Err(Error::invalid("kind", told));
    };
    if args.to_string().len() > ARGUMENTS || !(known.takes)(args.clone()) {
        let told = format!("These are not arguments of {kind}.");
        return Err(Error::invalid("arguments", told));
    }
    if wanted.expression.len() > 100 {
        let told = "An expression has at most 100 characters.";
        return Err(Error::invalid("expression", told));
    }
    let times = Times::parse(&wanted.expression, &wanted.time_zone).map_err(|why| {
        let told = format!(
            "{:?} in {:?} has no times: {why}.",
            wanted.expression, wanted.time_zone
        );
        Error::invalid("expression", told)
    })?;
    let next: Vec<Timestamp> = times.after(now).take(LOOKED).collect();
    if next.is_empty() {
        let told = "This expression has no times that are to come.";
        return Err(Error::invalid("expression", told));
    }
    let gaps = next.windows(2).map(|pair| pair[1] - pair[0]);
    let every = known.schedules.every;
    if let Some(gap) = gaps
        .min()
        .filter(|gap| gap.to_std().unwrap_or_default() < every)
    {
        let told = format!(
            "Two of its times are {} minutes apart; those of {kind} are at least {} apart.",
            gap.num_minutes(),
            every.as_secs() / 60
        );
        return Err(Error::invalid("expression", told));
    }
    Ok(known.schedules)
}

/// One that is due, by the database's clock.
#[derive(Debug, FromQueryResult)]
struct Due {
    tenant_id: Uuid,
    id: Uuid,
    kind: String,
    args: Value,
    expression: String,
    time_zone: String,
    catch_up: String,
    since: Timestamp,
    now: Timestamp,
}

/// Adds the jobs of all that are due.
pub(super) async fn look(database: &Database, kinds: &Kinds) -> Result<()> {
    let names: Vec<String> = kinds
        .schedulable()
        .map(|(name, _)| name.to_owned())
        .collect();
    if names.is_empty() {
        return Ok(());
    }
    loop {
        let tx = database.platform().await?;
        let query = Statement::from_sql_and_values(
            DbBackend::Postgres,
            "SELECT s.tenant_id, s.id, s.kind, s.args, s.expression, s.time_zone, s.catch_up, s.since, clock_timestamp() AS now
             FROM schedule s JOIN tenant t ON t.id = s.tenant_id
             WHERE s.next_at <= now() AND t.state = 'active' AND s.kind = ANY ($1)
             ORDER BY s.next_at LIMIT $2 FOR UPDATE OF s SKIP LOCKED",
            [names.clone().into(), BATCH.into()],
        );
        let due = Due::find_by_statement(query).all(&tx).await?;
        for each in &due {
            take(&tx, kinds, each).await?;
        }
        tx.commit().await?;
        if (due.len() as u64) < BATCH {
            return Ok(());
        }
    }
}

async fn take(tx: &PlatformTx, kinds: &Kinds, due: &Due) -> Result<()> {
    let times = Times::parse(&due.expression, &due.time_zone);
    let (mut since, mut next) = (due.now, None);
    match (times, kinds.schedulable_named(&due.kind)) {
        (Ok(times), Some(kind)) => {
            let catch_up = CatchUp::try_from_value(&due.catch_up)?;
            for (time, runs) in times.due(catch_up, due.since, due.now) {
                since = time;
                if runs {
                    add(tx, &kind.how, due).await?;
                }
            }
            next = times.after(due.now).next();
        }
        // It was checked as it was made: another version understood it.
        (Err(why), _) => tracing::warn!(schedule = %due.id, why, "a schedule is not understood"),
        (Ok(_), None) => {}
    }
    let next = next.unwrap_or_else(|| due.now + NEVER);
    let update = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "UPDATE schedule SET since = $3, next_at = $4 WHERE tenant_id = $1 AND id = $2",
        [
            due.tenant_id.into(),
            due.id.into(),
            since.into(),
            next.into(),
        ],
    );
    tx.execute_raw(update).await?;
    Ok(())
}

/// A tenant whose queue is full has no job more at this time.
async fn add(tx: &PlatformTx, how: &How, due: &Due) -> Result<()> {
    let key = how.unique.then(|| key(how.kind, &due.args));
    let timeout = i32::try_from(how.timeout.as_millis()).map_err(Error::internal)?;
    let add = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "SELECT a.lane FROM (SELECT WHERE NOT EXISTS (SELECT FROM lacks_room($1, 1))) room, LATERAL add_job($1, $2, $3, $4, $5, $6,
             $7, $8, NULL, $9, 'system:schedule', NULL) AS a",
        [
            due.tenant_id.into(),
            tx.new_id().into(),
            how.kind.into(),
            due.args.clone().into(),
            how.max_attempts.into(),
            timeout.into(),
            how.queue.into(),
            how.priority.into(),
            key.into(),
        ],
    );
    match tx.query_one_raw(add).await? {
        Some(row) => tx.jobs().job(row.try_get("", "lane")?),
        None => tracing::warn!(
            tenant.id = %due.tenant_id,
            kind = how.kind,
            "the tenant's queue is full; a job of its schedule is left out"
        ),
    }
    Ok(())
}

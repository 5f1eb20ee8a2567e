//! Jobs by the clock. Every process looks once a second which times of which kinds are due, by the database's clock; who writes
//! down a time first adds its jobs, in one transaction, so each time has its jobs once, however many look.

use super::key;
use super::kinds::Kinds;
use super::worker::Inner;
use crate::clock::Timestamp;
use crate::database::{Database, PlatformTx};
use crate::error::{Error, Result};
use chrono::TimeDelta;
use chrono_tz::Tz;
use sea_orm::{ConnectionTrait as _, DbBackend, FromQueryResult, Statement};
use std::collections::HashMap;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;
use uuid::Uuid;

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(1);
/// How late a time may be and still be on time.
const LATE: TimeDelta = TimeDelta::minutes(1);
/// Times of one kind that are made up for at most, the newest.
const MOST: usize = 1000;

/// When a kind's jobs are added.
#[derive(Clone, Copy, Debug)]
pub struct Cron {
    expression: &'static str,
    time_zone: &'static str,
    catch_up: CatchUp,
}

/// What becomes of times that passed while nothing ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CatchUp {
    /// Each has its job.
    All,
    /// The last one has.
    Last,
    /// None has.
    Skip,
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

    fn parse(&self) -> Result<(croner::Cron, Tz)> {
        let wrong = |e: &dyn std::fmt::Display| {
            Error::config(format!(
                "the schedule {:?} in {:?}: {e}",
                self.expression, self.time_zone
            ))
        };
        let schedule = croner::Cron::from_str(self.expression).map_err(|e| wrong(&e))?;
        let zone = Tz::from_str(self.time_zone).map_err(|e| wrong(&e))?;
        Ok((schedule, zone))
    }

    /// The times after `last` up to `now`, oldest first, and whether each is to have its jobs.
    fn due(&self, last: Timestamp, now: Timestamp) -> Result<Vec<(Timestamp, bool)>> {
        let (schedule, zone) = self.parse()?;
        let times = schedule.iter_after(last.with_timezone(&zone));
        let mut times: Vec<Timestamp> = times
            .map(|time| time.to_utc())
            .take_while(|time| *time <= now)
            .collect();
        times.dedup();
        let missed = times.len().saturating_sub(MOST);
        times.drain(..missed);
        let Some(newest) = times.last().copied() else {
            return Ok(Vec::new());
        };
        Ok(match self.catch_up {
            CatchUp::All => times.into_iter().map(|time| (time, true)).collect(),
            CatchUp::Last => vec![(newest, true)],
            CatchUp::Skip => vec![(newest, now - newest <= LATE)],
        })
    }
}

/// A kind that has a schedule.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scheduled {
    pub(super) kind: &'static str,
    pub(super) cron: Cron,
    pub(super) queue: &'static str,
    pub(super) priority: i16,
    pub(super) timeout: Duration,
    pub(super) max_attempts: i32,
    pub(super) unique: bool,
    pub(super) for_tenants: bool,
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
        .map(|each| each.kind.to_owned())
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
        let Some(at) = standing.get(each.kind) else {
            continue;
        };
        for (time, runs) in each.cron.due(at.last, at.now)? {
            take(database, each, time, runs).await?;
        }
    }
    Ok(())
}

/// Takes care of one time, if nobody has.
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
         INSERT INTO cron_tick (kind, due_at) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        [scheduled.kind.into(), time.into()],
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
        add(&tx, scheduled, some).await?;
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
async fn add(tx: &PlatformTx, scheduled: &Scheduled, owners: &[Uuid]) -> Result<()> {
    let args = serde_json::json!({});
    let key = scheduled.unique.then(|| key(scheduled.kind, &args));
    let ids: Vec<Uuid> = owners.iter().map(|_| tx.new_id()).collect();
    let timeout = i32::try_from(scheduled.timeout.as_millis()).map_err(Error::internal)?;
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
            scheduled.kind.into(),
            args.into(),
            scheduled.max_attempts.into(),
            timeout.into(),
            scheduled.queue.into(),
            scheduled.priority.into(),
            key.into(),
        ],
    );
    for row in tx.query_all_raw(statement).await? {
        tx.jobs().job(row.try_get("", "lane")?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn due(cron: Cron, last: &str, now: &str) -> Vec<(String, bool)> {
        let due = cron.due(at(last), at(now)).unwrap().into_iter();
        due.map(|(time, runs)| (time.format("%dT%H:%M").to_string(), runs))
            .collect()
    }

    #[test]
    fn missed_times_are_made_up_for_as_asked() {
        let hourly = Cron::new("0 * * * *");
        let (last, now) = ("2026-01-05T00:30:00Z", "2026-01-05T03:10:00Z");
        let all = due(hourly.catching_up(CatchUp::All), last, now);
        assert_eq!(
            all,
            ["05T01:00", "05T02:00", "05T03:00"].map(|time| (time.to_owned(), true))
        );
        assert_eq!(due(hourly, last, now), [("05T03:00".to_owned(), true)]);
        let skip = hourly.catching_up(CatchUp::Skip);
        assert_eq!(due(skip, last, now), [("05T03:00".to_owned(), false)]);
        assert_eq!(
            due(skip, last, "2026-01-05T03:00:30Z"),
            [("05T03:00".to_owned(), true)]
        );
        assert_eq!(
            due(hourly, "2026-01-05T03:00:00Z", now),
            [],
            "each time once"
        );
    }

    #[test]
    fn a_time_of_a_zone_is_there_once_a_day_on_any_day() {
        let nightly = Cron::new("30 2 * * *")
            .in_zone("Europe/Berlin")
            .catching_up(CatchUp::All);
        // Clocks go forward on 29 March, back on 25 October.
        for (last, now) in [
            ("2026-03-27T12:00:00Z", "2026-03-31T12:00:00Z"),
            ("2026-10-23T12:00:00Z", "2026-10-27T12:00:00Z"),
        ] {
            let times = due(nightly, last, now);
            assert_eq!(times.len(), 4, "{times:?}");
        }
        assert!(Cron::new("61 * * * *").parse().is_err());
        assert!(Cron::new("* * * * *").in_zone("Mars/Base").parse().is_err());
    }
}

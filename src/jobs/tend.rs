//! Keeps up the leases of what this process holds, on a connection of its own, and takes jobs from processes that do not: by the
//! database's clock alone.

use super::batch::wake;
use super::held::Hold;
use super::worker::Inner;
use crate::database::Reserved;
use crate::error::Result;
use sea_orm::{DbBackend, Statement};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::{sleep, sleep_until};
use uuid::Uuid;

/// How often a sign of life is given; a lease is three times as long.
const BEAT: Duration = Duration::from_secs(10);
/// How long until a sign that did not reach PostgreSQL is given again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often lost jobs are looked for.
const REAP: Duration = Duration::from_secs(5);
/// How often progress is told.
const PROGRESS: Duration = Duration::from_millis(500);
/// How often it is looked which kinds are held back.
const HOLDS: Duration = Duration::from_secs(2);
/// How often days are made and forgotten.
const DAYS: Duration = Duration::from_hours(1);
/// How long word that jobs are to end is gathered.
const GATHER: Duration = Duration::from_millis(50);

/// Tends until it is dropped.
pub(super) async fn tend(inner: Arc<Inner>) {
    let (heard, when) = watch::channel(Instant::now());
    tokio::join!(rounds(&inner, heard), guard(&inner, when));
}

/// Who could not say for two beats that he lives stops before his leases end and other runs begin: whatever a round waits for.
async fn guard(inner: &Inner, heard: watch::Receiver<Instant>) {
    loop {
        let end = *heard.borrow() + 2 * BEAT;
        if end <= Instant::now() {
            inner.held.lose_all();
            sleep(AGAIN).await;
        } else {
            sleep_until(end.into()).await;
        }
    }
}

async fn rounds(inner: &Inner, heard: watch::Sender<Instant>) {
    let mut reserved = inner.services.database.reserve();
    let (mut beat, mut reap, mut days) = (Instant::now(), Instant::now(), Instant::now());
    let mut holds = Instant::now();
    loop {
        let now = Instant::now();
        if beat <= now {
            let asked = Instant::now();
            let is_heard = done("prolong the claims", signal(inner, &mut reserved).await);
            if is_heard {
                heard.send_replace(asked);
            }
            beat = asked + if is_heard { BEAT } else { AGAIN };
        }
        if reap <= now {
            done("look for lost jobs", take_back(inner, &mut reserved).await);
            reap = now + REAP;
        }
        if holds <= now {
            let looked = inner.breakers.look(&mut reserved).await;
            done("look which kinds are held back", looked);
            holds = now + HOLDS;
        }
        if days <= now {
            let kept = keep_days(inner, &mut reserved).await;
            days = now
                + if done("keep the days of jobs", kept) {
                    DAYS
                } else {
                    REAP
                };
        }
        done("tell progress", tell(inner, &mut reserved).await);
        tokio::select! {
            () = sleep_until(beat.min(reap).into()) => {}
            () = sleep(PROGRESS) => {}
            () = inner.services.database.wakes().ending() => {
                sleep(GATHER).await;
                beat = Instant::now();
            }
        }
    }
}

fn done(what: &'static str, result: Result<()>) -> bool {
    if let Err(error) = &result {
        tracing::warn!(what, ?error, "a worker's round failed; it is tried again");
    }
    result.is_ok()
}

/// Gives the sign of life. A job that is locked just now is being ended or cancelled, and skipped: it is still there. What is not
/// is lost.
async fn signal(inner: &Inner, reserved: &mut Reserved) -> Result<()> {
    let holds = inner.held.alive();
    let ids: Vec<Uuid> = holds.iter().map(|hold| hold.id).collect();
    let beat = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "WITH alive AS (
             UPDATE node SET beat_at = clock_timestamp() WHERE id = $1
         ), prolonged AS (
             UPDATE job SET lease_until = clock_timestamp() + interval '30 seconds'
             WHERE id = ANY (ARRAY(
                 SELECT id FROM job WHERE id = ANY ($2) AND worker = $1::text AND state + 0 = 2 FOR UPDATE SKIP LOCKED)))
         SELECT id, claim, cancel FROM job WHERE id = ANY ($2) AND worker = $1::text AND state + 0 = 2",
        [inner.id.into(), ids.into()],
    );
    let mut ours = HashMap::new();
    for row in reserved.query(beat).await? {
        let id: Uuid = row.try_get("", "id")?;
        let (claim, cancel): (i64, bool) = (row.try_get("", "claim")?, row.try_get("", "cancel")?);
        ours.insert(id, (claim, cancel));
    }
    for hold in holds {
        judge(&hold, ours.get(&hold.id).copied());
    }
    Ok(())
}

fn judge(hold: &Hold, found: Option<(i64, bool)>) {
    match found {
        Some((claim, cancel)) if claim == hold.claim => {
            if cancel {
                hold.cancelled.cancel();
            }
        }
        _ if hold.is_completed() => {}
        _ => hold.lost.cancel(),
    }
}

async fn take_back(inner: &Inner, reserved: &mut Reserved) -> Result<()> {
    let reap = Statement::from_string(
        DbBackend::Postgres,
        "SELECT lane, tenant_id FROM reap_jobs()",
    );
    let rows = reserved.query(reap).await?;
    if !rows.is_empty() {
        tracing::warn!(jobs = rows.len(), "took back jobs whose worker was lost");
        inner.services.metrics.reaped(rows.len());
        wake(inner, &rows)?;
    }
    // Those whose last job was cancelled or lost, or ended with its worker's life.
    let release = Statement::from_string(
        DbBackend::Postgres,
        "SELECT lane, tenant_id FROM release_batches(NULL)",
    );
    wake(inner, &reserved.query(release).await?)
}

/// Days are made in one transaction and forgotten each in its own: no two of them wait for each other. What ended on a day that
/// has no partition, for no worker ran then, is forgotten with the days of that time.
async fn keep_days(inner: &Inner, reserved: &mut Reserved) -> Result<()> {
    let forget = "DELETE FROM node WHERE beat_at < clock_timestamp() - interval '1 day'
             AND virtual_time IS DISTINCT FROM (SELECT max(n.virtual_time) FROM node n
                 WHERE n.queues IS NOT DISTINCT FROM node.queues)";
    let forget = Statement::from_string(DbBackend::Postgres, forget);
    reserved.query(forget).await?;
    let make = Statement::from_string(DbBackend::Postgres, "SELECT make_job_days()::text");
    reserved.query(make).await?;
    let days = i32::try_from(inner.services.config.job_days).unwrap_or(i32::MAX);
    loop {
        let drop = Statement::from_sql_and_values(
            DbBackend::Postgres,
            "SELECT drop_job_day($1) AS dropped",
            [days.into()],
        );
        let dropped = reserved.query(drop).await?;
        let more = dropped.first().map(|row| row.try_get("", "dropped"));
        if !more.transpose()?.unwrap_or(false) {
            break;
        }
    }
    let strays = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "DELETE FROM job_done_default
         WHERE finished_at < (date_trunc('day', now() AT TIME ZONE 'UTC') - make_interval(days => $1)) AT TIME ZONE 'UTC'",
        [days.into()],
    );
    reserved.query(strays).await?;
    Ok(())
}

async fn tell(inner: &Inner, reserved: &mut Reserved) -> Result<()> {
    let said = inner.held.take_progress();
    if said.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = said.iter().map(|(hold, _)| hold.id).collect();
    let claims: Vec<i64> = said.iter().map(|(hold, _)| hold.claim).collect();
    let done: Vec<f32> = said.iter().map(|(_, done)| *done).collect();
    let tell = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "UPDATE job j SET progress = s.done FROM unnest($1::uuid[], $2::bigint[], $3::real[]) AS s (id, claim, done)
         WHERE j.id = ANY (ARRAY(SELECT id FROM job WHERE id = ANY ($1) AND state + 0 = 2 FOR UPDATE SKIP LOCKED))
             AND j.id = s.id AND j.claim = s.claim",
        [ids.into(), claims.into(), done.into()],
    );
    reserved.query(tell).await?;
    for tenant in said.iter().filter_map(|(hold, _)| hold.tenant) {
        inner.services.database.note_change(tenant);
    }
    Ok(())
}

//! How runs ended, written down many at once, each under its claim: again and again until it is, for whoever lost a claim
//! meanwhile changes nothing.

use super::batch::release;
use super::claim::Claimed;
use super::worker::Inner;
use crate::database::Database;
use crate::error::{Error, Result};
use sea_orm::{ConnectionTrait as _, DbBackend, Statement};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::sleep;
use tokio_util::task::task_tracker::TaskTrackerToken;
use uuid::Uuid;

/// Ends that are written down in one transaction.
const BATCH: usize = 256;
/// How long until a batch is tried again.
const AGAIN: Duration = Duration::from_millis(250);
/// How often one that PostgreSQL refuses, it says, is tried: a day's partition may have been attached just then.
const TRIES: u32 = 20;

/// How a run ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The media that it made, if it made one.
    Done(Option<Uuid>),
    /// Again after this time.
    Retry(Duration, Failure),
    Dead(Failure),
    Cancelled(Option<Failure>),
    /// Given back unused: the attempt does not count.
    Released,
    /// The same, and not to be claimed before this time has passed.
    Later(Duration),
    /// The same, because this worker does not know the kind; dead for that if none has for a day.
    Unknown(Duration, Failure),
}

impl Outcome {
    /// In a word, for what is counted.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Done(_) => "done",
            Self::Retry(..) => "retried",
            Self::Dead(_) => "dead",
            Self::Cancelled(_) => "cancelled",
            Self::Released | Self::Later(_) | Self::Unknown(..) => "released",
        }
    }
}

/// Why a run failed: whole for operators, and what the tenant may read.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) public: String,
    pub(super) detail: String,
}

/// The end of a run, to be written down.
#[derive(Debug)]
pub(super) struct End {
    pub(super) job: Claimed,
    pub(super) outcome: Outcome,
    /// It was written down already, it says, in a unit of work of its own.
    pub(super) completed: bool,
    /// So that a stop waits for it.
    pub(super) _token: TaskTrackerToken,
}

impl End {
    fn described(&self) -> Value {
        let (state, back, after, failure) = match &self.outcome {
            Outcome::Done(_) => (3, false, Duration::ZERO, None),
            Outcome::Retry(after, failure) => (6, false, *after, Some(failure)),
            Outcome::Dead(failure) => (4, false, Duration::ZERO, Some(failure)),
            Outcome::Cancelled(failure) => (5, false, Duration::ZERO, failure.as_ref()),
            Outcome::Released => (1, true, Duration::ZERO, None),
            Outcome::Later(after) => (6, true, *after, None),
            Outcome::Unknown(after, failure) => (6, true, *after, Some(failure)),
        };
        let made = match &self.outcome {
            Outcome::Done(made) => *made,
            _ => None,
        };
        let error = failure.map(|failure| {
            // PostgreSQL has no NUL in a text.
            let [public, detail] =
                [&failure.public, &failure.detail].map(|text| text.replace('\0', "\u{fffd}"));
            json!({ "attempt": self.job.attempt, "public": public, "detail": detail })
        });
        json!({
            "id": self.job.id, "claim": self.job.claim, "state": state, "back": back,
            "after_ms": u64::try_from(after.as_millis()).unwrap_or(u64::MAX), "error": error, "result": made,
            "unknown": matches!(self.outcome, Outcome::Unknown(..)),
        })
    }
}

/// Writes down what comes, until nobody can send any more.
pub(super) async fn write(inner: Arc<Inner>, mut ends: UnboundedReceiver<End>) {
    let mut batch = Vec::new();
    while ends.recv_many(&mut batch, BATCH).await > 0 {
        settle(&inner, &batch).await;
        batch.clear();
    }
}

/// One that can never be written down (no end of ours should be) does not keep the others from it.
async fn settle(inner: &Inner, batch: &[End]) {
    let mut tries = 0;
    loop {
        tries += 1;
        match end(&inner.services.database, batch).await {
            Ok(ended) => {
                settled(inner, batch, &ended);
                let database = &inner.services.database;
                inner.breakers.note(database, batch, &ended).await;
                let batches: BTreeSet<Uuid> =
                    batch.iter().filter_map(|end| end.job.batch).collect();
                return release(inner, batches.into_iter().collect()).await;
            }
            Err(error) if is_passing(&error) || tries < TRIES => {
                tracing::warn!(
                    ?error,
                    "cannot write down how jobs ended; it is tried again"
                );
                sleep(AGAIN).await;
            }
            Err(error) if batch.len() == 1 => {
                tracing::error!(
                    ?error,
                    "cannot write down how a job ended; it will run again"
                );
                return settled(inner, batch, &HashSet::new());
            }
            Err(_) => break,
        }
    }
    for one in batch.chunks(1) {
        Box::pin(settle(inner, one)).await;
    }
}

/// Whether PostgreSQL is just not there.
fn is_passing(error: &Error) -> bool {
    error.is_transient() && !matches!(error, Error::Internal(_))
}

fn settled(inner: &Inner, batch: &[End], ended: &HashSet<Uuid>) {
    for End { job, completed, .. } in batch {
        inner.held.remove(job.id, job.claim);
        if !completed && !ended.contains(&job.id) {
            tracing::warn!(job.id = %job.id, "the claim was lost; another run decides");
            inner.services.metrics.fenced();
        }
        if let Some(tenant) = job.tenant_id {
            inner.services.database.note_change(tenant);
        }
    }
    inner.freed(batch.iter().map(|end| end.job.lane));
}

/// The jobs that were still ours.
async fn end(database: &Database, batch: &[End]) -> Result<HashSet<Uuid>> {
    let (done, others): (Vec<&End>, Vec<&End>) = batch
        .iter()
        .partition(|end| matches!(end.outcome, Outcome::Done(None)));
    let mut rows = Vec::new();
    let tx = database.platform().await?;
    if !done.is_empty() {
        let newest = newest(done.iter().map(|end| (end.job.id, end.job.claim)));
        let (ids, claims): (Vec<Uuid>, Vec<i64>) = newest.into_iter().unzip();
        let done = Statement::from_sql_and_values(
            DbBackend::Postgres,
            "SELECT done_jobs AS id FROM done_jobs($1, $2)",
            [ids.into(), claims.into()],
        );
        rows.extend(tx.query_all_raw(done).await?);
    }
    if !others.is_empty() {
        let others: Value = others.iter().map(|end| end.described()).collect();
        let ended = Statement::from_sql_and_values(
            DbBackend::Postgres,
            "SELECT end_jobs AS id FROM end_jobs($1)",
            [others.into()],
        );
        rows.extend(tx.query_all_raw(ended).await?);
    }
    tx.commit().await?;
    rows.iter()
        .map(|row| row.try_get("", "id").map_err(Error::from))
        .collect()
}

/// Jobs with their claims. Of one that was lost and claimed here again both runs may be among them: the newer claim is the higher
/// one, and the only one that may still be ours.
fn newest(runs: impl Iterator<Item = (Uuid, i64)>) -> HashMap<Uuid, i64> {
    let mut newest = HashMap::new();
    for (job, claim) in runs {
        let known = newest.entry(job).or_insert(claim);
        *known = claim.max(*known);
    }
    newest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_runs_of_a_job_the_newer_one_is_told() {
        let [lost, other] = [1, 2].map(Uuid::from_u128);
        for runs in [
            [(lost, 7), (other, 3), (lost, 9)],
            [(lost, 9), (lost, 7), (other, 3)],
        ] {
            let told = newest(runs.into_iter());
            assert_eq!(told, HashMap::from([(lost, 9), (other, 3)]));
        }
    }
}

//! Batches: a job that runs once others are over, however they ended.
//!
//! Nothing counts them down. Whoever writes down that one of them ended looks, after that commit, whether any is left; the
//! workers' rounds look too, so a batch whose last job ended with its worker's life goes on seconds later.

use super::Job;
use super::worker::Inner;
use crate::database::TenantTx;
use crate::error::{Error, Quota, Result};
use entity::platform::plan::Limit;
use sea_orm::{ConnectionTrait as _, DbBackend, FromQueryResult, QueryResult, Statement};
use serde_json::{Value, json};
use uuid::Uuid;

/// Jobs that are added together, with one that waits for them.
#[derive(Debug)]
#[must_use = "its jobs are added by `then`"]
pub struct Batch<'a> {
    tx: &'a TenantTx,
    jobs: Vec<Result<Value>>,
}

/// Begins a batch in the caller's unit of work, as in `jobs::batch(&tx).add(&one).add(&two).then(&last).await?`.
pub fn batch(tx: &TenantTx) -> Batch<'_> {
    let jobs = Vec::new();
    Batch { tx, jobs }
}

impl Batch<'_> {
    /// One of those that are waited for. Of a kind that is not unique: one that is there already may be in another batch.
    #[expect(
        clippy::should_implement_trait,
        reason = "a job is added to the batch, and nothing to a number"
    )]
    pub fn add<J: Job>(mut self, job: &J) -> Self {
        const {
            assert!(
                !J::UNIQUE,
                "a unique job may be there already, outside of the batch"
            );
        }
        self.jobs.push(described(self.tx, job).map(|(_, job)| job));
        self
    }

    /// Adds all of them, and this job, which runs when none of them is left: done, failed for good or cancelled, as
    /// [`super::JobContext::batch`] tells it. At once, if there are none. Returns its id.
    ///
    /// It waits for one that is begun anew before the last of them is over, and not for one that is begun anew after that.
    pub async fn then<J: Job>(self, job: &J) -> Result<Uuid> {
        const {
            assert!(
                !J::UNIQUE,
                "a unique job may be there already, outside of the batch"
            );
        }
        let jobs = self.jobs.into_iter().collect::<Result<Vec<Value>>>()?;
        let (id, last) = described(self.tx, job)?;
        let statement = Statement::from_sql_and_values(
            DbBackend::Postgres,
            "SELECT lane, used, most FROM enqueue_batch($1, $2)",
            [Value::Array(jobs).into(), last.into()],
        );
        for row in self.tx.query_all_raw(statement).await? {
            refused(&row)?;
            self.tx.jobs().job(row.try_get("", "lane")?);
        }
        Ok(id)
    }
}

fn described<J: Job>(tx: &TenantTx, job: &J) -> Result<(Uuid, Value)> {
    let id = tx.new_id();
    let args = serde_json::to_value(job).map_err(Error::internal)?;
    let timeout = i32::try_from(J::TIMEOUT.as_millis()).map_err(Error::internal)?;
    let job = json!({
        "id": id, "kind": J::NAME, "args": args, "queue": J::QUEUE, "priority": J::PRIORITY, "attempts": J::MAX_ATTEMPTS,
        "timeout": timeout,
    });
    Ok((id, job))
}

/// What the database says when a tenant has as many jobs as it may.
pub(super) fn refused(row: &QueryResult) -> Result<()> {
    let Some(used) = row.try_get::<Option<i64>>("", "used")? else {
        return Ok(());
    };
    let most: i64 = row.try_get("", "most")?;
    Err(Error::QuotaExceeded(Quota {
        limit: Limit::QueuedJobs,
        used: u64::try_from(used).map_err(Error::internal)?,
        max: Some(u64::try_from(most).map_err(Error::internal)?),
    }))
}

/// How the jobs of a batch ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchEnds {
    /// Those that did their work.
    pub done: u64,
    /// Those that failed for good.
    pub failed: u64,
    /// Those that were cancelled, or found that there was nothing to do.
    pub cancelled: u64,
}

#[derive(Debug, FromQueryResult)]
struct Ends {
    done: i64,
    dead: i64,
    cancelled: i64,
}

/// How the jobs ended that this one has waited for: as long as they are kept.
pub(super) async fn ends(tx: &TenantTx, job: Uuid) -> Result<BatchEnds> {
    let query = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "SELECT done, dead, cancelled FROM batch_ends($1)",
        [job.into()],
    );
    let ends = Ends::find_by_statement(query).one(tx).await?;
    let ends = ends.ok_or_else(|| Error::internal("a count has one row"))?;
    let number = |count: i64| u64::try_from(count).map_err(Error::internal);
    Ok(BatchEnds {
        done: number(ends.done)?,
        failed: number(ends.dead)?,
        cancelled: number(ends.cancelled)?,
    })
}

/// Goes on with those of these batches of which no job is left. What fails is left to the next round.
pub(super) async fn release(inner: &Inner, batches: Vec<Uuid>) {
    if batches.is_empty() {
        return;
    }
    let released = async {
        let tx = inner.services.database.platform().await?;
        let release = Statement::from_sql_and_values(
            DbBackend::Postgres,
            "SELECT lane, tenant_id FROM release_batches($1)",
            [batches.into()],
        );
        let rows = tx.query_all_raw(release).await?;
        tx.commit().await?;
        wake(inner, &rows)
    };
    let released: Result<()> = released.await;
    if let Err(error) = released {
        tracing::warn!(?error, "cannot go on with a batch now; the next round does");
    }
}

/// Tells of jobs that can be run from now on.
pub(super) fn wake(inner: &Inner, rows: &[QueryResult]) -> Result<()> {
    let database = &inner.services.database;
    let mut lanes = Vec::new();
    for row in rows {
        lanes.push(row.try_get("", "lane")?);
        if let Some(tenant) = row.try_get("", "tenant_id")? {
            database.note_change(tenant);
        }
    }
    database.wakes().note(&lanes);
    Ok(())
}

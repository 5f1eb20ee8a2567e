//! A tenant's jobs as the tenant sees and changes them.

use super::cancelled;
use super::kinds::{Kind, Kinds};
use crate::clock::Timestamp;
use crate::database::TenantTx;
use crate::error::{Error, Result};
use sea_orm::{ConnectionTrait as _, DbBackend, FromQueryResult, Statement, Value};
use uuid::Uuid;

/// States of a job, as stored.
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
    /// Waits for its time, or for the jobs of its batch.
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
    /// How far it has come, from 0 to 1.
    pub progress: Option<f32>,
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
        "SELECT id, kind, state, attempt, last_error, run_at, started_at, finished_at, result_id, progress
         FROM jobs($1, $2, $3, $4, $5, $6)",
        values,
    );
    Ok(JobRow::find_by_statement(query).all(tx).await?)
}

/// Ends the tenant's job if it does not run yet, and lets its kind tidy up; asks it to end if it does. False: it is over. None:
/// there is no such job.
pub async fn cancel(tx: &TenantTx, kinds: &Kinds, id: Uuid) -> Result<Option<bool>> {
    let cancel = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "SELECT done, kind, args FROM cancel_job($1)",
        [id.into()],
    );
    let Some(row) = tx.query_one_raw(cancel).await? else {
        return Ok(None);
    };
    let done: String = row.try_get("", "done")?;
    if done == "asked" {
        tx.jobs().cancelled();
    }
    // It is told of a job that did not run, and is cancelled.
    let kind: Option<String> = row.try_get("", "kind")?;
    if let Some(Kind::Tenant(kind)) = kind.and_then(|kind| kinds.get(&kind)) {
        (kind.bury)(row.try_get("", "args")?, tx, &cancelled()).await?;
    }
    Ok(Some(done != "over"))
}

/// Begins the tenant's job anew if it failed or was cancelled; if it waits for another try or its time, that is now. False: there
/// is none that could.
pub async fn retry(tx: &TenantTx, id: Uuid) -> Result<bool> {
    let retry = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "SELECT change_job($1, 'retry') AS lane",
        [id.into()],
    );
    let row = tx.query_one_raw(retry).await?;
    let lane: Option<String> = row.map_or(Ok(None), |row| row.try_get("", "lane"))?;
    let lane: Option<i32> = lane
        .map(|lane| lane.parse().map_err(Error::internal))
        .transpose()?;
    if let Some(lane) = lane {
        tx.jobs().job(lane);
    }
    Ok(lane.is_some())
}

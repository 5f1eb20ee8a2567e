//! Jobs: work that outlives its request, run for one tenant. The only module that names fang.
//!
//! A resource implements [`Job`] in its `jobs.rs` and is listed in `resources.rs`; [`rows`] is what a tenant sees. The queue
//! behind fang: `dispatcher` claims for this process (`claim` in one call, from the lanes that `lanes` remembers), `fang` hands
//! over, `run` runs, `ends` writes down how runs ended, `held` and `tend` keep the leases, `worker` starts and stops all of it.

mod batch;
mod breaker;
mod claim;
mod context;
pub mod cron;
mod dispatcher;
mod ends;
mod fang;
pub mod graphql;
mod held;
mod kinds;
mod lanes;
mod means;
pub mod operate;
mod platform;
pub mod rows;
mod run;
pub mod schedule;
mod tend;
mod times;
mod worker;

pub use batch::{Batch, BatchEnds, batch};
pub use context::JobContext;
pub use cron::Cron;
pub use kinds::Kinds;
pub use platform::{PlatformContext, PlatformJob, enqueue_platform};
pub use schedule::Schedules;
pub use times::CatchUp;
pub use worker::Worker;

use crate::clock::Timestamp;
use crate::database::TenantTx;
use crate::error::{Error, Result};
use crate::secret::hex;
use sea_orm::{ConnectionTrait as _, DbBackend, Statement};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use std::time::Duration;
use uuid::Uuid;

/// One kind of job: its arguments are the type's fields. A job may run more than once (a crash after its effects, before its
/// end was noted), so its effects must bear repeating, or be ended together with it: [`JobContext::complete_in`].
pub trait Job: Serialize + DeserializeOwned + Send + 'static {
    /// Name of the kind, in rows and in the API. A change of the arguments is a new name.
    const NAME: &'static str;
    /// The queue that its jobs wait in: a tenant has a lane in each. Lower-case letters, digits, `-` and `_`.
    const QUEUE: &'static str = "default";
    /// Jobs of a lower one start first, within their lane.
    const PRIORITY: i16 = 0;
    /// How long one run may take.
    const TIMEOUT: Duration = Duration::from_mins(1);
    /// How often it is tried when the failure may pass.
    const MAX_ATTEMPTS: i32 = 8;
    /// Whether a tenant has no more than one with the same arguments that is not over.
    const UNIQUE: bool = false;
    /// When one is added for each tenant in use, with no arguments: spread over a minute, for not all can be the first.
    const CRON: Option<Cron> = None;
    /// Within which bounds the tenant's own people may put it on schedules of theirs; unless set, they may not.
    const SCHEDULES: Option<Schedules> = None;

    /// Does the work.
    fn run(self, ctx: &JobContext) -> impl Future<Output = Result<()>> + Send;

    /// Tidies up after a job that will not do its work: that failed for good, whatever ended it (its last error, a timeout, a
    /// panic, a worker that was lost), or was cancelled. In a unit of work of its own, or in that of whoever cancels a job that
    /// does not run. May run more than once, and after a run that had done its work when it was lost or cancelled: it changes
    /// only what was not done. Does not run if a worker is lost while its job is cancelled.
    fn bury(self, _tx: &TenantTx, _error: &Error) -> impl Future<Output = Result<()>> + Send {
        std::future::ready(Ok(()))
    }
}

/// Adds a job in the caller's unit of work: it exists if and only if that commits. Its tenant is the unit's. Returns its id, or
/// that of the one that is there already if its kind is unique.
pub async fn enqueue<J: Job>(tx: &TenantTx, job: &J) -> Result<Uuid> {
    add(tx, job, None).await
}

/// The same, not to be run before a time. That is waited for by the database's clock.
pub async fn enqueue_at<J: Job>(tx: &TenantTx, job: &J, at: Timestamp) -> Result<Uuid> {
    add(tx, job, Some(at)).await
}

async fn add<J: Job>(tx: &TenantTx, job: &J, at: Option<Timestamp>) -> Result<Uuid> {
    let args = serde_json::to_value(job).map_err(Error::internal)?;
    let key = J::UNIQUE.then(|| key(J::NAME, &args));
    let timeout = i32::try_from(J::TIMEOUT.as_millis()).map_err(Error::internal)?;
    let statement = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "SELECT id, lane, used, most FROM enqueue($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        [
            tx.new_id().into(),
            J::NAME.into(),
            args.into(),
            J::MAX_ATTEMPTS.into(),
            timeout.into(),
            J::QUEUE.into(),
            J::PRIORITY.into(),
            at.into(),
            key.into(),
        ],
    );
    let row = tx.query_one_raw(statement).await?;
    let row = row.ok_or_else(|| Error::internal("a job was not added"))?;
    batch::refused(&row)?;
    tx.jobs().job(row.try_get("", "lane")?);
    Ok(row.try_get("", "id")?)
}

/// Why a job is buried that was cancelled.
fn cancelled() -> Error {
    Error::invalid("job", "The job was cancelled.")
}

/// What is the same for two jobs that are alike.
fn key(kind: &str, args: &serde_json::Value) -> String {
    let sum = Sha256::digest(args.to_string());
    format!("{kind}:{}", hex(&sum))
}

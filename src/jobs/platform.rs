//! Jobs of no tenant: what the platform has to do for itself.

use super::held::Hold;
use super::{Cron, key};
use crate::database::PlatformTx;
use crate::error::{Error, Result};
use crate::services::Services;
use sea_orm::{ConnectionTrait as _, DbBackend, Statement};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// One kind of job of the platform. It may run more than once, as a tenant's may.
pub trait PlatformJob: Serialize + DeserializeOwned + Send + 'static {
    /// Name of the kind, in rows. A change of the arguments is a new name.
    const NAME: &'static str;
    /// The queue that its jobs wait in: the platform has a lane in each.
    const QUEUE: &'static str = "default";
    /// How long one run may take.
    const TIMEOUT: Duration = Duration::from_mins(1);
    /// How often it is tried when the failure may pass.
    const MAX_ATTEMPTS: i32 = 8;
    /// Whether there is no more than one with the same arguments that is not over.
    const UNIQUE: bool = false;
    /// When one is added, with no arguments.
    const CRON: Option<Cron> = None;

    /// Does the work.
    fn run(self, ctx: &PlatformContext) -> impl Future<Output = Result<()>> + Send;
}

/// What a running job of the platform has at hand.
#[derive(Clone, Debug)]
pub struct PlatformContext {
    /// Shared by all.
    pub services: Arc<Services>,
    hold: Arc<Hold>,
}

impl PlatformContext {
    pub(super) fn new(services: Arc<Services>, hold: Arc<Hold>) -> Self {
        Self { services, hold }
    }

    /// Says how far the work has come, from 0 to 1.
    pub fn progress(&self, done: f32) {
        self.hold.progress(done.clamp(0.0, 1.0));
    }

    /// Returns when the job is cancelled. Ten seconds later the run is dropped.
    pub async fn cancelled(&self) {
        self.hold.cancelled.cancelled().await;
    }
}

/// Adds a job of the platform in the caller's unit of work. Returns its id, or that of the one that is there already if its kind
/// is unique.
pub async fn enqueue_platform<J: PlatformJob>(
    tx: &PlatformTx,
    job: &J,
    actor: &str,
) -> Result<Uuid> {
    let args = serde_json::to_value(job).map_err(Error::internal)?;
    let key = J::UNIQUE.then(|| key(J::NAME, &args));
    let timeout = i32::try_from(J::TIMEOUT.as_millis()).map_err(Error::internal)?;
    let statement = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "SELECT id, lane FROM add_job(NULL, $1, $2, $3, $4, $5, $6, 0::smallint, NULL, $7, $8, NULL)",
        [
            tx.new_id().into(),
            J::NAME.into(),
            args.into(),
            J::MAX_ATTEMPTS.into(),
            timeout.into(),
            J::QUEUE.into(),
            key.into(),
            actor.into(),
        ],
    );
    let row = tx.query_one_raw(statement).await?;
    let row = row.ok_or_else(|| Error::internal("a job was not added"))?;
    tx.jobs().job(row.try_get("", "lane")?);
    Ok(row.try_get("", "id")?)
}

//! Jobs: work that outlives its request, run for one tenant. The only module that names fang.
//!
//! `queue` claims and finishes rows, `worker` runs what was claimed, behind fang's pool. A resource implements [`Job`] in
//! its `jobs.rs` and is listed in `resources.rs`.

pub mod graphql;
mod queue;
mod worker;

pub use queue::{JobRow, Listed, State, find, list};
pub use worker::Worker;

use crate::actor::{Actor, Attribution};
use crate::database::{Tenant, TenantTx};
use crate::error::{Error, Result};
use crate::services::Services;
use futures::future::BoxFuture;
use sea_orm::{ConnectionTrait as _, DbBackend, Statement};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use uuid::Uuid;

/// One kind of job: its arguments are the type's fields. A job may run more than once (a crash after its effects, before its
/// end was noted), so its effects must bear repeating.
pub trait Job: Serialize + DeserializeOwned + Send + 'static {
    /// Name of the kind, in rows and in the API. A change of the arguments is a new name.
    const NAME: &'static str;
    /// How long one run may take.
    const TIMEOUT: Duration = Duration::from_mins(1);
    /// How often it is tried when the failure may pass.
    const MAX_ATTEMPTS: i32 = 8;

    /// Does the work.
    fn run(self, ctx: &JobContext) -> impl Future<Output = Result<()>> + Send;

    /// Tidies up after a job that failed for good, whatever ended it: its last error, a timeout, a panic, a worker that was
    /// lost. May run more than once.
    fn bury(self, _ctx: &JobContext, _error: &Error) -> impl Future<Output = Result<()>> + Send {
        std::future::ready(Ok(()))
    }
}

/// Adds a job in the caller's unit of work: it exists if and only if that commits. Its tenant is the unit's.
pub async fn enqueue<J: Job>(tx: &TenantTx, job: &J) -> Result<Uuid> {
    let id = tx.new_id();
    let timeout = i32::try_from(J::TIMEOUT.as_millis()).map_err(Error::internal)?;
    let statement = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "SELECT enqueue($1, $2, $3, $4, $5)",
        [
            id.into(),
            J::NAME.into(),
            serde_json::to_value(job).map_err(Error::internal)?.into(),
            J::MAX_ATTEMPTS.into(),
            timeout.into(),
        ],
    );
    tx.execute_raw(statement).await?;
    tx.note_enqueued();
    Ok(id)
}

/// What a running job has at hand.
#[derive(Clone, Debug)]
pub struct JobContext {
    /// Shared by all.
    pub services: Arc<Services>,
    /// Whose job it is.
    pub tenant: Arc<Tenant>,
    attribution: Attribution,
    made: Arc<OnceLock<Uuid>>,
}

impl JobContext {
    /// Notes which media the job made: its result, once the run has succeeded.
    pub fn made(&self, media: Uuid) {
        // A job that notes two has made the first.
        let _ = self.made.set(media);
    }

    /// Begins a unit of work for the job's tenant; the history will name the job, and who caused it.
    pub async fn begin(&self) -> Result<TenantTx> {
        self.services
            .database
            .write(&self.tenant, &self.attribution)
            .await
    }

    fn new(services: Arc<Services>, tenant: Arc<Tenant>, job: &queue::Claimed) -> Self {
        let attribution = Attribution {
            actor: Actor::Job(job.id),
            cause: Some(job.actor.clone()),
            request_id: job.request_id.clone(),
            reason: None,
        };
        Self {
            services,
            tenant,
            attribution,
            made: Arc::default(),
        }
    }
}

/// What is done with a kind's arguments.
#[derive(Clone, Copy, Debug)]
struct Kind {
    run: fn(serde_json::Value, JobContext) -> BoxFuture<'static, Result<()>>,
    bury: fn(serde_json::Value, JobContext, Arc<Error>) -> BoxFuture<'static, Result<()>>,
}

/// The kinds that this binary can run.
#[derive(Clone, Debug, Default)]
pub struct Kinds(BTreeMap<&'static str, Kind>);

impl Kinds {
    /// Adds a kind.
    #[must_use]
    pub fn with<J: Job>(mut self) -> Self {
        let kind = Kind {
            run: |args, ctx| Box::pin(async move { decode::<J>(args)?.run(&ctx).await }),
            bury: |args, ctx, error| {
                Box::pin(async move { decode::<J>(args)?.bury(&ctx, &error).await })
            },
        };
        self.0.insert(J::NAME, kind);
        self
    }
}

fn decode<J: Job>(args: serde_json::Value) -> Result<J> {
    serde_json::from_value(args).map_err(|e| {
        tracing::warn!(error = %e, "a job's arguments do not fit its kind");
        Error::invalid("args", "The job's arguments do not fit its kind.")
    })
}

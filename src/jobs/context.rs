//! What a running job has at hand.

use super::batch::{self, BatchEnds};
use super::claim::Claimed;
use super::held::Hold;
use crate::actor::{Actor, Attribution};
use crate::database::{Tenant, TenantTx};
use crate::error::{Error, Result};
use crate::services::Services;
use sea_orm::{ConnectionTrait as _, DbBackend, Statement};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use uuid::Uuid;

/// What a running job has at hand.
#[derive(Clone, Debug)]
pub struct JobContext {
    /// Shared by all.
    pub services: Arc<Services>,
    /// Whose job it is.
    pub tenant: Arc<Tenant>,
    attribution: Attribution,
    hold: Arc<Hold>,
    made: Arc<OnceLock<Uuid>>,
    wish: Arc<Mutex<Option<Wish>>>,
}

/// How a run that returns without an error wants to end, if not done.
#[derive(Clone, Debug)]
pub(super) enum Wish {
    /// Run again after this time.
    Snooze(Duration),
    /// There is nothing to do any more, for this reason.
    Discard(String),
}

impl JobContext {
    pub(super) fn new(
        services: Arc<Services>,
        tenant: Arc<Tenant>,
        job: &Claimed,
        hold: Arc<Hold>,
    ) -> Self {
        let attribution = Attribution {
            actor: Actor::Job(job.id),
            cause: Some(job.actor.clone()),
            request_id: job.request_id.clone(),
            reason: None,
            trace: Some(job.span()),
        };
        Self {
            services,
            tenant,
            attribution,
            hold,
            made: Arc::default(),
            wish: Arc::default(),
        }
    }

    /// Which job it is.
    pub fn id(&self) -> Uuid {
        self.hold.id
    }

    /// Begins a unit of work for the job's tenant; the history will name the job, and who caused it. Jobs that it adds have the
    /// same cause.
    pub async fn begin(&self) -> Result<TenantTx> {
        self.services
            .database
            .write(&self.tenant, &self.attribution)
            .await
    }

    /// Notes which media the job made: its result, once the run has succeeded.
    pub fn made(&self, media: Uuid) {
        // A job that notes two has made the first.
        let _ = self.made.set(media);
    }

    /// Says how far the work has come, from 0 to 1. Told to those who follow the job at most twice a second.
    pub fn progress(&self, done: f32) {
        self.hold.progress(done.clamp(0.0, 1.0));
    }

    /// Whether the job was cancelled: a run that looks from time to time can stop where it is good to stop.
    pub fn is_cancelled(&self) -> bool {
        self.hold.cancelled.is_cancelled()
    }

    /// Returns when the job is cancelled. Ten seconds later the run is dropped.
    pub async fn cancelled(&self) {
        self.hold.cancelled.cancelled().await;
    }

    /// Ends the run, which returns this: it is run again after a time, and this run does not count as an attempt.
    pub fn snooze(&self, after: Duration) -> Result<()> {
        self.wish(Wish::Snooze(after));
        Ok(())
    }

    /// Ends the run, which returns this: there is nothing to do any more. The job is cancelled, with the reason.
    pub fn discard(&self, reason: &str) -> Result<()> {
        self.wish(Wish::Discard(reason.to_owned()));
        Ok(())
    }

    /// Ends the job well within its own unit of work: if that commits, the job is over, and is not run again whatever happens
    /// then; if not, neither are its effects. So they are there exactly once. A run that has lost its job gets an error.
    pub async fn complete_in(&self, tx: &TenantTx) -> Result<()> {
        let statement = Statement::from_sql_and_values(
            DbBackend::Postgres,
            "SELECT complete_job($1, $2, $3) AS completed",
            [
                self.hold.id.into(),
                self.hold.claim.into(),
                self.result().into(),
            ],
        );
        let row = tx.query_one_raw(statement).await?;
        if row.is_some_and(|row| row.try_get("", "completed").unwrap_or(false)) {
            self.hold.complete();
            return Ok(());
        }
        Err(Error::internal("the job was lost to another run"))
    }

    /// How the jobs ended that this one has waited for: see [`super::batch()`].
    pub async fn batch(&self, tx: &TenantTx) -> Result<BatchEnds> {
        batch::ends(tx, self.hold.id).await
    }

    /// Whether the job said that it ended itself.
    pub(super) fn is_completed(&self) -> bool {
        self.hold.is_completed()
    }

    pub(super) fn wished(&self) -> Option<Wish> {
        let mut wish = self.wish.lock().unwrap_or_else(PoisonError::into_inner);
        wish.take()
    }

    pub(super) fn result(&self) -> Option<Uuid> {
        self.made.get().copied()
    }

    fn wish(&self, wish: Wish) {
        let mut wished = self.wish.lock().unwrap_or_else(PoisonError::into_inner);
        *wished = Some(wish);
    }
}

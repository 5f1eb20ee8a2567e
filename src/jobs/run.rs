//! Runs one claimed job to its end, whatever that is. Nothing here fails or panics.

use super::cancelled;
use super::claim::Claimed;
use super::context::{JobContext, Wish};
use super::ends::{End, Failure, Outcome};
use super::held::Hold;
use super::kinds::{Kind, TenantKind};
use super::platform::PlatformContext;
use super::worker::{InHand, Inner};
use crate::error::{Error, Result};
use entity::platform::tenant::State;
use futures::FutureExt as _;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};
use tracing::Instrument as _;
use uuid::Uuid;

/// How long a job that is cancelled may take to stop by itself.
const GRACE: Duration = Duration::from_secs(10);
/// How long a job waits for a worker that knows its kind before it is looked at again.
const UNKNOWN: Duration = Duration::from_secs(20);

/// Runs the job and hands on how it ended.
pub(super) async fn run(inner: Arc<Inner>, InHand { job, token }: InHand) {
    // At the level of errors, so that no filter takes tenant and actor from a line that is logged.
    let span = tracing::error_span!(
        "job",
        job.id = %job.id,
        job.kind = job.kind,
        job.attempt = job.attempt,
        tenant = tracing::field::Empty,
        actor = job.actor,
        request.id = job.request_id,
        trace.id = job.span().id(),
        trace.parent = job.parent().map(|parent| parent.span())
    );
    let begun = Instant::now();
    let metrics = &inner.services.metrics;
    let queue = inner.kinds.queue(&job.kind);
    let ran = outcome(&inner, &job).instrument(span.clone()).await;
    let ended = ran.outcome.name();
    let times = (job.waited, begun.elapsed());
    metrics.ended((queue, &job.kind), ended, times);
    match &ran.outcome {
        Outcome::Released | Outcome::Later(_) | Outcome::Unknown(..) => {
            inner.means.gave_back(job.lane, job.cost.into());
        }
        _ => inner
            .means
            .ran(&job.kind, job.lane, begun.elapsed(), job.cost.into()),
    }
    if let Outcome::Retry(_, failure) | Outcome::Dead(failure) = &ran.outcome {
        let detail = &failure.detail;
        let ends = matches!(ran.outcome, Outcome::Dead(_));
        span.in_scope(|| tracing::warn!(detail, ends, "a job failed"));
    }
    inner.end(End {
        job,
        outcome: ran.outcome,
        completed: ran.completed,
        _token: token,
    });
}

/// How it went.
struct Ran {
    outcome: Outcome,
    completed: bool,
}

impl From<Outcome> for Ran {
    fn from(outcome: Outcome) -> Self {
        Self {
            outcome,
            completed: false,
        }
    }
}

async fn outcome(inner: &Arc<Inner>, job: &Claimed) -> Ran {
    let Some(hold) = inner.held.get(job.id) else {
        return Outcome::Released.into();
    };
    hold.begin();
    match (inner.kinds.get(&job.kind), job.tenant_id) {
        (None, _) => unknown(job).into(),
        (Some(Kind::Tenant(kind)), Some(tenant)) => {
            if !hold.cancelled.is_cancelled()
                && let Some(after) = inner.breakers.hold(&inner.services.database, job).await
            {
                return Outcome::Later(after).into();
            }
            for_tenant(inner, job, hold, (kind, tenant)).await
        }
        (Some(Kind::Platform(_)), None) if job.attempt > job.max_attempts => {
            Outcome::Dead(failed(&lost())).into()
        }
        (Some(Kind::Platform(run)), None) => {
            let context = PlatformContext::new(Arc::clone(&inner.services), Arc::clone(&hold));
            match watched(inner, job, &hold, run(job.args(), context)).await {
                Err(outcome) => outcome.into(),
                Ok(Ok(())) => Outcome::Done(None).into(),
                Ok(Err(error)) if may_retry(job, &error) => {
                    Outcome::Retry(backoff(job.attempt), failed(&error)).into()
                }
                Ok(Err(error)) => Outcome::Dead(failed(&error)).into(),
            }
        }
        _ => {
            let told =
                "a tenant's kind of job in the platform's lane, or the platform's in a tenant's";
            Outcome::Dead(failed(&Error::internal(told))).into()
        }
    }
}

/// Why a job that was claimed once more than it may be run is dead.
fn lost() -> Error {
    Error::internal("its worker was lost, the last time too")
}

async fn for_tenant(
    inner: &Arc<Inner>,
    job: &Claimed,
    hold: Arc<Hold>,
    (kind, tenant): (TenantKind, Uuid),
) -> Ran {
    let tenant = match inner.services.registry.get(tenant).await {
        Ok(tenant) if tenant.state == State::Active => tenant,
        // Claimed as its tenant was taken out of use: it waits like the others.
        Ok(_) | Err(Error::TenantUpgrading) => return Outcome::Later(backoff(3)).into(),
        Err(error) if may_retry(job, &error) => {
            return Outcome::Retry(backoff(job.attempt), failed(&error)).into();
        }
        Err(error) => return Outcome::Dead(failed(&error)).into(),
    };
    tracing::Span::current().record("tenant", &tenant.slug);
    let services = Arc::clone(&inner.services);
    let context = JobContext::new(services, tenant, job, Arc::clone(&hold));
    if hold.cancelled.is_cancelled() {
        bury_cancelled(job, kind, &context).await;
        return Outcome::Cancelled(None).into();
    }
    if job.attempt > job.max_attempts {
        return bury(job, kind, &context, lost()).await.into();
    }
    let work = (kind.run)(job.args(), context.clone());
    let ended = match watched(inner, job, &hold, work).await {
        Ok(ended) => ended,
        Err(outcome) => {
            if matches!(outcome, Outcome::Cancelled(_)) {
                bury_cancelled(job, kind, &context).await;
            }
            return outcome.into();
        }
    };
    let outcome = match ended {
        Ok(()) => match context.wished() {
            None => Outcome::Done(context.result()),
            Some(Wish::Snooze(after)) => Outcome::Later(after),
            Some(Wish::Discard(reason)) => Outcome::Cancelled(Some(Failure {
                public: reason.clone(),
                detail: reason,
            })),
        },
        Err(error) if hold.cancelled.is_cancelled() => {
            bury_cancelled(job, kind, &context).await;
            Outcome::Cancelled(Some(failed(&error)))
        }
        Err(error) if may_retry(job, &error) => {
            Outcome::Retry(backoff(job.attempt), failed(&error))
        }
        Err(error) => bury(job, kind, &context, error).await,
    };
    Ran {
        outcome,
        completed: context.is_completed(),
    }
}

/// Runs the work to its end, unless the run is to stop before.
async fn watched(
    inner: &Inner,
    job: &Claimed,
    hold: &Hold,
    work: impl Future<Output = Result<()>>,
) -> std::result::Result<Result<()>, Outcome> {
    tokio::select! {
        ended = in_time(job, work) => Ok(ended),
        () = hold.lost.cancelled() => Err(Outcome::Released),
        () = inner.aborted() => Err(Outcome::Released),
        () = gave_up(hold) => Err(Outcome::Cancelled(None)),
    }
}

/// The job was cancelled, and had its time to stop.
async fn gave_up(hold: &Hold) {
    hold.cancelled.cancelled().await;
    sleep(GRACE).await;
}

/// A newer binary may know the kind: during a deployment both claim. No attempt is charged.
fn unknown(job: &Claimed) -> Outcome {
    let kind = &job.kind;
    let failure = failed(&Error::internal(format!(
        "no worker knew the kind {kind} for a day"
    )));
    Outcome::Unknown(UNKNOWN.mul_f64(rand::random_range(0.5..1.5)), failure)
}

/// Runs the work to its end, its timeout or its panic.
async fn in_time(job: &Claimed, work: impl Future<Output = Result<()>>) -> Result<()> {
    match AssertUnwindSafe(timeout(job.timeout(), work))
        .catch_unwind()
        .await
    {
        Ok(Ok(ended)) => ended,
        Ok(Err(_)) => Err(Error::Timeout),
        Err(panic) => Err(Error::internal(message(&*panic))),
    }
}

/// Lets the kind tidy up. If that fails for a passing reason, it is tried again for as long as it takes.
async fn bury(job: &Claimed, kind: TenantKind, context: &JobContext, error: Error) -> Outcome {
    let failure = failed(&error);
    // Apart: the future of each run is moved about, and would have room for what is rare.
    match Box::pin(tidy(job, kind, context, &error)).await {
        Err(Error::Unavailable | Error::Timeout) => Outcome::Retry(backoff(job.attempt), failure),
        Err(error) => {
            tracing::warn!(?error, "cannot tidy up after a job that failed");
            Outcome::Dead(failure)
        }
        Ok(()) => Outcome::Dead(failure),
    }
}

/// The same for one that was cancelled, which is not tried again; nor does a stop wait for it long.
async fn bury_cancelled(job: &Claimed, kind: TenantKind, context: &JobContext) {
    let error = cancelled();
    let tidied = timeout(GRACE, Box::pin(tidy(job, kind, context, &error))).await;
    if let Err(error) = tidied.unwrap_or(Err(Error::Timeout)) {
        tracing::warn!(?error, "cannot tidy up after a job that was cancelled");
    }
}

async fn tidy(job: &Claimed, kind: TenantKind, context: &JobContext, error: &Error) -> Result<()> {
    let tidied = async {
        let tx = context.begin().await?;
        let tidied = (kind.bury)(job.args(), &tx, error).await;
        tx.settle(tidied).await
    };
    in_time(job, tidied).await
}

/// Whether another try can help, and one is left.
fn may_retry(job: &Claimed, error: &Error) -> bool {
    error.is_transient() && job.attempt < job.max_attempts
}

fn failed(error: &Error) -> Failure {
    Failure {
        public: error.to_string(),
        detail: format!("{error:?}"),
    }
}

/// 2, 4, 8 … seconds up to ten minutes, each between half and one and a half times as long, so that what failed together
/// does not come back together.
fn backoff(attempt: i32) -> Duration {
    let exponent = u32::try_from(attempt.clamp(1, 9)).unwrap_or(1);
    let base = Duration::from_secs(2_u64.pow(exponent)).min(Duration::from_mins(10));
    base.mul_f64(rand::random_range(0.5..1.5))
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    format!(
        "the job panicked: {}",
        text.as_deref().unwrap_or("no message")
    )
}

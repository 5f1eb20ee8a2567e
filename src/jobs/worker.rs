//! Runs jobs behind fang's worker pool.
//!
//! fang's workers only ever see the [`Envelope`], which never fails and never panics: an `Err` would end the worker for
//! good. Whatever becomes of the job is written by us, under its claim.

use super::queue::{self, Claimed, Failure, Outcome};
use super::{JobContext, Kind, Kinds};
use crate::error::{Error, Result};
use crate::services::Services;
use entity::platform::tenant::State;
use fang::asynk::async_queue::{AsyncQueueError, AsyncQueueable};
use fang::asynk::async_runnable::AsyncRunnable;
use fang::asynk::async_worker_pool::AsyncWorkerPool;
use fang::{FangError, FangTaskState, Task};
use futures::FutureExt as _;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::Instrument as _;
use uuid::Uuid;

/// How long a worker sleeps at most when there is nothing to do: a job of another process waits no longer.
const POLL: Duration = Duration::from_secs(1);
/// How often a running job gives a sign of life; the lease is three times as long.
const BEAT: Duration = Duration::from_secs(10);
/// How often lost jobs are looked for.
const REAP: Duration = Duration::from_secs(5);
/// How long running jobs may go on when the worker stops.
const DRAIN: Duration = Duration::from_secs(30);

/// fang gives a task no context but the queue's trait, so the envelope finds its worker here: the one global.
static WORKERS: LazyLock<Mutex<BTreeMap<Uuid, Weak<Inner>>>> = LazyLock::new(Mutex::default);

/// A worker of this process: as many jobs side by side as it was started with.
#[derive(Clone, Debug)]
pub struct Worker(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    id: Uuid,
    name: String,
    services: Arc<Services>,
    kinds: Kinds,
    /// One of the idle fang workers claims at a time; the others wait here.
    turn: tokio::sync::Mutex<()>,
    stopping: AtomicBool,
    stop: Notify,
    running: TaskTracker,
    /// Jobs claimed and on their way through fang, so that a stop waits for them too.
    in_hand: Mutex<BTreeMap<Uuid, TaskTrackerToken>>,
}

impl Worker {
    /// Starts claiming.
    pub async fn start(services: Arc<Services>, kinds: Kinds) -> Self {
        let id = services.database.clock().new_id();
        let concurrency = services.config.worker_concurrency;
        let inner = Arc::new(Inner {
            id,
            name: format!("{}:{id}", std::process::id()),
            services,
            kinds,
            turn: tokio::sync::Mutex::default(),
            stopping: AtomicBool::new(false),
            stop: Notify::new(),
            running: TaskTracker::new(),
            in_hand: Mutex::default(),
        });
        workers().insert(id, Arc::downgrade(&inner));
        let worker = Self(inner);
        AsyncWorkerPool::<Self>::builder()
            .number_of_workers(concurrency)
            .queue(worker.clone())
            .build()
            .start()
            .await;
        worker.spawn_reaper();
        worker
    }

    /// Claims nothing more, and waits for the running jobs, up to 30 seconds; what is not finished then goes back to the
    /// queue when its lease ends.
    pub async fn stop(self) {
        self.0.stopping.store(true, Ordering::SeqCst);
        self.0.stop.notify_waiters();
        // A claim that is under way ends first: its job is in hand then, and waited for.
        drop(self.0.turn.lock().await);
        self.0.running.close();
        if timeout(DRAIN, self.0.running.wait()).await.is_err() {
            tracing::warn!(
                jobs = self.0.running.len(),
                "jobs are still running; their leases will end"
            );
        }
        workers().remove(&self.0.id);
    }

    fn is_stopping(&self) -> bool {
        self.0.stopping.load(Ordering::SeqCst)
    }

    #[expect(clippy::disallowed_methods, reason = "lives as long as the worker")]
    fn spawn_reaper(&self) {
        let worker = self.clone();
        tokio::spawn(async move {
            while !worker.is_stopping() {
                match queue::reap(&worker.0.services.database).await {
                    Ok(0) => {}
                    Ok(jobs) => tracing::warn!(jobs, "took back jobs whose worker was lost"),
                    Err(error) => tracing::warn!(?error, "cannot look for lost jobs"),
                }
                tokio::select! {
                    () = sleep(REAP) => {}
                    () = worker.0.stop.notified() => {}
                }
            }
        });
    }

    /// The next job, whenever there is one; none when the worker stops.
    async fn next(&self) -> Option<Claimed> {
        let _turn = self.0.turn.lock().await;
        while !self.is_stopping() {
            let database = &self.0.services.database;
            match queue::claim(database, &self.0.kinds, &self.0.name).await {
                // The claim was under way when the stop began: the job goes back, uncharged.
                Ok(Some(job)) if self.is_stopping() => {
                    self.0.acknowledge(&job, &Outcome::Released).await;
                }
                Ok(Some(job)) => {
                    database.note_change(job.tenant_id);
                    self.0.in_hand().insert(job.id, self.0.running.token());
                    return Some(job);
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(?error, "cannot claim jobs"),
            }
            tokio::select! {
                () = sleep(POLL) => {}
                () = database.enqueued().notified() => {}
                () = self.0.stop.notified() => {}
            }
        }
        None
    }
}

fn workers() -> std::sync::MutexGuard<'static, BTreeMap<Uuid, Weak<Inner>>> {
    WORKERS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    fn in_hand(&self) -> std::sync::MutexGuard<'_, BTreeMap<Uuid, TaskTrackerToken>> {
        self.in_hand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(&self, job: Claimed) {
        let _running = self.in_hand().remove(&job.id);
        // At the level of errors, so that no filter takes tenant and actor from a line that is logged.
        let span = tracing::error_span!(
            "job",
            job.id = %job.id,
            job.kind = job.kind,
            job.attempt = job.attempt,
            tenant = tracing::field::Empty,
            actor = job.actor,
            request.id = job.request_id
        );
        let outcome = self.outcome(&job).instrument(span.clone()).await;
        if let Outcome::Retry(_, failure) | Outcome::Dead(failure) = &outcome {
            let detail = &failure.detail;
            span.in_scope(|| {
                tracing::warn!(
                    detail,
                    ends = matches!(outcome, Outcome::Dead(_)),
                    "a job failed"
                );
            });
        }
        self.acknowledge(&job, &outcome).instrument(span).await;
    }

    async fn outcome(&self, job: &Claimed) -> Outcome {
        let Some(kind) = self.kinds.0.get(job.kind.as_str()) else {
            return Outcome::Released;
        };
        let tenant = match self.services.registry.get(job.tenant_id).await {
            Ok(tenant) if tenant.state == State::Active => tenant,
            // Claimed as its tenant was taken out of use: it waits like the others.
            Ok(_) | Err(Error::TenantUpgrading) => return Outcome::Later(backoff(3)),
            Err(error) if may_retry(job, &error) => {
                return Outcome::Retry(backoff(job.attempt), failure(&error));
            }
            Err(error) => return Outcome::Dead(failure(&error)),
        };
        tracing::Span::current().record("tenant", &tenant.slug);
        let context = JobContext::new(Arc::clone(&self.services), tenant, job);
        let ended = if job.attempt > job.max_attempts {
            Err(Error::internal("its worker was lost, the last time too"))
        } else {
            let work = run(job, (kind.run)(job.args.clone(), context.clone()));
            tokio::select! {
                ended = work => ended,
                () = self.keep_alive(job) => return Outcome::Released,
            }
        };
        match ended {
            Ok(()) => Outcome::Done(context.made.get().copied()),
            Err(error) if may_retry(job, &error) => {
                Outcome::Retry(backoff(job.attempt), failure(&error))
            }
            Err(error) => bury(job, kind, context, error).await,
        }
    }

    /// Beats until the claim is lost, or may be: a run that could not say for two beats that it lives stops before its
    /// lease ends and another begins.
    async fn keep_alive(&self, job: &Claimed) {
        let mut heard = Instant::now();
        while heard.elapsed() < 2 * BEAT {
            sleep(BEAT.saturating_sub(Duration::from_secs(1))).await;
            let asked = Instant::now();
            let answer = timeout(BEAT, queue::beat(&self.services.database, job)).await;
            match answer.unwrap_or(Err(Error::Timeout)) {
                Ok(true) => heard = asked,
                Ok(false) => return,
                Err(error) => tracing::warn!(?error, "cannot prolong the claim"),
            }
        }
    }

    /// Tries for a whole lease; after that the reaper has the word.
    async fn acknowledge(&self, job: &Claimed, outcome: &Outcome) {
        let started = Instant::now();
        while started.elapsed() < 3 * BEAT {
            match queue::finish(&self.services.database, job, outcome).await {
                Ok(true) => return self.services.database.note_change(job.tenant_id),
                Ok(false) => return tracing::warn!("the claim was lost; another run decides"),
                Err(error) => tracing::warn!(?error, "cannot write down how the job ended"),
            }
            sleep(POLL).await;
        }
    }
}

/// Runs the work to its end, its timeout or its panic.
async fn run(job: &Claimed, work: impl Future<Output = Result<()>>) -> Result<()> {
    let limit = Duration::from_millis(u64::try_from(job.timeout_ms).unwrap_or_default());
    match AssertUnwindSafe(timeout(limit, work)).catch_unwind().await {
        Ok(Ok(ended)) => ended,
        Ok(Err(_)) => Err(Error::Timeout),
        Err(panic) => Err(Error::internal(message(&*panic))),
    }
}

/// Lets the kind tidy up. If that fails for a passing reason, it is tried again for as long as it takes.
async fn bury(job: &Claimed, kind: &Kind, context: JobContext, error: Error) -> Outcome {
    let failure = failure(&error);
    let buried = run(job, (kind.bury)(job.args.clone(), context, Arc::new(error))).await;
    match buried {
        Err(Error::Unavailable | Error::Timeout) => Outcome::Retry(backoff(job.attempt), failure),
        Err(error) => {
            tracing::warn!(?error, "cannot tidy up after a job that failed");
            Outcome::Dead(failure)
        }
        Ok(()) => Outcome::Dead(failure),
    }
}

/// Whether another try can help, and one is left.
fn may_retry(job: &Claimed, error: &Error) -> bool {
    error.is_transient() && job.attempt < job.max_attempts
}

fn failure(error: &Error) -> Failure {
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

/// A claimed job, as fang carries it.
#[derive(Debug, Serialize, Deserialize)]
struct Envelope {
    worker: Uuid,
    job: Claimed,
}

#[typetag::serde(name = "bulkhead")]
#[async_trait::async_trait]
impl AsyncRunnable for Envelope {
    async fn run(&self, _queue: &dyn AsyncQueueable) -> std::result::Result<(), FangError> {
        let worker = workers().get(&self.worker).and_then(Weak::upgrade);
        if let Some(worker) = worker {
            worker.run(self.job.clone()).await;
        }
        Ok(())
    }
}

/// fang's view of the queue: it asks for tasks, and everything else is a no-op, because a task of ours ends itself.
#[async_trait::async_trait]
impl AsyncQueueable for Worker {
    async fn fetch_and_touch_task(
        &self,
        _: Option<String>,
    ) -> std::result::Result<Option<Task>, AsyncQueueError> {
        let now = self.0.services.database.clock().now();
        let (id, metadata) = match self.next().await {
            Some(job) => {
                let id = job.id;
                let envelope: Box<dyn AsyncRunnable> = Box::new(Envelope {
                    worker: self.0.id,
                    job,
                });
                (id, serde_json::to_value(&envelope)?)
            }
            // What fang cannot decode ends its worker quietly: the only way to end one.
            None => (Uuid::nil(), serde_json::Value::Null),
        };
        Ok(Some(
            Task::builder()
                .id(id)
                .metadata(metadata)
                .error_message(None)
                .state(FangTaskState::InProgress)
                .task_type("common")
                .uniq_hash(None)
                .retries(0)
                .scheduled_at(now)
                .created_at(now)
                .updated_at(now)
                .build(),
        ))
    }

    async fn insert_task(
        &self,
        _: &dyn AsyncRunnable,
    ) -> std::result::Result<Task, AsyncQueueError> {
        refused("jobs are added by jobs::enqueue")
    }

    async fn remove_all_tasks(&self) -> std::result::Result<u64, AsyncQueueError> {
        refused("jobs are not removed by fang")
    }

    async fn remove_all_scheduled_tasks(&self) -> std::result::Result<u64, AsyncQueueError> {
        refused("jobs are not removed by fang")
    }

    async fn remove_task(&self, _: &Uuid) -> std::result::Result<u64, AsyncQueueError> {
        Ok(1)
    }

    async fn remove_task_by_metadata(
        &self,
        _: &dyn AsyncRunnable,
    ) -> std::result::Result<u64, AsyncQueueError> {
        refused("jobs are not removed by fang")
    }

    async fn remove_tasks_type(&self, _: &str) -> std::result::Result<u64, AsyncQueueError> {
        refused("jobs are not removed by fang")
    }

    async fn find_task_by_id(&self, _: &Uuid) -> std::result::Result<Task, AsyncQueueError> {
        refused("jobs are read by jobs::find")
    }

    async fn update_task_state(
        &self,
        task: &Task,
        _: FangTaskState,
    ) -> std::result::Result<Task, AsyncQueueError> {
        Ok(task.clone())
    }

    async fn fail_task(&self, task: &Task, _: &str) -> std::result::Result<Task, AsyncQueueError> {
        Ok(task.clone())
    }

    async fn schedule_task(
        &self,
        _: &dyn AsyncRunnable,
    ) -> std::result::Result<Task, AsyncQueueError> {
        refused("jobs are scheduled by their rows")
    }

    async fn schedule_retry(
        &self,
        task: &Task,
        _: u32,
        _: &str,
    ) -> std::result::Result<Task, AsyncQueueError> {
        Ok(task.clone())
    }
}

fn refused<T>(why: &str) -> std::result::Result<T, AsyncQueueError> {
    Err(AsyncQueueError::SerdeError(serde::ser::Error::custom(why)))
}

//! fang's side: its pool of workers, which only ever see the [`Envelope`]. That never fails and never panics: an `Err` would end
//! the worker for good. What becomes of a job is written by us, under its claim.

use super::run;
use super::worker::Inner;
use fang::asynk::async_queue::{AsyncQueueError, AsyncQueueable};
use fang::asynk::async_runnable::AsyncRunnable;
use fang::asynk::async_worker_pool::AsyncWorkerPool;
use fang::{FangError, FangTaskState, Task};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use uuid::Uuid;

/// fang gives a task no context but the queue's trait, so the envelope finds its worker here: the one global.
static WORKERS: LazyLock<Mutex<BTreeMap<Uuid, Weak<Inner>>>> = LazyLock::new(Mutex::default);

fn workers() -> MutexGuard<'static, BTreeMap<Uuid, Weak<Inner>>> {
    WORKERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the pool.
pub(super) async fn start(inner: &Arc<Inner>) {
    workers().insert(inner.id, Arc::downgrade(inner));
    AsyncWorkerPool::<Queue>::builder()
        .number_of_workers(inner.services.config.worker_concurrency)
        .queue(Queue(Arc::clone(inner)))
        .build()
        .start()
        .await;
}

/// Runs nothing more for this worker.
pub(super) fn forget(inner: &Inner) {
    workers().remove(&inner.id);
}

/// A claimed job, as fang carries it: where it is kept.
#[derive(Debug, Serialize, Deserialize)]
struct Envelope {
    worker: Uuid,
    job: Uuid,
}

#[typetag::serde(name = "bulkhead")]
#[async_trait::async_trait]
impl AsyncRunnable for Envelope {
    async fn run(&self, _queue: &dyn AsyncQueueable) -> Result<(), FangError> {
        let worker = workers().get(&self.worker).and_then(Weak::upgrade);
        if let Some(worker) = worker
            && let Some(job) = worker.begun(self.job)
        {
            run::run(worker, job).await;
        }
        Ok(())
    }
}

/// fang's view of the queue: it asks for tasks, and everything else is a no-op, because a task of ours ends itself.
#[derive(Clone, Debug)]
struct Queue(Arc<Inner>);

#[async_trait::async_trait]
impl AsyncQueueable for Queue {
    async fn fetch_and_touch_task(
        &self,
        _: Option<String>,
    ) -> Result<Option<Task>, AsyncQueueError> {
        let now = self.0.services.database.clock().now();
        let (id, metadata) = match self.0.counter.next().await {
            Some(job) => {
                let id = self.0.tell(job);
                let envelope: Box<dyn AsyncRunnable> = Box::new(Envelope {
                    worker: self.0.id,
                    job: id,
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

    async fn insert_task(&self, _: &dyn AsyncRunnable) -> Result<Task, AsyncQueueError> {
        refused("jobs are added by jobs::enqueue")
    }

    async fn remove_all_tasks(&self) -> Result<u64, AsyncQueueError> {
        refused("jobs are not removed by fang")
    }

    async fn remove_all_scheduled_tasks(&self) -> Result<u64, AsyncQueueError> {
        refused("jobs are not removed by fang")
    }

    async fn remove_task(&self, _: &Uuid) -> Result<u64, AsyncQueueError> {
        Ok(1)
    }

    async fn remove_task_by_metadata(&self, _: &dyn AsyncRunnable) -> Result<u64, AsyncQueueError> {
        refused("jobs are not removed by fang")
    }

    async fn remove_tasks_type(&self, _: &str) -> Result<u64, AsyncQueueError> {
        refused("jobs are not removed by fang")
    }

    async fn find_task_by_id(&self, _: &Uuid) -> Result<Task, AsyncQueueError> {
        refused("jobs are read by jobs::rows::find")
    }

    async fn update_task_state(
        &self,
        task: &Task,
        _: FangTaskState,
    ) -> Result<Task, AsyncQueueError> {
        Ok(task.clone())
    }

    async fn fail_task(&self, task: &Task, _: &str) -> Result<Task, AsyncQueueError> {
        Ok(task.clone())
    }

    async fn schedule_task(&self, _: &dyn AsyncRunnable) -> Result<Task, AsyncQueueError> {
        refused("jobs are scheduled by their rows")
    }

    async fn schedule_retry(&self, task: &Task, _: u32, _: &str) -> Result<Task, AsyncQueueError> {
        Ok(task.clone())
    }
}

fn refused<T>(why: &str) -> Result<T, AsyncQueueError> {
    Err(AsyncQueueError::SerdeError(serde::ser::Error::custom(why)))
}

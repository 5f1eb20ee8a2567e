//! Stock fang: its own queue and pool, beside ours.

use super::kinds::notes;
use crate::Result;
use crate::postgres::Postgres;
use fang::asynk::async_queue::{AsyncQueue, AsyncQueueable};
use fang::asynk::async_runnable::AsyncRunnable;
use fang::asynk::async_worker_pool::AsyncWorkerPool;
use fang::{FangError, SleepParams};
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, Executor as _};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// fang's table, as its migrations make it; the ids are PostgreSQL's own function's, for the extension it asks for is not needed.
const TABLE: &str = "DROP SCHEMA IF EXISTS fang CASCADE; CREATE SCHEMA fang; SET search_path TO fang;
    CREATE TYPE fang_task_state AS ENUM ('new', 'in_progress', 'failed', 'finished', 'retried');
    CREATE TABLE fang_tasks (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(), metadata jsonb NOT NULL, error_message TEXT,
        state fang_task_state DEFAULT 'new' NOT NULL, task_type TEXT DEFAULT 'common' NOT NULL, uniq_hash TEXT,
        retries INTEGER DEFAULT 0 NOT NULL, scheduled_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
        created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(), updated_at TIMESTAMPTZ NOT NULL DEFAULT NOW());
    CREATE INDEX fang_tasks_state_index ON fang_tasks (state);
    CREATE INDEX fang_tasks_type_index ON fang_tasks (task_type);
    CREATE INDEX fang_tasks_scheduled_at_index ON fang_tasks (scheduled_at);
    CREATE INDEX fang_tasks_uniq_hash ON fang_tasks (uniq_hash);";

/// Does nothing.
#[derive(Debug, Serialize, Deserialize)]
struct Nothing {}

#[typetag::serde]
#[async_trait::async_trait]
impl AsyncRunnable for Nothing {
    async fn run(&self, _: &dyn AsyncQueueable) -> Result<(), FangError> {
        notes().ran();
        Ok(())
    }
}

/// Jobs per second until its table is empty, and how many runs there were for each.
pub(super) async fn drain(postgres: &Postgres, jobs: u32, workers: u32) -> Result<(f64, f64)> {
    let mut superuser = postgres.connect().await?;
    let task: Box<dyn AsyncRunnable> = Box::new(Nothing {});
    let task = serde_json::to_string(&task)?.replace('\'', "''");
    let fill = format!(
        "{TABLE} INSERT INTO fang_tasks (metadata) SELECT '{task}' FROM generate_series(1, {jobs}); ANALYZE fang_tasks"
    );
    superuser
        .execute(sqlx::raw_sql(AssertSqlSafe(fill)))
        .await?;
    let (user, password) = postgres.superuser();
    let url = format!(
        "postgres://{user}:{password}@127.0.0.1:{}/{}?options=-c%20search_path%3Dfang",
        postgres.port(),
        crate::postgres::OWNER
    );
    let mut queue = AsyncQueue::builder()
        .uri(url)
        .max_pool_size(workers)
        .build();
    queue.connect().await.map_err(|e| format!("fang: {e}"))?;
    notes().clear();
    let began = Instant::now();
    // An empty table is looked at again at once, and not after five seconds.
    let at_once = SleepParams {
        sleep_period: Duration::from_millis(50),
        max_sleep_period: Duration::from_millis(50),
        min_sleep_period: Duration::from_millis(50),
        sleep_step: Duration::ZERO,
    };
    AsyncWorkerPool::<AsyncQueue>::builder()
        .number_of_workers(workers)
        .queue(queue)
        .sleep_params(at_once)
        .build()
        .start()
        .await;
    // Some workers end at a task that another has removed; as long as one is left, the table becomes empty.
    let left = "SELECT count(*) FROM fang.fang_tasks WHERE state = 'new'";
    let mut before = (i64::MAX, Instant::now());
    loop {
        let now: i64 = sqlx::query_scalar(left).fetch_one(&mut superuser).await?;
        if now == 0 {
            break;
        }
        if now < before.0 {
            before = (now, Instant::now());
        } else if before.1.elapsed() > Duration::from_secs(10) {
            return Err(format!("stock fang stopped with {now} jobs left").into());
        }
        sleep(Duration::from_millis(10)).await;
    }
    let rate = f64::from(jobs) / began.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a count of runs")]
    let runs = notes().runs() as f64 / f64::from(jobs);
    superuser.execute("DROP SCHEMA fang CASCADE").await?;
    Ok((rate, runs))
}

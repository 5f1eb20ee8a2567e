//! What a worker does about lanes that are not its own, kinds that it does not know, and being stopped while it claims.

use super::{Make, Wait, count, enqueue, execute, insert, new_id, node, open, private, reaches};
use crate::harness::{self, run, sqlstate, until};
use bulkhead::error::Result;
use bulkhead::jobs::{self, Job, JobContext, Kinds, Worker};
use futures::future::join_all;
use futures::poll;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::{AssertSqlSafe, Executor as _};
use std::pin::pin;
use std::sync::Arc;
use tokio::time::{Duration, timeout};

/// Waits in a queue of its own.
#[derive(Debug, Serialize, Deserialize)]
struct Aside {}

impl Job for Aside {
    const NAME: &'static str = "test.aside";
    const QUEUE: &'static str = "aside";

    async fn run(self, _: &JobContext) -> Result<()> {
        Ok(())
    }
}

/// Word of other queues comes all the time, and each lane that a worker never looked at is looked at first.
#[test]
fn word_of_other_queues_does_not_hold_up_a_worker_of_some() {
    run(async {
        let (tenant, owner) = private(1).await;
        let world = tenant.world;
        let lanes =
            "INSERT INTO bulkhead.lane (queue) SELECT 'q' || n FROM generate_series(1, 400) n";
        execute(world, lanes).await;
        let lanes = "SELECT string_agg(id::text, ',') FROM bulkhead.lane WHERE queue LIKE 'q%'";
        let lanes: String = sqlx::query_scalar(lanes)
            .fetch_one(&mut world.superuser().await)
            .await
            .unwrap();
        let some = world
            .beside(|config| config.worker_queues = vec![Aside::QUEUE.to_owned()])
            .await;
        let kinds = Kinds::default().with::<Aside>();
        let worker = Worker::start(Arc::clone(&some.app.services), kinds).await;
        let chatter = async {
            let mut superuser = world.superuser().await;
            loop {
                let word = AssertSqlSafe(format!("NOTIFY bulkhead, 'jobs:elsewhere:{lanes}'"));
                superuser.execute(word).await.unwrap();
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let work = async {
            for _ in 0..5 {
                let job = enqueue(&tenant, &Aside {}).await;
                let ran = reaches(&tenant, &owner, job, "SUCCEEDED");
                timeout(Duration::from_secs(30), ran)
                    .await
                    .expect("in time");
            }
        };
        tokio::select! {
            () = chatter => {}
            () = work => {}
        }
        worker.stop().await;
    });
}

/// What it claims after that is not left to its lease.
#[test]
fn a_stop_waits_for_a_claim_under_way() {
    run(async {
        let (tenant, _) = private(1).await;
        let world = tenant.world;
        enqueue(&tenant, &Wait { gate: open() }).await;
        let mut elsewhere = world.superuser().await;
        let hold = format!(
            "BEGIN; SELECT FROM bulkhead.lane WHERE tenant_id = '{}' FOR UPDATE",
            tenant.row.id
        );
        let hold = sqlx::raw_sql(AssertSqlSafe(hold));
        elsewhere.execute(hold).await.unwrap();
        let worker = super::worker(world).await;
        let waiting = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock'";
        until("its claim waits", async || {
            (count(world, waiting).await == 1).then_some(())
        })
        .await;
        let mut stop = pin!(worker.stop());
        assert!(poll!(stop.as_mut()).is_pending());
        elsewhere.execute("COMMIT").await.unwrap();
        stop.await;
        let held = "SELECT count(*) FROM bulkhead.job WHERE state = 2";
        assert_eq!(count(world, held).await, 0, "nothing is held any more");
        let there = "SELECT (SELECT count(*) FROM bulkhead.job WHERE state = 1 AND attempt = 0)
            + (SELECT count(*) FROM bulkhead.job_done WHERE state = 3 AND attempt = 1)";
        assert_eq!(count(world, there).await, 1, "given back, or run");
    });
}

#[test]
fn a_kind_that_no_worker_knows_for_a_day_ends_its_job() {
    run(async {
        let (tenant, owner) = private(1).await;
        let worker = super::worker(tenant.world).await;
        let job = insert(&tenant, "test.of_tomorrow", json!({})).await;
        let waiting = reaches(&tenant, &owner, job, "SCHEDULED").await;
        assert_eq!(waiting["attempts"], 0);
        for (hours, state) in [(23, "SCHEDULED"), (25, "FAILED")] {
            // Its next look is found by a time that only that look leaves.
            let move_clock = format!(
                "UPDATE bulkhead.job SET unknown_since = now() - interval '{hours} hours', run_at = now() - interval '1 minute'
                 WHERE id = '{job}'"
            );
            execute(tenant.world, &move_clock).await;
            let looked = format!(
                "SELECT count(*) FROM bulkhead.job WHERE id = '{job}' AND (state <> 6 OR run_at < now())"
            );
            until("it is looked at", async || {
                (count(tenant.world, &looked).await == 0).then_some(())
            })
            .await;
            reaches(&tenant, &owner, job, state).await;
        }
        let told = format!(
            "SELECT count(*) FROM bulkhead.job_done WHERE id = '{job}'
                 AND errors -> -1 ->> 'detail' LIKE '%no worker knew the kind test.of_tomorrow for a day%'"
        );
        assert_eq!(count(tenant.world, &told).await, 1);
        worker.stop().await;
    });
}

/// While a new version is rolled out, both claim.
#[test]
fn two_versions_share_a_queue() {
    run(async {
        let (tenant, owner) = private(2).await;
        let old = Kinds::default().with::<Wait>();
        let old = Worker::start(Arc::clone(&tenant.world.app.services), old).await;
        let beside = tenant.world.beside(|_| ()).await;
        let new = super::worker(beside).await;
        let soon = "UPDATE bulkhead.job SET run_at = now() WHERE state = 6";
        for number in 0..5 {
            let device = format!("device-{number}");
            let job = enqueue(&tenant, &Make { device }).await;
            let done = until("one that knows it has it", async || {
                execute(tenant.world, soon).await;
                let job = node(&tenant, &owner, job).await;
                (job["state"] == "SUCCEEDED").then_some(job)
            })
            .await;
            assert_eq!(done["attempts"], 1, "{done:#}");
        }
        old.stop().await;
        new.stop().await;
    });
}

/// Each lane has a share of the workers: whoever could make many would have them all.
#[test]
fn a_tenant_has_few_lanes_however_many_it_asks_for_at_once() {
    run(async {
        let (tenant, _) = private(1).await;
        let add = |number: i32| {
            let tenant = &tenant;
            async move {
                let tx = tenant.write().await;
                let call = format!(
                    "SELECT FROM enqueue('{}', 'test.none', '{{}}', 1, 1000, 'queue-{number}')",
                    new_id()
                );
                let added = harness::execute(&tx, &call).await;
                match &added {
                    Ok(_) => tx.commit().await.unwrap(),
                    Err(error) => {
                        assert_eq!(sqlstate(error), "P0001");
                        tx.rollback().await.unwrap();
                    }
                }
                added.is_ok()
            }
        };
        let added = join_all((0..24).map(add)).await;
        assert_eq!(
            added.iter().filter(|added| **added).count(),
            15,
            "and the first one"
        );
        let lanes = format!(
            "SELECT count(*) FROM bulkhead.lane WHERE tenant_id = '{}'",
            tenant.row.id
        );
        assert_eq!(count(tenant.world, &lanes).await, 16);
        jobs::enqueue(&tenant.write().await, &Wait { gate: new_id() })
            .await
            .expect("those that are there are used");
    });
}

//! What a claim and an end read, and what a lane is charged for.

use super::Queue;
use crate::harness::run;
use serde_json::json;
use sqlx::{Connection as _, Executor as _};

/// By plans that read what they take and little more, whatever else there is; also by those that were made for an empty table.
#[test]
fn neither_a_claim_nor_an_end_reads_the_whole_queue() {
    run(async {
        let queue = Queue::new(2).await;
        let mut worker = queue.worker().await;
        let others = "SELECT FROM end_jobs('[]'); SELECT FROM reap_jobs()";
        worker.run("VACUUM ANALYZE job").await;
        worker.claim(16).await;
        worker.end(&[]).await;
        worker.run(others).await;
        queue.fill(0, 20_000).await;
        queue.fill(1, 20).await;
        for when in ["before statistics", "with them"] {
            worker.run("BEGIN").await;
            let jobs = worker.claim(16).await;
            assert_eq!(jobs.len(), 16);
            let read = worker.read().await;
            assert!(read < 200, "a claim {when} reads {read} jobs");
            worker.end(&jobs).await;
            let read = worker.read().await - read;
            assert!(read < 200, "an end {when} reads {read} jobs");
            let before = worker.read().await;
            let released = worker.claim(1).await.remove(0);
            let ends = format!(
                r#"SELECT FROM end_jobs('[{{"id": "{}", "claim": {}, "state": 1, "back": true, "after_ms": 0}}]'); {others}"#,
                released.id, released.claim
            );
            worker.run(&ends).await;
            let read = worker.read().await - before;
            assert!(
                read < 200,
                "what was given back, or looked for, {when} reads {read} jobs"
            );
            worker.run("COMMIT; ANALYZE job").await;
            worker.connection.ping().await.unwrap();
        }
    });
}

/// A statement that is planned otherwise, or an index more, shows here first: time would not tell.
#[test]
fn a_claim_reads_a_few_pages_for_each_job_that_it_takes() {
    run(async {
        let queue = Queue::new(1).await;
        let fill =
            "INSERT INTO bulkhead.lane (queue) SELECT 'q' || n FROM generate_series(1, 1000) n;
            INSERT INTO bulkhead.job (id, lane, kind, args, max_attempts, timeout_ms, actor)
            SELECT gen_random_uuid(), l.id, 'test.none', '{}', 3, 1000, 'system:tests'
            FROM bulkhead.lane l, generate_series(1, 40) WHERE l.queue LIKE 'q%'";
        let mut superuser = queue.world.superuser().await;
        superuser.execute(sqlx::raw_sql(fill)).await.unwrap();
        let lanes = "SELECT array_agg(id ORDER BY id) FROM bulkhead.lane WHERE queue LIKE 'q%'";
        let lanes: Vec<i32> = sqlx::query_scalar(lanes)
            .fetch_one(&mut superuser)
            .await
            .unwrap();
        let mut worker = queue.worker().await;
        // The first one makes the plans.
        worker.lanes = lanes[..13].to_vec();
        worker.pages(64).await;
        for when in ["before statistics", "with them"] {
            worker.lanes = lanes[13..26].to_vec();
            worker.pages(1).await;
            let pages = worker.pages(64).await;
            assert!(pages < 1_900, "a claim of 64 {when} reads {pages} pages");
            worker.lanes = lanes[26..28].to_vec();
            let pages = worker.pages(1).await;
            assert!(pages < 100, "a claim of one {when} reads {pages} pages");
            worker.run("ANALYZE job; ANALYZE lane").await;
        }
    });
}

/// What it was charged too little is charged with its next job, by its weight.
#[test]
fn a_lane_is_charged_for_what_its_jobs_took() {
    run(async {
        let queue = Queue::new(1).await;
        queue.set(0, "weight = 2, vtime = 100").await;
        queue.fill(0, 1).await;
        let mut worker = queue.worker().await;
        let corrections = json!({ queue.lanes[0].to_string(): 6.0 });
        sqlx::query("SELECT FROM take_jobs($1, $2, 1, NULL, '{\"test.none\": 4}', $3)")
            .bind(worker.node)
            .bind(&queue.lanes)
            .bind(&corrections)
            .execute(&mut worker.connection)
            .await
            .unwrap();
        let vtime: f64 = sqlx::query_scalar("SELECT vtime FROM lane WHERE id = $1")
            .bind(queue.lanes[0])
            .fetch_one(&mut worker.connection)
            .await
            .unwrap();
        assert!(
            (vtime - (100.0 + 6.0 / 2.0 + 4.0 / 2.0)).abs() < 1e-9,
            "{vtime}"
        );
    });
}

/// Who follows one is told of what is new.
#[test]
fn what_changed_is_found_without_reading_all_of_a_tenants_jobs() {
    run(async {
        let queue = Queue::new(1).await;
        queue.fill(0, 20_000).await;
        let mut worker = queue.worker().await;
        worker.run("ANALYZE job; BEGIN").await;
        let jobs = worker.claim(1).await;
        let before = worker.read().await;
        let now = "SELECT count(*) FROM list_changed_jobs($1, ARRAY[1, 2], txid_current(), txid_current() + 1, '{}', 100)";
        let changed: i64 = sqlx::query_scalar(now)
            .bind(&queue.tenants[0].row.schema_name)
            .fetch_one(&mut worker.connection)
            .await
            .unwrap();
        assert_eq!((changed, jobs.len()), (1, 1), "the one that runs now");
        let read = worker.read().await - before;
        assert!(read < 200, "it reads {read} jobs");
        worker.run("COMMIT").await;
    });
}

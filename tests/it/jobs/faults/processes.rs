//! Processes that are killed, stopped for a while, blocked, or asked to end.

use super::super::{enqueue, private, reaches};
use super::{
    Block, Dice, Endless, Make, Minutely, Once, add, another, asked, count, execute, once_each,
    worker,
};
use crate::harness::{Process, Tenant, World, run, until};
use bulkhead::jobs::PlatformJob as _;
use nix::sys::signal::Signal;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Kills it, and does not wait for its leases to end.
async fn kill(world: &World, process: &mut Process) {
    process.signal(Signal::SIGKILL);
    process.ended().await;
    let lost = format!(
        "UPDATE bulkhead.job SET lease_until = now() - interval '1 second'
         WHERE state = 2 AND worker IN (SELECT id::text FROM bulkhead.node WHERE name = '{}')",
        process.id()
    );
    execute(world, &lost).await;
}

/// `BULKHEAD_TEST_KILLS` says how often.
#[test]
fn workers_that_are_killed_anywhere_lose_nothing() {
    run(async {
        let mut dice = Dice::new();
        let (tenant, _) = private(2).await;
        let world = tenant.world;
        let mut workers = [0, 1, 2].map(|_| another(world, 2));
        for each in &mut workers {
            each.says("# ready").await;
        }
        let mut effects = 0;
        for _ in 0..asked("BULKHEAD_TEST_KILLS", 15) {
            add(&tenant, effects..effects + 12, 15).await;
            effects += 12;
            dice.pause(250).await;
            let which = usize::try_from(dice.below(3)).unwrap();
            kill(world, &mut workers[which]).await;
            workers[which] = another(world, 2);
        }
        once_each(&tenant, effects).await;
    });
}

/// Two leases long it said nothing: whatever it says then, another has run its job. They are not waited for but with
/// `BULKHEAD_TEST_LEASES=60`.
#[test]
fn a_worker_that_stood_still_ends_nothing_afterwards_and_works_on() {
    run(async {
        let (tenant, owner) = private(1).await;
        let world = tenant.world;
        let mut still = another(world, 1);
        still.says("# ready").await;
        let job = enqueue(
            &tenant,
            &Once {
                number: 0,
                ms: 2_500,
            },
        )
        .await;
        reaches(&tenant, &owner, job, "RUNNING").await;
        still.signal(Signal::SIGSTOP);
        match asked("BULKHEAD_TEST_LEASES", 0) {
            0 => {
                let lost = "UPDATE bulkhead.job SET lease_until = now() - interval '30 seconds' WHERE state = 2";
                execute(world, lost).await;
            }
            seconds => sleep(Duration::from_secs(seconds.into())).await,
        }
        let other = worker(world).await;
        let done = reaches(&tenant, &owner, job, "SUCCEEDED").await;
        assert_eq!(done["attempts"], 2);
        other.stop().await;
        still.signal(Signal::SIGCONT);
        let device = "next".to_owned();
        let next = enqueue(&tenant, &Make { device }).await;
        reaches(&tenant, &owner, next, "SUCCEEDED").await;
        let devices = format!("SELECT count(*) FROM {}.device", tenant.row.schema_name);
        assert_eq!(count(world, &devices).await, 2, "one of each job");
        let done = "SELECT count(*) FROM bulkhead.job_done WHERE tenant_id IS NOT NULL";
        assert_eq!(count(world, done).await, 2);
    });
}

#[test]
fn a_job_that_blocks_its_thread_holds_up_nobody_and_keeps_its_lease() {
    run(async {
        let (tenant, owner) = private(1).await;
        let mut blocked = another(tenant.world, 2);
        blocked.says("# ready").await;
        let file = tenant.world.data_dir.join("block");
        std::fs::create_dir_all(&tenant.world.data_dir).unwrap();
        std::fs::write(&file, "").unwrap();
        let job = enqueue(&tenant, &Block { file: file.clone() }).await;
        reaches(&tenant, &owner, job, "RUNNING").await;
        let device = "beside".to_owned();
        let beside = enqueue(&tenant, &Make { device }).await;
        reaches(&tenant, &owner, beside, "SUCCEEDED").await;
        // Any beat would do; word that something is to end brings one at once.
        let near = format!(
            "UPDATE bulkhead.job SET lease_until = now() + interval '10 seconds' WHERE id = '{job}';
             NOTIFY bulkhead, 'jobs:tests:cancel'"
        );
        let mut superuser = tenant.world.superuser().await;
        superuser
            .execute(sqlx::raw_sql(AssertSqlSafe(near)))
            .await
            .unwrap();
        let kept = "SELECT count(*) FROM bulkhead.job WHERE state = 2 AND lease_until > now() + interval '20 seconds'";
        until("its lease is prolonged", async || {
            (count(tenant.world, kept).await == 1).then_some(())
        })
        .await;
        std::fs::remove_file(&file).unwrap();
        let done = reaches(&tenant, &owner, job, "SUCCEEDED").await;
        assert_eq!(done["attempts"], 1);
    });
}

#[test]
fn a_worker_ends_within_thirty_seconds_and_gives_back_what_does_not() {
    run(async {
        let (tenant, owner) = private(1).await;
        let mut worker = another(tenant.world, 1);
        worker.says("# ready").await;
        let job = enqueue(&tenant, &Endless {}).await;
        let waiting = enqueue(&tenant, &Endless {}).await;
        reaches(&tenant, &owner, job, "RUNNING").await;
        let asked = Instant::now();
        worker.signal(Signal::SIGTERM);
        assert!(worker.ended().await.success(), "{}", worker.logged());
        assert!(
            asked.elapsed() < Duration::from_secs(30),
            "{:?}",
            asked.elapsed()
        );
        for id in [job, waiting] {
            let given = super::super::node(&tenant, &owner, id).await;
            assert_eq!(
                (&given["state"], &given["attempts"]),
                (&json!("QUEUED"), &json!(0)),
                "{given:#}"
            );
        }
    });
}

#[test]
fn a_second_signal_ends_a_worker_at_once() {
    run(async {
        let (tenant, owner) = private(1).await;
        tenant
            .send_file(&owner, "a.csv", "text/csv", b"a,b\n")
            .await;
        let job = super::super::latest(&tenant, &owner).await;
        let held = hold(&tenant).await;
        let mut worker = Process::start(tenant.world.command().arg("worker"));
        reaches(&tenant, &owner, job, "RUNNING").await;
        worker.signal(Signal::SIGTERM);
        sleep(Duration::from_millis(200)).await;
        assert!(worker.is_running(), "it waits for its job");
        let asked = Instant::now();
        worker.signal(Signal::SIGTERM);
        assert!(!worker.ended().await.success());
        assert!(
            asked.elapsed() < Duration::from_secs(5),
            "{:?}",
            asked.elapsed()
        );
        held.close().await.unwrap();
    });
}

/// Nobody leads: whoever is left goes on, and no time has its job twice or not at all.
#[test]
fn each_time_has_its_job_though_one_of_three_is_killed_at_each() {
    run(async {
        let mut dice = Dice::new();
        let (tenant, _) = private(1).await;
        let world = tenant.world;
        let mut nodes = [0, 1, 2].map(|_| another(world, 1));
        for each in &mut nodes {
            each.says("# ready").await;
        }
        let known = format!(
            "SELECT count(*) FROM bulkhead.cron WHERE kind = '{}'",
            Minutely::NAME
        );
        until("the kind is known", async || {
            (count(world, &known).await == 1).then_some(())
        })
        .await;
        let jobs = format!(
            "SELECT (SELECT count(*) FROM bulkhead.job WHERE kind = '{0}')
                 + (SELECT count(*) FROM bulkhead.job_done WHERE kind = '{0}')
                 - (SELECT count(*) FROM bulkhead.cron_tick WHERE kind = '{0}')",
            Minutely::NAME
        );
        for slots in 1..=4_i64 {
            let again = format!(
                "DELETE FROM bulkhead.cron_tick; DELETE FROM bulkhead.job WHERE kind = '{0}';
                 DELETE FROM bulkhead.job_done WHERE kind = '{0}';
                 UPDATE bulkhead.cron SET since = date_trunc('minute', now()) - interval '{slots} minutes'",
                Minutely::NAME
            );
            let mut superuser = world.superuser().await;
            superuser
                .execute(sqlx::raw_sql(AssertSqlSafe(again)))
                .await
                .unwrap();
            dice.pause(1_100).await;
            let which = usize::try_from(dice.below(3)).unwrap();
            kill(world, &mut nodes[which]).await;
            let ticks = "SELECT count(*) FROM bulkhead.cron_tick";
            until("each time is taken care of", async || {
                (count(world, ticks).await >= slots).then_some(())
            })
            .await;
            assert_eq!(count(world, &jobs).await, 0, "each time has one job");
            nodes[which] = another(world, 1);
        }
    });
}

/// Holds up whoever wants to write down what became of a media, for as long as the connection lives.
async fn hold(tenant: &Tenant) -> sqlx::PgConnection {
    let mut connection = tenant.world.superuser().await;
    let schema = &tenant.row.schema_name;
    let lock = format!("BEGIN; LOCK TABLE {schema}.media IN SHARE MODE");
    connection
        .execute(sqlx::raw_sql(AssertSqlSafe(lock)))
        .await
        .unwrap();
    connection
}

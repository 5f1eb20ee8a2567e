//! Connections that are cut, used up, or do not bring word.

use super::super::{Wait, enqueue, gate, new_id, private, reaches, worker as worker_of_gates};
use super::{Dice, Make, add, asked, count, once_each, worker};
use crate::harness::{World, run, until};
use bulkhead::actor::Actor;
use bulkhead::jobs;
use sqlx::{AssertSqlSafe, Executor as _};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How long a connection is waited for that there is none of.
const LINE: Duration = Duration::from_millis(400);

/// Ends the connections to the world's database, but for those of the tests.
async fn cut(world: &World, which: &str) {
    let sql = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name LIKE '{which}' AND usename <> current_user"
    );
    let cut = AssertSqlSafe(sql);
    world.superuser().await.execute(cut).await.unwrap();
}

#[test]
fn all_connections_are_cut_ten_times_and_each_job_has_its_effect_once() {
    run(async {
        let mut dice = Dice::new();
        let (tenant, _) = private(4).await;
        let beside = tenant.world.beside(|_| ()).await;
        let workers = [worker(tenant.world).await, worker(beside).await];
        let mut effects = 0;
        for _ in 0..10 {
            add(&tenant, effects..effects + 12, 15).await;
            effects += 12;
            dice.pause(300).await;
            cut(tenant.world, "%").await;
        }
        once_each(&tenant, effects).await;
        for worker in workers {
            worker.stop().await;
        }
    });
}

/// The sign of life has a connection of its own. They are in use for two leases with `BULKHEAD_TEST_LEASES=60`.
#[test]
fn leases_are_kept_while_every_connection_is_in_use() {
    run(async {
        let (tenant, owner) = private(1).await;
        let world = tenant.world;
        let worker = worker_of_gates(world).await;
        let gate = new_id();
        let job = enqueue(&tenant, &Wait { gate }).await;
        reaches(&tenant, &owner, job, "RUNNING").await;
        let (database, by) = (
            &world.app.services.database,
            Actor::System("tests".to_owned()),
        );
        let by = by.into();
        let (mut tenants, mut platform) = (Vec::new(), Vec::new());
        while let Ok(Ok(tx)) = timeout(LINE, database.write(&tenant.row, &by)).await {
            tenants.push(tx);
        }
        while let Ok(Ok(tx)) = timeout(LINE, database.platform()).await {
            platform.push(tx);
        }
        // With one connection in all there is none for the platform.
        assert!(!tenants.is_empty());
        sleep(Duration::from_secs(asked("BULKHEAD_TEST_LEASES", 0).into())).await;
        for _ in 0..2 {
            let near = "UPDATE bulkhead.job SET lease_until = now() + interval '2 seconds' WHERE state = 2;
                NOTIFY bulkhead, 'jobs:tests:cancel'";
            let mut superuser = world.superuser().await;
            superuser.execute(sqlx::raw_sql(near)).await.unwrap();
            let kept = "SELECT count(*) FROM bulkhead.job WHERE state = 2 AND lease_until > now() + interval '20 seconds'";
            until("the lease is prolonged", async || {
                (count(world, kept).await == 1).then_some(())
            })
            .await;
        }
        drop((tenants, platform));
        self::gate(gate).doors[0].add_permits(1);
        let done = reaches(&tenant, &owner, job, "SUCCEEDED").await;
        assert_eq!(done["attempts"], 1);
        worker.stop().await;
    });
}

/// Word that is lost is a delay of a few seconds.
#[test]
fn jobs_of_which_no_word_comes_are_found() {
    run(async {
        let (tenant, _) = private(1).await;
        let world = tenant.world;
        let beside = world.beside(|_| ()).await;
        let worker = worker(world).await;
        for number in 1..=3 {
            let tx = tenant.write_on(&beside.app).await;
            let device = format!("device-{number}");
            jobs::enqueue(&tx, &Make { device }).await.unwrap();
            cut(world, "%listener%").await;
            tx.commit().await.unwrap();
            cut(world, "%listener%").await;
            let done = "SELECT count(*) FROM bulkhead.job_done WHERE state = 3";
            let found = until("it is run", async || {
                (count(world, done).await == number).then_some(())
            });
            timeout(Duration::from_secs(20), found)
                .await
                .expect("in time");
        }
        worker.stop().await;
    });
}

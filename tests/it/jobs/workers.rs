//! Workers that stop, are thought lost, are killed or are asked to end.

use super::{
    Wait, count, enqueue, execute, gate, latest, new_id, node, open, private, reaches, worker,
};
use crate::harness::{Process, Tenant, World, run, until};
use futures::poll;
use nix::sys::signal::Signal;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use std::pin::pin;
use std::sync::atomic::Ordering;

#[test]
fn a_worker_that_stops_finishes_what_it_runs_and_takes_nothing_more() {
    run(async {
        let (tenant, owner) = private(4).await;
        let worker = worker(tenant.world).await;
        let gate = new_id();
        let running = enqueue(&tenant, &Wait { gate }).await;
        reaches(&tenant, &owner, running, "RUNNING").await;
        let mut stop = pin!(worker.stop());
        assert!(poll!(stop.as_mut()).is_pending());
        let left = enqueue(&tenant, &Wait { gate: open() }).await;
        assert!(poll!(stop.as_mut()).is_pending(), "it waits for its job");
        self::gate(gate).doors[0].add_permits(1);
        stop.await;
        assert_eq!(node(&tenant, &owner, running).await["state"], "SUCCEEDED");
        let left = node(&tenant, &owner, left).await;
        assert_eq!(
            (&left["state"], &left["attempts"]),
            (&json!("QUEUED"), &json!(0))
        );
    });
}

/// A worker that is thought lost may still be at work: what it says of the job counts no more.
#[test]
fn a_lost_claim_finishes_nothing() {
    run(async {
        let (tenant, owner) = private(1).await;
        let slow = worker(tenant.world).await;
        let gate = new_id();
        let job = enqueue(&tenant, &Wait { gate }).await;
        reaches(&tenant, &owner, job, "RUNNING").await;
        let gate = self::gate(gate);
        until("it is begun", async || {
            (gate.runs.load(Ordering::SeqCst) == 1).then_some(())
        })
        .await;

        let beside = tenant.world.beside(|_| ()).await;
        let other = worker(beside).await;
        let expire = "UPDATE bulkhead.job SET lease_until = now() - interval '1 second' WHERE state = 2 AND attempt = 1";
        until("another worker has it", async || {
            execute(tenant.world, expire).await;
            (gate.runs.load(Ordering::SeqCst) == 2).then_some(())
        })
        .await;
        gate.doors[0].add_permits(1);
        slow.stop().await;
        let still = node(&tenant, &owner, job).await;
        assert_eq!(
            (&still["state"], &still["attempts"]),
            (&json!("RUNNING"), &json!(2))
        );
        assert_eq!(still["lastError"], "The worker was lost.");
        gate.doors[1].add_permits(1);
        reaches(&tenant, &owner, job, "SUCCEEDED").await;
        other.stop().await;
    });
}

#[test]
fn what_a_killed_worker_had_is_finished_by_another() {
    run(async {
        let (tenant, owner) = private(1).await;
        let media = tenant
            .send_file(&owner, "a.csv", "text/csv", b"a,b\n")
            .await;
        let job = latest(&tenant, &owner).await;
        let held = hold(&tenant).await;
        let mut first = real(tenant.world);
        reaches(&tenant, &owner, job, "RUNNING").await;
        first.signal(Signal::SIGKILL);
        first.ended().await;
        held.close().await.unwrap();
        let mut second = real(tenant.world);
        let expire = "UPDATE bulkhead.job SET lease_until = now() - interval '1 second' WHERE state = 2 AND attempt = 1";
        execute(tenant.world, expire).await;
        let ready = tenant.processed(&owner, &media).await;
        assert_eq!(ready["state"], "READY", "{ready:#}");
        let done = reaches(&tenant, &owner, job, "SUCCEEDED").await;
        assert_eq!(done["attempts"], 2);
        second.signal(Signal::SIGTERM);
        assert!(second.ended().await.success(), "{}", second.logged());
    });
}

#[test]
fn a_worker_that_is_asked_to_end_finishes_its_job() {
    run(async {
        let (tenant, owner) = private(1).await;
        tenant
            .send_file(&owner, "a.csv", "text/csv", b"a,b\n")
            .await;
        let job = latest(&tenant, &owner).await;
        let held = hold(&tenant).await;
        let mut worker = real(tenant.world);
        reaches(&tenant, &owner, job, "RUNNING").await;
        worker.signal(Signal::SIGTERM);
        assert!(worker.is_running());
        held.close().await.unwrap();
        assert!(worker.ended().await.success(), "{}", worker.logged());
        let done = node(&tenant, &owner, job).await;
        assert_eq!(
            (&done["state"], &done["attempts"]),
            (&json!("SUCCEEDED"), &json!(1)),
            "{done:#}"
        );
    });
}

#[test]
fn a_worker_serves_the_queues_and_runs_as_many_side_by_side_as_it_is_told() {
    run(async {
        let (tenant, owner) = private(1).await;
        let world = tenant.world;
        for name in ["a.csv", "b.csv", "c.csv"] {
            tenant.send_file(&owner, name, "text/csv", b"a,b\n").await;
        }
        let held = hold(&tenant).await;
        let aside = format!(
            "INSERT INTO bulkhead.job (id, lane, tenant_id, kind, args, max_attempts, timeout_ms, actor)
             SELECT gen_random_uuid(), bulkhead.lane_of('{0}', 'aside'), '{0}', 'test.aside', '{{}}', 8, 60000, 'system:tests'",
            tenant.row.id
        );
        execute(world, &aside).await;
        let taken = async |kind: &str| {
            let sql = format!(
                "SELECT count(*) FROM bulkhead.job WHERE kind = '{kind}' AND claim IS NOT NULL"
            );
            count(world, &sql).await
        };
        let start = |args: &[&str]| Process::start(world.command().arg("worker").args(args));

        let mut other = start(&["--queues", "mail,aside"]);
        until("the job of its queue is taken", async || {
            (taken("test.aside").await == 1).then_some(())
        })
        .await;
        assert_eq!(taken("media.process").await, 0, "{}", other.logged());
        let mut two = start(&["--queues", "default", "--concurrency", "2"]);
        until("two are begun", async || {
            (taken("media.process").await == 2).then_some(())
        })
        .await;
        held.close().await.unwrap();
        for worker in [&mut other, &mut two] {
            worker.signal(Signal::SIGTERM);
            assert!(worker.ended().await.success(), "{}", worker.logged());
        }
        assert!(
            count(
                world,
                "SELECT count(*) FROM bulkhead.job_done WHERE kind = 'media.process'"
            )
            .await
                >= 2
        );
    });
}

/// `bulkhead worker`, a process of its own.
fn real(world: &World) -> Process {
    Process::start(world.command().arg("worker"))
}

/// Holds up whoever wants to write down what became of a media, for as long as the connection lives.
async fn hold(tenant: &Tenant) -> PgConnection {
    let mut connection = tenant.world.superuser().await;
    let schema = &tenant.row.schema_name;
    let lock = format!("BEGIN; LOCK TABLE {schema}.media IN SHARE MODE");
    let lock = sqlx::raw_sql(AssertSqlSafe(lock));
    connection.execute(lock).await.unwrap();
    connection
}

//! What a worker fetches ahead: short jobs, and not for long.

use super::{Make, Wait, count, enqueue, gate, new_id, open, reaches, worker};
use crate::harness::{Tenant, World, run, until};
use bulkhead::identity::BuiltIn;
use std::sync::atomic::Ordering;

/// A tenant in a world of its own whose worker has one job at a time and up to 64 more in hand, and its owner's token.
async fn private() -> (Tenant, String) {
    let world = World::private(|config| {
        config.worker_concurrency = 1;
        config.worker_prefetch = 64;
    })
    .await;
    let tenant = Tenant::of(world).await;
    let owner = tenant.token(BuiltIn::Owner).await;
    (tenant, owner)
}

/// Adds them at once: a claim sees all or none.
async fn add(tenant: &Tenant, jobs: &[Wait]) {
    let tx = tenant.write().await;
    for job in jobs {
        bulkhead::jobs::enqueue(&tx, job).await.unwrap();
    }
    tx.commit().await.unwrap();
}

/// Jobs that are not run yet: those that were claimed once, and those that never were.
async fn untouched(tenant: &Tenant, claimed: bool) -> i64 {
    let sql = format!(
        "SELECT count(*) FROM bulkhead.job WHERE state = 1 AND attempt = 0 AND claim IS {} NULL",
        if claimed { "NOT" } else { "" }
    );
    count(tenant.world, &sql).await
}

/// The worker had expected a short one. What it has in hand besides goes back, uncharged, and another runs it.
#[test]
fn what_was_fetched_ahead_does_not_wait_for_a_long_job() {
    run(async {
        let (tenant, owner) = private().await;
        let first = worker(tenant.world).await;
        let short: Vec<Wait> = (0..40).map(|_| Wait { gate: open() }).collect();
        add(&tenant, &short).await;
        until("it knows that they are short", async || {
            (count(tenant.world, "SELECT count(*) FROM bulkhead.job").await == 0).then_some(())
        })
        .await;
        let long = new_id();
        let mut jobs = vec![Wait { gate: long }];
        jobs.extend((0..10).map(|_| Wait { gate: open() }));
        add(&tenant, &jobs).await;
        until("it gives back what it fetched ahead", async || {
            (untouched(&tenant, true).await > 0).then_some(())
        })
        .await;
        let beside = tenant.world.beside(|_| ()).await;
        let second = worker(beside).await;
        let done = "SELECT count(*) FROM bulkhead.job_done WHERE state = 3 AND attempt = 1";
        until("another has run them", async || {
            (count(tenant.world, done).await == 50).then_some(())
        })
        .await;
        assert_eq!(gate(long).runs.load(Ordering::SeqCst), 1);
        gate(long).doors[0].add_permits(1);
        let device = "next".to_owned();
        let next = enqueue(&tenant, &Make { device }).await;
        reaches(&tenant, &owner, next, "SUCCEEDED").await;
        second.stop().await;
        first.stop().await;
    });
}

/// Another worker may have it at once.
#[test]
fn what_takes_long_is_not_fetched_ahead() {
    run(async {
        let (tenant, owner) = private().await;
        let worker = worker(tenant.world).await;
        let long = new_id();
        let before = enqueue(&tenant, &Wait { gate: long }).await;
        let begun = format!(
            "SELECT count(*) FROM bulkhead.job WHERE id = '{before}' AND state = 2
                AND started_at < clock_timestamp() - interval '200 milliseconds'"
        );
        until("it takes long", async || {
            (count(tenant.world, &begun).await == 1).then_some(())
        })
        .await;
        gate(long).doors[0].add_permits(1);
        reaches(&tenant, &owner, before, "SUCCEEDED").await;
        let gates = [new_id(), new_id(), new_id()];
        add(&tenant, &gates.map(|gate| Wait { gate })).await;
        for (nth, id) in gates.into_iter().enumerate() {
            until("the next one runs", async || {
                (gate(id).runs.load(Ordering::SeqCst) == 1).then_some(())
            })
            .await;
            let left = i64::try_from(gates.len() - 1 - nth).unwrap();
            assert_eq!(untouched(&tenant, false).await, left);
            gate(id).doors[0].add_permits(1);
        }
        worker.stop().await;
    });
}

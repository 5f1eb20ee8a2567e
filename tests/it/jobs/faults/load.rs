//! Many failures, and many workers on one lane.

use super::super::{Wait, enqueue, gate, new_id, private, reaches};
use super::{Panic, asked, count, execute, kinds};
use crate::harness::{Tenant, run, until};
use bulkhead::error::Result;
use bulkhead::jobs::{Job, JobContext, Kinds, Worker};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::sleep;

/// Runs beside others of its kind, and counts how many there are.
#[derive(Debug, Serialize, Deserialize)]
struct Beside {}

static RUNNING: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

impl Job for Beside {
    const NAME: &'static str = "test.beside";

    async fn run(self, _: &JobContext) -> Result<()> {
        let now = RUNNING.fetch_add(1, Ordering::SeqCst) + 1;
        MOST.fetch_max(now, Ordering::SeqCst);
        sleep(Duration::from_millis(10)).await;
        RUNNING.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }
}

async fn fill(tenant: &Tenant, kind: &str, args: &str, jobs: u32) {
    let sql = format!(
        "INSERT INTO bulkhead.job (id, tenant_id, kind, args, max_attempts, timeout_ms, actor)
         SELECT gen_random_uuid(), '{}', '{kind}', '{args}', 1, 60000, 'system:tests' FROM generate_series(1, {jobs})",
        tenant.row.id
    );
    execute(tenant.world, &sql).await;
}

/// However many they are: what is waited for is that they get fewer.
async fn all_over(tenant: &Tenant) {
    let left = async || count(tenant.world, "SELECT count(*) FROM bulkhead.job").await;
    let mut before = left().await;
    while before > 0 {
        before = until("some more are over", async || {
            let now = left().await;
            (now < before).then_some(now)
        })
        .await;
    }
}

/// `BULKHEAD_TEST_FAILURES` says how many of each.
#[test]
fn thousands_of_panics_and_of_bad_arguments_end_no_worker() {
    run(async {
        let (tenant, owner) = private(4).await;
        let services = Arc::clone(&tenant.world.app.services);
        let worker = Worker::start(services, kinds().with::<Wait>()).await;
        let each = asked("BULKHEAD_TEST_FAILURES", 1_000);
        fill(&tenant, Panic::NAME, "{}", each).await;
        fill(&tenant, Panic::NAME, "7", each).await;
        all_over(&tenant).await;
        let dead = "SELECT count(*) FROM bulkhead.job_done WHERE state = 4 AND attempt = 1 AND jsonb_array_length(errors) = 1";
        assert_eq!(count(tenant.world, dead).await, 2 * i64::from(each));
        // All four of its workers are there still.
        let gates = [0; 4].map(|_| new_id());
        let mut jobs = Vec::new();
        for gate in gates {
            jobs.push(enqueue(&tenant, &Wait { gate }).await);
        }
        until("four run at once", async || {
            let begun = |id: &_| gate(*id).runs.load(Ordering::SeqCst) == 1;
            gates.iter().all(begun).then_some(())
        })
        .await;
        for (job, id) in jobs.into_iter().zip(gates) {
            gate(id).doors[0].add_permits(1);
            reaches(&tenant, &owner, job, "SUCCEEDED").await;
        }
        worker.stop().await;
    });
}

#[test]
fn four_dispatchers_never_go_over_a_cap_or_a_rate() {
    run(async {
        let (capped, _) = private(4).await;
        let world = capped.world;
        let rated = Tenant::of(world).await;
        for (tenant, limit) in [
            (&capped, "cap = 3"),
            (&rated, "rate = 25, burst = 5, tokens = 5"),
        ] {
            let set = format!(
                "UPDATE bulkhead.lane SET {limit} WHERE tenant_id = '{}'",
                tenant.row.id
            );
            execute(world, &set).await;
        }
        fill(&capped, Beside::NAME, "{}", 120).await;
        fill(&rated, Panic::NAME, "{}", 40).await;
        let prefetching = |config: &mut bulkhead::config::Config| config.worker_prefetch = 64;
        let mut workers = Vec::new();
        for world in [
            world,
            world.beside(prefetching).await,
            world.beside(prefetching).await,
            world.beside(prefetching).await,
        ] {
            let kinds = Kinds::default().with::<Beside>().with::<Panic>();
            workers.push(Worker::start(Arc::clone(&world.app.services), kinds).await);
        }
        all_over(&capped).await;
        for worker in workers {
            worker.stop().await;
        }
        assert_eq!(
            MOST.load(Ordering::SeqCst),
            3,
            "as many as it may, and no more"
        );
        // What a bucket of 5 that 25 drops a second fall into lets through, from any start to any later one.
        let over = format!(
            "WITH start AS (
                 SELECT started_at AS at, row_number() OVER (ORDER BY started_at) AS nth
                 FROM bulkhead.job_done WHERE tenant_id = '{}')
             SELECT count(*) FROM start a JOIN start b ON b.nth > a.nth
             WHERE b.nth - a.nth + 1 > 5 + 25 * extract(epoch FROM b.at - a.at) + 0.001",
            rated.row.id
        );
        assert_eq!(count(world, &over).await, 0);
    });
}

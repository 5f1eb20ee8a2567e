//! A kind that keeps failing for one tenant is held back for that one, and tried until it works.

use super::{count, enqueue, execute, gate, new_id, node, reaches};
use crate::harness::{Tenant, World, finish, run, until};
use bulkhead::error::{Error, Result};
use bulkhead::identity::BuiltIn;
use bulkhead::jobs::{Job, JobContext, Kinds, Worker};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Needs something that is broken until it is not.
#[derive(Debug, Serialize, Deserialize)]
struct Needy {
    gate: Uuid,
    fails: bool,
}

static MENDED: AtomicBool = AtomicBool::new(false);

impl Job for Needy {
    const NAME: &'static str = "test.needy";
    const MAX_ATTEMPTS: i32 = 1;

    async fn run(self, _: &JobContext) -> Result<()> {
        gate(self.gate).runs.fetch_add(1, Ordering::SeqCst);
        if self.fails && !MENDED.load(Ordering::SeqCst) {
            return Err(Error::internal("it is broken"));
        }
        Ok(())
    }
}

/// Of the same tenants, and no trouble.
#[derive(Debug, Serialize, Deserialize)]
struct Easy {}

impl Job for Easy {
    const NAME: &'static str = "test.easy";

    async fn run(self, _: &JobContext) -> Result<()> {
        Ok(())
    }
}

fn lanes(tenant: &Tenant) -> Value {
    let mut lanes = tenant.world.command();
    let lanes = lanes.args(["jobs", "lanes", "--json", "--tenant", &tenant.slug]);
    let (code, out, err) = finish(lanes, "");
    assert_eq!(code, Some(0), "{err}");
    let lanes: Value = serde_json::from_str(&out).unwrap();
    lanes[0]["held"].clone()
}

/// What operators see of it.
fn shown(tenant: &Tenant) {
    let held = lanes(tenant);
    assert_eq!(
        (&held[0]["kind"], &held[0]["failures"]),
        (&json!("test.needy"), &json!(3))
    );
    let mut table = tenant.world.command();
    let (_, out, _) = finish(table.args(["jobs", "lanes"]), "");
    assert!(out.contains("test.needy (3 failures)"), "{out}");
    let mut top = tenant.world.command();
    let (_, out, _) = finish(top.args(["jobs", "top", "--json"]), "");
    let top: Value = serde_json::from_str(&out).unwrap();
    let ours = top
        .as_array()
        .unwrap()
        .iter()
        .find(|load| load["tenant"] == tenant.slug);
    assert_eq!(ours.unwrap()["held"], 1);
}

/// The time that a kind is held back is over.
const OVER: &str = "UPDATE bulkhead.breaker SET held_until = now()";
/// So is that of the jobs that were put off.
const DUE: &str = "UPDATE bulkhead.job SET run_at = now() WHERE state = 6";

/// One job is tried when the time is over. It fails, and the kind is held back for longer.
async fn probed(world: &World) {
    let opened = "SELECT coalesce(max(opened), 0)::bigint FROM bulkhead.breaker";
    assert_eq!(count(world, opened).await, 1);
    execute(world, OVER).await;
    until("one is tried, and held back again", async || {
        execute(world, DUE).await;
        (count(world, opened).await == 2).then_some(())
    })
    .await;
    let longer =
        "SELECT count(*) FROM bulkhead.breaker WHERE held_until > now() + interval '40 seconds'";
    assert_eq!(count(world, longer).await, 1);
}

#[test]
fn what_keeps_failing_is_held_back_and_probed() {
    run(async {
        let world = World::private(|config| {
            config.worker_concurrency = 1;
            config.worker_prefetch = 0;
            config.breaker_failures = Some(3);
        })
        .await;
        let (tenant, other) = (Tenant::of(world).await, Tenant::of(world).await);
        let owner = tenant.token(BuiltIn::Owner).await;
        let theirs = other.token(BuiltIn::Owner).await;
        let kinds = Kinds::default().with::<Needy>().with::<Easy>();
        let services = Arc::clone(&world.app.services);
        let worker = Worker::start(services, kinds).await;
        let runs = new_id();
        let needy = |fails| Needy { gate: runs, fails };
        let ran = || gate(runs).runs.load(Ordering::SeqCst);
        for _ in 0..3 {
            let job = enqueue(&tenant, &needy(true)).await;
            reaches(&tenant, &owner, job, "FAILED").await;
        }
        until("it is held back", async || {
            (lanes(&tenant) != json!([])).then_some(())
        })
        .await;
        let mut waiting = Vec::new();
        for _ in 0..3 {
            waiting.push(enqueue(&tenant, &needy(true)).await);
        }
        for job in &waiting {
            let put_off = reaches(&tenant, &owner, *job, "SCHEDULED").await;
            assert_eq!(put_off["attempts"], 0, "it is not charged: {put_off:#}");
        }
        assert_eq!(ran(), 3);
        shown(&tenant);

        // Nobody else waits for it.
        let easy = enqueue(&tenant, &Easy {}).await;
        reaches(&tenant, &owner, easy, "SUCCEEDED").await;
        let well = enqueue(&other, &needy(false)).await;
        reaches(&other, &theirs, well, "SUCCEEDED").await;
        assert_eq!((ran(), lanes(&other)), (4, json!([])));

        probed(world).await;
        assert_eq!(ran(), 5, "no more than one");
        MENDED.store(true, Ordering::SeqCst);
        execute(world, OVER).await;
        until("one is tried, and the others follow", async || {
            execute(world, DUE).await;
            (ran() == 7).then_some(())
        })
        .await;
        until("it is held back no more", async || {
            (lanes(&tenant) == json!([])).then_some(())
        })
        .await;
        let mut well = 0;
        for job in &waiting {
            let state = node(&tenant, &owner, *job).await["state"].clone();
            well += usize::from(state != "FAILED");
        }
        assert_eq!(well, 2);
        worker.stop().await;
    });
}

#[test]
fn operators_let_it_go_on_and_a_success_between_failures_counts() {
    run(async {
        let world = World::private(|config| {
            config.worker_concurrency = 1;
            config.worker_prefetch = 0;
            config.breaker_failures = Some(2);
        })
        .await;
        let tenant = Tenant::of(world).await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let kinds = Kinds::default().with::<super::End>();
        let worker = Worker::start(Arc::clone(&world.app.services), kinds).await;
        let end = |how| super::End {
            gate: new_id(),
            how: vec![how],
        };
        for how in [super::How::Refused, super::How::Well, super::How::Refused] {
            let job = enqueue(&tenant, &end(how)).await;
            let state = if how == super::How::Well {
                "SUCCEEDED"
            } else {
                "FAILED"
            };
            reaches(&tenant, &owner, job, state).await;
        }
        assert_eq!(lanes(&tenant), json!([]));
        let job = enqueue(&tenant, &end(super::How::Refused)).await;
        reaches(&tenant, &owner, job, "FAILED").await;
        until("it is held back", async || {
            (lanes(&tenant) != json!([])).then_some(())
        })
        .await;
        let mut resume = world.command();
        let resume = resume.args(["jobs", "resume", "--tenant", &tenant.slug]);
        assert_eq!(finish(resume, "").0, Some(0));
        assert_eq!(lanes(&tenant), json!([]));
        // Every process sees it within seconds, long before the time is over.
        let resumed = Instant::now();
        until("its jobs are not put off any more", async || {
            let job = enqueue(&tenant, &end(super::How::Well)).await;
            let state = until("it is looked at", async || {
                let state = node(&tenant, &owner, job).await["state"].clone();
                (state == "SUCCEEDED" || state == "SCHEDULED").then_some(state)
            });
            (state.await == "SUCCEEDED").then_some(())
        })
        .await;
        assert!(
            resumed.elapsed() < Duration::from_secs(20),
            "{:?}",
            resumed.elapsed()
        );
        worker.stop().await;
    });
}

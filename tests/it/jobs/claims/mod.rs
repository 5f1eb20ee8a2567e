//! The claim and the acknowledgement as such, called as workers call them: who is next, and what holds when several claim at
//! once.

mod costs;

use super::{count, execute, new_id, private};
use crate::harness::{Tenant, World, run, until};
use bulkhead::devices::{self, NewDevice};
use futures::future::join_all;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor as _, PgConnection, Row as _};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// Lanes of tenants of their own, in a world without a worker.
struct Queue {
    world: &'static World,
    tenants: Vec<Tenant>,
    lanes: Vec<i32>,
}

/// A claimed job.
#[derive(Clone, Debug)]
struct Job {
    id: Uuid,
    lane: i32,
    claim: i64,
}

impl Queue {
    async fn new(lanes: usize) -> Self {
        let (first, _) = private(1).await;
        let world = first.world;
        let mut tenants = vec![first];
        while tenants.len() < lanes {
            tenants.push(Tenant::of(world).await);
        }
        let mut found = Vec::new();
        for tenant in &tenants {
            let sql = "SELECT id FROM bulkhead.lane WHERE tenant_id = $1";
            let lane: i32 = sqlx::query_scalar(sql)
                .bind(tenant.row.id)
                .fetch_one(&mut world.superuser().await)
                .await
                .unwrap();
            found.push(lane);
        }
        Self {
            world,
            tenants,
            lanes: found,
        }
    }

    async fn set(&self, lane: usize, what: &str) {
        let sql = format!(
            "UPDATE bulkhead.lane SET {what} WHERE id = {}",
            self.lanes[lane]
        );
        execute(self.world, &sql).await;
    }

    async fn fill(&self, lane: usize, jobs: u32) {
        let sql = format!(
            "INSERT INTO bulkhead.job (id, lane, tenant_id, kind, args, max_attempts, timeout_ms, actor)
             SELECT gen_random_uuid(), {}, '{}', 'test.none', '{{}}', 3, 1000, 'system:tests' FROM generate_series(1, {jobs})",
            self.lanes[lane], self.tenants[lane].row.id
        );
        execute(self.world, &sql).await;
    }

    async fn worker(&self) -> Claimer {
        self.worker_of(None).await
    }

    /// One that serves this queue alone.
    async fn worker_of(&self, queue: Option<&str>) -> Claimer {
        let mut connection = self.world.superuser().await;
        let node = new_id();
        let queues = queue.map(|queue| vec![queue.to_owned()]);
        let hello = "SET search_path TO bulkhead, pg_temp; SET lock_timeout = '60s'";
        connection.execute(sqlx::raw_sql(hello)).await.unwrap();
        sqlx::query("INSERT INTO node (id, name, version, kinds, queues) VALUES ($1, 'test', '0', '{}', $2)")
            .bind(node)
            .bind(&queues)
            .execute(&mut connection)
            .await
            .unwrap();
        Claimer {
            connection,
            node,
            lanes: self.lanes.clone(),
            queues,
        }
    }

    async fn running(&self) -> i64 {
        count(
            self.world,
            "SELECT count(*) FROM bulkhead.job WHERE state = 2",
        )
        .await
    }
}

/// Claims on a connection of its own.
struct Claimer {
    connection: PgConnection,
    node: Uuid,
    lanes: Vec<i32>,
    queues: Option<Vec<String>>,
}

impl Claimer {
    async fn claim(&mut self, jobs: i32) -> Vec<Job> {
        self.claim_by("take_jobs", jobs).await
    }

    async fn claim_by(&mut self, function: &str, jobs: i32) -> Vec<Job> {
        let sql = format!(
            "SELECT lane, id, claim FROM {function}($1, $2, $3, $4, '{{\"\": 1}}', '{{}}') WHERE id IS NOT NULL"
        );
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(self.node)
            .bind(&self.lanes)
            .bind(jobs)
            .bind(&self.queues)
            .fetch_all(&mut self.connection)
            .await
            .unwrap();
        let job = |row: &sqlx::postgres::PgRow| Job {
            id: row.get("id"),
            lane: row.get("lane"),
            claim: row.get("claim"),
        };
        rows.iter().map(job).collect()
    }

    /// Says that they are done; those that were still ours.
    async fn end(&mut self, jobs: &[Job]) -> Vec<Uuid> {
        let ids: Vec<Uuid> = jobs.iter().map(|job| job.id).collect();
        let claims: Vec<i64> = jobs.iter().map(|job| job.claim).collect();
        sqlx::query_scalar("SELECT * FROM done_jobs($1, $2)")
            .bind(ids)
            .bind(claims)
            .fetch_all(&mut self.connection)
            .await
            .unwrap()
    }

    async fn run(&mut self, sql: &str) {
        let sql = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        self.connection.execute(sql).await.unwrap();
    }

    /// Pages that a claim reads.
    async fn pages(&mut self, jobs: i32) -> u64 {
        let sql = "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON)
            SELECT FROM take_jobs($1, $2, $3, $4, '{\"\": 1}', '{}')";
        let plan: Value = sqlx::query_scalar(sql)
            .bind(self.node)
            .bind(&self.lanes)
            .bind(jobs)
            .bind(&self.queues)
            .fetch_one(&mut self.connection)
            .await
            .unwrap();
        let read = |name: &str| plan[0]["Plan"][name].as_u64().unwrap();
        read("Shared Hit Blocks") + read("Shared Read Blocks")
    }

    /// Rows of jobs that the open transaction has read.
    async fn read(&mut self) -> i64 {
        let sql = "SELECT (coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))::bigint FROM pg_stat_xact_user_tables
            WHERE schemaname = 'bulkhead' AND relname = 'job'";
        let read = sqlx::query_scalar(sql).fetch_one(&mut self.connection);
        read.await.unwrap()
    }
}

fn by_lane(jobs: &[Job]) -> BTreeMap<i32, usize> {
    let mut counts = BTreeMap::new();
    for job in jobs {
        *counts.entry(job.lane).or_default() += 1;
    }
    counts
}

#[test]
fn shares_are_as_the_weights_are() {
    run(async {
        let queue = Queue::new(3).await;
        for (lane, weight) in [1, 2, 4].into_iter().enumerate() {
            queue.set(lane, &format!("weight = {weight}")).await;
            queue.fill(lane, 600).await;
        }
        // Two of them, in turn: the second one's claims start later than the first one's.
        let mut workers = [queue.worker().await, queue.worker().await];
        let mut all = Vec::new();
        for round in 0..60 {
            let worker = &mut workers[round % 2];
            let jobs = worker.claim(14).await;
            assert_eq!(jobs.len(), 14);
            assert_eq!(worker.end(&jobs).await.len(), 14);
            all.extend(jobs);
        }
        let counts = by_lane(&all);
        let [one, two, four] = [0, 1, 2].map(|lane| counts[&queue.lanes[lane]]);
        assert_eq!(one + two + four, 840);
        assert!(
            one.abs_diff(120) <= 3 && two.abs_diff(240) <= 3,
            "{one}, {two}, {four} of 840"
        );
    });
}

/// During a deployment both are at work: the one of before claims and ends by functions that the other no longer calls.
#[test]
fn a_binary_of_before_shares_a_queue() {
    run(async {
        let queue = Queue::new(2).await;
        queue.fill(0, 60).await;
        queue.fill(1, 60).await;
        let (mut before, mut after) = (queue.worker().await, queue.worker().await);
        let mut all = Vec::new();
        for _ in 0..6 {
            let theirs = before.claim_by("claim_jobs", 10).await;
            let ours = after.claim(10).await;
            assert_eq!((theirs.len(), ours.len()), (10, 10));
            let counts = by_lane(&[theirs.clone(), ours.clone()].concat());
            assert!(
                counts.values().all(|count| (8..=12).contains(count)),
                "{counts:?}"
            );
            let ends: Value = theirs
                .iter()
                .map(|job| json!({ "id": job.id, "claim": job.claim, "state": 3, "back": false, "after_ms": 0 }))
                .collect();
            let ended = sqlx::query_scalar("SELECT * FROM end_jobs($1)").bind(ends);
            let ended: Vec<Uuid> = ended.fetch_all(&mut before.connection).await.unwrap();
            assert_eq!(ended.len(), 10);
            assert_eq!(after.end(&ours).await.len(), 10);
            all.extend(theirs.into_iter().chain(ours).map(|job| job.id));
        }
        let all: BTreeSet<Uuid> = all.into_iter().collect();
        assert_eq!(all.len(), 120, "each once");
    });
}

#[test]
fn a_lane_that_was_idle_has_no_credit() {
    run(async {
        let queue = Queue::new(2).await;
        let mut worker = queue.worker().await;
        queue.fill(0, 400).await;
        for _ in 0..20 {
            let jobs = worker.claim(10).await;
            worker.end(&jobs).await;
        }
        queue.fill(1, 200).await;
        let mut all = Vec::new();
        for _ in 0..10 {
            let jobs = worker.claim(10).await;
            worker.end(&jobs).await;
            all.extend(jobs);
        }
        let counts = by_lane(&all);
        let newcomer = counts[&queue.lanes[1]];
        assert!(
            (45..=60).contains(&newcomer),
            "{newcomer} of 100: not all, and not none"
        );
    });
}

/// Else those of a queue that is served less would have hours of credit, or of debt, where both are served.
#[test]
fn time_passes_in_each_set_of_queues_for_itself() {
    run(async {
        let queue = Queue::new(2).await;
        for (lane, name) in ["one", "two"].into_iter().enumerate() {
            queue.set(lane, &format!("queue = '{name}'")).await;
            queue.fill(lane, 60).await;
        }
        let mut one = queue.worker_of(Some("one")).await;
        let mut two = queue.worker_of(Some("two")).await;
        for _ in 0..5 {
            let jobs = one.claim(10).await;
            assert_eq!(
                by_lane(&jobs),
                BTreeMap::from([(queue.lanes[0], 10)]),
                "of its own queue alone"
            );
        }
        assert_eq!(two.claim(1).await.len(), 1);
        let times = "SELECT vtime::bigint FROM bulkhead.lane WHERE id = ";
        let [first, second] = [0, 1].map(|lane| format!("{times}{}", queue.lanes[lane]));
        assert_eq!(count(queue.world, &first).await, 50);
        assert_eq!(
            count(queue.world, &second).await,
            1,
            "the other queue's time is nothing to it"
        );
    });
}

#[test]
fn a_cap_holds_for_claims_side_by_side() {
    run(async {
        let queue = Queue::new(2).await;
        queue.set(0, "cap = 3").await;
        queue.fill(0, 100).await;
        let mut workers = Vec::new();
        for _ in 0..4 {
            workers.push(queue.worker().await);
        }
        for _ in 0..10 {
            let claims = workers.iter_mut().map(|worker| worker.claim(8));
            let claimed: Vec<Vec<Job>> = join_all(claims).await;
            assert_eq!(queue.running().await, 3);
            let jobs: Vec<Job> = claimed.into_iter().flatten().collect();
            assert_eq!(jobs.len(), 3, "and no fewer");
            workers[0].end(&jobs).await;
        }
    });
}

#[test]
fn a_rate_holds_whoever_claims() {
    run(async {
        let queue = Queue::new(1).await;
        queue.set(0, "rate = 0.001, burst = 5, tokens = 5").await;
        queue.fill(0, 100).await;
        let mut workers = [queue.worker().await, queue.worker().await];
        let mut claimed = 0;
        for round in 0..6 {
            claimed += workers[round % 2].claim(2).await.len();
        }
        assert_eq!(claimed, 5);
        // So long that ten times as many would fit.
        queue
            .set(0, "tokens_at = now() - interval '50000 seconds'")
            .await;
        assert_eq!(workers[0].claim(20).await.len(), 5);
    });
}

#[test]
fn what_is_paused_or_out_of_use_is_not_claimed() {
    run(async {
        let queue = Queue::new(3).await;
        for lane in 0..3 {
            queue.fill(lane, 5).await;
        }
        queue.set(0, "paused = 'for a test'").await;
        let suspend = format!(
            "UPDATE bulkhead.tenant SET state = 'suspended' WHERE id = '{}'",
            queue.tenants[1].row.id
        );
        execute(queue.world, &suspend).await;
        let mut worker = queue.worker().await;
        assert_eq!(
            by_lane(&worker.claim(20).await),
            BTreeMap::from([(queue.lanes[2], 5)])
        );
        queue.set(0, "paused = NULL").await;
        assert_eq!(
            by_lane(&worker.claim(20).await),
            BTreeMap::from([(queue.lanes[0], 5)])
        );
    });
}

#[test]
fn a_claim_skips_lanes_that_another_holds_and_waits_only_if_all_are_held() {
    run(async {
        let queue = Queue::new(2).await;
        queue.fill(0, 10).await;
        queue.fill(1, 10).await;
        let (mut one, mut other) = (queue.worker().await, queue.worker().await);
        one.lanes = vec![queue.lanes[0]];
        one.run("BEGIN").await;
        assert_eq!(one.claim(4).await.len(), 4);
        assert_eq!(
            by_lane(&other.claim(4).await),
            BTreeMap::from([(queue.lanes[1], 4)])
        );
        other.lanes = vec![queue.lanes[0]];
        let waiting = async {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
            until("it waits", async || {
                (count(queue.world, sql).await == 1).then_some(())
            })
            .await;
            one.run("COMMIT").await;
        };
        let (claimed, ()) = futures::join!(other.claim(4), waiting);
        assert_eq!(
            claimed.len(),
            4,
            "others than those that were taken meanwhile"
        );
        assert_eq!(queue.running().await, 12);
    });
}

#[test]
fn an_open_mutation_and_a_claim_do_not_wait_for_each_other() {
    run(async {
        let queue = Queue::new(1).await;
        queue.fill(0, 10).await;
        let mut worker = queue.worker().await;
        worker.run("SET lock_timeout = '1s'").await;
        let tx = queue.tenants[0].write().await;
        let new = NewDevice {
            name: "a".to_owned(),
            client_id: None,
            pin_hash: "none".to_owned(),
        };
        devices::create(&tx, new).await.unwrap();
        super::jobs::enqueue(
            &tx,
            &super::Make {
                device: "b".to_owned(),
            },
        )
        .await
        .unwrap();
        assert_eq!(worker.claim(4).await.len(), 4);
        worker.run("BEGIN").await;
        assert_eq!(worker.claim(4).await.len(), 4);
        super::jobs::enqueue(
            &tx,
            &super::Make {
                device: "c".to_owned(),
            },
        )
        .await
        .unwrap();
        tx.commit().await.unwrap();
        worker.run("COMMIT").await;
    });
}

#[test]
fn a_lost_claim_ends_nothing_and_a_batch_ends_the_rest() {
    run(async {
        let queue = Queue::new(1).await;
        queue.fill(0, 4).await;
        let mut worker = queue.worker().await;
        let jobs = worker.claim(4).await;
        let lost = jobs[1].id;
        let expire = format!(
            "UPDATE bulkhead.job SET lease_until = now() - interval '1 second' WHERE id = '{lost}'"
        );
        execute(queue.world, &expire).await;
        worker.run("SELECT reap_jobs()").await;
        let again = worker.claim(4).await;
        assert_eq!(again.iter().map(|job| job.id).collect::<Vec<_>>(), [lost]);
        let ended = worker.end(&jobs).await;
        assert!(ended.len() == 3 && !ended.contains(&lost));
        assert!(
            worker.end(&jobs).await.is_empty(),
            "nor does saying it twice"
        );
        assert_eq!(worker.end(&again).await, [lost]);
        let attempts = "SELECT sum(attempt)::bigint FROM bulkhead.job_done";
        assert_eq!(count(queue.world, attempts).await, 5);
    });
}

//! Processes whose clocks are wrong by an hour. What is waited for, and who has a job, the database's clock decides.

use super::super::{hurry, node, private, reaches};
use super::{
    Endless, Make, Minutely, Once, Panic, another, another_at, count, execute, new_id, worker,
};
use crate::harness::{Tenant, World, run, until};
use bulkhead::clock::Clock;
use bulkhead::graphql::parse_global_id;
use bulkhead::jobs::{self, Job as _, PlatformJob as _};
use chrono::TimeDelta;
use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

const AHEAD: TimeDelta = TimeDelta::hours(1);
const BEHIND: TimeDelta = TimeDelta::hours(-1);
const ONCE: (&str, &str) = (Once::NAME, r#"{"number": 1, "ms": 1}"#);

/// Adds a job in this state, with what else is set, as the database's clock has it.
async fn put(tenant: &Tenant, (kind, args): (&str, &str), state: u8, set: &str) -> Uuid {
    let id = new_id();
    let sql = format!(
        "INSERT INTO bulkhead.job (id, tenant_id, kind, args, max_attempts, timeout_ms, actor)
         VALUES ('{id}', '{}', '{kind}', '{args}', 2, 60000, 'system:tests');
         UPDATE bulkhead.job SET state = {state}, {set} WHERE id = '{id}'",
        tenant.row.id
    );
    let sql = sqlx::raw_sql(sqlx::AssertSqlSafe(sql));
    let mut superuser = tenant.world.superuser().await;
    sql.execute(&mut superuser).await.unwrap();
    id
}

async fn holds(world: &World, job: Uuid, what: &str) {
    let there = format!(
        "SELECT count(*) FROM (
             SELECT id, state, attempt, run_at, started_at, lease_until FROM bulkhead.job
             UNION ALL SELECT id, state, attempt, run_at, started_at, NULL FROM bulkhead.job_done) j
         WHERE id = '{job}' AND {what}"
    );
    assert_eq!(count(world, &there).await, 1, "{what}");
}

/// It prolongs its own lease, takes back the job whose lease is over, and leaves alone what another holds.
async fn leases(tenant: &Tenant, owner: &str) {
    let world = tenant.world;
    let own = put(tenant, (Endless::NAME, "{}"), 1, "run_at = now()").await;
    reaches(tenant, owner, own, "RUNNING").await;
    let held =
        "attempt = 1, claim = 1, worker = 'elsewhere', started_at = now(), lease_until = now()";
    let theirs = put(tenant, ONCE, 2, &format!("{held} + interval '2 minutes'")).await;
    let lost = put(tenant, ONCE, 2, &format!("{held} - interval '1 second'")).await;
    reaches(tenant, owner, lost, "SUCCEEDED").await;
    holds(world, lost, "attempt = 2").await;
    holds(world, theirs, "state = 2 AND attempt = 1").await;
    let near = format!(
        "UPDATE bulkhead.job SET lease_until = now() + interval '2 seconds' WHERE id = '{own}';
         NOTIFY bulkhead, 'jobs:tests:cancel'"
    );
    let near = sqlx::raw_sql(sqlx::AssertSqlSafe(near));
    near.execute(&mut world.superuser().await).await.unwrap();
    let kept = format!(
        "SELECT count(*) FROM bulkhead.job WHERE id = '{own}' AND attempt = 1
             AND lease_until BETWEEN now() + interval '20 seconds' AND now() + interval '31 seconds'"
    );
    until("its lease is prolonged", async || {
        (count(world, &kept).await == 1).then_some(())
    })
    .await;
    let over = format!("DELETE FROM bulkhead.job WHERE id IN ('{own}', '{theirs}')");
    execute(world, &over).await;
}

/// Jobs are run when it is time, and what failed is tried again after seconds.
async fn times(tenant: &Tenant, owner: &str) {
    let world = tenant.world;
    let later = put(tenant, ONCE, 6, "run_at = now() + interval '50 minutes'").await;
    let soon = put(tenant, ONCE, 6, "run_at = now() + interval '2 seconds'").await;
    let fails = put(tenant, (Panic::NAME, "{}"), 1, "run_at = now()").await;
    let failed = reaches(tenant, owner, fails, "SCHEDULED").await;
    assert_eq!(failed["attempts"], 1);
    holds(
        world,
        fails,
        "run_at BETWEEN now() - interval '5 seconds' AND now() + interval '3 seconds'",
    )
    .await;
    hurry(tenant, fails, 2).await;
    reaches(tenant, owner, soon, "SUCCEEDED").await;
    holds(world, soon, "started_at >= run_at").await;
    assert_eq!(node(tenant, owner, later).await["state"], "SCHEDULED");
    let over = format!("DELETE FROM bulkhead.job WHERE id = '{later}'");
    execute(world, &over).await;
}

/// The last three minutes are to have their jobs once more.
async fn minutes_again(world: &World) {
    let again = format!(
        "DELETE FROM bulkhead.cron_tick; DELETE FROM bulkhead.job WHERE kind = '{0}';
         DELETE FROM bulkhead.job_done WHERE kind = '{0}';
         UPDATE bulkhead.cron SET since = date_trunc('minute', now()) - interval '3 minutes'",
        Minutely::NAME
    );
    let again = sqlx::raw_sql(sqlx::AssertSqlSafe(again));
    again.execute(&mut world.superuser().await).await.unwrap();
    let ticks = "SELECT count(*) FROM bulkhead.cron_tick";
    until("each minute is taken care of", async || {
        (count(world, ticks).await >= 3).then_some(())
    })
    .await;
}

/// No minute has two jobs or none, and none that is to come has one.
async fn each_minute_once(world: &World) {
    let jobs = format!(
        "SELECT (SELECT count(*) FROM bulkhead.job WHERE kind = '{0}')
             + (SELECT count(*) FROM bulkhead.job_done WHERE kind = '{0}')
             - (SELECT count(*) FROM bulkhead.cron_tick WHERE kind = '{0}')",
        Minutely::NAME
    );
    assert_eq!(count(world, &jobs).await, 0);
    let wrong = "SELECT count(*) FROM bulkhead.cron_tick t, bulkhead.cron c
        WHERE t.due_at > now() OR t.due_at <= c.since";
    assert_eq!(count(world, wrong).await, 0);
}

#[test]
fn workers_with_wrong_clocks_keep_to_the_database_s() {
    run(async {
        let (tenant, owner) = private(1).await;
        let world = tenant.world;
        let mut all = Vec::new();
        // Each is alone at first, so that no other does its work.
        for off in [AHEAD, BEHIND] {
            let mut wrong = another_at(world, 3, off);
            wrong.says("# ready").await;
            let known = "SELECT count(*) FROM bulkhead.cron";
            until("its kinds are known", async || {
                (count(world, known).await == 1).then_some(())
            })
            .await;
            minutes_again(world).await;
            leases(&tenant, &owner).await;
            times(&tenant, &owner).await;
            each_minute_once(world).await;
            assert!(wrong.is_running(), "{}", wrong.logged());
        }
        for off in [AHEAD, BEHIND] {
            all.push(another_at(world, 1, off));
        }
        all.push(another(world, 1));
        for each in &mut all {
            each.says("# ready").await;
        }
        for _ in 0..3 {
            minutes_again(world).await;
        }
        each_minute_once(world).await;
    });
}

/// The ids of an hour to come, and of one that is past, are as good as others.
#[test]
fn jobs_of_servers_with_wrong_clocks_are_run_and_listed_like_others() {
    run(async {
        let (tenant, owner) = private(2).await;
        let world = tenant.world;
        let [ahead, behind] = [AHEAD, BEHIND]
            .map(|off| world.beside(move |config| config.clock = Clock::off_by(off)));
        let (ahead, behind) = (ahead.await, behind.await);
        let mut added = Vec::new();
        for number in 0..9 {
            let from = [world, ahead, behind][number % 3];
            let tx = tenant.write_on(&from.app).await;
            let device = format!("device-{number}");
            added.push(jobs::enqueue(&tx, &Make { device }).await.unwrap());
            tx.commit().await.unwrap();
        }
        let here = worker(world).await;
        let there = worker(ahead).await;
        for job in &added {
            reaches(&tenant, &owner, *job, "SUCCEEDED").await;
        }
        let at = Clock::default().now() + TimeDelta::seconds(2);
        for (from, device) in [(ahead, "ahead"), (behind, "behind")] {
            let tx = tenant.write_on(&from.app).await;
            let device = device.to_owned();
            let later = jobs::enqueue_at(&tx, &Make { device }, at).await.unwrap();
            tx.commit().await.unwrap();
            reaches(&tenant, &owner, later, "SUCCEEDED").await;
            holds(world, later, "started_at >= run_at").await;
            added.push(later);
        }
        let mut listed = pages(&tenant, &owner).await;
        assert!(
            listed.is_sorted_by(|a, b| a > b),
            "newest first: {listed:?}"
        );
        listed.sort();
        added.sort();
        assert_eq!(listed, added, "each is on one page");
        // Who is signed in here is there, too.
        let me = json!({ "query": "{ tenant { id } }" });
        for there in [ahead, behind] {
            let asked = there.request(Method::POST, &tenant.host(), "/graphql");
            let answer = tenant.send(asked.bearer_auth(&owner).json(&me)).await;
            assert!(answer.data()["tenant"]["id"].is_string(), "{answer:?}");
        }
        here.stop().await;
        there.stop().await;
    });
}

/// All jobs, as pages of two have them.
async fn pages(tenant: &Tenant, owner: &str) -> Vec<Uuid> {
    let (mut ids, mut after) = (Vec::new(), json!(null));
    loop {
        let query = "query($after: String) { tenant { jobs(first: 2, after: $after) {
            nodes { id } pageInfo { hasNextPage endCursor } } } }";
        let answer = tenant.gql_with(Some(owner), query, json!({ "after": after }));
        let page = answer.await.data()["tenant"]["jobs"].clone();
        for node in page["nodes"].as_array().unwrap() {
            ids.push(parse_global_id(node["id"].as_str().unwrap()).unwrap().1);
        }
        if page["pageInfo"]["hasNextPage"] == false {
            return ids;
        }
        after = page["pageInfo"]["endCursor"].clone();
    }
}

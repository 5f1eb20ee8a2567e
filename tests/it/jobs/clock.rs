//! Jobs by the clock, with several processes that look.

use super::{count, execute, private};
use crate::harness::{Tenant, World, finish, run, until};
use bulkhead::error::Result;
use bulkhead::jobs::{CatchUp, Cron, Job, JobContext, Kinds, PlatformContext, PlatformJob, Worker};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::Executor as _;
use std::sync::Arc;

/// The platform's, each minute.
#[derive(Debug, Serialize, Deserialize)]
struct Minutely {}

impl PlatformJob for Minutely {
    const NAME: &'static str = "test.minutely";
    const CRON: Option<Cron> = Some(Cron::new("* * * * *").catching_up(CatchUp::All));

    async fn run(self, _: &PlatformContext) -> Result<()> {
        Ok(())
    }
}

/// Each tenant's, each year.
#[derive(Debug, Serialize, Deserialize)]
struct Yearly {}

impl Job for Yearly {
    const NAME: &'static str = "test.yearly";
    const CRON: Option<Cron> = Some(Cron::new("0 0 1 1 *").in_zone("Europe/Berlin"));

    async fn run(self, _: &JobContext) -> Result<()> {
        Ok(())
    }
}

/// Workers as three servers have them.
async fn three(world: &'static World) -> Vec<Worker> {
    let kinds = Kinds::default()
        .with_platform::<Minutely>()
        .with::<Yearly>();
    let mut workers = Vec::new();
    for world in [
        world,
        world.beside(|_| ()).await,
        world.beside(|_| ()).await,
    ] {
        let services = Arc::clone(&world.app.services);
        workers.push(Worker::start(services, kinds.clone()).await);
    }
    workers
}

#[test]
fn each_time_has_its_jobs_once_however_many_look() {
    run(async {
        let (tenant, _) = private(1).await;
        let world = tenant.world;
        let (other, idle) = (Tenant::of(world).await, Tenant::of(world).await);
        let suspend = format!(
            "UPDATE bulkhead.tenant SET state = 'suspended' WHERE id = '{}'",
            idle.row.id
        );
        execute(world, &suspend).await;
        let workers = three(world).await;
        let known = "SELECT count(*) FROM bulkhead.cron";
        until("the kinds are known", async || {
            (count(world, known).await == 2).then_some(())
        })
        .await;
        let back = "UPDATE bulkhead.cron SET since = now() - CASE kind WHEN 'test.minutely' THEN interval '20 minutes'
            ELSE interval '370 days' END";
        execute(world, back).await;
        let done = "SELECT count(*) FROM bulkhead.job_done WHERE kind = 'test.minutely'";
        until("twenty times are made up for", async || {
            (count(world, done).await >= 20).then_some(())
        })
        .await;
        let late = "SELECT count(*) FROM bulkhead.job WHERE kind = 'test.yearly'";
        let early = "SELECT count(*) FROM bulkhead.job_done WHERE kind = 'test.yearly'";
        until("the tenants in use have theirs", async || {
            (count(world, late).await + count(world, early).await == 2).then_some(())
        })
        .await;
        for worker in workers {
            worker.stop().await;
        }
        let jobs = "SELECT count(*) FROM (SELECT kind FROM bulkhead.job UNION ALL SELECT kind FROM bulkhead.job_done) j
            WHERE kind = 'test.minutely'";
        let ticks = "SELECT count(*) FROM bulkhead.cron_tick WHERE kind = 'test.minutely'";
        assert_eq!(count(world, jobs).await, count(world, ticks).await);
        let yearly = "SELECT count(*) FROM bulkhead.cron_tick WHERE kind = 'test.yearly'";
        assert_eq!(
            count(world, yearly).await,
            1,
            "the last time, no earlier one"
        );
        let spread = format!(
            "SELECT count(*) FROM (
                 SELECT tenant_id, run_at, created_at FROM bulkhead.job WHERE kind = 'test.yearly'
                 UNION ALL SELECT tenant_id, run_at, created_at FROM bulkhead.job_done WHERE kind = 'test.yearly') j
             WHERE tenant_id IN ('{}', '{}') AND run_at - created_at < interval '1 minute'",
            tenant.row.id, other.row.id
        );
        assert_eq!(count(world, &spread).await, 2);
    });
}

#[test]
fn a_job_of_the_platforms_whose_last_run_was_lost_is_dead() {
    run(async {
        let (tenant, _) = private(1).await;
        let world = tenant.world;
        // As a worker leaves it that was killed a minute ago.
        let lost = format!(
            "INSERT INTO bulkhead.job (id, lane, kind, args, state, attempt, max_attempts, timeout_ms, actor, claim, worker,
                lease_until, started_at)
             SELECT gen_random_uuid(), l.id, '{}', '{{}}', 2, 1, 1, 60000, 'system:tests', nextval('bulkhead.claim_number'), 'gone',
                now() - interval '30 seconds', now() - interval '1 minute'
             FROM bulkhead.lane l WHERE l.tenant_id IS NULL AND l.queue = 'default'",
            Minutely::NAME
        );
        execute(world, &lost).await;
        let kinds = Kinds::default().with_platform::<Minutely>();
        let worker = Worker::start(Arc::clone(&world.app.services), kinds).await;
        let over = "SELECT state::bigint FROM bulkhead.job_done WHERE max_attempts = 1 UNION ALL
            SELECT 0 WHERE NOT EXISTS (SELECT FROM bulkhead.job_done WHERE max_attempts = 1)";
        let state = until("it is over", async || {
            let state = count(world, over).await;
            (state > 0).then_some(state)
        })
        .await;
        assert_eq!(state, 4, "it is not run once more");
        worker.stop().await;
    });
}

/// Never a default: what a job is to be run for is its tenant, or for a kind of the platform's nobody.
#[test]
fn a_job_without_the_tenant_that_its_kind_wants_is_refused() {
    run(async {
        let (tenant, _) = private(1).await;
        let world = tenant.world;
        let (platform, own) = (
            "tenant_id IS NULL",
            format!("tenant_id = '{}'", tenant.row.id),
        );
        for (kind, whose, lane) in [
            (Yearly::NAME, "NULL".to_owned(), platform),
            (Yearly::NAME, "gen_random_uuid()".to_owned(), platform),
            (Minutely::NAME, format!("'{}'", tenant.row.id), &own),
        ] {
            let add = format!(
                "INSERT INTO bulkhead.job (id, lane, tenant_id, kind, args, max_attempts, timeout_ms, actor)
                 SELECT gen_random_uuid(), l.id, {whose}, '{kind}', '{{}}', 1, 60000, 'system:refused'
                 FROM bulkhead.lane l WHERE l.{lane} AND l.queue = 'default'"
            );
            execute(world, &add).await;
        }
        let kinds = Kinds::default()
            .with_platform::<Minutely>()
            .with::<Yearly>();
        let worker = Worker::start(Arc::clone(&world.app.services), kinds).await;
        let over = "SELECT count(*) FROM bulkhead.job_done WHERE actor = 'system:refused'";
        until("all are over", async || {
            (count(world, over).await == 3).then_some(())
        })
        .await;
        let dead = format!("{over} AND state = 4");
        assert_eq!(count(world, &dead).await, 3);
        worker.stop().await;
    });
}

/// What the command printed; it must succeed.
fn cron(world: &World, args: &[&str]) -> String {
    let (code, out, err) = finish(world.command().args(["jobs", "cron"]).args(args), "");
    assert_eq!(code, Some(0), "{err}");
    out
}

#[test]
fn a_kind_is_switched_off_for_a_reason_and_listed() {
    run(async {
        let (tenant, _) = private(1).await;
        let world = tenant.world;
        let listed = |json: &str| {
            let all: Vec<serde_json::Value> = serde_json::from_str(json).unwrap();
            let one = all.into_iter().find(|each| each["kind"] == "media.sweep");
            one.unwrap()
        };
        let before = listed(&cron(world, &["--json"]));
        assert_eq!(before["enabled"], true);
        assert!(before["next"].is_string(), "{before}");
        let off = ["--off", "media.sweep", "--reason", "the store is down"];
        let off = cron(world, &off);
        let is_off = |line: &str| line.starts_with("media.sweep") && line.ends_with("off");
        assert!(off.lines().any(is_off), "{off}");
        let log = finish(world.command().args(["log", "--json"]), "").1;
        assert!(log.contains("jobs.cron"), "{log}");
        assert!(log.contains("the store is down"), "{log}");
        assert_eq!(listed(&cron(world, &["--json"]))["next"], json!(null));

        let mut other = world.command();
        let (code, _, err) = finish(other.args(["jobs", "cron", "--off", "nothing"]), "");
        assert_eq!(code, Some(1));
        let told = "No kind \"nothing\" runs by the clock";
        assert!(err.contains(told), "{err}");
    });
}

#[test]
fn what_is_switched_off_has_no_jobs_and_makes_up_for_none() {
    run(async {
        let (tenant, _) = private(1).await;
        let world = tenant.world;
        cron(world, &["--off", "media.sweep"]);
        // All have missed times.
        let missed = "INSERT INTO bulkhead.cron (kind, enabled) VALUES ('test.minutely', false), ('test.yearly', true);
            UPDATE bulkhead.cron SET since = now() - interval '2 years'";
        let mut superuser = world.superuser().await;
        superuser.execute(sqlx::raw_sql(missed)).await.unwrap();
        cron(world, &["--on", "media.sweep"]);
        let since = "SELECT count(*) FROM bulkhead.cron
            WHERE kind = 'media.sweep' AND enabled AND since > now() - interval '5 minutes'";
        assert_eq!(count(world, since).await, 1);
        let kinds = Kinds::default()
            .with_platform::<Minutely>()
            .with::<Yearly>();
        let worker = Worker::start(Arc::clone(&world.app.services), kinds).await;
        let ticks = async |kind: &str| {
            let sql = format!("SELECT count(*) FROM bulkhead.cron_tick WHERE kind = '{kind}'");
            count(world, &sql).await
        };
        until("the time of one that is on is taken care of", async || {
            (ticks("test.yearly").await > 0).then_some(())
        })
        .await;
        assert_eq!(ticks("test.minutely").await, 0);
        worker.stop().await;
    });
}

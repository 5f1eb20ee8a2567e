//! Jobs: each is run once, none is lost, and no failure of one ends the worker. Workers run here with kinds of our own, in
//! worlds of their own; the last tests kill the real one.

use crate::harness::{Process, Tenant, World, run, until};
use bulkhead::devices::{self, NewDevice};
use bulkhead::error::{Error, Result};
use bulkhead::graphql::global_id;
use bulkhead::identity::BuiltIn;
use bulkhead::jobs::{self, Job, JobContext, Kinds, Worker};
use futures::poll;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;
use tokio::sync::Semaphore;
use uuid::Uuid;

/// Makes a device: an effect that can be counted, in the history too.
#[derive(Debug, Serialize, Deserialize)]
struct Make {
    device: String,
}

impl Job for Make {
    const NAME: &'static str = "test.make";

    async fn run(self, ctx: &JobContext) -> Result<()> {
        let new = NewDevice {
            name: self.device.clone(),
            client_id: Some(self.device),
            pin_hash: "none".to_owned(),
        };
        let tx = ctx.begin().await?;
        let made = devices::create(&tx, new).await;
        tx.settle(made).await.map(drop)
    }
}

/// Waits until the test opens the door of its first, second … run.
#[derive(Debug, Serialize, Deserialize)]
struct Wait {
    gate: Uuid,
}

impl Job for Wait {
    const NAME: &'static str = "test.wait";

    async fn run(self, _: &JobContext) -> Result<()> {
        let gate = gate(self.gate);
        let number = gate.runs.fetch_add(1, Ordering::SeqCst);
        gate.doors[number].acquire().await.unwrap().forget();
        Ok(())
    }
}

/// Is told by the test how its first, second … run ends.
#[derive(Debug, Serialize, Deserialize)]
struct End {
    gate: Uuid,
    how: Vec<How>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum How {
    Well,
    Unavailable,
    Internal,
    Refused,
    Panic,
    Never,
}

impl Job for End {
    const NAME: &'static str = "test.end";
    const MAX_ATTEMPTS: i32 = 3;
    const TIMEOUT: Duration = Duration::from_secs(2);

    async fn run(self, _: &JobContext) -> Result<()> {
        let number = gate(self.gate).runs.fetch_add(1, Ordering::SeqCst);
        match self.how[number] {
            How::Well => Ok(()),
            How::Unavailable => Err(Error::Unavailable),
            How::Internal => Err(Error::internal("the disk /dev/secret is on fire")),
            How::Refused => Err(Error::invalid("file", "The file is no good.")),
            How::Panic => panic!("the job went /dev/wrong"),
            How::Never => std::future::pending().await,
        }
    }
}

/// Where a job of this process meets its test.
#[derive(Debug)]
struct Gate {
    runs: AtomicUsize,
    doors: [Semaphore; 2],
}

fn gate(id: Uuid) -> Arc<Gate> {
    static GATES: LazyLock<Mutex<BTreeMap<Uuid, Arc<Gate>>>> = LazyLock::new(Mutex::default);
    let mut gates = GATES.lock().unwrap();
    let new = || Gate {
        runs: AtomicUsize::new(0),
        doors: [const { Semaphore::const_new(0) }; 2],
    };
    Arc::clone(gates.entry(id).or_insert_with(|| new().into()))
}

#[test]
fn two_workers_run_each_of_200_jobs_once() {
    run(async {
        let (tenant, _) = private(4).await;
        let beside = tenant.world.beside(|_| ()).await;
        let workers = [worker(tenant.world).await, worker(beside).await];
        let tx = tenant.write().await;
        for number in 0..200 {
            let job = Make {
                device: format!("device-{number}"),
            };
            jobs::enqueue(&tx, &job).await.unwrap();
        }
        tx.commit().await.unwrap();
        let left = "SELECT count(*) FROM bulkhead.job WHERE state <> 3";
        until("all are done", async || {
            (count(tenant.world, left).await == 0).then_some(())
        })
        .await;
        let schema = &tenant.row.schema_name;
        for (sql, expected) in [
            (format!("SELECT count(*) FROM {schema}.device"), 200),
            (
                format!("SELECT count(*) FROM {schema}.history WHERE actor LIKE 'job:%'"),
                200,
            ),
            (
                format!(
                    "SELECT count(DISTINCT actor) FROM {schema}.history WHERE actor LIKE 'job:%'"
                ),
                200,
            ),
            (
                "SELECT count(*) FROM bulkhead.job WHERE attempt <> 1".to_owned(),
                0,
            ),
        ] {
            assert_eq!(count(tenant.world, &sql).await, expected, "{sql}");
        }
        for worker in workers {
            worker.stop().await;
        }
    });
}

#[test]
fn a_job_is_there_if_its_cause_is() {
    run(async {
        let (tenant, owner) = private(1).await;
        let make = |device: &str| Make {
            device: device.to_owned(),
        };
        let tx = tenant.write().await;
        jobs::enqueue(&tx, &make("undone")).await.unwrap();
        tx.rollback().await.unwrap();
        let tx = tenant.write().await;
        jobs::enqueue(&tx, &make("dropped")).await.unwrap();
        drop(tx);
        let tx = tenant.write().await;
        jobs::enqueue(&tx, &make("failed")).await.unwrap();
        let failed: Result<()> = Err(Error::invalid("x", "No."));
        tx.settle(failed).await.unwrap_err();
        let kept = enqueue(&tenant, &make("kept")).await;

        let worker = worker(tenant.world).await;
        reaches(&tenant, &owner, kept, "SUCCEEDED").await;
        worker.stop().await;
        assert_eq!(
            count(tenant.world, "SELECT count(*) FROM bulkhead.job").await,
            1
        );
        assert_eq!(devices_of(&tenant, &owner).await, ["kept"]);
    });
}

#[test]
fn a_job_runs_for_the_tenant_that_added_it() {
    run(async {
        let (tenant, owner) = private(2).await;
        let other = Tenant::of(tenant.world).await;
        let its_owner = other.token(BuiltIn::Owner).await;
        let trail = "{ tenant { changes(first: 100) { nodes { id } } } }";
        let before = other.gql(Some(&its_owner), trail).await.body;
        let worker = worker(tenant.world).await;
        let job = enqueue(
            &tenant,
            &Make {
                device: "mine".to_owned(),
            },
        )
        .await;
        reaches(&tenant, &owner, job, "SUCCEEDED").await;
        assert_eq!(devices_of(&tenant, &owner).await, ["mine"]);
        assert_eq!(other.gql(Some(&its_owner), trail).await.body, before);
        assert_eq!(
            node(&other, &its_owner, job).await,
            Value::Null,
            "nor is it seen there"
        );
        let jobs = "{ tenant { jobs { nodes { id } } } }";
        let jobs = other.gql(Some(&its_owner), jobs).await;
        assert_eq!(jobs.data()["tenant"]["jobs"]["nodes"], json!([]));
        worker.stop().await;
    });
}

#[test]
fn a_job_of_an_unknown_kind_waits_for_a_worker_that_knows_it() {
    run(async {
        let (tenant, owner) = private(1).await;
        let job = insert(&tenant, Make::NAME, json!({ "device": "late" })).await;
        let knows_less = Worker::start(
            Arc::clone(&tenant.world.app.services),
            Kinds::default().with::<Wait>(),
        )
        .await;
        let after = enqueue(&tenant, &Wait { gate: open() }).await;
        reaches(&tenant, &owner, after, "SUCCEEDED").await;
        let waiting = node(&tenant, &owner, job).await;
        assert_eq!(
            (&waiting["state"], &waiting["attempts"]),
            (&json!("QUEUED"), &json!(0))
        );
        knows_less.stop().await;

        let worker = worker(tenant.world).await;
        reaches(&tenant, &owner, job, "SUCCEEDED").await;
        assert_eq!(devices_of(&tenant, &owner).await, ["late"]);
        worker.stop().await;
    });
}

#[test]
fn arguments_that_do_not_fit_end_the_job_at_once() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        for args in [json!({ "media": 7 }), json!({}), json!(null)] {
            let job = insert(&tenant, "media.process", args).await;
            let ended = reaches(&tenant, &owner, job, "FAILED").await;
            assert_eq!(ended["attempts"], 1);
            let told = ended["lastError"].as_str().unwrap();
            assert_eq!(told, "The job's arguments do not fit its kind.");
            let errors = errors(&tenant, job).await;
            assert!(
                errors[0]["detail"].as_str().unwrap().contains("Invalid"),
                "{errors}"
            );
        }
    });
}

#[test]
fn a_failure_that_may_pass_is_tried_again() {
    run(async {
        let (tenant, owner) = private(1).await;
        let worker = worker(tenant.world).await;
        let job = End {
            gate: new_id(),
            how: vec![How::Unavailable, How::Internal, How::Well],
        };
        let job = enqueue(&tenant, &job).await;
        let first = reaches(&tenant, &owner, job, "SCHEDULED").await;
        assert_eq!(first["attempts"], 1);
        assert_eq!(
            first["lastError"],
            "The service cannot answer just now; try again shortly."
        );
        assert!(first["scheduledAt"].as_str() > first["startedAt"].as_str());
        assert_eq!(first["finishedAt"], Value::Null);
        hurry(&tenant, job, 2).await;
        let done = reaches(&tenant, &owner, job, "SUCCEEDED").await;
        assert_eq!(done["attempts"], 3);
        assert_ne!(done["finishedAt"], Value::Null);
        worker.stop().await;
    });
}

#[test]
fn attempts_end_and_errors_keep_their_secrets() {
    run(async {
        let (tenant, owner) = private(1).await;
        let worker = worker(tenant.world).await;
        let cases = [
            (
                vec![How::Internal; 3],
                3,
                "Something went wrong on our side.",
                "/dev/secret",
            ),
            (vec![How::Refused], 1, "The file is no good.", "Invalid"),
        ];
        for (how, attempts, told, detail) in cases {
            let gate = new_id();
            let job = enqueue(&tenant, &End { gate, how }).await;
            hurry(&tenant, job, attempts).await;
            let ended = reaches(&tenant, &owner, job, "FAILED").await;
            assert_eq!(
                (&ended["attempts"], &ended["lastError"]),
                (&json!(attempts), &json!(told))
            );
            assert_ne!(ended["finishedAt"], Value::Null);
            let errors = errors(&tenant, job).await;
            assert_eq!(
                errors.as_array().map(Vec::len),
                usize::try_from(attempts).ok()
            );
            assert!(
                errors[0]["detail"].as_str().unwrap().contains(detail),
                "{errors}"
            );
        }
        worker.stop().await;
    });
}

#[test]
fn neither_a_panic_nor_a_job_that_hangs_ends_the_worker() {
    run(async {
        let (tenant, owner) = private(1).await;
        let worker = worker(tenant.world).await;
        for (how, told, detail) in [
            (
                How::Panic,
                "Something went wrong on our side.",
                "the job panicked: the job went /dev/wrong",
            ),
            (
                How::Never,
                "It took too long and was stopped; nothing was changed.",
                "Timeout",
            ),
        ] {
            let gate = new_id();
            let job = enqueue(
                &tenant,
                &End {
                    gate,
                    how: vec![how, How::Well],
                },
            )
            .await;
            let failed = reaches(&tenant, &owner, job, "SCHEDULED").await;
            assert_eq!(failed["lastError"], told);
            let errors = errors(&tenant, job).await;
            assert!(
                errors[0]["detail"].as_str().unwrap().contains(detail),
                "{errors}"
            );
            hurry(&tenant, job, 2).await;
            reaches(&tenant, &owner, job, "SUCCEEDED").await;
        }
        worker.stop().await;
    });
}

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
fn jobs_are_listed_by_state_and_page() {
    run(async {
        let (tenant, owner) = private(1).await;
        let gate = new_id();
        let end = |how| End {
            gate: new_id(),
            how: vec![how],
        };
        let mut ids = BTreeMap::new();
        let worker = worker(tenant.world).await;
        for (job, state) in [
            (end(How::Well), "SUCCEEDED"),
            (end(How::Refused), "FAILED"),
            (end(How::Unavailable), "SCHEDULED"),
        ] {
            let id = enqueue(&tenant, &job).await;
            reaches(&tenant, &owner, id, state).await;
            if state == "SCHEDULED" {
                let later =
                    "UPDATE bulkhead.job SET run_at = now() + interval '1 hour' WHERE state = 1";
                execute(tenant.world, later).await;
            }
            ids.insert(state, id);
        }
        let running = enqueue(&tenant, &Wait { gate }).await;
        reaches(&tenant, &owner, running, "RUNNING").await;
        ids.insert("RUNNING", running);
        ids.insert("QUEUED", enqueue(&tenant, &end(How::Well)).await);
        ids.insert("CANCELLED", Uuid::nil());
        for (state, id) in &ids {
            let query = format!(
                "{{ tenant {{ jobs(state: {state}) {{ nodes {{ id state kind attempts }} }} }} }}"
            );
            let listed =
                tenant.gql(Some(&owner), &query).await.data()["tenant"]["jobs"]["nodes"].clone();
            let listed: Vec<_> = listed
                .as_array()
                .unwrap()
                .iter()
                .map(|job| (job["id"].as_str().unwrap(), job["state"].as_str().unwrap()))
                .collect();
            let id = global(*id);
            let expected: &[_] = if *state == "CANCELLED" {
                &[]
            } else {
                &[(id.as_str(), *state)]
            };
            assert_eq!(listed, expected);
        }
        pages(&tenant, &owner).await;
        self::gate(gate).doors[0].add_permits(1);
        worker.stop().await;
    });
}

/// Two and two and one, newest first.
async fn pages(tenant: &Tenant, owner: &str) {
    let query = "query($after: String) { tenant { jobs(first: 2, after: $after) {
        nodes { kind state } pageInfo { hasNextPage endCursor } } } }";
    let mut after = Value::Null;
    let mut states = Vec::new();
    loop {
        let page = tenant
            .gql_with(Some(owner), query, json!({ "after": after }))
            .await
            .data()["tenant"]["jobs"]
            .clone();
        let nodes = page["nodes"].as_array().unwrap();
        states.extend(
            nodes
                .iter()
                .map(|job| job["state"].as_str().unwrap().to_owned()),
        );
        if page["pageInfo"]["hasNextPage"] == false {
            break;
        }
        assert_eq!(nodes.len(), 2);
        after = page["pageInfo"]["endCursor"].clone();
    }
    assert_eq!(
        states,
        ["QUEUED", "RUNNING", "SCHEDULED", "FAILED", "SUCCEEDED"]
    );
}

#[test]
fn a_media_waits_for_a_store_that_comes_back() {
    run(async {
        let (tenant, owner) = private(1).await;
        let worker = tenant.world.app.worker().await;
        let photos = tenant.world.data_dir.join("media").join(&tenant.slug);
        std::fs::create_dir_all(&photos).unwrap();
        let photos = photos.join("photo");
        std::fs::write(&photos, "in the way").unwrap();
        let media = tenant
            .send_file(&owner, "a.csv", "text/csv", b"a,b\n")
            .await;
        let job = latest(&tenant, &owner).await;
        let failed = reaches(&tenant, &owner, job, "SCHEDULED").await;
        assert_eq!(failed["lastError"], "Something went wrong on our side.");
        std::fs::remove_file(&photos).unwrap();
        hurry(&tenant, job, 2).await;
        assert_eq!(tenant.processed(&owner, &media).await["state"], "READY");

        std::fs::remove_dir_all(&photos).unwrap();
        std::fs::write(&photos, "in the way").unwrap();
        let media = tenant
            .send_file(&owner, "a.csv", "text/csv", b"a,b\n")
            .await;
        let job = latest(&tenant, &owner).await;
        hurry(&tenant, job, 8).await;
        let ended = tenant.processed(&owner, &media).await;
        assert_eq!(
            (&ended["state"], &ended["failure"]),
            (
                &json!("FAILED"),
                &json!("Something went wrong on our side.")
            ),
            "it does not stay PROCESSING for ever"
        );
        worker.stop().await;
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

/// A tenant in a world of its own, whose worker runs this many jobs side by side, and its owner's token.
async fn private(concurrency: u32) -> (Tenant, String) {
    let world = World::private(|config| config.worker_concurrency = concurrency).await;
    let tenant = Tenant::of(world).await;
    let owner = tenant.token(BuiltIn::Owner).await;
    (tenant, owner)
}

async fn worker(world: &World) -> Worker {
    let kinds = Kinds::default().with::<Make>().with::<Wait>().with::<End>();
    Worker::start(Arc::clone(&world.app.services), kinds).await
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

fn new_id() -> Uuid {
    bulkhead::clock::Clock.new_id()
}

/// A gate whose door is open.
fn open() -> Uuid {
    let id = new_id();
    gate(id).doors[0].add_permits(1);
    id
}

async fn enqueue<J: Job + Sync>(tenant: &Tenant, job: &J) -> Uuid {
    let tx = tenant.write().await;
    let id = jobs::enqueue(&tx, job).await.unwrap();
    tx.commit().await.unwrap();
    id
}

/// A job from another version of the program.
async fn insert(tenant: &Tenant, kind: &str, args: Value) -> Uuid {
    let id = new_id();
    let sql =
        "INSERT INTO bulkhead.job (id, tenant_id, kind, args, max_attempts, timeout_ms, actor)
        VALUES ($1, $2, $3, $4, 8, 60000, 'system:tests')";
    sqlx::query(sql)
        .bind(id)
        .bind(tenant.row.id)
        .bind(kind)
        .bind(args)
        .execute(&mut tenant.world.superuser().await)
        .await
        .unwrap();
    id
}

/// Does not wait for the pauses between attempts.
async fn hurry(tenant: &Tenant, job: Uuid, attempts: i32) {
    let sql =
        format!("SELECT count(*) FROM bulkhead.job WHERE id = '{job}' AND attempt = {attempts}");
    let now = format!("UPDATE bulkhead.job SET run_at = now() WHERE id = '{job}' AND state = 1");
    until(&format!("attempt {attempts} is begun"), async || {
        execute(tenant.world, &now).await;
        (count(tenant.world, &sql).await == 1).then_some(())
    })
    .await;
}

async fn execute(world: &World, sql: &str) {
    let statement = AssertSqlSafe(sql.to_owned());
    world.superuser().await.execute(statement).await.unwrap();
}

async fn count(world: &World, sql: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned()))
        .fetch_one(&mut world.superuser().await)
        .await
        .unwrap()
}

/// What operators see of a job's failures.
async fn errors(tenant: &Tenant, job: Uuid) -> Value {
    sqlx::query_scalar("SELECT errors FROM bulkhead.job WHERE id = $1")
        .bind(job)
        .fetch_one(&mut tenant.world.superuser().await)
        .await
        .unwrap()
}

fn global(job: Uuid) -> String {
    global_id::<jobs::graphql::Job>(job).0
}

/// The job as its tenant sees it.
async fn node(tenant: &Tenant, token: &str, job: Uuid) -> Value {
    let query = "query($id: ID!) { node(id: $id) { ... on Job {
        kind state attempts lastError scheduledAt startedAt finishedAt } } }";
    let variables = json!({ "id": global(job) });
    tenant.gql_with(Some(token), query, variables).await.data()["node"].clone()
}

async fn reaches(tenant: &Tenant, token: &str, job: Uuid, state: &str) -> Value {
    until(&format!("the job is {state}"), async || {
        let job = node(tenant, token, job).await;
        (job["state"] == state).then_some(job)
    })
    .await
}

/// The tenant's newest job.
async fn latest(tenant: &Tenant, token: &str) -> Uuid {
    let query = "{ tenant { jobs(first: 1) { nodes { id } } } }";
    let answer = tenant.gql(Some(token), query).await;
    let id = &answer.data()["tenant"]["jobs"]["nodes"][0]["id"];
    bulkhead::graphql::parse_global_id(id.as_str().unwrap())
        .unwrap()
        .1
}

async fn devices_of(tenant: &Tenant, token: &str) -> Vec<String> {
    let query = "{ tenant { devices(first: 100) { nodes { name } } } }";
    let answer = tenant.gql(Some(token), query).await;
    let devices = answer.data()["tenant"]["devices"]["nodes"]
        .as_array()
        .unwrap();
    devices
        .iter()
        .map(|device| device["name"].as_str().unwrap().to_owned())
        .collect()
}

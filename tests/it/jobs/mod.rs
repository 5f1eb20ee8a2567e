//! Jobs: each is run once, none is lost, and no failure of one ends the worker. Workers run here with kinds of our own, in
//! worlds of their own; some tests of [`workers`] kill the real one.

mod ahead;
mod batches;
mod breakers;
mod claims;
mod clock;
mod context;
mod days;
mod failures;
mod faults;
mod limits;
mod model;
mod queues;
mod running;
mod schedules;
mod steering;
mod telemetry;
mod workers;

use crate::harness::{Tenant, World, until};
use bulkhead::devices::{self, NewDevice};
use bulkhead::error::{Error, Result};
use bulkhead::graphql::global_id;
use bulkhead::identity::BuiltIn;
use bulkhead::jobs::{self, Job, JobContext, Kinds, Worker};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor as _};
use std::collections::BTreeMap;
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
    const TIMEOUT: Duration = Duration::from_hours(1);

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

/// A tenant in a world of its own, whose worker runs this many jobs side by side and fetches none ahead, and its owner's token.
async fn private(concurrency: u32) -> (Tenant, String) {
    let world = World::private(|config| {
        config.worker_concurrency = concurrency;
        config.worker_prefetch = 0;
    })
    .await;
    let tenant = Tenant::of(world).await;
    let owner = tenant.token(BuiltIn::Owner).await;
    (tenant, owner)
}

async fn worker(world: &World) -> Worker {
    let kinds = Kinds::default().with::<Make>().with::<Wait>().with::<End>();
    Worker::start(Arc::clone(&world.app.services), kinds).await
}

fn new_id() -> Uuid {
    bulkhead::clock::Clock::default().new_id()
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

/// Does not wait for the pauses between attempts.
async fn hurry(tenant: &Tenant, job: Uuid, attempts: i32) {
    let sql = format!(
        "SELECT (SELECT count(*) FROM bulkhead.job WHERE id = '{job}' AND attempt >= {attempts})
            + (SELECT count(*) FROM bulkhead.job_done WHERE id = '{job}' AND attempt >= {attempts})"
    );
    let now = format!("UPDATE bulkhead.job SET run_at = now() WHERE id = '{job}' AND state = 6");
    until(&format!("attempt {attempts} is begun"), async || {
        execute(tenant.world, &now).await;
        (count(tenant.world, &sql).await == 1).then_some(())
    })
    .await;
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

//! What goes wrong around the queue, on real processes and a real PostgreSQL: whatever does, each job has its effect once, and
//! none is lost. Where chance decides, the seed is printed; `BULKHEAD_TEST_SEED` sets it.

mod clocks;
mod connections;
mod load;
mod postgres;
mod processes;
mod tenants;

use super::{Make, count, execute, new_id};
use crate::harness::{Process, SECRET_KEY, Tenant, World, run, until};
use bulkhead::app::App;
use bulkhead::clock::Clock;
use bulkhead::config::Config;
use bulkhead::devices::{self, NewDevice};
use bulkhead::error::{Error, Result};
use bulkhead::jobs::{CatchUp, Cron, Job, JobContext, Kinds, PlatformContext, PlatformJob, Worker};
use bulkhead::secret::SecretKey;
use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

/// Says that this process is another worker of a test, and by how many minutes its clock is wrong.
const ANOTHER: &str = "JOBS_TEST_WORKER";

/// Makes a device, after a while, in the unit of work that ends the job: the effect is there exactly once, or twice is seen.
#[derive(Debug, Serialize, Deserialize)]
struct Once {
    number: u32,
    ms: u64,
}

impl Job for Once {
    const NAME: &'static str = "test.effect";
    const MAX_ATTEMPTS: i32 = 1000;

    async fn run(self, ctx: &JobContext) -> Result<()> {
        sleep(Duration::from_millis(self.ms)).await;
        let new = NewDevice {
            name: format!("device {}", self.number),
            client_id: None,
            pin_hash: "none".to_owned(),
        };
        let tx = ctx.begin().await?;
        let made = async {
            devices::create(&tx, new).await?;
            ctx.complete_in(&tx).await
        };
        let made = made.await;
        tx.settle(made).await
    }
}

/// Blocks its thread for as long as this file is there, and not for ever.
#[derive(Debug, Serialize, Deserialize)]
struct Block {
    file: PathBuf,
}

impl Job for Block {
    const NAME: &'static str = "test.block";

    async fn run(self, _: &JobContext) -> Result<()> {
        for _ in 0..5_000 {
            if !self.file.exists() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

/// Stays in its first run, which says when it is stopped, and has an effect in the next.
#[derive(Debug, Serialize, Deserialize)]
struct Stay {
    file: PathBuf,
}

impl Job for Stay {
    const NAME: &'static str = "test.stay";
    const MAX_ATTEMPTS: i32 = 1000;
    const TIMEOUT: Duration = Duration::from_hours(1);

    async fn run(self, ctx: &JobContext) -> Result<()> {
        if !self.file.exists() {
            std::fs::write(&self.file, "").unwrap();
            let _stays = Stays::begin();
            std::future::pending::<()>().await;
        }
        Once { number: 0, ms: 0 }.run(ctx).await
    }
}

/// Says on the standard output when it begins, and when it ends, however it does.
struct Stays;

impl Stays {
    fn begin() -> Self {
        println!("\n# stays");
        Self
    }
}

impl Drop for Stays {
    fn drop(&mut self) {
        println!("\n# stopped");
    }
}

/// Never ends.
#[derive(Debug, Serialize, Deserialize)]
struct Endless {}

impl Job for Endless {
    const NAME: &'static str = "test.endless";
    const TIMEOUT: Duration = Duration::from_hours(1);

    async fn run(self, _: &JobContext) -> Result<()> {
        std::future::pending().await
    }
}

/// Panics, without the message that a test's output would be full of.
#[derive(Debug, Serialize, Deserialize)]
struct Panic {}

impl Job for Panic {
    const NAME: &'static str = "test.panic";
    const MAX_ATTEMPTS: i32 = 1;

    async fn run(self, _: &JobContext) -> Result<()> {
        std::panic::resume_unwind(Box::new("on purpose"))
    }
}

/// The platform's, each minute, each time made up for.
#[derive(Debug, Serialize, Deserialize)]
struct Minutely {}

impl PlatformJob for Minutely {
    const NAME: &'static str = "test.each_minute";
    const CRON: Option<Cron> = Some(Cron::new("* * * * *").catching_up(CatchUp::All));

    async fn run(self, _: &PlatformContext) -> Result<()> {
        Err(Error::invalid("time", "nothing is to be done"))
    }
}

fn kinds() -> Kinds {
    Kinds::default()
        .with::<Once>()
        .with::<Block>()
        .with::<Endless>()
        .with::<Stay>()
        .with::<Panic>()
        .with::<Make>()
}

async fn worker(world: &World) -> Worker {
    Worker::start(Arc::clone(&world.app.services), kinds()).await
}

/// A worker in a process of its own: this test binary, told to run [`another_worker`].
fn another(world: &World, concurrency: u32) -> Process {
    another_at(world, concurrency, TimeDelta::zero())
}

/// The same with a clock that is wrong by this.
fn another_at(world: &World, concurrency: u32, off: TimeDelta) -> Process {
    let told = world.command();
    let mut command = Command::new(std::env::current_exe().unwrap());
    let test = "jobs::faults::another_worker";
    command
        .args(["--ignored", "--exact", test, "--nocapture"])
        .env_clear();
    for (name, value) in told.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    command
        .env(ANOTHER, off.num_minutes().to_string())
        .env("BULKHEAD_WORKER_CONCURRENCY", concurrency.to_string());
    Process::start(&mut command)
}

#[test]
#[ignore = "not a test: the process that the tests here stop and kill"]
fn another_worker() {
    let Ok(off) = std::env::var(ANOTHER) else {
        return;
    };
    run(async {
        let mut config = Config::load(None, &[]).unwrap();
        config.clock = Clock::off_by(TimeDelta::minutes(off.parse().unwrap()));
        let key = SecretKey::new(SECRET_KEY).unwrap();
        let app = App::start(config, key, false).await.unwrap();
        let mut end = signal(SignalKind::terminate()).unwrap();
        let kinds = kinds().with_platform::<Minutely>();
        let worker = Worker::start(Arc::clone(&app.services), kinds).await;
        println!("\n# ready");
        end.recv().await;
        worker.stop().await;
        app.stop().await.unwrap();
    });
}

/// Adds effects with these numbers, each of a few milliseconds.
async fn add(tenant: &Tenant, numbers: std::ops::Range<u32>, ms: u32) {
    let sql = format!(
        "INSERT INTO bulkhead.job (id, tenant_id, kind, args, max_attempts, timeout_ms, actor)
         SELECT gen_random_uuid(), '{}', '{}', jsonb_build_object('number', n, 'ms', n % {ms}), 1000, 60000, 'system:tests'
         FROM generate_series({}, {} - 1) n",
        tenant.row.id,
        Once::NAME,
        numbers.start,
        numbers.end
    );
    execute(tenant.world, &sql).await;
}

/// Waits until all effects are there, without waiting for what only time brings back: leases of the lost and pauses between
/// attempts. A job of a few milliseconds that has been running for seconds is not held by anybody.
async fn once_each(tenant: &Tenant, effects: u32) {
    let hurry = "UPDATE bulkhead.job SET run_at = now() WHERE state = 6 AND run_at > now();
        UPDATE bulkhead.job SET lease_until = now() - interval '1 second'
        WHERE state = 2 AND started_at < now() - interval '3 seconds'";
    let mut superuser = tenant.world.superuser().await;
    until("all jobs are over", async || {
        let hurried = sqlx::raw_sql(hurry).execute(&mut superuser).await;
        hurried.unwrap();
        (count(tenant.world, "SELECT count(*) FROM bulkhead.job").await == 0).then_some(())
    })
    .await;
    let schema = &tenant.row.schema_name;
    for sql in [
        format!("SELECT count(*) FROM {schema}.device"),
        format!("SELECT count(DISTINCT name) FROM {schema}.device"),
        format!(
            "SELECT count(DISTINCT id) FROM bulkhead.job_done WHERE state = 3 AND kind = '{}'",
            Once::NAME
        ),
        format!(
            "SELECT count(*) FROM bulkhead.job_done WHERE kind = '{}'",
            Once::NAME
        ),
    ] {
        assert_eq!(count(tenant.world, &sql).await, i64::from(effects), "{sql}");
    }
}

/// How many, unless this variable says how many: for long.
fn asked(variable: &str, otherwise: u32) -> u32 {
    let asked = std::env::var(variable).ok();
    asked.map_or(otherwise, |number| number.parse().expect("a number"))
}

/// Chance, from a seed that is printed.
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        let asked = std::env::var("BULKHEAD_TEST_SEED").ok();
        let seed = asked.map_or_else(
            || new_id().as_u64_pair().1,
            |seed| seed.parse().expect("a number"),
        );
        println!("BULKHEAD_TEST_SEED={seed}");
        Self(seed)
    }

    /// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    /// A pause of up to so many milliseconds.
    async fn pause(&mut self, ms: u64) {
        sleep(Duration::from_millis(self.below(ms))).await;
    }
}

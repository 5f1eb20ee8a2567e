//! Workers in processes of their own that are killed at random, again and again: whatever they had, every job comes to its end, and
//! to one.

use super::kinds::{self, Rest};
use super::ours::Ours;
use super::{LANES, Options};
use crate::Result;
use crate::place::{KEY, explain};
use crate::process::Process;
use crate::report::{Report, note, progress};
use bulkhead::app::App;
use bulkhead::config::Config;
use bulkhead::jobs::Worker;
use bulkhead::secret::SecretKey;
use clap::Args;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Jobs that are added before each kill.
const JOBS: u32 = 100;
/// Processes.
const WORKERS: usize = 4;
/// How long they live at most, in milliseconds.
const LIFE: u64 = 400;
/// How long the rest may take.
const PATIENCE: Duration = Duration::from_mins(3);

/// One of the workers, which this program starts itself.
#[derive(Debug, Args)]
pub(crate) struct Child {
    /// Bulkhead's data directory
    data_dir: PathBuf,
}

/// Runs jobs until it is ended.
pub(crate) async fn child(options: Child) -> Result<()> {
    let config = Config {
        data_dir: options.data_dir,
        worker_concurrency: 2,
        max_connections: 8,
        ..Config::default()
    };
    let key = SecretKey::new(KEY).map_err(explain)?;
    let app = App::start(config, key, false).await.map_err(explain)?;
    let _worker = Worker::start(Arc::clone(&app.services), kinds::all()).await;
    std::future::pending().await
}

fn worker(data_dir: &Path) -> Result<Process> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("worker").arg(data_dir);
    Process::spawn(command)
}

/// Kills them as often as asked. Returns how many jobs were lost.
pub(super) async fn run(
    options: &Options,
    ours: &mut Ours<'_>,
    report: &mut Report,
) -> Result<u64> {
    if options.faults == 0 {
        return Ok(0);
    }
    let seed = options.seed.unwrap_or_else(rand::random);
    note(&format!(
        "killing workers {} times, --seed {seed}",
        options.faults
    ));
    ours.sql("TRUNCATE job_done; DELETE FROM job").await?;
    let data_dir = ours.place.data_dir();
    let mut workers = Vec::new();
    for _ in 0..WORKERS {
        workers.push(worker(&data_dir)?);
    }
    let mut dice = seed;
    let bar = progress(options.faults.into());
    for _ in 0..options.faults {
        ours.fill(&Rest { ms: 5 }, JOBS, LANES).await?;
        sleep(Duration::from_millis(below(&mut dice, LIFE))).await;
        let which = usize::try_from(below(&mut dice, WORKERS as u64))?;
        let pid = workers[which].pid();
        kill(Pid::from_raw(pid), Signal::SIGKILL)?;
        workers[which] = worker(&data_dir)?;
        // Its leases would end in half a minute.
        ours.sql(&format!(
            "UPDATE job SET lease_until = now() - interval '1 second'
             WHERE state = 2 AND worker IN (SELECT id::text FROM node WHERE name = '{pid}')"
        ))
        .await?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    let lost = rest(options.faults * JOBS, ours, report).await;
    for each in &workers {
        // They have nothing to do any more; what they would say at their end is nobody's business.
        kill(Pid::from_raw(each.pid()), Signal::SIGKILL)?;
    }
    lost
}

/// Waits until all are over, and counts.
async fn rest(jobs: u32, ours: &mut Ours<'_>, report: &mut Report) -> Result<u64> {
    let deadline = Instant::now() + PATIENCE;
    while ours.count("SELECT count(*) FROM job").await? > 0 {
        if Instant::now() > deadline {
            return Err("jobs of killed workers are left, and nobody runs them".into());
        }
        ours.sql(
            "UPDATE job SET lease_until = now() - interval '1 second'
             WHERE state = 2 AND started_at < now() - interval '5 seconds';
             UPDATE job SET run_at = now() WHERE state = 6",
        )
        .await?;
        sleep(Duration::from_millis(200)).await;
    }
    let ended = "SELECT count(DISTINCT id) FROM job_done WHERE state = 3";
    let lost = u64::from(jobs).saturating_sub(u64::try_from(ours.count(ended).await?)?);
    let twice = ours
        .count("SELECT count(*) - count(DISTINCT id) FROM job_done")
        .await?;
    report.text(&format!(
        "Workers killed {} times: {lost} of {jobs} jobs lost, {twice} ended twice",
        jobs / JOBS
    ))?;
    if twice > 0 {
        return Err(format!("{twice} jobs ended twice").into());
    }
    Ok(lost)
}

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
fn below(state: &mut u64, limit: u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) % limit
}

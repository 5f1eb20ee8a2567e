//! `jobs`: how many jobs the queue runs in a second, beside stock fang and graphile-worker in the same run; how soon a job starts;
//! how fairly tenants are served; and whether each job runs once, and none is lost where workers are killed.

mod faults;
mod graphile;
mod kinds;
mod ours;
mod stock;

pub(crate) use faults::{Child, child};

use crate::place::{Place, explain};
use crate::population;
use crate::postgres::Postgres;
use crate::report::{Report, note, progress};
use crate::stats::median;
use crate::usage::{private_mb, resident_mb};
use crate::{Common, Result};
use bulkhead::jobs::Worker;
use clap::Args;
use graphile::Graphile;
use kinds::{Rest, notes};
use ours::{Ours, at};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What `jobs` can be told.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Jobs that four dispatchers run, each counted; and jobs of 10 ms of another tenant that a quiet one's come beside
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1_000..))]
    jobs: u32,
    /// Jobs of a throughput; a tenth where each is fetched by itself
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1_000..))]
    drained: u32,
    /// Jobs of a throughput of stock fang, which is slower
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(100..))]
    stock_jobs: u32,
    /// Each throughput is the median of so many, in turn
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Jobs whose start is timed, and those of a quiet tenant
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(100..))]
    starts: u32,
    /// Ready jobs that a claim is made among, in 10,000 lanes
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(10_000..))]
    ready: u32,
    /// How often a worker is killed, at random, while others work
    #[arg(long, default_value_t = 20)]
    faults: u32,
    /// Where chance begins [default: another each time; it is printed]
    #[arg(long)]
    seed: Option<u64>,
    /// Directory of a package.json, its lock file and a bench.mjs that measures graphile-worker, which npm installs: a peer in the
    /// same run
    #[arg(long, value_name = "DIR")]
    graphile: Option<PathBuf>,
}

/// Tenants in all; a hundred of them have jobs where fairness is measured.
const TENANTS: u32 = 102;
const LANES: usize = 100;
/// Short jobs that are fetched ahead at most, where they are.
const AHEAD: u32 = 512;

/// Runs it.
pub(crate) async fn run(options: Options) -> Result<()> {
    let mut report = Report::new(options.common.json);
    let mut place = Place::new(&options.common)?;
    note("starting PostgreSQL");
    let postgres = Postgres::start(&mut place, true).await?;
    let done = with(&options, &place, &postgres, &mut report).await;
    postgres.stop().await?;
    done?;
    report.finish()
}

async fn with(
    options: &Options,
    place: &Place,
    postgres: &Postgres,
    report: &mut Report,
) -> Result<()> {
    let app = place.app().await?;
    let measured = async {
        note(&format!("making {TENANTS} tenants"));
        postgres.durable(false).await?;
        population::make(&app, 0..TENANTS).await?;
        postgres.durable(true).await?;
        let mut ours = Ours::new(place, &app, postgres).await?;
        let version = postgres.version();
        report.text(&format!(
            "PostgreSQL {version}, durable (fsync on), 8 workers in one process"
        ))?;
        let peer = match &options.graphile {
            Some(dir) => Some(Graphile::install(dir, place, postgres).await?),
            None => None,
        };
        rates(options, &mut ours, (postgres, peer.as_ref()), report).await?;
        starts(options, &mut ours, report).await?;
        fairness(&mut ours, report).await?;
        let lost = once(options, &mut ours, postgres, report).await?;
        let lost = lost + faults::run(options, &mut ours, report).await?;
        report.count("lost", lost);
        note(&format!("claiming among {} ready jobs", options.ready));
        let claims = ours.claims(options.ready).await?;
        report.figure("claim_ms", median(claims.iter().copied()));
        report.text(&format!(
            "A claim of 16 among {} ready jobs in 10,000 lanes: {:.2} ms",
            options.ready,
            median(claims)
        ))
    };
    let measured: Result<()> = measured.await;
    app.stop().await.map_err(explain)?;
    measured
}

async fn rates(
    options: &Options,
    ours: &mut Ours<'_>,
    (postgres, peer): (&Postgres, Option<&Graphile>),
    report: &mut Report,
) -> Result<()> {
    let mut peers = Vec::new();
    let mut rates: [Vec<f64>; 5] = Default::default();
    for round in 1..=options.rounds {
        note(&format!(
            "running jobs, round {round} of {}",
            options.rounds
        ));
        let (rate, runs) = stock::drain(postgres, options.stock_jobs, 8).await?;
        rates[0].push(rate);
        rates[1].push(runs);
        // Each of those has its own claim and end.
        rates[2].push(ours.drain(options.drained / 10, 1, 0).await?);
        rates[3].push(ours.drain(options.drained, 1, AHEAD).await?);
        rates[4].push(ours.drain(options.drained, LANES, AHEAD).await?);
        if let Some(peer) = peer {
            peers.push(peer.rate(options.drained).await?);
        }
    }
    let [stock, doubled, plain, fifo, fair] = rates.map(median);
    report.figure("vs_stock", plain / stock);
    report.figure("vs_stock_prefetch", fair / stock);
    report.figure("fairness_cost", 1.0 - fair / fifo);
    let mut rows = vec![
        row("stock fang", stock, &format!("{doubled:.2} runs a job")),
        row("ours, a job at a time", plain, "one lane"),
        row(
            "ours, fetching ahead",
            fifo,
            "one lane: first in, first out",
        ),
        row("the same, fair", fair, &format!("{LANES} tenants")),
    ];
    if !peers.is_empty() {
        let peer = median(peers);
        report.figure("vs_graphile_batched", fair / peer);
        rows.push(row(
            "graphile-worker",
            peer,
            "a local queue, batched completion",
        ));
    }
    report.table(
        "No-op jobs, until all are over",
        &["queue", "jobs/s", ""],
        rows,
    )
}

/// Memory in MB: this process's, whose workers they are, and what is private to PostgreSQL's.
#[derive(Clone, Copy, Debug, Default)]
struct Memory {
    ours: f64,
    postgres: f64,
}

impl Memory {
    fn now(postmaster: i32) -> Self {
        let own = i32::try_from(std::process::id()).ok();
        Self {
            ours: own.and_then(resident_mb).unwrap_or(f64::NAN),
            postgres: private_mb(postmaster).map_or(f64::NAN, |(mb, _)| mb),
        }
    }
}

fn row(name: &str, rate: f64, note: &str) -> Vec<String> {
    vec![name.to_owned(), format!("{rate:.0}"), note.to_owned()]
}

async fn starts(options: &Options, ours: &mut Ours<'_>, report: &mut Report) -> Result<()> {
    note("timing the start of single jobs");
    notes().clear();
    let worker = Worker::start(Arc::clone(&ours.app.services), kinds::all()).await;
    let alone = ours
        .waits(0, options.starts, Duration::from_millis(5))
        .await?;
    worker.stop().await;
    note(&format!(
        "the same beside {} jobs of another tenant",
        options.jobs
    ));
    ours.fill(&Rest { ms: 10 }, options.jobs, 1).await?;
    notes().clear();
    let (app, flood) = ours.worker(8, AHEAD).await?;
    while notes().runs() < 200 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let quiet = ours
        .waits(1, options.starts.min(300), Duration::from_millis(20))
        .await?;
    flood.stop().await;
    app.stop().await.map_err(explain)?;
    ours.sql("DELETE FROM job").await?;
    report.figure("start_p50_ms", at(&alone, 50));
    report.figure("start_p99_ms", at(&alone, 99));
    report.figure("quiet_p99_ms", at(&quiet, 99));
    let line = |name: &str, waits: &[f64]| {
        vec![
            name.to_owned(),
            format!("{:.2}", at(waits, 50)),
            format!("{:.2}", at(waits, 99)),
        ]
    };
    let rows = vec![
        line("idle workers, in the process that adds it", &alone),
        line(
            "busy with another tenant's 10 ms jobs, in another process",
            &quiet,
        ),
    ];
    report.table(
        "From the commit to the start, ms",
        &["workers", "p50", "p99"],
        rows,
    )
}

async fn fairness(ours: &mut Ours<'_>, report: &mut Report) -> Result<()> {
    note("sharing out");
    let (count, time) = (ours.shares(false).await?, ours.shares(true).await?);
    report.figure("jain_count", count);
    report.figure("jain_time", time);
    report.text(&format!(
        "Jain's index: {count:.4} of runs for weights 1, 2, 4; {time:.4} of run time for jobs of 2 and 10 ms"
    ))
}

/// Four processes' worth of dispatchers, and their memory meanwhile. Returns how many jobs were lost.
async fn once(
    options: &Options,
    ours: &mut Ours<'_>,
    postgres: &Postgres,
    report: &mut Report,
) -> Result<u64> {
    note(&format!(
        "counting {} jobs of four dispatchers",
        options.jobs
    ));
    ours.sql("TRUNCATE job_done; DELETE FROM job").await?;
    ours.fill(&kinds::Noop {}, options.jobs, LANES).await?;
    notes().clear();
    let mut workers = Vec::new();
    for _ in 0..4 {
        workers.push(ours.worker(2, AHEAD).await?);
    }
    let bar = progress(options.jobs.into());
    let jobs = u64::from(options.jobs);
    let (mut half, mut end) = (Memory::default(), Memory::default());
    let watched = async {
        loop {
            let runs = notes().runs();
            bar.set_position(runs);
            if runs < jobs {
                end = Memory::now(postgres.postmaster);
            }
            if runs < jobs / 2 {
                half = end;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::select! {
        over = ours.until_over() => over?,
        () = watched => {}
    }
    bar.finish_and_clear();
    for (app, worker) in workers {
        worker.stop().await;
        app.stop().await.map_err(explain)?;
    }
    let done = ours
        .count("SELECT count(DISTINCT id) FROM job_done WHERE state = 3")
        .await?;
    let lost = u64::from(options.jobs).saturating_sub(u64::try_from(done)?);
    #[expect(clippy::cast_precision_loss, reason = "a count of runs")]
    let runs = notes().runs() as f64 / f64::from(options.jobs);
    report.figure("executions_per_job", runs);
    for (name, mb) in [
        ("rss_mb_half", half.ours),
        ("rss_mb_end", end.ours),
        ("pg_memory_mb_half", half.postgres),
        ("pg_memory_mb_end", end.postgres),
    ] {
        report.figure(name, mb);
    }
    report.text(&format!(
        "{runs} runs a job over {}, {lost} lost; memory halfway and at the end: {:.0} and {:.0} MB, PostgreSQL's {:.0} and {:.0} MB",
        options.jobs, half.ours, end.ours, half.postgres, end.postgres
    ))?;
    Ok(lost)
}

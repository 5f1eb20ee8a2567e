//! Bulkhead's figures: `cargo run --release -p bench -- requests|onboarding|tenants|leaks|jobs|history`. Each bench runs its own server and
//! PostgreSQL, and compares what it measured in the same run.

mod history;
mod http;
mod jobs;
mod leaks;
mod load;
mod onboarding;
mod place;
mod population;
mod postgres;
mod process;
mod proxy;
mod report;
mod requests;
mod server;
mod site;
mod stats;
mod tenants;
mod usage;

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

/// Whatever went wrong, as it is told to whoever runs the bench.
type Error = Box<dyn std::error::Error + Send + Sync>;
/// A result of the bench's own.
type Result<T, E = Error> = std::result::Result<T, E>;

/// Measures Bulkhead on a server of its own.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// Requests per second for one device by its id, as a share of pgbench's, and the idle server's memory
    Requests(requests::Options),
    /// Milliseconds to make a tenant with its owner
    Onboarding(onboarding::Options),
    /// Memory and latency with many tenants, asked at random
    Tenants(tenants::Options),
    /// Whether anything of one tenant's ever comes with another's answers, whatever fails
    Leaks(leaks::Options),
    /// Jobs per second beside stock fang, how soon they start, how fairly tenants are served, and whether each runs once
    Jobs(jobs::Options),
    /// A worker that `jobs` starts and kills
    #[command(hide = true)]
    Worker(jobs::Child),
    /// What the history costs who writes, how fast it is verified, and how soon it says what was
    History(history::Options),
}

/// What every bench can be told.
#[derive(Debug, Args)]
struct Common {
    /// Print one JSON object of the figures to standard output, and the tables to standard error
    #[arg(long)]
    json: bool,
    /// The program to measure [default: this workspace's, built first]
    #[arg(long, value_name = "FILE")]
    bulkhead: Option<PathBuf>,
    /// Where the data lie while it runs [default: the system's temporary directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Directory of PostgreSQL's programs, where they are not found by themselves
    #[arg(long, value_name = "DIR")]
    pg_bin: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(Cli::parse().bench) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::note(&format!("bench: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(bench: Bench) -> Result<()> {
    if cfg!(debug_assertions) {
        return Err("a debug build measures nothing; run it with --release".into());
    }
    match bench {
        // The load comes from one thread, as pgbench's does.
        Bench::Requests(options) => Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(unless_stopped(requests::run(options))),
        Bench::Tenants(options) => Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(unless_stopped(tenants::run(options))),
        Bench::Leaks(options) => Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(unless_stopped(leaks::run(options))),
        // The library runs as it does in the program.
        Bench::Onboarding(options) => Builder::new_multi_thread()
            .enable_all()
            .build()?
            .block_on(unless_stopped(onboarding::run(options))),
        Bench::Jobs(options) => Builder::new_multi_thread()
            .enable_all()
            .build()?
            .block_on(unless_stopped(jobs::run(options))),
        Bench::Worker(options) => Builder::new_multi_thread()
            .enable_all()
            .build()?
            .block_on(unless_stopped(jobs::child(options))),
        Bench::History(options) => Builder::new_multi_thread()
            .enable_all()
            .build()?
            .block_on(unless_stopped(history::run(options))),
    }
}

/// Drops the bench at Ctrl-C: what it started is stopped as it is dropped.
async fn unless_stopped(bench: impl Future<Output = Result<()>>) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        done = bench => done,
        _ = interrupt.recv() => Err("stopped".into()),
        _ = terminate.recv() => Err("stopped".into()),
    }
}

//! `onboarding`: how long it takes to make a tenant with its schema, role, grants, built-in roles and first owner, in a
//! database that has many; and how long others wait meanwhile.

mod stall;

use crate::place::{KEY, Place, explain};
use crate::population;
use crate::postgres::Postgres;
use crate::report::{Report, note};
use crate::stats::median;
use crate::{Common, Result, server};
use bulkhead::app::{App, create_tenant, provision};
use bulkhead::tenancy::{Act, NewTenant, spares};
use clap::Args;
use stall::{Waits, during};
use std::path::Path;
use std::process::Stdio;
use std::str::FromStr;
use std::time::{Duration, Instant};
use tokio::process::Command;
use tokio::time::sleep;

/// Tenants that are read meanwhile, each by one reader.
const READ: u32 = 4;
/// How long the reads are watched while nothing is made.
const ALONE: Duration = Duration::from_secs(5);
/// Between two tenants that are made: what one of them does to others is over.
const PAUSE: Duration = Duration::from_millis(100);
/// From so many tenants on, the figures' names say so.
const MANY: u32 = 10_000;

/// What `onboarding` can be told.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Tenants that are there before
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(4..))]
    tenants: u32,
    /// Tenants made and measured, of each way
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    samples: u32,
    /// Tenants made by the command, each in a process of its own
    #[arg(long, default_value_t = 5)]
    commands: u32,
    /// What a peer takes for a tenant, measured just before: name=milliseconds
    #[arg(long, value_name = "PEER")]
    peer_ms: Option<Peer>,
}

/// `name=milliseconds`.
#[derive(Clone, Debug)]
struct Peer {
    name: String,
    ms: f64,
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('=').and_then(|(name, ms)| {
            let ms = ms.parse().ok().filter(|&ms: &f64| ms > 0.0)?;
            Some(Self {
                name: name.to_owned(),
                ms,
            })
        });
        parsed.ok_or_else(|| "a peer's time is given as name=milliseconds".to_owned())
    }
}

/// Milliseconds of one way to make a tenant, each time.
#[derive(Debug)]
struct Way {
    /// In the figures.
    key: &'static str,
    /// In the table.
    name: &'static str,
    times: Vec<f64>,
    /// Of others, meanwhile.
    waits: Option<Waits>,
}

/// The owners' address.
const OWNER: &str = "owner@bench.test";
/// Their password.
const PASSWORD: &str = "correct horse";

/// Runs it.
pub(crate) async fn run(options: Options) -> Result<()> {
    let mut report = Report::new(options.common.json);
    let program = server::program(&options.common)?;
    let mut place = Place::new(&options.common)?;
    note("starting PostgreSQL");
    let postgres = Postgres::start(&mut place, true).await?;
    let done = with(&options, (&program, &place), &postgres, &mut report).await;
    postgres.stop().await?;
    done?;
    report.finish()
}

async fn with(
    options: &Options,
    (program, place): (&Path, &Place),
    postgres: &Postgres,
    report: &mut Report,
) -> Result<()> {
    let settings = population::settings(options.tenants);
    let app = place.app_with(settings.clone()).await?;
    let readers = place.app_with(settings).await?;
    let measured = async {
        note(&format!("making {} tenants", options.tenants));
        postgres.durable(false).await?;
        population::make(&app, 0..options.tenants).await?;
        postgres.durable(true).await?;
        let mut ways = ways(&app, &readers, options).await?;
        let mut times = Vec::new();
        for number in 0..options.commands {
            times.push(command(program, place, number).await?);
        }
        ways.push(Way {
            key: "command",
            name: "the command, from start to end",
            times,
            waits: None,
        });
        Ok(ways)
    };
    let measured: Result<Vec<Way>> = measured.await;
    app.stop().await.map_err(explain)?;
    readers.stop().await.map_err(explain)?;
    let version = postgres.version();
    report.text(&format!(
        "PostgreSQL {version}, durable (fsync on), {} tenants before",
        options.tenants
    ))?;
    tell(report, &measured?, options)
}

/// Each way to make a tenant, with others' reads beside it; and these alone.
async fn ways(app: &App, readers: &App, options: &Options) -> Result<Vec<Way>> {
    let slugs: Vec<String> = (0..READ).map(population::slug).collect();
    let way = |key, name, (times, waits)| Way {
        key,
        name,
        times,
        waits: Some(waits),
    };
    note("nothing is made");
    let alone = async {
        sleep(ALONE).await;
        Ok(Vec::new())
    };
    let alone = during(readers, &slugs, alone).await?;
    note("from the batch");
    let first = options.tenants;
    let batch = during(
        readers,
        &slugs,
        Box::pin(tenants(app, first, options.samples)),
    )
    .await?;
    note("from spares");
    let next = first + options.samples;
    fill(app, options.samples).await?;
    let spare = tenants(app, next, options.samples).await?;
    let next = next + options.samples;
    fill(app, options.samples).await?;
    let busy = during(
        readers,
        &slugs,
        Box::pin(tenants(app, next, options.samples)),
    )
    .await?;
    Ok(vec![
        way("idle", "others alone", alone),
        way(
            "batch",
            "from the batch of DDL, four readers beside it",
            batch,
        ),
        Way {
            key: "spare",
            name: "from a spare",
            times: spare,
            waits: None,
        },
        way("spare_busy", "from a spare, four readers beside it", busy),
        whole(app, options.samples).await?,
    ])
}

/// From a spare, and with the hash of the owner's password beside it.
async fn whole(app: &App, samples: u32) -> Result<Way> {
    note("with the hash of a password");
    fill(app, samples).await?;
    let mut times = Vec::new();
    for number in 0..samples {
        times.push(create(app, number).await?);
    }
    Ok(Way {
        key: "create",
        name: "from a spare, its owner's password hashed beside it",
        times,
        waits: None,
    })
}

/// Makes spares, as the keeper does.
async fn fill(app: &App, spares: u32) -> Result<()> {
    spares::fill(&app.services.database, spares)
        .await
        .map_err(explain)?;
    Ok(())
}

/// Makes tenants one after another, the password's hash given. Returns the milliseconds of each.
async fn tenants(app: &App, first: u32, samples: u32) -> Result<Vec<f64>> {
    let hash = population::hash(app).await?;
    let mut times = Vec::new();
    for number in first..first + samples {
        let new = NewTenant {
            slug: population::slug(number),
            name: format!("Resident {number}"),
            act: Act::by("bench"),
        };
        let began = Instant::now();
        provision(&app.services.database, new, OWNER, hash.clone())
            .await
            .map_err(explain)?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
        sleep(PAUSE).await;
    }
    Ok(times)
}

/// What `bulkhead tenant create` does once it is connected; its milliseconds.
async fn create(app: &App, number: u32) -> Result<f64> {
    let new = NewTenant {
        slug: format!("library-{number}"),
        name: format!("Library {number}"),
        act: Act::by("bench"),
    };
    let began = Instant::now();
    create_tenant(&app.services, new, OWNER, PASSWORD)
        .await
        .map_err(explain)?;
    Ok(began.elapsed().as_secs_f64() * 1e3)
}

/// The whole command, from its start to its end, on the server that this process runs.
async fn command(program: &Path, place: &Place, number: u32) -> Result<f64> {
    let mut command = Command::from(server::command(program, place));
    command
        .args([
            "tenant",
            "create",
            &format!("command-{number}"),
            "--owner",
            OWNER,
        ])
        .stdout(Stdio::null())
        .env("BULKHEAD_SECRET_KEY", KEY)
        .kill_on_drop(true);
    let began = Instant::now();
    let output = command.output().await?;
    let ms = began.elapsed().as_secs_f64() * 1e3;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("bulkhead tenant create failed: {said}").into());
    }
    Ok(ms)
}

fn tell(report: &mut Report, ways: &[Way], options: &Options) -> Result<()> {
    let suffix = if options.tenants >= MANY { "_10k" } else { "" };
    let mut rows = Vec::new();
    for way in ways {
        let least = way.times.iter().copied().fold(f64::NAN, f64::min);
        let most = way.times.iter().copied().fold(f64::NAN, f64::max);
        let waits = way
            .waits
            .map_or([f64::NAN; 2], |waits| [waits.p99, waits.longest]);
        let middle = median(way.times.iter().copied());
        let numbers = [middle, least, most, waits[0], waits[1]];
        rows.push(
            std::iter::once(way.name.to_owned())
                .chain(numbers.map(milliseconds))
                .collect(),
        );
        report.figure(&format!("{}_ms{suffix}", way.key), middle);
        // What matters is how long others wait for a tenant that is handed out; the rest is to compare with.
        let stall = match way.key {
            "spare_busy" => "stall_ms".to_owned(),
            key => format!("stall_{key}_ms"),
        };
        if way.waits.is_some() {
            report.figure(&format!("{stall}{suffix}"), waits[1]);
        }
    }
    if let Some(peer) = &options.peer_ms {
        let mut row = vec![peer.name.clone(), milliseconds(peer.ms)];
        row.resize(6, String::new());
        rows.push(row);
    }
    let header = ["", "median", "min", "max", "others' p99", "others' max"];
    report.table("Onboarding, ms", &header, rows)?;
    let Some(peer) = &options.peer_ms else {
        return Ok(());
    };
    for way in ways.iter().filter(|way| !way.times.is_empty()) {
        let times = peer.ms / median(way.times.iter().copied());
        report.figure(&format!("{}_x_{}{suffix}", way.key, peer.name), times);
        report.text(&format!(
            "{}: {times:.1} × faster than {}.",
            way.name, peer.name
        ))?;
    }
    Ok(())
}

fn milliseconds(ms: f64) -> String {
    match ms {
        ms if ms.is_nan() => "–".to_owned(),
        ms if ms < 20.0 => format!("{ms:.1}"),
        ms => format!("{ms:.0}"),
    }
}

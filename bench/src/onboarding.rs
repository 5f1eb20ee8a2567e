//! `onboarding`: how long it takes to make a tenant with its schema, role, grants, built-in roles and first owner.

use crate::place::{KEY, Place, explain};
use crate::report::{Report, note};
use crate::stats::median;
use crate::{Common, Result, server};
use bulkhead::app::{App, create_tenant};
use bulkhead::database::managed::{self, Settings};
use bulkhead::services::Services;
use bulkhead::tenancy::NewTenant;
use clap::Args;
use std::path::Path;
use std::process::Stdio;
use std::str::FromStr;
use std::time::Instant;
use tokio::process::Command;

/// What `onboarding` can be told.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Tenants made by the library, in this process
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    tenants: u32,
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

/// Milliseconds of each tenant, and of hashing its owner's password, which is part of it.
#[derive(Debug, Default)]
struct Times {
    create: Vec<f64>,
    hash: Vec<f64>,
    command: Vec<f64>,
}

/// The owners' password.
const PASSWORD: &str = "correct horse";

/// Runs it.
pub(crate) async fn run(options: Options) -> Result<()> {
    let mut report = Report::new(options.common.json);
    let program = server::program(&options.common)?;
    let mut place = Place::new(&options.common)?;
    note("starting PostgreSQL");
    let app = place.app().await?;
    let attached =
        managed::Server::attach_or_start(&Settings::new(place.data_dir().join("postgres"))).await?;
    place.found_postgres(attached.data_dir().to_owned());
    let measured = measure(&app, &options, &program, &place).await;
    let version = app.services.database.server_version().to_owned();
    app.stop().await.map_err(explain)?;
    let times = measured?;
    let tenants = options.tenants;
    report.text(&format!(
        "PostgreSQL {version}, durable (fsync on), {tenants} tenants"
    ))?;
    tell(&mut report, &times, options.peer_ms.as_ref())?;
    report.finish()
}

async fn measure(app: &App, options: &Options, program: &Path, place: &Place) -> Result<Times> {
    let mut times = Times::default();
    for number in 0..options.tenants {
        let (create, hash) = create(&app.services, number).await.map_err(explain)?;
        note(&format!(
            "tenant {number}: {create:.0} ms, a hash alone {hash:.0}"
        ));
        times.create.push(create);
        times.hash.push(hash);
    }
    for number in 0..options.commands {
        let ms = command(program, place, number).await?;
        note(&format!("command {number}: {ms:.0} ms"));
        times.command.push(ms);
    }
    Ok(times)
}

/// What `bulkhead tenant create` does once it is connected. Returns milliseconds: of it all, and of a hash alone.
async fn create(services: &Services, number: u32) -> Result<(f64, f64), bulkhead::error::Error> {
    let new = NewTenant {
        slug: format!("library-{number}"),
        name: format!("Library {number}"),
        operator: "bench".to_owned(),
    };
    let began = Instant::now();
    create_tenant(services, new, "owner@bench.test", PASSWORD).await?;
    let created = began.elapsed();
    let began = Instant::now();
    services.hasher.slot().await?.hash(PASSWORD).await?;
    let hashed = began.elapsed();
    Ok((created.as_secs_f64() * 1e3, hashed.as_secs_f64() * 1e3))
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
            "owner@bench.test",
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

fn tell(report: &mut Report, times: &Times, peer: Option<&Peer>) -> Result<()> {
    let row = |name: &str, times: &[f64]| {
        let least = times.iter().copied().fold(f64::NAN, f64::min);
        let most = times.iter().copied().fold(f64::NAN, f64::max);
        let all = [median(times.iter().copied()), least, most];
        std::iter::once(name.to_owned())
            .chain(all.map(|ms| format!("{ms:.0}")))
            .collect()
    };
    let mut rows: Vec<Vec<String>> = vec![
        row("a tenant and its owner", &times.create),
        row(
            "a password's hash alone (beside it, in the above)",
            &times.hash,
        ),
    ];
    let create = median(times.create.iter().copied());
    report.figure("create_ms", create);
    report.figure("hash_ms", median(times.hash.iter().copied()));
    if !times.command.is_empty() {
        rows.push(row("the command, from start to end", &times.command));
        report.figure("command_ms", median(times.command.iter().copied()));
    }
    if let Some(peer) = peer {
        rows.push(row(&peer.name, &[peer.ms]));
    }
    report.table("Onboarding, ms", &["", "median", "min", "max"], rows)?;
    if let Some(peer) = peer {
        let ratio = create / peer.ms;
        report.figure("peer_ratio", ratio);
        report.text(&format!(
            "\nA tenant takes 1/{:.1} of {}'s time.",
            1.0 / ratio,
            peer.name
        ))?;
    }
    Ok(())
}

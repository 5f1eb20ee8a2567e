//! `bulkhead audit export`: the trail of a tenant as a file.

use super::out;
use crate::actor::{Actor, Attribution};
use crate::clock::Timestamp;
use crate::config;
use crate::database::{Database, Tenant};
use crate::error::{Error, Result};
use crate::history::export::{Export, Format, now, settled};
use crate::services::Services;
use crate::tenancy::{self, limits::no_tenant};
use chrono::{DateTime, NaiveDate, NaiveTime};
use clap::ValueEnum;
use entity::platform::tenant::State;
use futures::TryStreamExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;

/// What to export, and where to.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Whose trail
    slug: String,
    /// How it is written
    #[arg(long, value_enum, default_value_t = As::Jsonl)]
    format: As,
    /// From this time on: 2026-01-31, or 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<Timestamp>,
    /// Before this time [default: now]
    #[arg(long, value_name = "TIME", value_parser = time)]
    to: Option<Timestamp>,
    /// Where to; what is there is replaced once the export is whole
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Why, for the trail
    #[arg(long)]
    reason: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum As {
    /// JSON Lines
    Jsonl,
    /// A table
    Csv,
}

pub(super) async fn run(services: &Services, args: &Args) -> Result<ExitCode> {
    let database = &services.database;
    let tx = database.platform().await?;
    let tenant = tenancy::by_slug(&tx, &args.slug).await?;
    tx.commit().await?;
    let tenant = tenant.ok_or_else(|| no_tenant(&args.slug))?;
    if !matches!(tenant.state, State::Active | State::Suspended) {
        let (slug, state) = (&tenant.slug, tenant.state);
        return Err(Error::config(format!(
            "{slug} is {state}: its trail cannot be read; restore it first"
        )));
    }
    let part = part(&args.output);
    let written = write(database, args, &Arc::new(tenant), &part).await;
    if written.is_err() {
        // The error to tell is the first.
        let _ = fs::remove_file(&part);
    }
    let count = written?;
    let output = args.output.display();
    out::print(&format!("{count} entries of {} in {output}\n", args.slug))?;
    Ok(ExitCode::SUCCESS)
}

async fn write(database: &Database, args: &Args, tenant: &Arc<Tenant>, part: &Path) -> Result<u64> {
    let cannot = |e: std::io::Error| {
        Error::config(format!("{} cannot be written: {e}", args.output.display()))
    };
    let mut file = File::create(part).map_err(cannot)?;
    let export = begin(database, args, tenant).await?;
    settled(database, tenant).await?;
    let bar = ProgressBar::new(export.count(database, tenant).await?);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len}  {per_sec}  {eta}") {
        bar.set_style(style);
    }
    let mut pages = pin!(export.pages(database, tenant));
    while let Some(page) = pages.try_next().await? {
        file.write_all(&page.bytes).map_err(cannot)?;
        bar.inc(page.entries);
    }
    bar.finish_and_clear();
    file.sync_all().map_err(cannot)?;
    fs::rename(part, &args.output).map_err(cannot)?;
    Ok(bar.position())
}

/// What is asked for, up to now unless something else is; that it is taken along is in the trail.
async fn begin(database: &Database, args: &Args, tenant: &Arc<Tenant>) -> Result<Export> {
    let by = Attribution {
        reason: args.reason.clone(),
        ..Actor::Operator(config::operator()).into()
    };
    let tx = database.write(tenant, &by).await?;
    let begun = async {
        let until = match args.to {
            Some(to) => to,
            None => now(&tx).await?,
        };
        let export = Export {
            from: args.from,
            until,
            format: match args.format {
                As::Jsonl => Format::JsonLines,
                As::Csv => Format::Csv,
            },
        };
        export.note(&tx).await?;
        Ok(export)
    };
    let begun = begun.await;
    tx.settle(begun).await
}

/// Beside it, so that nobody takes a half for the whole.
fn part(output: &Path) -> PathBuf {
    let mut name = OsString::from(output.as_os_str());
    name.push(".part");
    name.into()
}

fn time(text: &str) -> Result<Timestamp> {
    let day = || {
        text.parse::<NaiveDate>()
            .map(|day| day.and_time(NaiveTime::MIN).and_utc())
    };
    let time = DateTime::parse_from_rfc3339(text).map(|time| time.to_utc());
    time.or_else(|_| day()).map_err(|_| {
        let why = format!("{text:?} is no time: give e.g. 2026-01-31 or 2026-01-31T12:00:00Z.");
        Error::invalid("time", why)
    })
}

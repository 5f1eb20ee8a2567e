//! `bulkhead cell list|add|redeal`.

use super::log::Why;
use super::out;
use crate::app::App;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::services::Services;
use crate::tenancy::cells;
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the cells: login roles, and how many tenants each serves
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make one more cell, and move tenants to it
    Add {
        #[command(flatten)]
        why: Why,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Move tenants from full cells to empty ones, until they are even
    Redeal {
        /// How many tenants to move at most
        #[arg(long, value_name = "TENANTS", default_value_t = u64::MAX, hide_default_value = true)]
        at_most: u64,
        #[command(flatten)]
        why: Why,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(config: Config, command: Command) -> Result<()> {
    let key = super::serve::key(&config)?;
    let app = App::start(config, key, false).await?;
    let done = match command {
        Command::List { json } => list(&app.services, json).await,
        Command::Add { why, json } => add(&app.services, &why, json).await,
        Command::Redeal { at_most, why, json } => redeal(&app.services, at_most, &why, json).await,
    };
    let stopped = app.stop().await;
    done.and(stopped)
}

async fn list(services: &Services, as_json: bool) -> Result<()> {
    let loads = loads(services).await?;
    if as_json {
        let described = loads.iter().map(|load| {
            json!({ "cell": load.id, "login": load.login, "tenants": load.tenants, "hint": hint(load) })
        });
        return out::json(&described.collect());
    }
    let rows = loads.iter().map(|load| {
        [
            load.id.to_string(),
            load.login.clone(),
            load.tenants.to_string(),
            hint(load).unwrap_or_default(),
        ]
    });
    out::print(&out::table(["CELL", "LOGIN", "TENANTS", ""], rows))
}

fn hint(load: &cells::Load) -> Option<String> {
    let hint = || format!("over {} tenants: run `bulkhead cell add`", cells::ROOMY);
    (load.tenants > cells::ROOMY).then(hint)
}

async fn add(services: &Services, why: &Why, as_json: bool) -> Result<()> {
    let cell = cells::add(&services.database, &why.act()).await?;
    if as_json {
        let moved = deal(services, u64::MAX, why).await?;
        return out::json(&json!({ "cell": cell.id, "login": cell.login, "moved": moved }));
    }
    out::print(&format!("Added cell {} as {}\n", cell.id, cell.login))?;
    redeal(services, u64::MAX, why, false).await
}

async fn redeal(services: &Services, at_most: u64, why: &Why, as_json: bool) -> Result<()> {
    let moved = deal(services, at_most, why).await?;
    if as_json {
        return out::json(&json!({ "moved": moved }));
    }
    out::print(&format!("Moved {moved} tenants\n"))
}

/// Moves tenants until the cells are even, or so many are moved. Returns how many.
async fn deal(services: &Services, at_most: u64, why: &Why) -> Result<u64> {
    cells::revoke(&services.database, at_most).await?;
    let planned = cells::to_move(loads(services).await?).min(at_most);
    let style = ProgressStyle::with_template("Moving tenants {bar:32} {pos}/{len}, {eta} left");
    let bar = ProgressBar::new(planned).with_style(style.map_err(Error::internal)?);
    let (mut moved, act) = (0, why.act());
    while moved < at_most && cells::redeal(&services.database, 1, &act).await? > 0 {
        moved += 1;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(moved)
}

async fn loads(services: &Services) -> Result<Vec<cells::Load>> {
    let tx = services.database.platform().await?;
    let loads = cells::all(&tx).await?;
    tx.commit().await?;
    Ok(loads)
}

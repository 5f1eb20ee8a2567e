//! `bulkhead plan list|set|delete`.

use super::log::Why;
use super::{limits, out};
use crate::app::App;
use crate::config::Config;
use crate::error::Result;
use crate::services::Services;
use crate::tenancy::limits::{Plan, delete_plan, plans, set_plan};
use clap::Subcommand;
use entity::platform::plan::Limit;
use serde_json::{Value, json};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List all plans with their limits
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a plan, or change limits of one; its tenants have them at once
    Set {
        /// Which
        name: String,
        /// A limit: a number or `unlimited`; what is not named stays
        #[arg(long = "limit", value_name = "LIMIT=VALUE", value_parser = limits::plan_limit)]
        limits: Vec<(Limit, Option<u64>)>,
        #[command(flatten)]
        why: Why,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Delete a plan that no tenant has
    Delete {
        /// Which
        name: String,
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
        Command::Set {
            name,
            limits,
            why,
            json,
        } => set(&app.services, (&name, limits), &why, json).await,
        Command::Delete { name, why, json } => delete(&app.services, &name, &why, json).await,
    };
    let stopped = app.stop().await;
    done.and(stopped)
}

async fn list(services: &Services, as_json: bool) -> Result<()> {
    let tx = services.database.platform().await?;
    let plans = plans(&tx).await?;
    tx.commit().await?;
    if as_json {
        let plans = plans.iter().map(|(plan, tenants)| {
            let mut shown = describe(plan);
            shown["tenants"] = json!(tenants);
            shown
        });
        return out::json(&plans.collect());
    }
    let rows = plans.iter().map(|(plan, tenants)| {
        let limits = limits::limited(&plan.limits);
        [plan.name.clone(), tenants.to_string(), limits]
    });
    out::print(&out::table(["PLAN", "TENANTS", "LIMITS"], rows))
}

async fn set(
    services: &Services,
    (name, limits): (&str, Vec<(Limit, Option<u64>)>),
    why: &Why,
    as_json: bool,
) -> Result<()> {
    let tx = services.database.platform().await?;
    let limits = limits.into_iter().collect();
    let plan = set_plan(&tx, name, &limits, &why.act()).await?;
    tx.commit().await?;
    if as_json {
        return out::json(&describe(&plan));
    }
    let rows = Limit::ALL.map(|limit| {
        let allowed = limits::allowed(plan.limits.get(limit));
        [limit.to_string(), allowed]
    });
    out::print(&out::table(["LIMIT", "ALLOWED"], rows))
}

async fn delete(services: &Services, name: &str, why: &Why, as_json: bool) -> Result<()> {
    let tx = services.database.platform().await?;
    delete_plan(&tx, name, &why.act()).await?;
    tx.commit().await?;
    if as_json {
        return out::json(&json!({ "name": name, "deleted": true }));
    }
    out::print(&format!("Deleted the plan {name}.\n"))
}

fn describe(plan: &Plan) -> Value {
    json!({ "name": plan.name, "limits": plan.limits })
}

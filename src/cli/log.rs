//! `bulkhead log`, and the reason that commands which write to it take.

use super::out;
use crate::app::App;
use crate::config::{self, Config};
use crate::error::Result;
use crate::services::Services;
use crate::tenancy::{self, Act, limits::no_tenant, log};
use clap::Args;
use serde_json::{Value, json};

/// Why something is done.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Why {
    /// Why, for the operators' log
    #[arg(long)]
    reason: Option<String>,
}

impl Why {
    /// Who runs the command, and why.
    pub(super) fn act(&self) -> Act {
        Act {
            reason: self.reason.clone(),
            ..Act::by(&config::operator())
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct LogArgs {
    /// Only of this tenant
    #[arg(long, value_name = "SLUG")]
    tenant: Option<String>,
    /// How many entries at most
    #[arg(long, default_value_t = 50)]
    limit: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(config: Config, args: LogArgs) -> Result<()> {
    let key = super::serve::key(&config)?;
    let app = App::start(config, key, false).await?;
    let done = show(&app.services, &args).await;
    let stopped = app.stop().await;
    done.and(stopped)
}

async fn show(services: &Services, args: &LogArgs) -> Result<()> {
    let tx = services.database.platform().await?;
    let of = match &args.tenant {
        Some(slug) => {
            let found = tenancy::by_slug(&tx, slug).await?;
            Some(found.ok_or_else(|| no_tenant(slug))?.id)
        }
        None => None,
    };
    let entries = log::latest(&tx, of, u64::from(args.limit)).await?;
    tx.commit().await?;
    if args.json {
        return out::json(&entries.iter().map(described).collect());
    }
    let rows = entries.into_iter().map(|(mut entry, slug)| {
        let reason = entry
            .detail
            .as_object_mut()
            .and_then(|all| all.remove("reason"));
        [
            entry.at.format("%Y-%m-%d %H:%M:%S").to_string(),
            entry.operator,
            slug.unwrap_or_else(|| "-".to_owned()),
            entry.action,
            reason.map_or_else(|| "-".to_owned(), |reason| plain(&reason)),
            told(&entry.detail),
        ]
    });
    out::print(&out::table(
        ["AT (UTC)", "BY", "TENANT", "WHAT", "WHY", "HOW"],
        rows,
    ))
}

/// For scripts.
fn described((entry, slug): &log::Entry) -> Value {
    json!({
        "at": entry.at.to_rfc3339(),
        "operator": entry.operator,
        "tenant": slug,
        "tenant_id": entry.tenant_id,
        "action": entry.action,
        "detail": entry.detail,
    })
}

/// In a line: `slug=acme name=Acme`.
fn told(detail: &Value) -> String {
    let Some(detail) = detail.as_object() else {
        return plain(detail);
    };
    let told = detail.iter().filter(|(_, value)| !value.is_null());
    let told: Vec<String> = told
        .map(|(key, value)| format!("{key}={}", plain(value)))
        .collect();
    told.join(" ")
}

/// A text as it is, and all else as JSON.
fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

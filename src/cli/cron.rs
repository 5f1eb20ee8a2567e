//! `bulkhead jobs cron`.

use super::log::Why;
use super::out;
use crate::clock::Timestamp;
use crate::error::Result;
use crate::jobs::cron;
use crate::resources;
use crate::services::Services;
use clap::Args;
use serde_json::json;

#[derive(Debug, Args)]
pub(super) struct CronArgs {
    /// Let this kind run by the clock no more, until it is switched on
    #[arg(long, value_name = "KIND")]
    off: Option<String>,
    /// Go on with this kind from its next time on
    #[arg(long, value_name = "KIND", conflicts_with = "off")]
    on: Option<String>,
    #[command(flatten)]
    why: Why,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(services: &Services, args: CronArgs) -> Result<()> {
    let kinds = resources::jobs();
    let tx = services.database.platform().await?;
    for (kind, enabled) in [(args.off, false), (args.on, true)] {
        if let Some(kind) = kind {
            cron::switch(&tx, &kinds, (&kind, enabled), &args.why.act()).await?;
        }
    }
    let list = cron::list(&tx, &kinds).await?;
    tx.commit().await?;
    if args.json {
        return out::json(&json!(list));
    }
    let at = |time: Option<Timestamp>| {
        time.map_or_else(
            || "-".to_owned(),
            |time| time.format("%Y-%m-%d %H:%M").to_string(),
        )
    };
    let rows = list.iter().map(|each| {
        let whose = if each.for_tenants {
            "each tenant"
        } else {
            "platform"
        };
        [
            each.kind.to_owned(),
            whose.to_owned(),
            each.expression.to_owned(),
            each.time_zone.to_owned(),
            at(each.last),
            if each.enabled {
                at(each.next)
            } else {
                "off".to_owned()
            },
        ]
    });
    let header = ["KIND", "FOR", "WHEN", "ZONE", "LAST (UTC)", "NEXT (UTC)"];
    out::print(&out::table(header, rows))
}

//! `bulkhead audit retention`: how long histories are kept.

use super::log::Why;
use super::out;
use crate::database::Tenant;
use crate::error::{Error, Result};
use crate::services::Services;
use crate::tenancy;
use crate::tenancy::limits::{Change, RetentionChange, change_tenant, no_tenant};
use serde_json::{Value, json};
use std::process::ExitCode;

/// What to change; what is not named stays, and without anything it is shown.
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are the command's flags"
)]
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only this tenant's
    slug: Option<String>,
    /// Keep entries for so many days
    #[arg(long)]
    days: Option<u32>,
    /// Purge nothing, and erase nobody, until it is lifted
    #[arg(long, overrides_with = "no_legal_hold")]
    legal_hold: bool,
    /// Lift the hold
    #[arg(long)]
    no_legal_hold: bool,
    /// Write what is purged to the media store first
    #[arg(long, overrides_with = "no_archive")]
    archive: bool,
    /// Do not
    #[arg(long)]
    no_archive: bool,
    #[command(flatten)]
    why: Why,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(services: &Services, args: &Args) -> Result<ExitCode> {
    let change = RetentionChange {
        days: args.days,
        legal_hold: switched(args.legal_hold, args.no_legal_hold),
        archive: switched(args.archive, args.no_archive),
    };
    let tx = services.database.platform().await?;
    let tenants = match &args.slug {
        None if change != RetentionChange::default() => {
            return Err(Error::config(
                "whose retention? name the tenant: bulkhead audit retention <slug> …",
            ));
        }
        None => tenancy::all(&tx).await?,
        Some(slug) if change == RetentionChange::default() => {
            let found = tenancy::by_slug(&tx, slug).await?;
            vec![found.ok_or_else(|| no_tenant(slug))?]
        }
        Some(slug) => {
            let change = Change {
                retention: change,
                ..Change::default()
            };
            vec![change_tenant(&tx, slug, &change, &args.why.act()).await?]
        }
    };
    tx.commit().await?;
    show(&tenants, args.json)?;
    Ok(ExitCode::SUCCESS)
}

fn switched(on: bool, off: bool) -> Option<bool> {
    (on || off).then_some(on)
}

fn show(tenants: &[Tenant], as_json: bool) -> Result<()> {
    if as_json {
        return out::json(&Value::Array(tenants.iter().map(described).collect()));
    }
    let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let rows = tenants.iter().map(|tenant| {
        let retention = tenant.settings.retention;
        [
            tenant.slug.clone(),
            retention.days.to_string(),
            yes(retention.legal_hold),
            yes(retention.archive),
            tenant.history_from.map_or_else(
                || "its beginning".to_owned(),
                |from| from.format("%Y-%m-%d %H:%M").to_string(),
            ),
        ]
    });
    out::print(&out::table(
        [
            "TENANT",
            "DAYS",
            "LEGAL HOLD",
            "ARCHIVE",
            "READABLE FROM (UTC)",
        ],
        rows,
    ))
}

fn described(tenant: &Tenant) -> Value {
    let retention = tenant.settings.retention;
    json!({
        "slug": tenant.slug,
        "days": retention.days,
        "legal_hold": retention.legal_hold,
        "archive": retention.archive,
        "history_from": tenant.history_from.map(|from| from.to_rfc3339()),
    })
}

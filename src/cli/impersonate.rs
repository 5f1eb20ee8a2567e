//! `bulkhead tenant impersonate`: to see what a member sees, for a while.

use super::out;
use super::tenant::url;
use crate::config;
use crate::error::{Error, Result};
use crate::identity::impersonation::{begin, end};
use crate::services::Services;
use crate::tenancy::Act;
use clap::Args;
use serde_json::json;
use std::time::Duration;

#[derive(Debug, Args)]
pub(super) struct ImpersonateArgs {
    /// Which
    slug: String,
    /// E-mail address of the member
    #[arg(long, value_name = "EMAIL", required_unless_present = "end")]
    member: Option<String>,
    /// Why, for the operators' log and the tenant's history
    #[arg(long, required_unless_present = "end")]
    reason: Option<String>,
    /// For how long: e.g. `30m`, `4h`, which is the most
    #[arg(long = "for", value_name = "TIME", default_value = "30m", value_parser = time, conflicts_with = "end")]
    lasts: Duration,
    /// End the tenant's sessions that operators act in, or only the member's
    #[arg(long)]
    end: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(services: &Services, args: ImpersonateArgs) -> Result<()> {
    let (database, slug) = (&services.database, args.slug.as_str());
    let act = Act {
        reason: args.reason,
        ..Act::by(&config::operator())
    };
    let Some(email) = args.member.as_deref().filter(|_| !args.end) else {
        let ended = end(database, (slug, args.member.as_deref()), &act).await?;
        if args.json {
            return out::json(&json!({ "slug": slug, "ended": ended }));
        }
        return out::print(&format!("{ended} ended\n"));
    };
    let begun = begin(database, (slug, email), args.lasts, &act).await?;
    let url = url(&services.config, &begun.tenant);
    if args.json {
        return out::json(&json!({
            "slug": slug,
            "member": email,
            "url": url,
            "token": begun.token,
            "expires_at": begun.expires_at.to_rfc3339(),
        }));
    }
    out::print(&format!(
        "You act as {email} at {url}\n  until   {}\n  token   {}\n  end it  bulkhead tenant impersonate {slug} --end\n",
        begun.expires_at.format("%Y-%m-%d %H:%M:%S UTC"),
        begun.token
    ))
}

fn time(text: &str) -> Result<Duration> {
    let units = [("s", 1), ("m", 60), ("h", 3600)];
    let time = units.iter().find_map(|(unit, seconds)| {
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        number.checked_mul(*seconds)
    });
    let why = || format!("{text:?} is no time: give e.g. 90s, 30m or 4h.");
    time.map(Duration::from_secs)
        .ok_or_else(|| Error::invalid("for", why()))
}

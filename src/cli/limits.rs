//! `bulkhead tenant set|limits`: a tenant's plan, limits and settings.

use super::log::Why;
use super::out;
use crate::database::Tenant;
use crate::error::{Error, Result};
use crate::services::Services;
use crate::tenancy::limits::{Change, Own, change_tenant, limit_named};
use crate::tenancy::{self, quota};
use clap::Args;
use entity::platform::plan::{Limit, Limits};
use entity::platform::tenant::{Flag, State};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What to change; what is not named stays.
#[derive(Debug, Args)]
pub(super) struct SetArgs {
    /// Which
    slug: String,
    /// A new name for people
    #[arg(long)]
    name: Option<String>,
    /// The plan its limits come from
    #[arg(long)]
    plan: Option<String>,
    /// A limit of its own: a number, `unlimited`, or `plan` to go back to the plan's
    #[arg(long = "limit", value_name = "LIMIT=VALUE", value_parser = own_limit)]
    limits: Vec<(Limit, Own)>,
    /// How long a statement may take: e.g. `5s`, `500ms` or `default`
    #[arg(long, value_name = "TIME", value_parser = timeout)]
    statement_timeout: Option<Timeout>,
    /// A feature flag: `true`, `false`, a number or a text
    #[arg(long = "flag", value_name = "NAME=VALUE", value_parser = flag)]
    flags: Vec<(String, Flag)>,
    /// A feature flag to take away
    #[arg(long = "unset-flag", value_name = "NAME")]
    unset_flags: Vec<String>,
    #[command(flatten)]
    why: Why,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug)]
struct Timeout(Option<u32>);

/// Changes the tenant and prints how it is now.
pub(super) async fn set(services: &Services, args: SetArgs) -> Result<()> {
    let unset = args.unset_flags.into_iter().map(|name| (name, None));
    let given = args
        .flags
        .into_iter()
        .map(|(name, value)| (name, Some(value)));
    let change = Change {
        name: args.name,
        plan: args.plan,
        limits: args.limits.into_iter().collect(),
        statement_timeout_ms: args.statement_timeout.map(|timeout| timeout.0),
        flags: unset.chain(given).collect(),
        ..Change::default()
    };
    let tx = services.database.platform().await?;
    change_tenant(&tx, &args.slug, &change, &args.why.act()).await?;
    tx.commit().await?;
    show(services, &args.slug, args.json).await
}

/// Prints each limit, where it comes from, and what is used of it.
pub(super) async fn show(services: &Services, slug: &str, as_json: bool) -> Result<()> {
    let tx = services.database.platform().await?;
    let tenant = tenancy::by_slug(&tx, slug).await?;
    let tenant = Arc::new(tenant.ok_or_else(|| tenancy::limits::no_tenant(slug))?);
    let running = tenancy::lifecycle::running(&tx, tenant.id).await?;
    let queued = tenancy::lifecycle::queued(&tx, tenant.id).await?;
    tx.commit().await?;
    let mut used = counted(services, &tenant).await?;
    used.extend([
        (Limit::ConcurrentJobs, running),
        (Limit::QueuedJobs, queued),
    ]);
    if as_json {
        let limits = Limit::ALL.map(|limit| {
            let (max, from) = (tenant.limits.get(limit), origin(&tenant, limit));
            let shown = json!({ "max": max, "from": from, "used": used.get(&limit) });
            (limit.name().to_owned(), shown)
        });
        return out::json(&json!({
            "slug": tenant.slug,
            "plan": tenant.plan,
            "limits": Value::Object(limits.into_iter().collect()),
            "settings": tenant.settings,
        }));
    }
    let rows = Limit::ALL.map(|limit| {
        let used = used.get(&limit).map_or("-".to_owned(), u64::to_string);
        let allowed = allowed(tenant.limits.get(limit));
        [limit.to_string(), allowed, origin(&tenant, limit), used]
    });
    let limits = out::table(["LIMIT", "ALLOWED", "FROM", "USED"], rows);
    let settings = [
        [
            "statement timeout".to_owned(),
            shown_timeout(services, &tenant),
        ],
        ["flags".to_owned(), flags(&tenant)],
    ];
    let settings = out::table(["SETTING", ""], settings);
    out::print(&format!("{limits}\n{settings}"))
}

/// A tenant's plan, limits and settings, for scripts.
pub(super) fn describe(tenant: &Tenant) -> [(&'static str, Value); 3] {
    [
        ("plan", json!(tenant.plan)),
        ("limits", json!(tenant.limits)),
        ("settings", json!(tenant.settings)),
    ]
}

/// The same in lines, for people.
pub(super) fn lines(services: &Services, tenant: &Tenant) -> [[String; 2]; 4] {
    [
        ["plan".to_owned(), tenant.plan.clone()],
        ["limits".to_owned(), limited(&tenant.limits)],
        [
            "statement timeout".to_owned(),
            shown_timeout(services, tenant),
        ],
        ["flags".to_owned(), flags(tenant)],
    ]
}

/// A limit as `<name>=<number or unlimited>`: none is no limit.
pub(super) fn plan_limit(text: &str) -> Result<(Limit, Option<u64>)> {
    let (limit, value) = pair(text, "devices=100")?;
    Ok((limit_named(limit)?, number(value)?))
}

/// What is allowed, in words.
pub(super) fn allowed(max: Option<u64>) -> String {
    max.map_or("unlimited".to_owned(), |max| max.to_string())
}

/// What can be read only where the tenant's role may still read it.
async fn counted(services: &Services, tenant: &Arc<Tenant>) -> Result<BTreeMap<Limit, u64>> {
    if !matches!(tenant.state, State::Active | State::Suspended) {
        return Ok(BTreeMap::new());
    }
    let tx = services.database.read(tenant).await?;
    let quotas = quota::quotas(&tx).await;
    let quotas = tx.settle(quotas).await?.into_iter();
    Ok(quotas.map(|quota| (quota.limit, quota.used)).collect())
}

fn origin(tenant: &Tenant, limit: Limit) -> String {
    let own = tenant.overrides.get(limit.name()).is_some();
    if own {
        "own".to_owned()
    } else {
        format!("plan {}", tenant.plan)
    }
}

fn shown_timeout(services: &Services, tenant: &Tenant) -> String {
    let default = services.config.statement_timeout_ms;
    match tenant.settings.statement_timeout_ms {
        Some(own) => in_units(own),
        None => format!("{} (default)", in_units(default)),
    }
}

fn in_units(milliseconds: u32) -> String {
    if milliseconds.is_multiple_of(1000) {
        format!("{}s", milliseconds / 1000)
    } else {
        format!("{milliseconds}ms")
    }
}

fn flags(tenant: &Tenant) -> String {
    let flags = tenant.settings.flags.iter();
    listed(flags.map(|(name, value)| format!("{name}={value}")))
}

/// Limits in a line.
pub(super) fn limited(limits: &Limits) -> String {
    listed(Limit::ALL.into_iter().filter_map(|limit| {
        let max = limits.get(limit)?;
        Some(format!("{limit} {max}"))
    }))
}

fn listed(items: impl Iterator<Item = String>) -> String {
    let items: Vec<_> = items.collect();
    if items.is_empty() {
        "-".to_owned()
    } else {
        items.join(", ")
    }
}

fn own_limit(text: &str) -> Result<(Limit, Own)> {
    let (limit, value) = pair(text, "devices=100")?;
    let own = match value {
        "plan" => Own::Plan,
        _ => number(value)?.map_or(Own::Unlimited, Own::Max),
    };
    Ok((limit_named(limit)?, own))
}

fn number(value: &str) -> Result<Option<u64>> {
    match value {
        "unlimited" => Ok(None),
        _ => value.parse().map(Some).map_err(|_| {
            let why = format!("{value:?} is no limit: give a whole number or `unlimited`.");
            Error::invalid("limit", why)
        }),
    }
}

fn timeout(text: &str) -> Result<Timeout> {
    if text == "default" {
        return Ok(Timeout(None));
    }
    let units = [("ms", 1), ("s", 1000), ("min", 60_000)];
    let milliseconds = units.iter().find_map(|(unit, milliseconds)| {
        let number: u32 = text.strip_suffix(unit)?.trim().parse().ok()?;
        number.checked_mul(*milliseconds)
    });
    match milliseconds {
        Some(milliseconds) => Ok(Timeout(Some(milliseconds))),
        None => Err(Error::invalid(
            "statementTimeout",
            format!("{text:?} is no time: give e.g. 500ms, 5s, 2min or `default`."),
        )),
    }
}

fn flag(text: &str) -> Result<(String, Flag)> {
    let (name, value) = pair(text, "beta=true")?;
    let value = match value {
        "true" => Flag::Switch(true),
        "false" => Flag::Switch(false),
        other => match other.parse() {
            Ok(number) => Flag::Number(number),
            Err(_) => Flag::Text(other.to_owned()),
        },
    };
    Ok((name.to_owned(), value))
}

fn pair<'a>(text: &'a str, like: &str) -> Result<(&'a str, &'a str)> {
    text.split_once('=')
        .ok_or_else(|| Error::invalid("argument", format!("Write it like {like}.")))
}

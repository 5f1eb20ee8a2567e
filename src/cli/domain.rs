//! `bulkhead tenant domain list|add|verify|primary|remove`.

use super::confirm::confirm;
use super::log::Why;
use super::out;
use crate::database::{PlatformTx, Tenant};
use crate::error::{Error, Result};
use crate::services::Services;
use crate::tenancy::domain::{self, Domain};
use crate::tenancy::{self, Dns, Record};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// How often `--wait` asks the DNS.
const EVERY: Duration = Duration::from_secs(3);
/// How long `--wait` waits.
const PATIENCE: Duration = Duration::from_mins(10);

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the tenant's own domains
    List {
        /// Of which tenant
        slug: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Claim a domain, and print the TXT record that proves it
    Add {
        #[command(flatten)]
        which: Which,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Look for the TXT record; once it is found the domain leads to the tenant
    Verify {
        #[command(flatten)]
        which: Which,
        /// Ask again every few seconds, for ten minutes at most
        #[arg(long)]
        wait: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a verified domain the one that the tenant goes by
    Primary {
        #[command(flatten)]
        which: Which,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Give a domain up; it leads nowhere then
    Remove {
        #[command(flatten)]
        which: Which,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct Which {
    /// Of which tenant
    slug: String,
    /// Which domain, e.g. shop.example.com
    host: String,
    #[command(flatten)]
    why: Why,
}

pub(super) async fn run(services: &Services, command: Command) -> Result<()> {
    match command {
        Command::List { slug, json } => list(services, &slug, json).await,
        Command::Add { which, json } => add(services, &which, json).await,
        Command::Verify { which, wait, json } => verify(services, &which, wait, json).await,
        Command::Primary { which, json } => primary(services, &which, json).await,
        Command::Remove { which, yes, json } => remove(services, &which, yes, json).await,
    }
}

async fn list(services: &Services, slug: &str, as_json: bool) -> Result<()> {
    let tx = services.database.platform().await?;
    let tenant = tenant(&tx, slug).await?;
    let domains = tenancy::domains(&tx, tenant.id).await?;
    tx.commit().await?;
    if as_json {
        return out::json(&domains.iter().map(describe).collect());
    }
    if domains.is_empty() {
        return out::print(&format!(
            "{slug} has no domains of its own. Add one: bulkhead tenant domain add {slug} <host>\n"
        ));
    }
    let rows = domains.iter().map(|domain| {
        let verified = domain.verified_at;
        [
            domain.host.clone(),
            state(domain).to_owned(),
            verified.map_or_else(
                || "-".to_owned(),
                |at| at.format("%Y-%m-%d %H:%M").to_string(),
            ),
        ]
    });
    out::print(&out::table(["HOST", "STATE", "SINCE (UTC)"], rows))
}

async fn add(services: &Services, which: &Which, as_json: bool) -> Result<()> {
    let host = domain::name(&which.host)?;
    let tx = services.database.platform().await?;
    let tenant = tenant(&tx, &which.slug).await?;
    let bases = &services.config.base_domains;
    let domain = domain::add(&tx, &tenant, &host, bases, &which.why.act()).await?;
    tx.commit().await?;
    if as_json {
        return out::json(&describe(&domain));
    }
    let slug = &tenant.slug;
    if domain.verified_at.is_some() {
        return out::print(&format!(
            "{host} is verified already; it leads to {slug}.\n"
        ));
    }
    out::print(&format!(
        "{host} leads to {slug} once this record is published:\n\n{}\n\nThen: bulkhead tenant domain verify {slug} {host} --wait\n",
        Record::of(&domain)
    ))
}

async fn verify(services: &Services, which: &Which, wait: bool, as_json: bool) -> Result<()> {
    let host = domain::name(&which.host)?;
    let dns = Dns::new(&services.config.dns_servers)?;
    let tx = services.database.platform().await?;
    let tenant = tenant(&tx, &which.slug).await?;
    tx.commit().await?;
    let (database, act) = (&services.database, which.why.act());
    let (began, spinner) = (Instant::now(), spinner(&host));
    let verified = loop {
        match domain::verify(database, &dns, &tenant, &host, &act).await {
            Err(Error::Invalid(_)) if wait && began.elapsed() < PATIENCE => sleep(EVERY).await,
            done => break done,
        }
    };
    spinner.finish_and_clear();
    let domain = verified.map_err(|error| absent(error, which))?;
    if as_json {
        return out::json(&describe(&domain));
    }
    out::print(&format!(
        "{host} is verified; it leads to {}.\n",
        tenant.slug
    ))
}

async fn primary(services: &Services, which: &Which, as_json: bool) -> Result<()> {
    let host = domain::name(&which.host)?;
    let tx = services.database.platform().await?;
    let tenant = tenant(&tx, &which.slug).await?;
    let domain = domain::make_primary(&tx, &tenant, &host, &which.why.act())
        .await
        .map_err(|error| absent(error, which))?;
    tx.commit().await?;
    if as_json {
        return out::json(&describe(&domain));
    }
    out::print(&format!(
        "{host} is the primary domain of {}.\n",
        tenant.slug
    ))
}

async fn remove(services: &Services, which: &Which, yes: bool, as_json: bool) -> Result<()> {
    let host = domain::name(&which.host)?;
    let told = |removed: bool, line: String| {
        if as_json {
            return out::json(&json!({ "host": host, "removed": removed }));
        }
        out::print(&line)
    };
    let tx = services.database.platform().await?;
    let tenant = tenant(&tx, &which.slug).await?;
    let found = domain::find(&tx, &tenant, &host).await;
    tx.commit().await?;
    let slug = &tenant.slug;
    match found {
        Err(Error::NotFound(_)) => {
            let line = format!("{slug} has no domain {host}; nothing was changed.\n");
            return told(false, line);
        }
        found => drop(found?),
    }
    if !yes {
        confirm(&format!("{host} will lead to {slug} no longer"), &host)?;
    }
    let tx = services.database.platform().await?;
    domain::remove(&tx, &tenant, &host, &which.why.act()).await?;
    tx.commit().await?;
    told(true, format!("Removed {host} from {slug}.\n"))
}

/// For scripts.
pub(super) fn describe(domain: &Domain) -> serde_json::Value {
    let record = Record::of(domain);
    json!({
        "host": domain.host,
        "verified_at": domain.verified_at.map(|at| at.to_rfc3339()),
        "primary": domain.is_primary,
        "record": { "name": record.name, "type": "TXT", "value": record.value },
    })
}

/// For people.
pub(super) fn brief(domain: &Domain) -> String {
    match state(domain) {
        "verified" => domain.host.clone(),
        state => format!("{} ({state})", domain.host),
    }
}

fn state(domain: &Domain) -> &'static str {
    match (domain.is_primary, domain.verified_at) {
        (true, _) => "primary",
        (false, Some(_)) => "verified",
        (false, None) => "not verified",
    }
}

async fn tenant(tx: &PlatformTx, slug: &str) -> Result<Tenant> {
    let found = tenancy::by_slug(tx, slug).await?;
    found.ok_or_else(|| tenancy::limits::no_tenant(slug))
}

/// Says what to do about a domain that is not there.
fn absent(error: Error, Which { slug, host, .. }: &Which) -> Error {
    match error {
        Error::NotFound(_) => Error::config(format!(
            "{slug} has no domain {host}; add it first: bulkhead tenant domain add {slug} {host}"
        )),
        other => other,
    }
}

/// On standard error; none if that is no terminal.
fn spinner(host: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner());
    let spinner = ProgressBar::new_spinner().with_style(style);
    spinner.set_message(format!("Waiting for the proof of {host}"));
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}

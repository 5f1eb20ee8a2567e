//! `bulkhead audit`: the evidence of the tenants' histories.

use super::{FOUND, out};
use crate::app::App;
use crate::config::Config;
use crate::database::Tenant;
use crate::error::Result;
use crate::history::seal::{self, Fault, Keys, Verified};
use crate::services::Services;
use crate::tenancy::{self, limits::no_tenant};
use clap::Subcommand;
use entity::platform::tenant::State;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::process::ExitCode;
use std::sync::Arc;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make the chains again from what is there, and name the first link that is wrong; the exit code is 2 if there is one
    Verify {
        /// Only this tenant's
        slug: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Seal what is not sealed yet, and write the heads of the chains to the object store and the log
    Anchor {
        /// Only this tenant's
        slug: Option<String>,
    },
}

pub(super) async fn run(config: Config, command: Command) -> Result<ExitCode> {
    let key = super::serve::key(&config)?;
    let app = App::start(config, key, false).await?;
    let services = &app.services;
    let keys = Keys::of(&services.config, &services.key)?;
    let done = match &command {
        Command::Verify { slug, json } => verify(services, &keys, slug.as_deref(), *json).await,
        Command::Anchor { slug } => anchor(services, &keys, slug.as_deref()).await,
    };
    app.stop().await?;
    done
}

/// The tenants whose histories are whole: neither being made nor being erased.
async fn tenants(services: &Services, slug: Option<&str>) -> Result<Vec<Arc<Tenant>>> {
    let tx = services.database.platform().await?;
    let found = match slug {
        Some(slug) => vec![
            tenancy::by_slug(&tx, slug)
                .await?
                .ok_or_else(|| no_tenant(slug))?,
        ],
        None => tenancy::all(&tx).await?,
    };
    tx.commit().await?;
    let whole = |tenant: &Tenant| {
        matches!(
            tenant.state,
            State::Active | State::Suspended | State::Archived
        )
    };
    Ok(found.into_iter().filter(whole).map(Arc::new).collect())
}

async fn verify(
    services: &Services,
    keys: &Keys,
    slug: Option<&str>,
    as_json: bool,
) -> Result<ExitCode> {
    let tenants = tenants(services, slug).await?;
    let entries = seal::sealed(&services.database, &tenants).await?;
    let bar = ProgressBar::new(entries);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len}  {per_sec}  {eta}") {
        bar.set_style(style);
    }
    let mut verified = Vec::with_capacity(tenants.len());
    for tenant in &tenants {
        let places = (&services.database, &services.store);
        verified.push(seal::verify(places, keys, tenant, |some| bar.inc(some)).await?);
    }
    bar.finish_and_clear();
    if as_json {
        out::json(&json!(verified))?;
    } else {
        out::print(&verified.iter().map(line).collect::<String>())?;
    }
    let bad = verified.iter().any(|one| one.fault.is_some());
    Ok(if bad { FOUND.into() } else { ExitCode::SUCCESS })
}

fn line(one: &Verified) -> String {
    let Verified {
        tenant, entries, ..
    } = one;
    let verdict = match (&one.fault, one.anchored) {
        (Some(fault), _) => format!("BROKEN: {}", words(fault)),
        (None, Some(number)) => format!("good, anchored at {number}"),
        (None, None) => "good, not anchored yet".to_owned(),
    };
    let unsealed = match one.unsealed {
        0 => String::new(),
        some => format!(", {some} not sealed yet"),
    };
    format!("{tenant}: {entries} entries{unsealed}: {verdict}\n")
}

fn words(fault: &Fault) -> String {
    match fault {
        Fault::Changed { number, id } => {
            format!("entry {number} ({id}) is not what was sealed: it was changed, or is another's")
        }
        Fault::Missing { number, id } => format!("entry {number} ({id}) was removed"),
        Fault::Inserted { id } => format!("entry {id} was put in later: no seal has it"),
        Fault::SealMissing { number } => format!("the seals from number {number} on were removed"),
        Fault::SealBroken { number } => format!("the seal at number {number} was changed"),
        Fault::KeyUnknown { number, key } => format!(
            "the seal from number {number} on was made with the key {key}, which is not among BULKHEAD_AUDIT_KEYS"
        ),
        Fault::CutOff { number, anchored } => {
            format!(
                "the chain ends at {number}, and was anchored at {anchored}: its end was cut off"
            )
        }
        Fault::NotAnchored { anchored } => {
            format!("the chain is another than the one that was anchored at {anchored}")
        }
        Fault::AnchorMissing { anchored } => {
            format!("the anchor at {anchored} was removed from the object store, or forged")
        }
    }
}

async fn anchor(services: &Services, keys: &Keys, slug: Option<&str>) -> Result<ExitCode> {
    let tenants = tenants(services, slug).await?;
    for tenant in &tenants {
        while seal::seal(&services.database, keys, tenant).await? {}
    }
    let only = slug.and_then(|_| tenants.first()).map(|tenant| tenant.id);
    let count = seal::anchor(&services.database, keys, &services.store, only).await?;
    out::print(&format!("{count} anchored\n"))?;
    Ok(ExitCode::SUCCESS)
}

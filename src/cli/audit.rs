//! `bulkhead audit`: the evidence of the tenants' histories.

use super::{FOUND, export, out, retention};
use crate::app::App;
use crate::config::Config;
use crate::database::Tenant;
use crate::error::Result;
use crate::history::seal::{self, ArchiveFault, Archives, Fault, Keys, Verified};
use crate::services::Services;
use crate::tenancy::{self, limits::no_tenant};
use clap::Subcommand;
use entity::platform::tenant::State;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::json;
use std::process::ExitCode;
use std::sync::Arc;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make the chains again from what is there, and name the first link that is wrong; the exit code is 2 if there is one
    Verify {
        /// Only this tenant's
        slug: Option<String>,
        /// The archives of what was purged, too
        #[arg(long)]
        archive: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Seal what is not sealed yet, and write the heads of the chains to the object store and the log
    Anchor {
        /// Only this tenant's
        slug: Option<String>,
    },
    /// Show how long histories are kept, or change that of one
    Retention(retention::Args),
    /// Write a tenant's trail to a file; that it was is in the trail
    Export(export::Args),
}

pub(super) async fn run(config: Config, command: Command) -> Result<ExitCode> {
    let key = super::serve::key(&config)?;
    let app = App::start(config, key, false).await?;
    let services = &app.services;
    let keys = Keys::of(&services.config, &services.key)?;
    let done = match &command {
        Command::Verify {
            slug,
            archive,
            json,
        } => verify(services, &keys, slug.as_deref(), (*archive, *json)).await,
        Command::Anchor { slug } => anchor(services, &keys, slug.as_deref()).await,
        Command::Retention(args) => retention::run(services, args).await,
        Command::Export(args) => export::run(services, args).await,
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

/// What was verified of a tenant.
#[derive(Debug, Serialize)]
struct Proof {
    #[serde(flatten)]
    history: Verified,
    #[serde(skip_serializing_if = "Option::is_none")]
    archive: Option<Archives>,
}

impl Proof {
    fn is_bad(&self) -> bool {
        let archive = self.archive.as_ref();
        self.history.fault.is_some() || archive.is_some_and(|archive| archive.fault.is_some())
    }
}

async fn verify(
    services: &Services,
    keys: &Keys,
    slug: Option<&str>,
    (with_archives, as_json): (bool, bool),
) -> Result<ExitCode> {
    let tenants = tenants(services, slug).await?;
    let entries = seal::sealed(&services.database, &tenants).await?;
    let bar = ProgressBar::new(entries);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len}  {per_sec}  {eta}") {
        bar.set_style(style);
    }
    let mut proofs = Vec::with_capacity(tenants.len());
    for tenant in &tenants {
        let places = (&services.database, &services.store);
        let history = seal::verify(places, keys, tenant, |some| bar.inc(some)).await?;
        let archive = if with_archives {
            Some(seal::archives(places, keys, tenant).await?)
        } else {
            None
        };
        proofs.push(Proof { history, archive });
    }
    bar.finish_and_clear();
    if as_json {
        out::json(&json!(proofs))?;
    } else {
        out::print(&proofs.iter().map(lines).collect::<String>())?;
    }
    let bad = proofs.iter().any(Proof::is_bad);
    Ok(if bad { FOUND.into() } else { ExitCode::SUCCESS })
}

fn lines(proof: &Proof) -> String {
    let history = line(&proof.history);
    match &proof.archive {
        Some(archive) => format!("{history}{}: {}\n", proof.history.tenant, archived(archive)),
        None => history,
    }
}

fn archived(found: &Archives) -> String {
    let verdict = match &found.fault {
        None => "good".to_owned(),
        Some(ArchiveFault::Changed { object, number: 0 }) => {
            format!("BROKEN: {object} is not what was written")
        }
        Some(ArchiveFault::Changed { object, number }) => {
            format!("BROKEN: entry {number} in {object} is not what was sealed")
        }
        Some(ArchiveFault::Missing { first, last }) => {
            format!(
                "BROKEN: of the entries {first} to {last}, some that were archived are in no archive"
            )
        }
    };
    let Archives {
        archives, entries, ..
    } = found;
    format!("{entries} entries in {archives} archives: {verdict}")
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
    let purged = match one.purged_until {
        Some(until) => format!(
            ", {} from before {} purged",
            one.purged,
            until.format("%Y-%m-%d %H:%M UTC")
        ),
        None => String::new(),
    };
    let unsealed = match one.unsealed {
        0 => String::new(),
        some => format!(", {some} not sealed yet"),
    };
    format!("{tenant}: {entries} entries{purged}{unsealed}: {verdict}\n")
}

fn words(fault: &Fault) -> String {
    match fault {
        Fault::Changed { number, id } => {
            format!("entry {number} ({id}) is not what was sealed: it was changed, or is another's")
        }
        Fault::Emptied { number, id } => format!(
            "what entry {number} ({id}) has of a person was taken out, and the trail has no erasure of that person"
        ),
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
        Fault::CheckpointMissing { number } => format!(
            "the entries from number {number} on were purged, and the checkpoint that stands for them was removed"
        ),
        Fault::CheckpointForged { number } => {
            format!("the checkpoint from number {number} on was changed, or made up")
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

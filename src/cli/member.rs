//! `bulkhead member erase`.

use super::confirm::confirm;
use super::out;
use crate::app::App;
use crate::config::{self, Config};
use crate::error::Result;
use crate::identity::erase::erase_member;
use crate::services::Services;
use crate::tenancy::{self, Act, limits::no_tenant};
use clap::Subcommand;
use serde_json::json;
use std::sync::Arc;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Erase a person: their member, sessions and pictures, and what the history has of them; nothing brings it back
    Erase {
        /// Of which tenant
        slug: String,
        /// Their e-mail address or id
        member: String,
        /// Why, for the trail and the operators' log: both keep it, so name nobody
        #[arg(long)]
        reason: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(config: Config, command: Command) -> Result<()> {
    let key = super::serve::key(&config)?;
    let app = App::start(config, key, false).await?;
    let done = erase(&app.services, command).await;
    let stopped = app.stop().await;
    done.and(stopped)
}

async fn erase(services: &Services, command: Command) -> Result<()> {
    let Command::Erase {
        slug,
        member,
        reason,
        yes,
        json,
    } = command;
    let tx = services.database.platform().await?;
    let tenant = tenancy::by_slug(&tx, &slug).await?;
    tx.commit().await?;
    let tenant = Arc::new(tenant.ok_or_else(|| no_tenant(&slug))?);
    if !yes {
        let act = format!("This erases the member {member} of {slug} for good");
        confirm(&act, &member)?;
    }
    let act = Act {
        reason: Some(reason),
        ..Act::by(&config::operator())
    };
    let erased = erase_member(services, &tenant, &member, &act).await?;
    if json {
        return out::json(&json!({
            "member": erased.member,
            "entries": erased.entries,
            "media": erased.media,
            "exports": erased.exports,
            "left": erased.left,
        }));
    }
    let told = format!(
        "Erased the member {} of {slug}: {} entries of the history, {} media.\n",
        erased.member, erased.entries, erased.media
    );
    let exports = match erased.exports {
        0 => String::new(),
        count => format!("{count} exports of the trail are removed: they had been made before.\n"),
    };
    let left = match erased.left {
        0 => String::new(),
        left => format!(
            "{left} entries are from before personal values were kept apart; they go with the retention.\n"
        ),
    };
    out::print(&(told + &exports + &left))
}

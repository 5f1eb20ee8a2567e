//! `bulkhead tenant suspend|resume|archive|restore|delete|clone|erasures`.

use super::confirm::confirm;
use super::log::Why;
use super::out;
use super::tenant::{describe, url};
use crate::app::clone_tenant;
use crate::database::Tenant;
use crate::error::Result;
use crate::services::Services;
use crate::tenancy::{self, NewTenant, erase, lifecycle};
use clap::{Args, Subcommand};
use entity::platform::erasure;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::time::Duration;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Refuse its requests and let its jobs wait
    Suspend(Change),
    /// Take its requests again
    Resume(Change),
    /// Take it out of use and lock its role; all is kept
    Archive(Change),
    /// Undo an archive
    Restore(Change),
    /// Erase an archived tenant: schema, role, jobs and media; leaves a certificate
    Delete {
        #[command(flatten)]
        change: Change,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Copy a tenant into a new one, without its sessions, tokens, keys and PINs
    Clone {
        /// Which
        source: String,
        /// The copy's subdomain and media prefix; never changes
        slug: String,
        /// The copy's name for people [default: the slug]
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        why: Why,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List the certificates of tenants that were deleted
    Erasures {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct Change {
    /// Which
    slug: String,
    #[command(flatten)]
    why: Why,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(services: &Services, command: Command) -> Result<()> {
    let database = &services.database;
    match command {
        Command::Suspend(change) => {
            let done = lifecycle::suspend(database, &change.slug, &change.why.act()).await?;
            told(&change, &done, "its requests are refused and its jobs wait")
        }
        Command::Resume(change) => {
            let done = lifecycle::resume(database, &change.slug, &change.why.act()).await?;
            told(&change, &done, "it is served again")
        }
        Command::Archive(change) => {
            let spinner = spinner("waiting for its running jobs");
            let done = lifecycle::archive(database, &change.slug, &change.why.act()).await;
            spinner.finish_and_clear();
            let done = done?;
            let until = lifecycle::restorable_until(&done, within(services));
            let until = until.format("%Y-%m-%d %H:%M");
            told(
                &change,
                &done,
                &format!("all is kept; it can be restored until {until} UTC"),
            )
        }
        Command::Restore(change) => {
            let within = within(services);
            let done =
                lifecycle::restore(database, &change.slug, within, &change.why.act()).await?;
            told(&change, &done, "as it was before it was archived")
        }
        Command::Delete { change, yes } => delete(services, &change, yes).await,
        Command::Clone {
            source,
            slug,
            name,
            why,
            json,
        } => {
            let new = NewTenant {
                name: name.unwrap_or_else(|| slug.clone()),
                slug,
                act: why.act(),
            };
            clone(services, &source, new, json).await
        }
        Command::Erasures { json } => erasures(services, json).await,
    }
}

fn within(services: &Services) -> Duration {
    Duration::from_hours(u64::from(services.config.archive_days) * 24)
}

fn told(change: &Change, tenant: &Tenant, what: &str) -> Result<()> {
    if change.json {
        return out::json(&describe(tenant));
    }
    out::print(&format!("{} is {}: {what}.\n", tenant.slug, tenant.state))
}

async fn delete(services: &Services, change: &Change, yes: bool) -> Result<()> {
    let database = &services.database;
    let slug = &change.slug;
    let tx = database.platform().await?;
    let tenant = tenancy::by_slug(&tx, slug).await?;
    let erased = erase::certificates(&tx).await?;
    tx.commit().await?;
    if tenant.is_none()
        && let Some(erased) = erased.into_iter().find(|erased| erased.slug == *slug)
    {
        return certificate(&erased, change.json);
    }
    erase::check(&tenant.ok_or_else(|| tenancy::limits::no_tenant(slug))?)?;
    if !yes {
        confirm(
            &format!("This erases {slug} for good: schema, role, jobs and media"),
            slug,
        )?;
    }
    let doomed = erase::begin(database, slug, &change.why.act()).await?;
    let spinner = spinner("erasing");
    let erased = erase::go_on(database, &services.store, doomed.id, |step| {
        spinner.set_message(step.to_owned());
    })
    .await;
    spinner.finish_and_clear();
    let erased = erased?;
    certificate(&erased, change.json)?;
    match erase::links_end(&services.store, doomed.state_since) {
        Some(end) if erased.finished_at.is_none() && !change.json => out::print(&format!(
            "\nNothing is left but links to upload that the media store takes until {}; then a worker clears up once more,\n\
             the erasure is finished, and the slug is free.\n",
            end.format("%Y-%m-%d %H:%M UTC"),
        )),
        _ => Ok(()),
    }
}

fn certificate(erased: &erasure::Model, as_json: bool) -> Result<()> {
    if as_json {
        return out::json(&described(erased));
    }
    let at = |time: Option<crate::clock::Timestamp>| {
        time.map_or_else(|| "-".to_owned(), |time| time.to_rfc3339())
    };
    let rows = [
        ["erased", erased.slug.as_str()].map(str::to_owned),
        ["tables".to_owned(), erased.tables.to_string()],
        ["rows".to_owned(), erased.rows.to_string()],
        ["jobs".to_owned(), erased.jobs.to_string()],
        ["media objects".to_owned(), erased.objects.to_string()],
        ["media bytes".to_owned(), erased.bytes.to_string()],
        ["begun".to_owned(), at(Some(erased.started_at))],
        ["finished".to_owned(), at(erased.finished_at)],
        ["asked for by".to_owned(), erased.requested_by.clone()],
        [
            "reason".to_owned(),
            erased.reason.clone().unwrap_or_else(|| "-".to_owned()),
        ],
    ];
    out::print(&out::table(
        ["CERTIFICATE", &erased.tenant_id.to_string()],
        rows,
    ))
}

async fn clone(services: &Services, source: &str, new: NewTenant, as_json: bool) -> Result<()> {
    let spinner = spinner("copying");
    let copied = || {
        spinner.inc(1);
        spinner.set_message(format!("copying: {} media objects", spinner.position()));
    };
    let done = clone_tenant(services, source, new, copied).await;
    spinner.finish_and_clear();
    let done = done?;
    if as_json {
        return out::json(&describe(&done));
    }
    out::print(&format!(
        "Cloned {source} as {} at {}\n  members sign in with their passwords; devices need new PINs\n",
        done.slug,
        url(&services.config, &done),
    ))
}

async fn erasures(services: &Services, as_json: bool) -> Result<()> {
    let tx = services.database.platform().await?;
    let erased = erase::certificates(&tx).await?;
    tx.commit().await?;
    if as_json {
        return out::json(&erased.iter().map(described).collect());
    }
    let rows = erased.iter().map(|erased| {
        [
            erased.slug.clone(),
            erased.requested_by.clone(),
            erased.finished_at.map_or_else(
                || "not finished".to_owned(),
                |at| at.format("%Y-%m-%d %H:%M").to_string(),
            ),
            erased.rows.to_string(),
            erased.objects.to_string(),
            erased.reason.clone().unwrap_or_default(),
        ]
    });
    out::print(&out::table(
        ["SLUG", "BY", "ERASED (UTC)", "ROWS", "OBJECTS", "REASON"],
        rows,
    ))
}

fn described(erased: &erasure::Model) -> serde_json::Value {
    json!({
        "tenant_id": erased.tenant_id,
        "slug": erased.slug,
        "name": erased.name,
        "requested_by": erased.requested_by,
        "reason": erased.reason,
        "started_at": erased.started_at.to_rfc3339(),
        "finished_at": erased.finished_at.map(|at| at.to_rfc3339()),
        "tables": erased.tables,
        "rows": erased.rows,
        "jobs": erased.jobs,
        "objects": erased.objects,
        "bytes": erased.bytes,
    })
}

fn spinner(message: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {msg}");
    let spinner = ProgressBar::new_spinner()
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
        .with_message(message);
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}

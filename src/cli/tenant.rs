//! `bulkhead tenant create|list|show`; the files beside it have the rest.

use super::log::Why;
use super::{check, domain, impersonate, lifecycle, limits, out};
use crate::app::{App, create_tenant};
use crate::config::Config;
use crate::database::Tenant;
use crate::error::{Error, Result};
use crate::services::Services;
use crate::tenancy::{self, NewTenant};
use clap::Subcommand;
use serde_json::json;
use std::process::ExitCode;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a tenant with its schema, role and first owner
    Create {
        /// Its subdomain and media prefix; never changes
        slug: String,
        /// Its name for people [default: the slug]
        #[arg(long)]
        name: Option<String>,
        /// E-mail address of the first owner
        #[arg(long, value_name = "EMAIL")]
        owner: String,
        /// Read the owner's password from standard input instead of making one up
        #[arg(long)]
        password_stdin: bool,
        #[command(flatten)]
        why: Why,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List all tenants
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Compare tenants and spares with the template; the exit code is 2 if one differs
    Check {
        /// Only this tenant
        slug: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one tenant
    Show {
        /// Which
        slug: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    #[command(flatten)]
    Life(lifecycle::Command),
    /// Act as one of its members for a while: the history says who did, and why
    Impersonate(impersonate::ImpersonateArgs),
    /// Let a tenant be reached by domains of its own
    #[command(subcommand)]
    Domain(domain::Command),
    /// Change a tenant's name, plan, limits and settings; every server has them within a second
    Set(limits::SetArgs),
    /// Show what a tenant may use, and uses
    Limits {
        /// Which
        slug: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(config: Config, command: Command) -> Result<ExitCode> {
    let key = super::serve::key(&config)?;
    let app = App::start(config, key, false).await?;
    let mut code = ExitCode::SUCCESS;
    let done = match command {
        Command::Create {
            slug,
            name,
            owner,
            password_stdin,
            why,
            json,
        } => {
            let password = if password_stdin {
                read_password()?
            } else {
                crate::secret::new_token("")
            };
            let name = name.unwrap_or_else(|| slug.clone());
            create(
                &app.services,
                New {
                    slug,
                    name,
                    owner,
                    password,
                    shown: !password_stdin,
                    why,
                    json,
                },
            )
            .await
        }
        Command::List { json } => list(&app.services, json).await,
        Command::Show { slug, json } => show(&app.services, &slug, json).await,
        Command::Life(command) => lifecycle::run(&app.services, command).await,
        Command::Impersonate(args) => impersonate::run(&app.services, args).await,
        Command::Domain(command) => domain::run(&app.services, command).await,
        Command::Set(args) => limits::set(&app.services, args).await,
        Command::Limits { slug, json } => limits::show(&app.services, &slug, json).await,
        Command::Check { slug, json } => {
            let checked = check::run(&app.services.database, slug.as_deref(), json).await;
            checked.map(|found| code = found)
        }
    };
    let stopped = app.stop().await;
    done.and(stopped).map(|()| code)
}

struct New {
    slug: String,
    name: String,
    owner: String,
    password: String,
    shown: bool,
    why: Why,
    json: bool,
}

async fn create(services: &Services, new: New) -> Result<()> {
    let made = NewTenant {
        slug: new.slug,
        name: new.name,
        act: new.why.act(),
    };
    let tenant = create_tenant(services, made, &new.owner, &new.password).await?;
    let password = if new.shown {
        new.password.as_str()
    } else {
        "(as given)"
    };
    if new.json {
        let mut shown = describe(&tenant);
        shown["owner"] = json!({ "email": new.owner, "password": password });
        return out::json(&shown);
    }
    out::print(&format!(
        "Created {} at {}\n  owner     {}\n  password  {password}\n",
        tenant.slug,
        url(&services.config, &tenant),
        new.owner
    ))
}

async fn list(services: &Services, as_json: bool) -> Result<()> {
    let tx = services.database.platform().await?;
    let tenants = tenancy::all(&tx).await?;
    tx.commit().await?;
    if as_json {
        return out::json(&tenants.iter().map(describe).collect());
    }
    if tenants.is_empty() {
        return out::print(
            "There are no tenants yet. Make one: bulkhead tenant create <slug> --owner <email>\n",
        );
    }
    let rows = tenants.iter().map(|tenant| {
        [
            tenant.slug.clone(),
            tenant.name.clone(),
            tenant.state.to_string(),
            tenant.schema_name.clone(),
            tenant.created_at.format("%Y-%m-%d %H:%M").to_string(),
        ]
    });
    out::print(&out::table(
        ["SLUG", "NAME", "STATE", "SCHEMA", "CREATED (UTC)"],
        rows,
    ))
}

async fn show(services: &Services, slug: &str, as_json: bool) -> Result<()> {
    let tx = services.database.platform().await?;
    let tenant = tenancy::by_slug(&tx, slug).await?;
    let tenant = tenant.ok_or_else(|| tenancy::limits::no_tenant(slug))?;
    let domains = tenancy::domains(&tx, tenant.id).await?;
    tx.commit().await?;
    let hosts: Vec<String> = domains.iter().map(domain::brief).collect();
    let mut shown = describe(&tenant);
    shown["domains"] = domains.iter().map(domain::describe).collect();
    let primary = domains.iter().find(|domain| domain.is_primary);
    let url = primary.map_or_else(
        || url(&services.config, &tenant),
        |domain| format!("{}://{}", services.config.scheme.as_str(), domain.host),
    );
    shown["url"] = json!(url);
    for (key, value) in limits::describe(&tenant) {
        shown[key] = value;
    }
    if as_json {
        return out::json(&shown);
    }
    let rows = [
        ["name".to_owned(), tenant.name.clone()],
        ["url".to_owned(), url],
        [
            "domains".to_owned(),
            if hosts.is_empty() {
                "-".to_owned()
            } else {
                hosts.join(", ")
            },
        ],
        ["state".to_owned(), tenant.state.to_string()],
        ["schema".to_owned(), tenant.schema_name.clone()],
        ["role".to_owned(), tenant.role_name.clone()],
        ["cell".to_owned(), tenant.cell_id.to_string()],
        ["created".to_owned(), tenant.created_at.to_rfc3339()],
    ];
    let limits = limits::lines(services, &tenant);
    let rows = rows.into_iter().chain(limits);
    out::print(&out::table([&tenant.slug, ""], rows))
}

pub(super) fn describe(tenant: &Tenant) -> serde_json::Value {
    json!({
        "slug": tenant.slug,
        "name": tenant.name,
        "state": tenant.state.to_string(),
        "schema": tenant.schema_name,
        "role": tenant.role_name,
        "cell": tenant.cell_id,
        "created_at": tenant.created_at.to_rfc3339(),
    })
}

/// Where the tenant is reached on this machine.
pub(super) fn url(config: &Config, tenant: &Tenant) -> String {
    let base = config
        .base_domains
        .first()
        .map_or("localhost", String::as_str);
    let scheme = config.scheme.as_str();
    match config.http.port() {
        80 | 443 => format!("{scheme}://{}.{base}", tenant.slug),
        port if base == "localhost" => format!("{scheme}://{}.{base}:{port}", tenant.slug),
        _ => format!("{scheme}://{}.{base}", tenant.slug),
    }
}

fn read_password() -> Result<String> {
    let mut line = String::new();
    std::io::stdin()
        .read_line(&mut line)
        .map_err(Error::internal)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

//! The commands, one file each.

mod audit;
mod cell;
mod check;
mod config;
mod confirm;
mod cron;
mod demo;
mod dev;
mod doctor;
mod domain;
mod export;
mod hardening;
mod impersonate;
mod lifecycle;
mod limits;
mod log;
mod mail;
mod member;
mod out;
mod plan;
mod queue;
mod retention;
mod serve;
mod tenant;
mod top;

use crate::config::{Config, Env};
use crate::error::Result;
use crate::graphql::ErrorCode;
use crate::telemetry;
use async_graphql::ValidationMode;
use async_graphql::resolver_utils::EnumType as _;
use clap::{Args, Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

/// The exit code of a check that found something; that it could not be made is 1, as any failure.
const FOUND: u8 = 2;

/// A multi-tenant backend: each tenant with its own PostgreSQL schema, role, media prefix and audit trail.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    settings: SettingsArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Flags that stand for keys of the configuration.
#[derive(Clone, Debug, Args)]
struct SettingsArgs {
    /// Configuration file [default: bulkhead.toml, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Private data: the managed PostgreSQL, media on disk [default: .bulkhead]
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Address to serve tenants at [default: 127.0.0.1:8080]
    #[arg(long, global = true, value_name = "ADDRESS")]
    http: Option<SocketAddr>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything on this machine, with demo tenants (what no command does)
    Dev,
    /// Serve tenants; with --worker, run jobs too
    Serve {
        /// Run jobs in the same process
        #[arg(long)]
        worker: bool,
    },
    /// Run jobs
    Worker {
        /// Only of these queues [default: of all]
        #[arg(long, value_delimiter = ',')]
        queues: Vec<String>,
        /// So many side by side [default: worker_concurrency]
        #[arg(long)]
        concurrency: Option<u32>,
    },
    /// Look at the jobs of all tenants and at their lanes, and steer them
    #[command(subcommand)]
    Jobs(queue::Command),
    /// Make tenants, look at them, and lead them through their life
    #[command(subcommand)]
    Tenant(tenant::Command),
    /// Make and look at plans: the limits of tenants
    #[command(subcommand)]
    Plan(plan::Command),
    /// Look at the cells, add one, deal the tenants to them anew
    #[command(subcommand)]
    Cell(cell::Command),
    /// Show who changed what, when and why
    Log(log::LogArgs),
    /// Erase members of tenants
    #[command(subcommand)]
    Member(member::Command),
    /// See whether mail goes out
    #[command(subcommand)]
    Mail(mail::Command),
    /// Prove the tenants' histories, take them along, and say how long they are kept
    #[command(subcommand)]
    Audit(audit::Command),
    /// Print the GraphQL schema of the tenant API
    Schema,
    /// Print the reference of all error codes, in Markdown
    Errors,
    /// Look at the configuration
    #[command(subcommand)]
    Config(config::Command),
    /// Look at PostgreSQL, roles, cells, tenants and spares, and say what mends them; the exit code is 2 if something must be
    Doctor {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the SQL that is still to be run, as a superuser, to close what PostgreSQL leaves open
    Hardening,
}

/// Runs the command. What it was to check and found wanting is an exit code, and no error.
pub async fn run(cli: Cli) -> Result<ExitCode> {
    let text = match cli.command {
        Some(Command::Schema) => Some(format!("{}\n", schema_text().trim_end())),
        Some(Command::Errors) => Some(errors_text()),
        _ => None,
    };
    if let Some(text) = text {
        out::print(&text)?;
        return Ok(ExitCode::SUCCESS);
    }
    let config = cli.settings.load(cli.command.as_ref())?;
    telemetry::init(&config)?;
    match cli.command.unwrap_or(Command::Dev) {
        Command::Dev => dev::run(config).await,
        Command::Serve { worker } => serve::serve(config, worker).await,
        Command::Worker { .. } => serve::worker(config).await,
        Command::Jobs(command) => queue::run(config, command).await,
        Command::Plan(command) => plan::run(config, command).await,
        Command::Cell(command) => cell::run(config, command).await,
        Command::Log(args) => log::run(config, args).await,
        Command::Member(command) => member::run(config, command).await,
        Command::Mail(command) => mail::run(&config, command).await,
        Command::Audit(command) => return audit::run(config, command).await,
        Command::Tenant(command) => return tenant::run(config, command).await,
        Command::Config(config::Command::Show) => config::show(&config),
        Command::Doctor { json } => return doctor::run(config, json).await,
        Command::Hardening => hardening::run(config).await,
        Command::Schema | Command::Errors => Ok(()),
    }
    .map(|()| ExitCode::SUCCESS)
}

/// The tenant API's schema, sorted.
pub fn schema_text() -> String {
    let options = async_graphql::SDLExportOptions::new()
        .sorted_fields()
        .sorted_arguments()
        .sorted_enum_items()
        .include_specified_by();
    let schema = crate::app::schema(Env::Development, ValidationMode::Strict);
    schema.sdl_with_options(options)
}

/// The reference of all error codes.
pub fn errors_text() -> String {
    let as_data = ErrorCode::items();
    crate::code::reference(|code| as_data.iter().any(|item| item.name == code))
}

impl SettingsArgs {
    fn load(&self, command: Option<&Command>) -> Result<Config> {
        let mut flags = Vec::new();
        if let Some(data_dir) = &self.data_dir {
            flags.push(("data_dir", data_dir.display().to_string()));
        }
        if let Some(http) = &self.http {
            flags.push(("http", http.to_string()));
        }
        if let Some(Command::Worker {
            queues,
            concurrency,
        }) = command
        {
            if !queues.is_empty() {
                flags.push(("worker_queues", queues.join(",")));
            }
            if let Some(concurrency) = concurrency {
                flags.push(("worker_concurrency", concurrency.to_string()));
            }
        }
        Config::load(self.config.as_deref(), &flags)
    }
}

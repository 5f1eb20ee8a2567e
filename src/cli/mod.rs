//! The commands, one file each.

mod config;
mod demo;
mod dev;
mod hardening;
mod out;
mod serve;
mod tenant;

use crate::config::Config;
use crate::error::Result;
use crate::telemetry;
use clap::{Args, Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;

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
    Worker,
    /// Make and look at tenants
    #[command(subcommand)]
    Tenant(tenant::Command),
    /// Print the GraphQL schema of the tenant API
    Schema,
    /// Look at the configuration
    #[command(subcommand)]
    Config(config::Command),
    /// Print the SQL that is still to be run, as a superuser, to close what PostgreSQL leaves open
    Hardening,
}

/// Runs the command.
pub async fn run(cli: Cli) -> Result<()> {
    if matches!(cli.command, Some(Command::Schema)) {
        return out::print(&format!("{}\n", schema_text().trim_end()));
    }
    let config = cli.settings.load()?;
    telemetry::init(&config)?;
    match cli.command.unwrap_or(Command::Dev) {
        Command::Dev => dev::run(config).await,
        Command::Serve { worker } => serve::serve(config, worker).await,
        Command::Worker => serve::worker(config).await,
        Command::Tenant(command) => tenant::run(config, command).await,
        Command::Config(config::Command::Show) => config::show(&config),
        Command::Hardening => hardening::run(config).await,
        Command::Schema => Ok(()),
    }
}

/// The tenant API's schema, sorted.
pub fn schema_text() -> String {
    let options = async_graphql::SDLExportOptions::new()
        .sorted_fields()
        .sorted_arguments()
        .sorted_enum_items()
        .include_specified_by();
    crate::app::schema(crate::config::Env::Development).sdl_with_options(options)
}

impl SettingsArgs {
    fn load(&self) -> Result<Config> {
        let mut flags = Vec::new();
        if let Some(data_dir) = &self.data_dir {
            flags.push(("data_dir", data_dir.display().to_string()));
        }
        if let Some(http) = &self.http {
            flags.push(("http", http.to_string()));
        }
        Config::load(self.config.as_deref(), &flags)
    }
}

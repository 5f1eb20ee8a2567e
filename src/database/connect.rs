//! From a configuration to a database that is ready: found or started, migrated, hardened, with its cells.

use super::managed::{Server, Settings};
use super::pool::Pool;
use super::{Database, cell, hardening, migrate, quote};
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::error::{Error, Result};
use crate::secret::{SecretKey, hex};
use secrecy::ExposeSecret as _;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _};
use std::str::FromStr as _;
use std::sync::Arc;
use tokio::sync::Notify;

/// Database and owner role of the managed server.
const MANAGED: &str = "bulkhead";
/// Connections for the platform's own work: registry, claims, onboarding.
const PLATFORM_SHARE: usize = 4;

/// Finds or starts PostgreSQL, and makes the database ready: platform and tenant schemas at this binary's migrations,
/// the template rendered, cells that can log in. Returns the managed server too, if it is ours to stop.
///
/// Every process that serves does this; whoever comes second finds nothing to do.
pub async fn connect(
    config: &Config,
    key: &SecretKey,
    may_download: bool,
) -> Result<(Database, Option<Server>)> {
    let (owner, server) = find(config, key, may_download).await?;
    let mut connection = owner
        .connect()
        .await
        .map_err(|e| unreachable_database(&owner, &e))?;
    let server_version = version(&mut connection).await?;
    let owned = is_superuser(&mut connection).await?;
    if owned {
        hardening::apply(&mut connection, owner.get_username()).await?;
    }
    hardening::warn(&mut connection, owner.get_username()).await?;
    let instance = migrate::platform(&owner, &mut connection).await?;
    let cell = cell::login(&mut connection, (&instance, key), config, &owner).await?;
    migrate::tenants(&owner).await?;
    let size = config.max_connections as usize;
    let platform = PLATFORM_SHARE.min(size / 2);
    let database = Database {
        platform: Pool::new(owner, platform),
        cells: Arc::from([Pool::new(cell, size - platform)]),
        clock: Clock,
        enqueued: Arc::new(Notify::new()),
        instance: instance.into(),
        server_version: server_version.into(),
    };
    Ok((database, server))
}

/// The statements that are still to be run, as a superuser, on the configured database.
pub async fn missing_hardening(config: &Config, key: &SecretKey) -> Result<Vec<String>> {
    let (owner, server) = find(config, key, false).await?;
    let mut connection = owner
        .connect()
        .await
        .map_err(|e| unreachable_database(&owner, &e))?;
    let missing = hardening::missing(&mut connection, owner.get_username()).await;
    if let Some(server) = server {
        server.stop().await.map_err(Error::internal)?;
    }
    missing
}

async fn find(
    config: &Config,
    key: &SecretKey,
    may_download: bool,
) -> Result<(PgConnectOptions, Option<Server>)> {
    match &config.database_url {
        Some(url) => Ok((given(url.expose_secret())?, None)),
        None => {
            let (owner, server) = managed(config, key, may_download).await?;
            Ok((owner, Some(server)))
        }
    }
}

fn given(url: &str) -> Result<PgConnectOptions> {
    let options = PgConnectOptions::from_str(url)
        .map_err(|e| Error::config(format!("DATABASE_URL cannot be used: {e}")))?;
    Ok(settings(options))
}

/// What every connection of ours is set to. Not by start-up `options`, which transaction poolers refuse.
fn settings(options: PgConnectOptions) -> PgConnectOptions {
    options
        .application_name("bulkhead")
        .disable_statement_logging()
}

fn unreachable_database(options: &PgConnectOptions, error: &sqlx::Error) -> Error {
    Error::config(format!(
        "PostgreSQL at {}:{} cannot be used as {}: {error}",
        options.get_host(),
        options.get_port(),
        options.get_username()
    ))
}

/// Starts the private server, or attaches to the one that another process runs in the same data directory. Bulkhead itself
/// works as an ordinary owner there, as it would on a given server; the superuser makes that owner and hardens.
async fn managed(
    config: &Config,
    key: &SecretKey,
    may_download: bool,
) -> Result<(PgConnectOptions, Server)> {
    let mut settings_of_server = Settings::new(config.data_dir.join("postgres"));
    settings_of_server.bin_dir.clone_from(&config.pg_bin);
    settings_of_server.path = config::search_path();
    settings_of_server.cache_dir = config::cache_dir().map(|dir| dir.join("bulkhead"));
    settings_of_server.may_download = may_download;
    settings_of_server
        .releases_url
        .clone_from(&config.pg_releases_url);
    let server = Server::attach_or_start(&settings_of_server)
        .await
        .map_err(|e| Error::config(e.to_string()))?;
    let owner = own(&server, key).await?;
    Ok((owner, server))
}

/// The owner's options on a managed server, after making role and database if they are not there.
pub async fn own(server: &Server, key: &SecretKey) -> Result<PgConnectOptions> {
    let superuser = |database: &str| {
        let options = settings(PgConnectOptions::new_without_pgpass()).port(server.port());
        // A socket costs the kernel half of what TCP does, on both sides.
        let options = match server.socket_dir() {
            Some(directory) => options.socket(directory),
            None => options.host(server.host()),
        };
        options
            .username(server.user())
            .password(server.password())
            .database(database)
    };
    let password = hex(&key.mac("database owner", &[]));
    let owner = superuser(MANAGED).username(MANAGED).password(&password);
    if !server.is_owned() {
        return Ok(owner);
    }
    let mut connection = superuser("postgres").connect().await?;
    if !exists(
        &mut connection,
        "SELECT FROM pg_roles WHERE rolname = $1",
        MANAGED,
    )
    .await?
    {
        run(
            &mut connection,
            format!("CREATE ROLE {MANAGED} LOGIN CREATEROLE"),
        )
        .await?;
    }
    let password = quote::literal(&password)?;
    run(
        &mut connection,
        format!("ALTER ROLE {MANAGED} PASSWORD {password}"),
    )
    .await?;
    if !exists(
        &mut connection,
        "SELECT FROM pg_database WHERE datname = $1",
        MANAGED,
    )
    .await?
    {
        run(
            &mut connection,
            format!("CREATE DATABASE {MANAGED} OWNER {MANAGED}"),
        )
        .await?;
    }
    let mut connection = superuser(MANAGED).connect().await?;
    hardening::apply(&mut connection, MANAGED).await?;
    Ok(owner)
}

async fn version(connection: &mut PgConnection) -> Result<String> {
    let (number,): (String,) = sqlx::query_as("SELECT current_setting('server_version_num')")
        .fetch_one(&mut *connection)
        .await?;
    let number: u32 = number.parse().map_err(Error::internal)?;
    if number < 140_000 {
        return Err(Error::config("PostgreSQL 14 or newer is needed"));
    }
    Ok(format!("{}.{}", number / 10_000, number % 10_000))
}

async fn is_superuser(connection: &mut PgConnection) -> Result<bool> {
    let (superuser,): (bool,) =
        sqlx::query_as("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
            .fetch_one(&mut *connection)
            .await?;
    Ok(superuser)
}

pub(super) async fn exists(
    connection: &mut PgConnection,
    query: &'static str,
    name: &str,
) -> Result<bool> {
    let row = sqlx::query(query)
        .bind(name)
        .fetch_optional(connection)
        .await?;
    Ok(row.is_some())
}

pub(super) async fn run(connection: &mut PgConnection, statements: String) -> Result<()> {
    connection
        .execute(sqlx::raw_sql(AssertSqlSafe(statements)))
        .await?;
    Ok(())
}

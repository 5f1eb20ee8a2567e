//! From a configuration to a database that is ready: found or started, migrated, hardened, with its cells.

use super::cell::Logins;
use super::changes::Changes;
use super::managed::{Server, Settings};
use super::pool::Pool;
use super::wakes::Wakes;
use super::{Database, hardening, migrate, quote};
use crate::config::{self, Config};
use crate::error::{Error, Result};
use crate::secret::{SecretKey, hex};
use secrecy::ExposeSecret as _;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _};
use std::str::FromStr as _;
use std::sync::Arc;

/// Database and owner role of the managed server.
const MANAGED: &str = "bulkhead";

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
    let direct = direct(config, &owner)?;
    let mut connection = direct
        .connect()
        .await
        .map_err(|e| unreachable_database(&direct, &e))?;
    let server_version = version(&mut connection).await?;
    let owned = is_superuser(&mut connection).await?;
    if owned {
        hardening::apply(&mut connection, direct.get_username()).await?;
    }
    hardening::warn(&mut connection, direct.get_username()).await?;
    let instance = migrate::platform(&direct, &mut connection).await?;
    let logins = Logins::new((owner, direct.clone()), key.clone(), config);
    logins
        .prepare(&mut connection, &instance, config.cells)
        .await?;
    migrate::tenants(&direct).await?;
    let sender = config.clock.new_id().simple().to_string();
    let database = Database {
        listening: direct,
        pool: Pool::new(logins, config.max_connections as usize),
        unplanted: if config.pooler { quote::UNPLANTED } else { "" },
        clock: config.clock,
        wakes: Arc::new(Wakes::new(sender.clone())),
        changes: Arc::new(Changes::new(sender)),
        instance: instance.into(),
        server_version: server_version.into(),
    };
    Ok((database, server))
}

/// The statements that are still to be run, as a superuser, on the configured database.
pub async fn missing_hardening(config: &Config, key: &SecretKey) -> Result<Vec<String>> {
    let (owner, server) = find(config, key, false).await?;
    let owner = direct(config, &owner)?;
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

pub(super) async fn find(
    config: &Config,
    key: &SecretKey,
    may_download: bool,
) -> Result<(PgConnectOptions, Option<Server>)> {
    match &config.database_url {
        Some(url) => {
            let owner = given(url.expose_secret(), "DATABASE_URL")?;
            // What a pooler of transactions does not know at the start of a session, it refuses.
            let owner = if config.pooler {
                owner.extra_float_digits(None)
            } else {
                owner
            };
            Ok((owner, None))
        }
        None => {
            let (owner, server) = managed(config, key, may_download).await?;
            Ok((owner, Some(server)))
        }
    }
}

/// The owner past the pooler: for migrations and roles, and whatever needs a session.
pub(super) fn direct(config: &Config, owner: &PgConnectOptions) -> Result<PgConnectOptions> {
    match &config.direct_url {
        Some(url) => given(url.expose_secret(), "BULKHEAD_DIRECT_URL"),
        None => Ok(owner.clone()),
    }
}

fn given(url: &str, key: &str) -> Result<PgConnectOptions> {
    let options = PgConnectOptions::from_str(url)
        .map_err(|e| Error::config(format!("{key} cannot be used: {e}")))?;
    Ok(settings(options))
}

/// What every connection of ours is set to. Not by start-up `options`, which transaction poolers refuse.
fn settings(options: PgConnectOptions) -> PgConnectOptions {
    options
        .application_name("bulkhead")
        .disable_statement_logging()
}

pub(super) fn unreachable_database(options: &PgConnectOptions, error: &sqlx::Error) -> Error {
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

pub(super) async fn version(connection: &mut PgConnection) -> Result<String> {
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

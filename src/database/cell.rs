//! Cells: the login roles behind the pools. A login has no rights of its own (NOINHERIT) and takes a tenant's role for one
//! transaction at a time.

use super::connect::{exists, run};
use super::{migrate, quote};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::secret::{SecretKey, hex};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _};

/// SQLSTATE of a wrong password.
const INVALID_PASSWORD: &str = "28P01";

/// Makes cell 0's login role if it is not there, sets it to this configuration, and returns its options, tried out.
/// Timeouts are the role's own, so that no unit of work spends time on setting them.
///
/// The password is derived from the secret key, and set once: a process with another key is refused, and does not lock out
/// those that serve.
pub(super) async fn login(
    connection: &mut PgConnection,
    (instance, key): (&str, &SecretKey),
    config: &Config,
    owner: &PgConnectOptions,
) -> Result<PgConnectOptions> {
    let login = format!("{instance}_c_0");
    let password = hex(&key.mac("cell login", &[login.as_bytes()]));
    let name = quote::identifier(&login)?;
    // Two processes that start together would make one role twice, or update one catalogue row at once.
    run(connection, format!("BEGIN; {}", migrate::LOCK)).await?;
    let there = "SELECT FROM pg_roles WHERE rolname = $1";
    if !exists(connection, there, &login).await? {
        let database = owner.get_database().unwrap_or(owner.get_username());
        let make = format!(
            "CREATE ROLE {name} LOGIN NOINHERIT PASSWORD {}; GRANT CONNECT ON DATABASE {} TO {name}; \
             INSERT INTO bulkhead.cell (id, login) VALUES (0, {}) ON CONFLICT DO NOTHING",
            quote::literal(&password)?,
            quote::identifier(database)?,
            quote::literal(&login)?
        );
        run(connection, make).await?;
    }
    let timeouts = format!(
        "ALTER ROLE {name} SET statement_timeout = {}; ALTER ROLE {name} SET lock_timeout = '5s'; \
         ALTER ROLE {name} SET idle_in_transaction_session_timeout = '30s'; COMMIT",
        config.statement_timeout_ms
    );
    run(connection, timeouts).await?;
    let options = owner.clone().username(&login).password(&password);
    let tried = options.connect().await.map_err(refused)?;
    // It was only to be tried; one that cannot say goodbye is gone as well.
    let _ = tried.close().await;
    Ok(options)
}

fn refused(error: sqlx::Error) -> Error {
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    if code.as_deref() == Some(INVALID_PASSWORD) {
        return Error::config(
            "BULKHEAD_SECRET_KEY is not the key that this database's logins were made with; every process needs the same",
        );
    }
    error.into()
}

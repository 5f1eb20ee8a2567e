//! Cells: the login roles behind the connections. A login has no rights of its own (NOINHERIT) and takes a tenant's role for
//! one transaction at a time.

use super::connect::run;
use super::pool::Login;
use super::{Database, PlatformTx, migrate, quote, scram};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::secret::{SecretKey, hex};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// SQLSTATE of a wrong password.
const INVALID_PASSWORD: &str = "28P01";

/// How each login connects. A cell that another process has added is looked up when its first connection is made.
pub(super) struct Logins {
    /// The owner of the schemas.
    platform: PgConnectOptions,
    /// The same past the pooler, if there is one.
    direct: PgConnectOptions,
    key: SecretKey,
    statement_timeout_ms: u32,
    pooled: bool,
    cells: Mutex<HashMap<i16, PgConnectOptions>>,
}

impl Logins {
    /// Those of a configuration; no cell is known yet.
    pub(super) fn new(
        (platform, direct): (PgConnectOptions, PgConnectOptions),
        key: SecretKey,
        config: &Config,
    ) -> Self {
        Self {
            platform,
            direct,
            key,
            statement_timeout_ms: config.statement_timeout_ms,
            pooled: config.pooler,
            cells: Mutex::default(),
        }
    }

    /// Whether a transaction pooler is in front.
    pub(super) fn is_pooled(&self) -> bool {
        self.pooled
    }

    /// How to connect as this login. To be called with a place for the connection in hand: the look-up of an unknown cell
    /// uses that place for a moment.
    pub(super) async fn options(&self, login: Login) -> Result<PgConnectOptions> {
        let Login::Cell(number) = login else {
            return Ok(self.platform.clone());
        };
        let known = self.known().get(&number).cloned();
        if let Some(options) = known {
            return Ok(options);
        }
        let mut connection = self.direct.connect().await?;
        let found = sqlx::query_as("SELECT login FROM bulkhead.cell WHERE id = $1")
            .bind(number)
            .fetch_optional(&mut connection)
            .await?;
        // It was only to be asked; one that cannot say goodbye is gone as well.
        let _ = connection.close().await;
        let (login,): (String,) =
            found.ok_or_else(|| Error::internal(format!("there is no cell {number}")))?;
        Ok(self.learn(number, &login))
    }

    fn learn(&self, number: i16, login: &str) -> PgConnectOptions {
        let options = self.platform.clone().username(login);
        let options = options.password(&password(&self.key, login));
        self.known().insert(number, options.clone());
        options
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<i16, PgConnectOptions>> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The statements that make a cell's login role. The password is derived from the secret key, and set once: a process
    /// with another key is refused, and does not lock out those that serve.
    fn make(&self, number: i16, login: &str) -> Result<String> {
        let name = quote::identifier(login)?;
        let database = self.direct.get_database();
        let database = database.unwrap_or(self.direct.get_username());
        Ok(format!(
            "CREATE ROLE {name} LOGIN NOINHERIT PASSWORD {}; GRANT CONNECT ON DATABASE {} TO {name}; \
             INSERT INTO bulkhead.cell (id, login) VALUES ({number}, {}) ON CONFLICT DO NOTHING; ",
            quote::literal(&scram::verifier(&password(&self.key, login)))?,
            quote::identifier(database)?,
            quote::literal(login)?
        ))
    }

    /// The statements that set its timeouts: the role's own, so that no unit of work spends time on setting them.
    fn timeouts(&self, login: &str) -> Result<String> {
        let name = quote::identifier(login)?;
        Ok(format!(
            "ALTER ROLE {name} SET statement_timeout = {}; ALTER ROLE {name} SET lock_timeout = '5s'; \
             ALTER ROLE {name} SET idle_in_transaction_session_timeout = '30s'; ",
            self.statement_timeout_ms
        ))
    }

    /// Makes the login roles that are not there, those of the registry and the first `cells`; sets them all to this
    /// configuration; and tries one out.
    pub(super) async fn prepare(
        &self,
        connection: &mut PgConnection,
        instance: &str,
        cells: u16,
    ) -> Result<()> {
        // Two processes that start together would make one role twice, or update one catalogue row at once.
        run(connection, format!("BEGIN; {}", migrate::LOCK)).await?;
        let mut all: Vec<(i16, String)> = sqlx::query_as("SELECT id, login FROM bulkhead.cell")
            .fetch_all(&mut *connection)
            .await?;
        for number in (0..cells).map(u16::cast_signed) {
            if !all.iter().any(|(known, _)| *known == number) {
                all.push((number, format!("{instance}_c_{number}")));
            }
        }
        let names: Vec<&str> = all.iter().map(|(_, login)| login.as_str()).collect();
        let there: Vec<(String,)> =
            sqlx::query_as("SELECT rolname::text FROM pg_roles WHERE rolname = ANY ($1)")
                .bind(names)
                .fetch_all(&mut *connection)
                .await?;
        let mut statements = String::new();
        for (number, login) in &all {
            if !there.iter().any(|(role,)| role == login) {
                statements += &self.make(*number, login)?;
            }
            statements += &self.timeouts(login)?;
        }
        run(connection, statements + "COMMIT").await?;
        for (number, login) in &all {
            self.learn(*number, login);
        }
        let tried = self.options(Login::Cell(0)).await?.connect().await;
        let tried = tried.map_err(|error| self.refused(error))?;
        let _ = tried.close().await;
        Ok(())
    }

    fn refused(&self, error: sqlx::Error) -> Error {
        let Some(told) = error.as_database_error() else {
            return error.into();
        };
        if self.pooled {
            return Error::config(format!(
                "the pooler at {}:{} refuses the logins of the cells: {}; see \"Behind PgBouncer\" in the README",
                self.platform.get_host(),
                self.platform.get_port(),
                told.message()
            ));
        }
        if told.code().as_deref() == Some(INVALID_PASSWORD) {
            return Error::config(
                "BULKHEAD_SECRET_KEY is not the key that this database's logins were made with; every process needs the same",
            );
        }
        error.into()
    }
}

impl Database {
    /// Makes the login role of one more cell and its row, in the unit of work; returns the login. Other processes find it when
    /// they serve the first tenant that is in it.
    pub async fn add_cell(&self, tx: &PlatformTx, number: i16) -> Result<String> {
        let login = format!("{}_c_{number}", self.instance);
        let logins = self.pool.logins();
        tx.batch(&(logins.make(number, &login)? + &logins.timeouts(&login)?))
            .await?;
        Ok(login)
    }
}

fn password(key: &SecretKey, login: &str) -> String {
    hex(&key.mac("cell login", &[login.as_bytes()]))
}

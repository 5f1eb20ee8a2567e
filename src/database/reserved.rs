//! A connection of its own, past the pool: for what must be said in time whatever the pool is doing.

use super::Database;
use crate::error::{Error, Result};
use sea_orm::{QueryResult, Statement, Values};
use sea_query_sqlx::SqlxValues;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _};
use std::time::Duration;
use tokio::time::timeout;

/// How long a statement on it may take, connecting included.
const PATIENCE: Duration = Duration::from_secs(5);

/// The connection, made when it is needed; made anew after a failure. Each statement is a transaction of its own.
#[derive(Debug)]
pub struct Reserved {
    options: PgConnectOptions,
    connection: Option<PgConnection>,
}

impl Reserved {
    pub(super) fn new(database: &Database) -> Self {
        let options = database.listening.clone();
        Self {
            options: options.application_name("bulkhead worker"),
            connection: None,
        }
    }

    /// Runs one statement on the platform's tables. It may be dropped at any time: its connection is closed then.
    pub async fn query(&mut self, statement: Statement) -> Result<Vec<QueryResult>> {
        let taken = self.connection.take();
        let work = async {
            let mut connection = match taken {
                Some(connection) => connection,
                None => self.connect().await?,
            };
            let values = statement.values.unwrap_or(Values(Vec::new()));
            let query = sqlx::query_with(AssertSqlSafe(statement.sql), SqlxValues(values));
            let rows = query.fetch_all(&mut connection).await?;
            Ok::<_, sqlx::Error>((connection, rows))
        };
        let done = timeout(PATIENCE, work).await.map_err(|_| Error::Timeout)?;
        let (connection, rows) = done?;
        self.connection = Some(connection);
        Ok(rows.into_iter().map(QueryResult::from).collect())
    }

    async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        let mut connection = self.options.connect().await?;
        let settings = "SET search_path TO bulkhead, pg_temp; SET statement_timeout = '5s'; SET lock_timeout = '2s'";
        connection.execute(sqlx::raw_sql(settings)).await?;
        Ok(connection)
    }
}

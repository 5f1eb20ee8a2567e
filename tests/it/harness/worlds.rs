//! More worlds than the shared one: for tests whose workers or configuration must be their own.

use super::{SECRET_KEY, World, bare, connections, key, path, world};
use bulkhead::config::Config;
use bulkhead::database::{
    self,
    managed::{Server, Settings},
};
use secrecy::SecretString;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _};
use std::process::Command;
use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Connections of a world that is not the shared one: many of them share one PostgreSQL.
const CONNECTIONS: u32 = 8;

impl World {
    /// A world with a database and a data directory of its own, and without a worker: jobs run where the test says.
    /// It lasts as long as the run.
    pub async fn private(change: impl FnOnce(&mut Config)) -> &'static Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let shared = world().await;
        let name = format!("private_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let create = format!("CREATE DATABASE {name} OWNER bulkhead");
        let mut connection = shared.superuser().await;
        connection.execute(AssertSqlSafe(create)).await.unwrap();
        let url = PgConnectOptions::from_str(&shared.database_url)
            .unwrap()
            .database(&name)
            .to_url_lossy()
            .to_string();
        let mut config = Config {
            database_url: Some(SecretString::from(url)),
            data_dir: shared.data_dir.join(&name),
            max_connections: connections(CONNECTIONS),
            ..Config::default()
        };
        change(&mut config);
        let postgres = Arc::clone(&shared.postgres);
        Box::leak(Box::new(Self::open(config, postgres).await))
    }

    /// A world with a PostgreSQL of its own, which may be hurt: what is committed there is on the disk.
    pub async fn apart(name: &str) -> &'static Self {
        let data_dir = world().await.data_dir.join(name);
        let mut settings = Settings::new(data_dir.join("postgres"));
        settings.path = path();
        settings.may_download = true;
        settings.cache_dir = Some(std::env::temp_dir().join("bulkhead-cache/bulkhead"));
        let postgres = Server::start(&settings).await.expect("a PostgreSQL");
        let owner = database::own(&postgres, &key()).await.unwrap();
        let config = Config {
            database_url: Some(SecretString::from(owner.to_url_lossy().to_string())),
            data_dir,
            max_connections: connections(CONNECTIONS),
            ..Config::default()
        };
        Box::leak(Box::new(Self::open(config, Arc::new(postgres)).await))
    }

    /// Another server on the same database and data directory, without a worker.
    pub async fn beside(&self, change: impl FnOnce(&mut Config)) -> &'static Self {
        let mut config = Config {
            max_connections: connections(CONNECTIONS),
            ..self.app.services.config.clone()
        };
        change(&mut config);
        Box::leak(Box::new(
            Self::open(config, Arc::clone(&self.postgres)).await,
        ))
    }

    /// The command `bulkhead`, on this world's database.
    pub fn command(&self) -> Command {
        let mut command = bare();
        command
            .env("DATABASE_URL", &self.database_url)
            .env("BULKHEAD_SECRET_KEY", SECRET_KEY)
            .env("BULKHEAD_DATA_DIR", &self.data_dir)
            .env("BULKHEAD_CELLS", self.app.services.config.cells.to_string())
            .env(
                "BULKHEAD_MAX_CONNECTIONS",
                connections(CONNECTIONS).to_string(),
            );
        command
    }
}

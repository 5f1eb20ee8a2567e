//! The PostgreSQL that the server under test runs or is given, and pgbench against it: the floor.

use crate::load::{Plan, Sample};
use crate::place::{KEY, Place, explain};
use crate::{Result, usage};
use bulkhead::database::managed::{Server, Settings};
use bulkhead::database::own;
use bulkhead::secret::{SecretKey, hex};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _};
use std::fs::read_to_string;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Instant;
use tokio::process::Command;

/// pgbench's own database.
const DATABASE: &str = "pgbench";
/// Its size: 100,000 rows each; five of them stay in PostgreSQL's memory.
const SCALE: &str = "5";
/// Bulkhead's database and the role that owns it, on a managed server.
pub(crate) const OWNER: &str = "bulkhead";

/// A running server, to which its superuser connects.
#[derive(Debug)]
pub(crate) struct Postgres {
    server: Server,
    /// The number of its first process.
    pub(crate) postmaster: i32,
    /// Where its programs are; none if it cannot be seen, and `PATH` has to do.
    programs: Option<PathBuf>,
}

impl Postgres {
    /// Attaches to the server that a child runs in this place.
    pub(crate) async fn attach(place: &mut Place) -> Result<Self> {
        let settings = Settings::new(place.data_dir().join("postgres"));
        let server = Server::attach_or_start(&settings).await?;
        if server.is_owned() {
            server.stop().await?;
            return Err("bulkhead dev runs no PostgreSQL of its own here".into());
        }
        Self::found(place, server)
    }

    /// Starts one in this place, ready for Bulkhead, and keeps it: whatever else runs in the place attaches to it.
    pub(crate) async fn start(place: &mut Place, durable: bool) -> Result<Self> {
        let mut settings = Settings::new(place.data_dir().join("postgres"));
        settings.bin_dir.clone_from(&place.pg_bin);
        settings.path = bulkhead::config::search_path();
        settings.cache_dir = bulkhead::config::cache_dir().map(|dir| dir.join("bulkhead"));
        settings.may_download = true;
        settings.durable = durable;
        let server = Server::start(&settings).await?;
        own(&server, &key()?).await.map_err(explain)?;
        Self::found(place, server)
    }

    fn found(place: &mut Place, server: Server) -> Result<Self> {
        place.found_postgres(server.data_dir().to_owned());
        let file = server.data_dir().join("pgdata/postmaster.pid");
        let postmaster = read_to_string(file)?
            .lines()
            .next()
            .unwrap_or_default()
            .trim()
            .parse()?;
        let programs =
            usage::program(postmaster).and_then(|program| program.parent().map(ToOwned::to_owned));
        Ok(Self {
            server,
            postmaster,
            programs,
        })
    }

    /// Whether a commit survives a power cut, from now on: for what is made before anything is measured, it need not.
    pub(crate) async fn durable(&self, durable: bool) -> Result<()> {
        let mut superuser = self.connect().await?;
        for name in ["fsync", "synchronous_commit", "full_page_writes"] {
            let set = format!("ALTER SYSTEM SET {name} = {durable}");
            superuser.execute(AssertSqlSafe(set)).await?;
        }
        superuser.execute("SELECT pg_reload_conf()").await?;
        superuser.execute("CHECKPOINT").await?;
        // What was written before is still on its way to the disk.
        let synced = Command::new("sync").status().await?;
        if synced.success() {
            Ok(())
        } else {
            Err("sync failed".into())
        }
    }

    /// Stops it, if it is ours.
    pub(crate) async fn stop(self) -> Result<()> {
        Ok(self.server.stop().await?)
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.server.port()
    }

    /// The superuser and its password.
    pub(crate) fn superuser(&self) -> (&str, &str) {
        (self.server.user(), self.server.password())
    }

    /// A connection to Bulkhead's database as the superuser.
    pub(crate) async fn connect(&self) -> Result<PgConnection> {
        let options = PgConnectOptions::new_without_pgpass()
            .host(self.server.host())
            .port(self.server.port())
            .username(self.server.user())
            .password(self.server.password())
            .database(OWNER);
        Ok(options.connect().await?)
    }

    /// Its version.
    pub(crate) fn version(&self) -> &str {
        self.server.version()
    }

    /// Makes pgbench's tables.
    pub(crate) async fn prepare(&self) -> Result<()> {
        self.output("createdb", &[DATABASE]).await?;
        self.output("pgbench", &["-i", "-q", "-s", SCALE, DATABASE])
            .await?;
        Ok(())
    }

    /// One row by its primary key, from a prepared statement, over and over.
    pub(crate) async fn select(&self, plan: Plan) -> Result<Sample> {
        let connections = plan.connections.to_string();
        let seconds = plan.time.as_secs().max(1).to_string();
        let began = Instant::now();
        let arguments = [
            "-S",
            "-M",
            "prepared",
            "-j",
            "1",
            "-n",
            "-c",
            &connections,
            "-T",
            &seconds,
            DATABASE,
        ];
        let said = self.output("pgbench", &arguments).await?;
        let number = |label: &str| {
            let line = said.lines().find_map(|line| line.strip_prefix(label));
            let number = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
            number.ok_or_else(|| format!("pgbench did not say {label}: {said}"))
        };
        Ok(Sample {
            rate: number("tps = ")?,
            p50_ms: number("latency average = ")?,
            p99_ms: None,
            seconds: began.elapsed().as_secs_f64(),
        })
    }

    async fn output(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let beside = self
            .programs
            .as_ref()
            .map(|dir| dir.join(program))
            .filter(|path| path.is_file());
        let output = Command::new(beside.unwrap_or_else(|| PathBuf::from(program)))
            .args(arguments)
            .env("PGHOST", self.server.host())
            .env("PGPORT", self.server.port().to_string())
            .env("PGUSER", self.server.user())
            .env("PGPASSWORD", self.server.password())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|e| format!("{program}, which comes with PostgreSQL, does not run: {e}"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{program} failed: {said}").into());
        }
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// Bulkhead's database as its owner, at a port that leads to this server. Without TLS: a proxy is to read along.
pub(crate) fn url(port: u16) -> Result<String> {
    let password = hex(&key()?.mac("database owner", &[]));
    Ok(format!(
        "postgres://{OWNER}:{password}@127.0.0.1:{port}/{OWNER}?sslmode=disable"
    ))
}

fn key() -> Result<SecretKey> {
    SecretKey::new(KEY).map_err(explain)
}

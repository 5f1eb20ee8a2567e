//! The PostgreSQL that the server under test runs, and pgbench against it: the floor.

use crate::load::{Plan, Sample};
use crate::place::Place;
use crate::{Result, usage};
use bulkhead::database::managed::{Server, Settings};
use std::fs::read_to_string;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Instant;
use tokio::process::Command;

/// pgbench's own database.
const DATABASE: &str = "pgbench";
/// Its size: 100,000 rows each; five of them stay in PostgreSQL's memory.
const SCALE: &str = "5";

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

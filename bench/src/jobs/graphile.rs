//! graphile-worker, from npm: a peer in the same run, on a database of its own beside ours.

use crate::Result;
use crate::place::Place;
use crate::postgres::Postgres;
use sqlx::Executor as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::Command;

/// Its database.
const DATABASE: &str = "peer_jobs";
/// Its fastest mode, as its bench names it.
const FASTEST: &str = "local queue, batched completion ";

/// An installed graphile-worker, and where its PostgreSQL is.
#[derive(Debug)]
pub(super) struct Graphile {
    dir: PathBuf,
    environment: [(&'static str, String); 5],
}

impl Graphile {
    /// Installs it from this directory's package and lock file.
    pub(super) async fn install(from: &Path, place: &Place, postgres: &Postgres) -> Result<Self> {
        crate::report::note("installing graphile-worker");
        let dir = place.path().join("graphile");
        std::fs::create_dir(&dir)?;
        for file in ["package.json", "package-lock.json", "bench.mjs"] {
            let text = std::fs::read(from.join(file)).map_err(|e| {
                format!(
                    "{}: {e}; --graphile names a directory with it",
                    from.join(file).display()
                )
            })?;
            std::fs::write(dir.join(file), text)?;
        }
        let args = ["ci", "--no-audit", "--no-fund", "--loglevel=error"];
        let installed = Command::new("npm")
            .args(args)
            .current_dir(&dir)
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .status()
            .await
            .map_err(|e| format!("npm does not start: {e}"))?;
        if !installed.success() {
            return Err("npm cannot install graphile-worker".into());
        }
        let create = format!("CREATE DATABASE {DATABASE}");
        let mut superuser = postgres.connect().await?;
        superuser.execute(sqlx::AssertSqlSafe(create)).await?;
        let (user, password) = postgres.superuser();
        let environment = [
            ("PGHOST", "127.0.0.1".to_owned()),
            ("PGPORT", postgres.port().to_string()),
            ("PGUSER", user.to_owned()),
            ("PGPASSWORD", password.to_owned()),
            ("PGDATABASE", DATABASE.to_owned()),
        ];
        Ok(Self { dir, environment })
    }

    /// No-op jobs per second in its fastest mode, eight at a time, until its table is empty.
    pub(super) async fn rate(&self, jobs: u32) -> Result<f64> {
        let node = self.dir.join("node_modules/.bin/node");
        let measured = Command::new(node)
            .args(["bench.mjs", &jobs.to_string()])
            .current_dir(&self.dir)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env("ROUNDS", "1")
            .env("LATENCY_JOBS", "1")
            .kill_on_drop(true)
            .output()
            .await?;
        let told = String::from_utf8_lossy(&measured.stderr).into_owned();
        rate(&told).ok_or_else(|| format!("graphile-worker told no rate: {told}").into())
    }
}

/// What its bench says on standard error of a round: `<mode> enqueue=<n> work=<jobs a second> …`.
fn rate(told: &str) -> Option<f64> {
    let line = told.lines().find_map(|line| line.strip_prefix(FASTEST))?;
    let mut words = line.split_whitespace();
    words.find_map(|word| word.strip_prefix("work=")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_fastest_mode() {
        let told = "no local queue enqueue=1.00 work=2.00 p50=3.00\n\
            local queue enqueue=1.00 work=3.00 p50=3.00\n\
            local queue, batched completion enqueue=1.00 work=11266.42 p50=3.00 p99=4.00\n";
        assert_eq!(rate(told), Some(11_266.42));
        assert_eq!(rate("local queue enqueue=1.00 work=3.00"), None);
    }
}

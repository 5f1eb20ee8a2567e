//! A peer, measured by a command on the same PostgreSQL in the same run.

use super::{Options, Stage};
use crate::Result;
use serde::Deserialize;
use sqlx::Executor as _;
use std::process::Stdio;
use tokio::process::Command;

/// The database that is the peer's.
const DATABASE: &str = "peer";

/// What it said.
#[derive(Debug, Deserialize)]
pub(super) struct Peer {
    /// In the figures.
    pub(super) name: String,
    /// Microseconds of an update of one row with its history, durable.
    pub(super) row_us: f64,
    /// Milliseconds of an update of as many rows as ours.
    pub(super) bulk_ms: f64,
}

pub(super) async fn measure(command: &str, options: &Options, stage: &Stage<'_>) -> Result<Peer> {
    let mut connection = stage.connect().await?;
    connection.execute("CREATE DATABASE peer").await?;
    let (user, password) = stage.postgres.superuser();
    let output = Command::new("sh")
        .args(["-c", command])
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", stage.postgres.port().to_string())
        .env("PGUSER", user)
        .env("PGPASSWORD", password)
        .env("PGDATABASE", DATABASE)
        .env("BENCH_ROUNDS", options.rounds.to_string())
        .env("BENCH_UPDATES", options.updates.to_string())
        .env("BENCH_BULK", options.bulk.to_string())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("the peer failed: {said}").into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

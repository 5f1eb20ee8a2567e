//! The job that forgets credentials that ended long ago.

use crate::database::TenantTx;
use crate::error::Result;
use crate::jobs::{Cron, Job, JobContext};
use sea_orm::{ConnectionTrait as _, DbBackend, Statement};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How long credentials are kept after their end, for whoever asks what they were.
const KEPT: chrono::TimeDelta = chrono::TimeDelta::days(30);
/// Rows removed in one transaction.
const SOME: u64 = 2_000;

/// Removes sessions and device tokens that ended a month ago. The history keeps that they were.
#[derive(Debug, Serialize, Deserialize)]
pub struct ForgetCredentials {}

impl Job for ForgetCredentials {
    const NAME: &'static str = "identity.forget_credentials";
    const TIMEOUT: Duration = Duration::from_mins(30);
    const UNIQUE: bool = true;
    const CRON: Option<Cron> = Some(Cron::new("41 2 * * *"));

    async fn run(self, ctx: &JobContext) -> Result<()> {
        for table in ["session", "device_token"] {
            while remove(ctx, table).await? == SOME {}
        }
        Ok(())
    }
}

async fn remove(ctx: &JobContext, table: &str) -> Result<u64> {
    let tx = ctx.begin().await?;
    let removed = remove_some(&tx, table).await;
    tx.settle(removed).await
}

async fn remove_some(tx: &TenantTx, table: &str) -> Result<u64> {
    let before = tx.now() - KEPT;
    let some = format!(
        "DELETE FROM {table} WHERE id = ANY (ARRAY(
             SELECT id FROM {table} WHERE least(expires_at, revoked_at) < $1 LIMIT {SOME}))"
    );
    let some = Statement::from_sql_and_values(DbBackend::Postgres, some, [before.into()]);
    Ok(tx.execute_raw(some).await?.rows_affected())
}

//! What the tenancy has to do by the clock.

use super::retries;
use crate::error::Result;
use crate::jobs::{Cron, PlatformContext, PlatformJob};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Removes keys of mutations that had their time.
#[derive(Debug, Serialize, Deserialize)]
pub struct ForgetKeys {}

impl PlatformJob for ForgetKeys {
    const NAME: &'static str = "tenancy.forget_keys";
    const TIMEOUT: Duration = Duration::from_mins(30);
    const UNIQUE: bool = true;
    const CRON: Option<Cron> = Some(Cron::new("17 * * * *"));

    async fn run(self, ctx: &PlatformContext) -> Result<()> {
        retries::forget(&ctx.services.database).await
    }
}

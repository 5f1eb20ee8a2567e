//! What the tenancy has to do by the clock.

use super::{Act, cells, erase, log, retries};
use crate::error::Result;
use crate::jobs::{CatchUp, Cron, PlatformContext, PlatformJob};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Every minute; minutes that passed while nothing ran are not made up for.
const MINUTELY: Cron = Cron::new("* * * * *").catching_up(CatchUp::Skip);
/// Tenants that are moved to another cell at a time.
const MOVES: u64 = 10;

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

/// Looks after what seldom is to be done: tenants that a start could not migrate or that an older binary has made since, cells
/// that are fuller than others, operators whose time as a member is over.
#[derive(Debug, Serialize, Deserialize)]
pub struct Tidy {}

impl PlatformJob for Tidy {
    const NAME: &'static str = "tenancy.tidy";
    const TIMEOUT: Duration = Duration::from_hours(1);
    // The next minute has one of its own.
    const MAX_ATTEMPTS: i32 = 1;
    const UNIQUE: bool = true;
    const CRON: Option<Cron> = Some(MINUTELY);

    async fn run(self, ctx: &PlatformContext) -> Result<()> {
        let database = &ctx.services.database;
        let migrated = database.migrate_tenants().await;
        // Whatever became of the one before.
        let dealt = cells::redeal(database, MOVES, &Act::by("system:tidy")).await;
        log::end_impersonations(database).await?;
        dealt?;
        migrated
    }
}

/// Goes on with erasures that were cut short: for as long as the data are many.
#[derive(Debug, Serialize, Deserialize)]
pub struct Erase {}

impl PlatformJob for Erase {
    const NAME: &'static str = "tenancy.erase";
    const TIMEOUT: Duration = Duration::from_hours(12);
    const MAX_ATTEMPTS: i32 = 1;
    const UNIQUE: bool = true;
    const CRON: Option<Cron> = Some(MINUTELY);

    async fn run(self, ctx: &PlatformContext) -> Result<()> {
        erase::resume(&ctx.services.database, &ctx.services.store).await
    }
}

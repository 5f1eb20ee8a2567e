//! What a history has to have done: by the clock, and when somebody asks for it.

mod export;

use super::seal::{self, Keys, Purge};
use crate::error::Result;
use crate::jobs::{Cron, Job, JobContext};
use chrono::TimeDelta;
use sea_orm::EntityTrait as _;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// How long servers have to hear from when on a history is readable before what is older goes: longer than a request and a
/// cached answer last together.
const HEARD: TimeDelta = TimeDelta::minutes(1);
/// How often a history is to begin later at most.
const RAISED: TimeDelta = TimeDelta::hours(12);

/// Purges what a tenant's retention no longer keeps. First every server is told from when on the history can be read, and a
/// minute later what is older goes: so no reading of the past finds half of it gone.
#[derive(Debug, Serialize, Deserialize)]
pub struct Retain {}

impl Job for Retain {
    const NAME: &'static str = "history.retain";
    const TIMEOUT: Duration = Duration::from_hours(2);
    const UNIQUE: bool = true;
    const CRON: Option<Cron> = Some(Cron::new("23 2 * * *"));

    async fn run(self, ctx: &JobContext) -> Result<()> {
        let services = &ctx.services;
        let database = &services.database;
        let keys = Keys::of(&services.config, &services.key)?;
        let tx = database.platform().await?;
        let tenant = entity::platform::tenant::Entity::find_by_id(ctx.tenant.id);
        let tenant = tenant.one(&tx).await?;
        let now = tx.now();
        tx.commit().await?;
        let Some(tenant) = tenant.map(Arc::new) else {
            return Ok(());
        };
        let retention = tenant.settings.retention;
        if retention.legal_hold {
            return Ok(());
        }
        let mut purge = Purge {
            database,
            store: &services.store,
            keys: &keys,
            tenant: &tenant,
            until: now - TimeDelta::days(retention.days.into()),
        };
        let told = tenant.history_from_set.map(|since| now - since);
        let next = purge.until;
        if let (Some(from), Some(told)) = (tenant.history_from, told) {
            if told < HEARD {
                return ctx.snooze((HEARD - told).to_std().unwrap_or_default());
            }
            purge.until = from;
            while !ctx.is_cancelled() && purge.some().await? > 0 {}
            purge.kept().await?;
        }
        purge.until = next;
        let later = tenant.history_from.is_none_or(|from| from < next);
        if later && told.is_none_or(|told| told > RAISED) && purge.is_due().await? {
            seal::raise(database, &tenant, next).await?;
            return ctx.snooze(HEARD.to_std().unwrap_or_default());
        }
        Ok(())
    }
}

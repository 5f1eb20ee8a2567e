//! Jobs by the clock: which kinds have a schedule, and which of its times are taken care of. There is no leader: whoever writes
//! the row of a time adds its jobs in the same transaction.

use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, &[CRON, TICK]).await
    }
}

/// Times before `since` are nobody's business.
const CRON: &str = "CREATE TABLE cron (
    kind text CONSTRAINT cron_pkey PRIMARY KEY,
    enabled boolean NOT NULL DEFAULT true,
    since timestamptz NOT NULL DEFAULT now()
)";

const TICK: &str = "CREATE TABLE cron_tick (
    kind text CONSTRAINT cron_tick_kind_fkey REFERENCES cron,
    due_at timestamptz,
    CONSTRAINT cron_tick_pkey PRIMARY KEY (kind, due_at)
)";

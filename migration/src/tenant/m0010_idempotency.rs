//! Keys of mutations that were sent with one, and their answers. A table of its own, because key, answer and what the
//! mutation wrote are one transaction of the tenant's. Not in the history: it holds nothing but what the history has, and
//! secrets that are shown once, encrypted with a key that only the client has.

use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, &[TABLE]).await
    }
}

const TABLE: &str = "CREATE TABLE idempotency_key (
    id uuid CONSTRAINT idempotency_key_pkey PRIMARY KEY,
    request bytea NOT NULL,
    answer bytea NOT NULL,
    created_at timestamptz NOT NULL
)";

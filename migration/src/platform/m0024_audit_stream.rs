//! How far each tenant's history was sent to where the operators collect trails.

use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, &[STREAM]).await
    }
}

/// The entries up to `number` were received; whoever sends the next ones does so until `leased_until`.
const STREAM: &str = "CREATE TABLE audit_stream (
    tenant_id uuid CONSTRAINT audit_stream_pkey PRIMARY KEY
        CONSTRAINT audit_stream_tenant_id_fkey REFERENCES tenant ON DELETE CASCADE,
    number bigint NOT NULL DEFAULT 0,
    leased_until timestamptz NOT NULL
)";

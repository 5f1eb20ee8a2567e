//! Domains are claims until they are proven: each with its token, and one of a tenant's the primary.

use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(
            manager,
            &[TOKEN, PRIMARY, CLAIMS, VERIFIED_KEY, PRIMARY_KEY],
        )
        .await
    }
}

/// The default is for rows that are there already, and for binaries that do not know the column.
const TOKEN: &str =
    "ALTER TABLE domain ADD COLUMN token text NOT NULL DEFAULT gen_random_uuid()::text";

const PRIMARY: &str = "ALTER TABLE domain ADD COLUMN is_primary boolean NOT NULL DEFAULT false
    CONSTRAINT domain_is_primary_check CHECK (verified_at IS NOT NULL OR NOT is_primary)";

/// Anybody may claim a host, so that a claim without a proof keeps nobody from it.
const CLAIMS: &str = "ALTER TABLE domain DROP CONSTRAINT domain_pkey,
    ADD CONSTRAINT domain_pkey PRIMARY KEY (tenant_id, host)";

/// One tenant has it.
const VERIFIED_KEY: &str =
    "CREATE UNIQUE INDEX domain_verified_key ON domain (host) WHERE verified_at IS NOT NULL";

const PRIMARY_KEY: &str =
    "CREATE UNIQUE INDEX domain_primary_key ON domain (tenant_id) WHERE is_primary";

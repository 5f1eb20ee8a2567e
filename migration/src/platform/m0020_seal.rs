//! The evidence of the tenants' histories: for each entry a number and a link of a chain, out of reach of every tenant's role,
//! and how far each history is sealed. Here and not in the tenants' schemas: two tables for all of them, and not a file more
//! for each tenant.

use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, &[HEAD, SEAL, STORAGE]).await
    }
}

/// `number` entries are sealed, and `link` is the last of the chain. Of every transaction before `next` but `running` all
/// entries are among them. `since`: entries from before it may be of another server, whose transactions had other numbers.
const HEAD: &str = "CREATE TABLE seal_head (
    tenant_id uuid CONSTRAINT seal_head_pkey PRIMARY KEY
        CONSTRAINT seal_head_tenant_id_fkey REFERENCES tenant ON DELETE CASCADE,
    number bigint NOT NULL DEFAULT 0,
    link bytea NOT NULL DEFAULT '',
    next bigint NOT NULL DEFAULT 0,
    running bigint[] NOT NULL DEFAULT '{}',
    since timestamptz,
    anchored bigint NOT NULL DEFAULT 0,
    anchored_at timestamptz
)";

/// The entries with the numbers `first` to `last`, their ids in that order, and 32 bytes of the chain for each.
const SEAL: &str = "CREATE TABLE seal (
    tenant_id uuid NOT NULL CONSTRAINT seal_tenant_id_fkey REFERENCES tenant ON DELETE CASCADE,
    first bigint NOT NULL,
    last bigint NOT NULL,
    key_id text NOT NULL,
    entries uuid[] NOT NULL,
    links bytea NOT NULL,
    sealed_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT seal_pkey PRIMARY KEY (tenant_id, first)
)";

/// They look random: nothing is gained by compressing them.
const STORAGE: &str = "ALTER TABLE seal ALTER COLUMN entries SET STORAGE EXTERNAL, ALTER COLUMN links SET STORAGE EXTERNAL";

//! Tenants that were moved to another cell, and may still be served by way of the former one.

use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, &[FORMER_CELL, INDEX]).await
    }
}

/// A row as long as the former cell's login is a member of the tenant's role.
const FORMER_CELL: &str = "CREATE TABLE former_cell (
    tenant_id uuid CONSTRAINT former_cell_pkey PRIMARY KEY
        CONSTRAINT former_cell_tenant_id_fkey REFERENCES tenant ON DELETE CASCADE,
    cell_id smallint NOT NULL CONSTRAINT former_cell_cell_id_fkey REFERENCES cell,
    moved_at timestamptz NOT NULL DEFAULT now()
)";

/// A new tenant is dealt to the cell that has the fewest.
const INDEX: &str = "CREATE INDEX tenant_cell_id_idx ON tenant (cell_id)";

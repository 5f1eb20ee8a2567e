//! What a job made, and the index of a tenant's jobs that have not succeeded.

use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, &[RESULT, OPEN]).await
    }
}

/// A media in the tenant's schema, so no key refers to it.
const RESULT: &str = "ALTER TABLE job ADD COLUMN result_id uuid";

/// Nearly all jobs of a tenant have succeeded; the others are what is looked for by state.
const OPEN: &str = "CREATE INDEX job_open_idx ON job (tenant_id, id) WHERE state <> 3";

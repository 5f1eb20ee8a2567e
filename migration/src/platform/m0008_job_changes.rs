//! Which transaction changed a job last, so that who follows a tenant's jobs finds what is new by an index.

use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, &[COLUMN, DEFAULT, INDEX, NOTE, TRIGGER]).await
    }
}

/// Without its default at first: jobs that are there already have none, and the table is not written anew.
const COLUMN: &str = "ALTER TABLE job ADD COLUMN changed_in bigint";

const DEFAULT: &str = "ALTER TABLE job ALTER COLUMN changed_in SET DEFAULT txid_current()";

const INDEX: &str = "CREATE INDEX job_changed_idx ON job (tenant_id, changed_in)";

const NOTE: &str = r"CREATE FUNCTION note_job_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.changed_in := txid_current();
    RETURN NEW;
END $$";

/// Not for a sign of life, which tells a tenant nothing.
const TRIGGER: &str =
    "CREATE TRIGGER job_changed BEFORE UPDATE OF state, attempt, run_at, errors ON job
    FOR EACH ROW EXECUTE FUNCTION note_job_change()";

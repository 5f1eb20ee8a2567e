//! What tenants' triggers do and needs no schema baked in, once for all of them: PostgreSQL looks up a trigger's function by its
//! name, among those of all schemas, so that each name they have in common makes the next tenant dearer.

use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, &[TOUCH, MIRROR]).await
    }
}

/// Bumps `version` and `updated_at` when a tracked column changes.
const TOUCH: &str = r"CREATE FUNCTION touch() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    untracked text[] := string_to_array(TG_ARGV[0], ',');
BEGIN
    IF to_jsonb(NEW) - untracked IS DISTINCT FROM to_jsonb(OLD) - untracked THEN
        NEW.version := OLD.version + 1;
        NEW.updated_at := clock_timestamp();
    END IF;
    RETURN NEW;
END $$";

/// Keeps the platform's copy of a tenant's schedules. The schema is the table's own, which no caller chooses.
const MIRROR: &str = r"CREATE FUNCTION mirror_schedule() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        PERFORM bulkhead.mirror_schedule(TG_TABLE_SCHEMA, OLD.id, NULL);
    ELSE
        PERFORM bulkhead.mirror_schedule(TG_TABLE_SCHEMA, NEW.id, to_jsonb(NEW));
    END IF;
    RETURN NULL;
END $$";

//! What tenants' triggers do and needs no schema baked in, once for all of them: PostgreSQL looks up a trigger's function by its
//! name, among those of all schemas, so that each name they have in common makes the next tenant dearer. And functions are closed
//! to everybody.

use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, &[TOUCH, MIRROR]).await?;
        crate::run(manager, &CLOSE).await?;
        let template = sea_orm::Statement::from_string(manager.get_database_backend(), TEMPLATE);
        let found = manager.get_connection().query_one_raw(template).await?;
        let is_there = found.map(|row| row.try_get("", "is_there")).transpose()?;
        if is_there == Some(true) {
            crate::run(manager, &[CLOSE_TEMPLATE]).await?;
        }
        Ok(())
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

/// What the owner makes from now on is not everybody's to run, nor what is there: tenants may not use the schema, and this is the
/// second lock. To close each function by itself costs more the more tenants there are.
const CLOSE: [&str; 2] = [
    "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC",
    "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA bulkhead FROM PUBLIC",
];

/// A template that is there is closed in the same transaction, so that what an older binary makes is still like it.
const TEMPLATE: &str = "SELECT to_regnamespace('t_template') IS NOT NULL AS is_there";
const CLOSE_TEMPLATE: &str = "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA t_template FROM PUBLIC";

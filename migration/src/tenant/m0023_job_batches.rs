//! The tenant's doors to batches, and to adding a job that there may be no room for. No table is added.

use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let schema = crate::tenant::schema(manager).await?;
        crate::run(manager, &[DROP]).await?;
        for door in DOORS {
            let door = door.replace("{schema}", &schema);
            crate::run(manager, &[&door]).await?;
        }
        Ok(())
    }
}

const DROP: &str =
    "DROP FUNCTION enqueue(uuid, text, jsonb, integer, integer, text, smallint, timestamptz, text)";

/// A call as it was before this step does what it did.
const DOORS: [&str; 3] = [
    r"CREATE FUNCTION enqueue(job_id uuid, job_kind text, job_args jsonb, attempts integer, timeout integer,
    job_queue text DEFAULT 'default', job_priority smallint DEFAULT 0, job_run_at timestamptz DEFAULT NULL,
    job_key text DEFAULT NULL)
RETURNS TABLE (id uuid, lane integer, used bigint, most bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT * FROM bulkhead.enqueue_within('{schema}', job_id, job_kind, job_args, attempts, timeout, job_queue,
        job_priority, job_run_at, job_key);
END $$",
    r"CREATE FUNCTION enqueue_batch(members jsonb, last jsonb) RETURNS TABLE (lane integer, used bigint, most bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT * FROM bulkhead.enqueue_batch('{schema}', members, last);
END $$",
    r"CREATE FUNCTION batch_ends(job_id uuid) RETURNS TABLE (done bigint, dead bigint, cancelled bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT * FROM bulkhead.batch_ends('{schema}', job_id);
END $$",
];

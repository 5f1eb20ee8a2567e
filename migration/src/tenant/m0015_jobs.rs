//! The tenant's doors to its jobs, now that the queue has lanes and jobs that are over are kept apart: they name the schema, and
//! what they do is the platform's. No table is added.

use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let schema = crate::tenant::schema(manager).await?;
        crate::run(manager, &DROP).await?;
        for door in DOORS {
            let door = door.replace("{schema}", &schema);
            crate::run(manager, &[&door]).await?;
        }
        Ok(())
    }
}

const DROP: [&str; 3] = [
    "DROP FUNCTION enqueue(uuid, text, jsonb, integer, integer)",
    "DROP FUNCTION jobs(uuid[], smallint, uuid, integer, uuid, boolean)",
    "DROP FUNCTION changed_jobs(bigint[], bigint, bigint, bigint[], integer)",
];

/// A call as it was before this step does what it did.
const DOORS: [&str; 5] = [
    r"CREATE FUNCTION enqueue(job_id uuid, job_kind text, job_args jsonb, attempts integer, timeout integer,
    job_queue text DEFAULT 'default', job_priority smallint DEFAULT 0, job_run_at timestamptz DEFAULT NULL,
    job_key text DEFAULT NULL)
RETURNS TABLE (id uuid, lane integer) LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT * FROM bulkhead.enqueue_job('{schema}', job_id, job_kind, job_args, attempts, timeout, job_queue,
        job_priority, job_run_at, job_key);
END $$",
    r"CREATE FUNCTION jobs(only_ids uuid[], only_state smallint, before_id uuid, page integer,
    after_id uuid DEFAULT NULL, oldest boolean DEFAULT false)
RETURNS TABLE (id uuid, kind text, state smallint, attempt integer, last_error text, run_at timestamptz,
    started_at timestamptz, finished_at timestamptz, result_id uuid, progress real)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT * FROM bulkhead.list_jobs('{schema}', only_ids, only_state, before_id, page, after_id, oldest);
END $$",
    r"CREATE FUNCTION changed_jobs(late bigint[], since bigint, before bigint, running bigint[], page integer)
RETURNS TABLE (id uuid, changed_in bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT * FROM bulkhead.list_changed_jobs('{schema}', late, since, before, running, page);
END $$",
    r"CREATE FUNCTION complete_job(job_id uuid, its_claim bigint, result uuid) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN bulkhead.complete_job('{schema}', job_id, its_claim, result);
END $$",
    r"CREATE FUNCTION change_job(job_id uuid, wanted text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE owner uuid := (SELECT t.id FROM bulkhead.tenant t WHERE t.schema_name = '{schema}');
BEGIN
    -- Without one it would be the platform's.
    IF owner IS NULL THEN
        RAISE EXCEPTION 'no tenant has this schema';
    END IF;
    RETURN CASE wanted
        WHEN 'cancel' THEN bulkhead.cancel_job(owner, job_id)
        WHEN 'retry' THEN bulkhead.retry_job(owner, job_id)::text
    END;
END $$",
];

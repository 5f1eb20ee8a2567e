//! The tenant's doors to the platform's job table: it may add a job and read its own. The schema's name, and with it the
//! tenant, is baked into the functions, so no argument and no injected SQL can name another tenant.

use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let schema = crate::tenant::schema(manager).await?;
        let [enqueue, jobs] = [ENQUEUE, JOBS].map(|f| f.replace("{schema}", &schema));
        crate::run(manager, &[&enqueue, &jobs]).await
    }
}

const ENQUEUE: &str = r"CREATE FUNCTION enqueue(job_id uuid, job_kind text, job_args jsonb, attempts integer, timeout integer)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO bulkhead.job (id, tenant_id, kind, args, max_attempts, timeout_ms, actor, request_id)
    SELECT job_id, t.id, job_kind, job_args, attempts, timeout,
        current_setting('bulkhead.actor'), nullif(current_setting('bulkhead.request_id', true), '')
    FROM bulkhead.tenant t WHERE t.schema_name = '{schema}';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no tenant has this schema';
    END IF;
END $$";

/// A page of the tenant's jobs, newest first: those before `before_id`, or those with the given ids. What is ready but waits
/// for its time is in state 6.
const JOBS: &str = r"CREATE FUNCTION jobs(only_ids uuid[], only_state smallint, before_id uuid, page integer)
RETURNS TABLE (id uuid, kind text, state smallint, attempt integer, last_error text, run_at timestamptz,
    started_at timestamptz, finished_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY
    SELECT j.id, j.kind, shown.state, j.attempt, j.errors -> -1 ->> 'public', j.run_at, j.started_at, j.finished_at
    FROM bulkhead.job j,
        LATERAL (SELECT CASE WHEN j.state = 1 AND j.run_at > now() THEN 6::smallint ELSE j.state END AS state) shown
    WHERE j.tenant_id = (SELECT t.id FROM bulkhead.tenant t WHERE t.schema_name = '{schema}')
        AND (only_ids IS NULL OR j.id = ANY (only_ids))
        AND (only_state IS NULL OR shown.state = only_state)
        AND (before_id IS NULL OR j.id < before_id)
    ORDER BY j.id DESC LIMIT page;
END $$";

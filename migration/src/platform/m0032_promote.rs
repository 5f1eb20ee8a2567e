//! Jobs whose time has come, as a function like the others: with a plan that no statistics change.

use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, &[PROMOTE]).await
    }
}

/// Makes those ready whose time has come, up to `most`. Returns their lanes, each with its tenant, and a row without a lane that
/// says how many seconds it is to the time of the next one.
const PROMOTE: &str = r"CREATE FUNCTION promote_jobs(most integer)
RETURNS TABLE (lane integer, tenant_id uuid, next double precision)
LANGUAGE plpgsql
SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off SET enable_bitmapscan = off
    SET plan_cache_mode = force_generic_plan SET jit = off
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH due AS (
        UPDATE job SET state = 1, changed_in = txid_current() WHERE id = ANY (ARRAY(
            SELECT id FROM job WHERE state = 6 AND run_at <= now() ORDER BY run_at LIMIT most FOR UPDATE SKIP LOCKED))
        RETURNING lane, tenant_id)
    SELECT DISTINCT d.lane, d.tenant_id, NULL::double precision FROM due d
    UNION ALL (
        SELECT NULL, NULL, extract(epoch FROM j.run_at - clock_timestamp())::double precision
        FROM job j WHERE j.state = 6 AND j.run_at > now() ORDER BY j.run_at LIMIT 1);
END $$";

//! What followers of a tenant read by: its history and its jobs, by the transaction that wrote them. Neither a time nor an id
//! says what is new, for a transaction that began earlier may commit later.

use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let schema = crate::tenant::schema(manager).await?;
        let jobs = JOBS.replace("{schema}", &schema);
        crate::run(manager, &[INDEX, &jobs]).await
    }
}

const INDEX: &str = "CREATE INDEX history_transaction_idx ON history (transaction_id)";

/// The tenant's jobs that were changed last by one of the transactions `late`, or by one from `since` on and before `before`;
/// in either case by none of `running`.
const JOBS: &str = r"CREATE FUNCTION changed_jobs(late bigint[], since bigint, before bigint, running bigint[], page integer)
RETURNS TABLE (id uuid, changed_in bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY
    SELECT j.id, j.changed_in FROM bulkhead.job j
    WHERE j.tenant_id = (SELECT t.id FROM bulkhead.tenant t WHERE t.schema_name = '{schema}')
        AND (j.changed_in = ANY (late) OR (j.changed_in >= since AND j.changed_in < before))
        AND j.changed_in <> ALL (running)
    ORDER BY j.changed_in, j.id LIMIT page;
END $$";

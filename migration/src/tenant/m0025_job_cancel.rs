//! The tenant's door to ending a job: of one that did not run it says what it was, so that its kind can tidy up. No table is
//! added.

use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let schema = crate::tenant::schema(manager).await?;
        crate::run(manager, &[&CANCEL.replace("{schema}", &schema)]).await
    }
}

/// `cancelled`, with the kind and the arguments; `asked` to end, or `over`; no row if there is none.
const CANCEL: &str = r"CREATE FUNCTION cancel_job(job_id uuid) RETURNS TABLE (done text, kind text, args jsonb)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    owner uuid := (SELECT t.id FROM bulkhead.tenant t WHERE t.schema_name = '{schema}');
    what text;
BEGIN
    -- Without one it would be the platform's.
    IF owner IS NULL THEN
        RAISE EXCEPTION 'no tenant has this schema';
    END IF;
    what := bulkhead.cancel_job(owner, job_id);
    IF what = 'cancelled' THEN
        RETURN QUERY SELECT what, j.kind, j.args FROM bulkhead.job_done j WHERE j.id = job_id AND j.tenant_id = owner;
    ELSIF what IS NOT NULL THEN
        RETURN QUERY SELECT what, NULL::text, NULL::jsonb;
    END IF;
END $$";

//! Schedules: jobs by the clock that the tenant's own people ask for. A table of the tenant's, for what they ask for is in its
//! history; the trigger keeps the platform's copy, by which the clock goes.

use crate::history::audited;
use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, &[TABLE]).await?;
        audited(manager, "schedule").await?;
        let schema = crate::tenant::schema(manager).await?;
        let mirror = MIRROR.replace("{schema}", &schema);
        crate::run(manager, &[&mirror, TRIGGER]).await
    }
}

const TABLE: &str = "CREATE TABLE schedule (
    id uuid CONSTRAINT schedule_pkey PRIMARY KEY,
    kind text NOT NULL,
    args jsonb NOT NULL,
    expression text NOT NULL,
    time_zone text NOT NULL,
    catch_up text NOT NULL CONSTRAINT schedule_catch_up_check CHECK (catch_up IN ('all', 'last', 'skip')),
    enabled boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    version integer NOT NULL DEFAULT 1
)";

const MIRROR: &str = r"CREATE FUNCTION mirror_schedule() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        PERFORM bulkhead.mirror_schedule('{schema}', OLD.id, NULL);
    ELSE
        PERFORM bulkhead.mirror_schedule('{schema}', NEW.id, to_jsonb(NEW));
    END IF;
    RETURN NULL;
END $$";

const TRIGGER: &str = "CREATE TRIGGER schedule_mirror AFTER INSERT OR UPDATE OR DELETE ON schedule
    FOR EACH ROW EXECUTE FUNCTION mirror_schedule()";

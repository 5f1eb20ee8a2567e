//! Two triggers do what the platform's functions say, and the schema's own go; and what functions it has are nobody's to run but
//! its role's. No table is added.

use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let schema = crate::tenant::schema(manager).await?;
        let close = CLOSE.replace("{schema}", &schema);
        crate::run(manager, &[TOUCH, MIRROR, DROP, &close]).await
    }
}

/// A schema that was made before [`crate::history`] knew of the platform's function has triggers of its own one.
const TOUCH: &str = r"DO $$
DECLARE own text;
BEGIN
    FOR own IN SELECT pg_get_triggerdef(oid) FROM pg_catalog.pg_trigger WHERE tgfoid = 'touch()'::regprocedure LOOP
        EXECUTE regexp_replace(regexp_replace(own, '^CREATE TRIGGER', 'CREATE OR REPLACE TRIGGER'),
            'EXECUTE FUNCTION (\w+\.)?touch\(', 'EXECUTE FUNCTION bulkhead.touch(');
    END LOOP;
END $$";

const MIRROR: &str =
    "CREATE OR REPLACE TRIGGER schedule_mirror AFTER INSERT OR UPDATE OR DELETE ON schedule
    FOR EACH ROW EXECUTE FUNCTION bulkhead.mirror_schedule()";

const DROP: &str = "DROP FUNCTION touch(), mirror_schedule()";

const CLOSE: &str = "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA {schema} FROM PUBLIC";

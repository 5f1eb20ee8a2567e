//! Two triggers do what the platform's functions say, and the schema's own go; and what functions it has are nobody's to run but
//! its role's. No table is added.

use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let schema = crate::tenant::schema(manager).await?;
        let own = sea_orm::Statement::from_string(manager.get_database_backend(), OWN);
        for trigger in manager.get_connection().query_all_raw(own).await? {
            let own: String = trigger.try_get("", "statement")?;
            crate::run(manager, &[&platforms(&own)]).await?;
        }
        let close = CLOSE.replace("{schema}", &schema);
        crate::run(manager, &[MIRROR, DROP, &close]).await
    }
}

/// A schema that was made before [`crate::history`] knew of the platform's function has triggers that call its own. All of them are
/// locked one after another, always in this order.
const OWN: &str = "SELECT pg_get_triggerdef(oid) AS statement FROM pg_catalog.pg_trigger
    WHERE tgfoid = 'touch()'::regprocedure ORDER BY tgrelid::regclass::text";

/// The same trigger, calling the platform's.
fn platforms(own: &str) -> String {
    let trigger = own.replacen("CREATE TRIGGER", "CREATE OR REPLACE TRIGGER", 1);
    trigger.replacen("FUNCTION touch(", "FUNCTION bulkhead.touch(", 1)
}

const MIRROR: &str =
    "CREATE OR REPLACE TRIGGER schedule_mirror AFTER INSERT OR UPDATE OR DELETE ON schedule
    FOR EACH ROW EXECUTE FUNCTION bulkhead.mirror_schedule()";

const DROP: &str = "DROP FUNCTION touch(), mirror_schedule()";

const CLOSE: &str = "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA {schema} FROM PUBLIC";

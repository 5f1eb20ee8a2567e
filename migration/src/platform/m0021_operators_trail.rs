//! What operators do to a tenant is in the tenant's own history too: by a trigger on their log, so that nobody who writes the
//! one can forget the other, and both are there or neither.

use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, &[ENTRY, TELL, TRIGGER, IMPERSONATION]).await
    }
}

/// An entry of the log as the tenant's history has it. What the platform did by itself is not an operator's act.
const ENTRY: &str = r"CREATE FUNCTION operator_entry(log operator_log,
    OUT id uuid, OUT recorded_at timestamptz, OUT tenant_id uuid, OUT actor text, OUT reason text, OUT detail jsonb)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT log.id, log.at, log.tenant_id,
        CASE WHEN log.operator LIKE 'system:%' THEN log.operator ELSE 'operator:' || log.operator END,
        log.detail ->> 'reason', jsonb_build_object('what', log.action) || (log.detail - 'reason')
$$";

/// A tenant that has not got that step yet is told by the step; one that is being erased is told nothing. Whoever changes a
/// tenant has its row locked, and so does the step.
const TELL: &str = r"CREATE FUNCTION tell_tenant() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    home text;
BEGIN
    SELECT t.schema_name INTO home FROM bulkhead.tenant t
    JOIN bulkhead.migration m ON m.schema_name = t.schema_name AND m.name = 'm0016_security_events'
    WHERE t.id = NEW.tenant_id AND t.state <> 'deleting';
    IF home IS NOT NULL THEN
        EXECUTE format('INSERT INTO %I.history (id, recorded_at, subject_type, subject_id, action, row, before, changed,
                transaction_id, actor, reason)
            SELECT e.id, clock_timestamp(), ''tenant'', e.tenant_id, ''operator_act'', e.detail, ''{}'', ''{}'', txid_current(), e.actor,
                e.reason
            FROM bulkhead.operator_entry($1) e', home) USING NEW;
    END IF;
    RETURN NULL;
END $$";

const TRIGGER: &str = "CREATE TRIGGER operator_log_tell AFTER INSERT ON operator_log FOR EACH ROW
    WHEN (NEW.tenant_id IS NOT NULL) EXECUTE FUNCTION tell_tenant()";

/// Sessions that operators act in begin once and end once.
const IMPERSONATION: &str = "CREATE UNIQUE INDEX operator_log_impersonation_key ON operator_log ((detail ->> 'session'), action)
    WHERE action IN ('tenant.impersonate', 'tenant.impersonate.end')";

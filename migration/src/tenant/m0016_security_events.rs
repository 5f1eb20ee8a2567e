//! What is no change of a row, and security's all the same: who signed in and out, who was denied, who was given a link, and what
//! operators did to the tenant. And whose session an operator acts in. No table and no index is added.

use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, &[DROP_CHECK, CHECK, OPERATOR, PAST]).await?;
        let schema = crate::tenant::schema(manager).await?;
        crate::run(manager, &[&EVENT.replace("{schema}", &schema)]).await
    }
}

const DROP_CHECK: &str = "ALTER TABLE history DROP CONSTRAINT history_action_check";

const CHECK: &str = "ALTER TABLE history ADD CONSTRAINT history_action_check CHECK (action IN
    ('create', 'update', 'delete', 'sign_in', 'sign_in_failed', 'sign_out', 'denied', 'link_issued', 'operator_act'))";

/// The operator who acts in the session, if it is not the member themselves.
const OPERATOR: &str = "ALTER TABLE session ADD COLUMN operator text";

/// What operators did to the tenant before it had this step; from here on the platform's trigger writes it. Their log's id is
/// the entry's: nothing is written twice.
const PAST: &str = "INSERT INTO history (id, recorded_at, subject_type, subject_id, action, row, before, changed, transaction_id,
        actor, reason)
    SELECT e.id, e.recorded_at, 'tenant', e.tenant_id, 'operator_act', e.detail, '{}', '{}', txid_current(), e.actor, e.reason
    FROM bulkhead.tenant t JOIN bulkhead.operator_log l ON l.tenant_id = t.id CROSS JOIN LATERAL bulkhead.operator_entry(l) e
    WHERE t.schema_name = current_schema() ORDER BY l.id ON CONFLICT (id) DO NOTHING";

/// As [`super::m0011_history_reads`] has it; what operators did is not the tenant's to say.
const EVENT: &str = r"CREATE OR REPLACE FUNCTION record_event(subject text, subject_id uuid, act text, detail jsonb) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO {schema}.history (id, recorded_at, subject_type, subject_id, action, row, before, changed,
        transaction_id, actor, cause, request_id, reason)
    VALUES (gen_random_uuid(), clock_timestamp(), subject, subject_id,
        CASE WHEN act NOT IN ('create', 'update', 'delete', 'operator_act') THEN act END, detail, '{}', '{}', txid_current(),
        bulkhead.acting(subject, 0),
        nullif(current_setting('bulkhead.cause', true), ''),
        nullif(current_setting('bulkhead.request_id', true), ''),
        nullif(current_setting('bulkhead.reason', true), ''))
$$";

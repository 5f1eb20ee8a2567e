//! The history of what was put back, of what is no change of a row, and as of a moment. One index: the objects of a type, by
//! the changes that made them, is how a list is read as of a moment without going through all that was ever recorded.

use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, &[COLUMN, DROP_CHECK, CHECK, INDEX]).await?;
        let schema = crate::tenant::schema(manager).await?;
        let [record, event] = [RECORD, EVENT].map(|f| f.replace("{schema}", &schema));
        crate::run(manager, &[&record, &event]).await
    }
}

/// The change that this one takes back.
const COLUMN: &str = "ALTER TABLE history ADD COLUMN reverts uuid";

const DROP_CHECK: &str = "ALTER TABLE history DROP CONSTRAINT history_action_check";

const CHECK: &str = "ALTER TABLE history ADD CONSTRAINT history_action_check CHECK (action IN
    ('create', 'update', 'delete', 'sign_in_failed'))";

const INDEX: &str = "CREATE INDEX history_created_idx ON history (subject_type, subject_id, recorded_at) WHERE action = 'create'";

/// As [`super::m0009_history_plans`] has it, and what is taken back.
const RECORD: &str = r"CREATE OR REPLACE FUNCTION record_history() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    rows jsonb;
    who text;
BEGIN
    IF TG_OP = 'INSERT' THEN
        SELECT jsonb_agg(to_jsonb(n)), bulkhead.acting(TG_ARGV[0], 0) INTO rows, who FROM new_rows n;
    ELSIF TG_OP = 'DELETE' THEN
        SELECT jsonb_agg(to_jsonb(o)), bulkhead.acting(TG_ARGV[0], 0) INTO rows, who FROM old_rows o;
    ELSE
        SELECT jsonb_agg(jsonb_build_object('old', to_jsonb(o), 'new', to_jsonb(n))),
            bulkhead.acting(TG_ARGV[0], count(*) FILTER (WHERE o.id IS NULL OR n.id IS NULL)) INTO rows, who
        FROM old_rows o FULL JOIN new_rows n ON n.id = o.id;
        INSERT INTO {schema}.history (id, recorded_at, subject_type, subject_id, action, row, before, changed,
            transaction_id, actor, cause, request_id, reason, reverts)
        SELECT gen_random_uuid(), clock_timestamp(), TG_ARGV[0], (p.new ->> 'id')::uuid, 'update',
            p.new - p.secret, coalesce(c.before, '{}'), c.columns, txid_current(), who,
            nullif(current_setting('bulkhead.cause', true), ''),
            nullif(current_setting('bulkhead.request_id', true), ''),
            nullif(current_setting('bulkhead.reason', true), ''),
            nullif(current_setting('bulkhead.reverts', true), '')::uuid
        FROM (SELECT e -> 'old' AS old, e -> 'new' AS new, string_to_array(TG_ARGV[1], ',') AS secret,
                  string_to_array(TG_ARGV[2], ',') || ARRAY['version', 'updated_at'] AS untracked
              FROM jsonb_array_elements(rows) e) p
        CROSS JOIN LATERAL (
            SELECT array_agg(n.key ORDER BY n.key) AS columns,
                jsonb_object_agg(n.key, p.old -> n.key) FILTER (WHERE n.key <> ALL (p.secret)) AS before
            FROM jsonb_each(p.new) n
            WHERE n.value IS DISTINCT FROM p.old -> n.key AND n.key <> ALL (p.untracked)
        ) c
        WHERE c.columns IS NOT NULL;
        RETURN NULL;
    END IF;
    INSERT INTO {schema}.history (id, recorded_at, subject_type, subject_id, action, row, before, changed,
        transaction_id, actor, cause, request_id, reason, reverts)
    SELECT gen_random_uuid(), clock_timestamp(), TG_ARGV[0], (r ->> 'id')::uuid,
        CASE TG_OP WHEN 'INSERT' THEN 'create' ELSE 'delete' END,
        r - string_to_array(TG_ARGV[1], ','), '{}', '{}', txid_current(), who,
        nullif(current_setting('bulkhead.cause', true), ''),
        nullif(current_setting('bulkhead.request_id', true), ''),
        nullif(current_setting('bulkhead.reason', true), ''),
        nullif(current_setting('bulkhead.reverts', true), '')::uuid
    FROM jsonb_array_elements(rows) r;
    RETURN NULL;
END $$";

/// The tenant's door for what is no change of a row. It cannot pass for one: without an action the row is refused. In SQL, so
/// that no session keeps a plan of it.
const EVENT: &str = r"CREATE FUNCTION record_event(subject text, subject_id uuid, act text, detail jsonb) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO {schema}.history (id, recorded_at, subject_type, subject_id, action, row, before, changed,
        transaction_id, actor, cause, request_id, reason)
    VALUES (gen_random_uuid(), clock_timestamp(), subject, subject_id,
        CASE WHEN act NOT IN ('create', 'update', 'delete') THEN act END, detail, '{}', '{}', txid_current(),
        bulkhead.acting(subject, 0),
        nullif(current_setting('bulkhead.cause', true), ''),
        nullif(current_setting('bulkhead.request_id', true), ''),
        nullif(current_setting('bulkhead.reason', true), ''))
$$";

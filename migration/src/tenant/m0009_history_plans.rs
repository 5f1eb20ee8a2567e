//! The history's trigger with few statements: each is a plan that every session keeps for every trigger of every tenant it
//! writes to, and with every schema that is made PostgreSQL goes through all of them. A third of a tenant's memory in a
//! session goes with them.

use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let schema = crate::tenant::schema(manager).await?;
        let record = RECORD.replace("{schema}", &schema);
        crate::run(manager, &[&record]).await
    }
}

/// Records one statement's changes, whatever their number, with one insert. Arguments: the table, its secret columns, its
/// untracked columns. The transition tables are copied into a variable first, and the SQL is static with the schema baked
/// in: both are what makes it cheap. `SECURITY DEFINER`, because the tenant's role may only read the history.
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
            transaction_id, actor, cause, request_id, reason)
        SELECT gen_random_uuid(), clock_timestamp(), TG_ARGV[0], (p.new ->> 'id')::uuid, 'update',
            p.new - p.secret, coalesce(c.before, '{}'), c.columns, txid_current(), who,
            nullif(current_setting('bulkhead.cause', true), ''),
            nullif(current_setting('bulkhead.request_id', true), ''),
            nullif(current_setting('bulkhead.reason', true), '')
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
        transaction_id, actor, cause, request_id, reason)
    SELECT gen_random_uuid(), clock_timestamp(), TG_ARGV[0], (r ->> 'id')::uuid,
        CASE TG_OP WHEN 'INSERT' THEN 'create' ELSE 'delete' END,
        r - string_to_array(TG_ARGV[1], ','), '{}', '{}', txid_current(), who,
        nullif(current_setting('bulkhead.cause', true), ''),
        nullif(current_setting('bulkhead.request_id', true), ''),
        nullif(current_setting('bulkhead.reason', true), '')
    FROM jsonb_array_elements(rows) r;
    RETURN NULL;
END $$";

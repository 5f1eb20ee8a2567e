//! The history of one row, cheaper: most statements change one, and what is made for many costs twice as much.

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

/// As [`super::m0011_history_reads`] has it; an update of one row is neither joined nor taken apart.
const RECORD: &str = r"CREATE OR REPLACE FUNCTION record_history() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    rows jsonb;
    who text;
    former jsonb;
    present jsonb;
    several boolean;
BEGIN
    IF TG_OP = 'INSERT' THEN
        SELECT jsonb_agg(to_jsonb(n)), bulkhead.acting(TG_ARGV[0], 0) INTO rows, who FROM new_rows n;
    ELSIF TG_OP = 'DELETE' THEN
        SELECT jsonb_agg(to_jsonb(o)), bulkhead.acting(TG_ARGV[0], 0) INTO rows, who FROM old_rows o;
    ELSE
        SELECT to_jsonb(o), to_jsonb(n), (SELECT count(*) > 1 FROM (SELECT FROM new_rows LIMIT 2) r)
            INTO former, present, several FROM old_rows o, new_rows n LIMIT 1;
        IF several THEN
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
        ELSE
            who := bulkhead.acting(TG_ARGV[0], (former -> 'id' <> present -> 'id')::integer);
            INSERT INTO {schema}.history (id, recorded_at, subject_type, subject_id, action, row, before, changed,
                transaction_id, actor, cause, request_id, reason, reverts)
            SELECT gen_random_uuid(), clock_timestamp(), TG_ARGV[0], (present ->> 'id')::uuid, 'update',
                present - string_to_array(TG_ARGV[1], ','), coalesce(c.before, '{}'), c.columns, txid_current(), who,
                nullif(current_setting('bulkhead.cause', true), ''),
                nullif(current_setting('bulkhead.request_id', true), ''),
                nullif(current_setting('bulkhead.reason', true), ''),
                nullif(current_setting('bulkhead.reverts', true), '')::uuid
            FROM (
                SELECT array_agg(n.key ORDER BY n.key) AS columns, jsonb_object_agg(n.key, former -> n.key)
                    FILTER (WHERE n.key <> ALL (string_to_array(TG_ARGV[1], ','))) AS before
                FROM jsonb_each(present) n
                WHERE n.value IS DISTINCT FROM former -> n.key
                    AND n.key <> ALL (string_to_array(TG_ARGV[2], ',') || ARRAY['version', 'updated_at'])
            ) c
            WHERE c.columns IS NOT NULL;
        END IF;
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

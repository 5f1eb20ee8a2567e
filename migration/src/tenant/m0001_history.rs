//! The tenant's one history table and the trigger functions behind [`crate::history::audited`].

use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut statements = vec![TABLE];
        statements.extend(INDEXES);
        crate::run(manager, &statements).await?;
        let schema = crate::tenant::schema(manager).await?;
        let record = RECORD.replace("{schema}", &schema);
        crate::run(manager, &[&record, TOUCH]).await
    }
}

const TABLE: &str = "CREATE TABLE history (
    id uuid CONSTRAINT history_pkey PRIMARY KEY,
    recorded_at timestamptz NOT NULL,
    subject_type text NOT NULL,
    subject_id uuid NOT NULL,
    action text NOT NULL CONSTRAINT history_action_check CHECK (action IN ('create', 'update', 'delete')),
    row jsonb NOT NULL,
    before jsonb NOT NULL,
    changed text[] NOT NULL,
    transaction_id bigint NOT NULL,
    actor text NOT NULL,
    cause text,
    request_id text,
    reason text
)";

const INDEXES: [&str; 2] = [
    "CREATE INDEX history_recorded_idx ON history (recorded_at, id)",
    "CREATE INDEX history_subject_idx ON history (subject_id, recorded_at, id)",
];

/// Records one statement's changes, whatever their number, with one insert. Arguments: the table, its secret columns, its
/// untracked columns. The transition tables are copied into a variable first, and the SQL is static with the schema baked
/// in: both are what makes it cheap. `SECURITY DEFINER`, because the tenant's role may only read the history.
const RECORD: &str = r"CREATE FUNCTION record_history() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    who text := nullif(current_setting('bulkhead.actor', true), '');
    secret text[] := string_to_array(TG_ARGV[1], ',');
    untracked text[] := string_to_array(TG_ARGV[2], ',') || ARRAY['version', 'updated_at'];
    pairs jsonb;
BEGIN
    IF who IS NULL THEN
        RAISE EXCEPTION 'a write to % needs an actor: bulkhead.actor is not set', TG_ARGV[0] USING ERRCODE = 'BH001';
    END IF;
    IF TG_OP = 'INSERT' THEN
        SELECT jsonb_agg(jsonb_build_object('new', to_jsonb(n))) INTO pairs FROM new_rows n;
    ELSIF TG_OP = 'DELETE' THEN
        SELECT jsonb_agg(jsonb_build_object('old', to_jsonb(o))) INTO pairs FROM old_rows o;
    ELSE
        SELECT jsonb_agg(jsonb_build_object('old', to_jsonb(o), 'new', to_jsonb(n))) INTO pairs
        FROM old_rows o JOIN new_rows n ON n.id = o.id;
        IF coalesce(jsonb_array_length(pairs), 0) <> (SELECT count(*) FROM new_rows) THEN
            RAISE EXCEPTION 'the id of a % never changes', TG_ARGV[0] USING ERRCODE = 'BH002';
        END IF;
    END IF;
    IF pairs IS NULL THEN
        RETURN NULL;
    END IF;
    INSERT INTO {schema}.history (id, recorded_at, subject_type, subject_id, action, row, before, changed,
        transaction_id, actor, cause, request_id, reason)
    SELECT gen_random_uuid(), clock_timestamp(), TG_ARGV[0], (p.kept ->> 'id')::uuid,
        CASE TG_OP WHEN 'INSERT' THEN 'create' WHEN 'DELETE' THEN 'delete' ELSE 'update' END,
        p.kept - secret, coalesce(c.before, '{}'), coalesce(c.columns, '{}'),
        txid_current(), who,
        nullif(current_setting('bulkhead.cause', true), ''),
        nullif(current_setting('bulkhead.request_id', true), ''),
        nullif(current_setting('bulkhead.reason', true), '')
    FROM (SELECT e -> 'old' AS old, coalesce(e -> 'new', e -> 'old') AS kept
          FROM jsonb_array_elements(pairs) e) p
    LEFT JOIN LATERAL (
        SELECT array_agg(n.key ORDER BY n.key) AS columns,
            jsonb_object_agg(n.key, p.old -> n.key) FILTER (WHERE n.key <> ALL (secret)) AS before
        FROM jsonb_each(p.kept) n
        WHERE n.value IS DISTINCT FROM p.old -> n.key AND n.key <> ALL (untracked)
    ) c ON TG_OP = 'UPDATE'
    WHERE TG_OP <> 'UPDATE' OR c.columns IS NOT NULL;
    RETURN NULL;
END $$";

/// Bumps `version` and `updated_at` when a tracked column changes.
const TOUCH: &str = r"CREATE FUNCTION touch() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    untracked text[] := string_to_array(TG_ARGV[0], ',');
BEGIN
    IF to_jsonb(NEW) - untracked IS DISTINCT FROM to_jsonb(OLD) - untracked THEN
        NEW.version := OLD.version + 1;
        NEW.updated_at := clock_timestamp();
    END IF;
    RETURN NEW;
END $$";

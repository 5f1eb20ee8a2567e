//! What the lists of the API are served by: an index for each order and for what narrows a large list to a few rows, and the
//! tenant's door to its jobs, backwards too. No table is added.
//!
//! Without an index of their own are: what is searched for anywhere in a text, the states of devices, and the beginning of a
//! content type. They are looked for along the order of the list, over one tenant's rows at most, until the page is full.

use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, &INDEXES).await?;
        let schema = crate::tenant::schema(manager).await?;
        let jobs = JOBS.replace("{schema}", &schema);
        crate::run(manager, &[DROP_JOBS, &jobs]).await
    }
}

/// Names sort by code point ("C"), the same on every system, whatever the database's own collation. A device that was never
/// seen is before all others, so that one comparison of rows finds a place.
const INDEXES: [&str; 7] = [
    r#"CREATE INDEX device_name_idx ON device (name COLLATE "C", id)"#,
    "CREATE INDEX device_last_seen_at_idx ON device ((coalesce(last_seen_at, '-infinity'::timestamptz)), id)",
    "CREATE INDEX media_uploaded_by_idx ON media (uploaded_by, id)",
    "CREATE INDEX media_resource_type_idx ON media (resource_type, id)",
    "CREATE INDEX media_unready_idx ON media (state, id) WHERE state <> 'ready'",
    "CREATE INDEX history_actor_idx ON history (actor, recorded_at, id)",
    "CREATE INDEX history_subject_type_idx ON history (subject_type, recorded_at, id)",
];

const DROP_JOBS: &str = "DROP FUNCTION jobs(uuid[], smallint, uuid, integer)";

/// A page of the tenant's jobs, newest or oldest first: those with the given ids, in a state, made before and after others.
/// What is ready but waits for its time is in state 6. A call with the first four arguments is as it was before this step.
///
/// The text is put together from what is written here alone, so that each question is planned for what it asks: a rare state
/// is found by the index of the jobs that have not succeeded.
const JOBS: &str = r"CREATE FUNCTION jobs(only_ids uuid[], only_state smallint, before_id uuid, page integer,
    after_id uuid DEFAULT NULL, oldest boolean DEFAULT false)
RETURNS TABLE (id uuid, kind text, state smallint, attempt integer, last_error text, run_at timestamptz,
    started_at timestamptz, finished_at timestamptz, result_id uuid)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY EXECUTE concat(
        'SELECT j.id, j.kind, CASE WHEN j.state = 1 AND j.run_at > now() THEN 6::smallint ELSE j.state END, j.attempt,
            j.errors -> -1 ->> ''public'', j.run_at, j.started_at, j.finished_at, j.result_id
        FROM bulkhead.job j
        WHERE j.tenant_id = (SELECT t.id FROM bulkhead.tenant t WHERE t.schema_name = ''{schema}'')',
        CASE WHEN only_ids IS NOT NULL THEN ' AND j.id = ANY ($1)' END,
        CASE only_state
            WHEN 1 THEN ' AND j.state <> 3 AND j.state = 1 AND j.run_at <= now()'
            WHEN 3 THEN ' AND j.state = 3'
            WHEN 6 THEN ' AND j.state <> 3 AND j.state = 1 AND j.run_at > now()'
            ELSE CASE WHEN only_state IS NOT NULL THEN ' AND j.state <> 3 AND j.state = $2' END
        END,
        CASE WHEN before_id IS NOT NULL THEN ' AND j.id < $3' END,
        CASE WHEN after_id IS NOT NULL THEN ' AND j.id > $4' END,
        CASE WHEN oldest THEN ' ORDER BY j.id' ELSE ' ORDER BY j.id DESC' END,
        ' LIMIT $5')
    USING only_ids, only_state, before_id, after_id, page;
END $$";

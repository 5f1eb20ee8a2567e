//! What becomes of claimed jobs: the acknowledgement of many at once, and the days of those that are over.

use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, &[END, REAP, MAKE_DAYS, DROP_DAY]).await
    }
}

/// Ends runs, each under its claim: whoever lost it changes nothing. `state` is that of the job from here on; 1 and 6 are tried
/// again, `after_ms` from now, uncharged with `back`. One that was to be cancelled meanwhile is not tried again.
///
/// Returns the jobs that were still theirs. `state + 0` keeps the plan on the primary key.
pub(super) const END: &str = r"CREATE FUNCTION end_jobs(ends jsonb) RETURNS SETOF uuid
LANGUAGE plpgsql
SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off SET enable_bitmapscan = off
    SET plan_cache_mode = force_generic_plan SET jit = off
AS $$
BEGIN
    RETURN QUERY
    WITH said AS MATERIALIZED (
        SELECT * FROM jsonb_to_recordset(ends)
            AS e (id uuid, claim bigint, state smallint, back boolean, after_ms bigint, error jsonb, result uuid, unknown boolean)
    ), gone AS (
        DELETE FROM job j USING said e
        WHERE j.id = e.id AND j.claim = e.claim AND j.state + 0 = 2 AND (e.state IN (3, 4, 5) OR j.cancel)
        RETURNING j.*, CASE WHEN e.state IN (3, 4, 5) THEN e.state ELSE 5 END AS ended, e.error, e.result
    ), kept AS (
        INSERT INTO job_done (id, lane, tenant_id, kind, args, state, priority, run_at, attempt, max_attempts, timeout_ms,
            worker, actor, request_id, errors, progress, unique_key, created_at, started_at, result_id)
        SELECT g.id, g.lane, g.tenant_id, g.kind, g.args, g.ended, g.priority, g.run_at, g.attempt, g.max_attempts, g.timeout_ms,
            g.worker, g.actor, g.request_id,
            CASE WHEN g.error IS NULL THEN g.errors ELSE jsonb_path_query_array(g.errors || g.error, '$[last - 4 to last]') END,
            g.progress, g.unique_key, g.created_at, g.started_at, g.result
        FROM gone g
    ), again AS (
        UPDATE job j SET state = e.state, attempt = j.attempt - e.back::integer, lease_until = NULL,
            run_at = CASE WHEN e.after_ms = 0 THEN j.run_at ELSE clock_timestamp() + e.after_ms * interval '1 millisecond' END,
            unknown_since = CASE WHEN e.unknown THEN coalesce(j.unknown_since, clock_timestamp()) END,
            errors = CASE WHEN e.error IS NULL THEN j.errors
                ELSE jsonb_path_query_array(j.errors || e.error, '$[last - 4 to last]') END
        FROM said e
        WHERE j.id = e.id AND j.claim = e.claim AND j.state + 0 = 2 AND e.state IN (1, 6) AND NOT j.cancel
        RETURNING j.id
    )
    SELECT g.id FROM gone g UNION ALL SELECT a.id FROM again a;
END $$";

/// Takes jobs from workers that gave no sign of life for a whole lease, by the database's clock alone, and puts them back. One
/// that had its last attempt is claimed once more, to be buried; one whose burial was lost too is dead, and one that was to be
/// cancelled is. Returns the lanes of what is back, and what each was.
pub(super) const REAP: &str = r"CREATE FUNCTION reap_jobs() RETURNS TABLE (lane integer, tenant_id uuid)
LANGUAGE plpgsql
SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off SET enable_bitmapscan = off
    SET plan_cache_mode = force_generic_plan SET jit = off
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH lost AS MATERIALIZED (
        SELECT j.id, j.cancel OR j.attempt > j.max_attempts AS over,
            jsonb_path_query_array(j.errors || jsonb_build_object('attempt', j.attempt, 'public', 'The worker was lost.',
                'detail', 'no sign of life from ' || j.worker), '$[last - 4 to last]') AS errors
        FROM job j WHERE j.state = 2 AND j.lease_until < now()
        ORDER BY j.lease_until LIMIT 1000 FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM job j USING lost l WHERE j.id = l.id AND l.over RETURNING j.*, l.errors AS told
    ), kept AS (
        INSERT INTO job_done (id, lane, tenant_id, kind, args, state, priority, run_at, attempt, max_attempts, timeout_ms,
            worker, actor, request_id, errors, progress, unique_key, created_at, started_at)
        SELECT g.id, g.lane, g.tenant_id, g.kind, g.args, CASE WHEN g.cancel THEN 5 ELSE 4 END, g.priority, g.run_at, g.attempt,
            g.max_attempts, g.timeout_ms, g.worker, g.actor, g.request_id, g.told, g.progress, g.unique_key, g.created_at,
            g.started_at
        FROM gone g
    ), back AS (
        UPDATE job j SET state = 1, lease_until = NULL, errors = l.errors FROM lost l WHERE j.id = l.id AND NOT l.over
        RETURNING j.lane, j.tenant_id
    )
    SELECT b.lane, b.tenant_id FROM back b UNION ALL SELECT g.lane, g.tenant_id FROM gone g;
END $$";

/// Makes the partitions of today and the days after. A day is attached rather than made in its place: that waits for nobody who
/// adds to the others. Rows that came before their day's partition are moved to it; who adds one just then is refused, and adds
/// it again.
const MAKE_DAYS: &str = r"CREATE FUNCTION make_job_days() RETURNS void
LANGUAGE plpgsql SET timezone = 'UTC' AS $$
DECLARE
    day date;
    part text;
BEGIN
    -- One at a time. The number is the bytes of 'job_days'.
    PERFORM pg_advisory_xact_lock(7669631023110940019);
    FOR day IN SELECT generate_series(current_date, current_date + 2, interval '1 day') LOOP
        part := 'job_done_' || to_char(day, 'YYYYMMDD');
        CONTINUE WHEN to_regclass('bulkhead.' || part) IS NOT NULL;
        EXECUTE format('CREATE TABLE bulkhead.%I (LIKE bulkhead.job_done INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', part);
        EXECUTE format('WITH early AS (
                DELETE FROM bulkhead.job_done_default WHERE finished_at >= %L AND finished_at < %L RETURNING *)
            INSERT INTO bulkhead.%I SELECT * FROM early', day, day + 1, part);
        EXECUTE format('ALTER TABLE bulkhead.job_done ATTACH PARTITION bulkhead.%I FOR VALUES FROM (%L) TO (%L)', part, day, day + 1);
    END LOOP;
END $$";

/// Drops the oldest partition that is older than `days`. Returns whether there was one. Those who add jobs' ends wait behind it:
/// so it waits a moment for those who read, and is tried again.
const DROP_DAY: &str = r"CREATE FUNCTION drop_job_day(days integer) RETURNS boolean
LANGUAGE plpgsql SET timezone = 'UTC' SET lock_timeout = '100ms' AS $$
DECLARE
    part text;
BEGIN
    SELECT c.relname INTO part FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'bulkhead.job_done'::regclass AND c.relname ~ '^job_done_\d{8}$'
        AND to_date(right(c.relname, 8), 'YYYYMMDD') < current_date - days
    ORDER BY c.relname LIMIT 1;
    IF part IS NOT NULL THEN
        EXECUTE format('DROP TABLE bulkhead.%I', part);
    END IF;
    RETURN part IS NOT NULL;
END $$";

//! What tenants may do with jobs, for a schema that each tenant's own functions name; the tenants' roles cannot call these.

use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let list = LIST.replace("{over}", OVER);
        let cancel = CANCEL.replace("{columns}", COLUMNS);
        let functions = [LANE, ADD, ENQUEUE, &list, CHANGED, &cancel, RETRY, COMPLETE];
        crate::run(manager, &functions).await
    }
}

/// The lane of a tenant (none: the platform) and queue, made if there is none. Each lane has a share: a tenant has few.
const LANE: &str = r"CREATE FUNCTION lane_of(owner uuid, wanted text) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE found integer;
BEGIN
    LOOP
        IF owner IS NULL THEN
            SELECT l.id INTO found FROM bulkhead.lane l WHERE l.tenant_id IS NULL AND l.queue = wanted;
        ELSE
            SELECT l.id INTO found FROM bulkhead.lane l WHERE l.tenant_id = owner AND l.queue = wanted;
        END IF;
        IF found IS NOT NULL THEN
            RETURN found;
        END IF;
        IF (SELECT count(*) FROM bulkhead.lane l WHERE l.tenant_id = owner) >= 16 THEN
            RAISE EXCEPTION 'a tenant has at most 16 queues';
        END IF;
        INSERT INTO bulkhead.lane (tenant_id, queue) VALUES (owner, wanted) ON CONFLICT DO NOTHING;
    END LOOP;
END $$";

/// Adds a job. One with the key of a job that is not over yet is not added: the id is that job's.
pub(super) const ADD: &str = r"CREATE FUNCTION add_job(owner uuid, job_id uuid, job_kind text, job_args jsonb, attempts integer, timeout integer,
    job_queue text, job_priority smallint, job_run_at timestamptz, job_key text, job_actor text, job_request text)
RETURNS TABLE (id uuid, lane integer) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    its_lane integer := bulkhead.lane_of(owner, job_queue);
    its_id uuid;
BEGIN
    LOOP
        INSERT INTO bulkhead.job (id, lane, tenant_id, kind, args, state, priority, run_at, max_attempts, timeout_ms, unique_key,
            actor, request_id)
        VALUES (job_id, its_lane, owner, job_kind, job_args, CASE WHEN job_run_at > now() THEN 6 ELSE 1 END, job_priority,
            coalesce(job_run_at, now()), attempts, timeout, job_key, job_actor, job_request)
        ON CONFLICT ((coalesce(tenant_id, '00000000-0000-0000-0000-000000000000')), unique_key) WHERE unique_key IS NOT NULL
            DO NOTHING
        RETURNING bulkhead.job.id INTO its_id;
        IF its_id IS NULL THEN
            SELECT j.id INTO its_id FROM bulkhead.job j
            WHERE coalesce(j.tenant_id, '00000000-0000-0000-0000-000000000000')
                    = coalesce(owner, '00000000-0000-0000-0000-000000000000') AND j.unique_key = job_key;
        END IF;
        EXIT WHEN its_id IS NOT NULL;
    END LOOP;
    RETURN QUERY SELECT its_id, its_lane;
END $$";

/// Adds a job of the schema's tenant. A job that a job adds has the cause of that one.
const ENQUEUE: &str = r"CREATE FUNCTION enqueue_job(schema text, job_id uuid, job_kind text, job_args jsonb, attempts integer,
    timeout integer, job_queue text, job_priority smallint, job_run_at timestamptz, job_key text)
RETURNS TABLE (id uuid, lane integer) LANGUAGE plpgsql AS $$
DECLARE
    owner uuid := (SELECT t.id FROM bulkhead.tenant t WHERE t.schema_name = schema);
    actor text := current_setting('bulkhead.actor');
BEGIN
    IF owner IS NULL THEN
        RAISE EXCEPTION 'no tenant has this schema';
    END IF;
    IF job_run_at > now() + interval '10 years' THEN
        RAISE EXCEPTION 'a job is not scheduled for more than ten years from now';
    END IF;
    IF actor LIKE 'job:%' THEN
        actor := coalesce(nullif(current_setting('bulkhead.cause', true), ''), actor);
    END IF;
    RETURN QUERY SELECT * FROM bulkhead.add_job(owner, job_id, job_kind, job_args, attempts, timeout, job_queue, job_priority,
        job_run_at, job_key, actor, nullif(current_setting('bulkhead.request_id', true), ''));
END $$";

/// A page of a tenant's jobs, newest or oldest first: those with the given ids, in a state, made before and after others. What is
/// ready but waits for its time is in state 6.
///
/// The text is put together from what is written here alone, so that each question is planned for what it asks.
pub(super) const LIST: &str = r"CREATE FUNCTION list_jobs(schema text, only_ids uuid[], only_state smallint, before_id uuid, page integer,
    after_id uuid, oldest boolean)
RETURNS TABLE (id uuid, kind text, state smallint, attempt integer, last_error text, run_at timestamptz,
    started_at timestamptz, finished_at timestamptz, result_id uuid, progress real)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    wanted text := concat(' WHERE j.tenant_id = $6',
        CASE WHEN only_ids IS NOT NULL THEN ' AND j.id = ANY ($1)' END,
        CASE WHEN before_id IS NOT NULL THEN ' AND j.id < $3' END,
        CASE WHEN after_id IS NOT NULL THEN ' AND j.id > $4' END);
    sorted text := concat(' ORDER BY id', CASE WHEN NOT oldest THEN ' DESC' END, ' LIMIT $5');
    live text := concat('(SELECT j.id, j.kind, CASE WHEN j.state = 1 AND j.run_at > now() THEN 6::smallint ELSE j.state END, j.attempt,
            j.errors -> -1 ->> ''public'', j.run_at, j.started_at, NULL::timestamptz, NULL::uuid, j.progress
        FROM bulkhead.job j', wanted,
        CASE only_state
            WHEN 1 THEN ' AND j.state = 1 AND j.run_at <= now()'
            WHEN 2 THEN ' AND j.state = 2'
            WHEN 6 THEN ' AND (j.state = 6 OR j.state = 1 AND j.run_at > now())'
        END, sorted, ')');
    over text := concat('(SELECT {over}
        FROM bulkhead.job_done j', wanted,
        CASE WHEN only_state = 3 THEN ' AND j.state = 3'
            WHEN only_state IS NOT NULL THEN ' AND j.state <> 3 AND j.state = $2' END, sorted, ')');
BEGIN
    RETURN QUERY EXECUTE CASE
        WHEN only_state IN (1, 2, 6) THEN live
        WHEN only_state IS NOT NULL THEN over
        ELSE concat(live, ' UNION ALL ', over, sorted) END
    USING only_ids, only_state, before_id, after_id, page, (SELECT t.id FROM bulkhead.tenant t WHERE t.schema_name = schema);
END $$";

pub(super) const OVER: &str = "j.id, j.kind, j.state, j.attempt, j.errors -> -1 ->> ''public'', j.run_at, j.started_at, j.finished_at,
            j.result_id, j.progress";

/// A tenant's jobs that were changed last by one of the transactions `late`, or by one from `since` on and before `before`; in
/// either case by none of `running`.
const CHANGED: &str = r"CREATE FUNCTION list_changed_jobs(schema text, late bigint[], since bigint, before bigint, running bigint[],
    page integer)
RETURNS TABLE (id uuid, changed_in bigint) LANGUAGE plpgsql STABLE AS $$
DECLARE owner uuid := (SELECT t.id FROM bulkhead.tenant t WHERE t.schema_name = schema);
BEGIN
    RETURN QUERY
    SELECT j.id, j.changed_in FROM (
        SELECT l.id, l.changed_in FROM bulkhead.job l
        WHERE l.tenant_id = owner AND (l.changed_in = ANY (late) OR (l.changed_in >= since AND l.changed_in < before))
        UNION ALL
        SELECT o.id, o.changed_in FROM bulkhead.job_done o
        WHERE o.tenant_id = owner AND (o.changed_in = ANY (late) OR (o.changed_in >= since AND o.changed_in < before))) j
    WHERE j.changed_in <> ALL (running)
    ORDER BY j.changed_in, j.id LIMIT page;
END $$";

/// Columns that a job and one that is over have in common, but for `state`.
const COLUMNS: &str = "id, lane, tenant_id, kind, args, priority, run_at, attempt, max_attempts, timeout_ms, worker, actor,
            request_id, errors, progress, unique_key, created_at, started_at";

/// Ends a job that does not run yet, and asks one that runs to end: `cancelled`, `asked`; `over` if it is, null if there is none
/// of this owner. A claim that is under way is waited for.
pub(super) const CANCEL: &str = r"CREATE FUNCTION cancel_job(owner uuid, job_id uuid) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
    -- What it is may change until it is locked.
    PERFORM FROM bulkhead.job j WHERE j.id = job_id FOR UPDATE;
    WITH gone AS (
        DELETE FROM bulkhead.job j
        WHERE j.id = job_id AND j.tenant_id IS NOT DISTINCT FROM owner AND j.state + 0 IN (1, 6) RETURNING j.*)
    INSERT INTO bulkhead.job_done ({columns}, state) SELECT {columns}, 5 FROM gone;
    IF FOUND THEN
        RETURN 'cancelled';
    END IF;
    UPDATE bulkhead.job j SET cancel = true WHERE j.id = job_id AND j.tenant_id IS NOT DISTINCT FROM owner;
    IF FOUND THEN
        RETURN 'asked';
    END IF;
    RETURN (SELECT 'over' FROM bulkhead.job_done j WHERE j.id = job_id AND j.tenant_id IS NOT DISTINCT FROM owner);
END $$";

/// Begins a job anew that failed or was cancelled, with all its attempts; one that waits for another try or its time has its time
/// now. Returns the lane; null if there is none of this owner, it runs or succeeded, or another with its key is there. Its errors
/// are kept.
pub(super) const RETRY: &str = r"CREATE FUNCTION retry_job(owner uuid, job_id uuid) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE its_lane integer;
BEGIN
    UPDATE bulkhead.job j SET state = 1, run_at = now()
    WHERE j.id = job_id AND j.tenant_id IS NOT DISTINCT FROM owner AND j.state + 0 IN (1, 6) RETURNING j.lane INTO its_lane;
    IF its_lane IS NOT NULL THEN
        RETURN its_lane;
    END IF;
    WITH gone AS (
        DELETE FROM bulkhead.job_done j
        WHERE j.id = job_id AND j.tenant_id IS NOT DISTINCT FROM owner AND j.state IN (4, 5) RETURNING j.*)
    INSERT INTO bulkhead.job (id, lane, tenant_id, kind, args, priority, max_attempts, timeout_ms, actor, request_id, errors,
        unique_key, created_at)
    SELECT id, lane, tenant_id, kind, args, priority, max_attempts, timeout_ms, actor, request_id, errors, unique_key, created_at
    FROM gone RETURNING bulkhead.job.lane INTO its_lane;
    RETURN its_lane;
EXCEPTION WHEN unique_violation THEN
    RETURN NULL;
END $$";

/// Ends a run well, in the unit of work that has its effects. False: the claim is lost.
pub(super) const COMPLETE: &str = r"CREATE FUNCTION complete_job(schema text, job_id uuid, its_claim bigint, result uuid) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    WITH gone AS (
        DELETE FROM bulkhead.job j
        WHERE j.id = job_id AND j.claim = its_claim AND j.state + 0 = 2
            AND j.tenant_id = (SELECT t.id FROM bulkhead.tenant t WHERE t.schema_name = schema)
        RETURNING j.*)
    INSERT INTO bulkhead.job_done (id, lane, tenant_id, kind, args, state, priority, run_at, attempt, max_attempts, timeout_ms,
        worker, actor, request_id, errors, progress, unique_key, created_at, started_at, result_id)
    SELECT id, lane, tenant_id, kind, args, 3, priority, run_at, attempt, max_attempts, timeout_ms, worker, actor, request_id,
        errors, progress, unique_key, created_at, started_at, result FROM gone;
    RETURN FOUND;
END $$";

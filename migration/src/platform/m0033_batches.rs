//! Batches: a job that waits until others are over; the trace that a job belongs to; and how many jobs a tenant may have that
//! are not over.

use super::{m0011_job_ends, m0012_job_doors, m0030_claim};
use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, &COLUMNS).await?;
        for (before, changes) in CHANGED {
            let after = changed(before, changes)?;
            crate::run(manager, &[&after]).await?;
        }
        let claim = changed(m0030_claim::CLAIM, &CLAIM)?;
        crate::run(manager, &[DROP_CLAIM, &claim]).await?;
        crate::run(
            manager,
            &[
                DROP_ADD,
                &add()?,
                ACTOR,
                ROOM,
                ENQUEUE,
                BEFORE,
                BATCH,
                RELEASE,
                ENDS,
            ],
        )
        .await?;
        crate::run(manager, &DEFAULT).await
    }
}

/// `batch`: the job that waits for this one. `state` 7: waits for those. `trace`: a `traceparent` (W3C Trace Context).
const COLUMNS: [&str; 6] = [
    "ALTER TABLE job ADD COLUMN batch uuid, ADD COLUMN trace text",
    "ALTER TABLE job_done ADD COLUMN batch uuid, ADD COLUMN trace text",
    "ALTER TABLE job DROP CONSTRAINT job_state_check,
        ADD CONSTRAINT job_state_check CHECK (state IN (1, 2, 6, 7))",
    "CREATE INDEX job_batch_idx ON job (batch) WHERE batch IS NOT NULL",
    "CREATE INDEX job_waiting_idx ON job (id) WHERE state = 7",
    "CREATE INDEX job_done_batch_idx ON job_done (batch) WHERE batch IS NOT NULL",
];

/// What is different in a function of before.
type Changes = [(&'static str, &'static str)];

const REPLACE: (&str, &str) = ("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION");

/// A job keeps its batch and its trace when it is over, and when it begins anew.
const CHANGED: [(&str, &Changes); 6] = [
    (
        m0030_claim::END,
        &[
            (
                "started_at, result_id)",
                "started_at, result_id, batch, trace)",
            ),
            (
                "g.started_at, g.result\n",
                "g.started_at, g.result, g.batch, g.trace\n",
            ),
        ],
    ),
    (
        m0011_job_ends::REAP,
        &[
            REPLACE,
            (
                "created_at, started_at)",
                "created_at, started_at, batch, trace)",
            ),
            ("g.started_at\n", "g.started_at, g.batch, g.trace\n"),
        ],
    ),
    (
        m0012_job_doors::LIST,
        &[
            REPLACE,
            ("{over}", m0012_job_doors::OVER),
            (
                "CASE WHEN j.state = 1 AND j.run_at > now() THEN",
                "CASE WHEN j.state = 7 OR j.state = 1 AND j.run_at > now() THEN",
            ),
            ("(j.state = 6 OR", "(j.state IN (6, 7) OR"),
        ],
    ),
    (
        m0012_job_doors::CANCEL,
        &[
            REPLACE,
            ("{columns}", COMMON),
            ("j.state + 0 IN (1, 6)", "j.state + 0 IN (1, 6, 7)"),
        ],
    ),
    (
        m0012_job_doors::RETRY,
        &[
            REPLACE,
            (
                "unique_key, created_at",
                "unique_key, created_at, batch, trace",
            ),
        ],
    ),
    (
        m0012_job_doors::COMPLETE,
        &[
            REPLACE,
            (
                "started_at, result_id)",
                "started_at, result_id, batch, trace)",
            ),
            (
                "started_at, result FROM",
                "started_at, result, batch, trace FROM",
            ),
        ],
    ),
];

const COMMON: &str = "id, lane, tenant_id, kind, args, priority, run_at, attempt, max_attempts, timeout_ms, worker, actor,
            request_id, errors, progress, unique_key, created_at, started_at, batch, trace";

const DROP_CLAIM: &str = "DROP FUNCTION claim_jobs(uuid, integer[], integer, text[], jsonb, jsonb)";

/// A claim tells the batch and the trace of each job, and for how many seconds it could have been run.
const CLAIM: [(&str, &str); 4] = [
    (
        "cost real, unknown_since timestamptz)",
        "cost real, unknown_since timestamptz, batch uuid, trace text,
    waited real)",
    ),
    (
        "q.cost, q.unknown_since\n",
        "q.cost, q.unknown_since, q.batch, q.trace,
            extract(epoch FROM moment - q.run_at)::real\n",
    ),
    (
        "NULL, NULL FROM space",
        "NULL, NULL, NULL, NULL, NULL FROM space",
    ),
    (
        "NULL, NULL FROM ready",
        "NULL, NULL, NULL, NULL, NULL FROM ready",
    ),
];

const DROP_ADD: &str = "DROP FUNCTION add_job(uuid, uuid, text, jsonb, integer, integer, text, smallint, timestamptz, text, text, text)";

fn add() -> Result<String, DbErr> {
    changed(
        m0012_job_doors::ADD,
        &[
            (
                "job_request text)",
                "job_request text, job_trace text DEFAULT NULL)",
            ),
            ("actor, request_id)", "actor, request_id, trace)"),
            (
                "job_actor, job_request)",
                "job_actor, job_request, job_trace)",
            ),
        ],
    )
}

/// Who adds a job: what a job adds has the cause of that one.
const ACTOR: &str = r"CREATE FUNCTION job_actor() RETURNS text LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN current_setting('bulkhead.actor') LIKE 'job:%'
        THEN coalesce(nullif(current_setting('bulkhead.cause', true), ''), current_setting('bulkhead.actor'))
        ELSE current_setting('bulkhead.actor') END
$$";

/// Whether so many jobs more are too many for a tenant: then what is there and what may be. They are counted, up to the limit;
/// nobody waits for another's count, so what is added at the same moment may go over it.
const ROOM: &str = r"CREATE FUNCTION lacks_room(owner uuid, more bigint) RETURNS TABLE (used bigint, most bigint)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    allowed bigint := (SELECT (t.limits ->> 'queued_jobs')::bigint FROM bulkhead.tenant t WHERE t.id = owner);
    there bigint;
BEGIN
    IF allowed IS NOT NULL THEN
        SELECT count(*) INTO there FROM (SELECT FROM bulkhead.job j WHERE j.tenant_id = owner LIMIT allowed + 1) j;
        IF there + more > allowed THEN
            RETURN QUERY SELECT there, allowed;
        END IF;
    END IF;
END $$";

/// Adds a job of the schema's tenant, or says why there is no room for it. One that is there already needs none.
const ENQUEUE: &str = r"CREATE FUNCTION enqueue_within(schema text, job_id uuid, job_kind text, job_args jsonb, attempts integer,
    timeout integer, job_queue text, job_priority smallint, job_run_at timestamptz, job_key text)
RETURNS TABLE (id uuid, lane integer, used bigint, most bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    owner uuid := (SELECT t.id FROM bulkhead.tenant t WHERE t.schema_name = schema);
BEGIN
    IF owner IS NULL THEN
        RAISE EXCEPTION 'no tenant has this schema';
    END IF;
    IF job_run_at > now() + interval '10 years' THEN
        RAISE EXCEPTION 'a job is not scheduled for more than ten years from now';
    END IF;
    RETURN QUERY SELECT j.id, j.lane, NULL::bigint, NULL::bigint FROM bulkhead.job j
        WHERE job_key IS NOT NULL AND j.unique_key = job_key
            AND coalesce(j.tenant_id, '00000000-0000-0000-0000-000000000000') = owner;
    IF NOT FOUND THEN
        RETURN QUERY SELECT NULL::uuid, NULL::integer, r.used, r.most FROM bulkhead.lacks_room(owner, 1) r;
    END IF;
    IF NOT FOUND THEN
        RETURN QUERY SELECT a.id, a.lane, NULL::bigint, NULL::bigint
        FROM bulkhead.add_job(owner, job_id, job_kind, job_args, attempts, timeout, job_queue, job_priority, job_run_at, job_key,
            bulkhead.job_actor(), nullif(current_setting('bulkhead.request_id', true), ''),
            nullif(current_setting('bulkhead.traceparent', true), '')) a;
    END IF;
END $$";

/// What the doors of a schema call that is not migrated yet.
const BEFORE: &str = r"CREATE OR REPLACE FUNCTION enqueue_job(schema text, job_id uuid, job_kind text, job_args jsonb, attempts integer,
    timeout integer, job_queue text, job_priority smallint, job_run_at timestamptz, job_key text)
RETURNS TABLE (id uuid, lane integer) LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY SELECT e.id, e.lane FROM bulkhead.enqueue_within(schema, job_id, job_kind, job_args, attempts, timeout, job_queue,
        job_priority, job_run_at, job_key) e WHERE e.id IS NOT NULL;
END $$";

/// Adds jobs, and the one (`last`) that waits until they are over; if there are none of them, it waits for nothing. Returns the
/// lanes that have jobs to run, or why there is no room.
const BATCH: &str = r"CREATE FUNCTION enqueue_batch(schema text, members jsonb, last jsonb)
RETURNS TABLE (lane integer, used bigint, most bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    owner uuid := (SELECT t.id FROM bulkhead.tenant t WHERE t.schema_name = schema);
BEGIN
    IF owner IS NULL THEN
        RAISE EXCEPTION 'no tenant has this schema';
    END IF;
    RETURN QUERY SELECT NULL::integer, r.used, r.most FROM bulkhead.lacks_room(owner, jsonb_array_length(members) + 1) r;
    IF FOUND THEN
        RETURN;
    END IF;
    PERFORM bulkhead.lane_of(owner, q.queue)
    FROM (SELECT DISTINCT e ->> 'queue' AS queue FROM jsonb_array_elements(members || last) e) q;
    RETURN QUERY
    WITH added AS (
        INSERT INTO bulkhead.job (id, lane, tenant_id, kind, args, state, priority, max_attempts, timeout_ms, actor, request_id,
            trace, batch)
        SELECT (e.job ->> 'id')::uuid, l.id, owner, e.job ->> 'kind', e.job -> 'args',
            CASE WHEN e.is_last AND members <> '[]' THEN 7 ELSE 1 END, (e.job ->> 'priority')::smallint,
            (e.job ->> 'attempts')::integer, (e.job ->> 'timeout')::integer, bulkhead.job_actor(),
            nullif(current_setting('bulkhead.request_id', true), ''),
            nullif(current_setting('bulkhead.traceparent', true), ''),
            CASE WHEN NOT e.is_last THEN (last ->> 'id')::uuid END
        FROM (
            SELECT m.job, m.place, false AS is_last FROM jsonb_array_elements(members) WITH ORDINALITY m (job, place)
            UNION ALL SELECT last, 0, true) e
        JOIN bulkhead.lane l ON l.tenant_id = owner AND l.queue = e.job ->> 'queue'
        ORDER BY e.place
        RETURNING bulkhead.job.lane, bulkhead.job.state
    )
    SELECT DISTINCT a.lane, NULL::bigint, NULL::bigint FROM added a WHERE a.state = 1;
END $$";

/// Makes those ready of these waiting jobs (of all of them, without ids) that wait for nothing any more. Whoever ends jobs calls
/// it after the commit: the last of several who end the last ones at once sees that none is left, and no two of them wait for
/// each other. Who is cut off before leaves it to the next round of any worker.
const RELEASE: &str = r"CREATE FUNCTION release_batches(ids uuid[]) RETURNS TABLE (lane integer, tenant_id uuid)
LANGUAGE plpgsql
SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off SET enable_bitmapscan = off
    SET plan_cache_mode = force_generic_plan SET jit = off
AS $$
#variable_conflict use_column
DECLARE free uuid[];
BEGIN
    IF ids IS NULL THEN
        free := ARRAY(SELECT w.id FROM job w
            WHERE w.state = 7 AND NOT EXISTS (SELECT FROM job a WHERE a.batch = w.id)
            ORDER BY w.id LIMIT 1000 FOR UPDATE SKIP LOCKED);
    ELSE
        free := ARRAY(SELECT w.id FROM job w
            WHERE w.id = ANY (ids) AND w.state + 0 = 7 AND NOT EXISTS (SELECT FROM job a WHERE a.batch = w.id)
            ORDER BY w.id FOR UPDATE SKIP LOCKED);
    END IF;
    RETURN QUERY UPDATE job w SET state = 1, run_at = clock_timestamp() WHERE w.id = ANY (free) AND w.state + 0 = 7
        RETURNING w.lane, w.tenant_id;
END $$";

/// How the jobs ended that a job has waited for.
const ENDS: &str = r"CREATE FUNCTION batch_ends(schema text, job_id uuid)
RETURNS TABLE (done bigint, dead bigint, cancelled bigint) LANGUAGE sql STABLE AS $$
    SELECT count(*) FILTER (WHERE j.state = 3), count(*) FILTER (WHERE j.state = 4), count(*) FILTER (WHERE j.state = 5)
    FROM bulkhead.job_done j
    WHERE j.batch = job_id AND j.tenant_id = (SELECT t.id FROM bulkhead.tenant t WHERE t.schema_name = schema)
$$";

/// Plans that are there already get the limit; `bulkhead plan set <plan> --limit queued_jobs=unlimited` takes it away.
const DEFAULT: [&str; 2] = [
    r#"UPDATE plan SET limits = '{"queued_jobs": 100000}' || limits"#,
    "UPDATE tenant t SET limits = jsonb_strip_nulls(p.limits || t.overrides) FROM plan p WHERE p.name = t.plan",
];

/// The function with these changes, each of which must be there to make.
fn changed(before: &str, changes: &Changes) -> Result<String, DbErr> {
    changes
        .iter()
        .try_fold(before.to_owned(), |text, (from, to)| {
            if text.contains(from) {
                return Ok(text.replace(from, to));
            }
            Err(DbErr::Custom(format!("there is no {from:?} to change")))
        })
}

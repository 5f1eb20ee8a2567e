//! The claim once more, in steps of its own: what a lane has is read, locked and begun, each by one list of places in the table.
//! And the usual end of a run, told in lists too. Whatever is planned here may have been planned for an empty table.

use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, &INDEXES).await?;
        crate::run(manager, &[TAKE, DONE, END, REAP, CHANGED]).await
    }
}

/// With its place in the lane an entry goes to the end of those that are there: no room is to be found for it among all that have
/// the lane's number alone; and since a claim changes neither, a page that is full of those that ran before is cleared at once.
/// Jobs that run are found by their lanes: who follows a tenant's jobs needs no index more of them.
///
/// They are dropped first: whoever reads jobs and then adds one would wait for this, and this for him, if it began with a lesser
/// lock.
const INDEXES: [&str; 4] = [
    "DROP INDEX job_running_idx",
    "CREATE INDEX job_running_idx ON job (lane, seq) WHERE state = 2",
    "DROP INDEX job_changed_idx",
    "CREATE INDEX job_changed_idx ON job (tenant_id, changed_in) WHERE state <> 2",
];

/// What `claim_jobs` does, which binaries of before call: takes up to `wanted` jobs of the `candidates`, those lanes that are the
/// furthest behind by start-time fair queueing.
///
/// - A claim holds the lanes that it takes from. Those that another claim holds are skipped; only if all are, it waits for the one
///   that is the furthest behind, and then sees what the other one did.
/// - Virtual time is the smallest start tag entering service: of each node's last claim, the smallest over those that claimed just
///   now. A lane that was idle re-enters there: it has no credit for having been idle.
/// - The room of a lane is counted in a statement that begins after the lane was locked, so that what another claim took counts. It
///   is looked into for more than its share by weight, so that one that is behind catches up.
/// - `costs` gives the seconds of each kind, under the empty name those of an unknown one; `corrections` what lanes owe of before.
///
/// Returns the jobs, each with its place in its lane (`priority`, `seq`) and what the lane was charged for it (`cost`); for each
/// lane that was looked into a row with its `room`, virtual time (`start`) and `weight`; and one with how many it had (`found`).
const TAKE: &str = r"CREATE FUNCTION take_jobs(node_id uuid, candidates integer[], wanted integer, queues text[], costs jsonb,
    corrections jsonb)
RETURNS TABLE (lane integer, room integer, start double precision, weight real, found bigint, id uuid, priority smallint,
    seq bigint, tenant_id uuid, kind text, args text, claim bigint, attempt integer, max_attempts integer, timeout_ms integer,
    actor text, request_id text, cost real, batch uuid, trace text, waited real)
LANGUAGE plpgsql
SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off SET enable_bitmapscan = off
    SET plan_cache_mode = force_generic_plan SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    present double precision;
    locked integer[];
    limited uuid[];
    one integer;
    weights double precision;
    token bigint := nextval('claim_number');
    moment timestamptz;
    places tid[];
    looked integer[];
    rooms integer[];
    starts double precision[];
    lefts double precision[];
    their_weights real[];
    filled integer[];
    counts bigint[];
BEGIN
    -- A claim that is lost in a crash is a job that is still ready.
    SET LOCAL synchronous_commit = off;
    SELECT coalesce(min(n.virtual_time) FILTER (WHERE n.claimed_at > clock_timestamp() - interval '1 second'),
        max(n.virtual_time), 0) INTO present FROM node n WHERE n.queues IS NOT DISTINCT FROM take_jobs.queues;
    LOOP
        locked := ARRAY(
            SELECT l.id FROM lane l LEFT JOIN tenant t ON t.id = l.tenant_id
            WHERE l.id = ANY (candidates) AND l.paused IS NULL AND (queues IS NULL OR l.queue = ANY (queues))
                AND (l.tenant_id IS NULL OR t.state = 'active')
            FOR NO KEY UPDATE OF l SKIP LOCKED);
        EXIT WHEN locked <> '{}' OR one IS NOT NULL;
        SELECT l.id INTO one FROM lane l LEFT JOIN tenant t ON t.id = l.tenant_id
        WHERE l.id = ANY (candidates) AND l.paused IS NULL AND (queues IS NULL OR l.queue = ANY (queues))
            AND (l.tenant_id IS NULL OR t.state = 'active')
        ORDER BY greatest(l.vtime, present), l.id LIMIT 1;
        EXIT WHEN one IS NULL;
        PERFORM FROM lane l WHERE l.id = one FOR NO KEY UPDATE;
    END LOOP;

    -- A tenant's limit holds over all its lanes: its row is the turnstile.
    limited := ARRAY(
        SELECT t.id FROM tenant t
        WHERE t.id = ANY (ARRAY(SELECT l.tenant_id FROM lane l WHERE l.id = ANY (locked))) AND t.limits ? 'concurrent_jobs'
        FOR NO KEY UPDATE SKIP LOCKED);
    weights := (SELECT sum(l.weight) FROM lane l WHERE l.id = ANY (locked));
    moment := clock_timestamp();

    WITH space AS MATERIALIZED (
        SELECT l.id, l.weight, tokens.left,
            greatest(l.vtime + coalesce((corrections ->> l.id::text)::double precision, 0) / l.weight, present) AS start,
            least(wanted, ceil(1.5 * wanted * l.weight / weights),
                CASE WHEN l.cap IS NOT NULL THEN
                    greatest(l.cap - (SELECT count(*) FROM job r WHERE r.lane = l.id AND r.state = 2), 0) END,
                floor(tokens.left))::integer AS room,
            CASE WHEN t.limits ? 'concurrent_jobs' THEN t.id END AS limited,
            CASE WHEN t.limits ? 'concurrent_jobs' THEN greatest((t.limits ->> 'concurrent_jobs')::bigint - (
                SELECT count(*) FROM job r
                WHERE r.lane = ANY (ARRAY(SELECT o.id FROM lane o WHERE o.tenant_id = t.id)) AND r.state = 2), 0)
            END AS tenant_room
        FROM lane l LEFT JOIN tenant t ON t.id = l.tenant_id
        CROSS JOIN LATERAL (
            SELECT CASE WHEN l.rate IS NOT NULL THEN
                least(l.burst, l.tokens + l.rate * greatest(date_part('epoch', moment - l.tokens_at), 0)) END AS left) tokens
        WHERE l.id = ANY (locked) AND (t.id IS NULL OR NOT t.limits ? 'concurrent_jobs' OR t.id = ANY (limited))
    ), ready AS MATERIALIZED (
        SELECT s.id AS lane, s.limited, s.tenant_room, j.at, j.place, s.start + coalesce(j.before, 0) / s.weight AS tag
        FROM space s CROSS JOIN LATERAL (
            SELECT w.at, row_number() OVER ordered AS place,
                sum(coalesce((costs ->> w.kind)::double precision, (costs ->> '')::double precision))
                    OVER (ordered ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
            FROM (
                SELECT q.ctid AS at, q.priority, q.seq, q.kind
                FROM job q WHERE q.lane = s.id AND q.state = 1 AND q.run_at <= moment
                ORDER BY q.priority, q.seq LIMIT s.room) w
            WINDOW ordered AS (ORDER BY w.priority, w.seq)) j
    ), chosen AS (
        SELECT c.at FROM (
            SELECT r.at, r.tag, r.lane, r.place FROM ready r WHERE r.limited IS NULL
            UNION ALL
            SELECT r.at, r.tag, r.lane, r.place FROM (
                SELECT r.*, row_number() OVER (PARTITION BY r.limited ORDER BY r.tag, r.lane, r.place) AS nth
                FROM ready r WHERE r.limited IS NOT NULL) r
            WHERE r.nth <= r.tenant_room) c
        ORDER BY c.tag, c.lane, c.place LIMIT wanted
    )
    SELECT ARRAY(SELECT c.at FROM chosen c), s.*, f.* INTO places, looked, rooms, starts, lefts, their_weights, filled, counts
    FROM (SELECT array_agg(s.id), array_agg(least(s.room, s.tenant_room)::integer), array_agg(s.start), array_agg(s.left),
            array_agg(s.weight) FROM space s) s,
        (SELECT array_agg(r.lane), array_agg(r.found)
            FROM (SELECT r.lane, count(*) AS found FROM ready r GROUP BY r.lane) r) f;

    -- Nobody else claims from these lanes; but one may be cancelled just now.
    places := ARRAY(SELECT q.ctid FROM job q WHERE q.ctid = ANY (places) AND q.state + 0 = 1 FOR UPDATE SKIP LOCKED);
    RETURN QUERY
    WITH begun AS (
        UPDATE job q SET state = 2, attempt = q.attempt + 1, claim = token, worker = node_id::text,
            cost = coalesce((costs ->> q.kind)::real, (costs ->> '')::real), lease_until = moment + interval '30 seconds',
            started_at = moment, progress = NULL, changed_in = txid_current()
        WHERE q.ctid = ANY (places)
        RETURNING q.lane, NULL::integer, NULL::double precision, NULL::real, NULL::bigint, q.id, q.priority, q.seq, q.tenant_id,
            q.kind, q.args::text, q.claim, q.attempt, q.max_attempts, q.timeout_ms, q.actor, q.request_id, q.cost, q.batch, q.trace,
            date_part('epoch', moment - q.run_at)::real
    ), shares AS MATERIALIZED (
        SELECT b.lane, array_position(looked, b.lane) AS nth, count(*) AS jobs, sum(b.cost::double precision) AS cost
        FROM begun b GROUP BY b.lane
    ), charged AS (
        UPDATE lane l SET vtime = starts[s.nth] + s.cost / l.weight, tokens = coalesce(lefts[s.nth] - s.jobs, l.tokens),
            tokens_at = CASE WHEN lefts[s.nth] IS NULL THEN l.tokens_at ELSE moment END
        FROM shares s WHERE l.id = s.lane
    ), told AS (
        UPDATE node n SET virtual_time = greatest(n.virtual_time, (SELECT min(starts[s.nth]) FROM shares s)), claimed_at = moment
        WHERE n.id = node_id AND places <> '{}'
    )
    SELECT * FROM begun
    UNION ALL
    SELECT p.lane, p.room, p.start, p.weight, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
        NULL, NULL, NULL
    FROM unnest(looked, rooms, starts, their_weights) AS p (lane, room, start, weight)
    UNION ALL
    SELECT p.lane, NULL, NULL, NULL, p.found, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
        NULL, NULL, NULL
    FROM unnest(filled, counts) AS p (lane, found);
END $$";

/// What `end_jobs` does for runs that went well and made no media: ends them, each under its claim. Returns the jobs that were
/// still theirs. They are found by a list of ids, and not by a join, which could be planned the other way round.
const DONE: &str = r"CREATE FUNCTION done_jobs(ids uuid[], claims bigint[]) RETURNS SETOF uuid
LANGUAGE plpgsql
SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off SET enable_bitmapscan = off
    SET plan_cache_mode = force_generic_plan SET jit = off
AS $$
BEGIN
    RETURN QUERY
    WITH gone AS (
        DELETE FROM job j
        WHERE j.id = ANY (ids) AND j.claim = claims[array_position(ids, j.id)] AND j.state + 0 = 2
        RETURNING j.*
    ), kept AS (
        INSERT INTO job_done (id, lane, tenant_id, kind, args, state, priority, run_at, attempt, max_attempts, timeout_ms,
            worker, actor, request_id, errors, progress, unique_key, created_at, started_at, batch, trace)
        SELECT g.id, g.lane, g.tenant_id, g.kind, g.args, 3, g.priority, g.run_at, g.attempt, g.max_attempts, g.timeout_ms,
            g.worker, g.actor, g.request_id, g.errors, g.progress, g.unique_key, g.created_at, g.started_at, g.batch, g.trace
        FROM gone g
    )
    SELECT g.id FROM gone g;
END $$";

/// It does what it did (m0011, m0030), and names the ids besides: whichever way round it is planned, it reads no other job.
const END: &str = r"CREATE OR REPLACE FUNCTION end_jobs(ends jsonb) RETURNS SETOF uuid
LANGUAGE plpgsql
SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off SET enable_bitmapscan = off
    SET plan_cache_mode = force_generic_plan SET jit = off
AS $$
DECLARE ids uuid[] := ARRAY(SELECT (e ->> 'id')::uuid FROM jsonb_array_elements(ends) e);
BEGIN
    RETURN QUERY
    WITH said AS MATERIALIZED (
        SELECT * FROM jsonb_to_recordset(ends)
            AS e (id uuid, claim bigint, state smallint, back boolean, after_ms bigint, error jsonb, result uuid, unknown boolean)
    ), gone AS (
        DELETE FROM job j USING said e
        WHERE j.id = ANY (ids) AND j.id = e.id AND j.claim = e.claim AND j.state + 0 = 2
            AND (e.state IN (3, 4, 5) OR j.cancel OR e.unknown AND j.unknown_since < clock_timestamp() - interval '24 hours')
        RETURNING j.*, CASE WHEN e.state IN (3, 4, 5) THEN e.state WHEN j.cancel THEN 5 ELSE 4 END AS ended, e.error, e.result
    ), kept AS (
        INSERT INTO job_done (id, lane, tenant_id, kind, args, state, priority, run_at, attempt, max_attempts, timeout_ms,
            worker, actor, request_id, errors, progress, unique_key, created_at, started_at, result_id, batch, trace)
        SELECT g.id, g.lane, g.tenant_id, g.kind, g.args, g.ended, g.priority, g.run_at, g.attempt, g.max_attempts, g.timeout_ms,
            g.worker, g.actor, g.request_id,
            CASE WHEN g.error IS NULL THEN g.errors ELSE jsonb_path_query_array(g.errors || g.error, '$[last - 4 to last]') END,
            g.progress, g.unique_key, g.created_at, g.started_at, g.result, g.batch, g.trace
        FROM gone g
    ), again AS (
        UPDATE job j SET state = e.state, attempt = j.attempt - e.back::integer, lease_until = NULL,
            run_at = CASE WHEN e.after_ms = 0 THEN j.run_at ELSE clock_timestamp() + e.after_ms * interval '1 millisecond' END,
            unknown_since = CASE WHEN e.unknown THEN coalesce(j.unknown_since, clock_timestamp()) END, changed_in = txid_current(),
            errors = CASE WHEN e.error IS NULL OR e.unknown THEN j.errors
                ELSE jsonb_path_query_array(j.errors || e.error, '$[last - 4 to last]') END
        FROM said e
        WHERE j.id = ANY (ids) AND j.id = e.id AND j.claim = e.claim AND j.state + 0 = 2 AND e.state IN (1, 6) AND NOT j.cancel
            AND (NOT e.unknown OR j.unknown_since >= clock_timestamp() - interval '24 hours') IS NOT FALSE
        RETURNING j.id
    )
    SELECT g.id FROM gone g UNION ALL SELECT a.id FROM again a;
END $$";

/// The same of `reap_jobs`.
const REAP: &str = r"CREATE OR REPLACE FUNCTION reap_jobs() RETURNS TABLE (lane integer, tenant_id uuid)
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
        DELETE FROM job j USING lost l WHERE j.id = ANY (ARRAY(SELECT o.id FROM lost o)) AND j.id = l.id AND l.over
        RETURNING j.*, l.errors AS told
    ), kept AS (
        INSERT INTO job_done (id, lane, tenant_id, kind, args, state, priority, run_at, attempt, max_attempts, timeout_ms,
            worker, actor, request_id, errors, progress, unique_key, created_at, started_at, batch, trace)
        SELECT g.id, g.lane, g.tenant_id, g.kind, g.args, CASE WHEN g.cancel THEN 5 ELSE 4 END, g.priority, g.run_at, g.attempt,
            g.max_attempts, g.timeout_ms, g.worker, g.actor, g.request_id, g.told, g.progress, g.unique_key, g.created_at,
            g.started_at, g.batch, g.trace
        FROM gone g
    ), back AS (
        UPDATE job j SET state = 1, lease_until = NULL, errors = l.errors FROM lost l
        WHERE j.id = ANY (ARRAY(SELECT o.id FROM lost o)) AND j.id = l.id AND NOT l.over
        RETURNING j.lane, j.tenant_id
    )
    SELECT b.lane, b.tenant_id FROM back b UNION ALL SELECT g.lane, g.tenant_id FROM gone g;
END $$";

/// A tenant's jobs that were changed last by one of the transactions `late`, or by one from `since` on and before `before`; in
/// either case by none of `running`. Those that run are found by the tenant's lanes.
const CHANGED: &str = r"CREATE OR REPLACE FUNCTION list_changed_jobs(schema text, late bigint[], since bigint, before bigint,
    running bigint[], page integer)
RETURNS TABLE (id uuid, changed_in bigint) LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE owner uuid := (SELECT t.id FROM bulkhead.tenant t WHERE t.schema_name = schema);
BEGIN
    RETURN QUERY
    SELECT j.id, j.changed_in FROM (
        SELECT l.id, l.changed_in FROM bulkhead.job l
        WHERE l.tenant_id = owner AND l.state <> 2
            AND (l.changed_in = ANY (late) OR (l.changed_in >= since AND l.changed_in < before))
        UNION ALL
        SELECT r.id, r.changed_in FROM bulkhead.job r
        WHERE r.lane = ANY (ARRAY(SELECT o.id FROM bulkhead.lane o WHERE o.tenant_id = owner)) AND r.state = 2
            AND (r.changed_in = ANY (late) OR (r.changed_in >= since AND r.changed_in < before))
        UNION ALL
        SELECT o.id, o.changed_in FROM bulkhead.job_done o
        WHERE o.tenant_id = owner AND (o.changed_in = ANY (late) OR (o.changed_in >= since AND o.changed_in < before))) j
    WHERE j.changed_in <> ALL (running)
    ORDER BY j.changed_in, j.id LIMIT page;
END $$";

//! The claim once more, in steps of its own: what a lane has is read, locked and begun, each by one list of places in the table.
//! And the usual end of a run, told in lists too.

use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, &INDEXES).await?;
        crate::run(manager, &[TAKE, DONE, CHANGED]).await
    }
}

/// A claim has a number of its own: an index that has it in its key is not searched for room among the entries of the lane's jobs
/// that ran before. Jobs that run are found by their lanes: who follows a tenant's jobs needs no index more of them.
const INDEXES: [&str; 4] = [
    "DROP INDEX job_running_idx",
    "CREATE INDEX job_running_idx ON job (lane, claim) WHERE state = 2",
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
    first double precision;
    looked integer[];
    rooms integer[];
    starts double precision[];
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
        SELECT l.id, l.weight,
            greatest(l.vtime + coalesce((corrections ->> l.id::text)::double precision, 0) / l.weight, present) AS start,
            least(wanted, ceil(1.5 * wanted * l.weight / weights),
                CASE WHEN l.cap IS NOT NULL THEN
                    greatest(l.cap - (SELECT count(*) FROM job r WHERE r.lane = l.id AND r.state = 2), 0) END,
                CASE WHEN l.rate IS NOT NULL THEN
                    floor(least(l.burst, l.tokens + l.rate * greatest(date_part('epoch', moment - l.tokens_at), 0))) END
            )::integer AS room,
            CASE WHEN t.limits ? 'concurrent_jobs' THEN t.id END AS limited,
            CASE WHEN t.limits ? 'concurrent_jobs' THEN greatest((t.limits ->> 'concurrent_jobs')::bigint - (
                SELECT count(*) FROM job r
                WHERE r.lane = ANY (ARRAY(SELECT o.id FROM lane o WHERE o.tenant_id = t.id)) AND r.state = 2), 0)
            END AS tenant_room
        FROM lane l LEFT JOIN tenant t ON t.id = l.tenant_id
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
    ), chosen AS MATERIALIZED (
        SELECT c.at, c.tag FROM (
            SELECT r.at, r.tag, r.lane, r.place FROM ready r WHERE r.limited IS NULL
            UNION ALL
            SELECT r.at, r.tag, r.lane, r.place FROM (
                SELECT r.*, row_number() OVER (PARTITION BY r.limited ORDER BY r.tag, r.lane, r.place) AS nth
                FROM ready r WHERE r.limited IS NOT NULL) r
            WHERE r.nth <= r.tenant_room) c
        ORDER BY c.tag, c.lane, c.place LIMIT wanted
    )
    SELECT ARRAY(SELECT c.at FROM chosen c), (SELECT min(c.tag) FROM chosen c), s.*, f.*
    INTO places, first, looked, rooms, starts, their_weights, filled, counts
    FROM (SELECT array_agg(s.id), array_agg(least(s.room, s.tenant_room)::integer), array_agg(s.start), array_agg(s.weight)
            FROM space s) s,
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
    ), charged AS (
        UPDATE lane l SET
            vtime = greatest(l.vtime + coalesce((corrections ->> l.id::text)::double precision, 0) / l.weight, present)
                + s.cost / l.weight,
            tokens = CASE WHEN l.rate IS NULL THEN l.tokens
                ELSE least(l.burst, l.tokens + l.rate * greatest(date_part('epoch', moment - l.tokens_at), 0)) - s.jobs END,
            tokens_at = CASE WHEN l.rate IS NULL THEN l.tokens_at ELSE moment END
        FROM (SELECT b.lane, count(*) AS jobs, sum(b.cost::double precision) AS cost FROM begun b GROUP BY b.lane) s
        WHERE l.id = s.lane
    ), told AS (
        UPDATE node n SET virtual_time = greatest(n.virtual_time, first), claimed_at = moment
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
/// still theirs.
const DONE: &str = r"CREATE FUNCTION done_jobs(ids uuid[], claims bigint[]) RETURNS SETOF uuid
LANGUAGE plpgsql
SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off SET enable_bitmapscan = off
    SET plan_cache_mode = force_generic_plan SET jit = off
AS $$
BEGIN
    RETURN QUERY
    WITH gone AS (
        DELETE FROM job j USING unnest(ids, claims) AS e (id, claim)
        WHERE j.id = e.id AND j.claim = e.claim AND j.state + 0 = 2
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

//! The claim: start-time fair queueing over lanes (Goyal, Vin, Cheng: "Start-time fair queueing", 1996), with caps, rates and
//! tenants' limits, as one function, so that each of its statements sees what is committed by then.

use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, &[CLAIM]).await
    }
}

/// Claims up to `wanted` jobs of the `candidates`, which are a hint: ids of lanes that may have ready jobs. `costs` are mean
/// run times by kind, in seconds (`""`: of a kind that is not known); `corrections`, by lane, what lanes were charged too little
/// for jobs that have run.
///
/// Returns the jobs, each with the start tag and the weight of its lane; for each lane it looked at a row with its first start
/// tag and how many of its jobs there was room for; and for each that had some a row with how many were found. What it does not
/// look at (paused, its tenant out of use, locked) it does not name. A correction is made where a job is taken.
///
/// 1. The lanes are locked, so that no other claim takes from them; nobody who adds a job waits for that (a foreign key's lock
///    does not conflict), and one that is locked is skipped. Only if all are, it waits for one.
/// 2. Only then, in a statement of its own, is counted what runs: a count from before the lock is not to be trusted.
/// 3. Start tags: a lane's own virtual time, but not before the present one, so that none gathers credit while it is idle. The
///    present virtual time is the smallest tag that entered service last, in any process of the same queues (time passes in each
///    set of queues for itself): the largest would bring those behind forward, whatever their weight.
/// 4. The smallest tags start. A lane is looked into a little deeper than its share: what it lacks it makes up the next time.
///
/// The plan must not depend on statistics, which no queue of changing size has: no hash, no merge, no scan of a table; and it is
/// not compiled, which takes longer than it runs.
pub(super) const CLAIM: &str = r"CREATE FUNCTION claim_jobs(node_id uuid, candidates integer[], wanted integer, queues text[], costs jsonb,
    corrections jsonb)
RETURNS TABLE (lane integer, room integer, found bigint, start double precision, weight real, id uuid, tenant_id uuid,
    kind text, args text, claim bigint, attempt integer, max_attempts integer, timeout_ms integer, actor text,
    request_id text, cost real, unknown_since timestamptz)
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
    depth integer;
    token bigint := nextval('claim_number');
    moment timestamptz;
BEGIN
    -- A claim that is lost in a crash is a job that is still ready.
    SET LOCAL synchronous_commit = off;
    SELECT coalesce(min(n.virtual_time) FILTER (WHERE n.claimed_at > clock_timestamp() - interval '1 second'),
        max(n.virtual_time), 0) INTO present FROM node n WHERE n.queues IS NOT DISTINCT FROM claim_jobs.queues;
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
    depth := least(wanted, ceil(4.0 * wanted / greatest(cardinality(locked), 1)));
    moment := clock_timestamp();

    RETURN QUERY
    WITH space AS MATERIALIZED (
        SELECT l.id, l.tenant_id, l.weight, tokens.left,
            greatest(l.vtime + coalesce((corrections ->> l.id::text)::double precision, 0) / l.weight, present) AS start,
            least(depth,
                CASE WHEN l.cap IS NOT NULL THEN
                    greatest(l.cap - (SELECT count(*) FROM job r WHERE r.lane = l.id AND r.state = 2), 0) END,
                floor(tokens.left))::integer AS room,
            CASE WHEN t.limits ? 'concurrent_jobs' THEN greatest((t.limits ->> 'concurrent_jobs')::bigint - (
                SELECT count(*) FROM job r
                WHERE r.lane = ANY (ARRAY(SELECT o.id FROM lane o WHERE o.tenant_id = t.id)) AND r.state = 2), 0)
            END AS tenant_room
        FROM lane l LEFT JOIN tenant t ON t.id = l.tenant_id
        CROSS JOIN LATERAL (
            SELECT CASE WHEN l.rate IS NOT NULL THEN
                least(l.burst, l.tokens + l.rate * greatest(extract(epoch FROM moment - l.tokens_at), 0)) END AS left) tokens
        WHERE l.id = ANY (locked) AND (t.id IS NULL OR NOT t.limits ? 'concurrent_jobs' OR t.id = ANY (limited))
    ), ready AS MATERIALIZED (
        SELECT s.id AS lane, s.tenant_id, s.tenant_room, s.weight, s.left, s.start, j.id, j.cost,
            row_number() OVER ordered AS place,
            s.start + coalesce(sum(j.cost) OVER (ordered ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) / s.weight AS tag
        FROM space s CROSS JOIN LATERAL (
            SELECT q.id, q.priority, q.seq, coalesce((costs ->> q.kind)::double precision, (costs ->> '')::double precision) AS cost
            FROM job q WHERE q.lane = s.id AND q.state = 1 AND q.run_at <= moment
            ORDER BY q.priority, q.seq LIMIT s.room) j
        WINDOW ordered AS (PARTITION BY s.id ORDER BY j.priority, j.seq)
    ), chosen AS MATERIALIZED (
        SELECT r.*
        FROM (SELECT *, row_number() OVER (PARTITION BY tenant_id ORDER BY tag, lane, place) AS nth FROM ready) r
        WHERE r.tenant_room IS NULL OR r.nth <= r.tenant_room
        ORDER BY r.tag, r.lane, r.place LIMIT wanted
    ), taken AS MATERIALIZED (
        -- Nobody else claims from these lanes; but one may be cancelled just now.
        SELECT c.* FROM chosen c JOIN job q ON q.id = c.id WHERE q.state + 0 = 1 FOR UPDATE OF q SKIP LOCKED
    ), charged AS (
        UPDATE lane l SET vtime = s.start + s.cost / l.weight,
            tokens = coalesce(s.left - s.jobs, l.tokens), tokens_at = CASE WHEN s.left IS NULL THEN l.tokens_at ELSE moment END
        FROM (SELECT t.lane, t.start, t.left, count(*) AS jobs, sum(t.cost) AS cost FROM taken t GROUP BY t.lane, t.start, t.left) s
        WHERE l.id = s.lane
    ), told AS (
        UPDATE node n SET virtual_time = greatest(n.virtual_time, (SELECT min(t.tag) FROM taken t)), claimed_at = moment
        WHERE n.id = node_id AND EXISTS (SELECT FROM taken)
    ), begun AS (
        UPDATE job q SET state = 2, attempt = q.attempt + 1, claim = token, worker = node_id::text, cost = t.cost,
            lease_until = moment + interval '30 seconds', started_at = moment, progress = NULL
        FROM taken t WHERE q.id = t.id
        RETURNING t.lane, NULL::integer, NULL::bigint, t.tag, t.weight, q.id, q.tenant_id, q.kind, q.args::text, q.claim, q.attempt,
            q.max_attempts, q.timeout_ms, q.actor, q.request_id, q.cost, q.unknown_since
    )
    SELECT * FROM begun
    UNION ALL
    SELECT s.id, least(s.room, s.tenant_room)::integer, NULL, s.start,
        NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM space s
    UNION ALL
    SELECT r.lane, NULL, count(*), NULL,
        NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM ready r GROUP BY r.lane;
END $$";

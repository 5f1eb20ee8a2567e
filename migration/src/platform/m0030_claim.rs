//! The claim and the ends of jobs again, cheaper: a running job is in one index less, and what a claim reads grows with what it
//! takes.

use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, &TABLE).await?;
        crate::run(manager, &[CLAIM, END]).await
    }
}

/// Those that run are few: whose lease has ended is found among them. So a lease that is prolonged changes no index. Who notes
/// himself which transaction changed a job spares the trigger, which takes longer than the change.
const TABLE: [&str; 3] = [
    "DROP INDEX job_lease_idx",
    "DROP TRIGGER job_changed ON job",
    "CREATE TRIGGER job_changed BEFORE UPDATE OF state, attempt, run_at, errors, progress ON job
        FOR EACH ROW WHEN (NEW.changed_in IS NOT DISTINCT FROM OLD.changed_in) EXECUTE FUNCTION note_job_change()",
];

/// What it does is told where it was made first. A lane is looked into for twice its share by weight, so that one that is behind
/// catches up. Only jobs of tenants with a limit are numbered, and each job that is taken is found by its place in the table.
pub(super) const CLAIM: &str = r"CREATE OR REPLACE FUNCTION claim_jobs(node_id uuid, candidates integer[], wanted integer, queues text[], costs jsonb,
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
    weights double precision;
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
    weights := (SELECT sum(l.weight) FROM lane l WHERE l.id = ANY (locked));
    moment := clock_timestamp();

    RETURN QUERY
    WITH space AS MATERIALIZED (
        SELECT l.id, l.tenant_id, l.weight, tokens.left,
            greatest(l.vtime + coalesce((corrections ->> l.id::text)::double precision, 0) / l.weight, present) AS start,
            least(wanted, ceil(2.0 * wanted * l.weight / weights),
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
        SELECT s.id AS lane, s.tenant_id, s.tenant_room, s.weight, s.left, s.start, j.at, j.cost, j.place,
            s.start + coalesce(j.before, 0) / s.weight AS tag
        FROM space s CROSS JOIN LATERAL (
            SELECT w.at, w.cost, row_number() OVER ordered AS place,
                sum(w.cost) OVER (ordered ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
            FROM (
                SELECT q.ctid AS at, q.priority, q.seq,
                    coalesce((costs ->> q.kind)::double precision, (costs ->> '')::double precision) AS cost
                FROM job q WHERE q.lane = s.id AND q.state = 1 AND q.run_at <= moment
                ORDER BY q.priority, q.seq LIMIT s.room) w
            WINDOW ordered AS (ORDER BY w.priority, w.seq)) j
    ), chosen AS MATERIALIZED (
        SELECT c.* FROM (
            SELECT r.*, NULL::bigint AS nth FROM ready r WHERE r.tenant_room IS NULL
            UNION ALL
            SELECT * FROM (
                SELECT r.*, row_number() OVER (PARTITION BY r.tenant_id ORDER BY r.tag, r.lane, r.place) AS nth
                FROM ready r WHERE r.tenant_room IS NOT NULL) r
            WHERE r.nth <= r.tenant_room) c
        ORDER BY c.tag, c.lane, c.place LIMIT wanted
    ), taken AS MATERIALIZED (
        -- Nobody else claims from these lanes; but one may be cancelled just now.
        SELECT c.*, q.id FROM chosen c JOIN job q ON q.ctid = c.at WHERE q.state + 0 = 1 FOR UPDATE OF q SKIP LOCKED
    ), charged AS (
        UPDATE lane l SET vtime = s.start + s.cost / l.weight,
            tokens = coalesce(s.left - s.jobs, l.tokens), tokens_at = CASE WHEN s.left IS NULL THEN l.tokens_at ELSE moment END
        FROM (SELECT t.lane, t.start, t.left, count(*) AS jobs, sum(t.cost) AS cost
            FROM taken t GROUP BY t.lane, t.start, t.left) s
        WHERE l.id = s.lane
    ), told AS (
        UPDATE node n SET virtual_time = greatest(n.virtual_time, (SELECT min(t.tag) FROM taken t)), claimed_at = moment
        WHERE n.id = node_id AND EXISTS (SELECT FROM taken)
    ), begun AS (
        UPDATE job q SET state = 2, attempt = q.attempt + 1, claim = token, worker = node_id::text, cost = t.cost,
            lease_until = moment + interval '30 seconds', started_at = moment, progress = NULL, changed_in = txid_current()
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

/// What it does is told where it was made first. A job whose kind no worker has known for a day, by the database's clock, is dead,
/// for the reason that its `error` gives; before that, the error is nothing.
pub(super) const END: &str = r"CREATE OR REPLACE FUNCTION end_jobs(ends jsonb) RETURNS SETOF uuid
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
        WHERE j.id = e.id AND j.claim = e.claim AND j.state + 0 = 2
            AND (e.state IN (3, 4, 5) OR j.cancel OR e.unknown AND j.unknown_since < clock_timestamp() - interval '24 hours')
        RETURNING j.*, CASE WHEN e.state IN (3, 4, 5) THEN e.state WHEN j.cancel THEN 5 ELSE 4 END AS ended, e.error, e.result
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
            unknown_since = CASE WHEN e.unknown THEN coalesce(j.unknown_since, clock_timestamp()) END, changed_in = txid_current(),
            errors = CASE WHEN e.error IS NULL OR e.unknown THEN j.errors
                ELSE jsonb_path_query_array(j.errors || e.error, '$[last - 4 to last]') END
        FROM said e
        WHERE j.id = e.id AND j.claim = e.claim AND j.state + 0 = 2 AND e.state IN (1, 6) AND NOT j.cancel
            AND (NOT e.unknown OR j.unknown_since >= clock_timestamp() - interval '24 hours') IS NOT FALSE
        RETURNING j.id
    )
    SELECT g.id FROM gone g UNION ALL SELECT a.id FROM again a;
END $$";

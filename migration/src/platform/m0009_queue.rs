//! The queue as it is claimed: lanes, live jobs, and those that are over in partitions of a day, so that forgetting them is
//! dropping a table.

use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for statements in [
            &LANE[..],
            &JOB[..],
            &JOB_DONE[..],
            &NODE[..],
            &INDEXES[..],
            &TRIGGERS[..],
        ] {
            crate::run(manager, statements).await?;
        }
        Ok(())
    }
}

/// A tenant's place in a queue; without a tenant, the platform's. `vtime` is the virtual time at which its next job may start,
/// `tokens` what is left of its `rate` (jobs a second, `burst` at once), `paused` who paused it and why.
///
/// The key is a number: it is compared far more often than it is read. Half of each page is left free, for each claim writes.
const LANE: [&str; 6] = [
    "CREATE TABLE lane (
        id integer GENERATED ALWAYS AS IDENTITY CONSTRAINT lane_pkey PRIMARY KEY,
        tenant_id uuid CONSTRAINT lane_tenant_id_fkey REFERENCES tenant ON DELETE CASCADE,
        queue text NOT NULL CONSTRAINT lane_queue_check CHECK (queue ~ '^[a-z][a-z0-9_-]{0,62}$'),
        weight real NOT NULL DEFAULT 1 CONSTRAINT lane_weight_check CHECK (weight BETWEEN 0.001 AND 1000),
        cap integer CONSTRAINT lane_cap_check CHECK (cap > 0),
        rate real CONSTRAINT lane_rate_check CHECK (rate > 0),
        burst integer NOT NULL DEFAULT 1 CONSTRAINT lane_burst_check CHECK (burst > 0),
        tokens double precision NOT NULL DEFAULT 1,
        tokens_at timestamptz NOT NULL DEFAULT now(),
        vtime double precision NOT NULL DEFAULT 0,
        paused text
    ) WITH (fillfactor = 50)",
    "CREATE UNIQUE INDEX lane_tenant_id_queue_key ON lane (tenant_id, queue) WHERE tenant_id IS NOT NULL",
    "CREATE UNIQUE INDEX lane_queue_key ON lane (queue) WHERE tenant_id IS NULL",
    "INSERT INTO lane (queue) VALUES ('default')",
    "INSERT INTO lane (tenant_id, queue) SELECT id, 'default' FROM tenant",
    r"CREATE FUNCTION open_lane() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
    BEGIN
        INSERT INTO bulkhead.lane (tenant_id, queue) VALUES (NEW.id, 'default');
        RETURN NULL;
    END $$",
];

/// `state`: 1 ready, 2 running, 6 scheduled for `run_at`. `cost` is what its lane was charged for it, `cancel` that it is to
/// end, `unknown_since` when a worker first found that it does not know the kind. Jobs that are over leave this table.
const JOB: [&str; 6] = [
    "ALTER TABLE job DROP CONSTRAINT job_tenant_id_fkey, DROP CONSTRAINT job_state_check,
        ALTER COLUMN tenant_id DROP NOT NULL,
        ADD COLUMN lane integer,
        ADD COLUMN priority smallint NOT NULL DEFAULT 0,
        ADD COLUMN cost real,
        ADD COLUMN cancel boolean NOT NULL DEFAULT false,
        ADD COLUMN progress real,
        ADD COLUMN unique_key text,
        ADD COLUMN unknown_since timestamptz",
    // What a worker of before would claim it could not end any more: it claims nothing.
    "ALTER SEQUENCE job_claim RENAME TO claim_number",
    "UPDATE job SET lane = l.id FROM lane l WHERE l.tenant_id = job.tenant_id AND l.queue = 'default'",
    "UPDATE job SET state = 6 WHERE state = 1 AND run_at > now()",
    "DROP INDEX job_ready_idx, job_running_idx, job_open_idx",
    "ALTER TABLE job SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0)",
];

/// `state`: 3 done, 4 dead, 5 cancelled. What no day's partition takes is in the default one, until the keeper makes the day's.
const JOB_DONE: [&str; 7] = [
    "CREATE TABLE job_done (
        id uuid NOT NULL,
        lane integer NOT NULL,
        tenant_id uuid,
        kind text NOT NULL,
        args jsonb NOT NULL,
        state smallint NOT NULL CONSTRAINT job_done_state_check CHECK (state BETWEEN 3 AND 5),
        priority smallint NOT NULL,
        run_at timestamptz NOT NULL,
        attempt integer NOT NULL,
        max_attempts integer NOT NULL,
        timeout_ms integer NOT NULL,
        worker text,
        actor text NOT NULL,
        request_id text,
        errors jsonb NOT NULL,
        progress real,
        unique_key text,
        created_at timestamptz NOT NULL,
        started_at timestamptz,
        finished_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        result_id uuid,
        changed_in bigint DEFAULT txid_current()
    ) PARTITION BY RANGE (finished_at)",
    "CREATE TABLE job_done_default PARTITION OF job_done DEFAULT",
    // A month of what is over has its days; what is older goes to none, for it is forgotten.
    r"DO $$
    DECLARE day date;
    BEGIN
        SET LOCAL timezone = 'UTC';
        FOR day IN SELECT generate_series(current_date - 31, current_date + 2, interval '1 day') LOOP
            CONTINUE WHEN day < current_date AND NOT EXISTS (SELECT FROM job
                WHERE state BETWEEN 3 AND 5 AND coalesce(finished_at, created_at) >= day
                    AND coalesce(finished_at, created_at) < day + 1);
            EXECUTE format('CREATE TABLE %I PARTITION OF job_done FOR VALUES FROM (%L) TO (%L)',
                'job_done_' || to_char(day, 'YYYYMMDD'), day, day + 1);
        END LOOP;
    END $$",
    "INSERT INTO job_done (id, lane, tenant_id, kind, args, state, priority, run_at, attempt, max_attempts, timeout_ms, worker,
        actor, request_id, errors, created_at, started_at, finished_at, result_id, changed_in)
    SELECT id, lane, tenant_id, kind, args, state, priority, run_at, attempt, max_attempts, timeout_ms, worker,
        actor, request_id, errors, created_at, started_at, coalesce(finished_at, created_at), result_id, changed_in
    FROM job WHERE state BETWEEN 3 AND 5 AND coalesce(finished_at, created_at) >= now() - interval '31 days'",
    "DELETE FROM job WHERE state BETWEEN 3 AND 5",
    "ALTER TABLE job DROP COLUMN finished_at, DROP COLUMN result_id",
    "ALTER TABLE job ALTER COLUMN lane SET NOT NULL,
        ADD CONSTRAINT job_lane_fkey FOREIGN KEY (lane) REFERENCES lane,
        ADD CONSTRAINT job_state_check CHECK (state IN (1, 2, 6))",
];

/// A process that runs jobs: of these queues, or of all, its last sign of life, and the smallest start tag of its last claim.
const NODE: [&str; 1] = ["CREATE TABLE node (
        id uuid CONSTRAINT node_pkey PRIMARY KEY,
        name text NOT NULL,
        queues text[],
        version text NOT NULL,
        kinds text[] NOT NULL,
        started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        beat_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        virtual_time double precision,
        claimed_at timestamptz
    ) WITH (fillfactor = 50)"];

/// Jobs that are over are added in the order of their end: a BRIN index tells what ended last.
const INDEXES: [&str; 9] = [
    "CREATE INDEX job_ready_idx ON job (lane, priority, seq) WHERE state = 1",
    "CREATE INDEX job_due_idx ON job (run_at) WHERE state = 6",
    "CREATE INDEX job_running_idx ON job (lane) WHERE state = 2",
    "CREATE UNIQUE INDEX job_unique_key ON job ((coalesce(tenant_id, '00000000-0000-0000-0000-000000000000')), unique_key)
        WHERE unique_key IS NOT NULL",
    "CREATE INDEX job_done_tenant_idx ON job_done (tenant_id, id)",
    "CREATE INDEX job_done_failed_idx ON job_done (tenant_id, id) WHERE state <> 3",
    "CREATE INDEX job_done_changed_idx ON job_done (tenant_id, changed_in)",
    "CREATE INDEX job_done_id_idx ON job_done (id)",
    "CREATE INDEX job_done_finished_idx ON job_done USING brin (finished_at)",
];

/// A job that names no lane is in its tenant's first: so is one that an older binary adds.
const TRIGGERS: [&str; 6] = [
    "CREATE TRIGGER tenant_lane AFTER INSERT ON tenant FOR EACH ROW EXECUTE FUNCTION open_lane()",
    r"CREATE FUNCTION take_lane() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
    BEGIN
        SELECT l.id INTO STRICT NEW.lane FROM bulkhead.lane l
        WHERE l.tenant_id = NEW.tenant_id AND l.queue = 'default';
        RETURN NEW;
    END $$",
    "CREATE TRIGGER job_lane BEFORE INSERT ON job FOR EACH ROW WHEN (NEW.lane IS NULL) EXECUTE FUNCTION take_lane()",
    "DROP TRIGGER job_changed ON job",
    "CREATE TRIGGER job_changed BEFORE UPDATE OF state, attempt, run_at, errors, progress ON job
        FOR EACH ROW EXECUTE FUNCTION note_job_change()",
    "CREATE TRIGGER job_done_changed BEFORE UPDATE ON job_done FOR EACH ROW EXECUTE FUNCTION note_job_change()",
];

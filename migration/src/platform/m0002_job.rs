//! The job queue. It is in the platform schema because a claim must see every tenant in one index.

use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut statements = vec!["CREATE SEQUENCE job_claim", JOB];
        statements.extend(INDEXES);
        crate::run(manager, &statements).await
    }
}

/// `state`: 1 ready (from `run_at` on), 2 running, 3 done, 4 dead, 5 cancelled. `claim` is the fencing token of the run that
/// holds the job: whoever finishes it must still hold it.
const JOB: &str = "CREATE TABLE job (
    id uuid CONSTRAINT job_pkey PRIMARY KEY,
    seq bigint GENERATED ALWAYS AS IDENTITY,
    tenant_id uuid NOT NULL CONSTRAINT job_tenant_id_fkey REFERENCES tenant,
    kind text NOT NULL,
    args jsonb NOT NULL CONSTRAINT job_args_check CHECK (octet_length(args::text) <= 65536),
    state smallint NOT NULL DEFAULT 1 CONSTRAINT job_state_check CHECK (state BETWEEN 1 AND 5),
    run_at timestamptz NOT NULL DEFAULT now(),
    attempt integer NOT NULL DEFAULT 0,
    max_attempts integer NOT NULL,
    timeout_ms integer NOT NULL,
    claim bigint,
    worker text,
    lease_until timestamptz,
    actor text NOT NULL,
    request_id text,
    errors jsonb NOT NULL DEFAULT '[]',
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_at timestamptz,
    finished_at timestamptz
)";

const INDEXES: [&str; 3] = [
    "CREATE INDEX job_ready_idx ON job (run_at, seq) WHERE state = 1",
    "CREATE INDEX job_lease_idx ON job (lease_until) WHERE state = 2",
    "CREATE INDEX job_tenant_idx ON job (tenant_id, id)",
];

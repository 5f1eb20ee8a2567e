//! The life of a tenant: its states, plan, limits and settings; spares; and what is left to show when it is gone.

use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(
            manager,
            &[
                PLAN,
                "INSERT INTO plan (name) VALUES ('standard')",
                "ALTER TABLE tenant DROP CONSTRAINT tenant_state_check",
                STATE,
                LIFE,
                "ALTER TABLE tenant ADD CONSTRAINT tenant_plan_fkey FOREIGN KEY (plan) REFERENCES plan",
                HELD,
                "CREATE INDEX job_running_idx ON job (tenant_id) WHERE state = 2",
                SPARE,
                ERASURE,
            ],
        )
        .await
    }
}

const PLAN: &str = "CREATE TABLE plan (
    name text CONSTRAINT plan_pkey PRIMARY KEY CONSTRAINT plan_name_check CHECK (name ~ '^[a-z][a-z0-9-]{0,30}$'),
    limits jsonb NOT NULL DEFAULT '{}'
)";

const STATE: &str = "ALTER TABLE tenant ADD CONSTRAINT tenant_state_check
    CHECK (state IN ('provisioning', 'active', 'suspended', 'archived', 'deleting'))";

/// `limits` is what counts: the plan's, with `overrides` over them; whoever writes either writes it. `step` is how far a
/// long step of its life has come, for whoever goes on with it; `source_id` the tenant that a clone is made from.
const LIFE: &str = "ALTER TABLE tenant
    ADD COLUMN state_since timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN step text,
    ADD COLUMN source_id uuid,
    ADD COLUMN plan text NOT NULL DEFAULT 'standard',
    ADD COLUMN overrides jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN limits jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN settings jsonb NOT NULL DEFAULT '{}'";

/// The few tenants that a claim of jobs has to look at.
const HELD: &str = "CREATE INDEX tenant_held_idx ON tenant (id) WHERE state <> 'active' OR limits ? 'concurrent_jobs'";

const SPARE: &str = "CREATE TABLE spare (
    schema_name text CONSTRAINT spare_pkey PRIMARY KEY,
    role_name text NOT NULL CONSTRAINT spare_role_name_key UNIQUE,
    cell_id smallint NOT NULL CONSTRAINT spare_cell_id_fkey REFERENCES cell,
    version text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
)";

/// The certificate of an erasure. It names no row of the tenant's, and refers to none.
const ERASURE: &str = "CREATE TABLE erasure (
    tenant_id uuid CONSTRAINT erasure_pkey PRIMARY KEY,
    slug text NOT NULL,
    name text NOT NULL,
    schema_name text NOT NULL,
    requested_by text NOT NULL,
    reason text,
    started_at timestamptz NOT NULL,
    finished_at timestamptz,
    tables integer NOT NULL DEFAULT 0,
    rows bigint NOT NULL DEFAULT 0,
    jobs bigint NOT NULL DEFAULT 0,
    objects bigint NOT NULL DEFAULT 0,
    bytes bigint NOT NULL DEFAULT 0
)";

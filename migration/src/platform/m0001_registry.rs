//! Instance, cells, tenants, their domains, the template and the operators' log.

use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(
            manager,
            &[
                INSTANCE,
                CELL,
                TENANT_NUMBER,
                TENANT,
                DOMAIN,
                TEMPLATE,
                OPERATOR_LOG,
            ],
        )
        .await
    }
}

/// One row: the short random id that the names of roles carry, because roles belong to the whole cluster.
const INSTANCE: &str = "CREATE TABLE instance (
    id text CONSTRAINT instance_pkey PRIMARY KEY CONSTRAINT instance_id_check CHECK (id ~ '^[a-z][a-z0-9]{5}$'),
    created_at timestamptz NOT NULL DEFAULT now()
)";

const CELL: &str = "CREATE TABLE cell (
    id smallint CONSTRAINT cell_pkey PRIMARY KEY,
    login text NOT NULL CONSTRAINT cell_login_key UNIQUE
)";

const TENANT_NUMBER: &str = "CREATE SEQUENCE tenant_number";

const TENANT: &str = "CREATE TABLE tenant (
    id uuid CONSTRAINT tenant_pkey PRIMARY KEY,
    slug text NOT NULL CONSTRAINT tenant_slug_key UNIQUE
        CONSTRAINT tenant_slug_check CHECK (slug ~ '^[a-z][a-z0-9-]{1,46}[a-z0-9]$'),
    name text NOT NULL,
    state text NOT NULL CONSTRAINT tenant_state_check CHECK (state IN ('active')),
    schema_name text NOT NULL CONSTRAINT tenant_schema_name_key UNIQUE,
    role_name text NOT NULL CONSTRAINT tenant_role_name_key UNIQUE,
    cell_id smallint NOT NULL CONSTRAINT tenant_cell_id_fkey REFERENCES cell,
    created_at timestamptz NOT NULL
)";

const DOMAIN: &str = "CREATE TABLE domain (
    host text CONSTRAINT domain_pkey PRIMARY KEY CONSTRAINT domain_host_check CHECK (host = lower(host)),
    tenant_id uuid NOT NULL CONSTRAINT domain_tenant_id_fkey REFERENCES tenant,
    verified_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now()
)";

/// The template's DDL, rendered once a version: the name of the newest step it has. All its steps stand beside it, for the
/// ledgers of the tenants that are made from it.
const TEMPLATE: &str = "CREATE TABLE template (
    version text CONSTRAINT template_pkey PRIMARY KEY,
    steps jsonb NOT NULL,
    statements jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
)";

const OPERATOR_LOG: &str = "CREATE TABLE operator_log (
    id uuid CONSTRAINT operator_log_pkey PRIMARY KEY,
    at timestamptz NOT NULL,
    operator text NOT NULL,
    action text NOT NULL,
    tenant_id uuid,
    detail jsonb NOT NULL
)";

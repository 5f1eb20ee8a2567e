//! Schedules of tenants, as the clock sees them: a copy of what each tenant's own table has, kept by its trigger, so that what is
//! due is one look at one index.

use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, &[TABLE, INDEX, MIRROR]).await
    }
}

/// Those that are enabled. Times up to `since` are taken care of; `next_at` is the next one, or when it is to be found out.
const TABLE: &str = "CREATE TABLE schedule (
    tenant_id uuid CONSTRAINT schedule_tenant_id_fkey REFERENCES tenant ON DELETE CASCADE,
    id uuid,
    kind text NOT NULL,
    args jsonb NOT NULL,
    expression text NOT NULL,
    time_zone text NOT NULL,
    catch_up text NOT NULL,
    since timestamptz NOT NULL,
    next_at timestamptz NOT NULL,
    CONSTRAINT schedule_pkey PRIMARY KEY (tenant_id, id)
)";

const INDEX: &str = "CREATE INDEX schedule_next_at_idx ON schedule (next_at)";

/// What a tenant's trigger says of a row; no row: it is gone. Other times begin to count when they are set.
const MIRROR: &str = r"CREATE FUNCTION mirror_schedule(schema text, its_id uuid, its_row jsonb) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE owner uuid := (SELECT t.id FROM bulkhead.tenant t WHERE t.schema_name = schema);
BEGIN
    IF owner IS NULL THEN
        RAISE EXCEPTION 'no tenant has this schema';
    END IF;
    IF its_row IS NULL OR NOT (its_row ->> 'enabled')::boolean THEN
        DELETE FROM bulkhead.schedule s WHERE s.tenant_id = owner AND s.id = its_id;
        RETURN;
    END IF;
    INSERT INTO bulkhead.schedule AS s (tenant_id, id, kind, args, expression, time_zone, catch_up, since, next_at)
    VALUES (owner, its_id, its_row ->> 'kind', its_row -> 'args', its_row ->> 'expression', its_row ->> 'time_zone',
        its_row ->> 'catch_up', clock_timestamp(), clock_timestamp())
    ON CONFLICT (tenant_id, id) DO UPDATE SET kind = EXCLUDED.kind, args = EXCLUDED.args, catch_up = EXCLUDED.catch_up,
        expression = EXCLUDED.expression, time_zone = EXCLUDED.time_zone,
        since = CASE WHEN (s.expression, s.time_zone) = (EXCLUDED.expression, EXCLUDED.time_zone) THEN s.since
            ELSE EXCLUDED.since END,
        next_at = CASE WHEN (s.expression, s.time_zone) = (EXCLUDED.expression, EXCLUDED.time_zone) THEN s.next_at
            ELSE EXCLUDED.next_at END;
END $$";

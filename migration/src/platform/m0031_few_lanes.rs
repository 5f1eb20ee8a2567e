//! A tenant has few lanes also if it asks for many at once.

use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, &[LANE]).await
    }
}

/// The lane of a tenant (none: the platform) and queue, made if there is none. One at a time makes lanes of a tenant, and counts
/// them in a statement that sees those of the one before.
const LANE: &str = r"CREATE OR REPLACE FUNCTION lane_of(owner uuid, wanted text) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE found integer;
BEGIN
    LOOP
        IF owner IS NULL THEN
            SELECT l.id INTO found FROM bulkhead.lane l WHERE l.tenant_id IS NULL AND l.queue = wanted;
        ELSE
            SELECT l.id INTO found FROM bulkhead.lane l WHERE l.tenant_id = owner AND l.queue = wanted;
        END IF;
        IF found IS NOT NULL THEN
            RETURN found;
        END IF;
        PERFORM pg_advisory_xact_lock(hashtextextended('lanes of ' || owner, 0));
        IF (SELECT count(*) FROM bulkhead.lane l WHERE l.tenant_id = owner) >= 16 THEN
            RAISE EXCEPTION 'a tenant has at most 16 queues';
        END IF;
        INSERT INTO bulkhead.lane (tenant_id, queue) VALUES (owner, wanted) ON CONFLICT DO NOTHING;
    END LOOP;
END $$";

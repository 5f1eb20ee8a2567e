//! What operators set for a whole queue holds for lanes that are opened later, too.

use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, &[ADD, LANE, OPEN]).await
    }
}

/// Adds the lane of a tenant as the platform's lane of that queue is: what is set for all lanes of a queue is set for that one. A
/// lane whose unit of work is open while something is set does not get it.
const ADD: &str = r"CREATE FUNCTION add_lane(owner uuid, wanted text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO bulkhead.lane (tenant_id, queue, weight, cap, rate, burst, tokens, paused)
    SELECT owner, wanted, coalesce(p.weight, 1), p.cap, p.rate, coalesce(p.burst, 1), coalesce(p.burst, 1), p.paused
    FROM (SELECT) AS one LEFT JOIN bulkhead.lane p ON p.tenant_id IS NULL AND p.queue = wanted
    ON CONFLICT DO NOTHING;
END $$";

/// What it does is told where it was made first.
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
        PERFORM bulkhead.add_lane(owner, wanted);
    END LOOP;
END $$";

/// The same for a tenant's first lane.
const OPEN: &str = r"CREATE OR REPLACE FUNCTION open_lane() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM bulkhead.add_lane(NEW.id, 'default');
    RETURN NULL;
END $$";

//! Breakers: a kind that keeps failing in a lane is held back, and tried with one job at a time until one succeeds.

use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, &[TABLE, NOTE, PROBE]).await
    }
}

/// A kind whose last runs in this lane failed: how many in a row, and how often it was held back since one succeeded.
const TABLE: &str = "CREATE TABLE breaker (
    lane integer CONSTRAINT breaker_lane_fkey REFERENCES lane ON DELETE CASCADE,
    kind text,
    failures integer NOT NULL,
    opened integer NOT NULL DEFAULT 0,
    held_until timestamptz,
    CONSTRAINT breaker_pkey PRIMARY KEY (lane, kind)
)";

/// Notes how runs ended, by lane and kind: whether one went well, and how many failed after that. With `most` failures in a row
/// the kind is held back: for half a minute, then twice as long each time, up to ten minutes. Those that were running when it was
/// held back do not prolong it. Returns for how many seconds each is held back that failed.
///
/// Row by row in their order, so that no two processes wait for each other.
const NOTE: &str = r"CREATE FUNCTION note_runs(most integer, runs jsonb)
RETURNS TABLE (lane integer, kind text, held double precision) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE run record;
BEGIN
    FOR run IN
        SELECT * FROM jsonb_to_recordset(runs) AS r (lane integer, kind text, well boolean, failed integer) ORDER BY r.lane, r.kind
    LOOP
        IF run.well THEN
            DELETE FROM breaker b WHERE b.lane = run.lane AND b.kind = run.kind;
        END IF;
        CONTINUE WHEN run.failed = 0;
        INSERT INTO breaker AS b (lane, kind, failures) VALUES (run.lane, run.kind, run.failed)
        ON CONFLICT (lane, kind) DO UPDATE SET failures = b.failures + EXCLUDED.failures;
        UPDATE breaker b SET opened = b.opened + 1,
            held_until = clock_timestamp() + least(30 * 2 ^ least(b.opened, 10), 600) * interval '1 second'
        WHERE b.lane = run.lane AND b.kind = run.kind AND b.failures >= most
            AND (b.held_until IS NULL OR b.held_until <= clock_timestamp() + interval '10 seconds');
        RETURN QUERY SELECT b.lane, b.kind, extract(epoch FROM b.held_until - clock_timestamp())::double precision
            FROM breaker b WHERE b.lane = run.lane AND b.kind = run.kind;
    END LOOP;
END $$";

/// Whether a job of a kind that was held back may be run, to see how it ends: null. Others wait for so many seconds, of which the
/// one that may run has ten.
const PROBE: &str = r"CREATE FUNCTION probe_kind(its_lane integer, its_kind text) RETURNS double precision
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE breaker b SET held_until = clock_timestamp() + interval '10 seconds'
    WHERE b.lane = its_lane AND b.kind = its_kind AND b.held_until <= clock_timestamp();
    IF FOUND THEN
        RETURN NULL;
    END IF;
    RETURN (SELECT extract(epoch FROM b.held_until - clock_timestamp()) FROM breaker b
        WHERE b.lane = its_lane AND b.kind = its_kind AND b.held_until > clock_timestamp());
END $$";

//! How long histories are kept: from when on each can be read as of a moment, what stands for the part of a chain whose entries
//! were purged, and how what they have of persons is kept apart, so that it can be erased.

use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, &[HORIZON, CHECKPOINT, STORAGE, PERSONAL]).await
    }
}

/// Entries from before `history_from` are purged, but for what is still needed to read as of that moment and later; servers
/// know it since `history_from_set`.
const HORIZON: &str = "ALTER TABLE tenant
    ADD COLUMN history_from timestamptz,
    ADD COLUMN history_from_set timestamptz";

/// Stands for the entries with the numbers `first` to `last`, the last of which had this link; `purged` of them are gone, and
/// `archived` are in the object store.
/// Those that are kept: their ids and numbers, for each the link before it and its own, and the key that made it. `mac` is
/// of all of it.
const CHECKPOINT: &str = "CREATE TABLE seal_checkpoint (
    tenant_id uuid NOT NULL CONSTRAINT seal_checkpoint_tenant_id_fkey REFERENCES tenant ON DELETE CASCADE,
    first bigint NOT NULL,
    last bigint NOT NULL,
    link bytea NOT NULL,
    purged bigint NOT NULL,
    archived bigint NOT NULL,
    until timestamptz NOT NULL,
    made_at timestamptz NOT NULL,
    entries uuid[] NOT NULL,
    numbers bigint[] NOT NULL,
    links bytea NOT NULL,
    keys text[] NOT NULL,
    key_id text NOT NULL,
    mac bytea NOT NULL,
    CONSTRAINT seal_checkpoint_pkey PRIMARY KEY (tenant_id, first)
)";

/// As in `seal`: nothing is gained by compressing them.
const STORAGE: &str = "ALTER TABLE seal_checkpoint ALTER COLUMN entries SET STORAGE EXTERNAL, ALTER COLUMN links SET STORAGE EXTERNAL";

/// For the history's rows of tables that have personal columns. Arguments: those columns, and the one that names the person.
///
/// The chain does not cover the values but `commitment`, a hash of them with a salt that is in no other place: without the salt
/// it tells nothing, and they can be taken out. One for all tenants: a session has its plans once.
const PERSONAL: &str = r"CREATE FUNCTION personal() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.person := (NEW.row ->> TG_ARGV[1])::uuid;
    NEW.personal := string_to_array(TG_ARGV[0], ',');
    NEW.salt := replace(concat(gen_random_uuid(), gen_random_uuid()), '-', '');
    NEW.commitment := encode(sha256(convert_to(NEW.salt || (
        SELECT jsonb_agg(jsonb_build_array(NEW.row -> name, NEW.before -> name) ORDER BY at)::text
        FROM unnest(NEW.personal) WITH ORDINALITY u (name, at)), 'UTF8')), 'hex');
    RETURN NEW;
END $$";

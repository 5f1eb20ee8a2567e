//! Who acts, for the history's triggers of all tenants.

use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, &[ACTING]).await
    }
}

/// The actor of a write to a tenant's table; an error if there is none, or if rows of the write have changed their ids. One for
/// all tenants: a session has its plans once, not once for each trigger of each tenant.
const ACTING: &str = r"CREATE FUNCTION acting(subject text, strays bigint) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
    who text := nullif(current_setting('bulkhead.actor', true), '');
BEGIN
    IF who IS NULL THEN
        RAISE EXCEPTION 'a write to % needs an actor: bulkhead.actor is not set', subject USING ERRCODE = 'BH001';
    END IF;
    IF strays > 0 THEN
        RAISE EXCEPTION 'the id of a % never changes', subject USING ERRCODE = 'BH002';
    END IF;
    RETURN who;
END $$";

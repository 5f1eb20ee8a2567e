//! What the history has of persons is kept apart from what its chain covers. One index: the entries of a person, of those that
//! have something of them, is how they are erased without going through all that was ever recorded.

use crate::history::{Personal, personal};
use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, &[COLUMNS, INDEX]).await?;
        allow(manager, &["erased", "exported"]).await?;
        let member = Personal {
            table: "member",
            columns: &["email", "name"],
            person: "id",
        };
        personal(manager, member).await?;
        // Pictures of persons are among them: the names of their files may be theirs.
        let media = Personal {
            table: "media",
            columns: &["filename"],
            person: "id",
        };
        personal(manager, media).await
    }
}

/// Whose the values of the columns `personal` are; `commitment` is of them with `salt`, and without it they are erased.
const COLUMNS: &str = "ALTER TABLE history
    ADD COLUMN person uuid,
    ADD COLUMN personal text[],
    ADD COLUMN salt text,
    ADD COLUMN commitment text";

const INDEX: &str = "CREATE INDEX history_person_idx ON history (person) WHERE salt IS NOT NULL";

/// Lets the trail have these actions besides those that the steps before have let it have.
async fn allow(manager: &SchemaManager<'_>, actions: &[&str]) -> Result<(), DbErr> {
    let check = "SELECT pg_get_constraintdef(oid) AS check FROM pg_catalog.pg_constraint
        WHERE conname = 'history_action_check' AND connamespace = current_schema()::regnamespace";
    let check = sea_orm::Statement::from_string(manager.get_database_backend(), check);
    let check = manager.get_connection().query_one_raw(check).await?;
    let check = check.ok_or_else(|| DbErr::Custom("the history has no check of actions".into()))?;
    let check: String = check.try_get("", "check")?;
    let more: Vec<String> = actions
        .iter()
        .map(|action| format!("'{action}'::text"))
        .collect();
    let wider = check.replacen("])", &format!(", {}])", more.join(", ")), 1);
    let add = format!("ALTER TABLE history ADD CONSTRAINT history_action_check {wider}");
    crate::run(
        manager,
        &[
            "ALTER TABLE history DROP CONSTRAINT history_action_check",
            &add,
        ],
    )
    .await
}

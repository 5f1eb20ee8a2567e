//! What the history has of persons is kept apart from what its chain covers. One index: the entries of a person, of those that
//! have something of them, is how they are erased without going through all that was ever recorded.

use crate::history::{Personal, personal};
use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, &[COLUMNS, INDEX, DROP_CHECK, CHECK]).await?;
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

const DROP_CHECK: &str = "ALTER TABLE history DROP CONSTRAINT history_action_check";

const CHECK: &str = "ALTER TABLE history ADD CONSTRAINT history_action_check CHECK (action IN
    ('create', 'update', 'delete', 'sign_in', 'sign_in_failed', 'sign_out', 'denied', 'link_issued', 'operator_act', 'erased',
    'exported'))";

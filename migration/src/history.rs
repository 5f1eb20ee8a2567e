//! Puts tables under the history trigger.

use sea_orm_migration::prelude::*;

/// How a table goes into the history.
#[derive(Clone, Copy, Debug)]
pub struct Audited<'a> {
    /// The table. It has a column `id uuid`.
    pub table: &'a str,
    /// Columns whose values must not be seen: a change is recorded by the column's name alone.
    pub secret: &'a [&'a str],
    /// Columns whose changes are no news (`last_seen_at`): not recorded, and they do not bump the version.
    pub untracked: &'a [&'a str],
}

/// Puts a table under the history trigger; one call a table.
pub async fn audited(manager: &SchemaManager<'_>, table: &str) -> Result<(), DbErr> {
    let plain = Audited {
        table,
        secret: &[],
        untracked: &[],
    };
    audited_with(manager, plain).await
}

/// The same, for a table with secret or untracked columns.
///
/// Three statement triggers (transition tables allow one event each) record the change, and a row trigger bumps `version`
/// and `updated_at`, so that no code can forget either.
pub async fn audited_with(manager: &SchemaManager<'_>, audited: Audited<'_>) -> Result<(), DbErr> {
    let table = audited.table;
    let secret = audited.secret.join(",");
    let untracked = audited.untracked.join(",");
    let events = [
        ("insert", "REFERENCING NEW TABLE AS new_rows"),
        (
            "update",
            "REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows",
        ),
        ("delete", "REFERENCING OLD TABLE AS old_rows"),
    ];
    for (event, tables) in events {
        let trigger = format!(
            "CREATE TRIGGER {table}_history_{event} AFTER {event} ON {table} {tables} FOR EACH STATEMENT \
             EXECUTE FUNCTION record_history('{table}', '{secret}', '{untracked}')"
        );
        manager
            .get_connection()
            .execute_unprepared(&trigger)
            .await?;
    }
    if manager.has_column(table, "version").await? {
        let touch = format!(
            "CREATE TRIGGER {table}_touch BEFORE UPDATE ON {table} FOR EACH ROW \
             EXECUTE FUNCTION bulkhead.touch('{untracked}')"
        );
        manager.get_connection().execute_unprepared(&touch).await?;
    }
    Ok(())
}

/// What a table has of persons.
#[derive(Clone, Copy, Debug)]
pub struct Personal<'a> {
    /// The table. It is under the history, and each of its rows is of one person.
    pub table: &'a str,
    /// Columns whose values can be erased from the history.
    pub columns: &'a [&'a str],
    /// The column that says whose they are: the id of a person, or of what goes with one.
    pub person: &'a str,
}

/// Keeps what the history has of persons apart, so that it can be erased and the chain stays whole; one call a table.
pub async fn personal(manager: &SchemaManager<'_>, personal: Personal<'_>) -> Result<(), DbErr> {
    let Personal { table, person, .. } = personal;
    let columns = personal.columns.join(",");
    // A condition, not a look inside: the rows of other tables pay for nothing but it.
    let trigger = format!(
        "CREATE TRIGGER history_personal_{table} BEFORE INSERT ON history FOR EACH ROW \
         WHEN (NEW.subject_type = '{table}' AND NEW.action IN ('create', 'update', 'delete')) \
         EXECUTE FUNCTION bulkhead.personal('{columns}', '{person}')"
    );
    crate::run(manager, &[&trigger]).await
}

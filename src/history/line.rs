//! Entries as JSON for others to read: a line each in archives, exports and streams.

use crate::database::TenantTx;
use crate::error::Result;
use sea_orm::{ConnectionTrait as _, DbBackend, Statement};
use serde_json::Value;
use uuid::Uuid;

/// What lines have of persons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Persons {
    /// What the history has.
    Shown,
    /// Nothing: what is kept where nobody can be erased.
    LeftOut,
}

/// All columns by their names, whichever there are, with the time in UTC; but what only the chain needs.
const LINES: &str = "SELECT to_jsonb(h) - ARRAY['person', 'personal', 'salt', 'commitment'] || jsonb_build_object(
        'recorded_at', to_char(h.recorded_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'),
        'row', CASE WHEN $2 THEN h.row ELSE h.row - coalesce(h.personal, '{}') END,
        'before', CASE WHEN $2 THEN h.before ELSE h.before - coalesce(h.personal, '{}') END) AS line
    FROM unnest($1::uuid[]) WITH ORDINALITY wanted (id, at) JOIN history h ON h.id = wanted.id ORDER BY wanted.at";

/// The entries with these ids that are there, in their order.
pub(super) async fn of(tx: &TenantTx, ids: &[Uuid], persons: Persons) -> Result<Vec<Value>> {
    let values = [ids.to_vec().into(), (persons == Persons::Shown).into()];
    let query = Statement::from_sql_and_values(DbBackend::Postgres, LINES, values);
    let rows = tx.query_all_raw(query).await?;
    let lines = rows.iter().map(|row| row.try_get("", "line"));
    Ok(lines.collect::<std::result::Result<_, _>>()?)
}

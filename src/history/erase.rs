//! Erasing what a history has of persons. The chain covers commitments, and not the values: those go, and it stays whole.

use super::event::record;
use crate::clock::Timestamp;
use crate::database::TenantTx;
use crate::error::Result;
use entity::tenant::history::Action;
use sea_orm::{ConnectionTrait as _, DbBackend, Statement};
use serde_json::json;
use uuid::Uuid;

/// What stands in the place of a value.
pub const ERASED: &str = "erased";

/// Values that there were are replaced; null stays null. With the salt gone, nobody can find out by trying what was hashed.
const ERASE: &str = "UPDATE history h SET salt = NULL,
        row = h.row || (SELECT coalesce(jsonb_object_agg(c, $2::text), '{}') FROM unnest(h.personal) c WHERE h.row ->> c IS NOT NULL),
        before = h.before || (SELECT coalesce(jsonb_object_agg(c, $2::text), '{}') FROM unnest(h.personal) c WHERE h.before ->> c IS NOT NULL)
    WHERE h.person = ANY ($1) AND h.salt IS NOT NULL";

/// Whether somebody was erased at this time, by PostgreSQL's clock, or later.
pub async fn any_since(tx: &TenantTx, at: Timestamp) -> Result<bool> {
    let query = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "SELECT EXISTS (SELECT FROM history WHERE recorded_at >= $1 AND action = 'erased') AS found",
        [at.into()],
    );
    let row = tx.query_one_raw(query).await?;
    Ok(row.map_or(Ok(false), |row| row.try_get("", "found"))?)
}

/// Erases these persons, each with the table that it is of, and says so in the trail. How many entries had something of them.
///
/// The unit of work is the owner's of the schema: a tenant's role changes nothing in its history.
pub async fn erase(tx: &TenantTx, persons: &[(&str, Uuid)]) -> Result<u64> {
    for (kind, person) in persons {
        record(tx, (kind, *person), Action::Erased, json!({})).await?;
    }
    let ids: Vec<Uuid> = persons.iter().map(|(_, person)| *person).collect();
    let values = [ids.into(), ERASED.into()];
    let update = Statement::from_sql_and_values(DbBackend::Postgres, ERASE, values);
    Ok(tx.execute_raw(update).await?.rows_affected())
}

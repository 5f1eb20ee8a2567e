//! Erasing what a history has of persons. The chain covers commitments, and not the values: those go, and it stays whole.

use super::event::record;
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

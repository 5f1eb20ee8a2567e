//! What belongs into the trail and is no change of a row.

use crate::database::TenantTx;
use crate::error::Result;
use sea_orm::{ActiveEnum as _, ConnectionTrait as _, DbBackend, Statement};
use serde_json::json;
use uuid::Uuid;

/// Somebody tried to sign in as this member or device and failed; as none that there is, if none is given: the entry is the
/// tenant's then. What they sent is not kept: it may be a secret in the wrong place.
pub async fn sign_in_failed(tx: &TenantTx, kind: &str, subject: Option<Uuid>) -> Result<()> {
    let (table, id) = match subject {
        Some(id) => (kind, id),
        None => ("tenant", tx.tenant().id),
    };
    let action = entity::tenant::history::Action::SignInFailed.to_value();
    let event = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "SELECT record_event($1, $2, $3, $4)",
        [
            table.into(),
            id.into(),
            action.into(),
            json!({ "as": kind }).into(),
        ],
    );
    tx.execute_raw(event).await?;
    Ok(())
}

//! What belongs into the trail and is no change of a row.

use crate::database::TenantTx;
use crate::error::Result;
use entity::tenant::history::Action;
use sea_orm::{ActiveEnum as _, ConnectionTrait as _, DbBackend, Statement};
use serde_json::{Value, json};
use uuid::Uuid;

/// Somebody tried to sign in as this member or device and failed; as none that there is, if none is given: the entry is the
/// tenant's then. What they sent is not kept: it may be a secret in the wrong place.
pub async fn sign_in_failed(tx: &TenantTx, kind: &str, subject: Option<Uuid>) -> Result<()> {
    let (table, id) = match subject {
        Some(id) => (kind, id),
        None => ("tenant", tx.tenant().id),
    };
    record(tx, (table, id), Action::SignInFailed, json!({ "as": kind })).await
}

/// Something was done with this subject that is no change of it, and there is this to say of it.
pub async fn record(
    tx: &TenantTx,
    (kind, subject): (&str, Uuid),
    action: Action,
    detail: Value,
) -> Result<()> {
    let event = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "SELECT record_event($1, $2, $3, $4)",
        [
            kind.into(),
            subject.into(),
            action.to_value().into(),
            detail.into(),
        ],
    );
    tx.execute_raw(event).await?;
    Ok(())
}

//! The operators' log: who changed what, and why; written in the transaction of the change.

use crate::database::PlatformTx;
use crate::error::Result;
use entity::platform::operator_log;
use sea_orm::{EntityTrait as _, Set};
use serde_json::Value;
use uuid::Uuid;

/// Writes an entry: of one tenant, or of them all.
pub async fn log(
    tx: &PlatformTx,
    operator: &str,
    (action, tenant): (&str, Option<Uuid>),
    detail: Value,
) -> Result<()> {
    let entry = operator_log::ActiveModel {
        id: Set(tx.new_id()),
        at: Set(tx.now()),
        operator: Set(operator.to_owned()),
        action: Set(action.to_owned()),
        tenant_id: Set(tenant),
        detail: Set(detail),
    };
    operator_log::Entity::insert(entry)
        .exec_without_returning(tx)
        .await?;
    Ok(())
}

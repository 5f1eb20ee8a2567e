//! The operators' log: who changed what, and why; written in the transaction of the change. What is done to one tenant is in that
//! tenant's own history too, by a trigger on the log.

use crate::database::{Database, PlatformTx};
use crate::error::Result;
use entity::platform::operator_log;
use sea_orm::{DbBackend, EntityTrait as _, FromQueryResult, Set, Statement};
use serde_json::{Value, json};
use uuid::Uuid;

/// Writes an entry: of one tenant, or of them all. The operator is named; what the platform does by itself is `system:` and what.
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

/// A session that an operator acted in, whose time is over and whose end is not written down.
#[derive(Debug, FromQueryResult)]
struct Over {
    tenant_id: Uuid,
    session: String,
    member: String,
}

const OVER: &str = "SELECT b.tenant_id, b.detail ->> 'session' AS session, b.detail ->> 'member' AS member FROM operator_log b
    WHERE b.action = 'tenant.impersonate' AND (b.detail ->> 'until')::timestamptz < $1 AND NOT EXISTS (SELECT FROM operator_log e
        WHERE e.action = 'tenant.impersonate.end' AND e.detail ->> 'session' = b.detail ->> 'session')
    ORDER BY b.id FOR UPDATE OF b SKIP LOCKED";

/// Writes down that operators' time as members is over, for those who were not ended before. How many.
pub async fn end_impersonations(database: &Database) -> Result<usize> {
    let tx = database.platform().await?;
    let over = Statement::from_sql_and_values(DbBackend::Postgres, OVER, [tx.now().into()]);
    let over = Over::find_by_statement(over).all(&tx).await?;
    for one in &over {
        let detail = json!({ "session": one.session, "member": one.member });
        let action = ("tenant.impersonate.end", Some(one.tenant_id));
        log(&tx, "system:clock", action, detail).await?;
    }
    tx.commit().await?;
    Ok(over.len())
}

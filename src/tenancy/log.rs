//! The operators' log: who changed what, and why; written in the transaction of the change. What is done to one tenant is in that
//! tenant's own history too, by a trigger on the log.

use crate::actor::{Actor, Attribution};
use crate::database::{Database, PlatformTx};
use crate::error::Result;
use entity::platform::{operator_log, tenant};
use sea_orm::{
    ColumnTrait as _, DbBackend, EntityTrait as _, FromQueryResult, QueryFilter as _,
    QueryOrder as _, QuerySelect as _, Set, Statement,
};
use serde_json::{Value, json};
use std::collections::HashMap;
use uuid::Uuid;

/// Who does it, and why.
#[derive(Clone, Debug)]
pub struct Act {
    /// As the operating system or the operator API knows them; `system:` and what, if the platform does it by itself.
    pub operator: String,
    /// In their words.
    pub reason: Option<String>,
}

impl Act {
    /// Without a reason.
    pub fn by(operator: &str) -> Self {
        Self {
            operator: operator.to_owned(),
            reason: None,
        }
    }

    /// As whom the tenant's history knows them.
    pub fn attribution(&self) -> Attribution {
        Attribution {
            reason: self.reason.clone(),
            ..Actor::Operator(self.operator.clone()).into()
        }
    }

    /// Writes it down, of one tenant or of them all, with what else there is to say.
    pub async fn log(
        &self,
        tx: &PlatformTx,
        (action, tenant): (&str, Option<Uuid>),
        mut detail: Value,
    ) -> Result<()> {
        if let Some(reason) = &self.reason {
            detail["reason"] = reason.as_str().into();
        }
        let entry = operator_log::ActiveModel {
            id: Set(tx.new_id()),
            at: Set(tx.now()),
            operator: Set(self.operator.clone()),
            action: Set(action.to_owned()),
            tenant_id: Set(tenant),
            detail: Set(detail),
        };
        operator_log::Entity::insert(entry)
            .exec_without_returning(tx)
            .await?;
        Ok(())
    }
}

/// An entry, with the slug of the tenant that it is about; none, if that is gone.
pub type Entry = (operator_log::Model, Option<String>);

/// The latest entries, of one tenant or of all, newest first.
pub async fn latest(tx: &PlatformTx, of: Option<Uuid>, limit: u64) -> Result<Vec<Entry>> {
    // An id begins with its time.
    let mut entries = operator_log::Entity::find()
        .order_by_desc(operator_log::Column::Id)
        .limit(limit);
    if let Some(tenant) = of {
        entries = entries.filter(operator_log::Column::TenantId.eq(tenant));
    }
    let entries = entries.all(tx).await?;
    let ids: Vec<Uuid> = entries.iter().filter_map(|entry| entry.tenant_id).collect();
    let named: HashMap<Uuid, String> = tenant::Entity::find()
        .filter(tenant::Column::Id.is_in(ids))
        .all(tx)
        .await?
        .into_iter()
        .map(|tenant| (tenant.id, tenant.slug))
        .collect();
    let with_slug = |entry: operator_log::Model| {
        let slug = entry.tenant_id.and_then(|id| named.get(&id).cloned());
        (entry, slug)
    };
    Ok(entries.into_iter().map(with_slug).collect())
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
        Act::by("system:clock").log(&tx, action, detail).await?;
    }
    tx.commit().await?;
    Ok(over.len())
}

//! Keys of mutations are kept for a day; then they are removed, and their answers with them.

use crate::actor::Actor;
use crate::database::{Database, Tenant};
use crate::error::Result;
use chrono::Duration;
use entity::platform::tenant::{Column, Entity, State};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait as _, DbBackend, EntityTrait as _, QueryFilter as _,
    Statement,
};
use std::sync::Arc;

/// How long an `Idempotency-Key` and its answer are kept.
pub const KEPT: Duration = Duration::hours(24);
/// Keys removed in one transaction.
const SOME: u64 = 5_000;

/// Schemas whose table has ever had a row since it was vacuumed: the others are not looked into.
const USED: &str = "SELECT n.nspname::text AS schema
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relname = 'idempotency_key' AND pg_relation_size(c.oid) > 0";

/// Removes what had its time, tenant by tenant.
pub async fn forget(database: &Database) -> Result<()> {
    let tx = database.platform().await?;
    let used = Statement::from_string(DbBackend::Postgres, USED);
    let used = tx.query_all_raw(used).await?;
    let schemas: Vec<String> = used
        .iter()
        .map(|row| row.try_get("", "schema"))
        .collect::<std::result::Result<_, _>>()?;
    let tenants = Entity::find()
        .filter(Column::SchemaName.is_in(schemas))
        .filter(Column::State.is_in([State::Active, State::Suspended]))
        .all(&tx)
        .await?;
    tx.commit().await?;
    for tenant in tenants {
        let tenant = Arc::new(tenant);
        // One that cannot be written to now does not hold up the others.
        while match remove_some(database, &tenant).await {
            Ok(removed) => removed == SOME,
            Err(error) => {
                tracing::warn!(?error, tenant = tenant.slug, "old keys stay for now");
                false
            }
        } {}
    }
    Ok(())
}

async fn remove_some(database: &Database, tenant: &Arc<Tenant>) -> Result<u64> {
    let by = Actor::System("keys of mutations have their time".to_owned());
    let tx = database.write(tenant, &by.into()).await?;
    let some = format!(
        "DELETE FROM idempotency_key WHERE id = ANY (ARRAY(
             SELECT id FROM idempotency_key WHERE created_at < $1 LIMIT {SOME}))"
    );
    let before = tx.now() - KEPT;
    let some = Statement::from_sql_and_values(DbBackend::Postgres, some, [before.into()]);
    let removed = tx.execute_raw(some).await;
    let removed = removed.map(|done| done.rows_affected());
    tx.settle(removed.map_err(Into::into)).await
}

//! What became visible between two snapshots.

use super::Item;
use crate::clock::Timestamp;
use crate::database::TenantTx;
use crate::error::Result;
use crate::history::Snapshot;
use entity::tenant::history::{Column, Entity};
use sea_orm::sea_query::{Expr, ExprTrait as _, PgFunc};
use sea_orm::{
    ConnectionTrait as _, DbBackend, EntityTrait as _, FromQueryResult, QueryFilter as _, Statement,
};
use std::collections::HashMap;
use std::sync::Arc;
use uuid::Uuid;

/// Changes between two readings at most. They are ids at first: 16 bytes each.
pub(super) const MOST: usize = 50_000;

/// Between two snapshots, the older one first.
#[derive(Debug)]
pub(super) struct Window<'a> {
    pub(super) seen: &'a Snapshot,
    pub(super) now: &'a Snapshot,
}

/// Ids of the changes in the window, in the order in which they were made, up to one more than [`MOST`].
///
/// What a backup of another server brought has that server's transaction ids, and is older than `from`. The list is made
/// before it is sorted: with a limit in sight, PostgreSQL might walk the index by time instead.
pub(super) async fn changes(
    tx: &TenantTx,
    window: &Window<'_>,
    from: Timestamp,
) -> Result<Vec<Uuid>> {
    let query = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "WITH fresh AS MATERIALIZED (
             SELECT id, recorded_at FROM history
             WHERE (transaction_id = ANY ($1) OR (transaction_id >= $2 AND transaction_id < $3))
                 AND transaction_id <> ALL ($4) AND recorded_at >= $5)
         SELECT id FROM fresh ORDER BY recorded_at, id LIMIT $6",
        [
            window.seen.running.clone().into(),
            window.seen.next.into(),
            window.now.next.into(),
            window.now.running.clone().into(),
            from.into(),
            limit().into(),
        ],
    );
    let rows = tx.query_all_raw(query).await?;
    Ok(rows
        .iter()
        .map(|row| row.try_get("", "id"))
        .collect::<Result<_, _>>()?)
}

/// The changes with these ids, in their order.
pub(super) async fn load(tx: &TenantTx, ids: &[Uuid]) -> Result<Vec<Item>> {
    let rows = Entity::find()
        .filter(Expr::col(Column::Id).eq(PgFunc::any(ids.to_vec())))
        .all(tx)
        .await?;
    let mut rows: HashMap<_, _> = rows.into_iter().map(|row| (row.id, row)).collect();
    let found = ids.iter().filter_map(|id| rows.remove(id));
    Ok(found.map(|row| Item::Change(Arc::new(row))).collect())
}

/// Jobs that were added or changed in the window, up to one more than [`MOST`].
pub(super) async fn jobs(tx: &TenantTx, window: &Window<'_>) -> Result<Vec<Item>> {
    #[derive(FromQueryResult)]
    struct Changed {
        id: Uuid,
        changed_in: i64,
    }
    let query = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "SELECT id, changed_in FROM changed_jobs($1, $2, $3, $4, $5)",
        [
            window.seen.running.clone().into(),
            window.seen.next.into(),
            window.now.next.into(),
            window.now.running.clone().into(),
            i32::try_from(limit()).unwrap_or(i32::MAX).into(),
        ],
    );
    let rows = Changed::find_by_statement(query).all(tx).await?;
    Ok(rows
        .into_iter()
        .map(|row| Item::Job(row.id, row.changed_in))
        .collect())
}

fn limit() -> i64 {
    i64::try_from(MOST + 1).unwrap_or(i64::MAX)
}

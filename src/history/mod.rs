//! Reading what the triggers wrote.

pub mod graphql;

use crate::database::TenantTx;
use crate::error::Result;
use entity::tenant::history::{Column, Entity, Model};
use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{
    ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _,
};
use uuid::Uuid;

/// Up to `limit` changes, newest first: of one subject or of the whole tenant, those before a change if one is given.
pub async fn list(
    tx: &TenantTx,
    subject: Option<Uuid>,
    before: Option<Uuid>,
    limit: u64,
) -> Result<Vec<Model>> {
    let mut select = Entity::find();
    if let Some(subject) = subject {
        select = select.filter(Column::SubjectId.eq(subject));
    }
    if let Some(before) = before {
        let place = Entity::find_by_id(before).one(tx).await?;
        let Some(place) = place else {
            return Ok(Vec::new());
        };
        let here = Expr::tuple([Expr::col(Column::RecordedAt), Expr::col(Column::Id)]);
        select = select.filter(here.lt(Expr::tuple([
            Expr::value(place.recorded_at),
            Expr::value(place.id),
        ])));
    }
    Ok(select
        .order_by_desc(Column::RecordedAt)
        .order_by_desc(Column::Id)
        .limit(limit)
        .all(tx)
        .await?)
}

/// One change.
pub async fn find(tx: &TenantTx, id: Uuid) -> Result<Option<Model>> {
    Ok(Entity::find_by_id(id).one(tx).await?)
}

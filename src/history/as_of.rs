//! Rows as they were at a moment, from what the history has of them: each by its index, however much was recorded since.

use crate::clock::Timestamp;
use crate::database::{Tenant, TenantTx};
use crate::error::{Error, Result};
use chrono::SecondsFormat;
use entity::tenant::history::{Action, Column, Entity, Model};
use migration::tenant::BLANK;
use sea_orm::sea_query::{
    Alias, BinOper, Expr, ExprTrait as _, Func, FunctionCall, IntoIden as _, JoinType, Query,
    SelectStatement, TableRef,
};
use sea_orm::{
    ColumnTrait as _, EntityTrait, IdenStatic as _, Iterable as _, QueryFilter as _,
    QueryOrder as _, QuerySelect as _, QueryTrait, Select,
};
use serde_json::{Map, Value};
use uuid::Uuid;

/// Refuses a moment that the history does not reach back to any more: what it would find is what was left, and not what was.
pub fn readable(tenant: &Tenant, at: Timestamp) -> Result<()> {
    match tenant.history_from {
        Some(from) if at < from => {
            let from = from.to_rfc3339_opts(SecondsFormat::Micros, true);
            Err(Error::BadRequest(format!(
                "The history is kept from {from} on; ask for that moment or a later one."
            )))
        }
        _ => Ok(()),
    }
}

/// The same rows as they were at a moment; as they are now, if there is none. Whatever else the selection asks of them, it
/// asks of what they were.
pub fn as_of<E: EntityTrait>(mut select: Select<E>, at: Option<Timestamp>) -> Select<E> {
    if let Some(at) = at {
        let table = E::default();
        QueryTrait::query(&mut select)
            .from_clear()
            .from_subquery(rows_at::<E>(at), Alias::new(table.table_name()));
    }
    select
}

/// The rows of a table at a moment, under the table's own names.
///
/// The objects come first, in the order of their ids, out of the index of what made them, and where one was made again later
/// by that which made it first; then for each the newest change of it until then. A page is full before the rest is looked at.
pub fn rows_at<E: EntityTrait>(at: Timestamp) -> SelectStatement {
    let [made, was, row] = ["made", "was", "row"].map(Alias::new);
    let table = E::default();
    let table = table.table_name();
    let mut rows = Query::select();
    for column in E::Column::iter() {
        // The id out of the index: so PostgreSQL knows that they are in its order.
        let from = if column.as_str() == "id" {
            Expr::col((made.clone(), Column::SubjectId))
        } else {
            Expr::col((row.clone(), Alias::new(column.as_str())))
        };
        rows.expr_as(from, Alias::new(column.as_str()));
    }
    let object = Expr::col((made.clone(), Column::SubjectId));
    let newest = changes_until(at)
        .filter(Column::SubjectId.into_expr().eq(object))
        .limit(1)
        .into_query();
    let there = Expr::col((was.clone(), Column::Action)).ne("delete");
    rows.from_as(Entity, made.clone())
        .join_lateral(JoinType::InnerJoin, newest, was.clone(), there)
        .join(
            JoinType::InnerJoin,
            TableRef::FunctionCall(populated(table, was), row.into_iden()),
            Expr::value(true),
        )
        .and_where(Expr::col((made.clone(), Column::SubjectType)).eq(table))
        .and_where(Expr::col((made, Column::RecordedAt)).lte(at))
        .and_where(Expr::cust(MADE));
    rows
}

/// What made an object first. The action stands in the text, for the index is of such changes alone; and the times are
/// compared so that PostgreSQL expects many of them, and walks the index.
const MADE: &str = r#""made"."action" = 'create' AND "made"."recorded_at" <= (SELECT min(first.recorded_at) FROM history first
    WHERE first.subject_type = "made"."subject_type" AND first.subject_id = "made"."subject_id" AND first.action = 'create')"#;

/// The newest change of an object until a moment. If it is a removal, the object was not there.
pub async fn version(tx: &TenantTx, subject: Uuid, at: Timestamp) -> Result<Option<Model>> {
    let newest = changes_until(at).filter(Column::SubjectId.eq(subject));
    Ok(newest.one(tx).await?)
}

/// The changes of rows until a moment, the newest first.
fn changes_until(at: Timestamp) -> Select<Entity> {
    Entity::find()
        .filter(Column::RecordedAt.lte(at))
        .filter(Column::Action.is_in([Action::Create, Action::Update, Action::Delete]))
        .order_by_desc(Column::RecordedAt)
        .order_by_desc(Column::Id)
}

/// The history's JSON as a row of the table.
fn populated(table: &str, was: Alias) -> FunctionCall {
    let blank = BLANK.iter().filter(|(of, _)| *of == table);
    let blank: Map<String, Value> = blank
        .map(|(_, column)| ((*column).to_owned(), Value::from("")))
        .collect();
    let filled = Expr::value(Value::from(blank))
        .cast_as("jsonb")
        .binary(BinOper::Custom("||"), Expr::col((was, Column::Row)));
    Func::cust("jsonb_populate_record")
        .arg(Expr::cust(format!("NULL::\"{table}\"")))
        .arg(filled)
}

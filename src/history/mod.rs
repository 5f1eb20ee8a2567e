//! Reading what the triggers wrote.

mod as_of;
pub mod erase;
mod event;
pub mod export;
mod filter;
pub mod graphql;
pub mod jobs;
mod line;
pub mod revert;
pub mod seal;
mod snapshot;
pub mod stream;

pub use as_of::{as_of, readable, rows_at, version};
pub use erase::ERASED;
pub use event::{Note, Notes, record, sign_in_failed, signed_in, signed_out};
pub use filter::{Actions, Filter};
pub use snapshot::Snapshot;

use crate::database::any;
use crate::error::{Error, Result};
use entity::tenant::history::{Action, Column, Entity, Model};
use futures::{Stream, TryStreamExt as _};
use sea_orm::sea_query::ExprTrait as _;
use sea_orm::{ColumnTrait as _, Condition, EntityTrait as _, QueryFilter as _, Select};
use serde::de::DeserializeOwned;
use std::sync::Arc;
use uuid::Uuid;

/// One recorded change.
pub type Row = Model;

/// The changes that pass.
pub fn select(filter: Filter) -> Select<Entity> {
    let mut select = Entity::find();
    if let Some(actor) = filter.actor {
        select = select.filter(Column::Actor.eq(actor));
    }
    if let Some(subject) = filter.subject {
        select = select.filter(Column::SubjectId.eq(subject));
    }
    if let Some(types) = filter.subject_types {
        select = select.filter(match types.as_slice() {
            // Equal to one, they come out of the index in the order of the list.
            [only] => Column::SubjectType.eq(only.as_str()),
            _ => Column::SubjectType.into_expr().eq(any(types)),
        });
    }
    if let Some(actions) = filter.actions {
        let others = Column::Action.is_in(actions.others);
        let others = others.and(Column::Reverts.is_null());
        let reverts = actions.reverts.then(|| Column::Reverts.is_not_null());
        select = select.filter(Condition::any().add(others).add_option(reverts));
    }
    if let Some(from) = filter.from {
        select = select.filter(Column::RecordedAt.gte(from));
    }
    if let Some(until) = filter.until {
        select = select.filter(Column::RecordedAt.lt(until));
    }
    select
}

/// The rows of a table as each change left them, or one row of it. One that was removed is left out.
pub fn rows<M: DeserializeOwned + Send>(
    changes: impl Stream<Item = Result<Arc<Model>>> + Send,
    table: &'static str,
    only: Option<Uuid>,
) -> impl Stream<Item = Result<M>> + Send {
    changes.try_filter_map(move |change| {
        let is_it = change.subject_type == table
            && matches!(change.action, Action::Create | Action::Update)
            && only.is_none_or(|id| id == change.subject_id);
        let row = is_it.then(|| M::deserialize(&change.row));
        std::future::ready(row.transpose().map_err(Error::internal))
    })
}

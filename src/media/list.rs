//! The lists of media: what they can be narrowed to, and those of one uploader, in batches.

use super::graphql::MediaState;
use crate::error::Result;
use crate::graphql::{Order, Owned, Place, SortKey, containing, escaped};
use async_graphql::InputObject;
use entity::tenant::media::{Column, Entity, Model, State};
use sea_orm::sea_query::extension::postgres::PgExpr as _;
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, Select, Value};

/// The order of all media: newest first.
pub(super) const NEWEST: Order = Order {
    name: "media",
    key: SortKey::Id,
    descending: true,
};
/// That of one uploader's: the same.
pub(super) const UPLOADED: Order = Order {
    name: "media.uploaded",
    ..NEWEST
};

/// Where a media is in both.
pub(super) fn place(row: &Model) -> Place {
    Place::by_id(row.id)
}

/// Which media; all that is given holds.
#[derive(Debug, Default, InputObject)]
pub struct MediaFilter {
    /// Somewhere in the file name, in upper or lower case.
    search: Option<String>,
    /// In this folder under the tenant's prefix.
    resource_type: Option<String>,
    /// Of a type that begins so, e.g. `image/`.
    content_type_prefix: Option<String>,
    /// In this state.
    state: Option<MediaState>,
}

impl MediaFilter {
    /// The media that pass.
    pub(super) fn select(self) -> Result<Select<Entity>> {
        let mut select = Entity::find();
        if let Some(search) = self.search {
            let named = Column::Filename.into_expr().ilike(containing(&search)?);
            select = select.filter(named);
        }
        if let Some(resource_type) = self.resource_type {
            select = select.filter(Column::ResourceType.eq(resource_type));
        }
        if let Some(prefix) = self.content_type_prefix {
            let typed = format!("{}%", escaped(&prefix.to_ascii_lowercase()));
            select = select.filter(Column::ContentType.like(typed));
        }
        if let Some(state) = self.state {
            select = select.filter(Column::State.eq(State::from(state)));
            // Says so for the index of those few that are not.
            if state != MediaState::Ready {
                select = select.filter(Column::State.ne(State::Ready));
            }
        }
        Ok(select)
    }
}

/// Media belong to who uploaded them.
impl Owned for Entity {
    type Owner = String;

    fn owned_by() -> Column {
        Column::UploadedBy
    }

    fn owner(row: &Model) -> String {
        row.uploaded_by.clone()
    }

    fn array(owners: Vec<String>) -> Value {
        owners.into()
    }
}

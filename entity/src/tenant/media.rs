//! A file of the tenant; its bytes are in the object store.

use sea_orm::entity::prelude::*;
use serde::Deserialize;

/// Where a media is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum, Deserialize)]
#[serde(rename_all = "snake_case")]
#[sea_orm(rs_type = "String", db_type = "Text", rename_all = "snake_case")]
pub enum State {
    /// The row is there, the bytes are not.
    AwaitingUpload,
    /// A job looks at the bytes.
    Processing,
    /// Checked; links are given out.
    Ready,
    /// The bytes were refused; `failure` says why.
    Failed,
}

/// One media.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Deserialize)]
#[sea_orm(table_name = "media")]
pub struct Model {
    /// Identity, and the `{uuid}` of its key.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// As the uploader called it; shown, never part of a key.
    pub filename: String,
    /// Declared by the uploader, then replaced by what the bytes say.
    pub content_type: String,
    /// Bytes: declared, then measured.
    pub size: i64,
    /// Hexadecimal: declared, then measured.
    pub sha256: Option<String>,
    /// Where it is in its life.
    pub state: State,
    /// First folder under the tenant's prefix.
    pub resource_type: String,
    /// Extension of its key, from the sniffed type; set when READY.
    pub ext: Option<String>,
    /// Extension of its thumbnails' keys, if it has any.
    pub thumbnail_ext: Option<String>,
    /// Why it is FAILED, in words for the uploader.
    pub failure: Option<String>,
    /// Who uploaded it, e.g. `member:<uuid>`.
    pub uploaded_by: String,
    /// When the row was made.
    pub created_at: DateTimeUtc,
    /// When it was last changed, by trigger.
    pub updated_at: DateTimeUtc,
    /// Bumped by each change, by trigger.
    pub version: i32,
}

/// No relations are used from this side.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

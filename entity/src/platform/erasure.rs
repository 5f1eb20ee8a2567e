//! The certificate of a tenant's erasure: what was erased, when, and who asked for it.

use sea_orm::entity::prelude::*;

/// One erasure; its numbers grow while it goes on.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "erasure")]
pub struct Model {
    /// The tenant that was.
    #[sea_orm(primary_key, auto_increment = false)]
    pub tenant_id: Uuid,
    /// Its slug, free again once this is finished.
    pub slug: String,
    /// Its name.
    pub name: String,
    /// Its schema.
    pub schema_name: String,
    /// Who asked for it.
    pub requested_by: String,
    /// Why.
    pub reason: Option<String>,
    /// When it began.
    pub started_at: DateTimeUtc,
    /// When nothing was left.
    pub finished_at: Option<DateTimeUtc>,
    /// Tables dropped.
    pub tables: i32,
    /// Rows in them.
    pub rows: i64,
    /// Jobs removed.
    pub jobs: i64,
    /// Media objects removed.
    pub objects: i64,
    /// Bytes of these.
    pub bytes: i64,
}

/// No relations are used.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

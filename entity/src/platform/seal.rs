//! A part of the chain over the history of a tenant.

use sea_orm::entity::prelude::*;

/// Some entries in a row, sealed together.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "seal")]
pub struct Model {
    /// Whose.
    #[sea_orm(primary_key, auto_increment = false)]
    pub tenant_id: Uuid,
    /// The number of the first entry.
    #[sea_orm(primary_key, auto_increment = false)]
    pub first: i64,
    /// That of the last.
    pub last: i64,
    /// Which key made the links.
    pub key_id: String,
    /// Their ids, in the order of their numbers.
    pub entries: Vec<Uuid>,
    /// The link of each, 32 bytes.
    pub links: Vec<u8>,
    /// When.
    pub sealed_at: DateTimeUtc,
}

/// No relations are used.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

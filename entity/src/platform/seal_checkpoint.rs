//! What stands for the part of a tenant's chain whose entries were purged.

use sea_orm::entity::prelude::*;

/// Some entries in a row, most of which are gone.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "seal_checkpoint")]
pub struct Model {
    /// Whose.
    #[sea_orm(primary_key, auto_increment = false)]
    pub tenant_id: Uuid,
    /// The number of the first entry.
    #[sea_orm(primary_key, auto_increment = false)]
    pub first: i64,
    /// That of the last.
    pub last: i64,
    /// The link of the last, which the chain goes on from.
    pub link: Vec<u8>,
    /// How many of them are gone.
    pub purged: i64,
    /// How many of them are in archives of the object store.
    pub archived: i64,
    /// Those were recorded before this moment.
    pub until: DateTimeUtc,
    /// When the newest of them was purged.
    pub made_at: DateTimeUtc,
    /// Ids of those that are kept.
    pub entries: Vec<Uuid>,
    /// Their numbers.
    pub numbers: Vec<i64>,
    /// For each the link before it and its own, 32 bytes each.
    pub links: Vec<u8>,
    /// The key that made each link.
    pub keys: Vec<String>,
    /// Which key signed all of this.
    pub key_id: String,
    /// The signature.
    pub mac: Vec<u8>,
}

/// No relations are used.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

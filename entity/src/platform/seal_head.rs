//! How far the history of a tenant is sealed.

use sea_orm::entity::prelude::*;

/// The head of one chain.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "seal_head")]
pub struct Model {
    /// Whose.
    #[sea_orm(primary_key, auto_increment = false)]
    pub tenant_id: Uuid,
    /// Entries that are sealed, and the number of the last.
    pub number: i64,
    /// Its link; empty while there is none.
    pub link: Vec<u8>,
    /// Transactions before this one are sealed, but for those that ran then.
    pub next: i64,
    /// Those.
    pub running: Vec<i64>,
    /// Entries from before it may be of another server, whose transactions had other numbers.
    pub since: Option<DateTimeUtc>,
    /// The number of the newest anchor.
    pub anchored: i64,
    /// When that was made.
    pub anchored_at: Option<DateTimeUtc>,
}

/// No relations are used.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

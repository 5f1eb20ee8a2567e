//! A person who works in the tenant.

use sea_orm::entity::prelude::*;

/// One member.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "member")]
pub struct Model {
    /// Identity.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// Lower case; unique in the tenant.
    pub email: String,
    /// Name for people.
    pub name: Option<String>,
    /// argon2id, PHC string. Never in the history.
    pub password_hash: String,
    /// A media of the tenant.
    pub avatar_id: Option<Uuid>,
    /// When a credential of theirs was last used, to the minute.
    pub last_seen_at: Option<DateTimeUtc>,
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

//! A named set of permissions.

use sea_orm::entity::prelude::*;

/// One role.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "role")]
pub struct Model {
    /// Identity.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// Unique in the tenant.
    pub name: String,
    /// Names of permissions, as the API spells them.
    pub permissions: Vec<String>,
    /// Shipped with Bulkhead; cannot be edited.
    pub built_in: bool,
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

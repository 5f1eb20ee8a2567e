//! A schema, role and grants made ahead of time, for the next new tenant.

use sea_orm::entity::prelude::*;

/// One spare.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "spare")]
pub struct Model {
    /// The schema, `t_<number>`.
    #[sea_orm(primary_key, auto_increment = false)]
    pub schema_name: String,
    /// The role, `<instance>_t_<number>`.
    pub role_name: String,
    /// The cell whose login may take the role.
    pub cell_id: i16,
    /// The newest step of the template that it is a copy of.
    pub version: String,
    /// When it was made.
    pub created_at: DateTimeUtc,
}

/// No relations are used.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

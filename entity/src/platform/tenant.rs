//! The registry: one row a tenant.

use sea_orm::entity::prelude::*;

/// Where a tenant is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "Text", rename_all = "snake_case")]
pub enum State {
    /// In use.
    Active,
}

/// One tenant. Schema, role and cell are read from here, never derived.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "tenant")]
pub struct Model {
    /// Identity; never shown outside.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// Subdomain and media prefix; never changes.
    pub slug: String,
    /// Name for people.
    pub name: String,
    /// Where it is in its life.
    pub state: State,
    /// The tenant's schema, `t_<number>`.
    pub schema_name: String,
    /// The tenant's role, `<instance>_t_<number>`.
    pub role_name: String,
    /// The cell whose connections serve it.
    pub cell_id: i16,
    /// When it was created.
    pub created_at: DateTimeUtc,
}

/// No relations are used from this side.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

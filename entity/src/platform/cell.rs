//! A login role and its connections; each tenant belongs to one.

use sea_orm::entity::prelude::*;

/// One cell.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "cell")]
pub struct Model {
    /// Number of the cell, from 0.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: i16,
    /// Name of the login role. Its password is derived from the secret key, never stored.
    pub login: String,
}

/// No relations are used.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

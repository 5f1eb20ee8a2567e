//! What operators did, and to whom.

use sea_orm::entity::prelude::*;

/// One act of an operator.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "operator_log")]
pub struct Model {
    /// Identity, in the order of the acts.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// When.
    pub at: DateTimeUtc,
    /// Who, as the operating system or the operator API knows them.
    pub operator: String,
    /// What, e.g. `tenant.create`.
    pub action: String,
    /// To which tenant, if to one.
    pub tenant_id: Option<Uuid>,
    /// The act's arguments, without secrets.
    pub detail: Json,
}

/// No relations are used.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

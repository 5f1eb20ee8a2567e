//! A host name of its own that a tenant is reached by, besides its subdomain.

use sea_orm::entity::prelude::*;

/// One custom domain.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "domain")]
pub struct Model {
    /// The host, lower case, without port or trailing dot.
    #[sea_orm(primary_key, auto_increment = false)]
    pub host: String,
    /// Whose it is.
    pub tenant_id: Uuid,
    /// When its owner proved it; a host without this routes nowhere.
    pub verified_at: Option<DateTimeUtc>,
    /// When it was added.
    pub created_at: DateTimeUtc,
}

/// A domain belongs to a tenant.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {
    /// The tenant behind the host.
    #[sea_orm(
        belongs_to = "super::tenant::Entity",
        from = "Column::TenantId",
        to = "super::tenant::Column::Id"
    )]
    Tenant,
}

impl Related<super::tenant::Entity> for Entity {
    fn to() -> RelationDef {
        Relation::Tenant.def()
    }
}

impl ActiveModelBehavior for ActiveModel {}

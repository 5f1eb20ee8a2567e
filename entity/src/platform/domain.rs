//! A host name of its own that a tenant is reached by, besides its subdomain.

use sea_orm::entity::prelude::*;

/// One custom domain. Several tenants may claim a host; one of them at most has it verified.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "domain")]
pub struct Model {
    /// Whose claim it is.
    #[sea_orm(primary_key, auto_increment = false)]
    pub tenant_id: Uuid,
    /// The host, lower case, without port or trailing dot.
    #[sea_orm(primary_key, auto_increment = false)]
    pub host: String,
    /// When its owner proved it; a host without this routes nowhere.
    pub verified_at: Option<DateTimeUtc>,
    /// When it was added.
    pub created_at: DateTimeUtc,
    /// What the TXT record that proves it has to hold.
    pub token: String,
    /// Whether it is the one that the tenant goes by.
    pub is_primary: bool,
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

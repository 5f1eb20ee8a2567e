//! The roles that every tenant begins with.

use crate::database::TenantTx;
use crate::error::Result;
use crate::permission::Permission;
use entity::tenant::role;
use sea_orm::{EntityTrait as _, Set};

/// A role that Bulkhead ships.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuiltIn {
    /// Everything.
    Owner,
    /// Everything but reverting changes and handing out API keys.
    Admin,
    /// Sees the tenant and uploads.
    Member,
    /// Sees the tenant.
    Viewer,
}

impl BuiltIn {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Owner, Self::Admin, Self::Member, Self::Viewer];

    /// Its name in the tenant.
    pub fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Member => "member",
            Self::Viewer => "viewer",
        }
    }

    fn has(self, permission: Permission) -> bool {
        use Permission::{
            ApiKeysManage, AuditRevert, DevicesRead, MediaRead, MediaWrite, MembersRead,
        };
        match self {
            Self::Owner => true,
            Self::Admin => !matches!(permission, ApiKeysManage | AuditRevert),
            Self::Member => matches!(
                permission,
                DevicesRead | MediaRead | MediaWrite | MembersRead
            ),
            Self::Viewer => matches!(permission, DevicesRead | MediaRead | MembersRead),
        }
    }
}

/// Makes the built-in roles of a new tenant.
pub async fn seed_roles(tx: &TenantTx) -> Result<()> {
    let now = tx.now();
    let rows = BuiltIn::ALL.map(|built_in| role::ActiveModel {
        id: Set(tx.new_id()),
        name: Set(built_in.name().to_owned()),
        permissions: Set(Permission::ALL
            .into_iter()
            .filter(|&permission| built_in.has(permission))
            .map(|permission| permission.as_str().to_owned())
            .collect()),
        built_in: Set(true),
        created_at: Set(now),
        updated_at: Set(now),
        version: Set(1),
    });
    role::Entity::insert_many(rows)
        .exec_without_returning(tx)
        .await?;
    Ok(())
}

//! What a caller may do. Roles hold permissions; each resolver and route names the one it needs. A change of what a built-in
//! role allows comes with a step of the tenants' schema: the rows are there already.

use async_graphql::Enum;

/// One permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Enum)]
pub enum Permission {
    /// Create and revoke API keys.
    ApiKeysManage,
    /// Read the tenant's whole trail.
    AuditRead,
    /// Put objects back to an earlier state.
    AuditRevert,
    /// Create, change and remove devices.
    DevicesManage,
    /// See devices.
    DevicesRead,
    /// See media and get links to them.
    MediaRead,
    /// Upload and change media.
    MediaWrite,
    /// Invite, change and remove members.
    MembersManage,
    /// See members and their roles.
    MembersRead,
    /// Create, change and remove webhooks.
    WebhooksManage,
}

impl Permission {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::ApiKeysManage,
        Self::AuditRead,
        Self::AuditRevert,
        Self::DevicesManage,
        Self::DevicesRead,
        Self::MediaRead,
        Self::MediaWrite,
        Self::MembersManage,
        Self::MembersRead,
        Self::WebhooksManage,
    ];

    /// As the API and the roles' rows spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ApiKeysManage => "API_KEYS_MANAGE",
            Self::AuditRead => "AUDIT_READ",
            Self::AuditRevert => "AUDIT_REVERT",
            Self::DevicesManage => "DEVICES_MANAGE",
            Self::DevicesRead => "DEVICES_READ",
            Self::MediaRead => "MEDIA_READ",
            Self::MediaWrite => "MEDIA_WRITE",
            Self::MembersManage => "MEMBERS_MANAGE",
            Self::MembersRead => "MEMBERS_READ",
            Self::WebhooksManage => "WEBHOOKS_MANAGE",
        }
    }

    /// The permissions of a role's row; names that this binary does not know are left out.
    pub fn parse_all(names: &[String]) -> impl Iterator<Item = Self> + '_ {
        Self::ALL
            .into_iter()
            .filter(|permission| names.iter().any(|name| name == permission.as_str()))
    }
}

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

    /// What it allows.
    pub fn permissions(self) -> impl Iterator<Item = Permission> {
        Permission::ALL
            .into_iter()
            .filter(move |&permission| self.has(permission))
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

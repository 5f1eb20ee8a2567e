//! A device's access token.

use sea_orm::entity::prelude::*;

/// One token. All that descend from one sign-in by rotation are a family.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "device_token")]
pub struct Model {
    /// Identity.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// Whose.
    pub device_id: Uuid,
    /// The token's family: the id of its first token.
    pub family_id: Uuid,
    /// SHA-256 of the token, hexadecimal. Never in the history.
    pub token_hash: String,
    /// When it ends.
    pub expires_at: DateTimeUtc,
    /// When its successor was made; it works on for the grace time.
    pub rotated_at: Option<DateTimeUtc>,
    /// When it was ended early.
    pub revoked_at: Option<DateTimeUtc>,
    /// When the row was made.
    pub created_at: DateTimeUtc,
}

/// A token belongs to a device.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {
    /// Whose.
    #[sea_orm(
        belongs_to = "super::device::Entity",
        from = "Column::DeviceId",
        to = "super::device::Column::Id"
    )]
    Device,
}

impl Related<super::device::Entity> for Entity {
    fn to() -> RelationDef {
        Relation::Device.def()
    }
}

impl ActiveModelBehavior for ActiveModel {}

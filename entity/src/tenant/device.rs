//! A piece of hardware that signs in with `client_id` and PIN.

use sea_orm::entity::prelude::*;
use serde::Deserialize;

/// One device. Read from the history, it has no hash.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Deserialize)]
#[sea_orm(table_name = "device")]
pub struct Model {
    /// Identity.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// Name for people.
    pub name: String,
    /// What the device presents with its PIN; unique in the tenant.
    pub client_id: String,
    /// argon2id, PHC string. Never in the history.
    #[serde(default)]
    pub pin_hash: String,
    /// False: it may not sign in, and its tokens do not work.
    pub enabled: bool,
    /// As it reported when it last signed in.
    pub firmware_version: Option<String>,
    /// Its first successful sign-in.
    pub provisioned_at: Option<DateTimeUtc>,
    /// When it was last heard of, to the minute.
    pub last_seen_at: Option<DateTimeUtc>,
    /// Wrong PINs since the last success or the last lock.
    pub failed_pin_attempts: i32,
    /// No PIN is evaluated before this.
    pub locked_until: Option<DateTimeUtc>,
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

//! The registry: one row a tenant.

use super::plan::Limits;
use sea_orm::FromJsonQueryResult;
use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Where a tenant is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "Text", rename_all = "snake_case")]
pub enum State {
    /// Being made.
    Provisioning,
    /// In use.
    Active,
    /// Refused for now; its jobs wait.
    Suspended,
    /// Locked in the database too, and kept until it is restored or deleted.
    Archived,
    /// Being erased. Gone is: no row.
    Deleting,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_value())
    }
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
    /// Since when.
    pub state_since: DateTimeUtc,
    /// How far a long step of its life has come.
    pub step: Option<String>,
    /// The tenant that it is being cloned from.
    pub source_id: Option<Uuid>,
    /// The tenant's schema, `t_<number>`.
    pub schema_name: String,
    /// The tenant's role, `<instance>_t_<number>`.
    pub role_name: String,
    /// The cell whose connections serve it.
    pub cell_id: i16,
    /// The plan that its limits come from.
    pub plan: String,
    /// Its own limits, over the plan's; null is no limit.
    #[sea_orm(column_type = "JsonBinary")]
    pub overrides: Json,
    /// What counts: the plan's limits with the overrides over them.
    #[sea_orm(column_type = "JsonBinary")]
    pub limits: Limits,
    /// What it has set for itself.
    #[sea_orm(column_type = "JsonBinary")]
    pub settings: Settings,
    /// When it was created.
    pub created_at: DateTimeUtc,
    /// From when on its history can be read as of a moment, if what is older was purged.
    pub history_from: Option<DateTimeUtc>,
    /// Since when that is so.
    pub history_from_set: Option<DateTimeUtc>,
}

/// A tenant's own settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, FromJsonQueryResult)]
#[serde(default)]
pub struct Settings {
    /// Milliseconds that a statement may take, where that is not the server's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statement_timeout_ms: Option<u32>,
    /// Feature flags by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub flags: BTreeMap<String, Flag>,
    /// How long its history is kept.
    #[serde(skip_serializing_if = "is_default")]
    pub retention: Retention,
}

/// How long a tenant's history is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Retention {
    /// Days that an entry is kept.
    pub days: u32,
    /// Nothing is purged, and nobody erased.
    pub legal_hold: bool,
    /// What is purged is written to the object store first.
    pub archive: bool,
}

impl Default for Retention {
    /// Two years.
    fn default() -> Self {
        Self {
            days: 730,
            legal_hold: false,
            archive: false,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_default(retention: &Retention) -> bool {
    *retention == Retention::default()
}

impl Settings {
    /// The value of a feature flag, if it is set.
    pub fn flag(&self, name: &str) -> Option<&Flag> {
        self.flags.get(name)
    }

    /// Whether a feature flag is `true`; one that is not set, or no switch, is off.
    pub fn is_on(&self, name: &str) -> bool {
        matches!(self.flag(name), Some(Flag::Switch(true)))
    }

    /// A feature flag that is a number.
    pub fn number(&self, name: &str) -> Option<i64> {
        match self.flag(name) {
            Some(Flag::Number(number)) => Some(*number),
            _ => None,
        }
    }

    /// A feature flag that is a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.flag(name) {
            Some(Flag::Text(text)) => Some(text),
            _ => None,
        }
    }
}

/// The value of a feature flag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Flag {
    /// On or off.
    Switch(bool),
    /// A number.
    Number(i64),
    /// One of several.
    Text(String),
}

impl fmt::Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Switch(on) => on.fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

/// No relations are used from this side.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

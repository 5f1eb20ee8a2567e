//! Jobs by the clock that the tenant's own people ask for.

use sea_orm::entity::prelude::*;
use serde::Deserialize;

/// What becomes of times that passed while nothing ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum, Deserialize)]
#[serde(rename_all = "snake_case")]
#[sea_orm(rs_type = "String", db_type = "Text", rename_all = "snake_case")]
pub enum CatchUp {
    /// Each has its job.
    All,
    /// The last one has.
    Last,
    /// None has.
    Skip,
}

/// One schedule.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Deserialize)]
#[sea_orm(table_name = "schedule")]
pub struct Model {
    /// Identity.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// Kind of the jobs.
    pub kind: String,
    /// What they are about.
    #[sea_orm(column_type = "JsonBinary")]
    pub args: Json,
    /// Five fields: minute, hour, day of the month, month, day of the week.
    pub expression: String,
    /// Of the IANA database.
    pub time_zone: String,
    /// What becomes of times that were missed.
    pub catch_up: CatchUp,
    /// False: it has no times.
    pub enabled: bool,
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

//! What a tenant may use: the limits of its plan, or its own.

use sea_orm::FromJsonQueryResult;
use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The plan that a new tenant has.
pub const DEFAULT: &str = "standard";

/// One plan.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "plan")]
pub struct Model {
    /// Its name.
    #[sea_orm(primary_key, auto_increment = false)]
    pub name: String,
    /// What its tenants may use, unless their overrides say otherwise.
    #[sea_orm(column_type = "JsonBinary")]
    pub limits: Limits,
}

/// What a tenant may use; none is no limit.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, FromJsonQueryResult,
)]
#[serde(default)]
pub struct Limits {
    /// Requests in a minute, on each server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u32>,
    /// Requests at once, on each server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrent_requests: Option<u32>,
    /// Members.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub members: Option<u32>,
    /// Devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub devices: Option<u32>,
    /// Bytes of all media together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media_bytes: Option<u64>,
    /// Jobs that run at once, over all workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrent_jobs: Option<u32>,
    /// Jobs that are not over: those that wait, for whatever, and those that run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queued_jobs: Option<u32>,
}

impl Limits {
    /// The value of one of them; none is no limit.
    pub fn get(&self, limit: Limit) -> Option<u64> {
        match limit {
            Limit::RequestsPerMinute => self.requests_per_minute.map(u64::from),
            Limit::ConcurrentRequests => self.concurrent_requests.map(u64::from),
            Limit::Members => self.members.map(u64::from),
            Limit::Devices => self.devices.map(u64::from),
            Limit::MediaBytes => self.media_bytes,
            Limit::ConcurrentJobs => self.concurrent_jobs.map(u64::from),
            Limit::QueuedJobs => self.queued_jobs.map(u64::from),
        }
    }
}

/// The limits there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limit {
    /// [`Limits::requests_per_minute`].
    RequestsPerMinute,
    /// [`Limits::concurrent_requests`].
    ConcurrentRequests,
    /// [`Limits::members`].
    Members,
    /// [`Limits::devices`].
    Devices,
    /// [`Limits::media_bytes`].
    MediaBytes,
    /// [`Limits::concurrent_jobs`].
    ConcurrentJobs,
    /// [`Limits::queued_jobs`].
    QueuedJobs,
}

impl Limit {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::RequestsPerMinute,
        Self::ConcurrentRequests,
        Self::Members,
        Self::Devices,
        Self::MediaBytes,
        Self::ConcurrentJobs,
        Self::QueuedJobs,
    ];

    /// As it is spelt in rows, commands and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::RequestsPerMinute => "requests_per_minute",
            Self::ConcurrentRequests => "concurrent_requests",
            Self::Members => "members",
            Self::Devices => "devices",
            Self::MediaBytes => "media_bytes",
            Self::ConcurrentJobs => "concurrent_jobs",
            Self::QueuedJobs => "queued_jobs",
        }
    }

    /// The largest value it can have: what a client's number can hold.
    pub fn max(self) -> u64 {
        match self {
            Self::MediaBytes => (1 << 53) - 1,
            _ => u32::MAX.into(),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No relations are used.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

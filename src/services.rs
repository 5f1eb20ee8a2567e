//! What operations, resolvers and jobs work with; built once by [`crate::app`].

use crate::caller::Callers;
use crate::config::Config;
use crate::database::Database;
use crate::feed::Feeds;
use crate::history::Notes;
use crate::mail::Mailer;
use crate::media::store::Store;
use crate::rates::Rates;
use crate::secret::{Hasher, SecretKey};
use crate::telemetry::Metrics;
use crate::tenancy::Registry;

/// One of each, shared by server, worker, commands and tests.
#[derive(Debug)]
pub struct Services {
    /// As read at the start.
    pub config: Config,
    /// Units of work.
    pub database: Database,
    /// Tenants by host and id.
    pub registry: Registry,
    /// What is new in tenants, for who follows it.
    pub feeds: Feeds,
    /// Who is behind a token, for a moment.
    pub callers: Callers,
    /// What of requests is in the trail though it changes no row.
    pub notes: Notes,
    /// How fast requests may come.
    pub rates: Rates,
    /// Passwords and PINs.
    pub hasher: Hasher,
    /// What signatures are derived from.
    pub key: SecretKey,
    /// What is counted here.
    pub metrics: Metrics,
    /// Mail to people outside.
    pub mailer: Mailer,
    /// The bytes of media.
    pub store: Store,
}

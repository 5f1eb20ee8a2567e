//! The only place that connects, begins, commits and binds. Everything else gets a [`TenantTx`] or a [`PlatformTx`].

mod cell;
mod changes;
mod connect;
mod doctor;
mod hardening;
mod listen;
pub mod managed;
mod migrate;
mod pool;
mod quote;
mod reserved;
mod rules;
mod scram;
mod statement;
mod unit;
mod wakes;

pub use changes::{Touched, Watch};
pub use connect::{connect, missing_hardening, own};
pub use doctor::{Finding, Health, Look};
pub use listen::{Event, Listener};
pub use migrate::{CALLABLE, TEMPLATE_SCHEMA, for_tenant, grants, lock_migrations, steps};
pub use quote::identifier;
pub use reserved::Reserved;
pub use rules::Rule;
pub use unit::{Bound, Deferred, PlatformTx, TenantTx};
pub use wakes::{Noted, Wakes, Word};

use crate::actor::Attribution;
use crate::clock::Clock;
use crate::error::Result;
use changes::Changes;
use entity::platform::tenant;
use pool::{Holder, Pool};
use sea_orm::Value;
use sea_orm::sea_query::Expr;
use sea_orm::sea_query::extension::postgres::PgFunc;
use std::sync::Arc;
use uuid::Uuid;

/// The registry's row of a tenant: what binding needs, and what a unit of work knows of its tenant.
pub type Tenant = tenant::Model;

/// The database: one pool of connections for the platform and all cells.
#[derive(Clone)]
pub struct Database {
    pool: Pool,
    listening: sqlx::postgres::PgConnectOptions,
    /// What each begin says first: nothing, or, behind a pooler, what takes back the settings of its other clients.
    unplanted: &'static str,
    clock: Clock,
    wakes: Arc<Wakes>,
    changes: Arc<Changes>,
    instance: Arc<str>,
    server_version: Arc<str>,
}

/// Without the options: they hold the password.
impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database")
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}

impl Database {
    /// A unit of work bound to the tenant, for reading: the database refuses writes, and each statement sees what is committed
    /// by then.
    pub async fn read(&self, tenant: &Arc<Tenant>) -> Result<TenantTx> {
        let begin = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; {}{}",
            self.unplanted,
            quote::binding(tenant)?
        );
        let unit = self.pool.begin_read(holder(tenant), begin).await?;
        Ok(TenantTx::new(unit, self, Arc::clone(tenant)))
    }

    /// Begins a unit of work bound to the tenant and to who acts, for writing.
    pub async fn write(&self, tenant: &Arc<Tenant>, attribution: &Attribution) -> Result<TenantTx> {
        let begin = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; {}{}; {}",
            self.unplanted,
            quote::binding(tenant)?,
            quote::attribution(attribution)?
        );
        let unit = self.pool.begin(holder(tenant), begin).await?;
        Ok(TenantTx::new(unit, self, Arc::clone(tenant)))
    }

    /// Begins a unit of work on the platform's own tables.
    pub async fn platform(&self) -> Result<PlatformTx> {
        let begin = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; {}SET LOCAL search_path TO bulkhead, pg_temp; \
             SET LOCAL statement_timeout = '30s'; SET LOCAL lock_timeout = '5s'; \
             SET LOCAL idle_in_transaction_session_timeout = '30s'",
            self.unplanted
        );
        let unit = self.pool.begin(Holder::Platform, begin).await?;
        Ok(PlatformTx::new(unit, self))
    }

    /// Tries again to migrate the tenants that lack a step, as every start does.
    pub async fn migrate_tenants(&self) -> Result<()> {
        migrate::tenants(&self.listening).await
    }

    /// Hears of changes that any process makes to tenants, on a connection of its own, until the listener is dropped.
    pub fn listen(&self, hear: impl Fn(Event) + Send + Sync + 'static) -> Listener {
        let words = (Arc::clone(&self.changes), Arc::clone(&self.wakes));
        listen::listen(self.listening.clone(), words, hear)
    }

    /// Watches a tenant for word that it may have changed: from here at once, from other processes while there is a listener.
    pub fn watch(&self, tenant: Uuid) -> Watch {
        self.changes.watch(tenant)
    }

    /// Says that the tenant was changed, by what is no unit of work bound to it: those say so themselves.
    pub fn note_change(&self, tenant: Uuid) {
        self.changes.note(tenant);
    }

    /// The tenants that may have changed since this was asked last, by whatever process; all of them for who asks first. For one
    /// who asks, and looks elsewhere too: word can be lost.
    pub fn touched(&self) -> Touched {
        self.changes.touched()
    }

    /// Word of lanes that have jobs to run.
    pub fn wakes(&self) -> &Wakes {
        &self.wakes
    }

    /// A connection past the pool.
    pub fn reserve(&self) -> Reserved {
        Reserved::new(self)
    }

    /// Where times and ids come from.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// The short random id that role names carry.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// PostgreSQL's version, e.g. `15.18`.
    pub fn server_version(&self) -> &str {
        &self.server_version
    }

    /// Closes the idle connections and refuses new units of work.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// One of these values, which travel as one array: so a statement's text is the same for any number of them, and is prepared
/// once.
pub fn any(values: impl Into<Value>) -> Expr {
    PgFunc::any(Expr::value(values)).into()
}

fn holder(tenant: &Tenant) -> Holder {
    Holder::Tenant {
        id: tenant.id,
        cell: tenant.cell_id,
    }
}

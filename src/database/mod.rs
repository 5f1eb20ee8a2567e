//! The only place that connects, begins, commits and binds. Everything else gets a [`TenantTx`] or a [`PlatformTx`].

mod cell;
mod connect;
mod hardening;
pub mod managed;
mod migrate;
mod pool;
mod quote;
mod unit;

pub use connect::{connect, missing_hardening, own};
pub use migrate::{TEMPLATE_SCHEMA, for_tenant, grants, lock_migrations};
pub use quote::identifier;
pub use unit::{Bound, PlatformTx, TenantTx};

use crate::actor::Attribution;
use crate::clock::Clock;
use crate::error::{Error, Result};
use entity::platform::tenant;
use pool::Pool;
use std::sync::Arc;
use tokio::sync::Notify;

/// The registry's row of a tenant: what binding needs, and what a unit of work knows of its tenant.
pub type Tenant = tenant::Model;

/// The database: a pool for the platform and one for each cell.
#[derive(Clone, Debug)]
pub struct Database {
    platform: Pool,
    cells: Arc<[Pool]>,
    clock: Clock,
    enqueued: Arc<Notify>,
    instance: Arc<str>,
    server_version: Arc<str>,
}

impl Database {
    /// A unit of work bound to the tenant, for reading: the database refuses writes, and each statement sees what is committed
    /// by then.
    pub async fn read(&self, tenant: &Arc<Tenant>) -> Result<TenantTx> {
        let begin = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; {}",
            quote::binding(tenant)?
        );
        let unit = self.cell(tenant)?.begin_read(tenant.id, begin).await?;
        Ok(TenantTx::new(unit, self, Arc::clone(tenant)))
    }

    /// Begins a unit of work bound to the tenant and to who acts, for writing.
    pub async fn write(&self, tenant: &Arc<Tenant>, attribution: &Attribution) -> Result<TenantTx> {
        let begin = format!(
            "BEGIN; {}; {}",
            quote::binding(tenant)?,
            quote::attribution(attribution)?
        );
        let unit = self.cell(tenant)?.begin(Some(tenant.id), begin).await?;
        Ok(TenantTx::new(unit, self, Arc::clone(tenant)))
    }

    /// Begins a unit of work on the platform's own tables.
    pub async fn platform(&self) -> Result<PlatformTx> {
        let begin = "BEGIN; SET LOCAL search_path TO bulkhead, pg_temp; SET LOCAL statement_timeout = '30s'; \
            SET LOCAL lock_timeout = '5s'; SET LOCAL idle_in_transaction_session_timeout = '30s'"
            .to_owned();
        let unit = self.platform.begin(None, begin).await?;
        Ok(PlatformTx::new(unit, self))
    }

    /// Wakes when this process committed a unit of work that enqueued a job.
    pub fn enqueued(&self) -> &Notify {
        &self.enqueued
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
        self.platform.close().await;
        for cell in &*self.cells {
            cell.close().await;
        }
    }

    fn cell(&self, tenant: &Tenant) -> Result<&Pool> {
        usize::try_from(tenant.cell_id)
            .ok()
            .and_then(|number| self.cells.get(number))
            .ok_or_else(|| Error::internal(format!("tenant {} is in an unknown cell", tenant.slug)))
    }
}

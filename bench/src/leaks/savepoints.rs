//! Units of work with savepoints, beside the clients: no root field opens one, so these go by the library, with a pool of their own
//! as small as the server's. Whatever becomes of a savepoint or of its unit of work, all that this reads is its tenant's.

use super::clients::{CUT, PATIENCE, Shared};
use super::world::{SLUGS, mark};
use crate::Result;
use crate::place::explain;
use bulkhead::actor::Actor;
use bulkhead::app::App;
use bulkhead::database::{Tenant, TenantTx};
use bulkhead::devices::{self, Change};
use bulkhead::error::Error;
use bulkhead::tenancy;
use entity::tenant::device;
use futures::future::try_join_all;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sea_orm::{ConnectionTrait as _, DbBackend, EntityTrait as _, Statement};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// So many at once.
const UNITS: u64 = 4;
/// Savepoints of each, at most.
const SAVEPOINTS: u32 = 4;

/// How a savepoint ends.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Kept,
    Refused,
    /// By PostgreSQL.
    Failed,
}

/// The library, and the tenants as it knows them.
#[derive(Debug)]
pub(super) struct Beside {
    pub(super) app: App,
    tenants: Vec<Arc<Tenant>>,
}

impl Beside {
    pub(super) async fn new(app: App) -> Result<Self> {
        let mut tenants = Vec::new();
        for slug in SLUGS {
            let tx = app.services.database.platform().await.map_err(explain)?;
            let tenant = tenancy::by_slug(&tx, slug).await.map_err(explain)?;
            tx.commit().await.map_err(explain)?;
            tenants.push(Arc::new(tenant.ok_or("a tenant is gone")?));
        }
        Ok(Self { app, tenants })
    }

    /// Goes on until there is no more to be asked.
    pub(super) async fn run(&self, shared: &Shared) -> Result<()> {
        let units = (0..UNITS).map(|number| self.units(shared, number));
        try_join_all(units).await.map(drop)
    }

    async fn units(&self, shared: &Shared, number: u64) -> Result<()> {
        let seed = shared.load.seed.wrapping_mul(UNITS) + number;
        let mut random = StdRng::seed_from_u64(!seed);
        while shared.goes_on() {
            let tenant = random.random_range(0..SLUGS.len());
            let cut = random
                .random_bool(CUT.0)
                .then(|| Duration::from_micros(random.random_range(0..CUT.1)));
            let mut unit = Unit {
                slug: SLUGS[tenant],
                shared,
                random: &mut random,
            };
            let worked = unit.work(&self.app, &self.tenants[tenant]);
            // What fails was killed, or refused; what it read was looked at.
            match timeout(cut.unwrap_or(PATIENCE), worked).await {
                Err(_) if cut.is_none() => return Err("a unit of work does not end".into()),
                _ => shared.tally.borrow_mut().units += 1,
            }
        }
        Ok(())
    }

    /// Whether its pool is whole: each tenant is served.
    pub(super) async fn look(&self) -> Result<()> {
        for tenant in &self.tenants {
            let by = Actor::Operator("bench".to_owned()).into();
            let tx = self.app.services.database.write(tenant, &by).await;
            tx.map_err(explain)?.rollback().await.map_err(explain)?;
        }
        Ok(())
    }
}

struct Unit<'a> {
    slug: &'static str,
    shared: &'a Shared,
    random: &'a mut StdRng,
}

impl Unit<'_> {
    async fn work(&mut self, app: &App, tenant: &Arc<Tenant>) -> Result<(), Error> {
        let by = Actor::Operator("bench".to_owned()).into();
        let tx = app.services.database.write(tenant, &by).await?;
        let devices = self.look(&tx).await?;
        // One for all: two that lock several, each in its own order, would wait for each other.
        let Some(device) = devices.first() else {
            return tx.rollback().await;
        };
        for _ in 0..self.random.random_range(1..=SAVEPOINTS) {
            let fate = match self.random.random_range(0..3) {
                0 => Fate::Kept,
                1 => Fate::Refused,
                _ => Fate::Failed,
            };
            let worked = tx.savepoint(self.change(&tx, device.id, fate)).await;
            if let Err(error) = worked
                && tx.is_broken()
            {
                return Err(error);
            }
            self.shared.tally.borrow_mut().savepoints += 1;
            self.look(&tx).await?;
        }
        if self.random.random() {
            tx.commit().await
        } else {
            tx.rollback().await
        }
    }

    async fn change(&mut self, tx: &TenantTx, id: uuid::Uuid, fate: Fate) -> Result<(), Error> {
        let number: u32 = self.random.random();
        let change = Change {
            name: Some(mark(self.slug, number)),
            ..Change::default()
        };
        devices::update(tx, id, change).await?;
        self.look(tx).await?;
        match fate {
            Fate::Kept => Ok(()),
            Fate::Refused => Err(Error::Forbidden("NOTHING")),
            Fate::Failed => {
                let fails = Statement::from_string(DbBackend::Postgres, "SELECT 1 / 0");
                tx.execute_raw(fails).await?;
                Ok(())
            }
        }
    }

    /// All devices, each of which must have the tenant's marker.
    async fn look(&self, tx: &TenantTx) -> Result<Vec<device::Model>, Error> {
        let devices = device::Entity::find().all(tx).await?;
        let own = mark(self.slug, "");
        for device in &devices {
            if !device.name.starts_with(&own) {
                let found = format!("a unit of work of {}: {}", self.slug, device.name);
                let mut tally = self.shared.tally.borrow_mut();
                tally.foreign_units += 1;
                tally.found(found);
            }
        }
        Ok(devices)
    }
}

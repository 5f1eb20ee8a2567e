//! A light, constant load of reads while tenants are made: how long others wait at most.

use crate::Result;
use crate::place::explain;
use bulkhead::app::App;
use bulkhead::database::Tenant;
use bulkhead::error::Error;
use bulkhead::{identity, tenancy};
use futures::future::try_join_all;
use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Between two reads of a reader.
const PAUSE: Duration = Duration::from_millis(2);
/// Reads of each tenant that are not counted: what a session does once is not what is looked for.
const WARM: usize = 50;

/// How long the reads took, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waits {
    /// 99 of 100 took no longer.
    pub(super) p99: f64,
    /// The longest.
    pub(super) longest: f64,
}

/// Reads these tenants, each over and over, while `work` runs. The readers have connections of their own.
pub(super) async fn during<T>(
    readers: &App,
    slugs: &[String],
    work: impl Future<Output = Result<T>>,
) -> Result<(T, Waits)> {
    let mut tenants = Vec::new();
    for slug in slugs {
        let tenant = tenant(readers, slug).await.map_err(explain)?;
        for _ in 0..WARM {
            read(readers, &tenant).await.map_err(explain)?;
        }
        tenants.push(tenant);
    }
    let waits = RefCell::new(Vec::new());
    let reading = try_join_all(tenants.iter().map(|tenant| async {
        loop {
            let began = Instant::now();
            read(readers, tenant).await?;
            waits.borrow_mut().push(began.elapsed().as_secs_f64() * 1e3);
            sleep(PAUSE).await;
        }
        #[expect(unreachable_code, reason = "says what the loop fails with")]
        Ok::<(), Error>(())
    }));
    let done = tokio::select! {
        done = work => done?,
        failed = reading => return Err(failed.map_err(explain).err().unwrap_or("nobody reads".into())),
    };
    let mut waits = waits.into_inner();
    waits.sort_by(|a, b| f64::total_cmp(b, a));
    let rank = |rank: usize| waits.get(rank).copied().unwrap_or(f64::NAN);
    let waits = Waits {
        p99: rank(waits.len() / 100),
        longest: rank(0),
    };
    Ok((done, waits))
}

async fn tenant(app: &App, slug: &str) -> Result<Arc<Tenant>, Error> {
    let tx = app.services.database.platform().await?;
    let found = tenancy::by_slug(&tx, slug).await;
    let found = tx.commit().await.and(found)?;
    found.map(Arc::new).ok_or(Error::TenantNotFound)
}

/// A unit of work of the tenant's, and one row.
async fn read(app: &App, tenant: &Arc<Tenant>) -> Result<(), Error> {
    let tx = app.services.database.read(tenant).await?;
    let found = identity::by_email(&tx, "owner@bench.test").await;
    tx.settle(found).await.map(drop)
}

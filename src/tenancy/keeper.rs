//! The keeper: what has to be done to the tenancy from time to time, by whichever worker process comes first.

use super::{cells, erase, log, spares};
use crate::database::Database;
use crate::error::Result;
use crate::media::store::Store;
use std::time::{Duration, Instant};
use tokio::task::AbortHandle;
use tokio::time::sleep;

/// How long between two rounds.
const ROUND: Duration = Duration::from_secs(1);
/// How long after one in which something failed.
const AFTER_FAILURE: Duration = Duration::from_secs(10);

/// How often it looks after what seldom is to be done: tenants that a start could not migrate or that an older binary has made
/// since, cells that are fuller than others, erasures that were cut short, operators whose time as a member is over.
const TIDY: Duration = Duration::from_mins(1);
/// Tenants that are moved to another cell at a time.
const MOVES: u64 = 10;

/// Keeps until it is dropped. Each step can be cut off at any moment, and is gone on with by the next round, here or
/// elsewhere.
#[derive(Debug)]
pub struct Keeper(AbortHandle);

impl Keeper {
    /// Begins.
    #[expect(
        clippy::disallowed_methods,
        reason = "it lives as long as the process, and ends with its handle"
    )]
    pub fn start(database: Database, store: Store, spares: u32) -> Self {
        let task = tokio::spawn(async move {
            // Beside the rest: an erasure lasts as long as the data are many.
            let erasing = async {
                loop {
                    sleep(TIDY).await;
                    done("erase tenants", erase::resume(&database, &store).await);
                }
            };
            tokio::join!(erasing, keep(&database, spares))
        });
        Self(task.abort_handle())
    }
}

async fn keep(database: &Database, spares: u32) {
    let mut tidied = Instant::now();
    loop {
        let mut well = done("make spares", spares::fill(database, spares).await);
        if tidied.elapsed() > TIDY {
            well &= done("migrate tenants", database.migrate_tenants().await);
            well &= done(
                "deal tenants to cells",
                cells::redeal(database, MOVES, "system:keeper").await,
            );
            let ended = log::end_impersonations(database).await;
            well &= done("note what impersonations are over", ended);
            tidied = Instant::now();
        }
        sleep(if well { ROUND } else { AFTER_FAILURE }).await;
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Says what failed; the steps after it are taken all the same. Whether it went well.
fn done<T>(what: &'static str, result: Result<T>) -> bool {
    if let Err(error) = &result {
        tracing::warn!(
            what,
            ?error,
            "a step of the keeper failed; it will be tried again"
        );
    }
    result.is_ok()
}

//! The keeper: makes spares, in whichever worker process comes first. It is no job by the clock, as the rest of the tenancy's
//! chores are ([`super::jobs`]): a second after a spare is taken there is to be another, and a look that finds nothing to do is
//! one query and no row.

use super::spares;
use crate::database::Database;
use std::time::Duration;
use tokio::task::AbortHandle;
use tokio::time::sleep;

/// How long between two rounds.
const ROUND: Duration = Duration::from_secs(1);
/// How long after one that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(10);

/// Keeps until it is dropped. It can be cut off at any moment, and is gone on with by the next round, here or elsewhere.
#[derive(Debug)]
pub struct Keeper(AbortHandle);

impl Keeper {
    /// Begins.
    #[expect(
        clippy::disallowed_methods,
        reason = "it lives as long as the process, and ends with its handle"
    )]
    pub fn start(database: Database, spares: u32) -> Self {
        let task = tokio::spawn(async move {
            loop {
                let filled = spares::fill(&database, spares).await;
                if let Err(error) = &filled {
                    tracing::warn!(?error, "spares cannot be made; it will be tried again");
                }
                let rest = if filled.is_ok() { ROUND } else { AFTER_FAILURE };
                sleep(rest).await;
            }
        });
        Self(task.abort_handle())
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

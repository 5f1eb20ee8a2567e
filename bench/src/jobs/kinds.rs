//! The jobs that are measured, and what they note. A job has no context but its arguments and the program: so the notes are the
//! program's.

use bulkhead::error::Result;
use bulkhead::jobs::{Job, JobContext, Kinds};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::time::sleep;
use uuid::Uuid;

/// What was noted.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    runs: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    started: HashMap<u64, Instant>,
    by_tenant: HashMap<Uuid, (u64, f64)>,
}

static NOTES: LazyLock<Notes> = LazyLock::new(Notes::default);

/// The notes.
pub(crate) fn notes() -> &'static Notes {
    &NOTES
}

impl Notes {
    /// Runs so far.
    pub(crate) fn runs(&self) -> u64 {
        self.runs.load(Ordering::Relaxed)
    }

    /// Forgets all.
    pub(crate) fn clear(&self) {
        self.runs.store(0, Ordering::Relaxed);
        *self.lock() = Inner::default();
    }

    /// When the job of this number started.
    pub(crate) fn started(&self, number: u64) -> Option<Instant> {
        self.lock().started.get(&number).copied()
    }

    /// Runs and seconds of a tenant.
    pub(crate) fn of(&self, tenant: Uuid) -> (u64, f64) {
        self.lock()
            .by_tenant
            .get(&tenant)
            .copied()
            .unwrap_or_default()
    }

    /// One more run, outside of Bulkhead's queue.
    pub(crate) fn ran(&self) {
        self.runs.fetch_add(1, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does nothing.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Noop {}

impl Job for Noop {
    const NAME: &'static str = "bench.noop";

    async fn run(self, _: &JobContext) -> Result<()> {
        notes().ran();
        Ok(())
    }
}

/// Notes when it started.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Stamp {
    /// Which one.
    pub(crate) number: u64,
}

impl Job for Stamp {
    const NAME: &'static str = "bench.stamp";

    async fn run(self, _: &JobContext) -> Result<()> {
        notes().lock().started.insert(self.number, Instant::now());
        Ok(())
    }
}

/// Waits, and notes how long for whom.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Rest {
    /// So long.
    pub(crate) ms: u64,
}

impl Job for Rest {
    const NAME: &'static str = "bench.rest";

    async fn run(self, ctx: &JobContext) -> Result<()> {
        let began = Instant::now();
        sleep(Duration::from_millis(self.ms)).await;
        let took = began.elapsed().as_secs_f64();
        let mut inner = notes().lock();
        let noted = inner.by_tenant.entry(ctx.tenant.id).or_default();
        noted.0 += 1;
        noted.1 += took;
        drop(inner);
        notes().ran();
        Ok(())
    }
}

/// A second kind of rest, whose mean is its own.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LongRest {
    /// So long.
    pub(crate) ms: u64,
}

impl Job for LongRest {
    const NAME: &'static str = "bench.long_rest";

    async fn run(self, ctx: &JobContext) -> Result<()> {
        Rest { ms: self.ms }.run(ctx).await
    }
}

/// All of them.
pub(crate) fn all() -> Kinds {
    Kinds::default()
        .with::<Noop>()
        .with::<Stamp>()
        .with::<Rest>()
        .with::<LongRest>()
}

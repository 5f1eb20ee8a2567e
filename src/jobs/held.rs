//! What this process holds: the claims whose leases it keeps up, until their ends are written down.

use super::claim::Claimed;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How much longer than its timeout a run is believed to live: what cannot be stopped (it blocks its thread) loses its lease.
const OVERDUE: Duration = Duration::from_secs(30);

/// One claim.
#[derive(Debug)]
pub(super) struct Hold {
    pub(super) id: Uuid,
    pub(super) claim: i64,
    pub(super) tenant: Option<Uuid>,
    /// Somebody wants the job to end.
    pub(super) cancelled: CancellationToken,
    /// The claim is lost, or may be: the run must stop.
    pub(super) lost: CancellationToken,
    timeout: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    begun: Option<Instant>,
    progress: Option<f32>,
    is_completed: bool,
}

impl Hold {
    /// The run begins now.
    pub(super) fn begin(&self) {
        self.lock().begun = Some(Instant::now());
    }

    /// How far it has come; what was not told yet is replaced.
    pub(super) fn progress(&self, done: f32) {
        self.lock().progress = Some(done);
    }

    /// The run is over; only that is to be written down.
    pub(super) fn end(&self) {
        self.lock().begun = None;
    }

    /// Its end was written down in its own unit of work: that the job is gone then is no loss.
    pub(super) fn complete(&self) {
        self.lock().is_completed = true;
    }

    pub(super) fn is_completed(&self) -> bool {
        self.lock().is_completed
    }

    fn is_overdue(&self) -> bool {
        let begun = self.lock().begun;
        begun.is_some_and(|begun| begun.elapsed() > self.timeout + OVERDUE)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Held(Mutex<HashMap<Uuid, Arc<Hold>>>);

impl Held {
    pub(super) fn add(&self, job: &Claimed) -> Arc<Hold> {
        let hold = Arc::new(Hold {
            id: job.id,
            claim: job.claim,
            tenant: job.tenant_id,
            cancelled: CancellationToken::new(),
            lost: CancellationToken::new(),
            timeout: job.timeout(),
            state: Mutex::default(),
        });
        self.lock().insert(job.id, Arc::clone(&hold));
        hold
    }

    pub(super) fn get(&self, id: Uuid) -> Option<Arc<Hold>> {
        self.lock().get(&id).cloned()
    }

    /// Its end is written down.
    pub(super) fn remove(&self, id: Uuid, claim: i64) {
        let mut all = self.lock();
        if all.get(&id).is_some_and(|hold| hold.claim == claim) {
            all.remove(&id);
        }
    }

    /// Those whose leases are to be kept up.
    pub(super) fn alive(&self) -> Vec<Arc<Hold>> {
        let all = self.lock();
        all.values()
            .filter(|hold| !hold.is_overdue())
            .cloned()
            .collect()
    }

    /// How many runs are not short: begun this long ago.
    pub(super) fn long(&self, than: Duration) -> usize {
        let all = self.lock();
        let begun = |hold: &Arc<Hold>| hold.lock().begun;
        all.values()
            .filter(|hold| begun(hold).is_some_and(|begun| begun.elapsed() > than))
            .count()
    }

    /// What was said about progress and not told yet.
    pub(super) fn take_progress(&self) -> Vec<(Arc<Hold>, f32)> {
        let all = self.lock();
        all.values()
            .filter_map(|hold| Some((Arc::clone(hold), hold.lock().progress.take()?)))
            .collect()
    }

    /// All of them may be lost.
    pub(super) fn lose_all(&self) {
        for hold in self.lock().values() {
            hold.lost.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Arc<Hold>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

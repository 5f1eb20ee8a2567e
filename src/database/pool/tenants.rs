//! Admission: one tenant may use so many connections and no more. Who comes after that waits here, in front of the queue that
//! all tenants share, so that a flood of one puts few into it.

use crate::error::{Error, Result};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;
use uuid::Uuid;

/// How many of one tenant may wait; whoever comes then is refused at once.
const WAITING: usize = 200;

/// The tenants that use a connection or wait for one. There is no entry for any other.
#[derive(Debug)]
pub(super) struct Tenants {
    /// Connections that one tenant may use.
    share: usize,
    lines: Mutex<HashMap<Uuid, Line>>,
}

#[derive(Debug, Default)]
struct Line {
    admitted: usize,
    waiting: VecDeque<oneshot::Sender<Admission>>,
}

/// The right of a tenant's unit of work to use a connection. Dropped, it goes to the next in the tenant's line.
#[derive(Debug)]
pub(super) struct Admission {
    tenants: Arc<Tenants>,
    tenant: Uuid,
}

impl Tenants {
    pub(super) fn new(share: usize) -> Self {
        Self {
            share,
            lines: Mutex::default(),
        }
    }

    /// Waits for the tenant's turn, first come, first served.
    pub(super) async fn admit(self: &Arc<Self>, tenant: Uuid) -> Result<Admission> {
        let turn = {
            let mut lines = self.lines();
            let line = lines.entry(tenant).or_default();
            if line.admitted < self.share {
                line.admitted += 1;
                return Ok(self.admission(tenant));
            }
            if line.waiting.len() >= WAITING {
                // Those who gave up still stand in the line until it comes to them.
                line.waiting.retain(|waiting| !waiting.is_closed());
            }
            if line.waiting.len() >= WAITING {
                return Err(Error::Unavailable);
            }
            let (called, turn) = oneshot::channel();
            line.waiting.push_back(called);
            turn
        };
        turn.await.map_err(|_| Error::Unavailable)
    }

    fn admission(self: &Arc<Self>, tenant: Uuid) -> Admission {
        Admission {
            tenants: Arc::clone(self),
            tenant,
        }
    }

    /// The next in the line; without one, the tenant uses a connection less.
    fn next(&self, tenant: Uuid) -> Option<oneshot::Sender<Admission>> {
        let mut lines = self.lines();
        let line = lines.get_mut(&tenant)?;
        let next = line.waiting.pop_front();
        if next.is_none() {
            line.admitted -= 1;
            if line.admitted == 0 {
                lines.remove(&tenant);
            }
        }
        next
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<Uuid, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if let Some(next) = self.tenants.next(self.tenant) {
            // Whoever gave up meanwhile gives it back, and dropping that goes on to the one after.
            drop(next.send(self.tenants.admission(self.tenant)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    #[test]
    fn a_line_is_fair_bounded_and_leaves_nothing() {
        let tenants = Arc::new(Tenants::new(1));
        let id = Uuid::from_u128(1);
        let first = tenants.admit(id).now_or_never().unwrap().unwrap();
        let mut second = Box::pin(tenants.admit(id));
        let mut third = Box::pin(tenants.admit(id));
        assert!((&mut second).now_or_never().is_none());
        assert!((&mut third).now_or_never().is_none());
        assert!(tenants.admit(Uuid::from_u128(2)).now_or_never().is_some());
        drop(first);
        assert!((&mut third).now_or_never().is_none());
        // Called, and gone before it could hear: the turn is not lost.
        drop(second);
        let third = third.now_or_never().unwrap().unwrap();
        let waiting: Vec<_> = (0..WAITING)
            .map(|_| {
                let mut waiting = Box::pin(tenants.admit(id));
                assert!((&mut waiting).now_or_never().is_none());
                waiting
            })
            .collect();
        assert!(tenants.admit(id).now_or_never().unwrap().is_err());
        drop(waiting);
        assert!(tenants.admit(id).now_or_never().is_none(), "there is room");
        drop(third);
        assert!(tenants.lines().is_empty());
    }
}

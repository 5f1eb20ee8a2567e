//! The places of the budget, and who has which: whatever is open has one, used or idle.
//!
//! Who finds neither an idle connection of its login nor a free place waits, first come, first served within the login. Were
//! another login's connection closed for it each time, cells that are all at work would do little but connect, and new
//! connections know no table yet, so that they are held for longer. So an idle one is closed for another login only if that has
//! two fewer at least, which comes to an end; or if nobody has asked for it for [`COLD`]; or if a login that has no more than its
//! own was given nothing for [`STARVED`]. With more logins at work than places, whoever has none takes the first that comes back.

use super::idle::{Entry, Idle, Open};
use super::{Connection, Holder, Login};
use crate::error::{Error, Result};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// After how long its login has no need of an idle connection, if another has: about as long as a new one is slow, until it knows
/// the tables of the tenants of its cell.
const COLD: Duration = Duration::from_secs(2);
/// How often those who wait look for what has become cold meanwhile.
const LOOK: Duration = Duration::from_millis(100);
/// How long a login may wait with all its connections in use, before it takes the next of another's: far longer than a new
/// connection needs until it is as fast as that was.
const STARVED: Duration = Duration::from_millis(500);

/// All places.
#[derive(Debug)]
pub(super) struct Places(Mutex<State>);

#[derive(Debug)]
struct State {
    free: usize,
    closed: bool,
    idle: Idle,
    lines: Lines,
}

/// What each login has, and who waits for more.
#[derive(Debug, Default)]
struct Lines(HashMap<Login, Line>);

#[derive(Debug)]
struct Line {
    /// Places it has.
    open: usize,
    waiting: VecDeque<Waiting>,
    /// When it was given something last.
    served: Instant,
}

#[derive(Debug)]
struct Waiting {
    since: Instant,
    holder: Holder,
    call: oneshot::Sender<Grant>,
}

/// What a unit of work is given. Dropped, its place is free.
#[derive(Debug)]
pub(super) enum Grant {
    /// A connection of its login.
    Idle(Entry),
    /// Another login's, to be closed for a new one. Its place is the new one's already.
    Instead(Entry),
    /// A place for a new one.
    Free(Place),
}

/// One place. Dropped, it is free.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    login: Login,
}

impl Places {
    pub(super) fn new(budget: usize) -> Self {
        Self(Mutex::new(State {
            free: budget,
            closed: false,
            idle: Idle::default(),
            lines: Lines::default(),
        }))
    }

    /// Waits for a connection of the holder's login, or for the place of one.
    pub(super) async fn take(self: &Arc<Self>, holder: Holder) -> Result<Grant> {
        let mut called = {
            let mut state = self.state();
            if state.closed {
                return Err(Error::Unavailable);
            }
            if state.lines.line(holder.login()).first().is_none()
                && let Some(grant) = state.grant(self, holder)
            {
                return Ok(grant);
            }
            let (call, called) = oneshot::channel();
            let since = Instant::now();
            let waiting = Waiting {
                since,
                holder,
                call,
            };
            state.lines.line(holder.login()).waiting.push_back(waiting);
            called
        };
        loop {
            match timeout(LOOK, &mut called).await {
                Ok(grant) => return grant.map_err(|_| Error::Unavailable),
                // Meanwhile a connection may have become cold.
                Err(_) => self.serve(),
            }
        }
    }

    /// Takes a connection back.
    pub(super) fn put(self: &Arc<Self>, connection: Connection, open: Option<Open>) {
        let mut state = self.state();
        if state.closed {
            // Its place is freed without the lock.
            drop(state);
            drop(connection);
            return;
        }
        state.idle.push(connection, open);
        drop(state);
        self.serve();
    }

    /// One whose read nobody has gone on with.
    pub(super) fn take_stale(&self) -> Option<Connection> {
        self.state().idle.take_stale()
    }

    /// Whether a read is open on an idle connection.
    pub(super) fn has_open(&self) -> bool {
        self.state().idle.has_open()
    }

    /// All idle ones, to be closed.
    pub(super) fn take_all(&self) -> Vec<Entry> {
        self.state().idle.take_all()
    }

    /// From now on nobody is given anything.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.lines.0.clear();
    }

    /// Gives what there is to those who wait for it.
    fn serve(self: &Arc<Self>) {
        while let Some((call, grant)) = self.next() {
            // If whoever waited has just given up, it is dropped: not while the places are locked.
            drop(call.send(grant));
        }
    }

    fn next(self: &Arc<Self>) -> Option<(oneshot::Sender<Grant>, Grant)> {
        self.state().next(self)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The first of those who wait that something can be given to.
    fn next(&mut self, places: &Arc<Places>) -> Option<(oneshot::Sender<Grant>, Grant)> {
        for holder in self.lines.first() {
            if let Some(grant) = self.grant(places, holder) {
                let line = self.lines.line(holder.login());
                return Some((line.waiting.pop_front()?.call, grant));
            }
        }
        None
    }

    /// What the holder can be given now.
    fn grant(&mut self, places: &Arc<Places>, holder: Holder) -> Option<Grant> {
        let login = holder.login();
        let grant = if let Some(entry) = self.idle.take(holder) {
            Grant::Idle(entry)
        } else if self.free > 0 {
            self.free -= 1;
            self.lines.line(login).open += 1;
            let places = Arc::clone(places);
            Grant::Free(Place { places, login })
        } else {
            let lines = &self.lines;
            let mut entry = self
                .idle
                .take_coldest(|entry| lines.may_take(login, entry))?;
            let other = std::mem::replace(&mut entry.connection.place.login, login);
            self.lines.line(other).open -= 1;
            self.lines.line(login).open += 1;
            Grant::Instead(entry)
        };
        self.lines.line(login).served = Instant::now();
        Some(grant)
    }
}

impl Lines {
    fn line(&mut self, login: Login) -> &mut Line {
        self.0.entry(login).or_insert_with(|| Line {
            open: 0,
            waiting: VecDeque::new(),
            served: Instant::now(),
        })
    }

    /// The first of each line: that of the login that has the fewest, then who came first.
    fn first(&mut self) -> Vec<Holder> {
        let mut first = Vec::new();
        for line in self.0.values_mut() {
            let open = line.open;
            first.extend(line.first().map(|w| (open, w.since, w.holder)));
        }
        first.sort_by_key(|&(open, since, _)| (open, since));
        first.into_iter().map(|(_, _, holder)| holder).collect()
    }

    /// Whether this idle connection may be closed for one of the login.
    fn may_take(&self, login: Login, idle: &Entry) -> bool {
        let open = |login| self.0.get(&login).map_or(0, |line| line.open);
        let (has, other) = (open(login), open(idle.connection.login()));
        let starved = self.0.get(&login).is_some_and(Line::is_starved);
        idle.since.elapsed() >= COLD
            || other >= has + 2
            || other >= has && starved
            || has == 0 && self.0.values().all(|line| line.open <= 1)
    }
}

impl Line {
    /// The first who still waits: whoever gave up stands in the line until then.
    fn first(&mut self) -> Option<&Waiting> {
        while self.waiting.front().is_some_and(|w| w.call.is_closed()) {
            self.waiting.pop_front();
        }
        self.waiting.front()
    }

    fn is_starved(&self) -> bool {
        let most = if self.open == 0 { LOOK } else { STARVED };
        let since = self.waiting.front().map(|first| first.since);
        since.is_some_and(|since| since.max(self.served).elapsed() >= most)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.places.state();
        state.free += 1;
        if let Some(line) = state.lines.0.get_mut(&self.login) {
            line.open -= 1;
        }
        drop(state);
        self.places.serve();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    const PLATFORM: Holder = Holder::Platform;
    const CELL: Holder = Holder::Tenant {
        id: uuid::Uuid::nil(),
        cell: 0,
    };

    /// Free places, and how many each login has.
    fn left(places: &Places) -> (usize, Vec<usize>) {
        let state = places.state();
        (state.free, state.lines.0.values().map(|l| l.open).collect())
    }

    #[tokio::test]
    async fn what_is_given_to_who_has_given_up_goes_to_the_next() {
        let places = Arc::new(Places::new(1));
        let first = places.take(CELL).await.unwrap();
        let mut second = Box::pin(places.take(CELL));
        let mut third = Box::pin(places.take(CELL));
        assert!((&mut second).now_or_never().is_none());
        assert!((&mut third).now_or_never().is_none());
        drop(first);
        assert!((&mut third).now_or_never().is_none());
        // Called, and gone before it could hear.
        drop(second);
        drop(third.now_or_never().unwrap().unwrap());
        assert_eq!(left(&places), (1, vec![0]));
    }

    #[tokio::test]
    async fn who_has_the_fewest_is_first() {
        let places = Arc::new(Places::new(2));
        let held = places.take(CELL).await.unwrap();
        let more = places.take(CELL).await.unwrap();
        let mut early = Box::pin(places.take(CELL));
        let mut late = Box::pin(places.take(PLATFORM));
        assert!((&mut early).now_or_never().is_none());
        assert!((&mut late).now_or_never().is_none());
        drop(held);
        assert!((&mut early).now_or_never().is_none());
        let late = late.now_or_never().unwrap().unwrap();
        drop(more);
        drop((late, early.now_or_never().unwrap().unwrap()));
        assert_eq!(left(&places), (2, vec![0, 0]));
    }

    #[tokio::test]
    async fn nobody_waits_for_what_is_closed() {
        let places = Arc::new(Places::new(1));
        let held = places.take(CELL).await.unwrap();
        let mut waiting = Box::pin(places.take(CELL));
        assert!((&mut waiting).now_or_never().is_none());
        places.close();
        waiting.await.unwrap_err();
        drop(held);
        places.take(CELL).await.unwrap_err();
    }
}

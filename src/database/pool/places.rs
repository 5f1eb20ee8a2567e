//! The places of the budget, and who has which: whatever is open has one, used or idle.
//!
//! Who finds neither an idle connection of its login nor a free place waits, first come, first served within the login. Were
//! another login's connection closed for it each time, cells that are all at work would do little but connect, and new
//! connections know no table yet, so that they are held for longer. So an idle one is closed for another login only if that has
//! two fewer at least, which comes to an end; or if nobody has asked for it for [`COLD`]; or if a login has had nothing for
//! [`STARVED`]. With more logins at work than places, whoever has none takes the first that comes back.

use super::idle::{Entry, Idle, Open};
use super::{Connection, Holder, Login};
use crate::error::{Error, Result};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// After how long its login has no need of an idle connection, if another has.
const COLD: Duration = Duration::from_millis(100);
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

/// What a unit of work is given. Dropped, it goes to the next.
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
            // Whoever gave up stands in the line still.
            let line = state.lines.line(holder.login());
            line.waiting.retain(|waiting| !waiting.call.is_closed());
            if line.waiting.is_empty()
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
            match timeout(COLD, &mut called).await {
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

    /// Gives what there is to those who wait for it, in the order in which they came.
    fn serve(self: &Arc<Self>) {
        loop {
            let mut state = self.state();
            let Some((call, grant)) = state.next(self) else {
                return;
            };
            let refused = call.send(grant).err();
            // If whoever called has just given up, what it was given is dropped, and with it the place freed, without the lock.
            drop(state);
            drop(refused);
        }
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

    /// The first of each line, in the order in which they came.
    fn first(&mut self) -> Vec<Holder> {
        let mut first = Vec::new();
        for line in self.0.values_mut() {
            while line.waiting.front().is_some_and(|w| w.call.is_closed()) {
                line.waiting.pop_front();
            }
            first.extend(line.waiting.front().map(|w| (w.since, w.holder)));
        }
        first.sort_by_key(|(since, _)| *since);
        first.into_iter().map(|(_, holder)| holder).collect()
    }

    /// Whether this idle connection may be closed for one of the login.
    fn may_take(&self, login: Login, idle: &Entry) -> bool {
        let open = |login| self.0.get(&login).map_or(0, |line| line.open);
        let has = open(login);
        let starved = self.0.get(&login).is_some_and(Line::is_starved);
        starved
            || idle.since.elapsed() >= COLD
            || open(idle.connection.login()) >= has + 2
            || has == 0 && self.0.values().all(|line| line.open <= 1)
    }
}

impl Line {
    fn is_starved(&self) -> bool {
        let since = self.waiting.front().map(|first| first.since);
        since.is_some_and(|since| since.max(self.served).elapsed() >= STARVED)
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

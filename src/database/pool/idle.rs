//! The connections that nobody uses just now, of all logins, and which of them is taken or closed next.

use super::places::Place;
use super::{Connection, Holder};
use std::time::{Duration, Instant};

/// How old a transaction may be for another read to go on with it: locks on what was read go no later than this.
const REUSE: Duration = Duration::from_millis(50);
/// How long a read that is over may stay open on an idle connection.
pub(super) const LINGER: Duration = Duration::from_millis(5);

/// In the order in which they came back.
#[derive(Debug, Default)]
pub(super) struct Idle(Vec<Entry>);

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) connection: Connection,
    /// The transaction of a read that is over, if it is still open.
    pub(super) open: Option<Open>,
    /// Since when it is idle.
    pub(super) since: Instant,
}

/// A transaction that was for reading, and is still bound to the tenant it read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Open {
    pub(super) began: Instant,
    /// When its last read ended.
    pub(super) over: Instant,
}

impl Entry {
    /// Since when a read of the holder's is open on it that another may go on with.
    pub(super) fn reads(&self, holder: Holder) -> Option<Instant> {
        let open = self.open.filter(|open| open.began.elapsed() < REUSE)?;
        (self.connection.last == holder).then_some(open.began)
    }

    /// Ends its read, if that is open, and closes it: the place that it had.
    pub(super) async fn close(mut self) -> Place {
        if self.open.is_none() || self.connection.end("COMMIT").await {
            self.connection.close().await
        } else {
            self.connection.place
        }
    }
}

impl Idle {
    pub(super) fn push(&mut self, connection: Connection, open: Option<Open>) {
        self.0.push(Entry {
            connection,
            open,
            since: Instant::now(),
        });
    }

    /// One of the holder's login: that which served the same tenant last, because PostgreSQL has its statements planned; else
    /// one that has read its tables; else the one that has been idle longest, because the others are more likely to be asked
    /// for by their tenants.
    pub(super) fn take(&mut self, holder: Holder) -> Option<Entry> {
        let same = self.0.iter().rposition(|e| e.connection.last == holder);
        let login = holder.login();
        let ours = |entry: &Entry| entry.connection.login() == login;
        let knows = |entry: &Entry| ours(entry) && entry.connection.knows(holder);
        let index = same
            .or_else(|| self.0.iter().position(knows))
            .or_else(|| self.0.iter().position(ours))?;
        Some(self.0.remove(index))
    }

    /// One whose read nobody has gone on with.
    pub(super) fn take_stale(&mut self) -> Option<Connection> {
        let stale = |entry: &Entry| entry.open.is_some_and(|open| open.over.elapsed() >= LINGER);
        let index = self.0.iter().position(stale)?;
        Some(self.0.remove(index).connection)
    }

    /// The one to close for another login, of those that may be: of the login that has not come back for the longest time, the
    /// longest idle.
    pub(super) fn take_coldest(&mut self, may: impl Fn(&Entry) -> bool) -> Option<Entry> {
        let newest = |login| self.0.iter().rposition(|e| e.connection.login() == login);
        let index = (0..self.0.len())
            .filter(|&i| may(&self.0[i]))
            .min_by_key(|&i| newest(self.0[i].connection.login()))?;
        Some(self.0.remove(index))
    }

    /// All of them.
    pub(super) fn take_all(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.0)
    }

    pub(super) fn has_open(&self) -> bool {
        self.0.iter().any(|entry| entry.open.is_some())
    }
}

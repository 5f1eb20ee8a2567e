//! The connections that nobody uses just now, of all logins, and which of them is taken or closed next.

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
}

/// A transaction that was for reading, and is still bound to the tenant it read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Open {
    pub(super) began: Instant,
    /// When its last read ended.
    pub(super) over: Instant,
}

impl Entry {
    /// Ends its read, if that is open, and closes it.
    pub(super) async fn close(mut self) {
        if self.open.is_none() || self.connection.end("COMMIT").await {
            self.connection.close().await;
        }
    }
}

impl Idle {
    pub(super) fn push(&mut self, entry: Entry) {
        self.0.push(entry);
    }

    /// One of the holder's login: that which served the same tenant last, because PostgreSQL has its statements planned;
    /// otherwise the one that has been idle longest, because the others are more likely to be asked for by their tenants.
    pub(super) fn take(&mut self, holder: Holder) -> Option<Entry> {
        let same = self.0.iter().rposition(|e| e.connection.last == holder);
        let login = holder.login();
        let of_login = |entry: &Entry| entry.connection.login() == login;
        let index = same.or_else(|| self.0.iter().position(of_login))?;
        Some(self.0.remove(index))
    }

    /// One on which a read of the holder's ended a moment ago, and since when its transaction is open.
    pub(super) fn take_open(&mut self, holder: Holder) -> Option<(Connection, Instant)> {
        let fits = |entry: &Entry| {
            let open = entry.open.filter(|open| open.began.elapsed() < REUSE);
            entry.connection.last == holder && open.is_some()
        };
        let index = self.0.iter().rposition(fits)?;
        let Entry { connection, open } = self.0.remove(index);
        open.map(|open| (connection, open.began))
    }

    /// One whose read nobody has gone on with.
    pub(super) fn take_stale(&mut self) -> Option<Connection> {
        let stale = |entry: &Entry| entry.open.is_some_and(|open| open.over.elapsed() >= LINGER);
        let index = self.0.iter().position(stale)?;
        Some(self.0.remove(index).connection)
    }

    /// The one to close for another login: of the login that has not come back for the longest time, the longest idle.
    pub(super) fn take_coldest(&mut self) -> Option<Entry> {
        let newest = |login| self.0.iter().rposition(|e| e.connection.login() == login);
        let index = (0..self.0.len()).min_by_key(|&i| newest(self.0[i].connection.login()))?;
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

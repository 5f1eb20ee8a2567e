//! Word that a tenant changed, within this process at once and to the others by NOTIFY. It says that, and not what: whoever
//! waits for it looks, and looks from time to time anyway, so that a word which is lost is a delay.

use super::listen::CHANNEL;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use uuid::Uuid;

/// What such a message begins with: then who sent it, and the tenants.
const CHANGED: &str = "changed:";
/// Tenants that one message names: PostgreSQL takes 8,000 bytes.
const NAMED: usize = 200;
/// What it says in place of more.
const ALL: &str = "all";

/// The tenants that are watched here, and those of which the other processes have not been told yet.
#[derive(Debug)]
pub(super) struct Changes {
    /// Whose messages are our own.
    sender: String,
    state: Mutex<State>,
    due: Notify,
}

#[derive(Debug, Default)]
struct State {
    watched: HashMap<Uuid, Arc<Notify>>,
    untold: HashSet<Uuid>,
    /// They are too many to be named.
    all: bool,
    /// Those that may have changed since somebody asked last; nothing while nobody ever did.
    touched: Option<Touched>,
}

/// Tenants that may have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched {
    /// These.
    Some(HashSet<Uuid>),
    /// Any of them.
    All,
}

impl Touched {
    fn add(&mut self, tenant: Uuid) {
        if let Self::Some(tenants) = self {
            tenants.insert(tenant);
        }
    }
}

/// Wakes when a tenant may have changed, until it is dropped.
#[derive(Debug)]
pub struct Watch {
    changes: Arc<Changes>,
    tenant: Uuid,
    wake: Arc<Notify>,
}

impl Watch {
    /// Returns when the tenant may have changed since this returned last.
    pub async fn changed(&self) {
        self.wake.notified().await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut state = self.changes.lock();
        let own = |wake: &Arc<Notify>| Arc::ptr_eq(wake, &self.wake);
        if state.watched.get(&self.tenant).is_some_and(own) {
            state.watched.remove(&self.tenant);
        }
    }
}

impl Changes {
    /// `sender`: a text without a colon that no other process uses.
    pub(super) fn new(sender: String) -> Self {
        Self {
            sender,
            state: Mutex::default(),
            due: Notify::new(),
        }
    }

    /// Watches a tenant, for the one who reads what is new in it.
    pub(super) fn watch(self: &Arc<Self>, tenant: Uuid) -> Watch {
        let wake = Arc::new(Notify::new());
        self.lock().watched.insert(tenant, Arc::clone(&wake));
        Watch {
            changes: Arc::clone(self),
            tenant,
            wake,
        }
    }

    /// This process changed the tenant, and has committed.
    pub(super) fn note(&self, tenant: Uuid) {
        let mut state = self.lock();
        if let Some(wake) = state.watched.get(&tenant) {
            wake.notify_one();
        }
        if let Some(touched) = &mut state.touched {
            touched.add(tenant);
        }
        if !state.all {
            state.untold.insert(tenant);
            state.all = state.untold.len() > NAMED;
        }
        drop(state);
        self.due.notify_one();
    }

    /// Wakes whoever watches: anything may have changed.
    pub(super) fn wake_all(&self) {
        let mut state = self.lock();
        for wake in state.watched.values() {
            wake.notify_one();
        }
        if let Some(touched) = &mut state.touched {
            *touched = Touched::All;
        }
    }

    /// The tenants that may have changed since this was asked last; all of them for who asks first.
    pub(super) fn touched(&self) -> Touched {
        let none = Touched::Some(HashSet::new());
        self.lock().touched.replace(none).unwrap_or(Touched::All)
    }

    /// Takes a message of this kind. One's own says nothing new.
    pub(super) fn hear(&self, message: &str) {
        let Some((sender, tenants)) = message
            .strip_prefix(CHANGED)
            .and_then(|rest| rest.split_once(':'))
        else {
            return;
        };
        if sender == self.sender {
            return;
        }
        if tenants == ALL {
            return self.wake_all();
        }
        let mut state = self.lock();
        for id in tenants.split(',').filter_map(|id| id.parse::<Uuid>().ok()) {
            if let Some(wake) = state.watched.get(&id) {
                wake.notify_one();
            }
            if let Some(touched) = &mut state.touched {
                touched.add(id);
            }
        }
    }

    /// Returns once there is something to tell. May be dropped at any time.
    pub(super) async fn due(&self) {
        while !self.is_due() {
            self.due.notified().await;
        }
    }

    fn is_due(&self) -> bool {
        let state = self.lock();
        state.all || !state.untold.is_empty()
    }

    /// The statement that tells all of it, for a transaction that does not wait for the disk; none if there is nothing.
    pub(super) fn tell(&self) -> Option<String> {
        let mut state = self.lock();
        if !state.all && state.untold.is_empty() {
            return None;
        }
        let untold = std::mem::take(&mut state.untold);
        let tenants = if std::mem::take(&mut state.all) {
            ALL.to_owned()
        } else {
            let ids = untold.iter().map(|id| id.simple().to_string());
            ids.collect::<Vec<_>>().join(",")
        };
        let sender = &self.sender;
        Some(format!("NOTIFY {CHANNEL}, '{CHANGED}{sender}:{tenants}'"))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    fn message(changes: &Changes) -> String {
        let told = changes.tell().unwrap();
        told.split('\'').nth(1).unwrap().to_owned()
    }

    #[test]
    fn who_asks_hears_of_all_that_changed_since() {
        let [here, there] = ["a", "b"].map(|name| Arc::new(Changes::new(name.to_owned())));
        let [one, other] = [Uuid::from_u128(1), Uuid::from_u128(2)];
        assert_eq!(here.touched(), Touched::All, "before, nobody listened");
        assert_eq!(here.touched(), Touched::Some(HashSet::new()));
        here.note(one);
        there.note(other);
        here.hear(&message(&there));
        assert_eq!(here.touched(), Touched::Some(HashSet::from([one, other])));
        assert_eq!(here.touched(), Touched::Some(HashSet::new()));
        here.wake_all();
        here.note(one);
        assert_eq!(here.touched(), Touched::All);
    }

    #[test]
    fn a_word_reaches_who_watches_and_no_message_is_too_long() {
        let [here, there] = ["a", "b"].map(|name| Arc::new(Changes::new(name.to_owned())));
        let [one, other] = [Uuid::from_u128(1), Uuid::from_u128(2)];
        let watch = there.watch(one);
        let wakes = || watch.changed().now_or_never().is_some();
        here.note(other);
        there.hear(&message(&here));
        assert!(!wakes(), "of another tenant");
        here.note(one);
        here.note(one);
        let told = message(&here);
        there.hear(&told);
        assert!(wakes() && !wakes());
        assert!(here.due().now_or_never().is_none(), "all is told");
        for id in 0..10_000_u128 {
            here.note(Uuid::from_u128(id));
        }
        let told = message(&here);
        assert!(told.len() < 8000, "{} bytes", told.len());
        there.hear(&told);
        assert!(wakes());
        there.note(one);
        assert!(wakes(), "of its own at once");
        there.hear(&message(&there));
        assert!(!wakes(), "and its own message is no news");
        for id in 0..NAMED as u128 {
            here.note(Uuid::from_u128(id));
        }
        let told = message(&here);
        assert!(
            told.len() < 8000 && told.len() > 6000,
            "{} bytes",
            told.len()
        );
        let older = there.watch(other);
        let newer = there.watch(other);
        drop(older);
        there.hear(&told);
        assert!(
            newer.changed().now_or_never().is_some(),
            "the newer watch stays"
        );
        drop((watch, newer));
        assert!(there.lock().watched.is_empty());
    }
}

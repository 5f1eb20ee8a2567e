//! The reader of one tenant: looks when there is word of a change, and from time to time; hands on what is new.

use super::queue::Queue;
use super::read::{self, MOST, Window};
use super::{Feeds, Item, Page, Subject};
use crate::clock::Timestamp;
use crate::database::{TenantTx, Watch};
use crate::error::Result;
use crate::history::Snapshot;
use chrono::TimeDelta;
use futures::FutureExt as _;
use futures::future::join_all;
use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::{sleep, sleep_until, timeout_at};
use uuid::Uuid;

/// How long until it looks without word: so late is what a lost word, or none, makes a change.
const POLL: Duration = Duration::from_secs(1);
/// How long between two looks at least.
const GAP: Duration = Duration::from_millis(20);
/// Items of a page.
const PAGE: usize = 100;
/// How long followers may keep each other waiting for a place in their queues.
const PATIENCE: Duration = Duration::from_secs(2);
/// How much longer than its readers a transaction may last and be seen.
const LONGEST: TimeDelta = TimeDelta::hours(1);

/// Where a reader is.
#[derive(Debug)]
pub(super) struct Reader {
    feeds: Feeds,
    tenant: Uuid,
    from: Timestamp,
    seen: Snapshot,
    /// Found, and still to be loaded and handed on.
    found: VecDeque<Uuid>,
}

/// There was too much, or time went backwards: nobody can be told all of it.
struct Lost;

impl Reader {
    /// Reads on from the snapshot, until nobody follows any more.
    #[expect(
        clippy::disallowed_methods,
        reason = "it ends when nobody follows the tenant any more"
    )]
    pub(super) fn start(feeds: Feeds, tenant: Uuid, since: Snapshot) {
        // Before anybody can wait for it: word of a change is not to be missed.
        let watch = feeds.0.database.watch(tenant);
        let reader = Self {
            from: feeds.0.database.clock().now() - LONGEST,
            feeds,
            tenant,
            seen: since,
            found: VecDeque::new(),
        };
        tokio::spawn(async move {
            let feeds = reader.feeds.clone();
            // Its followers are told rather than left waiting.
            if AssertUnwindSafe(reader.run(watch))
                .catch_unwind()
                .await
                .is_err()
            {
                feeds.lock().remove(&tenant);
            }
        });
    }

    async fn run(mut self, watch: Watch) {
        let mut looked = Instant::now();
        loop {
            tokio::select! {
                () = watch.changed() => sleep_until((looked + GAP).into()).await,
                () = sleep(POLL) => {}
            }
            looked = Instant::now();
            if !self.is_followed() {
                return;
            }
            match self.look().await {
                Ok(Ok(())) => {}
                Ok(Err(Lost)) => {
                    tracing::warn!(tenant = %self.tenant, "too much is new in a tenant; its followers begin anew");
                    self.feeds.lock().remove(&self.tenant);
                    return;
                }
                // What was not read is read at the next look.
                Err(error) => {
                    tracing::debug!(tenant = %self.tenant, ?error, "cannot read what is new");
                }
            }
        }
    }

    /// Forgets who is gone. Without anybody left, this reader is forgotten too: whoever comes then starts another.
    fn is_followed(&self) -> bool {
        let mut all = self.feeds.lock();
        let Some(followers) = all.get_mut(&self.tenant) else {
            return false;
        };
        followers.retain(|follower| !follower.pages.is_ended());
        let is_followed = !followers.is_empty();
        if !is_followed {
            all.remove(&self.tenant);
        }
        is_followed
    }

    /// Reads what is new and hands it on, a page at a time; holds no connection while followers take theirs.
    async fn look(&mut self) -> Result<Result<(), Lost>> {
        if let Err(Lost) = self.find().await? {
            return Ok(Err(Lost));
        }
        while !self.found.is_empty() {
            let ids: Vec<Uuid> = self.found.iter().take(PAGE).copied().collect();
            let tx = self.begin().await?;
            let loaded = read::load(&tx, &ids).await;
            let items = tx.settle(loaded).await?;
            self.found.drain(..ids.len());
            self.hand_on(Subject::Changes, items).await;
        }
        Ok(Ok(()))
    }

    /// Finds what is new since it looked last. Jobs are few bytes, and handed on at once.
    async fn find(&mut self) -> Result<Result<(), Lost>> {
        if !self.found.is_empty() {
            return Ok(Ok(()));
        }
        let tx = self.begin().await?;
        let read = async {
            let now = Snapshot::take(&tx).await?;
            if now == self.seen {
                return Ok(None);
            }
            let window = Window {
                seen: &self.seen,
                now: &now,
            };
            let changes = read::changes(&tx, &window, self.from).await?;
            let jobs = if self.wants(Subject::Jobs) {
                read::jobs(&tx, &window).await?
            } else {
                Vec::new()
            };
            Ok(Some((now, changes, jobs)))
        };
        let read = read.await;
        let Some((now, changes, jobs)) = tx.settle(read).await? else {
            return Ok(Ok(()));
        };
        if changes.len() > MOST || jobs.len() > MOST || now.next < self.seen.next {
            return Ok(Err(Lost));
        }
        self.seen = now;
        self.found = changes.into();
        for page in jobs.chunks(PAGE) {
            self.hand_on(Subject::Jobs, page.to_vec()).await;
        }
        Ok(Ok(()))
    }

    /// The tenant as it is now: it may have moved to another cell.
    async fn begin(&self) -> Result<TenantTx> {
        let tenant = self.feeds.0.registry.get(self.tenant).await?;
        self.feeds.0.database.read(&tenant).await
    }

    fn wants(&self, subject: Subject) -> bool {
        let all = self.feeds.lock();
        let followers = all.get(&self.tenant);
        followers.is_some_and(|all| all.iter().any(|follower| follower.subject == subject))
    }

    /// Puts a page into the queues. Who has no place for it when the others have waited long enough is let go.
    async fn hand_on(&self, subject: Subject, items: Vec<Item>) {
        if items.is_empty() {
            return;
        }
        let page: Page = items.into();
        let queues: Vec<Arc<Queue>> = match self.feeds.lock().get(&self.tenant) {
            Some(followers) => followers
                .iter()
                .filter(|follower| follower.subject == subject)
                .map(|follower| follower.pages.queue())
                .collect(),
            None => return,
        };
        let deadline = Instant::now() + PATIENCE;
        let put = queues
            .iter()
            .map(|queue| timeout_at(deadline.into(), queue.put(Page::clone(&page))));
        let put = join_all(put).await;
        let slow = put.iter().zip(&queues).filter(|(put, _)| put.is_err());
        let slow: Vec<_> = slow.map(|(_, queue)| queue).collect();
        if slow.is_empty() {
            return;
        }
        tracing::debug!(tenant = %self.tenant, followers = slow.len(), "too slow to follow");
        if let Some(followers) = self.feeds.lock().get_mut(&self.tenant) {
            followers.retain(|follower| !slow.iter().any(|queue| follower.pages.is(queue)));
        }
    }
}

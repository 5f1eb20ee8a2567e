//! What is new in a tenant, for whoever follows it: one reader for each tenant that somebody follows on this server.
//!
//! The source is the database, so whoever wrote is seen: `history` and the jobs, read by the transactions that were not over
//! when it was read last. So nothing is missed, doubled or out of order, however late a transaction commits. Followers have
//! queues that are bounded; one that does not keep up is let go.

mod queue;
mod read;
mod reader;

use crate::database::{Database, Tenant};
use crate::error::{Error, Result};
use crate::history::Snapshot;
use crate::tenancy::Registry;
use entity::tenant::history;
use futures::stream::{self, Stream, StreamExt as _};
use queue::{Filling, Queue, Taking};
use reader::Reader;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use uuid::Uuid;

/// What somebody follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Changes,
    Jobs,
}

/// Something new.
#[derive(Clone, Debug)]
enum Item {
    Change(Arc<history::Model>),
    /// A job, and the transaction that changed it last.
    Job(Uuid, i64),
}

impl Item {
    fn transaction(&self) -> i64 {
        match self {
            Self::Change(change) => change.transaction_id,
            Self::Job(_, transaction) => *transaction,
        }
    }
}

/// Some items, in order; all followers of a tenant share them.
type Page = Arc<[Item]>;

/// One who follows, as its reader sees it.
#[derive(Debug)]
struct Follower {
    subject: Subject,
    pages: Filling,
    /// It knows from where on it follows.
    begun: Arc<AtomicBool>,
}

impl Follower {
    fn new(subject: Subject, begun: bool) -> (Self, Taking) {
        let (pages, taking) = Queue::ends();
        let begun = Arc::new(AtomicBool::new(begun));
        let follower = Self {
            subject,
            pages,
            begun,
        };
        (follower, taking)
    }
}

/// The tenants that are followed on this server, and by whom.
#[derive(Clone, Debug)]
pub struct Feeds(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    database: Database,
    registry: Registry,
    followers: Mutex<HashMap<Uuid, Vec<Follower>>>,
}

impl Feeds {
    /// Nobody follows anything yet.
    pub fn new(database: Database, registry: Registry) -> Self {
        Self(Arc::new(Inner {
            database,
            registry,
            followers: Mutex::default(),
        }))
    }

    /// The changes of a tenant's rows that are committed from now on, in order. Ends with [`Error::TooSlow`] for one who does
    /// not keep up.
    pub async fn changes(
        &self,
        tenant: &Arc<Tenant>,
    ) -> Result<impl Stream<Item = Result<Arc<history::Model>>> + Send + use<>> {
        let items = self.follow(tenant, Subject::Changes).await?;
        Ok(items.filter_map(async |item| match item {
            Ok(Item::Change(change)) => Some(Ok(change)),
            Ok(Item::Job(..)) => None,
            Err(error) => Some(Err(error)),
        }))
    }

    /// Ids of the tenant's jobs, each time that one is added or changed from now on; several changes at once may be one item.
    pub async fn jobs(
        &self,
        tenant: &Arc<Tenant>,
    ) -> Result<impl Stream<Item = Result<Uuid>> + Send + use<>> {
        let items = self.follow(tenant, Subject::Jobs).await?;
        Ok(items.filter_map(async |item| match item {
            Ok(Item::Job(id, _)) => Some(Ok(id)),
            Ok(Item::Change(_)) => None,
            Err(error) => Some(Err(error)),
        }))
    }

    /// How many follow a tenant: whatever is committed from now on reaches them.
    pub fn followers(&self, tenant: Uuid) -> usize {
        let followers = self.lock();
        let follows = |follower: &&Follower| {
            follower.begun.load(Ordering::Acquire) && !follower.pages.is_ended()
        };
        followers
            .get(&tenant)
            .map_or(0, |all| all.iter().filter(follows).count())
    }

    async fn follow(
        &self,
        tenant: &Arc<Tenant>,
        subject: Subject,
    ) -> Result<impl Stream<Item = Result<Item>> + Send + use<>> {
        let (since, pages) = loop {
            // In the reader's list first: whatever is committed after the snapshot reaches us then.
            if let Some((pages, begun)) = self.join(tenant.id, subject) {
                let since = self.snapshot(tenant).await?;
                begun.store(true, Ordering::Release);
                break (since, pages);
            }
            // The first follower says where the reader begins, unless somebody else was faster.
            let since = self.snapshot(tenant).await?;
            if let Some(pages) = self.begin(tenant, subject, since.clone()) {
                break (since, pages);
            }
        };
        let pages = stream::unfold(Some(pages), async |pages| {
            let pages = pages?;
            match pages.next().await {
                Some(page) => Some((Ok(page), Some(pages))),
                None => Some((Err(Error::TooSlow), None)),
            }
        });
        let items = pages.flat_map(|page| match page {
            Ok(page) => stream::iter(0..page.len())
                .map(move |index| Ok(page[index].clone()))
                .left_stream(),
            Err(error) => stream::iter([Err(error)]).right_stream(),
        });
        let is_new = move |item: &Result<Item>| match item {
            Ok(item) => !since.has(item.transaction()),
            Err(_) => true,
        };
        Ok(items
            .filter(move |item| std::future::ready(is_new(item)))
            .boxed())
    }

    /// One more follower of a tenant that is read already.
    fn join(&self, tenant: Uuid, subject: Subject) -> Option<(Taking, Arc<AtomicBool>)> {
        let mut followers = self.lock();
        let (follower, pages) = Follower::new(subject, false);
        let begun = Arc::clone(&follower.begun);
        followers.get_mut(&tenant)?.push(follower);
        Some((pages, begun))
    }

    /// The first follower of a tenant.
    fn begin(&self, tenant: &Tenant, subject: Subject, since: Snapshot) -> Option<Taking> {
        let mut followers = self.lock();
        if followers.contains_key(&tenant.id) {
            return None;
        }
        let (follower, pages) = Follower::new(subject, true);
        followers.insert(tenant.id, vec![follower]);
        drop(followers);
        Reader::start(self.clone(), tenant.id, since);
        Some(pages)
    }

    async fn snapshot(&self, tenant: &Arc<Tenant>) -> Result<Snapshot> {
        let tx = self.0.database.read(tenant).await?;
        let snapshot = Snapshot::take(&tx).await;
        tx.settle(snapshot).await
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Vec<Follower>>> {
        self.0
            .followers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

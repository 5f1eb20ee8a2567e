//! Loads by key in batches, on the request's own unit of work: no N+1, and nothing outlives the request.
//!
//! A batch is a future that all who asked share: it lets the others of the same level ask, then reads for all of them. No
//! timer and no task of its own: whoever is still there drives it, and it ends with the last of them. That the others have
//! asked is seen by [`Driver`], which an operation runs under: then there is nothing else that it can do.

use super::RequestContext;
use crate::clock::Timestamp;
use crate::database::{TenantTx, any};
use crate::error::Result;
use crate::history::as_of;
use async_graphql::Context;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, WeakShared};
use futures::task::AtomicWaker;
use sea_orm::sea_query::ExprTrait as _;
use sea_orm::{
    ColumnTrait as _, EntityTrait, Iterable as _, ModelTrait as _, QueryFilter as _, Value,
};
use std::any::{Any, TypeId};
use std::collections::{HashMap, HashSet};
use std::future::poll_fn;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{self, Poll, Wake, Waker};
use uuid::Uuid;

/// A key whose values are loaded in batches. Resources add their own.
pub trait Batch: Clone + Eq + Hash + Send + Sync + 'static {
    /// What is loaded.
    type Value: Clone + Send + Sync + 'static;

    /// The values of those keys that have one, in as few statements as can be.
    fn load(
        tx: &TenantTx,
        keys: Vec<Self>,
    ) -> impl Future<Output = Result<HashMap<Self, Self::Value>>> + Send;
}

type Answer<K> = Result<Arc<HashMap<K, <K as Batch>::Value>>>;
type Answering<K> = BoxFuture<'static, Answer<K>>;

/// The batches of a request that still take keys, one for each type of key.
#[derive(Debug)]
pub struct Loaders {
    request: Arc<RequestContext>,
    open: Mutex<HashMap<TypeId, Box<dyn Any + Send>>>,
    /// Of the batches that wait for others to join.
    turns: Mutex<Vec<Arc<Turn>>>,
}

/// A batch that still takes keys. It is kept by those who wait for it alone.
struct Open<K: Batch> {
    keys: HashSet<K>,
    answer: WeakShared<Answering<K>>,
}

impl Loaders {
    /// The request's loaders; made anew for each request.
    pub(super) fn of(request: Arc<RequestContext>) -> Arc<Self> {
        Arc::new(Self {
            request,
            open: Mutex::default(),
            turns: Mutex::default(),
        })
    }

    /// The answer of the batch that the key is in from now on.
    fn join<K: Batch>(self: &Arc<Self>, key: &K) -> Shared<Answering<K>> {
        let mut batches = self.batches();
        let there = batches.get_mut(&TypeId::of::<K>());
        if let Some(open) = there.and_then(|open| open.downcast_mut::<Open<K>>())
            && let Some(answer) = open.answer.upgrade()
        {
            open.keys.insert(key.clone());
            return answer;
        }
        let answer = Arc::clone(self).answer::<K>().boxed().shared();
        if let Some(weak) = answer.downgrade() {
            let open = Open {
                keys: HashSet::from([key.clone()]),
                answer: weak,
            };
            batches.insert(TypeId::of::<K>(), Box::new(open));
        }
        answer
    }

    async fn answer<K: Batch>(self: Arc<Self>) -> Answer<K> {
        // The fields of a level ask without waiting for anything: when this goes on, all of them have.
        self.others_turn().await;
        let open = self.batches().remove(&TypeId::of::<K>());
        let open = open.and_then(|open| open.downcast::<Open<K>>().ok());
        let keys: Vec<K> = open.map_or(Vec::new(), |open| open.keys.into_iter().collect());
        let tx = self.request.reading().await?;
        Ok(Arc::new(K::load(&tx, keys).await?))
    }

    /// Waits until the operation can do nothing else. Each who joins a batch polls it: only the driver's word counts, or the
    /// second would end the wait.
    async fn others_turn(&self) {
        let turn = Arc::new(Turn::default());
        locked(&self.turns).push(Arc::clone(&turn));
        poll_fn(|cx| {
            turn.waiting.register(cx.waker());
            if turn.over.load(Ordering::Acquire) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    fn batches(&self) -> MutexGuard<'_, HashMap<TypeId, Box<dyn Any + Send>>> {
        locked(&self.open)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the others have had their turn.
#[derive(Debug, Default)]
struct Turn {
    over: AtomicBool,
    waiting: AtomicWaker,
}

/// Polls an operation, and closes its batches when it waits. It does both in one poll of the task: to let the runtime come
/// back to it cost more than a row does, in threads that wake each other.
#[derive(Debug)]
pub(super) struct Driver {
    loaders: Arc<Loaders>,
    task: Arc<Task>,
    waker: Waker,
}

impl Driver {
    pub(super) fn new(loaders: Arc<Loaders>) -> Self {
        let task = Arc::new(Task::default());
        Self {
            loaders,
            waker: Waker::from(Arc::clone(&task)),
            task,
        }
    }

    /// What `poll` comes to.
    pub(super) fn poll<T>(
        &self,
        cx: &task::Context<'_>,
        mut poll: impl FnMut(&mut task::Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.task.waker.register(cx.waker());
        loop {
            self.task.is_woken.store(false, Ordering::Relaxed);
            let polled = poll(&mut task::Context::from_waker(&self.waker));
            // One that was woken meanwhile can go on: many fields are polled some at a time.
            if polled.is_ready() || self.task.is_woken.load(Ordering::Relaxed) || !self.close() {
                return polled;
            }
        }
    }

    /// Closes the batches that wait, if there are any. Whoever they wake is polled right after: the task need not hear of it.
    fn close(&self) -> bool {
        let turns = std::mem::take(&mut *locked(&self.loaders.turns));
        if turns.is_empty() {
            return false;
        }
        self.task.is_polled.store(true, Ordering::Relaxed);
        for turn in &turns {
            turn.over.store(true, Ordering::Release);
            turn.waiting.wake();
        }
        self.task.is_polled.store(false, Ordering::Relaxed);
        // Whoever was not passed on before this is seen by the poll after it.
        fence(Ordering::SeqCst);
        true
    }
}

/// The task that polls.
#[derive(Debug, Default)]
struct Task {
    waker: AtomicWaker,
    /// It was woken since it began to poll.
    is_woken: AtomicBool,
    /// It is about to poll anyway.
    is_polled: AtomicBool,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        fence(Ordering::SeqCst);
        if !self.is_polled.load(Ordering::Relaxed) {
            self.is_woken.store(true, Ordering::Relaxed);
            self.waker.wake();
        }
    }
}

/// The value of a key, in a batch with the others of its type that the request asks for.
pub async fn load<K: Batch>(ctx: &Context<'_>, key: K) -> Result<Option<K::Value>> {
    let answer = ctx.data_unchecked::<Arc<Loaders>>().join(&key);
    Ok(answer.await?.get(&key).cloned())
}

/// The row of `E` with this id, in a batch with the others.
pub async fn load_row<E>(ctx: &Context<'_>, id: Uuid) -> Result<Option<E::Model>>
where
    E: EntityTrait,
    E::Model: Clone + Send + Sync + 'static,
{
    load_row_at::<E>(ctx, id, None).await
}

/// The same as it was at a moment, if there is one.
pub async fn load_row_at<E>(
    ctx: &Context<'_>,
    id: Uuid,
    at: Option<Timestamp>,
) -> Result<Option<E::Model>>
where
    E: EntityTrait,
    E::Model: Clone + Send + Sync + 'static,
{
    load(ctx, ById::<E>(id, at, PhantomData)).await
}

/// The column of an entity's id: all have one of their own.
pub(super) fn id_column<E: EntityTrait>() -> Option<E::Column> {
    let key = E::PrimaryKey::iter().next();
    key.map(sea_orm::PrimaryKeyToColumn::into_column)
}

/// The row of `E` with this id, as of a moment or as it is.
struct ById<E>(Uuid, Option<Timestamp>, PhantomData<fn() -> E>);

impl<E> Clone for ById<E> {
    fn clone(&self) -> Self {
        Self(self.0, self.1, PhantomData)
    }
}

impl<E> PartialEq for ById<E> {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}

impl<E> Eq for ById<E> {}

impl<E> Hash for ById<E> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.0, self.1).hash(state);
    }
}

impl<E> Batch for ById<E>
where
    E: EntityTrait,
    E::Model: Clone + Send + Sync + 'static,
{
    type Value = E::Model;

    async fn load(tx: &TenantTx, keys: Vec<Self>) -> Result<HashMap<Self, E::Model>> {
        let Some(id) = id_column::<E>() else {
            return Ok(HashMap::new());
        };
        let mut moments: HashMap<Option<Timestamp>, Vec<Uuid>> = HashMap::new();
        for Self(key, at, _) in keys {
            moments.entry(at).or_default().push(key);
        }
        let mut found = HashMap::new();
        for (at, ids) in moments {
            // An array's length is not known before, so PostgreSQL plans such a statement each time; that of one id once.
            let wanted = match ids[..] {
                [one] => id.eq(one),
                _ => id.into_expr().eq(any(ids)),
            };
            let rows = as_of(E::find().filter(wanted), at).all(tx).await?;
            found.extend(rows.into_iter().filter_map(|row| match row.get(id) {
                Value::Uuid(Some(key)) => Some((Self(key, at, PhantomData), row)),
                _ => None,
            }));
        }
        Ok(found)
    }
}

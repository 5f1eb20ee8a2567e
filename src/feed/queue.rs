//! The pages that one who follows has still to take. They are gone with its place: who does not read keeps none of them,
//! while it is told why.

use super::Page;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Pages that a follower may be behind.
const BEHIND: usize = 16;

/// A queue, shared by the reader that fills it and by who takes from it. Either end ends it.
#[derive(Debug)]
pub(super) struct Queue {
    /// None once it has ended.
    pages: Mutex<Option<VecDeque<Page>>>,
    came: Notify,
    taken: Notify,
}

impl Queue {
    /// The two ends of a new one.
    pub(super) fn ends() -> (Filling, Taking) {
        let queue = Arc::new(Self {
            pages: Mutex::new(Some(VecDeque::new())),
            came: Notify::new(),
            taken: Notify::new(),
        });
        (Filling(Arc::clone(&queue)), Taking(queue))
    }

    /// Puts a page in, when there is a place for it; one that has ended takes it at once, and drops it.
    pub(super) async fn put(&self, page: Page) {
        loop {
            match self.lock().as_mut() {
                Some(pages) if pages.len() == BEHIND => {}
                Some(pages) => {
                    pages.push_back(page);
                    return self.came.notify_one();
                }
                None => return,
            }
            self.taken.notified().await;
        }
    }

    fn end(&self) {
        *self.lock() = None;
        self.came.notify_one();
        self.taken.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Option<VecDeque<Page>>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The reader's end.
#[derive(Debug)]
pub(super) struct Filling(Arc<Queue>);

impl Filling {
    /// To put pages in, as long as it is there.
    pub(super) fn queue(&self) -> Arc<Queue> {
        Arc::clone(&self.0)
    }

    /// Whether this is the queue.
    pub(super) fn is(&self, queue: &Arc<Queue>) -> bool {
        Arc::ptr_eq(&self.0, queue)
    }

    /// Whether nobody takes from it any more.
    pub(super) fn is_ended(&self) -> bool {
        self.0.lock().is_none()
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The follower's end.
#[derive(Debug)]
pub(super) struct Taking(Arc<Queue>);

impl Taking {
    /// The next page, when it is there; none once the queue has ended.
    pub(super) async fn next(&self) -> Option<Page> {
        loop {
            if let Some(page) = self.0.lock().as_mut()?.pop_front() {
                self.0.taken.notify_one();
                return Some(page);
            }
            self.0.came.notified().await;
        }
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        self.0.end();
    }
}

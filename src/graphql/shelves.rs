//! The texts of documents that each tenant's clients brought, by their hashes.

use moka::future::Cache;
use moka::policy::EvictionPolicy;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Bytes that all shelves hold together.
const ROOM: u64 = 16 * 1024 * 1024;
/// Bytes that a tenant's shelf holds, each text's own weight among them.
const SHELF: usize = 256 * 1024;
/// What a text takes besides itself.
const WEIGHT: usize = 128;
/// How long a shelf that nobody uses is kept.
const IDLE: Duration = Duration::from_mins(10);

/// The texts that each tenant's clients brought. None drives out another's text: when there is room for no more, the shelf
/// that nobody used for longest goes.
#[derive(Debug)]
pub(super) struct Shelves(Cache<Uuid, Arc<Mutex<Shelf>>>);

#[derive(Debug, Default)]
struct Shelf {
    texts: HashMap<String, (String, Instant)>,
    bytes: usize,
}

impl Default for Shelves {
    fn default() -> Self {
        let weigh = |_: &Uuid, shelf: &Arc<Mutex<Shelf>>| {
            let bytes = lock(shelf).bytes + WEIGHT;
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        Self(
            Cache::builder()
                .weigher(weigh)
                .max_capacity(ROOM)
                .eviction_policy(EvictionPolicy::lru())
                .time_to_idle(IDLE)
                .build(),
        )
    }
}

impl Shelves {
    pub(super) async fn take(&self, tenant: Uuid, hash: &str) -> Option<String> {
        let shelf = self.0.get(&tenant).await?;
        lock(&shelf).take(hash)
    }

    pub(super) async fn put(&self, tenant: Uuid, hash: String, text: String) {
        if text.len() + WEIGHT > SHELF {
            return;
        }
        let shelf = self.0.get_with(tenant, async { Arc::default() }).await;
        lock(&shelf).put(hash, text);
        // Once more, to be weighed.
        self.0.insert(tenant, shelf).await;
    }
}

fn lock(shelf: &Mutex<Shelf>) -> MutexGuard<'_, Shelf> {
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shelf {
    fn take(&mut self, hash: &str) -> Option<String> {
        let (text, used) = self.texts.get_mut(hash)?;
        *used = Instant::now();
        Some(text.clone())
    }

    fn put(&mut self, hash: String, text: String) {
        let weight = text.len() + WEIGHT;
        if self.texts.insert(hash, (text, Instant::now())).is_none() {
            self.bytes += weight;
        }
        while self.bytes > SHELF && self.drop_oldest() {}
    }

    fn drop_oldest(&mut self) -> bool {
        let oldest = self.texts.iter().min_by_key(|(_, (_, used))| *used);
        let Some(hash) = oldest.map(|(hash, _)| hash.clone()) else {
            return false;
        };
        if let Some((text, _)) = self.texts.remove(&hash) {
            self.bytes -= text.len() + WEIGHT;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_tenants_together_have_their_room_and_no_more() {
        let shelves = Shelves::default();
        let text = "x".repeat(SHELF / 2);
        let tenants: Vec<Uuid> = (0..200).map(Uuid::from_u128).collect();
        for tenant in &tenants {
            shelves.put(*tenant, "a".to_owned(), text.clone()).await;
        }
        shelves.0.run_pending_tasks().await;
        let held = shelves.0.weighted_size();
        assert!((ROOM / 2..=ROOM).contains(&held), "{held}");
        assert_eq!(shelves.take(tenants[0], "a").await, None);
        assert_eq!(shelves.take(tenants[199], "a").await, Some(text));
    }
}

//! What a tenant's limits on requests leave, on this server. Tenants without such limits are not counted and cost nothing.

use crate::database::Tenant;
use crate::error::{Error, Result};
use entity::platform::plan::Limit;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use uuid::Uuid;

const MINUTE: Duration = Duration::from_mins(1);
/// Meters kept before those that say nothing are looked for.
const KEPT: usize = 1_000;
/// When a place is free again, nobody knows: ask soon.
const SOON: Duration = Duration::from_secs(1);

/// A meter a tenant, for those that were here within the last minute.
#[derive(Debug, Default)]
pub struct Meters(Mutex<HashMap<Uuid, Meter>>);

#[derive(Debug)]
struct Meter {
    /// Requests that count, as of `at`: each adds one, and the limit's own pace takes them away.
    level: f64,
    at: Instant,
    under_way: u64,
}

impl Meters {
    /// Counts a request in, or refuses it. A tenant without limits on requests has no place to give back.
    pub fn admit(self: &Arc<Self>, tenant: &Tenant, now: Instant) -> Result<Option<Place>> {
        let limits = &tenant.limits;
        let rate = limits.get(Limit::RequestsPerMinute);
        let places = limits.get(Limit::ConcurrentRequests);
        if rate.is_none() && places.is_none() {
            return Ok(None);
        }
        let mut meters = self.lock();
        if meters.len() >= KEPT && !meters.contains_key(&tenant.id) {
            meters.retain(|_, meter| meter.under_way > 0 || now - meter.at < MINUTE);
        }
        let meter = meters.entry(tenant.id).or_insert(Meter {
            level: 0.0,
            at: now,
            under_way: 0,
        });
        if let Some(max) = places.filter(|&max| meter.under_way >= max) {
            let limit = Limit::ConcurrentRequests;
            return Err(Error::Throttled {
                limit,
                max,
                after: SOON,
            });
        }
        match rate {
            Some(max) => meter.count(max, 1, now)?,
            None => meter.level = 0.0,
        }
        meter.at = now;
        meter.under_way += 1;
        Ok(Some(Place(Arc::clone(self), tenant.id)))
    }

    /// Counts `more` for a request that is in: what asks for many things at once is as many requests.
    pub(super) fn charge(&self, tenant: &Tenant, more: u32, now: Instant) -> Result<()> {
        let Some(max) = tenant
            .limits
            .get(Limit::RequestsPerMinute)
            .filter(|_| more > 0)
        else {
            return Ok(());
        };
        // A limit that is new has let the request in without a meter.
        let mut meters = self.lock();
        let Some(meter) = meters.get_mut(&tenant.id) else {
            return Ok(());
        };
        // One that asks for more than a minute's worth has the whole of it.
        let most = u32::try_from(max.saturating_sub(1)).unwrap_or(u32::MAX);
        meter.count(max, more.min(most), now)?;
        meter.at = now;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Meter>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Meter {
    /// So many requests more, if the level has room for them. What is refused does not count.
    fn count(&mut self, max: u64, more: u32, now: Instant) -> Result<()> {
        let limit = Limit::RequestsPerMinute;
        // Such a limit has at most 32 bits.
        let allowed = f64::from(u32::try_from(max).unwrap_or(u32::MAX));
        let minutes = (now - self.at).as_secs_f64() / MINUTE.as_secs_f64();
        let level = (self.level - minutes * allowed).max(0.0);
        let level = level + f64::from(more);
        if level > allowed {
            let after = match max {
                0 => MINUTE,
                _ => MINUTE.mul_f64((level - allowed) / allowed),
            };
            return Err(Error::Throttled { limit, max, after });
        }
        self.level = level;
        Ok(())
    }
}

/// A request's place among those under way; dropped, it is free.
#[derive(Debug)]
pub struct Place(Arc<Meters>, Uuid);

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(meter) = self.0.lock().get_mut(&self.1) {
            meter.under_way = meter.under_way.saturating_sub(1);
        }
    }
}

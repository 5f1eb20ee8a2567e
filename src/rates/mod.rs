//! How fast requests may come, on this server: counted by root fields, for each member, device, address and tenant.

mod client;
mod tenant;

pub use client::{Client, RATELIMIT, RATELIMIT_POLICY, Standing};
pub use tenant::{Meters, Place};

use crate::actor::Actor;
use crate::config::{Env, RateLimits};
use crate::database::Tenant;
use crate::error::{Error, Result};
use axum::http::HeaderValue;
use governor::clock::{Clock as _, MonotonicClock};
use governor::middleware::{StateInformationMiddleware, StateSnapshot};
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How many questions to a limit go by before the keys are looked through for those that say nothing any more.
const TIDY: u32 = 10_000;

/// Who is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Who {
    /// A member or a device.
    Actor(Uuid),
    /// A client's network.
    Address(IpAddr),
}

/// The limits.
#[derive(Debug)]
pub struct Rates {
    enabled: bool,
    members: Rate,
    devices: Rate,
    anonymous: Rate,
    sign_ins: Rate,
    tenants: Arc<Meters>,
}

impl Rates {
    /// Nobody was here yet.
    pub fn new(limits: &RateLimits, env: Env) -> Self {
        let limits = limits.filled(env);
        Self {
            enabled: limits.enabled,
            members: Rate::new("member", limits.member),
            devices: Rate::new("device", limits.device),
            anonymous: Rate::new("anonymous", limits.anonymous),
            sign_ins: Rate::new("sign-in", limits.sign_in),
            tenants: Arc::default(),
        }
    }

    /// Counts a request of any kind to a tenant in, or refuses it. A tenant without limits on requests has no place to give
    /// back.
    pub fn admit(&self, tenant: &Tenant) -> Result<Option<Place>> {
        self.tenants.admit(tenant, Instant::now())
    }

    /// Counts the root fields of an operation, and those of them that try to sign in, or refuses it.
    pub fn operation(
        &self,
        tenant: &Tenant,
        (caller, client): (Option<&Actor>, &Client),
        (fields, sign_ins): (u64, u64),
    ) -> Result<()> {
        if sign_ins > 0 {
            self.sign_in(tenant, client)?;
        }
        let fields = u32::try_from(fields).unwrap_or(u32::MAX);
        let (rate, who) = match caller {
            Some(Actor::Member(id) | Actor::Impersonation { member: id, .. }) => {
                (&self.members, Who::Actor(*id))
            }
            Some(Actor::Device(id)) => (&self.devices, Who::Actor(*id)),
            _ => (&self.anonymous, address(client)),
        };
        if self.enabled {
            rate.count((tenant.id, who), fields, client)?;
        }
        // The request itself was counted when it came.
        let more = fields.saturating_sub(1);
        self.tenants.charge(tenant, more, Instant::now())
    }

    /// Counts a credential that does not work among what nobody asks for from that address, and refuses it for that when
    /// there are too many. One that works is never counted here: others at its address cannot shut it out.
    pub fn credential<T>(&self, tenant: &Tenant, client: &Client, known: Result<T>) -> Result<T> {
        if self.enabled && matches!(known, Err(Error::Unauthenticated(_))) {
            self.anonymous
                .count((tenant.id, address(client)), 1, client)?;
        }
        known
    }

    /// Counts an attempt to sign in, or refuses it.
    pub fn sign_in(&self, tenant: &Tenant, client: &Client) -> Result<()> {
        if !self.enabled {
            return Ok(());
        }
        self.sign_ins.count((tenant.id, address(client)), 1, client)
    }
}

fn address(client: &Client) -> Who {
    Who::Address(client.network())
}

/// One limit: a bucket for each tenant's each.
type Buckets = RateLimiter<
    (Uuid, Who),
    DashMapStateStore<(Uuid, Who)>,
    MonotonicClock,
    StateInformationMiddleware,
>;

#[derive(Debug)]
struct Rate {
    buckets: Buckets,
    /// As many in a minute, and at once.
    max: NonZeroU32,
    name: &'static str,
    policy: HeaderValue,
    asked: AtomicU32,
}

impl Rate {
    fn new(name: &'static str, max: Option<u32>) -> Self {
        let max = max.and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MAX);
        let quota = Quota::per_minute(max);
        let policy = HeaderValue::from_str(&format!("\"{name}\";q={max};w=60"));
        Self {
            buckets: Buckets::new(quota, DashMapStateStore::default(), MonotonicClock),
            max,
            name,
            policy: policy.unwrap_or(HeaderValue::from_static("")),
            asked: AtomicU32::new(0),
        }
    }

    /// Counts, and tells the client where it stands.
    fn count(&self, key: (Uuid, Who), fields: u32, client: &Client) -> Result<()> {
        self.tidy();
        let fields = NonZeroU32::new(fields).unwrap_or(NonZeroU32::MIN);
        let asked = self.buckets.check_key_n(&key, fields);
        let asked = asked.map_err(|_| Error::QueryLimit {
            limit: "rootFields",
            max: self.max.get().into(),
            actual: fields.get().into(),
        })?;
        match asked {
            Ok(state) => {
                let remaining = state.remaining_burst_capacity();
                client.stands(self.standing(remaining, self.full_after(&state)));
                Ok(())
            }
            Err(refused) => {
                let after = refused.wait_time_from(self.buckets.clock().now());
                client.stands(self.standing(0, after));
                Err(Error::RateLimited(after))
            }
        }
    }

    fn standing(&self, remaining: u32, after: Duration) -> Standing {
        Standing {
            policy: self.policy.clone(),
            name: self.name,
            remaining,
            after,
        }
    }

    /// How long until there is room for as many as ever.
    fn full_after(&self, state: &StateSnapshot) -> Duration {
        let used = self.max.get() - state.remaining_burst_capacity().min(self.max.get());
        Duration::from_mins(1).mul_f64(f64::from(used) / f64::from(self.max.get()))
    }

    /// Drops, from time to time, the buckets that are full again: they are like those that never were.
    fn tidy(&self) {
        if self.asked.fetch_add(1, Ordering::Relaxed) % TIDY == TIDY - 1 {
            self.buckets.retain_recent();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_are_gone_are_forgotten() {
        let rate = Rate::new("test", Some(u32::MAX));
        let client = Client::default();
        for n in 0..u128::from(5 * TIDY) {
            let key = (Uuid::nil(), Who::Actor(Uuid::from_u128(n)));
            rate.count(key, 1, &client).unwrap();
        }
        assert!(rate.buckets.len() < 5_000, "{}", rate.buckets.len());
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let who = |text: &str| address(&Client::at(text.parse().unwrap()));
        assert_eq!(who("2001:db8:1:2::3"), who("2001:db8:1:2:ffff::"));
        assert_ne!(who("2001:db8:1:2::3"), who("2001:db8:1:3::3"));
        assert_eq!(who("::ffff:192.0.2.1"), who("192.0.2.1"));
        assert_ne!(who("192.0.2.1"), who("192.0.2.2"));
    }
}

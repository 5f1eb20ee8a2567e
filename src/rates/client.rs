//! Who is at the other end of a request, and what they are told of the limits.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// draft-ietf-httpapi-ratelimit-headers-10 §3 and §4.
pub const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// The same, §4.
pub const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// The other end of a request.
#[derive(Debug)]
pub struct Client {
    /// The peer's address, or what a listed proxy says it is.
    pub address: IpAddr,
    standings: Mutex<Vec<Standing>>,
}

/// Where a client stands with one limit.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The limit, as the header has it.
    pub(super) policy: HeaderValue,
    /// Its name.
    pub(super) name: &'static str,
    /// How many more may come now.
    pub(super) remaining: u32,
    /// When there is room for as many as ever; after a refusal, for what was refused.
    pub(super) after: Duration,
}

impl Default for Client {
    fn default() -> Self {
        Self::at(Ipv6Addr::UNSPECIFIED.into())
    }
}

impl Client {
    /// One at this address.
    pub fn at(address: IpAddr) -> Self {
        Self {
            address,
            standings: Mutex::default(),
        }
    }

    /// Where it is: its address, or of IPv6 the network of 64 bits, for whoever has one address of it has them all.
    pub fn network(&self) -> IpAddr {
        match self.address.to_canonical() {
            IpAddr::V6(address) => {
                let network = address.to_bits() & (u128::MAX << 64);
                Ipv6Addr::from_bits(network).into()
            }
            v4 @ IpAddr::V4(_) => v4,
        }
    }

    pub(super) fn stands(&self, standing: Standing) {
        self.standings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(standing);
    }

    /// Writes the limits that counted the request into its answer's head.
    pub fn tell(&self, headers: &mut HeaderMap) {
        let standings = self.standings.lock();
        for standing in standings.unwrap_or_else(PoisonError::into_inner).iter() {
            let (name, remaining) = (standing.name, standing.remaining);
            let seconds = seconds(standing.after);
            let told = HeaderValue::from_str(&format!("\"{name}\";r={remaining};t={seconds}"));
            if let Ok(told) = told {
                headers.append(RATELIMIT_POLICY, standing.policy.clone());
                headers.append(RATELIMIT, told);
            }
        }
    }
}

fn seconds(after: Duration) -> u64 {
    after.as_secs() + u64::from(after.subsec_nanos() > 0)
}

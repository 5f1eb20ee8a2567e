//! Places for connections that last: so many for each tenant and each credential, on this server; and their end with it.

use crate::caller::Caller;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::rates::Client;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use uuid::Uuid;

/// Sockets at one address that have not said who they are. They have some seconds for it.
const UNKNOWN: u32 = 100;
/// Sockets and streams of a tenant's that are nobody's: what anybody can open takes no place of those who belong there.
const NOBODYS: u32 = 100;
/// When a place is free again, nobody knows.
const AGAIN: Duration = Duration::from_secs(10);

/// All that are open.
#[derive(Debug)]
pub(in crate::http) struct Sockets {
    per_tenant: u32,
    per_credential: u32,
    taken: Mutex<HashMap<Place, u32>>,
    stop: CancellationToken,
    open: TaskTracker,
}

/// Who takes a place.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) enum Who<'a> {
    /// Somebody who has not said it yet.
    Unknown,
    /// Who has no credential.
    Nobody,
    Caller(&'a Caller),
}

impl<'a> Who<'a> {
    /// The caller, or nobody.
    pub(in crate::http) fn of(caller: Option<&'a Caller>) -> Self {
        caller.map_or(Self::Nobody, Self::Caller)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Place {
    Unknown(Uuid),
    UnknownAt(Uuid, IpAddr),
    Nobodys(Uuid),
    NobodysAt(Uuid, IpAddr),
    Tenant(Uuid),
    Credential(Uuid, Uuid),
}

/// The places of one connection; dropped, they are free.
#[derive(Debug)]
pub(in crate::http) struct Seat {
    sockets: Arc<Sockets>,
    tenant: Uuid,
    network: IpAddr,
    places: Vec<Place>,
    _open: TaskTrackerToken,
}

impl Sockets {
    pub(in crate::http) fn new(config: &Config) -> Self {
        Self {
            per_tenant: config.sockets_per_tenant,
            per_credential: config.sockets_per_credential,
            taken: Mutex::default(),
            stop: CancellationToken::new(),
            open: TaskTracker::new(),
        }
    }

    /// A place at a tenant's, for a client of whom so much is known.
    pub(in crate::http) fn enter(
        self: &Arc<Self>,
        tenant: Uuid,
        client: &Client,
        who: Who<'_>,
    ) -> Result<Seat> {
        let mut seat = Seat {
            sockets: Arc::clone(self),
            tenant,
            network: client.network(),
            places: Vec::new(),
            _open: self.open.token(),
        };
        seat.settle(who)?;
        Ok(seat)
    }

    /// Asks all to go.
    pub(in crate::http) fn stop(&self) {
        self.stop.cancel();
        self.open.close();
    }

    /// Returns once they were asked to go.
    pub(in crate::http) async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    /// Returns once they were asked to go and are gone.
    pub(in crate::http) async fn gone(&self) {
        self.open.wait().await;
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<Place, u32>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Moves to the places of who it is.
    pub(in crate::http) fn settle(&mut self, who: Who<'_>) -> Result<()> {
        let wanted = self.wanted(who);
        let mut taken = self.sockets.taken();
        leave(&mut taken, &mut self.places);
        for (place, most) in wanted {
            let count = taken.entry(place).or_default();
            if *count >= most {
                return Err(Error::RateLimited(AGAIN));
            }
            *count += 1;
            self.places.push(place);
        }
        Ok(())
    }

    /// Its places, and how many there are of each. What an address may have without a credential is what one with a
    /// credential may have.
    fn wanted(&self, who: Who<'_>) -> [(Place, u32); 2] {
        let (tenant, network) = (self.tenant, self.network);
        let Sockets {
            per_tenant,
            per_credential,
            ..
        } = *self.sockets;
        match who {
            Who::Unknown => [
                (Place::UnknownAt(tenant, network), UNKNOWN),
                (Place::Unknown(tenant), per_tenant.max(UNKNOWN)),
            ],
            Who::Nobody => [
                (Place::NobodysAt(tenant, network), per_credential),
                (Place::Nobodys(tenant), NOBODYS),
            ],
            Who::Caller(caller) => [
                (
                    Place::Credential(tenant, caller.credential_id),
                    per_credential,
                ),
                (Place::Tenant(tenant), per_tenant),
            ],
        }
    }
}

fn leave(taken: &mut HashMap<Place, u32>, places: &mut Vec<Place>) {
    for place in places.drain(..) {
        if let Some(count) = taken.get_mut(&place) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&place);
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        leave(&mut self.sockets.taken(), &mut self.places);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actor::Actor;
    use crate::clock::Clock;

    const TENANT: Uuid = Uuid::from_u128(1);

    fn sockets() -> Arc<Sockets> {
        Arc::new(Sockets::new(&Config {
            sockets_per_tenant: 3,
            sockets_per_credential: 2,
            ..Config::default()
        }))
    }

    fn caller(id: u128) -> Caller {
        Caller {
            actor: Actor::Member(Uuid::from_u128(id)),
            permissions: Vec::new(),
            expires_at: Clock::default().now(),
            credential_id: Uuid::from_u128(id),
        }
    }

    fn client(number: u32) -> Client {
        Client::at(std::net::Ipv4Addr::from_bits(number).into())
    }

    #[test]
    fn places_are_taken_and_given_back() {
        let sockets = sockets();
        let seat = |tenant, id| {
            let mut seat = sockets.enter(tenant, &client(1), Who::Unknown)?;
            seat.settle(Who::Caller(&caller(id))).map(|()| seat)
        };
        let mut first = seat(TENANT, 7).unwrap();
        let second = seat(TENANT, 7).unwrap();
        assert!(seat(TENANT, 7).is_err(), "of one credential");
        first.settle(Who::Caller(&caller(7))).unwrap();
        let third = seat(TENANT, 8).unwrap();
        assert!(seat(TENANT, 9).is_err(), "of one tenant");
        assert!(seat(Uuid::from_u128(2), 7).is_ok());
        drop(first);
        assert!(seat(TENANT, 9).is_ok());
        drop((second, third));
        assert!(sockets.taken().is_empty());
    }

    #[test]
    fn who_says_nothing_and_who_is_nobody_are_few_at_one_address() {
        let (sockets, member) = (sockets(), caller(7));
        let enter = |address, who| sockets.enter(TENANT, &client(address), who);
        let unknown: Vec<_> = (0..UNKNOWN)
            .map(|_| enter(1, Who::Unknown).unwrap())
            .collect();
        assert!(enter(1, Who::Unknown).is_err(), "of one address");
        assert!(enter(1, Who::Caller(&member)).is_ok());
        drop(unknown);
        let nobodys: Vec<_> = (0..NOBODYS)
            .map(|number| enter(number / 2, Who::Nobody).unwrap())
            .collect();
        assert!(enter(NOBODYS, Who::Nobody).is_err(), "of one tenant");
        assert!(enter(1, Who::Unknown).is_ok());
        drop(nobodys);
        let mut seat = enter(1, Who::Unknown).unwrap();
        seat.settle(Who::Nobody).unwrap();
        let second = enter(1, Who::Nobody).unwrap();
        assert!(enter(1, Who::Nobody).is_err(), "of one address");
        drop((seat, second));
        assert!(sockets.taken().is_empty());
    }
}

//! Who is at the other end of a connection that lasts, and how long they may be.

use crate::caller::Caller;
use crate::database::Tenant;
use crate::error::{Denial, Error, Result};
use crate::graphql::Calling;
use crate::history;
use crate::resources;
use crate::services::Services;
use entity::platform::tenant::State;
use futures::stream::{self, BoxStream, StreamExt as _};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tokio::time::interval;

/// How often tenant and expiry are looked at. Both are in memory.
const LOOK: Duration = Duration::from_secs(1);

/// How often the credential is looked up, whether or not a change says so.
const LOOK_UP: Duration = Duration::from_secs(30);

/// A tenant, and a caller unless they are anonymous.
pub(super) struct Standing {
    services: Arc<Services>,
    tenant: Arc<Tenant>,
    token: Option<String>,
    /// Kept up to date, for all that they follow.
    calling: Calling,
    changes: BoxStream<'static, Result<Arc<history::Row>>>,
}

/// Why it is over.
#[derive(Debug)]
pub(super) enum Ended {
    /// The credential works no longer.
    Credential(Error),
    /// The tenant is not served any more.
    Tenant(Error),
    /// The tenant's role has another login now: a new connection finds it.
    Moved,
}

impl Standing {
    /// Looks the caller up, after their changes are followed: so none comes between the two.
    pub(super) async fn begin(
        services: Arc<Services>,
        tenant: Arc<Tenant>,
        token: Option<String>,
    ) -> Result<Self> {
        let mut standing = Self {
            services,
            tenant,
            token,
            calling: Calling::default(),
            changes: stream::pending().boxed(),
        };
        if standing.token.is_some() {
            standing.follow().await?;
            standing.look_up().await?;
        }
        Ok(standing)
    }

    /// Who it is, now and later.
    pub(super) fn calling(&self) -> &Calling {
        &self.calling
    }

    /// Who it is now.
    pub(super) fn caller(&self) -> Option<Arc<Caller>> {
        let caller = self.calling.read();
        caller.unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn follow(&mut self) -> Result<()> {
        let changes = self.services.feeds.changes(&self.tenant).await?;
        self.changes = changes.boxed();
        Ok(())
    }

    async fn look_up(&mut self) -> Result<()> {
        let Some(token) = &self.token else {
            return Ok(());
        };
        let caller = resources::caller_now(&self.services, &self.tenant, token).await?;
        let mut calling = self.calling.write().unwrap_or_else(PoisonError::into_inner);
        *calling = Some(Arc::new(caller));
        Ok(())
    }

    /// Returns when they may not be here any more.
    pub(super) async fn ended(mut self) -> Ended {
        let mut looks = interval(LOOK);
        let (mut stale, mut lost) = (false, false);
        let mut looked_up = Instant::now();
        loop {
            tokio::select! {
                change = self.changes.next() => match change {
                    Some(Ok(change)) => {
                        let caller = self.caller();
                        stale |= caller.is_some_and(|caller| resources::concerns(&change, &caller));
                    }
                    // More was changed than could be told: anything may have.
                    Some(Err(_)) | None => {
                        (stale, lost) = (true, true);
                        self.changes = stream::pending().boxed();
                    }
                },
                _ = looks.tick() => {}
            }
            if stale || looked_up.elapsed() > LOOK_UP {
                looked_up = Instant::now();
                match self.refresh(&mut lost).await {
                    Ok(()) => stale = false,
                    Err(error @ Error::Unauthenticated(_)) => return Ended::Credential(error),
                    // Whoever cannot be looked up now is at the next look.
                    Err(error) => tracing::debug!(?error, "cannot look a caller up"),
                }
            }
            if let Some(ended) = self.look().await {
                return ended;
            }
        }
    }

    async fn refresh(&mut self, lost: &mut bool) -> Result<()> {
        if *lost {
            self.follow().await?;
            *lost = false;
        }
        self.look_up().await
    }

    async fn look(&mut self) -> Option<Ended> {
        let caller = self.caller();
        let now = self.services.database.clock().now();
        if caller
            .as_ref()
            .is_some_and(|caller| caller.expires_at <= now)
        {
            let expired = Error::Unauthenticated(Denial::TokenExpired);
            return Some(Ended::Credential(expired));
        }
        let gone = match self.services.registry.get(self.tenant.id).await {
            Ok(tenant) if tenant.state == State::Active => {
                let moved = tenant.cell_id != self.tenant.cell_id;
                return moved.then_some(Ended::Moved);
            }
            // Told to its own people alone.
            Ok(tenant) if tenant.state == State::Suspended && caller.is_some() => {
                Error::TenantSuspended
            }
            Ok(_) => Error::TenantNotFound,
            Err(error @ (Error::TenantNotFound | Error::TenantUpgrading)) => error,
            Err(_) => return None,
        };
        Some(Ended::Tenant(gone))
    }
}

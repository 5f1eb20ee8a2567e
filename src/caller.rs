//! Who is calling, and for how long we remember it.

use crate::actor::Actor;
use crate::clock::Timestamp;
use crate::error::{Denial, Error, Result};
use crate::permission::Permission;
use moka::future::Cache;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// How long a token's answer is kept: so long may a revocation on another server go unseen. One on this server holds at
/// once.
const FRESH: Duration = Duration::from_secs(3);
/// Callers kept at most, over all tenants.
const KEPT: u64 = 20_000;

/// Somebody with a credential.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who.
    pub actor: Actor,
    /// What they may do.
    pub permissions: Vec<Permission>,
    /// When the credential stops working.
    pub expires_at: Timestamp,
    /// The row of the credential: a session or a device's token.
    pub credential_id: Uuid,
}

impl Caller {
    /// Refuses if the permission is lacking.
    pub fn require(&self, permission: Permission) -> Result<()> {
        if self.permissions.contains(&permission) {
            Ok(())
        } else {
            Err(Error::Forbidden(permission.as_str()))
        }
    }
}

/// Callers by tenant and token. The tenant is part of the key: a token is worth nothing at another host.
#[derive(Clone, Debug)]
pub struct Callers(Cache<(Uuid, String), Arc<Caller>>);

impl Default for Callers {
    fn default() -> Self {
        Self(
            Cache::builder()
                .max_capacity(KEPT)
                .time_to_live(FRESH)
                .build(),
        )
    }
}

impl Callers {
    /// The caller of a token's hash, looked up by `authenticate` if not known. Refusals are not kept.
    pub async fn get(
        &self,
        tenant: Uuid,
        token_hash: String,
        now: Timestamp,
        authenticate: impl Future<Output = Result<Caller>>,
    ) -> Result<Arc<Caller>> {
        let key = (tenant, token_hash);
        let caller = match self.0.get(&key).await {
            Some(caller) => caller,
            None => {
                let caller = Arc::new(authenticate.await?);
                self.0.insert(key, Arc::clone(&caller)).await;
                caller
            }
        };
        if caller.expires_at <= now {
            return Err(Error::Unauthenticated(Denial::TokenExpired));
        }
        Ok(caller)
    }

    /// Forgets the callers of a tenant, because a credential, role or device of it changed.
    pub async fn forget(&self, tenant: Uuid) {
        let keys: Vec<_> = self
            .0
            .iter()
            .filter(|(key, _)| key.0 == tenant)
            .map(|(key, _)| key)
            .collect();
        for key in keys {
            self.0.invalidate(key.as_ref()).await;
        }
    }
}

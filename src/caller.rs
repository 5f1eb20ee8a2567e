//! Who is calling, and for how long we remember it.

use crate::actor::Actor;
use crate::clock::Timestamp;
use crate::error::{Denial, Error, Result};
use crate::permission::Permission;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use moka::future::Cache;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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

/// Callers by tenant and token. The tenant is part of the key: a token is worth nothing at another host. So is the tenant's
/// epoch, which a revocation moves on: an answer that was looked up before it is never given after it.
#[derive(Clone, Debug)]
pub struct Callers {
    known: Cache<(Uuid, u64, String), Arc<Caller>>,
    epochs: Arc<Mutex<HashMap<Uuid, u64>>>,
}

impl Default for Callers {
    fn default() -> Self {
        Self {
            known: Cache::builder()
                .max_capacity(KEPT)
                .time_to_live(FRESH)
                .build(),
            epochs: Arc::default(),
        }
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
        let epoch = self.epochs().get(&tenant).copied().unwrap_or_default();
        let key = (tenant, epoch, token_hash);
        let caller = match self.known.get(&key).await {
            Some(caller) => caller,
            None => {
                let caller = Arc::new(authenticate.await?);
                self.known.insert(key, Arc::clone(&caller)).await;
                caller
            }
        };
        if caller.expires_at <= now {
            return Err(Error::Unauthenticated(Denial::TokenExpired));
        }
        Ok(caller)
    }

    /// Forgets the callers of a tenant, because a credential, role or device of it changed.
    pub fn forget(&self, tenant: Uuid) {
        *self.epochs().entry(tenant).or_default() += 1;
    }

    fn epochs(&self) -> MutexGuard<'_, HashMap<Uuid, u64>> {
        self.epochs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The token of `Authorization: Bearer …` (RFC 6750 §2.1). What is there but no bearer token is refused, not taken for
/// nobody.
pub fn bearer(headers: &HeaderMap) -> Result<Option<&str>> {
    let Some(value) = headers.get(AUTHORIZATION) else {
        return Ok(None);
    };
    let value = value.to_str().unwrap_or_default();
    bearer_token(value).map(Some)
}

/// The token of a text such as that header has.
pub fn bearer_token(value: &str) -> Result<&str> {
    value
        .split_once(' ')
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .ok_or(Error::Unauthenticated(Denial::NoCredential))
}

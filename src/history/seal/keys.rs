//! The keys of the chain: none of them is in the database.

use crate::config::Config;
use crate::error::Result;
use crate::secret::{SecretKey, hex};
use secrecy::ExposeSecret as _;
use std::sync::Arc;

/// What seals, and what was sealed with before and still proves it.
#[derive(Clone, Debug)]
pub struct Keys(Arc<[Key]>);

/// One key, and the name that seals know it by.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) id: String,
    secret: SecretKey,
}

impl Keys {
    /// `audit_keys` of the configuration, the first of which seals, and after them the instance's own, which seals where there
    /// are none.
    pub fn of(config: &Config, own: &SecretKey) -> Result<Self> {
        let listed = config.audit_keys.iter();
        let listed = listed.map(|key| SecretKey::new(key.expose_secret()));
        let keys = listed.chain([Ok(own.clone())]);
        Ok(Self(
            keys.map(|key| key.map(Key::new)).collect::<Result<_>>()?,
        ))
    }

    /// The one that seals.
    pub(super) fn sealing(&self) -> &Key {
        &self.0[0]
    }

    /// The one of this name.
    pub(super) fn named(&self, id: &str) -> Option<&Key> {
        self.0.iter().find(|key| key.id == id)
    }
}

impl Key {
    fn new(secret: SecretKey) -> Self {
        Self {
            id: hex(&secret.mac("history key", &[])[..8]),
            secret,
        }
    }

    /// For one purpose, of these parts.
    pub(super) fn mac(&self, purpose: &str, parts: &[&[u8]]) -> [u8; 32] {
        self.secret.mac(purpose, parts)
    }
}

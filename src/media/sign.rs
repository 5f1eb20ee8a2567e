//! Signed links of our own, for stores that cannot sign: HMAC-SHA256 over method, host, key and expiry, good for one object
//! and one method.

use super::store::Key;
use crate::clock::Timestamp;
use crate::error::{Denial, Error, Result};
use crate::secret::{SecretKey, equal, hex};
use serde::Deserialize;

/// Which of the instance's keys signed; there is one so far.
const KEY_ID: &str = "1";

/// What a link allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// To read the object.
    Get,
    /// To write it, once.
    Put,
}

/// The query of a signed link.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    expires: i64,
    kid: String,
    sig: String,
}

/// The query that makes the path of `key` a link, at `host`, until `expires`.
pub fn sign(
    secret: &SecretKey,
    method: Method,
    host: &str,
    key: &Key,
    expires: Timestamp,
) -> String {
    let expires = expires.timestamp();
    let sig = mac(secret, method, host, key, expires);
    format!("expires={expires}&kid={KEY_ID}&sig={sig}")
}

/// Whether the link is ours and in time.
pub fn verify(
    secret: &SecretKey,
    method: Method,
    host: &str,
    key: &Key,
    (signature, now): (&Signature, Timestamp),
) -> Result<()> {
    let wanted = mac(secret, method, host, key, signature.expires);
    if signature.kid != KEY_ID || !equal(wanted.as_bytes(), signature.sig.as_bytes()) {
        return Err(Error::Unauthenticated(Denial::InvalidCredentials));
    }
    if signature.expires <= now.timestamp() {
        return Err(Error::Expired("link"));
    }
    Ok(())
}

fn mac(secret: &SecretKey, method: Method, host: &str, key: &Key, expires: i64) -> String {
    let method = match method {
        Method::Get => "GET",
        Method::Put => "PUT",
    };
    let parts = [
        method.as_bytes(),
        host.as_bytes(),
        key.as_str().as_bytes(),
        &expires.to_be_bytes(),
    ];
    hex(&secret.mac("media link", &parts))
}

//! Secrets: the instance's key, random tokens, and hashing on a bounded pool. No secret leaves here in a `Debug`.

use crate::error::{Error, Result};
use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Blocks of 1 KiB that the memory of a hash is asked for with, at least. glibc gives back at once what is larger than
/// 32 MiB, and keeps what is smaller: an idle server had up to 146 MB. What is not used is never touched and costs nothing.
const RETURNED: usize = 33 * 1024;
/// How long a sign-in waits for its turn to hash before it is refused.
const SLOT_TIMEOUT: Duration = Duration::from_secs(10);

/// The key that everything the instance signs is derived from, by purpose.
#[derive(Clone)]
pub struct SecretKey(Arc<[u8]>);

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretKey(…)")
    }
}

impl SecretKey {
    /// At least 32 bytes of text; refused when shorter.
    pub fn new(text: &str) -> Result<Self> {
        if text.len() < 32 {
            return Err(Error::config(
                "BULKHEAD_SECRET_KEY needs at least 32 characters; make one with: openssl rand -hex 32",
            ));
        }
        Ok(Self(text.as_bytes().into()))
    }

    /// HMAC-SHA256 of the parts, each preceded by its length, for one purpose: no two uses share a message.
    pub fn mac(&self, purpose: &str, parts: &[&[u8]]) -> [u8; 32] {
        #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("any length");
        for part in std::iter::once(&purpose.as_bytes()).chain(parts) {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

/// Encrypts, for whoever has the key; `about` is what it belongs to, and has to be the same when it is opened.
pub fn seal(key: &[u8; 32], about: &[u8], mut text: Vec<u8>) -> Result<Vec<u8>> {
    let nonce: [u8; NONCE_LEN] = rand::random();
    cipher(key)?
        .seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(about),
            &mut text,
        )
        .map_err(|_| Error::internal("this is too long to be encrypted"))?;
    text.extend(nonce);
    Ok(text)
}

/// The text that was sealed, if key and `about` are the same.
pub fn open(key: &[u8; 32], about: &[u8], mut sealed: Vec<u8>) -> Result<Vec<u8>> {
    let refused = || Error::internal("this was sealed with another key, or is damaged");
    let length = sealed.len().checked_sub(NONCE_LEN).ok_or_else(refused)?;
    let nonce = Nonce::try_assume_unique_for_key(&sealed.split_off(length));
    let nonce = nonce.map_err(|_| refused())?;
    let opened = cipher(key)?.open_in_place(nonce, Aad::from(about), &mut sealed);
    let length = opened.map_err(|_| refused())?.len();
    sealed.truncate(length);
    Ok(sealed)
}

fn cipher(key: &[u8; 32]) -> Result<LessSafeKey> {
    let key = UnboundKey::new(&CHACHA20_POLY1305, key);
    let key = key.map_err(|_| Error::internal("a key has 32 bytes"))?;
    Ok(LessSafeKey::new(key))
}

/// Chooses the crypto of TLS, for the whole process; to be called before a client is built.
pub fn ensure_tls() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // An error means that another thread was faster.
        drop(rustls::crypto::ring::default_provider().install_default());
    }
}

/// A random token of 256 bits with a prefix to recognise it by.
pub fn new_token(prefix: &str) -> String {
    token_from(prefix, rand::random())
}

/// The token of these 32 bytes.
pub fn token_from(prefix: &str, bytes: [u8; 32]) -> String {
    format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes))
}

/// What is stored of a token: its SHA-256 in hexadecimal. Enough for 256 random bits.
pub fn token_hash(token: &str) -> String {
    hex(&Sha256::digest(token.as_bytes()))
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing into a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// Compares in constant time.
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// A random PIN of eight digits.
pub fn new_pin() -> String {
    format!("{:08}", rand::random_range(0..100_000_000_u32))
}

/// argon2id (m = 19 MiB, t = 2, p = 1: OWASP's minimum) on at most as many threads as there are cores, so that a burst of
/// sign-ins neither exhausts memory nor stops the server.
#[derive(Clone, Debug)]
pub struct Hasher {
    permits: Arc<Semaphore>,
    /// The hash of nothing anybody knows: verified against when there is no row, so that the answer takes as long.
    decoy: Arc<str>,
}

impl Hasher {
    /// A pool of `threads`.
    pub fn new(threads: usize) -> Result<Self> {
        Ok(Self {
            permits: Arc::new(Semaphore::new(threads)),
            decoy: hash(&new_token(""))?.into(),
        })
    }

    /// Waits for a free thread. Taken before the unit of work begins, so that nobody queues here with a connection in hand.
    pub async fn slot(&self) -> Result<HashSlot> {
        let permit = timeout(SLOT_TIMEOUT, Arc::clone(&self.permits).acquire_owned()).await;
        Ok(HashSlot {
            decoy: Arc::clone(&self.decoy),
            _permit: permit
                .ok()
                .and_then(std::result::Result::ok)
                .ok_or(Error::Unavailable)?,
        })
    }
}

/// The right to hash or verify once.
#[derive(Debug)]
pub struct HashSlot {
    decoy: Arc<str>,
    _permit: tokio::sync::OwnedSemaphorePermit,
}

impl HashSlot {
    /// Hashes a password or PIN to a PHC string.
    pub async fn hash(self, password: &str) -> Result<String> {
        let password = password.to_owned();
        // The slot moves into the thread: it is given back when the work ends, not when a caller stops waiting.
        tokio::task::spawn_blocking(move || {
            let _slot = self;
            hash(&password)
        })
        .await
        .map_err(Error::internal)?
    }

    /// Whether the password matches; without a stored hash, or with an empty one, it takes as long and never does.
    pub async fn verify(self, password: &str, stored: Option<&str>) -> Result<bool> {
        let password = password.to_owned();
        let stored = stored.filter(|stored| !stored.is_empty());
        let known = stored.is_some();
        let stored = stored.unwrap_or(&self.decoy).to_owned();
        tokio::task::spawn_blocking(move || {
            let _slot = self;
            let matches = matches(&password, &stored)?;
            Ok(matches && known)
        })
        .await
        .map_err(Error::internal)?
    }
}

/// A PHC string of the password, with a new salt.
fn hash(password: &str) -> Result<String> {
    let salt: [u8; 16] = rand::random();
    let params = Params::default();
    let out = derive(password, &salt, &params)?;
    let hash = PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(&params).map_err(Error::internal)?,
        salt: Some(Salt::new(&salt).map_err(Error::internal)?),
        hash: Some(Output::new(&out).map_err(Error::internal)?),
    };
    Ok(hash.to_string())
}

/// Whether it is the password of a PHC string, with the parameters that the string names.
fn matches(password: &str, stored: &str) -> Result<bool> {
    let stored = PasswordHash::new(stored).map_err(Error::internal)?;
    let (Some(salt), Some(wanted)) = (&stored.salt, &stored.hash) else {
        return Err(Error::internal("a stored hash lacks its salt or itself"));
    };
    let params = Params::try_from(&stored).map_err(Error::internal)?;
    let out = derive(password, salt.as_ref(), &params)?;
    Ok(equal(&out, wanted.as_ref()))
}

fn derive(password: &str, salt: &[u8], params: &Params) -> Result<[u8; 32]> {
    let blocks = params.block_count();
    let mut memory = Vec::with_capacity(blocks.max(RETURNED));
    memory.resize(blocks, Block::default());
    let mut out = [0; 32];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone())
        .hash_password_into_with_memory(password.as_bytes(), salt, &mut out, &mut memory[..])
        .map_err(Error::internal)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};

    #[test]
    fn only_the_key_opens_what_was_sealed() {
        let key = [7; 32];
        let sealed = seal(&key, b"a device", b"49381706".to_vec()).unwrap();
        assert_ne!(
            sealed,
            seal(&key, b"a device", b"49381706".to_vec()).unwrap()
        );
        let opened = open(&key, b"a device", sealed.clone()).unwrap();
        assert_eq!(opened, b"49381706");
        assert!(open(&[8; 32], b"a device", sealed.clone()).is_err());
        assert!(open(&key, b"another", sealed.clone()).is_err());
        for at in [0, sealed.len() - 1] {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert!(open(&key, b"a device", damaged).is_err());
        }
        assert!(open(&key, b"a device", Vec::new()).is_err());
    }

    #[test]
    fn hashes_are_what_the_library_makes_and_takes() {
        let ours = PasswordHash::new(&hash("correct horse").unwrap()).unwrap();
        let library = Argon2::default();
        assert!(library.verify_password(b"correct horse", &ours).is_ok());
        assert!(library.verify_password(b"correct house", &ours).is_err());
        let theirs = library.hash_password(b"correct horse").unwrap().to_string();
        assert!(matches("correct horse", &theirs).unwrap());
        assert!(!matches("correct house", &theirs).unwrap());
        assert!(
            theirs.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{theirs}"
        );
    }
}

//! What PostgreSQL keeps of the passwords of the cells' logins.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

/// The verifier (SCRAM-SHA-256: RFC 5802 and 7677) of a password that is derived from the instance's key, so that the password
/// itself is in no statement and no log. It is stretched once, and not 4,096 times as PostgreSQL does for people's: it is as hard to
/// guess as the key, which every signed link lets anybody try as cheaply, and whoever connects pays for it each time.
pub(super) fn verifier(password: &str) -> String {
    let salt: [u8; 16] = rand::random();
    let salted = mac(
        password.as_bytes(),
        &[&salt[..], &1_u32.to_be_bytes()].concat(),
    );
    let stored = Sha256::digest(mac(&salted, b"Client Key"));
    let server = mac(&salted, b"Server Key");
    let [salt, stored, server] = [&salt[..], &stored, &server].map(|bytes| STANDARD.encode(bytes));
    format!("SCRAM-SHA-256$1:{salt}${stored}:{server}")
}

fn mac(key: &[u8], message: &[u8]) -> [u8; 32] {
    #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

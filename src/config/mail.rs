//! How mail is sent.

use super::masked;
use crate::error::{Error, Result};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

/// The server that takes mail. `[mail]` in the file, `BULKHEAD_MAIL__HOST` in the environment. Without a host mail is logged, and
/// not sent.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct MailSettings {
    /// Its name.
    pub host: Option<String>,
    /// Its port: 587 unless set, 465 with `tls = "implicit"`, 25 with `tls = "none"`.
    pub port: Option<u16>,
    /// `starttls`, `implicit` or `none`.
    pub tls: MailTls,
    /// Whom mail is from, such as `Bulkhead <noreply@example.com>`.
    pub from: Option<String>,
    /// Whom the server knows us as.
    pub username: Option<String>,
    /// And by what.
    #[serde(serialize_with = "masked")]
    pub password: Option<SecretString>,
}

/// How the way to the server is kept private.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MailTls {
    /// TLS is begun on a plain connection, and required (RFC 3207).
    #[default]
    Starttls,
    /// TLS from the first byte on (RFC 8314).
    Implicit,
    /// Not at all: for a server on this machine.
    None,
}

impl MailSettings {
    /// The server's port.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(match self.tls {
            MailTls::Starttls => 587,
            MailTls::Implicit => 465,
            MailTls::None => 25,
        })
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.host.is_some() && self.from.is_none() {
            return Err(Error::config(
                "mail.host needs mail.from: whom mail is from",
            ));
        }
        if self.username.is_some() != self.password.is_some() {
            return Err(Error::config(
                "mail.username and mail.password go together: set both or none",
            ));
        }
        if self.username.is_some() && self.tls == MailTls::None {
            return Err(Error::config(
                "mail.password would be sent as it is: set mail.tls to starttls or implicit",
            ));
        }
        Ok(())
    }
}

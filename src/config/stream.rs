//! Where operators collect the trails of all tenants.

use crate::error::{Error, Result};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Where every sealed entry of every tenant is sent, as a JSON line: to a file or to a URL; nowhere unless set.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditStream {
    /// A file that lines are appended to.
    pub file: Option<PathBuf>,
    /// A URL that takes them by POST, several at a time, as `application/x-ndjson`.
    pub url: Option<String>,
    /// Sent there as `Authorization: Bearer …`.
    #[serde(serialize_with = "super::masked")]
    pub token: Option<SecretString>,
}

impl AuditStream {
    pub(super) fn check(&self) -> Result<()> {
        if self.file.is_some() && self.url.is_some() {
            return Err(Error::config(
                "audit_stream goes to one place: set its file or its url, not both",
            ));
        }
        let web = |url: &String| url.starts_with("https://") || url.starts_with("http://");
        if !self.url.as_ref().is_none_or(web) {
            return Err(Error::config(
                "audit_stream.url begins with https:// or http://",
            ));
        }
        if self.token.is_some() && self.url.is_none() {
            return Err(Error::config("audit_stream.token is for a url: set one"));
        }
        Ok(())
    }
}

//! What one connection may take, and which pages elsewhere may use the API.

use super::Config;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Limits on connections. `[http_limits]` in the file, `BULKHEAD_HTTP_LIMITS__CONNECTIONS` in the environment.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpLimits {
    /// Connections that are served at once; further ones wait until one of them ends.
    pub connections: u32,
    /// Seconds within which the head of a request must have come, from its first byte on.
    pub header_seconds: u32,
    /// Seconds after which a connection without a request is closed: more than a proxy in front keeps it for.
    pub idle_seconds: u32,
    /// Seconds within which the body of a request must have come, of an upload the next part of it; and within which a client
    /// must have made room for the next part of an answer.
    pub body_seconds: u32,
    /// Seconds within which who follows something must have made room for the next message.
    pub slow_seconds: u32,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            header_seconds: 30,
            idle_seconds: 75,
            body_seconds: 60,
            slow_seconds: 10,
        }
    }
}

impl HttpLimits {
    /// How long the head of a request may take.
    pub fn header_time(&self) -> Duration {
        Duration::from_secs(self.header_seconds.into())
    }

    /// How long a connection may be idle.
    pub fn idle_time(&self) -> Duration {
        Duration::from_secs(self.idle_seconds.into())
    }

    /// How long its body may take, and the next part of its answer.
    pub fn body_time(&self) -> Duration {
        Duration::from_secs(self.body_seconds.into())
    }

    /// How long the next message of what is followed may take.
    pub fn slow_time(&self) -> Duration {
        Duration::from_secs(self.slow_seconds.into())
    }

    pub(super) fn check(&self) -> Result<()> {
        let all = [
            self.connections,
            self.header_seconds,
            self.idle_seconds,
            self.body_seconds,
            self.slow_seconds,
        ];
        if all.contains(&0) {
            return Err(Error::config("http_limits must be at least 1"));
        }
        Ok(())
    }
}

/// An origin is a scheme, a host and perhaps a port, as browsers write it; `*` stands for all, and never with credentials.
pub(super) fn check_origins(config: &Config) -> Result<()> {
    let origins = &config.allowed_origins;
    if origins.iter().any(|origin| origin == "*") {
        if origins.len() > 1 || config.cors_credentials {
            return Err(Error::config(
                "allowed_origins = * stands alone, and never with cors_credentials: name the origins",
            ));
        }
        return Ok(());
    }
    match origins.iter().find(|origin| !is_origin(origin)) {
        Some(origin) => Err(Error::config(format!(
            "allowed_origins: {origin:?} is no origin such as https://app.example.com"
        ))),
        None => Ok(()),
    }
}

fn is_origin(text: &str) -> bool {
    let Ok(uri) = text.parse::<axum::http::Uri>() else {
        return false;
    };
    let (scheme, authority) = (uri.scheme_str(), uri.authority());
    matches!(scheme, Some("http" | "https"))
        && authority.is_some_and(|authority| {
            !authority.as_str().contains('@')
                && text == format!("{}://{authority}", scheme.unwrap_or_default())
                && text == text.to_ascii_lowercase()
        })
}

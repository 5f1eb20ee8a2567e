//! Configuration: one reader of file, environment and flags, later ones first. Nothing else reads the environment.

use crate::error::{Error, Result};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Everything that can be set. A key is set by `key = …` in `bulkhead.toml`, by `BULKHEAD_KEY` in the environment, or by a
/// flag where a command has one. Unknown keys are refused.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `development` or `production`: production refuses `dev`, and serves neither playground nor introspection.
    pub env: Env,
    /// Address that tenants are served at.
    pub http: SocketAddr,
    /// Domains whose subdomains are tenants.
    #[serde(deserialize_with = "listed")]
    pub base_domains: Vec<String>,
    /// How the outside reaches us, for links: `http` or `https`.
    pub scheme: Scheme,
    /// Private data: the managed PostgreSQL, media on disk, the key. `.bulkhead` unless set.
    pub data_dir: PathBuf,
    /// PostgreSQL to use (also `DATABASE_URL`); without it, a private one is run. Its role needs CREATE and CREATEROLE.
    #[serde(serialize_with = "masked")]
    pub database_url: Option<SecretString>,
    /// Connections, over all tenants.
    pub max_connections: u32,
    /// Milliseconds that a statement may take.
    pub statement_timeout_ms: u32,
    /// Directory of PostgreSQL's server binaries, where they are not found by themselves.
    pub pg_bin: Option<PathBuf>,
    /// Where PostgreSQL is fetched from if it is not installed.
    pub pg_releases_url: Option<String>,
    /// What all signatures are derived from: 32 characters or more, the same on every server.
    #[serde(serialize_with = "masked")]
    pub secret_key: Option<SecretString>,
    /// Where media are kept: `azure://<container>`, or a directory; `<data_dir>/media` unless set.
    pub media_url: Option<String>,
    /// Azure storage account.
    pub media_azure_account: Option<String>,
    /// Its key.
    #[serde(serialize_with = "masked")]
    pub media_azure_key: Option<SecretString>,
    /// Its endpoint, where it is not Azure's own (Azurite).
    pub media_azure_endpoint: Option<String>,
    /// Bytes that a media may have.
    pub media_max_bytes: u64,
    /// Days that a session lasts.
    pub session_days: u32,
    /// Jobs run side by side in a process.
    pub worker_concurrency: u32,
    /// What is logged, e.g. `info,bulkhead=debug`.
    pub log: String,
    /// `text` or `json`.
    pub log_format: LogFormat,
}

/// What the process is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Env {
    /// On somebody's own machine.
    Development,
    /// For customers.
    Production,
}

/// Scheme of the links we make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// On somebody's own machine.
    Http,
    /// Behind TLS.
    Https,
}

impl Scheme {
    /// As it stands in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            env: Env::Development,
            http: SocketAddr::from(([127, 0, 0, 1], 8080)),
            base_domains: vec!["localhost".to_owned()],
            scheme: Scheme::Http,
            data_dir: PathBuf::from(".bulkhead"),
            database_url: None,
            max_connections: 16,
            statement_timeout_ms: 10_000,
            pg_bin: None,
            pg_releases_url: None,
            secret_key: None,
            media_url: None,
            media_azure_account: None,
            media_azure_key: None,
            media_azure_endpoint: None,
            media_max_bytes: 100 * 1024 * 1024,
            session_days: 14,
            worker_concurrency: 4,
            log: "warn,bulkhead=info".to_owned(),
            log_format: LogFormat::Text,
        }
    }
}

impl Config {
    /// Reads the file (`bulkhead.toml` in the current directory, if it is there, unless one is named), then the
    /// environment, then `flags` as pairs of key and value.
    pub fn load(file: Option<&Path>, flags: &[(&str, String)]) -> Result<Self> {
        let source = match file {
            Some(path) => config::File::from(path).required(true),
            None => config::File::new("bulkhead.toml", config::FileFormat::Toml).required(false),
        };
        // Values stay texts until their key's type reads them: guessed at, a name of digits loses its zeros.
        let environment = config::Environment::with_prefix("BULKHEAD").prefix_separator("_");
        let mut builder = config::Config::builder().add_source(source);
        if let Some(url) = variable("DATABASE_URL").and_then(|url| url.into_string().ok()) {
            builder = builder.add_source(one("database_url", url)?);
        }
        builder = builder.add_source(environment);
        for (key, value) in flags {
            builder = builder
                .set_override(*key, value.as_str())
                .map_err(explain)?;
        }
        let read: Self = builder
            .build()
            .and_then(config::Config::try_deserialize)
            .map_err(explain)?;
        read.checked()
    }

    fn checked(self) -> Result<Self> {
        if !(1..=366).contains(&self.session_days) {
            return Err(Error::config("session_days must be from 1 to 366"));
        }
        if self.statement_timeout_ms == 0 {
            return Err(Error::config("statement_timeout_ms must be at least 1"));
        }
        if self.max_connections < 2 {
            return Err(Error::config("max_connections must be at least 2"));
        }
        if self.worker_concurrency == 0 {
            return Err(Error::config("worker_concurrency must be at least 1"));
        }
        if self
            .base_domains
            .iter()
            .any(|d| d.is_empty() || *d != d.to_lowercase())
        {
            return Err(Error::config(
                "base_domains must be lower-case host names such as app.example.com",
            ));
        }
        Ok(self)
    }

    /// Refuses what must not be served to customers.
    pub fn check_serving(&self) -> Result<()> {
        if self.env == Env::Production && self.scheme == Scheme::Http {
            return Err(Error::config(
                "production makes https links: set BULKHEAD_SCHEME=https, and serve behind TLS",
            ));
        }
        Ok(())
    }

    /// The key, or what to do about its absence.
    pub fn secret_key(&self) -> Result<&str> {
        self.secret_key
            .as_ref()
            .map(SecretString::expose_secret)
            .ok_or_else(|| {
                Error::config("set BULKHEAD_SECRET_KEY, the same on every server; make one with: openssl rand -hex 32")
            })
    }
}

/// `PATH`, for finding PostgreSQL's programs.
pub fn search_path() -> Option<OsString> {
    variable("PATH")
}

/// Where this user's downloads are kept: `XDG_CACHE_HOME`, or `.cache` in the home directory.
pub fn cache_dir() -> Option<PathBuf> {
    variable("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".cache")))
}

/// Who runs the command, for the operators' log.
pub fn operator() -> String {
    variable("SUDO_USER")
        .or_else(|| variable("USER"))
        .and_then(|user| user.into_string().ok())
        .filter(|user| !user.is_empty())
        .unwrap_or_else(|| "cli".to_owned())
}

#[expect(clippy::disallowed_methods, reason = "this is the place")]
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// A source that sets one key.
fn one(key: &str, value: String) -> Result<config::Config> {
    let builder = config::Config::builder().set_override(key, value);
    builder.map_err(explain)?.build().map_err(explain)
}

/// A list, or a text with commas, which is how the environment has it.
fn listed<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Listed {
        List(Vec<String>),
        Text(String),
    }
    Ok(match Listed::deserialize(deserializer)? {
        Listed::List(items) => items,
        Listed::Text(text) => text.split(',').map(|item| item.trim().to_owned()).collect(),
    })
}

fn explain(error: config::ConfigError) -> Error {
    Error::config(format!("the configuration cannot be used: {error}"))
}

#[expect(clippy::ref_option, reason = "serde's signature")]
fn masked<S: Serializer>(
    secret: &Option<SecretString>,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    match secret {
        Some(_) => serializer.serialize_str("********"),
        None => serializer.serialize_none(),
    }
}

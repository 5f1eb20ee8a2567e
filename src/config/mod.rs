//! Configuration: one reader of file, environment and flags, later ones first. Nothing else reads the environment.

mod http;
mod limits;
mod mail;
mod stream;

pub use http::HttpLimits;
pub use limits::{DocumentLimits, RateLimits};
pub use mail::{MailSettings, MailTls};
pub use stream::AuditStream;

use crate::clock::Clock;
use crate::error::{Error, Result};
use ipnet::IpNet;
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::ffi::OsString;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Everything that can be set. A key is set by `key = …` in `bulkhead.toml`, by `BULKHEAD_KEY` in the environment (one of a
/// group by `BULKHEAD_GROUP__KEY`), or by a flag where a command has one. Unknown keys are refused.
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
    /// Proxies whose `X-Forwarded-Host` and `X-Forwarded-For` are believed: addresses, or networks such as `10.0.0.0/8`.
    #[serde(deserialize_with = "networks")]
    pub trusted_proxies: Vec<IpNet>,
    /// Name servers that proofs of domains are asked of, such as `9.9.9.9:53`; the system's unless set.
    #[serde(deserialize_with = "listed")]
    pub dns_servers: Vec<SocketAddr>,
    /// How large a GraphQL document may be.
    pub document_limits: DocumentLimits,
    /// How fast root fields may come.
    pub rate_limits: RateLimits,
    /// WebSockets and event streams that a tenant may have open, on each server.
    pub sockets_per_tenant: u32,
    /// The same of one session or device token.
    pub sockets_per_credential: u32,
    /// What one connection may take.
    pub http_limits: HttpLimits,
    /// Origins besides a tenant's own host whose pages may use the API, WebSockets too, such as `https://app.example.com`;
    /// none unless set.
    #[serde(deserialize_with = "listed")]
    pub allowed_origins: Vec<String>,
    /// Pages of those origins may send credentials of the browser's.
    pub cors_credentials: bool,
    /// A manifest of GraphQL documents: those in it are executed, and no others.
    pub trusted_documents: Option<PathBuf>,
    /// Clients may send a GraphQL document once and its hash from then on (automatic persisted queries).
    pub persisted_queries: bool,
    /// How the outside reaches us, for links: `http` or `https`.
    pub scheme: Scheme,
    /// Private data: the managed PostgreSQL, media on disk, the key. `.bulkhead` unless set.
    pub data_dir: PathBuf,
    /// PostgreSQL to use (also `DATABASE_URL`); without it, a private one is run. Its role needs CREATE and CREATEROLE.
    #[serde(serialize_with = "masked")]
    pub database_url: Option<SecretString>,
    /// `database_url` is a pooler of transactions (PgBouncer): nothing is kept in a session then.
    pub pooler: bool,
    /// PostgreSQL itself, where `database_url` is a pooler: for migrations, roles and notifications.
    #[serde(serialize_with = "masked")]
    pub direct_url: Option<SecretString>,
    /// Connections, over the platform and all tenants.
    pub max_connections: u32,
    /// Login roles that a new database is made with; tenants are dealt to them. `bulkhead cell add` makes more.
    pub cells: u16,
    /// Milliseconds that a statement may take.
    pub statement_timeout_ms: u32,
    /// Directory of PostgreSQL's server binaries, where they are not found by themselves.
    pub pg_bin: Option<PathBuf>,
    /// Where PostgreSQL is fetched from if it is not installed.
    pub pg_releases_url: Option<String>,
    /// What all signatures are derived from: 32 characters or more, the same on every server.
    #[serde(serialize_with = "masked")]
    pub secret_key: Option<SecretString>,
    /// What the histories of tenants are sealed with: the first seals, the others prove what was sealed before; 32 characters or
    /// more each. `secret_key` proves too, and seals where there are none.
    #[serde(deserialize_with = "secrets", serialize_with = "all_masked")]
    pub audit_keys: Vec<SecretString>,
    /// Minutes from one anchor of a history that goes on to the next; 0 anchors none.
    pub audit_anchor_minutes: u32,
    /// Where every sealed entry of every tenant is sent on to, as JSON lines: its `file`, or its `url` with a `token`.
    pub audit_stream: AuditStream,
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
    /// Days within which an archived tenant can be restored.
    pub archive_days: u32,
    /// Jobs run side by side in a process.
    pub worker_concurrency: u32,
    /// Short jobs fetched ahead of that at most.
    pub worker_prefetch: u32,
    /// The queues whose jobs a process runs; all unless set.
    #[serde(deserialize_with = "listed")]
    pub worker_queues: Vec<String>,
    /// Days that jobs which are over are kept.
    pub job_days: u32,
    /// Failures in a row until jobs of a kind are held back for a tenant, and tried one at a time; 0 holds none back. 20 unless
    /// set, in development 0.
    pub breaker_failures: Option<u32>,
    /// Schemas made ahead of time, so that a new tenant is there at once; 0 makes none.
    pub spares: u32,
    /// How mail is sent.
    pub mail: MailSettings,
    /// Address at which Prometheus finds `/metrics`, such as `127.0.0.1:9464`; nowhere unless set. It names tenants: for operators
    /// alone.
    pub metrics_listen: Option<SocketAddr>,
    /// What is logged, e.g. `info,bulkhead=debug`.
    pub log: String,
    /// `text` or `json`.
    pub log_format: LogFormat,
    /// Where the time comes from. Nothing that is read sets it.
    #[serde(skip)]
    pub clock: Clock,
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
            trusted_proxies: Vec::new(),
            dns_servers: Vec::new(),
            document_limits: DocumentLimits::default(),
            rate_limits: RateLimits::default(),
            sockets_per_tenant: 1000,
            sockets_per_credential: 20,
            http_limits: HttpLimits::default(),
            allowed_origins: Vec::new(),
            cors_credentials: false,
            trusted_documents: None,
            persisted_queries: false,
            scheme: Scheme::Http,
            data_dir: PathBuf::from(".bulkhead"),
            database_url: None,
            pooler: false,
            direct_url: None,
            max_connections: 16,
            cells: 4,
            statement_timeout_ms: 10_000,
            pg_bin: None,
            pg_releases_url: None,
            secret_key: None,
            audit_keys: Vec::new(),
            audit_anchor_minutes: 10,
            audit_stream: AuditStream::default(),
            media_url: None,
            media_azure_account: None,
            media_azure_key: None,
            media_azure_endpoint: None,
            media_max_bytes: 100 * 1024 * 1024,
            session_days: 14,
            archive_days: 30,
            worker_concurrency: 4,
            worker_prefetch: 512,
            worker_queues: Vec::new(),
            job_days: 14,
            breaker_failures: None,
            spares: 8,
            mail: MailSettings::default(),
            metrics_listen: None,
            log: "warn,bulkhead=info".to_owned(),
            log_format: LogFormat::Text,
            clock: Clock::default(),
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
        let environment = config::Environment::with_prefix("BULKHEAD")
            .prefix_separator("_")
            .separator("__");
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
        if self.max_connections == 0 {
            return Err(Error::config("max_connections must be at least 1"));
        }
        if !(1..=1000).contains(&self.cells) {
            return Err(Error::config("cells must be from 1 to 1000"));
        }
        if self.pooler && (self.database_url.is_none() || self.direct_url.is_none()) {
            return Err(Error::config(
                "with pooler = true, database_url is the pooler and direct_url PostgreSQL itself: set both",
            ));
        }
        if self.worker_concurrency == 0 {
            return Err(Error::config("worker_concurrency must be at least 1"));
        }
        // PostgreSQL reckons no date that is millions of days ago.
        if self.job_days > 36_500 {
            return Err(Error::config("job_days must be at most 36500"));
        }
        let bases = &self.base_domains;
        if bases.is_empty() || bases.iter().any(|d| d.is_empty() || *d != d.to_lowercase()) {
            return Err(Error::config(
                "base_domains must be lower-case host names such as app.example.com",
            ));
        }
        self.rate_limits.check()?;
        self.mail.check()?;
        if self.persisted_queries && self.trusted_documents.is_some() {
            return Err(Error::config(
                "persisted_queries lets clients bring documents and trusted_documents does not: set one of them",
            ));
        }
        self.http_limits.check()?;
        self.audit_stream.check()?;
        http::check_origins(&self)?;
        Ok(self)
    }

    /// [`Config::breaker_failures`] with nothing left out: in development what fails is being worked on.
    pub fn breaker_failures(&self) -> u32 {
        let unset = match self.env {
            Env::Development => 0,
            Env::Production => 20,
        };
        self.breaker_failures.unwrap_or(unset)
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
fn listed<'de, D, T>(deserializer: D) -> std::result::Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: Display>,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Listed {
        List(Vec<String>),
        Text(String),
    }
    let items = match Listed::deserialize(deserializer)? {
        Listed::List(items) => items,
        Listed::Text(text) if text.trim().is_empty() => Vec::new(),
        Listed::Text(text) => text.split(',').map(|item| item.trim().to_owned()).collect(),
    };
    let read = |item: String| {
        item.parse()
            .map_err(|e| D::Error::custom(format!("{item:?}: {e}")))
    };
    items.into_iter().map(read).collect()
}

/// The same of secrets.
fn secrets<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Vec<SecretString>, D::Error> {
    let texts = listed::<D, String>(deserializer)?;
    Ok(texts.into_iter().map(SecretString::from).collect())
}

/// The same of networks; an address is a network of one.
fn networks<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Vec<IpNet>, D::Error> {
    let read = |item: String| {
        let network = item
            .parse()
            .or_else(|_| item.parse::<IpAddr>().map(IpNet::from));
        network.map_err(|_| {
            D::Error::custom(format!(
                "{item:?} is neither an address nor a network such as 10.0.0.0/8"
            ))
        })
    };
    listed::<D, String>(deserializer)?
        .into_iter()
        .map(read)
        .collect()
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

fn all_masked<S: Serializer>(
    secrets: &[SecretString],
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_seq(secrets.iter().map(|_| "********"))
}

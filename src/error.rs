//! The one error of the domain. [`Error::code`] is its only table; `graphql/error.rs` and `http/problem.rs` render it.

use sea_orm::{DbErr, RuntimeErr};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A result of Bulkhead's own.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong, by what the client sees.
#[derive(Debug)]
pub enum Error {
    /// The input breaks a rule: says which field, and the rule.
    Invalid(Invalid),
    /// Absent, of another type, or of another tenant: one answer for all three. Says what was looked for.
    NotFound(&'static str),
    /// Something of this name is there already: says which field.
    AlreadyExists(Invalid),
    /// `ifVersion` did not match: says the version now in the database.
    VersionConflict(i32),
    /// The link, upload or token had its time.
    Expired(&'static str),
    /// Larger than the limit in bytes.
    TooLarge(u64),
    /// Of a type that is not taken: says which are.
    UnsupportedMediaType(&'static str),
    /// The caller lacks this permission.
    Forbidden(&'static str),
    /// No credential, or one that does not work.
    Unauthenticated(Denial),
    /// No tenant behind this host.
    TenantNotFound,
    /// The request is not one: says why. For the HTTP layer.
    BadRequest(String),
    /// A document is too large: which limit, what it allows, and what the document has.
    QueryLimit {
        /// Name of the limit.
        limit: &'static str,
        /// What it allows.
        max: u64,
        /// What the document has.
        actual: u64,
    },
    /// Too many; try again after this time.
    RateLimited(Duration),
    /// The statement or operation took too long.
    Timeout,
    /// PostgreSQL or a connection to it cannot be had just now; a retry can help.
    Unavailable,
    /// The configuration is wrong: says what to do. For whoever starts the process.
    Config(String),
    /// Anything else. The client sees a request id; the log sees this.
    Internal(Box<dyn std::error::Error + Send + Sync>),
}

/// Why nobody is signed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// None was presented.
    NoCredential,
    /// Unknown name or wrong secret: one answer for both.
    InvalidCredentials,
    /// The token had its time.
    TokenExpired,
    /// Ended early, or unknown.
    TokenRevoked,
    /// The right PIN, but the device is switched off.
    DeviceDisabled,
}

impl Denial {
    /// Stable code of the device API.
    pub fn code(self) -> &'static str {
        match self {
            Self::NoCredential => "no_credential",
            Self::InvalidCredentials => "invalid_credentials",
            Self::TokenExpired => "token_expired",
            Self::TokenRevoked => "token_revoked",
            Self::DeviceDisabled => "device_disabled",
        }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoCredential => "This needs a credential: send Authorization: Bearer <token>.",
            Self::InvalidCredentials => "The credentials are wrong.",
            Self::TokenExpired => "The token has expired; sign in again.",
            Self::TokenRevoked => "The token is unknown or was revoked; sign in again.",
            Self::DeviceDisabled => "This device is disabled.",
        })
    }
}

/// A rule that the input broke.
#[derive(Debug)]
pub struct Invalid {
    /// Path below `input`, e.g. `email`.
    pub field: &'static str,
    /// A sentence fit to show to a person.
    pub message: String,
}

impl Error {
    /// The input breaks a rule.
    pub fn invalid(field: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self::Invalid(Invalid { field, message })
    }

    /// Something of this name is there already.
    pub fn already_exists(field: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self::AlreadyExists(Invalid { field, message })
    }

    /// The configuration is wrong.
    pub fn config(message: impl Into<String>) -> Self {
        Self::Config(message.into())
    }

    /// Anything that is not the client's doing.
    pub fn internal(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Internal(source.into())
    }

    /// An error that several wait for, as each of them gets it.
    pub fn shared(error: Arc<Self>) -> Self {
        Arc::try_unwrap(error).unwrap_or_else(|error| match &*error {
            Self::Unavailable => Self::Unavailable,
            Self::Timeout => Self::Timeout,
            Self::Unauthenticated(denial) => Self::Unauthenticated(*denial),
            Self::BadRequest(why) => Self::BadRequest(why.clone()),
            _ => Self::internal(error),
        })
    }

    /// Stable code of the GraphQL API.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "INVALID",
            Self::NotFound(_) => "NOT_FOUND",
            Self::AlreadyExists(_) => "ALREADY_EXISTS",
            Self::VersionConflict(_) => "VERSION_CONFLICT",
            Self::Expired(_) => "EXPIRED",
            Self::TooLarge(_) => "TOO_LARGE",
            Self::UnsupportedMediaType(_) => "UNSUPPORTED_MEDIA_TYPE",
            Self::Forbidden(_) => "FORBIDDEN",
            Self::Unauthenticated(_) => "UNAUTHENTICATED",
            Self::TenantNotFound => "TENANT_NOT_FOUND",
            Self::BadRequest(_) => "BAD_USER_INPUT",
            Self::QueryLimit { .. } => "QUERY_LIMIT_EXCEEDED",
            Self::RateLimited(_) => "RATE_LIMITED",
            Self::Timeout => "OPERATION_TIMEOUT",
            Self::Unavailable => "UNAVAILABLE",
            Self::Config(_) | Self::Internal(_) => "INTERNAL",
        }
    }

    /// Whether the same call can succeed later without a change.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unavailable | Self::Timeout | Self::RateLimited(_) | Self::Internal(_)
        )
    }
}

/// What a client may read: no SQL, path or type name, and nothing of an internal error.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(rule) | Self::AlreadyExists(rule) => f.write_str(&rule.message),
            Self::NotFound(what) => write!(f, "There is no such {what}."),
            Self::VersionConflict(now) => write!(
                f,
                "It was changed meanwhile: it is at version {now} now. Read it again and repeat the change."
            ),
            Self::Expired(what) => write!(f, "The {what} has expired."),
            Self::TooLarge(limit) => {
                write!(f, "It is larger than the {limit} bytes that are allowed.")
            }
            Self::UnsupportedMediaType(taken) => {
                write!(f, "This type is not supported; use {taken}.")
            }
            Self::Forbidden(permission) => write!(f, "This needs the permission {permission}."),
            Self::Unauthenticated(denial) => denial.fmt(f),
            Self::TenantNotFound => f.write_str("No tenant is served at this host."),
            Self::BadRequest(why) => f.write_str(why),
            Self::QueryLimit { limit, max, actual } => {
                write!(
                    f,
                    "The document has {actual} {limit}; at most {max} are allowed."
                )
            }
            Self::RateLimited(after) => {
                write!(
                    f,
                    "Too many attempts; try again in {} seconds.",
                    after.as_secs()
                )
            }
            Self::Timeout => f.write_str("It took too long and was stopped; nothing was changed."),
            Self::Unavailable => {
                f.write_str("The service cannot answer just now; try again shortly.")
            }
            Self::Config(message) => f.write_str(message),
            Self::Internal(_) => f.write_str("Something went wrong on our side."),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Internal(source) => Some(source.as_ref()),
            _ => None,
        }
    }
}

impl From<DbErr> for Error {
    fn from(error: DbErr) -> Self {
        match sqlx_error(&error).map(classify) {
            Some(Class::Unavailable) => Self::Unavailable,
            Some(Class::Timeout) => Self::Timeout,
            Some(Class::Value) => Self::BadRequest(
                "A value cannot be stored: it is out of range, or has a NUL character.".to_owned(),
            ),
            Some(Class::Other) | None => Self::internal(without_values(error)),
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::from(DbErr::Query(RuntimeErr::SqlxError(error.into())))
    }
}

enum Class {
    Unavailable,
    Timeout,
    Value,
    Other,
}

/// An error for the log: PostgreSQL's detail quotes the row, hashes and all, and is left out.
fn without_values(error: DbErr) -> Box<dyn std::error::Error + Send + Sync> {
    let told = sqlx_error(&error)
        .and_then(sqlx::Error::as_database_error)
        .map(|told| {
            let code = told.code().unwrap_or_default();
            let constraint = told.constraint().map(|name| format!(", constraint {name}"));
            format!(
                "PostgreSQL {code}: {}{}",
                told.message(),
                constraint.unwrap_or_default()
            )
        });
    match told {
        Some(told) => told.into(),
        None => error.into(),
    }
}

fn sqlx_error(error: &DbErr) -> Option<&sqlx::Error> {
    match error {
        DbErr::Conn(RuntimeErr::SqlxError(e))
        | DbErr::Exec(RuntimeErr::SqlxError(e))
        | DbErr::Query(RuntimeErr::SqlxError(e)) => Some(e),
        _ => None,
    }
}

/// By SQLSTATE (PostgreSQL, appendix A), for errors come through here from every statement.
fn classify(error: &sqlx::Error) -> Class {
    let Some(database) = error.as_database_error() else {
        return match error {
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::PoolTimedOut => {
                Class::Unavailable
            }
            _ => Class::Other,
        };
    };
    match database.code().as_deref() {
        Some("57014") => Class::Timeout,
        // Serialization failure, deadlock, lock not available, too many connections, shutdown and start-up.
        Some("40001" | "40P01" | "55P03" | "53300" | "57P01" | "57P02" | "57P03" | "25P03") => {
            Class::Unavailable
        }
        Some(code) if code.starts_with("08") => Class::Unavailable,
        // Character not in repertoire (NUL), untranslatable character, number out of range, bad date.
        Some("22021" | "22P05" | "22003" | "22008") => Class::Value,
        _ => Class::Other,
    }
}

/// Turns the violation of a named constraint into a user's error, so that no check goes before an insert.
pub trait OnConstraint<T> {
    /// If the error is the violation of `constraint`, the error that `user` makes; else itself.
    fn on_constraint(self, constraint: &str, user: impl FnOnce() -> Error) -> Result<T>;
}

impl<T> OnConstraint<T> for std::result::Result<T, DbErr> {
    fn on_constraint(self, constraint: &str, user: impl FnOnce() -> Error) -> Result<T> {
        self.map_err(|error| {
            let violated = sqlx_error(&error)
                .and_then(sqlx::Error::as_database_error)
                .and_then(sqlx::error::DatabaseError::constraint);
            if violated == Some(constraint) {
                user()
            } else {
                error.into()
            }
        })
    }
}

/// The error for whoever runs the process: whole, with what caused it.
pub fn explain(error: &Error) -> String {
    match error {
        Error::Internal(source) => format!("{error} {source}"),
        other => other.to_string(),
    }
}

//! The one error of the domain. [`Error::kind`] is its row in the table of codes; `graphql/error.rs` and `http/problem.rs`
//! render it.

use crate::code::{self, Kind};
use entity::platform::plan::Limit;
use sea_orm::{DbErr, RuntimeErr};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A result of Bulkhead's own.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong, by what the client sees. Several may wait for what fails: each of them gets a copy.
#[derive(Clone, Debug)]
pub enum Error {
    /// The input breaks a rule: says which field, and the rule.
    Invalid(Invalid),
    /// Absent, of another type, or of another tenant: one answer for all three. Says what was looked for.
    NotFound(&'static str),
    /// Something of this name is there already: says which field.
    AlreadyExists(Invalid),
    /// `ifVersion` did not match: says the version now in the database.
    VersionConflict(i32),
    /// A newer change is in the way of taking one back: says which, and the object's version now, if it has one.
    InTheWay(String, Option<i32>),
    /// The link, upload or token had its time.
    Expired(&'static str),
    /// Larger than the limit in bytes.
    TooLarge(u64),
    /// Of a type that is not taken: says which are.
    UnsupportedMediaType(&'static str),
    /// The caller lacks this permission.
    Forbidden(&'static str),
    /// A page of another origin, which is not listed.
    ForeignOrigin,
    /// No credential, or one that does not work.
    Unauthenticated(Denial),
    /// No tenant behind this host.
    TenantNotFound,
    /// The tenant is suspended; only told to whom it knows.
    TenantSuspended,
    /// The tenant's schema is behind this binary; a retry can help.
    TenantUpgrading,
    /// The request is not one: says why. For the HTTP layer.
    BadRequest(String),
    /// The client accepts none of the types that are answered in: says which those are.
    NotAcceptable(&'static str),
    /// The method is not for this: says which are, unless the route does.
    MethodNotAllowed(&'static str),
    /// The body is in a coding, and none is undone here.
    ContentEncoding,
    /// The body did not come in time.
    SlowBody,
    /// No document is known by this hash or id.
    DocumentNotFound,
    /// A hash or id alone, and documents are not kept here.
    DocumentsNotKept,
    /// Only documents of the manifest are executed.
    DocumentNotTrusted,
    /// A document is too large: which limit, what it allows, and what the document has.
    QueryLimit {
        /// Name of the limit.
        limit: &'static str,
        /// What it allows.
        max: u64,
        /// What the document has.
        actual: u64,
    },
    /// A mutation with this `Idempotency-Key` is under way; a retry gets its answer.
    KeyInUse,
    /// Something else was sent with this `Idempotency-Key`.
    KeyReused,
    /// Too many; try again after this time.
    RateLimited(Duration),
    /// The tenant makes more requests than it may; try again after this time.
    Throttled {
        /// Which of its limits.
        limit: Limit,
        /// What it allows.
        max: u64,
        /// When there is room again.
        after: Duration,
    },
    /// It would go over a limit of the tenant's.
    QuotaExceeded(Quota),
    /// The statement or operation took too long.
    Timeout,
    /// PostgreSQL or a connection to it cannot be had just now; a retry can help.
    Unavailable,
    /// What was followed came faster than it was read; it can be followed anew.
    TooSlow,
    /// The configuration is wrong: says what to do. For whoever starts the process.
    Config(String),
    /// Anything else. The client sees a request id; the log sees this.
    Internal(Arc<dyn std::error::Error + Send + Sync>),
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
    fn kind(self) -> &'static Kind {
        match self {
            Self::NoCredential => &code::NO_CREDENTIAL,
            Self::InvalidCredentials => &code::INVALID_CREDENTIALS,
            Self::TokenExpired => &code::TOKEN_EXPIRED,
            Self::TokenRevoked => &code::TOKEN_REVOKED,
            Self::DeviceDisabled => &code::DEVICE_DISABLED,
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

/// A limit of the tenant's, and what is used of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Which.
    pub limit: Limit,
    /// What is there.
    pub used: u64,
    /// What may be there; none is no limit.
    pub max: Option<u64>,
}

/// A rule that the input broke.
#[derive(Clone, Debug)]
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
        let source: Box<dyn std::error::Error + Send + Sync> = source.into();
        Self::Internal(source.into())
    }

    /// Its row in the table of codes.
    pub fn kind(&self) -> &'static Kind {
        match self {
            Self::Invalid(_) => &code::INVALID,
            Self::NotFound(_) => &code::NOT_FOUND,
            Self::AlreadyExists(_) => &code::ALREADY_EXISTS,
            Self::VersionConflict(_) | Self::InTheWay(..) => &code::VERSION_CONFLICT,
            Self::Expired(_) => &code::EXPIRED,
            Self::TooLarge(_) => &code::TOO_LARGE,
            Self::UnsupportedMediaType(_) | Self::ContentEncoding => &code::UNSUPPORTED_MEDIA_TYPE,
            Self::Forbidden(_) => &code::FORBIDDEN,
            Self::ForeignOrigin => &code::FOREIGN_ORIGIN,
            Self::Unauthenticated(denial) => denial.kind(),
            Self::TenantNotFound => &code::TENANT_NOT_FOUND,
            Self::TenantSuspended => &code::TENANT_SUSPENDED,
            Self::TenantUpgrading => &code::TENANT_UPGRADING,
            Self::BadRequest(_) => &code::BAD_USER_INPUT,
            Self::NotAcceptable(_) => &code::NOT_ACCEPTABLE,
            Self::MethodNotAllowed(_) => &code::METHOD_NOT_ALLOWED,
            Self::SlowBody => &code::REQUEST_TIMEOUT,
            Self::QueryLimit { .. } => &code::QUERY_LIMIT_EXCEEDED,
            Self::DocumentNotFound => &code::PERSISTED_QUERY_NOT_FOUND,
            Self::DocumentsNotKept => &code::PERSISTED_QUERY_NOT_SUPPORTED,
            Self::DocumentNotTrusted => &code::DOCUMENT_NOT_TRUSTED,
            Self::KeyInUse => &code::KEY_IN_USE,
            Self::KeyReused => &code::KEY_REUSED,
            Self::RateLimited(_) | Self::Throttled { .. } => &code::RATE_LIMITED,
            Self::QuotaExceeded(_) => &code::QUOTA_EXCEEDED,
            Self::Timeout => &code::OPERATION_TIMEOUT,
            Self::Unavailable => &code::UNAVAILABLE,
            Self::TooSlow => &code::TOO_SLOW,
            Self::Config(_) | Self::Internal(_) => &code::INTERNAL,
        }
    }

    /// Stable code of the GraphQL API.
    pub fn code(&self) -> &'static str {
        self.kind().code
    }

    /// Whether it is our doing: the client sees the request's id, the log the rest.
    pub fn is_internal(&self) -> bool {
        matches!(self, Self::Config(_) | Self::Internal(_))
    }

    /// What is said of an error that has nothing of its own to say.
    fn sentence(&self) -> &'static str {
        match self {
            Self::ForeignOrigin => "Pages of this origin are not let in here.",
            Self::TenantNotFound => "No tenant is served at this host.",
            Self::TenantSuspended => {
                "This tenant is suspended; its data are kept. Ask its operator."
            }
            Self::TenantUpgrading => "This tenant is being upgraded; try again shortly.",
            Self::MethodNotAllowed(_) => "This method is not allowed here.",
            Self::ContentEncoding => "Send the body without Content-Encoding.",
            Self::SlowBody => "The body of the request did not come in time.",
            // Clients look for these two texts, Apollo's, and not for the code.
            Self::DocumentNotFound => "PersistedQueryNotFound",
            Self::DocumentsNotKept => "PersistedQueryNotSupported",
            Self::KeyInUse => {
                "What was sent with this Idempotency-Key is under way; send it again for its answer."
            }
            Self::KeyReused => {
                "Something else was sent with this Idempotency-Key; a new request needs a new one."
            }
            Self::DocumentNotTrusted => {
                "Only documents of the server's manifest are executed: send documentId in place of query."
            }
            // What was committed before its answer was there may be said of too.
            Self::Timeout => {
                "It took too long and was stopped. Look whether it was done before you send it again."
            }
            Self::Unavailable => "The service cannot answer just now; try again shortly.",
            Self::TooSlow => "More came than was read; subscribe again.",
            _ => "Something went wrong on our side.",
        }
    }

    /// Whether the same call can succeed later without a change.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unavailable
                | Self::Timeout
                | Self::KeyInUse
                | Self::RateLimited(_)
                | Self::Throttled { .. }
                | Self::TenantUpgrading
                | Self::TooSlow
                | Self::Internal(_)
        )
    }

    /// Whole seconds after which to try again, for `Retry-After`.
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Self::RateLimited(after) | Self::Throttled { after, .. } => {
                let begun = u64::from(after.subsec_nanos() > 0);
                Some((after.as_secs() + begun).max(1))
            }
            Self::Unavailable | Self::Timeout | Self::TenantUpgrading | Self::KeyInUse => Some(1),
            _ => None,
        }
    }
}

/// What a client may read: no SQL, path or type name, and nothing of what is our doing. [`explain`] says it all.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = || self.retry_after().unwrap_or_default();
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
            Self::BadRequest(text) | Self::InTheWay(text, _) => f.write_str(text),
            Self::NotAcceptable(types) => {
                write!(f, "The answer can be {types}; accept one of them.")
            }
            Self::MethodNotAllowed(allowed) if !allowed.is_empty() => {
                write!(f, "This method is not allowed for this; use {allowed}.")
            }
            Self::QueryLimit { limit, max, actual } => {
                write!(
                    f,
                    "The document has {actual} {limit}; at most {max} are allowed."
                )
            }
            Self::RateLimited(_) => {
                write!(f, "Too many requests; try again in {} s.", seconds())
            }
            Self::Throttled { limit, max, .. } => write!(
                f,
                "The tenant's limit {limit} is {max} on each server; try again in {} s.",
                seconds()
            ),
            Self::QuotaExceeded(Quota { limit, used, max }) => write!(
                f,
                "The tenant's limit {limit} is {}, and {used} are used.",
                max.unwrap_or_default()
            ),
            other => f.write_str(other.sentence()),
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

/// A statement was not sent: the operation that it is for had its time.
#[derive(Clone, Copy, Debug)]
pub struct DeadlinePassed;

impl fmt::Display for DeadlinePassed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the operation had its time")
    }
}

impl std::error::Error for DeadlinePassed {}

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

fn is_late(error: &std::io::Error) -> bool {
    let inner = error.get_ref();
    inner
        .and_then(|inner| inner.downcast_ref::<DeadlinePassed>())
        .is_some()
}

/// By SQLSTATE (PostgreSQL, appendix A), for errors come through here from every statement.
fn classify(error: &sqlx::Error) -> Class {
    let Some(database) = error.as_database_error() else {
        return match error {
            sqlx::Error::Io(e) if is_late(e) => Class::Timeout,
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

/// Whether the error is the violation of any constraint (PostgreSQL, appendix A, class 23).
pub fn is_violation(error: &DbErr) -> bool {
    let code = sqlx_error(error)
        .and_then(sqlx::Error::as_database_error)
        .and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| code.starts_with("23"))
}

/// The error for whoever runs the process: whole, with what caused it.
pub fn explain(error: &Error) -> String {
    match error {
        Error::Internal(source) => format!("{error} {source}"),
        Error::Config(text) => text.clone(),
        other => other.to_string(),
    }
}

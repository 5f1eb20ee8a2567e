//! Renders errors for GraphQL: the expected ones of a mutation as data, the rest with a code, and nothing of our insides.

use super::ByteSize;
use super::door::was_executed;
use crate::code::{self, Kind};
use crate::error::{self, Error};
use async_graphql::{
    Enum, ErrorExtensionValues, Interface, Response, ServerError, SimpleObject, Value,
};
use entity::platform::plan::Limit;

/// Codes of expected failures. Stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
pub enum ErrorCode {
    /// Something of this name is there already.
    AlreadyExists,
    /// It had its time.
    Expired,
    /// The caller lacks a permission.
    Forbidden,
    /// The input breaks a rule.
    Invalid,
    /// There is no such object.
    NotFound,
    /// It would go over a limit of the tenant's.
    QuotaExceeded,
    /// Larger than is allowed.
    TooLarge,
    /// Of a type that is not taken.
    UnsupportedMediaType,
    /// It was changed meanwhile.
    VersionConflict,
}

/// Expected failure of a mutation: data, never a top-level error.
#[derive(Debug, Interface)]
#[graphql(
    field(
        name = "code",
        ty = "&ErrorCode",
        desc = "Stable, documented, SCREAMING_SNAKE_CASE."
    ),
    field(
        name = "message",
        ty = "&String",
        desc = "English sentence fit to show to a person."
    ),
    field(
        name = "field",
        ty = "&Option<Vec<String>>",
        desc = "Path into `input`, e.g. [\"input\", \"email\"]."
    )
)]
pub enum UserError {
    /// The input breaks a rule.
    InvalidInput(InvalidInputError),
    /// There is no such object.
    NotFound(NotFoundError),
    /// A permission is lacking.
    Forbidden(ForbiddenError),
    /// It clashes with what is there.
    Conflict(ConflictError),
    /// The tenant may not have more.
    QuotaExceeded(QuotaExceededError),
}

/// The input breaks a rule.
#[derive(Debug, SimpleObject)]
pub struct InvalidInputError {
    /// Stable, documented, SCREAMING_SNAKE_CASE.
    code: ErrorCode,
    /// English sentence fit to show to a person.
    message: String,
    /// Path into `input`, e.g. ["input", "email"].
    field: Option<Vec<String>>,
}

/// There is no such object, or it is none of yours.
#[derive(Debug, SimpleObject)]
pub struct NotFoundError {
    /// Stable, documented, SCREAMING_SNAKE_CASE.
    code: ErrorCode,
    /// English sentence fit to show to a person.
    message: String,
    /// Path into `input`, e.g. ["input", "email"].
    field: Option<Vec<String>>,
}

/// A permission is lacking.
#[derive(Debug, SimpleObject)]
pub struct ForbiddenError {
    /// Stable, documented, SCREAMING_SNAKE_CASE.
    code: ErrorCode,
    /// English sentence fit to show to a person.
    message: String,
    /// Path into `input`, e.g. ["input", "email"].
    field: Option<Vec<String>>,
    /// The permission it needs.
    required_permission: Option<crate::permission::Permission>,
}

/// It clashes with what is there.
#[derive(Debug, SimpleObject)]
pub struct ConflictError {
    /// Stable, documented, SCREAMING_SNAKE_CASE.
    code: ErrorCode,
    /// English sentence fit to show to a person.
    message: String,
    /// Path into `input`, e.g. ["input", "email"].
    field: Option<Vec<String>>,
    /// Version now in the database.
    current_version: Option<i32>,
}

/// The tenant may not have more.
#[derive(Debug, SimpleObject)]
pub struct QuotaExceededError {
    /// Stable, documented, SCREAMING_SNAKE_CASE.
    code: ErrorCode,
    /// English sentence fit to show to a person.
    message: String,
    /// Path into `input`, e.g. ["input", "email"].
    field: Option<Vec<String>>,
    /// The limit, and what is used of it.
    quota: Quota,
}

/// What the tenant may have of something, and has.
#[derive(Debug, SimpleObject)]
pub struct Quota {
    /// Of what.
    name: QuotaName,
    /// What is there.
    used: ByteSize,
    /// Null means unlimited.
    limit: Option<ByteSize>,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
pub enum QuotaName {
    /// Devices.
    Devices,
    /// Bytes of all media together, uploads that were announced included.
    MediaBytes,
    /// Members.
    Members,
    /// Jobs that are not over. Told when there are too many; not among `quotas`.
    QueuedJobs,
}

impl Quota {
    /// The quota as it is shown; what is limited but not counted is none.
    pub fn shown(quota: error::Quota) -> Option<Self> {
        let name = match quota.limit {
            Limit::Devices => QuotaName::Devices,
            Limit::MediaBytes => QuotaName::MediaBytes,
            Limit::Members => QuotaName::Members,
            Limit::QueuedJobs => QuotaName::QueuedJobs,
            Limit::RequestsPerMinute | Limit::ConcurrentRequests | Limit::ConcurrentJobs => {
                return None;
            }
        };
        let size = |number: u64| ByteSize(i64::try_from(number).unwrap_or(i64::MAX));
        Some(Self {
            name,
            used: size(quota.used),
            limit: quota.max.map(size),
        })
    }
}

/// Splits a mutation's result: what was made, and the expected failures as data. Anything else stays an error.
pub fn expected<T>(result: Result<T, Error>) -> Result<(Option<T>, Vec<UserError>), Error> {
    match result {
        Ok(value) => Ok((Some(value), Vec::new())),
        Err(error) => user_error(error).map(|user| (None, vec![user])),
    }
}

fn user_error(error: Error) -> Result<UserError, Error> {
    let message = error.to_string();
    let invalid = |code, message, field| {
        UserError::InvalidInput(InvalidInputError {
            code,
            message,
            field,
        })
    };
    Ok(match error {
        Error::Invalid(rule) => invalid(ErrorCode::Invalid, message, Some(path(rule.field))),
        Error::Expired(_) => invalid(ErrorCode::Expired, message, None),
        Error::TooLarge(_) => invalid(ErrorCode::TooLarge, message, Some(path("size"))),
        Error::UnsupportedMediaType(_) => invalid(
            ErrorCode::UnsupportedMediaType,
            message,
            Some(path("contentType")),
        ),
        Error::NotFound(_) => UserError::NotFound(NotFoundError {
            code: ErrorCode::NotFound,
            message,
            field: None,
        }),
        Error::Forbidden(name) => UserError::Forbidden(ForbiddenError {
            code: ErrorCode::Forbidden,
            message,
            field: None,
            required_permission: crate::permission::Permission::parse_all(&[name.to_owned()])
                .next(),
        }),
        Error::AlreadyExists(rule) => UserError::Conflict(ConflictError {
            code: ErrorCode::AlreadyExists,
            message,
            field: Some(path(rule.field)),
            current_version: None,
        }),
        Error::VersionConflict(now) => UserError::Conflict(ConflictError {
            code: ErrorCode::VersionConflict,
            message,
            field: Some(path("ifVersion")),
            current_version: Some(now),
        }),
        Error::InTheWay(_, version) => UserError::Conflict(ConflictError {
            code: ErrorCode::VersionConflict,
            message,
            field: Some(path("changeId")),
            current_version: version,
        }),
        Error::QuotaExceeded(quota) => match Quota::shown(quota) {
            Some(quota) => UserError::QuotaExceeded(QuotaExceededError {
                code: ErrorCode::QuotaExceeded,
                message,
                field: None,
                quota,
            }),
            None => return Err(error),
        },
        other => return Err(other),
    })
}

fn path(field: &str) -> Vec<String> {
    vec!["input".to_owned(), field.to_owned()]
}

/// Errors that a document is told of, at most: validation finds one at each place.
const MAX_ERRORS: usize = 20;

/// Gives every error of a response its code. An internal one is logged here, once, and the client gets the request's id.
///
/// Suggestions come to a directive's arguments even if the schema has them disabled (async-graphql 7.2.1).
pub(super) fn render(response: &mut Response, request_id: &str, suggests: bool) {
    if !was_executed(response) {
        response.errors.truncate(MAX_ERRORS);
    }
    for error in &mut response.errors {
        match error.source.take() {
            Some(source) => {
                let ours = source.downcast_ref::<Error>().cloned();
                // A resolver let an error of a library's go: nobody has looked at what it says.
                let ours = ours.unwrap_or_else(|| Error::internal(error.message.clone()));
                if ours.is_internal() {
                    tracing::error!(error = ?ours, path = ?error.path, "a field failed");
                }
                error.message = ours.to_string();
                extend(error, &ours, request_id);
            }
            None if error.path.is_empty() => {
                if !suggests && let Some(end) = error.message.find(" Did you mean") {
                    error.message.truncate(end);
                }
                fresh(error, code::GRAPHQL_VALIDATION_FAILED.code);
            }
            None => {
                fresh(error, code::BAD_USER_INPUT.code);
            }
        }
    }
}

/// A response that is nothing but this error.
pub fn refusal(error: &Error, request_id: &str) -> Response {
    if error.is_internal() {
        tracing::error!(?error, "a request failed");
    }
    let mut rendered = ServerError::new(error.to_string(), None);
    extend(&mut rendered, error, request_id);
    Response::from_errors(vec![rendered])
}

/// A response that is nothing but this error, which has a place in the document.
pub(super) fn coded(mut error: ServerError, kind: &Kind) -> Response {
    fresh(&mut error, kind.code);
    Response::from_errors(vec![error])
}

/// Seconds, in the extensions of an error that may be over by then.
const AFTER: &str = "retryAfter";

/// When to ask again, in seconds, if there is no data now and there may be then.
pub(super) fn retry_after(response: &Response) -> Option<u64> {
    if response.data != Value::Null {
        return None;
    }
    let seconds = response.errors.iter().filter_map(|error| {
        let Some(Value::Number(seconds)) = error.extensions.as_ref()?.get(AFTER) else {
            return None;
        };
        seconds.as_u64()
    });
    seconds.max()
}

/// Everything that a client is told of an error besides its message.
fn extend(rendered: &mut ServerError, error: &Error, request_id: &str) {
    let extensions = fresh(rendered, error.code());
    if error.is_internal() {
        extensions.set("requestId", request_id);
    }
    match error {
        Error::QueryLimit { limit, max, actual } => {
            extensions.set("limit", *limit);
            extensions.set("max", *max);
            extensions.set("actual", *actual);
        }
        Error::Throttled { limit, max, .. } => {
            extensions.set("limit", limit.name());
            extensions.set("max", *max);
        }
        _ => {}
    }
    // What was stopped may be done all the same: to look comes first.
    if let Some(seconds) = error.retry_after()
        && !matches!(error, Error::Timeout)
    {
        extensions.set(AFTER, seconds);
    }
}

fn fresh<'a>(error: &'a mut ServerError, code: &str) -> &'a mut ErrorExtensionValues {
    let extensions = error.extensions.insert(ErrorExtensionValues::default());
    extensions.set("code", code);
    extensions
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_graphql::PathSegment;
    use std::io;

    #[test]
    fn what_is_not_the_clients_doing_is_told_to_nobody() {
        let secret = "10.0.0.7:5432: the key MEDIA_AZURE_KEY";
        let config = Error::config(secret);
        let library = io::Error::other(secret);
        let failed = [
            async_graphql::Error::new_with_source(library),
            async_graphql::Error::from(config.clone()),
            async_graphql::Error::from(Error::internal(secret)),
        ];
        let mut errors: Vec<ServerError> = failed
            .into_iter()
            .map(|error| error.into_server_error(async_graphql::Pos::default()))
            .collect();
        for error in &mut errors {
            error.path = vec![PathSegment::Field("tenant".to_owned())];
        }
        let mut response = Response::from_errors(errors);
        render(&mut response, "the-request", true);
        response
            .errors
            .extend(refusal(&config, "the-request").errors);
        for error in response.errors {
            assert_eq!(error.message, "Something went wrong on our side.");
            let told = serde_json::to_value(&error.extensions).unwrap();
            let wanted = serde_json::json!({ "code": "INTERNAL", "requestId": "the-request" });
            assert_eq!(told, wanted);
        }
    }
}

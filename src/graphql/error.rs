//! Renders errors for GraphQL: the expected ones of a mutation as data, the rest with a code, and nothing of our insides.

use crate::error::Error;
use async_graphql::{Enum, ErrorExtensionValues, Interface, Response, ServerError, SimpleObject};

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
        other => return Err(other),
    })
}

fn path(field: &str) -> Vec<String> {
    vec!["input".to_owned(), field.to_owned()]
}

/// Gives every error of a response its code. An internal one is logged here, once, and the client gets the request's id.
pub(super) fn render(response: &mut Response, request_id: &str) {
    for error in &mut response.errors {
        match error.source::<Error>() {
            Some(ours) => {
                let (code, message) = (ours.code(), ours.to_string());
                let after = match ours {
                    Error::RateLimited(after) => Some(after.as_secs()),
                    _ => None,
                };
                if code == "INTERNAL" {
                    tracing::error!(error = ?ours, path = ?error.path, "a field failed");
                }
                let extensions = fresh(error, code);
                if code == "INTERNAL" {
                    extensions.set("requestId", request_id);
                }
                if let Some(seconds) = after {
                    extensions.set("retryAfter", seconds);
                }
                error.message = message;
            }
            None if error.path.is_empty() => {
                fresh(error, "GRAPHQL_VALIDATION_FAILED");
            }
            None => {
                fresh(error, "BAD_USER_INPUT");
            }
        }
    }
}

/// A response that is nothing but this error.
pub(super) fn refusal(error: &Error, request_id: &str) -> Response {
    if error.code() == "INTERNAL" {
        tracing::error!(?error, "a request failed");
    }
    let mut rendered = ServerError::new(error.to_string(), None);
    let extensions = fresh(&mut rendered, error.code());
    if error.code() == "INTERNAL" {
        extensions.set("requestId", request_id);
    }
    if let Error::QueryLimit { limit, max, actual } = error {
        extensions.set("limit", *limit);
        extensions.set("max", *max);
        extensions.set("actual", *actual);
    }
    Response::from_errors(vec![rendered])
}

fn fresh<'a>(error: &'a mut ServerError, code: &str) -> &'a mut ErrorExtensionValues {
    let extensions = error.extensions.insert(ErrorExtensionValues::default());
    extensions.set("code", code);
    extensions
}

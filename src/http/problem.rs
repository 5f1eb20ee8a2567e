//! Renders errors for HTTP: `application/problem+json` (RFC 9457 §3) with a stable `code`.

use crate::error::{Denial, Error};
use axum::Json;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::any::Any;

#[derive(Debug, Serialize)]
struct Problem<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'a str,
    status: u16,
    detail: String,
    code: &'static str,
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (status, code) = classify(&self);
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(error = ?self, "a request failed");
        }
        let problem = Problem {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: self.to_string(),
            code,
        };
        let mut response = (status, Json(problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        match &self {
            Self::Unauthenticated(_) if status == StatusCode::UNAUTHORIZED => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::RateLimited(after) => {
                headers.insert(RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
            }
            Self::Unavailable => {
                headers.insert(RETRY_AFTER, HeaderValue::from(1));
            }
            _ => {}
        }
        response
    }
}

fn classify(error: &Error) -> (StatusCode, &'static str) {
    match error {
        Error::BadRequest(_) | Error::Invalid(_) | Error::QueryLimit { .. } => {
            (StatusCode::BAD_REQUEST, "invalid_request")
        }
        Error::Unauthenticated(Denial::DeviceDisabled) => {
            (StatusCode::FORBIDDEN, Denial::DeviceDisabled.code())
        }
        Error::Unauthenticated(denial) => (StatusCode::UNAUTHORIZED, denial.code()),
        Error::Forbidden(_) => (StatusCode::FORBIDDEN, "forbidden"),
        Error::NotFound(_) => (StatusCode::NOT_FOUND, "not_found"),
        Error::TenantNotFound => (StatusCode::NOT_FOUND, "tenant_not_found"),
        Error::AlreadyExists(_) | Error::VersionConflict(_) => (StatusCode::CONFLICT, "conflict"),
        Error::Expired(_) => (StatusCode::GONE, "expired"),
        Error::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
        Error::UnsupportedMediaType(_) => {
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type")
        }
        Error::RateLimited(_) => (StatusCode::TOO_MANY_REQUESTS, "rate_limited"),
        Error::Timeout | Error::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        Error::Config(_) | Error::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
    }
}

/// A panic is one masked error, not a dropped connection.
pub(super) fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    Error::internal(format!("a handler panicked: {text}")).into_response()
}

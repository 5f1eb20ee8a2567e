//! Renders errors for HTTP: `application/problem+json` (RFC 9457 §3) with a stable `code`.

use crate::error::Error;
use axum::Json;
use axum::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

#[derive(Debug, Serialize)]
struct Problem<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'a str,
    status: u16,
    detail: String,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
}

/// Marks the answer to what is our doing: whoever knows the request's id writes it in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Masked;

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        if self.is_internal() {
            tracing::error!(error = ?self, "a request failed");
        }
        let mut response = problem(&self, None);
        if self.is_internal() {
            response.extensions_mut().insert(Masked);
        }
        response
    }
}

/// The error as a problem; an internal one has the request's id.
pub(super) fn problem(error: &Error, request_id: Option<&str>) -> Response {
    let kind = error.kind();
    let status = StatusCode::from_u16(kind.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let problem = Problem {
        kind: "about:blank",
        title: status.canonical_reason().unwrap_or("Error"),
        status: kind.status,
        detail: error.to_string(),
        code: kind.problem.unwrap_or("invalid_request"),
        request_id,
    };
    let mut response = (status, Json(problem)).into_response();
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Error::MethodNotAllowed(allowed) = error
        && !allowed.is_empty()
    {
        headers.insert(ALLOW, HeaderValue::from_static(allowed));
    }
    if let Some(seconds) = error.retry_after() {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

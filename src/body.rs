//! Reading the body of a request: within a size and a time, and nothing but JSON.

use crate::error::{Error, Result};
use axum::body::{Body, Bytes, to_bytes};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use http_body_util::LengthLimitError;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;
use tokio::time::timeout;

/// Bytes that a body may have, uploads aside.
pub const MAX: usize = 1024 * 1024;

/// The whole body.
pub async fn read(body: Body, within: Duration) -> Result<Bytes> {
    let mut reading = pin!(to_bytes(body, MAX));
    // Mostly it came with the head: then there is no need of a timer.
    let read = match futures::poll!(reading.as_mut()) {
        Poll::Ready(read) => read,
        Poll::Pending => timeout(within, reading)
            .await
            .map_err(|_| Error::SlowBody)?,
    };
    read.map_err(|error| {
        if error.into_inner().is::<LengthLimitError>() {
            Error::TooLarge(MAX as u64)
        } else {
            Error::BadRequest("The body was cut short; send it again.".to_owned())
        }
    })
}

/// Refuses what is not said to be JSON: what a browser sends across sites without asking (a form, plain text) is never read,
/// whatever it holds.
pub fn check_json(headers: &HeaderMap) -> Result<()> {
    let content_type = headers.get(CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok());
    let (essence, parameters) = content_type
        .and_then(|value| value.split_once(';'))
        .unwrap_or((content_type.unwrap_or(""), ""));
    let charset = parameters.trim();
    let utf8 = ["", "charset=utf-8", "charset=\"utf-8\""];
    let utf8 = utf8.iter().any(|utf8| charset.eq_ignore_ascii_case(utf8));
    if utf8 && essence.trim().eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Error::UnsupportedMediaType(
        "Content-Type: application/json",
    ))
}

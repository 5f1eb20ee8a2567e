//! The front door: one GraphQL request over HTTP, from its bytes to its answer.

use super::{Loaders, RequestContext, error, limits};
use crate::error::{Error, Result};
use async_graphql::{ObjectType, Request, Response, Schema, SubscriptionType};
use axum::http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::IntoResponse;
use std::sync::Arc;

const JSON: &str = "application/json";
const GRAPHQL_RESPONSE: &str = "application/graphql-response+json";

/// Executes the body of a POST.
pub async fn post<Q, M, S>(
    schema: &Schema<Q, M, S>,
    context: RequestContext,
    headers: &HeaderMap,
    body: &[u8],
) -> axum::response::Response
where
    Q: ObjectType + 'static,
    M: ObjectType + 'static,
    S: SubscriptionType + 'static,
{
    let request_id = context.request_id.clone();
    match read(headers, body) {
        Ok(request) => answer(
            execute(schema, context, request).await,
            StatusCode::OK,
            headers,
        ),
        Err((error, status)) => answer(error::refusal(&error, &request_id), status, headers),
    }
}

/// The answer to a request that did not get as far as the schema.
pub fn refuse(error: &Error, request_id: &str, headers: &HeaderMap) -> axum::response::Response {
    let status = match error {
        Error::BadRequest(_) => StatusCode::BAD_REQUEST,
        Error::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
        Error::TenantNotFound => StatusCode::NOT_FOUND,
        Error::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
        Error::Unavailable | Error::Timeout => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    answer(error::refusal(error, request_id), status, headers)
}

/// Only JSON is read: what a browser sends across sites without asking (a form, plain text) never is, whatever it holds.
fn read(headers: &HeaderMap, body: &[u8]) -> Result<Request, (Error, StatusCode)> {
    let content_type = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("");
    let (essence, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
    let charset = parameters.trim().to_ascii_lowercase();
    let utf8 = charset.is_empty() || charset == "charset=utf-8" || charset == "charset=\"utf-8\"";
    if !essence.trim().eq_ignore_ascii_case(JSON) || !utf8 {
        let error = Error::BadRequest(format!("Send the request as Content-Type: {JSON}."));
        return Err((error, StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    let refused = |why: &dyn std::fmt::Display| {
        let error = Error::BadRequest(format!(
            "The body is not a GraphQL request such as {{\"query\": \"…\", \"variables\": {{}}}}: {why}."
        ));
        (error, StatusCode::BAD_REQUEST)
    };
    // serde would take the fields from an array, by their order.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(refused(&"it is no JSON object"));
    }
    // Where, and not what: serde's own words name our types.
    serde_json::from_slice::<Request>(body).map_err(|e| {
        refused(&format_args!(
            "line {}, column {} is not like that",
            e.line(),
            e.column()
        ))
    })
}

/// Parses the document, within the limits that hold before anything else looks at it.
fn parse(request: &mut Request, request_id: &str) -> Result<(), Box<Response>> {
    let refused = |error| Box::new(error::refusal(&error, request_id));
    limits::check_text(&request.query).map_err(refused)?;
    let document = request.parsed_query().map_err(|e| {
        let mut response = Response::from_errors(vec![e]);
        for error in &mut response.errors {
            error
                .extensions
                .get_or_insert_default()
                .set("code", "GRAPHQL_PARSE_FAILED");
        }
        Box::new(response)
    })?;
    limits::check(document).map_err(refused)
}

async fn execute<Q, M, S>(
    schema: &Schema<Q, M, S>,
    context: RequestContext,
    mut request: Request,
) -> Response
where
    Q: ObjectType + 'static,
    M: ObjectType + 'static,
    S: SubscriptionType + 'static,
{
    let context = Arc::new(context);
    if let Err(refusal) = parse(&mut request, &context.request_id) {
        return *refusal;
    }
    let request = request
        .data(Arc::clone(&context))
        .data(Loaders::of(Arc::clone(&context)));
    let mut response = schema.execute(request).await;
    error::render(&mut response, &context.request_id);
    // Reads need no commit: this gives the connection back before the answer goes out.
    if let Err(error) = context.end_reading().await {
        tracing::warn!(?error, "the reads of a request did not end cleanly");
    }
    response
}

/// GraphQL over HTTP §6.4: for `application/graphql-response+json` a request without data is a 4xx; for plain JSON it
/// stays what the transport says.
fn answer(response: Response, status: StatusCode, headers: &HeaderMap) -> axum::response::Response {
    let accepted = headers
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("");
    let modern = accepted.contains(GRAPHQL_RESPONSE);
    let without_data = response.is_err() && response.data == async_graphql::Value::Null;
    let status = match status {
        StatusCode::OK if modern && without_data => request_status(&response),
        other => other,
    };
    let body = serde_json::to_vec(&response).unwrap_or_else(|_| b"{}".to_vec());
    let content_type = if modern { GRAPHQL_RESPONSE } else { JSON };
    let mut answer = (status, body).into_response();
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    match status {
        StatusCode::UNAUTHORIZED => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        _ => {}
    }
    answer
}

/// A request that failed before any field ran is the client's; one whose root field failed was executed.
fn request_status(response: &Response) -> StatusCode {
    if response.errors.iter().all(|error| error.path.is_empty()) {
        StatusCode::BAD_REQUEST
    } else {
        StatusCode::OK
    }
}

//! What every request goes through before its handler.

use crate::actor::RequestId;
use crate::error::{Error, Result};
use crate::graphql::door;
use crate::services::Services;
use axum::extract::{Request, State};
use axum::http::header::{HOST, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use std::sync::Arc;
use tracing::Instrument as _;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Gives the request its identity and its span.
pub(super) async fn request(
    State(services): State<Arc<Services>>,
    mut request: Request,
    next: Next,
) -> Response {
    let id = services.database.clock().new_id().to_string();
    // At the level of errors, so that no filter takes tenant and actor from a line that is logged.
    let span = tracing::error_span!(
        "request",
        request.id = %id,
        method = %request.method(),
        path = request.uri().path(),
        tenant = tracing::field::Empty,
        actor = tracing::field::Empty,
    );
    request.extensions_mut().insert(RequestId(id.clone()));
    async move {
        let mut response = next.run(request).await;
        tracing::debug!(status = response.status().as_u16(), "answered");
        if let Ok(value) = HeaderValue::from_str(&id) {
            response.headers_mut().insert(X_REQUEST_ID, value);
        }
        response
    }
    .instrument(span)
    .await
}

/// Finds the tenant that the request's host names.
pub(super) async fn tenant(
    State(services): State<Arc<Services>>,
    mut request: Request,
    next: Next,
) -> Response {
    let found = match authority(&request) {
        Ok(authority) => services.registry.at(authority).await,
        Err(error) => Err(error),
    };
    match found {
        Ok(tenant) => {
            tracing::Span::current().record("tenant", &tenant.slug);
            request.extensions_mut().insert(tenant);
            next.run(request).await
        }
        Err(error) if request.uri().path() == "/graphql" => {
            let id = request
                .extensions()
                .get::<RequestId>()
                .map_or("", |id| &id.0);
            door::refuse(&error, id, request.headers())
        }
        Err(error) => error.into_response(),
    }
}

/// The one host that the request names (RFC 9112 §3.2): two, or none, or a target with another, is refused.
pub(super) fn authority(request: &Request) -> Result<&str> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Err(Error::BadRequest(
            "Send exactly one Host header.".to_owned(),
        ));
    };
    let host = host
        .to_str()
        .map_err(|_| Error::BadRequest("The Host header is not a host name.".to_owned()))?;
    match request.uri().authority() {
        Some(target) if target.as_str() != host => Err(Error::BadRequest(
            "The request's target names another host.".to_owned(),
        )),
        _ => Ok(host),
    }
}

/// What no handler has to think of.
pub(super) async fn security_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

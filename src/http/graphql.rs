//! `/graphql`: the request's context, the playground and its assets.

use super::State as HttpState;
use super::layers;
use crate::actor::RequestId;
use crate::caller::bearer;
use crate::console::Playground;
use crate::database::Tenant;
use crate::error::{Error, Result};
use crate::graphql::{RequestContext, door};
use crate::resources;
use axum::body::to_bytes;
use axum::extract::{Extension, Path, Request, State};
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

const X_CHANGE_REASON: HeaderName = HeaderName::from_static("x-change-reason");
/// Bytes that a reason may have.
const MAX_REASON: usize = 500;

/// The strictest policy under which the editor works: nothing from elsewhere, no inline script. The editor sets styles of
/// its own.
const PLAYGROUND_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; font-src 'self'; connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

/// One GraphQL request.
pub(super) async fn post(
    State(state): State<HttpState>,
    Extension(tenant): Extension<Arc<Tenant>>,
    Extension(RequestId(id)): Extension<RequestId>,
    request: Request,
) -> Response {
    let headers = request.headers().clone();
    let authority = layers::authority(&request).map(str::to_owned);
    let context = match context(&state, tenant, (id.clone(), authority), &headers).await {
        Ok(context) => context,
        Err(error) => return door::refuse(&error, &id, &headers),
    };
    match to_bytes(request.into_body(), super::MAX_BODY).await {
        Ok(body) => door::post(&state.schema, context, &headers, &body).await,
        Err(_) => door::refuse(&Error::TooLarge(super::MAX_BODY as u64), &id, &headers),
    }
}

async fn context(
    state: &HttpState,
    tenant: Arc<Tenant>,
    (id, authority): (String, Result<String>),
    headers: &HeaderMap,
) -> Result<RequestContext> {
    let services = Arc::clone(&state.services);
    let mut context = RequestContext::new(services, tenant, id, authority?);
    context.reason = reason(headers)?;
    if let Some(token) = bearer(headers)? {
        let caller = resources::caller(&state.services, &context.tenant, token).await?;
        tracing::Span::current().record("actor", tracing::field::display(&caller.actor));
        context.sign_in(caller);
    }
    Ok(context)
}

fn reason(headers: &HeaderMap) -> Result<Option<String>> {
    let Some(value) = headers.get(X_CHANGE_REASON) else {
        return Ok(None);
    };
    let text = std::str::from_utf8(value.as_bytes())
        .ok()
        .filter(|text| text.len() <= MAX_REASON);
    text.map(|text| Some(text.to_owned())).ok_or_else(|| {
        Error::BadRequest(format!(
            "X-Change-Reason has at most {MAX_REASON} bytes of UTF-8."
        ))
    })
}

/// The playground's page, for browsers.
pub(super) async fn playground(headers: HeaderMap) -> Response {
    let accepted = headers
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("");
    if !accepted.contains("text/html") {
        let error = Error::BadRequest(
            "Send queries by POST; with Accept: text/html this is the playground.".to_owned(),
        );
        return error.into_response();
    }
    match Playground::get("index.html") {
        Some(page) => (
            [
                (CONTENT_TYPE, "text/html; charset=utf-8"),
                (CONTENT_SECURITY_POLICY, PLAYGROUND_POLICY),
                (CACHE_CONTROL, "no-cache"),
            ],
            page.data,
        )
            .into_response(),
        None => Error::NotFound("page").into_response(),
    }
}

/// One of its files. Their names carry a hash of what is in them.
pub(super) async fn asset(Path(file): Path<String>) -> Response {
    let Some(asset) = Playground::get(&file) else {
        return Error::NotFound("file").into_response();
    };
    let cache = "public, max-age=31536000, immutable";
    let kind = match file.rsplit_once('.').map(|(_, ext)| ext) {
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("html") => "text/html; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("ttf") => "font/ttf",
        Some("md") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    };
    let headers = [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, PLAYGROUND_POLICY),
        (CACHE_CONTROL, cache),
    ];
    (headers, asset.data).into_response()
}

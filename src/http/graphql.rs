//! `/graphql`: requests by POST and GET, whose answers are one or come one by one, and the playground's page.

use super::State as HttpState;
use super::server::HangUp;
use super::{events, playground};
use crate::actor::RequestId;
use crate::body;
use crate::caller::bearer;
use crate::config::Env;
use crate::database::Tenant;
use crate::error::{Error, Result};
use crate::graphql::door::Method;
use crate::graphql::{Asked, MEDIA_TYPES, MediaType, RequestContext, door};
use crate::rates::Client;
use crate::resources;
use crate::telemetry::Trace;
use crate::tenancy::host::Authority;
use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Method as Verb};
use axum::response::Response;
use std::sync::Arc;

const X_CHANGE_REASON: HeaderName = HeaderName::from_static("x-change-reason");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Characters that a key may have.
const MAX_KEY: usize = 255;
/// Bytes that a reason may have.
const MAX_REASON: usize = 500;

/// Where GraphQL is.
pub(super) const GRAPHQL: &str = "/graphql";

/// One GraphQL request, by POST or, if it only reads, by GET. In development a browser gets the playground.
pub(super) async fn graphql(
    State(state): State<HttpState>,
    Extension(tenant): Extension<Arc<Tenant>>,
    (Extension(authority), Extension(client)): (Extension<Authority>, Extension<Arc<Client>>),
    Extension(RequestId(id)): Extension<RequestId>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let follows = events::are_wanted(&parts.headers);
    let of_page = parts.method == Verb::GET || parts.method == Verb::HEAD;
    let of_page = of_page && !follows && state.services.config.env == Env::Development;
    if of_page && playground::is_wanted(&parts.headers) {
        return playground::page(&parts.headers);
    }
    let media_type = match MediaType::of(&parts.headers) {
        Some(media_type) => media_type,
        // Only an error is sent as it.
        None if follows => MediaType::Json,
        None => return door::refuse(&Error::NotAcceptable(MEDIA_TYPES), &id, MediaType::Json),
    };
    let answered = async {
        let method = method(&parts.method)?;
        if method == Method::Post {
            body::check_json(&parts.headers)?;
        }
        let from = (id.clone(), authority, client);
        let mut context = context(&state, tenant, from, &parts.headers).await?;
        context.trace = parts.extensions.get::<Trace>().copied();
        let asked = asked(&state, method, &parts, body).await?;
        if follows {
            let token = bearer(&parts.headers)?.map(str::to_owned);
            let hang_up = parts.extensions.get::<HangUp>().cloned();
            let hang_up = hang_up.unwrap_or_default();
            return events::stream(&state, context, token, hang_up, (asked, method)).await;
        }
        let response = state.door.execute(context, asked, method).await?;
        Ok(door::answer(&response, media_type))
    };
    let answered = answered.await;
    answered.unwrap_or_else(|error| door::refuse(&error, &id, media_type))
}

fn method(verb: &Verb) -> Result<Method> {
    match *verb {
        Verb::POST => Ok(Method::Post),
        Verb::GET | Verb::HEAD => Ok(Method::Get),
        _ => Err(Error::MethodNotAllowed("GET, POST")),
    }
}

async fn asked(state: &HttpState, method: Method, parts: &Parts, body: Body) -> Result<Asked> {
    match method {
        Method::Get => Asked::by_get(parts.uri.query().unwrap_or_default()),
        Method::Post => {
            let patience = state.services.config.http_limits.body_time();
            Asked::by_post(&body::read(body, patience).await?)
        }
    }
}

/// The request's context.
async fn context(
    state: &HttpState,
    tenant: Arc<Tenant>,
    (id, authority, client): (String, Authority, Arc<Client>),
    headers: &HeaderMap,
) -> Result<RequestContext> {
    let services = Arc::clone(&state.services);
    let mut context = RequestContext::new(services, tenant, id, authority);
    context.client = client;
    context.reason = reason(headers)?;
    context.idempotency_key = idempotency_key(headers)?;
    if let Some(token) = bearer(headers)? {
        let (services, client) = (&state.services, &context.client);
        let caller = resources::caller(services, &context.tenant, client, token).await?;
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

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>> {
    let mut values = headers.get_all(&IDEMPOTENCY_KEY).iter();
    let (Some(value), other) = (values.next(), values.next()) else {
        return Ok(None);
    };
    let is_key = |key: &&str| (1..=MAX_KEY).contains(&key.len()) && other.is_none();
    let key = value.to_str().ok().map(str::trim).filter(is_key);
    key.map(|key| Some(key.to_owned())).ok_or_else(|| {
        Error::BadRequest(format!(
            "Send one Idempotency-Key of 1 to {MAX_KEY} visible characters, such as a UUID."
        ))
    })
}

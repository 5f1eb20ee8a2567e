//! What every request goes through before its handler.

use super::client;
use super::events::GoesOn;
use super::graphql::GRAPHQL;
use super::headers::{X_REQUEST_ID, secure};
use super::meter::until_sent;
use super::problem::{Masked, problem};
use crate::actor::RequestId;
use crate::caller::bearer;
use crate::database::Tenant;
use crate::error::{Error, Result};
use crate::graphql::{MediaType, door};
use crate::rates::{Client, Place};
use crate::resources;
use crate::services::Services;
use crate::telemetry::Trace;
use crate::tenancy::host::Authority;
use axum::extract::{Request, State as Given};
use axum::http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, HOST};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use entity::platform::tenant::State;
use futures::FutureExt as _;
use ipnet::IpNet;
use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use tracing::Instrument as _;

/// W3C Trace Context.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Gives the request its identity and its span, and its answer what no handler has to think of. What fails on our side, a
/// panic too, is one masked error with that identity.
pub(super) async fn request(
    Given(services): Given<Arc<Services>>,
    mut request: Request,
    next: Next,
) -> Response {
    let id = services.database.clock().new_id();
    let parent = request.headers().get(TRACEPARENT);
    let parent = parent.and_then(|value| Trace::parse(value.to_str().ok()?));
    let trace = Trace::within(parent, id);
    let id = id.to_string();
    // At the level of errors, so that no filter takes tenant and actor from a line that is logged.
    let span = tracing::error_span!(
        "request",
        request.id = %id,
        trace.id = trace.id(),
        method = %request.method(),
        path = request.uri().path(),
        tenant = tracing::field::Empty,
        actor = tracing::field::Empty,
    );
    request.extensions_mut().insert(RequestId(id.clone()));
    request.extensions_mut().insert(trace);
    let form = Form::of(&request);
    async move {
        let answer = AssertUnwindSafe(next.run(request)).catch_unwind().await;
        let mut response = answer.unwrap_or_else(|panic| form.render(&panicked(&*panic), &id));
        if response.extensions_mut().remove::<Masked>().is_some() {
            // It was logged where it was made.
            response = problem(&Error::internal("masked"), Some(&id));
        }
        tracing::debug!(status = response.status().as_u16(), "answered");
        let headers = response.headers_mut();
        if let Ok(value) = HeaderValue::from_str(&id) {
            headers.insert(X_REQUEST_ID, value);
        }
        secure(headers, services.config.scheme);
        response
    }
    .instrument(span)
    .await
}

/// How errors of a route look, as far as they are not its handler's.
enum Form {
    /// With what the client accepts.
    Graphql(Option<HeaderValue>),
    Problem,
}

impl Form {
    fn of(request: &Request) -> Self {
        if request.uri().path() == GRAPHQL {
            Self::Graphql(request.headers().get(ACCEPT).cloned())
        } else {
            Self::Problem
        }
    }

    fn render(self, error: &Error, id: &str) -> Response {
        match self {
            Self::Graphql(accepted) => {
                door::refuse(error, id, MediaType::for_error(accepted.as_ref()))
            }
            Self::Problem if error.is_internal() => {
                tracing::error!(?error, "a request failed");
                problem(error, Some(id))
            }
            Self::Problem => problem(error, None),
        }
    }
}

/// The panic as an error, for the log.
fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    Error::internal(format!("a handler panicked: {}", text.unwrap_or_default()))
}

/// Finds the tenant that the request's host names, lets the request in if the tenant may have one more, and keeps tenant,
/// host and client for the handlers.
pub(super) async fn tenant(
    Given(services): Given<Arc<Services>>,
    mut request: Request,
    next: Next,
) -> Response {
    let trusted = &services.config.trusted_proxies;
    let authority = authority(&request, trusted);
    let client = Arc::new(Client::at(client::address(&request, trusted)));
    match served(&services, authority, (request.headers(), &client)).await {
        Ok((tenant, authority, place)) => {
            request.extensions_mut().insert(tenant);
            request.extensions_mut().insert(authority);
            request.extensions_mut().insert(Arc::clone(&client));
            let mut response = next.run(request).await;
            client.tell(response.headers_mut());
            match place.filter(|_| response.extensions().get::<GoesOn>().is_none()) {
                Some(place) => response.map(|body| until_sent(place, body)),
                None => response,
            }
        }
        Err(error) => {
            let id = request.extensions().get::<RequestId>();
            let id = id.map_or("", |id| &id.0);
            let mut response = Form::of(&request).render(&error, id);
            if matches!(error, Error::ContentEncoding) {
                // RFC 9110 §15.5.16: what would have been taken.
                let identity = HeaderValue::from_static("identity");
                response.headers_mut().insert(ACCEPT_ENCODING, identity);
            }
            response
        }
    }
}

/// The tenant that the request names, if it is in use. That it is suspended is told to its own people alone: to others there
/// is no such tenant.
///
/// Counted first: whoever is refused costs a look at the credential too.
async fn served(
    services: &Services,
    authority: Result<Authority>,
    (headers, client): (&HeaderMap, &Client),
) -> Result<(Arc<Tenant>, Authority, Option<Place>)> {
    let authority = authority?;
    // What is undone here could be large beyond all limits on what was sent.
    if headers
        .get(CONTENT_ENCODING)
        .is_some_and(|coding| coding != "identity")
    {
        return Err(Error::ContentEncoding);
    }
    let tenant = services.registry.at(&authority).await?;
    tracing::Span::current().record("tenant", &tenant.slug);
    let place = services.rates.admit(&tenant)?;
    match tenant.state {
        State::Active => Ok((tenant, authority, place)),
        State::Suspended => {
            let Ok(Some(token)) = bearer(headers) else {
                return Err(Error::TenantNotFound);
            };
            match resources::caller(services, &tenant, client, token).await {
                Ok(_) => Err(Error::TenantSuspended),
                Err(error @ Error::RateLimited(_)) => Err(error),
                Err(_) => Err(Error::TenantNotFound),
            }
        }
        State::Provisioning | State::Archived | State::Deleting => Err(Error::TenantNotFound),
    }
}

/// The one authority that the request names (RFC 9112 §3.2): two, or none, or a target with another, is refused. Behind a
/// proxy that is listed it is what the proxy was asked for, if the proxy says so.
fn authority(request: &Request, trusted: &[IpNet]) -> Result<Authority> {
    let host = only(request, &HOST)?.ok_or_else(|| none(&HOST))?;
    let forwarded = if client::is_listed(client::peer(request), trusted) {
        only(request, &X_FORWARDED_HOST)?
    } else {
        None
    };
    let authority = Authority::parse(forwarded.unwrap_or(host))?;
    match request.uri().authority() {
        Some(target) if Authority::parse(target.as_str())? != authority => Err(Error::BadRequest(
            "The request's target names another host.".to_owned(),
        )),
        _ => Ok(authority),
    }
}

/// The value of a header that may come once; a list is no host name.
fn only<'a>(request: &'a Request, name: &HeaderName) -> Result<Option<&'a str>> {
    let mut values = request.headers().get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| none(name)),
        (Some(_), Some(_)) => Err(none(name)),
    }
}

fn none(name: &HeaderName) -> Error {
    Error::BadRequest(format!("Send one {name} header with one host name."))
}

//! WebSockets at `/graphql/ws`: GraphQL operations by graphql-transport-ws (github.com/enisdenjo/graphql-ws, PROTOCOL.md).

mod message;
mod operation;
mod seats;
mod socket;

pub(super) use seats::{Seat, Sockets, Who};

use super::State as HttpState;
use crate::body;
use crate::caller::bearer;
use crate::config::Config;
use crate::database::Tenant;
use crate::error::{Error, Result};
use crate::rates::Client;
use crate::resources;
use crate::tenancy::host::Authority;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::extract::{Extension, State};
use axum::http::HeaderMap;
use axum::http::header::ORIGIN;
use axum::response::Response;
use socket::Opened;
use std::sync::Arc;
use tracing::Instrument as _;

const PROTOCOL: &str = "graphql-transport-ws";

/// Opens a socket, for a page of this host or of a listed one, or for what is no page.
pub(super) async fn open(
    State(state): State<HttpState>,
    Extension(tenant): Extension<Arc<Tenant>>,
    (Extension(authority), Extension(client)): (Extension<Authority>, Extension<Arc<Client>>),
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response> {
    let upgrade = upgrade.map_err(|_| {
        Error::BadRequest(format!(
            "This is the place of WebSockets that speak {PROTOCOL}."
        ))
    })?;
    check_origin(&headers, &authority, &state.services.config)?;
    let token = bearer(&headers)?.map(str::to_owned);
    // Whoever says in the request who they are needs none of the places of those who say it later.
    let caller = match &token {
        Some(token) => Some(resources::caller(&state.services, &tenant, &client, token).await?),
        None => None,
    };
    let who = caller.as_deref().map_or(Who::Unknown, Who::Caller);
    let seat = state.sockets.enter(tenant.id, &client, who)?;
    let opened = Opened {
        state,
        tenant,
        authority,
        client,
        token,
        seat,
    };
    let span = tracing::Span::current();
    let upgrade = upgrade
        .protocols([PROTOCOL])
        .max_message_size(2 * body::MAX)
        .max_frame_size(2 * body::MAX);
    let serve = async |socket: WebSocket| socket::serve(socket, opened).instrument(span).await;
    Ok(upgrade.on_upgrade(serve))
}

/// A browser says whose page opens the socket, and would send it whatever the page is.
fn check_origin(headers: &HeaderMap, authority: &Authority, config: &Config) -> Result<()> {
    let Some(origin) = headers.get(ORIGIN) else {
        return Ok(());
    };
    let origin = origin.to_str().unwrap_or_default();
    let mut listed = config.allowed_origins.iter();
    let is_listed = listed.any(|listed| listed == origin || listed == "*");
    if is_listed || is_own(origin, authority, config.scheme.as_str()) {
        Ok(())
    } else {
        Err(Error::ForeignOrigin)
    }
}

fn is_own(origin: &str, authority: &Authority, scheme: &str) -> bool {
    let port = |authority: &Authority| {
        let default = if scheme == "https" { 443 } else { 80 };
        authority.port().unwrap_or(default)
    };
    origin
        .strip_prefix(scheme)
        .and_then(|rest| rest.strip_prefix("://"))
        .and_then(|rest| Authority::parse(rest).ok())
        .is_some_and(|own| own.host() == authority.host() && port(&own) == port(authority))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn a_page_of_a_listed_origin_is_let_in_or_of_any() {
        let authority = Authority::parse("acme.example.com").unwrap();
        let check = |origins: &[&str], origin: &'static str| {
            let config = Config {
                allowed_origins: origins.iter().map(ToString::to_string).collect(),
                ..Config::default()
            };
            let headers = HeaderMap::from_iter([(ORIGIN, HeaderValue::from_static(origin))]);
            check_origin(&headers, &authority, &config).is_ok()
        };
        let app = "https://app.example.com";
        assert!(check(&[app], app) && check(&["*"], app));
        assert!(!check(&[app], "https://other.example.com") && !check(&[], app));
    }

    #[test]
    fn a_pages_own_host_is_its_origin() {
        let authority = Authority::parse("acme.example.com").unwrap();
        for own in ["https://acme.example.com", "https://acme.example.com:443"] {
            assert!(is_own(own, &authority, "https"), "{own}");
        }
        for other in [
            "http://acme.example.com",
            "https://acme.example.com:8443",
            "https://globex.example.com",
            "https://acme.example.com.evil.test",
            "https://acme.example.com/",
            "https://x@acme.example.com",
            "acme.example.com",
            "null",
            "",
        ] {
            assert!(!is_own(other, &authority, "https"), "{other}");
        }
    }
}

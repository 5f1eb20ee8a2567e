//! The device API: sign in with `client_id` and PIN, rotate the token, ask who one is.

use super::graphql::Device;
use super::token::{ROTATE_AFTER, Rotation};
use super::{Credentials, Issued, authenticate, end_if_reused, find, rotate, sign_in, token};
use crate::actor::{Actor, RequestId};
use crate::body;
use crate::caller;
use crate::clock::Timestamp;
use crate::database::Tenant;
use crate::error::{Denial, Error, Result};
use crate::graphql::global_id;
use crate::rates::Client;
use crate::secret::token_hash;
use crate::services::Services;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::HeaderMap;
use axum::routing::{get, post};
use axum::{Json, Router};
use chrono::SecondsFormat;
use entity::tenant::device::Model;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// How long a refused sign-in takes at least.
const REFUSAL: Duration = Duration::from_millis(100);

/// The routes.
pub fn routes() -> Router<Arc<Services>> {
    Router::new()
        .route("/device/auth", post(auth))
        .route("/device/token/rotate", post(rotate_token))
        .route("/device/me", get(me))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AuthRequest {
    client_id: String,
    pin: String,
    firmware_version: Option<String>,
}

#[derive(Serialize)]
struct TokenAnswer {
    access_token: String,
    token_type: &'static str,
    expires_in: i64,
    expires_at: String,
    rotate_after: String,
    device: DeviceAnswer,
    server_time: String,
}

#[derive(Debug, Serialize)]
struct DeviceAnswer {
    id: String,
    name: String,
}

#[derive(Debug, Serialize)]
struct MeAnswer {
    device: DeviceAnswer,
    client_id: String,
    tenant: String,
    expires_at: String,
    server_time: String,
}

impl From<&Model> for DeviceAnswer {
    fn from(device: &Model) -> Self {
        Self {
            id: global_id::<Device>(device.id).0,
            name: device.name.clone(),
        }
    }
}

/// Client id and PIN for a token.
async fn auth(
    State(services): State<Arc<Services>>,
    (Extension(tenant), Extension(client)): (Extension<Arc<Tenant>>, Extension<Arc<Client>>),
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<TokenAnswer>> {
    services.rates.sign_in(&tenant, &client)?;
    let body = body::read(body, services.config.http_limits.body_time()).await?;
    let request: AuthRequest = json(&headers, &body)?;
    if request.client_id.len() > 64
        || request.pin.len() > 64
        || request
            .firmware_version
            .as_ref()
            .is_some_and(|v| v.len() > 100)
    {
        return Err(Error::BadRequest(
            "client_id and pin have at most 64 bytes, firmware_version 100.".to_owned(),
        ));
    }
    let slot = services.hasher.slot().await?;
    let credentials = Credentials {
        client_id: request.client_id,
        pin: request.pin,
        firmware_version: request.firmware_version,
    };
    let began = Instant::now();
    let issued = sign_in(&services.database, &tenant, slot, credentials, &request_id).await;
    if issued.is_err() {
        // A wrong PIN is written down and an unknown client_id is not: the answer does not tell, by its time either.
        sleep_until(began + REFUSAL).await;
    }
    let issued = issued?;
    services.callers.forget(tenant.id);
    record(&issued.device);
    Ok(answer(&services, issued))
}

/// A token for its successor.
async fn rotate_token(
    State(services): State<Arc<Services>>,
    (Extension(tenant), Extension(client)): (Extension<Arc<Tenant>>, Extension<Arc<Client>>),
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
) -> Result<Json<TokenAnswer>> {
    let presented = bearer(&headers)?;
    let tx = services.database.read(&tenant).await?;
    let owner = token::owner(&tx, presented).await;
    let owner = tx
        .settle(owner)
        .await?
        .ok_or(Error::Unauthenticated(Denial::TokenRevoked));
    let owner = services.rates.credential(&tenant, &client, owner)?;
    let by = Actor::Device(owner).by_request(&request_id);
    let tx = services.database.write(&tenant, &by).await?;
    let rotation = rotate(&tx, &services.key, presented).await;
    let rotation = tx.settle(rotation).await?;
    services.callers.forget(tenant.id);
    match rotation {
        Rotation::Successor(token, expires_at, device) => {
            let device = *device;
            record(&device);
            Ok(answer(
                &services,
                Issued {
                    token,
                    expires_at,
                    device,
                },
            ))
        }
        Rotation::Refused(error) => Err(error),
    }
}

/// Who the device is.
async fn me(
    State(services): State<Arc<Services>>,
    (Extension(tenant), Extension(client)): (Extension<Arc<Tenant>>, Extension<Arc<Client>>),
    headers: HeaderMap,
) -> Result<Json<MeAnswer>> {
    let presented = bearer(&headers)?;
    let tx = services.database.read(&tenant).await?;
    let known = async {
        let caller = authenticate(&tx, &token_hash(presented)).await?;
        match caller.actor {
            Actor::Device(id) => Ok((find(&tx, id).await?, caller.expires_at)),
            _ => Err(Error::Unauthenticated(Denial::TokenRevoked)),
        }
    };
    let known = known.await;
    let known = tx.settle(known).await;
    if known.is_err() && end_if_reused(&services.database, &tenant, presented).await? {
        services.callers.forget(tenant.id);
    }
    let (device, expires_at) = services.rates.credential(&tenant, &client, known)?;
    record(&device);
    Ok(Json(MeAnswer {
        device: DeviceAnswer::from(&device),
        client_id: device.client_id,
        tenant: tenant.slug.clone(),
        expires_at: stamp(expires_at),
        server_time: stamp(services.database.clock().now()),
    }))
}

/// Puts who it was into the request's lines of the log.
fn record(device: &Model) {
    let actor = Actor::Device(device.id);
    tracing::Span::current().record("actor", tracing::field::display(actor));
}

fn answer(services: &Services, issued: Issued) -> Json<TokenAnswer> {
    let now = services.database.clock().now();
    Json(TokenAnswer {
        device: DeviceAnswer::from(&issued.device),
        access_token: issued.token,
        token_type: "Bearer",
        expires_in: (issued.expires_at - now).num_seconds(),
        expires_at: stamp(issued.expires_at),
        rotate_after: stamp(issued.expires_at - token::LIFETIME + ROTATE_AFTER),
        server_time: stamp(now),
    })
}

fn stamp(at: Timestamp) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// The token, which these routes need.
fn bearer(headers: &HeaderMap) -> Result<&str> {
    caller::bearer(headers)?.ok_or(Error::Unauthenticated(Denial::NoCredential))
}

/// A JSON body, and nothing else.
fn json<T: serde::de::DeserializeOwned>(headers: &HeaderMap, bytes: &[u8]) -> Result<T> {
    body::check_json(headers)?;
    let refused = |why: &dyn std::fmt::Display| {
        Error::BadRequest(format!(
            "The body must be {{\"client_id\": \"…\", \"pin\": \"…\"}}: {why}."
        ))
    };
    // serde would take the fields from an array, by their order.
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return Err(refused(&"it is no JSON object"));
    }
    // Where, and not what: serde's own words quote the PIN, and name our types.
    serde_json::from_slice(bytes).map_err(|e| {
        refused(&format_args!(
            "line {}, column {} is not like that",
            e.line(),
            e.column()
        ))
    })
}

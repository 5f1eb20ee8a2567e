//! HTTP: all routes on one page, the layers around them, health, problems.

mod graphql;
mod health;
mod layers;
mod problem;

use crate::app::App;
use crate::config::Env;
use crate::error::{Error, Result};
use crate::resources::{self, Schema};
use crate::services::Services;
use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRef};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::get;
use std::sync::Arc;
use tokio::net::TcpListener;
use tower_http::catch_panic::CatchPanicLayer;

/// Bytes that a body may have, uploads aside.
const MAX_BODY: usize = 1024 * 1024;

/// What handlers are given.
#[derive(Clone)]
struct State {
    services: Arc<Services>,
    schema: Schema,
}

impl FromRef<State> for Arc<Services> {
    fn from_ref(state: &State) -> Self {
        Self::clone(&state.services)
    }
}

/// All routes.
pub fn router(app: &App) -> Router {
    let state = State {
        services: Arc::clone(&app.services),
        schema: app.schema.clone(),
    };
    let graphql = match app.services.config.env {
        Env::Development => get(graphql::playground).post(graphql::post),
        Env::Production => axum::routing::post(graphql::post),
    };
    let tenant = Router::new()
        .route("/graphql", graphql)
        .merge(resources::routes().with_state(Arc::clone(&app.services)))
        .layer(from_fn_with_state(
            Arc::clone(&app.services),
            layers::tenant,
        ));
    let mut router = Router::new()
        .route("/healthz/live", get(health::live))
        .route("/healthz/ready", get(health::ready))
        .merge(tenant);
    if app.services.config.env == Env::Development {
        router = router.route("/graphql/assets/{file}", get(graphql::asset));
    }
    router
        .fallback(async || Error::NotFound("page"))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(CatchPanicLayer::custom(problem::panicked))
        .layer(from_fn_with_state(
            Arc::clone(&app.services),
            layers::request,
        ))
        .layer(from_fn(layers::security_headers))
        .with_state(state)
}

/// Serves until `shutdown`, then finishes the requests that are under way.
pub async fn serve(
    app: &App,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    axum::serve(listener, router(app))
        .with_graceful_shutdown(shutdown)
        .await
        .map_err(Error::internal)
}

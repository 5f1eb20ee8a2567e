//! HTTP: all routes on one page, the layers around them, health, problems.

mod client;
mod events;
mod graphql;
mod headers;
mod health;
mod layers;
mod meter;
mod metrics;
mod patience;
mod playground;
mod problem;
mod server;
mod sockets;
mod standing;

pub use metrics::serve_metrics;

use crate::app::App;
use crate::config::Env;
use crate::error::Error;
use crate::resources::{self, Door};
use crate::services::Services;
use axum::Router;
use axum::extract::FromRef;
use axum::middleware::from_fn_with_state;
use axum::routing::{any, get};
use sockets::Sockets;
use std::sync::Arc;
use tokio::net::TcpListener;

/// What handlers are given.
#[derive(Clone)]
struct State {
    services: Arc<Services>,
    sockets: Arc<Sockets>,
    door: Arc<Door>,
}

impl FromRef<State> for Arc<Services> {
    fn from_ref(state: &State) -> Self {
        Self::clone(&state.services)
    }
}

/// Serves the tenants until `shutdown`, then finishes the requests that are under way and says goodbye to those that would
/// go on.
pub fn serve<F>(app: &App, listener: TcpListener, shutdown: F) -> impl Future<Output = ()> + use<F>
where
    F: Future<Output = ()> + Send,
{
    let sockets = Arc::new(Sockets::new(&app.services.config));
    let plain = around(routes(app, &sockets), &app.services);
    let routes = server::Routes {
        compressed: plain.clone().layer(headers::compression()),
        plain,
    };
    let limits = app.services.config.http_limits.clone();
    async move {
        let stopping = async {
            shutdown.await;
            sockets.stop();
        };
        server::run(routes, limits, listener, stopping).await;
        sockets.gone().await;
    }
}

/// All routes.
fn routes(app: &App, sockets: &Arc<Sockets>) -> Router {
    let services = &app.services;
    let state = State {
        services: Arc::clone(services),
        sockets: Arc::clone(sockets),
        door: Arc::clone(&app.door),
    };
    let tenant = Router::new()
        .route("/graphql", any(graphql::graphql))
        .route("/graphql/ws", get(sockets::open))
        .merge(resources::routes().with_state(Arc::clone(services)))
        .layer(from_fn_with_state(Arc::clone(services), layers::tenant));
    let mut router = Router::new()
        .route("/healthz/live", get(health::live))
        .route("/healthz/ready", get(health::ready))
        .merge(tenant);
    if services.config.env == Env::Development {
        router = router.route("/graphql/assets/{file}", get(playground::asset));
    }
    router
        .fallback(async || Error::NotFound("page"))
        .method_not_allowed_fallback(async || Error::MethodNotAllowed(""))
        .with_state(state)
}

/// Puts around routes what every request goes through: its identity, the masking of what fails, the headers of every answer.
pub fn around(routes: Router, services: &Arc<Services>) -> Router {
    let routes = match headers::cors(&services.config) {
        Some(cors) => routes.layer(cors),
        None => routes,
    };
    routes.layer(from_fn_with_state(Arc::clone(services), layers::request))
}

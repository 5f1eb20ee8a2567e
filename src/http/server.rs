//! Connections: who may have one, how long their clients may take, and how all of them end.
//!
//! `axum::serve` has neither deadline nor cap, so the loop is ours; what speaks HTTP is hyper.

use super::events::GoesOn;
use super::patience::{Patient, Phase, Sends};
use crate::config::HttpLimits;
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::header::ACCEPT_ENCODING;
use axum::http::{Request, Response, StatusCode};
use axum::serve::Listener;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;

/// What answers: the same routes twice.
#[derive(Clone, Debug)]
pub(super) struct Routes {
    pub(super) plain: Router,
    /// Answers are compressed here. Whoever does not ask for that does not come by.
    pub(super) compressed: Router,
}

/// Closes the connection that a request came by, whatever its client does: one who does not read is told nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct HangUp(pub(super) CancellationToken);

/// Accepts connections until `shutdown`, then finishes the requests that are under way.
pub(super) async fn run(
    routes: Routes,
    limits: HttpLimits,
    mut listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send,
) {
    let places = usize::try_from(limits.connections).unwrap_or(usize::MAX);
    let places = Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS)));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.idle_time());
    // Each connection has a receiver: it is told to end by it, and has ended when it is dropped.
    let stop = watch::Sender::new(());
    let mut shutdown = pin!(shutdown);
    loop {
        // Who finds no place waits in the kernel's line, and costs nothing.
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place.ok(), Listener::accept(&mut listener).await)
        };
        let (place, (stream, peer)) = tokio::select! {
            () = &mut shutdown => break,
            accepted = accepted => accepted,
        };
        // Only makes small answers slower if it fails.
        let _ = stream.set_nodelay(true);
        let stream = Patient::new(stream, place, limits.clone());
        serve(&http, routes.clone(), (stream, peer), stop.subscribe());
    }
    drop(listener);
    stop.send_replace(());
    stop.closed().await;
}

/// A connection, and who is at its other end.
type Accepted = ((Patient, Phase), SocketAddr);

/// Serves a connection in a task of its own.
fn serve(
    http: &http1::Builder,
    routes: Routes,
    ((stream, phase), peer): Accepted,
    mut stop: watch::Receiver<()>,
) {
    let hang_up = HangUp::default();
    let HangUp(hung_up) = hang_up.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        request.extensions_mut().insert(hang_up.clone());
        let mut routes = if request.headers().contains_key(ACCEPT_ENCODING) {
            routes.compressed.clone()
        } else {
            routes.plain.clone()
        };
        phase.busy();
        let (answer, phase) = (routes.call(request), phase.clone());
        async move {
            let answer = answer.await;
            phase.answered(answer.as_ref().map_or(Sends::Answer, sends));
            answer
        }
    });
    let connection = http
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    #[expect(
        clippy::disallowed_methods,
        reason = "a connection lasts longer than its requests"
    )]
    tokio::spawn(async move {
        let ended = async {
            let mut connection = pin!(connection);
            let early = tokio::select! {
                biased;
                ended = connection.as_mut() => Some(ended),
                _ = stop.changed() => None,
            };
            match early {
                Some(ended) => ended,
                None => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        };
        tokio::select! {
            biased;
            ended = ended => if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended early");
            },
            () = hung_up.cancelled() => tracing::debug!("a connection was closed"),
        }
    });
}

fn sends(answer: &Response<Body>) -> Sends {
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        Sends::Socket
    } else if answer.extensions().get::<GoesOn>().is_some() {
        Sends::Stream
    } else {
        Sends::Answer
    }
}

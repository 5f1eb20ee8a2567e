//! `bulkhead serve` and `bulkhead worker`: what runs in production.

use crate::app::App;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::http;
use crate::secret::SecretKey;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// How long requests that are under way may take when the process stops.
const DRAIN: Duration = Duration::from_secs(30);
/// Files that a process has open besides its clients' connections, at most: PostgreSQL, media, the program's own.
const FILES: u64 = 1024;

/// Serves until SIGINT or SIGTERM.
pub(super) async fn serve(config: Config, worker: bool) -> Result<()> {
    config.check_serving()?;
    let key = key(&config)?;
    let (listener, config) = listen(config).await?;
    let app = App::start(config, key, false).await?;
    tracing::info!(address = %app.services.config.http, "serving");
    until_signalled(app, Some(listener), worker).await
}

/// Runs jobs until SIGINT or SIGTERM.
pub(super) async fn worker(config: Config) -> Result<()> {
    let key = key(&config)?;
    let app = App::start(config, key, false).await?;
    tracing::info!(
        concurrency = app.services.config.worker_concurrency,
        "running jobs"
    );
    until_signalled(app, None, true).await
}

/// Takes the address first: one that is in use is said before anything else is done. From here on the configuration has
/// the port that was taken, where any was asked for.
pub(super) async fn listen(config: Config) -> Result<(TcpListener, Config)> {
    let listener = TcpListener::bind(config.http).await.map_err(|e| {
        Error::config(format!(
            "cannot listen at {}: {e}; choose another with --http",
            config.http
        ))
    })?;
    let http = listener.local_addr().map_err(Error::internal)?;
    allow_files(config.http_limits.connections);
    Ok((listener, Config { http, ..config }))
}

/// Each connection is an open file, of which a process may often have no more than 1024 unless it asks.
fn allow_files(connections: u32) {
    let wanted = u64::from(connections) + FILES;
    let allowed = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        let raised = wanted.min(hard).max(soft);
        setrlimit(Resource::RLIMIT_NOFILE, raised, hard).map(|()| raised)
    });
    if !allowed.is_ok_and(|allowed| allowed >= wanted) {
        tracing::warn!(
            wanted,
            "the system allows fewer open files than http_limits.connections needs: raise `ulimit -n`"
        );
    }
}

/// Serves and runs jobs until a signal, or until our PostgreSQL ends, and then stops all of it: no new requests and claims,
/// those under way finished within 30 seconds, connections closed, PostgreSQL stopped. A second signal ends at once.
pub(super) async fn until_signalled(
    app: App,
    listener: Option<TcpListener>,
    worker: bool,
) -> Result<()> {
    let metrics = metrics(&app.services.config).await?;
    let worker = if worker {
        Some(app.worker().await)
    } else {
        None
    };
    let stop = CancellationToken::new();
    let served = async {
        match listener {
            Some(listener) => tokio::select! {
                () = http::serve(&app, listener, stop.clone().cancelled_owned()) => {}
                // A client that never finishes its request does not keep the process.
                () = async { stop.cancelled().await; sleep(DRAIN).await } => {}
            },
            None => stop.cancelled().await,
        }
    };
    let worked = async {
        stop.cancelled().await;
        if let Some(worker) = worker {
            worker.stop().await;
        }
    };
    let metered = async {
        if let Some(listener) = metrics {
            let services = Arc::clone(&app.services);
            let stopped = stop.clone().cancelled_owned();
            if let Err(error) = http::serve_metrics(services, listener, stopped).await {
                tracing::error!(?error, "metrics are not served any more");
            }
        }
    };
    let asked = async {
        let reason = tokio::select! {
            signalled = signalled() => signalled.map(|()| None),
            ended = app.database_ended() => Ok(Some(ended)),
        };
        stop.cancel();
        reason
    };
    let again = async {
        stop.cancelled().await;
        signalled().await
    };
    let reason = tokio::select! {
        ((), (), (), reason) = async { tokio::join!(served, worked, metered, asked) } => reason,
        again = again => return again.and(Err(Error::config("ended at once, as asked; what was under way was cut short"))),
    };
    let stopped = app.stop().await;
    match reason? {
        Some(ended) => Err(ended),
        None => stopped,
    }
}

/// Where Prometheus is to find what is counted, if anywhere.
async fn metrics(config: &Config) -> Result<Option<TcpListener>> {
    let Some(address) = config.metrics_listen else {
        return Ok(None);
    };
    let listener = TcpListener::bind(address).await.map_err(|e| {
        Error::config(format!(
            "cannot listen at {address}, which is metrics_listen: {e}"
        ))
    })?;
    let bound = listener.local_addr().map_err(Error::internal)?;
    tracing::info!(address = %bound, "serving metrics");
    if !bound.ip().is_loopback() {
        tracing::warn!("metrics name tenants, and are served to whoever reaches metrics_listen");
    }
    Ok(Some(listener))
}

async fn signalled() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::internal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::internal)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// The configured key; with the managed server, one that is made once and kept beside its data.
pub(super) fn key(config: &Config) -> Result<SecretKey> {
    if config.secret_key.is_some() || config.database_url.is_some() {
        return SecretKey::new(config.secret_key()?);
    }
    let path = config.data_dir.join("secret_key");
    let cannot = |e: std::io::Error| Error::config(format!("{}: {e}", path.display()));
    match fs::read_to_string(&path) {
        Ok(text) => SecretKey::new(text.trim()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            fs::create_dir_all(&config.data_dir).map_err(cannot)?;
            let text = crate::secret::new_token("");
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
                .map_err(cannot)?;
            file.write_all(text.as_bytes())
                .and_then(|()| file.sync_all())
                .map_err(cannot)?;
            SecretKey::new(&text)
        }
        Err(e) => Err(cannot(e)),
    }
}

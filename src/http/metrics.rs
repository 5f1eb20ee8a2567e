//! `/metrics` for Prometheus, at an address of its own: it is for operators alone, and names tenants.

use crate::error::{Error, Result};
use crate::jobs::operate::{self, Load, QueueLoad};
use crate::services::Services;
use crate::telemetry::PREFIX;
use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::net::TcpListener;

/// Tenants that are told of: the busiest.
const TENANTS: u32 = 20;
/// OpenMetrics 1.0, which Prometheus reads.
const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves them until `shutdown`.
pub async fn serve_metrics(
    services: Arc<Services>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .with_state(services);
    axum::serve(listener, routes)
        .with_graceful_shutdown(shutdown)
        .await
        .map_err(Error::internal)
}

async fn metrics(State(services): State<Arc<Services>>) -> Result<Response> {
    let tx = services.database.platform().await?;
    let queues = operate::queues(&tx).await?;
    let tenants = operate::top(&tx, TENANTS).await?;
    tx.commit().await?;
    let mut now = Registry::with_prefix(PREFIX);
    of_queues(&mut now, &queues);
    of_tenants(&mut now, &tenants);
    let text = services.metrics.text(&now)?;
    Ok(([(CONTENT_TYPE, TEXT)], text).into_response())
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Queue {
    queue: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Tenant {
    tenant: String,
}

/// Half of a tenant's jobs, or all but a hundredth.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Quantile {
    tenant: String,
    quantile: &'static str,
}

type Seconds<L> = Family<L, Gauge<f64, AtomicU64>>;

fn of_queues(now: &mut Registry, queues: &[QueueLoad]) {
    let label = |load: &QueueLoad| Queue {
        queue: load.queue.clone(),
    };
    let help = "Jobs that wait for a worker, up to 100,000 a lane";
    counts(now, ("jobs_ready", help), queues, |load| {
        (label(load), load.ready)
    });
    let help = "Jobs that run";
    counts(now, ("jobs_running", help), queues, |load| {
        (label(load), load.running)
    });
    let help = "Kinds that are held back for a tenant because they keep failing";
    counts(now, ("job_kinds_held", help), queues, |load| {
        (label(load), load.held)
    });
    let help = "Seconds that the first one waits";
    times(now, ("jobs_oldest_seconds", help), queues, |load| {
        (label(load), load.oldest)
    });
}

fn of_tenants(now: &mut Registry, loads: &[Load]) {
    let label = |load: &Load| Tenant {
        tenant: load.tenant.clone().unwrap_or_default(),
    };
    let help = "Jobs of a busy tenant that wait for a worker; without a name, the platform's";
    counts(now, ("tenant_jobs_ready", help), loads, |load| {
        (label(load), load.ready)
    });
    let help = "Jobs of a busy tenant that run";
    counts(now, ("tenant_jobs_running", help), loads, |load| {
        (label(load), load.running)
    });
    let help = "Jobs of a busy tenant that ended in the last minute";
    counts(now, ("tenant_jobs_done_minute", help), loads, |load| {
        (label(load), load.done)
    });
    let help = "Those of them that failed for good";
    counts(now, ("tenant_jobs_dead_minute", help), loads, |load| {
        (label(load), load.dead)
    });
    let help = "Seconds that the first one of a busy tenant waits";
    times(now, ("tenant_jobs_oldest_seconds", help), loads, |load| {
        (label(load), load.oldest)
    });
    // Not histograms: there would be a series more for each bucket and tenant.
    let help = "Seconds that jobs of a busy tenant that ended in the last minute waited";
    let waits = quantiles(loads, |load| [load.wait, load.wait_99]);
    times(now, ("tenant_job_wait_seconds", help), &waits, Clone::clone);
    let help = "Seconds that they ran";
    let runs = quantiles(loads, |load| [load.run, load.run_99]);
    times(now, ("tenant_job_run_seconds", help), &runs, Clone::clone);
}

/// Of the tenants that have some.
fn quantiles(
    loads: &[Load],
    each: impl Fn(&Load) -> [Option<f64>; 2],
) -> Vec<(Quantile, Option<f64>)> {
    let of = |load: &Load| {
        let tenant = load.tenant.clone().unwrap_or_default();
        let label = |quantile| Quantile {
            tenant: tenant.clone(),
            quantile,
        };
        let told = [label("0.5"), label("0.99")].into_iter().zip(each(load));
        told.filter(|(_, seconds)| seconds.is_some())
            .collect::<Vec<_>>()
    };
    loads.iter().flat_map(of).collect()
}

fn counts<T, L>(
    now: &mut Registry,
    (name, help): (&str, &str),
    of: &[T],
    each: impl Fn(&T) -> (L, i64),
) where
    L: Clone + Hash + Eq + EncodeLabelSet + std::fmt::Debug + Send + Sync + 'static,
{
    let family = Family::<L, Gauge>::default();
    for (label, value) in of.iter().map(each) {
        family.get_or_create(&label).set(value);
    }
    now.register(name, help, family);
}

fn times<T, L>(
    now: &mut Registry,
    (name, help): (&str, &str),
    of: &[T],
    each: impl Fn(&T) -> (L, Option<f64>),
) where
    L: Clone + Hash + Eq + EncodeLabelSet + std::fmt::Debug + Send + Sync + 'static,
{
    let family = Seconds::<L>::default();
    for (label, value) in of.iter().map(each) {
        family.get_or_create(&label).set(value.unwrap_or_default());
    }
    now.register(name, help, family);
}

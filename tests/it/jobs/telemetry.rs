//! What is counted of jobs, and how a job is traced back to its request.

use super::{End, How, Make, Wait, count, enqueue, gate, latest, new_id, private, reaches, worker};
use crate::harness::{finish, png, run, until};
use bulkhead::error::Result;
use bulkhead::http::serve_metrics;
use bulkhead::jobs::{self, Job, JobContext, Kinds, Worker};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::net::TcpListener;
use uuid::Uuid;

/// The value of a line of metrics.
fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = text.lines().filter_map(|line| line.rsplit_once(' '));
    lines.find(|(of, _)| *of == name).map(|(_, value)| value)
}

/// One job waits, one runs, one is done and one is dead.
fn told(text: &str, tenant: &str) {
    let of = |name: &str| value(text, name).unwrap_or_else(|| panic!("no {name} in {text}"));
    assert_eq!(of("bulkhead_jobs_ready{queue=\"default\"}"), "1");
    assert_eq!(of("bulkhead_jobs_running{queue=\"default\"}"), "1");
    let oldest = of("bulkhead_jobs_oldest_seconds{queue=\"default\"}");
    assert!(oldest.parse::<f64>().unwrap() > 0.0);
    assert_eq!(of("bulkhead_job_kinds_held{queue=\"default\"}"), "0");
    assert_eq!(
        of("bulkhead_job_runs_total{queue=\"default\",outcome=\"dead\"}"),
        "1"
    );
    assert_eq!(
        of("bulkhead_job_runs_total{queue=\"default\",outcome=\"done\"}"),
        "1"
    );
    assert_eq!(
        of("bulkhead_job_wait_seconds_count{queue=\"default\"}"),
        "2"
    );
    let runs = "bulkhead_job_run_seconds_count{queue=\"default\",kind=\"test.make\"}";
    assert_eq!(of(runs), "1");
    assert_ne!(of("bulkhead_job_claim_seconds_count"), "0");
    assert_eq!(of("bulkhead_job_fenced_total"), "0");
    assert_eq!(of("bulkhead_job_reaped_total"), "0");
    let tenants = |name: &str| of(&format!("bulkhead_{name}{{tenant=\"{tenant}\"}}"));
    assert_eq!(tenants("tenant_jobs_ready"), "1");
    assert_eq!(tenants("tenant_jobs_running"), "1");
    assert_eq!(tenants("tenant_jobs_dead_minute"), "1");
}

#[test]
fn prometheus_is_told_of_queues_and_busy_tenants() {
    run(async {
        let (tenant, owner) = private(1).await;
        let world = tenant.world;
        let worker = worker(world).await;
        let refused = End {
            gate: new_id(),
            how: vec![How::Refused],
        };
        let dead = enqueue(&tenant, &refused).await;
        reaches(&tenant, &owner, dead, "FAILED").await;
        let made = enqueue(
            &tenant,
            &Make {
                device: "D-1".to_owned(),
            },
        )
        .await;
        reaches(&tenant, &owner, made, "SUCCEEDED").await;
        let waiting = new_id();
        let running = enqueue(&tenant, &Wait { gate: waiting }).await;
        reaches(&tenant, &owner, running, "RUNNING").await;
        let second = new_id();
        let ready = enqueue(&tenant, &Wait { gate: second }).await;

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/metrics", listener.local_addr().unwrap());
        let services = Arc::clone(&world.app.services);
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = tokio::spawn(serve_metrics(services, listener, async {
            let _ = stopped.await;
        }));
        let answer = world.client.get(&url).send().await.unwrap();
        let kind = answer.headers()["content-type"]
            .to_str()
            .unwrap()
            .to_owned();
        assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
        let text = answer.text().await.unwrap();
        assert!(text.ends_with("# EOF\n"), "{text}");
        told(&text, &tenant.slug);
        // Not where tenants are served.
        let there = tenant.request(Method::GET, "/metrics");
        assert_eq!(tenant.send(there).await.status, 404);

        gate(waiting).doors[0].add_permits(1);
        gate(second).doors[0].add_permits(1);
        reaches(&tenant, &owner, ready, "SUCCEEDED").await;
        stop.send(()).unwrap();
        serving.await.unwrap().unwrap();
        worker.stop().await;
    });
}

/// Adds another.
#[derive(Debug, Serialize, Deserialize)]
struct Parent {}

impl Job for Parent {
    const NAME: &'static str = "test.parent";

    async fn run(self, ctx: &JobContext) -> Result<()> {
        let tx = ctx.begin().await?;
        let added = jobs::enqueue(&tx, &Child {}).await;
        tx.settle(added).await.map(drop)
    }
}

/// Does nothing.
#[derive(Debug, Serialize, Deserialize)]
struct Child {}

impl Job for Child {
    const NAME: &'static str = "test.child";

    async fn run(self, _: &JobContext) -> Result<()> {
        Ok(())
    }
}

#[test]
fn a_job_belongs_to_the_trace_of_its_request_and_its_children_do() {
    run(async {
        let (tenant, owner) = private(1).await;
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let made = tenant.upload(&owner).await;
        let put = tenant.follow(Method::PUT, made["upload"]["url"].as_str().unwrap());
        tenant.send(put.body(png())).await;
        let complete = format!(
            "mutation {{ mediaCompleteUpload(input: {{ mediaId: {} }}) {{ errors {{ code }} }} }}",
            made["media"]["id"]
        );
        let request = tenant
            .request(Method::POST, "/graphql")
            .bearer_auth(&owner)
            .header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"))
            .json(&json!({ "query": complete }));
        let answer = tenant.send(request).await;
        assert_eq!(answer.payload()["errors"], json!([]));
        let job = latest(&tenant, &owner).await;
        let shown = show(&tenant, job);
        // The job's parent is the request, which is in the trace of who sent it.
        let request_id = answer.header("x-request-id").replace('-', "");
        let span = &request_id[16..];
        assert_eq!(shown["trace"], format!("00-{trace}-{span}-01"));
        assert_eq!(shown["request_id"], answer.header("x-request-id"));

        let kinds = Kinds::default().with::<Parent>().with::<Child>();
        let worker = Worker::start(Arc::clone(&tenant.world.app.services), kinds).await;
        let parent = enqueue(&tenant, &Parent {}).await;
        let done = "SELECT count(*) FROM bulkhead.job_done WHERE kind = 'test.child'";
        until("the child is done", async || {
            (count(tenant.world, done).await == 1).then_some(())
        })
        .await;
        let child =
            sqlx::query_scalar("SELECT id FROM bulkhead.job_done WHERE kind = 'test.child'");
        let child: Uuid = child
            .fetch_one(&mut tenant.world.superuser().await)
            .await
            .unwrap();
        let id = parent.simple().to_string();
        assert_eq!(
            show(&tenant, child)["trace"],
            format!("00-{id}-{}-01", &id[16..]),
            "what the system adds begins a trace"
        );
        worker.stop().await;
    });
}

fn show(tenant: &crate::harness::Tenant, job: Uuid) -> Value {
    let mut show = tenant.world.command();
    let (code, out, err) = finish(show.args(["jobs", "show", &job.to_string(), "--json"]), "");
    assert_eq!(code, Some(0), "{err}");
    serde_json::from_str(&out).unwrap()
}

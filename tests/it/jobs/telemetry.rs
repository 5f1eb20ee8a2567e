//! What is counted of jobs, and how a job is traced back to its request.

use super::{
    End, How, Make, Wait, count, enqueue, execute, gate, latest, new_id, private, reaches, worker,
};
use crate::harness::{Process, Tenant, World, finish, png, run, until};
use bulkhead::error::Result;
use bulkhead::http::serve_metrics;
use bulkhead::jobs::{self, Job, JobContext, Kinds, Worker};
use nix::sys::signal::Signal;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;
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

/// What Prometheus is told just now.
async fn scraped(world: &World) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/metrics", listener.local_addr().unwrap());
    let services = Arc::clone(&world.app.services);
    let serving = tokio::spawn(serve_metrics(services, listener, std::future::pending()));
    let answer = world.client.get(&url).send().await.unwrap();
    let text = answer.text().await.unwrap();
    serving.abort();
    text
}

#[test]
fn what_is_taken_back_refused_or_held_back_is_counted() {
    run(async {
        let (tenant, owner) = private(1).await;
        let world = tenant.world;
        let worker = worker(world).await;
        let waiting = new_id();
        let job = enqueue(&tenant, &Wait { gate: waiting }).await;
        until("it runs", async || {
            (gate(waiting).runs.load(Ordering::SeqCst) == 1).then_some(())
        })
        .await;
        let lost =
            "UPDATE bulkhead.job SET claim = claim + 1, lease_until = now() - interval '1 second'";
        execute(world, lost).await;
        for door in &gate(waiting).doors {
            door.add_permits(1);
        }
        let done = reaches(&tenant, &owner, job, "SUCCEEDED").await;
        assert_eq!(done["attempts"], 2);
        let held = format!(
            "INSERT INTO bulkhead.breaker (lane, kind, failures, held_until)
             SELECT id, 'test.end', 3, now() + interval '1 hour' FROM bulkhead.lane WHERE tenant_id = '{}'",
            tenant.row.id
        );
        execute(world, &held).await;
        let text = scraped(world).await;
        let done_minute = format!(
            "bulkhead_tenant_jobs_done_minute{{tenant=\"{}\"}}",
            tenant.slug
        );
        for (name, expected) in [
            ("bulkhead_job_fenced_total", "1"),
            ("bulkhead_job_reaped_total", "1"),
            ("bulkhead_job_kinds_held{queue=\"default\"}", "1"),
            (&done_minute, "1"),
        ] {
            assert_eq!(value(&text, name), Some(expected), "{name}: {text}");
        }
        for name in ["wait", "run"] {
            let of = |quantile| {
                let slug = &tenant.slug;
                let series = format!(
                    "bulkhead_tenant_job_{name}_seconds{{tenant=\"{slug}\",quantile=\"{quantile}\"}}"
                );
                let seconds: f64 = value(&text, &series).expect(&text).parse().unwrap();
                seconds
            };
            assert!(of("0.5") > 0.0 && of("0.99") >= of("0.5"), "{text}");
        }
        worker.stop().await;
    });
}

/// Adds others, in each of the ways that there are.
#[derive(Debug, Serialize, Deserialize)]
struct Parent {}

impl Job for Parent {
    const NAME: &'static str = "test.parent";

    async fn run(self, ctx: &JobContext) -> Result<()> {
        let tx = ctx.begin().await?;
        let added = async {
            jobs::enqueue(&tx, &Child {}).await?;
            jobs::batch(&tx).add(&Child {}).then(&Child {}).await
        };
        let added = added.await;
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
        let line = logged(&tenant, job).await;
        assert_eq!(
            (&line["trace.id"], &line["trace.parent"], &line["tenant"]),
            (&json!(trace), &json!(span), &json!(tenant.slug)),
            "{line:#}"
        );

        let kinds = Kinds::default().with::<Parent>().with::<Child>();
        let worker = Worker::start(Arc::clone(&tenant.world.app.services), kinds).await;
        let parent = enqueue(&tenant, &Parent {}).await;
        let done = "SELECT count(*) FROM bulkhead.job_done WHERE kind = 'test.child'";
        until("the children are done", async || {
            (count(tenant.world, done).await == 3).then_some(())
        })
        .await;
        let children = "SELECT id FROM bulkhead.job_done WHERE kind = 'test.child'";
        let children: Vec<Uuid> = sqlx::query_scalar(children)
            .fetch_all(&mut tenant.world.superuser().await)
            .await
            .unwrap();
        let id = parent.simple().to_string();
        for child in children {
            assert_eq!(
                show(&tenant, child)["trace"],
                format!("00-{id}-{}-01", &id[16..]),
                "what the system adds begins a trace"
            );
        }
        worker.stop().await;
    });
}

/// The span of the line that a worker logs of this job, as it fails.
async fn logged(tenant: &Tenant, job: Uuid) -> Value {
    let unfit = format!("UPDATE bulkhead.job SET args = '{{}}' WHERE id = '{job}'");
    execute(tenant.world, &unfit).await;
    let mut command = tenant.world.command();
    command.arg("worker").env("BULKHEAD_LOG_FORMAT", "json");
    let mut worker = Process::start(&mut command);
    let lines = worker.says("a job failed").await;
    let line = lines.lines().find(|line| line.contains("a job failed"));
    let line: Value = serde_json::from_str(line.unwrap()).unwrap();
    worker.signal(Signal::SIGTERM);
    worker.ended().await;
    line["span"].clone()
}

fn show(tenant: &Tenant, job: Uuid) -> Value {
    let mut show = tenant.world.command();
    let (code, out, err) = finish(show.args(["jobs", "show", &job.to_string(), "--json"]), "");
    assert_eq!(code, Some(0), "{err}");
    serde_json::from_str(&out).unwrap()
}

//! Tenants that are taken out of use and come back, whatever their lanes are at.

use super::super::{Wait, enqueue, execute, gate, new_id, node, open, private, reaches, worker};
use super::count;
use crate::harness::{Tenant, finish, run, until};
use bulkhead::identity::BuiltIn;
use bulkhead::jobs;
use serde_json::json;
use uuid::Uuid;

/// A tenant with a job in each state in which it is not over, and its gate if it waits for one.
struct Full {
    tenant: Tenant,
    owner: String,
    running: (Uuid, Uuid),
    ready: Uuid,
    scheduled: Uuid,
    /// Until another, which is ready, is over.
    waiting: Uuid,
}

impl Full {
    /// Of the jobs one runs, for the lane has room for one.
    async fn new(beside: &Tenant) -> Self {
        let tenant = Tenant::of(beside.world).await;
        let owner = tenant.token(BuiltIn::Owner).await;
        tenant.set("cap = 1").await;
        let gate = new_id();
        let running = enqueue(&tenant, &Wait { gate }).await;
        reaches(&tenant, &owner, running, "RUNNING").await;
        let ready = enqueue(&tenant, &Wait { gate: open() }).await;
        let scheduled = enqueue(&tenant, &Wait { gate: open() }).await;
        let later = format!(
            "UPDATE bulkhead.job SET state = 6, run_at = now() + interval '1 day' WHERE id = '{scheduled}'"
        );
        execute(tenant.world, &later).await;
        let tx = tenant.write().await;
        let batch = jobs::batch(&tx).add(&Wait { gate: open() });
        let waiting = batch.then(&Wait { gate: open() }).await;
        tx.commit().await.unwrap();
        Self {
            tenant,
            owner,
            running: (running, gate),
            ready,
            scheduled,
            waiting: waiting.unwrap(),
        }
    }

    fn command(&self, args: &[&str]) {
        command(&self.tenant, args);
    }

    async fn state(&self, job: Uuid) -> String {
        let sql = format!(
            "SELECT coalesce((SELECT CASE state WHEN 1 THEN 'ready' WHEN 2 THEN 'running' WHEN 7 THEN 'waiting' ELSE 'scheduled' END
                 FROM bulkhead.job WHERE id = '{job}'), 'over')"
        );
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .fetch_one(&mut self.tenant.world.superuser().await)
            .await
            .unwrap()
    }

    /// Its time has come, and somebody else's job has run since: the worker has looked.
    async fn passes_by(&self, other: &Tenant, theirs: &str) {
        let due = format!(
            "UPDATE bulkhead.job SET run_at = now() WHERE id = '{}' AND state = 6",
            self.scheduled
        );
        execute(other.world, &due).await;
        until("its time is seen", async || {
            (self.state(self.scheduled).await == "ready").then_some(())
        })
        .await;
        let next = enqueue(other, &Wait { gate: open() }).await;
        reaches(other, theirs, next, "SUCCEEDED").await;
        assert_eq!(self.state(self.ready).await, "ready");
        assert_eq!(self.state(self.scheduled).await, "ready");
        assert_eq!(self.state(self.waiting).await, "waiting");
    }

    async fn all_succeed(&self) {
        for job in [self.running.0, self.ready, self.scheduled, self.waiting] {
            let done = reaches(&self.tenant, &self.owner, job, "SUCCEEDED").await;
            assert_eq!(done["attempts"], 1, "{done:#}");
        }
    }
}

impl Tenant {
    async fn set(&self, what: &str) {
        let sql = format!(
            "UPDATE bulkhead.lane SET {what} WHERE tenant_id = '{}'",
            self.row.id
        );
        execute(self.world, &sql).await;
    }
}

fn command(tenant: &Tenant, args: &[&str]) {
    let (code, _, err) = finish(tenant.world.command().arg("tenant").args(args), "");
    assert_eq!(code, Some(0), "{args:?}: {err}");
}

#[test]
fn jobs_of_a_suspended_tenant_wait_and_run_when_it_is_resumed() {
    run(async {
        let (other, theirs) = private(2).await;
        let worker = worker(other.world).await;
        let full = Full::new(&other).await;
        full.command(&["suspend", &full.tenant.slug]);
        assert_eq!(
            full.state(full.running.0).await,
            "running",
            "it is let finish"
        );
        gate(full.running.1).doors[0].add_permits(1);
        until("what runs ends", async || {
            (full.state(full.running.0).await == "over").then_some(())
        })
        .await;
        full.passes_by(&other, &theirs).await;
        full.command(&["resume", &full.tenant.slug]);
        full.all_succeed().await;
        worker.stop().await;
    });
}

#[test]
fn jobs_of_an_archived_tenant_wait_and_run_when_it_is_restored() {
    run(async {
        let (other, theirs) = private(2).await;
        let worker = worker(other.world).await;
        let full = Full::new(&other).await;
        full.tenant.set("paused = 'for a test'").await;
        let archive = std::thread::spawn({
            let mut command = full.tenant.world.command();
            let slug = full.tenant.slug.clone();
            move || finish(command.args(["tenant", "archive", &slug]), "")
        });
        let archived = format!(
            "SELECT count(*) FROM bulkhead.tenant WHERE id = '{}' AND state = 'archived'",
            full.tenant.row.id
        );
        until("it is archived", async || {
            (count(other.world, &archived).await == 1).then_some(())
        })
        .await;
        assert!(!archive.is_finished(), "what runs is waited for");
        gate(full.running.1).doors[0].add_permits(1);
        let (code, _, err) = tokio::task::spawn_blocking(|| archive.join().unwrap())
            .await
            .unwrap();
        assert_eq!(code, Some(0), "{err}");
        assert_eq!(full.state(full.running.0).await, "over");
        full.passes_by(&other, &theirs).await;
        full.command(&["restore", &full.tenant.slug]);
        let next = enqueue(&other, &Wait { gate: open() }).await;
        reaches(&other, &theirs, next, "SUCCEEDED").await;
        assert_eq!(
            node(&full.tenant, &full.owner, full.ready).await["state"],
            json!("QUEUED"),
            "its lane is paused still"
        );
        full.tenant.set("paused = NULL").await;
        full.all_succeed().await;
        worker.stop().await;
    });
}

#[test]
fn a_deleted_tenant_has_no_jobs_and_no_lanes() {
    run(async {
        let (other, theirs) = private(2).await;
        let worker = worker(other.world).await;
        let full = Full::new(&other).await;
        gate(full.running.1).doors[0].add_permits(1);
        full.tenant.set("cap = NULL").await;
        full.command(&["archive", &full.tenant.slug]);
        // There is no unit of work in which its kind could tidy up: it is ended all the same.
        let id = full.scheduled.to_string();
        let (code, out, err) = finish(other.world.command().args(["jobs", "cancel", &id]), "");
        assert_eq!(
            (code, out.as_str()),
            (Some(0), "1 of 1 jobs cancelled, or told to end\n"),
            "{err}"
        );
        assert_eq!(full.state(full.scheduled).await, "over");
        full.command(&["delete", &full.tenant.slug, "--yes"]);
        let left = format!(
            "SELECT (SELECT count(*) FROM bulkhead.job WHERE tenant_id = '{0}')
                 + (SELECT count(*) FROM bulkhead.job_done WHERE tenant_id = '{0}')
                 + (SELECT count(*) FROM bulkhead.lane WHERE tenant_id = '{0}')",
            full.tenant.row.id
        );
        assert_eq!(count(other.world, &left).await, 0);
        let next = enqueue(&other, &Wait { gate: open() }).await;
        reaches(&other, &theirs, next, "SUCCEEDED").await;
        worker.stop().await;
    });
}

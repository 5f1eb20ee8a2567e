//! A tenant's limits on its running jobs, and on those that are not over.

use super::{Wait, count, enqueue, execute, gate, new_id, node, open, private, reaches, worker};
use crate::harness::{Tenant, finish, png, run, until};
use bulkhead::error::Error;
use bulkhead::identity::BuiltIn;
use bulkhead::jobs;
use bulkhead::media::jobs::Sweep;
use reqwest::{Method, StatusCode};
use sqlx::{AssertSqlSafe, Executor as _};

#[test]
fn a_tenant_runs_as_many_jobs_as_it_may_and_others_run_on() {
    run(async {
        let (tenant, owner) = private(3).await;
        let other = Tenant::of(tenant.world).await;
        let theirs = other.token(BuiltIn::Owner).await;
        let set = |limit: &str| {
            let mut command = tenant.world.command();
            let args = ["tenant", "set", &tenant.slug, "--limit", limit];
            let (code, _, err) = finish(command.args(args), "");
            assert_eq!(code, Some(0), "{err}");
        };
        set("concurrent_jobs=1");
        let gates = [new_id(), open()];
        let first = enqueue(&tenant, &Wait { gate: gates[0] }).await;
        let second = enqueue(&tenant, &Wait { gate: gates[1] }).await;
        let third = enqueue(&other, &Wait { gate: open() }).await;
        let worker = worker(tenant.world).await;
        reaches(&tenant, &owner, first, "RUNNING").await;
        // It came after the second, and ran: a place was free.
        reaches(&other, &theirs, third, "SUCCEEDED").await;
        assert_eq!(node(&tenant, &owner, second).await["state"], "QUEUED");
        let limits = ["tenant", "limits", &tenant.slug];
        let (_, out, err) = finish(tenant.world.command().args(limits), "");
        let line = out.lines().find(|line| line.starts_with("concurrent_jobs"));
        let words: Vec<_> = line.expect(&err).split_whitespace().collect();
        assert_eq!(words, ["concurrent_jobs", "1", "own", "1"]);
        set("concurrent_jobs=2");
        reaches(&tenant, &owner, second, "SUCCEEDED").await;
        assert_eq!(node(&tenant, &owner, first).await["state"], "RUNNING");
        gate(gates[0]).doors[0].add_permits(1);
        reaches(&tenant, &owner, first, "SUCCEEDED").await;
        worker.stop().await;
    });
}

/// Another worker's claim that is not committed yet counts all the same.
#[test]
fn two_claims_at_once_do_not_go_over_the_limit() {
    run(async {
        let (tenant, owner) = private(3).await;
        let other = Tenant::of(tenant.world).await;
        let theirs = other.token(BuiltIn::Owner).await;
        let set = [
            "tenant",
            "set",
            &tenant.slug,
            "--limit",
            "concurrent_jobs=1",
        ];
        assert_eq!(finish(tenant.world.command().args(set), "").0, Some(0));
        let first = enqueue(&tenant, &Wait { gate: open() }).await;
        let second = enqueue(&tenant, &Wait { gate: open() }).await;
        let mut elsewhere = tenant.world.superuser().await;
        let claim = format!(
            "SET search_path TO bulkhead, pg_temp; BEGIN;
             SELECT * FROM take_jobs('{}', ARRAY(SELECT id FROM lane WHERE tenant_id = '{}'), 1, NULL, '{{\"\": 1}}', '{{}}')",
            new_id(),
            tenant.row.id
        );
        let claim = sqlx::raw_sql(AssertSqlSafe(claim));
        elsewhere.execute(claim).await.unwrap();
        let worker = worker(tenant.world).await;
        let waiting = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock'";
        until("the worker waits for the other claim", async || {
            (count(tenant.world, waiting).await == 1).then_some(())
        })
        .await;
        elsewhere.execute("COMMIT").await.unwrap();
        let third = enqueue(&other, &Wait { gate: open() }).await;
        reaches(&other, &theirs, third, "SUCCEEDED").await;
        assert_eq!(node(&tenant, &owner, second).await["state"], "QUEUED");
        let ended = format!("DELETE FROM bulkhead.job WHERE id = '{first}'");
        execute(tenant.world, &ended).await;
        reaches(&tenant, &owner, second, "SUCCEEDED").await;
        worker.stop().await;
    });
}

#[test]
fn a_tenant_has_as_many_jobs_in_the_queue_as_it_may() {
    run(async {
        let (tenant, owner) = private(1).await;
        let other = Tenant::of(tenant.world).await;
        let set = |limit: &str| {
            let mut command = tenant.world.command();
            let args = ["tenant", "set", &tenant.slug, "--limit", limit];
            let (code, out, err) = finish(command.args(args), "");
            assert_eq!(code, Some(0), "{err}");
            out
        };
        assert!(set("devices=9").contains("queued_jobs          100000"));
        set("queued_jobs=3");
        let waiting = new_id();
        for _ in 0..2 {
            enqueue(&tenant, &Wait { gate: waiting }).await;
        }
        let tx = tenant.write().await;
        let job = Wait { gate: waiting };
        let batch = jobs::batch(&tx).add(&job).then(&job).await;
        let told = batch.unwrap_err().to_string();
        assert_eq!(told, "The tenant's limit queued_jobs is 3, and 2 are used.");
        let third = jobs::enqueue(&tx, &Sweep {}).await.unwrap();
        let fourth = jobs::enqueue(&tx, &job).await;
        assert!(matches!(fourth, Err(Error::QuotaExceeded(_))), "{fourth:?}");
        let again = jobs::enqueue(&tx, &Sweep {}).await.unwrap();
        assert_eq!(again, third, "what is there already needs no room");
        tx.commit().await.unwrap();
        enqueue(&other, &Wait { gate: waiting }).await;
        assert_eq!(
            count(tenant.world, "SELECT count(*) FROM bulkhead.job").await,
            4
        );

        let made = tenant.upload(&owner).await;
        let put = tenant.follow(Method::PUT, made["upload"]["url"].as_str().unwrap());
        let put = tenant.send(put.body(png())).await;
        assert_eq!(put.status, StatusCode::CREATED);
        let complete = format!(
            "mutation {{ mediaCompleteUpload(input: {{ mediaId: {} }}) {{
                 job {{ id }} errors {{ code message ... on QuotaExceededError {{ quota {{ name used limit }} }} }} }} }}",
            made["media"]["id"]
        );
        let refused = tenant.gql(Some(&owner), &complete).await;
        let failure = refused.failure();
        assert_eq!(failure["code"], "QUOTA_EXCEEDED");
        assert_eq!(
            failure["quota"],
            serde_json::json!({ "name": "QUEUED_JOBS", "used": 3, "limit": 3 })
        );
        set("queued_jobs=4");
        // Every server hears of it within a second.
        until("there is room", async || {
            let answer = tenant.gql(Some(&owner), &complete).await;
            (answer.payload()["errors"] == serde_json::json!([])).then_some(())
        })
        .await;
    });
}

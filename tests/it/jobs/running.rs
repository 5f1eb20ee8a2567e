//! Jobs that run: once, for their tenant, if their cause is there; and how they are listed.

use super::{
    End, How, Make, Wait, count, enqueue, execute, gate, global, hurry, insert, new_id, node, open,
    private, reaches, worker,
};
use crate::harness::{Tenant, run, until};
use bulkhead::error::{Error, Result};
use bulkhead::identity::BuiltIn;
use bulkhead::jobs::{self, Job as _, Kinds, Worker};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

#[test]
fn two_workers_run_each_of_200_jobs_once() {
    run(async {
        let (tenant, _) = private(4).await;
        let beside = tenant
            .world
            .beside(|config| config.worker_prefetch = 64)
            .await;
        let workers = [worker(tenant.world).await, worker(beside).await];
        let tx = tenant.write().await;
        for number in 0..200 {
            let job = Make {
                device: format!("device-{number}"),
            };
            jobs::enqueue(&tx, &job).await.unwrap();
        }
        tx.commit().await.unwrap();
        let left = "SELECT count(*) FROM bulkhead.job";
        until("all are done", async || {
            (count(tenant.world, left).await == 0).then_some(())
        })
        .await;
        let others = "SELECT json_agg(json_build_array(state, attempt, errors))::text FROM bulkhead.job_done WHERE attempt <> 1";
        let others: Option<String> = sqlx::query_scalar(others)
            .fetch_one(&mut tenant.world.superuser().await)
            .await
            .unwrap();
        assert_eq!(others, None);
        let schema = &tenant.row.schema_name;
        for (sql, expected) in [
            (format!("SELECT count(*) FROM {schema}.device"), 200),
            (
                format!("SELECT count(*) FROM {schema}.history WHERE actor LIKE 'job:%'"),
                200,
            ),
            (
                format!(
                    "SELECT count(DISTINCT actor) FROM {schema}.history WHERE actor LIKE 'job:%'"
                ),
                200,
            ),
            (
                "SELECT count(*) FROM bulkhead.job_done WHERE state = 3 AND attempt = 1".to_owned(),
                200,
            ),
        ] {
            assert_eq!(count(tenant.world, &sql).await, expected, "{sql}");
        }
        for worker in workers {
            worker.stop().await;
        }
    });
}

#[test]
fn a_job_is_there_if_its_cause_is() {
    run(async {
        let (tenant, owner) = private(1).await;
        let make = |device: &str| Make {
            device: device.to_owned(),
        };
        let tx = tenant.write().await;
        jobs::enqueue(&tx, &make("undone")).await.unwrap();
        tx.rollback().await.unwrap();
        let tx = tenant.write().await;
        jobs::enqueue(&tx, &make("dropped")).await.unwrap();
        drop(tx);
        let tx = tenant.write().await;
        jobs::enqueue(&tx, &make("failed")).await.unwrap();
        let failed: Result<()> = Err(Error::invalid("x", "No."));
        tx.settle(failed).await.unwrap_err();
        let kept = enqueue(&tenant, &make("kept")).await;

        let worker = worker(tenant.world).await;
        reaches(&tenant, &owner, kept, "SUCCEEDED").await;
        worker.stop().await;
        assert_eq!(
            count(tenant.world, "SELECT count(*) FROM bulkhead.job_done").await,
            1
        );
        assert_eq!(devices_of(&tenant, &owner).await, ["kept"]);
    });
}

#[test]
fn a_job_runs_for_the_tenant_that_added_it() {
    run(async {
        let (tenant, owner) = private(2).await;
        let other = Tenant::of(tenant.world).await;
        let its_owner = other.token(BuiltIn::Owner).await;
        let trail = "{ tenant { changes(first: 100) { nodes { id } } } }";
        let before = other.gql(Some(&its_owner), trail).await.body;
        let worker = worker(tenant.world).await;
        let job = enqueue(
            &tenant,
            &Make {
                device: "mine".to_owned(),
            },
        )
        .await;
        reaches(&tenant, &owner, job, "SUCCEEDED").await;
        assert_eq!(devices_of(&tenant, &owner).await, ["mine"]);
        assert_eq!(other.gql(Some(&its_owner), trail).await.body, before);
        assert_eq!(
            node(&other, &its_owner, job).await,
            Value::Null,
            "nor is it seen there"
        );
        let jobs = "{ tenant { jobs { nodes { id } } } }";
        let jobs = other.gql(Some(&its_owner), jobs).await;
        assert_eq!(jobs.data()["tenant"]["jobs"]["nodes"], json!([]));
        worker.stop().await;
    });
}

#[test]
fn a_job_of_an_unknown_kind_waits_for_a_worker_that_knows_it() {
    run(async {
        let (tenant, owner) = private(1).await;
        let job = insert(&tenant, Make::NAME, json!({ "device": "late" })).await;
        let knows_less = Worker::start(
            Arc::clone(&tenant.world.app.services),
            Kinds::default().with::<Wait>(),
        )
        .await;
        let after = enqueue(&tenant, &Wait { gate: open() }).await;
        reaches(&tenant, &owner, after, "SUCCEEDED").await;
        // It is looked at again from time to time, and no attempt is charged.
        let waiting = reaches(&tenant, &owner, job, "SCHEDULED").await;
        assert_eq!(waiting["attempts"], 0);
        knows_less.stop().await;

        let worker = worker(tenant.world).await;
        hurry(&tenant, job, 1).await;
        reaches(&tenant, &owner, job, "SUCCEEDED").await;
        assert_eq!(devices_of(&tenant, &owner).await, ["late"]);
        worker.stop().await;
    });
}

#[test]
fn jobs_are_listed_by_state_and_page() {
    run(async {
        let (tenant, owner) = private(1).await;
        let gate = new_id();
        let end = |how| End {
            gate: new_id(),
            how: vec![how],
        };
        let mut ids = BTreeMap::new();
        let worker = worker(tenant.world).await;
        for (job, state) in [
            (end(How::Well), "SUCCEEDED"),
            (end(How::Refused), "FAILED"),
            (end(How::Unavailable), "SCHEDULED"),
        ] {
            let id = enqueue(&tenant, &job).await;
            reaches(&tenant, &owner, id, state).await;
            if state == "SCHEDULED" {
                let later =
                    "UPDATE bulkhead.job SET run_at = now() + interval '1 hour' WHERE state = 6";
                execute(tenant.world, later).await;
            }
            ids.insert(state, id);
        }
        let running = enqueue(&tenant, &Wait { gate }).await;
        reaches(&tenant, &owner, running, "RUNNING").await;
        ids.insert("RUNNING", running);
        ids.insert("QUEUED", enqueue(&tenant, &end(How::Well)).await);
        ids.insert("CANCELLED", Uuid::nil());
        for (state, id) in &ids {
            let query = format!(
                "{{ tenant {{ jobs(state: {state}) {{ nodes {{ id state kind attempts }} }} }} }}"
            );
            let listed =
                tenant.gql(Some(&owner), &query).await.data()["tenant"]["jobs"]["nodes"].clone();
            let listed: Vec<_> = listed
                .as_array()
                .unwrap()
                .iter()
                .map(|job| (job["id"].as_str().unwrap(), job["state"].as_str().unwrap()))
                .collect();
            let id = global(*id);
            let expected: &[_] = if *state == "CANCELLED" {
                &[]
            } else {
                &[(id.as_str(), *state)]
            };
            assert_eq!(listed, expected);
        }
        pages(&tenant, &owner).await;
        self::gate(gate).doors[0].add_permits(1);
        worker.stop().await;
    });
}

/// Two and two and one, newest first.
async fn pages(tenant: &Tenant, owner: &str) {
    let query = "query($after: String) { tenant { jobs(first: 2, after: $after) {
        nodes { kind state } pageInfo { hasNextPage endCursor } } } }";
    let mut after = Value::Null;
    let mut states = Vec::new();
    loop {
        let page = tenant
            .gql_with(Some(owner), query, json!({ "after": after }))
            .await
            .data()["tenant"]["jobs"]
            .clone();
        let nodes = page["nodes"].as_array().unwrap();
        states.extend(
            nodes
                .iter()
                .map(|job| job["state"].as_str().unwrap().to_owned()),
        );
        if page["pageInfo"]["hasNextPage"] == false {
            break;
        }
        assert_eq!(nodes.len(), 2);
        after = page["pageInfo"]["endCursor"].clone();
    }
    assert_eq!(
        states,
        ["QUEUED", "RUNNING", "SCHEDULED", "FAILED", "SUCCEEDED"]
    );
}

async fn devices_of(tenant: &Tenant, token: &str) -> Vec<String> {
    let query = "{ tenant { devices(first: 100) { nodes { name } } } }";
    let answer = tenant.gql(Some(token), query).await;
    let devices = answer.data()["tenant"]["devices"]["nodes"]
        .as_array()
        .unwrap();
    devices
        .iter()
        .map(|device| device["name"].as_str().unwrap().to_owned())
        .collect()
}

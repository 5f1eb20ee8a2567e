//! What a running job may do: say how far it is, end otherwise than by running to its end, add others.

use super::{count, enqueue, execute, gate, hurry, new_id, node, private, reaches};
use crate::harness::{Tenant, World, run, until};
use bulkhead::database::TenantTx;
use bulkhead::devices::{self, NewDevice};
use bulkhead::error::{Error, Result};
use bulkhead::jobs::{self, Job, JobContext, Kinds, Worker};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use uuid::Uuid;

/// Ends in one of the ways that there are besides running to the end.
#[derive(Debug, Serialize, Deserialize)]
struct Act {
    gate: Uuid,
    what: What,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum What {
    Snooze,
    Discard,
    Progress,
    Cancelled,
    Child,
    Complete,
    CompleteAndFail,
    CompleteAndRollBack,
}

impl Job for Act {
    const NAME: &'static str = "test.act";
    const QUEUE: &'static str = "acts";
    const MAX_ATTEMPTS: i32 = 3;

    async fn run(self, ctx: &JobContext) -> Result<()> {
        let gate = gate(self.gate);
        let number = gate.runs.fetch_add(1, Ordering::SeqCst);
        match self.what {
            What::Snooze if number == 0 => ctx.snooze(Duration::from_hours(1)),
            What::Snooze => Ok(()),
            What::Discard => ctx.discard("Nobody needs it any more."),
            What::Progress => {
                ctx.progress(0.25);
                gate.doors[0].acquire().await.unwrap().forget();
                Ok(())
            }
            What::Cancelled => {
                ctx.cancelled().await;
                assert!(ctx.is_cancelled());
                Err(Error::Unavailable)
            }
            What::Child => {
                let tx = ctx.begin().await?;
                let added = jobs::enqueue(&tx, &once("child")).await;
                tx.settle(added).await.map(drop)
            }
            What::Complete => complete(ctx, number).await,
            What::CompleteAndFail => {
                complete(ctx, number).await?;
                Err(Error::Unavailable)
            }
            What::CompleteAndRollBack => {
                let tx = ctx.begin().await?;
                make(&tx, &format!("run {number}")).await?;
                ctx.complete_in(&tx).await?;
                tx.rollback().await?;
                if number == 0 {
                    return Err(Error::Unavailable);
                }
                complete(ctx, number).await
            }
        }
    }

    async fn bury(self, tx: &TenantTx, error: &Error) -> Result<()> {
        make(tx, &error.to_string()).await
    }
}

async fn complete(ctx: &JobContext, number: usize) -> Result<()> {
    let tx = ctx.begin().await?;
    let made = async {
        make(&tx, &format!("run {number}")).await?;
        ctx.complete_in(&tx).await
    };
    let made = made.await;
    tx.settle(made).await
}

async fn make(tx: &TenantTx, name: &str) -> Result<()> {
    let new = NewDevice {
        name: name.to_owned(),
        client_id: None,
        pin_hash: "none".to_owned(),
    };
    devices::create(tx, new).await.map(drop)
}

/// There is one at a time with the same name.
#[derive(Debug, Serialize, Deserialize)]
struct Once {
    name: String,
}

impl Job for Once {
    const NAME: &'static str = "test.once";
    const UNIQUE: bool = true;

    async fn run(self, _: &JobContext) -> Result<()> {
        Ok(())
    }
}

fn once(name: &str) -> Once {
    Once {
        name: name.to_owned(),
    }
}

async fn worker(world: &World) -> Worker {
    let kinds = Kinds::default().with::<Act>().with::<Once>();
    Worker::start(Arc::clone(&world.app.services), kinds).await
}

async fn act(tenant: &Tenant, what: What) -> (Uuid, Uuid) {
    let gate = new_id();
    (enqueue(tenant, &Act { gate, what }).await, gate)
}

#[test]
fn a_job_may_put_itself_off_or_say_that_it_is_needless() {
    run(async {
        let (tenant, owner) = private(2).await;
        let worker = worker(tenant.world).await;
        let (snoozed, _) = act(&tenant, What::Snooze).await;
        let later = reaches(&tenant, &owner, snoozed, "SCHEDULED").await;
        assert_eq!(
            (&later["attempts"], &later["lastError"]),
            (&json!(0), &json!(null))
        );
        hurry(&tenant, snoozed, 1).await;
        assert_eq!(
            reaches(&tenant, &owner, snoozed, "SUCCEEDED").await["attempts"],
            1
        );

        let (needless, _) = act(&tenant, What::Discard).await;
        let ended = reaches(&tenant, &owner, needless, "CANCELLED").await;
        assert_eq!(ended["lastError"], "Nobody needs it any more.");
        worker.stop().await;
    });
}

#[test]
fn effects_that_end_their_job_are_there_exactly_once() {
    run(async {
        let (tenant, owner) = private(2).await;
        let worker = worker(tenant.world).await;
        let schema = &tenant.row.schema_name;
        let devices = format!("SELECT count(*) FROM {schema}.device");
        for (nth, what) in [What::Complete, What::CompleteAndFail]
            .into_iter()
            .enumerate()
        {
            let (job, _) = act(&tenant, what).await;
            let done = reaches(&tenant, &owner, job, "SUCCEEDED").await;
            assert_eq!(
                (&done["attempts"], &done["lastError"]),
                (&json!(1), &json!(null))
            );
            assert_eq!(
                count(tenant.world, &devices).await,
                i64::try_from(nth + 1).unwrap()
            );
        }
        let (job, _) = act(&tenant, What::CompleteAndRollBack).await;
        let failed = reaches(&tenant, &owner, job, "SCHEDULED").await;
        assert_eq!(failed["attempts"], 1, "what was rolled back ended nothing");
        assert_eq!(count(tenant.world, &devices).await, 2);
        hurry(&tenant, job, 2).await;
        reaches(&tenant, &owner, job, "SUCCEEDED").await;
        assert_eq!(count(tenant.world, &devices).await, 3);
        worker.stop().await;
    });
}

#[test]
fn a_child_has_the_tenant_and_the_cause_of_its_parent() {
    run(async {
        let (tenant, owner) = private(2).await;
        let worker = worker(tenant.world).await;
        let (parent, _) = act(&tenant, What::Child).await;
        reaches(&tenant, &owner, parent, "SUCCEEDED").await;
        let child = "SELECT count(*) FROM bulkhead.job_done c JOIN bulkhead.job_done p
            ON p.tenant_id = c.tenant_id AND p.actor = c.actor AND p.kind = 'test.act' WHERE c.kind = 'test.once'";
        until("the child is done", async || {
            (count(tenant.world, child).await == 1).then_some(())
        })
        .await;
        worker.stop().await;
    });
}

#[test]
fn of_many_alike_there_is_one_until_it_is_over() {
    run(async {
        let (tenant, owner) = private(2).await;
        let alike = once("a");
        let adding = (0..64).map(|_| enqueue(&tenant, &alike));
        let ids = futures::future::join_all(adding).await;
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        let other = Tenant::of(tenant.world).await;
        assert_ne!(
            enqueue(&other, &once("a")).await,
            ids[0],
            "another tenant has its own"
        );
        assert_ne!(enqueue(&tenant, &once("b")).await, ids[0]);
        assert_eq!(
            count(tenant.world, "SELECT count(*) FROM bulkhead.job").await,
            3
        );
        let worker = worker(tenant.world).await;
        reaches(&tenant, &owner, ids[0], "SUCCEEDED").await;
        assert_ne!(
            enqueue(&tenant, &once("a")).await,
            ids[0],
            "that one is over"
        );
        worker.stop().await;
    });
}

#[test]
fn progress_is_told_and_a_running_job_is_cancelled_from_another_server() {
    run(async {
        let (tenant, owner) = private(2).await;
        let beside = tenant.world.beside(|_| ()).await;
        let worker = worker(beside).await;
        let (job, gate) = act(&tenant, What::Progress).await;
        let query = "query($id: ID!) { node(id: $id) { ... on Job { progress } } }";
        until("its progress is told", async || {
            let variables = json!({ "id": super::global(job) });
            let answer = tenant.gql_with(Some(&owner), query, variables).await;
            (answer.data()["node"]["progress"] == 0.25).then_some(())
        })
        .await;
        super::gate(gate).doors[0].add_permits(1);
        reaches(&tenant, &owner, job, "SUCCEEDED").await;

        let (job, _) = act(&tenant, What::Cancelled).await;
        reaches(&tenant, &owner, job, "RUNNING").await;
        let told = change(&tenant, &owner, "jobCancel", job).await;
        assert_eq!(told["job"]["state"], "RUNNING", "{told:#}");
        let ended = reaches(&tenant, &owner, job, "CANCELLED").await;
        assert_eq!(ended["attempts"], 1);
        let buried = format!(
            "SELECT count(*) FROM {}.device WHERE name = 'The job was cancelled.'",
            tenant.row.schema_name
        );
        assert_eq!(count(tenant.world, &buried).await, 1);
        worker.stop().await;
    });
}

#[test]
fn members_end_and_begin_anew_what_waits_or_failed() {
    run(async {
        let (tenant, owner) = private(2).await;
        let job = enqueue(&tenant, &once("a")).await;
        let told = change(&tenant, &owner, "jobCancel", job).await;
        assert_eq!(told["job"]["state"], "CANCELLED", "{told:#}");
        let told = change(&tenant, &owner, "jobCancel", job).await;
        assert_eq!(told["errors"][0]["message"], "The job is over already.");
        let told = change(&tenant, &owner, "jobRetry", job).await;
        assert_eq!(told["job"]["state"], "QUEUED", "{told:#}");
        let later = format!(
            "UPDATE bulkhead.job SET state = 6, run_at = now() + interval '1 hour' WHERE id = '{job}'"
        );
        execute(tenant.world, &later).await;
        assert_eq!(node(&tenant, &owner, job).await["state"], "SCHEDULED");
        let worker = worker(tenant.world).await;
        let told = change(&tenant, &owner, "jobRetry", job).await;
        assert_eq!(told["errors"], json!([]), "{told:#}");
        let done = reaches(&tenant, &owner, job, "SUCCEEDED").await;
        assert_eq!(done["attempts"], 1);
        let told = change(&tenant, &owner, "jobRetry", job).await;
        assert_eq!(
            told["errors"][0]["message"],
            "The job runs, waits for others or has succeeded: there is nothing to try again."
        );
        worker.stop().await;
    });
}

async fn change(tenant: &Tenant, token: &str, field: &str, job: Uuid) -> serde_json::Value {
    let mutation = format!(
        "mutation {{ {field}(input: {{ jobId: \"{}\" }}) {{ job {{ state }} errors {{ message }} }} }}",
        super::global(job)
    );
    tenant.gql(Some(token), &mutation).await.data()[field].clone()
}

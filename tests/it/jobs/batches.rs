//! Batches: the last job runs once, when all others are over, however they ended and whoever ended them.

use super::{End, How, Wait, count, gate, global, new_id, node, open, private, reaches};
use crate::harness::{Tenant, World, run, until};
use bulkhead::devices::{self, NewDevice};
use bulkhead::error::Result;
use bulkhead::jobs::{self, Job, JobContext, Kinds, Worker};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;
use uuid::Uuid;

/// Notes how the others ended, as a device: exactly once, for it ends with it.
#[derive(Debug, Serialize, Deserialize)]
struct Sum {}

impl Job for Sum {
    const NAME: &'static str = "test.sum";
    const QUEUE: &'static str = "sums";

    async fn run(self, ctx: &JobContext) -> Result<()> {
        let tx = ctx.begin().await?;
        let summed = async {
            let ends = ctx.batch(&tx).await?;
            let new = NewDevice {
                name: format!("{} {} {}", ends.done, ends.failed, ends.cancelled),
                client_id: None,
                pin_hash: "none".to_owned(),
            };
            devices::create(&tx, new).await?;
            ctx.complete_in(&tx).await
        };
        let summed = summed.await;
        tx.settle(summed).await
    }
}

async fn worker(world: &World) -> Worker {
    let kinds = Kinds::default().with::<End>().with::<Sum>().with::<Wait>();
    Worker::start(Arc::clone(&world.app.services), kinds).await
}

fn ending(how: &[How]) -> End {
    End {
        gate: new_id(),
        how: how.to_vec(),
    }
}

/// The names of the tenant's devices: the sums.
async fn sums(tenant: &Tenant, token: &str) -> Vec<String> {
    let query = "{ tenant { devices(first: 100) { nodes { name } } } }";
    let answer = tenant.gql(Some(token), query).await;
    let nodes = answer.data()["tenant"]["devices"]["nodes"].clone();
    let names = nodes.as_array().unwrap().iter();
    names
        .map(|node| node["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn it_goes_on_once_whoever_ends_the_last_ones() {
    run(async {
        let (tenant, owner) = private(2).await;
        let worlds = [
            tenant.world,
            tenant.world.beside(|_| ()).await,
            tenant.world.beside(|_| ()).await,
        ];
        let mut lasts = Vec::new();
        for _ in 0..20 {
            let tx = tenant.write().await;
            let batch = (0..6).fold(jobs::batch(&tx), |batch, _| {
                batch.add(&ending(&[How::Well]))
            });
            lasts.push(batch.then(&Sum {}).await.unwrap());
            tx.commit().await.unwrap();
        }
        let waits = node(&tenant, &owner, lasts[0]).await;
        assert_eq!(waits["state"], "SCHEDULED", "{waits:#}");
        let waiting = "SELECT count(*) FROM bulkhead.job WHERE state = 7";
        assert_eq!(count(tenant.world, waiting).await, 20);
        let mut workers = Vec::new();
        for world in worlds {
            workers.push(worker(world).await);
        }
        for last in &lasts {
            reaches(&tenant, &owner, *last, "SUCCEEDED").await;
        }
        assert_eq!(sums(&tenant, &owner).await, vec!["6 0 0"; 20]);
        let early =
            "SELECT count(*) FROM bulkhead.job_done a JOIN bulkhead.job_done b ON b.id = a.batch
            WHERE a.finished_at > b.started_at";
        assert_eq!(count(tenant.world, early).await, 0);
        for worker in workers {
            worker.stop().await;
        }
    });
}

#[test]
fn it_waits_for_what_is_begun_anew_and_counts_what_failed_or_was_cancelled() {
    run(async {
        let (tenant, owner) = private(4).await;
        let (gate_id, other) = (new_id(), new_id());
        let tx = tenant.write().await;
        let last = jobs::batch(&tx)
            .add(&ending(&[How::Well]))
            .add(&ending(&[How::Refused]))
            .add(&ending(&[How::Refused, How::Well]))
            .add(&Wait { gate: gate_id })
            .add(&Wait { gate: other })
            .then(&Sum {})
            .await
            .unwrap();
        tx.commit().await.unwrap();
        let ids = sqlx::query_scalar("SELECT id FROM bulkhead.job WHERE batch = $1 ORDER BY seq")
            .bind(last);
        let ids: Vec<Uuid> = ids
            .fetch_all(&mut tenant.world.superuser().await)
            .await
            .unwrap();
        let [_, dead, anew, held, cancelled] = ids[..] else {
            panic!("{ids:?}")
        };
        let change = async |field: &str, job: Uuid| {
            let mutation = format!(
                "mutation {{ {field}(input: {{ jobId: \"{}\" }}) {{ errors {{ message }} }} }}",
                global(job)
            );
            let answer = tenant.gql(Some(&owner), &mutation).await;
            answer.payload()["errors"].clone()
        };
        assert_eq!(change("jobCancel", cancelled).await, json!([]));
        assert!(
            change("jobRetry", last)
                .await
                .to_string()
                .contains("waits for others"),
            "it is not to be begun before"
        );
        let worker = worker(tenant.world).await;
        reaches(&tenant, &owner, dead, "FAILED").await;
        reaches(&tenant, &owner, anew, "FAILED").await;
        assert_eq!(change("jobRetry", anew).await, json!([]));
        reaches(&tenant, &owner, anew, "SUCCEEDED").await;
        assert_eq!(node(&tenant, &owner, last).await["state"], "SCHEDULED");
        gate(gate_id).doors[0].add_permits(1);
        reaches(&tenant, &owner, held, "SUCCEEDED").await;
        reaches(&tenant, &owner, last, "SUCCEEDED").await;
        assert_eq!(sums(&tenant, &owner).await, ["3 1 1"]);
        // It is over: what is begun anew now is not waited for, and does not run it again.
        assert_eq!(change("jobRetry", cancelled).await, json!([]));
        gate(other).doors[0].add_permits(1);
        reaches(&tenant, &owner, cancelled, "SUCCEEDED").await;
        assert_eq!(sums(&tenant, &owner).await.len(), 1);
        worker.stop().await;
    });
}

#[test]
fn of_nothing_it_goes_on_at_once_and_without_its_last_job_it_is_jobs() {
    run(async {
        let (tenant, owner) = private(1).await;
        let worker = worker(tenant.world).await;
        let tx = tenant.write().await;
        let last = jobs::batch(&tx).then(&Sum {}).await.unwrap();
        tx.commit().await.unwrap();
        reaches(&tenant, &owner, last, "SUCCEEDED").await;
        assert_eq!(sums(&tenant, &owner).await, ["0 0 0"]);

        let held = new_id();
        let tx = tenant.write().await;
        let batch = jobs::batch(&tx).add(&Wait { gate: held });
        let last = batch.then(&Sum {}).await.unwrap();
        tx.commit().await.unwrap();
        let cancel = format!(
            "mutation {{ jobCancel(input: {{ jobId: \"{}\" }}) {{ job {{ state }} }} }}",
            global(last)
        );
        let told = tenant.gql(Some(&owner), &cancel).await;
        assert_eq!(told.payload()["job"]["state"], "CANCELLED");
        gate(held).doors[0].add_permits(1);
        let done = "SELECT count(*) FROM bulkhead.job_done WHERE kind = 'test.wait' AND state = 3";
        until("the other is done", async || {
            (count(tenant.world, done).await == 1).then_some(())
        })
        .await;
        assert_eq!(sums(&tenant, &owner).await.len(), 1);
        worker.stop().await;
    });
}

/// Nobody has to look again: here no round of a worker finds any.
#[test]
fn whoever_ends_the_last_one_goes_on_with_it() {
    run(async {
        let (tenant, owner) = private(1).await;
        let blind = "SET search_path TO bulkhead, pg_temp;
             ALTER FUNCTION release_batches(uuid[]) RENAME TO release_these;
             CREATE FUNCTION release_batches(ids uuid[]) RETURNS TABLE (lane integer, tenant_id uuid)
             LANGUAGE sql AS $$ SELECT r.lane, r.tenant_id FROM bulkhead.release_these(coalesce(ids, '{}')) r $$;
             GRANT EXECUTE ON FUNCTION release_batches(uuid[]) TO PUBLIC";
        execute_all(tenant.world, blind).await;
        let worker = worker(tenant.world).await;
        let tx = tenant.write().await;
        let batch = jobs::batch(&tx).add(&ending(&[How::Well]));
        let last = batch.add(&ending(&[How::Refused])).then(&Sum {}).await;
        tx.commit().await.unwrap();
        reaches(&tenant, &owner, last.unwrap(), "SUCCEEDED").await;
        assert_eq!(sums(&tenant, &owner).await, ["1 1 0"]);
        worker.stop().await;
    });
}

/// Who ended the last one was killed before it could go on.
#[test]
fn it_goes_on_when_its_last_worker_is_gone() {
    run(async {
        let (tenant, owner) = private(1).await;
        let tx = tenant.write().await;
        let last = jobs::batch(&tx)
            .add(&ending(&[How::Well]))
            .add(&ending(&[How::Well]))
            .then(&Sum {})
            .await
            .unwrap();
        tx.commit().await.unwrap();
        // As it is after the end is committed, and as a lease ends with the last attempt.
        let dead = format!(
            "UPDATE bulkhead.job SET state = 2, claim = 1, worker = 'gone', attempt = 4, lease_until = now() - interval '1 minute'
             WHERE batch = '{last}';
             SET search_path TO bulkhead, pg_temp;
             SELECT end_jobs(jsonb_build_array(jsonb_build_object('id', id, 'claim', 1, 'state', 3, 'back', false, 'after_ms', 0)))
             FROM (SELECT id FROM job WHERE batch = '{last}' LIMIT 1) j"
        );
        execute_all(tenant.world, &dead).await;
        let worker = worker(tenant.world).await;
        reaches(&tenant, &owner, last, "SUCCEEDED").await;
        assert_eq!(sums(&tenant, &owner).await, ["1 1 0"]);
        worker.stop().await;
    });
}

async fn execute_all(world: &World, sql: &str) {
    let sql = sqlx::AssertSqlSafe(sql.to_owned());
    let mut connection = world.superuser().await;
    sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
}

#[test]
fn nothing_of_it_is_there_without_the_commit() {
    run(async {
        let (tenant, _) = private(1).await;
        let tx = tenant.write().await;
        let batch = jobs::batch(&tx).add(&Wait { gate: open() });
        batch.then(&Sum {}).await.unwrap();
        tx.rollback().await.unwrap();
        let all = "SELECT count(*) FROM bulkhead.job";
        assert_eq!(count(tenant.world, all).await, 0);
    });
}

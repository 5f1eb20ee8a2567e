//! The days of jobs that are over: made ahead, and dropped with what is in them once they are old.

use super::{count, global, latest, reaches};
use crate::harness::{Tenant, World, run, until};
use bulkhead::identity::BuiltIn;
use bulkhead::jobs::Worker;
use bulkhead::resources;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor as _};
use std::sync::Arc;
use uuid::Uuid;

/// A job that is over, and the media that it made.
struct Ended {
    job: Uuid,
    media: String,
}

impl Ended {
    async fn new(tenant: &Tenant, owner: &str) -> Self {
        let media = tenant.send_file(owner, "a.csv", "text/csv", b"a,b\n").await;
        let job = latest(tenant, owner).await;
        reaches(tenant, owner, job, "SUCCEEDED").await;
        Self { job, media }
    }

    /// Has ended at noon of the day before so many.
    async fn days_ago(&self, world: &World, days: i32) {
        let sql = format!(
            "UPDATE bulkhead.job_done SET finished_at = current_date - {days} + interval '12 hours' WHERE id = '{}'",
            self.job
        );
        as_owner(world, &sql).await;
    }
}

/// Whose the tables are, as the keeper is.
async fn as_owner(world: &World, sql: &str) {
    let sql = AssertSqlSafe(format!("SET timezone = 'UTC'; {sql}"));
    let mut owner = world.owner().await;
    owner.execute(sqlx::raw_sql(sql)).await.unwrap();
}

/// Does this to the partition of the day before so many; in the text `%1$I` is its name, `%2$L` the day and `%3$L` the next.
async fn partition(world: &World, days: i32, sql: &str) {
    let sql = format!(
        "DO $$ DECLARE day date := current_date - {days}; BEGIN
             EXECUTE format('{sql}', 'job_done_' || to_char(day, 'YYYYMMDD'), day, day + 1);
         END $$"
    );
    as_owner(world, &sql).await;
}

/// The days that have partitions, as today has them: yesterday is -1.
async fn days(world: &World) -> Vec<i32> {
    let days = r"SELECT array_agg(to_date(right(c.relname, 8), 'YYYYMMDD') - (now() AT TIME ZONE 'UTC')::date)
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'bulkhead.job_done'::regclass AND c.relname ~ '\d{8}$'";
    let mut days: Vec<i32> = sqlx::query_scalar(days)
        .fetch_one(&mut world.superuser().await)
        .await
        .unwrap();
    days.sort_unstable();
    days
}

async fn found(tenant: &Tenant, owner: &str, job: Uuid) -> Value {
    let query = "query($id: ID!) { node(id: $id) { ... on Job { state result { id } } } }";
    let variables = json!({ "id": global(job) });
    let answer = tenant.gql_with(Some(owner), query, variables).await;
    answer.data()["node"].clone()
}

/// Who asks for it is given what it made.
async fn is_kept(tenant: &Tenant, owner: &str, ended: &Ended) {
    let job = found(tenant, owner, ended.job).await;
    let made = json!({ "state": "SUCCEEDED", "result": { "id": ended.media } });
    assert_eq!(job, made);
}

/// Who asks for it is told that it is not there.
async fn is_forgotten(tenant: &Tenant, owner: &str, ended: &Ended) {
    assert_eq!(found(tenant, owner, ended.job).await, Value::Null);
    for field in ["jobRetry", "jobCancel"] {
        let mutation = format!(
            "mutation {{ {field}(input: {{ jobId: \"{}\" }}) {{ job {{ id }} errors {{ code }} }} }}",
            global(ended.job)
        );
        let told = tenant.gql(Some(owner), &mutation).await;
        assert_eq!(told.failure()["code"], "NOT_FOUND", "{:#}", told.body);
    }
    let media = tenant.processed(owner, &ended.media).await;
    assert_eq!(media["state"], "READY", "what it made stays");
}

async fn worker(world: &World) -> Worker {
    Worker::start(Arc::clone(&world.app.services), resources::jobs()).await
}

#[test]
fn what_is_over_is_kept_for_its_days_and_dropped_with_them() {
    run(async {
        let world = World::private(|config| config.job_days = 3).await;
        let tenant = Tenant::of(world).await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let first = worker(world).await;
        let ended = async || Ended::new(&tenant, &owner).await;
        let (old, stray, kept, early) =
            (ended().await, ended().await, ended().await, ended().await);
        first.stop().await;
        let now = "SELECT count(*) WHERE (now() AT TIME ZONE 'UTC')::time < '23:59:40'";
        until(
            "it is the same day until the end of this test",
            async || (count(world, now).await == 1).then_some(()),
        )
        .await;
        let make = "CREATE TABLE bulkhead.%1$I PARTITION OF bulkhead.job_done FOR VALUES FROM (%2$L) TO (%3$L)";
        for days in [4, 3] {
            partition(world, days, make).await;
        }
        for days in [-1, -2] {
            partition(world, days, "DROP TABLE bulkhead.%1$I").await;
        }
        assert_eq!(days(world).await, [-4, -3, 0]);
        // No worker ran on the day of the stray, nor yet made the day of the one that is early.
        for (job, days) in [(&old, 4), (&stray, 9), (&kept, 3), (&early, -1)] {
            job.days_ago(world, days).await;
            is_kept(&tenant, &owner, job).await;
        }
        let default = "SELECT count(*) FROM bulkhead.job_done_default";
        assert_eq!(count(world, default).await, 2);

        let second = worker(world).await;
        until("the days are kept", async || {
            let left = count(world, default).await;
            (left == 0 && days(world).await == [-3, 0, 1, 2]).then_some(())
        })
        .await;
        for job in [&old, &stray] {
            is_forgotten(&tenant, &owner, job).await;
        }
        for job in [&kept, &early] {
            is_kept(&tenant, &owner, job).await;
        }
        // The days that were made take what ends on them.
        let next = ended().await;
        next.days_ago(world, -2).await;
        is_kept(&tenant, &owner, &next).await;
        assert_eq!(count(world, default).await, 0);
        second.stop().await;
    });
}

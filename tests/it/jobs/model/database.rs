//! The other side of the comparison: the functions themselves.

use super::claims::claim;
use super::queue::{ATTEMPTS, LANES, Lanes, Queue, THEIRS};
use super::{How, Op};
use crate::harness::Tenant;
use serde_json::json;
use sqlx::{AssertSqlSafe, Executor as _, PgConnection, Row as _};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Two connections, each of a node of its own, and one to look with.
pub(super) struct Db {
    pub(super) nodes: [(Uuid, PgConnection); 2],
    pub(super) look: PgConnection,
    pub(super) lanes: [i32; LANES],
    tenant: Uuid,
    schema: String,
}

impl Db {
    pub(super) async fn new(tenant: &Tenant) -> Self {
        let mut connections = Vec::new();
        for _ in 0..3 {
            let mut connection = tenant.world.superuser().await;
            let path = "SET search_path TO bulkhead, pg_temp; SET synchronous_commit = off; SET bulkhead.actor = 'system:tests'";
            connection.execute(sqlx::raw_sql(path)).await.unwrap();
            connections.push(connection);
        }
        let [one, two, mut look] = <[_; 3]>::try_from(connections).unwrap();
        let lanes = "INSERT INTO lane (tenant_id, queue) VALUES ($1, 'a'), ($1, 'b'), (NULL, 'c') RETURNING id";
        let lanes: Vec<i32> = sqlx::query_scalar(lanes)
            .bind(tenant.row.id)
            .fetch_all(&mut look)
            .await
            .unwrap();
        Self {
            nodes: [one, two].map(|connection| (super::super::new_id(), connection)),
            look,
            lanes: lanes.try_into().unwrap(),
            tenant: tenant.row.id,
            schema: tenant.row.schema_name.clone(),
        }
    }

    /// Runs statements of the test's own.
    pub(super) async fn run(&mut self, sql: String) {
        let sql = sqlx::raw_sql(AssertSqlSafe(sql));
        self.look.execute(sql).await.unwrap();
    }

    /// A function's text.
    pub(super) async fn function(&mut self, name: &str) -> String {
        sqlx::query_scalar("SELECT pg_get_functiondef($1::regproc)")
            .bind(format!("bulkhead.{name}"))
            .fetch_one(&mut self.look)
            .await
            .unwrap()
    }

    /// Begins anew; the lanes.
    pub(super) async fn clear(&mut self) -> [i32; LANES] {
        for (_, connection) in &mut self.nodes {
            connection.execute("ROLLBACK").await.unwrap();
        }
        let [one, two] = [0, 1].map(|node| self.nodes[node].0);
        let [a, b, c] = self.lanes;
        self.run(format!(
            "DELETE FROM job; DELETE FROM job_done; DELETE FROM node;
             INSERT INTO node (id, name, version, kinds) VALUES ('{one}', 'one', '0', '{{}}'), ('{two}', 'two', '0', '{{}}');
             UPDATE tenant SET limits = limits - 'concurrent_jobs' WHERE id = '{}';
             UPDATE lane SET vtime = 0, cap = NULL, rate = NULL, paused = NULL,
                 weight = CASE id WHEN {a} THEN 1 WHEN {b} THEN 2 ELSE 4 END WHERE id IN ({a}, {b}, {c})",
            self.tenant
        ))
        .await;
        self.lanes
    }

    /// Does it here and there, and compares what is told.
    pub(super) async fn act(&mut self, queue: &mut Queue, op: &Op) -> Result<(), String> {
        match *op {
            Op::Add {
                lane,
                priority,
                later,
                key,
                jobs,
            } => {
                for _ in 0..if key.is_some() { 1 } else { jobs } {
                    self.add(queue, lane, (priority, later, key)).await?;
                }
                Ok(())
            }
            Op::Claim { .. } | Op::ClaimDuringCancel { .. } | Op::ClaimBeside { .. } => {
                // If it went wrong, another claim is in the middle of its transaction and holds what is written here.
                self.claims(queue, op).await?;
                self.claimed_now().await;
                Ok(())
            }
            Op::Limit { jobs } => {
                self.limit(queue, jobs).await;
                Ok(())
            }
            Op::Batch { lane, members } => self.batch(queue, lane, members).await,
            Op::Release => self.release(queue).await,
            Op::Complete { job, is_stale } => self.complete(queue, job, is_stale).await,
            Op::End { job, how, is_stale } => self.end(queue, job, (how, is_stale)).await,
            Op::Pause { lane, .. } | Op::Cap { lane, .. } | Op::Rate { lane, .. } => {
                self.set(queue, op, lane).await;
                Ok(())
            }
            Op::Reap { job } | Op::Promote { job } | Op::Cancel { job } | Op::Retry { job } => {
                match queue.pick(job) {
                    Some(id) => self.change(queue, op, id).await,
                    None => Ok(()),
                }
            }
        }
    }

    async fn claims(&mut self, queue: &mut Queue, op: &Op) -> Result<(), String> {
        match *op {
            Op::Claim { lanes, jobs } => {
                let open = Lanes::from(&queue.open(lanes));
                let claimed = claim(&mut self.nodes[0], (&self.lanes, lanes), jobs).await?;
                let present = queue.present();
                let expected = queue.claim(0, (&open, jobs), (present, claimed.0), None);
                same("the claim", &claimed.1, &expected)
            }
            Op::ClaimDuringCancel { job, lanes, jobs } => match queue.pick(job) {
                Some(id) => self.during_cancel(queue, id, (lanes, jobs)).await,
                None => Ok(()),
            },
            Op::ClaimBeside {
                first,
                second,
                jobs,
            } => self.beside(queue, (first, second), jobs).await,
            _ => Ok(()),
        }
    }

    async fn limit(&mut self, queue: &mut Queue, jobs: Option<usize>) {
        queue.limit = jobs;
        let limits = match jobs {
            Some(jobs) => format!("limits || '{{\"concurrent_jobs\": {jobs}}}'"),
            None => "limits - 'concurrent_jobs'".to_owned(),
        };
        let tenant = self.tenant;
        let set = format!("UPDATE tenant SET limits = {limits} WHERE id = '{tenant}'");
        self.run(set).await;
    }

    async fn release(&mut self, queue: &mut Queue) -> Result<(), String> {
        let released: i64 = sqlx::query_scalar("SELECT count(*) FROM release_batches(NULL)")
            .fetch_one(&mut self.look)
            .await
            .map_err(|e| e.to_string())?;
        same("how many are released", &released, &queue.release())
    }

    async fn set(&mut self, queue: &mut Queue, op: &Op, lane: usize) {
        let model = &mut queue.lanes[lane];
        let set = match op {
            Op::Pause { paused, .. } => {
                model.paused = *paused;
                let why = if *paused { "'for a test'" } else { "NULL" };
                format!("paused = {why}")
            }
            Op::Cap { cap, .. } => {
                model.cap = *cap;
                let cap = cap.map_or("NULL".to_owned(), |cap| cap.to_string());
                format!("cap = {cap}")
            }
            Op::Rate {
                tokens: Some(tokens),
                ..
            } => {
                model.tokens = Some(*tokens);
                format!("rate = 1e-9, burst = 10, tokens = {tokens}, tokens_at = clock_timestamp()")
            }
            _ => {
                model.tokens = None;
                "rate = NULL".to_owned()
            }
        };
        let lane = self.lanes[lane];
        self.run(format!("UPDATE lane SET {set} WHERE id = {lane}"))
            .await;
    }

    /// Times of nodes count while they are new: they are, however slow this machine is.
    async fn claimed_now(&mut self) {
        let now =
            "UPDATE node SET claimed_at = now() + interval '1 hour' WHERE virtual_time IS NOT NULL";
        self.run(now.to_owned()).await;
    }

    async fn add(
        &mut self,
        queue: &mut Queue,
        lane: usize,
        how: (i16, bool, Option<u8>),
    ) -> Result<(), String> {
        let id = super::super::new_id();
        let (priority, later, key) = how;
        let name = ["a", "b", "c"][lane];
        let told: Uuid = sqlx::query_scalar(
            "SELECT id FROM add_job($7, $1, 'test.model', '{}', $2, 1000, $3, $4, CASE WHEN $5 THEN now() + interval '1 hour' END,
                 $6, 'system:tests', NULL)",
        )
        .bind(id)
        .bind(ATTEMPTS)
        .bind(name)
        .bind(priority)
        .bind(later)
        .bind(key.map(|key| key.to_string()))
        .bind(THEIRS.contains(&lane).then_some(self.tenant))
        .fetch_one(&mut self.look)
        .await
        .map_err(|e| e.to_string())?;
        same("the id", &told, &queue.add(id, lane, how))
    }

    async fn end(
        &mut self,
        queue: &mut Queue,
        job: usize,
        (how, is_stale): (How, bool),
    ) -> Result<(), String> {
        let Some(id) = queue.pick(job) else {
            return Ok(());
        };
        let claim = queue.jobs.get(&id).map_or(0, |job| job.claim) - i64::from(is_stale);
        let (state, back, after) = how.said();
        let ends =
            json!([{ "id": id, "claim": claim, "state": state, "back": back, "after_ms": after }]);
        let told = match how {
            How::Done => sqlx::query_scalar("SELECT * FROM done_jobs($1, $2)")
                .bind([id])
                .bind([claim])
                .fetch_all(&mut self.look),
            _ => sqlx::query_scalar("SELECT * FROM end_jobs($1)")
                .bind(ends)
                .fetch_all(&mut self.look),
        };
        let told: Vec<Uuid> = told.await.map_err(|e| e.to_string())?;
        let expected: Vec<Uuid> = queue
            .end(id, claim, how)
            .then_some(id)
            .into_iter()
            .collect();
        same("those that were still theirs", &told, &expected)
    }

    async fn change(&mut self, queue: &mut Queue, op: &Op, id: Uuid) -> Result<(), String> {
        let (before, ask) = match op {
            Op::Reap { .. } => (
                "UPDATE job SET lease_until = now() - interval '1 second' WHERE state = 2 AND id = ",
                "SELECT count(*)::text FROM reap_jobs()".to_owned(),
            ),
            Op::Promote { .. } => (
                "UPDATE job SET run_at = now() - interval '1 second' WHERE state = 6 AND id = ",
                "SELECT string_agg(lane::text, ',') FROM promote_jobs(10) WHERE lane IS NOT NULL"
                    .to_owned(),
            ),
            Op::Cancel { .. } => ("SELECT ", self.cancel(queue, id)),
            _ => {
                let owner = self.owner(queue, id);
                (
                    "SELECT ",
                    format!("SELECT retry_job({owner}, '{id}')::text"),
                )
            }
        };
        self.run(format!("{before}'{id}'")).await;
        let told: Option<String> = sqlx::query_scalar(AssertSqlSafe(ask))
            .fetch_one(&mut self.look)
            .await
            .map_err(|e| e.to_string())?;
        let expected = match op {
            Op::Reap { .. } => Some(u8::from(queue.reap(id)).to_string()),
            Op::Promote { .. } => queue.promote(id).map(|lane| lane.to_string()),
            Op::Cancel { .. } => Some(queue.cancel(id).to_owned()),
            _ => queue.retry(id).map(|lane| lane.to_string()),
        };
        same("what is told", &told, &expected)
    }

    /// As SQL.
    fn owner(&self, queue: &Queue, id: Uuid) -> String {
        if queue.is_theirs(id) {
            format!("'{}'", self.tenant)
        } else {
            "NULL".to_owned()
        }
    }

    pub(super) fn cancel(&self, queue: &Queue, id: Uuid) -> String {
        format!("SELECT cancel_job({}, '{id}')", self.owner(queue, id))
    }

    async fn batch(&mut self, queue: &mut Queue, lane: usize, members: u8) -> Result<(), String> {
        let ids: Vec<Uuid> = (0..members).map(|_| super::super::new_id()).collect();
        let last = super::super::new_id();
        let queue_name = ["a", "b"][lane];
        let described = |id: &Uuid| {
            json!({
                "id": id, "kind": "test.model", "args": {}, "queue": queue_name, "priority": 0, "attempts": ATTEMPTS,
                "timeout": 1000,
            })
        };
        let described_all: Vec<_> = ids.iter().map(described).collect();
        sqlx::query("SELECT FROM enqueue_batch($1, $2, $3)")
            .bind(&self.schema)
            .bind(json!(described_all))
            .bind(described(&last))
            .execute(&mut self.look)
            .await
            .map_err(|e| e.to_string())?;
        queue.batch(lane, &ids, last);
        Ok(())
    }

    async fn complete(
        &mut self,
        queue: &mut Queue,
        job: usize,
        is_stale: bool,
    ) -> Result<(), String> {
        let Some(id) = queue.pick(job) else {
            return Ok(());
        };
        let claim = queue.jobs.get(&id).map_or(0, |job| job.claim) - i64::from(is_stale);
        let told: bool = sqlx::query_scalar("SELECT complete_job($1, $2, $3, NULL)")
            .bind(&self.schema)
            .bind(id)
            .bind(claim)
            .fetch_one(&mut self.look)
            .await
            .map_err(|e| e.to_string())?;
        same(
            "whether it was still theirs",
            &told,
            &queue.complete(id, claim),
        )
    }

    /// Whether both are at the same.
    pub(super) async fn compare(&mut self, queue: &Queue) -> Result<(), String> {
        let jobs = "SELECT id, lane, state, attempt, cancel, unique_key FROM job";
        let jobs: BTreeMap<Uuid, _> = sqlx::query(jobs)
            .fetch_all(&mut self.look)
            .await
            .unwrap()
            .iter()
            .map(|row| {
                let key: Option<String> = row.get("unique_key");
                let what = (
                    row.get("lane"),
                    row.get("state"),
                    row.get("attempt"),
                    row.get("cancel"),
                    key,
                );
                (row.get("id"), what)
            })
            .collect();
        let model = |job: &super::queue::Job| {
            let lane: i32 = queue.lanes[job.lane].id;
            let key = job.key.map(|key| key.to_string());
            (lane, job.state, job.attempt, job.cancel, key)
        };
        let expected = queue
            .jobs
            .iter()
            .map(|(id, job)| (*id, model(job)))
            .collect();
        same("the jobs", &jobs, &expected)?;
        let over = sqlx::query("SELECT id, state, attempt FROM job_done");
        let over: BTreeMap<Uuid, (i16, i32)> = over
            .fetch_all(&mut self.look)
            .await
            .unwrap()
            .iter()
            .map(|row| (row.get("id"), (row.get("state"), row.get("attempt"))))
            .collect();
        let expected = queue
            .over
            .iter()
            .map(|(id, over)| (*id, (over.state, over.attempt)))
            .collect();
        same("those that are over", &over, &expected)?;
        let lanes =
            "SELECT id, vtime, CASE WHEN rate IS NOT NULL THEN floor(tokens)::integer END AS tokens
            FROM lane WHERE id = ANY ($1) ORDER BY id";
        let lanes: Vec<(i32, f64, Option<i32>)> = sqlx::query_as(lanes)
            .bind(self.lanes.as_slice())
            .fetch_all(&mut self.look)
            .await
            .unwrap();
        let expected = queue
            .lanes
            .iter()
            .map(|lane| (lane.id, lane.vtime, lane.tokens))
            .collect();
        same("the lanes", &lanes, &expected)
    }
}

pub(super) fn same<T: PartialEq + std::fmt::Debug>(
    what: &str,
    found: &T,
    expected: &T,
) -> Result<(), String> {
    if found == expected {
        return Ok(());
    }
    Err(format!("{what}: {found:?}, and expected was {expected:?}"))
}

//! Servers, PostgreSQL's backends and commands are killed while they write, at any moment: no row is without its history, no
//! history without its row, what was acknowledged is there, and the chain is whole.

use super::adding;
use super::sealing::audit;
use crate::harness::{Process, Tenant, World, execute, run, until};
use bulkhead::identity::BuiltIn;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use sqlx::AssertSqlSafe;
use std::cell::{Cell, RefCell};
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;
use tokio::time::sleep;

/// Kills, unless `BULKHEAD_TEST_KILLS` says how many.
const KILLS: u32 = 10;
/// A kill comes within so many milliseconds after all serve again.
const SOON: u64 = 400;

/// A server and worker, a process of its own, always at the same port.
struct Served {
    port: u16,
    process: RefCell<Option<Process>>,
}

impl Served {
    fn start(world: &World) -> Self {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        Self {
            port,
            process: RefCell::new(Some(Self::process(world, port))),
        }
    }

    fn process(world: &World, port: u16) -> Process {
        let http = format!("127.0.0.1:{port}");
        Process::start(world.command().args(["serve", "--worker", "--http", &http]))
    }
}

/// Everything there is, and what was acknowledged.
struct Scene {
    tenant: Tenant,
    owner: String,
    device: String,
    servers: [Served; 2],
    over: Cell<bool>,
    acknowledged: RefCell<Vec<String>>,
}

impl Scene {
    /// Sends a mutation to a server; whether it was done.
    async fn done(&self, server: &Served, query: &str, name: &str) -> bool {
        let tenant = &self.tenant;
        let url = format!("http://127.0.0.1:{}/graphql", server.port);
        let body = json!({ "query": query, "variables": { "id": self.device, "name": name } });
        let request = tenant.world.client.post(url).bearer_auth(&self.owner);
        let request = request.header("Host", tenant.host()).json(&body);
        let Ok(answer) = request.send().await else {
            return false;
        };
        let answer: Result<serde_json::Value, _> = answer.json().await;
        answer.is_ok_and(|answer| answer.pointer("/data/done/device/id").is_some())
    }

    /// Makes devices and changes one, over and over.
    async fn write(&self, server: &Served, writer: u32) {
        const CREATE: &str = "mutation($name: String!) { done: deviceCreate(input: { name: $name }) { device { id } } }";
        const UPDATE: &str = "mutation($id: ID!, $name: String!) { done: deviceUpdate(input: { deviceId: $id, name: $name }) { device { id } } }";
        let mut number = 0;
        while !self.over.get() {
            number += 1;
            let name = format!("{writer}-{number}");
            let creates = number % 3 == 0;
            let query = if creates { CREATE } else { UPDATE };
            if self.done(server, query, &name).await {
                if creates {
                    self.acknowledged.borrow_mut().push(name);
                }
            } else {
                sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// Adds, changes and removes many rows in one transaction, over and over.
    async fn write_many(&self) {
        let database = &self.tenant.world.app.services.database;
        while !self.over.get() {
            let by = bulkhead::actor::Actor::System("tests".to_owned()).into();
            let work = async {
                let tx = database.write(&self.tenant.row, &by).await?;
                execute(&tx, &adding(40)).await?;
                execute(&tx, "UPDATE device SET name = 'Bulk 2' WHERE name = 'Bulk'").await?;
                let some = "DELETE FROM device WHERE id IN (SELECT id FROM device WHERE name = 'Bulk 2' LIMIT 35)";
                execute(&tx, some).await?;
                tx.commit().await
            };
            // An error is a cut; and the machine has others to serve.
            let _ = work.await;
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until all servers do what they are asked.
    async fn all_serve(&self) {
        for server in &self.servers {
            until("the server serves", async || {
                let query = "mutation($id: ID!) { done: deviceUpdate(input: { deviceId: $id }) { device { id } } }";
                self.done(server, query, "").await.then_some(())
            })
            .await;
        }
    }

    async fn kill(&self, random: &mut StdRng) -> &'static str {
        let world = self.tenant.world;
        match random.random_range(0..3) {
            0 => {
                let server = &self.servers[random.random_range(0..2)];
                if let Some(mut process) = server.process.take() {
                    process.signal(Signal::SIGKILL);
                    process.ended().await;
                }
                let started = Served::process(world, server.port);
                server.process.replace(Some(started));
                "a server"
            }
            1 => {
                let busy = "SELECT pid FROM pg_stat_activity WHERE usename LIKE '%\\_c\\_%' ORDER BY state = 'active' DESC, random() LIMIT 1";
                let mut superuser = world.superuser().await;
                let pid: Option<i32> = sqlx::query_scalar(busy)
                    .fetch_optional(&mut superuser)
                    .await
                    .unwrap();
                if let Some(pid) = pid {
                    // It may be over by now.
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
                "a backend"
            }
            _ => {
                let flag = format!("kill={}", random.random::<u16>());
                let mut command = world.command();
                command.args(["tenant", "set", &self.tenant.slug, "--flag", &flag]);
                let command = Process::start(&mut command);
                sleep(Duration::from_millis(random.random_range(100..1500))).await;
                command.signal(Signal::SIGKILL);
                "a command"
            }
        }
    }

    async fn kills(&self, random: &mut StdRng, count: u32) {
        for number in 1..=count {
            self.all_serve().await;
            sleep(Duration::from_millis(random.random_range(0..SOON))).await;
            let whom = self.kill(random).await;
            println!("{number}: {whom}");
        }
        self.all_serve().await;
        self.over.set(true);
    }
}

/// What is wrong, by what: each must be 0. The newest entry of a row is what the row is; each version has its entry.
const WRONG: [(&str, &str); 4] = [
    (
        "rows without history",
        "SELECT count(*) FROM device d LEFT JOIN newest h ON h.subject_id = d.id
         WHERE h.subject_id IS NULL OR h.action = 'delete' OR h.row <> to_jsonb(d) - 'pin_hash'",
    ),
    (
        "history without rows",
        "SELECT count(*) FROM newest h LEFT JOIN device d ON d.id = h.subject_id WHERE h.action <> 'delete' AND d.id IS NULL",
    ),
    (
        "versions without history, or history without versions",
        "SELECT count(*) FROM (SELECT subject_id, max((row ->> 'version')::int) <> count(*) FILTER (WHERE action <> 'delete') AS wrong
         FROM history WHERE subject_type = 'device' GROUP BY 1) h WHERE wrong",
    ),
    (
        "operators' acts that are not in both",
        "SELECT count(*) FROM (SELECT l.id FROM bulkhead.operator_log l JOIN bulkhead.tenant t ON t.id = l.tenant_id
             WHERE t.schema_name = current_schema()) l
         FULL JOIN (SELECT id FROM history WHERE action = 'operator_act') h ON h.id = l.id WHERE l.id IS NULL OR h.id IS NULL",
    ),
];

#[test]
fn nothing_is_lost_or_made_up_whoever_is_killed() {
    run(async {
        let asked = |name| std::env::var(name).ok();
        let seed = asked("BULKHEAD_SEED").map_or_else(rand::random, |seed| seed.parse().unwrap());
        let count = asked("BULKHEAD_TEST_KILLS").map_or(KILLS, |count| count.parse().unwrap());
        println!("BULKHEAD_SEED={seed} BULKHEAD_TEST_KILLS={count}");
        let world = World::apart("killed").await;
        let tenant = Tenant::of(world).await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let (device, ..) = tenant.device(&owner).await;
        let scene = Scene {
            tenant,
            owner,
            device,
            servers: [Served::start(world), Served::start(world)],
            over: Cell::new(false),
            acknowledged: RefCell::default(),
        };
        let [one, other] = &scene.servers;
        let mut random = StdRng::seed_from_u64(seed);
        tokio::join!(
            scene.kills(&mut random, count),
            scene.write(one, 1),
            scene.write(one, 2),
            scene.write(other, 3),
            scene.write(other, 4),
            scene.write_many(),
        );
        checked(&scene).await;
    });
}

async fn checked(scene: &Scene) {
    let tenant = &scene.tenant;
    let mut superuser = tenant.superuser().await;
    for (what, query) in WRONG {
        let query = format!(
            "WITH newest AS (SELECT DISTINCT ON (subject_id) subject_id, action, row FROM history
                 WHERE subject_type = 'device' AND action IN ('create', 'update', 'delete') ORDER BY subject_id, recorded_at DESC, id DESC)
             {query}"
        );
        let found: i64 = sqlx::query_scalar(AssertSqlSafe(query))
            .fetch_one(&mut superuser)
            .await
            .unwrap();
        assert_eq!(found, 0, "{what}");
    }
    let names: Vec<String> = sqlx::query_scalar("SELECT name FROM device")
        .fetch_all(&mut superuser)
        .await
        .unwrap();
    let acknowledged = scene.acknowledged.take();
    assert!(!acknowledged.is_empty(), "nothing was written");
    let lost: Vec<_> = acknowledged
        .iter()
        .filter(|name| !names.contains(name))
        .collect();
    assert!(lost.is_empty(), "acknowledged, and not there: {lost:?}");
    let entries: i64 = tenant.changes().await;
    let (code, said) = audit(tenant.world, &["anchor"], "");
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = audit(tenant.world, &["verify"], "");
    assert_eq!(code, Some(0), "{said}");
    println!(
        "{} acknowledged, {entries} entries: {said}",
        acknowledged.len()
    );
}

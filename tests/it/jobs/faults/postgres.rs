//! A PostgreSQL that crashes, and is away for a while.

use super::super::enqueue;
use super::{Stay, add, another, asked, count, once_each, worker};
use crate::harness::{Tenant, World, run, until};
use bulkhead::jobs::Job as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

/// A server of PostgreSQL, to be begun anew as it was begun.
struct Postmaster {
    command: Command,
    data: String,
    child: Option<Child>,
}

impl Postmaster {
    fn of(world: &World) -> Self {
        let data = world.cluster().to_str().unwrap().to_owned();
        let id = Self::id(&data);
        let words = fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap();
        let mut words = words.split('\0').filter(|word| !word.is_empty());
        let mut command = Command::new(words.next().unwrap());
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let user = |name: &str| -> u32 {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        command
            .args(words)
            .current_dir(&data)
            .uid(user("Uid:"))
            .gid(user("Gid:"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self {
            command,
            data,
            child: None,
        }
    }

    fn id(data: &str) -> i32 {
        let file = fs::read_to_string(format!("{data}/postmaster.pid")).unwrap();
        file.lines().next().unwrap().trim().parse().unwrap()
    }

    /// Kills it: its processes end with it, and nothing is written.
    fn crash(&mut self) {
        kill(Pid::from_raw(Self::id(&self.data)), Signal::SIGKILL).unwrap();
        if let Some(mut child) = self.child.take() {
            child.wait().unwrap();
        }
    }

    /// Starts it again, as soon as the processes of before are gone.
    async fn start(&mut self) {
        for _ in 0..100 {
            let mut child = self.command.spawn().unwrap();
            sleep(Duration::from_millis(300)).await;
            if child.try_wait().unwrap().is_none() {
                self.child = Some(child);
                return;
            }
        }
        panic!("PostgreSQL does not start again");
    }
}

impl Drop for Postmaster {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn a_crash_and_an_absence_of_postgresql_lose_nothing() {
    run(async {
        let world = World::apart("alone").await;
        let tenant = Tenant::of(world).await;
        let mut postmaster = Postmaster::of(world);
        let here = worker(world).await;
        let mut there = another(world, 2);
        there.says("# ready").await;
        let mut effects = 0;
        for away in [0, 4] {
            add(&tenant, effects..effects + 60, 15).await;
            effects += 60;
            sleep(Duration::from_millis(150)).await;
            postmaster.crash();
            sleep(Duration::from_secs(away)).await;
            postmaster.start().await;
            until_there(world).await;
        }
        once_each(&tenant, effects).await;
        assert!(there.is_running(), "{}", there.logged());
        here.stop().await;
    });
}

/// It recovers first.
async fn until_there(world: &World) {
    until("PostgreSQL answers", async || {
        world.try_superuser_of("postgres").await.map(drop).ok()
    })
    .await;
}

/// How long until the lease of the one job that runs is over.
async fn lease(world: &World) -> Duration {
    let left = "SELECT extract(epoch FROM lease_until - clock_timestamp())::float8 FROM bulkhead.job WHERE state = 2";
    let mut superuser = world.superuser().await;
    let left = sqlx::query_scalar(left).fetch_one(&mut superuser).await;
    Duration::from_secs_f64(left.unwrap())
}

/// It cannot say that it lives, and nobody can tell it that its job is another's: it stops of its own accord.
///
/// PostgreSQL is away until then, or for as many seconds as `BULKHEAD_TEST_AWAY` says: with more than 30 the lease is over, too.
#[test]
fn a_worker_without_postgresql_stops_its_job_before_the_lease_ends_and_runs_it_again() {
    run(async {
        let world = World::apart("away").await;
        let tenant = Tenant::of(world).await;
        let mut postmaster = Postmaster::of(world);
        let mut there = another(world, 1);
        there.says("# ready").await;
        let file = world.data_dir.join("stays");
        enqueue(&tenant, &Stay { file }).await;
        there.says("# stays").await;
        let left = lease(world).await;
        let gone = Instant::now();
        postmaster.crash();
        let stopped = timeout(left, there.says("# stopped")).await;
        assert!(stopped.is_ok(), "it ran on for {left:?}");
        let stopped = gone.elapsed();
        assert!(stopped > Duration::from_secs(5), "after {stopped:?} only");
        let away = Duration::from_secs(asked("BULKHEAD_TEST_AWAY", 0).into());
        sleep(away.saturating_sub(stopped)).await;
        postmaster.start().await;
        until_there(world).await;
        until("the job is over", async || {
            (count(world, "SELECT count(*) FROM bulkhead.job").await == 0).then_some(())
        })
        .await;
        let devices = format!("SELECT count(*) FROM {}.device", tenant.row.schema_name);
        assert_eq!(count(world, &devices).await, 1);
        let done = format!(
            "SELECT count(*) FROM bulkhead.job_done WHERE state = 3 AND kind = '{}'",
            Stay::NAME
        );
        assert_eq!(count(world, &done).await, 1);
        assert!(there.is_running(), "{}", there.logged());
    });
}

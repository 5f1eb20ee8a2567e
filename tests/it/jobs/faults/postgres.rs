//! A PostgreSQL that crashes, and is away for a while.

use super::{add, another, once_each, worker};
use crate::harness::{Tenant, World, run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::time::sleep;

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
    crate::harness::until("PostgreSQL answers", async || {
        world.try_superuser_of("postgres").await.map(drop).ok()
    })
    .await;
}

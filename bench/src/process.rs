//! Children that are stopped, and waited for, when they are dropped.

use crate::Result;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a child may take to stop its own PostgreSQL and itself.
const PATIENCE: Duration = Duration::from_secs(45);
/// Between two looks at it.
const STEP: Duration = Duration::from_millis(20);

/// A running child.
#[derive(Debug)]
pub(crate) struct Process(Child);

impl Process {
    /// Starts it in a process group of its own: a Ctrl-C in the terminal reaches us alone, and we stop it.
    pub(crate) fn spawn(mut command: Command) -> Result<Self> {
        let program = command.get_program().display().to_string();
        let child = command.process_group(0).spawn();
        child
            .map(Self)
            .map_err(|e| format!("{program} does not start: {e}").into())
    }

    /// Its number.
    pub(crate) fn pid(&self) -> i32 {
        self.0.id().cast_signed()
    }

    /// Whether it has ended.
    pub(crate) fn ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended() {
            return;
        }
        // An error means that it has just ended.
        let _ = kill(Pid::from_raw(self.pid()), Signal::SIGINT);
        let deadline = Instant::now() + PATIENCE;
        while !self.ended() {
            if Instant::now() > deadline {
                let _ = self.0.kill();
                let _ = self.0.wait();
                return;
            }
            sleep(STEP);
        }
    }
}

//! PostgreSQL's processes: as whom they run, that they end with us, and who waits for them.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Weak, mpsc};
use std::time::Duration;
use std::{io, thread};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{self, Pid, User};
use tokio::sync::watch;

use super::Error;
use super::home::Lock;

/// Sessions are cut, the shutdown checkpoint is written: nothing to recover at the next start.
const FAST: Signal = Signal::SIGINT;
/// Ends at once; the next start recovers from the log. Loses no commit either.
const IMMEDIATE: Signal = Signal::SIGQUIT;
/// How long a shutdown checkpoint may take.
const FAST_DEADLINE: Duration = Duration::from_secs(30);
const IMMEDIATE_DEADLINE: Duration = Duration::from_secs(10);
/// Who waits for long says so this often.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at something that cannot be waited for.
pub(super) const STEP: Duration = Duration::from_millis(10);

/// The account that PostgreSQL's processes run as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Account {
    /// This process's own account.
    pub(super) fn own() -> Self {
        Self {
            uid: unistd::geteuid().as_raw(),
            gid: unistd::getegid().as_raw(),
        }
    }

    pub(super) fn is_root(self) -> bool {
        self.uid == 0
    }

    /// Whom root becomes: PostgreSQL's packages make `postgres`, and everybody has `nobody`.
    pub(super) fn unprivileged() -> Result<Self, Error> {
        ["postgres", "nobody"]
            .iter()
            .find_map(|name| User::from_name(name).ok().flatten())
            .map(|user| Self {
                uid: user.uid.as_raw(),
                gid: user.gid.as_raw(),
            })
            .ok_or(Error::NoAccount)
    }
}

/// A command that runs as `account` in `dir`, and ends when the thread that spawns it ends.
///
/// The environment is cleared: `PG*` would change what the server does, and a superuser of the
/// database could read our secrets from it. The process group is its own, so that a Ctrl-C in the
/// terminal reaches us alone and we stop it.
pub(super) fn command(program: &Path, account: Account, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("LC_ALL", "C")
        .current_dir(dir)
        .process_group(0)
        .stdin(Stdio::null());
    if Account::own().is_root() {
        // Setting the user as root also clears the supplementary groups (std's `CommandExt::uid`).
        command.uid(account.uid).gid(account.gid);
    }
    end_with_parent(&mut command);
    command
}

/// std runs the hook after the change of user, which would clear the signal again.
#[cfg(target_os = "linux")]
fn end_with_parent(command: &mut Command) {
    let parent = Pid::this();
    let hook = move || {
        nix::sys::prctl::set_pdeathsig(FAST)?;
        // We may have died before the line above, and then nothing will be sent.
        if unistd::getppid() == parent {
            Ok(())
        } else {
            Err(nix::Error::ESRCH.into())
        }
    };
    #[expect(
        unsafe_code,
        reason = "the hook makes two system calls and allocates nothing, as it must after fork"
    )]
    // SAFETY: prctl and getppid are async-signal-safe; the closure owns a plain integer.
    unsafe {
        command.pre_exec(hook);
    }
}

/// Elsewhere an orphan is found by its `postmaster.pid` at the next start.
#[cfg(not(target_os = "linux"))]
fn end_with_parent(_command: &mut Command) {}

/// The command line of a process, its arguments each followed by a space; empty if there is no such
/// process.
#[cfg(target_os = "linux")]
pub(super) fn command_line(pid: i32) -> String {
    let raw = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&raw).replace('\0', " ")
}

/// The command line of a process, its arguments each followed by a space; empty if there is no such
/// process.
#[cfg(not(target_os = "linux"))]
pub(super) fn command_line(pid: i32) -> String {
    let output = Command::new("ps")
        .args(["-ww", "-o", "command=", "-p", &pid.to_string()])
        .output();
    let output = output.map_or_else(|_| Vec::new(), |output| output.stdout);
    String::from_utf8_lossy(output.trim_ascii_end()).into_owned() + " "
}

/// Signals `pid` until `gone`, first politely; false if it is still there.
pub(super) async fn end(pid: i32, mut gone: impl FnMut() -> bool) -> bool {
    for (signal, deadline) in [(FAST, FAST_DEADLINE), (IMMEDIATE, IMMEDIATE_DEADLINE)] {
        // An error means that it has just ended, which `gone` sees.
        _ = kill(Pid::from_raw(pid), signal);
        let waited = tokio::time::timeout(deadline, async {
            while !gone() {
                tokio::time::sleep(STEP).await;
            }
        });
        if waited.await.is_ok() {
            return true;
        }
        tracing::warn!(pid, ?signal, "postgres did not stop in time");
    }
    false
}

/// A running `postgres`. Dropping it asks the server to stop, and does not wait.
pub(super) struct Postmaster {
    pub(super) pid: i32,
    lock: Weak<Lock>,
    exit: watch::Receiver<Option<ExitStatus>>,
}

impl Postmaster {
    /// Spawns `command` from a thread that lives exactly as long as the child: the kernel ties the
    /// death signal to the thread that forked, and a thread of the runtime may end before the
    /// process does. The thread also holds `lock`, so the data directory is free when the server is
    /// gone and not before.
    pub(super) fn spawn(command: Command, lock: &Arc<Lock>) -> io::Result<Self> {
        let (spawned_tx, spawned) = mpsc::sync_channel(1);
        let (exit_tx, exit) = watch::channel(None);
        let held = Arc::clone(lock);
        thread::Builder::new()
            .name("postgres-keeper".to_owned())
            .spawn(move || keep(command, held, &spawned_tx, &exit_tx))?;
        let pid = spawned.recv().map_err(io::Error::other)??;
        Ok(Self {
            pid,
            lock: Arc::downgrade(lock),
            exit,
        })
    }

    /// Its exit status, once it has ended.
    pub(super) fn status(&self) -> Option<String> {
        let closed = self.exit.has_changed().is_err();
        let status = *self.exit.borrow();
        status
            .map(|status| status.to_string())
            .or_else(|| closed.then(|| "unknown".to_owned()))
    }

    /// Waits until it has ended, and says how.
    pub(super) async fn exited(&self) -> String {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await {
            Ok(status) => status.map_or_else(String::new, |status| status.to_string()),
            // Without a status the keeper could not wait for it; it is gone all the same.
            Err(_) => "unknown".to_owned(),
        }
    }

    /// Stops it and waits; false if it outlived every signal.
    pub(super) async fn stop(&self) -> bool {
        self.withdraw();
        end(self.pid, || self.status().is_some()).await
    }

    /// From here on nobody attaches: the server is about to go.
    fn withdraw(&self) {
        if let Some(lock) = self.lock.upgrade() {
            lock.withdraw();
        }
    }
}

impl Drop for Postmaster {
    fn drop(&mut self) {
        if self.status().is_none() {
            self.withdraw();
            _ = kill(Pid::from_raw(self.pid), FAST);
        }
    }
}

/// The keeper thread: spawns, waits, and only then lets go of the data directory.
fn keep(
    mut command: Command,
    lock: Arc<Lock>,
    spawned: &mpsc::SyncSender<io::Result<i32>>,
    exit: &watch::Sender<Option<ExitStatus>>,
) {
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return drop(spawned.send(Err(error))),
    };
    drop(spawned.send(Ok(child.id().cast_signed())));
    let status = child.wait();
    lock.withdraw();
    drop(lock);
    exit.send_replace(status.ok());
}

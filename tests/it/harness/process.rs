//! A process of a test's own. It ends with the test, however that ends.

use super::{data_dir, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A running process; what it says goes to two files.
#[derive(Debug)]
pub struct Process {
    child: Child,
    said: PathBuf,
    logged: PathBuf,
}

impl Process {
    /// Starts it.
    pub fn start(command: &mut Command) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = data_dir().join("processes");
        fs::create_dir_all(&directory).unwrap();
        let said = directory.join(format!("{number}.out"));
        let logged = directory.join(format!("{number}.err"));
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(&said).unwrap())
            .stderr(File::create(&logged).unwrap())
            .spawn()
            .unwrap();
        Self {
            child,
            said,
            logged,
        }
    }

    /// Its standard output so far.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.said).unwrap()
    }

    /// Its standard error so far.
    pub fn logged(&self) -> String {
        fs::read_to_string(&self.logged).unwrap()
    }

    /// Waits until it said this, and returns all it said. Ends the test if the process ends first.
    pub async fn says(&mut self, text: &str) -> String {
        until(&format!("it says {text:?}"), async || {
            let said = self.said() + &self.logged();
            let over = self.child.try_wait().unwrap();
            assert!(
                over.is_none() || said.contains(text),
                "it ended with {over:?}: {said}"
            );
            said.contains(text).then_some(said)
        })
        .await
    }

    /// Its id.
    pub fn id(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Whether it runs still.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.id()), signal).unwrap();
    }

    /// Waits until it is over.
    pub async fn ended(&mut self) -> ExitStatus {
        until("the process ends", async || self.child.try_wait().unwrap()).await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

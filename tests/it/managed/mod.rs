//! The private PostgreSQL: as root, as its users, beside other processes, after a kill.

mod binaries;
mod download;
mod lifecycle;
mod processes;
mod users;

use std::io::{BufRead, BufReader, Lines};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use std::{fs, io};

use bulkhead::database::managed::{Server, Settings};
use nix::sys::signal::kill;
use nix::unistd::{Pid, User};
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;

const DATA: &str = "MANAGED_TEST_DATA";
const ATTACH: &str = "MANAGED_TEST_ATTACH";

/// A directory that every user may enter, unlike the usual temporary one.
fn temporary() -> TempDir {
    let open = fs::Permissions::from_mode(0o755);
    tempfile::Builder::new()
        .permissions(open)
        .tempdir()
        .unwrap()
}

fn settings(data_dir: PathBuf) -> Settings {
    Settings {
        path: std::env::var_os("PATH"),
        durable: false,
        ..Settings::new(data_dir)
    }
}

async fn query(server: &Server, sql: &'static str) -> String {
    let mut connection = PgConnection::connect(&server.url("postgres"))
        .await
        .unwrap();
    let value = sqlx::query_scalar(sql)
        .fetch_one(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    value
}

/// The process of the server itself.
fn postmaster(data_dir: &Path) -> i32 {
    let text = fs::read_to_string(data_dir.join("pgdata/postmaster.pid")).unwrap();
    text.lines().next().unwrap().parse().unwrap()
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "still waiting until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A zombie counts as gone: an orphan is one until init looks.
fn is_gone(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    kill(Pid::from_raw(pid), None).is_err() || stat.is_ok_and(|stat| stat.contains(") Z "))
}

/// This test binary; for another user a copy, because the build may lie where only we can go.
fn program(for_another: bool) -> PathBuf {
    static COPY: OnceLock<PathBuf> = OnceLock::new();
    let own = std::env::current_exe().unwrap();
    if !for_another {
        return own;
    }
    let copy = COPY.get_or_init(|| {
        let copy = crate::harness::data_dir().join("test-binary");
        fs::copy(&own, &copy).unwrap();
        copy
    });
    copy.clone()
}

/// Another Bulkhead process: this test binary, told to run [`another_process`].
struct Process {
    child: Child,
    output: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn spawn(data_dir: &Path, attach: bool, user: Option<&User>) -> Self {
        let mut command = Command::new(program(user.is_some()));
        command.args([
            "--ignored",
            "--exact",
            "managed::another_process",
            "--nocapture",
        ]);
        command
            .env(DATA, data_dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if attach {
            command.env(ATTACH, "1");
        }
        if let Some(user) = user {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, output }
    }

    /// What came of its start, such as `owned 5432` or `error …`.
    fn hear(&mut self) -> String {
        let mut lines = self.output.by_ref().map_while(Result::ok);
        lines
            .find_map(|line| Some(line.strip_prefix("# ")?.to_owned()))
            .unwrap()
    }

    /// Has it stop its server, and waits.
    fn finish(mut self) {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

#[tokio::test]
#[ignore = "not a test: the other process of the tests here"]
async fn another_process() {
    let Some(data_dir) = std::env::var_os(DATA) else {
        return;
    };
    let settings = settings(data_dir.into());
    let server = match std::env::var_os(ATTACH) {
        Some(_) => Server::attach_or_start(&settings).await,
        None => Server::start(&settings).await,
    };
    match server {
        Ok(server) => {
            println!(
                "\n# {} {}",
                if server.is_owned() {
                    "owned"
                } else {
                    "attached"
                },
                server.port()
            );
            io::stdin().lines().for_each(drop);
            server.stop().await.unwrap();
        }
        Err(error) => println!("\n# error {}", error.to_string().replace('\n', " ")),
    }
}

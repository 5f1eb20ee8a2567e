//! The program under test, as a child: built, started, waited for.

use crate::http::{Answer, Connection, request};
use crate::place::{KEY, Place};
use crate::process::Process;
use crate::report::note;
use crate::{Common, Result};
use std::fs::{File, read_to_string};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// How long it may take until it is ready: initdb, migrations, demo tenants, perhaps a download.
const PATIENCE: Duration = Duration::from_mins(3);

/// The program: the one given, else this workspace's, built now beside this bench so that it is never an old one.
pub(crate) fn program(common: &Common) -> Result<PathBuf> {
    if let Some(given) = &common.bulkhead {
        return Ok(std::path::absolute(given)?);
    }
    let bench = std::env::current_exe()?;
    let release = bench.parent().ok_or("this program lies nowhere")?;
    let target = release
        .parent()
        .ok_or("this program lies in no target directory")?;
    note("building bulkhead");
    let built = Command::new("cargo")
        .args([
            "build",
            "--release",
            "--package",
            "bench",
            "--package",
            "bulkhead",
            "--bin",
            "bulkhead",
        ])
        .arg("--manifest-path")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .arg("--target-dir")
        .arg(target)
        .status();
    match built {
        Ok(status) if status.success() => Ok(release.join("bulkhead")),
        Ok(_) => Err("bulkhead does not build".into()),
        Err(e) => Err(format!("cargo does not run ({e}); name the program with --bulkhead").into()),
    }
}

/// The program with this place's data, and nothing else that configures it but `BULKHEAD_…` in the environment.
pub(crate) fn command(program: &Path, place: &Place) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(place.path())
        .env_remove("DATABASE_URL")
        .env_remove("BULKHEAD_DATABASE_URL")
        .env("BULKHEAD_SECRET_KEY", KEY)
        .arg("--data-dir")
        .arg(place.data_dir())
        .stdin(Stdio::null());
    if let Some(pg_bin) = &place.pg_bin {
        command.env("BULKHEAD_PG_BIN", pg_bin);
    }
    command
}

/// A `bulkhead` that serves, ready.
#[derive(Debug)]
pub(crate) struct Server {
    process: Process,
    /// Where it listens.
    pub(crate) port: u16,
}

impl Server {
    /// Starts `bulkhead dev` and waits until it is ready.
    pub(crate) async fn start(program: &Path, place: &Place) -> Result<Self> {
        Self::run(program, place, &["dev"], &[]).await
    }

    /// Starts a command that serves, with these variables in its environment, and waits until it is ready.
    pub(crate) async fn run(
        program: &Path,
        place: &Place,
        arguments: &[&str],
        variables: &[(&str, String)],
    ) -> Result<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
            .local_addr()?
            .port();
        let log = place.path().join("log");
        let file = File::create(&log)?;
        let mut command = command(program, place);
        command
            .args(["--http", &format!("127.0.0.1:{port}")])
            .args(arguments)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdout(file.try_clone()?)
            .stderr(file);
        let mut server = Self {
            process: Process::spawn(command)?,
            port,
        };
        let deadline = Instant::now() + PATIENCE;
        while !server.ready().await {
            if server.process.ended() || Instant::now() > deadline {
                let said = read_to_string(&log).unwrap_or_default();
                return Err(format!("bulkhead did not become ready. It said:\n{said}").into());
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(server)
    }

    /// Whether it ended by itself, which it must not.
    pub(crate) fn ended(&mut self) -> bool {
        self.process.ended()
    }

    /// Host and port.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its number.
    pub(crate) fn pid(&self) -> i32 {
        self.process.pid()
    }

    async fn ready(&self) -> bool {
        let ask = request("/healthz/ready", "localhost", None, None);
        let mut connection = Connection::new(&self.address());
        let answer = connection.exchange(&ask).await;
        matches!(answer, Ok(Answer { status: 200, .. }))
    }
}

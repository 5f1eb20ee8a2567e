//! Makes the cluster, and starts `postgres` on it until it answers.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use super::binaries::Binaries;
use super::error::OnFile;
use super::home::{Home, Lock};
use super::process::{PATIENCE, Postmaster, STEP, command, end};
use super::{Endpoint, Error, SUPERUSER, Settings};

/// How many free ports may be taken by others between our look and the server's bind.
const PORT_ATTEMPTS: usize = 5;
/// What the names of clusters begin with that `initdb` has not finished.
const HALF: &str = "pgdata.new.";
/// How much of the log goes into an error.
const TAIL: u64 = 4096;

/// The superuser's password, made on the first call.
pub(super) fn password(home: &Home) -> Result<String, Error> {
    const FILE: &str = "password";
    if let Some(password) = home.read(FILE)?.filter(|password| !password.is_empty()) {
        return Ok(password);
    }
    if home.major().is_some() {
        return Err(Error::PasswordLost {
            file: home.file(FILE),
        });
    }
    let password = random_name(home)?;
    home.write(FILE, &password)?;
    Ok(password)
}

/// 32 random bytes in hexadecimal.
fn random_name(home: &Home) -> Result<String, Error> {
    let mut halves = [[0; 16]; 2];
    for half in &mut halves {
        getrandom::fill(half)
            .map_err(io::Error::other)
            .on("find randomness for", &home.dir)?;
    }
    let [one, other] = halves.map(u128::from_ne_bytes);
    Ok(format!("{one:032x}{other:032x}"))
}

/// Runs `initdb` if there is no cluster yet. It works in a directory beside, so a cluster is either
/// complete or absent.
pub(super) fn init(settings: &Settings, home: &Home, binaries: &Binaries) -> Result<(), Error> {
    clear_halves(home);
    if home.major().is_some() {
        return Ok(());
    }
    // A new name each time: the children of an initdb that was killed may go on for a moment, and
    // must not meet ours.
    let new = home.file(&format!("{HALF}{}", random_name(home)?));
    let output = initdb(settings, home, binaries, &new).output();
    let output = output.map_err(|error| failed("initdb", error.to_string(), ""))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        return Err(failed(
            "initdb",
            output.status.to_string(),
            &String::from_utf8_lossy(&said),
        ));
    }
    fs::rename(&new, home.cluster()).on("move into place", &new)?;
    if settings.durable {
        File::open(&home.dir)
            .and_then(|dir| dir.sync_all())
            .on("write", &home.dir)?;
    }
    Ok(())
}

fn initdb(settings: &Settings, home: &Home, binaries: &Binaries, new: &Path) -> Command {
    let mut initdb = command(&binaries.dir.join("initdb"), home.account, &home.dir);
    initdb.args([
        "--data-checksums",
        "--encoding=UTF8",
        "--auth=scram-sha-256",
        "--no-instructions",
    ]);
    initdb
        .arg("--username")
        .arg(SUPERUSER)
        .arg("--pwfile")
        .arg(home.file("password"));
    // Text sorts by code point: the same on every system, and no update of the C library can spoil
    // an index. Case knows all of Unicode; with plain C, lower() would know ASCII alone.
    initdb.arg("--locale=C");
    if binaries.major >= 17 {
        initdb.args(["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]);
    } else {
        initdb.arg(if cfg!(target_os = "macos") {
            "--lc-ctype=UTF-8"
        } else {
            "--lc-ctype=C.UTF-8"
        });
    }
    if !settings.durable {
        initdb.arg("--no-sync");
    }
    initdb.arg("--pgdata").arg(new);
    initdb
}

/// Removes what was left by an `initdb` that was killed. What its children still write is left to
/// the next start.
fn clear_halves(home: &Home) {
    for entry in fs::read_dir(&home.dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(HALF) {
            drop(fs::remove_dir_all(entry.path()));
        }
    }
}

/// Ends a server that outlived its owner, and removes a `postmaster.pid` that means nothing.
///
/// Such a server is not kept: it is no child of ours, so nobody would see it end, nor would it end
/// with us.
pub(super) async fn clear_stale(home: &Home) -> Result<(), Error> {
    let file = home.cluster().join("postmaster.pid");
    if let Some(stale) = home.postmaster() {
        let pid = stale.pid;
        if home.is_postmaster(pid) {
            tracing::info!(pid, "stopping a PostgreSQL whose owner was killed");
            if !end(pid, || !home.is_postmaster(pid)).await {
                return Err(Error::Stuck {
                    pid,
                    log: home.log_path(),
                });
            }
        }
    }
    // PostgreSQL would refuse to start if the number now belongs to another process of this
    // account. We hold the lock of the directory, so no server of ours is behind the file; one that
    // somebody started by hand is still found by its shared memory, and PostgreSQL refuses.
    match fs::remove_file(&file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).on("remove", &file),
        _ => Ok(()),
    }
}

/// Starts the server and waits until it answers, on another port if the remembered one is taken.
pub(super) async fn launch(
    settings: &Settings,
    home: &Home,
    binaries: &Binaries,
    lock: &Arc<Lock>,
) -> Result<(Postmaster, Endpoint), Error> {
    let mut attempt = 1;
    loop {
        let port = port(home)?;
        let log = home.log()?;
        let begin = log.metadata().on("look at", &home.log_path())?.len();
        let mut command = postgres(settings, home, binaries, port);
        command
            .stdout(log.try_clone().on("open", &home.log_path())?)
            .stderr(log);
        let postmaster = Postmaster::spawn(command, lock);
        let postmaster = postmaster.map_err(|error| failed("postgres", error.to_string(), ""))?;
        let Err(status) = ready(home, &postmaster).await else {
            return Ok((
                postmaster,
                Endpoint {
                    port,
                    version: binaries.version.clone(),
                },
            ));
        };
        let said = tail(&home.log_path(), begin);
        if attempt == PORT_ATTEMPTS || !said.contains("could not create any TCP/IP sockets") {
            return Err(failed("postgres", status, &said));
        }
        tracing::debug!(port, "somebody took the port first");
        attempt += 1;
    }
}

fn postgres(settings: &Settings, home: &Home, binaries: &Binaries, port: u16) -> Command {
    let mut postgres = command(&binaries.dir.join("postgres"), home.account, &home.dir);
    postgres.arg("-D").arg(home.cluster());
    let mut set = |name: &str, value: &str| {
        postgres.arg("-c").arg(format!("{name}={value}"));
    };
    set("listen_addresses", "127.0.0.1");
    set("port", &port.to_string());
    set(
        "unix_socket_directories",
        &home.socket_dir().map(quoted).unwrap_or_default(),
    );
    set("logging_collector", "off");
    if cfg!(target_os = "linux") {
        // After a crash: one call for the file system instead of one for each file of each tenant.
        set("recovery_init_sync_method", "syncfs");
    }
    if !settings.durable {
        for name in ["fsync", "synchronous_commit", "full_page_writes"] {
            set(name, "off");
        }
    }
    for (name, value) in &settings.parameters {
        set(name, value);
    }
    postgres
}

/// `unix_socket_directories` is a list of identifiers: separated by commas, quoted to hold one.
fn quoted(dir: &Path) -> String {
    format!("\"{}\"", dir.display().to_string().replace('"', "\"\""))
}

/// The remembered port if it is free, else another, which is remembered.
fn port(home: &Home) -> Result<u16, Error> {
    const FILE: &str = "port";
    let free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port))?.local_addr();
    let remembered = home.read(FILE)?.and_then(|port| port.parse().ok());
    if let Some(port) = remembered.filter(|&port| free(port).is_ok()) {
        return Ok(port);
    }
    let port = free(0).on("find a free port for", &home.dir)?.port();
    home.write(FILE, &port.to_string())?;
    Ok(port)
}

/// Waits until the server answers; its exit status if it ends instead. Recovery after a crash may
/// take minutes.
async fn ready(home: &Home, postmaster: &Postmaster) -> Result<(), String> {
    let mut patience = tokio::time::interval(PATIENCE);
    patience.reset();
    loop {
        if home
            .postmaster()
            .is_some_and(|file| file.pid == postmaster.pid && file.ready)
        {
            return Ok(());
        }
        tokio::select! {
            status = postmaster.exited() => return Err(status),
            () = tokio::time::sleep(STEP) => {}
            _ = patience.tick() => {
                let log = home.log_path();
                tracing::info!(log = %log.display(), "PostgreSQL is still starting or recovering");
            }
        }
    }
}

fn failed(program: &'static str, status: String, output: &str) -> Error {
    Error::Failed {
        program,
        status,
        output: output.trim().to_owned(),
    }
}

/// The end of what was written to the log after `begin`.
fn tail(log: &Path, begin: u64) -> String {
    let read = || {
        let mut file = File::open(log)?;
        let end = file.metadata()?.len();
        file.seek(SeekFrom::Start(begin.max(end.saturating_sub(TAIL))))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        io::Result::Ok(text)
    };
    read().map_or_else(
        |error| error.to_string(),
        |text| String::from_utf8_lossy(&text).into_owned(),
    )
}

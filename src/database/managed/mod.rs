//! A private PostgreSQL: found on this machine or fetched, run as a child, gone with us. The
//! default without a `DATABASE_URL`.
//!
//! One process owns the server of a data directory (a `flock`); others attach to it. `binaries`
//! finds the programs, `download` fetches them, `home` is the data directory, `cluster` makes and
//! starts it, `process` keeps the child. Reads no environment.

mod binaries;
mod cluster;
mod download;
mod error;
mod home;
mod process;

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use binaries::{Binaries, Found};
pub use error::Error;
use home::{Claim, Home, Lock};
use process::{PATIENCE, Postmaster, STEP};

/// The role that `initdb` makes.
const SUPERUSER: &str = "postgres";
/// How often an attached process looks whether the owner is still there.
const WATCH: Duration = Duration::from_secs(1);

/// What the server is to be.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where cluster, password, port, log and socket lie. It is wholly ours: made if absent,
    /// refused if it holds other files. As root it may lie elsewhere, see [`Server::data_dir`].
    pub data_dir: PathBuf,
    /// `BULKHEAD_PG_BIN`: the directory of `postgres` and `initdb`. Nothing else is searched then.
    pub bin_dir: Option<PathBuf>,
    /// `PATH`.
    pub path: Option<OsString>,
    /// Below which packages are looked for; `/` but in tests.
    pub root: PathBuf,
    /// Where fetched releases are kept, such as `~/.cache/bulkhead`.
    pub cache_dir: Option<PathBuf>,
    /// Whether to fetch a release into `cache_dir` if nothing is found: for `dev` and the tests.
    pub may_download: bool,
    /// `BULKHEAD_PG_RELEASES_URL`: a mirror of the releases, instead of GitHub.
    pub releases_url: Option<String>,
    /// Whether a commit survives a power cut. Tests pass false.
    pub durable: bool,
    /// Settings of the server, name and value. They win over `postgresql.conf`.
    pub parameters: Vec<(String, String)>,
}

impl Settings {
    /// A durable server in `data_dir`, from the machine's own packages, sized for many tenants.
    pub fn new(data_dir: PathBuf) -> Self {
        // Every tenant has its own tables, and a dump or a rollout locks many of them in one
        // transaction.
        let parameters = [
            ("max_connections", "200"),
            ("max_locks_per_transaction", "256"),
        ];
        Self {
            data_dir,
            bin_dir: None,
            path: None,
            root: PathBuf::from("/"),
            cache_dir: None,
            may_download: false,
            releases_url: None,
            durable: true,
            parameters: parameters
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        }
    }
}

/// What a running server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Endpoint {
    port: u16,
    version: String,
}

/// A PostgreSQL that answers, run by this process or, if attached, by another.
///
/// Dropping the owner asks the server to stop and does not wait; [`Server::stop`] does.
pub struct Server {
    home: Home,
    endpoint: Endpoint,
    password: String,
    /// None if another process owns it.
    postmaster: Option<Postmaster>,
}

impl Server {
    /// Starts the server of `settings.data_dir` and owns it.
    ///
    /// # Errors
    /// [`Error::Held`] if another process owns it already; the others if it cannot be found, made
    /// or started.
    pub async fn start(settings: &Settings) -> Result<Self, Error> {
        let home = open(settings).await?;
        match home.claim()? {
            Claim::Ours(lock) => Self::own(settings, home, lock).await,
            Claim::Held { pid, .. } => Err(Error::Held { dir: home.dir, pid }),
        }
    }

    /// Attaches to the server of `settings.data_dir` if a process owns it, waiting while that one
    /// is still starting it; else starts it and owns it. What an attached process does not need is
    /// not looked at, binaries for one.
    ///
    /// # Errors
    /// As [`Server::start`], without [`Error::Held`].
    pub async fn attach_or_start(settings: &Settings) -> Result<Self, Error> {
        let home = open(settings).await?;
        let mut patience = tokio::time::interval(PATIENCE);
        patience.reset();
        loop {
            let holder = match home.claim()? {
                Claim::Ours(lock) => return Self::own(settings, home, lock).await,
                Claim::Held {
                    server: Some(endpoint),
                    ..
                } => return Self::attach(home, endpoint),
                Claim::Held { pid, server: None } => pid,
            };
            tokio::select! {
                () = tokio::time::sleep(STEP) => {}
                _ = patience.tick() => {
                    tracing::info!(pid = holder, "waiting for the process that runs PostgreSQL");
                }
            }
        }
    }

    fn attach(home: Home, endpoint: Endpoint) -> Result<Self, Error> {
        let password = cluster::password(&home)?;
        Ok(Self {
            home,
            endpoint,
            password,
            postmaster: None,
        })
    }

    async fn own(settings: &Settings, home: Home, lock: Lock) -> Result<Self, Error> {
        let lock = Arc::new(lock);
        let binaries = binaries(settings, &home).await?;
        let password = cluster::password(&home)?;
        cluster::clear_stale(&home).await?;
        blocking({
            let (settings, home, binaries) = (settings.clone(), home.clone(), binaries.clone());
            // It goes on if this future is dropped, and must still be alone then.
            let held = Arc::clone(&lock);
            move || {
                let _held = held;
                cluster::init(&settings, &home, &binaries)
            }
        })
        .await?;
        let (postmaster, endpoint) = cluster::launch(settings, &home, &binaries, &lock).await?;
        if let Err(error) = lock.publish(&endpoint) {
            tracing::warn!(%error, "other processes cannot attach to this PostgreSQL");
        }
        let (dir, port, version) = (home.dir.display(), endpoint.port, &endpoint.version);
        tracing::info!(%dir, port, version, "PostgreSQL is up");
        Ok(Self {
            home,
            endpoint,
            password,
            postmaster: Some(postmaster),
        })
    }

    /// Whether this process runs the server, and the server ends with it.
    pub fn is_owned(&self) -> bool {
        self.postmaster.is_some()
    }

    /// Always the loopback address.
    pub fn host(&self) -> &'static str {
        "127.0.0.1"
    }

    /// The port, remembered from start to start unless somebody else takes it.
    pub fn port(&self) -> u16 {
        self.endpoint.port
    }

    /// The superuser.
    pub fn user(&self) -> &'static str {
        SUPERUSER
    }

    /// The superuser's password: 64 hexadecimal digits.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// The version, such as `17.5`.
    pub fn version(&self) -> &str {
        &self.endpoint.version
    }

    /// Where the data really lies: as root it is in `/var/lib/bulkhead` if the wanted place is
    /// closed to the account that runs PostgreSQL.
    pub fn data_dir(&self) -> &Path {
        &self.home.dir
    }

    /// The directory of the server's socket; none if its path would be longer than sockets allow.
    pub fn socket_dir(&self) -> Option<&Path> {
        self.home.socket_dir()
    }

    /// The URL of a database, with the superuser's password in it.
    pub fn url(&self, database: &str) -> String {
        format!(
            "postgres://{SUPERUSER}:{}@{}:{}/{database}",
            self.password,
            self.host(),
            self.port()
        )
    }

    /// Waits until the server ends, and says how: by itself, or with the process that owns it.
    pub async fn exited(&self) -> String {
        let Some(postmaster) = &self.postmaster else {
            return self.orphaned().await;
        };
        postmaster.exited().await
    }

    /// Waits until nobody owns the server that this process is attached to, or somebody runs another in its place.
    async fn orphaned(&self) -> String {
        loop {
            match self.home.claim() {
                Ok(Claim::Ours(_)) => return "the process that ran it stopped it".to_owned(),
                Ok(Claim::Held {
                    server: Some(endpoint),
                    ..
                }) if endpoint != self.endpoint => {
                    return "another process runs it anew".to_owned();
                }
                Ok(Claim::Held { .. }) | Err(_) => tokio::time::sleep(WATCH).await,
            }
        }
    }

    /// Stops the server and waits until it is gone; sessions are cut. Does nothing if another
    /// process owns it.
    ///
    /// # Errors
    /// [`Error::Stuck`] if it outlives a fast and an immediate shutdown.
    pub async fn stop(self) -> Result<(), Error> {
        let Some(postmaster) = &self.postmaster else {
            return Ok(());
        };
        if postmaster.stop().await {
            Ok(())
        } else {
            Err(Error::Stuck {
                pid: postmaster.pid,
                log: self.home.log_path(),
            })
        }
    }
}

/// Without the password.
impl fmt::Debug for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut server = formatter.debug_struct("Server");
        server
            .field("dir", &self.home.dir)
            .field("endpoint", &self.endpoint)
            .field("owned", &self.is_owned());
        server.finish_non_exhaustive()
    }
}

async fn open(settings: &Settings) -> Result<Home, Error> {
    let wanted = settings.data_dir.clone();
    blocking(move || Home::open(&wanted)).await
}

/// The programs to run `home` with: found, else fetched.
async fn binaries(settings: &Settings, home: &Home) -> Result<Binaries, Error> {
    let found = blocking({
        let (settings, home) = (settings.clone(), home.clone());
        move || binaries::find(&settings, &home)
    })
    .await?;
    let others = match found {
        Found::Binaries(binaries) => return Ok(binaries),
        Found::Others(others) => others,
    };
    let fits = home
        .major()
        .is_none_or(|major| u64::from(major) == download::VERSION.major);
    if settings.may_download && settings.bin_dir.is_none() && fits {
        return download::fetch(settings, home).await;
    }
    let found = if others.is_empty() {
        "nothing".to_owned()
    } else {
        others.join(", ")
    };
    match home.major() {
        Some(wanted) => Err(Error::MajorVersion {
            dir: home.dir.clone(),
            wanted,
            found,
        }),
        None if others.is_empty() => Err(Error::NotInstalled { why: String::new() }),
        None => Err(Error::NotInstalled {
            why: format!(" (only {found})"),
        }),
    }
}

/// Runs work that waits for files and children where it holds up no other task.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}

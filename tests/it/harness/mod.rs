//! One PostgreSQL and one server per run; each test makes tenants of its own, for our isolation is its fixture.

mod dns;
mod media;
mod npm;
mod process;
mod proxy;
mod socket;
mod sql;
mod tenant;
mod worlds;

pub use dns::NameServer;
pub use npm::{Package, chromium, repository, succeed};
pub use process::Process;
pub use proxy::Proxy;
pub use socket::{Events, Heard, Socket};
pub use sql::{execute, refused, sqlstate, value};
pub use tenant::{Answer, PASSWORD, Tenant};

use bulkhead::app::App;
use bulkhead::config::Config;
use bulkhead::database::{
    self,
    managed::{Server, Settings},
};
use bulkhead::error::Result;
use bulkhead::http;
use bulkhead::secret::{SecretKey, hex};
use image::{ImageFormat, RgbImage};
use reqwest::{Method, RequestBuilder};
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};
use std::ffi::OsString;
use std::io::{self, Cursor, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::str::FromStr as _;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

/// The key that the run's server and commands share.
pub const SECRET_KEY: &str = "the-key-of-this-test-run-and-of-no-other";
/// How long a condition may take to come true before the test fails.
const PATIENCE: Duration = Duration::from_mins(2);

/// The run's runtime: what the tests share must outlive each of them.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));
static WORLD: OnceCell<World> = OnceCell::const_new();

/// Runs a test on the run's runtime. One that hangs, whatever it waits for, ends the run by its name.
#[expect(clippy::exit, reason = "nothing else ends a thread that waits")]
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let (_ends, ended) = mpsc::channel::<()>();
    let name = thread::current().name().map(str::to_owned);
    let longest = longest();
    thread::spawn(move || {
        let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(longest) else {
            return;
        };
        // Not by a macro: what these print is kept for the test's end.
        let mut said = io::stderr();
        let _ = writeln!(said, "{name:?} hangs: it has not ended in {longest:?}");
        let mut processes = Command::new("timeout");
        processes.args(["10", "ps", "-eo", "pid,ppid,etimes,stat,wchan:24,args"]);
        let processes = processes.output();
        let processes = processes.map_or_else(|e| e.to_string().into_bytes(), |said| said.stdout);
        let _ = said.write_all(&processes);
        std::process::exit(1);
    });
    RUNTIME.block_on(test)
}

/// The longest that a test may take: `BULKHEAD_TEST_MINUTES`, for one that is asked to go on for long.
fn longest() -> Duration {
    let asked = std::env::var("BULKHEAD_TEST_MINUTES").ok();
    Duration::from_mins(asked.map_or(10, |number| number.parse().expect("a number")))
}

/// What all tests share: a PostgreSQL (fsync off) and a server with a worker in this process.
#[derive(Debug)]
pub struct World {
    pub app: App,
    /// Where the server listens, e.g. `127.0.0.1:41234`.
    pub address: String,
    /// The database as its owner.
    pub database_url: String,
    pub data_dir: PathBuf,
    pub client: reqwest::Client,
    postgres: Arc<Server>,
}

/// The world, made by the first test that needs it.
pub async fn world() -> &'static World {
    WORLD.get_or_init(World::start).await
}

impl World {
    async fn start() -> Self {
        let data_dir = data_dir();
        let mut settings = Settings::new(data_dir.join("postgres"));
        settings.durable = false;
        settings.path = path();
        settings.may_download = true;
        settings.cache_dir = Some(std::env::temp_dir().join("bulkhead-cache/bulkhead"));
        // Every world of the run keeps its connections until the end.
        let parameter = ("max_connections".to_owned(), "1500".to_owned());
        settings.parameters.push(parameter);
        let postgres = Server::start(&settings)
            .await
            .expect("a PostgreSQL for the tests");
        let owner = database::own(&postgres, &key()).await.unwrap();
        let config = Config {
            database_url: Some(SecretString::from(owner.to_url_lossy().to_string())),
            data_dir,
            max_connections: connections(Config::default().max_connections),
            // Tests make tenants both ways.
            spares: 2,
            ..Config::default()
        };
        let world = Self::open(config, Arc::new(postgres)).await;
        drop(world.app.worker().await);
        world
    }

    /// Serves a configuration, without a worker.
    async fn open(config: Config, postgres: Arc<Server>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let database_url = config.database_url.as_ref().unwrap().expose_secret();
        let (database_url, data_dir) = (database_url.to_owned(), config.data_dir.clone());
        let config = Config {
            http: address,
            ..config
        };
        let app = App::start(config, key(), false).await.expect("the server");
        RUNTIME.spawn(http::serve(&app, listener, std::future::pending()));
        bulkhead::secret::ensure_tls();
        // A proxy of this machine is no part of the tests.
        let client = reqwest::Client::builder()
            .no_proxy()
            // The server ends idle connections later: none is used just when it does.
            .pool_idle_timeout(Duration::from_secs(30))
            .build()
            .unwrap();
        Self {
            app,
            address: address.to_string(),
            database_url,
            data_dir,
            client,
            postgres,
        }
    }

    /// A request to the server, for any host.
    pub fn request(&self, method: Method, host: &str, path: &str) -> RequestBuilder {
        self.client
            .request(method, format!("http://{}{path}", self.address))
            .header("Host", host)
    }

    /// Where PostgreSQL's data are.
    pub fn cluster(&self) -> PathBuf {
        self.postgres.data_dir().join("pgdata")
    }

    /// A connection as PostgreSQL's superuser, to the database of the tests: the other door.
    pub async fn superuser(&self) -> PgConnection {
        let owner = PgConnectOptions::from_str(&self.database_url).unwrap();
        let database = owner.get_database().unwrap().to_owned();
        self.superuser_of(&database).await
    }

    /// The same, to another database of the server.
    pub async fn superuser_of(&self, database: &str) -> PgConnection {
        self.try_superuser_of(database).await.unwrap()
    }

    /// The same; an error if the server is not there.
    pub async fn try_superuser_of(&self, database: &str) -> sqlx::Result<PgConnection> {
        PgConnectOptions::new_without_pgpass()
            .host(self.postgres.host())
            .port(self.postgres.port())
            .username(self.postgres.user())
            .password(self.postgres.password())
            .database(database)
            .connect()
            .await
    }

    /// A new database of the owner's, nothing in it and not hardened; its URL.
    pub async fn new_database(&self, name: &str) -> String {
        let sql = format!("CREATE DATABASE {name} OWNER bulkhead");
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut self.superuser().await)
            .await
            .unwrap();
        let mut url = reqwest::Url::parse(&self.database_url).unwrap();
        url.set_path(name);
        url.to_string()
    }

    /// A second server on the same database, not listening and without a worker: `connections` over the platform and all
    /// tenants, of which a tenant may use the half (2: one).
    pub async fn another(&self, connections: u32) -> App {
        let url = &self.database_url;
        self.another_on(url, connections).await.unwrap()
    }

    /// The same, on another database.
    pub async fn another_on(&self, database_url: &str, connections: u32) -> Result<App> {
        let config = Config {
            database_url: Some(SecretString::from(database_url)),
            max_connections: connections,
            ..self.app.services.config.clone()
        };
        let key = self.app.services.key.clone();
        App::start(config, key, false).await
    }

    /// A second server that reaches the database through a proxy that can cut it.
    pub async fn through_proxy(&self) -> (App, Proxy) {
        let proxy = Proxy::before(self.postgres.port()).await;
        let mut url = reqwest::Url::parse(&self.database_url).unwrap();
        url.set_query(None);
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(proxy.port)).unwrap();
        let app = self.another_on(url.as_str(), 4).await.unwrap();
        (app, proxy)
    }

    /// A connection as the login role of a cell, bound to nobody.
    pub async fn cell(&self, number: i16) -> PgConnection {
        let instance = self.app.services.database.instance();
        self.log_in(&format!("{instance}_c_{number}")).await
    }

    /// A connection as each cell's login role, by its name, bound to nobody.
    pub async fn logins(&self) -> Vec<(String, PgConnection)> {
        let names: Vec<String> = sqlx::query_scalar("SELECT login FROM bulkhead.cell ORDER BY id")
            .fetch_all(&mut self.superuser().await)
            .await
            .unwrap();
        let mut logins = Vec::new();
        for name in names {
            let connection = self.log_in(&name).await;
            logins.push((name, connection));
        }
        logins
    }

    async fn log_in(&self, login: &str) -> PgConnection {
        let password = self.app.services.key.mac("cell login", &[login.as_bytes()]);
        PgConnectOptions::from_str(&self.database_url)
            .unwrap()
            .username(login)
            .password(&hex(&password))
            .extra_float_digits(None)
            .connect()
            .await
            .unwrap()
    }

    /// A connection as the owner of the database.
    pub async fn owner(&self) -> PgConnection {
        PgConnection::connect(&self.database_url).await.unwrap()
    }
}

/// The command `bulkhead`, on the database of the tests.
pub async fn bulkhead() -> Command {
    world().await.command()
}

/// The command `bulkhead` with nothing set, in a directory of its own.
pub fn bare() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead"));
    command.env_clear().current_dir(std::env::temp_dir());
    if let Some(path) = path() {
        command.env("PATH", path);
    }
    command
}

/// Runs a command to its end with this on its standard input: its exit code, and what it said there and there.
pub fn finish(command: &mut Command, input: &str) -> (Option<i32>, String, String) {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not read may be gone already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

/// Begins the work, and drops it after this time unless it is done. By spinning: a timer counts in milliseconds.
pub async fn cut_short<T>(after: Duration, work: impl Future<Output = T>) -> Option<T> {
    let began = Instant::now();
    let clock = async {
        while began.elapsed() < after {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        done = work => Some(done),
        () = clock => None,
    }
}

/// A small picture.
pub fn png() -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    RgbImage::new(300, 200)
        .write_to(&mut bytes, ImageFormat::Png)
        .unwrap();
    bytes.into_inner()
}

/// Waits until `condition` gives a value. It looks at least a hundred times: a machine that stood still meanwhile is no reason to
/// give up.
pub async fn until<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    let mut looks = 0;
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(
            looks < 100 || began.elapsed() < PATIENCE,
            "waited {PATIENCE:?} until {what}"
        );
        looks += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Connections of a world: `BULKHEAD_TEST_CONNECTIONS` says how few will do; 1 must.
pub fn connections(otherwise: u32) -> u32 {
    let asked = std::env::var("BULKHEAD_TEST_CONNECTIONS").ok();
    asked.map_or(otherwise, |number| number.parse().expect("a number"))
}

/// The key that [`SECRET_KEY`] is.
fn key() -> SecretKey {
    SecretKey::new(SECRET_KEY).unwrap()
}

/// A program of this machine, by its name.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = path()?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}

#[expect(
    clippy::disallowed_methods,
    reason = "where PostgreSQL's programs may be"
)]
fn path() -> Option<OsString> {
    std::env::var_os("PATH")
}

/// A directory for this run; those of runs that are over are removed.
pub fn data_dir() -> PathBuf {
    let base = std::env::temp_dir();
    for entry in std::fs::read_dir(&base).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix("bulkhead-it-");
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    let dir = base.join(format!("bulkhead-it-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

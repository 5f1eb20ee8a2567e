//! One PostgreSQL and one server per run; each test makes tenants of its own, for our isolation is its fixture.

mod tenant;

pub use tenant::{Answer, PASSWORD, Tenant};

use bulkhead::app::App;
use bulkhead::config::Config;
use bulkhead::database::{
    self,
    managed::{Server, Settings},
};
use bulkhead::http;
use bulkhead::secret::SecretKey;
use image::{ImageFormat, RgbImage};
use reqwest::{Method, RequestBuilder};
use secrecy::SecretString;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _};
use std::ffi::OsString;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

/// The key that the run's server and commands share.
const SECRET_KEY: &str = "the-key-of-this-test-run-and-of-no-other";
/// How long a condition may take to come true before the test fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// The run's runtime: what the tests share must outlive each of them.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));
static WORLD: OnceCell<World> = OnceCell::const_new();

/// Runs a test on the run's runtime.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    RUNTIME.block_on(test)
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
    postgres: Server,
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
        settings.cache_dir = Some(std::env::temp_dir().join("bulkhead-cache"));
        let postgres = Server::start(&settings)
            .await
            .expect("a PostgreSQL for the tests");
        let key = SecretKey::new(SECRET_KEY).unwrap();
        let owner = database::own(&postgres, &key).await.unwrap();
        let database_url = owner.to_url_lossy().to_string();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = Config {
            database_url: Some(SecretString::from(database_url.clone())),
            data_dir: data_dir.clone(),
            http: address,
            ..Config::default()
        };
        let app = App::start(config, key, false).await.expect("the server");
        let router = http::router(&app);
        RUNTIME.spawn(async move { axum::serve(listener, router).await });
        drop(app.worker().await);
        bulkhead::secret::ensure_tls();
        // A proxy of this machine is no part of the tests.
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
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

    /// A connection as PostgreSQL's superuser, to the database of the tests: the other door.
    pub async fn superuser(&self) -> PgConnection {
        PgConnectOptions::new_without_pgpass()
            .host(self.postgres.host())
            .port(self.postgres.port())
            .username(self.postgres.user())
            .password(self.postgres.password())
            .database("bulkhead")
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
    let world = world().await;
    let mut command = bare();
    command
        .env("DATABASE_URL", &world.database_url)
        .env("BULKHEAD_SECRET_KEY", SECRET_KEY)
        .env("BULKHEAD_DATA_DIR", &world.data_dir);
    command
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

/// A small picture.
pub fn png() -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    RgbImage::new(300, 200)
        .write_to(&mut bytes, ImageFormat::Png)
        .unwrap();
    bytes.into_inner()
}

/// Waits until `condition` gives a value.
pub async fn until<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(
            began.elapsed() < PATIENCE,
            "waited {PATIENCE:?} until {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "where PostgreSQL's programs may be"
)]
fn path() -> Option<OsString> {
    std::env::var_os("PATH")
}

/// A directory for this run; those of runs that are over are removed.
fn data_dir() -> PathBuf {
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

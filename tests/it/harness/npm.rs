//! Packages of this repository that npm builds and node runs. What they depend on is fetched once, beside cargo's own
//! files, for as long as their lock file stays as it is. Where there is no npm, or it reaches no registry, the tests that
//! need one say so and check nothing.

use super::{data_dir, program};
use bulkhead::secret::hex;
use sha2::{Digest as _, Sha256};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

/// Whether npm has failed in this run: then it is not asked, and waited for, again.
static FAILED: Mutex<bool> = Mutex::new(false);

/// A test's own copy of a package, with what it depends on in its `node_modules`.
#[derive(Debug)]
pub struct Package {
    root: PathBuf,
    path: &'static str,
}

impl Package {
    /// A copy of the package at this path in the repository.
    pub fn new(path: &'static str) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let Some(modules) = modules(path) else {
            println!("{path} is not tested: there is no npm that can fetch what it needs");
            return None;
        };
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let root = data_dir().join(format!("npm/{number}"));
        copy(&repository().join(path), &root.join(path)).unwrap();
        std::os::unix::fs::symlink(modules, root.join(path).join("node_modules")).unwrap();
        Some(Self { root, path })
    }

    /// The same with another file of the repository, at its place.
    pub fn with(self, file: &str) -> Self {
        fs::copy(repository().join(file), self.root.join(file)).unwrap();
        self
    }

    /// Where it is.
    pub fn directory(&self) -> PathBuf {
        self.root.join(self.path)
    }

    /// A program that came with what it depends on, to be run there.
    pub fn command(&self, name: &str) -> Command {
        let directory = self.directory();
        let mut command = Command::new(directory.join("node_modules/.bin").join(name));
        command.current_dir(directory);
        command
    }

    /// One of its own files, to be run by node.
    pub fn node(&self, file: &str) -> Command {
        let mut command = Command::new(program("node").unwrap());
        command.arg(file).current_dir(self.directory());
        command
    }

    /// Runs one of its scripts, which must succeed.
    pub fn run(&self, script: &str) {
        let mut command = Command::new(program("npm").unwrap());
        succeed(command.args(["run", script]).current_dir(self.directory()));
    }
}

/// Runs a command that must succeed: what it said.
#[track_caller]
pub fn succeed(command: &mut Command) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let said = [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(
        status.success(),
        "{command:?} ended with {status}:\n{}",
        said.concat()
    );
    said.concat()
}

/// Chromium, for tests in a browser.
pub fn chromium() -> Option<PathBuf> {
    let found = ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find_map(program);
    if found.is_none() {
        println!("no browser is tested: there is no Chromium in PATH");
    }
    found
}

/// The root of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What the package's lock file names: fetched before, or now.
fn modules(path: &str) -> Option<PathBuf> {
    program("node")?;
    let npm = program("npm")?;
    let source = repository().join(path);
    let lock = fs::read(source.join("package-lock.json")).unwrap();
    let name = format!(
        "{}-{}",
        path.replace('/', "-"),
        &hex(&Sha256::digest(lock))[..12]
    );
    let target = Path::new(env!("CARGO_BIN_EXE_bulkhead"))
        .parent()?
        .parent()?;
    let directory = target.join("npm").join(name);
    // One at a time: two packages at once are no faster, and the second may be the first.
    let mut failed = FAILED.lock().unwrap();
    if !directory.exists() && !*failed {
        *failed = install(&npm, &source, &directory).is_none();
    }
    let modules = directory.join("node_modules");
    modules.exists().then_some(modules)
}

fn install(npm: &Path, source: &Path, directory: &Path) -> Option<()> {
    // Two runs may do so at once; a half of it is never taken for the whole.
    let half = directory.with_extension(std::process::id().to_string());
    fs::create_dir_all(&half).ok()?;
    for file in ["package.json", "package-lock.json"] {
        fs::copy(source.join(file), half.join(file)).ok()?;
    }
    let done = Command::new(npm)
        .args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"])
        .args(["--fetch-retries=2", "--fetch-timeout=30000"])
        .current_dir(&half)
        .output()
        .ok()?;
    if done.status.success() {
        let _ = fs::rename(&half, directory);
    } else {
        println!("{}", String::from_utf8_lossy(&done.stderr));
    }
    let _ = fs::remove_dir_all(&half);
    directory.exists().then_some(())
}

/// Copies a directory, but not what is built or fetched.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (name, place) = (entry.file_name(), to.join(entry.file_name()));
        if name == "node_modules" || name == "dist" {
            continue;
        }
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &place)?;
        } else {
            fs::copy(entry.path(), place)?;
        }
    }
    Ok(())
}

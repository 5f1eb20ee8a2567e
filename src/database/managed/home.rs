//! The data directory: where it lies, whose it is, who runs it, and the small files beside the
//! cluster.
//!
//! `lock` says who runs the server and how to reach it, `password` and `port` are remembered,
//! `postgres.log` is the server's, `pgdata` is the cluster, and the server's socket lies here too.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{
    DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown, lchown,
};
use std::path::{Path, PathBuf};

use super::error::OnFile;
use super::process::{Account, command_line};
use super::{Endpoint, Error};

/// Where root's data goes when the wanted place is closed to the account that runs PostgreSQL.
const SHARED: &str = "/var/lib/bulkhead";
/// The mode of the data directory: PostgreSQL's own rule for `pgdata`, and the socket and password
/// lie here too.
const PRIVATE: u32 = 0o700;
/// A log this long is set aside at the next start.
const LOG_LIMIT: u64 = 8 << 20;
/// The longest path of a socket: `sockaddr_un` holds 104 bytes on macOS and the BSDs, 108 on Linux.
const SOCKET_PATH_LIMIT: usize = 103;

/// A data directory that exists, and the account it belongs to.
#[derive(Debug, Clone)]
pub(super) struct Home {
    pub(super) dir: PathBuf,
    pub(super) account: Account,
}

/// Who may run the server of a data directory.
pub(super) enum Claim {
    /// We, for as long as the lock lives.
    Ours(Lock),
    /// Another process. `server` is there once it answers.
    Held { pid: u32, server: Option<Endpoint> },
}

impl Home {
    /// Opens the data directory at `wanted`, or makes it.
    ///
    /// As root it becomes the property of whoever owned it before, else of `postgres` or `nobody`;
    /// where that account cannot reach `wanted` the data lies in `/var/lib/bulkhead` under a name
    /// made from the path.
    pub(super) fn open(wanted: &Path) -> Result<Self, Error> {
        let wanted = absolute(wanted).on("resolve", wanted)?;
        let own = Account::own();
        let owner = owner(&wanted)?;
        if !own.is_root() {
            return match owner {
                Some(owner) if owner.uid != own.uid => Err(Error::Foreign {
                    dir: wanted,
                    owner: owner.uid,
                    user: own.uid,
                }),
                _ => Self {
                    dir: wanted,
                    account: own,
                }
                .create(),
            };
        }
        let account = match owner {
            Some(owner) if !owner.is_root() => owner,
            _ => Account::unprivileged()?,
        };
        let dir = reachable(wanted.clone(), account);
        if dir != wanted {
            tracing::info!(wanted = %wanted.display(), dir = %dir.display(),
                "PostgreSQL does not run as root, and its user cannot enter the wanted directory");
        }
        Self { dir, account }.create()
    }

    /// Makes the directory if need be, and refuses one that holds somebody's files.
    fn create(self) -> Result<Self, Error> {
        let dir = self.dir.as_path();
        make_parents(dir)?;
        DirBuilder::new()
            .recursive(true)
            .mode(PRIVATE)
            .create(dir)
            .on("make", dir)?;
        let empty = fs::read_dir(dir).on("read", dir)?.next().is_none();
        if !empty && !self.file("lock").exists() {
            return Err(Error::Occupied { dir: self.dir });
        }
        fs::set_permissions(dir, Permissions::from_mode(PRIVATE)).on("close to others", dir)?;
        if Account::own().is_root() {
            lchown(dir, Some(self.account.uid), Some(self.account.gid)).on("give away", dir)?;
        }
        Ok(self)
    }

    /// The path of a file in the data directory.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The directory of the cluster itself.
    pub(super) fn cluster(&self) -> PathBuf {
        self.file("pgdata")
    }

    /// Where the server's socket may lie; none if its path would be too long.
    pub(super) fn socket_dir(&self) -> Option<&Path> {
        let length = self.dir.as_os_str().len() + "/.s.PGSQL.65535".len();
        (length <= SOCKET_PATH_LIMIT).then_some(self.dir.as_path())
    }

    /// The major version that made the cluster; none before there is one.
    pub(super) fn major(&self) -> Option<u32> {
        fs::read_to_string(self.cluster().join("PG_VERSION"))
            .ok()?
            .trim()
            .parse()
            .ok()
    }

    /// Claims the right to run the server here.
    pub(super) fn claim(&self) -> Result<Claim, Error> {
        let path = self.file("lock");
        let file = self.open_file(
            &path,
            OpenOptions::new().read(true).write(true).create(true),
        )?;
        match file.try_lock() {
            Ok(()) => {
                let lock = Lock { file };
                lock.withdraw();
                Ok(Claim::Ours(lock))
            }
            Err(TryLockError::WouldBlock) => {
                let text = fs::read_to_string(&path).on("read", &path)?;
                let (pid, server) = parse_lock(&text);
                Ok(Claim::Held { pid, server })
            }
            Err(TryLockError::Error(source)) => Err(source).on("lock", &path),
        }
    }

    /// The text of a small file; none if there is no such file.
    pub(super) fn read(&self, name: &str) -> Result<Option<String>, Error> {
        let path = self.file(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).on("read", &path),
        }
    }

    /// Replaces a small file as a whole, readable by the account alone.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<(), Error> {
        let path = self.file(name);
        let new = self.file(&format!("{name}.new"));
        drop(fs::remove_file(&new));
        let mut file = self.open_file(&new, OpenOptions::new().write(true).create_new(true))?;
        writeln!(file, "{text}")
            .and_then(|()| file.sync_all())
            .on("write", &new)?;
        fs::rename(&new, &path).on("write", &path)
    }

    /// The server's log, to append to; a long one is set aside first.
    pub(super) fn log(&self) -> Result<File, Error> {
        let path = self.log_path();
        if fs::symlink_metadata(&path).is_ok_and(|log| log.len() > LOG_LIMIT) {
            let old = self.file("postgres.log.1");
            fs::rename(&path, &old).on("set aside", &path)?;
        }
        self.open_file(&path, OpenOptions::new().append(true).create(true))
    }

    /// Where the server's log lies.
    pub(super) fn log_path(&self) -> PathBuf {
        self.file("postgres.log")
    }

    /// What the server says of itself in `postmaster.pid`.
    pub(super) fn postmaster(&self) -> Option<PostmasterFile> {
        let text = fs::read_to_string(self.cluster().join("postmaster.pid")).ok()?;
        let mut lines = text.lines();
        let pid = lines.next()?.trim().parse().ok()?;
        // The eighth line is the state, since PostgreSQL 10 (`LOCK_FILE_LINE_PM_STATUS`).
        let ready = lines.nth(6).is_some_and(|state| state.trim() == "ready");
        Some(PostmasterFile { pid, ready })
    }

    /// Whether the process is a `postgres` of this cluster, and not one that was given its number
    /// later.
    pub(super) fn is_postmaster(&self, pid: i32) -> bool {
        let command = command_line(pid);
        command.contains("postgres")
            && command.contains(&format!("-D {} ", self.cluster().display()))
    }

    /// Opens a file for the account. The account could have put a symbolic link here for root to
    /// follow.
    fn open_file(&self, path: &Path, options: &mut OpenOptions) -> Result<File, Error> {
        let file = options
            .mode(0o600)
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(path)
            .on("open", path)?;
        if Account::own().is_root() {
            fchown(&file, Some(self.account.uid), Some(self.account.gid)).on("give away", path)?;
        }
        Ok(file)
    }
}

/// `postmaster.pid`, as far as it matters here.
pub(super) struct PostmasterFile {
    pub(super) pid: i32,
    pub(super) ready: bool,
}

/// The right to run the server of a data directory: a `flock`, so it ends with its process however
/// that ends. The file says which process that is and, once the server answers, how to reach it;
/// other processes attach by that.
pub(super) struct Lock {
    file: File,
}

impl Lock {
    /// Says where the server answers.
    pub(super) fn publish(&self, server: &Endpoint) -> io::Result<()> {
        let (pid, Endpoint { port, version }) = (std::process::id(), server);
        let text = format!("{pid}\n{port}\n{version}\n");
        self.file.write_all_at(text.as_bytes(), 0)
    }

    /// Says that there is no server to attach to, only its owner.
    pub(super) fn withdraw(&self) {
        // Nothing depends on it but the attach of another process, which then fails to connect.
        let text = format!("{}\n", std::process::id());
        let cleared = self.file.set_len(0);
        drop(cleared.and_then(|()| self.file.write_all_at(text.as_bytes(), 0)));
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A child that is being forked at this moment has a copy of the file; closing ours would
        // not be enough.
        drop(self.file.unlock());
    }
}

fn parse_lock(text: &str) -> (u32, Option<Endpoint>) {
    let lines: Vec<&str> = text.lines().collect();
    let pid = lines.first().and_then(|pid| pid.parse().ok()).unwrap_or(0);
    let server = match lines[..] {
        [_, port, version] => port.parse().ok().map(|port| Endpoint {
            port,
            version: version.to_owned(),
        }),
        _ => None,
    };
    (pid, server)
}

/// The path without links; what does not exist yet has none.
pub(super) fn absolute(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    for parent in path.ancestors() {
        if let (Ok(real), Ok(rest)) = (parent.canonicalize(), path.strip_prefix(parent)) {
            // Joining an empty rest would append a slash.
            return Ok(if rest.as_os_str().is_empty() {
                real
            } else {
                real.join(rest)
            });
        }
    }
    Ok(path)
}

/// Whose the directory is; none if it does not exist.
fn owner(dir: &Path) -> Result<Option<Account>, Error> {
    match fs::metadata(dir) {
        Ok(metadata) => Ok(Some(Account {
            uid: metadata.uid(),
            gid: metadata.gid(),
        })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).on("look at", dir),
    }
}

/// `wanted` if `account` can reach it, else a place in `/var/lib/bulkhead`; only root runs children
/// as somebody else.
pub(super) fn reachable(wanted: PathBuf, account: Account) -> PathBuf {
    let closed = wanted
        .ancestors()
        .skip(1)
        .any(|dir| !may_enter(dir, account));
    if closed && Account::own().is_root() {
        Path::new(SHARED).join(escape(&wanted))
    } else {
        wanted
    }
}

/// Makes the directories above `path`.
pub(super) fn make_parents(path: &Path) -> Result<(), Error> {
    let Some(parent) = path.parent() else {
        return Ok(());
    };
    fs::create_dir_all(parent).on("make", parent)?;
    if parent == Path::new(SHARED) {
        // Others may pass, but not list names that tell of paths which they may not see.
        let mode = Permissions::from_mode(0o711);
        fs::set_permissions(parent, mode).on("open to others", parent)?;
    }
    Ok(())
}

/// Whether the mode lets `account` through a directory; one that does not exist yet will be made by
/// us.
fn may_enter(dir: &Path, account: Account) -> bool {
    let Ok(metadata) = fs::metadata(dir) else {
        return true;
    };
    let bit = if metadata.uid() == account.uid {
        0o100
    } else if metadata.gid() == account.gid {
        0o010
    } else {
        0o001
    };
    metadata.mode() & bit != 0
}

/// A path as one name, after systemd's escaping of unit names: `/root/a-b` becomes `root-a\x2db`.
fn escape(path: &Path) -> String {
    let bytes = path.as_os_str().as_bytes();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_');
    bytes
        .iter()
        .skip(1)
        .fold(String::new(), |name, &byte| match byte {
            b'/' => name + "-",
            byte if plain(byte) => name + char::from(byte).encode_utf8(&mut [0; 1]),
            byte => format!("{name}\\x{byte:02x}"),
        })
}

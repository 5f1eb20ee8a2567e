//! What can go wrong between "no `DATABASE_URL`" and a server that answers.

use std::io;
use std::path::{Path, PathBuf};

/// Why the private PostgreSQL could not be found, made, started or stopped. Every message says what
/// to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No PostgreSQL on this machine, and none may be or could be fetched.
    #[error(
        "PostgreSQL {oldest} or newer was not found{why}. Install it:\n  \
         Debian, Ubuntu:  sudo apt-get install postgresql\n  \
         Fedora, RHEL:    sudo dnf install postgresql-server\n  \
         macOS:           brew install postgresql@17\n\
         or set BULKHEAD_PG_BIN to the directory that holds `postgres` and `initdb`, \
         or DATABASE_URL to a server of your own",
        oldest = super::binaries::OLDEST
    )]
    NotInstalled {
        /// Why it could not be fetched either, as the end of a clause; may be empty.
        why: String,
    },

    /// `BULKHEAD_PG_BIN` names a directory that cannot be used.
    #[error("BULKHEAD_PG_BIN is {}, but {why}; \
         point it at the directory that holds `postgres` and `initdb`", dir.display())]
    BinDir {
        /// The directory it names.
        dir: PathBuf,
        /// What is wrong with it.
        why: String,
    },

    /// The data was made by a major version that is not installed.
    #[error(
        "{} was made by PostgreSQL {wanted}, and {found} is here; install PostgreSQL {wanted}, \
         or move the directory away to begin with an empty database",
        dir.display()
    )]
    MajorVersion {
        /// The data directory.
        dir: PathBuf,
        /// The major version in its `PG_VERSION`.
        wanted: u32,
        /// The versions that were found, comma separated.
        found: String,
    },

    /// Another process runs the server of this data directory.
    #[error("{} is in use by process {pid}; stop it, or choose another --data-dir", dir.display())]
    Held {
        /// The data directory.
        dir: PathBuf,
        /// The process that holds it; 0 while it has not written its id yet.
        pid: u32,
    },

    /// The data directory belongs to somebody else.
    #[error(
        "{dir} belongs to user id {owner}, and this process is user id {user}: \
         run as that user or as root, run `sudo chown -R {user} {dir}`, \
         or choose another --data-dir",
        dir = dir.display()
    )]
    Foreign {
        /// The data directory.
        dir: PathBuf,
        /// Its owner.
        owner: u32,
        /// The caller.
        user: u32,
    },

    /// The directory has files that this module did not put there.
    #[error("{} is neither empty nor a Bulkhead data directory; \
         choose another --data-dir", dir.display())]
    Occupied {
        /// The directory.
        dir: PathBuf,
    },

    /// PostgreSQL refuses to run as root, and there is nobody to run it as.
    #[error(
        "PostgreSQL does not run as root, and there is neither a user `postgres` \
         nor `nobody` to run it as; create one"
    )]
    NoAccount,

    /// The superuser's password is gone from the data directory.
    #[error("{} is missing, so nobody can log in; restore it, \
         or move the data directory away", file.display())]
    PasswordLost {
        /// Where it should be.
        file: PathBuf,
    },

    /// `initdb` or `postgres` ended, or could not be run.
    #[error("{program} failed ({status}); its last words:\n{output}")]
    Failed {
        /// The program.
        program: &'static str,
        /// Its exit status, or why it did not start.
        status: String,
        /// The tail of what it wrote.
        output: String,
    },

    /// `postgres` outlived every signal that it may be sent.
    #[error("postgres (process {pid}) does not stop; look at {}", log.display())]
    Stuck {
        /// Its process id.
        pid: i32,
        /// Its log.
        log: PathBuf,
    },

    /// The release was refused: not there, not what its checksum says, or not PostgreSQL.
    #[error("PostgreSQL from {url} cannot be used: {why}")]
    Release {
        /// Its archive.
        url: String,
        /// What is wrong.
        why: String,
    },

    /// The file system refused.
    #[error("could not {action} {}: {source}", path.display())]
    File {
        /// The verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Names the file in an [`io::Error`], which does not know it.
pub(super) trait OnFile<T> {
    /// Says that `action` was tried on `path`.
    fn on(self, action: &'static str, path: &Path) -> Result<T, Error>;
}

impl<T> OnFile<T> for io::Result<T> {
    fn on(self, action: &'static str, path: &Path) -> Result<T, Error> {
        self.map_err(|source| Error::File {
            action,
            path: path.to_owned(),
            source,
        })
    }
}

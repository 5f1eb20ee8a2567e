//! PgBouncer in transaction mode, between Bulkhead and PostgreSQL.

use crate::Result;
use crate::place::Place;
use crate::postgres::{OWNER, Postgres};
use crate::process::Process;
use nix::unistd::{Uid, User};
use std::fs::{Permissions, create_dir, set_permissions, write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// As whom it runs when we are root, which it refuses to be.
const ACCOUNT: &str = "nobody";
/// How long it may take until it listens.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running PgBouncer.
#[derive(Debug)]
pub(super) struct Pooler {
    _process: Process,
    /// Where it listens.
    pub(super) port: u16,
}

impl Pooler {
    /// Starts one. It asks PostgreSQL for the logins' passwords, as the superuser.
    pub(super) async fn start(place: &Place, postgres: &Postgres) -> Result<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
            .local_addr()?
            .port();
        let dir = place.path().join("pgbouncer");
        create_dir(&dir)?;
        let (user, password) = postgres.superuser();
        let (users, settings) = (dir.join("users"), dir.join("pgbouncer.ini"));
        write(&users, format!("\"{user}\" \"{password}\"\n"))?;
        let text = format!(
            "[databases]\n\
             {OWNER} = host=127.0.0.1 port={} auth_user={user}\n\
             [pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = scram-sha-256\nauth_file = {}\n\
             auth_query = SELECT usename, passwd FROM pg_catalog.pg_shadow WHERE usename = $1\n\
             pool_mode = transaction\nmax_client_conn = 200\ndefault_pool_size = 20\n\
             ignore_startup_parameters = extra_float_digits,options\n",
            postgres.port(),
            users.display()
        );
        write(&settings, text)?;
        let mut command = Command::new("pgbouncer");
        command
            .arg(&settings)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if Uid::effective().is_root() {
            let account = User::from_name(ACCOUNT)?.ok_or("there is no account for pgbouncer")?;
            for path in [&dir, &users, &settings] {
                chown(path, Some(account.uid.as_raw()), Some(account.gid.as_raw()))?;
            }
            command.uid(account.uid.as_raw()).gid(account.gid.as_raw());
        }
        set_permissions(&dir, Permissions::from_mode(0o700))?;
        let mut process = Process::spawn(command)?;
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if process.ended() || Instant::now() > deadline {
                return Err("pgbouncer does not start".into());
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(Self {
            _process: process,
            port,
        })
    }
}

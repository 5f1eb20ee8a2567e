//! Other processes: owners that are killed, those that attach, strangers with our number.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bulkhead::database::managed::Server;
use nix::unistd::geteuid;
use sqlx::{Connection, PgConnection};

use super::{Process, is_gone, postmaster, query, settings, temporary, until};

#[tokio::test]
async fn a_killed_owner_leaves_no_server_and_no_damage() {
    let dir = temporary();
    let data = dir.path().join("data");
    let mut owner = Process::spawn(&data, false, None);
    assert!(owner.hear().starts_with("owned "));
    let server = Server::attach_or_start(&settings(data.clone()))
        .await
        .unwrap();
    assert!(!server.is_owned());
    let mut connection = PgConnection::connect(&server.url("postgres"))
        .await
        .unwrap();
    sqlx::query("CREATE TABLE note AS SELECT 'kept'::text AS body")
        .execute(&mut connection)
        .await
        .unwrap();

    let pid = postmaster(&data);
    drop(owner);
    // At once, while the old server is still on its way out.
    let server = Server::start(&settings(data.clone())).await.unwrap();
    assert!(is_gone(pid));
    assert_eq!(query(&server, "SELECT body FROM note").await, "kept");

    drop(server);
    let pid = postmaster(&data);
    until("a dropped server is gone", || is_gone(pid));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_kernel_ends_the_server_of_a_killed_owner() {
    let dir = temporary();
    let data = dir.path().join("data");
    let mut owner = Process::spawn(&data, false, None);
    assert!(owner.hear().starts_with("owned "));
    let pid = postmaster(&data);
    drop(owner);
    until("the server is gone", || is_gone(pid));
}

/// Runs something as the account of the data directory, the way the server itself runs.
fn as_account(data: &Path, program: &Path) -> Command {
    let owner = fs::metadata(data).unwrap();
    let mut command = Command::new(program);
    command
        .current_dir(data)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if geteuid().is_root() {
        command.uid(owner.uid()).gid(owner.gid());
    }
    command
}

#[tokio::test]
async fn a_recycled_process_id_does_not_stop_the_start() {
    let dir = temporary();
    let settings = settings(dir.path().join("data"));
    Server::start(&settings)
        .await
        .unwrap()
        .stop()
        .await
        .unwrap();
    let pid_file = settings.data_dir.join("pgdata/postmaster.pid");

    let mut other = as_account(&settings.data_dir, Path::new("sleep"))
        .arg("1000")
        .spawn()
        .unwrap();
    fs::write(
        &pid_file,
        format!(
            "{}\n{}\n0\n1\n\n\n\nready   \n",
            other.id(),
            settings.data_dir.display()
        ),
    )
    .unwrap();
    let server = Server::start(&settings).await.unwrap();
    assert!(
        other.try_wait().unwrap().is_none(),
        "the other process is left alone"
    );
    other.kill().unwrap();
    other.wait().unwrap();
    server.stop().await.unwrap();

    fs::write(&pid_file, "").unwrap();
    Server::start(&settings)
        .await
        .unwrap()
        .stop()
        .await
        .unwrap();
}

#[tokio::test]
async fn a_server_without_an_owner_is_taken_over() {
    let dir = temporary();
    let settings = settings(dir.path().join("data"));
    Server::start(&settings)
        .await
        .unwrap()
        .stop()
        .await
        .unwrap();
    let opts = fs::read_to_string(settings.data_dir.join("pgdata/postmaster.opts")).unwrap();
    let program = PathBuf::from(opts.split(' ').next().unwrap());
    let cluster = settings.data_dir.canonicalize().unwrap().join("pgdata");
    let port = format!(
        "port={}",
        fs::read_to_string(settings.data_dir.join("port"))
            .unwrap()
            .trim()
    );
    let mut orphan = as_account(&settings.data_dir, &program)
        .arg("-D")
        .arg(&cluster)
        .args([
            "-c",
            &port,
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            "unix_socket_directories=",
        ])
        .spawn()
        .unwrap();
    let pid_file = cluster.join("postmaster.pid");
    until("it runs", || {
        fs::read_to_string(&pid_file).is_ok_and(|text| text.contains("ready"))
    });
    // As init does for an orphan.
    let reaper = std::thread::spawn(move || orphan.wait().unwrap().success());
    let server = Server::start(&settings).await.unwrap();
    assert!(reaper.join().unwrap(), "the orphan was stopped cleanly");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn another_process_attaches() {
    let dir = temporary();
    let data = dir.path().join("data");
    let server = Server::start(&settings(data.clone())).await.unwrap();

    let mut second = Process::spawn(&data, false, None);
    let refused = format!(
        "in use by process {}; stop it, or choose another --data-dir",
        std::process::id()
    );
    assert!(second.hear().ends_with(&refused));

    let mut second = Process::spawn(&data, true, None);
    assert_eq!(second.hear(), format!("attached {}", server.port()));
    second.finish();
    assert_eq!(query(&server, "SELECT 'alive'").await, "alive");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn of_two_at_once_one_owns_and_both_are_served() {
    let dir = temporary();
    let data = dir.path().join("data");
    let mut processes = [
        Process::spawn(&data, true, None),
        Process::spawn(&data, true, None),
    ];
    let mut said = processes.each_mut().map(Process::hear);
    said.sort();
    assert!(
        said[0].starts_with("attached ") && said[1].starts_with("owned "),
        "{said:?}"
    );
    assert_eq!(said[0].split(' ').nth(1), said[1].split(' ').nth(1));
    for process in processes {
        process.finish();
    }
}

/// The clusters that `initdb` has begun and not finished.
fn halves(data: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(data)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    entries
        .filter(|path| path.display().to_string().contains("/pgdata.new."))
        .collect()
}

#[tokio::test]
async fn a_start_that_was_killed_halfway_is_begun_again() {
    let dir = temporary();
    let data = dir.path().join("data");
    let mut owner = Process::spawn(&data, false, None);
    until("initdb is at work", || {
        halves(&data).iter().any(|half| half.join("base").exists())
    });
    owner.child.kill().unwrap();
    owner.child.wait().unwrap();
    // At once, while the old initdb is still on its way out.
    let server = Server::start(&settings(data.clone())).await.unwrap();
    assert_eq!(query(&server, "SELECT 'alive'").await, "alive");
    server.stop().await.unwrap();

    fs::create_dir(data.join("pgdata.new.left")).unwrap();
    Server::start(&settings(data.clone()))
        .await
        .unwrap()
        .stop()
        .await
        .unwrap();
    assert!(halves(&data).is_empty());
}

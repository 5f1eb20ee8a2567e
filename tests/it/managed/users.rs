//! As whom the server runs: root's stand-in, `postgres`, ordinary users. Needs root; says so
//! elsewhere.

use std::fs;
use std::os::unix::fs::MetadataExt;

use bulkhead::database::managed::Server;
use nix::unistd::{User, geteuid};

use super::{Process, postmaster, query, settings, temporary};

/// The user, if we are root and may become somebody.
pub(super) fn user(name: &str) -> Option<User> {
    let user = User::from_name(name)
        .unwrap()
        .filter(|_| geteuid().is_root());
    if user.is_none() {
        eprintln!("skipped: not root, or there is no user {name}");
    }
    user
}

#[tokio::test]
async fn root_runs_it_as_somebody_else() {
    let Some(_) = user("nobody") else { return };
    let dir = temporary();
    let server = Server::start(&settings(dir.path().join("deep/er/data")))
        .await
        .unwrap();
    let status =
        fs::read_to_string(format!("/proc/{}/status", postmaster(server.data_dir()))).unwrap();
    let line = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap()
            .trim()
            .to_owned()
    };
    let account = user("postgres").or_else(|| user("nobody")).unwrap();
    assert_eq!(
        line("Uid:"),
        [account.uid.to_string().as_str(); 4].join("\t")
    );
    assert_eq!(
        line("Gid:"),
        [account.gid.to_string().as_str(); 4].join("\t")
    );
    assert_eq!(line("Groups:"), "");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn data_under_root_lies_where_the_server_can_reach_it() {
    let Some(_) = user("nobody") else { return };
    let home = tempfile::tempdir_in("/root").unwrap();
    let wanted = home.path().join("data");
    let server = Server::start(&settings(wanted.clone())).await.unwrap();
    let place = server.data_dir().to_owned();
    assert!(
        place.starts_with("/var/lib/bulkhead") && !wanted.exists(),
        "{}",
        place.display()
    );
    assert_eq!(query(&server, "SELECT 'alive'").await, "alive");

    let mut second = Process::spawn(&wanted, true, None);
    assert_eq!(second.hear(), format!("attached {}", server.port()));
    server.stop().await.unwrap();
    fs::remove_dir_all(place).unwrap();
}

#[tokio::test]
async fn every_user_can_run_it() {
    for name in ["postgres", "nobody", "daemon"] {
        let Some(user) = user(name) else { continue };
        let dir = temporary();
        let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
        std::os::unix::fs::chown(dir.path(), Some(uid), Some(gid)).unwrap();
        let data = dir.path().join("data");
        let mut process = Process::spawn(&data, false, Some(&user));
        let said = process.hear();
        assert!(said.starts_with("owned "), "{name}: {said}");
        process.finish();

        let server = Server::start(&settings(data.clone()))
            .await
            .expect("root may go on with it");
        let stays = fs::metadata(server.data_dir().join("postgres.log"))
            .unwrap()
            .uid();
        assert_eq!(stays, user.uid.as_raw(), "and leaves it to its owner");
        server.stop().await.unwrap();
        let mut process = Process::spawn(&data, false, Some(&user));
        let said = process.hear();
        assert!(said.starts_with("owned "), "{name}: {said}");
        process.finish();
    }
}

#[tokio::test]
async fn what_root_began_an_ordinary_user_cannot_go_on_with() {
    let Some(daemon) = user("daemon") else { return };
    let dir = temporary();
    let data = dir.path().join("data");
    Server::start(&settings(data.clone()))
        .await
        .unwrap()
        .stop()
        .await
        .unwrap();
    let mut process = Process::spawn(&data, false, Some(&daemon));
    let said = process.hear();
    assert!(
        said.contains("sudo chown -R 1 ") && said.contains("--data-dir"),
        "{said}"
    );
}

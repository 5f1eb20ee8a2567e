//! Start, stop, start again: what stays, what the server is set to, what is refused.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;

use bulkhead::database::managed::{Error, Server, Settings};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpgid};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};

use super::{is_gone, postmaster, query, settings, temporary};

#[tokio::test]
async fn the_second_start_finds_the_data_of_the_first() {
    let dir = temporary();
    let settings = Settings {
        durable: true,
        ..settings(dir.path().join("data"))
    };

    let server = Server::start(&settings).await.unwrap();
    let mut connection = PgConnection::connect(&server.url("postgres"))
        .await
        .unwrap();
    sqlx::query("CREATE TABLE note AS SELECT 'kept'::text AS body")
        .execute(&mut connection)
        .await
        .unwrap();
    let (port, password) = (server.port(), server.password().to_owned());
    server.stop().await.unwrap();
    assert!(connection.ping().await.is_err(), "its sessions end with it");

    let server = Server::start(&settings).await.unwrap();
    assert_eq!(query(&server, "SELECT body FROM note").await, "kept");
    assert_eq!(
        (server.port(), server.password()),
        (port, password.as_str())
    );
    server.stop().await.unwrap();
}

#[tokio::test]
async fn the_server_is_set_up_for_us() {
    let dir = temporary();
    let settings = Settings {
        durable: true,
        ..settings(dir.path().join("data"))
    };
    let server = Server::start(&settings).await.unwrap();
    let sql = "SELECT string_agg(name || '=' || setting, ' ' ORDER BY name) FROM pg_settings
        WHERE name IN ('data_checksums', 'fsync', 'listen_addresses', 'max_connections',
                       'password_encryption', 'server_encoding')";
    assert_eq!(
        query(&server, sql).await,
        "data_checksums=on fsync=on listen_addresses=127.0.0.1 max_connections=200 \
         password_encryption=scram-sha-256 server_encoding=UTF8"
    );
    let sql = "SELECT lower('Ärger')";
    assert_eq!(query(&server, sql).await, "ärger", "case is Unicode's");
    let sql = "SELECT string_agg(x, '' ORDER BY x) FROM unnest('{a,B}'::text[]) x";
    assert_eq!(
        query(&server, sql).await,
        "Ba",
        "order is that of code points"
    );
    assert!(
        query(&server, "SHOW server_version")
            .await
            .starts_with(server.version())
    );

    let pid = postmaster(server.data_dir());
    let group = getpgid(Some(Pid::from_raw(pid))).unwrap();
    assert_eq!(group.as_raw(), pid, "a Ctrl-C does not reach it");
    server.stop().await.unwrap();
    assert!(is_gone(pid));
}

#[tokio::test]
async fn nobody_gets_in_without_the_password() {
    let dir = temporary();
    let server = Server::start(&settings(dir.path().join("data")))
        .await
        .unwrap();
    let password = server.password();
    let options = PgConnectOptions::new_without_pgpass()
        .port(server.port())
        .username(server.user())
        .database("postgres");
    let network = options.clone().host(server.host());
    let socket = options.socket(server.socket_dir().unwrap());
    for options in [network, socket] {
        let wrong = options.clone().password("wrong");
        assert!(PgConnection::connect_with(&wrong).await.is_err());
        let right = options.password(password);
        PgConnection::connect_with(&right)
            .await
            .unwrap()
            .close()
            .await
            .unwrap();
    }

    let (directory, file) = (0o40_700, 0o100_600);
    let modes = [
        ("", directory),
        ("pgdata", directory),
        ("password", file),
        ("postgres.log", file),
    ];
    for (name, mode) in modes {
        let path = server.data_dir().join(name);
        assert_eq!(fs::metadata(path).unwrap().mode(), mode, "{name}");
    }
    assert!(!format!("{server:?}").contains(password));
    server.stop().await.unwrap();
}

#[tokio::test]
async fn the_owner_learns_that_its_server_died() {
    let dir = temporary();
    let settings = settings(dir.path().join("data"));
    let server = Server::start(&settings).await.unwrap();
    kill(
        Pid::from_raw(postmaster(server.data_dir())),
        Signal::SIGKILL,
    )
    .unwrap();
    assert_eq!(server.exited().await, "signal: 9 (SIGKILL)");
    let server = Server::start(&settings)
        .await
        .expect("its lock went with it, and the rest is cleared");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_taken_port_is_replaced_by_another() {
    let dir = temporary();
    let settings = settings(dir.path().join("data"));
    let server = Server::start(&settings).await.unwrap();
    let old = server.port();
    server.stop().await.unwrap();

    let taken = TcpListener::bind(("127.0.0.1", old)).unwrap();
    let server = Server::start(&settings).await.unwrap();
    let new = server.port();
    assert_ne!(new, old);
    server.stop().await.unwrap();
    drop(taken);
    let server = Server::start(&settings).await.unwrap();
    assert_eq!(server.port(), new, "the new one is remembered");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_path_too_long_for_sockets_has_none() {
    let dir = temporary();
    let server = Server::start(&settings(dir.path().join("long, \"name\" ".repeat(8))))
        .await
        .unwrap();
    assert_eq!(server.socket_dir(), None);
    assert_eq!(query(&server, "SELECT 'alive'").await, "alive");
    server.stop().await.unwrap();

    let server = Server::start(&settings(dir.path().join("a, \"b\"")))
        .await
        .unwrap();
    assert!(
        server
            .data_dir()
            .join(format!(".s.PGSQL.{}", server.port()))
            .exists()
    );
    server.stop().await.unwrap();
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    let dir = temporary();
    let data = dir.path().join("data");
    let nothing = Settings {
        path: None,
        root: dir.path().join("empty"),
        ..settings(data.clone())
    };
    let error = Server::start(&nothing).await.unwrap_err();
    println!("{error}");
    for line in [
        "apt-get install postgresql",
        "dnf install postgresql-server",
        "brew install",
        "BULKHEAD_PG_BIN",
        "DATABASE_URL",
    ] {
        assert!(error.to_string().contains(line), "{line}");
    }
    let wrong = Settings {
        bin_dir: Some(dir.path().to_owned()),
        ..settings(data.clone())
    };
    assert!(matches!(
        Server::start(&wrong).await,
        Err(Error::BinDir { .. })
    ));

    Server::start(&settings(data.clone()))
        .await
        .unwrap()
        .stop()
        .await
        .unwrap();
    fs::write(data.join("pgdata/PG_VERSION"), "9\n").unwrap();
    assert!(matches!(
        Server::start(&settings(data.clone())).await,
        Err(Error::MajorVersion { wanted: 9, .. })
    ));

    let error = Server::start(&settings(dir.path().to_owned()))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Occupied { .. }), "{error}");

    let broken = Settings {
        parameters: vec![("shared_buffers".into(), "lots".into())],
        ..settings(dir.path().join("other"))
    };
    let error = Server::start(&broken).await.unwrap_err().to_string();
    assert!(
        error.contains("invalid value for parameter \"shared_buffers\""),
        "the log is in the error: {error}"
    );
}

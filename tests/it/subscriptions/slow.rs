//! Who says nothing, and who does not read what is said.

use super::{Server, followed, rename};
use crate::harness::{Events, Heard, Process, Socket, Tenant, World, run, until, world};
use bulkhead::identity::BuiltIn;
use reqwest::{Method, StatusCode};
use serde_json::json;
use sqlx::Executor as _;
use sqlx::postgres::PgConnection;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// Times that each device is given a long name; all names together are 50 MB.
const ROUNDS: usize = 50;
/// Megabytes that they may take on the server.
const MOST: u64 = 50;

const MAKE: &str = "INSERT INTO device (id, name, client_id, pin_hash, created_at, updated_at)
    SELECT id, 'Many', id::text, 'none', now(), now()
    FROM (SELECT gen_random_uuid() AS id FROM generate_series(1, 10)) new";

/// The three side by side, for each of them takes its time.
#[test]
fn silence_and_haste() {
    run(async {
        futures::join!(
            who_does_not_read_is_let_go(),
            who_does_not_say_who_they_are_is_sent_away(),
            a_stream_without_news_is_kept_alive()
        );
    });
}

async fn who_does_not_read_is_let_go() {
    let world = World::private(|_| ()).await;
    let tenant = Tenant::of(world).await;
    let owner = tenant.token(BuiltIn::Owner).await;
    let (device, ..) = tenant.device(&owner).await;
    let server = Server::start(world).await;
    let mut slow = server.socket(&tenant).await.greeted(Some(&owner)).await;
    let mut fast = server.socket(&tenant).await.greeted(Some(&owner)).await;
    slow.subscribe("a", "subscription { deviceUpdated { id name } }")
        .await;
    fast.subscribe("a", "subscription { deviceUpdated { id version } }")
        .await;
    for socket in [&mut slow, &mut fast] {
        let mut number = 0;
        until("it follows", async || {
            number += 1;
            rename(&tenant, &owner, &device, &format!("{number}")).await;
            timeout(Duration::from_millis(500), socket.hear())
                .await
                .ok()
        })
        .await;
    }
    let mut superuser = tenant.superuser().await;
    let make = "INSERT INTO device (id, name, client_id, pin_hash, created_at, updated_at)
        SELECT id, 'Many', id::text, 'none', now(), now()
        FROM (SELECT gen_random_uuid() AS id FROM generate_series(1, 200)) new";
    superuser.execute(make).await.unwrap();
    let before = peak(&server.process);
    let writing = async {
        for _ in 0..ROUNDS {
            let write =
                "UPDATE device SET name = repeat(md5(random()::text), 160) WHERE name <> 'last'";
            superuser.execute(write).await.unwrap();
        }
        rename(&tenant, &owner, &device, "last").await;
    };
    let reading = async {
        // The one device that was there has the most versions.
        let mut told = 0;
        loop {
            let device = fast.next("a").await["data"]["deviceUpdated"].clone();
            told += 1;
            if device["version"].as_u64() > Some(ROUNDS as u64) && told > 200 * ROUNDS {
                return;
            }
        }
    };
    futures::join!(writing, reading);
    let closed = Heard::Closed(4413, "Too slow: more came than was read".to_owned());
    assert_eq!(slow.closed().await, closed);
    let grown = (peak(&server.process) - before) / 1024;
    println!("{grown} MB for who does not read");
    assert!(grown < MOST, "{grown} MB for who does not read");
}

/// The most memory that a process has had, in kilobytes.
fn peak(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let number = line.unwrap().split_whitespace().nth(1);
    number.unwrap().parse().unwrap()
}

/// A stream that nobody reads, at a server whose tenants have one connection that lasts: its seat says whether it is there.
struct Unread {
    tenant: Tenant,
    /// Whose the stream is.
    token: String,
    /// Another session.
    other: String,
    superuser: PgConnection,
    _stream: TcpStream,
}

impl Unread {
    async fn open(slow_seconds: u32) -> Self {
        let here = Tenant::new().await;
        let world: &'static World = world()
            .await
            .beside(|config| {
                config.http_limits.slow_seconds = slow_seconds;
                config.sockets_per_tenant = 1;
            })
            .await;
        let tenant = Tenant { world, ..here };
        let email = format!("owner@{}.test", tenant.slug);
        let (token, other) = (tenant.sign_in(&email).await, tenant.sign_in(&email).await);
        let mut superuser = tenant.superuser().await;
        superuser.execute(MAKE).await.unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let address = world.address.parse().unwrap();
        let mut stream = socket.connect(address).await.unwrap();
        let body = json!({ "query": "subscription { deviceUpdated { name } }" }).to_string();
        let head = format!(
            "POST /graphql HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\nAccept: text/event-stream\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            tenant.host(),
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        followed(&tenant, 2).await;
        Self {
            superuser,
            tenant,
            token,
            other,
            _stream: stream,
        }
    }

    /// Changes what is followed, by 160 kB.
    async fn write(&mut self) {
        let write = "UPDATE device SET name = repeat(md5(random()::text), 512)";
        self.superuser.execute(write).await.unwrap();
    }

    /// Whether there is a seat for another.
    async fn is_gone(&self) -> bool {
        let request = self.tenant.request(Method::POST, "/graphql");
        let query = "subscription { jobUpdated { id } }";
        let answer = Events::asking(request, Some(&self.other), query);
        match answer.send().await.unwrap().status() {
            StatusCode::OK => true,
            StatusCode::TOO_MANY_REQUESTS => false,
            other => panic!("{other}"),
        }
    }
}

#[test]
fn a_stream_that_is_not_read_does_not_outlive_its_session() {
    run(async {
        // Longer than the test waits.
        let mut unread = Unread::open(600).await;
        until("no more fits, and what it follows lets it go", async || {
            unread.write().await;
            let feeds = &unread.tenant.world.app.services.feeds;
            (feeds.followers(unread.tenant.row.id) == 1).then_some(())
        })
        .await;
        assert!(!unread.is_gone().await);
        let sign_out = "mutation { sessionRevoke(input: {}) { revokedCount } }";
        let done = unread.tenant.gql(Some(&unread.token), sign_out).await;
        done.data();
        until("its seat is another's", async || {
            unread.is_gone().await.then_some(())
        })
        .await;
    });
}

#[test]
fn a_stream_that_is_not_read_is_let_go() {
    run(async {
        let mut unread = Unread::open(1).await;
        until("its seat is another's", async || {
            unread.write().await;
            unread.is_gone().await.then_some(())
        })
        .await;
    });
}

async fn who_does_not_say_who_they_are_is_sent_away() {
    let tenant = Tenant::new().await;
    let mut socket = Socket::open(&tenant).await;
    let closed = Heard::Closed(4408, "Connection initialisation timeout".to_owned());
    assert_eq!(socket.closed().await, closed);
}

async fn a_stream_without_news_is_kept_alive() {
    let tenant = Tenant::new().await;
    let owner = tenant.token(BuiltIn::Owner).await;
    let request = tenant.request(Method::POST, "/graphql");
    let query = "subscription { jobUpdated { id } }";
    let mut response = Events::asking(request, Some(&owner), query)
        .send()
        .await
        .unwrap();
    for _ in 0..2 {
        let comment = response.chunk().await.unwrap().unwrap();
        assert!(comment.starts_with(b":"), "{comment:?}");
    }
}

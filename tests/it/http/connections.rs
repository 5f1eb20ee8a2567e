//! Connections: how long a request may take to come, how many are served, and how they end.

use super::{rest, send};
use crate::harness::{Events, Heard, Socket, Tenant, World, run, until, world};
use crate::subscriptions::{followed, rename};
use bulkhead::config::HttpLimits;
use bulkhead::http;
use bulkhead::identity::BuiltIn;
use reqwest::{Method, StatusCode, Url};
use serde_json::{Value, json};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// How long another connection's end is waited for.
const PATIENCE: Duration = Duration::from_mins(2);
const QUERY: &str = r#"{"query":"{ viewer { expiresAt } }"}"#;

async fn limited(change: impl FnOnce(&mut HttpLimits)) -> &'static World {
    let shared = world().await;
    shared
        .beside(|config| change(&mut config.http_limits))
        .await
}

/// The head of a request by POST whose body has this many bytes.
fn head(tenant: &Tenant, path: &str, length: usize) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n",
        tenant.host()
    )
}

#[test]
fn a_head_that_does_not_come_in_time_ends_the_connection() {
    run(async {
        let world = limited(|limits| limits.header_seconds = 1).await;
        let tenant = Tenant::of(world).await;
        let begun = "POST /graphql HTTP/1.1\r\nHost: ";
        for first in ["", begun] {
            assert_eq!(rest(send(&tenant, first)), "");
        }
        // One that follows another, too.
        let request = format!("{}{QUERY}", head(&tenant, "/graphql", QUERY.len()));
        let mut stream = send(&tenant, &request);
        let mut answer = [0; 15];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        stream.write_all(begun.as_bytes()).unwrap();
        let said = rest(stream);
        assert!(!said.contains("HTTP/1.1"), "{said}");
    });
}

#[test]
fn a_connection_may_be_idle_for_longer_than_a_head_may_take() {
    run(async {
        let limits =
            |limits: &mut HttpLimits| (limits.header_seconds, limits.idle_seconds) = (1, 3);
        let world = limited(limits).await;
        let tenant = Tenant::of(world).await;
        let request = format!("{}{QUERY}", head(&tenant, "/graphql", QUERY.len()));
        let began = Instant::now();
        let said = rest(send(&tenant, &request));
        assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
        assert!(began.elapsed() > Duration::from_secs(2), "closed early");
    });
}

#[test]
fn a_body_that_does_not_come_in_time_is_a_408() {
    run(async {
        let world = limited(|limits| limits.body_seconds = 1).await;
        let tenant = Tenant::of(world).await;
        let owner = tenant.token(BuiltIn::Owner).await;
        for (path, code) in [
            ("/graphql", r#""code":"REQUEST_TIMEOUT""#),
            ("/device/auth", r#""code":"request_timeout""#),
        ] {
            let said = rest(send(
                &tenant,
                &format!("{}{{\"query\":", head(&tenant, path, 50)),
            ));
            assert!(said.starts_with("HTTP/1.1 408 "), "{path}: {said}");
            assert!(said.contains(code), "{path}: {said}");
        }
        let made = tenant.upload(&owner).await;
        let link = Url::parse(made["upload"]["url"].as_str().unwrap()).unwrap();
        let put = format!(
            "PUT {}?{} HTTP/1.1\r\nHost: {}\r\nContent-Length: 20\r\n\r\nbytes",
            link.path(),
            link.query().unwrap(),
            tenant.host()
        );
        let said = rest(send(&tenant, &put));
        assert!(said.starts_with("HTTP/1.1 408 "), "{said}");
    });
}

#[test]
fn one_connection_more_than_allowed_waits_for_another_to_end() {
    run(async {
        let limits = |limits: &mut HttpLimits| (limits.connections, limits.header_seconds) = (1, 2);
        let world = limited(limits).await;
        let there = world.request(Method::GET, "localhost", "/healthz/live");
        let closes = there.header("Connection", "close").send().await.unwrap();
        assert_eq!(closes.status(), StatusCode::OK);

        let mut first = TcpStream::connect(&world.address).unwrap();
        let mut second = TcpStream::connect(&world.address).unwrap();
        let request = "GET /healthz/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        second.write_all(request.as_bytes()).unwrap();
        let said = rest(second);
        assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
        // It was answered after the first, which said nothing, was closed.
        first.set_nonblocking(true).unwrap();
        let read = first.read(&mut [0; 1]);
        assert!(
            !matches!(&read, Err(error) if error.kind() == ErrorKind::WouldBlock),
            "the first is open still"
        );
    });
}

/// Its place is another's then.
#[test]
fn who_asks_and_does_not_read_is_let_go() {
    run(async {
        let page = Tenant::new().await.request(Method::GET, "/graphql");
        let page = page.header("Accept", "text/html").send().await.unwrap();
        let page = page.text().await.unwrap();
        let script = page.split('"').find(|part| part.contains(".js")).unwrap();
        let world = limited(|limits| (limits.connections, limits.body_seconds) = (1, 1)).await;
        let request = |path: &str, more: &str| {
            let asked = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n");
            asked.into_bytes()
        };
        let mut first = TcpStream::connect(&world.address).unwrap();
        // Answers of more than any buffer holds.
        first.write_all(&request(script, "").repeat(100)).unwrap();
        let mut second = TcpStream::connect(&world.address).unwrap();
        second.set_read_timeout(Some(PATIENCE)).unwrap();
        let asked = request("/healthz/live", "Connection: close\r\n");
        second.write_all(&asked).unwrap();
        let said = rest(second);
        assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
        drop(first);
    });
}

#[test]
fn a_socket_has_its_place_among_the_connections_until_it_is_closed() {
    run(async {
        let world = limited(|limits| limits.connections = 1).await;
        let tenant = Tenant::of(world).await;
        let mut socket = Socket::init(&tenant, None).await;
        let asked = "GET /healthz/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let mut second = send(&tenant, asked);
        second.set_nonblocking(true).unwrap();
        for _ in 0..50 {
            let pong = socket.ask(json!({ "type": "ping" })).await;
            assert_eq!(pong, Heard::Said(json!({ "type": "pong" })));
            let read = second.read(&mut [0; 1]).map_err(|error| error.kind());
            assert_eq!(read, Err(ErrorKind::WouldBlock));
        }
        drop(socket);
        second.set_nonblocking(false).unwrap();
        let said = rest(second);
        assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
    });
}

#[test]
fn no_deadline_cuts_what_is_followed() {
    run(async {
        let here = Tenant::new().await;
        let owner = here.token(BuiltIn::Owner).await;
        let (device, ..) = here.device(&owner).await;
        let world = limited(|limits| {
            limits.header_seconds = 1;
            limits.idle_seconds = 1;
            limits.body_seconds = 1;
        })
        .await;
        let tenant = Tenant {
            world,
            ..here.clone()
        };
        let query = "subscription { deviceUpdated { name } }";
        let mut socket = Socket::init(&tenant, Some(&owner)).await;
        socket.subscribe("1", query).await;
        let mut events = Events::open(&tenant, Some(&owner), query).await;
        followed(&tenant, 4).await;
        // Two that are idle have their time, one after the other.
        let request = format!("{}{QUERY}", head(&tenant, "/graphql", QUERY.len()));
        for _ in 0..2 {
            rest(send(&tenant, &request));
        }
        rename(&here, &owner, &device, "Gate").await;
        let told = json!({ "data": { "deviceUpdated": { "name": "Gate" } } });
        assert_eq!(socket.next("1").await, told);
        assert_eq!(events.next().await, told);
    });
}

/// What the server says of the request's two ends: it is under way when the server is told to stop.
#[test]
fn what_is_under_way_at_the_end_is_answered() {
    run(async {
        let tenant = Tenant::new().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = http::serve(&tenant.world.app, listener, async {
            let _ = stopped.await;
        });
        let server = tokio::spawn(server);

        let idle = TcpStream::connect(address).unwrap();
        let mut busy = TcpStream::connect(address).unwrap();
        let (half, other) = QUERY.split_at(QUERY.len() / 2);
        let asked = format!("{}{half}", head(&tenant, "/graphql", QUERY.len()));
        busy.write_all(asked.as_bytes()).unwrap();
        // Answers on another connection say that this one, which came before, was accepted.
        let url = format!("http://{address}/healthz/live");
        let live = tenant.world.client.get(url).send().await.unwrap();
        assert_eq!(
            live.json::<Value>().await.unwrap(),
            json!({ "status": "ok" })
        );

        stop.send(()).unwrap();
        until("nobody is let in any more", async || {
            TcpStream::connect(address).is_err().then_some(())
        })
        .await;
        assert_eq!(rest(idle), "");
        assert!(!server.is_finished());
        busy.write_all(other.as_bytes()).unwrap();
        let said = rest(busy);
        assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
        assert!(said.ends_with(r#"{"data":{"viewer":null}}"#), "{said}");
        server.await.unwrap();
    });
}

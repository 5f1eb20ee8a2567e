//! graphql-transport-ws, rule by rule (github.com/enisdenjo/graphql-ws, PROTOCOL.md).

use super::followed;
use crate::harness::{Events, Heard, PASSWORD, Socket, Tenant, World, run, until, world};
use bulkhead::identity::BuiltIn;
use futures::SinkExt as _;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tokio_tungstenite::tungstenite::{Bytes, Message};

const VIEWER: &str = "{ viewer { expiresAt } }";
const DEVICES: &str = "subscription { deviceUpdated { name } }";

fn init() -> Value {
    json!({ "type": "connection_init" })
}

fn subscribe(id: &str, query: &str) -> Value {
    json!({ "id": id, "type": "subscribe", "payload": { "query": query } })
}

#[test]
fn only_the_protocol_is_spoken() {
    run(async {
        let tenant = Tenant::new().await;
        for protocol in ["graphql-ws", "graphql-transport-ws2", "soap"] {
            let request = Socket::request(&tenant, protocol);
            // The client finds no protocol of its own in the answer, and hangs up.
            let refused = tokio_tungstenite::connect_async(request).await;
            assert!(refused.is_err(), "{protocol}");
        }
        let mut request = Socket::request(&tenant, "none");
        request.headers_mut().remove("Sec-WebSocket-Protocol");
        let mut socket = Socket::connect(request).await.unwrap();
        let closed = Heard::Closed(4406, "Subprotocol not acceptable".to_owned());
        assert_eq!(socket.hear().await, closed);
        let request = Socket::request(&tenant, "soap, graphql-transport-ws");
        let mut socket = Socket::connect(request).await.unwrap();
        let ack = Heard::Said(json!({ "type": "connection_ack" }));
        assert_eq!(socket.ask(init()).await, ack);
    });
}

#[test]
fn what_is_no_message_closes_the_socket() {
    run(async {
        let tenant = Tenant::new().await;
        let closed = Heard::Closed(4400, "Invalid message received".to_owned());
        for text in [
            "",
            "{",
            "null",
            "[]",
            r#"["connection_init"]"#,
            r#""ping""#,
            "{}",
            r#"{"type":1}"#,
            r#"{"type":"hello"}"#,
            r#"{"type":"connection_ack"}"#,
            r#"{"type":"next","id":"a","payload":{}}"#,
            r#"{"type":"connection_init","payload":"x"}"#,
            r#"{"type":"connection_init","payload":[]}"#,
            r#"{"type":"ping","payload":1}"#,
            r#"{"type":"pong","payload":true}"#,
            r#"{"type":"complete"}"#,
            r#"{"type":"complete","id":1}"#,
            r#"{"type":"complete","id":""}"#,
            r#"{"type":"subscribe","payload":{"query":"{ viewer { expiresAt } }"}}"#,
            r#"{"type":"subscribe","id":"","payload":{"query":"{ viewer { expiresAt } }"}}"#,
            r#"{"type":"subscribe","id":1,"payload":{"query":"{ viewer { expiresAt } }"}}"#,
            r#"{"type":"subscribe","id":"a"}"#,
            r#"{"type":"subscribe","id":"a","payload":null}"#,
            r#"{"type":"subscribe","id":"a","payload":[]}"#,
            r#"{"type":"subscribe","id":"a","payload":"{ viewer { expiresAt } }"}"#,
        ] {
            let mut socket = Socket::open(&tenant).await;
            socket.0.send(Message::text(text)).await.unwrap();
            assert_eq!(socket.hear().await, closed, "{text}");
        }
        for payload in [
            json!({}),
            json!({ "query": null }),
            json!({ "query": 1 }),
            json!({ "query": VIEWER, "variables": [] }),
            json!({ "query": VIEWER, "variables": "x" }),
            json!({ "query": VIEWER, "operationName": 1 }),
            json!({ "query": VIEWER, "extensions": "x" }),
        ] {
            let mut socket = Socket::init(&tenant, None).await;
            let message = json!({ "id": "a", "type": "subscribe", "payload": payload });
            assert_eq!(socket.ask(message).await, closed, "{payload}");
        }
        let mut socket = Socket::open(&tenant).await;
        let binary = Message::binary(init().to_string().into_bytes());
        socket.0.send(binary).await.unwrap();
        assert_eq!(socket.hear().await, closed);
        let mut socket = Socket::open(&tenant).await;
        let long = " ".repeat(1024 * 1024 + 1);
        socket.0.send(Message::text(long)).await.unwrap();
        let closed = Heard::Closed(1009, "The message is too large".to_owned());
        assert_eq!(socket.hear().await, closed);
    });
}

#[test]
fn a_socket_is_greeted_once_and_before_anything_else() {
    run(async {
        let tenant = Tenant::new().await;
        let mut socket = Socket::open(&tenant).await;
        let unauthorized = Heard::Closed(4401, "Unauthorized".to_owned());
        assert_eq!(socket.ask(subscribe("a", VIEWER)).await, unauthorized);

        let mut socket = Socket::init(&tenant, None).await;
        let again = Heard::Closed(4429, "Too many initialisation requests".to_owned());
        assert_eq!(socket.ask(init()).await, again);

        // Pings are answered before and after, with what they bring.
        let mut socket = Socket::open(&tenant).await;
        for payload in [None, Some(json!({ "at": 7 }))] {
            let message = |kind: &str| match &payload {
                Some(payload) => json!({ "type": kind, "payload": payload }),
                None => json!({ "type": kind }),
            };
            assert_eq!(
                socket.ask(message("ping")).await,
                Heard::Said(message("pong"))
            );
        }
        socket.say(json!({ "type": "pong" })).await;
        socket
            .say(json!({ "type": "complete", "id": "none" }))
            .await;
        socket.0.send(Message::Ping(Bytes::new())).await.unwrap();
        assert_eq!(
            socket.ask(init()).await,
            Heard::Said(json!({ "type": "connection_ack" }))
        );
        let ping = json!({ "type": "ping", "payload": null });
        assert_eq!(
            socket.ask(ping).await,
            Heard::Said(json!({ "type": "pong" }))
        );

        for (payload, reason) in [
            (
                json!({ "authorization": "Bearer bhs_none" }),
                "The token is unknown or was revoked; sign in again.",
            ),
            (
                json!({ "Authorization": "bearer bhd_none" }),
                "The token is unknown or was revoked; sign in again.",
            ),
            (
                json!({ "authorization": "Basic eDp5" }),
                "This needs a credential: send Authorization: Bearer <token>.",
            ),
            (
                json!({ "authorization": 7 }),
                "This needs a credential: send Authorization: Bearer <token>.",
            ),
        ] {
            let mut socket = Socket::open(&tenant).await;
            let init = json!({ "type": "connection_init", "payload": payload });
            let refused = Heard::Closed(4403, reason.to_owned());
            assert_eq!(socket.ask(init).await, refused, "{payload}");
        }
    });
}

#[test]
fn queries_mutations_and_subscriptions_share_a_socket() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let mut socket = Socket::init(&tenant, Some(&owner)).await;
        socket.subscribe("s", DEVICES).await;
        followed(&tenant, 2).await;

        let said = |id: &str, kind: &str| Heard::Said(json!({ "id": id, "type": kind }));
        socket.subscribe("q", "{ tenant { slug } }").await;
        assert_eq!(
            socket.next("q").await,
            json!({ "data": { "tenant": { "slug": tenant.slug } } })
        );
        assert_eq!(socket.hear().await, said("q", "complete"));

        // The id is free again. The mutation's answer and what it changed come in any order.
        let query =
            "mutation($n: String!) { deviceCreate(input: { name: $n }) { device { name } } }";
        let payload = json!({ "query": query, "variables": { "n": "Gate" }, "operationName": null, "extensions": null });
        socket
            .say(json!({ "id": "q", "type": "subscribe", "payload": payload }))
            .await;
        let mut heard = BTreeSet::new();
        for _ in 0..3 {
            let Heard::Said(said) = socket.hear().await else {
                panic!("closed")
            };
            heard.insert(said.to_string());
        }
        let wanted = [
            json!({ "id": "q", "type": "next", "payload": { "data": { "deviceCreate": { "device": { "name": "Gate" } } } } }),
            json!({ "id": "q", "type": "complete" }),
            json!({ "id": "s", "type": "next", "payload": { "data": { "deviceUpdated": { "name": "Gate" } } } }),
        ];
        assert_eq!(heard, wanted.iter().map(Value::to_string).collect());
    });
}

/// What is refused before it runs is an error; what fails as it runs is an answer.
#[test]
fn an_operation_that_fails_ends_alone() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let mut socket = Socket::init(&tenant, Some(&owner)).await;
        for (query, code) in [
            ("{", "GRAPHQL_PARSE_FAILED"),
            ("{ nothing }", "GRAPHQL_VALIDATION_FAILED"),
            ("subscription { nothing }", "GRAPHQL_VALIDATION_FAILED"),
            (
                "subscription { deviceUpdated { id } changeRecorded { id } }",
                "GRAPHQL_VALIDATION_FAILED",
            ),
            (
                "subscription { ...F } fragment F on Subscription { deviceUpdated { id } }",
                "GRAPHQL_VALIDATION_FAILED",
            ),
            ("subscription { __typename }", "GRAPHQL_VALIDATION_FAILED"),
            (
                &format!("{{ viewer {{ {} }} }}", "expiresAt ".repeat(2001)),
                "QUERY_LIMIT_EXCEEDED",
            ),
        ] {
            let Heard::Said(refused) = socket.ask(subscribe("q", query)).await else {
                panic!("closed by {query}")
            };
            assert_eq!(
                (&refused["type"], &refused["id"]),
                (&json!("error"), &json!("q")),
                "{refused:#}"
            );
            assert_eq!(refused["payload"][0]["extensions"]["code"], code, "{query}");
        }
        socket
            .subscribe(
                "q",
                r#"subscription { deviceUpdated(deviceId: "none") { id } }"#,
            )
            .await;
        let answer = socket.next("q").await;
        assert_eq!(answer["errors"][0]["extensions"]["code"], "NOT_FOUND");
        assert_eq!(answer["errors"][0]["path"], json!(["deviceUpdated"]));
        let over = Heard::Said(json!({ "id": "q", "type": "complete" }));
        assert_eq!(socket.hear().await, over);
    });
}

#[test]
fn signing_in_does_not_make_a_socket_anothers_and_signing_out_ends_it() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let mut socket = Socket::init(&tenant, Some(&owner)).await;
        let sign_in = format!(
            r#"mutation {{ sessionCreate(input: {{ email: "owner@{}.test", password: "{PASSWORD}" }}) {{ token }} }}"#,
            tenant.slug
        );
        socket.subscribe("q", &sign_in).await;
        let other = socket.next("q").await["data"]["sessionCreate"]["token"].clone();
        let over = Heard::Said(json!({ "id": "q", "type": "complete" }));
        assert_eq!(socket.hear().await, over);
        let sign_out = "mutation { sessionRevoke(input: {}) { revokedCount } }";
        socket.subscribe("q", sign_out).await;
        assert!(matches!(socket.closed().await, Heard::Closed(4401, _)));
        tenant.gql(other.as_str(), "{ tenant { id } }").await.data();
    });
}

#[test]
fn an_operation_ends_when_the_client_says_so() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let mut socket = Socket::init(&tenant, Some(&owner)).await;
        socket.subscribe("a", DEVICES).await;
        followed(&tenant, 2).await;
        socket.say(json!({ "id": "a", "type": "complete" })).await;
        followed(&tenant, 1).await;
        tenant.device(&owner).await;
        // Nothing of it comes any more, and its id is free.
        socket.subscribe("a", "{ tenant { slug } }").await;
        assert_eq!(
            socket.next("a").await["data"]["tenant"]["slug"],
            tenant.slug.as_str()
        );
        assert_eq!(
            socket.hear().await,
            Heard::Said(json!({ "id": "a", "type": "complete" }))
        );

        socket.subscribe("a", DEVICES).await;
        followed(&tenant, 2).await;
        let exists = Heard::Closed(4409, "Subscriber for a already exists".to_owned());
        assert_eq!(socket.ask(subscribe("a", VIEWER)).await, exists);
        followed(&tenant, 0).await;

        // The reason of a close has 123 bytes at most.
        let long = "ä".repeat(100);
        let mut socket = Socket::init(&tenant, Some(&owner)).await;
        socket.subscribe(&long, DEVICES).await;
        let Heard::Closed(4409, reason) = socket.ask(subscribe(&long, VIEWER)).await else {
            panic!("not closed")
        };
        assert!(
            reason.len() > 100 && long.starts_with(reason.trim_start_matches("Subscriber for "))
        );

        // One that just goes leaves nothing behind.
        let mut socket = Socket::init(&tenant, Some(&owner)).await;
        socket.subscribe("a", DEVICES).await;
        followed(&tenant, 2).await;
        drop(socket);
        followed(&tenant, 0).await;
    });
}

#[test]
fn operations_and_sockets_are_limited() {
    run(async {
        let here = Tenant::new().await;
        let world: &'static World = world()
            .await
            .beside(|config| {
                config.sockets_per_tenant = 3;
                config.sockets_per_credential = 2;
            })
            .await;
        let tenant = Tenant { world, ..here };
        let [one, two] = [
            tenant.token(BuiltIn::Owner).await,
            tenant.token(BuiltIn::Viewer).await,
        ];
        let mut first = Socket::init(&tenant, Some(&one)).await;
        for id in 0..20 {
            first.subscribe(&id.to_string(), DEVICES).await;
        }
        let Heard::Said(refused) = first.ask(subscribe("20", DEVICES)).await else {
            panic!("closed")
        };
        let limit = json!({ "code": "QUERY_LIMIT_EXCEEDED", "limit": "socketOperations", "max": 20, "actual": 21 });
        assert_eq!(refused["id"], "20");
        assert_eq!(refused["payload"][0]["extensions"], limit);
        first.say(json!({ "id": "7", "type": "complete" })).await;
        first.subscribe("20", VIEWER).await;
        assert!(first.next("20").await["data"]["viewer"].is_object());

        let refused = async |token: &str| {
            let mut socket = Socket::open(&tenant).await;
            let payload = json!({ "authorization": format!("Bearer {token}") });
            let init = json!({ "type": "connection_init", "payload": payload });
            matches!(socket.ask(init).await, Heard::Closed(4403, _))
        };
        let second = Socket::init(&tenant, Some(&one)).await;
        assert!(refused(&one).await, "of one credential");
        let _third = Socket::init(&tenant, Some(&two)).await;
        assert!(refused(&two).await, "of one tenant");
        let request = tenant.request(Method::POST, "/graphql");
        let events = Events::asking(request, Some(&two), DEVICES);
        let events = events.send().await.unwrap();
        assert_eq!(events.status(), StatusCode::TOO_MANY_REQUESTS);
        drop(second);
        until("its place is free", async || {
            (!refused(&two).await).then_some(())
        })
        .await;
    });
}

/// What anybody can open takes no place of the tenant's people, wherever they are.
#[test]
fn a_member_gets_in_however_many_are_nobody_or_say_nothing() {
    run(async {
        let here = Tenant::new().await;
        let world: &'static World = world()
            .await
            .beside(|config| {
                config.sockets_per_credential = 2;
                config.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
            })
            .await;
        let tenant = Tenant { world, ..here };
        let owner = tenant.token(BuiltIn::Owner).await;
        let open = async |address: &str, token: Option<&str>| {
            let mut request = Socket::request(&tenant, "graphql-transport-ws");
            let headers = request.headers_mut();
            headers.insert("X-Forwarded-For", address.parse().unwrap());
            if let Some(token) = token {
                let value = format!("Bearer {token}");
                headers.insert("Authorization", value.parse().unwrap());
            }
            Socket::connect(request).await
        };
        let mut nobodys = Vec::new();
        for number in 0..100 {
            let socket = open(&format!("198.51.100.{}", number / 2), None).await;
            nobodys.push(socket.unwrap().greeted(None).await);
        }
        let mut more = open("198.51.100.200", None).await.unwrap();
        assert!(matches!(more.ask(init()).await, Heard::Closed(4403, _)));
        nobodys.truncate(2);
        let mut more = open("198.51.100.0", None).await.unwrap();
        assert!(matches!(more.ask(init()).await, Heard::Closed(4403, _)));

        let mut silent = Vec::new();
        for _ in 0..100 {
            silent.push(open("203.0.113.1", None).await.unwrap());
        }
        let member = open("203.0.113.2", None).await.unwrap();
        let member = member.greeted(Some(&owner)).await;
        let at_once = open("203.0.113.1", Some(&owner)).await.unwrap();
        let mut at_once = at_once.greeted(None).await;
        at_once.subscribe("q", VIEWER).await;
        assert!(at_once.next("q").await["data"]["viewer"].is_object());
        let refused = open("203.0.113.3", Some("bhs_none")).await;
        assert_eq!(refused.err(), Some(StatusCode::UNAUTHORIZED));
        drop((member, silent));
    });
}

#[test]
fn pages_of_other_origins_open_no_socket() {
    run(async {
        let here = Tenant::new().await;
        let world: &'static World = world()
            .await
            .beside(|config| config.allowed_origins = vec!["https://app.example.com".to_owned()])
            .await;
        let tenant = Tenant { world, ..here };
        let own = format!("http://{}", tenant.host());
        let open = async |origin: &str| {
            let mut request = Socket::request(&tenant, "graphql-transport-ws");
            request
                .headers_mut()
                .insert("Origin", origin.parse().unwrap());
            Socket::connect(request).await.map(drop)
        };
        for origin in [own.as_str(), "https://app.example.com"] {
            open(origin).await.unwrap();
        }
        for origin in [
            "http://app.example.com",
            "https://app.example.com.evil.test",
            "http://globex.localhost",
            &own.replace("http:", "https:"),
            "null",
        ] {
            assert_eq!(
                open(origin).await.unwrap_err(),
                StatusCode::FORBIDDEN,
                "{origin}"
            );
        }
    });
}

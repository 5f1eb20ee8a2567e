//! How fast requests may come: by root fields, for each member, device, address and tenant.

use crate::harness::{Answer, Events, Heard, Socket, Tenant, World, run, world};
use bulkhead::config::RateLimits;
use bulkhead::identity::BuiltIn;
use reqwest::{Method, StatusCode};
use serde_json::json;

/// A server beside the others with these limits, that believes what stands before it.
async fn server(limits: RateLimits) -> &'static World {
    let world = world().await;
    let change = |config: &mut bulkhead::config::Config| {
        config.rate_limits = limits;
        config.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    };
    world.beside(change).await
}

fn at(world: &'static World, tenant: &Tenant) -> Tenant {
    Tenant {
        world,
        slug: tenant.slug.clone(),
        row: tenant.row.clone(),
    }
}

fn fields(count: usize) -> String {
    format!("{{ {} }}", "viewer { expiresAt } ".repeat(count))
}

/// Asks for so many root fields as nobody, from an address.
async fn ask(tenant: &Tenant, address: &str, count: usize) -> Answer {
    let request = tenant.request(Method::POST, "/graphql");
    let request = request.header("X-Forwarded-For", address);
    tenant
        .send(request.json(&json!({ "query": fields(count) })))
        .await
}

#[track_caller]
fn refused(answer: &Answer, name: &str) {
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.code(), "RATE_LIMITED");
    let after = &answer.body["errors"][0]["extensions"]["retryAfter"];
    let seconds = after.as_u64().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
    assert_eq!(answer.header("Retry-After"), seconds.to_string());
    let standing = format!("\"{name}\";r=0;t={seconds}");
    assert_eq!(answer.header("RateLimit"), standing);
}

#[test]
fn root_fields_of_each_member_and_device_are_counted() {
    run(async {
        let tenant = Tenant::new().await;
        let other = Tenant::new().await;
        let [owner, viewer] = [BuiltIn::Owner, BuiltIn::Viewer];
        let (owner, viewer) = (tenant.token(owner).await, tenant.token(viewer).await);
        let stranger = other.token(BuiltIn::Owner).await;
        let (_, client_id, pin) = tenant.device(&owner).await;
        let device = tenant.device_auth(&client_id, &pin).await;
        let device = device.body["access_token"].as_str().unwrap();
        let world = server(RateLimits {
            member: Some(6),
            device: Some(3),
            ..RateLimits::default()
        })
        .await;
        let (tenant, other) = (at(world, &tenant), at(world, &other));

        let answer = tenant.gql(Some(&owner), &fields(4)).await;
        answer.data();
        assert_eq!(answer.header("RateLimit-Policy"), "\"member\";q=6;w=60");
        assert_eq!(answer.header("RateLimit"), "\"member\";r=2;t=40");
        // As many requests are nothing; as many fields are too many.
        refused(&tenant.gql(Some(&owner), &fields(6)).await, "member");
        for (tenant, token) in [(&tenant, &viewer), (&other, &stranger)] {
            tenant.gql(Some(token), &fields(6)).await.data();
        }
        let answer = tenant.gql(Some(device), &fields(3)).await;
        answer.data();
        assert_eq!(answer.header("RateLimit"), "\"device\";r=0;t=60");
        refused(&tenant.gql(Some(device), &fields(3)).await, "device");
        // More than there can ever be.
        let answer = tenant.gql(Some(&viewer), &fields(7)).await;
        assert_eq!(answer.code(), "QUERY_LIMIT_EXCEEDED");
        assert_eq!(answer.body["errors"][0]["extensions"]["max"], 6);
    });
}

#[test]
fn who_has_no_credential_is_known_by_the_address() {
    run(async {
        let (tenant, other) = (Tenant::new().await, Tenant::new().await);
        let world = server(RateLimits {
            anonymous: Some(4),
            ..RateLimits::default()
        })
        .await;
        let (tenant, other) = (at(world, &tenant), at(world, &other));
        ask(&tenant, "198.51.100.7", 4).await.data();
        for address in ["198.51.100.7", "203.0.113.1, 198.51.100.7:4711"] {
            refused(&ask(&tenant, address, 4).await, "anonymous");
        }
        ask(&tenant, "198.51.100.8", 4).await.data();
        ask(&other, "198.51.100.7", 4).await.data();
        ask(&tenant, "2001:db8:1:2::3", 4).await.data();
        refused(&ask(&tenant, "2001:db8:1:2:9::", 4).await, "anonymous");
    });
}

/// And those at the same address whose credential works are not stopped by it.
#[test]
fn credentials_that_do_not_work_are_counted_for_each_address() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let world = server(RateLimits {
            anonymous: Some(3),
            ..RateLimits::default()
        })
        .await;
        let tenant = at(world, &tenant);
        let send = async |path: &str, address: &str, token: &str| {
            let method = if path == "/device/me" {
                Method::GET
            } else {
                Method::POST
            };
            let request = tenant.request(method, path).bearer_auth(token);
            let request = request.header("X-Forwarded-For", address);
            let query = json!({ "query": "{ viewer { expiresAt } }" });
            tenant.send(request.json(&query)).await
        };
        let doors = ["/graphql", "/device/me", "/device/token/rotate"];
        for (n, path) in doors.into_iter().enumerate() {
            let answer = send(path, "198.51.100.7", &format!("bhd_made-up-{n}")).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{path}");
        }
        for path in doors {
            let answer = send(path, "198.51.100.7", "bhd_made-up").await;
            assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{path}");
            assert!(answer.headers.contains_key("Retry-After"), "{path}");
        }
        send("/graphql", "198.51.100.7", &owner).await.data();
        let answer = send("/graphql", "198.51.100.8", "bhs_made-up").await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    });
}

#[test]
fn attempts_to_sign_in_are_counted_for_each_address() {
    run(async {
        let tenant = Tenant::new().await;
        let world = server(RateLimits {
            sign_in: Some(2),
            ..RateLimits::default()
        })
        .await;
        let tenant = at(world, &tenant);
        let session = async |address: &str| {
            let query = format!(
                "mutation {{ sessionCreate(input: {{ email: \"owner@{}.test\", password: \"wrong-password\" }}) {{ token }} }}",
                tenant.slug
            );
            let request = tenant.request(Method::POST, "/graphql");
            let request = request.header("X-Forwarded-For", address);
            tenant.send(request.json(&json!({ "query": query }))).await
        };
        let device = async |address: &str| {
            let request = tenant.request(Method::POST, "/device/auth");
            let request = request.header("X-Forwarded-For", address);
            let body = json!({ "client_id": "NONE", "pin": "00000000" });
            tenant.send(request.json(&body)).await
        };
        assert_eq!(session("198.51.100.7").await.code(), "UNAUTHENTICATED");
        let answer = device("198.51.100.7").await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert_eq!(answer.header("RateLimit-Policy"), "\"sign-in\";q=2;w=60");
        // Both doors have one budget.
        let answer = device("198.51.100.7").await;
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(answer.body["code"], "rate_limited");
        let after: u64 = answer.header("Retry-After").parse().unwrap();
        assert!((1..=30).contains(&after), "{after}");
        let standing = format!("\"sign-in\";r=0;t={after}");
        assert_eq!(answer.header("RateLimit"), standing);
        refused(&session("198.51.100.7").await, "sign-in");
        assert_eq!(session("198.51.100.8").await.code(), "UNAUTHENTICATED");
    });
}

/// Whichever way operations come, they are the same member's.
#[test]
fn sockets_and_streams_are_counted_with_requests() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let world = server(RateLimits {
            member: Some(3),
            ..RateLimits::default()
        })
        .await;
        let tenant = at(world, &tenant);
        let mut socket = Socket::init(&tenant, Some(&owner)).await;
        socket.subscribe("first", &fields(1)).await;
        let said = socket.next("first").await;
        assert!(said["data"]["viewer"].is_object());
        let complete = json!({ "id": "first", "type": "complete" });
        assert_eq!(socket.hear().await, Heard::Said(complete));
        let mut stream = Events::open(&tenant, Some(&owner), &fields(1)).await;
        assert!(stream.next().await["data"]["viewer"].is_object());
        tenant.gql(Some(&owner), &fields(1)).await.data();

        let code = "/errors/0/extensions/code";
        let mut stream = Events::open(&tenant, Some(&owner), &fields(2)).await;
        let said = stream.next().await;
        assert_eq!(said.pointer(code), Some(&json!("RATE_LIMITED")), "{said}");
        socket.subscribe("second", &fields(2)).await;
        let Heard::Said(said) = socket.hear().await else {
            panic!("the socket was closed");
        };
        assert_eq!(
            (&said["type"], &said["id"]),
            (&json!("error"), &json!("second"))
        );
        let code = said.pointer("/payload/0/extensions/code");
        assert_eq!(code, Some(&json!("RATE_LIMITED")), "{said}");
        // The socket goes on.
        let pong = socket.ask(json!({ "type": "ping" })).await;
        assert_eq!(pong, Heard::Said(json!({ "type": "pong" })));
        refused(&tenant.gql(Some(&owner), &fields(2)).await, "member");
    });
}

#[test]
fn a_gateway_may_count_instead() {
    run(async {
        let world = server(RateLimits {
            enabled: false,
            anonymous: Some(1),
            sign_in: Some(1),
            ..RateLimits::default()
        })
        .await;
        let tenant = at(world, &Tenant::new().await);
        for _ in 0..3 {
            let answer = ask(&tenant, "192.0.2.7", 5).await;
            assert_eq!(answer.data()["viewer"], json!(null));
            assert!(!answer.headers.contains_key("RateLimit"));
        }
    });
}

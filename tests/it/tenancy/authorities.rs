//! Which host a request names, byte by byte: by raw sockets, because clients mend what they send. And the parser itself,
//! with whatever chance comes up with.

use crate::harness::{Tenant, World, run, world};
use bulkhead::identity::BuiltIn;
use bulkhead::tenancy::host::Authority;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Sends this request line and these headers to a server, asking for the tenant's slug: the status, and the slug or code.
async fn ask(world: &World, token: &str, line: &str, headers: &[&[u8]]) -> (u16, String) {
    let query = json!({ "query": "{ tenant { slug } }" }).to_string();
    let mut request = format!("{line}\r\n").into_bytes();
    for header in headers {
        request.extend_from_slice(header);
        request.extend_from_slice(b"\r\n");
    }
    let rest = format!(
        "Authorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{query}",
        query.len()
    );
    request.extend_from_slice(rest.as_bytes());
    let mut stream = TcpStream::connect(&world.address).await.unwrap();
    stream.write_all(&request).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    let said = body["data"]["tenant"]["slug"]
        .as_str()
        .or(body["errors"][0]["extensions"]["code"].as_str())
        .unwrap_or_default();
    (
        status.unwrap_or_else(|| panic!("{answer:?}")),
        said.to_owned(),
    )
}

const POST: &str = "POST /graphql HTTP/1.1";

#[test]
fn one_host_is_named_once() {
    run(async {
        let (tenant, other) = (Tenant::new().await, Tenant::new().await);
        let token = tenant.token(BuiltIn::Owner).await;
        let (slug, other) = (&tenant.slug, &other.slug);
        let host = format!("Host: {slug}.localhost");
        let host = host.as_bytes();
        let upper = format!("hOsT:\t{}.LOCALHOST.:80 ", slug.to_uppercase());
        let second = format!("Host: {other}.localhost");
        let two_in_one = format!("Host: {slug}.localhost, {other}.localhost");
        let user = format!("Host: {other}.localhost@{slug}.localhost");
        let address = format!("Host: {}", world().await.address);
        let nul = [host, b"\0"].concat();
        let latin = [b"Host: b\xfccher.", &host[6..]].concat();
        let folded = [host, b"\r\n .evil"].concat();
        let (found, refused) = ((200, slug.as_str()), (400, "BAD_USER_INPUT"));
        let absolute = |authority: &str| format!("POST http://{authority}/graphql HTTP/1.1");
        let same = absolute(&format!("{slug}.localhost"));
        let same_upper = absolute(&format!("{}.LocalHost", slug.to_uppercase()));
        let different = absolute(&format!("{other}.localhost"));
        let port = absolute(&format!("{slug}.localhost:81"));
        let user_target = absolute(&format!("x@{slug}.localhost"));
        let old = "POST /graphql HTTP/1.0";
        for (line, headers, answer) in [
            (POST, &[host][..], found),
            (POST, &[upper.as_bytes()], found),
            (old, &[host], found),
            (&same, &[host], found),
            (&same_upper, &[host], found),
            (POST, &[], refused),
            (old, &[], refused),
            (&same, &[], refused),
            (POST, &[host, second.as_bytes()], refused),
            (POST, &[second.as_bytes(), host], refused),
            (POST, &[host, host], refused),
            (POST, &[two_in_one.as_bytes()], refused),
            (POST, &[user.as_bytes()], refused),
            (POST, &[address.as_bytes()], refused),
            (POST, &[b"Host:"], refused),
            (POST, &[b"Host: [::1]"], refused),
            (POST, &[&latin], refused),
            (&different, &[host], refused),
            (&port, &[host], refused),
            (&user_target, &[host], refused),
            // Refused before there is a request.
            (POST, &[&nul], (400, "")),
            (POST, &[&folded], (400, "")),
        ] {
            let (status, said) = ask(tenant.world, &token, line, headers).await;
            let shown: Vec<_> = headers.iter().map(|h| String::from_utf8_lossy(h)).collect();
            assert_eq!((status, said.as_str()), answer, "{line} {shown:?}");
        }
    });
}

#[test]
fn forwarded_hosts_of_strangers_are_ignored() {
    run(async {
        let (tenant, other) = (Tenant::new().await, Tenant::new().await);
        let token = tenant.token(BuiltIn::Owner).await;
        let host = format!("Host: {}.localhost", tenant.slug);
        // Nobody is listed, or somebody else.
        let beside = |proxy: &'static str| {
            let shared = tenant.world;
            async move {
                let list = vec![proxy.parse().unwrap()];
                shared.beside(|config| config.trusted_proxies = list).await
            }
        };
        let elsewhere = beside("127.0.0.2/32").await;
        for world in [tenant.world, elsewhere] {
            for header in [
                format!("X-Forwarded-Host: {}.localhost", other.slug),
                "X-Forwarded-Host: no host at all".to_owned(),
                format!("Forwarded: host={}.localhost", other.slug),
                format!("X-Host: {}.localhost", other.slug),
                format!("X-Original-Host: {}.localhost", other.slug),
            ] {
                let headers = [host.as_bytes(), header.as_bytes()];
                let (status, said) = ask(world, &token, POST, &headers).await;
                assert_eq!((status, &said), (200, &tenant.slug), "{header}");
            }
        }
    });
}

/// A server that believes proxies on this machine.
async fn proxied() -> &'static World {
    let list = vec!["127.0.0.0/8".parse().unwrap()];
    let world = world().await;
    world.beside(|config| config.trusted_proxies = list).await
}

#[test]
fn a_listed_proxy_says_which_host_it_was_asked_for() {
    run(async {
        let (tenant, other) = (Tenant::new().await, Tenant::new().await);
        let token = tenant.token(BuiltIn::Owner).await;
        let proxied = proxied().await;
        let (slug, other) = (&tenant.slug, &other.slug);
        let own = format!("Host: {slug}.localhost");
        let foreign = format!("Host: {other}.localhost");
        let forwarded = format!("X-Forwarded-Host: {}.LOCALHOST:8443", slug.to_uppercase());
        let elsewhere = format!("X-Forwarded-Host: {other}.localhost");
        let list = format!("X-Forwarded-Host: {slug}.localhost, {other}.localhost");
        let standard = format!("Forwarded: host={other}.localhost");
        let (found, refused) = ((200, slug.as_str()), (400, "BAD_USER_INPUT"));
        for (headers, answer) in [
            // Without the header the Host counts; what a proxy calls us is no tenant of ours.
            (&[own.as_str()][..], found),
            (&["Host: bulkhead_backend:8080", &forwarded], found),
            (&["Host: 10.0.0.7:8080", &forwarded], found),
            (&[&foreign, &forwarded], found),
            (&[&own, &standard], found),
            (&[&own, &elsewhere], (401, "UNAUTHENTICATED")),
            (
                &[&own, "X-Forwarded-Host: nobody.localhost"],
                (404, "TENANT_NOT_FOUND"),
            ),
            (&[&own, &list], refused),
            (&[&own, &forwarded, &forwarded], refused),
            (&[&own, &forwarded, &elsewhere], refused),
            (&[&own, "X-Forwarded-Host:"], refused),
            (&[&own, "X-Forwarded-Host: 127.0.0.1"], refused),
            (&[&forwarded], refused),
            (&[&own, &own, &forwarded], refused),
        ] {
            let bytes: Vec<&[u8]> = headers.iter().map(|header| header.as_bytes()).collect();
            let (status, said) = ask(proxied, &token, POST, &bytes).await;
            assert_eq!((status, said.as_str()), answer, "{headers:?}");
        }
    });
}

#[test]
fn links_lead_to_where_the_client_asked_the_proxy() {
    run(async {
        let (tenant, other) = (Tenant::new().await, Tenant::new().await);
        let token = tenant.token(BuiltIn::Owner).await;
        let proxied = proxied().await;
        let (slug, other) = (&tenant.slug, &other.slug);
        let query =
            "mutation { mediaCreateUpload(input: { resourceType: \"photo\", filename: \"a.png\",
            contentType: \"image/png\", size: 3 }) { upload { url } } }";
        let host = format!("{slug}.localhost:8443");
        let request = proxied
            .request(Method::POST, "bulkhead_backend", "/graphql")
            .header("X-Forwarded-Host", &host)
            .bearer_auth(&token)
            .json(&json!({ "query": query }));
        let made = tenant.send(request).await.data()["mediaCreateUpload"].clone();
        let link = made["upload"]["url"].as_str().unwrap();
        let path = link.strip_prefix(&format!("http://{host}")).unwrap();
        for (authority, status) in [(&host, 201), (&format!("{other}.localhost"), 401)] {
            let put = proxied
                .request(Method::PUT, "bulkhead_backend", path)
                .header("X-Forwarded-Host", authority)
                .body("abc");
            assert_eq!(
                tenant.send(put).await.status.as_u16(),
                status,
                "{authority}"
            );
        }
    });
}

/// What chance builds texts of: whole names, and what breaks them.
const PIECES: [&str; 34] = [
    "acme",
    "ACME",
    "localhost",
    "a",
    "9",
    "127",
    "0x7f",
    "xn--",
    "xn--bcher-kva",
    "XN--Fiqs8s",
    ".",
    ".",
    ".",
    "..",
    "-",
    "--",
    "_",
    ":",
    ":80",
    ":65535",
    ":65536",
    "@",
    "/",
    "%2e",
    "[::1]",
    "*",
    " ",
    "\0",
    "\r\n",
    "ü",
    "。",
    "\u{212a}",
    "\u{ad}",
    "a23456789012345678901234567890123456789012345678901234567890123",
];

/// A failure names the seed; `BULKHEAD_SEED` runs it again.
#[test]
fn what_the_parser_accepts_is_canonical() {
    let seed = std::env::var("BULKHEAD_SEED")
        .map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("BULKHEAD_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut accepted = 0_u32;
    for _ in 0..200_000 {
        let mut text = String::new();
        for _ in 0..random.random_range(0..7) {
            match random.random_range(0..20) {
                0 => text.push(random.random::<char>()),
                1 => text.push(char::from(random.random_range(0..128_u8))),
                _ => text.push_str(PIECES[random.random_range(0..PIECES.len())]),
            }
        }
        let Ok(read) = Authority::parse(&text) else {
            continue;
        };
        accepted += 1;
        let host = read.host();
        let shaped = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-".contains(&b);
        let canonical = !host.is_empty()
            && host.len() <= 253
            && host.bytes().all(shaped)
            && !host.starts_with('.')
            && !host.ends_with('.')
            && host.parse::<std::net::IpAddr>().is_err()
            && text.to_ascii_lowercase().starts_with(host);
        assert!(canonical, "seed {seed}: {text:?} reads as {host:?}");
        for again in [host.to_owned(), read.to_string(), text.to_uppercase()] {
            let again = Authority::parse(&again);
            assert!(
                again.is_ok_and(|again| again.host() == host),
                "seed {seed}: {text:?} does not read as itself again"
            );
        }
    }
    assert!(accepted > 1000, "seed {seed}: {accepted} were accepted");
}

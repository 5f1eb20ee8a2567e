//! The playground: a page that loads everything from its own host, and is not there in production.

use crate::harness::{Answer, Package, Tenant, repository, run, succeed, world};
use bulkhead::config::Env;
use bulkhead::identity::BuiltIn;
use regex_lite::Regex;
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, IF_NONE_MATCH,
};
use reqwest::{Method, StatusCode};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

#[test]
fn a_browser_gets_a_page_that_needs_nothing_from_elsewhere() {
    run(async {
        let tenant = Tenant::new().await;
        let page = page(&tenant).await;
        assert_eq!(page.status, StatusCode::OK);
        assert_eq!(page.headers[CONTENT_TYPE], "text/html; charset=utf-8");
        let policy = page.headers[CONTENT_SECURITY_POLICY].to_str().unwrap();
        let directives: Vec<_> = policy.split("; ").collect();
        for directive in [
            "default-src 'none'",
            "script-src 'self'",
            "connect-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
        ] {
            assert!(
                directives.contains(&directive),
                "{directive} is not in {policy}"
            );
        }
        let html = page.body.as_str().unwrap();
        assert!(
            !Regex::new(r"<script>|\son\w+=|javascript:")
                .unwrap()
                .is_match(html),
            "{html}"
        );
        let links = Regex::new(r#"(?:src|href)="([^"]*)""#).unwrap();
        let links: Vec<_> = links
            .captures_iter(html)
            .map(|found| found[1].to_owned())
            .collect();
        assert!(
            links.iter().any(|link| is(link, "js")) && links.iter().any(|link| is(link, "css"))
        );
        for link in links {
            assert!(
                link.starts_with('/') && !link.starts_with("//"),
                "{link} is elsewhere"
            );
            loads(&tenant, &link).await;
        }
    });
}

/// The scripts load others when they need them, by names that the build wrote into them.
#[test]
fn what_its_scripts_name_is_there_too() {
    run(async {
        let tenant = Tenant::new().await;
        let html = page(&tenant).await.body;
        let main = Regex::new(r#"src="([^"]*\.js)""#).unwrap();
        let main = main.captures(html.as_str().unwrap()).unwrap()[1].to_owned();
        let script = loads(&tenant, &main).await;
        let names =
            Regex::new(r#""\./([\w.-]+-[\w-]{8}\.js)"|["/]([\w.-]+-[\w-]{8}\.(?:js|css|ttf))""#)
                .unwrap();
        let text = script.body.to_string().replace("\\\"", "\"");
        let mut seen = 0;
        for found in names.captures_iter(&text) {
            let name = found.get(1).or(found.get(2)).unwrap().as_str();
            loads(&tenant, &format!("/graphql/assets/{name}")).await;
            seen += 1;
        }
        assert!(seen > 0, "the main script names no other");
    });
}

#[test]
fn only_its_own_files_are_served() {
    run(async {
        let tenant = Tenant::new().await;
        for path in [
            "/graphql/assets/absent.js",
            "/graphql/assets/",
            "/graphql/assets",
            "/graphql/assets/../assets/index.html",
            "/graphql/assets/../../Cargo.toml",
            "/graphql/assets/..%2f..%2f..%2fCargo.toml",
            "/graphql/assets/%2e%2e%2fpackage.json",
            "/graphql/assets/%2e%2e/package.json",
            "/graphql/assets/..%5cpackage.json",
            "/graphql/assets/%2fetc%2fpasswd",
            "/graphql/assets//etc/passwd",
            "/graphql/assets/index.html%00.js",
            "/graphql/assets/index.html",
            "/graphql/assets/index.html.br",
            "/graphql/assets/licenses.md.gz",
        ] {
            let answer = raw(&tenant, path);
            assert!(
                answer.starts_with("HTTP/1.1 404 ") || answer.starts_with("HTTP/1.1 400 "),
                "{path}: {answer}"
            );
        }
    });
}

/// Nothing is compressed for a request: each form was made with the file, and has a tag of its own.
#[test]
fn files_are_sent_in_the_form_that_the_client_takes() {
    run(async {
        let tenant = Tenant::new().await;
        let html = page(&tenant).await.body;
        let main = Regex::new(r#"src="([^"]*\.js)""#).unwrap();
        let main = main.captures(html.as_str().unwrap()).unwrap()[1].to_owned();
        for (accepted, sent) in [
            ("gzip, deflate, br, zstd", "br"),
            ("gzip", "gzip"),
            ("br;q=0, gzip;q=0.5", "gzip"),
            ("GZIP;q=1.0 , br; q=0.0", "gzip"),
            ("*", "br"),
            ("*;q=0, gzip", "gzip"),
            ("zstd", ""),
            ("identity", ""),
            ("", ""),
        ] {
            let request = tenant.request(Method::GET, &main);
            let request = request.header(ACCEPT_ENCODING, accepted);
            let first = tenant.send(request.try_clone().unwrap()).await;
            assert_eq!(first.status, StatusCode::OK);
            assert_eq!(first.header("Content-Encoding"), sent, "{accepted}");
            assert_eq!(first.header("Vary"), "accept-encoding");
            assert_eq!(
                first.header("Cache-Control"),
                "public, max-age=31536000, immutable"
            );
            let tag = first.header("ETag");
            let known = request.header(IF_NONE_MATCH, format!("\"other\", {tag}"));
            let again = tenant.send(known).await;
            assert_eq!(again.status, StatusCode::NOT_MODIFIED, "{accepted}");
            assert_eq!(again.header("ETag"), tag);
            assert_eq!(again.body, "");
        }
        let page = page(&tenant).await;
        assert_eq!(page.header("Cache-Control"), "no-cache");
        let vary: Vec<_> = page.headers.get_all("Vary").iter().collect();
        assert_eq!(vary, ["accept-encoding", "accept"]);
    });
}

#[test]
fn the_committed_files_are_what_the_sources_build() {
    let Some(package) = Package::new("web/playground") else {
        return;
    };
    let committed = repository().join("web/playground");
    package.run("bundle");
    let built = files(&package.directory().join("dist"));
    let mut kept = files(&committed.join("dist"));
    kept.retain(|name, _| !is(name, "br") && !is(name, "gz"));
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&kept), names(&built), "rebuild web/playground");
    for (name, bytes) in &kept {
        assert!(*bytes == built[name], "rebuild web/playground for {name}");
    }
    let check = ["compress.js", "--check"];
    succeed(Command::new("node").args(check).current_dir(committed));
}

#[test]
fn who_is_no_browser_is_answered() {
    run(async {
        let tenant = Tenant::new().await;
        let request = tenant
            .request(Method::GET, "/graphql?query={__typename}")
            .header(ACCEPT, "application/json");
        let answer = tenant.send(request).await;
        assert_eq!(answer.data()["__typename"], "Query");
    });
}

#[test]
fn production_has_neither_playground_nor_introspection() {
    run(async {
        let here = Tenant::new().await;
        let owner = here.token(BuiltIn::Owner).await;
        let introspection = "{ __schema { queryType { name } } }";
        assert_eq!(
            here.gql(None, introspection).await.data()["__schema"]["queryType"]["name"],
            "Query"
        );

        let world = world()
            .await
            .beside(|config| config.env = Env::Production)
            .await;
        let tenant = Tenant {
            world,
            ..here.clone()
        };
        let page = page(&tenant).await;
        assert_eq!(page.status, StatusCode::BAD_REQUEST);
        let asset = tenant.request(Method::GET, "/graphql/assets/licenses.md");
        assert_eq!(tenant.send(asset).await.status, StatusCode::NOT_FOUND);

        for query in [introspection, "{ __type(name: \"Query\") { name } }"] {
            let answer = tenant.gql(Some(&owner), query).await;
            let text = answer.body.to_string();
            assert!(!text.contains("\"Query\""), "{query}: {text}");
        }
        for typo in [
            "{ tenant { slugg } }",
            "{ tenant { slug @deprecated(reasn: 1) } }",
        ] {
            let suggested = here.gql(Some(&owner), typo).await.body.to_string();
            assert!(suggested.contains("Did you mean"), "{suggested}");
            let refused = tenant.gql(Some(&owner), typo).await.body.to_string();
            assert!(refused.contains("Unknown"), "{refused}");
            assert!(!refused.contains("Did you mean"), "{refused}");
        }
        let viewer = tenant.gql(Some(&owner), "{ tenant { slug } }").await;
        assert_eq!(viewer.data()["tenant"]["slug"], tenant.slug.as_str());
    });
}

/// The files of a directory, by their names.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap();
    let file = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().unwrap();
        (name, fs::read(entry.path()).unwrap())
    };
    entries.map(|entry| file(entry.unwrap())).collect()
}

async fn page(tenant: &Tenant) -> Answer {
    let accept = "text/html,application/xhtml+xml,*/*;q=0.8";
    let request = tenant
        .request(Method::GET, "/graphql")
        .header(ACCEPT, accept);
    tenant.send(request).await
}

fn is(link: &str, ext: &str) -> bool {
    link.rsplit_once('.').is_some_and(|(_, found)| found == ext)
}

/// Loads an asset, which is of the type that its name says.
async fn loads(tenant: &Tenant, path: &str) -> Answer {
    let answer = tenant.send(tenant.request(Method::GET, path)).await;
    assert_eq!(answer.status, StatusCode::OK, "{path}");
    let types = [
        ("js", "text/javascript; charset=utf-8"),
        ("css", "text/css; charset=utf-8"),
        ("svg", "image/svg+xml"),
        ("ttf", "font/ttf"),
    ];
    let (_, mime) = types.iter().find(|(ext, _)| is(path, ext)).unwrap();
    assert_eq!(answer.headers[CONTENT_TYPE], *mime, "{path}");
    assert_eq!(
        answer.headers["x-content-type-options"], "nosniff",
        "{path}"
    );
    answer
}

/// A path as it is written here, for what a client would tidy up: the answer.
fn raw(tenant: &Tenant, path: &str) -> String {
    let mut stream = TcpStream::connect(&tenant.world.address).unwrap();
    let slug = &tenant.slug;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {slug}.localhost\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

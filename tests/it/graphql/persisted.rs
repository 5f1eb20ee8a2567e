//! Documents that are not sent with each request: trusted ones, and those that clients brought.

use super::{JSON, MODERN, get, post};
use crate::harness::{Answer, Events, Heard, Socket, Tenant, World, bare, finish, run, world};
use crate::subscriptions::followed;
use bulkhead::error::explain;
use bulkhead::identity::BuiltIn;
use bulkhead::secret::hex;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::path::PathBuf;

const SLUG: &str = "query Slug { tenant { slug } }";
const CREATE: &str =
    "mutation Create($name: String!) { deviceCreate(input: { name: $name }) { device { name } } }";

fn hash(text: &str) -> String {
    hex(&Sha256::digest(text))
}

async fn ask(tenant: &Tenant, token: &str, request: Value) -> Answer {
    post(tenant, Some(token), &[JSON], &request.to_string()).await
}

fn persisted(text: Option<&str>, hash: &str) -> Value {
    let mut request =
        json!({ "extensions": { "persistedQuery": { "version": 1, "sha256Hash": hash } } });
    if let Some(text) = text {
        request["query"] = json!(text);
    }
    request
}

/// A file of the test's own.
async fn file(name: &str, content: &Value) -> PathBuf {
    let path = world().await.data_dir.join(name);
    std::fs::write(&path, content.to_string()).unwrap();
    path
}

/// A tenant, its owner's token, and the same at a server that trusts the documents of a manifest.
async fn trusting(name: &str, manifest: &Value) -> (Tenant, String) {
    let path = file(name, manifest).await;
    let world = world()
        .await
        .beside(|config| config.trusted_documents = Some(path))
        .await;
    let here = Tenant::new().await;
    let owner = here.token(BuiltIn::Owner).await;
    (Tenant { world, ..here }, owner)
}

#[test]
fn trusted_documents_are_all_that_is_executed() {
    run(async {
        let flat = json!({ hash(SLUG): SLUG, "create-1": CREATE });
        let (tenant, owner) = trusting("flat.json", &flat).await;
        for id in [hash(SLUG), format!("sha256:{}", hash(SLUG))] {
            for _ in 0..2 {
                let by_post = ask(&tenant, &owner, json!({ "documentId": id })).await;
                assert_eq!(by_post.payload()["slug"], tenant.slug.as_str());
            }
            let by_get = get(&tenant, Some(&owner), MODERN, &[("documentId", &id)]).await;
            assert_eq!(by_get.payload()["slug"], tenant.slug.as_str());
        }
        for text in [None, Some(SLUG)] {
            let by_hash = ask(&tenant, &owner, persisted(text, &hash(SLUG))).await;
            assert_eq!(by_hash.payload()["slug"], tenant.slug.as_str());
        }
        let create = json!({ "documentId": "create-1", "variables": { "name": "Gate" } });
        let made = ask(&tenant, &owner, create).await;
        assert_eq!(made.payload()["device"]["name"], "Gate");
        let by_get = [("documentId", "create-1"), ("variables", r#"{"name":"x"}"#)];
        let by_get = get(&tenant, Some(&owner), "*/*", &by_get).await;
        assert_eq!(by_get.status, StatusCode::METHOD_NOT_ALLOWED);

        let other = "{ viewer { expiresAt } }";
        for (request, code) in [
            (json!({ "query": SLUG }), "DOCUMENT_NOT_TRUSTED"),
            (json!({ "query": other }), "DOCUMENT_NOT_TRUSTED"),
            (
                json!({ "query": "{ __schema { queryType { name } } }" }),
                "DOCUMENT_NOT_TRUSTED",
            ),
            (persisted(Some(other), &hash(other)), "DOCUMENT_NOT_TRUSTED"),
            (persisted(None, &hash(other)), "PERSISTED_QUERY_NOT_FOUND"),
            (
                json!({ "documentId": hash(other) }),
                "PERSISTED_QUERY_NOT_FOUND",
            ),
            (json!({ "documentId": "" }), "PERSISTED_QUERY_NOT_FOUND"),
        ] {
            let answer = ask(&tenant, &owner, request.clone()).await;
            assert_eq!(answer.code(), code, "{request}");
            assert!(answer.body.get("data").is_none());
        }
        let mixed = json!({ "query": other, "documentId": hash(SLUG) });
        let answer = ask(&tenant, &owner, mixed).await;
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::BAD_REQUEST, "BAD_USER_INPUT")
        );
        assert_eq!(tenant.count("SELECT count(*) FROM device").await, 1);
    });
}

/// Neither a socket nor an event stream is a way around the list.
#[test]
fn what_is_followed_is_trusted_too() {
    run(async {
        let follow = "subscription { deviceUpdated { name } }";
        let flat = json!({ "slug": SLUG, "follow": follow, "create": CREATE });
        let (tenant, owner) = trusting("followed.json", &flat).await;
        let slug = json!({ "data": { "tenant": { "slug": tenant.slug } } });
        let mut socket = Socket::init(&tenant, Some(&owner)).await;
        let subscribe = |payload| json!({ "id": "1", "type": "subscribe", "payload": payload });
        for query in [follow, SLUG] {
            match socket.ask(subscribe(json!({ "query": query }))).await {
                Heard::Said(said) => {
                    let code = &said["payload"][0]["extensions"]["code"];
                    assert_eq!(
                        (&said["type"], code),
                        (&json!("error"), &json!("DOCUMENT_NOT_TRUSTED"))
                    );
                }
                other => panic!("{other:?}"),
            }
            let asking = tenant.request(Method::POST, "/graphql");
            let mut events = Events::of(Events::asking(asking, Some(&owner), query)).await;
            let refused = events.next().await;
            assert_eq!(
                refused["errors"][0]["extensions"]["code"],
                "DOCUMENT_NOT_TRUSTED"
            );
            assert!(refused.get("data").is_none(), "{refused}");
        }
        socket.say(subscribe(json!({ "documentId": "slug" }))).await;
        assert_eq!(socket.next("1").await, slug);
        let complete = json!({ "id": "1", "type": "complete" });
        assert_eq!(socket.hear().await, Heard::Said(complete));
        socket
            .say(subscribe(json!({ "documentId": "follow" })))
            .await;
        let by_get = tenant.request(Method::GET, "/graphql?documentId=follow");
        let by_get = by_get
            .bearer_auth(&owner)
            .header("Accept", "text/event-stream");
        let mut events = Events::of(by_get).await;
        followed(&tenant, 4).await;
        let create = json!({ "documentId": "create", "variables": { "name": "Gate" } });
        ask(&tenant, &owner, create).await.data();
        let told = json!({ "data": { "deviceUpdated": { "name": "Gate" } } });
        assert_eq!(socket.next("1").await, told);
        assert_eq!(events.next().await, told);
    });
}

#[test]
fn apollos_manifest_is_read_too() {
    run(async {
        let operation = |id: &str, kind: &str, name: &str, body: &str| json!({ "id": id, "type": kind, "name": name, "body": body });
        let manifest = json!({
            "format": "apollo-persisted-query-manifest",
            "version": 1,
            "operations": [operation(&hash(SLUG), "query", "Slug", SLUG), operation("c", "mutation", "Create", CREATE)],
        });
        let (tenant, owner) = trusting("apollo.json", &manifest).await;
        let answer = ask(&tenant, &owner, persisted(None, &hash(SLUG))).await;
        assert_eq!(answer.payload()["slug"], tenant.slug.as_str());
        let create = json!({ "documentId": "c", "variables": { "name": "Gate" } });
        ask(&tenant, &owner, create).await.data();
        assert_eq!(
            ask(&tenant, &owner, json!({ "query": SLUG })).await.code(),
            "DOCUMENT_NOT_TRUSTED"
        );
    });
}

#[test]
fn a_manifest_that_cannot_be_used_stops_the_start() {
    run(async {
        let world = world().await;
        let deep = format!("{{ tenant {{ {} }} }}", "slug ".repeat(3000));
        let nothing =
            json!({ "format": "apollo-persisted-query-manifest", "version": 2, "operations": [] });
        for (name, manifest, said) in [
            ("empty", json!({}), "it has no documents"),
            ("list", json!([SLUG]), "it is neither"),
            ("number", json!({ "a": 1 }), "it is neither"),
            ("version", nothing, "is not known"),
            ("syntax", json!({ "a": "{" }), "document a: "),
            (
                "limits",
                json!({ "a": deep }),
                "document a: The document has",
            ),
            (
                "faults",
                json!({ "a": "{ tenant { slug slug: name } }" }),
                "document a: Fields",
            ),
        ] {
            let path = file(&format!("wrong-{name}.json"), &manifest).await;
            let mut config = world.app.services.config.clone();
            config.trusted_documents = Some(path);
            let key = world.app.services.key.clone();
            let error = bulkhead::app::App::start(config, key, false)
                .await
                .unwrap_err();
            let text = explain(&error);
            assert!(
                text.starts_with("trusted_documents: ") && text.contains(said),
                "{name}: {text}"
            );
        }
        let dir = tempfile::tempdir().unwrap();
        let keys = "trusted_documents = \"absent.json\"\npersisted_queries = true";
        std::fs::write(dir.path().join("bulkhead.toml"), keys).unwrap();
        let show = ["config", "show"];
        let (code, _, error) = finish(bare().current_dir(dir.path()).args(show), "");
        assert!(
            code == Some(1) && error.contains("set one of them"),
            "{error}"
        );
    });
}

/// A tenant of the world's, and its owner's token.
async fn tenant(world: &'static World) -> (Tenant, String) {
    let tenant = Tenant::of(world).await;
    let owner = tenant.token(BuiltIn::Owner).await;
    (tenant, owner)
}

#[test]
fn what_a_client_brought_once_is_known_by_its_hash() {
    run(async {
        let world = world().await;
        let world = world.beside(|config| config.persisted_queries = true).await;
        let (a, owner) = tenant(world).await;
        let (b, stranger) = tenant(world).await;
        for text in [SLUG, "{ tenant { name } }"] {
            let unknown = ask(&a, &owner, persisted(None, &hash(text))).await;
            assert_eq!(
                (unknown.status, unknown.code()),
                (StatusCode::OK, "PERSISTED_QUERY_NOT_FOUND")
            );
            // Clients look for this text.
            assert_eq!(
                unknown.body["errors"][0]["message"],
                "PersistedQueryNotFound"
            );
            for request in [Some(text), None, None] {
                let request = persisted(request, &hash(text));
                ask(&a, &owner, request).await.data();
            }
            // It is known to the tenant that it was brought to.
            let elsewhere = ask(&b, &stranger, persisted(None, &hash(text))).await;
            assert_eq!(elsewhere.code(), "PERSISTED_QUERY_NOT_FOUND");
        }
        let extensions = persisted(None, &hash(SLUG))["extensions"].to_string();
        let by_get = get(&a, Some(&owner), "*/*", &[("extensions", &extensions)]).await;
        assert_eq!(by_get.payload()["slug"], a.slug.as_str());
        let by_id = json!({ "documentId": format!("sha256:{}", hash(SLUG)) });
        ask(&a, &owner, by_id).await.data();
        // Text alone is as good as ever.
        ask(&b, &stranger, json!({ "query": SLUG })).await.data();

        let upper = hash(SLUG).to_uppercase();
        for wrong in [
            persisted(Some(SLUG), &hash(CREATE)),
            persisted(Some(SLUG), &upper),
            persisted(Some(SLUG), ""),
            json!({ "query": SLUG, "extensions": { "persistedQuery": { "version": 2, "sha256Hash": hash(SLUG) } } }),
            json!({ "query": SLUG, "extensions": { "persistedQuery": { "version": 1 } } }),
            json!({ "query": SLUG, "extensions": { "persistedQuery": 1 } }),
        ] {
            assert_eq!(
                ask(&b, &stranger, wrong.clone()).await.code(),
                "BAD_USER_INPUT",
                "{wrong}"
            );
        }
        let kept = ask(&b, &stranger, persisted(None, &hash(SLUG))).await;
        assert_eq!(kept.code(), "PERSISTED_QUERY_NOT_FOUND");
    });
}

/// Neither what drives out what is needed, nor what may have a password in it.
#[test]
fn what_may_not_be_kept_is_brought_each_time() {
    run(async {
        let world = world().await;
        let world = world.beside(|config| config.persisted_queries = true).await;
        let (a, owner) = tenant(world).await;
        let create = CREATE
            .replace("($name: String!)", "")
            .replace("$name", r#""Gate""#);
        let wide = format!("{{ tenant {{ {} }} }}", "slug ".repeat(3000));
        let whose = "{ viewer { expiresAt } }";
        let owner = owner.as_str();
        for (token, text, code) in [
            (Some(owner), create.as_str(), None),
            (Some(owner), wide.as_str(), Some("QUERY_LIMIT_EXCEEDED")),
            (Some(owner), "{ tenant {", Some("GRAPHQL_PARSE_FAILED")),
            (None, whose, None),
        ] {
            let brought = persisted(Some(text), &hash(text)).to_string();
            for _ in 0..2 {
                let answer = post(&a, token, &[JSON], &brought).await;
                match code {
                    Some(code) => assert_eq!(answer.code(), code),
                    None => _ = answer.data(),
                }
            }
            let known = ask(&a, owner, persisted(None, &hash(text))).await;
            assert_eq!(known.code(), "PERSISTED_QUERY_NOT_FOUND", "{text:.40}");
        }
        assert_eq!(a.count("SELECT count(*) FROM device").await, 2);
        // What is known is there for all.
        ask(&a, owner, persisted(Some(whose), &hash(whose)))
            .await
            .data();
        let known = persisted(None, &hash(whose)).to_string();
        assert!(post(&a, None, &[JSON], &known).await.payload().is_null());
    });
}

#[test]
fn a_tenant_that_brings_much_drives_out_its_own_alone() {
    run(async {
        let world = world().await;
        let world = world.beside(|config| config.persisted_queries = true).await;
        let (a, owner) = tenant(world).await;
        let (b, stranger) = tenant(world).await;
        let known = persisted(Some(SLUG), &hash(SLUG));
        ask(&a, &owner, known.clone()).await.data();
        ask(&b, &stranger, known).await.data();
        // 30 of 15 kB do not fit where 256 kB do.
        let first = format!("{{ viewer {{ expiresAt }} }} # {}", "x".repeat(15_000));
        for number in 0..30 {
            let text = format!("{first}{number}");
            ask(&a, &owner, persisted(Some(&text), &hash(&text)))
                .await
                .data();
            // What is asked for stays.
            ask(&a, &owner, persisted(None, &hash(SLUG))).await.data();
        }
        let oldest = ask(&a, &owner, persisted(None, &hash(&format!("{first}0")))).await;
        assert_eq!(oldest.code(), "PERSISTED_QUERY_NOT_FOUND");
        let newest = persisted(None, &hash(&format!("{first}29")));
        ask(&a, &owner, newest).await.data();
        ask(&b, &stranger, persisted(None, &hash(SLUG)))
            .await
            .data();
    });
}

#[test]
fn both_are_off_unless_they_are_asked_for() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        ask(&tenant, &owner, persisted(Some(SLUG), &hash(SLUG)))
            .await
            .data();
        for request in [
            persisted(None, &hash(SLUG)),
            json!({ "documentId": hash(SLUG) }),
        ] {
            let answer = ask(&tenant, &owner, request).await;
            assert_eq!(answer.code(), "PERSISTED_QUERY_NOT_SUPPORTED");
            assert_eq!(
                answer.body["errors"][0]["message"],
                "PersistedQueryNotSupported"
            );
        }
    });
}

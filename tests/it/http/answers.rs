//! Answers: compressed for who asks for it, and masked where we failed.

use crate::harness::{Tenant, run, world};
use axum::Router;
use axum::routing::get;
use bulkhead::error::Error;
use bulkhead::http;
use bulkhead::identity::BuiltIn;
use flate2::read::GzDecoder;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::io::Read as _;
use tokio::net::TcpListener;

/// An answer of some kilobytes.
const LARGE: &str = "{ __schema { types { name description } } }";
const SMALL: &str = "{ viewer { expiresAt } }";

fn decoded(coding: &str, bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    match coding {
        "gzip" => GzDecoder::new(bytes).read_to_end(&mut text).map(drop),
        "br" => brotli::BrotliDecompress(&mut &*bytes, &mut text),
        _ => return bytes.to_vec(),
    }
    .unwrap();
    text
}

#[test]
fn a_large_answer_is_compressed_for_who_asks_for_that() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let plain = tenant.gql(Some(&owner), LARGE).await;
        for (accepted, coding) in [
            ("gzip", "gzip"),
            ("br", "br"),
            ("gzip, deflate, br", "br"),
            ("gzip;q=1.0, br;q=0.5", "gzip"),
            ("deflate", ""),
            ("identity", ""),
            ("gzip;q=0", ""),
        ] {
            let ask = |query: &str| {
                tenant
                    .request(Method::POST, "/graphql")
                    .header("Accept-Encoding", accepted)
                    .json(&json!({ "query": query }))
                    .send()
            };
            let answer = ask(LARGE).await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK);
            let told = answer.headers().get("Content-Encoding").cloned();
            let told = told.as_ref().map_or("", |value| value.to_str().unwrap());
            assert_eq!(told, coding, "{accepted}");
            assert_eq!(answer.headers()["Content-Type"], "application/json");
            assert_eq!(answer.headers()["Vary"], "accept-encoding", "{accepted}");
            let bytes = answer.bytes().await.unwrap();
            let text = decoded(coding, &bytes);
            assert!(coding.is_empty() || bytes.len() * 2 < text.len());
            assert_eq!(serde_json::from_slice::<Value>(&text).unwrap(), plain.body);
            let small = ask(SMALL).await.unwrap();
            assert!(
                small.headers().get("Content-Encoding").is_none(),
                "{accepted}"
            );
            small.json::<Value>().await.unwrap();
        }
        assert!(plain.headers.get("Content-Encoding").is_none());
        assert!(plain.headers.get("Vary").is_none());
        // What is stored in a format of its own is sent as it is.
        let photo = tenant.photo(&owner).await;
        let photo = tenant.follow(Method::GET, photo["url"].as_str().unwrap());
        let photo = photo
            .header("Accept-Encoding", "gzip, br")
            .send()
            .await
            .unwrap();
        assert_eq!(photo.status(), StatusCode::OK);
        assert!(photo.headers().get("Content-Encoding").is_none());
    });
}

/// A secret that no answer may have.
const SECRET: &str = "the insides";

async fn panics() -> &'static str {
    tokio::task::yield_now().await;
    panic!("{SECRET}")
}

#[test]
fn what_fails_on_our_side_is_one_masked_error_with_the_requests_name() {
    run(async {
        let routes = Router::new()
            .route("/graphql", get(panics))
            .route("/device/me", get(panics))
            .route("/fails", get(async || Error::internal(SECRET)));
        let world = world().await;
        let router = http::around(routes, &world.app.services);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        let ask = async |path: &str, accept: &str| {
            let request = world.client.get(format!("http://{address}{path}"));
            let answer = request.header("Accept", accept).send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
            let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
            let told = (header("Content-Type"), header("X-Request-Id"));
            assert_eq!(header("X-Content-Type-Options"), "nosniff");
            let text = answer.text().await.unwrap();
            assert!(!text.contains(SECRET), "{text}");
            let body: Value = serde_json::from_str(&text).unwrap();
            (told.0, told.1, body)
        };
        for accept in [
            "application/json",
            "application/graphql-response+json",
            "*/*",
        ] {
            let (kind, id, body) = ask("/graphql", accept).await;
            let wanted = accept.replace("*/*", "application/json");
            assert_eq!(kind, wanted);
            let message = "Something went wrong on our side.";
            let extensions = json!({ "code": "INTERNAL", "requestId": id });
            let error = json!({ "message": message, "extensions": extensions });
            assert_eq!(body, json!({ "errors": [error] }));
        }
        for path in ["/device/me", "/fails", "/device/me"] {
            let (kind, id, body) = ask(path, "*/*").await;
            assert_eq!(kind, "application/problem+json");
            assert_eq!(body["code"], "internal");
            assert_eq!(body["status"], 500);
            assert_eq!(body["request_id"], id.as_str());
        }
    });
}

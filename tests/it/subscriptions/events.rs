//! Event streams: graphql-sse in distinct connections mode.

use super::followed;
use crate::harness::{Events, Tenant, run};
use bulkhead::identity::BuiltIn;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const DEVICES: &str = "subscription { deviceUpdated { name } }";
const CREATE: &str = r#"mutation { deviceCreate(input: { name: "Gate" }) { device { name } } }"#;

/// All that a stream says, to its end.
async fn all(mut events: Events) -> Vec<(String, String)> {
    let mut heard = Vec::new();
    while let Some(event) = events.hear().await {
        heard.push(event);
    }
    heard
}

#[test]
fn any_operation_can_be_streamed() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let complete = ("complete".to_owned(), String::new());
        for (query, data) in [
            (
                "{ tenant { slug } }",
                json!({ "data": { "tenant": { "slug": tenant.slug } } }),
            ),
            (
                CREATE,
                json!({ "data": { "deviceCreate": { "device": { "name": "Gate" } } } }),
            ),
        ] {
            let heard = all(Events::open(&tenant, Some(&owner), query).await).await;
            assert_eq!(
                heard,
                [("next".to_owned(), data.to_string()), complete.clone()]
            );
        }
        // What is wrong with the operation is said in the stream; what is wrong with the request is its answer.
        for (query, code) in [
            ("{", "GRAPHQL_PARSE_FAILED"),
            ("{ nothing }", "GRAPHQL_VALIDATION_FAILED"),
            (
                "subscription { ...F } fragment F on Subscription { deviceUpdated { id } }",
                "GRAPHQL_VALIDATION_FAILED",
            ),
            (
                r#"subscription { mediaUpdated(mediaId: "none") { id } }"#,
                "NOT_FOUND",
            ),
        ] {
            let heard = all(Events::open(&tenant, Some(&owner), query).await).await;
            let answer: Value = serde_json::from_str(&heard[0].1).unwrap();
            assert_eq!(answer["errors"][0]["extensions"]["code"], code, "{query}");
            assert_eq!(&heard[1..], std::slice::from_ref(&complete));
        }
        let post = || tenant.request(Method::POST, "/graphql");
        let refused = tenant
            .send(Events::asking(post(), Some("bhs_none"), DEVICES))
            .await;
        assert_eq!(
            (refused.status, refused.code()),
            (StatusCode::UNAUTHORIZED, "UNAUTHENTICATED")
        );
        let accept = ("Accept", "text/event-stream");
        let plain = post()
            .header(accept.0, accept.1)
            .header("Content-Type", "text/plain")
            .body("{}");
        assert_eq!(
            tenant.send(plain).await.status,
            StatusCode::UNSUPPORTED_MEDIA_TYPE
        );
        let half = post()
            .header(accept.0, accept.1)
            .header("Content-Type", "application/json")
            .body("{");
        assert_eq!(tenant.send(half).await.status, StatusCode::BAD_REQUEST);
    });
}

#[test]
fn a_stream_is_opened_by_get_too_and_never_writes_then() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let get = |query: &str, rest: &str| {
            let path = format!("/graphql?query={}{rest}", urlencoded(query));
            let request = tenant.request(Method::GET, &path).bearer_auth(&owner);
            request.header("Accept", "text/event-stream")
        };
        let query = "query A { viewer { expiresAt } } query B($id: ID!) { node(id: $id) { id } }";
        let variables = urlencoded(r#"{"id":"none"}"#);
        let rest = format!("&operationName=B&variables={variables}");
        let heard = all(Events::of(get(query, &rest)).await).await;
        assert_eq!(heard[0].1, r#"{"data":{"node":null}}"#);

        let before = tenant.changes().await;
        let refused = tenant.send(get(CREATE, "")).await;
        assert_eq!(refused.status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(
            (refused.header("Allow"), refused.code()),
            ("POST", "METHOD_NOT_ALLOWED")
        );
        assert_eq!(tenant.changes().await, before);
        let refused = tenant
            .send(get("{ viewer { expiresAt } }", "&variables=1"))
            .await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);

        let response = get(DEVICES, "").send().await.unwrap();
        for (name, value) in [
            ("content-type", "text/event-stream"),
            ("cache-control", "no-cache"),
            ("x-accel-buffering", "no"),
            ("x-content-type-options", "nosniff"),
        ] {
            assert_eq!(response.headers()[name], value);
        }
        followed(&tenant, 2).await;
        drop(response);
        followed(&tenant, 0).await;
    });
}

/// Everything but letters and digits.
fn urlencoded(text: &str) -> String {
    let bytes = text.bytes().map(|byte| format!("%{byte:02x}"));
    bytes.collect()
}

//! GraphQL over HTTP: methods, media types, codings and statuses.

use super::{JSON, MODERN, body, get, post};
use crate::harness::{Tenant, run};
use bulkhead::identity::BuiltIn;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const MUTATION: &str = r#"mutation { deviceCreate(input: { name: "x" }) { device { id } } }"#;
const DEVICES: &str = "SELECT count(*) FROM device";

#[test]
fn a_query_by_get_is_answered_as_by_post() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let query =
            "query A($first: Int) { tenant { slug devices(first: $first) { nodes { id } } } }
            query B { viewer { expiresAt } }";
        let variables = json!({ "first": 3 });
        let by_post = json!({ "query": query, "variables": variables, "operationName": "A" });
        let by_post = post(&tenant, Some(&owner), &[JSON], &by_post.to_string()).await;
        let variables = variables.to_string();
        let parameters = [
            ("query", query),
            ("variables", &variables),
            ("operationName", "A"),
            ("extensions", r#"{"a":{}}"#),
            ("utm_source", "other parameters are nothing to us"),
        ];
        for accept in ["application/json", MODERN] {
            let answer = get(&tenant, Some(&owner), accept, &parameters).await;
            assert_eq!(answer.status, StatusCode::OK);
            assert_eq!(answer.header("Content-Type"), accept);
            assert_eq!(answer.header("Cache-Control"), "no-store");
            assert_eq!(answer.data(), by_post.data());
        }
        let head = tenant.request(Method::HEAD, "/graphql?query={viewer{expiresAt}}");
        let head = tenant.send(head).await;
        assert_eq!((head.status, head.body), (StatusCode::OK, json!("")));
        for wrong in [
            &[][..],
            &[("variables", "{}")],
            &[("query", query), ("query", query)],
            &[("query", "{ viewer { expiresAt } }"), ("variables", "1")],
            &[("query", "{ viewer { expiresAt } }"), ("variables", "{")],
            &[("query", "{ viewer { expiresAt } }"), ("variables", "[]")],
            &[("query", "{ viewer { expiresAt } }"), ("extensions", "[]")],
        ] {
            let answer = get(&tenant, Some(&owner), "*/*", wrong).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{wrong:?}");
            assert_eq!(answer.code(), "BAD_USER_INPUT", "{wrong:?}");
        }
        for empty in ["", "null", "{}"] {
            let parameters = [
                ("query", "{ viewer { expiresAt } }"),
                ("variables", empty),
                ("extensions", empty),
            ];
            get(&tenant, None, "*/*", &parameters).await.data();
        }
    });
}

#[test]
fn a_mutation_comes_by_post_alone() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let both = format!(
            "query Q {{ viewer {{ expiresAt }} }} {}",
            MUTATION.replace("mutation", "mutation M")
        );
        for parameters in [
            &[("query", MUTATION)][..],
            &[("query", &both), ("operationName", "M")],
        ] {
            for accept in ["application/json", MODERN] {
                let answer = get(&tenant, Some(&owner), accept, parameters).await;
                assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
                assert_eq!(answer.code(), "METHOD_NOT_ALLOWED");
                assert_eq!(answer.header("Allow"), "POST");
                assert_eq!(answer.header("Content-Type"), accept);
            }
        }
        let query = [("query", both.as_str()), ("operationName", "Q")];
        get(&tenant, Some(&owner), "*/*", &query).await.data();
        for method in ["PUT", "DELETE", "PATCH", "OPTIONS"] {
            let request = tenant
                .request(method.parse().unwrap(), "/graphql")
                .header("Content-Type", "application/json")
                .bearer_auth(&owner)
                .body(body(MUTATION));
            let answer = tenant.send(request).await;
            assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{method}");
            assert_eq!(answer.header("Allow"), "GET, POST", "{method}");
        }
        assert_eq!(tenant.count(DEVICES).await, 0);
    });
}

#[test]
fn nothing_is_done_for_who_accepts_no_answer() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        for accept in [
            "text/html",
            "application/xml",
            "application/json;q=0",
            "application/json; charset=utf-16",
        ] {
            let headers = [JSON, ("Accept", accept)];
            let answer = post(&tenant, Some(&owner), &headers, &body(MUTATION)).await;
            assert_eq!(answer.status, StatusCode::NOT_ACCEPTABLE, "{accept}");
            assert_eq!(answer.code(), "NOT_ACCEPTABLE");
            assert_eq!(answer.header("Content-Type"), "application/json");
        }
        assert_eq!(tenant.count(DEVICES).await, 0);
        let liked = "text/html, application/json;q=0.5, application/graphql-response+json;q=0.7";
        let headers = [JSON, ("Accept", liked)];
        let answer = post(&tenant, Some(&owner), &headers, &body(MUTATION)).await;
        answer.data();
        assert_eq!(answer.header("Content-Type"), MODERN);
    });
}

#[test]
fn a_body_in_a_coding_is_not_read() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        for coding in ["gzip", "br", "deflate", "identity, gzip"] {
            let headers = [JSON, ("Content-Encoding", coding)];
            let answer = post(&tenant, Some(&owner), &headers, &body(MUTATION)).await;
            assert_eq!(
                answer.status,
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "{coding}"
            );
            assert_eq!(answer.code(), "UNSUPPORTED_MEDIA_TYPE");
            assert_eq!(answer.header("Accept-Encoding"), "identity");
            let request = tenant
                .request(Method::POST, "/device/auth")
                .header("Content-Encoding", coding)
                .json(&json!({ "client_id": "x", "pin": "y" }));
            let answer = tenant.send(request).await;
            assert_eq!(
                answer.status,
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "{coding}"
            );
            assert_eq!(answer.body["code"], "unsupported_media_type");
        }
        assert_eq!(tenant.count(DEVICES).await, 0);
        let headers = [JSON, ("Content-Encoding", "identity")];
        post(&tenant, Some(&owner), &headers, &body(MUTATION))
            .await
            .data();
    });
}

#[test]
fn only_what_was_executed_has_data() {
    run(async {
        let tenant = Tenant::new().await;
        for accept in ["application/json", MODERN] {
            let headers = [JSON, ("Accept", accept)];
            for refused in [
                body("{"),
                body("{ nothing }"),
                body("query($id: ID!) { node(id: $id) { id } }"),
                json!({ "query": "{ viewer { expiresAt } }", "operationName": "other" })
                    .to_string(),
                "[]".to_owned(),
                "{}".to_owned(),
            ] {
                let answer = post(&tenant, None, &headers, &refused).await;
                let modern = accept == MODERN;
                assert!(
                    !modern || answer.status == StatusCode::BAD_REQUEST,
                    "{refused}"
                );
                assert!(
                    answer.body.get("data").is_none(),
                    "{refused}: {:#}",
                    answer.body
                );
                answer.code();
            }
            let failed = post(&tenant, None, &headers, &body("{ tenant { id } }")).await;
            assert_eq!(failed.status, StatusCode::OK);
            assert_eq!(failed.body["data"], Value::Null);
            assert!(failed.body.get("data").is_some());
            let nothing = body("{ viewer @skip(if: true) { expiresAt } }");
            let nothing = post(&tenant, None, &headers, &nothing).await;
            assert_eq!(*nothing.data(), json!({}));
        }
        let batch = format!("[{}]", body("{ viewer { expiresAt } }"));
        let answer = post(&tenant, None, &[JSON], &batch).await;
        let message = answer.body["errors"][0]["message"].as_str().unwrap();
        assert!(message.contains("batches are not taken"), "{message}");
    });
}

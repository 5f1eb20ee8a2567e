//! Requests: which are read, at which host, and what every answer to one says.

use super::{JSON, MODERN, body, post};
use crate::harness::{Tenant, run, world};
use bulkhead::identity::BuiltIn;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

#[test]
fn only_a_request_in_json_is_read() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let mutation = body(r#"mutation { deviceCreate(input: { name: "x" }) { device { id } } }"#);
        for content_type in [
            "text/plain",
            "text/plain; charset=utf-8",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/graphql",
            "application/json; charset=iso-8859-1",
            "application/jsonx",
        ] {
            let answer = post(
                &tenant,
                Some(&owner),
                &[("Content-Type", content_type)],
                &mutation,
            )
            .await;
            assert_eq!(
                answer.status,
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "{content_type}"
            );
            assert!(
                answer.body.get("data").is_none_or(Value::is_null),
                "{:#}",
                answer.body
            );
        }
        let answer = post(&tenant, Some(&owner), &[], &mutation).await;
        assert_eq!(
            answer.status,
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "no Content-Type"
        );
        assert_eq!(tenant.count("SELECT count(*) FROM device").await, 0);
        for content_type in ["application/json; charset=utf-8", "Application/JSON"] {
            post(
                &tenant,
                Some(&owner),
                &[("Content-Type", content_type)],
                &mutation,
            )
            .await
            .data();
        }
        assert_eq!(tenant.count("SELECT count(*) FROM device").await, 2);
    });
}

#[test]
fn what_is_not_a_request_is_400_and_what_is_too_large_413() {
    run(async {
        let tenant = Tenant::new().await;
        for text in [
            "",
            "{",
            "null",
            "1",
            "\"{ viewer { expiresAt } }\"",
            r#"[{"query":"{ viewer { expiresAt } }"}]"#,
            r#"["{ viewer { expiresAt } }", null, {}, {}]"#,
            r#"{"query":1}"#,
            r#"{"query":"{ viewer { expiresAt } }","variables":[]}"#,
            r#"{"query":"{ viewer { expiresAt } }","operationName":1}"#,
            r#"{"query":"\ud800"}"#,
        ] {
            for accept in ["application/json", MODERN] {
                let answer = post(&tenant, None, &[JSON, ("Accept", accept)], text).await;
                assert_eq!(
                    answer.status,
                    StatusCode::BAD_REQUEST,
                    "{text}: {:#}",
                    answer.body
                );
                assert_eq!(answer.code(), "BAD_USER_INPUT", "{text}");
                assert_eq!(answer.header("Content-Type"), accept);
            }
        }
        let full = body("{ viewer { expiresAt } }");
        let fits = format!("{full}{}", " ".repeat(1024 * 1024 - full.len()));
        post(&tenant, None, &[JSON], &fits).await.data();
        let answer = post(&tenant, None, &[JSON], &format!("{fits} ")).await;
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(answer.code(), "TOO_LARGE");
    });
}

#[test]
fn a_refused_document_has_a_code_and_the_status_that_was_asked_for() {
    run(async {
        let tenant = Tenant::new().await;
        for (query, code, status) in [
            ("", "GRAPHQL_PARSE_FAILED", 400),
            ("{", "GRAPHQL_PARSE_FAILED", 400),
            ("query { viewer { expiresAt }", "GRAPHQL_PARSE_FAILED", 400),
            ("{ nothing }", "GRAPHQL_VALIDATION_FAILED", 400),
            ("{ viewer }", "GRAPHQL_VALIDATION_FAILED", 400),
            ("{ node(id: 1.5) { id } }", "GRAPHQL_VALIDATION_FAILED", 400),
            (
                "query A { viewer { expiresAt } } query B { viewer { expiresAt } }",
                "GRAPHQL_VALIDATION_FAILED",
                400,
            ),
            // It ran, and its field failed.
            ("{ tenant { id } }", "UNAUTHENTICATED", 200),
        ] {
            let plain = post(&tenant, None, &[JSON], &body(query)).await;
            assert_eq!(plain.status, StatusCode::OK, "{query}: {:#}", plain.body);
            assert_eq!(plain.code(), code, "{query}: {:#}", plain.body);
            assert_eq!(plain.header("Content-Type"), "application/json");
            let modern = post(&tenant, None, &[JSON, ("Accept", MODERN)], &body(query)).await;
            assert_eq!(modern.status.as_u16(), status, "{query}: {:#}", modern.body);
            assert_eq!(modern.header("Content-Type"), MODERN);
            assert_eq!(modern.body["errors"], plain.body["errors"]);
        }
    });
}

#[test]
fn a_host_that_is_no_tenants_is_not_found() {
    run(async {
        let tenant = Tenant::new().await;
        let port = tenant.host().rsplit_once(':').unwrap().1.to_owned();
        for host in [
            format!("nobody-{}.localhost:{port}", tenant.slug),
            format!("localhost:{port}"),
            format!("a.{}.localhost:{port}", tenant.slug),
            format!("{}.localhost.example.com", tenant.slug),
        ] {
            let request = tenant.world.request(Method::POST, &host, "/graphql");
            let answer = tenant
                .send(request.json(&json!({ "query": "{ viewer { expiresAt } }" })))
                .await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{host}");
            assert_eq!(answer.code(), "TENANT_NOT_FOUND");
            let answer = tenant
                .send(tenant.world.request(Method::GET, &host, "/device/me"))
                .await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{host}");
            assert_eq!(answer.body["code"], "tenant_not_found");
        }
        for host in [
            format!("{}.LOCALHOST.:{port}", tenant.slug.to_uppercase()),
            format!("{}.localhost", tenant.slug),
        ] {
            let request = tenant.world.request(Method::POST, &host, "/graphql");
            tenant
                .send(request.json(&json!({ "query": "{ viewer { expiresAt } }" })))
                .await
                .data();
        }
    });
}

#[test]
fn a_request_names_one_host() {
    run(async {
        let tenant = Tenant::new().await;
        let (own, other) = (tenant.host(), Tenant::new().await.host());
        let one = format!("Host: {own}\r\n");
        let cases = [
            ("/graphql", String::new(), "400"),
            ("/graphql", format!("{one}Host: {other}\r\n"), "400"),
            ("/graphql", format!("{one}{one}"), "400"),
            ("/graphql", "Host: \r\n".to_owned(), "400"),
            ("/graphql", format!("Host: {own}, {other}\r\n"), "400"),
            (&format!("http://{other}/graphql"), one.clone(), "400"),
            ("/device/me", String::new(), "400"),
            ("/device/me", format!("{one}Host: {other}\r\n"), "400"),
            (
                "/device/me",
                format!("{one}X-Forwarded-Host: {other}\r\n"),
                "401",
            ),
            (
                "/graphql",
                format!(
                    "{one}X-Forwarded-Host: nobody.localhost\r\nForwarded: host=nobody.localhost\r\n"
                ),
                "200",
            ),
        ];
        for (target, hosts, status) in cases {
            let (method, body) = match target {
                "/device/me" => ("GET", ""),
                _ => ("POST", r#"{"query":"{ viewer { expiresAt } }"}"#),
            };
            let answer = raw(&format!(
                "{method} {target} HTTP/1.1\r\n{hosts}Connection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ))
            .await;
            let first = answer.lines().next().unwrap_or_default();
            assert_eq!(
                first.split(' ').nth(1),
                Some(status),
                "{target} {hosts:?}: {answer}"
            );
        }
    });
}

/// What the server says to these bytes.
async fn raw(request: &str) -> String {
    let mut stream = TcpStream::connect(&world().await.address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn every_answer_names_its_request() {
    run(async {
        let tenant = Tenant::new().await;
        let mut seen = BTreeSet::new();
        let answers = [
            tenant.gql(None, "{ viewer { expiresAt } }").await,
            tenant.gql(None, "{").await,
            tenant
                .gql(Some("bhs_none"), "{ viewer { expiresAt } }")
                .await,
            post(&tenant, None, &[], "").await,
            tenant.send(tenant.request(Method::GET, "/none")).await,
            tenant
                .send(tenant.request(Method::DELETE, "/graphql"))
                .await,
            tenant
                .send(
                    tenant
                        .world
                        .request(Method::GET, "nobody.localhost", "/device/me"),
                )
                .await,
            tenant
                .send(
                    tenant
                        .world
                        .request(Method::GET, "nobody.localhost", "/healthz/live"),
                )
                .await,
        ];
        for answer in &answers {
            assert!(
                seen.insert(answer.header("X-Request-Id").to_owned()),
                "{answer:?}"
            );
            assert_eq!(answer.header("X-Content-Type-Options"), "nosniff");
            assert_eq!(answer.header("Referrer-Policy"), "no-referrer");
        }
        assert!(!seen.contains(""));
    });
}

#[test]
fn the_history_keeps_a_requests_name_and_reason() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let create = body(r#"mutation { deviceCreate(input: { name: "x" }) { device { id } } }"#);
        let made = post(
            &tenant,
            Some(&owner),
            &[JSON, ("X-Change-Reason", "they've asked; it's due")],
            &create,
        )
        .await;
        made.data();
        let trail = "{ tenant { changes(first: 1) { nodes { requestId reason } } } }";
        let trail = tenant.gql(Some(&owner), trail).await;
        let change = json!({ "requestId": made.header("X-Request-Id"), "reason": "they've asked; it's due" });
        assert_eq!(trail.payload()["changes"]["nodes"][0], change);
        let long = post(
            &tenant,
            Some(&owner),
            &[JSON, ("X-Change-Reason", &"x".repeat(501))],
            &create,
        )
        .await;
        assert_eq!(
            (long.status, long.code()),
            (StatusCode::BAD_REQUEST, "BAD_USER_INPUT")
        );
    });
}

//! Documents and values that are odd, deep, wide or double each other.

use super::{JSON, post};
use crate::harness::{Tenant, run};
use bulkhead::identity::BuiltIn;
use reqwest::StatusCode;
use serde_json::json;

/// Requests that are wrong in ways that reach deep.
#[rustfmt::skip]
const ODD: [(&str, &str); 14] = [
    ("query($v: ID!) { node(id: $v) { id } }", r#"{"v":"\u0000"}"#),
    ("mutation($v: String!) { deviceCreate(input: { name: $v }) { errors { code } } }", r#"{"v":"\u0000"}"#),
    ("mutation($v: String!) { deviceCreate(input: { name: \"x\", clientId: $v }) { errors { code } } }", r#"{"v":"\u0000"}"#),
    ("mutation($v: String!) { mediaCreateUpload(input: { resourceType: $v, filename: \"f\", contentType: \"image/png\", size: 1 }) { errors { code } } }", r#"{"v":"\u0000"}"#),
    ("mutation($v: String!) { mediaCreateUpload(input: { resourceType: \"photo\", filename: $v, contentType: \"image/png\", size: 1 }) { errors { code } } }", r#"{"v":"\u0000"}"#),
    ("mutation($v: String!) { mediaCreateUpload(input: { resourceType: \"photo\", filename: \"f\", contentType: $v, size: 1 }) { errors { code } } }", r#"{"v":"\u0000"}"#),
    ("mutation($v: ByteSize!) { mediaCreateUpload(input: { resourceType: \"photo\", filename: \"f\", contentType: \"image/png\", size: $v }) { errors { code } } }", r#"{"v":9007199254740993}"#),
    ("mutation($v: ByteSize!) { mediaCreateUpload(input: { resourceType: \"photo\", filename: \"f\", contentType: \"image/png\", size: $v }) { errors { code } } }", r#"{"v":1.5}"#),
    ("mutation($v: ByteSize!) { mediaCreateUpload(input: { resourceType: \"photo\", filename: \"f\", contentType: \"image/png\", size: $v }) { errors { code } } }", r#"{"v":-1}"#),
    ("query($v: Int) { tenant { devices(first: $v) { nodes { id } } } }", r#"{"v":99999999999}"#),
    ("query($v: Int) { tenant { devices(first: $v) { nodes { id } } } }", r#"{"v":"1"}"#),
    ("query($v: JobState) { tenant { jobs(state: $v) { nodes { id } } } }", r#"{"v":"NONE"}"#),
    ("mutation($v: Int) { deviceUpdate(input: { deviceId: \"x\", ifVersion: $v }) { errors { code } } }", r#"{"v":2147483648}"#),
    ("mutation { sessionCreate(input: { email: \"\\u0000\", password: \"\\u0000\" }) { token } }", "{}"),
];

#[test]
fn an_odd_value_is_the_clients_doing_and_no_answer_tells_of_our_insides() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let (schema, role) = (tenant.row.schema_name.clone(), tenant.row.role_name.clone());
        for (query, variables) in ODD {
            let text = format!(r#"{{"query":{},"variables":{variables}}}"#, json!(query));
            let answer = post(&tenant, Some(&owner), &[JSON], &text).await;
            let shown = answer.body.to_string();
            assert_eq!(answer.status, StatusCode::OK, "{text}: {shown}");
            let refused = answer.body.get("errors").is_some();
            let failed = shown.contains(r#""code":"INVALID""#)
                || shown.contains("UNSUPPORTED_MEDIA_TYPE")
                || shown.contains("NOT_FOUND");
            let nothing = answer.body["data"]["node"].is_null();
            assert!(refused || failed || nothing, "{text}: {shown}");
            assert!(!shown.contains("INTERNAL"), "{text}: {shown}");
            for inside in [
                "SELECT",
                "INSERT",
                "sqlx",
                "sea_orm",
                "panicked",
                ".rs",
                "PgDatabase",
                "::",
                "bulkhead.",
                &schema,
                &role,
            ] {
                assert!(
                    !shown.contains(inside),
                    "{inside} is in the answer to {text}: {shown}"
                );
            }
        }
        // A number beyond all floats is no JSON number that we can hold.
        let text = r#"{"query":"query($v: Int) { tenant { devices(first: $v) { nodes { id } } } }","variables":{"v":1e400}}"#;
        assert_eq!(
            post(&tenant, Some(&owner), &[JSON], text).await.code(),
            "BAD_USER_INPUT"
        );
    });
}

#[test]
fn deep_and_wide_documents_are_refused_before_they_cost_anything() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let nested = |times: usize| {
            let open = "history(first: 1) { nodes { actor { ... on Member { ".repeat(times);
            let close = "} } } }".repeat(times);
            format!("{{ tenant {{ members(first: 1) {{ nodes {{ {open} id {close} }} }} }} }}")
        };
        let wide = |times: usize| {
            let fields: Vec<_> = (0..times)
                .map(|i| format!("a{i}: viewer {{ expiresAt }}"))
                .collect();
            format!("{{ {} }}", fields.join(" "))
        };
        tenant.gql(Some(&owner), &nested(2)).await.data();
        tenant.gql(Some(&owner), &wide(20)).await.data();
        for query in [nested(5), nested(30), wide(2600)] {
            let answer = tenant.gql(Some(&owner), &query).await;
            assert!(answer.body["data"].is_null(), "{:#}", answer.body);
            assert_ne!(answer.code(), "INTERNAL");
        }
        // Nesting far beyond what a parser's stack holds: an answer, and the server lives.
        for (open, close) in [("{a", "}"), ("[", "]"), ("{a:", "}")] {
            for times in [200, 5_000, 100_000] {
                let (open, close) = (open.repeat(times), close.repeat(times));
                for query in [
                    format!("{{ node(id: {open}1{close}) {{ id }} }}"),
                    format!("{{ viewer {open} {close} }}"),
                    format!("{{ viewer {open}"),
                ] {
                    let answer = tenant.gql(Some(&owner), &query).await;
                    assert!(answer.body["data"].is_null(), "{:#}", answer.body);
                    assert_ne!(answer.code(), "INTERNAL");
                }
            }
        }
        tenant
            .gql(Some(&owner), "{ viewer { expiresAt } }")
            .await
            .data();
    });
}

#[test]
fn fragments_that_double_each_other_are_refused_before_they_are_expanded() {
    run(async {
        let tenant = Tenant::new().await;
        let double = |n| format!("fragment F{n} on Tenant {{ ...F{0} ...F{0} }} ", n + 1);
        let doubled: String = (0..40).map(double).collect();
        let document =
            format!("{{ tenant {{ ...F0 }} }} {doubled} fragment F40 on Tenant {{ slug }}");
        let answer = tenant.gql(None, &document).await;
        assert_eq!(answer.code(), "QUERY_LIMIT_EXCEEDED");
        let extensions = &answer.body["errors"][0]["extensions"];
        assert_eq!(extensions["limit"], "selections");
        assert_eq!(extensions["max"], 2000);

        let long = format!("{{ tenant {{ slug }} }} # {}", "x".repeat(17_000));
        assert_eq!(tenant.gql(None, &long).await.code(), "QUERY_LIMIT_EXCEEDED");
    });
}

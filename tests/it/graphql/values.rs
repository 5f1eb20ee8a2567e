//! Values that PostgreSQL cannot hold, or JSON cannot: the client's doing, never ours, whichever way they come.

use super::{JSON, get, post};
use crate::harness::{Answer, Tenant, run};
use bulkhead::identity::BuiltIn;
use reqwest::{Method, StatusCode};
use serde_json::json;

/// Every argument with a text that gets to PostgreSQL: its operation, and its variable with $ for the text.
#[rustfmt::skip]
const TEXTS: [(&str, &str); 9] = [
    ("mutation($v: SessionCreateInput!) { sessionCreate(input: $v) { token errors { code } } }", r#"{"email":$,"password":"x"}"#),
    ("mutation($v: SessionCreateInput!) { sessionCreate(input: $v) { token errors { code } } }", r#"{"email":"x","password":$}"#),
    ("mutation($v: DeviceCreateInput!) { deviceCreate(input: $v) { errors { code } } }", r#"{"name":$}"#),
    ("mutation($v: DeviceCreateInput!) { deviceCreate(input: $v) { errors { code } } }", r#"{"name":"x","clientId":$}"#),
    ("mutation($v: DeviceUpdateInput!) { deviceUpdate(input: $v) { errors { code } } }", r#"{"deviceId":"ID","name":$}"#),
    ("mutation($v: MediaCreateUploadInput!) { mediaCreateUpload(input: $v) { errors { code } } }", r#"{"resourceType":"photo","filename":$,"contentType":"image/png","size":1}"#),
    ("mutation($v: MediaCreateUploadInput!) { mediaCreateUpload(input: $v) { errors { code } } }", r#"{"resourceType":$,"filename":"a.png","contentType":"image/png","size":1}"#),
    ("mutation($v: MediaCreateUploadInput!) { mediaCreateUpload(input: $v) { errors { code } } }", r#"{"resourceType":"photo","filename":"a.png","contentType":$,"size":1}"#),
    ("mutation($v: MediaCreateUploadInput!) { mediaCreateUpload(input: $v) { errors { code } } }", r#"{"resourceType":"photo","filename":"a.png","contentType":"image/png","size":1,"sha256":$}"#),
];

/// Numbers that are larger than what they are kept in, or than any.
#[rustfmt::skip]
const NUMBERS: [&str; 9] = [
    "1e400", "-1e400", "1e309", "2147483648", "-2147483649", "9223372036854775808", "18446744073709551616",
    "340282366920938463463374607431768211456", "1e30",
];

/// Refused as the client's doing: at the top, or as data.
#[track_caller]
fn is_the_clients(answer: &Answer, asked: &str) {
    let shown = answer.body.to_string();
    let codes = [
        "BAD_USER_INPUT",
        "\"INVALID\"",
        "UNSUPPORTED_MEDIA_TYPE",
        "UNAUTHENTICATED",
        "GRAPHQL_",
    ];
    assert!(
        codes.iter().any(|code| shown.contains(code)),
        "{asked}: {shown}"
    );
    assert!(
        !shown.contains("INTERNAL") && answer.status.as_u16() < 500,
        "{asked}: {shown}"
    );
}

#[test]
fn a_text_that_cannot_be_kept_is_the_clients_doing() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let (device, ..) = tenant.device(&owner).await;
        for (query, variable) in TEXTS {
            // NUL, alone and within; a surrogate without its other half.
            for text in [r#""\u0000""#, r#""a\u0000b""#, r#""\ud800""#] {
                let variable = variable.replace('$', text).replace("ID", &device);
                let body = format!(
                    r#"{{"query":{},"variables":{{"v":{variable}}}}}"#,
                    json!(query)
                );
                is_the_clients(&post(&tenant, Some(&owner), &[JSON], &body).await, &body);
                // The same in the document itself. A JSON object is one of GraphQL too, but for the quotes of its names.
                let literal = [
                    "email",
                    "password",
                    "name",
                    "clientId",
                    "deviceId",
                    "resourceType",
                    "filename",
                    "contentType",
                    "sha256",
                    "size",
                ]
                .iter()
                .fold(variable, |text, name| {
                    text.replace(&format!("\"{name}\":"), &format!("{name}:"))
                });
                let (head, rest) = query.split_once(") {").unwrap();
                assert!(head.starts_with("mutation("));
                let document = format!("mutation {{{}", rest.replace("$v", &literal));
                let answer = tenant.gql(Some(&owner), &document).await;
                is_the_clients(&answer, &document);
            }
        }
        assert_eq!(tenant.count("SELECT count(*) FROM device").await, 1);
        assert_eq!(tenant.count("SELECT count(*) FROM media").await, 0);
        for variables in [r#"{"v":"\ud800"}"#, r#"{"v":"\u0000"}"#] {
            let list = "query($v: String) { tenant { devices(after: $v) { nodes { id } } } }";
            let by_get = [("query", list), ("variables", variables)];
            is_the_clients(&get(&tenant, Some(&owner), "*/*", &by_get).await, variables);
        }
        for body in [
            r#"{"client_id":"\u0000","pin":"1"}"#,
            r#"{"client_id":"a\u0000","pin":"\u0000"}"#,
            r#"{"client_id":"DEMO","pin":"1","firmware_version":"\u0000"}"#,
            r#"{"client_id":"\ud800","pin":"1"}"#,
        ] {
            let request = tenant.request(Method::POST, "/device/auth");
            let request = request
                .header("Content-Type", "application/json")
                .body(body);
            let answer = tenant.send(request).await;
            assert!(
                matches!(answer.status.as_u16(), 400 | 401),
                "{body}: {answer:?}"
            );
        }
    });
}

#[test]
fn a_number_that_is_too_large_is_the_clients_doing() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let (device, ..) = tenant.device(&owner).await;
        let update = format!(
            r#"deviceUpdate(input: {{ deviceId: "{device}", ifVersion: $v }}) {{ errors {{ code }} }}"#
        );
        let upload = r#"mediaCreateUpload(input: { resourceType: "photo", filename: "a.png", contentType: "image/png", size: $v }) { errors { code } }"#;
        let cases = [
            (
                "query",
                "Int!",
                "tenant { devices(first: $v) { nodes { id } } }",
            ),
            ("mutation", "Int", update.as_str()),
            ("mutation", "ByteSize!", upload),
        ];
        for number in NUMBERS {
            for (kind, of, field) in cases {
                if of == "ByteSize!" && number.starts_with("2147") {
                    continue;
                }
                let query = json!(format!("{kind}($v: {of}) {{ {field} }}"));
                let body = format!(r#"{{"query":{query},"variables":{{"v":{number}}}}}"#);
                let answer = post(&tenant, Some(&owner), &[JSON], &body).await;
                is_the_clients(&answer, &body);
                let document = format!("{kind} {{ {} }}", field.replace("$v", number));
                is_the_clients(&tenant.gql(Some(&owner), &document).await, &document);
            }
        }
        assert_eq!(tenant.count("SELECT count(*) FROM media").await, 0);
        assert_eq!(tenant.count("SELECT version::bigint FROM device").await, 1);
    });
}

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

//! Answers as the specification has them: order, nulls, variables.

use super::{JSON, MODERN, post};
use crate::harness::{Tenant, run};
use bulkhead::identity::BuiltIn;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// The text of the answer, for what a JSON object does not tell.
async fn text(tenant: &Tenant, token: &str, query: &str) -> String {
    let request = tenant
        .request(Method::POST, "/graphql")
        .bearer_auth(token)
        .json(&json!({ "query": query }));
    request.send().await.unwrap().text().await.unwrap()
}

#[test]
fn fields_come_in_the_order_of_the_document() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        tenant.device(&owner).await;
        // Those that ask the database, and those that need not wait, in turns.
        let query = "{ z: tenant { m2: members { nodes { roles { name } email } } slug d1: devices { totalCount nodes { id } }
            ...More name m1: members { edges { cursor } } __typename ... on Node { a: id } } viewer { expiresAt }
            y: tenant { quotas { used name } id } } fragment More on Tenant { c: changes { nodes { id } } b: slug }";
        for _ in 0..3 {
            let text = text(&tenant, &owner, query).await;
            let mut from = 0;
            for key in [
                "z",
                "m2",
                "nodes",
                "roles",
                "name",
                "email",
                "slug",
                "d1",
                "totalCount",
                "nodes",
                "id",
                "c",
                "nodes",
                "b",
                "name",
                "m1",
                "edges",
                "__typename",
                "a",
                "viewer",
                "y",
                "quotas",
                "used",
                "name",
                "id",
            ] {
                let key = format!("\"{key}\":");
                let at = text[from..].find(&key);
                from += at.unwrap_or_else(|| panic!("{key} is not after {from} in {text}"));
            }
        }
    });
}

/// Who asks what, the data, and the paths of the errors.
fn failures() -> [(BuiltIn, &'static str, Value, Value); 6] {
    [
        // Tenant.changes may not be null, nor may Query.tenant.
        (
            BuiltIn::Viewer,
            "{ viewer { __typename } tenant { slug changes { nodes { id } } } }",
            Value::Null,
            json!([["tenant", "changes"]]),
        ),
        // Query.node may.
        (
            BuiltIn::Viewer,
            r#"{ viewer { __typename } a: node(id: "$tenant") { id ... on Tenant { changes { nodes { id } } } } }"#,
            json!({ "viewer": { "__typename": "Viewer" }, "a": null }),
            json!([["a", "changes"]]),
        ),
        // The items of Query.nodes may, each by itself.
        (
            BuiltIn::Viewer,
            r#"{ nodes(ids: ["$tenant", "none", "$tenant"]) { ... on Tenant { changes { nodes { id } } } } }"#,
            json!({ "nodes": [null, null, null] }),
            json!([["nodes", 0, "changes"], ["nodes", 2, "changes"]]),
        ),
        // Media.url may, also where it is all that was asked for.
        (
            BuiltIn::Owner,
            "{ tenant { media { nodes { url(expiresIn: 9999) } edges { node { state u: url(expiresIn: 9999) } } } } }",
            json!({ "tenant": { "media": {
                    "nodes": [{ "url": null }, { "url": null }],
                    "edges": [{ "node": { "state": "READY", "u": null } },
                        { "node": { "state": "READY", "u": null } }] } } }),
            json!([
                ["tenant", "media", "nodes", 0, "url"],
                ["tenant", "media", "nodes", 1, "url"],
                ["tenant", "media", "edges", 0, "node", "u"],
                ["tenant", "media", "edges", 1, "node", "u"]
            ]),
        ),
        // One that may and one that may not.
        (
            BuiltIn::Viewer,
            r#"{ a: node(id: "$tenant") { ... on Tenant { m: media { nodes { url(expiresIn: 0) } } changes { nodes { id } } } }
                    b: node(id: "$tenant") { ... on Tenant { m: media { nodes { url(expiresIn: 0) } } } } }"#,
            json!({ "a": null, "b": { "m": { "nodes": [{ "url": null }, { "url": null }] } } }),
            json!([
                ["a", "m", "nodes", 0, "url"],
                ["a", "m", "nodes", 1, "url"],
                ["a", "changes"],
                ["b", "m", "nodes", 0, "url"],
                ["b", "m", "nodes", 1, "url"]
            ]),
        ),
        // A mutation's field may not.
        (
            BuiltIn::Viewer,
            r#"mutation { a: mediaCompleteUpload(input: { mediaId: "x" }) { errors { code } } b: sessionCreate(input: { email: "x", password: "y" }) { token } }"#,
            Value::Null,
            json!([["b"]]),
        ),
    ]
}

#[test]
fn a_failed_field_is_null_and_what_may_not_be_null_takes_its_parent_along() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let viewer = tenant.token(BuiltIn::Viewer).await;
        for _ in 0..2 {
            tenant.photo(&owner).await;
        }
        for (who, query, data, paths) in failures() {
            let token = if matches!(who, BuiltIn::Owner) {
                &owner
            } else {
                &viewer
            };
            let id = tenant.gql(Some(&owner), "{ tenant { id } }").await;
            let query = query.replace("$tenant", id.payload()["id"].as_str().unwrap());
            for _ in 0..2 {
                let answer = tenant.gql(Some(token), &query).await;
                assert_eq!(answer.status, StatusCode::OK);
                assert_eq!(answer.body["data"], data, "{query}: {:#}", answer.body);
                let sorted = |paths: Vec<Value>| {
                    let mut paths: Vec<_> = paths.iter().map(Value::to_string).collect();
                    paths.sort();
                    paths
                };
                let errors = answer.body["errors"].as_array().unwrap();
                let told = errors.iter().map(|error| error["path"].clone()).collect();
                let wanted = paths.as_array().unwrap().clone();
                assert_eq!(sorted(told), sorted(wanted), "{query}: {:#}", answer.body);
            }
        }
    });
}

/// Variables that are not what the operation says they are.
#[rustfmt::skip]
const WRONG: [(&str, &str, &str); 22] = [
    ("query($v: ID!) { node(id: $v) { id } }", "{}", "Variable $v of type ID! is missing."),
    ("query($v: ID!) { node(id: $v) { id } }", r#"{"v":null}"#, "Variable $v is not of type ID!."),
    ("query($v: ID!) { node(id: $v) { id } }", r#"{"v":1.5}"#, "Variable $v is not of type ID!."),
    ("query($v: ID!) { node(id: $v) { id } }", r#"{"v":true}"#, "Variable $v is not of type ID!."),
    ("query($v: ID!) { node(id: $v) { id } }", r#"{"v":{"a":1}}"#, "Variable $v is not of type ID!."),
    ("query($v: [ID!]!) { nodes(ids: $v) { id } }", r#"{"v":["a",null]}"#, "Variable $v is not of type ID!."),
    ("query($v: [ID!]!) { nodes(ids: $v) { id } }", r#"{"v":["a",["b"]]}"#, "Variable $v is not of type ID!."),
    ("query($v: Int!) { tenant { devices(first: $v) { nodes { id } } } }", r#"{"v":2147483648}"#, "Variable $v is not of type Int!."),
    ("query($v: Int!) { tenant { devices(first: $v) { nodes { id } } } }", r#"{"v":-99999999999999999999}"#, "Variable $v is not of type Int!."),
    ("query($v: Int!) { tenant { devices(first: $v) { nodes { id } } } }", r#"{"v":1e30}"#, "Variable $v is not of type Int!."),
    ("query($v: Int!) { tenant { devices(first: $v) { nodes { id } } } }", r#"{"v":1.0}"#, "Variable $v is not of type Int!."),
    ("query($v: Int!) { tenant { devices(first: $v) { nodes { id } } } }", r#"{"v":"1"}"#, "Variable $v is not of type Int!."),
    ("query($v: Int!) { tenant { devices(first: $v) { nodes { id } } } }", r#"{"v":[1]}"#, "Variable $v is not of type Int!."),
    ("query($v: String) { tenant { devices(after: $v) { nodes { id } } } }", r#"{"v":1}"#, "Variable $v is not of type String."),
    ("query($v: Boolean!) { viewer @include(if: $v) { expiresAt } }", r#"{"v":"true"}"#, "Variable $v is not of type Boolean!."),
    ("query($v: JobState) { tenant { jobs(state: $v) { nodes { id } } } }", r#"{"v":"NONE"}"#, "Variable $v is not of type JobState."),
    ("query($v: JobState) { tenant { jobs(state: $v) { nodes { id } } } }", r#"{"v":1}"#, "Variable $v is not of type JobState."),
    ("mutation($v: DeviceCreateInput!) { deviceCreate(input: $v) { pin } }", r#"{"v":{}}"#, "Variable $v lacks the field name."),
    ("mutation($v: DeviceCreateInput!) { deviceCreate(input: $v) { pin } }", r#"{"v":{"name":null}}"#, "Variable $v.name is not of type String!."),
    ("mutation($v: DeviceCreateInput!) { deviceCreate(input: $v) { pin } }", r#"{"v":{"name":"x","clientId":5}}"#, "Variable $v.clientId is not of type String."),
    ("mutation($v: DeviceCreateInput!) { deviceCreate(input: $v) { pin } }", r#"{"v":{"name":"x","owner":"y"}}"#, "Variable $v.owner: there is no such field."),
    ("mutation($v: DeviceCreateInput!) { deviceCreate(input: $v) { pin } }", r#"{"v":"x"}"#, "Variable $v is not of type DeviceCreateInput!."),
];

#[test]
fn a_wrong_variable_is_refused_before_anything_is_executed() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        for (query, variables, message) in WRONG {
            let text = format!(r#"{{"query":{},"variables":{variables}}}"#, json!(query));
            for (accept, status) in [("application/json", 200), (MODERN, 400)] {
                let answer = post(&tenant, Some(&owner), &[JSON, ("Accept", accept)], &text).await;
                assert_eq!(answer.status.as_u16(), status, "{text}: {:#}", answer.body);
                assert_eq!(answer.code(), "BAD_USER_INPUT", "{text}");
                let error = &answer.body["errors"][0];
                assert_eq!(error["message"], message, "{text}");
                assert_eq!(error["locations"][0]["line"], 1, "{text}");
                assert!(
                    answer.body.get("data").is_none(),
                    "{text}: {:#}",
                    answer.body
                );
            }
        }
        assert_eq!(tenant.count("SELECT count(*) FROM device").await, 0);
    });
}

#[test]
fn a_variable_without_a_value_leaves_the_default_in_force() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let (id, ..) = tenant.device(&owner).await;
        let list = "query($first: Int, $after: String) { tenant { devices(first: $first, after: $after) { nodes { id } } } }";
        for _ in 0..2 {
            for variables in [json!({}), json!({ "after": null }), json!({ "first": 5 })] {
                let answer = tenant.gql_with(Some(&owner), list, variables).await;
                assert_eq!(answer.payload()["devices"]["nodes"][0]["id"], id.as_str());
            }
            // Null is a value, and none that `expiresIn` may have.
            let links =
                "query($seconds: Int) { tenant { media { nodes { url(expiresIn: $seconds) } } } }";
            let null = json!({ "seconds": null });
            let answer = tenant.gql_with(Some(&owner), links, null).await;
            assert_eq!(answer.code(), "GRAPHQL_VALIDATION_FAILED");
            tenant.gql_with(Some(&owner), links, json!({})).await.data();
            let whole = json!({ "first": 5, "after": null });
            tenant.gql_with(Some(&owner), list, whole).await.data();
        }
        let update = "mutation($id: ID!, $name: String, $version: Int) { deviceUpdate(input: {
            deviceId: $id, name: $name, ifVersion: $version }) { device { name version } errors { code } } }";
        let named = json!({ "id": id, "name": "Gate" });
        let answer = tenant.gql_with(Some(&owner), update, named).await;
        assert_eq!(answer.payload()["device"]["name"], "Gate");
        let stale = json!({ "id": id, "version": 99 });
        let answer = tenant.gql_with(Some(&owner), update, stale).await;
        assert_eq!(answer.failure()["code"], "VERSION_CONFLICT");
        let skip =
            "query($skip: Boolean = true, $unset: Int) { viewer @skip(if: $skip) { expiresAt }
            tenant { devices(first: $unset) { totalCount } } }";
        let answer = tenant.gql(Some(&owner), skip).await;
        assert_eq!(
            *answer.data(),
            json!({ "tenant": { "devices": { "totalCount": 1 } } })
        );
    });
}

/// What is known to be valid is not validated again; that must not let anything in.
#[test]
fn a_document_is_refused_each_time_and_answered_each_time() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        for query in [
            "{ nothing }",
            "query($v: Boolean) { tenant { devices(first: $v) { totalCount } } }",
            "query($v: Int) { viewer { expiresAt } }",
            "{ tenant { slug { x } } }",
            "{ tenant { ...A } } fragment A on Tenant { ...B } fragment B on Tenant { ...A }",
            "{ viewer { expiresAt } } fragment Unused on Tenant { slug }",
            "query A { viewer { expiresAt } } query B { nothing }",
        ] {
            for _ in 0..3 {
                let operation = query.contains("query A").then_some("A");
                let text = json!({ "query": query, "operationName": operation, "variables": { "v": true } });
                let answer = post(&tenant, Some(&owner), &[JSON], &text.to_string()).await;
                let code = answer.code();
                assert!(
                    code == "GRAPHQL_VALIDATION_FAILED" || code == "BAD_USER_INPUT",
                    "{query}: {:#}",
                    answer.body
                );
                assert!(
                    answer.body.get("data").is_none(),
                    "{query}: {:#}",
                    answer.body
                );
            }
        }
        let query = "query A { tenant { slug } } query B { tenant { name } }";
        for name in ["A", "B", "A", "B", "C"] {
            let text = json!({ "query": query, "operationName": name }).to_string();
            let answer = post(&tenant, Some(&owner), &[JSON], &text).await;
            match name {
                "A" => assert_eq!(*answer.payload(), json!({ "slug": tenant.slug })),
                "B" => assert!(answer.payload()["name"].is_string()),
                _ => assert_eq!(answer.code(), "GRAPHQL_VALIDATION_FAILED"),
            }
        }
    });
}

/// Values beside variables are looked at in the operation that runs alone.
#[test]
fn an_operation_is_validated_whichever_ran_before() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let query = "query A { tenant { slug } }
            query B($types: [String!]) { tenant { changes(filter: { subjectTypes: $types, nothing: 1 }) { edges { cursor } } } }";
        for name in ["A", "B", "A", "B"] {
            let variables = json!({ "types": ["Device"] });
            let text = json!({ "query": query, "operationName": name, "variables": variables });
            let answer = post(&tenant, Some(&owner), &[JSON], &text.to_string()).await;
            if name == "A" {
                answer.data();
            } else {
                assert_eq!(answer.code(), "GRAPHQL_VALIDATION_FAILED");
            }
        }
    });
}

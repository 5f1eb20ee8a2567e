//! The front door of GraphQL: what it takes, what it refuses and how, and the pages behind it.

use crate::harness::{Answer, Tenant, run, world};
use bulkhead::identity::BuiltIn;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgListener;
use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

const MODERN: &str = "application/graphql-response+json";

/// A request with a body of any kind.
async fn post(
    tenant: &Tenant,
    token: Option<&str>,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut request = tenant
        .request(Method::POST, "/graphql")
        .body(body.to_owned());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    tenant.send(request).await
}

const JSON: (&str, &str) = ("Content-Type", "application/json");

fn body(query: &str) -> String {
    json!({ "query": query }).to_string()
}

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
fn pages_go_through_a_list_once() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let mut made = Vec::new();
        for _ in 0..7 {
            made.push(tenant.device(&owner).await.0);
        }
        made.reverse();
        let query = "query($after: String) { tenant { devices(first: 3, after: $after) {
            totalCount pageInfo { hasNextPage hasPreviousPage startCursor endCursor } edges { cursor node { id } } nodes { id } } } }";
        let (mut seen, mut sizes, mut after) = (Vec::new(), Vec::new(), Value::Null);
        loop {
            let answer = tenant
                .gql_with(Some(&owner), query, json!({ "after": after }))
                .await;
            let page = &answer.payload()["devices"];
            assert_eq!(page["totalCount"], 7);
            let edges = page["edges"].as_array().unwrap();
            let info = &page["pageInfo"];
            assert_eq!(info["startCursor"], edges[0]["cursor"]);
            assert_eq!(info["endCursor"], edges[edges.len() - 1]["cursor"]);
            assert_eq!(info["hasPreviousPage"], !after.is_null());
            let nodes: Vec<_> = edges.iter().map(|edge| edge["node"].clone()).collect();
            assert_eq!(page["nodes"], json!(nodes));
            sizes.push(edges.len());
            seen.extend(
                nodes
                    .iter()
                    .map(|node| node["id"].as_str().unwrap().to_owned()),
            );
            after = info["endCursor"].clone();
            // One that is made meanwhile is newer, and moves nothing.
            if info["hasNextPage"] == false {
                break;
            }
        }
        assert_eq!(sizes, [3, 3, 1]);
        assert_eq!(seen, made, "newest first, each once");
        let last = tenant
            .gql_with(Some(&owner), query, json!({ "after": after }))
            .await;
        assert_eq!(last.payload()["devices"]["edges"], json!([]));
        assert_eq!(last.payload()["devices"]["pageInfo"]["hasNextPage"], false);
        // A page that ends where the list ends is the last.
        for (first, more) in [(6, true), (7, false), (8, false)] {
            let query = format!(
                "{{ tenant {{ devices(first: {first}) {{ pageInfo {{ hasNextPage }} }} }} }}"
            );
            let answer = tenant.gql(Some(&owner), &query).await;
            assert_eq!(
                answer.payload()["devices"]["pageInfo"]["hasNextPage"],
                more,
                "{first}"
            );
        }
    });
}

#[test]
fn a_page_is_bounded_and_begins_at_a_cursor() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        tenant.device(&owner).await;
        for list in ["changes", "devices", "jobs", "media", "members"] {
            let ask = async |arguments: &str| {
                let query = format!(
                    "{{ tenant {{ {list}({arguments}) {{ nodes {{ id }} pageInfo {{ hasNextPage }} }} }} }}"
                );
                tenant.gql(Some(&owner), &query).await
            };
            for refused in [
                "first: 101",
                "first: -1",
                "first: 2147483647",
                r#"after: "nonsense""#,
                r#"after: """#,
                r#"after: "AAAA""#,
                r#"after: "\u0000""#,
            ] {
                let answer = ask(refused).await;
                assert_eq!(
                    answer.code(),
                    "BAD_USER_INPUT",
                    "{list} {refused}: {:#}",
                    answer.body
                );
            }
            assert_eq!(ask("first: 0").await.payload()[list]["nodes"], json!([]));
            ask("first: 100").await.data();
        }
        let none = tenant
            .gql(Some(&owner), "{ tenant { devices { nodes { id } } } }")
            .await;
        assert_eq!(
            none.payload()["devices"]["nodes"].as_array().unwrap().len(),
            1
        );
    });
}

#[test]
fn nodes_come_in_the_order_they_were_asked_for() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let (first, ..) = tenant.device(&owner).await;
        let (second, ..) = tenant.device(&owner).await;
        let query = "query($ids: [ID!]!) { nodes(ids: $ids) { __typename id } }";
        let ids = json!({ "ids": [second, "absent", first, "", second] });
        let node = |id: &str| json!({ "__typename": "Device", "id": id });
        let answer = tenant.gql_with(Some(&owner), query, ids).await;
        assert_eq!(
            *answer.payload(),
            json!([node(&second), null, node(&first), null, node(&second)])
        );
        let many = json!({ "ids": vec!["x"; 101] });
        assert_eq!(
            tenant.gql_with(Some(&owner), query, many).await.code(),
            "BAD_USER_INPUT"
        );
        let many = json!({ "ids": vec!["x"; 100] });
        assert_eq!(
            tenant.gql_with(Some(&owner), query, many).await.payload()[99],
            Value::Null
        );
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

#[test]
fn members_with_their_roles_take_as_many_statements_for_twelve_as_for_two() {
    run(async {
        let tenant = Tenant::new().await;
        tenant.member(BuiltIn::Viewer).await;
        let mut watch = Statements::of(&tenant, &["member", "member_role", "role"]).await;
        let (two, before) = members_with_roles(&tenant, &mut watch).await;
        assert_eq!(two, 2);
        assert!(before >= 3, "the watch sees statements: {before}");
        let more = "WITH new AS (INSERT INTO member (id, email, password_hash, created_at, updated_at)
            SELECT gen_random_uuid(), 'm' || n || '@more.test', '', now(), now() FROM generate_series(1, 10) n RETURNING id)
            INSERT INTO member_role (id, member_id, role_id) SELECT gen_random_uuid(), new.id, r.id FROM new, role r WHERE r.name = 'viewer'";
        assert_eq!(tenant.sql(more).await, 10);
        let (twelve, after) = members_with_roles(&tenant, &mut watch).await;
        assert_eq!(twelve, 12);
        assert_eq!(after, before);
    });
}

/// How many members a page of them with their roles holds, and how many statements it takes, with a token that the server
/// does not know yet.
async fn members_with_roles(tenant: &Tenant, watch: &mut Statements) -> (usize, usize) {
    let owner = tenant.token(BuiltIn::Owner).await;
    watch.settle(tenant).await;
    let query = "{ tenant { members(first: 20) { nodes { email roles { name } } } } }";
    let answer = tenant.gql(Some(&owner), query).await;
    let statements = watch.settle(tenant).await;
    let nodes = answer.payload()["members"]["nodes"].as_array().unwrap();
    for node in nodes {
        assert_eq!(node["roles"].as_array().unwrap().len(), 1, "{node}");
    }
    (nodes.len(), statements)
}

/// Counts the statements that read a tenant's tables: a row policy that asks for nothing tells, once a statement and table.
struct Statements(PgListener);

impl Statements {
    async fn of(tenant: &Tenant, tables: &[&str]) -> Self {
        let mut superuser = tenant.superuser().await;
        for table in tables {
            let policy = format!(
                "CREATE FUNCTION told_{table}() RETURNS boolean LANGUAGE sql SECURITY DEFINER AS
                     $$ SELECT pg_notify('{}', clock_timestamp() || '{table}') IS NOT NULL $$;
                 GRANT EXECUTE ON FUNCTION told_{table}() TO PUBLIC;
                 ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
                 CREATE POLICY told ON {table} USING ((SELECT told_{table}()))",
                tenant.slug
            );
            sqlx::raw_sql(AssertSqlSafe(policy))
                .execute(&mut superuser)
                .await
                .unwrap();
        }
        let mut listener = PgListener::connect(&tenant.world.database_url)
            .await
            .unwrap();
        listener.listen(&tenant.slug).await.unwrap();
        Self(listener)
    }

    /// How many were told of since the last time: they come in the order of the commits.
    async fn settle(&mut self, tenant: &Tenant) -> usize {
        sqlx::query("SELECT pg_notify($1, 'now')")
            .bind(&tenant.slug)
            .execute(&mut tenant.world.superuser().await)
            .await
            .unwrap();
        let mut count = 0;
        while self.0.recv().await.unwrap().payload() != "now" {
            count += 1;
        }
        count
    }
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

//! Pages and nodes: whole, in order, bounded, and in as few statements for many as for few.

use crate::harness::{Tenant, run, until};
use bulkhead::identity::BuiltIn;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgListener;

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

/// A member with an avatar and a device, each with a photo.
const MORE: &str = "WITH photo AS (INSERT INTO media (id, filename, content_type, size, state, resource_type, uploaded_by, created_at, updated_at)
        SELECT gen_random_uuid(), 'avatar', 'image/png', 1, 'failed', 'avatar', 'system:tests', now(), now() RETURNING id),
    person AS (INSERT INTO member (id, email, password_hash, avatar_id, created_at, updated_at)
        SELECT gen_random_uuid(), gen_random_uuid() || '@more.test', '', photo.id, now(), now() FROM photo RETURNING id),
    thing AS (INSERT INTO device (id, name, client_id, pin_hash, created_at, updated_at)
        SELECT gen_random_uuid(), 'd', gen_random_uuid(), '', now(), now() RETURNING id)
    INSERT INTO media (id, filename, content_type, size, state, resource_type, uploaded_by, created_at, updated_at)
        SELECT gen_random_uuid(), 'photo', 'image/png', 1, 'failed', 'photo', by, now(), now()
        FROM (SELECT 'member:' || id FROM person UNION ALL SELECT 'device:' || id FROM thing) who(by)";

/// Until nobody reads the history to seal it.
async fn sealed(tenant: &Tenant) {
    let number = format!(
        "SELECT number FROM bulkhead.seal_head WHERE tenant_id = '{}'",
        tenant.row.id
    );
    until("the history is sealed", async || {
        let entries = tenant.count("SELECT count(*) FROM history").await;
        let sealed: Option<i64> = sqlx::query_scalar(AssertSqlSafe(number.clone()))
            .fetch_optional(&mut tenant.superuser().await)
            .await
            .unwrap();
        (sealed == Some(entries)).then_some(())
    })
    .await;
}

#[test]
fn lists_within_lists_take_as_many_statements_for_twelve_as_for_two() {
    run(async {
        let tenant = Tenant::new().await;
        let mut watch = Statements::of(&tenant, &["member", "device", "media", "history"]).await;
        let queries = [
            "{ tenant { media(first: 40) { nodes { filename uploadedBy { ... on Member { avatar { filename uploadedBy { __typename } } } } } } } }",
            "{ tenant { devices(first: 20) { nodes { tokenExpiresAt media(first: 2) { totalCount nodes { filename } } } } } }",
            "{ tenant { devices(first: 20) { nodes { history(last: 1) { nodes { subject { ... on Device { name } } } } } } } }",
        ];
        let ask = async |watch: &mut Statements| {
            let owner = tenant.token(BuiltIn::Owner).await;
            sealed(&tenant).await;
            let (mut answers, mut counts) = (Vec::new(), Vec::new());
            for query in queries {
                watch.settle(&tenant).await;
                let answer = tenant.gql(Some(&owner), query).await;
                counts.push(watch.settle(&tenant).await);
                answers.push(answer.payload().clone());
            }
            (answers, counts)
        };
        tenant.sql(MORE).await;
        let (one, before) = ask(&mut watch).await;
        for _ in 0..11 {
            tenant.sql(MORE).await;
        }
        let (twelve, after) = ask(&mut watch).await;
        assert!(
            before.iter().all(|count| *count >= 2),
            "the watch sees statements: {before:?}"
        );
        assert_eq!(after, before);
        for (answers, rows) in [(one, 1), (twelve, 12)] {
            let nodes =
                |at: usize, list: &str| answers[at][list]["nodes"].as_array().unwrap().clone();
            let media = nodes(0, "media").into_iter();
            let of_members =
                media.filter(|media| media["uploadedBy"]["avatar"]["filename"] == "avatar");
            assert_eq!(of_members.count(), rows);
            let devices = nodes(1, "devices");
            assert_eq!(devices.len(), rows);
            for device in devices {
                assert_eq!(device["media"]["totalCount"], 1, "{device:#}");
                assert_eq!(
                    device["media"]["nodes"][0]["filename"], "photo",
                    "{device:#}"
                );
            }
            for device in nodes(2, "devices") {
                assert_eq!(
                    device["history"]["nodes"][0]["subject"]["name"], "d",
                    "{device:#}"
                );
            }
        }
    });
}

#[test]
fn rows_are_counted_only_when_they_are_asked_for() {
    run(async {
        let tenant = Tenant::new().await;
        // Without a row, nothing would tell.
        let owner = tenant.token(BuiltIn::Owner).await;
        tenant.device(&owner).await;
        let mut watch = Statements::of(&tenant, &["device"]).await;
        let mut counts = Vec::new();
        for fields in ["nodes { id }", "nodes { id } totalCount", "totalCount"] {
            watch.settle(&tenant).await;
            let query = format!("{{ tenant {{ devices {{ {fields} }} }} }}");
            tenant.gql(Some(&owner), &query).await.data();
            counts.push(watch.settle(&tenant).await);
        }
        assert_eq!(counts[1], counts[0] + 1, "{counts:?}");
        assert_eq!(counts[2], counts[1], "{counts:?}");
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

/// Counts the statements that read a tenant's tables: a row policy that asks for nothing tells, once a statement and table: of two
/// notes of one transaction that are alike, PostgreSQL sends one.
struct Statements(PgListener);

impl Statements {
    async fn of(tenant: &Tenant, tables: &[&str]) -> Self {
        let mut superuser = tenant.superuser().await;
        for table in tables {
            let policy = format!(
                "CREATE FUNCTION told_{table}() RETURNS boolean LANGUAGE sql SECURITY DEFINER AS
                     $$ SELECT pg_notify('{}', statement_timestamp() || '{table}') IS NOT NULL $$;
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
        // A read commits a moment after it was answered.
        let open = "SELECT count(*) FROM pg_stat_activity
            WHERE state LIKE 'idle in transaction%' AND datname = current_database() AND usename LIKE '%\\_c\\_%'";
        until("all reads are committed", async || {
            (tenant.count(open).await == 0).then_some(())
        })
        .await;
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

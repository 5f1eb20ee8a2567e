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
        // A read commits a moment after it was answered.
        let open = "SELECT count(*) FROM pg_stat_activity
            WHERE state LIKE 'idle in transaction%' AND datname = current_database() AND usename LIKE '%_c_0'";
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

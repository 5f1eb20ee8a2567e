//! Every list, forwards and backwards: whole, in its order, while rows come and go.

use crate::harness::{Tenant, run};
use bulkhead::identity::BuiltIn;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

/// What each list has for a page.
const PAGE: &str =
    "edges { cursor node { id } } pageInfo { hasNextPage hasPreviousPage startCursor endCursor }";

/// A list of the tenant, or of one of its objects.
struct List {
    /// The document's beginning, up to the list.
    within: String,
    /// The field, and arguments that each of its pages has.
    field: &'static str,
    always: &'static str,
}

impl List {
    fn of_tenant(field: &'static str, always: &'static str) -> Self {
        let within = "{ tenant {".to_owned();
        Self {
            within,
            field,
            always,
        }
    }

    fn of_node(id: &str, kind: &str, field: &'static str) -> Self {
        let within = format!(r#"{{ node(id: "{id}") {{ ... on {kind} {{"#);
        Self {
            within,
            field,
            always: "",
        }
    }

    fn document(&self, arguments: &str, page: &str) -> String {
        let Self {
            within,
            field,
            always,
        } = self;
        let end = "}".repeat(within.matches('{').count());
        format!("{within} list: {field}({arguments} {always}) {{ {page} }} {end}")
    }

    async fn page(&self, tenant: &Tenant, token: &str, arguments: &str) -> Value {
        let answer = tenant
            .gql(Some(token), &self.document(arguments, PAGE))
            .await;
        answer.payload()["list"].clone()
    }

    /// Goes through all of it in pages of two, and says what there is. Between two pages something else may happen.
    async fn walk(
        &self,
        tenant: &Tenant,
        token: &str,
        forwards: bool,
        mut between: impl AsyncFnMut(&[String]),
    ) -> Vec<String> {
        let (size, from, cursor, more, back) = if forwards {
            (
                "first",
                "after",
                "endCursor",
                "hasNextPage",
                "hasPreviousPage",
            )
        } else {
            (
                "last",
                "before",
                "startCursor",
                "hasPreviousPage",
                "hasNextPage",
            )
        };
        let mut seen: Vec<String> = Vec::new();
        let mut arguments = format!("{size}: 2");
        loop {
            let page = self.page(tenant, token, &arguments).await;
            let mut ids = ids(&page);
            let info = &page["pageInfo"];
            assert_eq!(info[back], !seen.is_empty(), "{} {page:#}", self.field);
            if !forwards {
                ids.reverse();
            }
            seen.extend(ids);
            if info[more] == false {
                break;
            }
            assert!(seen.len() < 100, "{} has no end", self.field);
            arguments = format!("{size}: 2, {from}: {}", info[cursor]);
            between(&seen).await;
        }
        if !forwards {
            seen.reverse();
        }
        seen
    }
}

fn ids(page: &Value) -> Vec<String> {
    let edges = page["edges"].as_array().unwrap().iter();
    edges
        .map(|edge| edge["node"]["id"].as_str().unwrap().to_owned())
        .collect()
}

/// A tenant with five or more rows in each of its lists, its owner's token, and the lists.
async fn furnished() -> (Tenant, String, Vec<List>) {
    let tenant = Tenant::new().await;
    let owner = tenant.token(BuiltIn::Owner).await;
    let (device, ..) = tenant.device(&owner).await;
    fill(&tenant).await;
    let member = "{ viewer { actor { ... on Member { id } } } }";
    let member = tenant.gql(Some(&owner), member).await.payload()["actor"]["id"].clone();
    let media = List::of_tenant("media", "");
    let photo = ids(&media.page(&tenant, &owner, "last: 1").await).remove(0);
    let order = |order| List::of_tenant("devices", order);
    let lists = vec![
        media,
        List::of_tenant("changes", ""),
        List::of_tenant("changes", r#"filter: { subjectTypes: ["Device"] }"#),
        List::of_tenant("jobs", ""),
        List::of_tenant("jobs", "state: QUEUED"),
        List::of_tenant("members", ""),
        List::of_tenant("roles", ""),
        order(""),
        order("orderBy: { field: CREATED_AT }"),
        order("orderBy: { field: NAME }"),
        order("orderBy: { field: NAME, direction: DESC }"),
        order("orderBy: { field: LAST_SEEN_AT }"),
        order("orderBy: { field: LAST_SEEN_AT, direction: DESC }"),
        List::of_node(&device, "Device", "media"),
        List::of_node(&device, "Device", "history"),
        List::of_node(member.as_str().unwrap(), "Member", "history"),
        List::of_node(&photo, "Media", "history"),
    ];
    (tenant, owner, lists)
}

/// Several rows to each list, some of them alike in what they are sorted by.
async fn fill(tenant: &Tenant) {
    let rows = format!(
        "INSERT INTO media (id, filename, content_type, size, state, resource_type, uploaded_by, created_at, updated_at)
             SELECT gen_random_uuid(), 'f' || n, 'image/png', 1, 'failed', 'photo', 'device:' || d.id, now(), now()
             FROM generate_series(1, 6) n, device d;
         INSERT INTO device (id, name, client_id, pin_hash, last_seen_at, created_at, updated_at)
             SELECT gen_random_uuid(), (ARRAY['Ärger', 'ant', 'Zoo'])[n % 3 + 1], 'C' || n, '',
                 CASE WHEN n % 3 > 0 THEN timestamptz '2026-01-01Z' + n % 3 * interval '1 day' END, now(), now()
             FROM generate_series(1, 8) n;
         INSERT INTO member (id, email, password_hash, created_at, updated_at)
             SELECT gen_random_uuid(), n || '@fill.test', '', now(), now() FROM generate_series(1, 5) n;
         INSERT INTO role (id, name, permissions, built_in, created_at, updated_at)
             SELECT gen_random_uuid(), 'r' || n, '{{}}', false, now(), now() FROM generate_series(1, 5) n;
         UPDATE device SET firmware_version = '1' WHERE name = 'A device';
         UPDATE device SET firmware_version = '2' WHERE name = 'A device';
         UPDATE device SET firmware_version = '3' WHERE name = 'A device';
         UPDATE device SET firmware_version = '4' WHERE name = 'A device';
         UPDATE member SET name = 'A';
         UPDATE member SET name = 'B';
         UPDATE media SET filename = filename || 'x';
         UPDATE media SET filename = filename || 'y';
         UPDATE bulkhead.lane SET paused = 'they are to stay as they are' WHERE tenant_id = '{id}';
         INSERT INTO bulkhead.job (id, tenant_id, kind, args, max_attempts, timeout_ms, actor)
             SELECT gen_random_uuid(), '{id}', 'nobody.knows', '{{}}', 8, 60000, 'system:tests'
             FROM generate_series(1, 7)",
        id = tenant.row.id
    );
    sqlx::raw_sql(AssertSqlSafe(rows))
        .execute(&mut tenant.superuser().await)
        .await
        .unwrap();
}

#[test]
fn each_list_is_the_same_both_ways() {
    run(async {
        let (tenant, owner, lists) = furnished().await;
        for list in &lists {
            let whole = list.page(&tenant, &owner, "first: 100").await;
            let all = ids(&whole);
            let what = format!("{} {}", list.field, list.always);
            assert!(all.len() >= 3, "{what}: {whole:#}");
            assert_eq!(whole["pageInfo"]["hasNextPage"], false, "{what}");
            assert_eq!(whole["pageInfo"]["hasPreviousPage"], false, "{what}");
            for forwards in [true, false] {
                let walked = list.walk(&tenant, &owner, forwards, async |_| ()).await;
                assert_eq!(walked, all, "{what}, forwards: {forwards}");
            }
            // Between two places, from either end.
            let cursor = |edge: usize| whole["edges"][edge]["cursor"].to_string();
            let between = format!("after: {}, before: {}", cursor(0), cursor(all.len() - 1));
            let inner = &all[1..all.len() - 1];
            let page = list
                .page(&tenant, &owner, &format!("first: 100, {between}"))
                .await;
            assert_eq!(ids(&page), inner, "{what}");
            assert_eq!(page["pageInfo"]["hasNextPage"], true, "{what}");
            assert_eq!(page["pageInfo"]["hasPreviousPage"], true, "{what}");
            let page = list
                .page(&tenant, &owner, &format!("last: 1, {between}"))
                .await;
            assert_eq!(ids(&page), inner[inner.len() - 1..], "{what}");
        }
    });
}

#[test]
fn what_comes_and_goes_between_pages_moves_nothing() {
    run(async {
        let orders = [
            "",
            "orderBy: { field: CREATED_AT }",
            "orderBy: { field: NAME }",
            "orderBy: { field: NAME, direction: DESC }",
            "orderBy: { field: LAST_SEEN_AT }",
            "orderBy: { field: LAST_SEEN_AT, direction: DESC }",
        ];
        for forwards in [true, false] {
            for always in orders {
                let tenant = Tenant::new().await;
                let owner = tenant.token(BuiltIn::Owner).await;
                fill(&tenant).await;
                let list = List::of_tenant("devices", always);
                let before = ids(&list.page(&tenant, &owner, "first: 100").await);
                assert_eq!(before.len(), 8);
                let mut gone = Vec::new();
                // The row that the next page begins at goes, and rows that sort before, after and like others come.
                let seen = list
                    .walk(&tenant, &owner, forwards, async |seen: &[String]| {
                        gone.push(seen[seen.len() - 1].clone());
                        change(&tenant, &seen[seen.len() - 1]).await;
                    })
                    .await;
                assert!(gone.len() >= 3);
                let stayed: Vec<&String> = seen.iter().filter(|id| before.contains(id)).collect();
                assert_eq!(stayed, before.iter().collect::<Vec<_>>(), "{always}");
                let after = ids(&list.page(&tenant, &owner, "first: 100").await);
                let rest: Vec<&String> = seen.iter().filter(|id| !gone.contains(id)).collect();
                let there: Vec<&String> = after.iter().filter(|id| rest.contains(id)).collect();
                assert_eq!(rest, there, "{always}");
            }
        }
    });
}

/// Deletes the device, and makes three.
async fn change(tenant: &Tenant, device: &str) {
    let (_, row) = bulkhead::graphql::parse_global_id(device).unwrap();
    let sql = format!(
        "DELETE FROM device WHERE id = '{row}';
         INSERT INTO device (id, name, client_id, pin_hash, last_seen_at, created_at, updated_at)
             SELECT CASE n WHEN 1 THEN '00000000-0000-7000-8000-000000000000'::uuid ELSE gen_random_uuid() END,
                 (ARRAY['', 'ant', '￿'])[n], 'N' || n, '',
                 (ARRAY[NULL, timestamptz '2026-01-02Z', timestamptz '2030-01-01Z'])[n], now(), now()
             FROM generate_series(1, 3) n WHERE NOT EXISTS (SELECT FROM device WHERE client_id LIKE 'N%')"
    );
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut tenant.superuser().await)
        .await
        .unwrap();
}

#[test]
fn a_cursor_is_good_for_one_list_in_one_order() {
    run(async {
        let (tenant, owner, lists) = furnished().await;
        let mut cursors = Vec::new();
        for list in &lists {
            let page = list.page(&tenant, &owner, "first: 1").await;
            cursors.push(page["pageInfo"]["endCursor"].to_string());
        }
        let refused = async |list: &List, arguments: &str| {
            let document = list.document(arguments, PAGE);
            let answer = tenant.gql(Some(&owner), &document).await;
            assert_eq!(answer.code(), "BAD_USER_INPUT", "{document}");
            let said = answer.body["errors"][0]["message"].as_str().unwrap();
            (said.to_owned(), answer.body["errors"][0]["path"].clone())
        };
        // Another's: the ones of the trail and of roles, and those of devices in other orders.
        for (at, list) in lists.iter().enumerate() {
            let other = (at + 1..lists.len()).chain(0..at).find(|other| {
                let other = &lists[*other];
                other.field != list.field || list.field == "devices" && at % 2 == 0
            });
            let other = &cursors[other.unwrap()];
            for name in ["after", "before"] {
                let (said, _) = refused(list, &format!("first: 1, {name}: {other}")).await;
                assert!(
                    said.starts_with(&format!("{name} is a cursor of another list")),
                    "{said}"
                );
            }
        }
        for (arguments, wanted) in [
            (r#"first: 1, before: "AAAA""#, "before is not a cursor."),
            (r#"last: 1, after: "nonsense!""#, "after is not a cursor."),
            ("first: 1, last: 1", "Give first or last, not both."),
            ("last: 101", "last must be from 0 to 100, not 101."),
            ("last: -1", "last must be from 0 to 100, not -1."),
            ("first: 101", "first must be from 0 to 100, not 101."),
        ] {
            for list in &lists {
                let (said, path) = refused(list, arguments).await;
                assert_eq!(said, wanted);
                assert_eq!(path[1], "list");
            }
        }
        for list in &lists {
            for none in ["first: 0", "last: 0"] {
                let page = list.page(&tenant, &owner, none).await;
                assert_eq!(page["edges"], json!([]));
            }
        }
    });
}

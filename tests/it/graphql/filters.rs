//! Lists narrowed as they are asked for, and read from their indexes.

use crate::harness::{Tenant, run, until};
use bulkhead::identity::BuiltIn;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

/// What a query of the tenant finds, by a field of each node, in order.
async fn found(tenant: &Tenant, token: &str, list: &str, field: &str) -> Value {
    let query = format!("{{ tenant {{ list: {list} {{ nodes {{ {field} }} }} }} }}");
    let answer = tenant.gql(Some(token), &query).await;
    let nodes = answer.payload()["list"]["nodes"].as_array().unwrap();
    nodes.iter().map(|node| node[field].clone()).collect()
}

/// Four devices, three media and a member.
const ROWS: &str = "INSERT INTO device (id, name, client_id, pin_hash, enabled, provisioned_at, locked_until, last_seen_at, created_at, updated_at) VALUES
        (gen_random_uuid(), 'Gate 50%', 'C1', '', true, now(), NULL, '2026-01-01Z', now(), now()),
        (gen_random_uuid(), 'gate 500', 'C2', '', true, NULL, NULL, NULL, now(), now()),
        (gen_random_uuid(), 'Door_1', 'gate3', '', false, now(), NULL, '2026-01-03Z', now(), now()),
        (gen_random_uuid(), 'Doors1', 'C4', '', true, now(), now() + interval '1 day', '2026-01-02Z', now(), now());
    INSERT INTO media (id, filename, content_type, size, state, resource_type, uploaded_by, created_at, updated_at) VALUES
        (gen_random_uuid(), 'A.png', 'image/png', 1, 'ready', 'photo', 'system:tests', now(), now()),
        (gen_random_uuid(), 'b.jpg', 'image/jpeg', 1, 'failed', 'avatar', 'system:tests', now(), now()),
        (gen_random_uuid(), 'c.pdf', 'application/pdf', 1, 'processing', 'document', 'system:tests', now(), now());
    INSERT INTO member (id, email, name, password_hash, created_at, updated_at)
        VALUES (gen_random_uuid(), 'ada@else.test', 'Countess', '', now(), now());
    INSERT INTO member_role (id, member_id, role_id) SELECT gen_random_uuid(), m.id, r.id
        FROM member m, role r WHERE m.name = 'Countess' AND r.name = 'viewer'";
const ROLES: &str = "{ tenant { roles { nodes { id name } } } }";

/// A tenant that has them, and its owner's token.
async fn stocked() -> (Tenant, String) {
    let tenant = Tenant::new().await;
    let owner = tenant.token(BuiltIn::Owner).await;
    let rows = sqlx::raw_sql(ROWS);
    rows.execute(&mut tenant.superuser().await).await.unwrap();
    (tenant, owner)
}

#[test]
fn devices_are_narrowed_by_name_state_and_when_they_were_seen() {
    run(async {
        let (tenant, owner) = stocked().await;
        for (filter, wanted) in [
            ("", json!(["Door_1", "Doors1", "Gate 50%", "gate 500"])),
            (
                r#"search: "GATE""#,
                json!(["Door_1", "Gate 50%", "gate 500"]),
            ),
            (r#"search: "50%""#, json!(["Gate 50%"])),
            (r#"search: "r_1""#, json!(["Door_1"])),
            (r#"search: "\\""#, json!([])),
            ("states: []", json!([])),
            ("states: [ACTIVE]", json!(["Gate 50%"])),
            ("states: [UNCLAIMED, LOCKED]", json!(["Doors1", "gate 500"])),
            ("states: [DISABLED]", json!(["Door_1"])),
            (
                r#"notSeenSince: "2026-01-02T00:00:00Z""#,
                json!(["Gate 50%", "gate 500"]),
            ),
            (
                r#"search: "gate", states: [ACTIVE, DISABLED]"#,
                json!(["Door_1", "Gate 50%"]),
            ),
        ] {
            let list = format!("devices(filter: {{ {filter} }}, orderBy: {{ field: NAME }})");
            let found = found(&tenant, &owner, &list, "name").await;
            assert_eq!(found, wanted, "{list}");
        }
    });
}

#[test]
fn a_filter_has_its_length() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        for (list, one) in [
            (r#"devices(filter: { search: "$" })"#, "x"),
            ("devices(filter: { states: [$] })", "ACTIVE "),
            ("changes(filter: { actions: [$] })", "UPDATE "),
            (r"changes(filter: { subjectTypes: [$] })", r#""Device" "#),
        ] {
            let ask = |times: usize| {
                let list = list.replace('$', &one.repeat(times));
                format!("{{ tenant {{ {list} {{ edges {{ cursor }} }} }} }}")
            };
            tenant.gql(Some(&owner), &ask(100)).await.data();
            let answer = tenant.gql(Some(&owner), &ask(101)).await;
            assert_eq!(answer.code(), "BAD_USER_INPUT", "{list}");
        }
    });
}

#[test]
fn media_are_narrowed_by_name_type_and_state() {
    run(async {
        let (tenant, owner) = stocked().await;
        for (filter, wanted) in [
            (r#"search: "a.P""#, &["A.png"] as &[&str]),
            (r#"resourceType: "avatar""#, &["b.jpg"]),
            (r#"contentTypePrefix: "Image/""#, &["A.png", "b.jpg"]),
            (r#"contentTypePrefix: "%""#, &[]),
            ("state: READY", &["A.png"]),
            ("state: PROCESSING", &["c.pdf"]),
            ("state: AWAITING_UPLOAD", &[]),
        ] {
            let list = format!("media(last: 9, filter: {{ {filter} }})");
            let found = found(&tenant, &owner, &list, "filename").await;
            let mut found: Vec<_> = found.as_array().unwrap().iter().collect();
            // They were made in one moment: their order is that of ids made at random.
            found.sort_by_key(ToString::to_string);
            assert_eq!(found, wanted, "{list}");
        }
    });
}

#[test]
fn members_jobs_and_changes_are_narrowed_too() {
    run(async {
        let (tenant, owner) = stocked().await;
        let roles = tenant.gql(Some(&owner), ROLES).await;
        let roles = roles.payload()["roles"]["nodes"].as_array().unwrap();
        let viewer = roles.iter().find(|role| role["name"] == "viewer").unwrap();
        let role = format!("members(role: {})", viewer["id"]);
        let ada = json!(["ada@else.test"]);
        let updates = r#"changes(filter: { subjectTypes: ["Device"], actions: [UPDATE] })"#;
        let creations = r#"changes(filter: { subjectTypes: ["Media"], actions: [CREATE] })"#;
        let early = r#"changes(filter: { until: "2020-01-01T00:00:00Z" })"#;
        for (list, field, wanted) in [
            (r#"members(search: "COUNT")"#, "email", ada.clone()),
            (r#"members(search: "else.test")"#, "email", ada.clone()),
            (&role, "email", ada),
            ("jobs(state: FAILED)", "id", json!([])),
            (updates, "subjectType", json!([])),
            (creations, "subjectType", json!(["Media", "Media", "Media"])),
            (r#"changes(filter: { subject: "x" })"#, "id", json!([])),
            (r#"changes(filter: { actor: "x" })"#, "id", json!([])),
            (early, "id", json!([])),
        ] {
            assert_eq!(found(&tenant, &owner, list, field).await, wanted, "{list}");
        }
    });
}

#[test]
fn another_tenants_ids_name_nothing() {
    run(async {
        let (tenant, owner) = stocked().await;
        let other = Tenant::new().await;
        let stranger = other.token(BuiltIn::Owner).await;
        let (theirs, ..) = other.device(&stranger).await;
        let roles = other.gql(Some(&stranger), ROLES).await;
        let role = &roles.payload()["roles"]["nodes"][0]["id"];
        for list in [
            format!("members(role: {role})"),
            format!(r#"changes(filter: {{ subject: "{theirs}" }})"#),
            format!(r#"changes(filter: {{ actor: "{theirs}" }})"#),
        ] {
            let found = found(&tenant, &owner, &list, "id").await;
            assert_eq!(found, json!([]), "{list}");
        }
    });
}

#[test]
fn long_lists_are_read_from_their_indexes() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let (device, ..) = tenant.device(&owner).await;
        let rows = "INSERT INTO device (id, name, client_id, pin_hash, last_seen_at, created_at, updated_at)
                SELECT gen_random_uuid(), 'd' || n, 'C' || n, '', now() - n * interval '1 second', now(), now() FROM generate_series(1, 3000) n;
            INSERT INTO media (id, filename, content_type, size, state, resource_type, uploaded_by, created_at, updated_at)
                SELECT gen_random_uuid(), 'f', 'image/png', 1, CASE WHEN n % 500 = 0 THEN 'failed' ELSE 'ready' END,
                    'r' || n % 500, 'device:' || gen_random_uuid(), now(), now() FROM generate_series(1, 3000) n;
            ANALYZE device, media, history";
        sqlx::raw_sql(rows)
            .execute(&mut tenant.superuser().await)
            .await
            .unwrap();
        let node = |field: &str| {
            format!(
                r#"{{ node(id: "{device}") {{ ... on Device {{ {field} {{ nodes {{ id }} }} }} }} }}"#
            )
        };
        let tenants = |list: &str| format!("{{ tenant {{ {list} {{ nodes {{ id }} }} }} }}");
        let changes = |filter: &str| tenants(&format!("changes(first: 2, filter: {{ {filter} }})"));
        let by_name = tenants("devices(first: 2, orderBy: { field: NAME })");
        let by_sight = tenants("devices(last: 2, orderBy: { field: LAST_SEEN_AT })");
        let of_type = tenants(r#"media(first: 2, filter: { resourceType: "r7" })"#);
        let failed = tenants("media(first: 2, filter: { state: FAILED })");
        let by_device = changes(&format!(r#"actor: "{device}""#));
        let of_roles = changes(r#"subjectTypes: ["Role"]"#);
        for (index, query) in [
            ("device_name_idx", by_name),
            ("device_last_seen_at_idx", by_sight),
            ("media_uploaded_by_idx", node("media(first: 2)")),
            ("media_resource_type_idx", of_type),
            ("media_unready_idx", failed),
            ("history_actor_idx", by_device),
            ("history_subject_type_idx", of_roles),
        ] {
            let scans = format!(
                "SELECT coalesce(sum(idx_scan), 0)::bigint FROM pg_stat_user_indexes
                 WHERE schemaname = '{}' AND indexrelname = '{index}'",
                tenant.row.schema_name
            );
            // How often it was read is told by the connection that did, once in a while.
            until(&format!("{index} is read"), async || {
                tenant.gql(Some(&owner), &query).await.data();
                let scanned: i64 = sqlx::query_scalar(AssertSqlSafe(scans.clone()))
                    .fetch_one(&mut tenant.superuser().await)
                    .await
                    .unwrap();
                (scanned > 0).then_some(())
            })
            .await;
        }
    });
}

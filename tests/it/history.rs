//! The trail: every write of a tenant's row leaves one entry, nobody can write around it, and no secret is in it.

use crate::harness::{Answer, Tenant, execute, refused, run, sqlstate, value};
use bulkhead::graphql::parse_global_id;
use bulkhead::identity::BuiltIn;
use image::{ImageFormat, RgbImage};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor as _};
use std::collections::HashSet;
use std::io::Cursor;
use uuid::Uuid;

const CHANGE: &str = "id action subjectType subjectId requestId reason transactionId snapshot
    fields { name before after }
    actor { __typename ... on Member { email } ... on SystemActor { reason } }
    cause { __typename ... on Member { email } }";

/// The object's row.
fn row(id: &str) -> Uuid {
    parse_global_id(id).unwrap().1
}

/// The changes of a device, newest first.
async fn history(tenant: &Tenant, token: &str, device: &str) -> Vec<Value> {
    let query = format!(
        "query($id: ID!) {{ node(id: $id) {{ ... on Device {{ history {{ nodes {{ {CHANGE} }} }} }} }} }}"
    );
    let answer = tenant
        .gql_with(Some(token), &query, json!({ "id": device }))
        .await;
    let nodes = &answer.data()["node"]["history"]["nodes"];
    nodes.as_array().unwrap().clone()
}

/// Updates a device through the API, saying why.
async fn update(tenant: &Tenant, token: &str, input: Value) -> Answer {
    let query = "mutation($input: DeviceUpdateInput!) { deviceUpdate(input: $input) {
        device { name version updatedAt } errors { code message } } }";
    let body = json!({ "query": query, "variables": { "input": input } });
    let request = tenant
        .request(Method::POST, "/graphql")
        .bearer_auth(token)
        .header("X-Change-Reason", "Größe geändert: ticket 7".as_bytes())
        .json(&body);
    tenant.send(request).await
}

/// One text from the tenant's rows, as its role reads them.
async fn read(tenant: &Tenant, sql: &str) -> String {
    let database = &tenant.world.app.services.database;
    let tx = database.read(&tenant.row).await.unwrap();
    let text = value(&tx, sql).await.unwrap();
    tx.commit().await.unwrap();
    text
}

/// Runs a statement in a unit of work of its own; the number of rows it changed.
async fn write(tenant: &Tenant, sql: &str) -> u64 {
    let tx = tenant.write().await;
    let rows = execute(&tx, sql).await.unwrap();
    tx.commit().await.unwrap();
    rows
}

async fn entries(tenant: &Tenant) -> u32 {
    let count = read(tenant, "SELECT count(*)::text FROM history").await;
    count.parse().unwrap()
}

/// SQL that adds this many devices in one statement.
fn adding(count: u32) -> String {
    format!(
        "INSERT INTO device (id, name, client_id, pin_hash, created_at, updated_at)
         SELECT id, 'Bulk', id::text, 'none', now(), now()
         FROM (SELECT gen_random_uuid() AS id FROM generate_series(1, {count})) new"
    )
}

#[test]
fn a_create_and_an_update_say_who_when_why_and_what() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let (device, client_id, _) = tenant.device(&owner).await;
        let input = json!({ "deviceId": device, "name": "The gate" });
        let answer = update(&tenant, &owner, input).await;
        let updated = &answer.data()["deviceUpdate"]["device"];
        assert_eq!(updated["version"], 2, "{:#}", answer.body);

        let changes = history(&tenant, &owner, &device).await;
        assert_eq!(changes.len(), 2, "{changes:#?}");
        let (update, create) = (&changes[0], &changes[1]);
        let email = format!("owner@{}.test", tenant.slug);
        let actor = json!({ "__typename": "Member", "email": email });
        for change in [update, create] {
            assert_eq!(change["actor"], actor);
            assert_eq!(change["cause"], Value::Null);
            assert_eq!(change["subjectType"], "Device");
            assert_eq!(change["subjectId"], device.as_str());
        }
        assert_eq!(update["action"], "UPDATE");
        assert_eq!(update["reason"], "Größe geändert: ticket 7");
        let id = answer.headers["X-Request-Id"].to_str().unwrap();
        assert_eq!(update["requestId"], id);
        let fields = json!([{ "name": "name", "before": "A device", "after": "The gate" }]);
        assert_eq!(update["fields"], fields);
        assert_eq!(update["snapshot"]["name"], "The gate");
        assert_eq!(update["snapshot"]["version"], 2);

        assert_eq!(create["action"], "CREATE");
        assert_eq!(create["reason"], Value::Null);
        assert_ne!(create["requestId"], update["requestId"]);
        assert_ne!(create["transactionId"], update["transactionId"]);
        let field = json!({ "name": "clientId", "before": null, "after": client_id });
        assert!(create["fields"].as_array().unwrap().contains(&field));
    });
}

#[test]
fn a_delete_keeps_the_last_values_and_takes_what_hangs_on_it() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let (device, client_id, pin) = tenant.device(&owner).await;
        tenant.device_auth(&client_id, &pin).await;
        let sql = format!("DELETE FROM device WHERE id = '{}'", row(&device));
        assert_eq!(write(&tenant, &sql).await, 1);

        let query = format!("{{ tenant {{ changes(first: 2) {{ nodes {{ {CHANGE} }} }} }} }}");
        let answer = tenant.gql(Some(&owner), &query).await;
        let nodes = answer.data()["tenant"]["changes"]["nodes"].clone();
        let nodes = nodes.as_array().unwrap();
        let of = |kind: &str| {
            let found = nodes.iter().find(|node| node["subjectType"] == kind);
            found.unwrap_or_else(|| panic!("no {kind} in {nodes:#?}"))
        };
        let (device_gone, token_gone) = (of("Device"), of("DeviceToken"));
        for gone in [device_gone, token_gone] {
            assert_eq!(gone["action"], "DELETE");
            let actor = json!({ "__typename": "SystemActor", "reason": "tests" });
            assert_eq!(gone["actor"], actor);
        }
        assert_eq!(device_gone["transactionId"], token_gone["transactionId"]);
        assert_eq!(device_gone["subjectId"], device.as_str());
        let field = json!({ "name": "clientId", "before": client_id, "after": null });
        assert!(device_gone["fields"].as_array().unwrap().contains(&field));
        let node = "query($id: ID!) { node(id: $id) { id } }";
        let answer = tenant
            .gql_with(Some(&owner), node, json!({ "id": device }))
            .await;
        assert_eq!(answer.data()["node"], Value::Null);
    });
}

#[test]
fn what_changes_nothing_is_no_change() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let (device, ..) = tenant.device(&owner).await;
        let before = entries(&tenant).await;
        let input = json!({ "deviceId": device, "name": "A device", "enabled": true });
        let answer = update(&tenant, &owner, input).await;
        assert_eq!(answer.data()["deviceUpdate"]["device"]["version"], 1);
        for sql in [
            "UPDATE device SET name = name",
            "UPDATE device SET last_seen_at = now()",
            "UPDATE device SET name = 'X' WHERE false",
            "DELETE FROM device WHERE false",
            "INSERT INTO device SELECT * FROM device WHERE false",
        ] {
            write(&tenant, sql).await;
        }
        assert_eq!(entries(&tenant).await, before);
        let state = "SELECT concat_ws(' ', version, updated_at = created_at,
            last_seen_at IS NOT NULL) FROM device";
        assert_eq!(read(&tenant, state).await, "1 t t");
    });
}

#[test]
fn the_database_itself_bumps_version_and_time() {
    run(async {
        let tenant = Tenant::new().await;
        write(&tenant, &adding(1)).await;
        let state = "SELECT concat_ws(' ', version, updated_at > created_at) FROM device";
        assert_eq!(read(&tenant, state).await, "1 f");
        write(&tenant, "UPDATE device SET name = 'By SQL'").await;
        assert_eq!(read(&tenant, state).await, "2 t");
        // Who writes a version of their own is not believed.
        let forged = "UPDATE device SET name = 'Forged', version = 99, updated_at = '2000-01-01'";
        write(&tenant, forged).await;
        assert_eq!(read(&tenant, state).await, "3 t");
    });
}

#[test]
fn a_statement_over_many_rows_is_an_entry_for_each() {
    run(async {
        let tenant = Tenant::new().await;
        write(&tenant, &adding(1000)).await;
        let sql = "SELECT concat_ws(' ', count(*), count(DISTINCT subject_id), count(DISTINCT id),
                count(DISTINCT transaction_id), min(before::text), min(changed::text))
            FROM history WHERE subject_type = 'device' AND action = ";
        let created = read(&tenant, &format!("{sql} 'create'")).await;
        assert_eq!(created, "1000 1000 1000 1 {} {}");
        assert_eq!(write(&tenant, "UPDATE device SET name = 'New'").await, 1000);
        let updated = read(&tenant, &format!("{sql} 'update'")).await;
        assert_eq!(updated, r#"1000 1000 1000 1 {"name": "Bulk"} {name}"#);
        // Of many rows, only those that changed.
        let some = "UPDATE device SET enabled = name IS NULL OR client_id < '8'";
        let changed = write(&tenant, some).await;
        assert_eq!(changed, 1000);
        let wrong = "SELECT count(*)::text FROM device d WHERE (NOT d.enabled) IS DISTINCT FROM
            EXISTS (SELECT FROM history h WHERE h.subject_id = d.id AND h.changed = '{enabled}')";
        assert_eq!(read(&tenant, wrong).await, "0");
    });
}

#[test]
fn a_write_without_an_actor_is_refused() {
    run(async {
        let tenant = Tenant::new().await;
        write(&tenant, &adding(1)).await;
        let mut cell = tenant.world.cell().await;
        for actor in ["", "; SET LOCAL bulkhead.actor = ''"] {
            for sql in [
                adding(1),
                "UPDATE device SET name = 'Nobody'".to_owned(),
                "DELETE FROM device".to_owned(),
            ] {
                let bind = format!(
                    "BEGIN; SET LOCAL ROLE {}; SET LOCAL search_path TO {}{actor}",
                    tenant.row.role_name, tenant.row.schema_name
                );
                cell.execute(sqlx::raw_sql(AssertSqlSafe(bind)))
                    .await
                    .unwrap();
                let statement = sqlx::query(AssertSqlSafe(sql.clone()));
                let error = cell.execute(statement).await.unwrap_err();
                let code = error.as_database_error().unwrap().code().unwrap();
                assert_eq!(code, "BH001", "{sql}: {error}");
                cell.execute("ROLLBACK").await.unwrap();
            }
        }
        assert_eq!(
            read(&tenant, "SELECT string_agg(name, ' ') FROM device").await,
            "Bulk"
        );
    });
}

#[test]
fn an_id_never_changes() {
    run(async {
        let tenant = Tenant::new().await;
        write(&tenant, &adding(2)).await;
        let before = entries(&tenant).await;
        // Entries are by id: with another, the row would leave its past behind.
        for sql in [
            "UPDATE device SET id = gen_random_uuid()",
            "UPDATE device SET id = gen_random_uuid(), name = 'New'
                WHERE id = (SELECT id FROM device LIMIT 1)",
            "UPDATE role SET id = gen_random_uuid() WHERE name = 'viewer'",
        ] {
            let tx = tenant.write().await;
            let error = execute(&tx, sql).await.unwrap_err();
            assert_eq!(sqlstate(&error), "BH002", "{sql}: {error}");
            tx.rollback().await.unwrap();
        }
        assert_eq!(entries(&tenant).await, before);
    });
}

#[test]
fn no_secret_is_in_the_trail() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let (_, client_id, pin) = tenant.device(&owner).await;
        let auth = tenant.device_auth(&client_id, &pin).await;
        let token = auth.body["access_token"].as_str().unwrap().to_owned();
        write(&tenant, "UPDATE device SET pin_hash = '$argon2id$new'").await;
        write(&tenant, "UPDATE member SET password_hash = '$argon2id$new'").await;
        write(&tenant, "UPDATE session SET revoked_at = now()").await;
        write(&tenant, "DELETE FROM device_token").await;

        let trail = "SELECT string_agg(h::text, E'\\n') FROM history h";
        let trail = read(&tenant, trail).await;
        for kind in ["member", "session", "device", "device_token"] {
            assert!(trail.contains(&format!(",{kind},")), "{kind} in {trail}");
        }
        let hashes = "SELECT concat_ws(' ', (SELECT string_agg(token_hash, ' ') FROM session),
            (SELECT string_agg(split_part(pin_hash, '$', 6), ' ') FROM device))";
        let hashes = read(&tenant, hashes).await;
        let hash = bulkhead::secret::token_hash(&token);
        let secrets = hashes
            .split(' ')
            .chain(["$argon2", &pin, &token, &owner, &hash]);
        for secret in secrets.filter(|secret| !secret.is_empty()) {
            assert!(!trail.contains(secret), "{secret} is in {trail}");
        }
        assert!(
            !trail.contains("_hash\\\"\":"),
            "a secret's key is in {trail}"
        );
    });
}

#[test]
fn a_changed_secret_is_told_by_its_name() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let (device, ..) = tenant.device(&owner).await;
        write(
            &tenant,
            "UPDATE device SET pin_hash = 'another', name = 'New'",
        )
        .await;
        let changes = history(&tenant, &owner, &device).await;
        let fields = json!([
            { "name": "name", "before": "A device", "after": "New" },
            { "name": "pinHash", "before": "********", "after": "********" },
        ]);
        assert_eq!(changes[0]["fields"], fields);
        assert_eq!(changes[0]["snapshot"]["pinHash"], Value::Null);
        assert_eq!(changes[0]["snapshot"]["version"], 2);

        write(&tenant, "UPDATE device SET pin_hash = 'a third'").await;
        let changes = history(&tenant, &owner, &device).await;
        let fields = json!([{ "name": "pinHash", "before": "********", "after": "********" }]);
        assert_eq!(changes[0]["fields"], fields, "alone, too");
        let text = serde_json::to_string(&changes).unwrap();
        assert!(!text.contains("another") && !text.contains("a third"));
    });
}

#[test]
fn a_tenant_reads_its_history_and_nothing_else() {
    run(async {
        let tenant = Tenant::new().await;
        let before = entries(&tenant).await;
        refused(
            &tenant,
            &[
                "INSERT INTO history SELECT * FROM history",
                "UPDATE history SET actor = 'nobody'",
                "DELETE FROM history",
                "TRUNCATE history",
                "SELECT * FROM history FOR UPDATE",
                "LOCK TABLE history IN EXCLUSIVE MODE",
                "ALTER TABLE history ADD COLUMN more text",
                "DROP TABLE history",
                "CREATE RULE mine AS ON INSERT TO device DO INSTEAD NOTHING",
                "ALTER TABLE device DISABLE TRIGGER ALL",
                "ALTER TABLE device DISABLE TRIGGER device_history_update",
                "DROP TRIGGER device_history_update ON device",
                "CREATE TRIGGER mine BEFORE UPDATE ON device EXECUTE FUNCTION touch('')",
                "TRUNCATE device",
                "TRUNCATE device, device_token",
                "DROP TABLE device CASCADE",
                "ALTER FUNCTION record_history() SET search_path = public",
                "DROP FUNCTION record_history() CASCADE",
                "SET session_replication_role = replica",
                "SET LOCAL session_replication_role = replica",
            ],
        )
        .await;
        assert_eq!(entries(&tenant).await, before);
    });
}

#[test]
fn a_jobs_change_says_who_caused_it() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let mut png = Cursor::new(Vec::new());
        RgbImage::new(2, 2)
            .write_to(&mut png, ImageFormat::Png)
            .unwrap();
        let bytes = png.into_inner();
        let create =
            "mutation($input: MediaCreateUploadInput!) { mediaCreateUpload(input: $input) {
            media { id } upload { url } errors { message } } }";
        let input = json!({ "resourceType": "photo", "filename": "a.png", "contentType": "image/png", "size": bytes.len() });
        let answer = tenant
            .gql_with(Some(&owner), create, json!({ "input": input }))
            .await;
        let made = &answer.data()["mediaCreateUpload"];
        let put = tenant
            .follow(Method::PUT, made["upload"]["url"].as_str().unwrap())
            .body(bytes);
        assert!(tenant.send(put).await.status.is_success());
        let media = made["media"]["id"].as_str().unwrap();
        let complete = "mutation($id: ID!) { mediaCompleteUpload(input: { mediaId: $id }) { job { id } errors { message } } }";
        let completed = tenant
            .gql_with(Some(&owner), complete, json!({ "id": media }))
            .await;
        completed.data();
        let ready = tenant.processed(&owner, media).await;
        assert_eq!(ready["state"], "READY", "{ready:#}");

        let query = format!(
            "query($id: ID!) {{ node(id: $id) {{ ... on Media {{ history {{ nodes {{ {CHANGE} }} }} }} }} }}"
        );
        let answer = tenant
            .gql_with(Some(&owner), &query, json!({ "id": media }))
            .await;
        let last = &answer.data()["node"]["history"]["nodes"][0];
        let email = format!("owner@{}.test", tenant.slug);
        let cause = json!({ "__typename": "Member", "email": email });
        assert_eq!(last["cause"], cause, "{last:#}");
        assert_eq!(last["actor"]["__typename"], "SystemActor");
        let id = completed.headers["X-Request-Id"].to_str().unwrap();
        assert_eq!(last["requestId"], id, "the job carries its request on");
    });
}

/// The ids of all pages of a list of changes.
async fn walk(tenant: &Tenant, token: &str, first: u32) -> Vec<String> {
    let query =
        "query($first: Int!, $after: String) { tenant { changes(first: $first, after: $after) {
        nodes { id } pageInfo { hasNextPage endCursor } } } }";
    let (mut ids, mut after) = (Vec::new(), Value::Null);
    loop {
        let variables = json!({ "first": first, "after": after });
        let answer = tenant.gql_with(Some(token), query, variables).await;
        let page = &answer.data()["tenant"]["changes"];
        let nodes = page["nodes"].as_array().unwrap();
        assert!(nodes.len() <= first as usize);
        ids.extend(nodes.iter().map(|n| n["id"].as_str().unwrap().to_owned()));
        if page["pageInfo"]["hasNextPage"] == false {
            return ids;
        }
        assert_eq!(nodes.len(), first as usize, "a page with others after it");
        after = page["pageInfo"]["endCursor"].clone();
    }
}

#[test]
fn pages_have_no_gaps_and_no_doubles() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let tx = tenant.write().await;
        for _ in 0..3 {
            execute(&tx, &adding(11)).await.unwrap();
        }
        let rename = "UPDATE device SET name = 'New'";
        assert_eq!(execute(&tx, rename).await.unwrap(), 33);
        tx.commit().await.unwrap();
        write(&tenant, "DELETE FROM device WHERE client_id < '8'").await;
        let order =
            "SELECT string_agg(id::text, ' ' ORDER BY recorded_at DESC, id DESC) FROM history";
        let order = read(&tenant, order).await;
        let expected: Vec<Uuid> = order.split(' ').map(|id| id.parse().unwrap()).collect();
        assert!(expected.len() > 66);
        for first in [1, 7, 100] {
            let ids = walk(&tenant, &owner, first).await;
            let distinct: HashSet<_> = ids.iter().collect();
            assert_eq!(distinct.len(), ids.len(), "doubles in pages of {first}");
            let rows: Vec<_> = ids.iter().map(|id| row(id)).collect();
            assert_eq!(rows, expected, "in pages of {first}");
        }
    });
}

#[test]
fn an_objects_history_is_its_own_and_for_those_who_may() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let (one, client_id, pin) = tenant.device(&owner).await;
        let (two, ..) = tenant.device(&owner).await;
        tenant.device_auth(&client_id, &pin).await;
        update(&tenant, &owner, json!({ "deviceId": two, "name": "Two" })).await;
        let actions = |changes: Vec<Value>, id: &str| -> Vec<Value> {
            for change in &changes {
                assert_eq!(change["subjectId"], id);
            }
            changes.into_iter().map(|c| c["action"].clone()).collect()
        };
        let of_one = history(&tenant, &owner, &one).await;
        assert_eq!(of_one[0]["actor"]["__typename"], "Device");
        assert_eq!(actions(of_one, &one), ["UPDATE", "CREATE"]);
        let of_two = history(&tenant, &owner, &two).await;
        assert_eq!(actions(of_two, &two), ["UPDATE", "CREATE"]);

        let viewer = tenant.token(BuiltIn::Viewer).await;
        for query in [
            "query($id: ID!) { node(id: $id) { ... on Device { name history { nodes { id } } } } }",
            "query($id: ID!) { tenant { changes { nodes { id } } } node(id: $id) { id } }",
        ] {
            let answer = tenant
                .gql_with(Some(&viewer), query, json!({ "id": one }))
                .await;
            assert_eq!(answer.code(), "FORBIDDEN", "{:#}", answer.body);
        }
    });
}

#[test]
fn every_table_is_under_the_history_and_there_are_few() {
    run(async {
        let tenant = Tenant::new().await;
        let mut owner = tenant.world.owner().await;
        let schema = &tenant.row.schema_name;
        // Bits of tgtype: 4 insert, 8 delete, 16 update; 1 a row, 2 before. 'O': fires in every ordinary session.
        let without: Vec<String> = sqlx::query_scalar(
            "SELECT c.relname::text || ' ' || event FROM pg_class c, unnest(ARRAY[4, 8, 16]) event
             WHERE c.relnamespace = $1::regnamespace AND c.relkind IN ('r', 'p') AND c.relname <> 'history'
                 AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgtype = event
                     AND t.tgenabled = 'O' AND t.tgqual IS NULL AND t.tgattr = ''
                     AND t.tgfoid = ($1 || '.record_history')::regproc)",
        )
        .bind(schema)
        .fetch_all(&mut owner)
        .await
        .unwrap();
        assert!(without.is_empty(), "not recorded: {without:?}");
        let (tables, indexes): (i64, i64) = sqlx::query_as(
            "SELECT count(*) FILTER (WHERE relkind IN ('r', 'p')), count(*) FILTER (WHERE relkind = 'i')
             FROM pg_class WHERE relnamespace = $1::regnamespace",
        )
        .bind(schema)
        .fetch_one(&mut owner)
        .await
        .unwrap();
        assert!(tables <= 16, "{tables} tables");
        assert!(indexes <= 40, "{indexes} indexes");
    });
}

//! The past: one object, a list and what it leads to as of a moment, and what is different between two.

use super::{adding, read, row, update, write};
use crate::harness::{Tenant, execute, run, value};
use bulkhead::history::{as_of, version};
use bulkhead::identity::BuiltIn;
use entity::tenant::device;
use sea_orm::{EntityTrait as _, QueryOrder as _, QuerySelect as _};
use serde_json::{Value, json};

/// The database's time, as the API writes it.
async fn now(tenant: &Tenant) -> String {
    let text =
        "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
    read(tenant, text).await
}

async fn ask(tenant: &Tenant, token: &str, query: &str, variables: Value) -> Value {
    let answer = tenant.gql_with(Some(token), query, variables).await;
    answer.data().clone()
}

#[test]
fn an_object_is_what_it_was_at_each_moment() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let before = now(&tenant).await;
        let (device, ..) = tenant.device(&owner).await;
        let made = now(&tenant).await;
        update(
            &tenant,
            &owner,
            json!({ "deviceId": device, "name": "Two" }),
        )
        .await;
        let renamed = now(&tenant).await;
        let sql = format!("DELETE FROM device WHERE id = '{}'", row(&device));
        write(&tenant, &sql).await;
        let gone = now(&tenant).await;

        let query = "query($id: ID!, $at: DateTime!) { asOf(id: $id, at: $at) {
            subjectType subjectId at values subject { id } change { action } } }";
        let at = async |at: &str| {
            let variables = json!({ "id": device, "at": at });
            ask(&tenant, &owner, query, variables).await["asOf"].clone()
        };
        assert_eq!(at(&before).await, Value::Null);
        assert_eq!(at(&gone).await, Value::Null);
        let (one, two) = (at(&made).await, at(&renamed).await);
        assert_eq!(one["values"]["name"], "A device");
        assert_eq!(one["values"]["pinHash"], Value::Null);
        assert_eq!(one["at"], made);
        assert_eq!(one["subjectType"], "Device");
        assert_eq!(one["subjectId"], device);
        assert_eq!(one["subject"], Value::Null, "it is gone by now");
        assert_eq!(one["change"]["action"], "CREATE");
        assert_eq!(two["values"]["name"], "Two");
        assert_eq!(two["values"]["version"], 2);
        let other = ask(&tenant, &owner, query, json!({ "id": "eA", "at": made })).await;
        assert_eq!(other["asOf"], Value::Null);

        let query = "query($id: ID!, $from: DateTime!, $until: DateTime) {
            diff(id: $id, from: $from, until: $until) { name before after } }";
        let diff = async |from: &str, until: Value| {
            let variables = json!({ "id": device, "from": from, "until": until });
            ask(&tenant, &owner, query, variables).await["diff"].clone()
        };
        let changed = diff(&made, json!(renamed)).await;
        let names: Vec<_> = changed.as_array().unwrap().iter().collect();
        assert_eq!(names.len(), 3, "name, updatedAt and version: {names:#?}");
        let field = json!({ "name": "name", "before": "A device", "after": "Two" });
        assert!(names.contains(&&field));
        assert_eq!(diff(&made, json!(made)).await, json!([]));
        assert_eq!(diff(&before, json!(before)).await, Value::Null);
        let removed = diff(&renamed, Value::Null).await;
        let field = json!({ "name": "name", "before": "Two", "after": null });
        assert!(removed.as_array().unwrap().contains(&field));
        let backwards = json!({ "id": device, "from": renamed, "until": made });
        let answer = tenant.gql_with(Some(&owner), query, backwards).await;
        assert_eq!(answer.code(), "BAD_USER_INPUT");
    });
}

const DEVICES: &str =
    "query($at: DateTime, $first: Int, $after: String, $filter: DeviceFilter, $by: DeviceOrder) {
    tenant { devices(asOf: $at, first: $first, after: $after, filter: $filter, orderBy: $by) {
        totalCount pageInfo { hasNextPage endCursor } nodes { id name state version } } } }";

fn names(data: &Value) -> Vec<&str> {
    let nodes = data["tenant"]["devices"]["nodes"].as_array().unwrap();
    nodes.iter().map(|n| n["name"].as_str().unwrap()).collect()
}

#[test]
fn a_list_is_what_it_was() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let mut ids = Vec::new();
        for name in ["b", "a", "c"] {
            let (id, ..) = tenant.device(&owner).await;
            update(&tenant, &owner, json!({ "deviceId": id, "name": name })).await;
            ids.push(id);
        }
        let then = now(&tenant).await;
        let off = json!({ "deviceId": ids[0], "name": "z", "enabled": false });
        update(&tenant, &owner, off).await;
        let sql = format!("DELETE FROM device WHERE id = '{}'", row(&ids[1]));
        write(&tenant, &sql).await;
        tenant.device(&owner).await;

        let all = ask(&tenant, &owner, DEVICES, json!({ "at": then })).await;
        assert_eq!(names(&all), ["c", "a", "b"], "newest first");
        assert_eq!(all["tenant"]["devices"]["totalCount"], 3);
        let now_there = ask(&tenant, &owner, DEVICES, json!({})).await;
        assert_eq!(names(&now_there), ["A device", "c", "z"]);

        let by = json!({ "field": "NAME" });
        let first = json!({ "at": then, "first": 2, "by": by });
        let first = ask(&tenant, &owner, DEVICES, first).await;
        assert_eq!(names(&first), ["a", "b"]);
        let page = &first["tenant"]["devices"]["pageInfo"];
        assert_eq!(page["hasNextPage"], true);
        let rest = json!({ "at": then, "first": 2, "by": by, "after": page["endCursor"] });
        assert_eq!(names(&ask(&tenant, &owner, DEVICES, rest).await), ["c"]);

        let filter = json!({ "at": then, "filter": { "search": "B", "states": ["UNCLAIMED"] } });
        assert_eq!(names(&ask(&tenant, &owner, DEVICES, filter).await), ["b"]);
        let none = json!({ "at": then, "filter": { "states": ["DISABLED"] } });
        assert!(names(&ask(&tenant, &owner, DEVICES, none).await).is_empty());

        let viewer = tenant.token(BuiltIn::Viewer).await;
        let answer = tenant
            .gql_with(Some(&viewer), DEVICES, json!({ "at": then }))
            .await;
        assert_eq!(answer.code(), "FORBIDDEN", "the past is the trail's");
    });
}

#[test]
fn what_a_list_leads_to_is_of_the_same_moment() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        tenant.member(BuiltIn::Viewer).await;
        let (_, client_id, pin) = tenant.device(&owner).await;
        let auth = tenant.device_auth(&client_id, &pin).await;
        let token = auth.body["access_token"].as_str().unwrap().to_owned();
        tenant.upload(&token).await;
        let then = now(&tenant).await;
        write(&tenant, "UPDATE media SET filename = 'later.png'").await;
        tenant.upload(&token).await;
        write(&tenant, "UPDATE device_token SET revoked_at = now()").await;
        write(
            &tenant,
            "DELETE FROM member_role WHERE member_id = (SELECT id FROM member WHERE email LIKE 'viewer%')",
        )
        .await;
        write(
            &tenant,
            "UPDATE role SET name = 'boss' WHERE name = 'owner'",
        )
        .await;

        let query = "query($at: DateTime) { tenant {
            devices(asOf: $at, first: 5) { nodes { tokenExpiresAt
                media(first: 5) { totalCount nodes { filename uploadedBy { ... on Device { name } } history(first: 5) { nodes { action } } } } } }
            members(asOf: $at, first: 5) { nodes { email roles { name } } }
            media(asOf: $at, first: 5) { nodes { filename } }
            roles(asOf: $at, first: 5) { nodes { name history(first: 5) { nodes { action } } } } } }";
        let past = ask(&tenant, &owner, query, json!({ "at": then })).await["tenant"].clone();
        let device = &past["devices"]["nodes"][0];
        assert!(device["tokenExpiresAt"].is_string(), "not revoked yet");
        assert_eq!(device["media"]["totalCount"], 1);
        let media = &device["media"]["nodes"][0];
        assert_eq!(media["filename"], "gate.png");
        assert_eq!(media["uploadedBy"]["name"], "A device");
        let history = json!([{ "action": "LINK_ISSUED" }, { "action": "CREATE" }]);
        assert_eq!(media["history"]["nodes"], history);
        assert_eq!(past["media"]["nodes"], json!([{ "filename": "gate.png" }]));
        let roles = |data: &Value| -> Vec<Value> {
            let members = data["members"]["nodes"].as_array().unwrap();
            members.iter().map(|m| m["roles"].clone()).collect()
        };
        let [viewer, boss] = ["viewer", "owner"].map(|name| json!([{ "name": name }]));
        assert_eq!(roles(&past), [viewer, boss]);
        let text = past["roles"]["nodes"].to_string();
        assert!(text.contains("owner") && !text.contains("boss"), "{text}");

        let present = ask(&tenant, &owner, query, json!({})).await["tenant"].clone();
        let device = &present["devices"]["nodes"][0];
        assert_eq!(device["tokenExpiresAt"], Value::Null);
        assert_eq!(device["media"]["totalCount"], 2);
        assert_eq!(roles(&present), [json!([]), json!([{ "name": "boss" }])]);
    });
}

#[test]
fn the_past_is_found_by_index() {
    run(async {
        let tenant = Tenant::new().await;
        let tx = tenant.write().await;
        execute(&tx, &adding(2000)).await.unwrap();
        for round in 0..9 {
            let rename = format!("UPDATE device SET name = 'round {round}'");
            execute(&tx, &rename).await.unwrap();
        }
        tx.commit().await.unwrap();
        let then = now(&tenant).await.parse().unwrap();
        write(&tenant, "UPDATE device SET name = 'last'").await;
        tenant.sql("ANALYZE history").await;

        let database = &tenant.world.app.services.database;
        let tx = database.read(&tenant.row).await.unwrap();
        let list = as_of(device::Entity::find(), Some(then));
        let page = list.order_by_desc(device::Column::Id).limit(21);
        let page = page.all(&tx).await.unwrap();
        assert_eq!(page.len(), 21);
        assert!(page.iter().all(|device| device.name == "round 8"));
        let version = version(&tx, page[0].id, then).await.unwrap();
        assert_eq!(version.unwrap().row["name"], "round 8");
        let read = "SELECT (seq_tup_read + idx_tup_fetch)::text FROM pg_stat_xact_user_tables
            WHERE relid = 'history'::regclass";
        let read: u32 = value(&tx, read).await.unwrap().parse().unwrap();
        tx.commit().await.unwrap();
        assert!(
            read < 200,
            "{read} rows were read of 22,000, for a page of 21"
        );
    });
}

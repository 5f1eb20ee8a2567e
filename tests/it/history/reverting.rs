//! Taking back: one change or a whole transaction, undelete included; what is in the way, and who may.

use super::{entries, history, read, row, update, write};
use crate::harness::{Answer, Tenant, execute, run};
use bulkhead::identity::BuiltIn;
use reqwest::Method;
use serde_json::{Value, json};

const REVERT: &str = "mutation($input: ChangeRevertInput!) { changeRevert(input: $input) {
    change { id action reason reverts { id } fields { name before after } }
    subject { id }
    fields { name before after }
    revertedCount reverted { subjectType subjectId action fields { name before after } }
    errors { code message ... on ConflictError { currentVersion } } } }";

async fn revert(tenant: &Tenant, token: &str, input: Value) -> Answer {
    let body = json!({ "query": REVERT, "variables": { "input": input } });
    let request = tenant
        .request(Method::POST, "/graphql")
        .bearer_auth(token)
        .header("X-Change-Reason", "a mistake")
        .json(&body);
    tenant.send(request).await
}

/// The code of the only expected failure, and what it says.
fn failure(answer: &Answer) -> (String, String) {
    let failure = answer.failure();
    let text = |name: &str| failure[name].as_str().unwrap().to_owned();
    (text("code"), text("message"))
}

#[test]
fn a_change_is_taken_back_and_so_is_that() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let (device, ..) = tenant.device(&owner).await;
        update(
            &tenant,
            &owner,
            json!({ "deviceId": device, "name": "Wrong", "enabled": false }),
        )
        .await;
        let wrong = history(&tenant, &owner, &device).await[0]["id"].clone();

        let before = entries(&tenant).await;
        let dry = revert(
            &tenant,
            &owner,
            json!({ "changeId": wrong, "dryRun": true }),
        )
        .await;
        let dry = dry.payload().clone();
        let fields = json!([
            { "name": "enabled", "before": false, "after": true },
            { "name": "name", "before": "Wrong", "after": "A device" },
        ]);
        assert_eq!(dry["fields"], fields);
        assert_eq!(dry["change"], Value::Null);
        assert_eq!(dry["subject"]["id"], device);
        assert_eq!(entries(&tenant).await, before, "nothing was written");

        let done = revert(&tenant, &owner, json!({ "changeId": wrong })).await;
        let done = done.payload().clone();
        assert_eq!(done["errors"], json!([]));
        assert_eq!(done["fields"], fields);
        let change = &done["change"];
        assert_eq!(change["action"], "REVERT");
        assert_eq!(change["reason"], "a mistake");
        assert_eq!(change["reverts"]["id"], wrong);
        assert_eq!(entries(&tenant).await, before + 1);
        let state = "SELECT concat_ws(' ', name, enabled, version) FROM device";
        assert_eq!(read(&tenant, state).await, "A device t 3");

        let again = revert(&tenant, &owner, json!({ "changeId": change["id"] })).await;
        assert_eq!(again.payload()["errors"], json!([]));
        assert_eq!(read(&tenant, state).await, "Wrong f 4");

        let query = "query($actions: [ChangeAction!]) { tenant { changes(filter: { actions: $actions }) { nodes { action } } } }";
        for (action, count) in [("REVERT", 2), ("UPDATE", 1)] {
            let variables = json!({ "actions": [action] });
            let answer = tenant.gql_with(Some(&owner), query, variables).await;
            let nodes = answer.data()["tenant"]["changes"]["nodes"].clone();
            assert_eq!(nodes.as_array().unwrap().len(), count, "{nodes:#}");
        }
    });
}

#[test]
fn what_was_removed_comes_back_with_its_history() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let (device, client_id, pin) = tenant.device(&owner).await;
        tenant.device_auth(&client_id, &pin).await;
        let sql = format!("DELETE FROM device WHERE id = '{}'", row(&device));
        write(&tenant, &sql).await;
        let filter = "{ tenant { changes(filter: { actions: [DELETE], subjectTypes: [\"Device\"] }) { nodes { id } } } }";
        let answer = tenant.gql(Some(&owner), filter).await;
        let gone = answer.data()["tenant"]["changes"]["nodes"][0]["id"].clone();

        let done = revert(&tenant, &owner, json!({ "changeId": gone })).await;
        assert_eq!(done.payload()["errors"], json!([]));
        assert_eq!(done.payload()["subject"]["id"], device);
        assert_eq!(done.payload()["reverted"][0]["action"], "CREATE");
        let changes = history(&tenant, &owner, &device).await;
        let actions: Vec<_> = changes.iter().map(|c| c["action"].clone()).collect();
        assert_eq!(actions, ["REVERT", "DELETE", "SIGN_IN", "UPDATE", "CREATE"]);
        assert_eq!(changes[0]["snapshot"]["version"], 3, "it goes on");
        // Without its secret, which nobody kept: no PIN opens it.
        assert_eq!(read(&tenant, "SELECT pin_hash FROM device").await, "");
        let auth = tenant.device_auth(&client_id, &pin).await;
        assert_eq!(auth.status, 401);
        // And in the past it is there once.
        let then = "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
        let query =
            "query($at: DateTime) { tenant { devices(asOf: $at) { totalCount nodes { id } } } }";
        let variables = json!({ "at": read(&tenant, then).await });
        let answer = tenant.gql_with(Some(&owner), query, variables).await;
        assert_eq!(
            answer.data()["tenant"]["devices"],
            json!({ "totalCount": 1, "nodes": [{ "id": device }] })
        );

        let twice = revert(&tenant, &owner, json!({ "changeId": gone })).await;
        assert_eq!(failure(&twice).0, "VERSION_CONFLICT");
        assert!(
            failure(&twice).1.contains("there again"),
            "{:?}",
            failure(&twice)
        );
    });
}

#[test]
fn what_was_made_is_removed() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let (device, ..) = tenant.device(&owner).await;
        let made = history(&tenant, &owner, &device).await[0]["id"].clone();
        update(
            &tenant,
            &owner,
            json!({ "deviceId": device, "name": "Used" }),
        )
        .await;
        let used = history(&tenant, &owner, &device).await[0]["id"].clone();
        let refused = revert(&tenant, &owner, json!({ "changeId": made })).await;
        assert_eq!(refused.failure()["code"], "VERSION_CONFLICT");
        assert_eq!(refused.failure()["currentVersion"], 2);
        // Once the newer one is taken back, it is still a newer version: nothing is lost unseen.
        revert(&tenant, &owner, json!({ "changeId": used })).await;
        let (other, ..) = tenant.device(&owner).await;
        let made = history(&tenant, &owner, &other).await[0]["id"].clone();
        let done = revert(&tenant, &owner, json!({ "changeId": made })).await;
        assert_eq!(done.payload()["errors"], json!([]));
        assert_eq!(done.payload()["subject"], Value::Null);
        assert_eq!(done.payload()["reverted"][0]["action"], "DELETE");
        assert_eq!(
            read(&tenant, "SELECT count(*)::text FROM device").await,
            "1"
        );
    });
}

#[test]
fn a_whole_transaction_is_taken_back_in_its_order() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        tenant.member(BuiltIn::Viewer).await;
        let (device, ..) = tenant.device(&owner).await;
        let tx = tenant.write().await;
        for sql in [
            "UPDATE device SET name = 'one'",
            "UPDATE device SET name = 'two', firmware_version = '9'",
            "DELETE FROM member WHERE email LIKE 'viewer@%'",
        ] {
            execute(&tx, sql).await.unwrap();
        }
        tx.commit().await.unwrap();
        let state =
            "SELECT concat_ws(' ', (SELECT concat_ws(' ', name, firmware_version) FROM device),
            (SELECT count(*) FROM member), (SELECT count(*) FROM member_role))";
        assert_eq!(read(&tenant, state).await, "two 9 1 1");
        let last = history(&tenant, &owner, &device).await[0]["id"].clone();
        let input = json!({ "changeId": last, "wholeTransaction": true, "dryRun": true });
        let dry = revert(&tenant, &owner, input).await;
        let dry = dry.payload()["reverted"].clone();
        let kinds: Vec<_> = dry
            .as_array()
            .unwrap()
            .iter()
            .map(|r| r["subjectType"].clone())
            .collect();
        assert_eq!(kinds, ["Member", "MemberRole", "Device", "Device"]);
        assert_eq!(read(&tenant, state).await, "two 9 1 1");
        let input = json!({ "changeId": last, "wholeTransaction": true });
        let done = revert(&tenant, &owner, input.clone()).await;
        assert_eq!(done.payload()["errors"], json!([]));
        let told = |reverted: &Value| {
            let mut reverted = reverted.clone();
            for field in reverted.as_array_mut().unwrap() {
                let fields = field["fields"].as_array_mut().unwrap();
                fields.retain(|field| field["name"] != "updatedAt");
            }
            reverted
        };
        assert_eq!(told(&done.payload()["reverted"]), told(&dry));
        assert_eq!(done.payload()["revertedCount"], 4);
        assert_eq!(read(&tenant, state).await, "A device 2 2");
    });
}

#[test]
fn of_a_whole_transaction_all_is_taken_back_or_nothing() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let (device, ..) = tenant.device(&owner).await;
        let tx = tenant.write().await;
        execute(&tx, "UPDATE device SET name = 'three'")
            .await
            .unwrap();
        execute(&tx, "UPDATE member SET name = 'three'")
            .await
            .unwrap();
        tx.commit().await.unwrap();
        let last = history(&tenant, &owner, &device).await[0]["id"].clone();
        write(
            &tenant,
            "UPDATE member SET name = 'four' WHERE email LIKE 'owner@%'",
        )
        .await;
        let input = json!({ "changeId": last, "wholeTransaction": true });
        let refused = revert(&tenant, &owner, input).await;
        assert_eq!(failure(&refused).0, "VERSION_CONFLICT");
        assert_eq!(read(&tenant, "SELECT name FROM device").await, "three");
    });
}

#[test]
fn newer_changes_are_in_the_way_field_by_field() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let (device, ..) = tenant.device(&owner).await;
        update(
            &tenant,
            &owner,
            json!({ "deviceId": device, "name": "Two" }),
        )
        .await;
        let named = history(&tenant, &owner, &device).await[0]["id"].clone();
        update(
            &tenant,
            &owner,
            json!({ "deviceId": device, "enabled": false }),
        )
        .await;
        update(
            &tenant,
            &owner,
            json!({ "deviceId": device, "name": "Three" }),
        )
        .await;
        let refused = revert(&tenant, &owner, json!({ "changeId": named })).await;
        assert_eq!(failure(&refused).0, "VERSION_CONFLICT");
        assert!(
            failure(&refused).1.contains("name"),
            "{:?}",
            failure(&refused)
        );
        assert_eq!(refused.failure()["currentVersion"], 4);
        update(
            &tenant,
            &owner,
            json!({ "deviceId": device, "name": "Two" }),
        )
        .await;
        let done = revert(&tenant, &owner, json!({ "changeId": named })).await;
        assert_eq!(
            done.payload()["errors"],
            json!([]),
            "another field is not in the way"
        );
        assert_eq!(
            read(&tenant, "SELECT concat_ws(' ', name, enabled) FROM device").await,
            "A device f"
        );
    });
}

#[test]
fn what_cannot_be_taken_back_says_why() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let photo = tenant.photo(&owner).await;
        tenant.device(&owner).await;
        write(
            &tenant,
            "UPDATE device SET pin_hash = 'another', name = 'New'",
        )
        .await;
        let newest = async |kind: &str| {
            let query = "query($kinds: [String!]) { tenant { changes(first: 1, filter: { subjectTypes: $kinds, actions: [UPDATE, CREATE] }) { nodes { id } } } }";
            let answer = tenant
                .gql_with(Some(&owner), query, json!({ "kinds": [kind] }))
                .await;
            answer.data()["tenant"]["changes"]["nodes"][0]["id"].clone()
        };
        for (kind, why) in [
            ("Device", "secret"),
            ("Session", "not taken back"),
            ("Media", "not taken back"),
        ] {
            let input = json!({ "changeId": newest(kind).await });
            let refused = revert(&tenant, &owner, input).await;
            assert_eq!(failure(&refused).0, "INVALID", "{kind}");
            assert!(failure(&refused).1.contains(why), "{:?}", failure(&refused));
        }
        let refused = revert(&tenant, &owner, json!({ "changeId": photo["id"] })).await;
        assert_eq!(failure(&refused).0, "NOT_FOUND");
        // Its place is taken: nothing of it is written.
        let clash = "INSERT INTO device (id, name, client_id, pin_hash, created_at, updated_at)
            SELECT gen_random_uuid(), 'Other', client_id, '', now(), now() FROM history, jsonb_to_record(row) AS r(client_id text)
            WHERE subject_type = 'device' AND action = 'delete'";
        write(&tenant, "DELETE FROM device").await;
        let gone = newest("Device").await;
        write(&tenant, clash).await;
        let refused = revert(&tenant, &owner, json!({ "changeId": gone })).await;
        assert_eq!(failure(&refused).0, "VERSION_CONFLICT");
        assert_eq!(
            read(&tenant, "SELECT string_agg(name, ' ') FROM device").await,
            "Other"
        );
    });
}

#[test]
fn it_needs_its_own_permission_and_that_of_the_object() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let admin = tenant.token(BuiltIn::Admin).await;
        let (device, ..) = tenant.device(&owner).await;
        update(
            &tenant,
            &owner,
            json!({ "deviceId": device, "name": "Two" }),
        )
        .await;
        let change = history(&tenant, &owner, &device).await[0]["id"].clone();
        let refused = revert(&tenant, &admin, json!({ "changeId": change })).await;
        assert_eq!(
            failure(&refused),
            (
                "FORBIDDEN".to_owned(),
                "This needs the permission AUDIT_REVERT.".to_owned()
            )
        );
        write(
            &tenant,
            "UPDATE role SET permissions = '{AUDIT_READ,AUDIT_REVERT}' WHERE name = 'admin'",
        )
        .await;
        let other = tenant.sign_in(&format!("admin@{}.test", tenant.slug)).await;
        let refused = revert(&tenant, &other, json!({ "changeId": change })).await;
        assert_eq!(
            failure(&refused),
            (
                "FORBIDDEN".to_owned(),
                "This needs the permission DEVICES_MANAGE.".to_owned()
            )
        );
        assert_eq!(read(&tenant, "SELECT name FROM device").await, "Two");
    });
}

#[test]
fn the_last_owner_stays_one() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let made =
            "SELECT id::text FROM history WHERE subject_type = 'member_role' AND action = 'create'";
        let made: uuid::Uuid = read(&tenant, made).await.parse().unwrap();
        let made = bulkhead::graphql::global_id_of("Change", made);
        for whole in [false, true] {
            for dry in [true, false] {
                let input = json!({ "changeId": made, "wholeTransaction": whole, "dryRun": dry });
                let (code, why) = failure(&revert(&tenant, &owner, input).await);
                assert_eq!(code, "INVALID");
                assert!(why.contains("without an owner"), "{why}");
            }
        }
        let admin = tenant.member(BuiltIn::Admin).await;
        let promote = format!(
            "INSERT INTO member_role (id, member_id, role_id) SELECT gen_random_uuid(), m.id, r.id FROM member m, role r
             WHERE m.email = '{admin}' AND r.name = 'owner'"
        );
        assert_eq!(write(&tenant, &promote).await, 1);
        let done = revert(&tenant, &owner, json!({ "changeId": made })).await;
        assert_eq!(done.payload()["errors"], json!([]));
        let left = "SELECT count(*) FROM member_role mr JOIN role r ON r.id = mr.role_id WHERE r.name = 'owner'";
        assert_eq!(tenant.count(left).await, 1);
    });
}

//! Changes: what leaves an entry, and what the entry says.

use super::{CHANGE, adding, entries, history, read, row, update, write};
use crate::harness::{Tenant, run};
use bulkhead::identity::BuiltIn;
use image::{ImageFormat, RgbImage};
use reqwest::Method;
use serde_json::{Value, json};
use std::io::Cursor;

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
        let changes = answer.data()["node"]["history"]["nodes"].as_array();
        let last = changes.unwrap().iter().find(|c| c["action"] == "UPDATE");
        let last = last.unwrap();
        let email = format!("owner@{}.test", tenant.slug);
        let cause = json!({ "__typename": "Member", "email": email });
        assert_eq!(last["cause"], cause, "{last:#}");
        assert_eq!(last["actor"]["__typename"], "SystemActor");
        let id = completed.headers["X-Request-Id"].to_str().unwrap();
        assert_eq!(last["requestId"], id, "the job carries its request on");
    });
}

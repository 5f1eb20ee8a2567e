//! Devices as members make and change them.

use super::Fixture;
use crate::harness::{Tenant, run};
use bulkhead::identity::BuiltIn;
use futures::future::join_all;
use serde_json::{Value, json};

const CREATE: &str = "mutation($input: DeviceCreateInput!) { deviceCreate(input: $input) {
    pin device { id name clientId state version provisionedAt } errors { __typename code message field } } }";

#[test]
fn a_device_is_made_and_its_pin_shown_once() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let create = async |input: Value| {
            let variables = json!({ "input": input });
            tenant.gql_with(Some(&owner), CREATE, variables).await
        };
        let made = create(json!({ "name": "Gate", "clientId": "GATE-1" })).await;
        let pin = made.payload()["pin"].as_str().unwrap().to_owned();
        assert!(
            pin.len() == 8 && pin.bytes().all(|b| b.is_ascii_digit()),
            "{pin}"
        );
        let mut device = made.payload()["device"].clone();
        let id = device["id"].take();
        let wanted = json!({ "id": null, "name": "Gate", "clientId": "GATE-1", "state": "UNCLAIMED", "version": 1, "provisionedAt": null });
        assert_eq!(device, wanted);

        let other = create(json!({ "name": "Gate" })).await;
        let generated = other.payload()["device"]["clientId"].as_str().unwrap();
        assert!(
            generated.starts_with("D-") && generated.len() == 10,
            "{generated}"
        );

        let again = create(json!({ "name": "Another", "clientId": "GATE-1" })).await;
        let failure = json!({ "__typename": "ConflictError", "code": "ALREADY_EXISTS", "field": ["input", "clientId"], "message": "There is a device GATE-1 already." });
        assert_eq!(*again.failure(), failure);
        assert_eq!(again.payload()["pin"], Value::Null);
        for (field, input) in [
            ("name", json!({ "name": "" })),
            ("name", json!({ "name": " " })),
            ("name", json!({ "name": "nul\0" })),
            ("name", json!({ "name": "x".repeat(101) })),
            ("clientId", json!({ "name": "x", "clientId": "" })),
            ("clientId", json!({ "name": "x", "clientId": "a b" })),
            (
                "clientId",
                json!({ "name": "x", "clientId": "x".repeat(65) }),
            ),
        ] {
            let answer = create(input.clone()).await;
            assert_eq!(answer.failure()["code"], "INVALID", "{input}");
            assert_eq!(
                answer.failure()["field"],
                json!(["input", field]),
                "{input}"
            );
        }
        let all = "query($id: ID!) { node(id: $id) { ... on Device { id name clientId history { nodes { snapshot fields { name after } } } } } }";
        let seen = tenant
            .gql_with(Some(&owner), all, json!({ "id": id }))
            .await;
        let seen = seen.data().to_string();
        assert!(seen.contains("GATE-1") && !seen.contains(&pin), "{seen}");
    });
}

#[test]
fn a_device_is_changed_unless_it_was_changed_meanwhile() {
    run(async {
        let f = Fixture::new().await;
        let renamed = f
            .update(json!({ "deviceId": f.id, "name": "Gate", "ifVersion": 1 }))
            .await;
        assert_eq!(
            renamed.payload()["device"],
            json!({ "name": "Gate", "state": "UNCLAIMED", "version": 2 })
        );
        let stale = f
            .update(json!({ "deviceId": f.id, "name": "Door", "ifVersion": 1 }))
            .await;
        assert_eq!(stale.failure()["__typename"], "ConflictError");
        assert_eq!(stale.failure()["code"], "VERSION_CONFLICT");
        assert_eq!(stale.failure()["field"], json!(["input", "ifVersion"]));
        assert_eq!(stale.failure()["currentVersion"], 2);
        assert_eq!(stale.payload()["device"], Value::Null);
        assert_eq!(f.field("name").await, "Gate");
        // No news is no change.
        let same = f.update(json!({ "deviceId": f.id, "name": "Gate" })).await;
        assert_eq!(same.payload()["device"]["version"], 2);
        let none = f.update(json!({ "deviceId": f.id })).await;
        assert_eq!(none.payload()["device"]["version"], 2);
        let empty = f.update(json!({ "deviceId": f.id, "name": "" })).await;
        assert_eq!(empty.failure()["field"], json!(["input", "name"]));
        let unknown = f
            .update(json!({ "deviceId": "RGV2aWNl", "name": "x" }))
            .await;
        assert_eq!(unknown.failure()["__typename"], "NotFoundError");
        assert_eq!(unknown.failure()["code"], "NOT_FOUND");
        // Two that read the same version: one of them wins.
        let rename = |name| f.update(json!({ "deviceId": f.id, "name": name, "ifVersion": 2 }));
        let both = join_all([rename("one"), rename("two")]).await;
        let won = both
            .iter()
            .filter(|a| a.payload()["device"]["version"] == 3);
        assert_eq!(won.count(), 1);
    });
}

//! What is no change of a row and in the trail all the same.

use super::row;
use crate::harness::{PASSWORD, Tenant, refused, run};
use bulkhead::identity::BuiltIn;
use serde_json::{Value, json};

/// The failed attempts to sign in, newest first.
async fn failed(tenant: &Tenant, token: &str) -> Vec<Value> {
    let query = "{ tenant { changes(filter: { actions: [SIGN_IN_FAILED] }) { nodes {
        action subjectType subjectId snapshot fields { name } requestId actor { ... on SystemActor { reason } ... on Device { name } } } } } }";
    let answer = tenant.gql(Some(token), query).await;
    let nodes = &answer.data()["tenant"]["changes"]["nodes"];
    nodes.as_array().unwrap().clone()
}

#[test]
fn failed_sign_ins_are_in_the_trail_without_what_was_sent() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let (device, client_id, pin) = tenant.device(&owner).await;
        let wrong = if pin == "00000000" {
            "00000001"
        } else {
            "00000000"
        };
        tenant.device_auth(&client_id, wrong).await;
        tenant.device_auth("no-such-device", &pin).await;
        let query =
            "mutation($input: SessionCreateInput!) { sessionCreate(input: $input) { token } }";
        let email = format!("owner@{}.test", tenant.slug);
        for (email, password) in [(email.as_str(), "a wrong password"), (PASSWORD, PASSWORD)] {
            let input = json!({ "input": { "email": email, "password": password } });
            let answer = tenant.gql_with(None, query, input).await;
            assert_eq!(answer.code(), "UNAUTHENTICATED");
        }
        let found = failed(&tenant, &owner).await;
        let told: Vec<_> = found
            .iter()
            .map(|event| {
                assert_eq!(event["fields"], json!([]));
                assert!(event["requestId"].is_string());
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                (text(&event["subjectType"]), text(&event["snapshot"]["as"]))
            })
            .collect();
        let expected = [
            ("Tenant", "member"),
            ("Member", "member"),
            ("Tenant", "device"),
            ("Device", "device"),
        ];
        let expected = expected.map(|(of, as_one)| (of.to_owned(), as_one.to_owned()));
        assert_eq!(told, expected);
        assert_eq!(found[3]["subjectId"], device);
        assert_eq!(found[3]["actor"]["name"], "A device");
        assert_eq!(found[0]["actor"]["reason"], "sign-in");
        let text = format!("{found:?}");
        assert!(
            !text.contains("a wrong password")
                && !text.contains(PASSWORD)
                && !text.contains("no-such")
        );

        // What is no change leaves the past as it is.
        let query = "query($id: ID!) { asOf(id: $id, at: \"2100-01-01T00:00:00Z\") { values change { action } } }";
        let answer = tenant
            .gql_with(Some(&owner), query, json!({ "id": device }))
            .await;
        assert_eq!(answer.data()["asOf"]["change"]["action"], "UPDATE");
        assert_eq!(
            answer.data()["asOf"]["values"]["id"],
            row(&device).to_string()
        );
    });
}

#[test]
fn an_event_passes_for_no_change() {
    run(async {
        let tenant = Tenant::new().await;
        let tx = tenant.write().await;
        let forged = "SELECT record_event('device', gen_random_uuid(), 'create', '{}')";
        let error = crate::harness::value(&tx, forged).await.unwrap_err();
        assert_eq!(crate::harness::sqlstate(&error), "23502", "{error}");
        tx.rollback().await.unwrap();
        refused(&tenant, &["CREATE OR REPLACE FUNCTION record_event(subject text, subject_id uuid, act text, detail jsonb) RETURNS void LANGUAGE sql AS ''"]).await;
    });
}

//! The main job, end to end: a frontend signs in, uploads, a job checks, a signed link is read, a device signs in, and all
//! of it is in the trail.

use crate::harness::{Tenant, png, run};
use bulkhead::identity::BuiltIn;
use reqwest::{Method, StatusCode};
use serde_json::json;

#[test]
fn a_tenants_whole_day() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;

        let bytes = png();
        let input = json!({ "resourceType": "photo", "filename": "gate.png", "contentType": "image/png", "size": bytes.len() });
        let made = tenant.create_upload(&owner, input).await;
        assert_eq!(made["media"]["state"], "AWAITING_UPLOAD");
        let put = tenant
            .follow(Method::PUT, made["upload"]["url"].as_str().unwrap())
            .body(bytes.clone());
        assert_eq!(tenant.send(put).await.status, StatusCode::CREATED);

        let complete = "mutation($id: ID!) { mediaCompleteUpload(input: { mediaId: $id }) { media { state } job { id kind state } errors { message } } }";
        let media = made["media"]["id"].as_str().unwrap();
        let done = tenant
            .gql_with(Some(&owner), complete, json!({ "id": media }))
            .await
            .data()["mediaCompleteUpload"]
            .clone();
        assert_eq!(done["job"]["kind"], "media.process", "{done:#}");
        let ready = tenant.processed(&owner, media).await;
        assert_eq!(ready["state"], "READY", "{ready:#}");
        let read = tenant
            .follow(Method::GET, ready["url"].as_str().unwrap())
            .send()
            .await
            .unwrap();
        assert_eq!(read.status(), StatusCode::OK);
        assert_eq!(read.bytes().await.unwrap(), bytes);

        let (device, client_id, pin) = tenant.device(&owner).await;
        let auth = tenant.device_auth(&client_id, &pin).await;
        assert_eq!(auth.status, StatusCode::OK, "{:#}", auth.body);
        assert_eq!(auth.body["device"]["id"], device.as_str());
        let token = auth.body["access_token"].as_str().unwrap();
        let viewer = "{ viewer { actor { __typename ... on Device { id } } } }";
        assert_eq!(
            tenant.gql(Some(token), viewer).await.data()["viewer"]["actor"]["id"],
            device.as_str()
        );

        let trail = "{ tenant { changes(first: 100) { nodes { action subjectType actor { __typename } } } } }";
        let trail =
            tenant.gql(Some(&owner), trail).await.data()["tenant"]["changes"]["nodes"].clone();
        for (action, subject, actor) in [
            ("CREATE", "Media", "Member"),
            ("UPDATE", "Media", "SystemActor"),
            ("CREATE", "Device", "Member"),
            ("UPDATE", "Device", "Device"),
            ("CREATE", "DeviceToken", "Device"),
        ] {
            let row = json!({ "action": action, "subjectType": subject, "actor": { "__typename": actor } });
            assert!(
                trail.as_array().unwrap().contains(&row),
                "{row} is not in {trail:#}"
            );
        }
    });
}

//! Tokens: their rotation, its grace, their end, and what they are good for.

use super::{Fixture, assert_problem, token_of};
use crate::harness::run;
use futures::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::json;

#[test]
fn a_disabled_device_is_out_at_once_and_stays_out() {
    run(async {
        let f = Fixture::new().await;
        let token = f.token().await;
        let rotated = token_of(&f.rotate(&token).await);
        let viewer = "{ viewer { expiresAt } }";
        for token in [&token, &rotated] {
            f.tenant.gql(Some(token), viewer).await.data();
        }
        let off = f
            .update(json!({ "deviceId": f.id, "enabled": false }))
            .await;
        assert_eq!(off.payload()["device"]["state"], "DISABLED");
        for token in [&token, &rotated] {
            assert_problem(&f.me(token).await, 401, "token_revoked");
            assert_problem(&f.rotate(token).await, 401, "token_revoked");
            let answer = f.tenant.gql(Some(token), viewer).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        }
        assert_problem(&f.auth(&f.pin).await, 403, "device_disabled");
        assert_problem(&f.auth(&f.wrong_pin()).await, 401, "invalid_credentials");
        let on = f.update(json!({ "deviceId": f.id, "enabled": true })).await;
        assert_eq!(on.payload()["device"]["state"], "ACTIVE");
        assert_problem(&f.me(&rotated).await, 401, "token_revoked");
        f.token().await;
    });
}

#[test]
fn a_lost_successor_can_be_asked_for_again_until_the_grace_is_over() {
    run(async {
        let f = Fixture::new().await;
        let first = f.token().await;
        let answers = join_all((0..3).map(|_| f.rotate(&first))).await;
        let second = token_of(&answers[0]);
        assert_ne!(first, second);
        for answer in &answers {
            assert_eq!(
                token_of(answer),
                second,
                "a repeat gives the same successor"
            );
            assert_eq!(answer.body["device"]["id"], f.id.as_str());
        }
        for token in [&first, &second] {
            assert_eq!(f.me(token).await.status, StatusCode::OK);
            f.tenant
                .gql(Some(token), "{ viewer { expiresAt } }")
                .await
                .data();
        }
        let over = "UPDATE device_token SET rotated_at = rotated_at - interval '61 seconds' WHERE rotated_at IS NOT NULL";
        assert_eq!(f.tenant.sql(over).await, 1);
        assert_eq!(f.me(&second).await.status, StatusCode::OK);
        // Two parties have it: nobody keeps anything, wherever it was used.
        assert_problem(&f.me(&first).await, 401, "token_revoked");
        assert_problem(&f.rotate(&first).await, 401, "token_revoked");
        assert_problem(&f.me(&second).await, 401, "token_revoked");
        assert_problem(&f.rotate(&second).await, 401, "token_revoked");
        for token in [&first, &second] {
            let answer = f.tenant.gql(Some(token), "{ viewer { expiresAt } }").await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        }
        let kept = "SELECT count(*) FROM history WHERE subject_type = 'device_token' AND 'revoked_at' = ANY (changed)";
        assert_eq!(
            f.tenant.count(kept).await,
            2,
            "the end of the family is in the trail"
        );
        f.token().await;
    });
}

#[test]
fn only_the_newest_predecessor_has_grace() {
    run(async {
        let f = Fixture::new().await;
        let first = f.token().await;
        let second = token_of(&f.rotate(&first).await);
        let third = token_of(&f.rotate(&second).await);
        assert_eq!(f.me(&second).await.status, StatusCode::OK);
        assert_eq!(f.me(&third).await.status, StatusCode::OK);
        assert_problem(&f.me(&first).await, 401, "token_revoked");
        assert_problem(&f.rotate(&first).await, 401, "token_revoked");
        assert_eq!(f.me(&third).await.status, StatusCode::OK);
        // Its reuse later ends the family, whatever its place in it.
        let over = "UPDATE device_token SET rotated_at = rotated_at - interval '61 seconds' WHERE rotated_at IS NOT NULL";
        f.tenant.sql(over).await;
        assert_problem(&f.rotate(&first).await, 401, "token_revoked");
        assert_problem(&f.me(&third).await, 401, "token_revoked");
    });
}

#[test]
fn an_expired_token_is_told_from_a_revoked_one() {
    run(async {
        let f = Fixture::new().await;
        let token = f.token().await;
        f.tenant
            .sql("UPDATE device_token SET expires_at = now() - interval '1 second'")
            .await;
        assert_problem(&f.me(&token).await, 401, "token_expired");
        assert_problem(&f.rotate(&token).await, 401, "token_expired");
    });
}

#[test]
fn a_devices_token_works_on_graphql_as_that_device() {
    run(async {
        let f = Fixture::new().await;
        let token = f.token().await;
        let viewer =
            "{ viewer { permissions actor { __typename ... on Device { id clientId } } } }";
        let answer = f.tenant.gql(Some(&token), viewer).await;
        let wanted = json!({ "permissions": ["MEDIA_READ", "MEDIA_WRITE"],
            "actor": { "__typename": "Device", "id": f.id, "clientId": f.client_id } });
        assert_eq!(*answer.payload(), wanted);
        let photo = f.tenant.upload(&token).await;
        let query = "query($id: ID!) { node(id: $id) { ... on Media { uploadedBy { ... on Device { id } } } } }";
        let seen = f
            .tenant
            .gql_with(Some(&f.owner), query, json!({ "id": photo["media"]["id"] }))
            .await;
        assert_eq!(seen.payload()["uploadedBy"]["id"], f.id.as_str());
    });
}

#[test]
fn without_a_devices_token_a_device_is_told_so() {
    run(async {
        let f = Fixture::new().await;
        for (method, path) in [
            (Method::GET, "/device/me"),
            (Method::POST, "/device/token/rotate"),
        ] {
            let answer = f.tenant.send(f.tenant.request(method.clone(), path)).await;
            assert_problem(&answer, 401, "no_credential");
            let request = f.tenant.request(method, path).bearer_auth(&f.owner);
            assert_problem(&f.tenant.send(request).await, 401, "token_revoked");
        }
        let elsewhere = f.tenant.request(Method::GET, "/device/none");
        assert_problem(&f.tenant.send(elsewhere).await, 404, "not_found");
    });
}

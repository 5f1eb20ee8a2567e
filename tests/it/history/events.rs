//! What is no change of a row and in the trail all the same.

use super::{read, row};
use crate::harness::{PASSWORD, Tenant, refused, run, until};
use bulkhead::identity::BuiltIn;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Executor as _};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

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

/// Those of the tenant's entries that are of these actions, oldest first, as `action type snapshot`.
async fn events(tenant: &Tenant, actions: &str) -> Vec<String> {
    let sql = format!(
        "SELECT coalesce(string_agg(concat_ws(' ', action, subject_type, row - 'session'), E'\n' ORDER BY recorded_at), '')
         FROM history WHERE action = ANY ('{{{actions}}}')"
    );
    read(tenant, &sql)
        .await
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn who_signs_in_and_out_is_in_the_trail() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let (_, client_id, pin) = tenant.device(&owner).await;
        tenant.device_auth(&client_id, &pin).await;
        tenant.token(BuiltIn::Owner).await;
        let revoke = "mutation { sessionRevoke(input: { everywhere: true }) { revokedCount } }";
        let ended = tenant.gql(Some(&owner), revoke).await;
        assert_eq!(ended.payload()["revokedCount"], 2);
        let expected = [
            "sign_in member {}",
            "sign_in device {}",
            "sign_in member {}",
            r#"sign_out member {"sessions": 2}"#,
        ];
        let found = events(&tenant, "sign_in, sign_out, sign_in_failed").await;
        assert_eq!(found, expected);
        let own = "SELECT count(*) FROM history WHERE action IN ('sign_in', 'sign_out') AND actor = subject_type || ':' || subject_id
            AND request_id IS NOT NULL";
        assert_eq!(tenant.count(own).await, 4);
    });
}

#[test]
fn a_denial_is_in_the_trail_once_a_minute() {
    run(async {
        let tenant = Tenant::new().await;
        let viewer = tenant.token(BuiltIn::Viewer).await;
        let trail = "{ tenant { slug changes { nodes { id } } } }";
        let create = "mutation { deviceCreate(input: { name: \"n\" }) { errors { code } } }";
        for _ in 0..5 {
            assert_eq!(tenant.gql(Some(&viewer), trail).await.code(), "FORBIDDEN");
            let denied = tenant.gql(Some(&viewer), create).await;
            assert_eq!(denied.failure()["code"], "FORBIDDEN");
        }
        // Side by side, too.
        let asked = (0..10).map(|_| tenant.gql(Some(&viewer), trail));
        futures::future::join_all(asked).await;
        let expected = [
            r#"denied member {"permission": "AUDIT_READ"}"#,
            r#"denied member {"permission": "DEVICES_MANAGE"}"#,
        ];
        assert_eq!(events(&tenant, "denied").await, expected);
        let other = tenant.token(BuiltIn::Member).await;
        tenant.gql(Some(&other), trail).await;
        // What a socket follows is denied as well.
        let owner = tenant.token(BuiltIn::Owner).await;
        let (_, client_id, pin) = tenant.device(&owner).await;
        let device = tenant.device_auth(&client_id, &pin).await;
        let device = device.body["access_token"].as_str().unwrap();
        let follow = tenant
            .request(Method::POST, "/graphql")
            .header("Accept", "text/event-stream")
            .bearer_auth(device)
            .json(&json!({ "query": "subscription { changeRecorded { id } }" }));
        let told = follow.send().await.unwrap().text().await.unwrap();
        assert!(told.contains("FORBIDDEN"), "{told}");
        let found = events(&tenant, "denied").await;
        assert_eq!(found.len(), 4, "{found:?}");
        assert_eq!(found[3], r#"denied device {"permission": "AUDIT_READ"}"#);
        let query = "{ tenant { changes(filter: { actions: [DENIED] }) { nodes { actor { __typename } subject { __typename } requestId } } } }";
        let shown = tenant.gql(Some(&owner), query).await;
        let shown = &shown.data()["tenant"]["changes"]["nodes"][3];
        assert_eq!(shown["actor"]["__typename"], "Member");
        assert_eq!(shown["subject"]["__typename"], "Member");
        assert!(shown["requestId"].is_string());
    });
}

/// Asks for the trail, as somebody who is denied it.
fn denied(tenant: &Tenant, token: &str) -> JoinHandle<()> {
    let (tenant, token) = (tenant.clone(), token.to_owned());
    tokio::spawn(async move {
        let trail = "{ tenant { changes { nodes { id } } } }";
        assert_eq!(tenant.gql(Some(&token), trail).await.code(), "FORBIDDEN");
    })
}

/// Nobody writes to the tenant's history until it is closed.
async fn holding(tenant: &Tenant) -> PgConnection {
    let mut held = tenant.superuser().await;
    let lock = "BEGIN; LOCK TABLE history IN EXCLUSIVE MODE";
    held.execute(sqlx::raw_sql(lock)).await.unwrap();
    held
}

/// PostgreSQL's processes that wait to write to the tenant's history.
async fn waiting(tenant: &Tenant) -> Vec<i32> {
    let waiting = "SELECT pid FROM pg_locks WHERE NOT granted AND relation = 'history'::regclass";
    let mut superuser = tenant.superuser().await;
    let found = sqlx::query_scalar(waiting).fetch_all(&mut superuser);
    found.await.unwrap()
}

async fn one_waits(tenant: &Tenant) -> i32 {
    until("a note waits", async || waiting(tenant).await.pop()).await
}

#[test]
fn a_denial_whose_entry_is_cut_off_is_news_again() {
    run(async {
        let tenant = Tenant::new().await;
        let viewer = tenant.token(BuiltIn::Viewer).await;
        let held = holding(&tenant).await;
        let asked = denied(&tenant, &viewer);
        let backend = one_waits(&tenant).await;
        let end = sqlx::query("SELECT pg_terminate_backend($1)").bind(backend);
        end.execute(&mut tenant.superuser().await).await.unwrap();
        asked.await.unwrap();
        held.close().await.unwrap();
        assert_eq!(events(&tenant, "denied").await.len(), 0);
        for _ in 0..2 {
            denied(&tenant, &viewer).await.unwrap();
            assert_eq!(events(&tenant, "denied").await.len(), 1);
        }
    });
}

#[test]
fn a_denial_of_who_hangs_up_before_its_entry_is_written_is_news_again() {
    run(async {
        let tenant = Tenant::new().await;
        let viewer = tenant.token(BuiltIn::Viewer).await;
        let held = holding(&tenant).await;
        let hung_up = denied(&tenant, &viewer);
        let first = one_waits(&tenant).await;
        hung_up.abort();
        let began = Instant::now();
        let asked = until("it is news", async || {
            // After a minute it would be anyway.
            assert!(began.elapsed() < Duration::from_secs(8));
            let asked = denied(&tenant, &viewer);
            let waits = async || waiting(&tenant).await.iter().any(|pid| *pid != first);
            until("it is answered, or waits to be noted", async || {
                (asked.is_finished() || waits().await).then_some(())
            })
            .await;
            (!asked.is_finished()).then_some(asked)
        })
        .await;
        held.close().await.unwrap();
        asked.await.unwrap();
        assert_eq!(events(&tenant, "denied").await.len(), 1);
        denied(&tenant, &viewer).await.unwrap();
        assert_eq!(events(&tenant, "denied").await.len(), 1);
    });
}

#[test]
fn links_are_in_the_trail_once_a_minute() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let photo = tenant.photo(&owner).await;
        let query = "{ tenant { media { nodes { id url thumbnail(size: SMALL) } } } }";
        tenant.gql(Some(&owner), query).await.data();
        let expected = [
            r#"link_issued media {"to": "upload"}"#,
            r#"link_issued media {"to": "download"}"#,
        ];
        assert_eq!(events(&tenant, "link_issued").await, expected);
        let viewer = tenant.token(BuiltIn::Viewer).await;
        let plain = "{ tenant { media { nodes { id filename } } } }";
        tenant.gql(Some(&viewer), plain).await.data();
        assert_eq!(events(&tenant, "link_issued").await.len(), 2, "no link");
        tenant.gql(Some(&viewer), query).await.data();
        assert_eq!(events(&tenant, "link_issued").await.len(), 3);
        let of = "query($id: ID!) { node(id: $id) { ... on Media { history { nodes { action actor { ... on Member { email } } } } } } }";
        let of = tenant
            .gql_with(Some(&owner), of, json!({ "id": photo["id"] }))
            .await;
        let newest = of.data()["node"]["history"]["nodes"][0].clone();
        let email = format!("viewer@{}.test", tenant.slug);
        assert_eq!(
            newest,
            json!({ "action": "LINK_ISSUED", "actor": { "email": email } })
        );
    });
}

#[test]
fn an_event_passes_for_no_change() {
    run(async {
        let tenant = Tenant::new().await;
        for act in ["create", "operator_act"] {
            let tx = tenant.write().await;
            let forged =
                format!("SELECT record_event('device', gen_random_uuid(), '{act}', '{{}}')");
            let error = crate::harness::value(&tx, &forged).await.unwrap_err();
            assert_eq!(crate::harness::sqlstate(&error), "23502", "{error}");
            tx.rollback().await.unwrap();
        }
        refused(&tenant, &["CREATE OR REPLACE FUNCTION record_event(subject text, subject_id uuid, act text, detail jsonb) RETURNS void LANGUAGE sql AS ''"]).await;
    });
}

//! An operation as a whole has the time that one statement of the tenant's has.

use super::limits::many;
use crate::harness::{Tenant, World, png, run};
use crate::tenancy::set;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bulkhead::clock::Clock;
use bulkhead::graphql::parse_global_id;
use bulkhead::identity::BuiltIn;
use bulkhead::media::sign;
use bulkhead::media::store::Key;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::timeout;

/// Makes each statement that reads devices take a while: shorter than a statement may take, longer than many of them may.
const NAP: &str = "CREATE FUNCTION nap() RETURNS boolean LANGUAGE sql SECURITY DEFINER AS
        $$ SELECT pg_sleep(0.4) IS NOT NULL $$;
    GRANT EXECUTE ON FUNCTION nap() TO PUBLIC;
    ALTER TABLE device ENABLE ROW LEVEL SECURITY;
    CREATE POLICY nap ON device USING ((SELECT nap()))";

async fn slow() -> (Tenant, String, String) {
    let tenant = Tenant::new().await;
    let owner = tenant.token(BuiltIn::Owner).await;
    let (device, ..) = tenant.device(&owner).await;
    set(&tenant, &["--statement-timeout", "5s"]).await;
    sqlx::raw_sql(NAP)
        .execute(&mut tenant.superuser().await)
        .await
        .unwrap();
    (tenant, owner, device)
}

/// How many errors there are, all of which say that the time is over, each at a root field.
fn timeouts(body: &Value) -> i64 {
    let errors = body["errors"].as_array().expect("errors");
    for error in errors {
        assert_eq!(error["extensions"]["code"], "OPERATION_TIMEOUT", "{body:#}");
        let key = error["path"][0].as_str().unwrap();
        assert!(key.starts_with('f'), "{body:#}");
    }
    i64::try_from(errors.len()).unwrap()
}

#[test]
fn fields_that_would_come_too_late_are_not_begun() {
    run(async {
        let (tenant, owner, device) = slow().await;
        let fields = many(25, |n| {
            format!("f{n}: tenant {{ devices(first: {n}) {{ nodes {{ id }} }} }} ")
        });
        let answer = tenant.gql(Some(&owner), &format!("{{ {fields} }}")).await;
        assert!(timeouts(&answer.body) > 0);
        // The rest of the tenant's time is its next operation's, whole.
        let query = format!(r#"{{ node(id: "{device}") {{ id }} }}"#);
        tenant.gql(Some(&owner), &query).await.data();
    });
}

#[test]
fn a_mutations_field_that_is_too_late_changes_nothing() {
    run(async {
        let (tenant, owner, device) = slow().await;
        let before = tenant.changes().await;
        let fields = many(25, |n| {
            format!(
                r#"f{n}: deviceUpdate(input: {{ deviceId: "{device}", name: "n{n}" }}) {{ errors {{ code }} }} "#
            )
        });
        let document = format!("mutation {{ {fields} }}");
        let answer = tenant.gql(Some(&owner), &document).await;
        let late = timeouts(&answer.body);
        assert!(late > 0);
        assert_eq!(
            tenant.changes().await - before,
            25 - late,
            "{:#}",
            answer.body
        );
    });
}

/// What is done stays done, and whoever asked is told so as far as the time went.
#[test]
fn a_mutation_whose_answer_is_too_late_has_changed_what_it_says() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let (device, ..) = tenant.device(&owner).await;
        set(&tenant, &["--statement-timeout", "3s"]).await;
        let nap = NAP.replace("device", "history");
        let mut superuser = tenant.superuser().await;
        sqlx::raw_sql(sqlx::AssertSqlSafe(nap))
            .execute(&mut superuser)
            .await
            .unwrap();
        let reads = many(15, |n| {
            format!("h{n}: history(first: {n}) {{ nodes {{ id }} }} ")
        });
        let document = format!(
            r#"mutation {{ deviceUpdate(input: {{ deviceId: "{device}", name: "Late" }}) {{ device {{ name {reads} }} }} }}"#
        );
        let answer = tenant.gql(Some(&owner), &document).await;
        let error = &answer.body["errors"][0];
        assert_eq!(error["extensions"]["code"], "OPERATION_TIMEOUT");
        assert_eq!(error["path"][0], "deviceUpdate");
        let query = format!(r#"{{ node(id: "{device}") {{ ... on Device {{ name }} }} }}"#);
        let answer = tenant.gql(Some(&owner), &query).await;
        assert_eq!(answer.data()["node"]["name"], "Late");
    });
}

#[test]
fn a_store_that_does_not_answer_is_not_waited_for_either() {
    run(async {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}/store", silent.local_addr().unwrap());
        let world = World::private(|config| {
            config.media_url = Some("azure://media".to_owned());
            config.media_azure_account = Some("store".to_owned());
            config.media_azure_key = Some(STANDARD.encode([7; 64]).into());
            config.media_azure_endpoint = Some(endpoint);
            config.statement_timeout_ms = 2_000;
            config.http_limits.body_seconds = 5;
        })
        .await;
        let tenant = Tenant::of(world).await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let media = tenant.upload(&owner).await;
        let complete = format!(
            "mutation {{ mediaCompleteUpload(input: {{ mediaId: {} }}) {{ job {{ id }} }} }}",
            media["media"]["id"]
        );
        let answer = tenant.gql(Some(&owner), &complete).await;
        assert_eq!(answer.code(), "OPERATION_TIMEOUT");

        // Nor by our own routes, for a link that was made when the store did not make its own.
        let (_, id) = parse_global_id(media["media"]["id"].as_str().unwrap()).unwrap();
        let key = Key::staging(&tenant.row, id);
        let host = format!("{}.localhost", tenant.slug);
        let services = &world.app.services;
        let until = Clock::default().now() + chrono::Duration::minutes(5);
        let query = sign::sign(&services.key, sign::Method::Put, &host, &key, until);
        let link = format!("/uploads/{id}.bin?{query}");
        let put = tenant.send(tenant.request(Method::PUT, &link).body(png()));
        let answer = timeout(Duration::from_mins(2), put).await.unwrap();
        assert_eq!(
            answer.status,
            StatusCode::SERVICE_UNAVAILABLE,
            "{:#}",
            answer.body
        );
    });
}

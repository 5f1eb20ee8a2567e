//! `Idempotency-Key`: a mutation that is sent again is answered as it was, and not done again.

mod cuts;

use crate::harness::{Answer, PASSWORD, Tenant, run, until};
use async_graphql::parser::parse_schema;
use async_graphql::parser::types::{TypeKind, TypeSystemDefinition};
use bulkhead::identity::BuiltIn;
use bulkhead::jobs;
use bulkhead::tenancy::jobs::ForgetKeys;
use futures::future::join_all;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

const CREATE: &str = "mutation($name: String!) { deviceCreate(input: { name: $name }) {
    device { id name } pin errors { code message } } }";
const UPDATE: &str = "mutation($id: ID!, $name: String!, $if: Int) {
    deviceUpdate(input: { deviceId: $id, name: $name, ifVersion: $if }) {
        device { name version history(first: 1) { nodes { action actor { __typename ... on Member { email } } } } }
        errors { code message } } }";

/// A request with a key, as whoever has the token.
fn keyed(tenant: &Tenant, token: &str, key: &str, query: &str, variables: Value) -> RequestBuilder {
    tenant
        .request(Method::POST, "/graphql")
        .bearer_auth(token)
        .header("Idempotency-Key", key)
        .json(&json!({ "query": query, "variables": variables }))
}

async fn send(tenant: &Tenant, token: &str, key: &str, query: &str, variables: Value) -> Answer {
    tenant
        .send(keyed(tenant, token, key, query, variables))
        .await
}

fn named(name: &str) -> Value {
    json!({ "name": name })
}

async fn devices(tenant: &Tenant) -> i64 {
    tenant.count("SELECT count(*) FROM device").await
}

#[track_caller]
fn is_replay(answer: &Answer, first: &Answer) {
    assert_eq!(answer.status, StatusCode::OK, "{:#}", answer.body);
    assert_eq!(answer.body, first.body);
    assert_eq!(answer.header("Idempotency-Replayed"), "true");
    assert_eq!(first.header("Idempotency-Replayed"), "");
}

#[test]
fn the_first_answer_is_given_again_and_nothing_is_done_again() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let key = "\"8e03978e-40d5-43e8-bc93-6894a57f9324\"";
        let create =
            async |key: &str, name: &str| send(&tenant, &owner, key, CREATE, named(name)).await;
        let first = create(key, "Gate").await;
        let pin = first.payload()["pin"].as_str().unwrap().to_owned();
        for _ in 0..2 {
            is_replay(&create(key, "Gate").await, &first);
        }
        assert_eq!(devices(&tenant).await, 1);
        // The PIN that was shown works.
        let client_id = "SELECT client_id FROM device";
        let client_id: String = sqlx::query_scalar(client_id)
            .fetch_one(&mut tenant.superuser().await)
            .await
            .unwrap();
        let auth = tenant.device_auth(&client_id, &pin).await;
        assert_eq!(auth.status, StatusCode::OK);

        let other = create(key, "Door").await;
        assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(other.code(), "CONFLICT");
        let document = CREATE.replace("message", "field");
        let other = send(&tenant, &owner, key, &document, named("Gate")).await;
        assert_eq!(other.code(), "CONFLICT");
        assert_eq!(devices(&tenant).await, 1);
        is_replay(&create(key, "Gate").await, &first);
        let second = create("another", "Gate").await;
        assert_ne!(
            second.payload()["device"]["id"],
            first.payload()["device"]["id"]
        );
        assert_eq!(devices(&tenant).await, 2);

        // What is kept says nothing to who reads the table.
        let kept: Vec<(String, Vec<u8>, Vec<u8>)> =
            sqlx::query_as("SELECT id::text, request, answer FROM idempotency_key")
                .fetch_all(&mut tenant.superuser().await)
                .await
                .unwrap();
        assert_eq!(kept.len(), 2);
        for (id, request, answer) in kept {
            assert!(answer.len() > 100);
            let columns = [id.as_bytes(), &request, &answer].concat();
            let row = String::from_utf8_lossy(&columns);
            for secret in [&pin, "Gate", "another", "device", "8e03978e"] {
                assert!(!row.contains(secret), "{secret} is in {row}");
            }
        }
    });
}

#[test]
fn a_key_is_its_actors_and_its_tenants() {
    run(async {
        let (tenant, other) = (Tenant::new().await, Tenant::new().await);
        let owner = tenant.token(BuiltIn::Owner).await;
        let admin = tenant.token(BuiltIn::Admin).await;
        let stranger = other.token(BuiltIn::Owner).await;
        let mut ids = Vec::new();
        for (tenant, token) in [(&tenant, &owner), (&tenant, &admin), (&other, &stranger)] {
            let made = send(tenant, token, "one", CREATE, named("Gate")).await;
            ids.push(made.payload()["device"]["id"].clone());
            let body = named("Another body");
            let reused = send(tenant, token, "one", CREATE, body).await;
            assert_eq!(reused.code(), "CONFLICT");
        }
        ids.sort_by_key(Value::to_string);
        ids.dedup();
        assert_eq!(ids.len(), 3);
        assert_eq!((devices(&tenant).await, devices(&other).await), (2, 1));
        // Another session of the same member is the same actor.
        let again = tenant.sign_in(&format!("owner@{}.test", tenant.slug)).await;
        let replayed = send(&tenant, &again, "one", CREATE, named("Gate")).await;
        assert_eq!(replayed.header("Idempotency-Replayed"), "true");
    });
}

/// What is asked of the payload sees what was written, though it is not committed yet.
#[test]
fn an_answer_has_all_that_was_asked_for() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let (device, ..) = tenant.device(&owner).await;
        let variables = json!({ "id": device, "name": "Gate", "if": 1 });
        let first = send(&tenant, &owner, "rename", UPDATE, variables.clone()).await;
        let email = format!("owner@{}.test", tenant.slug);
        let history =
            json!([{ "action": "UPDATE", "actor": { "__typename": "Member", "email": email } }]);
        let wanted = json!({
            "device": { "name": "Gate", "version": 2, "history": { "nodes": history } },
            "errors": [],
        });
        assert_eq!(*first.payload(), wanted);
        let replayed = send(&tenant, &owner, "rename", UPDATE, variables).await;
        is_replay(&replayed, &first);
    });
}

#[test]
fn a_failure_is_an_answer_and_an_error_is_none() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let (device, ..) = tenant.device(&owner).await;
        let late = json!({ "id": device, "name": "Gate", "if": 2 });
        let first = send(&tenant, &owner, "late", UPDATE, late.clone()).await;
        assert_eq!(first.failure()["code"], "VERSION_CONFLICT");
        let now = json!({ "id": device, "name": "Door", "if": 1 });
        let done = send(&tenant, &owner, "now", UPDATE, now).await;
        assert_eq!(done.payload()["device"]["version"], 2);
        // It would come through now.
        is_replay(&send(&tenant, &owner, "late", UPDATE, late).await, &first);

        let nul = send(&tenant, &owner, "new", CREATE, named("\0")).await;
        assert_eq!(nul.failure()["code"], "INVALID");
        let query = "mutation($v: String!) { mediaCreateUpload(input: { resourceType: \"photo\", filename: \"f\",
            contentType: \"image/png\", size: 1, sha256: $v }) { media { id } errors { code } } }";
        let viewer = tenant.token(BuiltIn::Viewer).await;
        let odd = send(&tenant, &viewer, "new", query, json!({ "v": 1 })).await;
        assert_eq!(odd.code(), "BAD_USER_INPUT");
        // The key is free.
        let denied = send(&tenant, &viewer, "new", CREATE, named("Gate")).await;
        assert_eq!(denied.failure()["code"], "FORBIDDEN");
    });
}

#[test]
fn what_cannot_be_done_once_is_refused() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let two = "mutation { a: deviceCreate(input: { name: \"a\" }) { pin } b: deviceCreate(input: { name: \"b\" }) { pin } }";
        let long = "x".repeat(256);
        for (key, query) in [("k", two), ("", CREATE), (&long, CREATE), ("é", CREATE)] {
            let answer = send(&tenant, &owner, key, query, named("Gate")).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
            assert_eq!(answer.code(), "BAD_USER_INPUT", "{query}");
        }
        let twice = keyed(&tenant, &owner, "a", CREATE, named("Gate"));
        let answer = tenant.send(twice.header("Idempotency-Key", "b")).await;
        assert_eq!(answer.code(), "BAD_USER_INPUT");
        assert_eq!(devices(&tenant).await, 0);
        // It means nothing to who only reads, and nobody may do anything anyway.
        for _ in 0..2 {
            let read = "{ tenant { devices { nodes { name } } } }";
            let answer = send(&tenant, &owner, "k", read, Value::Null).await;
            answer.data();
            assert_eq!(answer.header("Idempotency-Replayed"), "");
        }
        let nobody = tenant.request(Method::POST, "/graphql");
        let nobody = nobody.header("Idempotency-Key", "k");
        let body = json!({ "query": CREATE, "variables": named("Gate") });
        let answer = tenant.send(nobody.json(&body)).await;
        assert_eq!(answer.code(), "UNAUTHENTICATED");
        assert_eq!(
            tenant.count("SELECT count(*) FROM idempotency_key").await,
            0
        );
    });
}

/// To sign in again is no harm, and a token is not kept for it.
#[test]
fn signing_in_takes_any_key_and_keeps_none() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let query = "mutation($e: String!, $p: String!) { sessionCreate(input: { email: $e, password: $p }) { token errors { code } } }";
        let email = format!("owner@{}.test", tenant.slug);
        let variables = json!({ "e": email, "p": PASSWORD });
        let mut tokens = vec![owner.clone()];
        for _ in 0..2 {
            let signed_in = send(&tenant, &owner, "k", query, variables.clone()).await;
            assert_eq!(signed_in.header("Idempotency-Replayed"), "");
            let token = signed_in.payload()["token"].as_str().unwrap().to_owned();
            // Its key is nobody's.
            let made = send(&tenant, &token, "k", CREATE, named("Gate")).await;
            assert_eq!(made.payload()["errors"], json!([]));
            tokens.push(token);
        }
        tokens.sort();
        tokens.dedup();
        assert_eq!(tokens.len(), 3);
        let keys = "SELECT count(*) FROM idempotency_key";
        assert_eq!((tenant.count(keys).await, devices(&tenant).await), (1, 1));
    });
}

/// Whatever the answer is asked for as.
#[test]
fn an_event_stream_is_answered_once_too() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let first = send(&tenant, &owner, "k", CREATE, named("Gate")).await;
        let id = first.payload()["device"]["id"].to_string();
        for (name, wanted) in [("Gate", id.as_str()), ("Door", "\"CONFLICT\"")] {
            let request = keyed(&tenant, &owner, "k", CREATE, named(name));
            let request = request.header("Accept", "text/event-stream");
            let events = request.send().await.unwrap().text().await.unwrap();
            assert!(events.contains(wanted), "{events} has no {wanted}");
        }
        assert_eq!(devices(&tenant).await, 1);
    });
}

/// A change that can be taken back.
async fn change(tenant: &Tenant, owner: &str, device: &str) -> String {
    let update = format!(
        r#"mutation {{ deviceUpdate(input: {{ deviceId: "{device}", name: "Door" }}) {{ errors {{ code }} }} }}"#
    );
    tenant.gql(Some(owner), &update).await.data();
    let newest = format!(
        r#"{{ node(id: "{device}") {{ ... on Device {{ history(first: 1) {{ nodes {{ id }} }} }} }} }}"#
    );
    let newest = tenant.gql(Some(owner), &newest).await;
    let id = &newest.payload()["history"]["nodes"][0]["id"];
    id.as_str().unwrap().to_owned()
}

/// A job that waits.
async fn waiting(tenant: &Tenant, owner: &str) -> String {
    let pause = format!(
        "UPDATE bulkhead.lane SET paused = 'it is to wait' WHERE tenant_id = '{}'",
        tenant.row.id
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(pause))
        .execute(&mut tenant.superuser().await)
        .await
        .unwrap();
    let made = tenant.upload(owner).await;
    let put = tenant.follow(Method::PUT, made["upload"]["url"].as_str().unwrap());
    tenant.send(put.body(crate::harness::png())).await;
    let media = made["media"]["id"].as_str().unwrap();
    let completed = tenant.complete_upload(owner, media).await;
    completed["job"]["id"].as_str().unwrap().to_owned()
}

const SCHEDULE: &str =
    "scheduleCreate(input: { kind: \"media.sweep\", expression: \"30 4 * * *\" })";

/// A new schedule's id.
async fn schedule(tenant: &Tenant, owner: &str) -> String {
    let query = format!("mutation {{ {SCHEDULE} {{ schedule {{ id }} }} }}");
    let made = tenant.gql(Some(owner), &query).await;
    made.payload()["schedule"]["id"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// The mutations of the schema, but that which there is no actor for yet.
fn exposed() -> Vec<String> {
    let schema = include_str!("../../../../schema.graphql");
    let definitions = parse_schema(schema).unwrap().definitions.into_iter();
    let mut fields = definitions.filter_map(|definition| match definition {
        TypeSystemDefinition::Type(kind) if kind.node.name.node == "Mutation" => {
            Some(kind.node.kind)
        }
        _ => None,
    });
    let Some(TypeKind::Object(mutation)) = fields.next() else {
        panic!("no mutations");
    };
    let names = mutation.fields.iter().map(|f| f.node.name.node.to_string());
    let mut exposed: Vec<_> = names.filter(|name| name != "sessionCreate").collect();
    exposed.sort();
    exposed
}

/// Each mutation claims its key where it writes.
#[test]
fn every_mutation_is_done_once() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let (device, ..) = tenant.device(&owner).await;
        let made = tenant.upload(&owner).await;
        let put = tenant.follow(Method::PUT, made["upload"]["url"].as_str().unwrap());
        let put = tenant.send(put.body(crate::harness::png())).await;
        assert_eq!(put.status, StatusCode::CREATED);
        let media = made["media"]["id"].as_str().unwrap();
        let (change, job) = (
            change(&tenant, &owner, &device).await,
            waiting(&tenant, &owner).await,
        );
        let (gone, kept) = (
            schedule(&tenant, &owner).await,
            schedule(&tenant, &owner).await,
        );
        let mutations = [
            ("changeRevert", format!("changeRevert(input: {{ changeId: \"{change}\" }}) {{ change {{ id }} errors {{ code }} }}")),
            ("changesExport", "changesExport(input: {}) { job { id kind } errors { code } }".to_owned()),
            ("deviceCreate", "deviceCreate(input: { name: \"Gate\" }) { device { id } errors { code } }".to_owned()),
            ("deviceUpdate", format!("deviceUpdate(input: {{ deviceId: \"{device}\", name: \"Gate\" }}) {{ device {{ id }} errors {{ code }} }}")),
            ("jobCancel", format!("jobCancel(input: {{ jobId: \"{job}\" }}) {{ job {{ id state }} errors {{ code }} }}")),
            ("jobRetry", format!("jobRetry(input: {{ jobId: \"{job}\" }}) {{ job {{ id state }} errors {{ code }} }}")),
            ("mediaCompleteUpload", format!("mediaCompleteUpload(input: {{ mediaId: \"{media}\" }}) {{ media {{ id }} job {{ id }} errors {{ code }} }}")),
            ("mediaCreateUpload", "mediaCreateUpload(input: { resourceType: \"photo\", filename: \"f\", contentType: \"image/png\", size: 1 }) { media { id } upload { url } errors { code } }".to_owned()),
            ("scheduleCreate", format!("{SCHEDULE} {{ schedule {{ id }} errors {{ code }} }}")),
            ("scheduleDelete", format!("scheduleDelete(input: {{ scheduleId: \"{gone}\" }}) {{ deletedScheduleId errors {{ code }} }}")),
            ("scheduleUpdate", format!("scheduleUpdate(input: {{ scheduleId: \"{kept}\", enabled: false }}) {{ schedule {{ id enabled }} errors {{ code }} }}")),
            // Last: it ends the session that would ask again.
            ("sessionRevoke", "sessionRevoke(input: {}) { revokedCount errors { code } }".to_owned()),
        ];
        for (name, field) in &mutations {
            let query = format!("mutation {{ {field} }}");
            let first = send(&tenant, &owner, name, &query, Value::Null).await;
            assert_eq!(first.payload()["errors"], json!([]), "{name}");
            let again = send(&tenant, &owner, name, &query, Value::Null).await;
            if *name == "sessionRevoke" {
                assert_eq!(again.status, StatusCode::UNAUTHORIZED);
            } else {
                is_replay(&again, &first);
            }
        }
        let keys = tenant.count("SELECT count(*) FROM idempotency_key");
        assert_eq!(usize::try_from(keys.await).unwrap(), mutations.len());
        assert_eq!(exposed(), mutations.map(|(name, _)| name.to_owned()));
    });
}

#[test]
fn of_a_hundred_at_once_on_two_servers_one_is_done() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let world = tenant.world.beside(|_| {}).await;
        let beside = Tenant {
            world,
            slug: tenant.slug.clone(),
            row: tenant.row.clone(),
        };
        let answers = join_all((0..100).map(|number| {
            let server = if number % 2 == 0 { &tenant } else { &beside };
            send(server, &owner, "once", CREATE, named("Gate"))
        }))
        .await;
        assert_eq!(devices(&tenant).await, 1);
        let first = send(&tenant, &owner, "once", CREATE, named("Gate")).await;
        let mut done = 0;
        for answer in &answers {
            match answer.status {
                StatusCode::OK if answer.body == first.body => done += 1,
                StatusCode::CONFLICT => {
                    assert_eq!(answer.code(), "CONFLICT");
                    assert_eq!(answer.header("Retry-After"), "1");
                }
                status => panic!("{status} {:#}", answer.body),
            }
        }
        assert!(done > 0);
        let trail = "SELECT count(*) FROM history WHERE subject_type = 'device'";
        assert_eq!(tenant.count(trail).await, 1);
    });
}

/// A request holds one at a time, whether the mutation writes or fails.
#[test]
fn one_connection_is_enough() {
    run(async {
        let here = Tenant::new().await;
        let owner = here.token(BuiltIn::Owner).await;
        let (device, ..) = here.device(&owner).await;
        let world = here.world.beside(|config| config.max_connections = 1).await;
        let tenant = Tenant { world, ..here };
        for (version, code) in [(1, Value::Null), (9, json!("VERSION_CONFLICT"))] {
            let variables = json!({ "id": device, "name": "Gate", "if": version });
            let key = version.to_string();
            let first = send(&tenant, &owner, &key, UPDATE, variables.clone()).await;
            assert_eq!(first.payload()["errors"][0]["code"], code);
            let again = send(&tenant, &owner, &key, UPDATE, variables).await;
            is_replay(&again, &first);
        }
    });
}

#[test]
fn after_a_day_a_key_is_forgotten() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let create = async |key: &str| {
            let made = send(&tenant, &owner, key, CREATE, named("Gate")).await;
            made.payload()["device"]["id"].clone()
        };
        let (first, second) = (create("first").await, create("second").await);
        tenant
            .sql("UPDATE idempotency_key SET created_at = now() - interval '23 hours 50 minutes'")
            .await;
        assert_eq!(create("first").await, first);
        tenant
            .sql("UPDATE idempotency_key SET created_at = now() - interval '24 hours 1 minute'")
            .await;
        let anew = create("first").await;
        assert_ne!(anew, first);
        assert_eq!(create("first").await, anew);
        assert_eq!(devices(&tenant).await, 3);

        let keys = "SELECT count(*) FROM idempotency_key";
        assert_eq!(tenant.count(keys).await, 2);
        let tx = tenant.world.app.services.database.platform().await.unwrap();
        let sweep = jobs::enqueue_platform(&tx, &ForgetKeys {}, "system:tests");
        sweep.await.unwrap();
        tx.commit().await.unwrap();
        until("a job removes the old", async || {
            (tenant.count(keys).await == 1).then_some(())
        })
        .await;
        assert_ne!(create("second").await, second);
    });
}

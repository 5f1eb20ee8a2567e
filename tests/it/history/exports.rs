//! Exports by a job: a file for those alone who may read the trail, whole and once, and for a week.

use super::erasing::{EMAIL, erase, jane};
use super::exporting::{each_once, lines};
use super::{adding, entries, read, row, write};
use crate::harness::{Answer, Process, Tenant, World, run, until};
use crate::tenancy::set;
use bulkhead::graphql::global_id;
use bulkhead::identity::BuiltIn;
use bulkhead::jobs::{self, Worker};
use bulkhead::media::jobs::Sweep;
use bulkhead::resources;
use nix::sys::signal::Signal;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A tenant in a world without a worker, and its owner's token.
async fn private() -> (Tenant, String) {
    // An export that is held up holds one.
    let world = World::private(|config| config.max_connections = 4).await;
    let tenant = Tenant::of(world).await;
    let owner = tenant.token(BuiltIn::Owner).await;
    (tenant, owner)
}

async fn worker(tenant: &Tenant) -> Worker {
    let services = Arc::clone(&tenant.world.app.services);
    Worker::start(services, resources::jobs()).await
}

/// What the store has of exports of the tenant, what is not whole included.
fn objects(tenant: &Tenant) -> Vec<PathBuf> {
    let folder = tenant.world.data_dir.join("media").join(&tenant.slug);
    let files = fs::read_dir(folder.join("_exports")).into_iter().flatten();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

/// The object of an export.
fn is_of(object: &Path, export: &Value) -> bool {
    let id = row(export["id"].as_str().unwrap()).to_string();
    let name = object.file_name().unwrap().to_str().unwrap();
    name == format!("{id}.jsonl") || name == format!("{id}.csv")
}

/// What its link gives.
async fn download(tenant: &Tenant, export: &Value) -> Answer {
    let link = export["url"].as_str().unwrap();
    let response = tenant.follow(Method::GET, link).send().await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let body = Value::String(response.text().await.unwrap());
    Answer {
        status,
        headers,
        body,
    }
}

async fn text(tenant: &Tenant, export: &Value) -> String {
    let answer = download(tenant, export).await;
    assert_eq!(answer.status, StatusCode::OK, "{:#}", answer.body);
    answer.body.as_str().unwrap().to_owned()
}

/// A transaction that holds what the statement takes.
async fn holding(tenant: &Tenant, statement: &str) -> PgConnection {
    let mut held = tenant.superuser().await;
    let begin = AssertSqlSafe(format!("BEGIN; {statement}"));
    sqlx::raw_sql(begin).execute(&mut held).await.unwrap();
    held
}

/// Waits until somebody waits for a lock of this table.
async fn waited_for(tenant: &Tenant, table: &str) {
    let waiting = format!(
        "SELECT count(*)::text FROM pg_locks WHERE NOT granted AND relation = '{table}'::regclass"
    );
    let mut superuser = tenant.superuser().await;
    until(&format!("somebody waits for {table}"), async || {
        let count = sqlx::query_scalar::<_, String>(AssertSqlSafe(waiting.clone()));
        let count = count.fetch_one(&mut superuser).await.unwrap();
        (count != "0").then_some(())
    })
    .await;
}

async fn sweep(tenant: &Tenant, owner: &str) {
    let tx = tenant.write().await;
    let job = jobs::enqueue(&tx, &Sweep {}).await.unwrap();
    tx.commit().await.unwrap();
    let job = global_id::<jobs::graphql::Job>(job).0;
    tenant.export_is(owner, &job, "SUCCEEDED").await;
}

async fn now(tenant: &Tenant) -> String {
    let now =
        "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
    read(tenant, now).await
}

#[test]
fn an_export_has_each_entry_once_and_is_in_the_trail() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        write(&tenant, &adding(2100)).await;
        let from = now(&tenant).await;
        write(&tenant, &adding(3)).await;
        let until = now(&tenant).await;
        write(&tenant, &adding(2)).await;
        let count = entries(&tenant).await as usize;
        let query = "mutation { changesExport(input: {}) { job { id state } errors { code } } }";
        let request = tenant
            .request(Method::POST, "/graphql")
            .bearer_auth(&owner)
            .header("X-Change-Reason", "for the auditor")
            .json(&json!({ "query": query }));
        let asked = tenant.send(request).await;
        let job = asked.payload()["job"]["id"].as_str().unwrap().to_owned();
        let done = tenant.export_is(&owner, &job, "SUCCEEDED").await;
        assert_eq!(done["attempts"], 1);
        let file = &done["result"];
        let said = |field: &str| file[field].as_str().unwrap().to_owned();
        assert_eq!(said("contentType"), "application/x-ndjson");
        assert_eq!(said("resourceType"), "_exports");
        assert_eq!(file["uploadedBy"]["reason"], "a job");
        let name = said("filename");
        assert!(
            name.starts_with(&format!("{}-changes-", tenant.slug)) && name.ends_with("Z.jsonl")
        );
        let text_of_all = text(&tenant, file).await;
        each_once(&lines(&text_of_all), count);
        assert_eq!(file["size"], text_of_all.len());
        let sum = bulkhead::secret::hex(&Sha256::digest(&text_of_all));
        assert_eq!(said("sha256"), sum);

        let some = json!({ "format": "CSV", "from": from, "until": until });
        let table = tenant.export(&owner, some).await["result"].clone();
        assert_eq!(table["contentType"], "text/csv");
        let answer = download(&tenant, &table).await;
        assert_eq!(answer.header("Cache-Control"), "no-store");
        let shown = answer.header("Content-Disposition");
        assert!(
            shown.starts_with("attachment;") && shown.ends_with("Z.csv"),
            "{shown}"
        );
        let table = answer.body.as_str().unwrap();
        assert!(table.starts_with("id,recorded_at,subject_type,"), "{table}");
        assert_eq!(table.matches("\r\n").count(), 4, "{table}");
        taken_along(&tenant, &owner, file).await;

        let query = "mutation($from: DateTime!) { changesExport(input: { from: $from, until: $from }) { job { id } errors { code field } } }";
        let refused = tenant
            .gql_with(Some(&owner), query, json!({ "from": from }))
            .await;
        let told = json!({ "code": "INVALID", "field": ["input", "from"] });
        assert_eq!(*refused.failure(), told);
    });
}

#[test]
fn what_is_being_written_is_waited_for() {
    run(async {
        let (tenant, owner) = private().await;
        let writing = format!("SET LOCAL bulkhead.actor = 'system:tests'; {}", adding(1));
        let mut writing = holding(&tenant, &writing).await;
        let job = tenant.ask_export(&owner, json!({})).await;
        let worker = worker(&tenant).await;
        tenant.export_is(&owner, &job, "RUNNING").await;
        // Whatever is asked for after it has been through the same worker's hands before.
        sweep(&tenant, &owner).await;
        assert_eq!(objects(&tenant), Vec::<PathBuf>::new(), "it waits");
        sqlx::raw_sql("COMMIT").execute(&mut writing).await.unwrap();
        let done = tenant.export_is(&owner, &job, "SUCCEEDED").await;
        let table = text(&tenant, &done["result"]).await;
        let added = lines(&table);
        let added = added.iter().filter(|line| line["row"]["name"] == "Bulk");
        assert_eq!(added.count(), 1);
        worker.stop().await;
    });
}

/// Who took the trail along is in it, and whose doing the file is.
async fn taken_along(tenant: &Tenant, owner: &str, file: &Value) {
    let query = "query($id: ID!) { tenant { changes(filter: { actions: [EXPORTED] }) { nodes {
            reason requestId subjectType snapshot actor { ... on Member { email } } } } }
        node(id: $id) { ... on Media { history { nodes { action actor { ... on SystemActor { reason } } cause { ... on Member { email } } } } } } }";
    let answer = tenant
        .gql_with(Some(owner), query, json!({ "id": file["id"] }))
        .await;
    let found = &answer.data()["tenant"]["changes"]["nodes"];
    assert_eq!(found.as_array().unwrap().len(), 2, "once each: {found:#}");
    let email = json!({ "email": format!("owner@{}.test", tenant.slug) });
    for (entry, format) in [(&found[0], "csv"), (&found[1], "jsonl")] {
        assert_eq!(entry["actor"], email);
        assert_eq!(entry["subjectType"], "Tenant");
        assert_eq!(entry["snapshot"]["format"], format);
        assert!(entry["requestId"].is_string());
    }
    assert_eq!(found[1]["reason"], "for the auditor");
    assert!(found[0]["snapshot"]["from"].is_string());
    let history = answer.data()["node"]["history"]["nodes"]
        .as_array()
        .unwrap();
    let made = history.iter().find(|entry| entry["action"] == "CREATE");
    let made = made.unwrap();
    assert_eq!(
        (&made["actor"]["reason"], &made["cause"]),
        (&json!("a job"), &email)
    );
    assert!(history.iter().any(|entry| entry["action"] == "LINK_ISSUED"));
}

#[test]
fn who_may_not_read_the_trail_sees_nothing_of_an_export() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let admin = tenant.token(BuiltIn::Admin).await;
        let member = tenant.token(BuiltIn::Member).await;
        let viewer = tenant.token(BuiltIn::Viewer).await;
        let (_, client_id, pin) = tenant.device(&owner).await;
        let device = tenant.device_auth(&client_id, &pin).await;
        let device = device.body["access_token"].as_str().unwrap().to_owned();
        let done = tenant.export(&owner, json!({})).await;
        let export = done["result"]["id"].as_str().unwrap();
        let query = "query($id: ID!, $job: ID!) { node(id: $id) { id } nodes(ids: [$id]) { id }
            job: node(id: $job) { ... on Job { state result { id url } } }
            tenant { media { totalCount nodes { id } } of: media(filter: { resourceType: \"_exports\" }) { totalCount nodes { id } } } }";
        let seen = async |token: &str| {
            let ids = json!({ "id": export, "job": done["id"] });
            tenant
                .gql_with(Some(token), query, ids)
                .await
                .data()
                .clone()
        };
        let none = json!({ "totalCount": 0, "nodes": [] });
        for token in [&member, &viewer, &device] {
            let shown = json!({ "node": null, "nodes": [null], "job": { "state": "SUCCEEDED", "result": null },
                "tenant": { "media": none, "of": none } });
            assert_eq!(seen(token).await, shown);
        }
        let shown = seen(&admin).await;
        assert_eq!(shown["job"]["result"]["id"], export);
        assert_eq!(
            shown["tenant"]["of"],
            json!({ "totalCount": 1, "nodes": [{ "id": export }] })
        );
        assert_eq!(shown["tenant"]["media"], shown["tenant"]["of"]);

        // It is no upload, and none can pass for one.
        let absent = global_id::<bulkhead::media::graphql::Media>(
            bulkhead::clock::Clock::default().new_id(),
        )
        .0;
        let complete =
            async |token: &str, id: &str| tenant.complete_upload(token, id).await["errors"].clone();
        assert_eq!(
            complete(&member, export).await,
            complete(&member, &absent).await
        );
        let told = complete(&admin, export).await;
        assert_eq!(told[0]["message"], "This upload was completed already.");
        let input = json!({ "resourceType": "_exports", "filename": "a.csv", "contentType": "text/csv", "size": 1 });
        let told = tenant.create_upload(&admin, input).await;
        assert_eq!(told["errors"][0]["field"], json!(["input", "resourceType"]));
    });
}

#[test]
fn who_may_not_read_media_has_no_result_and_no_error() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let narrowed = "UPDATE role SET permissions = '{AUDIT_READ}' WHERE name = 'viewer'";
        assert_eq!(write(&tenant, narrowed).await, 1);
        let auditor = tenant.token(BuiltIn::Viewer).await;
        let done = tenant.export(&owner, json!({})).await;
        let query = "query($id: ID!) { node(id: $id) { ... on Job { state result { id } } } }";
        let ids = json!({ "id": done["id"] });
        let seen = tenant.gql_with(Some(&auditor), query, ids).await;
        let shown = json!({ "state": "SUCCEEDED", "result": null });
        assert_eq!(seen.data()["node"], shown);
        let asked = tenant.export(&auditor, json!({})).await;
        assert_eq!(asked["state"], "SUCCEEDED", "it is there for others");
    });
}

#[test]
fn an_export_that_there_is_no_room_for_fails_and_leaves_nothing() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        // Full from the first byte; and full once it is written.
        for limit in [0, 10] {
            set(&tenant, &["--limit", &format!("media_bytes={limit}")]).await;
            let job = tenant.ask_export(&owner, json!({})).await;
            let failed = tenant.export_is(&owner, &job, "FAILED").await;
            let told = format!("The tenant's limit media_bytes is {limit}, and 0 are used.");
            assert_eq!(failed["lastError"], told);
            assert_eq!(objects(&tenant), Vec::<PathBuf>::new());
        }
    });
}

#[test]
fn an_export_that_is_cancelled_leaves_nothing_and_can_begin_anew() {
    run(async {
        let (tenant, owner) = private().await;
        let job = tenant.ask_export(&owner, json!({})).await;
        let held = holding(&tenant, "LOCK TABLE history").await;
        let worker = worker(&tenant).await;
        tenant.export_is(&owner, &job, "RUNNING").await;
        waited_for(&tenant, "history").await;
        let change = async |what: &str| {
            let query = format!(
                "mutation($id: ID!) {{ {what}(input: {{ jobId: $id }}) {{ errors {{ message }} }} }}"
            );
            let told = tenant
                .gql_with(Some(&owner), &query, json!({ "id": job }))
                .await;
            assert_eq!(told.payload()["errors"], json!([]));
        };
        change("jobCancel").await;
        let ended = tenant.export_is(&owner, &job, "CANCELLED").await;
        assert_eq!(ended["lastError"], "The export was cancelled.");
        held.close().await.unwrap();
        assert!(objects(&tenant).is_empty());
        change("jobRetry").await;
        let done = tenant.export_is(&owner, &job, "SUCCEEDED").await;
        assert_eq!(objects(&tenant).len(), 1);
        text(&tenant, &done["result"]).await;
        worker.stop().await;
    });
}

#[test]
fn a_worker_that_is_killed_leaves_one_export_and_nothing_that_is_not_swept() {
    run(async {
        let (tenant, owner) = private().await;
        write(&tenant, &adding(20)).await;
        let count = entries(&tenant).await as usize;
        let job = tenant.ask_export(&owner, json!({})).await;
        // It has written the object, and cannot make the row.
        let held = holding(&tenant, "LOCK TABLE media IN SHARE ROW EXCLUSIVE MODE").await;
        let mut killed = Process::start(tenant.world.command().arg("worker"));
        waited_for(&tenant, "media").await;
        killed.signal(Signal::SIGKILL);
        killed.ended().await;
        let orphan = objects(&tenant);
        assert_eq!(orphan.len(), 1);
        let lost =
            "UPDATE bulkhead.job SET lease_until = now() - interval '1 second' WHERE state = 2";
        assert_eq!(tenant.sql(lost).await, 1);
        held.close().await.unwrap();
        let worker = worker(&tenant).await;
        let done = tenant.export_is(&owner, &job, "SUCCEEDED").await;
        assert_eq!(done["attempts"], 2);
        each_once(&lines(&text(&tenant, &done["result"]).await), count);
        assert_eq!(tenant.count("SELECT count(*) FROM media").await, 1);
        assert_eq!(objects(&tenant).len(), 2);

        // What was killed while it wrote leaves its part beside the objects.
        let part = |name: &str| {
            let part = orphan[0].with_file_name(name);
            fs::write(&part, "half").unwrap();
            part
        };
        let old = [orphan[0].clone(), part("a.jsonl#1"), part("b.bin#12")];
        let kept = part("a.jsonl#2");
        let then = SystemTime::now() - Duration::from_hours(4);
        for path in objects(&tenant).iter().filter(|path| **path != kept) {
            let file = File::options().write(true).open(path).unwrap();
            file.set_modified(then).unwrap();
        }
        sweep(&tenant, &owner).await;
        let left = objects(&tenant);
        assert!(
            left.contains(&kept) && left.len() == 2,
            "{left:?} of {old:?}"
        );
        assert!(left.iter().any(|object| is_of(object, &done["result"])));
        worker.stop().await;
    });
}

#[test]
fn an_export_does_not_outlive_whoever_is_erased() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        jane(&tenant, &owner).await;
        let done = tenant.export(&owner, json!({})).await;
        assert!(text(&tenant, &done["result"]).await.contains(EMAIL));
        let (code, said) = erase(&tenant, &[EMAIL, "--reason", "request 7", "--yes"]);
        assert_eq!(code, Some(0), "{said}");
        assert!(
            said.contains("1 exports of the trail are removed"),
            "{said}"
        );
        assert!(objects(&tenant).is_empty());
        let job = done["id"].as_str().unwrap();
        let now = tenant.export_is(&owner, job, "SUCCEEDED").await;
        assert_eq!(now["result"], Value::Null);
        let gone = download(&tenant, &done["result"]).await;
        assert_eq!(gone.status, StatusCode::NOT_FOUND);
        let again = tenant.export(&owner, json!({})).await;
        let text = text(&tenant, &again["result"]).await;
        assert!(!text.contains(EMAIL) && text.contains("erased"));
    });
}

#[test]
fn an_export_during_which_somebody_is_erased_begins_anew() {
    run(async {
        let (tenant, owner) = private().await;
        let job = tenant.ask_export(&owner, json!({})).await;
        let history = holding(&tenant, "LOCK TABLE history").await;
        let worker = worker(&tenant).await;
        waited_for(&tenant, "history").await;
        // Its turn to end does not come before the erasure is there.
        let turn = holding(&tenant, "SELECT FROM role FOR UPDATE").await;
        history.close().await.unwrap();
        let first = until("it is written", async || {
            let objects = objects(&tenant);
            let whole = objects
                .iter()
                .find(|path| !path.to_string_lossy().contains('#'));
            whole.cloned()
        })
        .await;
        until("its progress is told", async || {
            let running = tenant.export_is(&owner, &job, "RUNNING").await;
            (running["progress"] == 1.0).then_some(())
        })
        .await;
        let erased = "SELECT record_event('member', gen_random_uuid(), 'erased', '{}')";
        tenant.sql(erased).await;
        turn.close().await.unwrap();
        let done = tenant.export_is(&owner, &job, "SUCCEEDED").await;
        assert!(!first.exists());
        let left = objects(&tenant);
        assert!(
            left.len() == 1 && is_of(&left[0], &done["result"]),
            "{left:?}"
        );
        assert_eq!(tenant.count("SELECT count(*) FROM media").await, 1);
        worker.stop().await;
    });
}

#[test]
fn an_export_is_there_for_a_week() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let old = tenant.export(&owner, json!({})).await["result"].clone();
        let earlier = "UPDATE media SET created_at = now() - interval '170 hours'";
        assert_eq!(tenant.sql(earlier).await, 1);
        let new = tenant.export(&owner, json!({})).await["result"].clone();
        let earlier = "UPDATE media SET created_at = now() - interval '160 hours' WHERE created_at > now() - interval '1 hour'";
        assert_eq!(tenant.sql(earlier).await, 1);
        sweep(&tenant, &owner).await;
        let left = objects(&tenant);
        assert!(left.len() == 1 && is_of(&left[0], &new), "{left:?}");
        assert_eq!(download(&tenant, &old).await.status, StatusCode::NOT_FOUND);
        text(&tenant, &new).await;
        assert_eq!(tenant.count("SELECT count(*) FROM media").await, 1);
    });
}

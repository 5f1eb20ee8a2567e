//! Exports, and the stream of all trails to a receiver: each entry arrives, whatever the receiver does.

use super::sealing::audit;
use super::{adding, entries, read, write};
use crate::harness::{Tenant, World, run, until};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use bulkhead::config::AuditStream;
use bulkhead::history::stream::Streamer;
use bulkhead::identity::BuiltIn;
use secrecy::SecretString;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub(super) fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

#[test]
fn an_export_has_each_entry_once_and_is_in_the_trail() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        write(&tenant, &adding(1500)).await;
        write(&tenant, "UPDATE device SET name = '=cmd|''say \"hi\"''' WHERE id = (SELECT id FROM device LIMIT 1)").await;
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("trail");
        let path = file.to_str().unwrap();
        let count = entries(&tenant).await as usize;
        let export = |args: &[&str]| {
            let all = [&["export", &tenant.slug, "--output", path], args].concat();
            audit(tenant.world, &all, "")
        };
        let (code, said) = export(&["--reason", "for the auditor"]);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains(&format!("{count} entries of ")), "{said}");
        let all = lines(&fs::read_to_string(&file).unwrap());
        each_once(&all, count);
        let query =
            "{ tenant { changes(first: 1) { nodes { action reason subjectType snapshot } } } }";
        let newest =
            tenant.gql(Some(&owner), query).await.data()["tenant"]["changes"]["nodes"][0].clone();
        assert_eq!(
            (&newest["action"], &newest["reason"]),
            (&json!("EXPORTED"), &json!("for the auditor"))
        );
        assert_eq!(newest["snapshot"]["format"], "jsonl");

        let (code, said) = export(&["--format", "csv"]);
        assert_eq!(code, Some(0), "{said}");
        let table = fs::read_to_string(&file).unwrap();
        assert!(table.starts_with("id,recorded_at,subject_type,"), "{table}");
        assert_eq!(
            table.matches("\r\n").count(),
            count + 2,
            "a header, and the export before"
        );
        let now = all.last().unwrap()["recorded_at"].as_str().unwrap();
        let (_, said) = export(&["--from", now]);
        assert!(said.starts_with("3 entries"), "{said}");
        let (_, said) = export(&["--to", "2020-01-31"]);
        assert!(said.starts_with("0 entries"), "{said}");
        let (code, said) = export(&["--from", "yesterday"]);
        assert_eq!(code, Some(2), "{said}");
        assert_eq!(
            fs::read_dir(home.path()).unwrap().count(),
            1,
            "nothing half is left"
        );
        let (code, said) = audit(
            tenant.world,
            &["export", &tenant.slug, "--output", "/nowhere/at/all"],
            "",
        );
        assert_eq!(code, Some(1));
        assert!(said.contains("/nowhere/at/all cannot be written"), "{said}");
    });
}

#[test]
fn what_is_being_written_is_waited_for() {
    run(async {
        let (tenant, other) = (Tenant::new().await, Tenant::new().await);
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("trail");
        let export = |tenant: &Tenant, file: &Path| {
            let (slug, file) = (tenant.slug.clone(), file.to_str().unwrap().to_owned());
            let world = tenant.world;
            std::thread::spawn(move || audit(world, &["export", &slug, "--output", &file], ""))
        };
        let mut writing = tenant.superuser().await;
        let begun = format!(
            "BEGIN; SET LOCAL bulkhead.actor = 'system:tests'; {}",
            adding(1)
        );
        let begun = sqlx::raw_sql(sqlx::AssertSqlSafe(begun));
        begun.execute(&mut writing).await.unwrap();
        let waiting = export(&tenant, &file);
        until("it is in the trail", async || {
            let exported = "SELECT count(*)::text FROM history WHERE action = 'exported'";
            (read(&tenant, exported).await == "1").then_some(())
        })
        .await;
        // Another's takes as long from its very start.
        let others = export(&other, &home.path().join("other")).join().unwrap();
        assert_eq!(others.0, Some(0), "{}", others.1);
        assert!(!file.exists(), "it waits");
        sqlx::raw_sql("COMMIT").execute(&mut writing).await.unwrap();
        let (code, said) = waiting.join().unwrap();
        assert_eq!(code, Some(0), "{said}");
        let table = fs::read_to_string(&file).unwrap();
        assert!(table.contains("\"Bulk\""), "{table}");
    });
}

/// The lines are so many entries in the order of the trail, without what only the chain needs.
pub(super) fn each_once(lines: &[Value], count: usize) {
    let text = |line: &Value, field: &str| line[field].as_str().unwrap_or_default().to_owned();
    let ids: BTreeSet<_> = lines.iter().map(|line| text(line, "id")).collect();
    assert_eq!((lines.len(), ids.len()), (count, count));
    assert!(lines.iter().all(|line| line.get("salt").is_none()));
    assert!(lines.is_sorted_by_key(|line| text(line, "recorded_at")));
}

/// Seals what there is.
fn seal(world: &World) {
    let (code, said) = audit(world, &["anchor"], "");
    assert_eq!(code, Some(0), "{said}");
}

async fn received(tenant: &Tenant) -> i64 {
    tenant
        .count("SELECT coalesce(sum(number), 0)::bigint FROM bulkhead.audit_stream")
        .await
}

fn numbers(lines: &[Value], tenant: &Tenant) -> Vec<i64> {
    let own = lines
        .iter()
        .filter(|line| line["tenant"] == tenant.slug.as_str());
    own.map(|line| line["number"].as_i64().unwrap()).collect()
}

#[test]
fn a_file_gets_each_line_and_mends_what_was_torn() {
    run(async {
        let world = World::private(|_| {}).await;
        let tenant = Tenant::of(world).await;
        write(&tenant, &adding(5)).await;
        seal(world);
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("trails.jsonl");
        fs::write(&file, "{\"torn\": ").unwrap();
        let to = AuditStream {
            file: Some(file.clone()),
            ..AuditStream::default()
        };
        let database = world.app.services.database.clone();
        let streamer = Streamer::start(database.clone(), &to);
        let read = |file: &Path| fs::read_to_string(file).unwrap();
        let count = i64::from(entries(&tenant).await);
        until("all is received", async || {
            (received(&tenant).await == count).then_some(())
        })
        .await;
        assert_eq!(
            numbers(&lines(&read(&file)), &tenant),
            (1..=count).collect::<Vec<_>>()
        );
        drop(streamer);
        write(&tenant, &adding(2)).await;
        let other = Tenant::of(world).await;
        seal(world);
        let streamers = [0; 2].map(|_| Streamer::start(database.clone(), &to));
        let both = count + 2 + i64::from(entries(&other).await);
        until("the rest is", async || {
            (received(&tenant).await == both).then_some(())
        })
        .await;
        drop(streamers);
        let all = lines(&read(&file));
        assert_eq!(
            i64::try_from(all.len()).unwrap(),
            both,
            "once, for nothing went wrong"
        );
        assert_eq!(numbers(&all, &tenant), (1..=count + 2).collect::<Vec<_>>());
        assert!(
            all.iter()
                .all(|line| line["link"].as_str().unwrap().len() == 64)
        );
    });
}

/// A receiver: what it took, and what it still does before it takes anything.
#[derive(Debug, Default)]
struct Receiver {
    lines: Mutex<Vec<Value>>,
    moods: Mutex<Vec<Mood>>,
}

#[derive(Clone, Copy, Debug)]
enum Mood {
    /// Says that it cannot.
    Refuses,
    /// Takes it, and says that it could not.
    TakesAndFails,
    /// Takes it, and is gone before it says so.
    TakesAndDies,
}

async fn take(
    State(receiver): State<Arc<Receiver>>,
    headers: HeaderMap,
    body: String,
) -> StatusCode {
    assert_eq!(headers["content-type"], "application/x-ndjson");
    assert_eq!(headers["authorization"], "Bearer the-token");
    let mood = receiver.moods.lock().unwrap().pop();
    if !matches!(mood, Some(Mood::Refuses)) {
        receiver.lines.lock().unwrap().extend(lines(&body));
    }
    match mood {
        None => StatusCode::ACCEPTED,
        Some(Mood::TakesAndDies) => panic!("the receiver dies"),
        Some(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

async fn serve(receiver: &Arc<Receiver>, address: &str) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let router = Router::new()
        .route("/trails", post(take))
        .with_state(Arc::clone(receiver));
    let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (address, task)
}

#[test]
fn a_receiver_that_fails_repeats_and_dies_gets_all_in_the_end() {
    run(async {
        let world = World::private(|_| {}).await;
        let tenant = Tenant::of(world).await;
        let receiver = Arc::new(Receiver::default());
        *receiver.moods.lock().unwrap() =
            vec![Mood::TakesAndDies, Mood::TakesAndFails, Mood::Refuses];
        let (address, task) = serve(&receiver, "127.0.0.1:0").await;
        let to = AuditStream {
            url: Some(format!("http://{address}/trails")),
            token: Some(SecretString::from("the-token")),
            ..AuditStream::default()
        };
        for _ in 0..3 {
            write(&tenant, &adding(3)).await;
            seal(world);
        }
        let count = i64::from(entries(&tenant).await);
        let _streamer = Streamer::start(world.app.services.database.clone(), &to);
        until("all is received", async || {
            (received(&tenant).await == count).then_some(())
        })
        .await;
        let seen = numbers(&receiver.lines.lock().unwrap(), &tenant);
        assert!(
            i64::try_from(seen.len()).unwrap() > count,
            "some came again: {seen:?}"
        );
        let distinct: BTreeSet<_> = seen.iter().copied().collect();
        assert_eq!(distinct, (1..=count).collect());

        // Gone for a while, it misses nothing, and holds up no writer.
        task.abort();
        let _ = task.await;
        write(&tenant, &adding(4)).await;
        seal(world);
        assert_eq!(received(&tenant).await, count);
        let (_, _task) = serve(&receiver, &address).await;
        until("the rest is received", async || {
            (received(&tenant).await == count + 4).then_some(())
        })
        .await;
        let seen: BTreeSet<_> = numbers(&receiver.lines.lock().unwrap(), &tenant)
            .into_iter()
            .collect();
        assert_eq!(seen, (1..=count + 4).collect());
    });
}

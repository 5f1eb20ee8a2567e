//! Retention: what is older than the tenant's policy goes, what is left still proves itself and still tells of the past that it
//! reaches back to, and nothing is lost or doubled however often it is cut off.

use super::sealing::{audit, tamper};
use super::{adding, entries, read, write};
use crate::harness::{Tenant, World, cut_short, run, until};
use bulkhead::history::jobs::Retain;
use bulkhead::history::seal::{Keys, Purge, raise};
use bulkhead::identity::BuiltIn;
use bulkhead::jobs::{self, Kinds, Worker};
use chrono::TimeDelta;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor as _};
use std::sync::Arc;
use std::time::Duration;

/// Lets everything be so many days older than it is; to be done before it is sealed.
async fn age(tenant: &Tenant, days: u32) {
    let sql = format!("UPDATE history SET recorded_at = recorded_at - interval '{days} days'");
    let mut superuser = tenant.superuser().await;
    superuser.execute(AssertSqlSafe(sql)).await.unwrap();
}

fn said(tenant: &Tenant, args: &[&str], code: i32) -> String {
    let (ended, said) = audit(tenant.world, args, "");
    assert_eq!(ended, Some(code), "{args:?}: {said}");
    said
}

/// A tenant, in a world of its own without a worker, three years old: of its devices "keeps" was changed twice, "goes" was
/// removed, and "later" was changed today. All is sealed.
async fn aged() -> Tenant {
    let tenant = Tenant::of(World::private(|_| {}).await).await;
    for name in ["keeps", "goes", "later"] {
        write(&tenant, &adding(1)).await;
        let named = format!("UPDATE device SET name = '{name}' WHERE name = 'Bulk'");
        write(&tenant, &named).await;
    }
    write(
        &tenant,
        "UPDATE device SET firmware_version = '2' WHERE name = 'keeps'",
    )
    .await;
    write(&tenant, "DELETE FROM device WHERE name = 'goes'").await;
    age(&tenant, 1095).await;
    said(&tenant, &["anchor"], 0);
    write(
        &tenant,
        "UPDATE device SET firmware_version = '3' WHERE name = 'later'",
    )
    .await;
    said(&tenant, &["anchor"], 0);
    tenant
}

/// The row as it is now.
async fn fresh(tenant: &Tenant) -> Tenant {
    Tenant {
        row: Arc::new(row(tenant).await),
        ..tenant.clone()
    }
}

async fn row(tenant: &Tenant) -> bulkhead::database::Tenant {
    let tx = tenant.world.app.services.database.platform().await.unwrap();
    let row = bulkhead::tenancy::by_slug(&tx, &tenant.slug).await.unwrap();
    tx.commit().await.unwrap();
    row.unwrap()
}

/// Purges what is older than this many days, as the job does once everybody knows.
async fn purge(tenant: &Tenant, days: i64) -> bulkhead::error::Result<u64> {
    let services = &tenant.world.app.services;
    let keys = Keys::of(&services.config, &services.key).unwrap();
    let until = services.database.clock().now() - TimeDelta::days(days);
    raise(&services.database, &tenant.row, until).await?;
    let purge = Purge {
        database: &services.database,
        store: &services.store,
        keys: &keys,
        tenant: &tenant.row,
        until,
    };
    let mut all = 0;
    loop {
        match purge.some().await? {
            0 => break,
            some => all += some,
        }
    }
    Ok(all + purge.kept().await?)
}

async fn devices(tenant: &Tenant) -> String {
    let sql = "SELECT string_agg(action || ' ' || coalesce(row ->> 'name', '') || coalesce(row ->> 'firmware_version', ''), ', '
            ORDER BY recorded_at, id)
        FROM history WHERE subject_type = 'device'";
    read(tenant, sql).await
}

#[test]
fn what_is_old_goes_and_the_rest_proves_itself() {
    run(async {
        let tenant = aged().await;
        let world = tenant.world;
        let owner = tenant.token(BuiltIn::Owner).await;
        let services = Arc::clone(&world.app.services);
        let kinds = Kinds::default().with::<Retain>();
        let worker = Worker::start(services, kinds).await;
        let tx = tenant.write().await;
        jobs::enqueue(&tx, &Retain {}).await.unwrap();
        tx.commit().await.unwrap();
        let horizon = until("the horizon is raised", async || {
            row(&tenant).await.history_from
        })
        .await;

        let as_of = "query($at: DateTime!) { tenant { devices(asOf: $at, orderBy: { field: NAME }) { nodes { name firmwareVersion } } } }";
        let ask = async |at: chrono::DateTime<chrono::Utc>| {
            let variables = json!({ "at": at.to_rfc3339() });
            tenant.gql_with(Some(&owner), as_of, variables).await
        };
        let answer = until("everybody knows", async || {
            let answer = ask(horizon - TimeDelta::seconds(1)).await;
            answer.body.get("errors").is_some().then_some(answer)
        })
        .await;
        assert_eq!(answer.code(), "BAD_USER_INPUT");
        let told = answer.body["errors"][0]["message"].as_str().unwrap();
        assert!(told.starts_with("The history is kept from 20"), "{told}");
        let before = ask(horizon).await.data().clone();
        let names = "keeps 2, later ";
        assert_eq!(listed(&before), names, "nothing is gone yet");

        a_minute_later(&tenant).await;
        worker.stop().await;
        assert_eq!(
            devices(&tenant).await,
            "create Bulk, create Bulk, update later, update keeps2, update later3"
        );
        assert_eq!(ask(horizon).await.data(), &before, "the past is as it was");
        let count = entries(&tenant).await;
        let tenant = fresh(&tenant).await;
        said(&tenant, &["anchor"], 0);
        let good = said(&tenant, &["verify", &tenant.slug], 0);
        let there = format!("{}: {count} entries, 5 from before ", tenant.slug);
        assert!(
            good.starts_with(&there) && good.contains("purged: good"),
            "{good}"
        );

        // Three years on, "later" needs its old state no longer.
        purge(&tenant, -1).await.unwrap();
        assert_eq!(
            devices(&tenant).await,
            "create Bulk, create Bulk, update keeps2, update later3"
        );
        let good = said(&tenant, &["verify", &tenant.slug], 0);
        assert!(good.contains("purged: good"), "{good}");
        write(&tenant, &adding(2)).await;
        said(&tenant, &["anchor"], 0);
        said(&tenant, &["verify", &tenant.slug], 0);
    });
}

/// Lets everybody have known the horizon for long, and waits until what is older is purged.
async fn a_minute_later(tenant: &Tenant) {
    let hurry = format!(
        "UPDATE bulkhead.tenant SET history_from_set = now() - interval '2 minutes' WHERE id = '{}';
         UPDATE bulkhead.job SET run_at = now() WHERE kind = 'history.retain'",
        tenant.row.id
    );
    until("it is purged", async || {
        tamper(tenant, &hurry).await;
        let done = "SELECT count(*) FROM bulkhead.job_done WHERE kind = 'history.retain'";
        (tenant.count(done).await == 1).then_some(())
    })
    .await;
}

fn listed(data: &Value) -> String {
    let nodes = data["tenant"]["devices"]["nodes"].as_array().unwrap();
    let texts = nodes.iter().map(|node| {
        let text = |field: &str| node[field].as_str().unwrap_or_default().to_owned();
        format!("{} {}", text("name"), text("firmwareVersion"))
    });
    texts.collect::<Vec<_>>().join(", ")
}

/// What is done to what a purge has left, and what is said of it.
const TAMPERINGS: [(&str, &str); 8] = [
    (
        "UPDATE bulkhead.seal_checkpoint SET purged = purged + 1",
        "was changed, or made up",
    ),
    (
        "UPDATE bulkhead.seal_checkpoint SET link = sha256(link)",
        "was changed, or made up",
    ),
    (
        "UPDATE bulkhead.seal_checkpoint SET made_at = made_at + interval '1 s'",
        "was changed, or made up",
    ),
    (
        "UPDATE bulkhead.seal_checkpoint SET mac = sha256(mac)",
        "was changed, or made up",
    ),
    (
        "DELETE FROM bulkhead.seal_checkpoint",
        "the checkpoint that stands for them was removed",
    ),
    (
        "UPDATE bulkhead.seal_checkpoint SET entries = '{}', numbers = '{}', links = '', keys = '{}', purged = last",
        "was changed, or made up",
    ),
    (
        "DELETE FROM history WHERE row ->> 'name' = 'keeps'",
        "was removed",
    ),
    (
        "UPDATE history SET row = row || '{\"name\": \"kept\"}' WHERE row ->> 'name' = 'keeps'",
        "is not what was sealed",
    ),
];

#[test]
fn what_is_done_to_a_checkpoint_or_an_archive_is_found() {
    run(async {
        let tenant = aged().await;
        said(&tenant, &["retention", &tenant.slug, "--archive"], 0);
        let tenant = fresh(&tenant).await;
        let old = tenant
            .count("SELECT last FROM bulkhead.seal WHERE first = 1")
            .await;
        assert_eq!(purge(&tenant, 730).await.unwrap(), old.unsigned_abs());
        tamper(
            &tenant,
            "CREATE TABLE bulkhead.spare_checkpoint AS SELECT * FROM bulkhead.seal_checkpoint;
             CREATE TABLE bulkhead.spare_history AS SELECT * FROM history",
        )
        .await;
        for (sql, verdict) in TAMPERINGS {
            tamper(&tenant, sql).await;
            let told = said(&tenant, &["verify", &tenant.slug], 2);
            assert!(
                told.contains("BROKEN") && told.contains(verdict),
                "{sql}: {told}"
            );
            tamper(
                &tenant,
                "SET session_replication_role = replica;
                 DELETE FROM bulkhead.seal_checkpoint; INSERT INTO bulkhead.seal_checkpoint SELECT * FROM bulkhead.spare_checkpoint;
                 TRUNCATE history; INSERT INTO history SELECT * FROM bulkhead.spare_history",
            )
            .await;
            said(&tenant, &["verify", &tenant.slug], 0);
        }
        let told = said(&tenant, &["verify", "--archive"], 0);
        assert!(
            told.contains(&format!("{old} entries in 1 archives: good")),
            "{told}"
        );
        let archive = tenant.world.data_dir.join("media").join(&tenant.slug);
        let archive = archive.join("_history/00000000000000000001.jsonl.gz");
        let bytes = std::fs::read(&archive).unwrap();
        let text = unpacked(&bytes);
        let changed = text.replacen("\\\"keeps\\\"", "\\\"other\\\"", 1);
        assert_ne!(text, changed, "it is readable: {text}");
        std::fs::write(&archive, packed(&changed)).unwrap();
        let told = said(&tenant, &["verify", "--archive"], 2);
        assert!(told.contains("is not what was written"), "{told}");
        std::fs::remove_file(&archive).unwrap();
        let told = said(&tenant, &["verify", "--archive", "--json"], 2);
        let proofs: Value = serde_json::from_str(&told).unwrap();
        let fault = json!({ "what": "missing", "first": 1, "last": old });
        assert_eq!(proofs[0]["archive"]["fault"], fault);
    });
}

fn unpacked(bytes: &[u8]) -> String {
    let mut text = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(bytes), &mut text).unwrap();
    text
}

fn packed(text: &str) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, text.as_bytes()).unwrap();
    packed.finish().unwrap()
}

#[test]
fn what_does_not_prove_itself_is_not_purged() {
    run(async {
        let tenant = aged().await;
        tamper(
            &tenant,
            "UPDATE history SET actor = 'nobody' WHERE id = {e5}",
        )
        .await;
        let count = entries(&tenant).await;
        purge(&tenant, 730).await.unwrap_err();
        assert_eq!(entries(&tenant).await, count);
        let told = said(&tenant, &["verify", &tenant.slug], 2);
        assert!(told.contains("entry 5 ("), "{told}");
    });
}

#[test]
fn a_held_history_stays() {
    run(async {
        let tenant = aged().await;
        let told = said(
            &tenant,
            &["retention", &tenant.slug, "--days", "30", "--legal-hold"],
            0,
        );
        let line = format!("{}  30    yes         no       its beginning", tenant.slug);
        assert!(told.contains(&line), "{told}");
        let count = entries(&tenant).await;
        let services = &tenant.world.app.services;
        let worker = Worker::start(Arc::clone(services), Kinds::default().with::<Retain>()).await;
        let tx = tenant.write().await;
        jobs::enqueue(&tx, &Retain {}).await.unwrap();
        tx.commit().await.unwrap();
        until("the job is over", async || {
            let done = "SELECT count(*) FROM bulkhead.job_done WHERE kind = 'history.retain'";
            (tenant.count(done).await == 1).then_some(())
        })
        .await;
        worker.stop().await;
        assert_eq!(row(&tenant).await.history_from, None);
        // Held after it was begun.
        purge(&tenant, 30).await.unwrap();
        assert_eq!(entries(&tenant).await, count);
        let told = said(&tenant, &["retention", "--days", "1"], 1);
        assert!(told.contains("name the tenant"), "{told}");
        let told = said(&tenant, &["retention", &tenant.slug, "--days", "0"], 1);
        assert!(told.contains("for 1 to 36500 days"), "{told}");
    });
}

#[test]
fn cut_off_anywhere_it_loses_nothing_and_doubles_nothing() {
    run(async {
        let tenant = Tenant::of(World::private(|_| {}).await).await;
        write(&tenant, &adding(1)).await;
        for round in 0..25 {
            write(
                &tenant,
                &format!("UPDATE device SET name = 'round {round}'"),
            )
            .await;
            if round == 0 {
                age(&tenant, 1095).await;
            } else {
                let newest = "UPDATE history SET recorded_at = recorded_at - interval '1095 days' WHERE recorded_at > now() - interval '1 day'";
                tamper(&tenant, newest).await;
            }
            seal_all(&tenant).await;
        }
        said(&tenant, &["retention", &tenant.slug, "--archive"], 0);
        let all = entries(&tenant).await;
        let tenant = fresh(&tenant).await;
        for microseconds in (0..60).map(|step| step * 400) {
            let one = cut_short(Duration::from_micros(microseconds), purge(&tenant, 730));
            let two = cut_short(Duration::from_micros(microseconds / 2), purge(&tenant, 730));
            let _ = futures::join!(one, two);
        }
        purge(&tenant, 730).await.unwrap();
        let left = entries(&tenant).await;
        assert_eq!(
            left,
            all - 25,
            "all but the newest and the first state of the device, and that the tenant was made"
        );
        let tenant = fresh(&tenant).await;
        let told = said(&tenant, &["verify", "--archive"], 0);
        let old = all - 1;
        assert!(
            told.contains(", 25 from before ") && told.contains(&format!("{old} entries in ")),
            "{told}"
        );
    });
}

async fn seal_all(tenant: &Tenant) {
    let services = &tenant.world.app.services;
    let keys = Keys::of(&services.config, &services.key).unwrap();
    while bulkhead::history::seal::seal(&services.database, &keys, &tenant.row)
        .await
        .unwrap()
    {}
}

//! What is followed comes in order, without a gap and once, whoever wrote it and however late they commit.

use super::{Server, followed, name_of, rename};
use crate::harness::{Events, Heard, Socket, Tenant, World, run, until};
use bulkhead::graphql::parse_global_id;
use bulkhead::identity::BuiltIn;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor as _};
use std::collections::HashSet;
use std::time::Duration;
use tokio::time::timeout;

const DEVICES: &str = "subscription { deviceUpdated { id name version } }";
const CHANGES: &str = "subscription { changeRecorded { id action subjectType subjectId } }";

#[test]
fn a_hundred_changes_come_in_order_over_both() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let (device, ..) = tenant.device(&owner).await;
        let mut socket = Socket::init(&tenant, Some(&owner)).await;
        socket.subscribe("a", DEVICES).await;
        let mut events = Events::open(&tenant, Some(&owner), DEVICES).await;
        followed(&tenant, 4).await;
        for number in 0..100 {
            rename(&tenant, &owner, &device, &format!("name {number}")).await;
        }
        for number in 0..100 {
            let answer = socket.next("a").await;
            assert_eq!(name_of(&answer), format!("name {number}"));
            assert_eq!(answer, events.next().await);
        }
    });
}

/// By another server, with the connections that carry the word of it killed in the middle.
#[test]
fn a_hundred_changes_of_another_server_come_in_order() {
    run(async {
        let world = World::private(|_| ()).await;
        let tenant = Tenant::of(world).await;
        let other = Server::start(world).await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let (device, ..) = tenant.device(&owner).await;
        let mut socket = Socket::init(&tenant, Some(&owner)).await;
        socket.subscribe("a", DEVICES).await;
        let mut events = Events::open(&tenant, Some(&owner), DEVICES).await;
        followed(&tenant, 4).await;
        for number in 0..100 {
            if number % 25 == 10 {
                let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                    WHERE application_name = 'bulkhead listener' AND datname = current_database()";
                world.superuser().await.execute(kill).await.unwrap();
            }
            let query = format!(
                r#"mutation {{ deviceUpdate(input: {{ deviceId: "{device}", name: "name {number}" }}) {{ device {{ id }} }} }}"#
            );
            other.gql(&tenant, &owner, &query).await;
        }
        for number in 0..100 {
            let answer = socket.next("a").await;
            assert_eq!(name_of(&answer), format!("name {number}"));
            assert_eq!(answer, events.next().await);
        }
    });
}

/// Without it the others would look only from time to time.
#[test]
fn word_of_a_commit_reaches_the_other_servers() {
    run(async {
        let tenant = Tenant::new().await;
        let there = tenant.world.another(2).await;
        let watch = there.services.database.watch(tenant.row.id);
        // It may not listen yet, and is woken when it does: three are more than that and a word on its way.
        for _ in 0..3 {
            until("it is told", async || {
                tenant.write().await.commit().await.unwrap();
                let told = timeout(Duration::from_millis(200), watch.changed()).await;
                told.is_ok().then_some(())
            })
            .await;
        }
        drop(watch);
        there.stop().await.unwrap();
    });
}

/// What was written before what has come already, and is committed after it.
#[test]
fn who_commits_late_is_told_all_the_same_and_once() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let (early, ..) = tenant.device(&owner).await;
        let (late, ..) = tenant.device(&owner).await;
        let mut socket = Socket::init(&tenant, Some(&owner)).await;
        socket.subscribe("a", CHANGES).await;
        followed(&tenant, 2).await;
        let mut slow = tenant.superuser().await;
        let write = format!(
            "BEGIN; UPDATE device SET name = 'late' WHERE id = '{}'",
            parse_global_id(&late).unwrap().1
        );
        slow.execute(sqlx::raw_sql(AssertSqlSafe(write)))
            .await
            .unwrap();
        let mut undone = tenant.superuser().await;
        let write = "BEGIN; UPDATE member SET name = 'nobody'";
        undone.execute(sqlx::raw_sql(write)).await.unwrap();
        for number in 0..3 {
            rename(&tenant, &owner, &early, &format!("{number}")).await;
            assert_eq!(subject(&socket.next("a").await), early);
        }
        undone.execute("ROLLBACK").await.unwrap();
        slow.execute("COMMIT").await.unwrap();
        assert_eq!(subject(&socket.next("a").await), late);
        rename(&tenant, &owner, &early, "last").await;
        assert_eq!(subject(&socket.next("a").await), early);

        // Who comes later begins later.
        let mut events = Events::open(&tenant, Some(&owner), CHANGES).await;
        followed(&tenant, 4).await;
        rename(&tenant, &owner, &late, "last").await;
        assert_eq!(subject(&events.next().await), late);
        assert_eq!(subject(&socket.next("a").await), late);
    });
}

fn subject(answer: &Value) -> &str {
    let change = &answer["data"]["changeRecorded"];
    assert_eq!(change["subjectType"], "Device", "{answer:#}");
    change["subjectId"].as_str().unwrap()
}

#[test]
fn a_statement_that_writes_thousands_is_told_whole() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let mut socket = Socket::init(&tenant, Some(&owner)).await;
        socket.subscribe("a", CHANGES).await;
        followed(&tenant, 2).await;
        let rows = tenant
            .sql(
                "INSERT INTO device (id, name, client_id, pin_hash, created_at, updated_at)
                 SELECT id, 'Bulk', id::text, 'none', now(), now()
                 FROM (SELECT gen_random_uuid() AS id FROM generate_series(1, 2000)) new",
            )
            .await;
        assert_eq!(rows, 2000);
        let mut told = HashSet::new();
        for _ in 0..rows {
            let answer = socket.next("a").await;
            assert!(
                told.insert(subject(&answer).to_owned()),
                "twice: {answer:#}"
            );
        }
        tenant.sql("DELETE FROM device").await;
        for _ in 0..rows {
            let answer = socket.next("a").await;
            assert_eq!(answer["data"]["changeRecorded"]["action"], "DELETE");
            assert!(told.remove(subject(&answer)), "twice: {answer:#}");
        }
    });
}

#[test]
fn one_device_or_media_is_followed_alone() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let (one, ..) = tenant.device(&owner).await;
        let (other, ..) = tenant.device(&owner).await;
        let upload = tenant.upload(&owner).await;
        let media = upload["media"]["id"].as_str().unwrap();
        let mut socket = Socket::init(&tenant, Some(&owner)).await;
        let query = format!(r#"subscription {{ deviceUpdated(deviceId: "{one}") {{ id name }} }}"#);
        socket.subscribe("d", &query).await;
        followed(&tenant, 2).await;
        rename(&tenant, &owner, &other, "other").await;
        rename(&tenant, &owner, &one, "one").await;
        assert_eq!(
            socket.next("d").await["data"]["deviceUpdated"],
            json!({ "id": one, "name": "one" })
        );
        socket.say(json!({ "id": "d", "type": "complete" })).await;

        // From the upload on, with what a media has of others, and links.
        let query = format!(
            r#"subscription {{ mediaUpdated(mediaId: "{media}") {{ state url uploadedBy {{ ... on Member {{ email }} }} }} }}"#
        );
        let mut events = Events::open(&tenant, Some(&owner), &query).await;
        followed(&tenant, 3).await;
        let put = tenant.follow(
            reqwest::Method::PUT,
            upload["upload"]["url"].as_str().unwrap(),
        );
        tenant.send(put.body(crate::harness::png())).await;
        tenant.complete_upload(&owner, media).await;
        let email = format!("owner@{}.test", tenant.slug);
        for state in ["PROCESSING", "READY"] {
            let media = events.next().await["data"]["mediaUpdated"].clone();
            assert_eq!(media["state"], state);
            assert_eq!(media["uploadedBy"]["email"], email.as_str());
            assert_eq!(media["url"].is_string(), state == "READY");
        }
    });
}

#[test]
fn a_filter_takes_what_it_says() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let (device, ..) = tenant.device(&owner).await;
        let viewer = "{ viewer { actor { ... on Member { id } } } }";
        let member = tenant.gql(Some(&owner), viewer).await.payload()["actor"]["id"].clone();
        let mut socket = Socket::init(&tenant, Some(&owner)).await;
        let filters = [
            json!({ "actor": member, "subjectTypes": ["Device"], "actions": ["UPDATE"] }),
            json!({ "subject": device, "from": "2020-01-01T00:00:00Z", "until": "2999-01-01T00:00:00Z" }),
            json!({ "subjectTypes": ["DeviceToken", "Member"] }),
            json!({ "subject": "none" }),
            json!({ "actor": device }),
            json!({ "until": "2020-01-01T00:00:00Z" }),
        ];
        for (id, filter) in filters.iter().enumerate() {
            let query = "subscription($f: ChangeFilter) { changeRecorded(filter: $f) { subjectType action } }";
            let payload = json!({ "query": query, "variables": { "f": filter } });
            socket
                .say(json!({ "id": id.to_string(), "type": "subscribe", "payload": payload }))
                .await;
        }
        followed(&tenant, 1 + filters.len()).await;
        let told = |id: &str, kind: &str, action: &str| {
            let change = json!({ "changeRecorded": { "subjectType": kind, "action": action } });
            json!({ "id": id, "type": "next", "payload": { "data": change } }).to_string()
        };
        rename(&tenant, &owner, &device, "one").await;
        tenant.sql("UPDATE member SET name = 'somebody'").await;
        tenant.device(&owner).await;
        let mut heard = Vec::new();
        for _ in 0..3 {
            let Heard::Said(said) = socket.hear().await else {
                panic!("closed")
            };
            heard.push(said.to_string());
        }
        heard.sort();
        let wanted = [
            told("0", "Device", "UPDATE"),
            told("1", "Device", "UPDATE"),
            told("2", "Member", "UPDATE"),
        ];
        assert_eq!(heard, wanted);
        // Nothing else was on its way.
        rename(&tenant, &owner, &device, "two").await;
        for _ in 0..2 {
            let Heard::Said(said) = socket.hear().await else {
                panic!("closed")
            };
            assert!(wanted[..2].contains(&said.to_string()), "{said:#}");
        }
    });
}

#[test]
fn jobs_are_followed_from_what_they_are_now() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let mut all = Socket::init(&tenant, Some(&owner)).await;
        all.subscribe(
            "j",
            "subscription { jobUpdated { id kind state attempts } }",
        )
        .await;
        followed(&tenant, 2).await;
        let photo = tenant.photo(&owner).await;
        let job = photo["job"].as_str().unwrap();
        until("the job is told to the end", async || {
            let told = all.next("j").await["data"]["jobUpdated"].clone();
            assert_eq!(
                (&told["id"], &told["kind"]),
                (&json!(job), &json!("media.process"))
            );
            (told["state"] == "SUCCEEDED").then_some(())
        })
        .await;
        let query =
            format!(r#"subscription {{ jobUpdated(jobId: "{job}") {{ state attempts }} }}"#);
        let mut events = Events::open(&tenant, Some(&owner), &query).await;
        let now = json!({ "state": "SUCCEEDED", "attempts": 1 });
        assert_eq!(events.next().await["data"]["jobUpdated"], now);

        // What no code of ours has written.
        let change = format!(
            "UPDATE bulkhead.job_done SET state = 4, attempt = 8 WHERE id = '{}'",
            parse_global_id(job).unwrap().1
        );
        tenant
            .superuser()
            .await
            .execute(AssertSqlSafe(change))
            .await
            .unwrap();
        let now = json!({ "state": "FAILED", "attempts": 8 });
        assert_eq!(events.next().await["data"]["jobUpdated"], now);
    });
}

/// An id that is absent, another type's, another tenant's, or none at all.
#[test]
fn what_is_not_there_cannot_be_followed() {
    run(async {
        let (tenant, other) = (Tenant::new().await, Tenant::new().await);
        let owner = tenant.token(BuiltIn::Owner).await;
        let theirs = other.token(BuiltIn::Owner).await;
        let (device, ..) = other.device(&theirs).await;
        let photo = other.photo(&theirs).await;
        let (media, job) = (
            photo["id"].as_str().unwrap(),
            photo["job"].as_str().unwrap(),
        );
        let mut socket = Socket::init(&tenant, Some(&owner)).await;
        for (field, theirs) in [
            ("deviceUpdated(deviceId: $id)", device.as_str()),
            ("mediaUpdated(mediaId: $id)", media),
            ("jobUpdated(jobId: $id)", job),
        ] {
            let mut told = HashSet::new();
            for id in [
                theirs,
                "",
                "none",
                "Um9sZQAAAAAAAAAAAAAAAAAAAAA",
                photo["id"].as_str().unwrap(),
            ] {
                let query = format!("subscription($id: ID!) {{ {field} {{ id }} }}");
                let payload = json!({ "query": query, "variables": { "id": id } });
                socket
                    .say(json!({ "id": "a", "type": "subscribe", "payload": payload }))
                    .await;
                let answer = socket.next("a").await;
                assert_eq!(
                    answer["errors"][0]["extensions"]["code"], "NOT_FOUND",
                    "{answer:#}"
                );
                told.insert(answer.to_string());
                let over = Heard::Said(json!({ "id": "a", "type": "complete" }));
                assert_eq!(socket.hear().await, over);
            }
            assert_eq!(told.len(), 1, "{told:#?}");
        }
        followed(&tenant, 1).await;
    });
}

#[test]
fn all_of_it_works_with_one_connection_to_the_database() {
    run(async {
        let here = Tenant::new().await;
        let world = here.world.beside(|config| config.max_connections = 1).await;
        let tenant = Tenant { world, ..here };
        let owner = tenant.token(BuiltIn::Owner).await;
        let (device, ..) = tenant.device(&owner).await;
        let mut socket = Socket::init(&tenant, Some(&owner)).await;
        let deep = "subscription { changeRecorded { subjectId actor { ... on Member { email roles { name } } } } }";
        for id in 0..10 {
            socket.subscribe(&id.to_string(), deep).await;
        }
        let mut events = Vec::new();
        for _ in 0..3 {
            events.push(Events::open(&tenant, Some(&owner), deep).await);
        }
        followed(&tenant, 17).await;
        for number in 0..5 {
            rename(&tenant, &owner, &device, &number.to_string()).await;
        }
        let mut told = 0;
        while told < 50 {
            if let Heard::Said(said) = socket.hear().await {
                let actor = &said["payload"]["data"]["changeRecorded"]["actor"];
                assert_eq!(actor["roles"][0]["name"], "owner", "{said:#}");
                told += 1;
            }
        }
        for stream in &mut events {
            for _ in 0..5 {
                let told = stream.next().await;
                assert_eq!(told["data"]["changeRecorded"]["subjectId"], device.as_str());
            }
        }
    });
}

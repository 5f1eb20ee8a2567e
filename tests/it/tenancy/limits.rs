//! Limits: each is hit, says so and is lifted while everything runs; no other tenant notices.

use super::{set, succeeds};
use crate::harness::{Answer, Tenant, png, run, until};
use bulkhead::error::Error;
use bulkhead::identity::{self, BuiltIn, NewMember};
use futures::future::join_all;
use futures::{StreamExt as _, stream};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const CREATE: &str = "mutation { deviceCreate(input: { name: \"A device\" }) { device { id }
    errors { __typename code message field ... on QuotaExceededError { quota { name used limit } } } } }";
const QUOTAS: &str = "{ tenant { quotas { name used limit } } }";

async fn me(tenant: &Tenant) -> Answer {
    tenant.send(tenant.request(Method::GET, "/device/me")).await
}

#[test]
fn requests_in_a_minute_are_counted_for_each_tenant() {
    run(async {
        let (tenant, other) = (Tenant::new().await, Tenant::new().await);
        set(&tenant, &["--limit", "requests_per_minute=2"]).await;
        for _ in 0..2 {
            // Nobody's requests count too.
            assert_eq!(me(&tenant).await.status, StatusCode::UNAUTHORIZED);
        }
        let refused = me(&tenant).await;
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(refused.header("content-type"), "application/problem+json");
        assert_eq!(refused.body["code"], "rate_limited");
        let after: u64 = refused.header("retry-after").parse().unwrap();
        assert!((1..=30).contains(&after), "{after}");
        let told = format!(
            "The tenant's limit requests_per_minute is 2 on each server; try again in {after} s."
        );
        assert_eq!(refused.body["detail"], told);

        let refused = tenant.gql(None, "{ viewer { expiresAt } }").await;
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(refused.code(), "RATE_LIMITED");
        let extensions = &refused.body["errors"][0]["extensions"];
        assert_eq!(extensions["limit"], "requests_per_minute");
        assert_eq!(extensions["max"], 2);
        let after = extensions["retryAfter"].as_u64().unwrap();
        assert_eq!(refused.header("retry-after"), after.to_string());

        // A document counts as many times as it has root fields.
        set(&other, &["--limit", "requests_per_minute=3"]).await;
        let three = "{ viewer { expiresAt } viewer { expiresAt } viewer { expiresAt } }";
        other.gql(None, three).await.data();
        let refused = other.gql(None, three).await;
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
        set(&other, &["--limit", "requests_per_minute=plan"]).await;

        assert_eq!(me(&other).await.status, StatusCode::UNAUTHORIZED);
        set(&tenant, &["--limit", "requests_per_minute=1000"]).await;
        assert_eq!(me(&tenant).await.status, StatusCode::UNAUTHORIZED);
        set(&tenant, &["--limit", "requests_per_minute=0"]).await;
        let refused = me(&tenant).await;
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
        set(&tenant, &["--limit", "requests_per_minute=plan"]).await;
        assert_eq!(me(&tenant).await.status, StatusCode::UNAUTHORIZED);
    });
}

#[test]
fn a_place_is_free_again_when_its_client_is_cut_off() {
    run(async {
        let (tenant, other) = (Tenant::new().await, Tenant::new().await);
        let owner = tenant.token(BuiltIn::Owner).await;
        let made = tenant.upload(&owner).await;
        set(&tenant, &["--limit", "concurrent_requests=1"]).await;
        let url = made["upload"]["url"].as_str().unwrap();
        let upload = || {
            let endless =
                stream::iter([Ok::<_, std::io::Error>("a few bytes")]).chain(stream::pending());
            let put = tenant.follow(Method::PUT, url);
            tokio::spawn(put.body(reqwest::Body::wrap_stream(endless)).send())
        };
        let mut held = upload();
        let refused = until("the upload has the only place", async || {
            if held.is_finished() {
                // The question before it was still in its place.
                held = upload();
            }
            let answer = me(&tenant).await;
            (answer.status != StatusCode::UNAUTHORIZED).then_some(answer)
        })
        .await;
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(refused.header("retry-after"), "1");
        let told = refused.body["detail"].as_str().unwrap();
        assert!(told.contains("concurrent_requests is 1"), "{told}");
        assert_eq!(me(&other).await.status, StatusCode::UNAUTHORIZED);
        held.abort();
        until("the place is free", async || {
            (me(&tenant).await.status == StatusCode::UNAUTHORIZED).then_some(())
        })
        .await;
    });
}

#[test]
fn a_download_has_its_place_until_it_is_read() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        // More than the sockets between hold.
        let bytes = "0123456789abcde\n".repeat(2 * 1024 * 1024);
        let id = tenant.send_file(&owner, "long.txt", "text/plain", bytes.as_bytes());
        let media = tenant.processed(&owner, &id.await).await;
        set(&tenant, &["--limit", "concurrent_requests=1"]).await;
        let get = tenant.follow(Method::GET, media["url"].as_str().unwrap());
        let unread = get.send().await.unwrap();
        assert_eq!(unread.status(), StatusCode::OK);
        assert_eq!(me(&tenant).await.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(unread.bytes().await.unwrap().len(), bytes.len());
        until("the place is free", async || {
            (me(&tenant).await.status == StatusCode::UNAUTHORIZED).then_some(())
        })
        .await;
    });
}

#[test]
fn of_20_devices_at_once_as_many_are_made_as_there_may_be() {
    run(async {
        let (tenant, other) = (Tenant::new().await, Tenant::new().await);
        let owner = tenant.token(BuiltIn::Owner).await;
        set(&tenant, &["--limit", "devices=5"]).await;
        let answers = join_all((0..20).map(|_| tenant.gql(Some(&owner), CREATE))).await;
        let made = answers
            .iter()
            .filter(|a| a.payload()["device"]["id"].is_string());
        assert_eq!(made.count(), 5);
        let refused: Vec<_> = answers
            .iter()
            .filter(|answer| answer.payload()["device"].is_null())
            .map(|answer| answer.failure().clone())
            .collect();
        assert_eq!(refused.len(), 15);
        let told = json!({
            "__typename": "QuotaExceededError",
            "code": "QUOTA_EXCEEDED",
            "message": "The tenant's limit devices is 5, and 5 are used.",
            "field": null,
            "quota": { "name": "DEVICES", "used": 5, "limit": 5 },
        });
        assert!(refused.iter().all(|error| *error == told), "{refused:#?}");
        assert_eq!(tenant.count("SELECT count(*) FROM device").await, 5);
        let theirs = other.token(BuiltIn::Owner).await;
        assert_eq!(
            other.gql(Some(&theirs), CREATE).await.payload()["errors"],
            json!([])
        );

        set(&tenant, &["--limit", "devices=6"]).await;
        assert_eq!(
            tenant.gql(Some(&owner), CREATE).await.payload()["errors"],
            json!([])
        );
        // Fewer than there are: they stay, and there are no more.
        set(&tenant, &["--limit", "devices=2"]).await;
        let refused = tenant.gql(Some(&owner), CREATE).await;
        assert_eq!(
            refused.failure()["quota"],
            json!({ "name": "DEVICES", "used": 6, "limit": 2 })
        );
        set(&tenant, &["--limit", "devices=unlimited"]).await;
        assert_eq!(
            tenant.gql(Some(&owner), CREATE).await.payload()["errors"],
            json!([])
        );
        let shown = tenant.gql(Some(&owner), QUOTAS).await;
        let shown = json!([
            { "name": "DEVICES", "used": 7, "limit": null },
            { "name": "MEDIA_BYTES", "used": 0, "limit": null },
            { "name": "MEMBERS", "used": 1, "limit": null },
        ]) == shown.payload()["quotas"];
        assert!(shown);
    });
}

#[test]
fn of_20_members_at_once_as_many_join_as_there_may_be() {
    run(async {
        let tenant = Tenant::new().await;
        set(&tenant, &["--limit", "members=5"]).await;
        let tenant = Tenant::named(&tenant.slug).await;
        let joined = join_all((0..20).map(async |number| {
            let tx = tenant.write().await;
            let new = NewMember {
                email: format!("m{number}@{}.test", tenant.slug),
                name: None,
                password_hash: "none".to_owned(),
                role: BuiltIn::Viewer,
            };
            let made = identity::create_member(&tx, new).await;
            tx.settle(made).await
        }))
        .await;
        let made = joined.iter().filter(|member| member.is_ok());
        assert_eq!(made.count(), 4, "and the owner");
        let refused = joined.iter().filter_map(|member| member.as_ref().err());
        for error in refused {
            assert!(matches!(error, Error::QuotaExceeded(_)), "{error:?}");
            let told = "The tenant's limit members is 5, and 5 are used.";
            assert_eq!(error.to_string(), told);
        }
        assert_eq!(tenant.count("SELECT count(*) FROM member").await, 5);
    });
}

fn photo() -> Value {
    json!({ "resourceType": "photo", "filename": "gate.png", "contentType": "image/png", "size": png().len() })
}

#[test]
fn bytes_count_from_when_they_are_announced() {
    run(async {
        let (tenant, other) = (Tenant::new().await, Tenant::new().await);
        let owner = tenant.token(BuiltIn::Owner).await;
        let size = png().len();
        let limit = |bytes: usize| format!("media_bytes={bytes}");
        set(&tenant, &["--limit", &limit(2 * size)]).await;
        let made = join_all((0..4).map(|_| tenant.create_upload(&owner, photo()))).await;
        let (made, refused): (Vec<_>, Vec<_>) = made
            .into_iter()
            .partition(|made| made["media"]["id"].is_string());
        assert_eq!((made.len(), refused.len()), (2, 2));
        let told = format!(
            "The tenant's limit media_bytes is {}, and {} are used.",
            2 * size,
            2 * size
        );
        for refused in refused {
            assert_eq!(refused["errors"][0]["code"], "QUOTA_EXCEEDED");
            assert_eq!(refused["errors"][0]["message"], told);
            assert_eq!(refused["upload"], Value::Null);
        }
        let theirs = other.token(BuiltIn::Owner).await;
        assert_eq!(
            other.create_upload(&theirs, photo()).await["errors"],
            json!([])
        );

        // Completing looks again, at the bytes that are there.
        let id = made[0]["media"]["id"].as_str().unwrap();
        let url = made[0]["upload"]["url"].as_str().unwrap();
        let put = tenant.follow(Method::PUT, url).body(png());
        assert_eq!(tenant.send(put).await.status, StatusCode::CREATED);
        set(&tenant, &["--limit", &limit(2 * size - 1)]).await;
        let done = tenant.complete_upload(&owner, id).await;
        assert_eq!(done["errors"][0]["code"], "QUOTA_EXCEEDED", "{done:#}");
        assert_eq!(done["media"], Value::Null);
        set(&tenant, &["--limit", &limit(2 * size)]).await;
        let done = tenant.complete_upload(&owner, id).await;
        assert_eq!(done["media"]["state"], "PROCESSING", "{done:#}");
        assert_eq!(tenant.processed(&owner, id).await["state"], "READY");
    });
}

#[test]
fn what_was_refused_takes_no_room() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        set(&tenant, &["--limit", "media_bytes=10"]).await;
        let id = tenant
            .send_file(&owner, "no.png", "image/png", b"no picture")
            .await;
        assert_eq!(tenant.processed(&owner, &id).await["state"], "FAILED");
        let shown = tenant.gql(Some(&owner), QUOTAS).await;
        let media = json!({ "name": "MEDIA_BYTES", "used": 0, "limit": 10 });
        assert_eq!(shown.payload()["quotas"][1], media);
        let id = tenant
            .send_file(&owner, "ten.txt", "text/plain", b"ten bytes.")
            .await;
        assert_eq!(tenant.processed(&owner, &id).await["state"], "READY");
    });
}

/// What the command says is used is what is there.
#[test]
fn the_command_counts_inside_the_tenant() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        tenant.photo(&owner).await;
        tenant.device(&owner).await;
        set(&tenant, &["--limit", "devices=7"]).await;
        let out = succeeds(&["tenant", "limits", &tenant.slug, "--json"]).await;
        let shown: Value = serde_json::from_str(&out).unwrap();
        let limits = &shown["limits"];
        let plan = "plan standard";
        assert_eq!(
            limits["devices"],
            json!({ "max": 7, "from": "own", "used": 1 })
        );
        assert_eq!(
            limits["members"],
            json!({ "max": null, "from": plan, "used": 1 })
        );
        let bytes = json!({ "max": null, "from": plan, "used": png().len() });
        assert_eq!(limits["media_bytes"], bytes);
        assert_eq!(limits["concurrent_jobs"]["used"], 0);
        assert_eq!(limits["requests_per_minute"]["used"], Value::Null);
        let out = succeeds(&["tenant", "limits", &tenant.slug]).await;
        let line = out
            .lines()
            .find(|line| line.starts_with("devices"))
            .unwrap();
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(words, ["devices", "7", "own", "1"]);
    });
}

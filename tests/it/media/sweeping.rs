//! What is left of uploads that came to nothing is swept away.

use crate::harness::{Tenant, png, run, until};
use bulkhead::graphql::parse_global_id;
use bulkhead::identity::BuiltIn;
use bulkhead::jobs;
use bulkhead::media::jobs::Sweep;
use reqwest::{Method, StatusCode};
use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use uuid::Uuid;

/// Bytes of an upload that came so many hours ago.
fn staged(tenant: &Tenant, id: Uuid, hours: u64) -> PathBuf {
    let media = tenant.world.data_dir.join("media");
    let staging = media.join(&tenant.slug).join("upload");
    fs::create_dir_all(&staging).unwrap();
    let path = staging.join(format!("{id}.bin"));
    fs::write(&path, "bytes").unwrap();
    let then = SystemTime::now() - Duration::from_hours(hours);
    let file = File::options().write(true).open(&path).unwrap();
    file.set_modified(then).unwrap();
    path
}

async fn sweep(tenant: &Tenant) {
    let tx = tenant.write().await;
    let job = jobs::enqueue(&tx, &Sweep {}).await.unwrap();
    tx.commit().await.unwrap();
    let done = format!("SELECT count(*) FROM bulkhead.job_done WHERE id = '{job}' AND state = 3");
    until("it is swept", async || {
        let done = sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(done.clone()));
        let done = done.fetch_one(&mut tenant.superuser().await).await.unwrap();
        (done == 1).then_some(())
    })
    .await;
}

#[test]
fn uploads_that_never_came_and_bytes_that_nobody_waits_for_are_gone() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let photo = tenant.photo(&owner).await;
        let upload = async || {
            let made = tenant.upload(&owner).await;
            made["media"]["id"].as_str().unwrap().to_owned()
        };
        let (late, awaited) = (upload().await, upload().await);
        let row = |id: &str| parse_global_id(id).unwrap().1;
        let yesterday = format!(
            "UPDATE media SET created_at = created_at - interval '25 hours' WHERE id = '{}'",
            row(&late)
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(yesterday))
            .execute(&mut tenant.superuser().await)
            .await
            .unwrap();
        let put = |id: Uuid, hours: u64| staged(&tenant, id, hours);
        let new_id = || bulkhead::clock::Clock::default().new_id();
        let gone = [
            put(new_id(), 4),
            put(row(&late), 26),
            put(row(photo["id"].as_str().unwrap()), 4),
        ];
        let kept = [put(new_id(), 1), put(row(&awaited), 4)];
        sweep(&tenant).await;
        for path in gone {
            assert!(!path.exists(), "{}", path.display());
        }
        for path in kept {
            assert!(path.exists(), "{}", path.display());
        }
        let failed = tenant.processed(&owner, &late).await;
        assert_eq!(
            (failed["state"].as_str(), failed["failure"].as_str()),
            (
                Some("FAILED"),
                Some("The upload did not come within a day.")
            )
        );
        let query = "query($id: ID!) { node(id: $id) { ... on Media { state } } }";
        for (id, state) in [
            (&awaited, "AWAITING_UPLOAD"),
            (&photo["id"].as_str().unwrap().to_owned(), "READY"),
        ] {
            let answer = tenant
                .gql_with(Some(&owner), query, serde_json::json!({ "id": id }))
                .await;
            assert_eq!(answer.data()["node"]["state"], state);
        }
    });
}

/// No job is left that would look at them.
#[test]
fn uploads_that_were_not_looked_at_are_a_day_later() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let mut uploads = Vec::new();
        for hours in [25, 1] {
            let made = tenant.upload(&owner).await;
            let put = tenant.follow(Method::PUT, made["upload"]["url"].as_str().unwrap());
            let put = tenant.send(put.body(png())).await;
            assert_eq!(put.status, StatusCode::CREATED);
            let id = made["media"]["id"].as_str().unwrap().to_owned();
            let left = format!(
                "SET session_replication_role = replica;
                 UPDATE media SET state = 'processing', updated_at = now() - interval '{hours} hours' WHERE id = '{}'",
                parse_global_id(&id).unwrap().1
            );
            sqlx::raw_sql(sqlx::AssertSqlSafe(left))
                .execute(&mut tenant.superuser().await)
                .await
                .unwrap();
            uploads.push(id);
        }
        sweep(&tenant).await;
        assert_eq!(
            tenant.processed(&owner, &uploads[0]).await["state"],
            "READY"
        );
        let others = tenant.count("SELECT count(*) FROM media WHERE state = 'processing'");
        assert_eq!(others.await, 1, "its job may be on its way");
    });
}

//! Deletion: nothing of the tenant is left, nothing of another is touched, and a certificate says what was erased.

use super::command;
use crate::harness::{Tenant, run, until};
use bulkhead::identity::BuiltIn;
use futures::TryStreamExt as _;
use object_store::path::Path;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Executor as _};

async fn objects(tenant: &Tenant) -> Vec<u64> {
    let store = &tenant.world.app.services.store;
    let prefix = Path::from(tenant.slug.as_str());
    let listed = store.objects().list(Some(&prefix));
    listed
        .map_ok(|object| object.size)
        .try_collect()
        .await
        .unwrap()
}

/// Rows of all the tenant's tables.
const ROWS: &str = "SELECT sum((xpath('/row/n/text()', query_to_xml(
        format('SELECT count(*) AS n FROM %I', tablename), false, true, '')))[1]::text::bigint)::bigint
    FROM pg_tables WHERE schemaname = current_schema()";

/// Archives and deletes it by the command; the certificate.
async fn deleted(slug: &str) -> Value {
    let (code, _, err) = command(&["tenant", "archive", slug], "").await;
    assert_eq!(code, Some(0), "{err}");
    let args = [
        "tenant", "delete", slug, "--reason", "left us", "--json", "--yes",
    ];
    let (code, out, err) = command(&args, "").await;
    assert_eq!(code, Some(0), "{err}");
    serde_json::from_str(&out).unwrap()
}

/// What PostgreSQL still has of it.
async fn left(tenant: &Tenant) -> i64 {
    sqlx::query_scalar(
        "SELECT (SELECT count(*) FROM bulkhead.job WHERE tenant_id = $1)
            + (SELECT count(*) FROM bulkhead.job_done WHERE tenant_id = $1)
            + (SELECT count(*) FROM bulkhead.lane WHERE tenant_id = $1)
            + (SELECT count(*) FROM bulkhead.domain WHERE tenant_id = $1)
            + (SELECT count(*) FROM bulkhead.tenant WHERE id = $1)
            + (SELECT count(*) FROM bulkhead.migration WHERE schema_name = $2)
            + (SELECT count(*) FROM pg_namespace WHERE nspname = $2)
            + (SELECT count(*) FROM pg_roles WHERE rolname = $3)",
    )
    .bind(tenant.row.id)
    .bind(&tenant.row.schema_name)
    .bind(&tenant.row.role_name)
    .fetch_one(&mut tenant.world.superuser().await)
    .await
    .unwrap()
}

#[test]
fn a_deleted_tenant_leaves_a_certificate_and_nothing_else() {
    run(async {
        let acme = Tenant::new().await;
        let token = acme.token(BuiltIn::Owner).await;
        acme.device(&token).await;
        acme.photo(&token).await;
        let domain = format!(
            "INSERT INTO bulkhead.domain (host, tenant_id) VALUES ('{}.example', '{}')",
            acme.slug, acme.row.id
        );
        let mut superuser = acme.world.superuser().await;
        superuser.execute(AssertSqlSafe(domain)).await.unwrap();
        let kept = objects(&acme).await;
        assert!(kept.len() > 1, "the photo and its thumbnails");
        let rows = acme.count(ROWS).await;
        assert!(left(&acme).await > 0);

        let told = deleted(&acme.slug).await;
        assert_eq!(left(&acme).await, 0);
        assert!(objects(&acme).await.is_empty());
        assert_eq!(told["slug"], acme.slug.as_str());
        assert_eq!(
            told["rows"],
            rows + 1,
            "that it was archived is in its trail"
        );
        assert_eq!(told["objects"], kept.len());
        assert_eq!(told["bytes"], kept.iter().sum::<u64>());
        assert_eq!(told["jobs"], 1);
        assert_eq!(told["reason"], "left us");
        assert!(told["finished_at"].is_string(), "{told}");
        let (code, out, _) = command(&["tenant", "delete", &acme.slug, "--yes"], "").await;
        assert_eq!(code, Some(0), "again: the certificate");
        assert!(out.contains("media objects"), "{out}");
        let (_, out, _) = command(&["tenant", "erasures"], "").await;
        assert!(out.contains(&acme.slug) && out.contains("left us"), "{out}");
    });
}

#[test]
fn a_deletion_touches_no_other_and_frees_the_slug() {
    run(async {
        let acme = Tenant::new().await;
        let token = acme.token(BuiltIn::Owner).await;
        acme.photo(&token).await;
        let neighbour = Tenant::named_like(&acme.slug, "-2").await;
        let theirs = neighbour.token(BuiltIn::Owner).await;
        neighbour.photo(&theirs).await;
        let kept = objects(&neighbour).await;
        deleted(&acme.slug).await;
        assert_eq!(
            objects(&neighbour).await,
            kept,
            "its slug only begins like the other"
        );
        let query = "{ tenant { media(first: 5) { nodes { state } } } }";
        let answer = neighbour.gql(Some(&theirs), query).await;
        assert_eq!(
            answer.data()["tenant"]["media"]["nodes"][0]["state"],
            "READY"
        );

        let create = ["tenant", "create", &acme.slug, "--owner", "new@example.com"];
        let (code, _, err) = command(&create, "").await;
        assert_eq!(code, Some(0), "the slug is free: {err}");
        let again = Tenant::named(&acme.slug).await;
        assert_eq!(again.count("SELECT count(*) FROM media").await, 0);
        until("the old people are unknown", async || {
            let answer = again.gql(Some(&token), "{ viewer { expiresAt } }").await;
            (answer.code() == "UNAUTHENTICATED").then_some(())
        })
        .await;
    });
}

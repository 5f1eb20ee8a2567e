//! Jobs: whatever one tenant's are about, they find nothing of another's, and change nothing there.

use super::Side;
use crate::harness::{run, until};
use bulkhead::clock::Clock;
use bulkhead::graphql::parse_global_id;
use bulkhead::resources;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Each kind of tenants' jobs, told of what the other has.
fn about(other: &Side) -> BTreeMap<&'static str, Value> {
    let (_, media) = parse_global_id(&other.names["Media"]).unwrap();
    let owner = &other.names["Owner"];
    BTreeMap::from([
        (
            "history.export",
            json!({ "format": "csv", "from": null, "until": Clock::default().now() }),
        ),
        ("history.retain", json!({})),
        ("identity.forget_credentials", json!({})),
        (
            "mail.send",
            json!({ "message": { "to": owner, "subject": "A test", "text": "A test" } }),
        ),
        ("media.process", json!({ "media": media })),
        ("media.sweep", json!({})),
    ])
}

#[test]
fn each_kind_has_a_row() {
    run(async {
        let side = Side::new().await;
        let kinds = resources::jobs().names();
        let tenants = kinds.iter().filter(|name| !name.starts_with("tenancy."));
        let rows = about(&side);
        assert!(tenants.eq(rows.keys()), "{kinds:?}");
    });
}

#[test]
fn no_job_reaches_into_another_tenant() {
    run(async {
        let (ours, theirs) = Side::two().await;
        // A job that found it would say what became of it.
        let processing = "UPDATE media SET state = 'processing'";
        assert!(theirs.tenant.sql(processing).await > 0);
        let before = theirs.tenant.changes().await;
        let mut superuser = ours.tenant.superuser().await;
        let mut ids = Vec::new();
        for (kind, args) in about(&theirs) {
            let id = Clock::default().new_id();
            sqlx::query(
                "INSERT INTO bulkhead.job (id, tenant_id, kind, args, max_attempts, timeout_ms, actor)
                 VALUES ($1, $2, $3, $4, 1, 60000, 'system:tests')",
            )
            .bind(id)
            .bind(ours.tenant.row.id)
            .bind(kind)
            .bind(args)
            .execute(&mut superuser)
            .await
            .unwrap();
            ids.push(id);
        }
        until("all are over", async || {
            let query = "SELECT count(*) FROM bulkhead.job_done WHERE id = ANY ($1)";
            let query = sqlx::query_scalar(query).bind(&ids);
            let over: i64 = query.fetch_one(&mut superuser).await.unwrap();
            usize::try_from(over)
                .is_ok_and(|over| over == ids.len())
                .then_some(())
        })
        .await;
        assert_eq!(theirs.tenant.changes().await, before);
    });
}

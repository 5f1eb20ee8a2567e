//! Mutations with a key that are cut: nothing of them is there, or all of it, and who sends them again is answered.

use super::{CREATE, UPDATE, devices, is_replay, keyed, named, send};
use crate::harness::{Tenant, run, until, world};
use bulkhead::http;
use bulkhead::identity::BuiltIn;
use serde_json::json;
use tokio::net::TcpListener;

/// The backends that wait for a lock on the tenant's members.
const WAITING: &str =
    "SELECT pid FROM pg_locks WHERE NOT granted AND relation = to_regclass('member')";

async fn waiting(tenant: &Tenant) -> Option<i32> {
    let found = sqlx::query_scalar(WAITING);
    let found = found.fetch_optional(&mut tenant.superuser().await).await;
    found.unwrap()
}

/// Sends a mutation that has written, and waits for what its payload asks for; ends it; and sends it again.
async fn cut_while_it_is_answered(end: impl AsyncFn(&Tenant, tokio::task::JoinHandle<()>)) {
    let tenant = Tenant::new().await;
    let owner = tenant.token(BuiltIn::Owner).await;
    let (device, ..) = tenant.device(&owner).await;
    let variables = json!({ "id": device, "name": "Gate" });
    let mut blocker = tenant.superuser().await;
    let lock = sqlx::raw_sql("BEGIN; LOCK TABLE member IN ACCESS EXCLUSIVE MODE");
    lock.execute(&mut blocker).await.unwrap();
    let request = keyed(&tenant, &owner, "cut", UPDATE, variables.clone());
    let request = tokio::spawn(async move {
        if let Ok(answer) = request.send().await {
            let text = answer.text().await.unwrap();
            assert!(text.contains("UNAVAILABLE"), "{text}");
            assert!(!text.contains("\"Gate\""), "{text}");
        }
    });
    until("it waits", async || waiting(&tenant).await).await;
    end(&tenant, request).await;
    until("nobody waits", async || {
        waiting(&tenant).await.is_none().then_some(())
    })
    .await;
    sqlx::raw_sql("ROLLBACK")
        .execute(&mut blocker)
        .await
        .unwrap();
    until("it is undone", async || {
        // A lock on the row is held as long as the mutation's unit of work is open.
        let free = "SELECT count(*) FROM (SELECT 1 FROM device WHERE name <> 'Gate' FOR UPDATE SKIP LOCKED) free";
        (tenant.count(free).await == 1).then_some(())
    })
    .await;
    assert_eq!(
        tenant.count("SELECT count(*) FROM idempotency_key").await,
        0
    );
    let first = send(&tenant, &owner, "cut", UPDATE, variables.clone()).await;
    assert_eq!(first.payload()["device"]["name"], "Gate");
    is_replay(
        &send(&tenant, &owner, "cut", UPDATE, variables).await,
        &first,
    );
    let trail = "SELECT count(*) FROM history WHERE subject_type = 'device' AND action = 'update'";
    assert_eq!(tenant.count(trail).await, 1);
}

#[test]
fn by_its_client() {
    run(cut_while_it_is_answered(async |_, request| {
        request.abort();
        drop(request.await);
    }));
}

#[test]
fn by_the_end_of_its_backend() {
    run(cut_while_it_is_answered(async |tenant, request| {
        let pid = waiting(tenant).await.unwrap();
        sqlx::query("SELECT pg_terminate_backend($1)")
            .bind(pid)
            .execute(&mut tenant.superuser().await)
            .await
            .unwrap();
        request.await.unwrap();
    }));
}

#[test]
fn by_a_lock_that_does_not_come() {
    run(cut_while_it_is_answered(async |_, request| {
        request.await.unwrap();
    }));
}

#[test]
fn at_each_message_to_postgresql() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let (app, proxy) = world().await.through_proxy().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/graphql", listener.local_addr().unwrap());
        let serving = http::serve(&app, listener, std::future::pending());
        let serving = tokio::spawn(serving);
        let mut made = 0;
        for number in 0..100 {
            let key = format!("cut-{number}");
            let body = json!({ "query": CREATE, "variables": named(&key) });
            let request = tenant.world.client.post(&url).bearer_auth(&owner);
            let request = request
                .header("Host", tenant.host())
                .header("Idempotency-Key", &key);
            let done = proxy.run(number, tenant.send(request.json(&body))).await;
            let first = send(&tenant, &owner, &key, CREATE, named(&key)).await;
            made += 1;
            assert_eq!(first.payload()["errors"], json!([]), "{number}");
            assert_eq!(devices(&tenant).await, made, "{number}");
            if let Some(done) = done {
                is_replay(&first, &done);
                break;
            }
            let again = send(&tenant, &owner, &key, CREATE, named(&key)).await;
            assert_eq!(again.body, first.body);
        }
        assert!((5..100).contains(&made), "{made}");
        serving.abort();
        drop(serving.await);
        app.stop().await.unwrap();
    });
}

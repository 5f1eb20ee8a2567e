//! Connections: what happens when there are none left, and when they are killed.

use super::{add, backend, seen};
use crate::harness::{Tenant, run, until, value, world};
use bulkhead::actor::Actor;
use bulkhead::app::App;
use bulkhead::database::TenantTx;
use bulkhead::error::Error;
use sqlx::AssertSqlSafe;

#[test]
fn an_exhausted_pool_refuses_and_recovers() {
    run(async {
        let tenant = Tenant::new().await;
        let app = tenant.world.another(2).await;
        let held = tenant.write_on(&app).await;
        let by = Actor::System("tests".to_owned()).into();
        let refused = app.services.database.write(&tenant.row, &by).await;
        assert!(matches!(refused, Err(Error::Unavailable)), "{refused:?}");
        // The tenants' connections are not the platform's.
        let platform = app.services.database.platform().await.unwrap();
        platform.commit().await.unwrap();
        // Who waits in the line gets the connection as soon as it is free.
        let (next, ()) = tokio::join!(tenant.write_on(&app), async {
            tokio::task::yield_now().await;
            held.commit().await.unwrap();
        });
        add(&next, "A device").await.unwrap();
        next.commit().await.unwrap();
        app.stop().await.unwrap();
    });
}

/// Ends these connections, and waits until PostgreSQL knows no more of them.
async fn terminate(processes: &[String]) {
    let mut superuser = world().await.superuser().await;
    let list = processes.join(", ");
    until("the connections are gone", async || {
        let sql = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid IN ({list})"
        );
        let there: i64 = sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_one(&mut superuser)
            .await
            .unwrap();
        (there == 0).then_some(())
    })
    .await;
}

async fn three(tenant: &Tenant, app: &App) -> [TenantTx; 3] {
    let (a, b, c) = tokio::join!(
        tenant.write_on(app),
        tenant.write_on(app),
        tenant.write_on(app)
    );
    [a, b, c]
}

#[test]
fn killed_connections_are_replaced() {
    run(async {
        let tenant = Tenant::new().await;
        let app = tenant.world.another(6).await;
        let platform = app.services.database.platform().await.unwrap();
        let pid = value(&platform, "SELECT pg_backend_pid()::text").await;
        let mut processes = vec![pid.unwrap()];
        platform.commit().await.unwrap();
        for tx in three(&tenant, &app).await {
            processes.push(backend(&tx).await);
            tx.commit().await.unwrap();
        }
        terminate(&processes).await;
        let platform = app.services.database.platform().await.unwrap();
        platform.commit().await.unwrap();
        for tx in three(&tenant, &app).await {
            add(&tx, "A device").await.unwrap();
            tx.commit().await.unwrap();
        }
        assert_eq!(seen(&mut tenant.world.owner().await, &tenant).await, 3);

        let tx = tenant.write_on(&app).await;
        add(&tx, "Lost").await.unwrap();
        terminate(&[backend(&tx).await]).await;
        let lost = add(&tx, "Lost").await.unwrap_err();
        assert_eq!(lost.code(), "UNAVAILABLE");
        assert!(tx.commit().await.is_err());
        let tx = tenant.write_on(&app).await;
        add(&tx, "After").await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(seen(&mut tenant.world.owner().await, &tenant).await, 4);
        app.stop().await.unwrap();
    });
}

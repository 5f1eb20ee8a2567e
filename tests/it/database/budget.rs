//! The budget: one over the platform and all cells, shared out among tenants, and connections that are retired.

use super::{add, backend};
use crate::harness::{Tenant, World, run, until, world};
use bulkhead::actor::Actor;
use bulkhead::error::Error;
use entity::tenant::device;
use futures::future::join_all;
use sea_orm::{EntityTrait as _, PaginatorTrait as _};
use sqlx::{AssertSqlSafe, Executor as _};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use uuid::Uuid;

#[test]
fn one_connection_is_enough_for_the_platform_and_every_cell() {
    run(async {
        let world = World::private(|config| config.max_connections = 1).await;
        let tenants = tenants(world, 5).await;
        let cells: BTreeSet<_> = tenants.iter().map(|tenant| tenant.row.cell_id).collect();
        assert_eq!(cells.len(), 4, "new tenants are dealt to all cells");
        for round in 0..3 {
            let work = tenants.iter().map(async |tenant| {
                let tx = tenant.write().await;
                add(&tx, "A device").await.unwrap();
                tx.commit().await.unwrap();
                let read = world.app.services.database.read(&tenant.row).await.unwrap();
                let there = device::Entity::find().count(&read).await.unwrap();
                assert_eq!(there, round + 1);
                read.commit().await.unwrap();
                let platform = world.app.services.database.platform().await.unwrap();
                platform.commit().await.unwrap();
            });
            join_all(work).await;
        }
        assert_open(world, 1).await;
    });
}

/// Who could not have one is told when to come back, whatever the request is.
#[test]
fn who_waits_in_vain_for_a_connection_is_told_when_to_come_back() {
    run(async {
        let world = World::private(|config| config.max_connections = 1).await;
        let tenant = Tenant::of(world).await;
        let held = tenant.write().await;
        let sign_in = "mutation { sessionCreate(input: { email: \"a@b.test\", password: \"none\" }) { token } }";
        let answer = tenant.gql(None, sign_in).await;
        let extensions = &answer.body["errors"][0]["extensions"];
        assert_eq!(extensions["code"], "UNAVAILABLE", "{}", answer.body);
        assert_eq!(extensions["retryAfter"], 1);
        assert_eq!(answer.header("Retry-After"), "1");
        let answer = tenant.gql(Some("bh_none"), "{ tenant { slug } }").await;
        assert_eq!(answer.body["errors"][0]["extensions"]["retryAfter"], 1);
        assert_eq!(answer.header("Retry-After"), "1");
        held.commit().await.unwrap();
    });
}

#[test]
fn the_cold_make_room_for_others() {
    run(async {
        let world = World::private(|config| config.max_connections = 3).await;
        let tenants = tenants(world, 4).await;
        join_all((0..12).map(async |n| {
            let tx = tenants[n % 4].write().await;
            add(&tx, "A device").await.unwrap();
            tx.commit().await.unwrap();
        }))
        .await;
        assert_open(world, 3).await;
        // A tenant that comes back finds the connection that it had.
        let tx = tenants[0].write().await;
        let process = backend(&tx).await;
        tx.commit().await.unwrap();
        for other in &tenants[1..3] {
            other.write().await.commit().await.unwrap();
            let tx = tenants[0].write().await;
            assert_eq!(backend(&tx).await, process);
            tx.commit().await.unwrap();
        }
    });
}

/// As many at work in all cells as there are connections: who waits a moment for one of its own login does not have another's
/// closed for a new one.
#[test]
fn cells_that_are_all_at_work_leave_each_other_their_connections() {
    run(async {
        let world = World::private(|config| config.max_connections = 8).await;
        let tenants = tenants(world, 8).await;
        let backends = join_all((0..8).map(async |client| {
            let mut backends = Vec::new();
            for step in 0..50 {
                let tenant = &tenants[(client * 3 + step * step) % 8];
                let read = world.app.services.database.read(&tenant.row).await.unwrap();
                backends.push(backend(&read).await);
                read.commit().await.unwrap();
            }
            backends
        }))
        .await;
        let backends: BTreeSet<_> = backends.into_iter().flatten().collect();
        assert!(backends.len() < 80, "{} for 400 reads", backends.len());
    });
}

/// Connections that are held for long do not shut out the rest of their cell, however much the other cells ask for.
#[test]
fn a_cell_whose_connections_are_all_held_has_one_of_the_others() {
    run(async {
        let world = World::private(|config| config.max_connections = 2).await;
        let tenants = tenants(world, 8).await;
        let (holder, beside, other) = (&tenants[0], &tenants[4], &tenants[1]);
        assert_eq!(holder.row.cell_id, beside.row.cell_id);
        assert_ne!(holder.row.cell_id, other.row.cell_id);
        let held = holder.write().await;
        let done = AtomicBool::new(false);
        let asking = join_all((0..4).map(async |_| {
            while !done.load(Ordering::SeqCst) {
                other.write().await.commit().await.unwrap();
            }
        }));
        let served = async {
            beside.write().await.commit().await.unwrap();
            done.store(true, Ordering::SeqCst);
        };
        tokio::join!(asking, served);
        held.commit().await.unwrap();
    });
}

/// Where none served a tenant last, it is given the one that knows its tables.
#[test]
fn a_tenant_has_a_connection_that_has_read_its_tables() {
    run(async {
        let world = World::private(|config| config.max_connections = 3).await;
        let tenants = tenants(world, 13).await;
        let [one, two, three, four] = [0, 4, 8, 12].map(|n| &tenants[n]);
        for other in [two, three, four] {
            assert_eq!(other.row.cell_id, one.row.cell_id);
        }
        let known = at_once(&[one, two]).await;
        for others in [[three, four], [four, three]] {
            at_once(&others).await;
            // Not the one that has been idle longest, which the first had.
            assert_eq!(at_once(&[two]).await, known[1..]);
            at_once(&others).await;
            assert_eq!(at_once(&[one]).await, known[..1]);
        }
    });
}

/// So many new ones.
async fn tenants(world: &'static World, count: usize) -> Vec<Tenant> {
    let mut tenants = Vec::new();
    for _ in 0..count {
        tenants.push(Tenant::of(world).await);
    }
    tenants
}

/// A unit of work of each, all begun before the first ends; the backends that served them.
async fn at_once(tenants: &[&Tenant]) -> Vec<String> {
    let (mut units, mut backends) = (Vec::new(), Vec::new());
    for tenant in tenants {
        let tx = tenant.write().await;
        backends.push(backend(&tx).await);
        units.push(tx);
    }
    for tx in units {
        tx.commit().await.unwrap();
    }
    backends
}

/// Waits until the world has no more connections than this; PostgreSQL takes a moment to notice a goodbye.
async fn assert_open(world: &World, most: i64) {
    let mut superuser = world.superuser().await;
    let open = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'bulkhead'";
    until("there are no more than the budget", async || {
        let open: i64 = sqlx::query_scalar(open)
            .fetch_one(&mut superuser)
            .await
            .unwrap();
        (open <= most).then_some(())
    })
    .await;
}

#[test]
fn a_tenant_that_floods_leaves_room_for_others() {
    run(async {
        let (flood, other) = (Tenant::new().await, Tenant::new().await);
        let app = world().await.another(4).await;
        let database = &app.services.database;
        // Its statements hang on a lock that others hold.
        let mut superuser = flood.superuser().await;
        let lock = "BEGIN; LOCK TABLE device IN ACCESS EXCLUSIVE MODE";
        superuser.execute(sqlx::raw_sql(lock)).await.unwrap();
        let flooding = join_all((0..300).map(async |_| {
            let by = Actor::System("tests".to_owned()).into();
            let tx = database.write(&flood.row, &by).await?;
            let there = device::Entity::find().count(&tx).await;
            tx.settle(there.map_err(Error::from)).await
        }));
        let served = async {
            for _ in 0..20 {
                join_all((0..4).map(async |_| {
                    let tx = other.write_on(&app).await;
                    add(&tx, "A device").await.unwrap();
                    tx.commit().await.unwrap();
                }))
                .await;
                let platform = database.platform().await.unwrap();
                platform.commit().await.unwrap();
            }
            superuser.execute("ROLLBACK").await.unwrap();
        };
        let (flooded, ()) = tokio::join!(flooding, served);
        let refused = flooded
            .iter()
            .filter(|end| matches!(end, Err(Error::Unavailable)))
            .count();
        // Two use what a tenant may use and 200 wait; the others are refused at once.
        assert!(refused >= 98, "{refused}");
        for _ in 0..3 {
            let tx = flood.write_on(&app).await;
            assert_eq!(device::Entity::find().count(&tx).await.unwrap(), 0);
            tx.commit().await.unwrap();
        }
        app.stop().await.unwrap();
    });
}

#[test]
fn a_connection_that_served_many_tenants_is_retired() {
    run(async {
        let tenant = Tenant::new().await;
        let app = tenant.world.another(2).await;
        let mut processes = Vec::new();
        for number in 0..301_u128 {
            // As far as the pool is concerned, another tenant.
            let mut row = (*tenant.row).clone();
            row.id = Uuid::from_u128(number);
            let row = Arc::new(row);
            for _ in 0..2 {
                let tx = app.services.database.read(&row).await.unwrap();
                let process = backend(&tx).await;
                tx.commit().await.unwrap();
                if processes.last() != Some(&process) {
                    processes.push(process);
                }
            }
        }
        assert_eq!(processes.len(), 2, "one for 300, and the next");
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = {}",
            processes[0]
        );
        let mut superuser = tenant.world.superuser().await;
        until("the first is gone", async || {
            let there: i64 = sqlx::query_scalar(AssertSqlSafe(sql.clone()))
                .fetch_one(&mut superuser)
                .await
                .unwrap();
            (there == 0).then_some(())
        })
        .await;
        app.stop().await.unwrap();
    });
}

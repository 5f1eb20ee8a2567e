//! The registry: whoever asks for a host at the same time shares one look-up, and a "no" is kept, but not for long.

use crate::harness::{Tenant, World, finish, run, until, world};
use futures::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::json;
use sqlx::{Executor as _, PgConnection};
use std::time::{Duration, Instant};

/// Requests that come at once.
const ASKED: usize = 32;
/// What is within seconds, on a machine that has much to do.
const SOON: Duration = Duration::from_secs(10);

/// What nobody is answered at a host.
async fn ask(world: &World, host: &str) -> StatusCode {
    let request = world.request(Method::POST, host, "/graphql");
    let asked = request.json(&json!({ "query": "{ __typename }" })).send();
    asked.await.unwrap().status()
}

/// Holds the registry's table, so that each look-up waits and can be counted.
async fn hold(superuser: &mut PgConnection) {
    let lock = sqlx::raw_sql("BEGIN; LOCK TABLE bulkhead.tenant");
    superuser.execute(lock).await.unwrap();
}

async fn let_go(superuser: &mut PgConnection) {
    superuser.execute("COMMIT").await.unwrap();
}

/// How many look-ups wait.
async fn waiting(superuser: &mut PgConnection) -> i64 {
    let count =
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'bulkhead.tenant'::regclass
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    sqlx::query_scalar(count)
        .fetch_one(superuser)
        .await
        .unwrap()
}

/// Waits until one waits.
async fn one_waits(superuser: &mut PgConnection) {
    until("a look-up waits", async || {
        (waiting(superuser).await > 0).then_some(())
    })
    .await;
}

/// Returns when what was sent before has been begun: so many requests that need no tenant are answered.
async fn after_it(world: &World) {
    for _ in 0..ASKED {
        let alive = world
            .request(Method::GET, "localhost", "/healthz/live")
            .send();
        assert_eq!(alive.await.unwrap().status(), StatusCode::OK);
    }
}

#[test]
fn who_asks_for_a_cold_host_at_once_shares_one_look_up() {
    run(async {
        let world = World::private(|_| {}).await;
        let tenant = Tenant::of(world).await;
        let mut superuser = world.superuser().await;
        for (host, expected) in [
            (tenant.host(), StatusCode::OK),
            ("nobody.localhost".to_owned(), StatusCode::NOT_FOUND),
        ] {
            hold(&mut superuser).await;
            let asked = join_all((0..ASKED).map(|_| ask(world, &host)));
            let (answers, looks) = tokio::join!(asked, async {
                one_waits(&mut superuser).await;
                after_it(world).await;
                let looks = waiting(&mut superuser).await;
                let_go(&mut superuser).await;
                looks
            });
            assert_eq!(looks, 1, "{host}");
            assert_eq!(answers, [expected; ASKED], "{host}");
        }
    });
}

#[test]
fn who_looks_for_all_may_go_away() {
    run(async {
        let world = World::private(|_| {}).await;
        let tenant = Tenant::of(world).await;
        let (mut superuser, host) = (world.superuser().await, tenant.host());
        hold(&mut superuser).await;
        tokio::select! {
            status = ask(world, &host) => panic!("{status} while the table is held"),
            () = one_waits(&mut superuser) => {}
        }
        let asked = join_all((0..ASKED).map(|_| ask(world, &host)));
        let (answers, ()) = tokio::join!(asked, async {
            after_it(world).await;
            let_go(&mut superuser).await;
        });
        assert_eq!(answers, [StatusCode::OK; ASKED]);
    });
}

#[test]
fn a_no_is_kept_for_a_moment() {
    run(async {
        let world = World::private(|_| {}).await;
        let mut superuser = world.superuser().await;
        // On a machine that has much to do the moment may be over before the table is held.
        until(
            "it is answered though nothing can be looked up",
            async || {
                assert_eq!(ask(world, "nobody.localhost").await, StatusCode::NOT_FOUND);
                hold(&mut superuser).await;
                let kept = tokio::select! {
                    status = ask(world, "nobody.localhost") => Some(status),
                    () = one_waits(&mut superuser) => None,
                };
                let_go(&mut superuser).await;
                kept
            },
        )
        .await;
    });
}

#[test]
fn a_host_that_was_asked_for_before_its_tenant_is_made_is_soon_served() {
    run(async {
        let world = world().await;
        let host = "asked-before.localhost";
        assert_eq!(ask(world, host).await, StatusCode::NOT_FOUND);
        let create = ["tenant", "create", "asked-before", "--owner", "a@b.example"];
        let made = tokio::task::spawn_blocking(move || finish(world.command().args(create), ""));
        // Whoever goes on asking does not keep the "no" alive.
        while !made.is_finished() {
            ask(world, host).await;
        }
        let (code, _, err) = made.await.unwrap();
        assert_eq!(code, Some(0), "{err}");
        let began = Instant::now();
        until("it is served", async || {
            (ask(world, host).await == StatusCode::OK).then_some(())
        })
        .await;
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    });
}

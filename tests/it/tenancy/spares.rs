//! Spares: made in the background, handed out whole, and there or not whatever is cut short.

use super::orphans;
use crate::harness::{Process, Tenant, World, cut_short, run, until};
use bulkhead::app::provision;
use bulkhead::tenancy::{self, Act, NewTenant, spares};
use nix::sys::signal::Signal;
use sqlx::{AssertSqlSafe, PgConnection};
use std::time::Duration;

async fn own_world() -> &'static World {
    World::private(|config| config.spares = 3).await
}

/// The schemas of the spares, sorted.
async fn spare(superuser: &mut PgConnection) -> Vec<String> {
    let query = "SELECT schema_name FROM bulkhead.spare ORDER BY schema_name";
    let found = sqlx::query_scalar(query).fetch_all(superuser).await;
    found.unwrap()
}

/// The built-in roles of a schema, what they allow, and who made them.
async fn first_rows(
    superuser: &mut PgConnection,
    schema: &str,
) -> Vec<(String, Vec<String>, String)> {
    let query = format!(
        "SELECT r.name, r.permissions, h.actor FROM {schema}.role r JOIN {schema}.history h ON h.subject_id = r.id
         WHERE r.built_in ORDER BY r.name"
    );
    let rows = sqlx::query_as(AssertSqlSafe(query)).fetch_all(superuser);
    rows.await.unwrap()
}

fn new(slug: &str) -> NewTenant {
    NewTenant {
        slug: slug.to_owned(),
        name: slug.to_owned(),
        act: Act::by("tests"),
    }
}

#[test]
fn a_tenant_from_a_spare_is_rows_alone() {
    run(async {
        let world = own_world().await;
        let database = &world.app.services.database;
        let mut superuser = world.superuser().await;
        assert_eq!(spares::fill(database, 2).await.unwrap(), 2);
        assert_eq!(spares::fill(database, 2).await.unwrap(), 0);
        let before = spare(&mut superuser).await;
        for schema in &before {
            let members = format!("SELECT count(*) FROM {schema}.member");
            let members = sqlx::query_scalar::<_, i64>(AssertSqlSafe(members));
            assert_eq!(members.fetch_one(&mut superuser).await.unwrap(), 0);
        }
        let classes = "SELECT count(*) FROM pg_class";
        let there: i64 = sqlx::query_scalar(classes)
            .fetch_one(&mut superuser)
            .await
            .unwrap();
        let mut taken = Vec::new();
        for _ in 0..2 {
            let tenant = Tenant::of(world).await;
            tenant.sign_in(&format!("owner@{}.test", tenant.slug)).await;
            taken.push(tenant.row.schema_name.clone());
        }
        taken.sort();
        assert_eq!(taken, before);
        assert!(spare(&mut superuser).await.is_empty());
        let now: i64 = sqlx::query_scalar(classes)
            .fetch_one(&mut superuser)
            .await
            .unwrap();
        assert_eq!(now, there);
        // With none left, the schema is made at once, and begins with the same.
        let tenant = Tenant::of(world).await;
        assert!(!before.contains(&tenant.row.schema_name));
        let begun = first_rows(&mut superuser, &tenant.row.schema_name).await;
        assert_eq!(begun, first_rows(&mut superuser, &taken[0]).await);
        let roles: Vec<_> = begun.iter().map(|row| &row.0).collect();
        assert_eq!(roles, ["admin", "member", "owner", "viewer"]);
        assert!(begun.iter().all(|row| row.2 == "system:onboarding"));
        assert!(orphans(&mut superuser).await.is_empty());
    });
}

#[test]
fn a_spare_is_given_to_one_or_given_back() {
    run(async {
        let world = own_world().await;
        let database = &world.app.services.database;
        let mut superuser = world.superuser().await;
        spares::fill(database, 2).await.unwrap();
        let before = spare(&mut superuser).await;
        drop(tenancy::create(database, new("dropped")).await.unwrap());
        until("the spare is given back", async || {
            (spare(&mut superuser).await == before).then_some(())
        })
        .await;
        let hash = "no hash".to_owned();
        let make = |slug, email| provision(database, new(slug), email, hash.clone());
        make("failed", "no-address").await.unwrap_err();
        assert_eq!(spare(&mut superuser).await, before);
        let (a, b, c) = tokio::join!(
            make("one", "a@b.example"),
            make("two", "a@b.example"),
            make("three", "a@b.example")
        );
        let mut schemas = [a, b, c].map(|made| made.unwrap().schema_name);
        schemas.sort();
        assert!(schemas.windows(2).all(|pair| pair[0] != pair[1]));
        assert!(before.iter().all(|schema| schemas.contains(schema)));
        assert!(orphans(&mut superuser).await.is_empty());
    });
}

#[test]
fn many_fillers_make_no_more_than_are_wanted() {
    run(async {
        let world = own_world().await;
        let other = world.beside(|_| {}).await;
        let fill = |world: &'static World| spares::fill(&world.app.services.database, 3);
        let made = futures::future::join_all(vec![fill(world), fill(other), fill(world)]).await;
        let made: u32 = made.into_iter().map(|made| made.unwrap()).sum();
        assert_eq!(made, 3);
        let mut superuser = world.superuser().await;
        assert_eq!(spare(&mut superuser).await.len(), 3);
        assert!(orphans(&mut superuser).await.is_empty());
    });
}

#[test]
fn making_spares_can_be_cut_short_anywhere() {
    run(async {
        let world = own_world().await;
        let database = &world.app.services.database;
        let mut superuser = world.superuser().await;
        for n in 0..30 {
            let there = u32::try_from(spare(&mut superuser).await.len()).unwrap();
            cut_short(
                Duration::from_millis(4 * n),
                spares::fill(database, there + 1),
            )
            .await;
            let left = orphans(&mut superuser).await;
            assert!(left.is_empty(), "{left:?}");
        }
        // Nothing that was cut short stands in the way.
        until("a spare is made", async || {
            let there = u32::try_from(spare(&mut superuser).await.len()).unwrap();
            (spares::fill(database, there + 1).await.unwrap() > 0).then_some(())
        })
        .await;
    });
}

#[test]
fn spares_of_an_older_template_are_made_anew() {
    run(async {
        let world = own_world().await;
        let database = &world.app.services.database;
        let mut superuser = world.superuser().await;
        spares::fill(database, 2).await.unwrap();
        let old = spare(&mut superuser).await;
        sqlx::query("UPDATE bulkhead.spare SET version = 'm0001_history'")
            .execute(&mut superuser)
            .await
            .unwrap();
        let tenant = provision(database, new("acme"), "a@b.example", "no hash".to_owned()).await;
        assert!(
            !old.contains(&tenant.unwrap().schema_name),
            "it is not handed out"
        );
        assert_eq!(spares::fill(database, 2).await.unwrap(), 2);
        let made = spare(&mut superuser).await;
        assert_eq!(made.len(), 2);
        assert!(made.iter().all(|schema| !old.contains(schema)));
        assert!(orphans(&mut superuser).await.is_empty());
    });
}

/// As an operator sees it: a worker makes them, is killed at it, and another goes on.
#[test]
fn a_worker_keeps_spares_there() {
    run(async {
        let world = own_world().await;
        let mut superuser = world.superuser().await;
        let worker = || {
            let mut command = world.command();
            command.env("BULKHEAD_SPARES", "3").arg("worker");
            Process::start(&mut command)
        };
        let killed = worker();
        until("the first are there", async || {
            (!spare(&mut superuser).await.is_empty()).then_some(())
        })
        .await;
        killed.signal(Signal::SIGKILL);
        let _worker = worker();
        for slug in ["one", "two"] {
            until("there are three", async || {
                (spare(&mut superuser).await.len() == 3).then_some(())
            })
            .await;
            let database = &world.app.services.database;
            let tx = tenancy::create(database, new(slug)).await.unwrap();
            tx.commit().await.unwrap();
            assert_eq!(spare(&mut superuser).await.len(), 2);
        }
        let left = orphans(&mut superuser).await;
        assert!(left.is_empty(), "{left:?}");
    });
}

//! Each long step of a tenant's life, cut at every message to PostgreSQL and begun again: it ends absent or complete.

use super::{count, orphans};
use crate::harness::{Proxy, Tenant, World, run, world};
use bulkhead::app::{App, clone_tenant};
use bulkhead::database::Database;
use bulkhead::error::{Error, Result};
use bulkhead::identity::BuiltIn;
use bulkhead::tenancy::{self, Act, NewTenant, erase, lifecycle};
use entity::platform::erasure;
use std::path::PathBuf;
use std::time::Duration;

const WITHIN: Duration = Duration::from_hours(1);

fn act() -> Act {
    Act::by("tests")
}

fn new(slug: &str) -> NewTenant {
    NewTenant {
        slug: slug.to_owned(),
        name: slug.to_owned(),
        act: Act::by("tests"),
    }
}

/// Cuts the work at each of its messages, for a slug of its own that `before` makes ready, and hands over to `then` after
/// each; until the work comes through. Says how many messages it has.
async fn at_every_message<T>(
    proxy: &Proxy,
    before: impl AsyncFn(&str),
    work: impl AsyncFn(&str) -> Result<T>,
    then: impl AsyncFn(&str),
) -> i64 {
    for number in 0..400 {
        let slug = format!("cut-{}-{number}", rand::random::<u32>());
        before(&slug).await;
        let done = proxy.run(number, work(&slug)).await;
        then(&slug).await;
        if matches!(done, Some(Ok(_))) {
            return number;
        }
    }
    panic!("it never came through");
}

async fn make(database: &Database, slug: &str) -> Result<()> {
    let tx = tenancy::create(database, new(slug)).await?;
    tx.commit().await
}

/// Erases what is there, whatever its state, by a server that nothing cuts; the certificate.
async fn gone(world: &World, slug: &str) -> erasure::Model {
    let services = &world.app.services;
    let database = &services.database;
    lifecycle::archive(database, slug, &act()).await.ok();
    let doomed = erase::begin(database, slug, &act()).await.unwrap();
    erase::go_on(database, &services.store, doomed.id, |_| {})
        .await
        .unwrap()
}

async fn with_proxy(test: impl AsyncFn(&World, &App, &Proxy)) {
    let world = world().await;
    let (app, proxy) = world.through_proxy().await;
    test(world, &app, &proxy).await;
    app.stop().await.unwrap();
    let left = orphans(&mut world.superuser().await).await;
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_creation() {
    run(with_proxy(async |world, app, proxy| {
        let messages = at_every_message(
            proxy,
            async |_| {},
            async |slug| make(&app.services.database, slug).await,
            async |slug| {
                let there = count(&mut world.superuser().await, slug).await;
                match make(&world.app.services.database, slug).await {
                    Ok(()) => assert_eq!(there, 0, "{slug}"),
                    Err(Error::AlreadyExists(_)) => {}
                    Err(error) => panic!("{slug}: {error:?}"),
                }
                let tx = Tenant::named(slug).await.write().await;
                let roles = crate::harness::value(&tx, "SELECT count(*)::text FROM role").await;
                assert_eq!(roles.unwrap(), "4", "{slug} is whole");
                tx.commit().await.unwrap();
            },
        )
        .await;
        assert!(messages > 3, "{messages}");
    }));
}

#[test]
fn an_archive_and_a_restore() {
    run(with_proxy(async |world, app, proxy| {
        let (cut, sure) = (&app.services.database, &world.app.services.database);
        let messages = at_every_message(
            proxy,
            async |slug| make(sure, slug).await.unwrap(),
            async |slug| {
                lifecycle::archive(cut, slug, &act()).await?;
                lifecycle::restore(cut, slug, WITHIN, &act()).await
            },
            async |slug| {
                lifecycle::archive(sure, slug, &act()).await.unwrap();
                lifecycle::restore(sure, slug, WITHIN, &act()).await.unwrap();
                let tx = Tenant::named(slug).await.write().await;
                tx.commit().await.unwrap();
                let mut superuser = world.superuser().await;
                let acts: Vec<String> = sqlx::query_scalar(
                    "SELECT l.action FROM bulkhead.operator_log l JOIN bulkhead.tenant t ON t.id = l.tenant_id
                     WHERE t.slug = $1 ORDER BY l.id",
                )
                .bind(slug)
                .fetch_all(&mut superuser)
                .await
                .unwrap();
                let each = |act: &str| acts.iter().filter(|a| *a == act).count();
                assert_eq!(each("tenant.archive"), each("tenant.restore"), "{acts:?}");
            },
        )
        .await;
        assert!(messages > 8, "{messages}");
    }));
}

/// Where a tenant's objects are.
fn objects(world: &World, slug: &str) -> PathBuf {
    world.data_dir.join("media").join(slug)
}

/// Gives it a job and an object.
async fn fill(world: &World, slug: &str) {
    sqlx::query(
        "INSERT INTO bulkhead.job (id, tenant_id, kind, args, max_attempts, timeout_ms, actor)
         SELECT gen_random_uuid(), id, 'test.none', '{}', 1, 1000, 'system:tests' FROM bulkhead.tenant WHERE slug = $1",
    )
    .bind(slug)
    .execute(&mut world.superuser().await)
    .await
    .unwrap();
    let photos = objects(world, slug).join("photo");
    std::fs::create_dir_all(&photos).unwrap();
    std::fs::write(photos.join("a.png"), "a photo").unwrap();
}

#[test]
fn a_deletion() {
    run(with_proxy(async |world, app, proxy| {
        let (cut, sure) = (&app.services, &world.app.services);
        let messages = at_every_message(
            proxy,
            async |slug| {
                make(&sure.database, slug).await.unwrap();
                let archived = lifecycle::archive(&sure.database, slug, &act()).await;
                archived.unwrap();
                fill(world, slug).await;
            },
            async |slug| {
                let doomed = erase::begin(&cut.database, slug, &act()).await?;
                erase::go_on(&cut.database, &cut.store, doomed.id, |_| {}).await
            },
            async |slug| {
                let mut superuser = world.superuser().await;
                if count(&mut superuser, slug).await == 1 {
                    gone(world, slug).await;
                }
                assert_eq!(count(&mut superuser, slug).await, 0);
                assert!(!objects(world, slug).exists(), "{slug}");
                let (tables, rows, jobs, objects): (i32, i64, i64, i64) = sqlx::query_as(
                    "SELECT tables, rows, jobs, objects FROM bulkhead.erasure WHERE slug = $1 AND finished_at IS NOT NULL",
                )
                .bind(slug)
                .fetch_one(&mut superuser)
                .await
                .unwrap();
                assert_eq!((tables, rows), (10, 10), "{slug}: each table and row once: four roles, their history, and two acts");
                assert_eq!((jobs, objects), (1, 1), "{slug}");
            },
        )
        .await;
        assert!(messages > 30, "{messages}");
    }));
}

#[test]
fn a_clone() {
    run(with_proxy(async |world, app, proxy| {
        let source = Tenant::new().await;
        source.photo(&source.token(BuiltIn::Owner).await).await;
        let (cut, sure) = (&app.services, &world.app.services);
        let messages = at_every_message(
            proxy,
            async |_| {},
            async |slug| clone_tenant(cut, &source.slug, new(slug), || {}).await,
            async |slug| {
                let mut superuser = world.superuser().await;
                let whole: Option<String> =
                    sqlx::query_scalar("SELECT state FROM bulkhead.tenant WHERE slug = $1")
                        .bind(slug)
                        .fetch_optional(&mut superuser)
                        .await
                        .unwrap();
                if whole.as_deref() != Some("active") {
                    let made = clone_tenant(sure, &source.slug, new(slug), || {}).await;
                    made.unwrap_or_else(|error| panic!("{slug}: {error:?}"));
                }
                let copy = Tenant::named(slug).await;
                for table in [
                    "SELECT count(*) FROM member",
                    "SELECT count(*) FROM role",
                    "SELECT count(*) FROM media WHERE state = 'ready'",
                ] {
                    assert_eq!(copy.count(table).await, source.count(table).await, "{slug}");
                }
                let photos = |slug| {
                    objects(world, slug)
                        .join("photo")
                        .read_dir()
                        .unwrap()
                        .count()
                };
                assert_eq!(photos(slug), photos(&source.slug), "{slug}");
                gone(world, slug).await;
            },
        )
        .await;
        assert!(messages > 10, "{messages}");
    }));
}

//! Creation: whole or not at all, by many at once, each tenant like the template.

use super::{count, orphans, without_step};
use crate::harness::{Tenant, World, cut_short, run, value, world};
use bulkhead::error::{Error, Result};
use bulkhead::tenancy::{self, Act, NewTenant};
use sqlx::{AssertSqlSafe, Executor as _, PgConnection};
use std::time::Duration;

fn new(slug: &str) -> NewTenant {
    NewTenant {
        slug: slug.to_owned(),
        name: slug.to_owned(),
        act: Act::by("tests"),
    }
}

/// Makes a tenant.
async fn make(world: &World, slug: &str) -> Result<()> {
    let tx = tenancy::create(&world.app.services.database, new(slug)).await?;
    tx.commit().await
}

/// Everything there is in a schema and who may do what with it, names of schema and role taken out. Without `role`, not who
/// may: the template is nobody's.
async fn structure(superuser: &mut PgConnection, schema: &str, role: Option<&str>) -> Vec<String> {
    let parts = [
        "SELECT concat_ws(' ', 'table', relname, relkind, relpersistence, relrowsecurity, reloptions, relreplident,
            pg_get_userbyid(relowner), obj_description(oid)) FROM pg_class WHERE relnamespace = $1::regnamespace",
        "SELECT concat_ws(' ', 'column', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
            a.attidentity, a.attgenerated, a.attcollation::regcollation, a.attstorage, pg_get_expr(d.adbin, d.adrelid),
            rank() OVER (PARTITION BY c.oid ORDER BY a.attnum))
         FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
         LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum WHERE c.relnamespace = $1::regnamespace",
        "SELECT concat_ws(' ', 'constraint', conrelid::regclass, conname, pg_get_constraintdef(oid), convalidated,
            condeferrable) FROM pg_constraint WHERE connamespace = $1::regnamespace",
        "SELECT concat_ws(' ', 'index', pg_get_indexdef(i.indexrelid), i.indisvalid, i.indisprimary, i.indisunique)
         FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE c.relnamespace = $1::regnamespace",
        "SELECT concat_ws(' ', 'trigger', pg_get_triggerdef(t.oid), t.tgenabled) FROM pg_trigger t
         JOIN pg_class c ON c.oid = t.tgrelid WHERE c.relnamespace = $1::regnamespace AND NOT t.tgisinternal",
        "SELECT concat_ws(' ', 'function', pg_get_functiondef(oid), pg_get_userbyid(proowner)) FROM pg_proc
         WHERE pronamespace = $1::regnamespace",
        "SELECT concat_ws(' ', 'type', typname, typtype) FROM pg_type WHERE typnamespace = $1::regnamespace",
    ];
    let grants = [
        "SELECT concat_ws(' ', 'on schema', nspacl) FROM pg_namespace WHERE oid = $1::regnamespace",
        "SELECT concat_ws(' ', 'on table', relname, relacl) FROM pg_class WHERE relnamespace = $1::regnamespace",
        "SELECT concat_ws(' ', 'on function', proname, proacl) FROM pg_proc WHERE pronamespace = $1::regnamespace",
    ];
    let mut lines = Vec::new();
    for query in parts
        .into_iter()
        .chain(grants.into_iter().filter(|_| role.is_some()))
    {
        let found: Vec<String> = sqlx::query_scalar(query)
            .bind(schema)
            .fetch_all(&mut *superuser)
            .await
            .unwrap();
        lines.extend(found.into_iter().map(|line| {
            let line = line.replace(role.unwrap_or("{role}"), "{role}");
            line.replace(schema, "{schema}")
        }));
    }
    lines.sort();
    lines
}

#[track_caller]
fn same(one: &[String], other: &[String]) {
    let lacks = |a: &[String], b: &[String]| -> Vec<String> {
        a.iter().filter(|line| !b.contains(line)).cloned().collect()
    };
    let (only_one, only_other) = (lacks(one, other), lacks(other, one));
    assert!(
        one == other,
        "only in the one: {only_one:#?}\nonly in the other: {only_other:#?}"
    );
}

#[test]
fn a_creation_that_is_cut_short_leaves_nothing() {
    run(async {
        let world = world().await;
        let mut superuser = world.superuser().await;
        let database = &world.app.services.database;
        let tx = tenancy::create(database, new("dropped")).await.unwrap();
        drop(tx);
        for n in 0..20 {
            let work = make(world, "dropped");
            if let Some(done) = cut_short(Duration::from_millis(n), work).await {
                done.unwrap();
                break;
            }
        }
        let left = orphans(&mut superuser).await;
        assert!(left.is_empty(), "{left:?}");
        // The name is free, unless a commit that was cut short went through.
        match make(world, "dropped").await {
            Ok(()) => {}
            Err(error) => assert!(matches!(error, Error::AlreadyExists(_)), "{error:?}"),
        }
        assert_eq!(count(&mut superuser, "dropped").await, 1);
    });
}

#[test]
fn many_at_once_are_all_made() {
    run(async {
        let world = world().await;
        let slugs: Vec<String> = (0..8).map(|n| format!("many-{n}")).collect();
        let made = futures::future::join_all(slugs.iter().map(|slug| make(world, slug))).await;
        for (slug, made) in slugs.iter().zip(made) {
            made.unwrap_or_else(|error| panic!("{slug}: {error:?}"));
        }
        let mut seen = Vec::new();
        for slug in &slugs {
            let tenant = Tenant::named(slug).await;
            let tx = tenant.write().await;
            let roles = value(&tx, "SELECT count(*)::text FROM role").await;
            assert_eq!(roles.unwrap(), "4");
            tx.commit().await.unwrap();
            seen.extend([tenant.row.schema_name.clone(), tenant.row.role_name.clone()]);
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 16, "each with its own schema and role");
    });
}

#[test]
fn of_many_for_one_slug_one_wins() {
    run(async {
        let world = world().await;
        let mut superuser = world.superuser().await;
        let made = futures::future::join_all((0..8).map(|_| make(world, "raced"))).await;
        let won = made.iter().filter(|made| made.is_ok()).count();
        assert_eq!(won, 1, "{made:?}");
        for error in made.into_iter().filter_map(Result::err) {
            assert!(matches!(error, Error::AlreadyExists(_)), "{error:?}");
        }
        assert_eq!(count(&mut superuser, "raced").await, 1);
        assert!(orphans(&mut superuser).await.is_empty());
    });
}

#[test]
fn a_new_tenant_is_like_the_template() {
    run(async {
        let (one, two) = (Tenant::new().await, Tenant::new().await);
        let mut superuser = one.world.superuser().await;
        let template = structure(&mut superuser, "t_template", None).await;
        assert!(template.len() > 100, "{template:#?}");
        let bare = structure(&mut superuser, &one.row.schema_name, None).await;
        same(&bare, &template);
        let [first, second] =
            [&one, &two].map(|t| (&t.row.schema_name, Some(t.row.role_name.as_str())));
        let first = structure(&mut superuser, first.0, first.1).await;
        let second = structure(&mut superuser, second.0, second.1).await;
        same(&first, &second);
        let granted: Vec<_> = first
            .iter()
            .filter(|line| line.contains("{role}="))
            .collect();
        let on = |line: &str| granted.iter().filter(|g| g.contains(line)).count();
        assert_eq!(
            on("on table history {bulkhead=arwdDxt/bulkhead,{role}=r/bulkhead}"),
            1
        );
        assert_eq!(on("{role}=arwd/bulkhead"), 9, "{granted:#?}");
        assert_eq!(on("on schema {bulkhead=UC/bulkhead,{role}=U/bulkhead}"), 1);
        assert_eq!(
            on("{bulkhead=X/bulkhead,{role}=X/bulkhead}"),
            9,
            "{granted:#?}"
        );
        assert_eq!(granted.len(), 20, "{granted:#?}");
    });
}

#[test]
fn a_tenant_that_lacks_a_step_gets_it_at_the_next_start() {
    run(async {
        let (behind, whole) = (Tenant::new().await, Tenant::new().await);
        let mut superuser = behind.world.superuser().await;
        let (schema, role) = (&behind.row.schema_name, &behind.row.role_name);
        // As an older binary has left it.
        let sql = format!("BEGIN; {}; COMMIT", without_step(schema));
        superuser
            .execute(sqlx::raw_sql(AssertSqlSafe(sql)))
            .await
            .unwrap();
        behind.world.another(2).await.stop().await.unwrap();
        let migrated = structure(&mut superuser, schema, Some(role)).await;
        let (schema, role) = (&whole.row.schema_name, &whole.row.role_name);
        let made = structure(&mut superuser, schema, Some(role)).await;
        same(&migrated, &made);
    });
}

#[test]
fn a_step_without_its_grants_is_not_applied() {
    run(async {
        let world = world().await;
        let url = world.new_database("no_grants").await;
        let app = world.another_on(&url, 4).await.unwrap();
        let database = &app.services.database;
        let tx = tenancy::create(database, new("acme")).await.unwrap();
        let tenant = std::sync::Arc::clone(tx.tenant());
        tx.commit().await.unwrap();
        app.stop().await.unwrap();
        let mut superuser = world.superuser_of("no_grants").await;
        let (schema, role) = (&tenant.schema_name, &tenant.role_name);
        let before = structure(&mut superuser, schema, Some(role)).await;
        // The step can be applied, and what is granted with it cannot.
        let sql = format!(
            "BEGIN; {}; ALTER TABLE {schema}.session OWNER TO CURRENT_USER; COMMIT",
            without_step(schema)
        );
        let sql = sqlx::raw_sql(AssertSqlSafe(sql));
        superuser.execute(sql).await.unwrap();
        // It stops nobody.
        let app = world.another_on(&url, 4).await.unwrap();
        app.stop().await.unwrap();
        let half = structure(&mut superuser, schema, Some(role)).await;
        assert!(
            !half.iter().any(|line| line.contains("idempotency_key")),
            "{half:#?}"
        );
        let sql = format!("ALTER TABLE {schema}.session OWNER TO bulkhead");
        let sql = sqlx::query(AssertSqlSafe(sql));
        superuser.execute(sql).await.unwrap();
        let app = world.another_on(&url, 4).await.unwrap();
        app.stop().await.unwrap();
        let after = structure(&mut superuser, schema, Some(role)).await;
        same(&after, &before);
    });
}

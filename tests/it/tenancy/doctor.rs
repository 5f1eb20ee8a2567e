//! `bulkhead doctor`: says what is wrong, and what it says mends it.

use crate::harness::{Tenant, World, finish, run};
use bulkhead::tenancy::spares;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Executor as _};

const SPARES: u32 = 1;

fn bulkhead(world: &World, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = world.command();
    command.env("BULKHEAD_LOG", "off").args(args);
    finish(command.env("BULKHEAD_SPARES", SPARES.to_string()), "")
}

/// What the doctor finds, as (check, health, detail, mend), and its exit code.
fn examine(world: &World) -> (Option<i32>, Vec<[String; 4]>) {
    let (code, out, err) = bulkhead(world, &["doctor", "--json"]);
    let found: Vec<Value> = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}"));
    let text = |one: &Value, key: &str| one[key].as_str().unwrap_or("").to_owned();
    let found = found
        .iter()
        .map(|one| ["check", "health", "detail", "mend"].map(|key| text(one, key)));
    (code, found.collect())
}

async fn execute(world: &World, sql: &str) {
    let mut superuser = world.superuser().await;
    let done = superuser.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned())));
    done.await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// A world that the doctor finds nothing wrong with.
async fn healthy() -> &'static World {
    let world = World::private(|config| config.spares = SPARES).await;
    let (code, sql, err) = bulkhead(world, &["hardening"]);
    assert_eq!(code, Some(0), "{err}");
    execute(world, &sql).await;
    let database = &world.app.services.database;
    spares::fill(database, SPARES).await.unwrap();
    world
}

#[test]
fn a_healthy_instance_is_well() {
    run(async {
        let world = healthy().await;
        let (code, out, err) = bulkhead(world, &["doctor"]);
        assert_eq!(code, Some(0), "{out}{err}");
        assert!(!out.contains("FAIL") && !out.contains('\x1b'), "{out}");
        assert!(out.contains("0 to mend"), "{out}");
        let (code, found) = examine(world);
        assert_eq!(code, Some(0));
        let checks: Vec<&str> = found
            .iter()
            .filter(|[_, health, ..]| health == "ok")
            .map(|[check, ..]| check.as_str())
            .collect();
        let all = [
            "pooler",
            "postgresql",
            "hardening",
            "public",
            "definer functions",
            "functions",
            "cell logins",
            "cell members",
            "tenant roles",
            "notify",
            "template",
            "cells",
            "tenants",
            "spares",
            "orphans",
        ];
        // The tests' PostgreSQL is not durable, and that is said.
        assert_eq!(checks, all, "{found:#?}");
        assert!(
            found
                .iter()
                .any(|[_, _, detail, _]| detail.contains("fsync is off"))
        );
    });
}

/// What is done to a world with these tenants.
fn planted(one: &Tenant, two: &Tenant) -> String {
    let instance = one.world.app.services.database.instance();
    let (role, other) = (&one.row.role_name, &two.row.schema_name);
    let cell = format!("{instance}_c_0");
    let name = one.world.database_url.split('?').next().unwrap();
    let name = name.rsplit('/').next().unwrap();
    format!(
            "GRANT TEMPORARY ON DATABASE {name} TO PUBLIC;
             GRANT CREATE ON SCHEMA public TO PUBLIC;
             CREATE FUNCTION bulkhead.stray() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1';
             ALTER DEFAULT PRIVILEGES FOR ROLE bulkhead GRANT EXECUTE ON FUNCTIONS TO PUBLIC;
             ALTER ROLE {cell} INHERIT CREATEDB;
             REVOKE {role} FROM {cell};
             GRANT pg_monitor TO {cell};
             ALTER ROLE {role} LOGIN;
             GRANT USAGE ON SCHEMA bulkhead TO {role};
             GRANT SELECT ON {other}.device TO {role};
             CREATE SCHEMA t_999999;
             CREATE ROLE {instance}_t_999999;
             INSERT INTO bulkhead.tenant (id, slug, name, state, schema_name, role_name, cell_id, created_at)
                SELECT gen_random_uuid(), 'full-' || n, '', 'deleting', 'none_' || n, 'none_' || n, 0, now()
                FROM generate_series(1, 701) n"
        )
}

#[test]
fn what_is_broken_is_named_and_mended_by_what_is_said() {
    run(async {
        let world = healthy().await;
        let (one, two) = (Tenant::of(world).await, Tenant::of(world).await);
        let instance = world.app.services.database.instance();
        let (role, other) = (&one.row.role_name, &two.row.schema_name);
        let cell = format!("{instance}_c_0");
        execute(world, &planted(&one, &two)).await;
        let (code, found) = examine(world);
        assert_eq!(code, Some(2), "{found:#?}");
        for (check, health, detail) in [
            ("hardening", "fail", "statements"),
            ("public", "fail", "everybody may create"),
            ("definer functions", "fail", "bulkhead.stray()"),
            ("functions", "fail", "everybody may run what functions"),
            ("functions", "fail", "of the schema bulkhead"),
            ("cell logins", "fail", "inherits"),
            ("cell logins", "fail", "may create databases"),
            ("cell members", "fail", &format!("{cell} may not be {role}")),
            ("cell members", "fail", &format!("{cell} may be pg_monitor")),
            ("tenant roles", "fail", &format!("{role} can log in")),
            (
                "tenant roles",
                "fail",
                &format!("{role} has rights on schema bulkhead"),
            ),
            (
                "tenant roles",
                "fail",
                &format!("{role} has rights on table {other}.device"),
            ),
            ("cells", "warn", "702 tenants"),
            ("tenants", "fail", "1 of 2"),
            ("spares", "warn", "0 of 1"),
            ("orphans", "warn", "t_999999"),
            ("orphans", "warn", &format!("{instance}_t_999999")),
        ] {
            let named = found.iter().any(|[c, h, d, m]| {
                c == check && h == health && d.contains(detail) && !m.is_empty()
            });
            assert!(named, "{check}, {detail}: {found:#?}");
        }
        for [_, health, _, mend] in &found {
            if health != "ok" && mend.starts_with(char::is_uppercase) && !mend.contains("SYSTEM") {
                execute(world, mend).await;
            }
        }
        let (_, sql, _) = bulkhead(world, &["hardening"]);
        execute(world, &sql).await;
        let full = "DELETE FROM bulkhead.tenant WHERE slug LIKE 'full-%'";
        execute(world, full).await;
        let (code, found) = examine(world);
        assert_eq!(code, Some(0), "{found:#?}");
        assert!(
            !found
                .iter()
                .any(|[check, health, ..]| check == "orphans" && health != "ok")
        );
    });
}

#[test]
fn what_needs_a_hand_is_named() {
    run(async {
        let world = healthy().await;
        execute(world, "CREATE TABLE public.stray (); UPDATE bulkhead.template SET steps = '[\"m0001_history\"]'").await;
        let (code, found) = examine(world);
        assert_eq!(code, Some(2));
        for (check, detail) in [
            ("public", "table public.stray"),
            ("template", "it lacks m0002_identity"),
        ] {
            let named =
                |[c, h, d, _]: &[String; 4]| c == check && h == "fail" && d.contains(detail);
            assert!(found.iter().any(named), "{check}: {found:#?}");
        }
        // A database that is none of ours is no finding.
        let url = world.new_database("of_others").await;
        let mut command = world.command();
        let (code, out, err) = finish(command.env("DATABASE_URL", url).arg("doctor"), "");
        assert_eq!((code, out.as_str()), (Some(1), ""));
        assert!(err.contains("not at this binary's version"), "{err}");
    });
}

//! `bulkhead tenant check`: each kind of difference is planted, and named.

use super::{count, orphans};
use crate::harness::{Tenant, World, finish, run, until};
use bulkhead::error::explain;
use bulkhead::tenancy::{self, Act, NewTenant, spares};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Executor as _};

fn check(world: &World, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = world.command();
    command.env("BULKHEAD_LOG", "off").args(["tenant", "check"]);
    finish(command.args(args), "")
}

async fn execute(world: &World, sql: String) {
    let mut superuser = world.superuser().await;
    let done = superuser.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await;
    done.unwrap();
}

#[test]
fn tenants_and_spares_are_like_the_template() {
    run(async {
        let world = World::private(|_| {}).await;
        let database = &world.app.services.database;
        let made = Tenant::of(world).await;
        spares::fill(database, 2).await.unwrap();
        let spare = Tenant::of(world).await;
        let migrated = Tenant::of(world).await;
        // As if it had been made by a binary without tenant steps: the next start applies them all, one by one.
        let (schema, role) = (&migrated.row.schema_name, &migrated.row.role_name);
        let sql = format!(
            "SET ROLE bulkhead; DROP SCHEMA {schema} CASCADE; DELETE FROM bulkhead.migration WHERE schema_name = '{schema}'"
        );
        execute(world, sql).await;
        let clone = format!("{}-copy", spare.slug);
        let mut command = world.command();
        let (code, _, err) = finish(command.args(["tenant", "clone", &spare.slug, &clone]), "");
        assert_eq!(code, Some(0), "{err}");
        let (code, out, err) = check(world, &["--json"]);
        assert_eq!(code, Some(0), "{out}{err}");
        let checked: Vec<Value> = serde_json::from_str(&out).unwrap();
        let named = |slug: &str| {
            let of = |one: &&Value| one["slug"] == slug;
            checked.iter().find(of).unwrap()["fingerprint"].clone()
        };
        assert_eq!(checked.len(), 4, "{out}");
        assert!(named(&made.slug).is_string(), "{out}");
        for like in [&spare.slug, &migrated.slug, &clone] {
            assert_eq!(named(&made.slug), named(like), "{like} ({role})");
        }
        let (code, out, _) = check(world, &[&made.slug]);
        assert_eq!(code, Some(0));
        assert_eq!(out, "1 tenant, 0 spares: all like the template\n");
        let (code, out, err) = check(world, &["nobody"]);
        assert_eq!((code, out.as_str()), (Some(1), ""));
        assert!(err.contains("no tenant nobody"), "{err}");
    });
}

/// What is done to a schema `{s}` and its role `{r}`, and what is said of it then.
const PLANTED: [(&str, &str); 18] = [
    (
        "ALTER TABLE {s}.device DROP COLUMN firmware_version",
        "column device.firmware_version is missing",
    ),
    (
        "ALTER TABLE {s}.device ADD note text",
        "column device.note is extra",
    ),
    (
        "ALTER TABLE {s}.media ALTER filename DROP NOT NULL",
        "column media.filename is `text",
    ),
    (
        "ALTER TABLE {s}.media DROP CONSTRAINT media_size_check",
        "constraint media_size_check on media is missing",
    ),
    (
        "ALTER TABLE {s}.session DROP CONSTRAINT session_member_id_fkey,
        ADD CONSTRAINT session_member_id_fkey FOREIGN KEY (member_id) REFERENCES {s}.member",
        "constraint session_member_id_fkey on session is `",
    ),
    (
        "DROP INDEX {s}.session_member_id_idx",
        "index session_member_id_idx on session is missing",
    ),
    (
        "CREATE INDEX stray_idx ON {s}.device (name)",
        "index stray_idx on device is extra",
    ),
    (
        "DROP TRIGGER device_touch ON {s}.device",
        "trigger device_touch on device is missing",
    ),
    (
        "ALTER TABLE {s}.role DISABLE TRIGGER role_touch",
        "trigger role_touch on role is `",
    ),
    (
        "CREATE OR REPLACE FUNCTION {s}.record_history() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "function record_history() is another",
    ),
    ("CREATE TABLE {s}.stray (id int)", "table stray is extra"),
    (
        "CREATE TYPE {s}.mood AS ENUM ('good')",
        "object type {schema}.mood is extra",
    ),
    (
        "REVOKE SELECT ON {s}.media FROM {r}",
        "role lacks SELECT on table media",
    ),
    (
        "GRANT DELETE ON {s}.history TO {r}",
        "role has DELETE on table history too",
    ),
    (
        "GRANT SELECT ON {s}.member TO PUBLIC",
        "PUBLIC has SELECT on table member",
    ),
    (
        "GRANT EXECUTE ON FUNCTION {s}.record_event TO PUBLIC",
        "PUBLIC has EXECUTE on function record_event(",
    ),
    (
        "GRANT UPDATE (name) ON {s}.device TO pg_monitor",
        "pg_monitor has UPDATE on column device.name",
    ),
    (
        "ALTER SCHEMA {s} OWNER TO pg_monitor",
        "the schema is `owned by pg_monitor`",
    ),
];

#[test]
fn each_difference_is_named() {
    run(async {
        let world = World::private(|_| {}).await;
        let (whole, planted, gone) = (
            Tenant::of(world).await,
            Tenant::of(world).await,
            Tenant::of(world).await,
        );
        let (schema, role) = (&planted.row.schema_name, &planted.row.role_name);
        let sql: Vec<String> = PLANTED
            .iter()
            .map(|(sql, _)| sql.replace("{s}", schema).replace("{r}", role))
            .collect();
        execute(world, sql.join(";\n")).await;
        execute(
            world,
            format!("DROP SCHEMA {} CASCADE", gone.row.schema_name),
        )
        .await;
        let database = &world.app.services.database;
        spares::fill(database, 1).await.unwrap();
        let mut superuser = world.superuser().await;
        let spare: String = sqlx::query_scalar("SELECT schema_name FROM bulkhead.spare")
            .fetch_one(&mut superuser)
            .await
            .unwrap();
        execute(world, format!("DROP TABLE {spare}.device_token")).await;
        let (code, out, err) = check(world, &[]);
        assert_eq!(code, Some(2), "{out}{err}");
        for (_, named) in PLANTED {
            let line = format!("{}: {named}", planted.slug);
            assert!(out.contains(&line), "{line} is not in {out}");
        }
        let (slug, spare) = (
            &gone.slug,
            format!("spare {spare}: table device_token is missing"),
        );
        assert!(
            out.contains(&format!("{slug}: its schema is missing")),
            "{out}"
        );
        assert!(out.contains(&spare), "{out}");
        assert!(!out.contains(&whole.slug), "{out}");
        assert!(
            out.ends_with("3 tenants, 1 spare: 3 differ from the template\n"),
            "{out}"
        );
        // Each once, and nothing else but what goes with it: the column default of an extra table, and the like.
        let own = out.lines().filter(|line| line.starts_with(&planted.slug));
        assert!(own.count() < PLANTED.len() + 8, "{out}");
    });
}

#[test]
fn what_is_made_unlike_the_template_is_not_kept() {
    run(async {
        let world = World::private(|_| {}).await;
        let database = &world.app.services.database;
        execute(
            world,
            "ALTER TABLE t_template.device ADD note text".to_owned(),
        )
        .await;
        let new = NewTenant {
            slug: "acme".to_owned(),
            name: "Acme".to_owned(),
            act: Act::by("tests"),
        };
        let refused = tenancy::create(database, new).await.unwrap_err();
        let named = "column device.note is missing";
        assert!(explain(&refused).contains(named), "{refused:?}");
        let refused = spares::fill(database, 1).await.unwrap_err();
        assert!(explain(&refused).contains(named), "{refused:?}");
        let mut superuser = world.superuser().await;
        until("all of it is rolled back", async || {
            orphans(&mut superuser).await.is_empty().then_some(())
        })
        .await;
        assert_eq!(count(&mut superuser, "acme").await, 0);
    });
}

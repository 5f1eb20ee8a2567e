//! A tenant that lacks a step and cannot be migrated: it stops nobody, and is not served by halves.

use super::{STEP, without_step};
use crate::harness::{Tenant, World, finish, run, until};
use reqwest::{Method, StatusCode};
use serde_json::json;
use sqlx::{AssertSqlSafe, Executor as _, PgConnection};

/// A newer binary migrates the template, then all tenants, and renders it after that.
#[test]
fn tenants_are_made_while_a_newer_binary_migrates() {
    run(async {
        let world = World::private(|_| {}).await;
        let sql = "ALTER TABLE t_template.device ADD note text;
            INSERT INTO bulkhead.migration (schema_name, name) VALUES ('t_template', 'm9999_note')";
        let mut superuser = world.superuser().await;
        superuser.execute(sqlx::raw_sql(sql)).await.unwrap();
        let tenant = Tenant::of(world).await;
        tenant.sign_in(&format!("owner@{}.test", tenant.slug)).await;
        let (code, out, _) = finish(world.command().args(["tenant", "check"]), "");
        assert_eq!(code, Some(2), "{out}");
        let line = format!("{}: step m9999_note is missing", tenant.slug);
        assert!(out.contains(&line), "{out}");
    });
}

#[test]
fn a_tenant_that_cannot_be_migrated_is_refused_until_it_can() {
    run(async {
        let world = World::private(|_| {}).await;
        let (behind, whole) = (Tenant::of(world).await, Tenant::of(world).await);
        let schema = &behind.row.schema_name;
        let mut superuser = world.superuser().await;
        // As an older binary has left it, and the step fails: somebody's table is in its way.
        let sql = format!(
            "BEGIN; {}; CREATE TABLE {schema}.idempotency_key (); COMMIT",
            without_step(schema)
        );
        superuser
            .execute(sqlx::raw_sql(AssertSqlSafe(sql)))
            .await
            .unwrap();
        let server = world.beside(|_| {}).await;
        let graphql = async |tenant: &Tenant| {
            let host = format!("{}.localhost", tenant.slug);
            let request = server.request(Method::POST, &host, "/graphql");
            let request = request.json(&json!({ "query": "{ __typename }" }));
            request.send().await.unwrap()
        };
        assert_eq!(graphql(&whole).await.status(), StatusCode::OK);
        let refused = graphql(&behind).await;
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(refused.headers().contains_key("retry-after"));
        let refused: serde_json::Value = refused.json().await.unwrap();
        assert_eq!(
            refused["errors"][0]["extensions"]["code"],
            "TENANT_UPGRADING"
        );
        let host = format!("{}.localhost", behind.slug);
        let refused = server.request(Method::GET, &host, "/device/me");
        let refused = refused.send().await.unwrap();
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(refused.headers().contains_key("retry-after"));
        let refused: serde_json::Value = refused.json().await.unwrap();
        assert_eq!(refused["code"], "tenant_upgrading");

        let (code, out, err) = finish(world.command().args(["tenant", "check"]), "");
        assert_eq!(code, Some(2), "{err}");
        let line = format!("{}: step {STEP} is missing", behind.slug);
        assert!(out.contains(&line) && !out.contains(&whole.slug), "{out}");
        assert!(
            err.contains("cannot be migrated") && err.contains(&behind.slug),
            "{err}"
        );

        // Once it can be, whoever migrates it tells every server.
        let sql = format!("DROP TABLE {schema}.idempotency_key");
        superuser.execute(AssertSqlSafe(sql)).await.unwrap();
        server
            .app
            .services
            .database
            .migrate_tenants()
            .await
            .unwrap();
        until("it is served again", async || {
            (graphql(&behind).await.status() == StatusCode::OK).then_some(())
        })
        .await;
    });
}

/// Functions that schemas of older binaries have, and everybody may run.
const OWN_FUNCTIONS: &str = "CREATE FUNCTION {s}.touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE FUNCTION {s}.mirror_schedule() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {s} TO PUBLIC;
    DELETE FROM bulkhead.migration WHERE schema_name = '{s}' AND name = 'm0028_triggers'";

#[test]
fn triggers_of_older_tenants_do_what_the_platform_says() {
    run(async {
        let world = World::private(|_| {}).await;
        let older = Tenant::of(world).await;
        let mut owner = world.owner().await;
        let schema = &older.row.schema_name;
        // Their functions with the schemas: nothing is on the path.
        owner
            .execute("SET search_path TO pg_catalog")
            .await
            .unwrap();
        let called =
            "SELECT pg_get_triggerdef(t.oid) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
            JOIN pg_proc p ON p.oid = t.tgfoid
            WHERE c.relnamespace = $1::regnamespace AND p.pronamespace = $2::regnamespace
                AND p.proname IN ('touch', 'mirror_schedule') ORDER BY t.oid";
        let calling = async |owner: &mut PgConnection, whose: &str| -> Vec<String> {
            let query = sqlx::query_scalar(called).bind(schema).bind(whose);
            query.fetch_all(owner).await.unwrap()
        };
        let platforms = calling(&mut owner, "bulkhead").await;
        let own = platforms.iter().map(|trigger| {
            let trigger = trigger.replace("CREATE TRIGGER", "CREATE OR REPLACE TRIGGER");
            trigger.replace("FUNCTION bulkhead.", &format!("FUNCTION {schema}."))
        });
        let sql: Vec<String> = std::iter::once(OWN_FUNCTIONS.replace("{s}", schema))
            .chain(own)
            .collect();
        let sql = AssertSqlSafe(sql.join(";\n"));
        owner.execute(sqlx::raw_sql(sql)).await.unwrap();
        assert_eq!(calling(&mut owner, schema).await.len(), platforms.len());
        assert!(platforms.len() > 3, "{platforms:?}");

        let (code, out, _) = finish(world.command().args(["tenant", "check"]), "");
        assert_eq!(code, Some(0), "the command migrates it first: {out}");
        assert!(out.contains("all like the template"), "{out}");
        assert_eq!(calling(&mut owner, "bulkhead").await, platforms);
    });
}

//! What a unit of work reaches, and what PostgreSQL refuses to its tenant.

use super::{add, adding, backend};
use crate::harness::{Tenant, execute, refused, run, sqlstate, value, world};
use bulkhead::actor::{Actor, Attribution};
use bulkhead::error::Error;
use bulkhead::tenancy::{self, Act, NewTenant};
use entity::tenant::device;
use sea_orm::{
    ConnectionTrait as _, DbBackend, DbErr, EntityTrait as _, PaginatorTrait as _, Statement,
};
use sqlx::AssertSqlSafe;
use std::sync::Arc;

#[test]
fn a_unit_of_work_sees_its_tenant_and_nothing_else() {
    run(async {
        let (ours, theirs) = (Tenant::new().await, Tenant::new().await);
        let tx = ours.write().await;
        let device = add(&tx, "Ours").await.unwrap();
        tx.commit().await.unwrap();

        let tx = ours.write().await;
        let found = device::Entity::find_by_id(device.id).one(&tx).await;
        assert_eq!(found.unwrap(), Some(device.clone()));
        assert_eq!(device::Entity::find().count(&tx).await.unwrap(), 1);
        tx.commit().await.unwrap();

        let tx = theirs.write().await;
        let found = device::Entity::find_by_id(device.id).one(&tx).await;
        assert_eq!(found.unwrap(), None);
        assert_eq!(device::Entity::find().count(&tx).await.unwrap(), 0);
        tx.commit().await.unwrap();
    });
}

#[test]
fn naming_another_schema_is_refused() {
    run(async {
        let (ours, theirs) = (Tenant::new().await, Tenant::new().await);
        let schema = &theirs.row.schema_name;
        let named = [
            format!("SELECT * FROM {schema}.device"),
            format!("SELECT * FROM {schema}.history"),
            format!("INSERT INTO {schema}.role SELECT * FROM role"),
            format!("UPDATE {schema}.device SET name = 'ours'"),
            format!("DELETE FROM {schema}.member"),
            format!("SELECT * FROM {schema}.jobs(NULL, NULL, NULL, 1)"),
            format!("SELECT {schema}.enqueue(gen_random_uuid(), 'media.process', '{{}}', 1, 1)"),
        ];
        refused(&ours, &named.each_ref().map(String::as_str)).await;
        refused(
            &ours,
            &[
                "SELECT * FROM bulkhead.tenant",
                "SELECT * FROM bulkhead.job",
                "UPDATE bulkhead.tenant SET name = 'ours'",
                "SELECT nextval('bulkhead.tenant_number')",
                "SELECT * FROM t_template.role",
                "CREATE TABLE public.ours (id uuid)",
                "SELECT * FROM pg_catalog.pg_authid",
            ],
        )
        .await;
        let left: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace",
        )
        .fetch_one(&mut ours.world.owner().await)
        .await
        .unwrap();
        assert_eq!(left, 0, "public holds nothing");
    });
}

#[test]
fn a_connection_that_did_not_bind_reads_nothing() {
    run(async {
        let tenant = Tenant::new().await;
        let mut cell = tenant.cell().await;
        for table in [
            format!("{}.device", tenant.row.schema_name),
            format!("{}.history", tenant.row.schema_name),
            "bulkhead.tenant".to_owned(),
            "bulkhead.job".to_owned(),
            "t_template.role".to_owned(),
        ] {
            let query = sqlx::query(AssertSqlSafe(format!("SELECT * FROM {table}")));
            let error = query.fetch_all(&mut cell).await.unwrap_err();
            let code = error.as_database_error().unwrap().code().unwrap();
            assert_eq!(code, "42501", "{table}: {error}");
        }
        let mine: Option<String> = sqlx::query_scalar("SELECT current_schema()::text")
            .fetch_one(&mut cell)
            .await
            .unwrap();
        assert_ne!(mine, Some(tenant.row.schema_name.clone()));
    });
}

#[test]
fn only_one_prepared_statement_goes_through() {
    run(async {
        let tenant = Tenant::new().await;
        let tx = tenant.write().await;
        assert!(tx.execute_unprepared(&adding(1)).await.is_err());
        assert_eq!(device::Entity::find().count(&tx).await.unwrap(), 0);
        let two = format!("{}; {}", adding(1), adding(1));
        let error = execute(&tx, &two).await.unwrap_err();
        assert_eq!(sqlstate(&error), "42601", "{error}");
        tx.rollback().await.unwrap();
        // An injected end of the transaction does not bring a second statement either.
        let tx = tenant.write().await;
        let error = execute(&tx, "SELECT 1; COMMIT; SELECT 1").await;
        assert_eq!(sqlstate(&error.unwrap_err()), "42601");
        tx.rollback().await.unwrap();
    });
}

#[test]
fn what_everybody_may_do_is_refused_to_a_tenant() {
    run(async {
        let (tenant, other) = (Tenant::new().await, Tenant::new().await);
        let role = &other.row.role_name;
        let roles = [
            format!("SELECT set_config('role', '{role}', true)"),
            format!("UPDATE pg_catalog.pg_settings SET setting = '{role}' WHERE name = 'role'"),
            format!("CREATE TABLE {}.new (id uuid)", tenant.row.schema_name),
        ];
        refused(&tenant, &roles.each_ref().map(String::as_str)).await;
        refused(
            &tenant,
            &[
                "SELECT query_to_xml('SELECT 1', true, false, '')",
                "SELECT query_to_xmlschema('SELECT 1', true, false, '')",
                "SELECT table_to_xml('device', true, false, '')",
                "SELECT schema_to_xml('pg_catalog', true, false, '')",
                "SELECT database_to_xml(true, false, '')",
                "SELECT cursor_to_xml('c', 1, true, false, '')",
                "SELECT pg_sleep(0)",
                "SELECT pg_sleep_for('0 s')",
                "SELECT pg_sleep_until(now())",
                "SELECT pg_advisory_lock(1)",
                "SELECT pg_advisory_xact_lock(1)",
                "SELECT pg_try_advisory_lock_shared(1)",
                "SELECT pg_advisory_unlock_all()",
                "SELECT pg_notify('jobs', '')",
                "SELECT pg_logical_emit_message(false, 'fills', 'the disk')",
                "SELECT pg_export_snapshot()",
                "SELECT lo_import('/etc/passwd')",
                "SELECT lo_create(0)",
                "SELECT lo_creat(-1)",
                "SELECT lo_from_bytea(0, '')",
                "SELECT lo_get(1)",
                "SELECT pg_read_file('/etc/passwd')",
                "SELECT pg_ls_dir('.')",
                "SELECT pg_reload_conf()",
                "CREATE TEMP TABLE device (id uuid)",
                "SELECT * INTO TEMP device FROM device",
                "SELECT * INTO mine FROM device",
                "CREATE SCHEMA mine",
                "DO $$ BEGIN END $$",
                "COPY device TO '/tmp/device'",
                "COPY device FROM PROGRAM 'true'",
                "SET LOCAL session_replication_role = replica",
                "CREATE ROLE mine",
            ],
        )
        .await;
    });
}

#[test]
fn a_tenant_cannot_end_others_statements_or_read_them() {
    run(async {
        let (tenant, other) = (Tenant::new().await, Tenant::new().await);
        let app = other.world.another(1).await;
        let busy = other.write_on(&app).await;
        let process = backend(&busy).await;
        let end = format!("SELECT pg_terminate_backend({process}), pg_cancel_backend({process})");
        refused(&tenant, &[&end]).await;
        let tx = tenant.write().await;
        let sql = format!("SELECT query FROM pg_stat_activity WHERE pid = {process}");
        let shown = value(&tx, &sql).await.unwrap();
        assert_eq!(shown, "<insufficient privilege>");
        tx.commit().await.unwrap();
        busy.commit().await.unwrap();
        app.stop().await.unwrap();
    });
}

#[test]
fn a_temporary_table_cannot_stand_in_for_a_tenants() {
    run(async {
        let tenant = Tenant::new().await;
        let app = tenant.world.another(2).await;
        // As if a restored database had lost its hardening, for this one role.
        let sql = format!(
            "GRANT TEMPORARY ON DATABASE bulkhead TO {}",
            tenant.row.role_name
        );
        sqlx::query(AssertSqlSafe(sql))
            .execute(&mut tenant.world.superuser().await)
            .await
            .unwrap();
        let tx = tenant.write_on(&app).await;
        add(&tx, "Real").await.unwrap();
        let fake = "SELECT * INTO TEMP device FROM device LIMIT 0";
        execute(&tx, fake).await.unwrap();
        assert_eq!(device::Entity::find().count(&tx).await.unwrap(), 1);
        tx.commit().await.unwrap();
        let tx = tenant.write_on(&app).await;
        assert_eq!(device::Entity::find().count(&tx).await.unwrap(), 1);
        tx.commit().await.unwrap();
        app.stop().await.unwrap();
    });
}

/// The login is a member of all roles of its cell, so a whole statement of somebody else's choosing could take another. A
/// unit of work does not send it: it reads and changes rows, and what else there is of SQL is refused, however dressed.
#[test]
fn a_whole_statement_cannot_leave_the_unit_of_work() {
    run(async {
        let (tenant, other) = (Tenant::new().await, Tenant::new().await);
        let tx = tenant.write().await;
        add(&tx, "Before").await.unwrap();
        let role = &other.row.role_name;
        for sql in [
            format!("SET LOCAL ROLE {role}"),
            format!("/* SELECT */ -- SELECT\n sEt role {role}"),
            "RESET ROLE".to_owned(),
            "DO $$ BEGIN END $$".to_owned(),
            "COMMIT".to_owned(),
            "(ROLLBACK".to_owned(),
            "SAVEPOINT mine".to_owned(),
            "COPY device TO STDOUT".to_owned(),
            "PREPARE p AS SELECT 1".to_owned(),
            "LISTEN jobs".to_owned(),
            "DISCARD ALL".to_owned(),
            "CALL f()".to_owned(),
            "EXPLAIN ANALYZE DELETE FROM device".to_owned(),
            String::new(),
        ] {
            let refusal = execute(&tx, &sql).await.unwrap_err();
            assert!(matches!(refusal, DbErr::Custom(_)), "{sql}: {refusal:?}");
            assert!(value(&tx, &sql).await.is_err(), "{sql}");
        }
        // None of it was sent, so nothing is broken.
        assert_eq!(
            value(&tx, "SELECT current_user::text").await.unwrap(),
            tenant.row.role_name
        );
        assert!(!tx.is_broken());
        tx.commit().await.unwrap();
        assert_eq!(tenant.count("SELECT count(*) FROM device").await, 1);
        // The platform, and the owner of the schemas, are out of the login's reach anyway.
        refused(&tenant, &["SET LOCAL ROLE bulkhead"]).await;
    });
}

#[test]
fn values_are_never_text_of_a_statement() {
    run(async {
        let tenant = Tenant::new().await;
        let tx = tenant.write().await;
        let evil = "'; SET LOCAL ROLE bulkhead; --";
        let row = add(&tx, evil).await.unwrap();
        assert_eq!(row.name, evil);
        let by_value = Statement::from_sql_and_values(
            DbBackend::Postgres,
            "SELECT count(*)::text FROM device WHERE name = $1",
            [evil.into()],
        );
        let row = tx.query_one_raw(by_value).await.unwrap().unwrap();
        assert_eq!(row.try_get_by_index::<String>(0).unwrap(), "1");
        tx.commit().await.unwrap();

        // Who acts travels as a literal of ours: quotes in it end nothing.
        let by = Actor::Operator("o'hara'; SET LOCAL ROLE bulkhead; --".to_owned());
        let database = &tenant.world.app.services.database;
        let tx = database.write(&tenant.row, &by.clone().into()).await;
        let tx = tx.unwrap();
        let actor = value(&tx, "SELECT current_setting('bulkhead.actor')").await;
        assert_eq!(actor.unwrap(), by.to_string());
        tx.rollback().await.unwrap();
        let nul = Actor::Operator("nul\0".to_owned()).into();
        let refused = database.write(&tenant.row, &nul).await;
        assert!(matches!(refused, Err(Error::BadRequest(_))), "{refused:?}");
    });
}

/// The reason is the caller's text, and travels in a batch of ours as a literal.
#[test]
fn a_literal_ends_nothing_whatever_backslashes_mean_to_the_server() {
    run(async {
        let world = world().await;
        let url = world.new_database("backslashes").await;
        sqlx::query("ALTER DATABASE backslashes SET standard_conforming_strings = off")
            .execute(&mut world.superuser().await)
            .await
            .unwrap();
        let app = world.another_on(&url, 4).await.unwrap();
        let database = &app.services.database;
        let new = NewTenant {
            slug: "acme".to_owned(),
            name: "Acme".to_owned(),
            act: Act::by(r"o\'hara"),
        };
        let tx = tenancy::create(database, new).await.unwrap();
        let tenant = Arc::clone(tx.tenant());
        tx.commit().await.unwrap();
        for reason in [
            r"\'; SET LOCAL bulkhead.cause = 'forged'; --",
            r"C:\",
            r"\\'",
            "\\x27",
        ] {
            let by = Attribution {
                reason: Some(reason.to_owned()),
                ..Attribution::from(Actor::System("tests".to_owned()))
            };
            let tx = database.write(&tenant, &by).await.unwrap();
            let said = value(&tx, "SELECT current_setting('bulkhead.reason')").await;
            assert_eq!(said.unwrap(), reason);
            let cause = value(&tx, "SELECT current_setting('bulkhead.cause', true)").await;
            assert_eq!(cause.unwrap(), "");
            tx.rollback().await.unwrap();
        }
        app.stop().await.unwrap();
    });
}

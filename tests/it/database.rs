//! Units of work: bound to one tenant, gone without a trace when they end, whole or not there; and what PostgreSQL refuses
//! to a tenant.

use crate::harness::{Tenant, cut_short, execute, refused, run, sqlstate, until, value, world};
use bulkhead::actor::{Actor, Attribution};
use bulkhead::app::App;
use bulkhead::database::TenantTx;
use bulkhead::devices::{self, NewDevice};
use bulkhead::error::Error;
use bulkhead::tenancy::{self, NewTenant};
use entity::tenant::device;
use sea_orm::{ConnectionTrait as _, DbBackend, EntityTrait as _, PaginatorTrait as _, Statement};
use sqlx::{AssertSqlSafe, PgConnection};
use std::sync::Arc;
use std::time::Duration;

/// Adds a device, by the operation that the API uses.
async fn add(tx: &TenantTx, name: &str) -> bulkhead::error::Result<device::Model> {
    let new = NewDevice {
        name: name.to_owned(),
        client_id: None,
        pin_hash: "none".to_owned(),
    };
    devices::create(tx, new).await
}

/// SQL that adds a number of devices.
fn adding(count: u32) -> String {
    format!(
        "INSERT INTO device (id, name, client_id, pin_hash, created_at, updated_at)
         SELECT id, 'A device', id::text, 'none', now(), now()
         FROM (SELECT gen_random_uuid() AS id FROM generate_series(1, {count})) new"
    )
}

/// How many devices the tenant has, as another connection sees it.
async fn seen(owner: &mut PgConnection, tenant: &Tenant) -> i64 {
    let sql = format!("SELECT count(*) FROM {}.device", tenant.row.schema_name);
    sqlx::query_scalar(AssertSqlSafe(sql))
        .fetch_one(owner)
        .await
        .unwrap()
}

/// The process that serves the unit of work's connection.
async fn backend(tx: &TenantTx) -> String {
    value(tx, "SELECT pg_backend_pid()::text").await.unwrap()
}

/// Who and where the session is, and who acts.
const BINDING: &str = "SELECT concat_ws(' ', current_user, current_setting('search_path'),
    current_setting('bulkhead.actor', true), current_setting('bulkhead.request_id', true))";

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
        let mut cell = tenant.world.cell().await;
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
fn nothing_of_a_unit_of_work_outlives_it() {
    run(async {
        let (first, second) = (Tenant::new().await, Tenant::new().await);
        let app = first.world.another(2).await;
        let tx = app.services.database.platform().await.unwrap();
        tx.rollback().await.unwrap();
        let one = first.write_on(&app).await;
        let process = backend(&one).await;
        let bound = value(&one, BINDING).await.unwrap();
        let (role, schema) = (&first.row.role_name, &first.row.schema_name);
        assert_eq!(bound, format!("{role} {schema}, pg_temp system:tests"));
        one.commit().await.unwrap();

        for end in ["commit", "rollback", "drop"] {
            // A unit for reading names no actor: one of the last unit's would show.
            let read = app.services.database.read(&second.row).await.unwrap();
            assert_eq!(backend(&read).await, process, "one connection, kept: {end}");
            let (role, schema) = (&second.row.role_name, &second.row.schema_name);
            let bound = value(&read, BINDING).await.unwrap();
            assert_eq!(bound.trim_end(), format!("{role} {schema}, pg_temp"));
            read.commit().await.unwrap();

            // The transaction ended by hand: what is left is the session, between two units.
            let by_hand = first.write_on(&app).await;
            let sql = if end == "commit" {
                "COMMIT"
            } else {
                "ROLLBACK"
            };
            execute(&by_hand, sql).await.unwrap();
            let login = format!("{}_c_0", app.services.database.instance());
            let bound = value(&by_hand, BINDING).await.unwrap();
            assert_eq!(bound.trim_end(), format!("{login} \"$user\", public"));
            match end {
                "commit" => by_hand.commit().await.unwrap(),
                "rollback" => by_hand.rollback().await.unwrap(),
                _ => drop(by_hand),
            }
        }
        app.stop().await.unwrap();
    });
}

#[test]
fn a_dropped_unit_of_work_rolls_back() {
    run(async {
        let tenant = Tenant::new().await;
        let app = tenant.world.another(2).await;
        let mut owner = tenant.world.owner().await;
        let tx = tenant.write_on(&app).await;
        let process = backend(&tx).await;
        add(&tx, "Never").await.unwrap();
        drop(tx);
        let tx = tenant.write_on(&app).await;
        assert_eq!(backend(&tx).await, process, "the connection is kept");
        assert_eq!(device::Entity::find().count(&tx).await.unwrap(), 0);
        add(&tx, "Kept").await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(seen(&mut owner, &tenant).await, 1);
        app.stop().await.unwrap();
    });
}

/// launchbadge/sqlx #4385: with sqlx's own pool, an insert after a cancelled `begin` is reported as done and seen by nobody.
#[test]
fn a_cancelled_begin_harms_nobody() {
    run(async {
        let (tenant, other) = (Tenant::new().await, Tenant::new().await);
        let app = tenant.world.another(2).await;
        let mut owner = tenant.world.owner().await;
        let by = Attribution {
            request_id: Some("cut short".to_owned()),
            ..Attribution::from(Actor::System("cut short".to_owned()))
        };
        let mut cut = 0;
        for n in 0..200 {
            let database = &app.services.database;
            let begin = async {
                // In a transaction left over from a read, the write after it would be refused.
                match n % 2 {
                    0 => database.read(&other.row).await,
                    _ => database.write(&other.row, &by).await,
                }
            };
            let begun = cut_short(Duration::from_micros(5 * n), begin).await;
            cut += u32::from(begun.is_none());
            drop(begun);

            let tx = tenant.write_on(&app).await;
            add(&tx, "A device").await.unwrap();
            tx.commit().await.unwrap();
            let expected = i64::try_from(n).unwrap() + 1;
            assert_eq!(seen(&mut owner, &tenant).await, expected, "after {n}");
        }
        assert!(cut > 0, "none was cut short");
        let tx = tenant.write_on(&app).await;
        let strays = "SELECT count(*)::text FROM history WHERE request_id IS NOT NULL";
        assert_eq!(value(&tx, strays).await.unwrap(), "0");
        tx.commit().await.unwrap();
        app.stop().await.unwrap();
    });
}

#[test]
fn a_statement_cut_short_is_not_committed() {
    run(async {
        let (tenant, other) = (Tenant::new().await, Tenant::new().await);
        let app = tenant.world.another(2).await;
        let mut owner = tenant.world.owner().await;
        let (mut cut, mut clean) = (0, 0);
        for n in 0..40 {
            let tx = other.write_on(&app).await;
            add(&tx, "Before").await.unwrap();
            let sql = adding(500);
            let work = cut_short(Duration::from_micros(250 * n), execute(&tx, &sql)).await;
            if work.is_none() {
                cut += 1;
                // Whoever goes on with the unit of work is told, and nothing is half there.
                let error = tx.commit().await.unwrap_err();
                assert_eq!(error.code(), "INTERNAL");
            } else {
                tx.rollback().await.unwrap();
            }
            let tx = tenant.write_on(&app).await;
            add(&tx, "After").await.unwrap();
            tx.commit().await.unwrap();
            clean += 1;
            assert_eq!(seen(&mut owner, &tenant).await, clean);
        }
        assert!(cut > 0, "none was cut short");
        assert_eq!(seen(&mut owner, &other).await, 0);
        app.stop().await.unwrap();
    });
}

#[test]
fn a_commit_cut_short_is_whole_or_not_there() {
    run(async {
        let (tenant, other) = (Tenant::new().await, Tenant::new().await);
        let app = tenant.world.another(2).await;
        let mut owner = tenant.world.owner().await;
        let (mut acknowledged, mut clean) = (0, 0);
        for n in 0..60 {
            let tx = other.write_on(&app).await;
            add(&tx, "One").await.unwrap();
            add(&tx, "Two").await.unwrap();
            match cut_short(Duration::from_micros(10 * n), tx.commit()).await {
                Some(done) => {
                    done.unwrap();
                    acknowledged += 2;
                }
                None => cut_is_settled(&mut owner, &other).await,
            }
            let there = seen(&mut owner, &other).await;
            assert!(there >= acknowledged, "an acknowledged commit is lost");
            assert_eq!(there % 2, 0, "half a unit of work is there");
            let tx = tenant.write_on(&app).await;
            add(&tx, "After").await.unwrap();
            tx.commit().await.unwrap();
            clean += 1;
            assert_eq!(seen(&mut owner, &tenant).await, clean);
            acknowledged = seen(&mut owner, &other).await;
        }
        app.stop().await.unwrap();
    });
}

/// Waits until PostgreSQL has ended the transaction of a commit that nobody waits for.
async fn cut_is_settled(owner: &mut PgConnection, tenant: &Tenant) {
    let sql = "SELECT count(*) FROM pg_locks l WHERE l.mode = 'RowExclusiveLock'
        AND l.relation = format('%I.device', $1)::regclass";
    until("the commit is settled", async || {
        let held: i64 = sqlx::query_scalar(sql)
            .bind(&tenant.row.schema_name)
            .fetch_one(&mut *owner)
            .await
            .unwrap();
        (held == 0).then_some(())
    })
    .await;
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
fn a_failed_statement_fails_the_commit() {
    run(async {
        let tenant = Tenant::new().await;
        let tx = tenant.write().await;
        let device = add(&tx, "A device").await.unwrap();
        let twice = format!(
            "INSERT INTO device SELECT * FROM device WHERE id = '{}'",
            device.id
        );
        assert_eq!(sqlstate(&execute(&tx, &twice).await.unwrap_err()), "23505");
        assert_eq!(tx.commit().await.unwrap_err().code(), "INTERNAL");
        assert_eq!(seen(&mut tenant.world.owner().await, &tenant).await, 0);
        // `settle` is no way around it.
        let tx = tenant.write().await;
        add(&tx, "A device").await.unwrap();
        execute(&tx, "SELECT 1 / 0").await.unwrap_err();
        assert!(tx.settle(Ok(())).await.is_err());
        assert_eq!(seen(&mut tenant.world.owner().await, &tenant).await, 0);
    });
}

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

#[test]
fn a_unit_of_work_for_reading_writes_nothing_and_sees_one_moment() {
    run(async {
        let tenant = Tenant::new().await;
        let database = &tenant.world.app.services.database;
        let read = database.read(&tenant.row).await.unwrap();
        let error = execute(&read, &adding(1)).await.unwrap_err();
        assert_eq!(sqlstate(&error), "25006");
        read.rollback().await.unwrap();

        let read = database.read(&tenant.row).await.unwrap();
        assert_eq!(device::Entity::find().count(&read).await.unwrap(), 0);
        let tx = tenant.write().await;
        add(&tx, "Meanwhile").await.unwrap();
        tx.commit().await.unwrap();
        // Fields of one query share it, side by side.
        let (one, two) = tokio::join!(
            device::Entity::find().count(&read),
            device::Entity::find().all(&read)
        );
        assert_eq!((one.unwrap(), two.unwrap().len()), (0, 0));
        read.commit().await.unwrap();
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
        let busy = other.write().await;
        let process = backend(&busy).await;
        let end = format!("SELECT pg_terminate_backend({process}), pg_cancel_backend({process})");
        refused(&tenant, &[&end]).await;
        let tx = tenant.write().await;
        let sql = format!("SELECT query FROM pg_stat_activity WHERE pid = {process}");
        let shown = value(&tx, &sql).await.unwrap();
        assert_eq!(shown, "<insufficient privilege>");
        tx.commit().await.unwrap();
        busy.commit().await.unwrap();
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
        let fake = "CREATE TEMP TABLE device AS SELECT * FROM device LIMIT 0";
        execute(&tx, fake).await.unwrap();
        assert_eq!(device::Entity::find().count(&tx).await.unwrap(), 1);
        tx.commit().await.unwrap();
        let tx = tenant.write_on(&app).await;
        assert_eq!(device::Entity::find().count(&tx).await.unwrap(), 1);
        tx.commit().await.unwrap();
        app.stop().await.unwrap();
    });
}

/// The known limit of the binding, kept here so that nobody believes more. Values travel as parameters and the extended
/// protocol takes one statement, so what is injected into an expression cannot leave the tenant (the tests above). But
/// whoever could choose a *whole* statement could take another role of the same cell: the login is a member of them all.
/// It holds until the end of that transaction only, and reaches one cell at most.
#[test]
fn whoever_chooses_whole_statements_has_the_cell_until_the_end_of_the_unit() {
    run(async {
        let (tenant, other) = (Tenant::new().await, Tenant::new().await);
        let tx = tenant.write().await;
        let take = format!("SET LOCAL ROLE {}", other.row.role_name);
        execute(&tx, &take).await.unwrap();
        let sql = format!("SELECT count(*)::text FROM {}.role", other.row.schema_name);
        assert_eq!(value(&tx, &sql).await.unwrap(), "4");
        tx.commit().await.unwrap();
        refused(&tenant, &[&sql]).await;

        // Not the platform, nor the owner of the schemas: the login is no member of that.
        refused(&tenant, &["SET LOCAL ROLE bulkhead"]).await;
        let tx = tenant.write().await;
        execute(&tx, "RESET ROLE").await.unwrap();
        let error = execute(&tx, "SELECT * FROM bulkhead.tenant").await;
        assert_eq!(sqlstate(&error.unwrap_err()), "42501");
        tx.rollback().await.unwrap();
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
            operator: r"o\'hara".to_owned(),
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

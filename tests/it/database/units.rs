//! The life of a unit of work: what of it is left, when it ends and when it is cut short.

use super::{add, adding, backend, neighbours, seen};
use crate::harness::{Tenant, cut_short, execute, run, sqlstate, until, value};
use bulkhead::actor::{Actor, Attribution};
use bulkhead::error::Error;
use entity::tenant::device;
use sea_orm::{EntityTrait as _, PaginatorTrait as _};
use sqlx::PgConnection;
use std::time::{Duration, Instant};

/// Who and where the session is, and who acts.
const BINDING: &str = "SELECT concat_ws(' ', current_user, current_setting('search_path'),
    current_setting('bulkhead.actor', true), current_setting('bulkhead.request_id', true))";

#[test]
fn nothing_of_a_unit_of_work_outlives_it() {
    run(async {
        let (first, second) = neighbours().await;
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

            // Another with an actor, for the next round to miss.
            let tx = first.write_on(&app).await;
            assert_eq!(backend(&tx).await, process);
            match end {
                "commit" => tx.commit().await.unwrap(),
                "rollback" => tx.rollback().await.unwrap(),
                _ => drop(tx),
            }
            // The platform's unit can end its transaction by hand: what is left is the session, between two units.
            let tx = app.services.database.platform().await.unwrap();
            tx.batch("COMMIT").await.unwrap();
            let bound = value(&tx, BINDING).await.unwrap();
            assert_eq!(bound.trim_end(), "bulkhead \"$user\", public");
            tx.rollback().await.unwrap();
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
        let (tenant, other) = neighbours().await;
        let app = tenant.world.another(1).await;
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
        let (tenant, other) = neighbours().await;
        let app = tenant.world.another(1).await;
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
                assert_eq!(error.code(), "UNAVAILABLE");
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
        let (tenant, other) = neighbours().await;
        let app = tenant.world.another(1).await;
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
fn a_unit_of_work_for_reading_writes_nothing_and_sees_what_is_committed() {
    run(async {
        let tenant = Tenant::new().await;
        let app = tenant.world.another(4).await;
        let database = &app.services.database;
        let read = database.read(&tenant.row).await.unwrap();
        let error = execute(&read, &adding(1)).await.unwrap_err();
        assert_eq!(sqlstate(&error), "25006");
        read.rollback().await.unwrap();

        let read = database.read(&tenant.row).await.unwrap();
        assert_eq!(device::Entity::find().count(&read).await.unwrap(), 0);
        let tx = tenant.write_on(&app).await;
        add(&tx, "Meanwhile").await.unwrap();
        tx.commit().await.unwrap();
        // Fields of one query share it, side by side. A read of the same tenant may go on with it, and must miss nothing.
        let (one, two) = tokio::join!(
            device::Entity::find().count(&read),
            device::Entity::find().all(&read)
        );
        assert_eq!((one.unwrap(), two.unwrap().len()), (1, 1));
        read.commit().await.unwrap();
        let read = database.read(&tenant.row).await.unwrap();
        let error = execute(&read, &adding(1)).await.unwrap_err();
        assert_eq!(sqlstate(&error), "25006", "nor when it goes on with one");
        read.rollback().await.unwrap();
        app.stop().await.unwrap();
    });
}

#[test]
fn a_unit_of_work_ends_with_the_operation_that_it_is_for() {
    run(async {
        let tenant = Tenant::new().await;
        let app = tenant.world.another(2).await;
        let database = &app.services.database;
        let allowed = "SELECT current_setting('statement_timeout')";
        let (whole, now) = (Duration::from_secs(10), Instant::now);
        let read = async || database.read(&tenant.row).await.unwrap();

        let late = read().await.until(now() + Duration::from_secs(5), whole);
        let process = backend(&late).await;
        let left = value(&late, allowed).await.unwrap();
        assert!(left.ends_with("ms") || left == "5s", "{left}");
        late.commit().await.unwrap();
        // The next read has all of its own time.
        let next = read().await.until(now() + whole, whole);
        assert_eq!(backend(&next).await, process, "the connection is kept");
        assert_eq!(value(&next, allowed).await.unwrap(), "10s");
        next.commit().await.unwrap();

        let over = tenant.write_on(&app).await;
        add(&over, "Never").await.unwrap();
        let over = over.until(now(), whole);
        let error: Error = add(&over, "Late").await.unwrap_err();
        assert!(matches!(error, Error::Timeout), "{error:?}");
        assert!(over.commit().await.is_err());
        let next = read().await;
        assert_eq!(backend(&next).await, process, "the connection is kept");
        assert_eq!(device::Entity::find().count(&next).await.unwrap(), 0);
        next.commit().await.unwrap();

        // What a savepoint that is undone was told is told again.
        let tx = tenant.write_on(&app).await;
        let tx = tx.until(now() + Duration::from_secs(5), whole);
        let undone = tx.savepoint(async {
            value(&tx, allowed).await.unwrap();
            Err::<(), _>(Error::NotFound("device"))
        });
        assert!(undone.await.is_err());
        let left = value(&tx, allowed).await.unwrap();
        assert!(left.ends_with("ms") || left == "5s", "{left}");
        tx.rollback().await.unwrap();
        app.stop().await.unwrap();
    });
}

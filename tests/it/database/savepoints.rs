//! Savepoints: what fails inside one is undone, and the unit of work goes on.

use super::{add, seen};
use crate::harness::{Tenant, cut_short, execute, run};
use bulkhead::error::{Error, Result};
use entity::tenant::device;
use sea_orm::{EntityTrait as _, PaginatorTrait as _};
use std::time::Duration;

const BROKEN: &str = "SELECT 1 / 0";

#[test]
fn what_fails_inside_is_undone_and_the_rest_is_kept() {
    run(async {
        let tenant = Tenant::new().await;
        let tx = tenant.write().await;
        add(&tx, "Before").await.unwrap();
        let kept = tx.savepoint(add(&tx, "Kept")).await.unwrap();
        assert_eq!(kept.name, "Kept");

        // By an error of ours, by one of PostgreSQL's, and by one of PostgreSQL's that nobody looked at.
        let refused: Result<()> = tx
            .savepoint(async {
                add(&tx, "Refused").await?;
                Err(Error::Forbidden("NOTHING"))
            })
            .await;
        assert!(matches!(refused, Err(Error::Forbidden("NOTHING"))));
        let failed = tx.savepoint(async {
            add(&tx, "Failed").await?;
            Ok(execute(&tx, BROKEN).await?)
        });
        assert_eq!(failed.await.unwrap_err().code(), "INTERNAL");
        assert!(!tx.is_broken());
        let swallowed = tx.savepoint(async {
            add(&tx, "Swallowed").await?;
            execute(&tx, BROKEN).await.unwrap_err();
            Ok(())
        });
        assert!(swallowed.await.is_err());
        assert!(!tx.is_broken());

        // One in another: the inner one's failure is the outer one's to bear.
        let outer = tx.savepoint(async {
            add(&tx, "Outer").await?;
            let inner: Result<()> = tx
                .savepoint(async {
                    add(&tx, "Inner").await?;
                    Err(Error::Unavailable)
                })
                .await;
            assert!(matches!(inner, Err(Error::Unavailable)));
            Ok(())
        });
        outer.await.unwrap();
        assert_eq!(device::Entity::find().count(&tx).await.unwrap(), 3);
        tx.commit().await.unwrap();
        assert_eq!(seen(&mut tenant.world.owner().await, &tenant).await, 3);
    });
}

#[test]
fn one_left_in_the_middle_spoils_the_unit_of_work() {
    run(async {
        let tenant = Tenant::new().await;
        let mut owner = tenant.world.owner().await;
        let mut cut = 0;
        for n in 0..40 {
            let tx = tenant.write().await;
            add(&tx, "Before").await.unwrap();
            let work = tx.savepoint(async {
                add(&tx, "One").await?;
                add(&tx, "Two").await?;
                std::future::pending::<Result<()>>().await
            });
            let done = cut_short(Duration::from_micros(200 * n), work).await;
            assert!(done.is_none());
            cut += 1;
            let code = tx.commit().await.unwrap_err().code();
            assert!(matches!(code, "INTERNAL" | "UNAVAILABLE"), "{code}");
            assert_eq!(seen(&mut owner, &tenant).await, 0);
        }
        assert_eq!(cut, 40);

        // Left in the middle inside another that fails then: the outer one takes the inner one's work back too.
        let tx = tenant.write().await;
        let outer: Result<()> = tx
            .savepoint(async {
                let inner = tx.savepoint(async {
                    add(&tx, "Inner").await?;
                    std::future::pending::<Result<()>>().await
                });
                assert!(cut_short(Duration::from_millis(20), inner).await.is_none());
                Err(Error::Unavailable)
            })
            .await;
        assert!(outer.is_err());
        if !tx.is_broken() {
            add(&tx, "After").await.unwrap();
            tx.commit().await.unwrap();
            assert_eq!(seen(&mut owner, &tenant).await, 1);
        }
    });
}

//! What is asked of PostgreSQL's catalogue. To look for what is in a schema reads all of it: with thousands of tenants, millions
//! of rows.

use crate::harness::{Tenant, World, run, until};
use bulkhead::identity::BuiltIn;
use bulkhead::tenancy::spares;
use sqlx::{Executor as _, PgConnection};

/// How often a table of the catalogue was read from end to end, by sessions that are gone: until then they may have more to say.
async fn read_through(superuser: &mut PgConnection) -> i64 {
    let others =
        "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    until("nobody else is there", async || {
        let end = format!("SELECT count(pg_terminate_backend(pid)) {others}");
        let there: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(end))
            .fetch_one(&mut *superuser)
            .await
            .unwrap();
        (there == 0).then_some(())
    })
    .await;
    let scans = "SELECT sum(seq_scan)::bigint FROM pg_stat_sys_tables WHERE relid IN (
        'pg_class'::regclass, 'pg_attribute'::regclass, 'pg_constraint'::regclass, 'pg_index'::regclass,
        'pg_proc'::regclass, 'pg_trigger'::regclass, 'pg_depend'::regclass)";
    sqlx::query_scalar(scans)
        .fetch_one(superuser)
        .await
        .unwrap()
}

#[test]
fn neither_a_request_nor_a_tenant_from_a_spare_reads_through_it() {
    run(async {
        let world = World::apart("catalogue").await;
        let mut superuser = world.superuser().await;
        // It reads all of pg_class each time it looks for work.
        for statement in [
            "ALTER SYSTEM SET autovacuum = off",
            "SELECT pg_reload_conf()",
        ] {
            superuser.execute(statement).await.unwrap();
        }
        let database = &world.app.services.database;
        assert_eq!(spares::fill(database, 1).await.unwrap(), 1);
        let before = read_through(&mut superuser).await;
        let tenant = Tenant::of(world).await;
        let owner = tenant.token(BuiltIn::Owner).await;
        tenant.device(&owner).await;
        let lists = "{ tenant { devices(first: 1) { nodes { id name } } members(first: 1) { nodes { id } }
            changes(first: 1) { nodes { id } } media(first: 1) { nodes { id } } jobs(first: 1) { nodes { id } } } }";
        tenant.gql(Some(&owner), lists).await.data();
        assert_eq!(read_through(&mut superuser).await - before, 0);
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM bulkhead.spare")
            .fetch_one(&mut superuser)
            .await
            .unwrap();
        assert_eq!(left, 0, "it was made from the spare");
    });
}

//! Cells: new tenants are dealt to them, and moved to one that is added, while everything goes on.

use crate::harness::{Tenant, World, finish, run, until, value};
use bulkhead::identity::BuiltIn;
use bulkhead::tenancy::{Act, cells};
use futures::future::join_all;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

const QUERY: &str = "{ tenant { slug devices { nodes { id } } } }";
const MUTATION: &str =
    "mutation { deviceCreate(input: { name: \"A device\" }) { device { id } errors { code } } }";

/// The command, run beside the test; what it printed.
async fn command(world: &World, args: &[&str]) -> String {
    let mut command: Command = world.command();
    command.args(args).env("BULKHEAD_LOG", "warn");
    let (code, out, err) = tokio::task::spawn_blocking(move || finish(&mut command, ""))
        .await
        .unwrap();
    assert_eq!(code, Some(0), "{err}");
    out
}

async fn loads(world: &World) -> Vec<i64> {
    let tx = world.app.services.database.platform().await.unwrap();
    let loads = cells::all(&tx).await.unwrap();
    tx.commit().await.unwrap();
    loads.iter().map(|load| load.tenants).collect()
}

/// The logins that may take the tenant's role, and that of its cell.
async fn logins(tenant: &Tenant) -> (Vec<String>, String) {
    let mut superuser = tenant.world.superuser().await;
    let members = sqlx::query_scalar(
        "SELECT m.member::regrole::text FROM pg_auth_members m
         WHERE m.roleid = $1::regrole AND m.member::regrole::text LIKE '%\\_c\\_%' ORDER BY 1",
    )
    .bind(&tenant.row.role_name)
    .fetch_all(&mut superuser)
    .await
    .unwrap();
    let own = "SELECT c.login FROM bulkhead.tenant t JOIN bulkhead.cell c ON c.id = t.cell_id WHERE t.slug = $1";
    let own = sqlx::query_scalar(own)
        .bind(&tenant.slug)
        .fetch_one(&mut superuser)
        .await
        .unwrap();
    (members, own)
}

#[test]
fn a_cell_is_added_and_tenants_move_to_it_while_they_work() {
    run(async {
        // A load on three cells at once is too much for one connection that each of them has to open anew.
        let world = World::private(|config| {
            config.cells = 2;
            config.max_connections = 8;
        })
        .await;
        let mut tenants = Vec::new();
        for _ in 0..6 {
            let tenant = Tenant::of(world).await;
            let token = tenant.token(BuiltIn::Owner).await;
            tenants.push((tenant, token));
        }
        assert_eq!(loads(world).await, [3, 3]);

        let (over, served) = (AtomicBool::new(false), AtomicU32::new(0));
        let load = join_all(tenants.iter().map(async |(tenant, token)| {
            // On after the move, until the registry's row of before it is forgotten.
            let mut moved = None;
            while moved.is_none_or(|at: u32| served.load(Ordering::Relaxed) < at + 200) {
                for document in [QUERY, MUTATION] {
                    let answer = tenant.gql(Some(token), document).await;
                    assert!(!answer.data().is_null());
                    served.fetch_add(1, Ordering::Relaxed);
                }
                if over.load(Ordering::Relaxed) && moved.is_none() {
                    moved = Some(served.load(Ordering::Relaxed));
                }
            }
        }));
        let adding = async {
            let said = command(world, &["cell", "add"]).await;
            over.store(true, Ordering::Relaxed);
            said
        };
        let (_, said) = tokio::join!(load, adding);
        let login = format!("{}_c_2", world.app.services.database.instance());
        assert_eq!(said, format!("Added cell 2 as {login}\nMoved 2 tenants\n"));
        assert_eq!(loads(world).await, [2, 2, 2]);
        let log = "SELECT action || ' ' || (detail->>'login') FROM bulkhead.operator_log WHERE action LIKE 'cell.%'";
        let log: Vec<String> = sqlx::query_scalar(log)
            .fetch_all(&mut world.superuser().await)
            .await
            .unwrap();
        assert_eq!(log, [format!("cell.add {login}")]);
        let mut moves = Vec::new();
        for (tenant, _) in &tenants {
            let told = "SELECT count(*) FROM history WHERE row ->> 'what' = 'tenant.cell' AND (row ->> 'to')::int = 2";
            moves.push(tenant.count(told).await);
        }
        assert_eq!(moves.iter().sum::<i64>(), 2, "their trails: {moves:?}");

        former_cells_serve_for_a_while(world, &tenants).await;
    });
}

/// A server with the old row may serve a moved tenant for a while yet, and then no longer.
async fn former_cells_serve_for_a_while(world: &World, tenants: &[(Tenant, String)]) {
    let mut moved = 0;
    for (tenant, _) in tenants {
        let (members, own) = logins(tenant).await;
        assert!(members.contains(&own));
        moved += members.len() - 1;
    }
    assert_eq!(moved, 2);
    let database = &world.app.services.database;
    assert_eq!(
        cells::redeal(database, 10, &Act::by("tests"))
            .await
            .unwrap(),
        0,
        "it is even"
    );
    let mut superuser = world.superuser().await;
    let past = "UPDATE bulkhead.former_cell SET moved_at = moved_at - interval '1 hour'";
    sqlx::query(past).execute(&mut superuser).await.unwrap();
    assert_eq!(cells::revoke(database, 1).await.unwrap(), 1);
    assert_eq!(
        cells::redeal(database, 10, &Act::by("tests"))
            .await
            .unwrap(),
        0
    );
    for (tenant, token) in tenants {
        let (members, own) = logins(tenant).await;
        assert_eq!(members, [own]);
        until("the registry has the new row", async || {
            let answer = tenant.gql(Some(token), QUERY).await;
            answer.body["errors"].is_null().then_some(())
        })
        .await;
    }
}

#[test]
fn a_tenant_in_a_cell_that_there_is_not_is_an_error_of_ours() {
    run(async {
        let tenant = Tenant::new().await;
        let mut row = (*tenant.row).clone();
        row.cell_id = 999;
        let database = &tenant.world.app.services.database;
        let error = database.read(&row.into()).await.unwrap_err();
        assert_eq!(error.code(), "INTERNAL");
        // Nor is a connection lost by it, nor another cell's login taken.
        let read = database.read(&tenant.row).await.unwrap();
        value(&read, "SELECT 'works'").await.unwrap();
        read.commit().await.unwrap();
        let mut row = (*tenant.row).clone();
        row.cell_id = (row.cell_id + 1) % 4;
        let error = database.read(&row.into()).await.unwrap_err();
        assert_eq!(error.code(), "INTERNAL", "its role is not the other cell's");
    });
}

#[test]
fn list_says_how_full_the_cells_are() {
    run(async {
        let world = World::private(|config| config.cells = 3).await;
        let tenant = Tenant::of(world).await;
        let instance = world.app.services.database.instance();
        let listed: Value =
            serde_json::from_str(&command(world, &["cell", "list", "--json"]).await).unwrap();
        let row = |cell: u8, tenants: u8| json!({ "cell": cell, "login": format!("{instance}_c_{cell}"), "tenants": tenants, "hint": null });
        assert_eq!(listed, json!([row(0, 1), row(1, 0), row(2, 0)]));

        let fill = format!(
            "INSERT INTO bulkhead.tenant SELECT (jsonb_populate_record(t, jsonb_build_object('id', gen_random_uuid(),
                 'slug', 'full-' || n, 'schema_name', 'none_' || n, 'role_name', 'none_' || n))).*
             FROM bulkhead.tenant t, generate_series(1, 250) n WHERE t.slug = '{}';
             INSERT INTO bulkhead.migration (schema_name, name) SELECT 'none_' || n, name
             FROM bulkhead.migration m, generate_series(1, 250) n WHERE m.schema_name = 't_template'",
            tenant.slug
        );
        let mut superuser = world.superuser().await;
        sqlx::raw_sql(AssertSqlSafe(fill))
            .execute(&mut superuser)
            .await
            .unwrap();
        let table = command(world, &["cell", "list"]).await;
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 4, "{table}");
        assert!(lines[0].starts_with("CELL") && lines[0].contains("TENANTS"));
        assert!(lines[1].contains("251") && lines[1].contains("bulkhead cell add"));
        assert!(!lines[2].contains("bulkhead cell add"));
    });
}

/// Stretched once: who connects to a busy server would pay for each time more.
#[test]
fn postgresql_keeps_verifiers_of_the_logins_and_scripts_add_more() {
    run(async {
        let world = World::private(|_| {}).await;
        let kept: Vec<bool> = sqlx::query_scalar(
            "SELECT r.rolpassword LIKE 'SCRAM-SHA-256$1:%' FROM bulkhead.cell c JOIN pg_authid r ON r.rolname = c.login",
        )
        .fetch_all(&mut world.superuser().await)
        .await
        .unwrap();
        assert_eq!(kept, [true; 4]);
        let said = |out: String| serde_json::from_str::<Value>(&out).unwrap();
        let added = said(command(world, &["cell", "add", "--json"]).await);
        assert_eq!((&added["cell"], &added["moved"]), (&json!(4), &json!(0)));
        let dealt = said(command(world, &["cell", "redeal", "--json"]).await);
        assert_eq!(dealt, json!({ "moved": 0 }));
    });
}

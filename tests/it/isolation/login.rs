//! The cells' logins, with nothing in between: what they may do without a binding, or bound to another tenant. Nothing.

use crate::harness::{Tenant, World, run, world};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor as _};

/// Permission denied.
const DENIED: &str = "42501";
/// What is tried on a table, which stands for $t, with a column of it for $c.
const STATEMENTS: [&str; 7] = [
    "SELECT FROM $t",
    "SELECT * FROM $t FOR UPDATE",
    "INSERT INTO $t DEFAULT VALUES",
    "UPDATE $t SET $c = DEFAULT",
    "DELETE FROM $t",
    "TRUNCATE $t",
    "LOCK TABLE $t IN ACCESS SHARE MODE",
];

/// A schema, and everything that is tried on what is in it.
struct Target {
    schema: String,
    statements: Vec<String>,
}

impl Target {
    /// All tables, sequences and functions, as the catalogue has them.
    async fn of(world: &World, schema: &str) -> Self {
        let mut superuser = world.superuser().await;
        let tables: Vec<(String, String)> = sqlx::query_as(
            "SELECT c.oid::regclass::text, quote_ident(a.attname) FROM pg_class c
             JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = 1
             WHERE c.relnamespace = $1::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm')",
        )
        .bind(schema)
        .fetch_all(&mut superuser)
        .await
        .unwrap();
        let others: Vec<String> = sqlx::query_scalar(
            "SELECT format('SELECT nextval(%L)', c.oid::regclass) FROM pg_class c
             WHERE c.relnamespace = $1::regnamespace AND c.relkind = 'S'
             UNION ALL SELECT format('SELECT %s()', p.oid::regproc) FROM pg_proc p
             WHERE p.pronamespace = $1::regnamespace",
        )
        .bind(schema)
        .fetch_all(&mut superuser)
        .await
        .unwrap();
        assert!(tables.len() > 1, "{schema} has {tables:?}");
        let on_tables = tables.iter().flat_map(|(table, column)| {
            STATEMENTS.map(|statement| statement.replace("$t", table).replace("$c", column))
        });
        Self {
            schema: schema.to_owned(),
            statements: on_tables.chain(others).collect(),
        }
    }

    /// Tries everything, and asserts that PostgreSQL says `permission denied` each time. Says how often.
    async fn assert_denied(&self, login: &mut PgConnection, bound: &str) -> usize {
        for statement in &self.statements {
            login.execute("BEGIN").await.unwrap();
            let tried = login.execute(AssertSqlSafe(statement.clone())).await;
            let code = sqlstate(tried).unwrap_or_default();
            assert_eq!(code, DENIED, "{bound}, in {}: {statement}", self.schema);
            login.execute("ROLLBACK").await.unwrap();
        }
        self.statements.len()
    }
}

/// The SQLSTATE of a refusal; none if it went through.
fn sqlstate<T>(done: Result<T, sqlx::Error>) -> Option<String> {
    let error = done.err()?;
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    Some(
        code.unwrap_or_else(|| panic!("not PostgreSQL's: {error}"))
            .into_owned(),
    )
}

#[test]
fn a_login_may_do_nothing_unbound_and_nothing_to_another_tenant() {
    run(async {
        let world = world().await;
        let tenants = [
            Tenant::new().await,
            Tenant::new().await,
            Tenant::new().await,
        ];
        let mut targets = Vec::new();
        for tenant in &tenants {
            targets.push(Target::of(world, &tenant.row.schema_name).await);
        }
        let ours = [
            Target::of(world, "bulkhead").await,
            Target::of(world, "t_template").await,
        ];
        let mut bound = 0;
        for (name, mut login) in world.logins().await {
            for target in targets.iter().chain(&ours) {
                let denied = target.assert_denied(&mut login, &name).await;
                assert!(denied > STATEMENTS.len(), "nothing was tried");
            }
            for (index, tenant) in tenants.iter().enumerate() {
                let bind = format!("SET ROLE \"{}\"", tenant.row.role_name);
                // A login is no member of the tenants of other cells.
                if let Some(code) = sqlstate(login.execute(AssertSqlSafe(bind)).await) {
                    assert_eq!(code, DENIED, "{name} as {}", tenant.slug);
                    continue;
                }
                bound += 1;
                let own = format!("SELECT FROM {}.device", tenant.row.schema_name);
                login.execute(AssertSqlSafe(own)).await.unwrap();
                let others = targets
                    .iter()
                    .enumerate()
                    .filter(|(other, _)| *other != index);
                for (_, target) in others {
                    target.assert_denied(&mut login, &tenant.slug).await;
                }
                for target in &ours {
                    target.assert_denied(&mut login, &tenant.slug).await;
                }
                login.execute("RESET ROLE").await.unwrap();
            }
        }
        assert!(bound >= tenants.len(), "each tenant has a login");
    });
}

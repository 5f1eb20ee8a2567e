//! A tenant's home in the database: its names, its cell, and the DDL that makes it.

use super::template::Template;
use super::{cells, fingerprint};
use crate::actor::{Actor, Attribution};
use crate::database::{PlatformTx, for_tenant, identifier};
use crate::error::{Error, Result};
use crate::permission::{BuiltIn, Permission};
use sea_orm::{ConnectionTrait as _, DbBackend, Statement};

/// What a home has in it when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Furnished {
    /// The rows that every tenant begins with. They are written with the tables because PostgreSQL takes milliseconds for the
    /// first row of a table: it has to read what the table is.
    WithRoles,
    /// Nothing: a copy brings its own.
    Empty,
}

/// Makes the homes and compares them with the template. The triggers come after all homes' functions: a trigger looks up its
/// function by the name, among those of all tenants, and PostgreSQL keeps what it found until a function is made.
pub(super) async fn build(
    tx: &PlatformTx,
    homes: &[Home],
    template: &Template,
    furnished: Furnished,
) -> Result<()> {
    let mut statements = Vec::with_capacity(homes.len() * 3);
    for home in homes {
        statements.push(home.ddl(template)?);
    }
    for home in homes {
        statements.push(home.of_template(&template.triggers)?);
        if furnished == Furnished::WithRoles {
            statements.push(home.roles(tx));
        }
    }
    tx.make(homes.len(), &onboarding(), &statements.join(";\n"))
        .await?;
    fingerprint::verify(tx, homes, template).await
}

/// Who makes homes.
fn onboarding() -> Attribution {
    Actor::System("onboarding".to_owned()).into()
}

/// Schema, role and cell of a tenant or a spare.
#[derive(Clone, Debug)]
pub(super) struct Home {
    pub(super) schema: String,
    pub(super) role: String,
    pub(super) cell: i16,
    /// The cell's login role.
    pub(super) login: String,
}

impl Home {
    /// Homes that nobody has had, each in the cell that is emptiest then.
    pub(super) async fn new(tx: &PlatformTx, instance: &str, count: u32) -> Result<Vec<Self>> {
        let numbers = tx
            .query_all_raw(Statement::from_sql_and_values(
                DbBackend::Postgres,
                "SELECT nextval('tenant_number') AS number FROM generate_series(1, $1)",
                [i64::from(count).into()],
            ))
            .await?;
        let mut cells = cells::all(tx).await?;
        let mut homes = Vec::new();
        for row in numbers {
            let number: i64 = row.try_get("", "number")?;
            let cell = cells.iter_mut().min_by_key(|cell| cell.tenants);
            let cell = cell.ok_or_else(|| Error::internal("there is no cell"))?;
            cell.tenants += 1;
            homes.push(Self {
                schema: format!("t_{number}"),
                role: format!("{instance}_t_{number}"),
                cell: cell.id,
                login: cell.login.clone(),
            });
        }
        Ok(homes)
    }

    /// Statements of the template, for this home.
    fn of_template(&self, statements: &[String]) -> Result<String> {
        for_tenant(&statements.join(";\n"), &self.schema, &self.role)
    }

    /// Everything it needs but the triggers, as one text for one round trip: the statements, one by one, take twice as long.
    fn ddl(&self, template: &Template) -> Result<String> {
        let role = identifier(&self.role)?;
        let cell = identifier(&self.login)?;
        let schema = &self.schema;
        let head =
            format!("CREATE ROLE {role} NOLOGIN; GRANT {role} TO {cell}; CREATE SCHEMA {schema}");
        let body = self.of_template(&template.statements)?;
        let steps = template
            .steps
            .iter()
            .map(|step| format!("('{schema}', '{step}')"));
        let steps = steps.collect::<Vec<_>>().join(", ");
        let ledger = format!("INSERT INTO bulkhead.migration (schema_name, name) VALUES {steps}");
        Ok([head, body, ledger].join(";\n"))
    }

    /// Inserts the built-in roles.
    fn roles(&self, tx: &PlatformTx) -> String {
        let schema = &self.schema;
        let roles = BuiltIn::ALL.map(|role| {
            let permissions: Vec<_> = role.permissions().map(Permission::as_str).collect();
            format!(
                "('{}', '{}', '{{{}}}', true, now(), now())",
                tx.new_id(),
                role.name(),
                permissions.join(",")
            )
        });
        format!(
            "INSERT INTO {schema}.role (id, name, permissions, built_in, created_at, updated_at) VALUES {}",
            roles.join(", ")
        )
    }

    /// Writes the rows of a first owner, to be undone.
    pub(super) async fn rehearse(&self, tx: &PlatformTx) -> Result<()> {
        let owner = BuiltIn::Owner.name();
        let rows = format!(
            "INSERT INTO member (id, email, password_hash, created_at, updated_at)
             VALUES (gen_random_uuid(), gen_random_uuid(), '', now(), now());
             INSERT INTO member_role (id, member_id, role_id)
             SELECT gen_random_uuid(), m.id, r.id FROM member m, role r WHERE r.name = '{owner}'"
        );
        tx.within(&self.schema, &onboarding(), &rows).await
    }

    /// What takes it away again, while nobody lives there.
    pub(super) fn drop_ddl(&self) -> Result<String> {
        let (schema, role) = (&self.schema, identifier(&self.role)?);
        Ok(format!(
            "DROP SCHEMA {schema} CASCADE; DROP ROLE {role}; DELETE FROM bulkhead.migration WHERE schema_name = '{schema}'"
        ))
    }
}

//! Compares tenants and spares with the template.

use super::fingerprint::{self, Subject};
use crate::database::Database;
use crate::error::Result;
use sea_orm::{ConnectionTrait as _, DbBackend, Statement};
use serde::Serialize;

/// A tenant or a spare, and where it lives.
#[derive(Clone, Debug)]
pub struct Named {
    /// The tenant's slug; none for a spare.
    pub slug: Option<String>,
    /// Where.
    pub subject: Subject,
}

/// How one compares.
#[derive(Clone, Debug, Serialize)]
pub struct Checked {
    /// The tenant's slug; none for a spare.
    pub slug: Option<String>,
    /// Its schema.
    pub schema: String,
    /// The same as the template's, if nothing differs.
    pub fingerprint: String,
    /// What is otherwise than in the template.
    pub differences: Vec<String>,
}

/// The tenant with this slug, or all tenants and then all spares. Without those that are being made or erased.
pub async fn subjects(database: &Database, slug: Option<&str>) -> Result<Vec<Named>> {
    let query = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "SELECT slug, schema_name, role_name FROM tenant
             WHERE state IN ('active', 'suspended', 'archived') AND coalesce(slug = $1, true)
         UNION ALL SELECT NULL, schema_name, role_name FROM spare WHERE $1::text IS NULL
         ORDER BY slug NULLS LAST, schema_name",
        [slug.into()],
    );
    let tx = database.platform().await?;
    let rows = tx.query_all_raw(query).await?;
    tx.commit().await?;
    let named = rows.iter().map(|row| {
        Ok(Named {
            slug: row.try_get("", "slug")?,
            subject: Subject {
                schema: row.try_get("", "schema_name")?,
                role: row.try_get("", "role_name")?,
            },
        })
    });
    named.collect()
}

/// Compares some of them; a few dozen at a time keep the answer small. A spare that was handed out meanwhile is as it was.
pub async fn compare(database: &Database, some: &[Named]) -> Result<Vec<Checked>> {
    let subjects: Vec<Subject> = some.iter().map(|named| named.subject.clone()).collect();
    let tx = database.platform().await?;
    let read = fingerprint::read(&tx, &subjects).await;
    tx.rollback().await?;
    let (mut structures, template) = read?;
    let checked = some.iter().map(|named| {
        let own = structures.remove(&named.subject.schema).unwrap_or_default();
        Checked {
            slug: named.slug.clone(),
            schema: named.subject.schema.clone(),
            fingerprint: own.fingerprint(),
            differences: own.differences(&template),
        }
    });
    Ok(checked.collect())
}

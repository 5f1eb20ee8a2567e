//! What the doctor asks of the tenancy: template, tenants, spares, and what nobody owns.

use super::cells::ROOMY;
use super::fingerprint::{self, Subject};
use crate::database::{Finding, Health, Look, Rule, steps};
use crate::error::Result;
use sea_orm::{ConnectionTrait as _, DbBackend, Statement};

/// Schemas compared in one query.
const CHUNK: usize = 50;

const ORPHANS: Rule = Rule {
    check: "orphans",
    health: Health::Warn,
    well: "every schema and role has a tenant or is a spare",
    wrong: "WITH home AS MATERIALIZED (SELECT schema_name, role_name FROM bulkhead.tenant
            UNION ALL SELECT schema_name, role_name FROM bulkhead.spare)
        SELECT format('nobody owns the schema %s', n.nspname), format('DROP SCHEMA %I CASCADE', n.nspname)
            FROM pg_catalog.pg_namespace n
            WHERE n.nspname ~ '^t_[0-9]+$' AND n.nspname NOT IN (SELECT schema_name FROM home)
        UNION ALL SELECT format('nobody owns the role %s', r.rolname), format('DROP OWNED BY %1$I; DROP ROLE %1$I', r.rolname)
            FROM pg_catalog.pg_roles r, bulkhead.instance i
            WHERE starts_with(r.rolname, i.id || '_t_') AND r.rolname NOT IN (SELECT role_name FROM home)",
};

/// Everything that can be asked of the tenancy. `spares`: how many there should be.
pub async fn findings(look: &Look, spares: u32) -> Result<Vec<Finding>> {
    let (template, fresh) = template(look).await?;
    let mut findings = vec![template];
    findings.extend(cells(look).await?);
    findings.push(tenants(look).await?);
    findings.push(if fresh < i64::from(spares) {
        Finding::trouble(
            ("spares", Health::Warn),
            format!("{fresh} of {spares} are there: new tenants take longer"),
            "bulkhead worker",
        )
    } else {
        Finding::ok("spares", format!("{fresh} are there"))
    });
    findings.extend(look.apply(&ORPHANS).await?);
    Ok(findings)
}

/// Whether new tenants have all that this binary counts on; and how many spares of the newest template there are.
async fn template(look: &Look) -> Result<(Finding, i64)> {
    let rows = look
        .connection
        .query_all_raw(Statement::from_string(
            DbBackend::Postgres,
            "SELECT t.version, t.steps, (SELECT count(*) FROM bulkhead.spare s WHERE s.version = t.version) AS fresh
             FROM bulkhead.template t ORDER BY t.version DESC LIMIT 1",
        ))
        .await?;
    let mend = "start any server or worker of this version: it migrates and renders the template";
    let Some(row) = rows.first() else {
        let finding = Finding::trouble(("template", Health::Fail), "it is not rendered", mend);
        return Ok((finding, 0));
    };
    let version: String = row.try_get("", "version")?;
    let has: serde_json::Value = row.try_get("", "steps")?;
    let lacks: Vec<String> = steps()
        .into_iter()
        .filter(|step| {
            !has.as_array()
                .is_some_and(|has| has.iter().any(|h| h == step))
        })
        .collect();
    let finding = if lacks.is_empty() {
        Finding::ok("template", format!("at {version}"))
    } else {
        let lacks = format!("at {version}, it lacks {}", lacks.join(", "));
        Finding::trouble(("template", Health::Fail), lacks, mend)
    };
    Ok((finding, row.try_get("", "fresh")?))
}

async fn cells(look: &Look) -> Result<Vec<Finding>> {
    let rows = look
        .connection
        .query_all_raw(Statement::from_string(
            DbBackend::Postgres,
            "SELECT c.login, (SELECT count(*) FROM bulkhead.tenant t WHERE t.cell_id = c.id) AS tenants
             FROM bulkhead.cell c ORDER BY c.id",
        ))
        .await?;
    let mut findings = Vec::new();
    for row in rows {
        let (login, tenants): (String, i64) =
            (row.try_get("", "login")?, row.try_get("", "tenants")?);
        if tenants > ROOMY {
            findings.push(Finding::trouble(
                ("cells", Health::Warn),
                format!("{login} has {tenants} tenants; up to {ROOMY} are quick"),
                "bulkhead cell add",
            ));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok(
            "cells",
            format!("none has more than {ROOMY} tenants"),
        ));
    }
    Ok(findings)
}

/// How many tenants and spares are not like the template.
async fn tenants(look: &Look) -> Result<Finding> {
    let rows = look
        .connection
        .query_all_raw(Statement::from_string(
            DbBackend::Postgres,
            "SELECT schema_name, role_name FROM bulkhead.tenant WHERE state IN ('active', 'suspended', 'archived')
             UNION ALL SELECT schema_name, role_name FROM bulkhead.spare",
        ))
        .await?;
    let subjects = rows.iter().map(|row| {
        Ok(Subject {
            schema: row.try_get("", "schema_name")?,
            role: row.try_get("", "role_name")?,
        })
    });
    let subjects: Vec<Subject> = subjects.collect::<Result<_>>()?;
    let mut differ = 0;
    for some in subjects.chunks(CHUNK) {
        let (structures, template) = fingerprint::read(&look.connection, some).await?;
        differ += structures.values().filter(|own| **own != template).count();
    }
    let count = subjects.len();
    Ok(match differ {
        0 => Finding::ok(
            "tenants",
            format!("{count}, with the spares, are like the template"),
        ),
        _ => Finding::trouble(
            ("tenants", Health::Fail),
            format!("{differ} of {count}, with the spares, are not like the template"),
            "bulkhead tenant check",
        ),
    })
}

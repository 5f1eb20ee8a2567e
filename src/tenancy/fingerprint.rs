//! What a schema is made of, line by line, with the names of schema and role taken out: equal for the template, a spare, and
//! a tenant made from the batch or migrated step by step.

use super::home::Home;
use super::template::Template;
use crate::database::{PlatformTx, TEMPLATE_SCHEMA};
use crate::error::{Error, Result};
use crate::secret::hex;
use migration::tenant::UNAUDITED;
use regex_lite::{NoExpand, Regex};
use sea_orm::{ConnectionTrait, DbBackend, Statement};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// What a row of the query is about when it is a right: this, and who has it.
const GRANT: &str = "grant ";
/// What a row is about when it is a step of the ledger.
const STEP: &str = "step";

/// Everything in these schemas: a row has the schema, a kind, a name, and what there is to say of it.
///
/// It begins at `pg_depend`, which has an index by the schema, and goes on by the tables' ids: nothing here scans a catalogue,
/// whatever the number of tenants. For the template, the rights that a tenant's role would have are added.
const LINES: &str = r#"WITH subject AS (
    SELECT n.oid, n.nspname::text AS schema, n.nspowner, n.nspacl, s.role
    FROM unnest($1::text[], $2::text[]) s (schema, role) JOIN pg_catalog.pg_namespace n ON n.nspname = s.schema
), within AS (
    SELECT s.schema, s.role, d.classid, d.objid
    FROM subject s JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_namespace'::regclass AND d.refobjid = s.oid
), relation AS (
    SELECT w.schema, w.role, c.oid, c.relname, c.relkind, c.relowner, c.relacl, concat_ws(' ',
        'owned by ' || pg_get_userbyid(c.relowner), CASE c.relpersistence WHEN 'p' THEN NULL ELSE 'not permanent' END,
        CASE WHEN c.relrowsecurity THEN 'with row security' END, CASE WHEN c.relhasrules THEN 'with rules' END,
        c.reloptions::text) AS detail
    FROM within w JOIN pg_catalog.pg_class c ON w.classid = 'pg_class'::regclass AND c.oid = w.objid
), routine AS (
    SELECT w.schema, w.role, p.oid, p.prorettype, p.proowner, p.proacl, p.prokind,
        format('%s(%s)', p.proname, pg_get_function_identity_arguments(p.oid)) AS name
    FROM within w JOIN pg_catalog.pg_proc p ON w.classid = 'pg_proc'::regclass AND p.oid = w.objid
), acl AS (
    SELECT schema, role, nspowner AS owner, 'the schema' AS object, coalesce(nspacl, acldefault('n', nspowner)) AS acl FROM subject
    UNION ALL SELECT schema, role, relowner, 'table ' || relname,
        coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner)) FROM relation
    UNION ALL SELECT r.schema, r.role, r.relowner, format('column %s.%s', r.relname, a.attname), a.attacl
        FROM relation r JOIN pg_catalog.pg_attribute a ON a.attrelid = r.oid AND a.attacl IS NOT NULL
    UNION ALL SELECT schema, role, proowner, 'function ' || name, coalesce(proacl, acldefault('f', proowner)) FROM routine
), held AS (
    SELECT a.schema, CASE WHEN e.grantee = 0 THEN 'PUBLIC' WHEN pg_get_userbyid(e.grantee) = a.role THEN '{role}'
        ELSE pg_get_userbyid(e.grantee)::text END AS who, e.privilege_type AS privilege, a.object,
        CASE WHEN e.is_grantable THEN 'with grant option' ELSE '' END AS detail
    FROM acl a, aclexplode(a.acl) e WHERE e.grantee <> a.owner
), template AS (
    SELECT 'the schema' AS object, '{USAGE}'::text[] AS privileges
    UNION ALL SELECT 'table ' || r.relname, CASE WHEN r.relname = 'history' THEN '{SELECT}'::text[]
        ELSE '{SELECT,INSERT,UPDATE,DELETE}' END
        FROM relation r WHERE r.schema = $3 AND (r.relname = 'history' OR r.relname = ANY ($4) OR EXISTS (SELECT FROM pg_catalog.pg_trigger t
            WHERE t.tgrelid = r.oid AND t.tgfoid = to_regproc(r.schema || '.record_history')))
    UNION ALL SELECT 'function ' || name, '{EXECUTE}' FROM routine
        WHERE schema = $3 AND prorettype <> 'trigger'::regtype
)
SELECT schema, 'schema' AS kind, '' AS name, 'owned by ' || pg_get_userbyid(nspowner) AS detail FROM subject
UNION ALL SELECT m.schema_name, 'step', m.name, '' FROM bulkhead.migration m JOIN subject s ON s.schema = m.schema_name
UNION ALL SELECT schema, CASE relkind WHEN 'r' THEN 'table' WHEN 'v' THEN 'view' WHEN 'S' THEN 'sequence' ELSE 'relation' END,
    relname, detail FROM relation
UNION ALL SELECT r.schema, 'column', format('%s.%s', r.relname, a.attname), concat_ws(' ', format_type(a.atttypid, a.atttypmod),
        CASE WHEN a.attnotnull THEN 'NOT NULL' END, 'DEFAULT ' || pg_get_expr(d.adbin, d.adrelid),
        nullif(a.attidentity, ''), nullif(a.attgenerated, ''),
        CASE WHEN a.attcollation NOT IN (0, 'pg_catalog."default"'::regcollation) THEN 'COLLATE ' || a.attcollation::regcollation END)
    FROM relation r JOIN pg_catalog.pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
UNION ALL SELECT r.schema, 'constraint', format('%s on %s', k.conname, r.relname), pg_get_constraintdef(k.oid)
    FROM relation r JOIN pg_catalog.pg_constraint k ON k.conrelid = r.oid AND k.contype <> 'n'
UNION ALL SELECT r.schema, 'index', format('%s on %s', c.relname, r.relname),
        pg_get_indexdef(i.indexrelid) || CASE WHEN i.indisvalid THEN '' ELSE ' INVALID' END
    FROM relation r JOIN pg_catalog.pg_index i ON i.indrelid = r.oid JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
UNION ALL SELECT r.schema, 'trigger', format('%s on %s', t.tgname, r.relname),
        pg_get_triggerdef(t.oid) || CASE t.tgenabled WHEN 'O' THEN '' ELSE ' ' || t.tgenabled::text END
    FROM relation r JOIN pg_catalog.pg_trigger t ON t.tgrelid = r.oid AND NOT t.tgisinternal
UNION ALL SELECT schema, 'function', name, concat_ws(' ', CASE WHEN prokind <> 'a' THEN pg_get_functiondef(oid) END,
    'owned by', pg_get_userbyid(proowner)) FROM routine
UNION ALL SELECT schema, 'object', pg_describe_object(classid, objid, 0), '' FROM within
    WHERE classid NOT IN ('pg_class'::regclass, 'pg_proc'::regclass)
UNION ALL SELECT schema, 'grant ' || who, privilege || ' on ' || object, detail FROM held
UNION ALL SELECT $3, 'grant {role}', privilege || ' on ' || object, '' FROM template, unnest(privileges) privilege
    WHERE $3 = ANY ($1)"#;

/// A schema, and the role that lives in it.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The schema.
    pub schema: String,
    /// The role.
    pub role: String,
}

/// What a schema is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Structure(BTreeMap<(String, String), String>);

impl Structure {
    /// One text for all of it; equal texts, equal structures.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        for ((kind, name), detail) in &self.0 {
            for part in [kind, name, detail] {
                hash.update(part.as_bytes());
                hash.update([0]);
            }
        }
        hex(&hash.finalize())
    }

    fn has_just(&self, steps: &[String]) -> bool {
        let own = self.0.keys().filter(|(kind, _)| kind == STEP);
        own.count() == steps.len()
            && steps
                .iter()
                .all(|step| self.0.contains_key(&(STEP.to_owned(), step.clone())))
    }

    /// What is otherwise than in the template, in plain words.
    pub fn differences(&self, template: &Self) -> Vec<String> {
        if self.0.is_empty() {
            return vec!["its schema is missing".to_owned()];
        }
        let mut differences = Vec::new();
        for (key, detail) in &template.0 {
            match self.0.get(key) {
                None => differences.push(missing(key)),
                Some(own) if own != detail => differences.push(other(key, own, detail)),
                Some(_) => {}
            }
        }
        let extra = self.0.keys().filter(|key| !template.0.contains_key(*key));
        differences.extend(extra.map(extra_one));
        differences
    }
}

fn missing((kind, name): &(String, String)) -> String {
    match kind.strip_prefix(GRANT) {
        Some("{role}") => format!("role lacks {name}"),
        Some(who) => format!("{who} lacks {name}"),
        None => format!("{kind} {name} is missing"),
    }
}

fn extra_one((kind, name): &(String, String)) -> String {
    match kind.strip_prefix(GRANT) {
        Some("{role}") => format!("role has {name} too"),
        Some(who) => format!("{who} has {name}"),
        None => format!("{kind} {name} is extra"),
    }
}

fn other((kind, name): &(String, String), own: &str, template: &str) -> String {
    match kind.strip_prefix(GRANT) {
        Some(who) => format!("{who} has {name} {own}"),
        // Of a whole body the difference is for a person to find.
        None if kind == "function" => format!("function {name} is another"),
        None => format!("{kind} {name} is `{own}`, and not `{template}`")
            .replace("schema  is", "the schema is"),
    }
}

/// The structures of these schemas, and the template's. A schema that is not there has an empty one.
pub async fn read(
    tx: &impl ConnectionTrait,
    subjects: &[Subject],
) -> Result<(BTreeMap<String, Structure>, Structure)> {
    let mut found: BTreeMap<String, (Structure, Names)> = BTreeMap::new();
    let (mut schemas, mut roles) = (vec![TEMPLATE_SCHEMA.to_owned()], vec![String::new()]);
    for subject in subjects {
        let names = Names::new(subject)?;
        found.insert(subject.schema.clone(), (Structure::default(), names));
        schemas.push(subject.schema.clone());
        roles.push(subject.role.clone());
    }
    let template = Subject {
        schema: TEMPLATE_SCHEMA.to_owned(),
        role: "{role}".to_owned(),
    };
    let names = Names::new(&template)?;
    found.insert(template.schema, (Structure::default(), names));
    let query = Statement::from_sql_and_values(
        DbBackend::Postgres,
        LINES,
        [
            schemas.into(),
            roles.into(),
            TEMPLATE_SCHEMA.into(),
            UNAUDITED.map(str::to_owned).to_vec().into(),
        ],
    );
    for row in tx.query_all_raw(query).await? {
        let text = |name| row.try_get::<String>("", name);
        if let Some((structure, names)) = found.get_mut(&text("schema")?) {
            let key = (text("kind")?, names.take_out(&text("name")?));
            let detail = names.take_out(&text("detail")?);
            structure.0.insert(key, detail);
        }
    }
    let template = found
        .remove(TEMPLATE_SCHEMA)
        .map(|(own, _)| own)
        .unwrap_or_default();
    let structures = found.into_iter().map(|(schema, (own, _))| (schema, own));
    Ok((structures.collect(), template))
}

/// Refuses homes that were just made and are not like the template. While a newer binary has the template in its hands,
/// ahead of what was rendered of it last, there is nothing to compare with: what is made then is behind, and is migrated.
pub(super) async fn verify(tx: &PlatformTx, homes: &[Home], rendered: &Template) -> Result<()> {
    let subjects = homes.iter().map(|home| Subject {
        schema: home.schema.clone(),
        role: home.role.clone(),
    });
    let subjects: Vec<Subject> = subjects.collect();
    let (structures, template) = read(tx, &subjects).await?;
    if !template.has_just(&rendered.steps) {
        return Ok(());
    }
    for (schema, structure) in structures {
        let differences = structure.differences(&template);
        if !differences.is_empty() {
            let differences = differences.join("; ");
            return Err(Error::internal(format!(
                "{schema} is not like {TEMPLATE_SCHEMA}: {differences}"
            )));
        }
    }
    Ok(())
}

/// The names that are each schema's own.
#[derive(Debug)]
struct Names {
    schema: Regex,
    role: Regex,
}

impl Names {
    fn new(subject: &Subject) -> Result<Self> {
        let word = |name: &str| {
            Regex::new(&format!(r"\b{}\b", regex_lite::escape(name))).map_err(Error::internal)
        };
        Ok(Self {
            schema: word(&subject.schema)?,
            role: word(&subject.role)?,
        })
    }

    fn take_out(&self, text: &str) -> String {
        let text = self.role.replace_all(text, NoExpand("{role}"));
        let text = self.schema.replace_all(&text, NoExpand("{schema}"));
        text.into_owned()
    }
}

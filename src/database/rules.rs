//! The doctor's rules: what must not be there, as a query for it. A row has what is wrong, and what mends it.

use super::doctor::Health;

/// A rule. Its query names objects with their schemas, whatever the search path: who mends may have another.
#[derive(Debug)]
pub struct Rule {
    /// What it looks at.
    pub check: &'static str,
    /// How bad it is to break it.
    pub health: Health,
    /// What is said when it is kept.
    pub well: &'static str,
    /// The query for what breaks it.
    pub wrong: &'static str,
}

/// About roles, rights and settings.
pub(super) const RULES: [Rule; 7] = [
    Rule {
        check: "public",
        health: Health::Fail,
        well: "nothing is in it, and nobody may create in it",
        wrong: "SELECT 'everybody may create in the schema public', 'REVOKE CREATE ON SCHEMA public FROM PUBLIC'
                FROM pg_catalog.pg_namespace n WHERE n.nspname = 'public' AND has_schema_privilege('public', n.oid, 'CREATE')
            UNION ALL SELECT concat_ws(' ', o.type, o.identity, 'is in the schema public'),
                'drop it, or move it to a schema that tenants do not see: ALTER … SET SCHEMA …'
                FROM pg_catalog.pg_depend d, pg_identify_object(d.classid, d.objid, 0) o
                WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = to_regnamespace('public')
                    AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e
                        WHERE e.classid = d.classid AND e.objid = d.objid AND e.deptype = 'e')",
    },
    Rule {
        check: "definer functions",
        health: Health::Fail,
        well: "each has a search path of its own",
        wrong: "SELECT format('%s runs as %s with its caller''s search path', o.identity, pg_get_userbyid(p.proowner)),
                format('ALTER FUNCTION %s SET search_path = pg_catalog, pg_temp', o.identity)
            FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace,
                pg_identify_object('pg_proc'::regclass, p.oid, 0) o
            WHERE p.prosecdef AND n.nspname NOT IN ('pg_catalog', 'information_schema')
                AND NOT EXISTS (SELECT FROM unnest(p.proconfig) c WHERE c LIKE 'search\\_path=%')",
    },
    Rule {
        check: "functions",
        health: Health::Fail,
        well: "nobody may run them who was not told to",
        wrong: "SELECT format('everybody may run what functions %s makes', o.rolname),
                format('ALTER DEFAULT PRIVILEGES FOR ROLE %I REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC', o.rolname)
                FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_roles o ON o.oid = n.nspowner
                WHERE n.nspname = 't_template' AND NOT EXISTS (SELECT FROM pg_catalog.pg_default_acl d
                    WHERE d.defaclrole = o.oid AND d.defaclnamespace = 0 AND d.defaclobjtype = 'f'
                        AND NOT EXISTS (SELECT FROM aclexplode(d.defaclacl) e WHERE e.grantee = 0))
            UNION ALL SELECT format('everybody may run functions of the schema %s', n.nspname),
                format('REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA %I FROM PUBLIC', n.nspname)
                FROM pg_catalog.pg_namespace n WHERE n.nspname IN ('bulkhead', 't_template') AND EXISTS (
                    SELECT FROM pg_catalog.pg_proc p WHERE p.pronamespace = n.oid AND has_function_privilege('public', p.oid, 'EXECUTE'))",
    },
    Rule {
        check: "cell logins",
        health: Health::Fail,
        well: "they log in, and may nothing by themselves",
        wrong: "SELECT format('%s %s', c.login, w.what), format(w.mend, c.login)
            FROM bulkhead.cell c LEFT JOIN pg_catalog.pg_roles r ON r.rolname = c.login,
            LATERAL (VALUES
                (r.oid IS NULL, 'is not there', 'restart any bulkhead: it makes the login %s'),
                (NOT r.rolcanlogin, 'cannot log in', 'ALTER ROLE %I LOGIN'),
                (r.rolinherit, 'inherits the rights of its tenants', 'ALTER ROLE %I NOINHERIT'),
                (r.rolsuper, 'is a superuser', 'ALTER ROLE %I NOSUPERUSER'),
                (r.rolcreatedb, 'may create databases', 'ALTER ROLE %I NOCREATEDB'),
                (r.rolcreaterole, 'may create roles', 'ALTER ROLE %I NOCREATEROLE'),
                (r.rolreplication, 'may replicate', 'ALTER ROLE %I NOREPLICATION'),
                (r.rolbypassrls, 'bypasses row security', 'ALTER ROLE %I NOBYPASSRLS')) w (wrong, what, mend)
            WHERE w.wrong",
    },
    Rule {
        check: "cell members",
        health: Health::Fail,
        well: "each login may be its own tenants, and nobody else",
        wrong: "WITH home AS (
                SELECT t.role_name, c.login, t.state IN ('active', 'suspended') AS needed
                    FROM bulkhead.tenant t JOIN bulkhead.cell c ON c.id = t.cell_id
                UNION ALL SELECT s.role_name, c.login, true FROM bulkhead.spare s JOIN bulkhead.cell c ON c.id = s.cell_id
                UNION ALL SELECT t.role_name, c.login, false FROM bulkhead.former_cell f
                    JOIN bulkhead.tenant t ON t.id = f.tenant_id JOIN bulkhead.cell c ON c.id = f.cell_id
            ), held AS (
                SELECT r.rolname::text AS role_name, c.login
                FROM bulkhead.cell c JOIN pg_catalog.pg_roles l ON l.rolname = c.login
                JOIN pg_catalog.pg_auth_members m ON m.member = l.oid JOIN pg_catalog.pg_roles r ON r.oid = m.roleid
            )
            SELECT format('%s may not be %s', login, role_name), format('GRANT %I TO %I', role_name, login)
                FROM home WHERE needed AND NOT EXISTS (SELECT FROM held h
                    WHERE h.role_name = home.role_name AND h.login = home.login)
                AND EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = home.role_name)
            UNION ALL SELECT format('%s may be %s', login, role_name), format('REVOKE %I FROM %I', role_name, login)
                FROM held WHERE NOT EXISTS (SELECT FROM home h
                    WHERE h.role_name = held.role_name AND h.login = held.login)",
    },
    Rule {
        check: "tenant roles",
        health: Health::Fail,
        well: "each may use its own schema, and nothing else",
        wrong: "WITH home AS MATERIALIZED (
                SELECT r.oid, r.rolname, r.rolcanlogin, r.rolsuper OR r.rolbypassrls OR r.rolcreaterole AS mighty,
                    to_regnamespace(h.schema_name)::oid AS own
                FROM (SELECT schema_name, role_name FROM bulkhead.tenant
                    UNION ALL SELECT schema_name, role_name FROM bulkhead.spare) h
                JOIN pg_catalog.pg_roles r ON r.rolname = h.role_name
            )
            SELECT rolname || ' can log in', format('ALTER ROLE %I NOLOGIN', rolname) FROM home WHERE rolcanlogin
            UNION ALL SELECT rolname || ' may do more than a tenant',
                format('ALTER ROLE %I NOSUPERUSER NOBYPASSRLS NOCREATEROLE', rolname) FROM home WHERE mighty
            UNION ALL SELECT format('%s may be %s', h.rolname, r.rolname), format('REVOKE %I FROM %I', r.rolname, h.rolname)
                FROM home h JOIN pg_catalog.pg_auth_members m ON m.member = h.oid
                JOIN pg_catalog.pg_roles r ON r.oid = m.roleid
            UNION ALL SELECT format('%s has rights on %s %s', h.rolname, o.type, o.identity),
                CASE d.classid
                    WHEN 'pg_namespace'::regclass THEN format('REVOKE ALL ON SCHEMA %s FROM %I', o.identity, h.rolname)
                    WHEN 'pg_class'::regclass THEN format('REVOKE ALL ON %s FROM %I', o.identity, h.rolname)
                    WHEN 'pg_proc'::regclass THEN format('REVOKE ALL ON FUNCTION %s FROM %I', o.identity, h.rolname)
                    ELSE format('take it from %I', h.rolname) END
                FROM home h JOIN pg_catalog.pg_shdepend d ON d.refclassid = 'pg_authid'::regclass AND d.refobjid = h.oid
                    AND d.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
                CROSS JOIN LATERAL pg_identify_object(d.classid, d.objid, 0) o
                LEFT JOIN pg_catalog.pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
                LEFT JOIN pg_catalog.pg_proc p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
                WHERE coalesce(c.relnamespace, p.pronamespace, d.objid) IS DISTINCT FROM h.own",
    },
    Rule {
        check: "settings",
        health: Health::Warn,
        well: "commits last, and a rollout finds locks enough",
        wrong: "SELECT w.what, w.mend FROM (VALUES
                (current_setting('fsync') = 'off', 'fsync is off: a power cut can destroy the database',
                    'ALTER SYSTEM SET fsync = on; SELECT pg_reload_conf()'),
                (current_setting('synchronous_commit') = 'off', 'synchronous_commit is off: a power cut loses what was committed last',
                    'ALTER SYSTEM SET synchronous_commit = on; SELECT pg_reload_conf()'),
                (current_setting('data_checksums') = 'off', 'data checksums are off: a failing disk is noticed late',
                    'stop PostgreSQL, and run pg_checksums --enable'),
                (current_setting('max_locks_per_transaction')::int < 256, 'max_locks_per_transaction is less than 256',
                    'ALTER SYSTEM SET max_locks_per_transaction = 256, and restart PostgreSQL')) w (wrong, what, mend)
            WHERE w.wrong",
    },
];

//! Tenants: made whole or not at all, by the command and by many at once, each like the template; and found by their hosts.

use crate::harness::{
    PASSWORD, SECRET_KEY, Tenant, World, bare, bulkhead, cut_short, finish, run, value, world,
};
use bulkhead::error::{Error, Result};
use bulkhead::identity::{self, BuiltIn};
use bulkhead::tenancy::{self, NewTenant};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor as _, PgConnection};
use std::time::Duration;

/// Runs `bulkhead` on the database of the tests: exit code, standard output, standard error.
async fn command(args: &[&str], input: &str) -> (Option<i32>, String, String) {
    finish(bulkhead().await.args(args), input)
}

fn new(slug: &str) -> NewTenant {
    NewTenant {
        slug: slug.to_owned(),
        name: slug.to_owned(),
        operator: "tests".to_owned(),
    }
}

/// Makes a tenant with the built-in roles.
async fn make(world: &World, slug: &str) -> Result<()> {
    let tx = tenancy::create(&world.app.services.database, new(slug)).await?;
    let seeded = identity::seed_roles(&tx).await;
    tx.settle(seeded).await
}

/// Schemas, roles, ledger and log entries of tenants that there are not. One snapshot, so tenants that others make meanwhile
/// are in none or in all of its tables.
async fn orphans(superuser: &mut PgConnection) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT 'schema ' || nspname FROM pg_namespace
            WHERE nspname ~ '^t_[0-9]+$' AND nspname NOT IN (SELECT schema_name FROM bulkhead.tenant)
         UNION ALL SELECT 'role ' || rolname FROM pg_roles, bulkhead.instance i
            WHERE starts_with(rolname, i.id || '_t_') AND rolname NOT IN (SELECT role_name FROM bulkhead.tenant)
         UNION ALL SELECT 'ledger ' || schema_name FROM bulkhead.migration
            WHERE schema_name ~ '^t_[0-9]+$' AND schema_name NOT IN (SELECT schema_name FROM bulkhead.tenant)
         UNION ALL SELECT 'log ' || tenant_id FROM bulkhead.operator_log
            WHERE tenant_id NOT IN (SELECT id FROM bulkhead.tenant)",
    )
    .fetch_all(superuser)
    .await
    .unwrap()
}

/// How many tenants have this slug.
async fn count(superuser: &mut PgConnection, slug: &str) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM bulkhead.tenant WHERE slug = $1")
        .bind(slug)
        .fetch_one(superuser)
        .await
        .unwrap()
}

/// Everything there is in a schema and who may do what with it, names of schema and role taken out. Without `role`, not who
/// may: the template is nobody's.
async fn structure(superuser: &mut PgConnection, schema: &str, role: Option<&str>) -> Vec<String> {
    let parts = [
        "SELECT concat_ws(' ', 'table', relname, relkind, relpersistence, relrowsecurity, reloptions, relreplident,
            pg_get_userbyid(relowner), obj_description(oid)) FROM pg_class WHERE relnamespace = $1::regnamespace",
        "SELECT concat_ws(' ', 'column', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
            a.attidentity, a.attgenerated, a.attcollation::regcollation, a.attstorage, pg_get_expr(d.adbin, d.adrelid),
            rank() OVER (PARTITION BY c.oid ORDER BY a.attnum))
         FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
         LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum WHERE c.relnamespace = $1::regnamespace",
        "SELECT concat_ws(' ', 'constraint', conrelid::regclass, conname, pg_get_constraintdef(oid), convalidated,
            condeferrable) FROM pg_constraint WHERE connamespace = $1::regnamespace",
        "SELECT concat_ws(' ', 'index', pg_get_indexdef(i.indexrelid), i.indisvalid, i.indisprimary, i.indisunique)
         FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE c.relnamespace = $1::regnamespace",
        "SELECT concat_ws(' ', 'trigger', pg_get_triggerdef(t.oid), t.tgenabled) FROM pg_trigger t
         JOIN pg_class c ON c.oid = t.tgrelid WHERE c.relnamespace = $1::regnamespace AND NOT t.tgisinternal",
        "SELECT concat_ws(' ', 'function', pg_get_functiondef(oid), pg_get_userbyid(proowner)) FROM pg_proc
         WHERE pronamespace = $1::regnamespace",
        "SELECT concat_ws(' ', 'type', typname, typtype) FROM pg_type WHERE typnamespace = $1::regnamespace",
    ];
    let grants = [
        "SELECT concat_ws(' ', 'on schema', nspacl) FROM pg_namespace WHERE oid = $1::regnamespace",
        "SELECT concat_ws(' ', 'on table', relname, relacl) FROM pg_class WHERE relnamespace = $1::regnamespace",
        "SELECT concat_ws(' ', 'on function', proname, proacl) FROM pg_proc WHERE pronamespace = $1::regnamespace",
    ];
    let mut lines = Vec::new();
    for query in parts
        .into_iter()
        .chain(grants.into_iter().filter(|_| role.is_some()))
    {
        let found: Vec<String> = sqlx::query_scalar(query)
            .bind(schema)
            .fetch_all(&mut *superuser)
            .await
            .unwrap();
        lines.extend(found.into_iter().map(|line| {
            let line = line.replace(role.unwrap_or("{role}"), "{role}");
            line.replace(schema, "{schema}")
        }));
    }
    lines.sort();
    lines
}

#[track_caller]
fn same(one: &[String], other: &[String]) {
    let lacks = |a: &[String], b: &[String]| -> Vec<String> {
        a.iter().filter(|line| !b.contains(line)).cloned().collect()
    };
    let (only_one, only_other) = (lacks(one, other), lacks(other, one));
    assert!(
        one == other,
        "only in the one: {only_one:#?}\nonly in the other: {only_other:#?}"
    );
}

#[test]
fn create_says_what_one_needs_to_sign_in() {
    run(async {
        let create = [
            "tenant",
            "create",
            "cli-human",
            "--owner",
            "Ada@Example.com",
        ];
        let (code, out, err) = command(&create, "").await;
        assert_eq!(code, Some(0), "{err}");
        let lines: Vec<&str> = out.lines().map(str::trim).collect();
        assert_eq!(
            lines[0],
            "Created cli-human at http://cli-human.localhost:8080"
        );
        let password = lines[2].strip_prefix("password").unwrap().trim();
        // At once, on a server that was running before.
        let tenant = Tenant::named("cli-human").await;
        let token = tenant.sign_in_with("ada@example.com", password).await;
        let query = "{ tenant { slug name } viewer { permissions } }";
        let answer = tenant.gql(Some(&token), query).await;
        let shown = json!({ "slug": "cli-human", "name": "cli-human" });
        assert_eq!(answer.data()["tenant"], shown);
        let permissions = answer.data()["viewer"]["permissions"].as_array();
        assert_eq!(permissions.unwrap().len(), 10);

        let trail = "{ tenant { changes(first: 100) { nodes { subjectType actor { __typename ... on SystemActor { reason } } } } } }";
        let answer = tenant.gql(Some(&token), trail).await;
        let nodes = answer.data()["tenant"]["changes"]["nodes"].as_array();
        let by = json!({ "__typename": "SystemActor", "reason": "an operator" });
        let made = nodes.unwrap().iter().filter(|node| node["actor"] == by);
        assert_eq!(made.count(), 6, "four roles, the owner, the owner's role");
    });
}

#[test]
fn create_list_and_show_speak_json() {
    run(async {
        let create = [
            "tenant",
            "create",
            "cli-json",
            "--name",
            "Ünïcode & Co",
            "--owner",
            "a@b.example",
            "--password-stdin",
            "--json",
        ];
        let (code, out, err) = command(&create, &format!("{PASSWORD}\n")).await;
        assert_eq!(code, Some(0), "{err}");
        let made: Value = serde_json::from_str(&out).unwrap();
        let owner = json!({ "email": "a@b.example", "password": "(as given)" });
        assert_eq!(made["owner"], owner);
        assert!(!out.contains(PASSWORD) && !err.contains(PASSWORD));
        let tenant = Tenant::named("cli-json").await;
        tenant.sign_in("a@b.example").await;

        let (code, out, _) = command(&["tenant", "list", "--json"], "").await;
        assert_eq!(code, Some(0));
        let list: Vec<Value> = serde_json::from_str(&out).unwrap();
        let listed = list.iter().find(|row| row["slug"] == "cli-json").unwrap();
        let (code, out, _) = command(&["tenant", "show", "cli-json", "--json"], "").await;
        assert_eq!(code, Some(0));
        let shown: Value = serde_json::from_str(&out).unwrap();
        for key in [
            "slug",
            "name",
            "state",
            "schema",
            "role",
            "cell",
            "created_at",
        ] {
            assert_eq!(listed[key], made[key], "{key}");
            assert_eq!(shown[key], made[key], "{key}");
        }
        assert_eq!(made["name"], "Ünïcode & Co");
        assert_eq!(made["schema"], tenant.row.schema_name.as_str());
        assert_eq!(shown["url"], "http://cli-json.localhost:8080");
        assert_eq!(shown["domains"], json!([]));
    });
}

#[test]
fn list_and_show_print_tables() {
    run(async {
        let tenant = Tenant::new().await;
        let (slug, schema) = (&tenant.slug, &tenant.row.schema_name);
        let (code, out, err) = command(&["tenant", "list"], "").await;
        assert_eq!(code, Some(0), "{err}");
        assert!(out.starts_with("SLUG"), "{out}");
        let line = out
            .lines()
            .find(|line| line.starts_with(&format!("{slug} ")));
        assert!(line.unwrap().contains(schema.as_str()), "{out}");
        let slugs: Vec<&str> = out
            .lines()
            .skip(1)
            .map(|l| l.split(' ').next().unwrap())
            .collect();
        assert!(slugs.is_sorted(), "{slugs:?}");
        let (code, out, _) = command(&["tenant", "show", slug], "").await;
        assert_eq!(code, Some(0));
        for (key, value) in [
            ("url", format!("http://{slug}.localhost:8080")),
            ("schema", schema.clone()),
            ("domains", "-".to_owned()),
        ] {
            let line = out.lines().find(|line| line.starts_with(key)).unwrap();
            assert_eq!(line.split_whitespace().nth(1), Some(value.as_str()));
        }
        let (code, out, err) = command(&["tenant", "show", "nobody"], "").await;
        assert_eq!((code, out.as_str()), (Some(1), ""));
        assert!(
            err.contains("no tenant nobody") && err.contains("tenant list"),
            "{err}"
        );
    });
}

#[test]
fn what_cannot_be_made_is_said_and_leaves_nothing() {
    run(async {
        let taken = Tenant::new().await;
        let mut superuser = taken.world.superuser().await;
        let long = "x".repeat(49);
        for (slug, owner, word) in [
            (taken.slug.as_str(), "a@b.example", "There is a tenant"),
            ("Upper", "a@b.example", "lower-case"),
            ("ab", "a@b.example", "3 to 48"),
            (&long, "a@b.example", "3 to 48"),
            ("9lives", "a@b.example", "beginning with a letter"),
            ("ends-", "a@b.example", "not ending with a hyphen"),
            ("under_score", "a@b.example", "hyphens"),
            (
                "a'; DROP SCHEMA bulkhead",
                "a@b.example",
                "cannot be a slug",
            ),
            ("www", "a@b.example", "reserved"),
            ("admin", "a@b.example", "reserved"),
            // These fail after the schema is made.
            ("never-made", "no-address", "not an e-mail address"),
            ("never-made", "a b@b.example", "not an e-mail address"),
            ("never-made", "", "not an e-mail address"),
        ] {
            let before = count(&mut superuser, slug).await;
            let args = ["tenant", "create", slug, "--owner", owner];
            let (code, out, err) = command(&args, "").await;
            assert_eq!((code, out.as_str()), (Some(1), ""), "{slug}: {err}");
            assert!(
                err.starts_with("bulkhead: ") && err.contains(word),
                "{slug}: {err}"
            );
            assert_eq!(count(&mut superuser, slug).await, before, "{slug}");
        }
        for (password, word) in [("short\n", "8 to 128"), ("", "8 to 128")] {
            let args = [
                "tenant",
                "create",
                "never-made",
                "--owner",
                "a@b.example",
                "--password-stdin",
            ];
            let (code, _, err) = command(&args, password).await;
            assert_eq!(code, Some(1));
            assert!(err.contains(word), "{err}");
        }
        assert_eq!(count(&mut superuser, "never-made").await, 0);
        let left = orphans(&mut superuser).await;
        assert!(left.is_empty(), "{left:?}");
        // Nothing of the failures is in the way.
        let args = ["tenant", "create", "never-made", "--owner", "a@b.example"];
        assert_eq!(command(&args, "").await.0, Some(0));
    });
}

#[test]
fn a_creation_that_is_cut_short_leaves_nothing() {
    run(async {
        let world = world().await;
        let mut superuser = world.superuser().await;
        let database = &world.app.services.database;
        let tx = tenancy::create(database, new("dropped")).await.unwrap();
        identity::seed_roles(&tx).await.unwrap();
        drop(tx);
        for n in 0..20 {
            let work = make(world, "dropped");
            if let Some(done) = cut_short(Duration::from_millis(n), work).await {
                done.unwrap();
                break;
            }
        }
        let left = orphans(&mut superuser).await;
        assert!(left.is_empty(), "{left:?}");
        // The name is free, unless a commit that was cut short went through.
        match make(world, "dropped").await {
            Ok(()) => {}
            Err(error) => assert!(matches!(error, Error::AlreadyExists(_)), "{error:?}"),
        }
        assert_eq!(count(&mut superuser, "dropped").await, 1);
    });
}

#[test]
fn many_at_once_are_all_made() {
    run(async {
        let world = world().await;
        let slugs: Vec<String> = (0..8).map(|n| format!("many-{n}")).collect();
        let made = futures::future::join_all(slugs.iter().map(|slug| make(world, slug))).await;
        for (slug, made) in slugs.iter().zip(made) {
            made.unwrap_or_else(|error| panic!("{slug}: {error:?}"));
        }
        let mut seen = Vec::new();
        for slug in &slugs {
            let tenant = Tenant::named(slug).await;
            let tx = tenant.write().await;
            let roles = value(&tx, "SELECT count(*)::text FROM role").await;
            assert_eq!(roles.unwrap(), "4");
            tx.commit().await.unwrap();
            seen.extend([tenant.row.schema_name.clone(), tenant.row.role_name.clone()]);
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 16, "each with its own schema and role");
    });
}

#[test]
fn of_many_for_one_slug_one_wins() {
    run(async {
        let world = world().await;
        let mut superuser = world.superuser().await;
        let made = futures::future::join_all((0..8).map(|_| make(world, "raced"))).await;
        let won = made.iter().filter(|made| made.is_ok()).count();
        assert_eq!(won, 1, "{made:?}");
        for error in made.into_iter().filter_map(Result::err) {
            assert!(matches!(error, Error::AlreadyExists(_)), "{error:?}");
        }
        assert_eq!(count(&mut superuser, "raced").await, 1);
        assert!(orphans(&mut superuser).await.is_empty());
    });
}

#[test]
fn a_new_tenant_is_like_the_template() {
    run(async {
        let (one, two) = (Tenant::new().await, Tenant::new().await);
        let mut superuser = one.world.superuser().await;
        let template = structure(&mut superuser, "t_template", None).await;
        assert!(template.len() > 100, "{template:#?}");
        let bare = structure(&mut superuser, &one.row.schema_name, None).await;
        same(&bare, &template);
        let [first, second] =
            [&one, &two].map(|t| (&t.row.schema_name, Some(t.row.role_name.as_str())));
        let first = structure(&mut superuser, first.0, first.1).await;
        let second = structure(&mut superuser, second.0, second.1).await;
        same(&first, &second);
        let granted: Vec<_> = first
            .iter()
            .filter(|line| line.contains("{role}="))
            .collect();
        let on = |line: &str| granted.iter().filter(|g| g.contains(line)).count();
        assert_eq!(
            on("on table history {bulkhead=arwdDxt/bulkhead,{role}=r/bulkhead}"),
            1
        );
        assert_eq!(on("{role}=arwd/bulkhead"), 7, "{granted:#?}");
        assert_eq!(on("on schema {bulkhead=UC/bulkhead,{role}=U/bulkhead}"), 1);
        assert_eq!(
            on("{bulkhead=X/bulkhead,{role}=X/bulkhead}"),
            2,
            "{granted:#?}"
        );
        assert_eq!(granted.len(), 11, "{granted:#?}");
    });
}

#[test]
fn a_tenant_that_lacks_a_step_gets_it_at_the_next_start() {
    run(async {
        let (behind, whole) = (Tenant::new().await, Tenant::new().await);
        let mut superuser = behind.world.superuser().await;
        let (schema, role) = (&behind.row.schema_name, &behind.row.role_name);
        // As an older binary has left it.
        let sql = format!(
            "BEGIN; DROP FUNCTION {schema}.enqueue, {schema}.jobs;
             DELETE FROM bulkhead.migration WHERE schema_name = '{schema}' AND name = 'm0005_job'; COMMIT"
        );
        superuser
            .execute(sqlx::raw_sql(AssertSqlSafe(sql)))
            .await
            .unwrap();
        behind.world.another(2).await.stop().await.unwrap();
        let migrated = structure(&mut superuser, schema, Some(role)).await;
        let (schema, role) = (&whole.row.schema_name, &whole.row.role_name);
        let made = structure(&mut superuser, schema, Some(role)).await;
        same(&migrated, &made);
    });
}

#[test]
fn a_step_without_its_grants_is_not_applied() {
    run(async {
        let world = world().await;
        let url = world.new_database("no_grants").await;
        let app = world.another_on(&url, 4).await.unwrap();
        let database = &app.services.database;
        let tx = tenancy::create(database, new("acme")).await.unwrap();
        let tenant = std::sync::Arc::clone(tx.tenant());
        tx.commit().await.unwrap();
        app.stop().await.unwrap();
        let mut superuser = world.superuser_of("no_grants").await;
        let (schema, role) = (&tenant.schema_name, &tenant.role_name);
        let before = structure(&mut superuser, schema, Some(role)).await;
        // The step can be applied, and what is granted with it cannot.
        let sql = format!(
            "BEGIN; DROP FUNCTION {schema}.enqueue, {schema}.jobs; ALTER TABLE {schema}.history OWNER TO CURRENT_USER;
             DELETE FROM bulkhead.migration WHERE schema_name = '{schema}' AND name = 'm0005_job'; COMMIT"
        );
        let sql = sqlx::raw_sql(AssertSqlSafe(sql));
        superuser.execute(sql).await.unwrap();
        assert!(world.another_on(&url, 4).await.is_err());
        let sql = format!("ALTER TABLE {schema}.history OWNER TO bulkhead");
        let sql = sqlx::query(AssertSqlSafe(sql));
        superuser.execute(sql).await.unwrap();
        let app = world.another_on(&url, 4).await.unwrap();
        app.stop().await.unwrap();
        let after = structure(&mut superuser, schema, Some(role)).await;
        same(&after, &before);
    });
}

/// Asks for the tenant's slug at a host, as its owner.
async fn at(tenant: &Tenant, token: &str, host: &str) -> (StatusCode, Value) {
    let request = tenant
        .world
        .client
        .request(
            Method::POST,
            format!("http://{}/graphql", tenant.world.address),
        )
        .header("Host", host)
        .bearer_auth(token)
        .json(&json!({ "query": "{ tenant { slug } }" }));
    let answer = tenant.send(request).await;
    (answer.status, answer.body)
}

#[test]
fn a_tenant_is_found_however_its_host_is_spelt() {
    run(async {
        let tenant = Tenant::new().await;
        let slug = &tenant.slug;
        let token = tenant.token(BuiltIn::Owner).await;
        let upper = slug.to_uppercase();
        for host in [
            format!("{slug}.localhost"),
            format!("{slug}.localhost:8080"),
            format!("{slug}.localhost."),
            format!("{slug}.localhost.:80"),
            format!("{upper}.LocalHost"),
            format!("{upper}.LOCALHOST.:65535"),
        ] {
            let (status, body) = at(&tenant, &token, &host).await;
            assert_eq!(status, StatusCode::OK, "{host}: {body:#}");
            assert_eq!(body["data"]["tenant"]["slug"], slug.as_str());
        }
        for (host, status, code) in [
            ("localhost", 404, "TENANT_NOT_FOUND"),
            ("nobody.localhost", 404, "TENANT_NOT_FOUND"),
            (&format!("x.{slug}.localhost"), 404, "TENANT_NOT_FOUND"),
            (&format!("{slug}.example.com"), 404, "TENANT_NOT_FOUND"),
            (&format!("x{slug}.localhost"), 404, "TENANT_NOT_FOUND"),
            ("127.0.0.1", 404, "TENANT_NOT_FOUND"),
            ("[::1]:8080", 400, "BAD_USER_INPUT"),
            (&format!("{slug}.localhost.."), 400, "BAD_USER_INPUT"),
            (&format!("{slug}.localhost:port"), 400, "BAD_USER_INPUT"),
            (&format!("{slug}_.localhost"), 400, "BAD_USER_INPUT"),
        ] {
            let (found, body) = at(&tenant, &token, host).await;
            assert_eq!(found.as_u16(), status, "{host}: {body:#}");
            assert_eq!(body["errors"][0]["extensions"]["code"], code, "{host}");
        }
    });
}

#[test]
fn a_verified_domain_leads_to_its_tenant_alone() {
    run(async {
        let (tenant, other) = (Tenant::new().await, Tenant::new().await);
        let token = tenant.token(BuiltIn::Owner).await;
        let mut owner = tenant.world.owner().await;
        let domains = [
            ("shop.example", tenant.row.id, "now()"),
            ("soon.example", tenant.row.id, "NULL"),
            ("other.example", other.row.id, "now()"),
            // Subdomains of ours are slugs, whoever else claims them.
            (&format!("{}.localhost", tenant.slug), other.row.id, "now()"),
        ];
        for (host, id, verified) in domains {
            let sql = format!(
                "INSERT INTO bulkhead.domain (host, tenant_id, verified_at) VALUES ('{host}', '{id}', {verified})"
            );
            owner
                .execute(sqlx::raw_sql(AssertSqlSafe(sql)))
                .await
                .unwrap();
        }
        let own = format!("{}.localhost", tenant.slug);
        for host in ["shop.example", "SHOP.example.:8080", &own] {
            let (status, body) = at(&tenant, &token, host).await;
            assert_eq!(status, StatusCode::OK, "{host}: {body:#}");
            assert_eq!(body["data"]["tenant"]["slug"], tenant.slug.as_str());
        }
        for host in ["soon.example", "www.shop.example", "example"] {
            let (status, body) = at(&tenant, &token, host).await;
            assert_eq!(status, StatusCode::NOT_FOUND, "{host}: {body:#}");
        }
        // At another tenant's domain the token is nobody's.
        let (status, _) = at(&tenant, &token, "other.example").await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        let (_, out, _) = command(&["tenant", "show", &tenant.slug, "--json"], "").await;
        let shown: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(shown["domains"], json!(["shop.example", "soon.example"]));
    });
}

#[test]
fn the_managed_server_is_hardened() {
    run(async {
        let (code, out, err) = command(&["hardening"], "").await;
        assert_eq!(code, Some(0), "{err}");
        assert_eq!(out, "-- PostgreSQL is hardened; there is nothing to run\n");
    });
}

/// On a server that is not ours to harden: the command says what to run, that is enough, and Bulkhead works after it.
#[test]
fn hardening_by_hand_closes_all_and_breaks_nothing() {
    run(async {
        let url = world().await.new_database("by_hand").await;
        let mut superuser = world().await.superuser_of("by_hand").await;
        let dir = tempfile::tempdir().unwrap();
        let on_it = |args: &[&str]| {
            let mut command = bare();
            command
                .current_dir(dir.path())
                .env("DATABASE_URL", &url)
                .env("BULKHEAD_SECRET_KEY", SECRET_KEY);
            finish(command.args(args), "")
        };
        let create = ["tenant", "create", "acme", "--owner", "a@b.example"];
        let (code, _, err) = on_it(&create);
        assert_eq!(code, Some(0), "{err}");
        assert!(err.contains("not hardened"), "{err}");
        let (code, sql, err) = on_it(&["hardening"]);
        assert_eq!(code, Some(0), "{err}");
        assert!(sql.contains("set_config"), "{sql}");
        superuser
            .execute(sqlx::raw_sql(AssertSqlSafe(sql)))
            .await
            .unwrap();
        let (code, sql, _) = on_it(&["hardening"]);
        assert_eq!(code, Some(0));
        assert_eq!(sql, "-- PostgreSQL is hardened; there is nothing to run\n");
        let create = ["tenant", "create", "globex", "--owner", "a@b.example"];
        let (code, _, err) = on_it(&create);
        assert_eq!(code, Some(0), "{err}");
        assert!(!err.contains("not hardened"), "{err}");
    });
}

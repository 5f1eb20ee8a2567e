//! Behind PgBouncer in transaction mode, set up as the README says: each transaction may be on another connection of
//! PostgreSQL's, which has served others, and knows no prepared statements.
//!
//! PgBouncer comes from the distribution. Where it is not installed, this test says so and checks nothing.

use super::{add, seen};
use crate::harness::{PASSWORD, Process, Tenant, World, finish, program, run, until, world};
use bulkhead::identity::BuiltIn;
use futures::future::join_all;
use nix::sys::signal::Signal;
use nix::unistd::{User, geteuid};
use sea_orm::{ConnectionTrait as _, DbBackend, Statement};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _, Row as _};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::str::FromStr as _;
use tempfile::TempDir;

const QUERY: &str = "{ viewer { expiresAt } tenant { slug devices { nodes { name } } members { nodes { email } } } }";
const MUTATION: &str =
    "mutation { deviceCreate(input: { name: \"A device\" }) { device { id } errors { code } } }";

#[test]
fn everything_works_behind_a_transaction_pooler() {
    run(async {
        let Some((pooler, files, world)) = start().await else {
            return;
        };
        let worker = world.app.worker().await;
        let tenants = [Tenant::of(world).await, Tenant::of(world).await];
        let tokens = [
            tenants[0].token(BuiltIn::Owner).await,
            tenants[1].token(BuiltIn::Owner).await,
        ];
        work(&tenants, &tokens).await;
        let left = plant(&tenants[0], &tenants[1]).await;
        assert_eq!(left, ["forged", "forged"], "the next client gets it all");
        work(&tenants, &tokens).await;

        let tx = tenants[0].write().await;
        add(&tx, "A device").await.unwrap();
        let timeout = "SELECT current_setting('statement_timeout') AS timeout";
        let timeout = Statement::from_string(DbBackend::Postgres, timeout);
        let row = tx.query_one_raw(timeout).await.unwrap().unwrap();
        assert_ne!(row.try_get::<String>("", "timeout").unwrap(), "7s");
        tx.commit().await.unwrap();
        let forged =
            "SELECT count(*) FROM history WHERE reason = 'forged' OR request_id = 'forged'";
        assert_eq!(tenants[0].count(forged).await, 0);
        let mut superuser = world.superuser().await;
        for (tenant, devices) in tenants.iter().zip([41, 40]) {
            assert_eq!(seen(&mut superuser, tenant).await, devices);
        }
        worker.stop().await;
        examined((&pooler, &files), world, &tenants).await;
    });
}

/// What the doctor says of the pooler: nothing where it takes back what a client has set; else what mends it; and what is to be
/// configured where it was not.
async fn examined((pooler, files): (&Process, &TempDir), world: &World, tenants: &[Tenant; 2]) {
    let direct = world.app.services.config.direct_url.as_ref().unwrap();
    let settings = [
        ("BULKHEAD_POOLER", "true"),
        ("BULKHEAD_DIRECT_URL", direct.expose_secret()),
    ];
    let mut hardening = world.command();
    let (_, sql, err) = finish(hardening.envs(settings).arg("hardening"), "");
    let mut superuser = world.superuser().await;
    let hardened = superuser.execute(sqlx::raw_sql(AssertSqlSafe(sql)));
    hardened
        .await
        .unwrap_or_else(|error| panic!("{error}: {err}"));

    let file = files.path().join("pgbouncer.ini");
    let ini = fs::read_to_string(&file).unwrap();
    for resets in [true, false] {
        let always = format!("{ini}server_reset_query_always = {}\n", u8::from(resets));
        fs::write(&file, always).unwrap();
        pooler.signal(Signal::SIGHUP);
        let wanted = if resets { "ok" } else { "warn" };
        until("the pooler has read its file again", async || {
            let (_, found) = doctor(world, &settings);
            (found[0]["health"] == wanted).then_some(())
        })
        .await;
        let left = plant(&tenants[0], &tenants[1]).await;
        let forged = if resets { "" } else { "forged" };
        assert_eq!(left, [forged; 2], "what the doctor says of it is so");
        let (code, found) = doctor(world, &settings);
        assert_eq!(code, Some(0), "{found:#}");
        assert_eq!(found[0]["check"], "pooler");
        assert_eq!(found[0]["health"], wanted, "{found:#}");
        let mend = found[0]["mend"].as_str().unwrap_or_default();
        assert_eq!(mend.contains("server_reset_query_always"), !resets);
        let rest = found.as_array().unwrap();
        assert!(
            rest.iter().any(|one| one["check"] == "tenants"),
            "{found:#}"
        );
    }

    let (code, found) = doctor(world, &[]);
    assert_eq!(code, Some(2), "{found:#}");
    for (number, health, mend) in [(0, "warn", "pooler = true"), (1, "fail", "direct_url")] {
        assert_eq!(found[number]["health"], health, "{found:#}");
        let said = found[number]["mend"].as_str().unwrap();
        assert!(said.contains(mend), "{found:#}");
    }
}

/// The exit code and what is found.
fn doctor(world: &World, settings: &[(&str, &str)]) -> (Option<i32>, Value) {
    let mut command = world.command();
    command
        .envs(settings.iter().copied())
        .args(["doctor", "--json"]);
    let (code, out, err) = finish(command.env("BULKHEAD_LOG", "off"), "");
    let found = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}"));
    (code, found)
}

/// Requests of both tenants side by side, reading and writing, and a job of each.
async fn work(tenants: &[Tenant; 2], tokens: &[String; 2]) {
    let work = (0..8).map(async |n| {
        let (tenant, token) = (&tenants[n % 2], &tokens[n % 2]);
        for _ in 0..5 {
            let made = tenant.gql(Some(token), MUTATION).await;
            assert!(made.payload()["device"]["id"].is_string(), "{made:?}");
            let read = tenant.gql(Some(token), QUERY).await;
            assert_eq!(read.data()["tenant"]["slug"], tenant.slug.as_str());
        }
    });
    join_all(work).await;
    tokio::join!(tenants[0].photo(&tokens[0]), tenants[1].photo(&tokens[1]));
}

/// As another client of the pooler with the same login: leaves settings on both of PostgreSQL's connections. What the next
/// client finds on them.
async fn plant(tenant: &Tenant, other: &Tenant) -> Vec<String> {
    let settings = format!(
        "SET bulkhead.reason = 'forged'; SET bulkhead.request_id = 'forged'; SET statement_timeout = '7s';
         SET default_transaction_read_only = on; SET search_path TO {schema}; SET ROLE {role}; COMMIT",
        schema = other.row.schema_name,
        role = other.row.role_name
    );
    let mut found = Vec::new();
    for statements in ["", &settings, ""] {
        let (mut one, mut two) = (tenant.cell().await, tenant.cell().await);
        for client in [&mut one, &mut two] {
            client.execute("BEGIN").await.unwrap();
        }
        for client in [&mut one, &mut two] {
            let statements = statements.to_owned();
            client
                .execute(sqlx::raw_sql(AssertSqlSafe(statements)))
                .await
                .unwrap();
        }
        found = vec![reason(&mut one).await, reason(&mut two).await];
        for client in [&mut one, &mut two] {
            client.execute("ROLLBACK").await.unwrap();
        }
    }
    found
}

async fn reason(client: &mut PgConnection) -> String {
    let query = sqlx::raw_sql("SELECT current_setting('bulkhead.reason', true)");
    let row = client.fetch_one(query).await.unwrap();
    row.get::<Option<String>, _>(0).unwrap_or_default()
}

/// What the README has PostgreSQL's superuser run, so that PgBouncer finds the logins.
const LOOKUP: &str = "GRANT CONNECT ON DATABASE pooled TO pgbouncer;
    CREATE SCHEMA pgbouncer;
    GRANT USAGE ON SCHEMA pgbouncer TO pgbouncer;
    CREATE FUNCTION pgbouncer.lookup(login text) RETURNS TABLE (usename name, passwd text)
        LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
        AS 'SELECT usename, passwd FROM pg_shadow WHERE usename = $1';
    REVOKE EXECUTE ON FUNCTION pgbouncer.lookup FROM PUBLIC;
    GRANT EXECUTE ON FUNCTION pgbouncer.lookup TO pgbouncer";

/// PgBouncer with two connections a login, and a server behind it on a database of its own.
async fn start() -> Option<(Process, TempDir, &'static World)> {
    let shared = world().await;
    let Some(pgbouncer) = program("pgbouncer") else {
        eprintln!("skipped: PgBouncer is not installed (apt-get install pgbouncer)");
        return None;
    };
    let direct = shared.new_database("pooled").await;
    let mut superuser = shared.superuser_of("pooled").await;
    let role = format!("CREATE ROLE pgbouncer LOGIN PASSWORD '{PASSWORD}'");
    superuser.execute(AssertSqlSafe(role)).await.unwrap();
    superuser.execute(sqlx::raw_sql(LOOKUP)).await.unwrap();

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut url = reqwest::Url::parse(&direct).unwrap();
    let files = configure(port, url.port().unwrap());
    drop(taken);
    let mut command = Command::new(pgbouncer);
    command.arg(files.path().join("pgbouncer.ini"));
    // It refuses to run as root.
    let nobody = User::from_name("nobody").unwrap();
    if let Some(nobody) = nobody.filter(|_| geteuid().is_root()) {
        command.uid(nobody.uid.as_raw()).gid(nobody.gid.as_raw());
    }
    let mut process = Process::start(&mut command);
    url.set_host(Some("127.0.0.1")).unwrap();
    url.set_port(Some(port)).unwrap();
    url.set_query(None);
    let pooled = PgConnectOptions::from_str(url.as_str()).unwrap();
    until("PgBouncer answers", async || {
        assert!(process.is_running(), "{}", process.logged());
        let client = pooled.clone().extra_float_digits(None);
        client.connect().await.ok().map(drop)
    })
    .await;
    let world = shared.beside(|config| {
        config.database_url = Some(SecretString::from(url.to_string()));
        config.direct_url = Some(SecretString::from(direct));
        config.pooler = true;
        config.cells = 1;
    });
    Some((process, files, world.await))
}

/// Its files, for PostgreSQL's port and its own, where every user can read them.
fn configure(port: u16, server_port: u16) -> TempDir {
    let files = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o755))
        .tempdir()
        .unwrap();
    let users = files.path().join("userlist.txt");
    fs::write(&users, format!("\"pgbouncer\" \"{PASSWORD}\"\n")).unwrap();
    let ini = format!(
        "[databases]
         pooled = host=127.0.0.1 port={server_port} dbname=pooled
         [pgbouncer]
         listen_addr = 127.0.0.1
         listen_port = {port}
         unix_socket_dir =
         pool_mode = transaction
         auth_type = scram-sha-256
         auth_file = {users}
         auth_user = pgbouncer
         auth_query = SELECT usename, passwd FROM pgbouncer.lookup($1)
         default_pool_size = 2
         max_client_conn = 200\n",
        users = users.display()
    );
    let file = files.path().join("pgbouncer.ini");
    fs::write(file, ini.replace("\n         ", "\n")).unwrap();
    files
}

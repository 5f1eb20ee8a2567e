//! Guards: nobody writes around the trail, no table is without it, and no secret is in it.

use super::{adding, entries, history, read, write};
use crate::harness::{Tenant, execute, refused, run, sqlstate};
use bulkhead::identity::BuiltIn;
use futures::TryStreamExt as _;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor as _};

#[test]
fn a_write_without_an_actor_is_refused() {
    run(async {
        let tenant = Tenant::new().await;
        write(&tenant, &adding(1)).await;
        let mut cell = tenant.cell().await;
        for actor in ["", "; SET LOCAL bulkhead.actor = ''"] {
            for sql in [
                adding(1),
                "UPDATE device SET name = 'Nobody'".to_owned(),
                "DELETE FROM device".to_owned(),
            ] {
                let bind = format!(
                    "BEGIN; SET LOCAL ROLE {}; SET LOCAL search_path TO {}{actor}",
                    tenant.row.role_name, tenant.row.schema_name
                );
                cell.execute(sqlx::raw_sql(AssertSqlSafe(bind)))
                    .await
                    .unwrap();
                let statement = sqlx::query(AssertSqlSafe(sql.clone()));
                let error = cell.execute(statement).await.unwrap_err();
                let code = error.as_database_error().unwrap().code().unwrap();
                assert_eq!(code, "BH001", "{sql}: {error}");
                cell.execute("ROLLBACK").await.unwrap();
            }
        }
        assert_eq!(
            read(&tenant, "SELECT string_agg(name, ' ') FROM device").await,
            "Bulk"
        );
    });
}

#[test]
fn an_id_never_changes() {
    run(async {
        let tenant = Tenant::new().await;
        write(&tenant, &adding(2)).await;
        let before = entries(&tenant).await;
        // Entries are by id: with another, the row would leave its past behind.
        for sql in [
            "UPDATE device SET id = gen_random_uuid()",
            "UPDATE device SET id = gen_random_uuid(), name = 'New'
                WHERE id = (SELECT id FROM device LIMIT 1)",
            "UPDATE role SET id = gen_random_uuid() WHERE name = 'viewer'",
        ] {
            let tx = tenant.write().await;
            let error = execute(&tx, sql).await.unwrap_err();
            assert_eq!(sqlstate(&error), "BH002", "{sql}: {error}");
            tx.rollback().await.unwrap();
        }
        assert_eq!(entries(&tenant).await, before);
    });
}

#[test]
fn no_secret_is_in_the_trail() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let (_, client_id, pin) = tenant.device(&owner).await;
        let auth = tenant.device_auth(&client_id, &pin).await;
        let token = auth.body["access_token"].as_str().unwrap().to_owned();
        write(&tenant, "UPDATE device SET pin_hash = '$argon2id$new'").await;
        write(&tenant, "UPDATE member SET password_hash = '$argon2id$new'").await;
        write(&tenant, "UPDATE session SET revoked_at = now()").await;
        write(&tenant, "DELETE FROM device_token").await;

        let trail = "SELECT string_agg(h::text, E'\\n') FROM history h";
        let trail = read(&tenant, trail).await;
        for kind in ["member", "session", "device", "device_token"] {
            assert!(trail.contains(&format!(",{kind},")), "{kind} in {trail}");
        }
        let hashes = "SELECT concat_ws(' ', (SELECT string_agg(token_hash, ' ') FROM session),
            (SELECT string_agg(split_part(pin_hash, '$', 6), ' ') FROM device))";
        let hashes = read(&tenant, hashes).await;
        let hash = bulkhead::secret::token_hash(&token);
        let secrets = hashes
            .split(' ')
            .chain(["$argon2", &pin, &token, &owner, &hash]);
        for secret in secrets.filter(|secret| !secret.is_empty()) {
            assert!(!trail.contains(secret), "{secret} is in {trail}");
        }
        assert!(
            !trail.contains("_hash\\\"\":"),
            "a secret's key is in {trail}"
        );
    });
}

#[test]
fn no_secret_is_in_a_dump_and_each_is_declared() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let (_, client_id, pin) = tenant.device(&owner).await;
        tenant.device_auth(&client_id, &pin).await;
        let hashed = "SELECT concat_ws(' ', (SELECT string_agg(token_hash, ' ') FROM session),
            (SELECT string_agg(token_hash, ' ') FROM device_token), (SELECT string_agg(pin_hash, ' ') FROM device),
            (SELECT string_agg(password_hash, ' ') FROM member))";
        let hashed = read(&tenant, hashed).await;
        for table in ["device_token", "session", "device", "member"] {
            write(&tenant, &format!("DELETE FROM {table}")).await;
        }
        // With the rows gone, whatever a dump still has of them is the history's.
        let mut superuser = tenant.superuser().await;
        let tables: Vec<String> = sqlx::query_scalar(
            "SELECT relname::text FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'",
        )
        .fetch_all(&mut superuser)
        .await
        .unwrap();
        let mut dump = Vec::new();
        for table in tables {
            let copy = format!("COPY {table} TO STDOUT");
            let mut rows = superuser.copy_out_raw(&copy).await.unwrap();
            while let Some(some) = rows.try_next().await.unwrap() {
                dump.extend_from_slice(&some);
            }
        }
        let dump = String::from_utf8(dump).unwrap();
        assert!(dump.contains(&client_id), "the history is there");
        let secrets = hashed.split(' ').chain([owner.as_str(), &pin, "$argon2"]);
        for secret in secrets {
            assert!(!dump.contains(secret), "{secret} is in the dump");
        }
        // By their names: whoever adds another such column says that it is one.
        let undeclared: Vec<String> = sqlx::query_scalar(
            r"SELECT concat_ws('.', c.relname, a.attname) FROM pg_class c
                JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
                JOIN pg_trigger t ON t.tgrelid = c.oid AND t.tgfoid = 'record_history'::regproc
              WHERE c.relnamespace = current_schema()::regnamespace
                  AND a.attname ~ '(hash|secret|token|password|pin|key)$'
                  AND a.attname <> ALL (string_to_array(split_part(encode(t.tgargs, 'escape'), '\000', 2), ','))",
        )
        .fetch_all(&mut superuser)
        .await
        .unwrap();
        assert!(undeclared.is_empty(), "{undeclared:?}");
    });
}

#[test]
fn a_statement_over_ten_thousand_rows_costs_one_more() {
    run(async {
        let tenant = Tenant::new().await;
        write(&tenant, &adding(10_000)).await;
        let before = entries(&tenant).await;
        let mut superuser = tenant.superuser().await;
        let sql = "EXPLAIN (ANALYZE, TIMING OFF) UPDATE device SET name = 'Renamed'";
        let plan: Vec<String> = sqlx::query_scalar(sql)
            .fetch_all(&mut superuser)
            .await
            .unwrap();
        let trigger = plan
            .iter()
            .find(|line| line.contains("device_history_update"));
        assert!(
            trigger.is_some_and(|line| line.ends_with("calls=1")),
            "{plan:#?}"
        );
        assert_eq!(entries(&tenant).await, before + 10_000);
        let same = "EXPLAIN (ANALYZE) UPDATE device SET name = 'Renamed'";
        sqlx::query(same).execute(&mut superuser).await.unwrap();
        assert_eq!(entries(&tenant).await, before + 10_000);
    });
}

#[test]
fn a_changed_secret_is_told_by_its_name() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let (device, ..) = tenant.device(&owner).await;
        write(
            &tenant,
            "UPDATE device SET pin_hash = 'another', name = 'New'",
        )
        .await;
        let changes = history(&tenant, &owner, &device).await;
        let fields = json!([
            { "name": "name", "before": "A device", "after": "New" },
            { "name": "pinHash", "before": "********", "after": "********" },
        ]);
        assert_eq!(changes[0]["fields"], fields);
        assert_eq!(changes[0]["snapshot"]["pinHash"], Value::Null);
        assert_eq!(changes[0]["snapshot"]["version"], 2);

        write(&tenant, "UPDATE device SET pin_hash = 'a third'").await;
        let changes = history(&tenant, &owner, &device).await;
        let fields = json!([{ "name": "pinHash", "before": "********", "after": "********" }]);
        assert_eq!(changes[0]["fields"], fields, "alone, too");
        let text = serde_json::to_string(&changes).unwrap();
        assert!(!text.contains("another") && !text.contains("a third"));
    });
}

#[test]
fn a_tenant_reads_its_history_and_nothing_else() {
    run(async {
        let tenant = Tenant::new().await;
        let before = entries(&tenant).await;
        refused(
            &tenant,
            &[
                "INSERT INTO history SELECT * FROM history",
                "UPDATE history SET actor = 'nobody'",
                "DELETE FROM history",
                "TRUNCATE history",
                "SELECT * FROM history FOR UPDATE",
                "LOCK TABLE history IN EXCLUSIVE MODE",
                "ALTER TABLE history ADD COLUMN more text",
                "DROP TABLE history",
                "CREATE RULE mine AS ON INSERT TO device DO INSTEAD NOTHING",
                "ALTER TABLE device DISABLE TRIGGER ALL",
                "ALTER TABLE device DISABLE TRIGGER device_history_update",
                "DROP TRIGGER device_history_update ON device",
                "CREATE TRIGGER mine BEFORE UPDATE ON device EXECUTE FUNCTION record_history()",
                "TRUNCATE device",
                "TRUNCATE device, device_token",
                "DROP TABLE device CASCADE",
                "ALTER FUNCTION record_history() SET search_path = public",
                "DROP FUNCTION record_history() CASCADE",
                "SET session_replication_role = replica",
                "SET LOCAL session_replication_role = replica",
            ],
        )
        .await;
        assert_eq!(entries(&tenant).await, before);
    });
}

#[test]
fn every_table_is_under_the_history_and_there_are_few() {
    run(async {
        let tenant = Tenant::new().await;
        let mut owner = tenant.world.owner().await;
        let schema = &tenant.row.schema_name;
        // Bits of tgtype: 4 insert, 8 delete, 16 update; 1 a row, 2 before. 'O': fires in every ordinary session.
        let without: Vec<String> = sqlx::query_scalar(
            "SELECT c.relname::text || ' ' || event FROM pg_class c, unnest(ARRAY[4, 8, 16]) event
             WHERE c.relnamespace = $1::regnamespace AND c.relkind IN ('r', 'p') AND c.relname <> 'history' AND c.relname <> ALL ($2)
                 AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgtype = event
                     AND t.tgenabled = 'O' AND t.tgqual IS NULL AND t.tgattr = ''
                     AND t.tgfoid = ($1 || '.record_history')::regproc)",
        )
        .bind(schema)
        .bind(migration::tenant::UNAUDITED.map(str::to_owned))
        .fetch_all(&mut owner)
        .await
        .unwrap();
        assert!(without.is_empty(), "not recorded: {without:?}");
        let (tables, indexes): (i64, i64) = sqlx::query_as(
            "SELECT count(*) FILTER (WHERE relkind IN ('r', 'p')), count(*) FILTER (WHERE relkind = 'i')
             FROM pg_class WHERE relnamespace = $1::regnamespace",
        )
        .bind(schema)
        .fetch_one(&mut owner)
        .await
        .unwrap();
        assert!(tables <= 16, "{tables} tables");
        assert!(indexes <= 40, "{indexes} indexes");
    });
}

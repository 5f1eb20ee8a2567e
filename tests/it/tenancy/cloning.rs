//! Clones: a whole copy of rows and media, without credentials, and apart from its source.

use super::{STEP, command, set, succeeds, without_step};
use crate::harness::{PASSWORD, Tenant, World, run, until};
use bulkhead::graphql::parse_global_id;
use bulkhead::identity::BuiltIn;
use bulkhead::tenancy::{Act, NewTenant, clone};
use entity::tenant::member;
use futures::TryStreamExt as _;
use migration::tenant::{CLONED, CREDENTIALS, EMPTIED};
use object_store::{ObjectMeta, ObjectStoreExt as _};
use reqwest::{Method, StatusCode};
use sea_orm::EntityTrait as _;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor as _};

const SHOWN: &str = "{ tenant { slug devices(first: 9) { nodes { name } } media(first: 9) { nodes { state url } } } }";

/// A clone, made by the command.
async fn cloned(source: &Tenant, end: &str) -> Tenant {
    let slug = format!("{}-{end}", source.slug);
    let args = ["tenant", "clone", &source.slug, &slug, "--reason", "to try"];
    let (code, out, err) = command(&args, "").await;
    assert_eq!(code, Some(0), "{err}");
    let said = format!("Cloned {} as {slug} at http://{slug}.", source.slug);
    assert!(out.starts_with(&said), "{out}");
    Tenant::named(&slug).await
}

#[test]
fn a_clone_has_the_rows_and_the_media() {
    run(async {
        let acme = Tenant::new().await;
        let token = acme.token(BuiltIn::Owner).await;
        acme.device(&token).await;
        acme.photo(&token).await;
        acme.export(&token, json!({})).await;
        acme.upload(&token).await;
        let copy = cloned(&acme, "staging").await;
        let owner = format!("owner@{}.test", acme.slug);
        let signed_in = copy.sign_in_with(&owner, PASSWORD).await;
        let ours = acme.gql(Some(&token), SHOWN).await;
        let theirs = copy.gql(Some(&signed_in), SHOWN).await;
        let (ours, theirs) = (&ours.data()["tenant"], &theirs.data()["tenant"]);
        assert_eq!(theirs["devices"], ours["devices"]);
        assert_eq!(theirs["slug"], copy.slug.as_str());
        let media = &theirs["media"]["nodes"];
        assert_eq!(
            media[0]["state"], "FAILED",
            "an upload under way is the source's own"
        );
        assert_eq!(media[1]["state"], "READY");
        assert_eq!(
            media.as_array().unwrap().len(),
            2,
            "no export of the source's trail"
        );
        let exports = copy
            .world
            .data_dir
            .join("media")
            .join(&copy.slug)
            .join("_exports");
        assert!(!exports.exists());
        let url = media[1]["url"].as_str().unwrap();
        let got = copy.follow(Method::GET, url).send().await.unwrap();
        assert_eq!(got.status(), StatusCode::OK);
        let path = &url[url.find("/media/").unwrap()..];
        let crossed = acme.request(Method::GET, path).send().await.unwrap();
        assert_ne!(
            crossed.status(),
            StatusCode::OK,
            "the copy's link is the copy's"
        );

        copy.sql("DELETE FROM device").await;
        assert_eq!(
            acme.count("SELECT count(*) FROM device").await,
            1,
            "apart from its source"
        );
        let (code, _, err) = command(&["tenant", "clone", &acme.slug, &copy.slug], "").await;
        assert_eq!(code, Some(1));
        assert!(
            err.contains(&format!("There is a tenant {} already", copy.slug)),
            "{err}"
        );
    });
}

#[test]
fn a_file_that_is_gone_is_said_in_the_clone() {
    run(async {
        let acme = Tenant::new().await;
        let token = acme.token(BuiltIn::Owner).await;
        let (kept, lost) = (acme.photo(&token).await, acme.photo(&token).await);
        let store = &acme.world.app.services.store;
        let uuid = |media: &Value| parse_global_id(media["id"].as_str().unwrap()).unwrap().1;
        let objects: Vec<_> = store.list(&acme.row).try_collect().await.unwrap();
        let theirs =
            |object: &&ObjectMeta| object.location.as_ref().contains(&uuid(&lost).to_string());
        for object in objects.iter().filter(theirs) {
            store.objects().delete(&object.location).await.unwrap();
        }
        let copy = cloned(&acme, "lost").await;
        let state = async |media: &Value| {
            let uuid = uuid(media);
            let failure = "SELECT coalesce(failure, state) FROM media WHERE id = $1";
            let failure = sqlx::query_scalar::<_, String>(failure).bind(uuid);
            failure
                .fetch_one(&mut copy.superuser().await)
                .await
                .unwrap()
        };
        assert_eq!(state(&kept).await, "ready");
        assert_eq!(
            state(&lost).await,
            "The file was deleted while the tenant was cloned."
        );
    });
}

#[test]
fn a_clone_has_the_limits_that_its_plan_and_its_source_have() {
    run(async {
        let acme = Tenant::new().await;
        let plan = format!("p{}", &acme.row.id.simple().to_string()[20..]);
        succeeds(&[
            "plan",
            "set",
            &plan,
            "--limit",
            "members=7",
            "--limit",
            "devices=9",
        ])
        .await;
        let args = ["--plan", &plan, "--limit", "devices=3"];
        set(&acme, &args).await;
        let copy = cloned(&acme, "limits").await;
        assert_eq!(
            json!(copy.row.limits),
            json!({ "members": 7, "devices": 3 })
        );
        succeeds(&["plan", "set", &plan, "--limit", "members=8"]).await;
        let row = Tenant::named(&copy.slug).await.row;
        assert_eq!(json!(row.limits), json!({ "members": 8, "devices": 3 }));
    });
}

#[test]
fn a_clone_has_no_credential_and_a_history_of_its_own() {
    run(async {
        let acme = Tenant::new().await;
        let token = acme.token(BuiltIn::Owner).await;
        let (_, client_id, pin) = acme.device(&token).await;
        let device = acme.device_auth(&client_id, &pin).await;
        let device = device.body["access_token"].as_str().unwrap();
        let copy = cloned(&acme, "bare").await;
        let left = "SELECT (SELECT count(*) FROM device_token) + (SELECT count(*) FROM session)
            + (SELECT count(*) FROM device WHERE pin_hash <> '')";
        assert_eq!(copy.count(left).await, 0);
        let others = "SELECT count(*) FROM history WHERE actor NOT LIKE 'operator:%' OR reason NOT LIKE 'clone of %: to try'
            AND action <> 'operator_act'";
        assert_eq!(copy.count(others).await, 0);
        let rows = "SELECT (SELECT count(*) FROM member) + (SELECT count(*) FROM role) + (SELECT count(*) FROM device)
            + (SELECT count(*) FROM member_role)";
        let changes = "SELECT count(*) FROM history WHERE action <> 'operator_act'";
        assert_eq!(
            copy.count(changes).await,
            copy.count(rows).await,
            "each row is in it"
        );
        assert_eq!(copy.count(rows).await, acme.count(rows).await);
        let refused = copy.device_auth(&client_id, &pin).await;
        assert_eq!(refused.body["code"], "invalid_credentials");
        for token in [token.as_str(), device] {
            let refused = copy.gql(Some(token), "{ viewer { expiresAt } }").await;
            assert_eq!(refused.code(), "UNAUTHENTICATED");
        }
    });
}

#[test]
fn large_tables_are_copied_whole() {
    run(async {
        let acme = Tenant::new().await;
        acme.sql(
            "INSERT INTO device (id, name, client_id, pin_hash, created_at, updated_at)
             SELECT gen_random_uuid(), 'd' || n, 'D-' || n, 'x', now(), now() FROM generate_series(1, 4500) n",
        )
        .await;
        let slug = format!("{}-copy", acme.slug);
        let (code, _, err) = command(&["tenant", "clone", &acme.slug, &slug], "").await;
        assert_eq!(code, Some(0), "{err}");
        let copy = Tenant::named(&slug).await;
        assert_eq!(
            copy.count("SELECT count(DISTINCT client_id) FROM device")
                .await,
            4500
        );
    });
}

#[test]
fn what_a_clone_does_with_each_secret_is_said() {
    run(async {
        let acme = Tenant::new().await;
        let secrets: Vec<(String, String)> = sqlx::query_as(
            "SELECT DISTINCT c.relname::text, secret FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid,
                unnest(string_to_array(split_part(encode(t.tgargs, 'escape'), '\\000', 2), ',')) secret
             WHERE c.relnamespace = current_schema()::regnamespace AND t.tgfoid = 'record_history'::regproc",
        )
        .fetch_all(&mut acme.superuser().await)
        .await
        .unwrap();
        assert!(secrets.len() >= 4, "{secrets:?}");
        for (table, column) in &secrets {
            let (table, column) = (table.as_str(), column.as_str());
            let said = CREDENTIALS.contains(&table)
                || EMPTIED.contains(&(table, column))
                || CLONED.contains(&(table, column));
            assert!(
                said,
                "{}",
                json!({ "say in migration/src/tenant/mod.rs what a clone does with": [table, column] })
            );
        }
    });
}

/// Who writes while rows are copied writes to both tables or, in the clone, to none.
#[test]
fn a_clone_is_of_one_moment() {
    run(async {
        let acme = Tenant::new().await;
        let token = acme.token(BuiltIn::Owner).await;
        acme.device(&token).await;
        let database = &acme.world.app.services.database;
        let new = NewTenant {
            slug: format!("{}-moment", acme.slug),
            name: "A moment".to_owned(),
            act: Act::by("tests"),
        };
        let (source, copy) = clone::begin(database, &acme.slug, new).await.unwrap();
        // Devices are copied before members.
        let mut writer = acme.superuser().await;
        let lock = "BEGIN; LOCK TABLE device IN ACCESS EXCLUSIVE MODE";
        writer.execute(lock).await.unwrap();
        let act = Act::by("tests");
        let copied = clone::rows(database, (&source, &copy), &act);
        let written = async {
            let mut other = acme.superuser().await;
            let waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'device'::regclass)";
            until("the copy waits for the devices", async || {
                let waits = sqlx::query_scalar(waits).fetch_one(&mut other).await;
                waits.unwrap_or(false).then_some(())
            })
            .await;
            writer
                .execute("UPDATE member SET name = 'Later'; COMMIT")
                .await
                .unwrap();
        };
        let (copied, ()) = tokio::join!(copied, written);
        let tx = copied.unwrap().unwrap();
        let member = member::Entity::find().one(&tx).await.unwrap().unwrap();
        assert_ne!(member.name.as_deref(), Some("Later"));
        tx.commit().await.unwrap();
        assert_eq!(
            acme.count("SELECT count(*) FROM member WHERE name = 'Later'")
                .await,
            1
        );
    });
}

/// A newer binary brings it up to date, and it goes on there.
#[test]
fn a_clone_that_was_begun_is_migrated() {
    run(async {
        let world = World::private(|_| {}).await;
        let acme = Tenant::of(world).await;
        let database = &world.app.services.database;
        let new = NewTenant {
            slug: format!("{}-begun", acme.slug),
            name: "Begun".to_owned(),
            act: Act::by("tests"),
        };
        let (_, begun) = clone::begin(database, &acme.slug, new).await.unwrap();
        let mut superuser = world.superuser().await;
        let sql = AssertSqlSafe(without_step(&begun.schema_name));
        superuser.execute(sqlx::raw_sql(sql)).await.unwrap();
        database.migrate_tenants().await.unwrap();
        let there: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM bulkhead.migration WHERE schema_name = $1 AND name = $2)",
        )
        .bind(&begun.schema_name)
        .bind(STEP)
        .fetch_one(&mut superuser)
        .await
        .unwrap();
        assert!(there);
    });
}

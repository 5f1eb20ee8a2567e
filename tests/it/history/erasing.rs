//! Erasing a person: nothing of them is left anywhere, and the chain is whole.

use super::sealing::{all_sealed, audit};
use super::{row, write};
use crate::harness::{Tenant, finish, run, until};
use bulkhead::identity::BuiltIn;
use bulkhead::identity::{self, NewMember};
use futures::TryStreamExt as _;
use serde_json::{Value, json};

pub(super) const EMAIL: &str = "jane.quux@person.test";
const NAMES: [&str; 3] = ["Jane Quux", "Jane Quux-Doe", "jane-quux.png"];

pub(super) fn erase(tenant: &Tenant, args: &[&str]) -> (Option<i32>, String) {
    let mut command = tenant.world.command();
    command.env("BULKHEAD_LOG", "off");
    command.args(["member", "erase", &tenant.slug]).args(args);
    let (code, out, err) = finish(&mut command, "");
    (code, out + &err)
}

/// A member with a past: another name, a session, and a picture.
pub(super) async fn jane(tenant: &Tenant, owner: &str) -> (String, String) {
    let slot = tenant.world.app.services.hasher.slot().await.unwrap();
    let new = NewMember {
        email: EMAIL.to_owned(),
        name: Some(NAMES[0].to_owned()),
        password_hash: slot.hash(crate::harness::PASSWORD).await.unwrap(),
        role: BuiltIn::Viewer,
    };
    let tx = tenant.write().await;
    let member = identity::create_member(&tx, new).await.unwrap();
    tx.commit().await.unwrap();
    let photo = tenant.photo(owner).await;
    let photo = row(photo["id"].as_str().unwrap());
    write(
        tenant,
        &format!(
            "UPDATE media SET filename = '{}' WHERE id = '{photo}'",
            NAMES[2]
        ),
    )
    .await;
    let change = format!(
        "UPDATE member SET name = '{}', avatar_id = '{photo}' WHERE id = '{}'",
        NAMES[1], member.id
    );
    write(tenant, &change).await;
    let id = bulkhead::graphql::global_id::<identity::graphql::Member>(member.id).0;
    (id, tenant.sign_in(EMAIL).await)
}

/// All rows that PostgreSQL has of the tenant and of the platform.
async fn dump(tenant: &Tenant) -> String {
    let mut superuser = tenant.superuser().await;
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r'
             AND relnamespace IN (current_schema()::regnamespace, 'bulkhead'::regnamespace)",
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
    String::from_utf8(dump).unwrap()
}

fn files(tenant: &Tenant) -> usize {
    let directory = tenant.world.data_dir.join("media").join(&tenant.slug);
    let folders = std::fs::read_dir(directory).into_iter().flatten();
    let files =
        |folder: std::io::Result<std::fs::DirEntry>| std::fs::read_dir(folder.unwrap().path());
    folders.map(|folder| files(folder).unwrap().count()).sum()
}

#[test]
fn nothing_of_an_erased_person_is_left_and_the_chain_is_whole() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let (jane, session) = jane(&tenant, &owner).await;
        all_sealed(&tenant).await;
        let text = dump(&tenant).await;
        assert!(text.contains(EMAIL) && NAMES.iter().all(|name| text.contains(name)));
        assert_eq!(files(&tenant), 4, "the picture and its thumbnails");
        let (_, said) = audit(tenant.world, &["anchor", &tenant.slug], "");
        assert!(said.contains("1 anchored"), "{said}");

        let (code, said) = erase(&tenant, &[EMAIL, "--reason", "request 7"]);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("add --yes"), "{said}");
        let (code, said) = erase(&tenant, &[EMAIL, "--reason", "request 7", "--yes"]);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("1 media."), "{said}");
        let text = dump(&tenant).await;
        for gone in NAMES.iter().chain([&EMAIL]) {
            assert!(!text.contains(gone), "{gone} is left");
        }
        assert_eq!(files(&tenant), 0);
        until("the session is over", async || {
            let answer = tenant.gql(Some(&session), "{ viewer { expiresAt } }").await;
            (answer.body.get("errors").is_some()).then_some(())
        })
        .await;
        let (code, said) = erase(&tenant, &[&jane, "--reason", "again", "--yes"]);
        assert_eq!(code, Some(1));
        assert!(said.contains("has no member"), "{said}");
        all_sealed(&tenant).await;
        let (code, said) = audit(tenant.world, &["verify", &tenant.slug], "");
        assert_eq!(code, Some(0), "{said}");
        shown(&tenant, &owner, &jane).await;
    });
}

/// What the API shows of who was erased.
async fn shown(tenant: &Tenant, owner: &str, jane: &str) {
    let query = "query($id: ID!) { tenant { changes(first: 50, filter: { subject: $id, actions: [CREATE, UPDATE, DELETE, ERASED] }) { nodes {
        id action reason snapshot fields { name before after } } } } }";
    let answer = tenant
        .gql_with(Some(owner), query, json!({ "id": jane }))
        .await;
    let changes = answer.data()["tenant"]["changes"]["nodes"]
        .as_array()
        .unwrap()
        .clone();
    let actions: Vec<_> = changes
        .iter()
        .map(|change| change["action"].as_str().unwrap())
        .collect();
    assert_eq!(actions, ["ERASED", "DELETE", "UPDATE", "CREATE"]);
    assert_eq!(changes[0]["reason"], "request 7");
    let field = json!({ "name": "name", "before": "erased", "after": "erased" });
    assert!(
        changes[2]["fields"].as_array().unwrap().contains(&field),
        "{changes:#?}"
    );
    assert_eq!(changes[3]["snapshot"]["email"], "erased");

    let revert =
        "mutation($id: ID!) { changeRevert(input: { changeId: $id }) { errors { code message } } }";
    let answer = tenant
        .gql_with(Some(owner), revert, json!({ "id": changes[1]["id"] }))
        .await;
    assert_eq!(answer.failure()["code"], "INVALID");
    assert!(
        answer.failure()["message"]
            .as_str()
            .unwrap()
            .contains("was erased")
    );

    let at = "SELECT to_char(recorded_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') FROM history
        WHERE subject_type = 'member' AND action = 'update' AND row ->> 'email' = 'erased'";
    let at = super::read(tenant, at).await;
    let past = "query($id: ID!, $at: DateTime!) { asOf(id: $id, at: $at) { values }
        diff(id: $id, from: $at) { name before after }
        tenant { members(asOf: $at) { nodes { email name avatar { filename } } } } }";
    let answer = tenant
        .gql_with(Some(owner), past, json!({ "id": jane, "at": at }))
        .await;
    let data = answer.data();
    assert_eq!(data["asOf"]["values"]["email"], "erased");
    let field = json!({ "name": "email", "before": "erased", "after": null });
    assert!(data["diff"].as_array().unwrap().contains(&field));
    let was = json!({ "email": "erased", "name": "erased", "avatar": { "filename": "erased" } });
    assert!(
        data["tenant"]["members"]["nodes"]
            .as_array()
            .unwrap()
            .contains(&was),
        "{data:#}"
    );
}

#[test]
fn personal_values_that_are_changed_or_taken_out_are_found() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        jane(&tenant, &owner).await;
        all_sealed(&tenant).await;
        let verify = || audit(tenant.world, &["verify", &tenant.slug], "").1;
        let jane = "row ->> 'email' IN ('jane.quux@person.test', 'erased')";
        let spare =
            "CREATE TEMP TABLE spare AS SELECT * FROM history WHERE subject_type = 'member'";
        let mut superuser = tenant.superuser().await;
        let mut sql = async |sql: &str| {
            let sql = sqlx::AssertSqlSafe(sql.to_owned());
            sqlx::raw_sql(sql).execute(&mut superuser).await.unwrap();
        };
        sql(spare).await;
        let back = "UPDATE history h SET row = s.row, before = s.before, salt = s.salt FROM spare s WHERE s.id = h.id";
        for (tampering, verdict) in [
            (
                "row = row || '{\"name\": \"Joan\"}'",
                "is not what was sealed",
            ),
            ("salt = salt || '0'", "is not what was sealed"),
            (
                "row = row || '{\"email\": \"erased\", \"name\": \"erased\"}', before = CASE WHEN before ? 'name' THEN before || '{\"name\": \"erased\"}' ELSE before END, salt = NULL",
                "the trail has no erasure of that person",
            ),
            ("salt = NULL", "is not what was sealed"),
        ] {
            assert!(verify().contains("good"), "{}", verify());
            sql(&format!("UPDATE history SET {tampering} WHERE {jane}")).await;
            let said = verify();
            assert!(said.contains(verdict), "{tampering}: {said}");
            sql(back).await;
        }
        let (code, said) = erase(
            &tenant,
            &[EMAIL, "--reason", "request 8", "--yes", "--json"],
        );
        assert_eq!(code, Some(0), "{said}");
        let told: Value = serde_json::from_str(&said).unwrap();
        assert_eq!((&told["media"], &told["left"]), (&json!(1), &json!(0)));
        assert!(verify().contains("good"), "{}", verify());
        sql(&format!(
            "UPDATE history SET row = row || '{{\"name\": \"Somebody\"}}' WHERE {jane}"
        ))
        .await;
        assert!(verify().contains("is not what was sealed"), "{}", verify());
    });
}

#[test]
fn the_last_owner_and_who_is_held_are_not_erased() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = format!("owner@{}.test", tenant.slug);
        let (code, said) = erase(&tenant, &[&owner, "--reason", "request 9", "--yes"]);
        assert_eq!(code, Some(1));
        assert!(said.contains("the last owner"), "{said}");
        let viewer = tenant.member(BuiltIn::Viewer).await;
        audit(
            tenant.world,
            &["retention", &tenant.slug, "--legal-hold"],
            "",
        );
        let (code, said) = erase(&tenant, &[&viewer, "--reason", "request 9", "--yes"]);
        assert_eq!(code, Some(1));
        assert!(said.contains("under legal hold"), "{said}");
        audit(
            tenant.world,
            &["retention", &tenant.slug, "--no-legal-hold"],
            "",
        );
        let (code, said) = erase(&tenant, &[&viewer, "--reason", "request 9", "--yes"]);
        assert_eq!(code, Some(0), "{said}");
    });
}

#[test]
fn columns_that_are_of_persons_are_declared() {
    run(async {
        let tenant = Tenant::new().await;
        // By their names: whoever adds another such column says that it is one.
        let undeclared: Vec<String> = sqlx::query_scalar(
            r"SELECT concat_ws('.', c.relname, a.attname) FROM pg_class c
                JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
                JOIN pg_trigger t ON t.tgrelid = c.oid AND t.tgfoid = 'record_history'::regproc
              WHERE c.relnamespace = current_schema()::regnamespace
                  AND a.attname ~ '(^|_)(email|phone|first_name|last_name|full_name|address|birthday|filename)$'
                  AND NOT EXISTS (SELECT FROM pg_trigger p WHERE p.tgrelid = 'history'::regclass
                      AND p.tgname = 'history_personal_' || c.relname
                      AND a.attname = ANY (string_to_array(split_part(encode(p.tgargs, 'escape'), '\000', 1), ',')))",
        )
        .fetch_all(&mut tenant.superuser().await)
        .await
        .unwrap();
        assert!(undeclared.is_empty(), "{undeclared:?}");
    });
}

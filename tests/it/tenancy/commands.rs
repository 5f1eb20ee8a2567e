//! The commands: what they make, say and refuse, and the hardening of a server that is not ours.

use super::{command, count, orphans};
use crate::harness::{PASSWORD, SECRET_KEY, Tenant, bare, finish, run, world};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor as _};

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
        let made = |reason| {
            let by = json!({ "__typename": "SystemActor", "reason": reason });
            nodes
                .unwrap()
                .iter()
                .filter(move |node| node["actor"] == by)
        };
        assert_eq!(made("onboarding").count(), 4, "the built-in roles");
        assert_eq!(
            made("an operator").count(),
            3,
            "that it was made, the owner and its role"
        );
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

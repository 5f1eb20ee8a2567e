//! Plans and settings: set by command, in force everywhere at once, in the operators' log, and nothing for what is so already.

use super::{command, set, succeeds};
use crate::harness::{PASSWORD, Tenant, World, finish, run, until};
use bulkhead::database::Tenant as Row;
use bulkhead::identity::BuiltIn;
use bulkhead::tenancy::host::Authority;
use entity::platform::tenant::Flag;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor as _};
use std::sync::Arc;

/// What the operators' log has of a tenant's changes.
async fn log(tenant: &Tenant) -> Vec<(String, Value)> {
    sqlx::query_as(
        "SELECT operator, detail FROM bulkhead.operator_log WHERE tenant_id = $1 AND action = 'tenant.set' ORDER BY id",
    )
    .bind(tenant.row.id)
    .fetch_all(&mut tenant.world.superuser().await)
    .await
    .unwrap()
}

/// What a new limit of the tenant's is, as the command shows it.
async fn shown(tenant: &Tenant, limit: &str) -> Value {
    let out = succeeds(&["tenant", "limits", &tenant.slug, "--json"]).await;
    let shown: Value = serde_json::from_str(&out).unwrap();
    let limit = &shown["limits"][limit];
    json!([limit["max"], limit["from"]])
}

#[test]
fn a_plans_limits_are_its_tenants_but_for_their_own() {
    run(async {
        let (tenant, other) = (Tenant::new().await, Tenant::new().await);
        succeeds(&[
            "plan",
            "set",
            "pro",
            "--limit",
            "devices=10",
            "--limit",
            "members=3",
        ])
        .await;
        set(&tenant, &["--plan", "pro", "--limit", "members=9"]).await;
        assert_eq!(shown(&tenant, "devices").await, json!([10, "plan pro"]));
        assert_eq!(shown(&tenant, "members").await, json!([9, "own"]));
        assert_eq!(
            shown(&other, "devices").await,
            json!([null, "plan standard"])
        );
        // A change of the plan reaches a server that was running before.
        let second = tenant.world.another(2).await;
        let host = Authority::parse(&tenant.host()).unwrap();
        let row = async || second.services.registry.at(&host).await.unwrap();
        assert_eq!(row().await.limits.devices, Some(10));
        succeeds(&["plan", "set", "pro", "--limit", "members=1"]).await;
        // Twice: the second time it surely listens, and would go on with what it knows.
        for devices in [20, 21] {
            let limit = format!("devices={devices}");
            succeeds(&["plan", "set", "pro", "--limit", &limit]).await;
            let row = until("the other server knows", async || {
                Some(row().await).filter(|row| row.limits.devices == Some(devices))
            })
            .await;
            assert_eq!(row.limits.members, Some(9), "its own is over the plan's");
        }
        second.stop().await.unwrap();
        set(
            &tenant,
            &["--limit", "members=plan", "--limit", "devices=unlimited"],
        )
        .await;
        assert_eq!(shown(&tenant, "members").await, json!([1, "plan pro"]));
        assert_eq!(shown(&tenant, "devices").await, json!([null, "own"]));
        succeeds(&["plan", "set", "pro", "--limit", "members=unlimited"]).await;
        assert_eq!(shown(&tenant, "members").await, json!([null, "plan pro"]));

        let (code, _, err) = command(&["plan", "delete", "pro"], "").await;
        assert_eq!(code, Some(1));
        assert!(err.contains("in use by 1 tenants"), "{err}");
        set(&tenant, &["--plan", "standard"]).await;
        succeeds(&["plan", "delete", "pro"]).await;
        let list = succeeds(&["plan", "list", "--json"]).await;
        assert!(
            !list.contains("\"pro\"") && list.contains("\"standard\""),
            "{list}"
        );
    });
}

#[test]
fn a_new_tenant_has_its_plans_limits() {
    run(async {
        let world = World::private(|_| ()).await;
        let on_it = |args: &[&str], input: &str| {
            let (code, out, err) = finish(world.command().args(args), input);
            assert_eq!(code, Some(0), "{err}");
            out
        };
        on_it(&["plan", "set", "standard", "--limit", "devices=4"], "");
        let create = ["tenant", "create", "acme", "--owner", "a@b.example"];
        on_it(&[&create[..], &["--password-stdin"]].concat(), PASSWORD);
        let out = on_it(&["tenant", "show", "acme", "--json"], "");
        let shown: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(shown["plan"], "standard");
        assert_eq!(
            shown["limits"],
            json!({ "devices": 4, "queued_jobs": 100_000 })
        );
        assert_eq!(shown["settings"], json!({}));
    });
}

#[test]
fn what_is_so_already_is_not_written_again() {
    run(async {
        let tenant = Tenant::new().await;
        let change = [
            "--limit",
            "devices=3",
            "--flag",
            "beta=true",
            "--name",
            "New name",
        ];
        set(&tenant, &change).await;
        set(&tenant, &change).await;
        set(&tenant, &[]).await;
        let log = log(&tenant).await;
        assert_eq!(log.len(), 1, "{log:#?}");
        let (operator, detail) = &log[0];
        assert!(!operator.is_empty());
        let to = json!({ "name": "New name", "plan": "standard", "limits": { "devices": 3 },
            "settings": { "flags": { "beta": true } } });
        assert_eq!(detail["to"], to);
        assert_eq!(detail["from"]["limits"], json!({}));
        let out = succeeds(&["tenant", "show", &tenant.slug]).await;
        for line in [
            "name               New name",
            "plan               standard",
            "limits             devices 3",
            "flags              beta=true",
        ] {
            assert!(out.contains(line), "{line}: {out}");
        }
    });
}

#[test]
fn what_cannot_be_set_is_said_and_changes_nothing() {
    run(async {
        let tenant = Tenant::new().await;
        let before = Tenant::named(&tenant.slug).await.row;
        let long = format!("x={}", "y".repeat(201));
        for (args, told) in [
            (["--plan", "gold"], "There is no plan gold; there are "),
            (
                ["--limit", "devcies=5"],
                "there are requests_per_minute, concurrent_requests, members, devices, media_bytes, concurrent_jobs, queued_jobs.",
            ),
            (["--limit", "devices=-1"], "is no limit"),
            (["--limit", "devices=many"], "a whole number or `unlimited`"),
            (["--limit", "devices=4294967296"], "at most 4294967295"),
            (
                ["--limit", "media_bytes=9007199254740992"],
                "at most 9007199254740991",
            ),
            (["--limit", "devices"], "like devices=100"),
            (["--statement-timeout", "5"], "e.g. 500ms, 5s"),
            (["--statement-timeout", "0s"], "from 10ms to 1h"),
            (["--statement-timeout", "61min"], "from 10ms to 1h"),
            (["--flag", "Beta=true"], "cannot be a flag"),
            (["--flag", "beta"], "like beta=true"),
            (["--flag", &long], "more than 200 bytes"),
            (["--name", " "], "1 to 200"),
        ] {
            let args = [&["tenant", "set", &tenant.slug], &args[..]].concat();
            let (code, out, err) = command(&args, "").await;
            assert!(
                matches!(code, Some(1 | 2)) && out.is_empty(),
                "{args:?}: {out}"
            );
            assert!(err.contains(told), "{args:?}: {err}");
        }
        assert_eq!(Tenant::named(&tenant.slug).await.row, before);
        for (args, told) in [
            (vec!["tenant", "set", "nobody"], "no tenant nobody"),
            (vec!["tenant", "limits", "nobody"], "no tenant nobody"),
            (vec!["plan", "set", "Pro"], "cannot be a plan"),
            (
                vec!["plan", "delete", "gold"],
                "There is no plan gold; there are ",
            ),
            (vec!["plan", "delete", "standard"], "new tenants have it"),
        ] {
            let (code, _, err) = command(&args, "").await;
            assert_eq!(code, Some(1));
            assert!(err.contains(told), "{args:?}: {err}");
        }
    });
}

#[test]
fn flags_are_typed_and_known_to_every_server() {
    run(async {
        let (tenant, other) = (Tenant::new().await, Tenant::new().await);
        let second = tenant.world.another(2).await;
        let host = |tenant: &Tenant| Authority::parse(&tenant.host()).unwrap();
        let row = async |tenant| -> Arc<Row> {
            second.services.registry.at(&host(tenant)).await.unwrap()
        };
        assert!(!row(&tenant).await.settings.is_on("beta"));
        let change = [
            "--flag",
            "beta=true",
            "--flag",
            "old=false",
            "--flag",
            "seats=-12",
            "--flag",
            "theme=dark blue",
        ];
        set(&tenant, &change).await;
        let known = until("the other server knows", async || {
            Some(row(&tenant).await).filter(|row| row.settings.is_on("beta"))
        })
        .await;
        let settings = &known.settings;
        assert_eq!(settings.flag("old"), Some(&Flag::Switch(false)));
        assert_eq!(
            (settings.number("seats"), settings.text("seats")),
            (Some(-12), None)
        );
        assert_eq!(
            (settings.text("theme"), settings.number("theme")),
            (Some("dark blue"), None)
        );
        assert!(!settings.is_on("old") && !settings.is_on("seats") && !settings.is_on("none"));
        assert!(row(&other).await.settings.flags.is_empty());
        set(&tenant, &["--unset-flag", "beta", "--unset-flag", "never"]).await;
        until("the other server knows", async || {
            row(&tenant)
                .await
                .settings
                .flag("beta")
                .is_none()
                .then_some(())
        })
        .await;
        second.stop().await.unwrap();
    });
}

#[test]
fn a_statement_timeout_ends_one_tenants_query_and_no_others() {
    run(async {
        let (tenant, other) = (Tenant::new().await, Tenant::new().await);
        let mut asked = Vec::new();
        let mut locks = Vec::new();
        for tenant in [&tenant, &other] {
            let owner = tenant.token(BuiltIn::Owner).await;
            let (device, ..) = tenant.device(&owner).await;
            let rename = format!(
                "mutation {{ deviceUpdate(input: {{ deviceId: \"{device}\", name: \"b\" }}) {{ device {{ name }} }} }}"
            );
            asked.push((owner, rename));
            let mut lock = tenant.superuser().await;
            let hold = AssertSqlSafe("BEGIN; SELECT FROM device FOR UPDATE");
            lock.execute(sqlx::raw_sql(hold)).await.unwrap();
            locks.push(lock);
        }
        set(&tenant, &["--statement-timeout", "200ms"]).await;
        let ended = tenant.gql(Some(&asked[0].0), &asked[0].1).await;
        assert_eq!(ended.code(), "OPERATION_TIMEOUT");
        let holds = sqlx::query_scalar::<_, i32>("SELECT pg_backend_pid()");
        let holds = holds.fetch_one(&mut locks[1]).await.unwrap();
        let release = async {
            until("the other waits for longer", async || {
                let waits =
                    "SELECT count(*) FROM pg_stat_activity WHERE $1 = ANY(pg_blocking_pids(pid))
                    AND query_start < clock_timestamp() - interval '300 ms'";
                let waits = sqlx::query_scalar::<_, i64>(waits).bind(holds);
                let waits = waits.fetch_one(&mut other.world.superuser().await).await;
                (waits.unwrap() == 1).then_some(())
            })
            .await;
            locks.clear();
        };
        let runs_on = other.gql(Some(&asked[1].0), &asked[1].1);
        let (runs_on, ()) = futures::join!(runs_on, release);
        assert_eq!(runs_on.payload()["device"]["name"], "b");
        set(&tenant, &["--statement-timeout", "default"]).await;
        let renamed = tenant.gql(Some(&asked[0].0), &asked[0].1).await;
        assert_eq!(renamed.payload()["device"]["name"], "b");
    });
}

#[test]
fn the_table_says_what_is_allowed_and_whence() {
    run(async {
        let tenant = Tenant::new().await;
        let change = ["--limit", "devices=100", "--statement-timeout", "1500ms"];
        let out = set(&tenant, &change).await;
        let lines: Vec<Vec<&str>> = out
            .lines()
            .map(|l| l.split_whitespace().collect())
            .collect();
        assert_eq!(lines[0], ["LIMIT", "ALLOWED", "FROM", "USED"]);
        assert_eq!(
            lines[1],
            ["requests_per_minute", "unlimited", "plan", "standard", "-"]
        );
        assert_eq!(lines[4], ["devices", "100", "own", "0"]);
        assert_eq!(lines[10], ["statement", "timeout", "1500ms"]);
    });
}

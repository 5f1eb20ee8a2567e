//! The operators' log, as the command shows it: who changed what, and why.

use super::{command, succeeds};
use crate::harness::{Tenant, run};
use bulkhead::identity::BuiltIn;
use serde_json::{Value, json};

async fn logged(args: &[&str]) -> Vec<Value> {
    let out = succeeds(&[&["log", "--json"], args].concat()).await;
    serde_json::from_str(&out).unwrap()
}

#[test]
fn it_has_the_reason_of_each_command_and_so_has_the_tenants_trail() {
    run(async {
        let tenant = Tenant::new().await;
        let (slug, host) = (&*tenant.slug, format!("{}.example.org", tenant.slug));
        let lanes = ["--tenant", slug];
        let done: [(&str, &[&str]); 11] = [
            ("tenant.set", &["tenant", "set", slug, "--name", "Renamed"]),
            (
                "tenant.domain.add",
                &["tenant", "domain", "add", slug, &host],
            ),
            (
                "tenant.domain.remove",
                &["tenant", "domain", "remove", slug, &host, "--yes"],
            ),
            ("tenant.set", &["audit", "retention", slug, "--days", "400"]),
            (
                "jobs.set",
                &[&["jobs", "set", "--weight", "2"], &lanes[..]].concat(),
            ),
            ("jobs.pause", &[&["jobs", "pause"], &lanes[..]].concat()),
            ("jobs.resume", &[&["jobs", "resume"], &lanes[..]].concat()),
            ("tenant.suspend", &["tenant", "suspend", slug]),
            ("tenant.archive", &["tenant", "archive", slug]),
            ("tenant.restore", &["tenant", "restore", slug]),
            ("tenant.resume", &["tenant", "resume", slug]),
        ];
        for (number, (_, args)) in done.iter().enumerate() {
            let why = format!("ticket {number}");
            succeeds(&[*args, &["--reason", &why]].concat()).await;
        }

        let log = logged(&["--tenant", slug]).await;
        let told: Vec<Value> = log
            .iter()
            .map(|entry| json!([entry["tenant"], entry["action"], entry["detail"]["reason"]]))
            .collect();
        let mut expected: Vec<Value> = (0..)
            .zip(done)
            .map(|(number, (action, _))| json!([slug, action, format!("ticket {number}")]))
            .collect();
        expected.reverse();
        expected.push(json!([slug, "tenant.create", null]));
        assert_eq!(told, expected, "newest first");
        assert_eq!(logged(&["--tenant", slug, "--limit", "2"]).await, log[..2]);

        let owner = tenant.token(BuiltIn::Owner).await;
        let trail = "{ tenant { changes(first: 20, filter: { actions: [OPERATOR_ACT] }) { nodes { reason } } } }";
        let answer = tenant.gql(Some(&owner), trail).await;
        let nodes = answer.data()["tenant"]["changes"]["nodes"].as_array();
        let reasons: Vec<&Value> = nodes.unwrap().iter().map(|node| &node["reason"]).collect();
        assert_eq!(reasons[0], "ticket 10");
        assert_eq!(reasons[10], "ticket 0");
    });
}

#[test]
fn people_read_it_in_lines() {
    run(async {
        let tenant = Tenant::new().await;
        let set = ["tenant", "set", &tenant.slug, "--name", "Renamed"];
        succeeds(&[&set[..], &["--reason", "they asked for it"]].concat()).await;
        let out = succeeds(&["log", "--tenant", &tenant.slug]).await;
        let lines: Vec<&str> = out.lines().collect();
        assert!(lines[0].starts_with("AT (UTC)"), "{out}");
        let parts = ["tenant.set", "they asked for it", &tenant.slug, "Renamed"];
        assert!(parts.iter().all(|part| lines[1].contains(part)), "{out}");
        assert!(!lines[1].contains("reason"), "{out}");
        let (code, _, err) = command(&["log", "--tenant", "nobody-here"], "").await;
        assert!(code == Some(1) && err.contains("nobody-here"), "{err}");
    });
}

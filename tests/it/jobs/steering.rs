//! `bulkhead jobs`, as operators use it.

use super::{End, How, Wait, enqueue, gate, hurry, new_id, node, open, private, reaches, worker};
use crate::harness::{Tenant, finish, run};
use bulkhead::identity::BuiltIn;
use serde_json::{Value, json};

/// What the command printed; it must succeed.
fn jobs(tenant: &Tenant, args: &[&str]) -> String {
    let (code, out, err) = finish(tenant.world.command().arg("jobs").args(args), "");
    assert_eq!(code, Some(0), "{args:?}: {err}");
    out
}

fn as_json(tenant: &Tenant, args: &[&str]) -> Value {
    let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
    serde_json::from_str(&jobs(tenant, &args)).unwrap()
}

#[test]
fn a_lane_is_paused_drained_and_resumed_and_others_run_on() {
    run(async {
        let (tenant, owner) = private(2).await;
        let other = Tenant::of(tenant.world).await;
        let theirs = other.token(BuiltIn::Owner).await;
        let worker = worker(tenant.world).await;
        let ours = ["--tenant", tenant.slug.as_str()];
        let gates = [new_id(), open()];
        let first = enqueue(&tenant, &Wait { gate: gates[0] }).await;
        reaches(&tenant, &owner, first, "RUNNING").await;
        let said = jobs(
            &tenant,
            &[&["pause", "--reason", "for a test"], &ours[..]].concat(),
        );
        assert_eq!(said, "1 lane paused\n");
        let second = enqueue(&tenant, &Wait { gate: gates[1] }).await;
        let third = enqueue(&other, &Wait { gate: open() }).await;
        reaches(&other, &theirs, third, "SUCCEEDED").await;
        assert_eq!(node(&tenant, &owner, second).await["state"], "QUEUED");
        let lanes = as_json(&tenant, &[&["lanes"], &ours[..]].concat());
        let lane = |name: &str| lanes[0][name].clone();
        assert_eq!(
            [
                lane("queue"),
                lane("paused"),
                lane("ready"),
                lane("running")
            ],
            [json!("default"), json!("for a test"), json!(1), json!(1)]
        );
        gate(gates[0]).doors[0].add_permits(1);
        let said = jobs(&tenant, &[&["drain"], &ours[..]].concat());
        assert!(said.ends_with("Nothing runs any more\n"), "{said}");
        assert_eq!(node(&tenant, &owner, first).await["state"], "SUCCEEDED");
        assert_eq!(node(&tenant, &owner, second).await["state"], "QUEUED");
        jobs(&tenant, &[&["resume"], &ours[..]].concat());
        reaches(&tenant, &owner, second, "SUCCEEDED").await;
        worker.stop().await;
    });
}

#[test]
fn lanes_have_shares_and_limits() {
    run(async {
        let (tenant, _) = private(1).await;
        let ours = ["--tenant", tenant.slug.as_str()];
        let set = |change: &[&str]| jobs(&tenant, &[&["set"], &ours[..], change].concat());
        set(&[
            "--weight", "2.5", "--cap", "3", "--rate", "10", "--burst", "4",
        ]);
        let lane = as_json(&tenant, &[&["lanes"], &ours[..]].concat())[0].clone();
        assert_eq!(
            [&lane["weight"], &lane["cap"], &lane["rate"], &lane["burst"]],
            [&json!(2.5), &json!(3), &json!(10.0), &json!(4)]
        );
        set(&["--cap", "none", "--rate", "none"]);
        let lane = as_json(&tenant, &[&["lanes"], &ours[..]].concat())[0].clone();
        assert_eq!(
            [&lane["weight"], &lane["cap"], &lane["rate"]],
            [&json!(2.5), &json!(null), &json!(null)]
        );
        let table = jobs(&tenant, &["lanes"]);
        assert!(table.starts_with("TENANT"), "{table}");
        for (args, told) in [
            (
                &["set", "--weight", "2"][..],
                "Say which lanes: --tenant, --queue, or both.",
            ),
            (
                &["set", "--tenant", "nobody-here", "--cap", "1"],
                "nobody-here",
            ),
            (
                &["list", "--state", "odd"],
                "A state is one of ready, running",
            ),
            (
                &["show", "019aa000-0000-7000-8000-000000000000"],
                "There is no job",
            ),
        ] {
            let (code, _, err) = finish(tenant.world.command().arg("jobs").args(args), "");
            assert!(
                code == Some(1) && err.contains(told),
                "{args:?}: {code:?} {err}"
            );
        }
        let log = "SELECT count(*) FROM bulkhead.operator_log WHERE action = 'jobs.set'";
        assert_eq!(super::count(tenant.world, log).await, 2);
    });
}

#[test]
fn jobs_are_shown_whole_begun_anew_and_ended() {
    run(async {
        let (tenant, owner) = private(1).await;
        let worker = worker(tenant.world).await;
        let how = vec![How::Internal, How::Internal, How::Internal, How::Well];
        let job = enqueue(
            &tenant,
            &End {
                gate: new_id(),
                how,
            },
        )
        .await;
        hurry(&tenant, job, 3).await;
        reaches(&tenant, &owner, job, "FAILED").await;
        let id = job.to_string();
        let shown = as_json(&tenant, &["show", &id]);
        assert_eq!(
            [
                &shown["tenant"],
                &shown["kind"],
                &shown["state"],
                &shown["attempt"]
            ],
            [
                &json!(tenant.slug),
                &json!("test.end"),
                &json!("dead"),
                &json!(3)
            ]
        );
        assert!(
            jobs(&tenant, &["show", &id]).contains("/dev/secret"),
            "whole"
        );
        let listed = as_json(&tenant, &["list", "--state", "dead", "--kind", "test.end"]);
        assert_eq!(listed[0]["id"], id);
        assert!(jobs(&tenant, &["list"]).contains(&id));
        let top = as_json(&tenant, &["top"]);
        assert_eq!(
            (&top[0]["tenant"], &top[0]["dead"]),
            (&json!(tenant.slug), &json!(1))
        );

        let said = jobs(
            &tenant,
            &["retry", "--kind", "test.end", "--tenant", &tenant.slug],
        );
        assert_eq!(said, "1 of 1 jobs begun anew\n");
        let done = reaches(&tenant, &owner, job, "SUCCEEDED").await;
        assert_eq!(done["attempts"], 1, "with all its attempts");
        assert_eq!(jobs(&tenant, &["retry", &id]), "0 of 1 jobs begun anew\n");
        worker.stop().await;
    });
}

#[test]
fn jobs_are_ended_whether_they_run_or_wait() {
    run(async {
        let (tenant, owner) = private(1).await;
        let worker = worker(tenant.world).await;
        let gate = new_id();
        let running = enqueue(&tenant, &Wait { gate }).await;
        reaches(&tenant, &owner, running, "RUNNING").await;
        let waiting = enqueue(&tenant, &Wait { gate: open() }).await;
        let ids = [running, waiting].map(|id| id.to_string());
        let said = jobs(&tenant, &["cancel", &ids[0], &ids[1]]);
        assert_eq!(said, "2 of 2 jobs cancelled, or told to end\n");
        assert_eq!(node(&tenant, &owner, waiting).await["state"], "CANCELLED");
        // It does not look, and is dropped.
        reaches(&tenant, &owner, running, "CANCELLED").await;
        worker.stop().await;
    });
}

#[test]
fn what_is_set_for_a_whole_queue_holds_for_lanes_that_are_opened_later() {
    run(async {
        let (tenant, owner) = private(2).await;
        let worker = worker(tenant.world).await;
        let before = enqueue(&tenant, &Wait { gate: open() }).await;
        reaches(&tenant, &owner, before, "SUCCEEDED").await;
        let whole = ["--queue", "default"];
        let limits = [
            "set", "--weight", "3", "--cap", "2", "--rate", "5", "--burst", "4",
        ];
        jobs(&tenant, &[&limits[..], &whole].concat());
        jobs(
            &tenant,
            &[&["pause", "--reason", "for a test"], &whole[..]].concat(),
        );
        let late = Tenant::of(tenant.world).await;
        let theirs = late.token(BuiltIn::Owner).await;
        let lanes = as_json(&late, &["lanes", "--tenant", &late.slug]);
        let lane = ["weight", "cap", "rate", "burst", "paused"].map(|name| lanes[0][name].clone());
        assert_eq!(
            lane,
            [
                json!(3.0),
                json!(2),
                json!(5.0),
                json!(4),
                json!("for a test")
            ]
        );
        let job = enqueue(&late, &Wait { gate: open() }).await;
        jobs(&tenant, &["resume", "--tenant", &tenant.slug]);
        let after = enqueue(&tenant, &Wait { gate: open() }).await;
        reaches(&tenant, &owner, after, "SUCCEEDED").await;
        assert_eq!(node(&late, &theirs, job).await["state"], "QUEUED");
        jobs(&tenant, &[&["resume"], &whole[..]].concat());
        reaches(&late, &theirs, job, "SUCCEEDED").await;
        // A queue that only tenants have had so far.
        let media = "INSERT INTO bulkhead.lane (tenant_id, queue) SELECT id, 'aside' FROM bulkhead.tenant WHERE id = ";
        super::execute(tenant.world, &format!("{media}'{}'", tenant.row.id)).await;
        jobs(
            &tenant,
            &["pause", "--queue", "aside", "--reason", "all of it"],
        );
        super::execute(
            tenant.world,
            &format!("SELECT bulkhead.lane_of('{}', 'aside')", late.row.id),
        )
        .await;
        let aside = as_json(
            &late,
            &["lanes", "--tenant", &late.slug, "--queue", "aside"],
        );
        assert_eq!(aside[0]["paused"], "all of it");
        worker.stop().await;
    });
}

//! Jobs that fail: what is tried again, what ends, and what is told of it.

use super::{
    End, How, enqueue, execute, global, hurry, insert, latest, new_id, private, reaches, worker,
};
use crate::harness::{Tenant, finish, run};
use bulkhead::graphql::parse_global_id;
use bulkhead::identity::BuiltIn;
use bulkhead::jobs::Job as _;
use serde_json::{Value, json};
use std::process::Command;
use uuid::Uuid;

#[test]
fn arguments_that_do_not_fit_end_the_job_at_once() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        for args in [json!({ "media": 7 }), json!({}), json!(null)] {
            let job = insert(&tenant, "media.process", args).await;
            let ended = reaches(&tenant, &owner, job, "FAILED").await;
            assert_eq!(ended["attempts"], 1);
            let told = ended["lastError"].as_str().unwrap();
            assert_eq!(told, "The job's arguments do not fit its kind.");
            let errors = errors(&tenant, job).await;
            assert!(
                errors[0]["detail"].as_str().unwrap().contains("Invalid"),
                "{errors}"
            );
        }
    });
}

/// PostgreSQL keeps numbers and depths that we cannot read: they end their job, and hold up no other.
#[test]
fn arguments_that_cannot_be_read_hold_up_nobody() {
    run(async {
        let (tenant, owner) = private(1).await;
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        let mut odd = Vec::new();
        for args in ["1e400", &deep] {
            let job = new_id();
            let add = format!(
                "INSERT INTO bulkhead.job (id, tenant_id, kind, args, max_attempts, timeout_ms, actor)
                 VALUES ('{job}', '{}', '{}', '{args}', 8, 60000, 'system:tests')",
                tenant.row.id,
                End::NAME
            );
            execute(tenant.world, &add).await;
            odd.push(job);
        }
        let how = vec![How::Well];
        let gate = new_id();
        let next = enqueue(&tenant, &End { gate, how }).await;
        let worker = worker(tenant.world).await;
        reaches(&tenant, &owner, next, "SUCCEEDED").await;
        for job in odd {
            let told = reaches(&tenant, &owner, job, "FAILED").await;
            assert_eq!(
                told["lastError"],
                "The job's arguments do not fit its kind."
            );
        }
        worker.stop().await;
    });
}

#[test]
fn a_failure_that_may_pass_is_tried_again() {
    run(async {
        let (tenant, owner) = private(1).await;
        let worker = worker(tenant.world).await;
        let job = End {
            gate: new_id(),
            how: vec![How::Unavailable, How::Internal, How::Well],
        };
        let job = enqueue(&tenant, &job).await;
        let first = reaches(&tenant, &owner, job, "SCHEDULED").await;
        assert_eq!(first["attempts"], 1);
        assert_eq!(
            first["lastError"],
            "The service cannot answer just now; try again shortly."
        );
        assert!(first["scheduledAt"].as_str() > first["startedAt"].as_str());
        assert_eq!(first["finishedAt"], Value::Null);
        hurry(&tenant, job, 2).await;
        let done = reaches(&tenant, &owner, job, "SUCCEEDED").await;
        assert_eq!(done["attempts"], 3);
        assert_ne!(done["finishedAt"], Value::Null);
        worker.stop().await;
    });
}

#[test]
fn attempts_end_and_errors_keep_their_secrets() {
    run(async {
        let (tenant, owner) = private(1).await;
        let worker = worker(tenant.world).await;
        let cases = [
            (
                vec![How::Internal; 3],
                3,
                "Something went wrong on our side.",
                "/dev/secret",
            ),
            (vec![How::Refused], 1, "The file is no good.", "Invalid"),
        ];
        for (how, attempts, told, detail) in cases {
            let gate = new_id();
            let job = enqueue(&tenant, &End { gate, how }).await;
            hurry(&tenant, job, attempts).await;
            let ended = reaches(&tenant, &owner, job, "FAILED").await;
            assert_eq!(
                (&ended["attempts"], &ended["lastError"]),
                (&json!(attempts), &json!(told))
            );
            assert_ne!(ended["finishedAt"], Value::Null);
            let errors = errors(&tenant, job).await;
            assert_eq!(
                errors.as_array().map(Vec::len),
                usize::try_from(attempts).ok()
            );
            assert!(
                errors[0]["detail"].as_str().unwrap().contains(detail),
                "{errors}"
            );
        }
        worker.stop().await;
    });
}

#[test]
fn neither_a_panic_nor_a_job_that_hangs_ends_the_worker() {
    run(async {
        let (tenant, owner) = private(1).await;
        let worker = worker(tenant.world).await;
        for (how, told, detail) in [
            (
                How::Panic,
                "Something went wrong on our side.",
                "the job panicked: the job went /dev/wrong",
            ),
            (
                How::Never,
                "It took too long and was stopped. Look whether it was done before you send it again.",
                "Timeout",
            ),
        ] {
            let gate = new_id();
            let job = enqueue(
                &tenant,
                &End {
                    gate,
                    how: vec![how, How::Well],
                },
            )
            .await;
            let failed = reaches(&tenant, &owner, job, "SCHEDULED").await;
            assert_eq!(failed["lastError"], told);
            let errors = errors(&tenant, job).await;
            assert!(
                errors[0]["detail"].as_str().unwrap().contains(detail),
                "{errors}"
            );
            hurry(&tenant, job, 2).await;
            reaches(&tenant, &owner, job, "SUCCEEDED").await;
        }
        worker.stop().await;
    });
}

#[test]
fn a_media_waits_for_a_store_that_comes_back() {
    run(async {
        let (tenant, owner) = private(1).await;
        let worker = tenant.world.app.worker().await;
        let photos = tenant.world.data_dir.join("media").join(&tenant.slug);
        std::fs::create_dir_all(&photos).unwrap();
        let photos = photos.join("photo");
        std::fs::write(&photos, "in the way").unwrap();
        let media = tenant
            .send_file(&owner, "a.csv", "text/csv", b"a,b\n")
            .await;
        let job = latest(&tenant, &owner).await;
        let failed = reaches(&tenant, &owner, job, "SCHEDULED").await;
        assert_eq!(
            failed["lastError"],
            "The service cannot answer just now; try again shortly."
        );
        std::fs::remove_file(&photos).unwrap();
        hurry(&tenant, job, 2).await;
        assert_eq!(tenant.processed(&owner, &media).await["state"], "READY");

        std::fs::remove_dir_all(&photos).unwrap();
        std::fs::write(&photos, "in the way").unwrap();
        let media = tenant
            .send_file(&owner, "a.csv", "text/csv", b"a,b\n")
            .await;
        let job = latest(&tenant, &owner).await;
        hurry(&tenant, job, 8).await;
        let ended = tenant.processed(&owner, &media).await;
        assert_eq!(
            (&ended["state"], &ended["failure"]),
            (
                &json!("FAILED"),
                &json!("The service cannot answer just now; try again shortly.")
            ),
            "it does not stay PROCESSING for ever"
        );
        worker.stop().await;
    });
}

/// Whether it was running or not, and whoever cancelled it.
#[test]
fn a_media_whose_job_is_cancelled_has_failed() {
    run(async {
        let (tenant, owner) = private(1).await;
        let send = async || {
            let sent = tenant.send_file(&owner, "a.csv", "text/csv", b"a,b\n");
            (sent.await, latest(&tenant, &owner).await)
        };
        let has_failed = async |media: &str| {
            let ended = tenant.processed(&owner, media).await;
            assert_eq!(
                (&ended["state"], &ended["failure"]),
                (&json!("FAILED"), &json!("The job was cancelled.")),
            );
        };
        let cancel = async |job: Uuid| {
            let job = global(job);
            let cancel = format!(
                r#"mutation {{ jobCancel(input: {{ jobId: "{job}" }}) {{ errors {{ message }} }} }}"#
            );
            let told = tenant.gql(Some(&owner), &cancel).await;
            assert_eq!(told.payload()["errors"], json!([]));
        };
        let (media, job) = send().await;
        cancel(job).await;
        has_failed(&media).await;

        let (media, job) = send().await;
        let mut command = tenant.world.command();
        let (code, _, err) = finish(command.args(["jobs", "cancel", &job.to_string()]), "");
        assert_eq!(code, Some(0), "{err}");
        has_failed(&media).await;

        // Its bytes do not come to an end, nor does its run.
        let (media, job) = send().await;
        let id = parse_global_id(&media).unwrap().1.to_string();
        let staged = tenant.world.data_dir.join("media").join(&tenant.slug);
        let staged = std::fs::read_dir(staged.join("upload")).unwrap();
        let mut staged = staged.map(|entry| entry.unwrap().path());
        let staged = staged.find(|path| path.to_str().unwrap().contains(&id));
        let staged = staged.unwrap();
        std::fs::remove_file(&staged).unwrap();
        let made = Command::new("mkfifo").arg(&staged).status();
        assert!(made.unwrap().success());
        let worker = tenant.world.app.worker().await;
        reaches(&tenant, &owner, job, "RUNNING").await;
        cancel(job).await;
        reaches(&tenant, &owner, job, "CANCELLED").await;
        has_failed(&media).await;
        drop(std::fs::OpenOptions::new().write(true).open(&staged));
        worker.stop().await;
    });
}

/// What operators see of a job's failures.
async fn errors(tenant: &Tenant, job: Uuid) -> Value {
    sqlx::query_scalar("SELECT errors FROM bulkhead.job WHERE id = $1 UNION ALL SELECT errors FROM bulkhead.job_done WHERE id = $1")
        .bind(job)
        .fetch_one(&mut tenant.world.superuser().await)
        .await
        .unwrap()
}

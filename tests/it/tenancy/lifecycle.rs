//! Suspend, resume, archive, restore: by the command, seen at every door and on every server.

use super::command;
use crate::harness::{Tenant, World, finish, png, run, until, world};
use bulkhead::database;
use bulkhead::identity::BuiltIn;
use bulkhead::tenancy::host::Authority;
use entity::platform::tenant::State;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Executor as _};
use std::sync::Arc;

/// Runs `bulkhead tenant <verb> <slug>`, and expects it to succeed.
async fn tenant(verb: &str, slug: &str) -> String {
    let (code, out, err) = command(&["tenant", verb, slug, "--reason", "a test"], "").await;
    assert_eq!(code, Some(0), "{verb}: {err}");
    out
}

/// What the command says when it refuses.
async fn refusal(verb: &str, slug: &str) -> String {
    let (code, out, err) = command(&["tenant", verb, slug], "").await;
    assert_eq!((code, out.as_str()), (Some(1), ""), "{verb} {slug}");
    err
}

async fn acts(world: &World, slug: &str) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT action || coalesce(' ' || (l.detail->>'reason'), '') FROM bulkhead.operator_log l
         JOIN bulkhead.tenant t ON t.id = l.tenant_id WHERE t.slug = $1 ORDER BY l.id",
    )
    .bind(slug)
    .fetch_all(&mut world.superuser().await)
    .await
    .unwrap()
}

/// Waits until its people are served.
async fn served(tenant: &Tenant, token: &str) {
    until("it is served", async || {
        let answer = tenant.gql(Some(token), "{ viewer { expiresAt } }").await;
        answer.body["data"]["viewer"].is_object().then_some(())
    })
    .await;
}

/// Waits until its people are told that it is suspended.
async fn refused(tenant: &Tenant, token: &str) {
    until("its own people are told", async || {
        let answer = tenant.gql(Some(token), "{ viewer { expiresAt } }").await;
        let told = answer.status == StatusCode::FORBIDDEN && answer.code() == "TENANT_SUSPENDED";
        told.then_some(())
    })
    .await;
}

#[test]
fn a_suspended_tenant_is_refused_at_every_door() {
    run(async {
        let acme = Tenant::new().await;
        let owner = acme.token(BuiltIn::Owner).await;
        let (_, client_id, pin) = acme.device(&owner).await;
        let device = acme.device_auth(&client_id, &pin).await;
        let device = device.body["access_token"].as_str().unwrap().to_owned();
        let upload = acme.upload(&owner).await;
        let elsewhere = acme.world.another(2).await;
        let said = tenant("suspend", &acme.slug).await;
        let slug = &acme.slug;
        assert_eq!(
            said,
            format!("{slug} is suspended: its requests are refused and its jobs wait.\n")
        );
        refused(&acme, &owner).await;
        let stranger = acme.gql(None, "{ __typename }").await;
        assert_eq!(stranger.status, StatusCode::NOT_FOUND);
        assert_eq!(stranger.code(), "TENANT_NOT_FOUND");
        let other = Tenant::new().await;
        let foreign = other.token(BuiltIn::Owner).await;
        let foreign = acme.gql(Some(&foreign), "{ __typename }").await;
        assert_eq!(foreign.body, stranger.body, "a foreign token is nobody's");
        let me = acme.request(Method::GET, "/device/me").bearer_auth(&device);
        let me = acme.send(me).await;
        assert_eq!(me.status, StatusCode::FORBIDDEN);
        assert_eq!(me.body["code"], "tenant_suspended");
        let again = acme.device_auth(&client_id, &pin).await;
        assert_eq!(again.status, StatusCode::NOT_FOUND);
        let put = upload["upload"]["url"].as_str().unwrap();
        let late = acme.send(acme.follow(Method::PUT, put).body(png())).await;
        assert_eq!(late.status, StatusCode::NOT_FOUND, "no bytes either");
        let authority = Authority::parse(&acme.host()).unwrap();
        until("another server knows", async || {
            let there = elsewhere.services.registry.at(&authority).await.unwrap();
            (there.state == State::Suspended).then_some(())
        })
        .await;
        elsewhere.stop().await.unwrap();
    });
}

#[test]
fn the_jobs_of_a_suspended_tenant_wait_and_are_not_lost() {
    run(async {
        let acme = Tenant::new().await;
        let owner = acme.token(BuiltIn::Owner).await;
        let upload = acme.upload(&owner).await;
        let put = acme.follow(Method::PUT, upload["upload"]["url"].as_str().unwrap());
        let stored = acme.send(put.body(png())).await;
        assert_eq!(stored.status, StatusCode::CREATED);
        tenant("suspend", &acme.slug).await;
        refused(&acme, &owner).await;
        let (tx, id) = (acme.write().await, upload["media"]["id"].as_str().unwrap());
        let (_, row) = bulkhead::graphql::parse_global_id(id).unwrap();
        bulkhead::media::complete_upload(&tx, row, png().len() as u64)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        // Had its job not waited, it would have come before this one.
        let other = Tenant::new().await;
        let token = other.token(BuiltIn::Owner).await;
        other.photo(&token).await;
        let waiting =
            "SELECT count(*) FROM bulkhead.job j JOIN bulkhead.tenant t ON t.id = j.tenant_id
            WHERE t.schema_name = current_schema() AND j.state = 1";
        assert_eq!(acme.count(waiting).await, 1);

        tenant("resume", &acme.slug).await;
        served(&acme, &owner).await;
        assert_eq!(acme.processed(&owner, id).await["state"], "READY");
        let acts = acts(acme.world, &acme.slug).await;
        assert_eq!(acts[1..], ["tenant.suspend a test", "tenant.resume a test"]);
    });
}

#[test]
fn an_archive_locks_the_role_and_a_restore_undoes_it() {
    run(async {
        let acme = Tenant::new().await;
        let owner = acme.token(BuiltIn::Owner).await;
        tenant("suspend", &acme.slug).await;
        let said = tenant("archive", &acme.slug).await;
        assert!(
            said.contains("is archived: all is kept; it can be restored until 20"),
            "{said}"
        );
        let role = format!("SET ROLE \"{}\"", acme.row.role_name);
        let mut cell = acme.world.cell(acme.row.cell_id).await;
        let denied = cell
            .execute(AssertSqlSafe(role.as_str()))
            .await
            .unwrap_err();
        let denied = denied.as_database_error().unwrap();
        assert_eq!(
            denied.code().as_deref(),
            Some("42501"),
            "PostgreSQL itself refuses"
        );
        until("nobody is served", async || {
            let answer = acme.gql(Some(&owner), "{ __typename }").await;
            (answer.code() == "TENANT_NOT_FOUND").then_some(())
        })
        .await;
        tenant("archive", &acme.slug).await;

        let mut late = crate::harness::bulkhead().await;
        late.args(["tenant", "restore", &acme.slug])
            .env("BULKHEAD_ARCHIVE_DAYS", "0");
        let (code, _, err) = finish(&mut late, "");
        assert_eq!(code, Some(1));
        assert!(err.contains("could be restored until"), "{err}");

        let said = tenant("restore", &acme.slug).await;
        assert!(said.contains("is suspended: as it was before"), "{said}");
        tenant("resume", &acme.slug).await;
        cell.execute(AssertSqlSafe(role.as_str())).await.unwrap();
        served(&acme, &owner).await;
    });
}

#[test]
fn what_does_not_follow_is_refused_and_what_is_so_already_is_not() {
    run(async {
        let acme = Tenant::new().await;
        let slug = acme.slug.as_str();
        let err = refusal("delete", slug).await;
        assert!(
            err.contains("is active and cannot be deleted: archive it first"),
            "{err}"
        );
        tenant("resume", slug).await;
        tenant("restore", slug).await;
        tenant("suspend", slug).await;
        tenant("suspend", slug).await;
        assert!(refusal("delete", slug).await.contains("is suspended"));
        tenant("archive", slug).await;
        for verb in ["suspend", "resume"] {
            assert!(refusal(verb, slug).await.contains("restore it first"));
        }
        let err = refusal("delete", slug).await;
        assert!(err.contains("add --yes"), "nobody can be asked: {err}");
        tenant("restore", slug).await;
        tenant("resume", slug).await;
        assert_eq!(
            acts(acme.world, slug).await[1..],
            [
                "tenant.suspend a test",
                "tenant.archive a test",
                "tenant.restore a test",
                "tenant.resume a test"
            ],
            "what changes nothing is not logged"
        );
        for verb in ["suspend", "resume", "archive", "restore", "delete"] {
            let err = refusal(verb, "no-such-tenant").await;
            assert!(
                err.contains("there is no tenant no-such-tenant") || err.contains("add --yes"),
                "{err}"
            );
        }
        let (_, out, _) = command(&["tenant", "show", slug, "--json"], "").await;
        let shown: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(shown["state"], "active");
    });
}

#[test]
fn a_server_that_hears_nothing_for_a_while_is_right_again() {
    run(async {
        let acme = Tenant::new().await;
        let (app, proxy) = world().await.through_proxy().await;
        let registry = &app.services.registry;
        let authority = Authority::parse(&acme.host()).unwrap();
        assert_eq!(registry.at(&authority).await.unwrap().state, State::Active);
        // The first message ends every connection, the listener's probe at the latest, and so does the first of each that follows,
        // until the change was made and told.
        let cut = proxy.run(0, std::future::pending::<()>());
        assert!(cut.await.is_none());
        let deaf = tokio::spawn(async move {
            loop {
                proxy.run(0, std::future::pending::<()>()).await;
            }
        });
        tenant("suspend", &acme.slug).await;
        deaf.abort();
        until("it is right again", async || {
            let there: Arc<database::Tenant> = registry.at(&authority).await.ok()?;
            (there.state == State::Suspended).then_some(())
        })
        .await;
        app.stop().await.unwrap();
    });
}

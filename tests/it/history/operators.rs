//! What operators do: to a tenant, and in its members' sessions. It is in the tenant's own trail, once for each entry of their log.

use super::{entries, read, sealed};
use crate::harness::{Tenant, World, finish, run, until, world};
use bulkhead::app::clone_tenant;
use bulkhead::history::seal::{self, Keys};
use bulkhead::identity::BuiltIn;
use bulkhead::tenancy::{self, Act, NewTenant, domain, lifecycle, limits, log};
use entity::platform::plan::Limit;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor as _};
use std::collections::BTreeMap;
use std::time::Duration;

const ACTS: &str =
    "{ tenant { id changes(first: 100, filter: { actions: [OPERATOR_ACT] }) { nodes {
    action subjectType subjectId subject { __typename } snapshot reason fields { name }
    actor { __typename ... on SystemActor { reason } } onBehalfOf { __typename } } } } }";

/// What operators did, newest first, once the tenant is served.
async fn acts(tenant: &Tenant, token: &str) -> Vec<Value> {
    let answer = until("it is served", async || {
        let answer = tenant.gql(Some(token), ACTS).await;
        answer.body["errors"].is_null().then_some(answer)
    })
    .await;
    let shown = &answer.data()["tenant"];
    let nodes = shown["changes"]["nodes"].as_array().unwrap().clone();
    for node in &nodes {
        assert_eq!(node["subjectId"], shown["id"]);
        assert_eq!(node["subject"]["__typename"], "Tenant");
        assert_eq!(node["fields"], json!([]));
        assert_eq!(node["onBehalfOf"], Value::Null);
    }
    nodes
}

fn whats(acts: &[Value]) -> Vec<&str> {
    acts.iter()
        .map(|act| act["snapshot"]["what"].as_str().unwrap_or_default())
        .collect()
}

/// Entries of the operators' log without one of the history, and the other way around.
const UNPAIRED: &str = "SELECT count(*)::bigint FROM (SELECT l.id FROM bulkhead.operator_log l JOIN bulkhead.tenant t ON t.id = l.tenant_id
        WHERE t.schema_name = current_schema()) l
    FULL JOIN (SELECT id FROM history WHERE action = 'operator_act') h ON h.id = l.id WHERE l.id IS NULL OR h.id IS NULL";

fn act(reason: &str) -> Act {
    Act {
        reason: Some(reason.to_owned()),
        ..Act::by("ada")
    }
}

/// Has operators do to the tenant whatever there is.
async fn act_on(tenant: &Tenant) {
    let (services, slug) = (&tenant.world.app.services, tenant.slug.as_str());
    let database = &services.database;
    let (why, ada) = (act("ticket 7"), Act::by("ada"));
    lifecycle::suspend(database, slug, &why).await.unwrap();
    // Repeated, it is nothing.
    lifecycle::suspend(database, slug, &why).await.unwrap();
    lifecycle::resume(database, slug, &why).await.unwrap();
    let plan = format!("plan-{slug}").replace("test", "t");
    let tx = database.platform().await.unwrap();
    let none = BTreeMap::new();
    limits::set_plan(&tx, &plan, &none, &ada).await.unwrap();
    let change = limits::Change {
        plan: Some(plan.clone()),
        limits: BTreeMap::from([(Limit::Members, limits::Own::Max(7))]),
        ..Default::default()
    };
    limits::change_tenant(&tx, slug, &change, &ada)
        .await
        .unwrap();
    let five = BTreeMap::from([(Limit::Devices, Some(5))]);
    limits::set_plan(&tx, &plan, &five, &ada).await.unwrap();
    let host = format!("{slug}.example.com");
    domain::add(&tx, &tenant.row, &host, &[], &ada)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let copy = NewTenant {
        slug: format!("{slug}-copy"),
        name: "Copy".to_owned(),
        act: why.clone(),
    };
    clone_tenant(services, slug, copy, || ()).await.unwrap();
    lifecycle::archive(database, slug, &why).await.unwrap();
    lifecycle::restore(database, slug, Duration::from_mins(1), &why)
        .await
        .unwrap();
}

#[test]
fn what_is_done_to_a_tenant_is_in_its_trail() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let slug = tenant.slug.as_str();
        act_on(&tenant).await;

        let found = acts(&tenant, &owner).await;
        let expected = [
            "tenant.restore",
            "tenant.archive",
            "tenant.clone",
            "tenant.domain.add",
            "tenant.limits",
            "tenant.set",
            "tenant.resume",
            "tenant.suspend",
            "tenant.create",
        ];
        assert_eq!(whats(&found), expected);
        assert_eq!(found[0]["reason"], "ticket 7");
        assert_eq!(found[0]["snapshot"]["reason"], Value::Null);
        assert_eq!(found[2]["snapshot"]["as"], format!("{slug}-copy"));
        assert_eq!(found[4]["snapshot"]["to"], json!({ "devices": 5 }));
        assert_eq!(
            found[5]["snapshot"]["to"]["limits"],
            json!({ "members": 7 })
        );
        let by = json!({ "__typename": "SystemActor", "reason": "an operator" });
        assert!(found.iter().all(|act| act["actor"] == by));
        let names =
            "SELECT string_agg(DISTINCT actor, ' ') FROM history WHERE action = 'operator_act'";
        assert_eq!(read(&tenant, names).await, "operator:ada operator:tests");
        assert_eq!(tenant.count(UNPAIRED).await, 0);

        let copy = Tenant::named(&format!("{slug}-copy")).await;
        let token = copy.sign_in(&format!("owner@{slug}.test")).await;
        let found = acts(&copy, &token).await;
        assert_eq!(whats(&found), ["tenant.activate", "tenant.create"]);
        assert_eq!(found[1]["snapshot"]["cloneOf"], slug);
        good(&tenant).await;
    });
}

/// All of it is sealed, and verifies.
async fn good(tenant: &Tenant) {
    let services = &tenant.world.app.services;
    until("it is sealed", async || {
        let there = u64::from(entries(tenant).await);
        (sealed(tenant).await == there).then_some(())
    })
    .await;
    let keys = Keys::of(&services.config, &services.key).unwrap();
    let places = (&services.database, &services.store);
    let verified = seal::verify(places, &keys, &tenant.row, |_| ()).await;
    assert_eq!(verified.unwrap().fault, None);
}

#[test]
fn what_is_undone_is_in_neither_and_what_was_done_before_is_in_both() {
    run(async {
        let world = World::private(|_| {}).await;
        let tenant = Tenant::of(world).await;
        let database = &world.app.services.database;
        let tx = database.platform().await.unwrap();
        let action = ("tenant.test", Some(tenant.row.id));
        Act::by("ada").log(&tx, action, json!({})).await.unwrap();
        tx.rollback().await.unwrap();
        assert_eq!(tenant.count(UNPAIRED).await, 0);

        // As an older binary has left it: operators act on it, and the step tells it afterwards.
        let schema = &tenant.row.schema_name;
        let older = format!(
            "DELETE FROM {schema}.history WHERE action = 'operator_act'; ALTER TABLE {schema}.session DROP COLUMN operator;
             DELETE FROM bulkhead.migration WHERE schema_name = '{schema}' AND name = 'm0016_security_events'"
        );
        let mut superuser = world.superuser().await;
        superuser
            .execute(sqlx::raw_sql(AssertSqlSafe(older)))
            .await
            .unwrap();
        lifecycle::suspend(database, &tenant.slug, &act("while it is behind"))
            .await
            .unwrap();
        assert_eq!(tenant.count(UNPAIRED).await, 2);
        database.migrate_tenants().await.unwrap();
        assert_eq!(tenant.count(UNPAIRED).await, 0);
        let told = "SELECT string_agg(row ->> 'what', ' ' ORDER BY recorded_at) FROM history WHERE action = 'operator_act'";
        assert_eq!(read(&tenant, told).await, "tenant.create tenant.suspend");

        // Nothing is told to one that is on its way out.
        lifecycle::archive(database, &tenant.slug, &act("over"))
            .await
            .unwrap();
        tenancy::erase::begin(database, &tenant.slug, &act("over"))
            .await
            .unwrap();
        assert_eq!(tenant.count(UNPAIRED).await, 1, "that it begins");
    });
}

/// `bulkhead tenant impersonate` with these arguments: exit code, and all that was said.
async fn impersonate(tenant: &Tenant, args: &[&str]) -> (Option<i32>, String) {
    let mut command = world().await.command();
    command
        .env("BULKHEAD_LOG", "off")
        .args(["tenant", "impersonate", &tenant.slug])
        .args(args);
    let (code, out, err) = finish(&mut command, "");
    (code, out + &err)
}

/// Begins to act as the owner; the session's token.
async fn begun(tenant: &Tenant) -> String {
    begun_as(tenant, &format!("owner@{}.test", tenant.slug)).await
}

async fn begun_as(tenant: &Tenant, email: &str) -> String {
    let args = [
        "--member", email, "--reason", "ticket 8", "--for", "10m", "--json",
    ];
    let (code, said) = impersonate(tenant, &args).await;
    assert_eq!(code, Some(0), "{said}");
    let said: Value = serde_json::from_str(&said).unwrap();
    said["token"].as_str().unwrap().to_owned()
}

const VIEWER: &str = "{ viewer { impersonated actor { ... on Member { email } } } }";

/// Waits until the token is worth nothing.
async fn over(tenant: &Tenant, token: &str) {
    until("the session is over", async || {
        let answer = tenant.gql(Some(token), VIEWER).await;
        (answer.status == 401).then_some(())
    })
    .await;
}

/// All that was done to the object was an operator's doing for the owner.
async fn is_of_both(tenant: &Tenant, owner: &str, id: &str) {
    let query = "query($id: ID!) { tenant { changes(filter: { subject: $id }) { nodes {
        action actor { ... on SystemActor { reason } } onBehalfOf { ... on Member { email } } } } } }";
    let found = tenant
        .gql_with(Some(owner), query, json!({ "id": id }))
        .await;
    let nodes = found.data()["tenant"]["changes"]["nodes"].clone();
    let nodes = nodes.as_array().unwrap();
    assert!(!nodes.is_empty());
    let email = format!("owner@{}.test", tenant.slug);
    for node in nodes {
        // The job that made the media ready is one that the operator caused.
        assert_eq!(node["onBehalfOf"]["email"], email, "{node}");
        let by = &node["actor"]["reason"];
        assert!(*by == "an operator" || *by == "a job", "{node}");
    }
}

#[test]
fn an_operator_in_a_members_session_is_seen_as_both() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let email = format!("owner@{}.test", tenant.slug);
        let token = begun(&tenant).await;
        let viewer = tenant.gql(Some(&token), VIEWER).await;
        let shown = json!({ "impersonated": true, "actor": { "email": email } });
        assert_eq!(*viewer.payload(), shown);
        let viewer = tenant.gql(Some(&owner), VIEWER).await;
        assert_eq!(viewer.payload()["impersonated"], false);

        let (device, ..) = tenant.device(&token).await;
        let photo = tenant.photo(&token).await;
        for id in [&device, photo["id"].as_str().unwrap()] {
            is_of_both(&tenant, &owner, id).await;
        }
        let made = "SELECT replace(h.actor, m.id::text, 'the owner') FROM history h, member m
            WHERE h.subject_type = 'device' AND h.action = 'create'";
        assert_eq!(read(&tenant, made).await, "impersonation:the owner:cli");
        let until = "SELECT count(*) FROM session s JOIN history h ON h.row ->> 'session' = s.id::text
            WHERE s.operator = 'cli' AND h.row ->> 'what' = 'tenant.impersonate' AND (h.row ->> 'until')::timestamptz = s.expires_at
                AND s.expires_at BETWEEN now() + interval '5 minutes' AND now() + interval '10 minutes'";
        assert_eq!(tenant.count(until).await, 1, "for as long as it says");

        // Other sessions are the member's own business.
        let revoke = "mutation { sessionRevoke(input: { everywhere: true }) { revokedCount errors { code message } } }";
        let refused = tenant.gql(Some(&token), revoke).await;
        assert_eq!(refused.failure()["code"], "INVALID");
        tenant.gql(Some(&owner), VIEWER).await.data();
        tenant.gql(Some(&token), VIEWER).await.data();

        assert_eq!(
            impersonate(&tenant, &["--end"]).await,
            (Some(0), "1 ended\n".to_owned())
        );
        over(&tenant, &token).await;
        assert_eq!(
            impersonate(&tenant, &["--end"]).await.1,
            "0 ended\n",
            "once"
        );
        let found = acts(&tenant, &owner).await;
        assert_eq!(
            whats(&found),
            [
                "tenant.impersonate.end",
                "tenant.impersonate",
                "tenant.create"
            ]
        );
        assert_eq!(found[1]["reason"], "ticket 8");
        let member = found[1]["snapshot"]["member"].as_str().unwrap();
        let members = "SELECT id::text FROM member WHERE email LIKE 'owner@%'";
        assert_eq!(read(&tenant, members).await, member);
        assert_eq!(
            found[0]["snapshot"]["session"],
            found[1]["snapshot"]["session"]
        );
        assert_eq!(tenant.count(UNPAIRED).await, 0);
    });
}

#[test]
fn an_impersonation_ends_by_the_clock_or_by_itself() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let token = begun(&tenant).await;
        tenant.gql(Some(&token), VIEWER).await.data();
        let earlier = "UPDATE session SET expires_at = now() - interval '1 second' WHERE operator IS NOT NULL";
        assert_eq!(tenant.sql(earlier).await, 1);
        let earlier = "UPDATE bulkhead.operator_log SET detail = detail || jsonb_build_object('until', now() - interval '1 second')
            WHERE action = 'tenant.impersonate' AND tenant_id = (SELECT id FROM bulkhead.tenant WHERE schema_name = current_schema())";
        assert_eq!(tenant.sql(earlier).await, 1);
        over(&tenant, &token).await;
        let database = &tenant.world.app.services.database;
        let ended = until("it is written down", async || {
            log::end_impersonations(database).await.unwrap();
            let found = acts(&tenant, &owner).await;
            (whats(&found)[0] == "tenant.impersonate.end").then_some(found)
        })
        .await;
        assert_eq!(ended[0]["actor"]["reason"], "clock");
        assert_eq!(ended.len(), 3);

        let token = begun(&tenant).await;
        let revoke =
            "mutation { sessionRevoke(input: {}) { revokedCount errors { code message } } }";
        let left = tenant.gql(Some(&token), revoke).await;
        assert_eq!(left.payload()["revokedCount"], 1);
        over(&tenant, &token).await;
        let out = "{ tenant { changes(filter: { actions: [SIGN_OUT] }) { nodes {
            onBehalfOf { ... on Member { email } } } } } }";
        let out = tenant.gql(Some(&owner), out).await;
        let nodes = &out.data()["tenant"]["changes"]["nodes"];
        assert_eq!(
            nodes[0]["onBehalfOf"]["email"],
            format!("owner@{}.test", tenant.slug)
        );
    });
}

#[test]
fn an_operator_is_denied_what_the_member_is_and_leaves_them_alone() {
    run(async {
        let tenant = Tenant::new().await;
        let viewer = tenant.member(BuiltIn::Viewer).await;
        let as_owner = begun(&tenant).await;
        let as_viewer = begun_as(&tenant, &viewer).await;
        let denied = tenant.gql(Some(&as_viewer), ACTS).await;
        assert_eq!(denied.code(), "FORBIDDEN");
        let denied = "SELECT count(*) FROM history WHERE action = 'denied' AND actor = concat('impersonation:', subject_id, ':cli')
            AND subject_id = (SELECT id FROM member WHERE email LIKE 'viewer@%')";
        assert_eq!(tenant.count(denied).await, 1);
        let ended = impersonate(&tenant, &["--end", "--member", &viewer]).await;
        assert_eq!(ended, (Some(0), "1 ended\n".to_owned()));
        over(&tenant, &as_viewer).await;
        tenant.gql(Some(&as_owner), VIEWER).await.data();

        let database = &tenant.world.app.services.database;
        lifecycle::suspend(database, &tenant.slug, &act("over"))
            .await
            .unwrap();
        let args = ["--member", &viewer, "--reason", "ticket 9"];
        let (code, said) = impersonate(&tenant, &args).await;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("suspended"), "{said}");
    });
}

#[test]
fn nobody_acts_as_a_member_for_no_reason_or_for_long() {
    run(async {
        let tenant = Tenant::new().await;
        let email = format!("owner@{}.test", tenant.slug);
        let why = ["--member", &email, "--reason"];
        for (args, said) in [
            (vec!["--member", &email], "--reason"),
            (vec!["--reason", "ticket"], "--member"),
            ([&why[..], &[" "]].concat(), "Say why"),
            (
                [&why[..], &["ticket", "--for", "241m"]].concat(),
                "1 second to 4 hours",
            ),
            (
                [&why[..], &["ticket", "--for", "soon"]].concat(),
                "is no time",
            ),
            (
                vec!["--member", "nobody@x.test", "--reason", "ticket"],
                "no member",
            ),
        ] {
            let (code, text) = impersonate(&tenant, &args).await;
            assert_ne!(code, Some(0), "{args:?}");
            assert!(text.contains(said), "{args:?}: {text}");
        }
        assert_eq!(tenant.count("SELECT count(*) FROM session").await, 0);
        let told = "SELECT count(*) FROM history WHERE row ->> 'what' <> 'tenant.create'";
        assert_eq!(tenant.count(told).await, 0);
    });
}

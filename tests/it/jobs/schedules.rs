//! Schedules of tenants: asked for, changed and ended through GraphQL, and each of their times has one job.

use super::{count, execute, insert, private};
use crate::harness::{Tenant, finish, run, until};
use bulkhead::identity::BuiltIn;
use bulkhead::jobs::Worker;
use serde_json::{Value, json};

const FIELDS: &str =
    "schedule { id kind arguments expression timeZone catchUp enabled nextRuns version }
    errors { __typename code message field }";

async fn create(tenant: &Tenant, token: &str, input: Value) -> Value {
    let query = format!(
        "mutation($input: ScheduleCreateInput!) {{ scheduleCreate(input: $input) {{ {FIELDS} }} }}"
    );
    let answer = tenant
        .gql_with(Some(token), &query, json!({ "input": input }))
        .await;
    answer.payload().clone()
}

async fn update(tenant: &Tenant, token: &str, input: Value) -> Value {
    let query = format!(
        "mutation($input: ScheduleUpdateInput!) {{ scheduleUpdate(input: $input) {{ {FIELDS} }} }}"
    );
    let answer = tenant
        .gql_with(Some(token), &query, json!({ "input": input }))
        .await;
    answer.payload().clone()
}

fn daily() -> Value {
    json!({ "kind": "media.sweep", "expression": "30 4 * * *", "timeZone": "Europe/Berlin" })
}

/// Jobs of the tenant's that its schedules have added: all, or those that are over.
async fn added(tenant: &Tenant, over: bool) -> i64 {
    let live = if over { "AND false" } else { "" };
    let sql = format!(
        "SELECT (SELECT count(*) FROM bulkhead.job WHERE tenant_id = '{0}' AND actor = 'system:schedule' {live})
            + (SELECT count(*) FROM bulkhead.job_done WHERE tenant_id = '{0}' AND actor = 'system:schedule')",
        tenant.row.id
    );
    count(tenant.world, &sql).await
}

/// As if the clock had gone on.
async fn hours_pass(tenant: &Tenant) {
    let back = format!(
        "UPDATE bulkhead.schedule SET since = since - interval '49 hours', next_at = next_at - interval '49 hours'
         WHERE tenant_id = '{}'",
        tenant.row.id
    );
    execute(tenant.world, &back).await;
}

/// Schedules of the tenant's that the clock goes by.
async fn known(tenant: &Tenant) -> i64 {
    let sql = format!(
        "SELECT count(*) FROM bulkhead.schedule WHERE tenant_id = '{}'",
        tenant.row.id
    );
    count(tenant.world, &sql).await
}

/// Waits until the schedule's next time is known.
async fn settled(tenant: &Tenant) {
    let sql = format!(
        "SELECT count(*) FROM bulkhead.schedule WHERE tenant_id = '{}' AND next_at > now()",
        tenant.row.id
    );
    until("its next time is known", async || {
        (count(tenant.world, &sql).await == 1).then_some(())
    })
    .await;
}

#[test]
fn each_time_has_one_job_however_many_look() {
    run(async {
        let (tenant, owner) = private(2).await;
        let world = tenant.world;
        let other = Tenant::of(world).await;
        let mut workers: Vec<Worker> = Vec::new();
        for world in [
            world,
            world.beside(|_| ()).await,
            world.beside(|_| ()).await,
        ] {
            workers.push(world.app.worker().await);
        }
        let made = create(&tenant, &owner, daily()).await;
        assert_eq!(made["errors"], json!([]));
        for round in 1..=4 {
            settled(&tenant).await;
            assert_eq!(
                added(&tenant, false).await,
                round - 1,
                "not before its time"
            );
            hours_pass(&tenant).await;
            until(
                "it has its job, of two times that were missed one",
                async || (added(&tenant, true).await == round).then_some(()),
            )
            .await;
        }
        let suspended = |state: &str| {
            format!(
                "UPDATE bulkhead.tenant SET state = '{state}' WHERE id = '{}'",
                tenant.row.id
            )
        };
        settled(&tenant).await;
        execute(world, &suspended("suspended")).await;
        hours_pass(&tenant).await;
        // The others' clock goes on: when theirs has its job, ours would have had one.
        let theirs = other.token(BuiltIn::Owner).await;
        create(&other, &theirs, daily()).await;
        hours_pass(&other).await;
        until("the other tenant has its job", async || {
            (added(&other, true).await == 1).then_some(())
        })
        .await;
        assert_eq!(added(&tenant, false).await, 4);
        execute(world, &suspended("active")).await;
        until("what was missed is made up for", async || {
            (added(&tenant, true).await == 5).then_some(())
        })
        .await;
        for worker in workers {
            worker.stop().await;
        }
        assert_eq!(added(&tenant, false).await, 5);
    });
}

/// Ends the schedule, reads its trail, and takes the last change back.
async fn end_and_bring_back(tenant: &Tenant, owner: &str, id: &Value) {
    let delete = format!(
        "mutation {{ scheduleDelete(input: {{ scheduleId: {id} }}) {{ deletedScheduleId errors {{ code }} }} }}"
    );
    let gone = tenant.gql(Some(owner), &delete).await;
    assert_eq!(gone.payload()["deletedScheduleId"], *id);
    assert_eq!(
        tenant.gql(Some(owner), &delete).await.failure()["code"],
        "NOT_FOUND"
    );
    assert_eq!(known(tenant).await, 0);
    let trail = format!(
        "{{ tenant {{ changes(filter: {{ subject: {id} }}) {{ nodes {{
            id action subjectType actor {{ ... on Member {{ email }} }} }} }} }} }}"
    );
    let trail = tenant.gql(Some(owner), &trail).await.data()["tenant"]["changes"]["nodes"].clone();
    let actions: Vec<&Value> = trail
        .as_array()
        .unwrap()
        .iter()
        .map(|c| &c["action"])
        .collect();
    assert_eq!(actions, ["DELETE", "UPDATE", "UPDATE", "CREATE"]);
    assert_eq!(
        trail[3]["actor"]["email"],
        format!("admin@{}.test", tenant.slug)
    );
    assert_eq!(trail[3]["subjectType"], "Schedule");
    let revert = format!(
        "mutation {{ changeRevert(input: {{ changeId: {} }}) {{ errors {{ message }} }} }}",
        trail[0]["id"]
    );
    let back = tenant.gql(Some(owner), &revert).await;
    assert_eq!(back.payload()["errors"], json!([]));
    assert_eq!(known(tenant).await, 1, "the clock goes by it again");
}

#[test]
fn people_make_change_and_end_them_and_all_of_it_is_in_the_trail() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let admin = tenant.token(BuiltIn::Admin).await;
        let made = create(&tenant, &admin, daily()).await;
        let schedule = &made["schedule"];
        assert_eq!(
            [
                &schedule["timeZone"],
                &schedule["catchUp"],
                &schedule["enabled"],
                &schedule["arguments"]
            ],
            [
                &json!("Europe/Berlin"),
                &json!("LAST"),
                &json!(true),
                &json!({})
            ]
        );
        let next = schedule["nextRuns"].as_array().unwrap();
        assert_eq!(next.len(), 5);
        assert!(
            next[0].as_str().unwrap().contains(":30:00.000000Z"),
            "{next:?}"
        );
        assert_eq!(known(&tenant).await, 1);

        let id = schedule["id"].clone();
        let off = update(
            &tenant,
            &owner,
            json!({ "scheduleId": id, "enabled": false }),
        )
        .await;
        assert_eq!(
            (&off["schedule"]["nextRuns"], &off["schedule"]["version"]),
            (&json!([]), &json!(2))
        );
        assert_eq!(known(&tenant).await, 0);
        let lost = json!({ "scheduleId": id, "enabled": true, "ifVersion": 1 });
        let lost = update(&tenant, &owner, lost).await;
        assert_eq!(lost["errors"][0]["code"], "VERSION_CONFLICT");
        let on = json!({ "scheduleId": id, "enabled": true, "expression": "0 */6 * * *", "catchUp": "SKIP" });
        let on = update(&tenant, &owner, on).await;
        assert_eq!(on["schedule"]["expression"], "0 */6 * * *", "{on:#}");
        assert_eq!(known(&tenant).await, 1);
        let listed = "{ tenant { schedules { nodes { id } } scheduleKinds { kind maximum minimumMinutes } } }";
        let listed = tenant.gql(Some(&owner), listed).await.data()["tenant"].clone();
        assert_eq!(listed["schedules"]["nodes"], json!([{ "id": id }]));
        assert_eq!(
            listed["scheduleKinds"],
            json!([{ "kind": "media.sweep", "maximum": 4, "minimumMinutes": 60 }])
        );
        end_and_bring_back(&tenant, &owner, &id).await;
    });
}

#[test]
fn what_no_kind_allows_is_refused() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        for (input, field, told) in [
            (
                json!({ "kind": "media.process" }),
                "kind",
                "not for schedules; there are media.sweep.",
            ),
            (json!({ "kind": "no.kind" }), "kind", "not for schedules"),
            (
                json!({ "expression": "61 * * * *" }),
                "expression",
                "has no times",
            ),
            (
                json!({ "expression": "0 4 * * * *" }),
                "expression",
                "five fields",
            ),
            (
                json!({ "expression": "0 0 30 2 *" }),
                "expression",
                "no times",
            ),
            (
                json!({ "expression": "*/30 * * * *" }),
                "expression",
                "30 minutes apart; those of media.sweep are at least 60",
            ),
            (
                json!({ "timeZone": "Mars/Base" }),
                "expression",
                "Mars/Base",
            ),
            (
                json!({ "arguments": { "media": 1 } }),
                "arguments",
                "These are not arguments of media.sweep.",
            ),
        ] {
            let mut wanted = daily();
            let changes = input.as_object().unwrap().clone();
            wanted.as_object_mut().unwrap().extend(changes);
            let refused = create(&tenant, &owner, wanted).await;
            let error = &refused["errors"][0];
            assert_eq!(
                error["field"],
                json!(["input", field]),
                "{input}: {error:#}"
            );
            assert!(
                error["message"].as_str().unwrap().contains(told),
                "{input}: {error:#}"
            );
        }
    });
}

#[test]
fn there_are_as_many_as_the_kind_allows() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let all = futures::future::join_all((0..8).map(|_| create(&tenant, &owner, daily()))).await;
        let made = all
            .iter()
            .filter(|made| !made["schedule"].is_null())
            .count();
        assert_eq!(made, 4, "however many ask at once");
        let id = &all.iter().find(|made| !made["schedule"].is_null()).unwrap()["schedule"]["id"];
        let often = json!({ "scheduleId": id, "expression": "* * * * *" });
        let often = update(&tenant, &owner, often).await;
        assert_eq!(often["errors"][0]["code"], "INVALID");
    });
}

#[test]
fn a_full_queue_has_no_job_more_by_the_clock() {
    run(async {
        let (tenant, owner) = private(1).await;
        let set = ["tenant", "set", &tenant.slug, "--limit", "queued_jobs=1"];
        assert_eq!(finish(tenant.world.command().args(set), "").0, Some(0));
        // Nobody knows its kind, so it stays.
        let there = insert(&tenant, "test.of_tomorrow", json!({})).await;
        let worker = tenant.world.app.worker().await;
        let made = create(&tenant, &owner, daily()).await;
        assert_eq!(made["errors"], json!([]));
        settled(&tenant).await;
        hours_pass(&tenant).await;
        settled(&tenant).await;
        assert_eq!(added(&tenant, false).await, 0);
        let gone = format!("DELETE FROM bulkhead.job WHERE id = '{there}'");
        execute(tenant.world, &gone).await;
        hours_pass(&tenant).await;
        until("there is room for its job", async || {
            (added(&tenant, true).await == 1).then_some(())
        })
        .await;
        worker.stop().await;
    });
}

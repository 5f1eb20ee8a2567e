//! The evidence: everything is sealed soon and in an order that stays, and `bulkhead audit verify` names what was done to it.

use super::{adding, entries, sealed, write};
use crate::harness::{Tenant, World, execute, finish, run, until};
use bulkhead::history::seal::{self, Keys};
use serde_json::Value;
use sqlx::AssertSqlSafe;
use std::fs;

/// `bulkhead audit` with these arguments: exit code, and all that was said.
pub(super) fn audit(world: &World, args: &[&str], keys: &str) -> (Option<i32>, String) {
    let mut command = world.command();
    command.env("BULKHEAD_LOG", "off").arg("audit").args(args);
    let (code, out, err) = finish(command.env("BULKHEAD_AUDIT_KEYS", keys), "");
    (code, out + &err)
}

/// Waits until all that is committed is sealed; how many entries that are.
pub(super) async fn all_sealed(tenant: &Tenant) -> u64 {
    until("all is sealed", async || {
        let there = u64::from(entries(tenant).await);
        (sealed(tenant).await == there).then_some(there)
    })
    .await
}

/// Runs statements as superuser, `{n}` in them being the id of the tenant and `{e3}` that of the entry with the number 3.
pub(super) async fn tamper(tenant: &Tenant, sql: &str) {
    let mut superuser = tenant.superuser().await;
    let ids: Vec<uuid::Uuid> = sqlx::query_scalar(
        "SELECT e FROM bulkhead.seal, unnest(entries) WITH ORDINALITY u (e, at) WHERE tenant_id = $1 ORDER BY first, at",
    )
    .bind(tenant.row.id)
    .fetch_all(&mut superuser)
    .await
    .unwrap();
    let mut sql = sql.replace("{n}", &format!("'{}'", tenant.row.id));
    for (index, id) in ids.iter().enumerate() {
        sql = sql.replace(&format!("{{e{}}}", index + 1), &format!("'{id}'"));
    }
    let done = sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut superuser)
        .await;
    done.unwrap();
}

/// A tenant with 12 sealed and anchored entries of devices after those of its making, in several seals; how many in all.
async fn prepared() -> (Tenant, u64) {
    let tenant = Tenant::new().await;
    for _ in 0..3 {
        write(&tenant, &adding(4)).await;
        all_sealed(&tenant).await;
    }
    let count = all_sealed(&tenant).await;
    let (code, said) = audit(tenant.world, &["anchor", &tenant.slug], "");
    assert_eq!(code, Some(0), "{said}");
    (tenant, count)
}

const COPY: &str = "INSERT INTO history SELECT gen_random_uuid(), recorded_at, subject_type, subject_id, action, row, before,
    changed, transaction_id, actor, cause, request_id, reason, reverts FROM history WHERE id = {e3}";

/// What is done, and what is said of it.
const TAMPERINGS: [(&str, &str); 14] = [
    ("UPDATE history SET row = jsonb_set(row, '{name}', '\"Bulk.\"') WHERE id = {e12}", "entry 12 ("),
    ("UPDATE history SET recorded_at = recorded_at + interval '1 us' WHERE id = {e7}", "entry 7 ("),
    ("UPDATE history SET actor = 'system:test' WHERE id = {e9}", "entry 9 ("),
    ("UPDATE history SET reason = '' WHERE id = {e8}", "entry 8 ("),
    ("DELETE FROM history WHERE id = {e8}", "was removed"),
    (
        "UPDATE history h SET row = o.row, subject_id = o.subject_id FROM history o
         WHERE (h.id, o.id) IN (({e8}, {e11}), ({e11}, {e8}))",
        "entry 8 (",
    ),
    (COPY, "was put in later: no seal has it"),
    ("DELETE FROM bulkhead.seal WHERE tenant_id = {n} AND first = (SELECT max(first) FROM bulkhead.seal WHERE tenant_id = {n})", "were removed"),
    (
        "DELETE FROM bulkhead.seal WHERE tenant_id = {n} AND first = (SELECT max(first) FROM bulkhead.seal WHERE tenant_id = {n});
         UPDATE bulkhead.seal_head SET anchored = 0, (number, link) = (SELECT last, substr(links, length(links) - 31) FROM bulkhead.seal
             WHERE tenant_id = {n} ORDER BY first DESC LIMIT 1) WHERE tenant_id = {n};
         DELETE FROM history WHERE id <> ALL (SELECT unnest(entries) FROM bulkhead.seal WHERE tenant_id = {n})",
        "its end was cut off",
    ),
    (
        "TRUNCATE history; DELETE FROM bulkhead.seal WHERE tenant_id = {n};
         UPDATE bulkhead.seal_head SET number = 0, link = '', next = 0, anchored = 0 WHERE tenant_id = {n}",
        "its end was cut off",
    ),
    ("UPDATE bulkhead.seal SET entries = ARRAY[entries[2], entries[1]] || entries[3:] WHERE tenant_id = {n} AND array_length(entries, 1) > 2 AND first > 1", "is not what was sealed"),
    ("UPDATE bulkhead.seal SET links = set_byte(links, 40, get_byte(links, 40) # 1) WHERE tenant_id = {n} AND first = 1", "entry 2 ("),
    ("UPDATE bulkhead.seal SET key_id = 'another' WHERE tenant_id = {n} AND first = 1", "BULKHEAD_AUDIT_KEYS"),
    ("UPDATE bulkhead.seal_head SET link = sha256(link) WHERE tenant_id = {n}", "was changed"),
];

#[test]
fn verify_names_what_was_done() {
    run(async {
        let (tenant, count) = prepared().await;
        let (code, said) = audit(tenant.world, &["verify", &tenant.slug], "");
        assert_eq!(code, Some(0), "{said}");
        let good = format!(
            "{}: {count} entries: good, anchored at {count}\n",
            tenant.slug
        );
        assert_eq!(said, good);
        for (sql, verdict) in TAMPERINGS {
            let (tenant, _) = prepared().await;
            tamper(&tenant, sql).await;
            let (code, said) = audit(tenant.world, &["verify", &tenant.slug], "");
            assert_eq!(code, Some(2), "{sql}: {said}");
            assert!(
                said.contains("BROKEN") && said.contains(verdict),
                "{sql}: {said}"
            );
        }
    });
}

#[test]
fn rows_of_another_tenant_and_a_lost_anchor_are_found() {
    run(async {
        let ((one, count), (other, _)) = (prepared().await, prepared().await);
        let from = &other.row.schema_name;
        // The same entry of both: all that tells them apart is whose they are.
        let theirs = format!(
            "UPDATE bulkhead.seal SET (entries, links, last) = (SELECT entries, links, last FROM bulkhead.seal o
                 WHERE o.tenant_id = '{}' AND o.first = seal.first) WHERE tenant_id = {{n}} AND first = 1;
             INSERT INTO history SELECT * FROM {from}.history",
            other.row.id
        );
        tamper(&one, &theirs).await;
        let (code, said) = audit(one.world, &["verify", &one.slug, "--json"], "");
        assert_eq!(code, Some(2), "{said}");
        let verified: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(verified[0]["fault"]["what"], "changed");
        assert_eq!(verified[0]["fault"]["number"], 1);

        let anchor = format!("media/_audit/{}/{count:020}.json", other.row.id);
        let anchor = other.world.data_dir.join(anchor);
        let text = fs::read_to_string(&anchor).unwrap();
        fs::write(
            &anchor,
            text.replace(&format!("\"number\":{count}"), "\"number\":1"),
        )
        .unwrap();
        let (code, said) = audit(other.world, &["verify", &other.slug], "");
        assert_eq!(code, Some(2), "{said}");
        assert!(
            said.contains("removed from the object store, or forged"),
            "{said}"
        );
    });
}

#[test]
fn a_long_transaction_neither_holds_up_nor_slips_behind() {
    run(async {
        let tenant = Tenant::new().await;
        let beside = tenant.world.another(2).await;
        let long = tenant.write_on(&beside).await;
        execute(&long, &adding(3)).await.unwrap();
        write(&tenant, &adding(5)).await;
        let before = until("the others are sealed", async || {
            let there = u64::from(entries(&tenant).await);
            (sealed(&tenant).await == there).then_some(there)
        })
        .await;
        long.commit().await.unwrap();
        let after = all_sealed(&tenant).await;
        assert_eq!(after, before + 3);
        write(&tenant, &adding(1)).await;
        assert_eq!(all_sealed(&tenant).await, before + 4);
        let (code, said) = audit(tenant.world, &["verify", &tenant.slug], "");
        assert_eq!(code, Some(0), "{said}");
        beside.stop().await.unwrap();
    });
}

#[test]
fn many_writers_and_sealers_make_one_chain() {
    run(async {
        let tenant = Tenant::new().await;
        let services = &tenant.world.app.services;
        let keys = Keys::of(&services.config, &services.key).unwrap();
        let writers = (0..20).map(|_| async {
            for _ in 0..5 {
                write(&tenant, &adding(7)).await;
            }
        });
        let sealers = (0..3).map(|_| async {
            for _ in 0..10 {
                seal::seal(&services.database, &keys, &tenant.row)
                    .await
                    .unwrap();
            }
        });
        futures::join!(
            futures::future::join_all(writers),
            futures::future::join_all(sealers)
        );
        let count = all_sealed(&tenant).await;
        let gaps = "SELECT count(*) FROM (SELECT first, lag(last, 1, 0::bigint) OVER (ORDER BY first) AS before
            FROM bulkhead.seal s JOIN bulkhead.tenant t ON t.id = s.tenant_id WHERE t.schema_name = current_schema()) s
            WHERE first <> before + 1";
        assert_eq!(tenant.count(gaps).await, 0);
        let (code, said) = audit(tenant.world, &["verify", &tenant.slug], "");
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains(&format!("{count} entries: good")), "{said}");
    });
}

#[test]
fn more_than_one_step_is_sealed_in_the_same_order() {
    run(async {
        let world = World::private(|_| {}).await;
        let tenant = Tenant::of(world).await;
        let tx = tenant.write().await;
        for _ in 0..3 {
            execute(&tx, &adding(7_000)).await.unwrap();
        }
        tx.commit().await.unwrap();
        for _ in 0..4 {
            write(&tenant, &adding(6_000)).await;
        }
        let services = &world.app.services;
        let keys = Keys::of(&services.config, &services.key).unwrap();
        let mut rounds = 0;
        while seal::seal(&services.database, &keys, &tenant.row)
            .await
            .unwrap()
        {
            rounds += 1;
        }
        assert!(rounds >= 2, "{rounds}");
        assert_eq!(sealed(&tenant).await, u64::from(entries(&tenant).await));
        let (code, said) = audit(world, &["verify"], "");
        assert_eq!(code, Some(0), "{said}");
    });
}

#[test]
fn keys_are_changed_and_a_database_is_brought_elsewhere() {
    run(async {
        let world = World::private(|_| {}).await;
        let tenant = Tenant::of(world).await;
        let [old, new] = [
            "the-old-key-of-the-evidence-0123456789",
            "the-new-key-of-the-evidence-0123456789",
        ];
        let good = |args: &[&str], keys: &str| {
            let (code, said) = audit(world, args, keys);
            assert_eq!(code, Some(0), "{said}");
        };
        good(&["anchor"], "");
        write(&tenant, &adding(2)).await;
        good(&["anchor"], old);
        write(&tenant, &adding(2)).await;
        good(&["anchor"], &format!("{new},{old}"));
        good(&["verify"], &format!("{new},{old}"));
        good(&["verify"], &format!("{old},{new}"));
        let (code, said) = audit(world, &["verify"], new);
        assert_eq!(code, Some(2), "{said}");
        assert!(
            said.contains("which is not among BULKHEAD_AUDIT_KEYS"),
            "{said}"
        );

        // On a server whose transactions have smaller numbers, nothing is sealed twice and nothing is left out.
        tamper(
            &tenant,
            "UPDATE bulkhead.seal_head SET next = next + 1000000 WHERE tenant_id = {n}",
        )
        .await;
        write(&tenant, &adding(3)).await;
        let both = format!("{new},{old}");
        good(&["anchor"], &both);
        assert_eq!(sealed(&tenant).await, u64::from(entries(&tenant).await));
        write(&tenant, &adding(3)).await;
        good(&["anchor"], &both);
        assert_eq!(sealed(&tenant).await, u64::from(entries(&tenant).await));
        good(&["verify"], &both);
    });
}

#[test]
fn what_no_process_told_of_is_sealed_too() {
    run(async {
        let tenant = Tenant::new().await;
        all_sealed(&tenant).await;
        let mut superuser = tenant.superuser().await;
        sqlx::raw_sql("UPDATE role SET name = 'by hand' WHERE name = 'viewer'")
            .execute(&mut superuser)
            .await
            .unwrap();
        drop(superuser);
        all_sealed(&tenant).await;
    });
}

#[test]
fn no_tenant_reaches_the_evidence() {
    run(async {
        let tenant = Tenant::new().await;
        let statements = [
            "SELECT * FROM bulkhead.seal",
            "UPDATE bulkhead.seal SET last = 0",
            "DELETE FROM bulkhead.seal",
            "TRUNCATE bulkhead.seal",
            "UPDATE bulkhead.seal_head SET number = 0",
            "ALTER TABLE history DISABLE TRIGGER ALL",
        ];
        crate::harness::refused(&tenant, &statements).await;
    });
}

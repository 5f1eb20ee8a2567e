//! Domains of a tenant's own, from the claim to the end: by the command, against a name server of the tests', seen by HTTP.

use super::at;
use crate::harness::{NameServer, Process, Tenant, bulkhead, finish, run, until, world};
use bulkhead::identity::BuiltIn;
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write as _;
use std::process::{Command, Stdio};
use tokio::net::UdpSocket;
use tokio::sync::OnceCell;

static DNS: OnceCell<NameServer> = OnceCell::const_new();

async fn dns() -> &'static NameServer {
    DNS.get_or_init(NameServer::start).await
}

/// `bulkhead tenant domain` with the tests' name server.
async fn command(args: &[&str]) -> Command {
    let mut command = bulkhead().await;
    command
        .args(["tenant", "domain"])
        .args(args)
        .env("BULKHEAD_DNS_SERVERS", dns().await.address.to_string())
        .env("BULKHEAD_LOG", "warn");
    command
}

/// Runs it.
async fn domain(args: &[&str]) -> (Option<i32>, String, String) {
    finish(&mut command(args).await, "")
}

/// The same, where it has to succeed; what it says.
#[track_caller]
fn done((code, out, err): (Option<i32>, String, String)) -> String {
    assert_eq!(code, Some(0), "{out}{err}");
    out
}

/// The same, where it has to fail, saying all of this.
#[track_caller]
fn fails((code, out, err): (Option<i32>, String, String), words: &[&str]) {
    assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
    for word in words {
        assert!(err.contains(word), "{word:?} is not in {err}");
    }
}

/// Claims a host: its record's name and value.
async fn claim(tenant: &Tenant, host: &str) -> (String, String) {
    let out = done(domain(&["add", &tenant.slug, host, "--json"]).await);
    let added: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(added["record"]["type"], "TXT");
    let text = |key: &str| added["record"][key].as_str().unwrap().to_owned();
    (text("name"), text("value"))
}

/// Claims a host, publishes its record and verifies it.
async fn own(tenant: &Tenant, host: &str) {
    let (name, value) = claim(tenant, host).await;
    dns().await.publish(&name, &[&value]);
    done(domain(&["verify", &tenant.slug, host]).await);
}

/// Waits until the host is answered like this, for what servers keep for a moment.
async fn answers(tenant: &Tenant, token: &str, host: &str, status: StatusCode) -> Value {
    until(&format!("{host} answers {status}"), async || {
        let (found, body) = at(tenant, token, host).await;
        (found == status).then_some(body)
    })
    .await
}

/// What the log has of the tenant's domains, oldest first.
async fn log(tenant: &Tenant) -> Vec<(String, Value)> {
    sqlx::query_as(
        "SELECT action, detail->'host' FROM bulkhead.operator_log
         WHERE tenant_id = $1 AND action LIKE 'tenant.domain.%' AND operator <> '' ORDER BY id",
    )
    .bind(tenant.row.id)
    .fetch_all(&mut world().await.superuser().await)
    .await
    .unwrap()
}

#[test]
fn a_domain_from_claim_to_removal() {
    run(async {
        let tenant = Tenant::new().await;
        let token = tenant.token(BuiltIn::Owner).await;
        let slug = tenant.slug.as_str();
        let host = format!("shop.{slug}.example");
        let spelt = format!("SHOP.{slug}.Example.");
        let said = done(domain(&["list", slug]).await);
        assert!(said.contains("has no domains"), "{said}");
        answers(&tenant, &token, &host, StatusCode::NOT_FOUND).await;

        let said = done(domain(&["add", slug, &spelt]).await);
        let (name, value) = claim(&tenant, &host).await;
        assert_eq!(name, format!("_bulkhead.{host}"));
        let line = format!("\n{name}. IN TXT \"{value}\"\n");
        assert!(said.contains(&line), "{line} is not in {said}");
        answers(&tenant, &token, &host, StatusCode::NOT_FOUND).await;
        let verify = ["verify", slug, host.as_str()];
        fails(domain(&verify).await, &["no TXT record", &name, &value]);

        let dns = dns().await;
        dns.publish(&name, &["v=spf1 -all", &value]);
        let said = done(domain(&verify).await);
        assert_eq!(said, format!("{host} is verified; it leads to {slug}.\n"));
        let found = answers(&tenant, &token, &host, StatusCode::OK).await;
        assert_eq!(found["data"]["tenant"]["slug"], slug);
        let own = answers(
            &tenant,
            &token,
            &format!("{slug}.localhost"),
            StatusCode::OK,
        )
        .await;
        assert_eq!(own, found);

        // Proven is proven: what was done is not done again, and nothing is asked.
        dns.withdraw(&name);
        let primary = ["primary", slug, host.as_str()];
        for again in [&verify, &verify, &primary, &primary, &["add", slug, &host]] {
            done(domain(again).await);
        }
        assert_eq!(at(&tenant, &token, &host).await.0, StatusCode::OK);

        let remove = ["remove", slug, host.as_str(), "--yes"];
        assert_eq!(
            done(domain(&remove).await),
            format!("Removed {host} from {slug}.\n")
        );
        assert!(done(domain(&remove).await).contains("nothing was changed"));
        answers(&tenant, &token, &host, StatusCode::NOT_FOUND).await;
        // A claim of later has another proof.
        let (_, later) = claim(&tenant, &host).await;
        assert_ne!(later, value);
        dns.publish(&name, &[&value]);
        fails(domain(&verify).await, &["another value", &later]);

        let acts = ["add", "verify", "primary", "remove", "add"];
        let acts = acts.map(|act| (format!("tenant.domain.{act}"), json!(host)));
        assert_eq!(log(&tenant).await, acts);
    });
}

#[test]
fn what_the_dns_lacks_is_said() {
    run(async {
        let tenant = Tenant::new().await;
        let token = tenant.token(BuiltIn::Owner).await;
        let host = format!("shop.{}.example", tenant.slug);
        let (name, value) = claim(&tenant, &host).await;
        let record = format!("\n{name}. IN TXT \"{value}\"\n");
        let verify = ["verify", tenant.slug.as_str(), &host];
        fails(domain(&verify).await, &["no TXT record", &record]);
        let dns = dns().await;
        // The name is there, the record is not.
        dns.publish(&name, &[]);
        fails(domain(&verify).await, &["no TXT record", &record]);
        let escapes = "bulkhead-verify=something\u{1b}[2J";
        dns.publish(&name, &["v=spf1 -all", escapes]);
        let said = [
            "another value",
            "v=spf1 -all",
            "something\\u{1b}[2J",
            &record,
        ];
        fails(domain(&verify).await, &said);
        // The value elsewhere proves nothing, nor does it with more around it.
        for elsewhere in [
            &host,
            &format!("www.{host}"),
            &format!("_bulkhead.www.{host}"),
        ] {
            dns.publish(elsewhere, &[&value]);
        }
        let (longer, upper) = (format!("{value}="), value.to_uppercase());
        dns.publish(&name, &[&longer, &upper]);
        fails(domain(&verify).await, &["another value"]);
        assert_eq!(at(&tenant, &token, &host).await.0, StatusCode::NOT_FOUND);
    });
}

#[test]
fn a_claim_keeps_nobody_from_a_host_and_a_proof_everybody() {
    run(async {
        let (squatter, owner) = (Tenant::new().await, Tenant::new().await);
        let host = format!("www.{}.example", owner.slug);
        let (name, claimed) = claim(&squatter, &host).await;
        let (_, value) = claim(&owner, &host).await;
        assert_ne!(claimed, value);
        let dns = dns().await;
        dns.publish(&name, &[&value]);
        let squat = ["verify", squatter.slug.as_str(), &host];
        fails(domain(&squat).await, &["another value"]);
        done(domain(&["verify", &owner.slug, &host]).await);

        // Even with both records, there is one owner; and no third claim.
        dns.publish(&name, &[&value, &claimed]);
        fails(domain(&squat).await, &["verified by another tenant"]);
        let third = Tenant::new().await;
        let add = ["add", third.slug.as_str(), &host];
        fails(domain(&add).await, &["verified by another tenant"]);

        // It answers for its tenant alone: another's token is nobody's there.
        let (own, foreign) = (
            owner.token(BuiltIn::Owner).await,
            squatter.token(BuiltIn::Owner).await,
        );
        let found = answers(&owner, &own, &host, StatusCode::OK).await;
        assert_eq!(found["data"]["tenant"]["slug"], owner.slug.as_str());
        assert_eq!(
            at(&owner, &foreign, &host).await.0,
            StatusCode::UNAUTHORIZED
        );
        let removed = ["remove", squatter.slug.as_str(), &host, "--yes"];
        done(domain(&removed).await);
        answers(&owner, &own, &host, StatusCode::OK).await;

        // Removed, it is free for whoever proves it.
        done(domain(&["remove", &owner.slug, &host, "--yes"]).await);
        let (_, claimed) = claim(&squatter, &host).await;
        dns.publish(&name, &[&claimed]);
        done(domain(&squat).await);
        let found = answers(&squatter, &foreign, &host, StatusCode::OK).await;
        assert_eq!(found["data"]["tenant"]["slug"], squatter.slug.as_str());
    });
}

#[test]
fn of_two_who_prove_a_host_at_once_one_has_it() {
    run(async {
        let (one, two) = (Tenant::new().await, Tenant::new().await);
        let host = format!("raced.{}.example", one.slug);
        let (name, first) = claim(&one, &host).await;
        let (_, second) = claim(&two, &host).await;
        dns().await.publish(&name, &[&first, &second]);
        let mut started = Vec::new();
        for tenant in [&one, &two] {
            let mut command = command(&["verify", &tenant.slug, &host]).await;
            started.push(Process::start(&mut command));
        }
        let mut codes = Vec::new();
        for process in &mut started {
            codes.push(process.ended().await.code());
        }
        codes.sort_unstable();
        assert_eq!(codes, [Some(0), Some(1)]);
    });
}

#[test]
fn one_of_a_tenants_domains_is_the_primary() {
    run(async {
        let tenant = Tenant::new().await;
        let slug = tenant.slug.as_str();
        let hosts = ["a", "b", "c"].map(|label| format!("{label}.{slug}.example"));
        let [a, b, c] = hosts.each_ref().map(String::as_str);
        own(&tenant, a).await;
        own(&tenant, b).await;
        claim(&tenant, c).await;
        fails(domain(&["primary", slug, c]).await, &[c, "not verified"]);
        let nobodys = ["primary", slug, "nobodys.example"];
        fails(
            domain(&nobodys).await,
            &["no domain nobodys.example", "domain add"],
        );
        for host in [a, b, b] {
            let said = done(domain(&["primary", slug, host]).await);
            assert_eq!(said, format!("{host} is the primary domain of {slug}.\n"));
        }
        let said = done(domain(&["list", slug]).await);
        let states: Vec<_> = said
            .lines()
            .map(|line| line.split_whitespace().take(2).collect::<Vec<_>>())
            .collect();
        assert_eq!(
            states,
            [
                ["HOST", "STATE"],
                [a, "verified"],
                [b, "primary"],
                [c, "not"]
            ]
        );
        let listed: Value =
            serde_json::from_str(&done(domain(&["list", slug, "--json"]).await)).unwrap();
        let primary: Vec<_> = listed
            .as_array()
            .unwrap()
            .iter()
            .map(|row| &row["primary"])
            .collect();
        assert_eq!(primary, [&json!(false), &json!(true), &json!(false)]);
        let (_, shown, _) = super::command(&["tenant", "show", slug], "").await;
        let domains = format!("{a}, {b} (primary), {c} (not verified)");
        assert!(shown.contains(&domains), "{shown}");
        assert!(shown.contains(&format!("://{b}\n")), "{shown}");
        for removed in [true, false] {
            let said = done(domain(&["remove", slug, b, "--yes", "--json"]).await);
            let said: Value = serde_json::from_str(&said).unwrap();
            assert_eq!(said, json!({ "host": b, "removed": removed }));
        }
        let said = done(domain(&["list", slug]).await);
        assert!(!said.contains("primary"), "{said}");
    });
}

#[test]
fn what_cannot_be_a_domain_is_said() {
    run(async {
        let tenant = Tenant::new().await;
        let slug = tenant.slug.as_str();
        let below = format!("x.{slug}.localhost");
        let long = format!("{0}.{0}.{0}.{1}.example", "a".repeat(63), "b".repeat(45));
        for (host, word) in [
            ("localhost", "base domains"),
            (&below, "base domains"),
            ("intranet", "one label"),
            (&long, "too long"),
            ("127.0.0.1", "not a host name"),
            ("[::1]", "not a host name"),
            ("shop.example:443", "not a host name"),
            ("https://shop.example", "not a host name"),
            ("*.shop.example", "not a host name"),
            ("bücher.example", "punycode"),
            ("xn--a.example", "not a host name"),
            ("", "not a host name"),
        ] {
            fails(domain(&["add", slug, host]).await, &[word]);
        }
        fails(
            domain(&["add", "nobody", "shop.example"]).await,
            &["no tenant nobody", "tenant list"],
        );
        fails(
            domain(&["verify", slug, "shop.example"]).await,
            &["no domain shop.example", "domain add"],
        );
        assert!(log(&tenant).await.is_empty());
    });
}

#[test]
fn a_name_server_that_fails_is_said() {
    run(async {
        let tenant = Tenant::new().await;
        let slug = tenant.slug.as_str();
        let broken = format!("broken-{slug}.example");
        claim(&tenant, &broken).await;
        fails(
            domain(&["verify", slug, &broken]).await,
            &["did not answer", "Try again"],
        );
        let host = format!("{slug}.example");
        claim(&tenant, &host).await;
        // Nobody there; and one who never answers.
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        for address in [
            "127.0.0.1:1".to_owned(),
            silent.local_addr().unwrap().to_string(),
        ] {
            let mut command = bulkhead().await;
            command
                .args(["tenant", "domain", "verify", slug, &host])
                .env("BULKHEAD_DNS_SERVERS", address);
            fails(finish(&mut command, ""), &["did not answer", &host]);
        }
    });
}

#[test]
fn a_long_answer_comes_by_tcp() {
    run(async {
        let tenant = Tenant::new().await;
        let host = format!("{}.example", tenant.slug);
        let (name, value) = claim(&tenant, &host).await;
        let long = "x".repeat(3000);
        dns().await.publish(&name, &[&long, &value]);
        done(domain(&["verify", &tenant.slug, &host]).await);
    });
}

#[test]
fn verify_waits_for_the_record() {
    run(async {
        let tenant = Tenant::new().await;
        let host = format!("{}.example", tenant.slug);
        let (name, value) = claim(&tenant, &host).await;
        let mut command = command(&["verify", &tenant.slug, &host, "--wait"]).await;
        let mut process = Process::start(&mut command);
        until("the name is asked for", async || {
            dns().await.asked(&name).then_some(())
        })
        .await;
        assert!(process.is_running());
        dns().await.publish(&name, &[&value]);
        process.says("is verified").await;
        assert!(process.ended().await.success());
    });
}

#[test]
fn remove_wants_the_host_typed() {
    run(async {
        let tenant = Tenant::new().await;
        let host = format!("{}.example", tenant.slug);
        claim(&tenant, &host).await;
        let remove = ["remove", tenant.slug.as_str(), &host];
        fails(domain(&remove).await, &[&host, "no terminal", "--yes"]);
        for (typed, code) in [("yes\n", 1), (format!("{host}\n").as_str(), 0)] {
            let pty = nix::pty::openpty(None, None).unwrap();
            let child = command(&remove)
                .await
                .stdin(Stdio::from(pty.slave))
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            File::from(pty.master.try_clone().unwrap())
                .write_all(typed.as_bytes())
                .unwrap();
            let output = child.wait_with_output().unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(code), "{said}");
            assert!(said.contains(&format!("Type {host}")), "{said}");
            drop(pty.master);
        }
        assert!(done(domain(&["list", &tenant.slug]).await).contains("has no domains"));
    });
}

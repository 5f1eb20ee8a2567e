//! `bulkhead` as it is started: alone with everything it needs, and as server and worker on a database that is given.

use crate::harness::{PASSWORD, Process, World, bare, program, run, until, world};
use nix::sys::signal::Signal;
use regex_lite::Regex;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A `bulkhead` with no command, and where it is.
struct Dev {
    process: Process,
    data_dir: PathBuf,
    summary: String,
    port: u16,
}

impl Dev {
    async fn start(data_dir: &Path) -> Self {
        let mut process = Process::start(dev(data_dir).args(["--http", "127.0.0.1:0"]));
        process.says("Ctrl-C stops it").await;
        let summary = process.says("-d '{\"client_id\"").await;
        let url = Regex::new(r"Acme +http://acme\.localhost:(\d+)/graphql\n").unwrap();
        let port = url.captures(&summary).expect("a URL")[1].parse().unwrap();
        Self {
            process,
            data_dir: data_dir.to_owned(),
            summary,
            port,
        }
    }

    /// The process of its PostgreSQL.
    fn postgres(&self) -> i32 {
        let file = self.data_dir.join("postgres/pgdata/postmaster.pid");
        let text = fs::read_to_string(file).unwrap();
        text.lines().next().unwrap().parse().unwrap()
    }

    async fn gql(&self, slug: &str, token: Option<&str>, query: &str) -> Value {
        gql(self.port, slug, token, query).await
    }

    async fn sign_in(&self, slug: &str, role: &str) -> String {
        sign_in(self.port, slug, role, "bulkhead-demo").await
    }
}

#[test]
fn one_command_runs_everything() {
    run(async {
        let data_dir = directory("dev").await;
        let mut first = Dev::start(&data_dir).await;
        printed_commands_work(&first).await;
        demo_data_is_there(&first).await;
        let listed = dev(&data_dir).args(["tenant", "list"]).output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        assert!(
            listed.contains("\nacme ") && listed.contains("\nglobex "),
            "{listed}"
        );
        let owner = first.sign_in("acme", "owner").await;
        let make = "mutation { deviceCreate(input: { name: \"Kept\" }) { device { id } } }";
        let made = first.gql("acme", Some(&owner), make).await;
        let made = made["deviceCreate"]["device"]["id"].clone();

        let postgres = first.postgres();
        first.process.signal(Signal::SIGINT);
        let ended = first.process.ended().await;
        assert!(ended.success(), "{ended}: {}", first.process.logged());
        assert!(is_gone(postgres));

        let second = Dev::start(&data_dir).await;
        let query = "{ tenant { devices { nodes { id name } } media { totalCount } members { nodes { email } } } }";
        let found = second.gql("acme", Some(&owner), query).await["tenant"].clone();
        let devices = found["devices"]["nodes"].as_array().unwrap();
        assert_eq!(devices.len(), 2, "{devices:#?}");
        assert_eq!(devices[0], json!({ "id": made, "name": "Kept" }));
        assert_eq!(found["media"]["totalCount"], 3);
        assert_eq!(found["members"]["nodes"].as_array().map(Vec::len), Some(4));

        let postgres = second.postgres();
        second.process.signal(Signal::SIGKILL);
        until("its PostgreSQL is gone", async || {
            is_gone(postgres).then_some(())
        })
        .await;
    });
}

#[test]
fn a_server_and_a_worker_share_a_database_that_is_given() {
    run(async {
        let world = World::private(|_| ()).await;
        let mut server = Process::start(world.command().args(["serve", "--http", "127.0.0.1:0"]));
        let text = server.says("serving").await;
        let address = Regex::new(r"address=127\.0\.0\.1:(\d+)").unwrap();
        let port: u16 = address.captures(&text).unwrap()[1].parse().unwrap();
        let password = world.data_dir.join("password");
        fs::create_dir_all(&world.data_dir).unwrap();
        fs::write(&password, PASSWORD).unwrap();
        let made = world
            .command()
            .args([
                "tenant",
                "create",
                "acme",
                "--owner",
                "owner@acme.test",
                "--password-stdin",
            ])
            .stdin(fs::File::open(&password).unwrap())
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");

        let owner = sign_in(port, "acme", "owner", PASSWORD).await;
        let query =
            "mutation { mediaCreateUpload(input: { resourceType: \"document\", filename: \"a.csv\",
            contentType: \"text/csv\", size: 4 }) { media { id } upload { url } } }";
        let made = gql(port, "acme", Some(&owner), query).await["mediaCreateUpload"].clone();
        let put = to(port, Method::PUT, made["upload"]["url"].as_str().unwrap());
        let put = put.await.body("a,b\n").send().await.unwrap();
        assert_eq!(put.status(), StatusCode::CREATED);
        let id = made["media"]["id"].as_str().unwrap();
        let complete = format!(
            "mutation {{ mediaCompleteUpload(input: {{ mediaId: \"{id}\" }}) {{ job {{ id state }} }} }}"
        );
        let done = gql(port, "acme", Some(&owner), &complete).await;
        assert_eq!(done["mediaCompleteUpload"]["job"]["state"], "QUEUED");

        let mut worker = Process::start(world.command().arg("worker"));
        let ready = all_ready(port, "acme", &owner, 1).await;
        let link = ready[0]["url"].as_str().unwrap();
        let read = to(port, Method::GET, link).await.send().await.unwrap();
        assert_eq!(read.text().await.unwrap(), "a,b\n");
        for process in [&mut worker, &mut server] {
            process.signal(Signal::SIGTERM);
            assert!(process.ended().await.success(), "{}", process.logged());
        }
    });
}

#[test]
fn a_taken_address_is_said_at_once() {
    run(async {
        let data_dir = directory("taken").await;
        let taken = &world().await.address;
        let refused = dev(&data_dir).args(["--http", taken]).output().unwrap();
        assert!(!refused.status.success());
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(
            said.starts_with(&format!("bulkhead: cannot listen at {taken}: "))
                && said.contains("--http"),
            "{said}"
        );
        assert!(
            !data_dir.join("postgres").exists(),
            "nothing was begun before"
        );
    });
}

#[test]
fn production_gets_no_demo_tenants() {
    run(async {
        let data_dir = directory("production").await;
        let refused = dev(&data_dir)
            .env("BULKHEAD_ENV", "production")
            .output()
            .unwrap();
        assert!(!refused.status.success());
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(said.contains("use `bulkhead serve`"), "{said}");
        assert!(!data_dir.exists(), "nothing was begun before");
    });
}

/// Runs what the summary prints, as somebody would who copies it into a shell.
async fn printed_commands_work(dev: &Dev) {
    if program("curl").is_none() {
        println!("the printed commands are not tried: there is no curl");
        return;
    }
    let commands = Regex::new(r"curl (?:.*\\\n)*.*").unwrap();
    let answers: Vec<_> = commands
        .find_iter(&dev.summary)
        .map(|command| {
            let mut shell = Command::new("sh");
            shell
                .args(["-c", command.as_str()])
                .env("no_proxy", "*")
                .env_remove("http_proxy");
            let output = shell.output().unwrap();
            serde_json::from_slice::<Value>(&output.stdout)
                .unwrap_or_else(|_| panic!("{}: {output:?}", command.as_str()))
        })
        .collect();
    let [session, device] = &answers[..] else {
        panic!("{answers:#?}");
    };
    let token = session["data"]["sessionCreate"]["token"].as_str();
    let viewer = "{ viewer { actor { ... on Member { email } } } }";
    let viewer = dev.gql("acme", token, viewer).await;
    assert_eq!(viewer["viewer"]["actor"]["email"], "owner@acme.test");
    assert_eq!(device["device"]["name"], "Demo device", "{device:#}");
}

async fn demo_data_is_there(dev: &Dev) {
    for slug in ["acme", "globex"] {
        for role in ["owner", "admin", "member", "viewer"] {
            let token = dev.sign_in(slug, role).await;
            let query = "{ tenant { slug } viewer { actor { ... on Member { email } } } }";
            let found = dev.gql(slug, Some(&token), query).await;
            assert_eq!(found["tenant"]["slug"], slug);
            let email = format!("{role}@{slug}.test");
            assert_eq!(found["viewer"]["actor"]["email"], email.as_str());
        }
        let auth = at(dev.port, slug, Method::POST, "/device/auth").await;
        let auth = auth.json(&json!({ "client_id": "DEMO-1", "pin": "49381706" }));
        assert_eq!(auth.send().await.unwrap().status(), StatusCode::OK);
        let owner = dev.sign_in(slug, "owner").await;
        for media in all_ready(dev.port, slug, &owner, 3).await {
            for link in ["url", "thumbnail"] {
                let link = media[link].as_str().unwrap();
                let read = to(dev.port, Method::GET, link).await.send().await.unwrap();
                assert_eq!(read.status(), StatusCode::OK);
                image::load_from_memory(&read.bytes().await.unwrap()).unwrap();
            }
        }
    }
}

/// Waits until the tenant's media are this many and READY.
async fn all_ready(port: u16, slug: &str, token: &str, count: usize) -> Vec<Value> {
    let query = "{ tenant { media { nodes { state filename url thumbnail } } } }";
    until("all media are READY", async || {
        let found = gql(port, slug, Some(token), query).await["tenant"]["media"]["nodes"].clone();
        let found = found.as_array().unwrap().clone();
        let ready = found.iter().filter(|media| media["state"] == "READY");
        (ready.count() == count && found.len() == count).then_some(found)
    })
    .await
}

async fn sign_in(port: u16, slug: &str, role: &str, password: &str) -> String {
    let query = format!(
        "mutation {{ sessionCreate(input: {{ email: \"{role}@{slug}.test\", password: \"{password}\" }}) {{ token }} }}"
    );
    let made = gql(port, slug, None, &query).await;
    made["sessionCreate"]["token"].as_str().unwrap().to_owned()
}

async fn gql(port: u16, slug: &str, token: Option<&str>, query: &str) -> Value {
    let mut request = at(port, slug, Method::POST, "/graphql").await;
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let request = request.json(&json!({ "query": query }));
    let answer: Value = request.send().await.unwrap().json().await.unwrap();
    assert!(answer.get("errors").is_none(), "{query}: {answer:#}");
    answer["data"].clone()
}

async fn at(port: u16, slug: &str, method: Method, path: &str) -> reqwest::RequestBuilder {
    to(
        port,
        method,
        &format!("http://{slug}.localhost:{port}{path}"),
    )
    .await
}

/// A request to this URL, whose host is not resolved.
async fn to(port: u16, method: Method, url: &str) -> reqwest::RequestBuilder {
    let mut url = reqwest::Url::parse(url).unwrap();
    let host = format!("{}:{port}", url.host_str().unwrap());
    assert_eq!(url.port(), Some(port), "{url} is not at this server");
    url.set_host(Some("127.0.0.1")).unwrap();
    let client = &world().await.client;
    client.request(method, url).header("Host", host)
}

/// `bulkhead` with a data directory, and nothing else set.
fn dev(data_dir: &Path) -> Command {
    let mut command = bare();
    command.arg("--data-dir").arg(data_dir);
    // Where the harness keeps PostgreSQL, if this machine has none and the run fetched it.
    let cache = std::env::temp_dir().join("bulkhead-cache");
    command.env("XDG_CACHE_HOME", cache);
    command
}

/// A data directory of a test's own. Every user may enter its parents, for PostgreSQL does not run as root.
async fn directory(name: &str) -> PathBuf {
    world().await.data_dir.join(name)
}

/// A zombie counts as gone: an orphan is one until init looks.
fn is_gone(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    let there = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None).is_ok();
    !there || stat.is_ok_and(|stat| stat.contains(") Z "))
}

//! What is configured where, and what each command says when it cannot begin.

use crate::harness::{SECRET_KEY, bare, bulkhead, finish, run};
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use tempfile::{TempDir, tempdir};

/// Nothing listens there.
const NOWHERE: &str = "postgres://somebody:hunter2@127.0.0.1:1/nothing";

/// A directory with this `bulkhead.toml`.
fn with_file(toml: &str) -> TempDir {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("bulkhead.toml"), toml).unwrap();
    dir
}

/// Runs the command in a directory with these variables: exit code, standard output, standard error.
fn command(dir: &Path, args: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut command = bare();
    command
        .current_dir(dir)
        .args(args)
        .envs(env.iter().copied());
    finish(&mut command, "")
}

/// What `config show` prints for a key.
#[track_caller]
fn shown(key: &str, (code, out, err): &(Option<i32>, String, String)) -> String {
    assert_eq!(*code, Some(0), "{err}");
    let mut lines = out.lines().filter_map(|line| line.split_once(' '));
    let found = lines.find(|(name, _)| *name == key);
    let (_, value) = found.unwrap_or_else(|| panic!("no {key} in {out}"));
    value.trim().to_owned()
}

/// Asserts that the command failed, saying all of this on standard error, and nothing on standard output.
#[track_caller]
fn says(words: &[&str], (code, out, err): &(Option<i32>, String, String)) {
    assert_eq!(*code, Some(1), "{out}{err}");
    assert!(err.starts_with("bulkhead: "), "{err}");
    assert!(!err.contains("panicked"), "{err}");
    assert_eq!(out, "");
    for word in words {
        assert!(err.contains(word), "{word:?} is not in {err}");
    }
}

const SHOW: &[&str] = &["config", "show"];

#[test]
fn show_masks_every_secret() {
    let dir = tempdir().unwrap();
    let secrets = [
        ("DATABASE_URL", NOWHERE),
        (
            "BULKHEAD_SECRET_KEY",
            "the-key-that-nobody-must-ever-see-on-a-screen",
        ),
        ("BULKHEAD_MEDIA_AZURE_KEY", "c2VjcmV0LWF6dXJlLWtleQ=="),
        ("BULKHEAD_DIRECT_URL", "postgres://b:hunter2@db.internal/b"),
        ("BULKHEAD_MAIL__PASSWORD", "what-opens-the-mail-server"),
        ("BULKHEAD_MAIL__USERNAME", "us"),
    ];
    let done = command(dir.path(), SHOW, &secrets);
    for key in [
        "database_url",
        "direct_url",
        "secret_key",
        "media_azure_key",
        "mail.password",
    ] {
        assert_eq!(shown(key, &done), "********");
    }
    for (_, secret) in &secrets[..5] {
        assert!(!done.1.contains(secret) && !done.2.contains(secret));
    }
    assert!(!done.1.contains("hunter2"));
    let unset = command(dir.path(), SHOW, &[]);
    assert_eq!(shown("secret_key", &unset), "-");
    let stream = [
        ("BULKHEAD_AUDIT_STREAM__URL", "https://siem.example.com"),
        ("BULKHEAD_AUDIT_STREAM__TOKEN", "hunter3"),
    ];
    let done = command(dir.path(), SHOW, &stream);
    assert_eq!(shown("audit_stream.token", &done), "********");
}

#[test]
fn show_prints_every_key_with_its_default() {
    let dir = tempdir().unwrap();
    let done = command(dir.path(), SHOW, &[]);
    for (key, value) in [
        ("env", "development"),
        ("http", "127.0.0.1:8080"),
        ("base_domains", "localhost"),
        ("data_dir", ".bulkhead"),
        ("max_connections", "16"),
        ("cells", "4"),
        ("pooler", "false"),
        ("direct_url", "-"),
        ("statement_timeout_ms", "10000"),
        ("media_max_bytes", "104857600"),
        ("worker_concurrency", "4"),
        ("log_format", "text"),
        ("document_limits.complexity", "5000"),
        ("document_limits.arguments", "20"),
        ("document_limits.variable_values", "2000"),
        ("rate_limits.sign_in", "-"),
        ("breaker_failures", "-"),
        ("mail.tls", "starttls"),
        ("metrics_listen", "-"),
    ] {
        assert_eq!(shown(key, &done), value);
    }
}

#[test]
fn a_flag_is_over_the_environment_is_over_the_file() {
    let dir = with_file("http = \"127.0.0.1:1001\"\nmax_connections = 7\n");
    let env: &[(&str, &str)] = &[("BULKHEAD_HTTP", "127.0.0.1:1002")];
    let flag = ["config", "show", "--http", "127.0.0.1:1003"];
    let file_alone = command(dir.path(), SHOW, &[]);
    assert_eq!(shown("http", &file_alone), "127.0.0.1:1001");
    assert_eq!(shown("max_connections", &file_alone), "7");
    let with_env = command(dir.path(), SHOW, env);
    assert_eq!(shown("http", &with_env), "127.0.0.1:1002");
    assert_eq!(shown("max_connections", &with_env), "7");
    let with_flag = command(dir.path(), &flag, env);
    assert_eq!(shown("http", &with_flag), "127.0.0.1:1003");

    let elsewhere = tempdir().unwrap();
    let path = dir.path().join("bulkhead.toml").display().to_string();
    let named = ["--config", &path, "config", "show"];
    let named = command(elsewhere.path(), &named, &[]);
    assert_eq!(shown("http", &named), "127.0.0.1:1001");
    let missing = ["--config", "missing.toml", "config", "show"];
    says(&["missing.toml"], &command(elsewhere.path(), &missing, &[]));
}

#[test]
fn values_of_the_environment_are_taken_as_they_are() {
    let dir = tempdir().unwrap();
    let env = [
        ("BULKHEAD_BASE_DOMAINS", "app.example.com,localhost"),
        ("BULKHEAD_MEDIA_AZURE_ACCOUNT", "0042"),
        ("BULKHEAD_MEDIA_URL", "1e3"),
        ("BULKHEAD_LOG", "true"),
        ("BULKHEAD_DATA_DIR", "007"),
        ("BULKHEAD_STATEMENT_TIMEOUT_MS", "1500"),
        ("BULKHEAD_TRUSTED_PROXIES", "10.0.0.0/8,fd00::/8"),
        ("BULKHEAD_DNS_SERVERS", "9.9.9.9:53,[2620:fe::fe]:53"),
    ];
    let done = command(dir.path(), SHOW, &env);
    for (variable, value) in env {
        let key = variable.strip_prefix("BULKHEAD_").unwrap().to_lowercase();
        assert_eq!(shown(&key, &done), value);
    }
    let one = [("BULKHEAD_BASE_DOMAINS", "app.example.com")];
    let done = command(dir.path(), SHOW, &one);
    assert_eq!(shown("base_domains", &done), "app.example.com");
    let one = [
        ("BULKHEAD_TRUSTED_PROXIES", "10.0.0.7"),
        ("BULKHEAD_DNS_SERVERS", ""),
    ];
    let done = command(dir.path(), SHOW, &one);
    assert_eq!(shown("trusted_proxies", &done), "10.0.0.7/32");
    assert_eq!(shown("dns_servers", &done), "-");
    let file = with_file("trusted_proxies = [\"10.0.0.7\", \"192.168.0.0/16\"]\n");
    let done = command(file.path(), SHOW, &[]);
    let networks = "10.0.0.7/32,192.168.0.0/16";
    assert_eq!(shown("trusted_proxies", &done), networks);
}

#[test]
fn a_key_of_a_group_is_set_by_its_name() {
    let dir = with_file("[document_limits]\ndepth = 9\n[rate_limits]\nmember = 7\n");
    let env = [
        ("BULKHEAD_DOCUMENT_LIMITS__ROOT_FIELDS", "8"),
        ("BULKHEAD_RATE_LIMITS__MEMBER", "6"),
    ];
    let done = command(dir.path(), SHOW, &env);
    assert_eq!(shown("document_limits.depth", &done), "9");
    assert_eq!(shown("document_limits.root_fields", &done), "8");
    assert_eq!(shown("document_limits.tokens", &done), "2000");
    assert_eq!(shown("rate_limits.member", &done), "6");
    assert_eq!(shown("rate_limits.device", &done), "-");
    let misspelt = command(dir.path(), SHOW, &[("BULKHEAD_RATE_LIMITS__MEMBERS", "6")]);
    says(&["members"], &misspelt);
    let none = command(dir.path(), SHOW, &[("BULKHEAD_RATE_LIMITS__DEVICE", "0")]);
    says(&["rate_limits", "at least 1"], &none);
}

#[test]
fn an_unknown_key_is_refused_by_name() {
    let dir = with_file("htttp = \"127.0.0.1:1001\"\n");
    says(&["htttp"], &command(dir.path(), SHOW, &[]));
    let dir = tempdir().unwrap();
    let misspelt = command(dir.path(), SHOW, &[("BULKHEAD_MAX_CONECTIONS", "9")]);
    says(&["max_conections"], &misspelt);
    // Others' variables are theirs.
    let done = command(dir.path(), SHOW, &[("BULK", "1"), ("XBULKHEAD_HTTP", "2")]);
    assert_eq!(done.0, Some(0), "{}", done.2);
}

#[test]
fn a_bad_value_is_refused_with_its_key() {
    let dir = tempdir().unwrap();
    for (variable, value, words) in [
        ("BULKHEAD_HTTP", "nonsense", ["http", "socket address"]),
        (
            "BULKHEAD_MAX_CONNECTIONS",
            "many",
            ["max_connections", "many"],
        ),
        (
            "BULKHEAD_MAX_CONNECTIONS",
            "0",
            ["max_connections", "at least 1"],
        ),
        ("BULKHEAD_MAX_CONNECTIONS", "-5", ["max_connections", "-5"]),
        ("BULKHEAD_CELLS", "0", ["cells", "1 to 1000"]),
        ("BULKHEAD_POOLER", "true", ["direct_url", "database_url"]),
        (
            "BULKHEAD_WORKER_CONCURRENCY",
            "0",
            ["worker_concurrency", "at least 1"],
        ),
        (
            "BULKHEAD_JOB_DAYS",
            "4000000000",
            ["job_days", "at most 36500"],
        ),
        ("BULKHEAD_ENV", "staging", ["env", "staging"]),
        (
            "BULKHEAD_BASE_DOMAINS",
            "App.Example.com",
            ["base_domains", "lower-case"],
        ),
        ("BULKHEAD_BASE_DOMAINS", "", ["base_domains", "lower-case"]),
        (
            "BULKHEAD_TRUSTED_PROXIES",
            "10.0.0.7,proxy.internal",
            ["trusted_proxies", "proxy.internal"],
        ),
        (
            "BULKHEAD_DNS_SERVERS",
            "9.9.9.9",
            ["dns_servers", "socket address"],
        ),
        ("BULKHEAD_LOG", "==", ["BULKHEAD_LOG", "info"]),
        (
            "BULKHEAD_AUDIT_STREAM__URL",
            "siem.internal",
            ["audit_stream.url", "https://"],
        ),
        (
            "BULKHEAD_AUDIT_STREAM__TOKEN",
            "alone",
            ["audit_stream.token", "url"],
        ),
    ] {
        says(&words, &command(dir.path(), SHOW, &[(variable, value)]));
    }
}

#[test]
fn a_bad_file_is_refused_with_its_key_or_its_name() {
    let dir = with_file("max_connections = \"many\"\n");
    says(&["max_connections"], &command(dir.path(), SHOW, &[]));
    let dir = with_file("max_connections\n");
    says(&["bulkhead.toml"], &command(dir.path(), SHOW, &[]));
}

#[test]
fn a_given_database_needs_a_given_key() {
    let dir = tempdir().unwrap();
    let database = ("DATABASE_URL", NOWHERE);
    for args in [
        &["serve"][..],
        &["worker"],
        &["tenant", "list"],
        &["hardening"],
    ] {
        let done = command(dir.path(), args, &[database]);
        says(&["BULKHEAD_SECRET_KEY", "openssl rand -hex 32"], &done);
    }
    let short = [database, ("BULKHEAD_SECRET_KEY", "too-short")];
    let done = command(dir.path(), &["serve"], &short);
    says(&["BULKHEAD_SECRET_KEY", "32 characters"], &done);
    assert!(!done.2.contains("too-short"));
    assert!(fs::read_dir(dir.path()).unwrap().next().is_none());
}

#[test]
fn dev_is_not_for_production() {
    let dir = tempdir().unwrap();
    let production = [("BULKHEAD_ENV", "production")];
    for args in [&["dev"][..], &[]] {
        let done = command(dir.path(), args, &production);
        says(&["BULKHEAD_ENV=production", "bulkhead serve"], &done);
    }
    assert!(fs::read_dir(dir.path()).unwrap().next().is_none());
}

#[test]
fn an_address_in_use_is_said_first() {
    let dir = tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let env = [
        ("DATABASE_URL", NOWHERE),
        ("BULKHEAD_SECRET_KEY", SECRET_KEY),
    ];
    let done = command(dir.path(), &["serve", "--http", &address], &env);
    says(&[&address, "in use", "--http"], &done);
    let done = command(dir.path(), &["dev", "--http", &address], &env);
    says(&[&address, "in use", "--http"], &done);
}

#[test]
fn a_database_that_cannot_be_reached_is_named_without_its_password() {
    let dir = tempdir().unwrap();
    let key = ("BULKHEAD_SECRET_KEY", SECRET_KEY);
    for variable in ["DATABASE_URL", "BULKHEAD_DATABASE_URL"] {
        let done = command(dir.path(), &["tenant", "list"], &[(variable, NOWHERE), key]);
        says(&["127.0.0.1:1", "as somebody"], &done);
        assert!(!done.2.contains("hunter2"), "{}", done.2);
    }
    let malformed = ("DATABASE_URL", "not a url, hunter2");
    let done = command(dir.path(), &["tenant", "list"], &[malformed, key]);
    says(&["DATABASE_URL"], &done);
    assert!(!done.2.contains("hunter2"), "{}", done.2);
}

#[test]
fn of_two_databases_the_one_named_more_closely_is_used() {
    let url = |port: u32| format!("postgres://somebody@127.0.0.1:{port}/nothing");
    let dir = with_file(&format!("database_url = \"{}\"\n", url(1)));
    let key = ("BULKHEAD_SECRET_KEY", SECRET_KEY);
    let list = &["tenant", "list"];
    says(&["127.0.0.1:1 "], &command(dir.path(), list, &[key]));
    // The environment is over the file, whatever the variable.
    let (two, three) = (url(2), url(3));
    let general = ("DATABASE_URL", two.as_str());
    let done = command(dir.path(), list, &[key, general]);
    says(&["127.0.0.1:2 "], &done);
    let own = ("BULKHEAD_DATABASE_URL", three.as_str());
    let done = command(dir.path(), list, &[key, general, own]);
    says(&["127.0.0.1:3 "], &done);
}

#[test]
fn both_variables_reach_the_database() {
    run(async {
        let url = &crate::harness::world().await.database_url;
        for variable in ["DATABASE_URL", "BULKHEAD_DATABASE_URL"] {
            let mut command = bulkhead().await;
            command.env_remove("DATABASE_URL").env(variable, url);
            let (code, _, err) = finish(command.args(["tenant", "list"]), "");
            assert_eq!(code, Some(0), "{variable}: {err}");
        }
    });
}

#[test]
fn media_in_azure_need_no_more_than_their_keys() {
    run(async {
        let mut command = bulkhead().await;
        command
            .env("BULKHEAD_MEDIA_URL", "azure://media")
            .env("BULKHEAD_MEDIA_AZURE_ACCOUNT", "devstoreaccount1")
            .env("BULKHEAD_MEDIA_AZURE_KEY", "c2VjcmV0LWF6dXJlLWtleQ==")
            .env(
                "BULKHEAD_MEDIA_AZURE_ENDPOINT",
                "https://127.0.0.1:1/devstoreaccount1",
            );
        let (code, _, err) = finish(command.args(["tenant", "list"]), "");
        assert_eq!(code, Some(0), "{err}");
        let mut command = bulkhead().await;
        command.env("BULKHEAD_MEDIA_URL", "s3://media");
        let done = finish(command.args(["tenant", "list"]), "");
        says(&["BULKHEAD_MEDIA_URL", "s3://", "azure://"], &done);
    });
}

#[test]
fn schema_prints_the_committed_schema() {
    // Whatever is configured: it is for a pipeline that has nothing.
    let dir = with_file("htttp = 1\n");
    let (code, out, err) = command(dir.path(), &["schema"], &[]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out == include_str!("../../schema.graphql"));
}

#[test]
fn what_is_no_command_is_refused_with_the_usage() {
    let dir = tempdir().unwrap();
    for args in [
        &["severe"][..],
        &["serve", "--wroker"],
        &["--http", "nonsense"],
    ] {
        let (code, out, err) = command(dir.path(), args, &[]);
        assert_eq!(code, Some(2), "{err}");
        assert_eq!(out, "");
        assert!(err.contains(args.last().unwrap()), "{err}");
    }
    let (code, out, _) = command(dir.path(), &["--version"], &[]);
    assert_eq!(code, Some(0));
    assert_eq!(out.trim(), concat!("bulkhead ", env!("CARGO_PKG_VERSION")));
}

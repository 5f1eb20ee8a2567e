//! Media on disk: what an upload becomes, what is refused and how it is said, what a link allows.

mod links;
mod processing;
mod sweeping;
mod uploads;

use crate::harness::{Answer, Tenant, until};
use bulkhead::graphql::parse_global_id;
use bulkhead::identity::BuiltIn;
use reqwest::Method;
use serde_json::{Value, json};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use uuid::Uuid;

const CSV: &[u8] = b"a,b\n1,2\n";

async fn tenant() -> (Tenant, String) {
    let tenant = Tenant::new().await;
    let owner = tenant.token(BuiltIn::Owner).await;
    (tenant, owner)
}

/// The input of an upload of [`CSV`], with some of it changed.
fn input(changes: Value) -> Value {
    let mut input = json!({ "resourceType": "photo", "filename": "a.csv", "contentType": "text/csv", "size": 8 });
    for (name, value) in changes.as_object().unwrap() {
        input[name] = value.clone();
    }
    input
}

fn id_of(made: &Value) -> &str {
    made["media"]["id"]
        .as_str()
        .unwrap_or_else(|| panic!("{made:#}"))
}

fn url_of(made: &Value) -> &str {
    made["upload"]["url"].as_str().unwrap()
}

async fn put(tenant: &Tenant, made: &Value, bytes: &[u8]) -> Answer {
    let request = tenant
        .follow(Method::PUT, url_of(made))
        .body(bytes.to_vec());
    tenant.send(request).await
}

/// Completes the upload and waits for the job.
async fn complete(tenant: &Tenant, token: &str, made: &Value) -> Value {
    let done = tenant.complete_upload(token, id_of(made)).await;
    assert_eq!(done["media"]["state"], "PROCESSING", "{done:#}");
    tenant.processed(token, id_of(made)).await
}

fn uuid(id: &str) -> Uuid {
    parse_global_id(id).unwrap().1
}

/// The tenant's directory in the store.
fn prefix(tenant: &Tenant) -> PathBuf {
    tenant.world.data_dir.join("media").join(&tenant.slug)
}

/// All files below, sorted.
fn files(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() {
            let below = files(&entry.path());
            found.extend(below.into_iter().map(|file| format!("{name}/{file}")));
        } else {
            found.push(name);
        }
    }
    found.sort();
    found
}

/// Waits until the tenant has these files, thumbnails aside, and no others: a job's last step comes after its commit.
async fn only_left(tenant: &Tenant, wanted: &[String]) {
    until(&format!("only {wanted:?} are left"), async || {
        let mut files = files(&prefix(tenant));
        files.retain(|file| !file.starts_with("thumbnail-"));
        (files == wanted).then_some(())
    })
    .await;
}

fn host(tenant: &Tenant) -> String {
    let port = tenant.world.address.rsplit_once(':').unwrap().1;
    format!("{}.localhost:{port}", tenant.slug)
}

/// A request as it is written here, for what a client would tidy up: its status, and all of the answer.
fn raw(tenant: &Tenant, line: &str, rest: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(&tenant.world.address).unwrap();
    let request = format!(
        "{line} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{rest}",
        host(tenant)
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // What the server did not want to read may end the connection hard; the answer came before that.
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    (status.unwrap_or_default(), answer)
}

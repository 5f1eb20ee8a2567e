//! Media in Azure Blob Storage, as Azurite plays it: uploads and reads go by links that the store itself checks.
//!
//! Azurite comes from npm. Where there is neither, these tests say so and check nothing.

use crate::harness::{Process, Tenant, World, program, run, until};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bulkhead::app::clone_tenant;
use bulkhead::graphql::parse_global_id;
use bulkhead::identity::BuiltIn;
use bulkhead::tenancy::{self, Act, NewTenant, erase, lifecycle};
use futures::TryStreamExt as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use image::{ImageFormat, RgbImage};
use object_store::path::Path;
use reqwest::{Client, Method, StatusCode, Url};
use secrecy::SecretString;
use serde_json::{Value, json};
use sha2::Sha256;
use std::io::Cursor;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

/// What every Azurite knows, and nothing else does.
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
const CONTAINER: &str = "media";

/// One test, for Azurite ends with it.
#[test]
fn media_in_azure() {
    run(async {
        let Some((_azurite, world)) = start().await else {
            return;
        };
        an_upload_goes_to_the_store_and_is_read_from_it(tenant(world).await).await;
        a_link_allows_one_thing_for_an_hour(tenant(world).await).await;
        what_the_store_took_is_looked_at_all_the_same(tenant(world).await).await;
        bytes_that_come_too_late_change_nothing(tenant(world).await).await;
        a_clone_has_its_objects_however_often_they_are_copied(tenant(world).await).await;
        an_erasure_outlasts_the_links(tenant(world).await).await;
    });
}

async fn an_upload_goes_to_the_store_and_is_read_from_it((tenant, owner): (Tenant, String)) {
    let bytes = png();
    let made = begin(&tenant, &owner, "gate.png", "image/png", bytes.len()).await;
    let target = made["upload"]["url"].as_str().unwrap();
    let id = made["media"]["id"].as_str().unwrap();
    let uuid = parse_global_id(id).unwrap().1;
    let slug = &tenant.slug;
    let endpoint = endpoint(&tenant);
    assert!(
        target.starts_with(&format!("{endpoint}/{CONTAINER}/{slug}/upload/{uuid}.bin?")),
        "{target}"
    );
    assert_eq!(
        put(&tenant, &made, bytes.clone()).await,
        StatusCode::CREATED
    );
    let done = tenant.complete_upload(&owner, id).await;
    assert_eq!(done["media"]["state"], "PROCESSING", "{done:#}");
    let ready = tenant.processed(&owner, id).await;
    assert_eq!(ready["state"], "READY", "{ready:#}");

    let link = ready["url"].as_str().unwrap();
    let place = format!("{endpoint}/{CONTAINER}/{slug}/photo/{uuid}.png?");
    assert!(link.starts_with(&place), "{link}");
    let read = client(&tenant).get(link).send().await.unwrap();
    assert_eq!(read.status(), StatusCode::OK);
    assert_eq!(read.bytes().await.unwrap(), bytes);
    let small = ready["thumbnail"].as_str().unwrap();
    let small = client(&tenant).get(small).send().await.unwrap();
    let small = image::load_from_memory(&small.bytes().await.unwrap()).unwrap();
    assert_eq!((small.width(), small.height()), (128, 85));
    let wanted = [
        format!("{slug}/photo/{uuid}.png"),
        format!("{slug}/thumbnail-large/{uuid}.jpg"),
        format!("{slug}/thumbnail-medium/{uuid}.jpg"),
        format!("{slug}/thumbnail-small/{uuid}.jpg"),
    ];
    until("the store has these and no others", async || {
        (objects(&tenant).await == wanted).then_some(())
    })
    .await;
}

async fn a_link_allows_one_thing_for_an_hour((tenant, owner): (Tenant, String)) {
    let [first, second] = [file(&tenant, &owner).await, file(&tenant, &owner).await];
    let client = client(&tenant);
    let link = first["url"].as_str().unwrap();
    assert_eq!(client.get(link).send().await.unwrap().status(), 200);
    let now = tenant.world.app.services.database.clock().now();
    for link in [link, first["upload"].as_str().unwrap()] {
        let ends = chrono::DateTime::parse_from_rfc3339(&parameter(link, "se")).unwrap();
        let left = ends.to_utc() - now;
        assert!(
            left > chrono::Duration::zero() && left <= chrono::Duration::hours(1),
            "{left} is left of {link}"
        );
    }
    let sig = parameter(link, "sig");
    let other = second["url"].as_str().unwrap();
    let (place, query) = link.split_once('?').unwrap();
    for changed in [
        place.to_owned(),
        with(link, "sig", &STANDARD.encode([7; 32])),
        with(link, "se", "2099-01-01T00:00:00Z"),
        with(link, "sp", "rw"),
        format!("{}?{query}", other.split_once('?').unwrap().0),
        with(first["upload"].as_str().unwrap(), "sig", &sig),
        first["upload"].as_str().unwrap().to_owned(),
    ] {
        let read = client.get(&changed).send().await.unwrap();
        assert!(
            matches!(read.status().as_u16(), 403 | 404),
            "{changed}: {}",
            read.status()
        );
    }
    let write = client.put(link).header("x-ms-blob-type", "BlockBlob");
    assert_eq!(write.body("other").send().await.unwrap().status(), 403);
    let remove = client.delete(link).send().await.unwrap();
    assert_eq!(remove.status(), 403);
    let list = format!(
        "{}/{CONTAINER}?restype=container&comp=list&{query}",
        endpoint(&tenant)
    );
    assert_eq!(client.get(list).send().await.unwrap().status(), 403);
    let read = client.get(link).send().await.unwrap();
    assert_eq!(read.text().await.unwrap(), "a,b\n");
}

async fn what_the_store_took_is_looked_at_all_the_same((tenant, owner): (Tenant, String)) {
    let page = b"<!DOCTYPE html><script>alert(1)</script>".to_vec();
    let cases = [
        (
            b"a,b\n1,2\n".to_vec(),
            4,
            "The upload has 8 bytes, not the 4 that were announced.",
        ),
        (
            page.clone(),
            page.len(),
            "This type is not supported; use image/jpeg",
        ),
    ];
    for (bytes, announced, failure) in cases {
        let made = begin(&tenant, &owner, "a.csv", "text/csv", announced).await;
        let id = made["media"]["id"].as_str().unwrap();
        let early = tenant.complete_upload(&owner, id).await;
        assert_eq!(
            early["errors"][0]["message"],
            "Nothing was uploaded yet: PUT the bytes to the upload's url first."
        );
        assert_eq!(put(&tenant, &made, bytes).await, StatusCode::CREATED);
        tenant.complete_upload(&owner, id).await;
        let media = tenant.processed(&owner, id).await;
        assert_eq!(media["state"], "FAILED", "{media:#}");
        let told = media["failure"].as_str().unwrap();
        assert!(told.starts_with(failure), "{told}");
    }
    until("nothing is left", async || {
        objects(&tenant).await.is_empty().then_some(())
    })
    .await;
}

/// The link that was written to goes on working until its hour is over; what it writes then reaches nobody.
async fn bytes_that_come_too_late_change_nothing((tenant, owner): (Tenant, String)) {
    let media = file(&tenant, &owner).await;
    let made = json!({ "upload": { "url": media["upload"], "headers": [{ "name": "x-ms-blob-type", "value": "BlockBlob" }] } });
    put(&tenant, &made, b"x,y\n".to_vec()).await;
    let id = media["id"].as_str().unwrap();
    let again = tenant.complete_upload(&owner, id).await;
    assert_eq!(
        again["errors"][0]["message"],
        "This upload was completed already."
    );
    let link = media["url"].as_str().unwrap();
    let read = client(&tenant).get(link).send().await.unwrap();
    assert_eq!(read.text().await.unwrap(), "a,b\n");
}

/// The store takes what is sent by a link whatever became of the tenant: the erasure is not over before the last link is.
async fn a_clone_has_its_objects_however_often_they_are_copied((tenant, owner): (Tenant, String)) {
    file(&tenant, &owner).await;
    let services = &tenant.world.app.services;
    let new = NewTenant {
        slug: format!("{}-copy", tenant.slug),
        name: "A copy".to_owned(),
        act: Act::by("tests"),
    };
    let row = clone_tenant(services, &tenant.slug, new, || {})
        .await
        .unwrap();
    let copy = Tenant {
        slug: row.slug.clone(),
        row: Arc::new(row),
        world: tenant.world,
    };
    let there = objects(&copy).await;
    assert!(!there.is_empty());
    for key in &there {
        let source = Path::from(key.replacen(&copy.slug, &tenant.slug, 1));
        services.store.copy(&source, &copy.row).await.unwrap();
    }
    assert_eq!(objects(&copy).await, there);
}

async fn an_erasure_outlasts_the_links((tenant, owner): (Tenant, String)) {
    let made = begin(&tenant, &owner, "a.csv", "text/csv", 4).await;
    let services = &tenant.world.app.services;
    let (database, store) = (&services.database, &services.store);
    let act = Act::by("ops");
    lifecycle::archive(database, &tenant.slug, &act)
        .await
        .unwrap();
    erase::begin(database, &tenant.slug, &act).await.unwrap();
    let erased = erase::go_on(database, store, tenant.row.id, |_| {}).await;
    assert_eq!(erased.unwrap().finished_at, None);
    assert_eq!(
        put(&tenant, &made, b"a,b\n".to_vec()).await,
        StatusCode::CREATED
    );
    assert_eq!(objects(&tenant).await.len(), 1);

    let later = "UPDATE bulkhead.tenant SET state_since = state_since - interval '66 minutes' WHERE id = $1";
    let later = sqlx::query(later).bind(tenant.row.id);
    later
        .execute(&mut tenant.world.superuser().await)
        .await
        .unwrap();
    erase::resume(database, store).await.unwrap();
    assert_eq!(objects(&tenant).await, Vec::<String>::new());
    let tx = database.platform().await.unwrap();
    let erased = erase::certificates(&tx).await.unwrap();
    assert!(erased[0].finished_at.is_some());
    assert_eq!(tenancy::by_slug(&tx, &tenant.slug).await.unwrap(), None);
    tx.commit().await.unwrap();
}

/// A tenant whose media are in Azurite, and its owner's token.
async fn tenant(world: &'static World) -> (Tenant, String) {
    let tenant = Tenant::of(world).await;
    let owner = tenant.token(BuiltIn::Owner).await;
    (tenant, owner)
}

/// Azurite, and a world whose media are there; nothing where it cannot be had.
async fn start() -> Option<(Process, &'static World)> {
    let Some(azurite) = azurite() else {
        println!("Azure is not tested: there is neither azurite-blob nor an npm that can fetch it");
        return None;
    };
    let mut command = Command::new(azurite);
    command.args(["--blobHost", "127.0.0.1", "--blobPort", "0"]);
    command.args([
        "--inMemoryPersistence",
        "--disableTelemetry",
        "--skipApiVersionCheck",
    ]);
    let mut azurite = Process::start(&mut command);
    let listens = "successfully listens on http://";
    let said = azurite.says(listens).await;
    let address = said.split_once(listens).unwrap().1;
    let address = address.split_whitespace().next().unwrap();
    let endpoint = format!("http://{address}/{ACCOUNT}");
    let world = World::private(|config| {
        config.media_url = Some(format!("azure://{CONTAINER}"));
        config.media_azure_account = Some(ACCOUNT.to_owned());
        config.media_azure_key = Some(SecretString::from(KEY));
        config.media_azure_endpoint = Some(endpoint.clone());
    })
    .await;
    create_container(world, &endpoint).await;
    drop(world.app.worker().await);
    Some((azurite, world))
}

/// Azurite: installed, fetched before, or fetched now.
fn azurite() -> Option<PathBuf> {
    if let Some(installed) = program("azurite-blob") {
        return Some(installed);
    }
    let target = std::path::Path::new(env!("CARGO_BIN_EXE_bulkhead"));
    let directory = target.parent()?.parent()?.join("azurite");
    let fetched = directory.join("node_modules/.bin/azurite-blob");
    if !fetched.exists() {
        // Two runs may do so at once; a half of it is never taken for the whole.
        let half = directory.with_extension(std::process::id().to_string());
        std::fs::create_dir_all(&half).ok()?;
        let npm = Command::new(program("npm")?)
            .args(["install", "--no-audit", "--no-fund", "azurite@3"])
            .arg("--prefix")
            .arg(&half)
            .output()
            .ok()?;
        if !npm.status.success() {
            println!("{}", String::from_utf8_lossy(&npm.stderr));
        }
        let _ = std::fs::rename(&half, &directory);
        let _ = std::fs::remove_dir_all(&half);
    }
    fetched.exists().then_some(fetched)
}

/// Create Container, signed with the account's key ("Authorize with Shared Key", the Blob service's string to sign).
async fn create_container(world: &World, endpoint: &str) {
    let now = world.app.services.database.clock().now();
    let date = now.format("%a, %d %b %Y %H:%M:%S GMT");
    let version = "2021-08-06";
    let signed = format!(
        "PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:{date}\nx-ms-version:{version}\n/{ACCOUNT}/{ACCOUNT}/{CONTAINER}\nrestype:container"
    );
    let mut mac = Hmac::<Sha256>::new_from_slice(&STANDARD.decode(KEY).unwrap()).unwrap();
    mac.update(signed.as_bytes());
    let signature = STANDARD.encode(mac.finalize().into_bytes());
    let made = world
        .client
        .put(format!("{endpoint}/{CONTAINER}?restype=container"))
        .header("x-ms-date", date.to_string())
        .header("x-ms-version", version)
        .header("Authorization", format!("SharedKey {ACCOUNT}:{signature}"))
        .header("Content-Length", 0)
        .send()
        .await
        .unwrap();
    assert_eq!(made.status(), StatusCode::CREATED);
}

fn endpoint(tenant: &Tenant) -> &str {
    let config = &tenant.world.app.services.config;
    config.media_azure_endpoint.as_deref().unwrap()
}

fn client(tenant: &Tenant) -> &Client {
    &tenant.world.client
}

async fn begin(tenant: &Tenant, token: &str, filename: &str, mime: &str, size: usize) -> Value {
    let input =
        json!({ "resourceType": "photo", "filename": filename, "contentType": mime, "size": size });
    tenant.create_upload(token, input).await
}

/// Sends the bytes as the answer says: by its method, with its headers.
async fn put(tenant: &Tenant, made: &Value, bytes: Vec<u8>) -> StatusCode {
    let url = made["upload"]["url"].as_str().unwrap();
    let mut request = client(tenant).request(Method::PUT, url).body(bytes);
    for header in made["upload"]["headers"].as_array().unwrap() {
        request = request.header(
            header["name"].as_str().unwrap(),
            header["value"].as_str().unwrap(),
        );
    }
    request.send().await.unwrap().status()
}

/// A small file that is READY, with the link that it was written by.
async fn file(tenant: &Tenant, token: &str) -> Value {
    let made = begin(tenant, token, "a.csv", "text/csv", 4).await;
    let id = made["media"]["id"].as_str().unwrap();
    assert_eq!(
        put(tenant, &made, b"a,b\n".to_vec()).await,
        StatusCode::CREATED
    );
    tenant.complete_upload(token, id).await;
    let mut media = tenant.processed(token, id).await;
    assert_eq!(media["state"], "READY", "{media:#}");
    media["upload"] = made["upload"]["url"].clone();
    media
}

/// The keys of the tenant's objects, sorted.
async fn objects(tenant: &Tenant) -> Vec<String> {
    let store = tenant.world.app.services.store.objects();
    let prefix = Path::from(tenant.slug.as_str());
    let found: Vec<_> = store.list(Some(&prefix)).try_collect().await.unwrap();
    let mut keys: Vec<_> = found
        .into_iter()
        .map(|object| object.location.to_string())
        .collect();
    keys.sort();
    keys
}

fn parameter(link: &str, name: &str) -> String {
    let url = Url::parse(link).unwrap();
    let found = url.query_pairs().find(|(key, _)| key == name).unwrap();
    found.1.into_owned()
}

/// The link with another value of a parameter.
fn with(link: &str, name: &str, value: &str) -> String {
    let mut url = Url::parse(link).unwrap();
    let pairs: Vec<_> = url.query_pairs().into_owned().collect();
    let mut query = url.query_pairs_mut();
    query.clear();
    for (key, old) in pairs {
        let new = if key == name { value } else { &old };
        query.append_pair(&key, new);
    }
    drop(query);
    url.into()
}

fn png() -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    RgbImage::new(300, 200)
        .write_to(&mut bytes, ImageFormat::Png)
        .unwrap();
    bytes.into_inner()
}

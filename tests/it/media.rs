//! Media on disk: what an upload becomes, what is refused and how it is said, what a link allows.

use crate::harness::{Answer, Tenant, run, until};
use bulkhead::graphql::parse_global_id;
use bulkhead::identity::BuiltIn;
use bulkhead::media::sign;
use bulkhead::media::store::Key;
use image::{DynamicImage, GenericImageView as _, ImageFormat, RgbImage, RgbaImage};
use reqwest::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::fs;
use std::io::{Cursor, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use uuid::Uuid;

const CSV: &[u8] = b"a,b\n1,2\n";

#[test]
fn a_picture_gets_its_thumbnails_and_lies_where_it_is_said_to() {
    run(async {
        let (tenant, owner) = tenant().await;
        let opaque = DynamicImage::from(RgbImage::new(1600, 900));
        let clear = DynamicImage::from(RgbaImage::new(40, 600));
        let sizes = [
            (opaque, "jpg", [(128, 72), (512, 288), (1280, 720)]),
            (clear, "png", [(9, 128), (34, 512), (40, 600)]),
        ];
        for (image, ext, expected) in sizes {
            let id = tenant
                .send_file(&owner, "a.png", "image/png", &png(&image))
                .await;
            let media = tenant.processed(&owner, &id).await;
            assert_eq!(media["state"], "READY", "{media:#}");
            assert_eq!(thumbnails(&tenant, &owner, &id, ext).await, expected);
            let uuid = uuid(&id);
            until("staging is gone", async || {
                let wanted = [
                    format!("photo/{uuid}.png"),
                    format!("thumbnail-large/{uuid}.{ext}"),
                    format!("thumbnail-medium/{uuid}.{ext}"),
                    format!("thumbnail-small/{uuid}.{ext}"),
                ];
                (files(&prefix(&tenant)) == wanted).then_some(())
            })
            .await;
            fs::remove_dir_all(prefix(&tenant)).unwrap();
        }
    });
}

#[test]
fn other_files_are_kept_as_they_are() {
    run(async {
        let (tenant, owner) = tenant().await;
        let pdf = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<<>>\nendobj\n";
        let cases: [(&str, &str, &[u8], &str); 3] = [
            (
                "a \"b\"; 名\u{2028}.csv",
                "text/csv",
                CSV,
                "attachment; filename*=UTF-8''a%20%22b%22%3B%20%E5%90%8D%E2%80%A8.csv",
            ),
            (
                "a.pdf",
                "application/pdf",
                pdf,
                "inline; filename*=UTF-8''a.pdf",
            ),
            (
                "100%.json",
                "application/json",
                b"{}",
                "attachment; filename*=UTF-8''100%25.json",
            ),
        ];
        for (filename, mime, bytes, disposition) in cases {
            let id = tenant.send_file(&owner, filename, mime, bytes).await;
            let media = tenant.processed(&owner, &id).await;
            assert_eq!(media["state"], "READY", "{media:#}");
            assert_eq!(media["filename"], filename);
            assert_eq!(media["contentType"], mime);
            assert_eq!(media["thumbnail"], Value::Null);
            let url = media["url"].as_str().unwrap();
            let read = tenant.follow(Method::GET, url).send().await.unwrap();
            assert_eq!(read.status(), StatusCode::OK);
            let headers = read.headers();
            assert_eq!(headers[CONTENT_TYPE], mime);
            assert_eq!(headers[CONTENT_DISPOSITION], disposition);
            assert_eq!(headers["x-content-type-options"], "nosniff");
            assert_eq!(
                headers["content-security-policy"],
                "default-src 'none'; sandbox"
            );
            assert_eq!(read.bytes().await.unwrap(), bytes);
        }
    });
}

#[test]
fn the_bytes_say_what_it_is() {
    run(async {
        let (tenant, owner) = tenant().await;
        let picture = png(&RgbImage::new(4, 4).into());
        let id = tenant
            .send_file(&owner, "a.jpg", "image/jpeg", &picture)
            .await;
        let media = tenant.processed(&owner, &id).await;
        assert_eq!(media["state"], "READY", "{media:#}");
        assert_eq!(media["contentType"], "image/png");
        let link = media["url"].as_str().unwrap();
        assert!(
            link.contains(&format!("/media/photo/{}.png?", uuid(&id))),
            "{link}"
        );
        let read = tenant.follow(Method::GET, link).send().await.unwrap();
        assert_eq!(read.headers()[CONTENT_TYPE], "image/png");
        assert!(
            read.headers()[CONTENT_DISPOSITION]
                .to_str()
                .unwrap()
                .starts_with("inline;")
        );

        let page = b"<!DOCTYPE html><html><script>alert(1)</script></html>";
        let cases: [(&str, &[u8]); 5] = [
            ("text/plain", page),
            ("image/png", page),
            ("image/png", b"only text"),
            ("text/plain", b"\0\x01\x02 no text"),
            ("application/zip", b"\x7fELF\x02\x01\x01 a program"),
        ];
        for (mime, bytes) in cases {
            let id = tenant.send_file(&owner, "a", mime, bytes).await;
            let media = tenant.processed(&owner, &id).await;
            let why = media["failure"].as_str().unwrap_or_default();
            assert_eq!(media["state"], "FAILED", "{mime}: {media:#}");
            assert!(
                why.starts_with("This type is not supported; use image/jpeg, "),
                "{why}"
            );
            assert_eq!(
                (&media["url"], &media["thumbnail"]),
                (&Value::Null, &Value::Null)
            );
        }
        only_left(&tenant, &[format!("photo/{}.png", uuid(&id))]).await;
    });
}

#[test]
fn what_differs_from_what_was_announced_fails() {
    run(async {
        let (tenant, owner) = tenant().await;
        let sum = "a".repeat(64);
        let input = input(json!({ "size": CSV.len(), "sha256": sum }));
        let made = tenant.create_upload(&owner, input).await;
        assert_eq!(put(&tenant, &made, CSV).await.status, StatusCode::CREATED);
        let media = complete(&tenant, &owner, &made).await;
        assert_eq!(media["state"], "FAILED");
        assert_eq!(
            media["failure"],
            "The upload has another SHA-256 than was announced."
        );

        let made = tenant.create_upload(&owner, self::input(json!({}))).await;
        assert_eq!(put(&tenant, &made, CSV).await.status, StatusCode::CREATED);
        let staged = prefix(&tenant).join(format!("upload/{}.bin", uuid(id_of(&made))));
        fs::write(staged, b"swapped").unwrap();
        let media = complete(&tenant, &owner, &made).await;
        assert_eq!(media["state"], "FAILED");
        assert_eq!(
            media["failure"],
            "The upload has 7 bytes, not the 8 that were announced."
        );
        only_left(&tenant, &[]).await;

        let sum = "E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855";
        let input = self::input(json!({ "size": 1, "sha256": sum }));
        assert_eq!(
            tenant.create_upload(&owner, input).await["errors"],
            json!([]),
            "in any case"
        );
    });
}

#[test]
fn a_put_is_whole_or_it_is_nothing() {
    run(async {
        let (tenant, owner) = tenant().await;
        let made = tenant.create_upload(&owner, input(json!({}))).await;
        let short = put(&tenant, &made, b"a,b\n").await;
        assert_eq!(short.status, StatusCode::BAD_REQUEST);
        assert_eq!(
            short.body["detail"],
            "The upload has 4 bytes of 8; send it again."
        );
        let long = put(&tenant, &made, b"a,b\n1,2\n3").await;
        assert_eq!(long.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(long.body["code"], "too_large");

        let link = url_of(&made);
        let (_, target) = link.rsplit_once("localhost:").unwrap();
        let target = &target[target.find('/').unwrap()..];
        let chunked = "Transfer-Encoding: chunked\r\n\r\n9\r\na,b\n1,2\n3\r\n0\r\n\r\n";
        let (status, _) = raw(&tenant, &format!("PUT {target}"), chunked);
        assert_eq!(
            status, 413,
            "nor does it help not to say how much is coming"
        );
        // Cut short: the connection ends in the middle of the body.
        let mut cut = TcpStream::connect(&tenant.world.address).unwrap();
        let host = host(&tenant);
        write!(
            cut,
            "PUT {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 8\r\n\r\na,b"
        )
        .unwrap();
        drop(cut);

        only_left(&tenant, &[]).await;
        let done = tenant.complete_upload(&owner, id_of(&made)).await;
        assert_eq!(
            done["errors"][0]["message"],
            "Nothing was uploaded yet: PUT the bytes to the upload's url first."
        );
        assert_eq!(put(&tenant, &made, CSV).await.status, StatusCode::CREATED);
        let media = complete(&tenant, &owner, &made).await;
        assert_eq!(media["state"], "READY", "{media:#}");
    });
}

#[test]
fn the_last_put_counts_and_none_after_completing() {
    run(async {
        let (tenant, owner) = tenant().await;
        let made = tenant.create_upload(&owner, input(json!({}))).await;
        for bytes in [b"first,1\n", b"later,2\n"] {
            assert_eq!(put(&tenant, &made, bytes).await.status, StatusCode::CREATED);
        }
        let media = complete(&tenant, &owner, &made).await;
        let link = media["url"].as_str().unwrap();
        let read = tenant.send(tenant.follow(Method::GET, link)).await;
        assert_eq!(read.body, "later,2\n");

        let late = put(&tenant, &made, b"other,3\n").await;
        assert_eq!(late.status, StatusCode::GONE);
        assert_eq!(late.body["detail"], "The upload link has expired.");
        let again = tenant.complete_upload(&owner, id_of(&made)).await;
        let error = json!([{ "__typename": "InvalidInputError", "code": "INVALID", "field": ["input", "mediaId"],
            "message": "This upload was completed already." }]);
        assert_eq!(
            (&again["errors"], &again["job"]),
            (&error, &Value::Null),
            "{again:#}"
        );
        let read = tenant.send(tenant.follow(Method::GET, link)).await;
        assert_eq!(read.body, "later,2\n");
        only_left(&tenant, &[format!("photo/{}.csv", uuid(id_of(&made)))]).await;
    });
}

#[test]
fn of_two_that_complete_at_once_one_does() {
    run(async {
        let (tenant, owner) = tenant().await;
        let made = tenant.create_upload(&owner, input(json!({}))).await;
        put(&tenant, &made, CSV).await;
        let media = id_of(&made);
        let both = tokio::join!(
            tenant.complete_upload(&owner, media),
            tenant.complete_upload(&owner, media)
        );
        let jobs = [&both.0, &both.1].map(|done| done["job"]["kind"] == "media.process");
        assert_eq!(jobs.iter().filter(|made| **made).count(), 1, "{both:#?}");
        let jobs = "{ tenant { jobs { nodes { kind } } } }";
        let jobs = tenant.gql(Some(&owner), jobs).await.data()["tenant"]["jobs"]["nodes"].clone();
        assert_eq!(jobs, json!([{ "kind": "media.process" }]));
    });
}

#[test]
fn only_an_upload_of_the_tenant_is_completed() {
    run(async {
        let (tenant, owner) = tenant().await;
        let (other, its_owner) = self::tenant().await;
        let foreign = other.create_upload(&its_owner, input(json!({}))).await;
        put(&other, &foreign, CSV).await;
        let absent = "TWVkaWEAAAAAAAB1AAAAAAAAAAAA";
        for id in [
            id_of(&foreign),
            absent,
            "nonsense",
            &tenant.device(&owner).await.0,
        ] {
            let done = tenant.complete_upload(&owner, id).await;
            let error = json!([{ "__typename": "NotFoundError", "code": "NOT_FOUND", "field": null,
                "message": "There is no such media." }]);
            assert_eq!(done["errors"], error, "{id}");
        }
        assert_eq!(
            complete(&other, &its_owner, &foreign).await["state"],
            "READY"
        );
    });
}

#[test]
fn input_is_checked() {
    run(async {
        let (tenant, owner) = tenant().await;
        let cases = [
            ("resourceType", "INVALID", json!("")),
            ("resourceType", "INVALID", json!("Photo")),
            ("resourceType", "INVALID", json!("a/b")),
            ("resourceType", "INVALID", json!("..")),
            ("resourceType", "INVALID", json!("1a")),
            ("resourceType", "INVALID", json!("a-")),
            ("resourceType", "INVALID", json!("upload")),
            ("resourceType", "INVALID", json!("thumbnail-small")),
            ("resourceType", "INVALID", json!("a".repeat(33))),
            ("filename", "INVALID", json!("")),
            ("filename", "INVALID", json!("a/b.csv")),
            ("filename", "INVALID", json!("a\\b.csv")),
            ("filename", "INVALID", json!("a\r\nSet-Cookie: b.csv")),
            ("filename", "INVALID", json!("a\u{0}.csv")),
            ("filename", "INVALID", json!("é".repeat(128))),
            ("contentType", "UNSUPPORTED_MEDIA_TYPE", json!("text/html")),
            (
                "contentType",
                "UNSUPPORTED_MEDIA_TYPE",
                json!("image/svg+xml"),
            ),
            ("contentType", "UNSUPPORTED_MEDIA_TYPE", json!("")),
            ("size", "INVALID", json!(0)),
            ("size", "TOO_LARGE", json!(100 * 1024 * 1024 + 1)),
            ("sha256", "INVALID", json!("abc")),
            ("sha256", "INVALID", json!("g".repeat(64))),
        ];
        for (field, code, value) in cases {
            let made = tenant
                .create_upload(&owner, input(json!({ field: value })))
                .await;
            let error = &made["errors"][0];
            assert_eq!(error["code"], code, "{field} {value}: {made:#}");
            assert_eq!(
                error["field"],
                json!(["input", field]),
                "{field} {value}: {made:#}"
            );
            assert_eq!(error["__typename"], "InvalidInputError");
            assert!(error["message"].as_str().unwrap().ends_with('.'));
            assert_eq!(
                (&made["media"], &made["upload"]),
                (&Value::Null, &Value::Null)
            );
        }
        let media = "{ tenant { media { totalCount } } }";
        let media = tenant.gql(Some(&owner), media).await;
        assert_eq!(media.data()["tenant"]["media"]["totalCount"], 0);
    });
}

#[test]
fn a_link_is_for_an_hour_at_most() {
    run(async {
        let (tenant, owner) = tenant().await;
        let id = tenant.send_file(&owner, "a.csv", "text/csv", CSV).await;
        tenant.processed(&owner, &id).await;
        let query = "query($id: ID!, $seconds: Int!) { node(id: $id) { ... on Media { url(expiresIn: $seconds) } } }";
        for seconds in [3601, 0, -1, i32::MAX] {
            let variables = json!({ "id": id, "seconds": seconds });
            let answer = tenant.gql_with(Some(&owner), query, variables).await;
            assert_eq!(answer.code(), "BAD_USER_INPUT", "{seconds}");
        }
        let answer = tenant
            .gql_with(Some(&owner), query, json!({ "id": id, "seconds": 3600 }))
            .await;
        let link = answer.data()["node"]["url"].as_str().unwrap();
        let expires: i64 = parameter(link, "expires").parse().unwrap();
        let services = &tenant.world.app.services;
        let now = services.database.clock().now().timestamp();
        assert!(
            (now..=now + 3600).contains(&expires),
            "{expires} is not within an hour of {now}"
        );

        let key = Key::new(&tenant.row, "photo", uuid(&id), "csv");
        let (name, _) = host(&tenant)
            .rsplit_once(':')
            .map(|(n, p)| (n.to_owned(), p.to_owned()))
            .unwrap();
        let past = services.database.clock().now() - Duration::from_secs(1);
        let query = sign::sign(&services.key, sign::Method::Get, &name, &key, past);
        let old = format!("{}?{query}", link.split_once('?').unwrap().0);
        let read = tenant.send(tenant.follow(Method::GET, &old)).await;
        assert_eq!(read.status, StatusCode::GONE);
        assert_eq!(read.body["code"], "expired");
    });
}

#[test]
fn a_link_allows_one_thing_only() {
    run(async {
        let (tenant, owner) = tenant().await;
        let (other, _) = self::tenant().await;
        let made = tenant.create_upload(&owner, input(json!({}))).await;
        put(&tenant, &made, CSV).await;
        let media = complete(&tenant, &owner, &made).await;
        let link = media["url"].as_str().unwrap().to_owned();
        let get = |link: String| tenant.send(tenant.follow(Method::GET, &link));
        assert_eq!(get(link.clone()).await.status, StatusCode::OK);

        let elsewhere = link.replace(&tenant.slug, &other.slug);
        let answer = other.send(other.follow(Method::GET, &elsewhere)).await;
        assert_eq!(
            answer.status,
            StatusCode::UNAUTHORIZED,
            "at another tenant's host"
        );
        let expires = parameter(&link, "expires");
        let sig = parameter(&link, "sig");
        let later: i64 = expires.parse::<i64>().unwrap() + 1;
        for changed in [
            link.replace(&expires, &later.to_string()),
            link.replace("kid=1", "kid=2"),
            link.replace(&sig, &sig.to_uppercase()),
            link.replace(&sig, &sig[1..]),
            link.replace(".csv?", ".txt?"),
            link.replace("/photo/", "/avatar/"),
            link.replace(&sig, &parameter(url_of(&made), "sig")),
            format!("{link}&x=1"),
            format!("{link}&sig={sig}"),
            link.split_once('?').unwrap().0.to_owned(),
        ] {
            refused(&get(changed.clone()).await, &changed);
        }
        let write = tenant.follow(Method::PUT, &link).body("x");
        assert_eq!(
            tenant.send(write).await.status,
            StatusCode::METHOD_NOT_ALLOWED
        );
        let read = tenant.follow(Method::GET, url_of(&made));
        assert_eq!(
            tenant.send(read).await.status,
            StatusCode::METHOD_NOT_ALLOWED
        );
    });
}

#[test]
fn a_path_has_one_spelling() {
    run(async {
        let (tenant, owner) = tenant().await;
        let made = tenant.create_upload(&owner, input(json!({}))).await;
        let id = uuid(id_of(&made)).to_string();
        let (_, query) = url_of(&made).split_once('?').unwrap();
        for path in spellings("uploads", &format!("{id}.bin")) {
            let put = format!("PUT {path}?{query}");
            let (status, body) = raw(&tenant, &put, "Content-Length: 8\r\n\r\na,b\n1,2\n");
            assert!((400..500).contains(&status), "{put} {status} {body}");
        }
        only_left(&tenant, &[]).await;

        put(&tenant, &made, CSV).await;
        let media = complete(&tenant, &owner, &made).await;
        let (_, query) = media["url"].as_str().unwrap().split_once('?').unwrap();
        let mut paths = spellings("media/photo", &format!("{id}.csv"));
        paths.push(format!("/media/%70hoto/{id}.csv"));
        paths.push(format!("/media/PHOTO/{id}.csv"));
        paths.push(format!("/media/x/../photo/{id}.csv"));
        paths.push(format!("/media/photo%2f{id}.csv"));
        for path in paths {
            let get = format!("GET {path}?{query}");
            let (status, body) = raw(&tenant, &get, "\r\n");
            assert!((400..500).contains(&status), "{get} {status} {body}");
        }
        let (status, body) = raw(
            &tenant,
            &format!("GET /media/photo/{id}.csv?{query}"),
            "\r\n",
        );
        assert!(
            status == 200 && body.ends_with("a,b\n1,2\n"),
            "{status} {body}"
        );
    });
}

#[test]
fn pictures_that_would_fill_the_memory_fail() {
    run(async {
        let (tenant, owner) = tenant().await;
        // The first say that they are large, and the last are: small files of one colour.
        for bytes in [
            bomb(60_000, 60_000),
            bomb(16_000, 16_000),
            bomb(2_000_000_000, 1),
            png(&RgbImage::new(16_385, 1).into()),
            png(&RgbImage::new(9_500, 9_500).into()),
        ] {
            let id = tenant.send_file(&owner, "a.png", "image/png", &bytes).await;
            let media = tenant.processed(&owner, &id).await;
            assert_eq!(media["state"], "FAILED", "{media:#}");
            assert_eq!(
                media["failure"],
                "The image cannot be read: it is damaged or too large."
            );
        }
        let cut = &png(&RgbImage::new(64, 64).into())[..60];
        let id = tenant.send_file(&owner, "a.png", "image/png", cut).await;
        assert_eq!(tenant.processed(&owner, &id).await["state"], "FAILED");
        let whole = png(&RgbImage::new(64, 64).into());
        let id = tenant.send_file(&owner, "a.png", "image/png", &whole).await;
        assert_eq!(tenant.processed(&owner, &id).await["state"], "READY");
    });
}

#[test]
fn the_trail_names_the_job_and_who_caused_it() {
    run(async {
        let (tenant, owner) = tenant().await;
        let member = tenant.token(BuiltIn::Member).await;
        let id = tenant.send_file(&member, "a.csv", "text/csv", CSV).await;
        tenant.processed(&owner, &id).await;
        let query = "query($id: ID!) { node(id: $id) { ... on Media {
            uploadedBy { ... on Member { email } }
            history { nodes { action fields { name } requestId
                actor { __typename ... on Member { email } ... on SystemActor { reason } }
                cause { ... on Member { email } } } } } } }";
        let answer = tenant
            .gql_with(Some(&owner), query, json!({ "id": id }))
            .await;
        let media = &answer.data()["node"];
        let email = format!("member@{}.test", tenant.slug);
        let who = json!({ "email": email });
        let person = json!({ "__typename": "Member", "email": email });
        let job = json!({ "__typename": "SystemActor", "reason": "a job" });
        assert_eq!(media["uploadedBy"], who);
        let changes = media["history"]["nodes"].as_array().unwrap();
        let [ready, completed, created] = &changes[..] else {
            panic!("{changes:#?}");
        };
        assert_eq!((&ready["actor"], &ready["cause"]), (&job, &who));
        assert_eq!(
            (&completed["actor"], &completed["cause"]),
            (&person, &Value::Null)
        );
        assert_eq!(
            (&created["actor"], &created["action"]),
            (&person, &json!("CREATE"))
        );
        assert_eq!(ready["requestId"], completed["requestId"]);
        let fields: Vec<_> = ready["fields"]
            .as_array()
            .unwrap()
            .iter()
            .map(|field| &field["name"])
            .collect();
        assert_eq!(fields, ["ext", "sha256", "state"]);
    });
}

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

/// The sizes of the thumbnails, from small to large; all of them are of this type.
async fn thumbnails(tenant: &Tenant, token: &str, id: &str, ext: &str) -> [(u32, u32); 3] {
    let query = "query($id: ID!) { node(id: $id) { ... on Media {
        small: thumbnail(size: SMALL) medium: thumbnail(size: MEDIUM) large: thumbnail(size: LARGE) } } }";
    let links = tenant
        .gql_with(Some(token), query, json!({ "id": id }))
        .await
        .data()["node"]
        .clone();
    let (mime, format) = match ext {
        "png" => ("image/png", ImageFormat::Png),
        _ => ("image/jpeg", ImageFormat::Jpeg),
    };
    let mut sizes = [(0, 0); 3];
    for (size, name) in sizes.iter_mut().zip(["small", "medium", "large"]) {
        let link = links[name].as_str().unwrap();
        let read = tenant.follow(Method::GET, link).send().await.unwrap();
        assert_eq!(read.headers()[CONTENT_TYPE], mime);
        let bytes = read.bytes().await.unwrap();
        *size = image::load_from_memory_with_format(&bytes, format)
            .unwrap()
            .dimensions();
    }
    sizes
}

fn parameter(link: &str, name: &str) -> String {
    let url = reqwest::Url::parse(link).unwrap();
    let found = url.query_pairs().find(|(key, _)| key == name).unwrap();
    found.1.into_owned()
}

/// Refused in the one form that errors have.
#[track_caller]
fn refused(answer: &Answer, what: &str) {
    assert!(
        answer.status.is_client_error(),
        "{what}: {} {}",
        answer.status,
        answer.body
    );
    assert_eq!(
        answer.headers[CONTENT_TYPE], "application/problem+json",
        "{what}: {}",
        answer.body
    );
}

/// Other ways to write the path of a file: `uuid.ext` in `folder`.
fn spellings(folder: &str, file: &str) -> Vec<String> {
    let (id, ext) = file.split_once('.').unwrap();
    let first = file.as_bytes()[0];
    let last = folder.rsplit('/').next().unwrap();
    [
        format!("/{folder}/{}.{ext}", id.to_uppercase()),
        format!("/{folder}/{}.{ext}", id.replace('-', "")),
        format!("/{folder}/{{{id}}}.{ext}"),
        format!("/{folder}/urn:uuid:{id}.{ext}"),
        format!("/{folder}/{id}.{}", ext.to_uppercase()),
        format!("/{folder}/{id}%2e{ext}"),
        format!("/{folder}/%{first:02x}{}", &file[1..]),
        format!("/{folder}/{file}/"),
        format!("/{folder}/{file}."),
        format!("/{folder}/{file}%00"),
        format!("/{folder}/{file}%20"),
        format!("/{folder}//{file}"),
        format!("//{folder}/{file}"),
        format!("/{folder}/./{file}"),
        format!("/{folder}/%2e/{file}"),
        format!("/{folder}/../{last}/{file}"),
        format!("/{folder}/%2e%2e/{last}/{file}"),
        format!("/{folder}/..%2f{last}%2f{file}"),
    ]
    .into()
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

fn png(image: &DynamicImage) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// A small PNG that says it is this large.
fn bomb(width: u32, height: u32) -> Vec<u8> {
    let mut header = [width.to_be_bytes(), height.to_be_bytes()].concat();
    header.extend([8, 2, 0, 0, 0]);
    let nothing = [0x78, 0x01, 1, 0, 0, 0xff, 0xff, 0, 0, 0, 1];
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, data) in [(b"IHDR", &header[..]), (b"IDAT", &nothing), (b"IEND", &[])] {
        let body = [kind, data].concat();
        bytes.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
        bytes.extend(&body);
        bytes.extend(crc32(&body).to_be_bytes());
    }
    bytes
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc: u32, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

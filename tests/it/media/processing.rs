//! What the job makes of an upload: thumbnails, files kept as they are, failures, and the trail of it.

use super::{CSV, files, only_left, prefix, tenant, uuid};
use crate::harness::{Tenant, run, until};
use bulkhead::identity::BuiltIn;
use image::{DynamicImage, GenericImageView as _, ImageFormat, RgbImage, RgbaImage};
use reqwest::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::fs;
use std::io::Cursor;

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
        let changes = media["history"]["nodes"].as_array().unwrap().iter();
        let changes: Vec<&Value> = changes.filter(|c| c["action"] != "LINK_ISSUED").collect();
        let [ready, completed, created] = changes[..] else {
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

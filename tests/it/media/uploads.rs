//! Uploads: what is announced, put and completed, and what of it is refused.

use super::{CSV, complete, host, id_of, input, only_left, prefix, put, raw, tenant, url_of, uuid};
use crate::harness::run;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::fs;
use std::io::Write as _;
use std::net::TcpStream;

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
fn a_store_that_fails_can_be_asked_again() {
    run(async {
        let (tenant, owner) = tenant().await;
        let made = tenant.create_upload(&owner, input(json!({}))).await;
        fs::create_dir_all(prefix(&tenant)).unwrap();
        let staging = prefix(&tenant).join("upload");
        fs::write(&staging, "in the way").unwrap();
        let refused = put(&tenant, &made, CSV).await;
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(refused.body["code"], "unavailable");
        assert_eq!(refused.header("Retry-After"), "1");
        let complete =
            "mutation($id: ID!) { mediaCompleteUpload(input: { mediaId: $id }) { job { id } } }";
        let id = json!({ "id": id_of(&made) });
        let refused = tenant.gql_with(Some(&owner), complete, id).await;
        assert_eq!(refused.code(), "UNAVAILABLE", "{:#}", refused.body);

        fs::remove_file(&staging).unwrap();
        assert_eq!(put(&tenant, &made, CSV).await.status, StatusCode::CREATED);
        let media = self::complete(&tenant, &owner, &made).await;
        assert_eq!(media["state"], "READY", "{media:#}");
    });
}

//! Links: for how long, for what and at which spelling they are good.

use super::{CSV, complete, host, id_of, input, only_left, put, raw, tenant, url_of, uuid};
use crate::harness::{Answer, run};
use bulkhead::media::sign;
use bulkhead::media::store::Key;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, StatusCode};
use serde_json::json;
use std::time::Duration;

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

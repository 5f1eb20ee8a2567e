//! Links: good for one host, one object, one method and a time.

use super::{Side, outcome, row_of};
use crate::harness::run;
use bulkhead::clock::Clock;
use bulkhead::media::sign;
use bulkhead::media::store::Key;
use chrono::Duration;
use reqwest::{Method, StatusCode, Url};

#[test]
fn a_link_is_good_for_one_host_one_object_and_as_it_was_signed() {
    run(async {
        let (a, b) = Side::two().await;
        let (read, write) = (path_of(&a.link), path_of(&a.upload));
        let export = path_of(&a.export);
        let good = a.tenant.send(a.tenant.request(Method::GET, &read)).await;
        assert_eq!(good.status, StatusCode::OK);
        let query = read.split_once('?').unwrap().1;
        let second = path_of(a.tenant.photo(&a.owner).await["url"].as_str().unwrap());
        let theirs = path_of(&b.link);
        let at = |link: &str| link.split_once('?').unwrap().0.to_owned();
        let mut tampered = read.clone();
        let last = tampered.pop().unwrap();
        tampered.push(if last == '0' { '1' } else { '0' });
        let moved = |link: &str| format!("{}?{query}", at(link));
        let (get, put) = (Method::GET, Method::PUT);
        let (here, there) = (&a.tenant, &b.tenant);
        let unsigned = "401 invalid_credentials";
        #[rustfmt::skip]
        let cases = [
            (there, &get, read.clone(), unsigned),
            (there, &put, write.clone(), unsigned),
            (there, &get, export.clone(), unsigned),
            (here, &get, moved(&export), unsigned),
            (here, &get, at(&export), unsigned),
            (here, &get, moved(&second), unsigned),
            (here, &get, moved(&theirs), unsigned),
            (here, &put, moved(&write), unsigned),
            (here, &get, read.replace("expires=1", "expires=2"), unsigned),
            (here, &get, tampered, unsigned),
            (here, &get, read[..read.len() - 2].to_owned(), unsigned),
            (here, &get, read.replace("kid=1", "kid=2"), unsigned),
            (here, &get, format!("{read}&more=1"), "401 invalid_credentials"),
            (here, &get, at(&read), "401 invalid_credentials"),
            (here, &put, read.clone(), "405 method_not_allowed"),
            (here, &get, write.clone(), "405 method_not_allowed"),
            // Not as it was signed: refused, not repaired.
            (here, &get, read.replace("/photo/", "/ph%6fto/"), "404 not_found"),
            (here, &get, read.replace("/photo/", "/photo%2f"), "404 not_found"),
            (here, &put, write.replace(".bin", "%2ebin"), "404 not_found"),
            (here, &get, read.replace(".png", "%ff.png"), "404 not_found"),
            (here, &get, read.replace(".png", ".PNG"), "404 not_found"),
        ];
        for (tenant, method, link, wanted) in cases {
            let request = tenant.request(method.clone(), &link).body("x");
            let answer = tenant.send(request).await;
            let shown = format!("{method} {link} at {}", tenant.slug);
            assert_eq!(outcome(&answer), wanted, "{shown}: {:#}", answer.body);
        }
        let complete = format!(
            r#"mutation {{ mediaCompleteUpload(input: {{ mediaId: "{}" }}) {{ errors {{ message }} }} }}"#,
            a.names["Pending"]
        );
        let answer = a.tenant.gql(Some(&a.owner), &complete).await;
        let message = answer.failure()["message"].as_str().unwrap();
        assert!(message.starts_with("Nothing was uploaded yet"), "{message}");
    });
}

#[test]
fn a_link_allows_one_method_until_it_expires() {
    run(async {
        let a = Side::new().await;
        let services = &a.tenant.world.app.services;
        let now = Clock::default().now();
        let host = format!("{}.localhost", a.tenant.slug);
        let (media, pending) = (row_of(&a.names["Media"]), row_of(&a.names["Pending"]));
        let object = Key::new(&a.tenant.row, "photo", media, "png");
        let staging = Key::staging(&a.tenant.row, pending);
        let sign = |method, key: &Key, minutes| {
            sign::sign(
                &services.key,
                method,
                &host,
                key,
                now + Duration::minutes(minutes),
            )
        };
        let (get, put) = (sign::Method::Get, sign::Method::Put);
        for (method, query, wanted) in [
            (Method::GET, sign(get, &object, 5), "200"),
            (
                Method::GET,
                sign(put, &object, 5),
                "401 invalid_credentials",
            ),
            (Method::GET, sign(get, &object, -1), "410 expired"),
            (
                Method::PUT,
                sign(get, &staging, 5),
                "401 invalid_credentials",
            ),
            (Method::PUT, sign(put, &staging, -1), "410 expired"),
            // In time and for this method: it is the body that is refused.
            (Method::PUT, sign(put, &staging, 5), "400 invalid_request"),
        ] {
            let path = match method {
                Method::GET => format!("/media/photo/{media}.png"),
                _ => format!("/uploads/{pending}.bin"),
            };
            let request = a.tenant.request(method.clone(), &format!("{path}?{query}"));
            let answer = a.tenant.send(request.body("x")).await;
            assert_eq!(
                outcome(&answer),
                wanted,
                "{method} {query}: {:#}",
                answer.body
            );
        }
    });
}

/// A link's path and query.
fn path_of(link: &str) -> String {
    let url = Url::parse(link).unwrap();
    format!("{}?{}", url.path(), url.query().unwrap())
}

//! Signing in: by PIN, and what wrong ones and wrong requests get.

use super::{Fixture, assert_problem, token_of};
use crate::harness::run;
use futures::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

#[test]
fn a_device_signs_in_and_is_told_what_it_needs() {
    run(async {
        let f = Fixture::new().await;
        let body = json!({ "client_id": f.client_id, "pin": f.pin, "firmware_version": "1.2.3" });
        let answer = f
            .tenant
            .send(f.tenant.request(Method::POST, "/device/auth").json(&body))
            .await;
        let token = token_of(&answer);
        assert!(token.starts_with("bhd_") && token.len() >= 47, "{token}");
        let keys: Vec<_> = answer.body.as_object().unwrap().keys().cloned().collect();
        let wanted = [
            "access_token",
            "device",
            "expires_at",
            "expires_in",
            "rotate_after",
            "server_time",
            "token_type",
        ];
        assert_eq!(keys, wanted);
        assert_eq!(answer.body["token_type"], "Bearer");
        assert_eq!(
            answer.body["device"],
            json!({ "id": f.id, "name": "A device" })
        );
        let seconds = answer.body["expires_in"].as_i64().unwrap();
        assert!((86_300..=86_400).contains(&seconds), "{seconds}");
        for stamp in ["expires_at", "rotate_after", "server_time"] {
            let text = answer.body[stamp].as_str().unwrap();
            assert!(chrono::DateTime::parse_from_rfc3339(text).is_ok(), "{text}");
        }
        assert_eq!(f.field("state").await, "ACTIVE");
        assert_eq!(f.field("firmwareVersion").await, "1.2.3");
        assert!(f.field("provisionedAt").await.is_string());

        let me = f.me(&token).await;
        assert_eq!(me.status, StatusCode::OK);
        assert_eq!(me.body["device"], json!({ "id": f.id, "name": "A device" }));
        assert_eq!(me.body["client_id"], f.client_id.as_str());
        assert_eq!(me.body["tenant"], f.tenant.slug.as_str());
        assert_eq!(me.body["expires_at"], answer.body["expires_at"]);
        // What it did not say is kept.
        let second = f.token().await;
        assert_eq!(f.field("firmwareVersion").await, "1.2.3");
        assert_problem(&f.me(&token).await, 401, "token_revoked");
        assert_eq!(f.me(&second).await.status, StatusCode::OK);
    });
}

#[test]
fn a_wrong_pin_and_an_unknown_client_get_the_same_answer() {
    run(async {
        let f = Fixture::new().await;
        let wrong = f.auth(&f.wrong_pin()).await;
        assert_problem(&wrong, 401, "invalid_credentials");
        for (client_id, pin) in [
            ("D-none", f.pin.as_str()),
            ("", &f.pin),
            (&f.client_id, ""),
            (&f.client_id, &format!("{}0", f.pin)),
            (&f.client_id.to_lowercase(), &f.pin),
            (&format!("{} ", f.client_id), &f.pin),
        ] {
            let answer = f.tenant.device_auth(client_id, pin).await;
            assert_eq!(
                (answer.status, &answer.body),
                (wrong.status, &wrong.body),
                "{client_id:?} {pin:?}"
            );
        }
        assert_eq!(f.field("failedPinAttempts").await, 3);
        assert_eq!(f.field("provisionedAt").await, Value::Null);
        f.token().await;
        assert_eq!(f.field("failedPinAttempts").await, 0);
    });
}

#[test]
fn ten_wrong_pins_lock_the_device_for_a_while() {
    run(async {
        let f = Fixture::new().await;
        let token = f.token().await;
        for _ in 0..10 {
            assert_problem(&f.auth(&f.wrong_pin()).await, 401, "invalid_credentials");
        }
        assert_eq!(f.field("state").await, "LOCKED");
        for pin in [&f.wrong_pin(), &f.pin] {
            let answer = f.auth(pin).await;
            assert_problem(&answer, 429, "rate_limited");
            let seconds: u64 = answer.header("Retry-After").parse().unwrap();
            assert!((1..=15 * 60).contains(&seconds), "{seconds}");
        }
        // Who is in stays in: a stranger who guesses does not put a device out of work.
        assert_eq!(f.me(&token).await.status, StatusCode::OK);
        let over = "UPDATE device SET locked_until = now() - interval '1 second'";
        assert_eq!(f.tenant.sql(over).await, 1);
        f.token().await;
        assert_eq!(f.field("lockedUntil").await, Value::Null);
        assert_eq!(f.field("state").await, "ACTIVE");
    });
}

#[test]
fn wrong_pins_at_the_same_time_are_counted_one_by_one() {
    run(async {
        let f = Fixture::new().await;
        let wrong = f.wrong_pin();
        let answers = join_all((0..12).map(|_| f.auth(&wrong))).await;
        let evaluated = answers
            .iter()
            .filter(|a| a.status == StatusCode::UNAUTHORIZED);
        assert_eq!(evaluated.count(), 10);
        assert_problem(&f.auth(&f.pin).await, 429, "rate_limited");
    });
}

#[test]
fn of_two_first_sign_ins_at_once_one_token_lives() {
    run(async {
        let f = Fixture::new().await;
        let answers = join_all((0..4).map(|_| f.auth(&f.pin))).await;
        let tokens: Vec<_> = answers.iter().map(token_of).collect();
        let alive = join_all(tokens.iter().map(|token| f.me(token))).await;
        let alive = alive.iter().filter(|me| me.status == StatusCode::OK);
        assert_eq!(alive.count(), 1);
        let provisioned = "SELECT count(*) FROM history WHERE subject_type = 'device' AND 'provisioned_at' = ANY (changed)";
        assert_eq!(f.tenant.count(provisioned).await, 1);
    });
}

#[test]
fn what_is_no_sign_in_is_a_problem_with_a_code() {
    run(async {
        let f = Fixture::new().await;
        let post = async |content_type: &str, body: String| {
            let request = f.tenant.request(Method::POST, "/device/auth");
            let request = request.header("Content-Type", content_type).body(body);
            f.tenant.send(request).await
        };
        let json = "application/json";
        let good = json!({ "client_id": f.client_id, "pin": f.pin }).to_string();
        let nul = json!({ "client_id": "nul\0", "pin": "1" }).to_string();
        #[rustfmt::skip]
        let cases = [
            (json, "{", 400, "invalid_request"),
            (json, "", 400, "invalid_request"),
            (json, r#"["D-1", "12345678", null]"#, 400, "invalid_request"),
            (json, r#"{"client_id":"D-1"}"#, 400, "invalid_request"),
            (json, r#"{"client_id":"D-1","pin":"1","more":1}"#, 400, "invalid_request"),
            (json, r#"{"client_id":"D-1","pin":12345678}"#, 400, "invalid_request"),
            (json, &good.replace(&f.pin, &"1".repeat(65)), 400, "invalid_request"),
            (json, &nul, 400, "invalid_request"),
            ("text/plain", &good, 415, "unsupported_media_type"),
            ("application/x-www-form-urlencoded", &good, 415, "unsupported_media_type"),
            (json, &format!("{good}{}", " ".repeat(1024 * 1024)), 413, "too_large"),
        ];
        for (content_type, body, status, code) in cases {
            let shown = &body[..body.len().min(80)];
            let answer = post(content_type, body.to_owned()).await;
            assert_eq!(
                answer.status.as_u16(),
                status,
                "{content_type} {shown}: {:#}",
                answer.body
            );
            assert_problem(&answer, status, code);
        }
        assert_eq!(
            post("Application/JSON; charset=utf-8", good).await.status,
            StatusCode::OK
        );
    });
}

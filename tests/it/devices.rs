//! Devices: made by members, signed in by PIN, kept in by tokens that rotate.

use crate::harness::{Answer, Tenant, run};
use bulkhead::identity::BuiltIn;
use futures::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const CREATE: &str = "mutation($input: DeviceCreateInput!) { deviceCreate(input: $input) {
    pin device { id name clientId state version provisionedAt } errors { __typename code message field } } }";
const UPDATE: &str = "mutation($input: DeviceUpdateInput!) { deviceUpdate(input: $input) {
    device { name state version } errors { __typename code message field ... on ConflictError { currentVersion } } } }";

/// A tenant with a device.
struct Fixture {
    tenant: Tenant,
    owner: String,
    id: String,
    client_id: String,
    pin: String,
}

impl Fixture {
    async fn new() -> Self {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let (id, client_id, pin) = tenant.device(&owner).await;
        Self {
            tenant,
            owner,
            id,
            client_id,
            pin,
        }
    }

    /// A PIN that is not the device's.
    fn wrong_pin(&self) -> String {
        self.pin
            .chars()
            .map(|digit| if digit == '0' { '1' } else { '0' })
            .collect()
    }

    async fn auth(&self, pin: &str) -> Answer {
        self.tenant.device_auth(&self.client_id, pin).await
    }

    /// A new token of the device.
    async fn token(&self) -> String {
        token_of(&self.auth(&self.pin).await)
    }

    async fn me(&self, token: &str) -> Answer {
        let request = self.tenant.request(Method::GET, "/device/me");
        self.tenant.send(request.bearer_auth(token)).await
    }

    async fn rotate(&self, token: &str) -> Answer {
        let request = self.tenant.request(Method::POST, "/device/token/rotate");
        self.tenant.send(request.bearer_auth(token)).await
    }

    async fn update(&self, input: Value) -> Answer {
        let variables = json!({ "input": input });
        let owner = Some(self.owner.as_str());
        self.tenant.gql_with(owner, UPDATE, variables).await
    }

    /// A field of the device, as its owner sees it.
    async fn field(&self, name: &str) -> Value {
        let query = format!(
            r#"{{ node(id: "{}") {{ ... on Device {{ {name} }} }} }}"#,
            self.id
        );
        self.tenant.gql(Some(&self.owner), &query).await.payload()[name].clone()
    }
}

#[track_caller]
fn token_of(answer: &Answer) -> String {
    assert_eq!(answer.status, StatusCode::OK, "{:#}", answer.body);
    answer.body["access_token"].as_str().unwrap().to_owned()
}

/// The answer is a problem (RFC 9457) with this status and code, and says nothing twice.
#[track_caller]
fn assert_problem(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status.as_u16(), status, "{:#}", answer.body);
    assert_eq!(answer.header("Content-Type"), "application/problem+json");
    assert_eq!(answer.body["code"], code, "{:#}", answer.body);
    assert_eq!(answer.body["status"], status);
    assert!(answer.body["detail"].is_string(), "{:#}", answer.body);
    assert!(!answer.header("X-Request-Id").is_empty());
    let challenge = if status == 401 { "Bearer" } else { "" };
    assert_eq!(answer.header("WWW-Authenticate"), challenge);
}

#[test]
fn a_device_is_made_and_its_pin_shown_once() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let create = async |input: Value| {
            let variables = json!({ "input": input });
            tenant.gql_with(Some(&owner), CREATE, variables).await
        };
        let made = create(json!({ "name": "Gate", "clientId": "GATE-1" })).await;
        let pin = made.payload()["pin"].as_str().unwrap().to_owned();
        assert!(
            pin.len() == 8 && pin.bytes().all(|b| b.is_ascii_digit()),
            "{pin}"
        );
        let mut device = made.payload()["device"].clone();
        let id = device["id"].take();
        let wanted = json!({ "id": null, "name": "Gate", "clientId": "GATE-1", "state": "UNCLAIMED", "version": 1, "provisionedAt": null });
        assert_eq!(device, wanted);

        let other = create(json!({ "name": "Gate" })).await;
        let generated = other.payload()["device"]["clientId"].as_str().unwrap();
        assert!(
            generated.starts_with("D-") && generated.len() == 10,
            "{generated}"
        );

        let again = create(json!({ "name": "Another", "clientId": "GATE-1" })).await;
        let failure = json!({ "__typename": "ConflictError", "code": "ALREADY_EXISTS", "field": ["input", "clientId"], "message": "There is a device GATE-1 already." });
        assert_eq!(*again.failure(), failure);
        assert_eq!(again.payload()["pin"], Value::Null);
        for (field, input) in [
            ("name", json!({ "name": "" })),
            ("name", json!({ "name": " " })),
            ("name", json!({ "name": "nul\0" })),
            ("name", json!({ "name": "x".repeat(101) })),
            ("clientId", json!({ "name": "x", "clientId": "" })),
            ("clientId", json!({ "name": "x", "clientId": "a b" })),
            (
                "clientId",
                json!({ "name": "x", "clientId": "x".repeat(65) }),
            ),
        ] {
            let answer = create(input.clone()).await;
            assert_eq!(answer.failure()["code"], "INVALID", "{input}");
            assert_eq!(
                answer.failure()["field"],
                json!(["input", field]),
                "{input}"
            );
        }
        let all = "query($id: ID!) { node(id: $id) { ... on Device { id name clientId history { nodes { snapshot fields { name after } } } } } }";
        let seen = tenant
            .gql_with(Some(&owner), all, json!({ "id": id }))
            .await;
        let seen = seen.data().to_string();
        assert!(seen.contains("GATE-1") && !seen.contains(&pin), "{seen}");
    });
}

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
fn a_disabled_device_is_out_at_once_and_stays_out() {
    run(async {
        let f = Fixture::new().await;
        let token = f.token().await;
        let rotated = token_of(&f.rotate(&token).await);
        let viewer = "{ viewer { expiresAt } }";
        for token in [&token, &rotated] {
            f.tenant.gql(Some(token), viewer).await.data();
        }
        let off = f
            .update(json!({ "deviceId": f.id, "enabled": false }))
            .await;
        assert_eq!(off.payload()["device"]["state"], "DISABLED");
        for token in [&token, &rotated] {
            assert_problem(&f.me(token).await, 401, "token_revoked");
            assert_problem(&f.rotate(token).await, 401, "token_revoked");
            let answer = f.tenant.gql(Some(token), viewer).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        }
        assert_problem(&f.auth(&f.pin).await, 403, "device_disabled");
        assert_problem(&f.auth(&f.wrong_pin()).await, 401, "invalid_credentials");
        let on = f.update(json!({ "deviceId": f.id, "enabled": true })).await;
        assert_eq!(on.payload()["device"]["state"], "ACTIVE");
        assert_problem(&f.me(&rotated).await, 401, "token_revoked");
        f.token().await;
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
fn a_lost_successor_can_be_asked_for_again_until_the_grace_is_over() {
    run(async {
        let f = Fixture::new().await;
        let first = f.token().await;
        let answers = join_all((0..3).map(|_| f.rotate(&first))).await;
        let second = token_of(&answers[0]);
        assert_ne!(first, second);
        for answer in &answers {
            assert_eq!(
                token_of(answer),
                second,
                "a repeat gives the same successor"
            );
            assert_eq!(answer.body["device"]["id"], f.id.as_str());
        }
        for token in [&first, &second] {
            assert_eq!(f.me(token).await.status, StatusCode::OK);
            f.tenant
                .gql(Some(token), "{ viewer { expiresAt } }")
                .await
                .data();
        }
        let over = "UPDATE device_token SET rotated_at = rotated_at - interval '61 seconds' WHERE rotated_at IS NOT NULL";
        assert_eq!(f.tenant.sql(over).await, 1);
        assert_eq!(f.me(&second).await.status, StatusCode::OK);
        // Two parties have it: nobody keeps anything, wherever it was used.
        assert_problem(&f.me(&first).await, 401, "token_revoked");
        assert_problem(&f.rotate(&first).await, 401, "token_revoked");
        assert_problem(&f.me(&second).await, 401, "token_revoked");
        assert_problem(&f.rotate(&second).await, 401, "token_revoked");
        for token in [&first, &second] {
            let answer = f.tenant.gql(Some(token), "{ viewer { expiresAt } }").await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        }
        let kept = "SELECT count(*) FROM history WHERE subject_type = 'device_token' AND 'revoked_at' = ANY (changed)";
        assert_eq!(
            f.tenant.count(kept).await,
            2,
            "the end of the family is in the trail"
        );
        f.token().await;
    });
}

#[test]
fn only_the_newest_predecessor_has_grace() {
    run(async {
        let f = Fixture::new().await;
        let first = f.token().await;
        let second = token_of(&f.rotate(&first).await);
        let third = token_of(&f.rotate(&second).await);
        assert_eq!(f.me(&second).await.status, StatusCode::OK);
        assert_eq!(f.me(&third).await.status, StatusCode::OK);
        assert_problem(&f.me(&first).await, 401, "token_revoked");
        assert_problem(&f.rotate(&first).await, 401, "token_revoked");
        assert_eq!(f.me(&third).await.status, StatusCode::OK);
        // Its reuse later ends the family, whatever its place in it.
        let over = "UPDATE device_token SET rotated_at = rotated_at - interval '61 seconds' WHERE rotated_at IS NOT NULL";
        f.tenant.sql(over).await;
        assert_problem(&f.rotate(&first).await, 401, "token_revoked");
        assert_problem(&f.me(&third).await, 401, "token_revoked");
    });
}

#[test]
fn an_expired_token_is_told_from_a_revoked_one() {
    run(async {
        let f = Fixture::new().await;
        let token = f.token().await;
        f.tenant
            .sql("UPDATE device_token SET expires_at = now() - interval '1 second'")
            .await;
        assert_problem(&f.me(&token).await, 401, "token_expired");
        assert_problem(&f.rotate(&token).await, 401, "token_expired");
    });
}

#[test]
fn a_devices_token_works_on_graphql_as_that_device() {
    run(async {
        let f = Fixture::new().await;
        let token = f.token().await;
        let viewer =
            "{ viewer { permissions actor { __typename ... on Device { id clientId } } } }";
        let answer = f.tenant.gql(Some(&token), viewer).await;
        let wanted = json!({ "permissions": ["MEDIA_READ", "MEDIA_WRITE"],
            "actor": { "__typename": "Device", "id": f.id, "clientId": f.client_id } });
        assert_eq!(*answer.payload(), wanted);
        let photo = f.tenant.upload(&token).await;
        let query = "query($id: ID!) { node(id: $id) { ... on Media { uploadedBy { ... on Device { id } } } } }";
        let seen = f
            .tenant
            .gql_with(Some(&f.owner), query, json!({ "id": photo["media"]["id"] }))
            .await;
        assert_eq!(seen.payload()["uploadedBy"]["id"], f.id.as_str());
    });
}

#[test]
fn a_device_is_changed_unless_it_was_changed_meanwhile() {
    run(async {
        let f = Fixture::new().await;
        let renamed = f
            .update(json!({ "deviceId": f.id, "name": "Gate", "ifVersion": 1 }))
            .await;
        assert_eq!(
            renamed.payload()["device"],
            json!({ "name": "Gate", "state": "UNCLAIMED", "version": 2 })
        );
        let stale = f
            .update(json!({ "deviceId": f.id, "name": "Door", "ifVersion": 1 }))
            .await;
        assert_eq!(stale.failure()["__typename"], "ConflictError");
        assert_eq!(stale.failure()["code"], "VERSION_CONFLICT");
        assert_eq!(stale.failure()["field"], json!(["input", "ifVersion"]));
        assert_eq!(stale.failure()["currentVersion"], 2);
        assert_eq!(stale.payload()["device"], Value::Null);
        assert_eq!(f.field("name").await, "Gate");
        // No news is no change.
        let same = f.update(json!({ "deviceId": f.id, "name": "Gate" })).await;
        assert_eq!(same.payload()["device"]["version"], 2);
        let none = f.update(json!({ "deviceId": f.id })).await;
        assert_eq!(none.payload()["device"]["version"], 2);
        let empty = f.update(json!({ "deviceId": f.id, "name": "" })).await;
        assert_eq!(empty.failure()["field"], json!(["input", "name"]));
        let unknown = f
            .update(json!({ "deviceId": "RGV2aWNl", "name": "x" }))
            .await;
        assert_eq!(unknown.failure()["__typename"], "NotFoundError");
        assert_eq!(unknown.failure()["code"], "NOT_FOUND");
        // Two that read the same version: one of them wins.
        let rename = |name| f.update(json!({ "deviceId": f.id, "name": name, "ifVersion": 2 }));
        let both = join_all([rename("one"), rename("two")]).await;
        let won = both
            .iter()
            .filter(|a| a.payload()["device"]["version"] == 3);
        assert_eq!(won.count(), 1);
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

#[test]
fn without_a_devices_token_a_device_is_told_so() {
    run(async {
        let f = Fixture::new().await;
        for (method, path) in [
            (Method::GET, "/device/me"),
            (Method::POST, "/device/token/rotate"),
        ] {
            let answer = f.tenant.send(f.tenant.request(method.clone(), path)).await;
            assert_problem(&answer, 401, "no_credential");
            let request = f.tenant.request(method, path).bearer_auth(&f.owner);
            assert_problem(&f.tenant.send(request).await, 401, "token_revoked");
        }
        let elsewhere = f.tenant.request(Method::GET, "/device/none");
        assert_problem(&f.tenant.send(elsewhere).await, 404, "not_found");
    });
}

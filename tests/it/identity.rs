//! Members: signing in and out, what a role allows, and what is never written down.

use crate::harness::{Answer, PASSWORD, Tenant, run, until};
use bulkhead::identity::{BuiltIn, jobs::ForgetCredentials};
use bulkhead::secret::token_hash;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

const SIGN_IN: &str = "mutation($input: SessionCreateInput!) { sessionCreate(input: $input) {
    token expiresAt viewer { actor { ... on Member { email } } } errors { code } } }";
const WHO: &str = "{ viewer { actor { ... on Member { email } } expiresAt } }";

async fn sign_in(tenant: &Tenant, email: &str, password: &str) -> Answer {
    let input = json!({ "input": { "email": email, "password": password } });
    tenant.gql_with(None, SIGN_IN, input).await
}

/// Signs out and says how many sessions ended.
async fn sign_out(tenant: &Tenant, token: &str, everywhere: bool) -> i64 {
    let query = format!(
        "mutation {{ sessionRevoke(input: {{ everywhere: {everywhere} }}) {{ revokedCount }} }}"
    );
    let answer = tenant.gql(Some(token), &query).await;
    answer.payload()["revokedCount"].as_i64().unwrap()
}

#[track_caller]
fn assert_refused(answer: &Answer) {
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{:#}", answer.body);
    assert_eq!(answer.code(), "UNAUTHENTICATED");
    assert_eq!(answer.header("WWW-Authenticate"), "Bearer");
}

#[test]
fn a_member_signs_in_and_is_who_they_are() {
    run(async {
        let tenant = Tenant::new().await;
        let email = format!("owner@{}.test", tenant.slug);
        for spelled in [email.clone(), email.to_uppercase(), format!(" {email} ")] {
            let answer = sign_in(&tenant, &spelled, PASSWORD).await;
            let session = answer.payload();
            let token = session["token"].as_str().unwrap();
            assert!(token.starts_with("bhs_") && token.len() >= 47, "{token}");
            assert_eq!(session["viewer"]["actor"]["email"], email.as_str());
            let who = tenant.gql(Some(token), WHO).await;
            assert_eq!(who.payload()["actor"]["email"], email.as_str());
            assert_eq!(who.payload()["expiresAt"], session["expiresAt"]);
        }
    });
}

#[test]
fn whatever_is_wrong_the_answer_is_the_same() {
    run(async {
        let tenant = Tenant::new().await;
        let email = format!("owner@{}.test", tenant.slug);
        let wrong = sign_in(&tenant, &email, "not-the-password").await;
        assert_eq!(wrong.status, StatusCode::OK);
        assert_eq!(wrong.code(), "UNAUTHENTICATED");
        let unknown = format!("nobody@{}.test", tenant.slug);
        for (email, password) in [
            (unknown.as_str(), PASSWORD),
            ("not an address", PASSWORD),
            ("nul\0@example.com", PASSWORD),
            (&email, ""),
            (&email, "a-password-of-the-test"),
            (&email, "A-PASSWORD-OF-THE-TESTS"),
            (&email, &format!("{PASSWORD}\0")),
        ] {
            let answer = sign_in(&tenant, email, password).await;
            assert_eq!(
                (answer.status, &answer.body),
                (wrong.status, &wrong.body),
                "{email:?} {password:?}"
            );
        }
    });
}

#[test]
fn what_is_no_session_is_refused_and_not_taken_for_anonymous() {
    run(async {
        let tenant = Tenant::new().await;
        let token = tenant.token(BuiltIn::Owner).await;
        let cut = &token[..token.len() - 1];
        for value in [
            format!("Bearer {cut}"),
            format!("Bearer {token}x"),
            format!("Bearer bhd_{}", &token[4..]),
            "Bearer ".to_owned(),
            "Basic b3duZXI6eA==".to_owned(),
            token.clone(),
        ] {
            let request = tenant
                .request(Method::POST, "/graphql")
                .header("Authorization", &value)
                .json(&json!({ "query": "{ viewer { expiresAt } }" }));
            assert_refused(&tenant.send(request).await);
        }
        let anonymous = tenant.gql(None, "{ viewer { expiresAt } }").await;
        assert_eq!(*anonymous.payload(), Value::Null);
    });
}

#[test]
fn signing_out_ends_this_session_at_once_and_no_other() {
    run(async {
        let tenant = Tenant::new().await;
        let [first, second] = [
            tenant.token(BuiltIn::Owner).await,
            tenant.token(BuiltIn::Owner).await,
        ];
        let viewer = tenant.token(BuiltIn::Viewer).await;
        for token in [&first, &second, &viewer] {
            tenant.gql(Some(token), WHO).await.data();
        }
        assert_eq!(sign_out(&tenant, &first, false).await, 1);
        assert_refused(&tenant.gql(Some(&first), WHO).await);
        assert_refused(&tenant.gql(Some(&first), SIGN_IN).await);
        for token in [&second, &viewer] {
            tenant.gql(Some(token), WHO).await.data();
        }
    });
}

#[test]
fn signing_out_everywhere_ends_all_of_ones_own_sessions() {
    run(async {
        let tenant = Tenant::new().await;
        let mut tokens = Vec::new();
        for _ in 0..3 {
            tokens.push(tenant.token(BuiltIn::Owner).await);
        }
        let viewer = tenant.token(BuiltIn::Viewer).await;
        // One that ended before is not ended now.
        assert_eq!(sign_out(&tenant, &tokens[0], false).await, 1);
        for token in &tokens[1..] {
            tenant.gql(Some(token), WHO).await.data();
        }
        assert_eq!(sign_out(&tenant, &tokens[1], true).await, 2);
        for token in &tokens {
            assert_refused(&tenant.gql(Some(token), WHO).await);
        }
        tenant.gql(Some(&viewer), WHO).await.data();
    });
}

#[test]
fn a_session_that_had_its_time_is_refused() {
    run(async {
        let tenant = Tenant::new().await;
        let old = tenant.token(BuiltIn::Owner).await;
        tenant.gql(Some(&old), WHO).await.data();
        let ended = "UPDATE session SET expires_at = now() - interval '1 second'";
        assert_eq!(tenant.sql(ended).await, 1);
        let answer = until("the session ends", async || {
            let answer = tenant.gql(Some(&old), WHO).await;
            (answer.status != StatusCode::OK).then_some(answer)
        })
        .await;
        assert_refused(&answer);
        // It ended by itself: signing out everywhere ends the one that lives.
        let new = tenant.token(BuiltIn::Owner).await;
        assert_eq!(sign_out(&tenant, &new, true).await, 1);
    });
}

#[test]
fn nothing_runs_for_somebody_who_has_signed_out() {
    run(async {
        let tenant = Tenant::new().await;
        let token = tenant.token(BuiltIn::Owner).await;
        let both = "mutation { sessionRevoke(input: {}) { revokedCount }
            deviceCreate(input: { name: \"after\" }) { device { id } } }";
        let answer = tenant.gql(Some(&token), both).await;
        assert_eq!(answer.code(), "UNAUTHENTICATED", "{:#}", answer.body);
        assert_eq!(tenant.count("SELECT count(*) FROM device").await, 0);
    });
}

#[test]
fn a_role_allows_what_it_says() {
    run(async {
        let tenant = Tenant::new().await;
        let mut allowed = Vec::new();
        for role in BuiltIn::ALL {
            let token = tenant.token(role).await;
            let answer = tenant.gql(Some(&token), "{ viewer { permissions } }").await;
            let permissions = answer.payload()["permissions"].as_array().unwrap();
            let names: Vec<_> = permissions.iter().map(|p| p.as_str().unwrap()).collect();
            allowed.push(format!("{}: {}", role.name(), names.join(" ")));
        }
        insta::assert_snapshot!(allowed.join("\n"), @r"
        owner: API_KEYS_MANAGE AUDIT_READ AUDIT_REVERT DEVICES_MANAGE DEVICES_READ MEDIA_READ MEDIA_WRITE MEMBERS_MANAGE MEMBERS_READ WEBHOOKS_MANAGE
        admin: AUDIT_READ DEVICES_MANAGE DEVICES_READ MEDIA_READ MEDIA_WRITE MEMBERS_MANAGE MEMBERS_READ WEBHOOKS_MANAGE
        member: DEVICES_READ MEDIA_READ MEDIA_WRITE MEMBERS_READ
        viewer: DEVICES_READ MEDIA_READ MEMBERS_READ
        ");
    });
}

#[test]
fn a_lacking_permission_is_data_of_a_mutation_and_an_error_of_a_query() {
    run(async {
        let tenant = Tenant::new().await;
        let create = r#"mutation { deviceCreate(input: { name: "a device" }) {
            device { id } pin errors { __typename code message field ... on ForbiddenError { requiredPermission } } } }"#;
        let failure = json!({ "__typename": "ForbiddenError", "code": "FORBIDDEN", "field": null,
            "message": "This needs the permission DEVICES_MANAGE.", "requiredPermission": "DEVICES_MANAGE" });
        for role in [BuiltIn::Viewer, BuiltIn::Member] {
            let token = tenant.token(role).await;
            let answer = tenant.gql(Some(&token), create).await;
            assert_eq!(*answer.failure(), failure);
            assert_eq!(answer.payload()["device"], Value::Null);
            assert_eq!(answer.payload()["pin"], Value::Null);
            let changes = "{ tenant { changes { nodes { id } } } }";
            let answer = tenant.gql(Some(&token), changes).await;
            assert_eq!(answer.status, StatusCode::OK);
            assert_eq!(answer.code(), "FORBIDDEN");
            assert_eq!(answer.body["data"]["tenant"]["changes"], Value::Null);
        }
        assert_eq!(tenant.count("SELECT count(*) FROM device").await, 0);
        let admin = tenant.token(BuiltIn::Admin).await;
        let made = tenant.gql(Some(&admin), create).await;
        assert_eq!(made.payload()["errors"], json!([]));
    });
}

#[test]
fn the_history_of_an_object_needs_the_same_permission_as_the_trail() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let viewer = tenant.token(BuiltIn::Viewer).await;
        tenant.device(&owner).await;
        tenant.upload(&owner).await;
        for list in ["devices", "members", "media"] {
            let query = format!(
                "{{ tenant {{ {list} {{ nodes {{ history {{ nodes {{ snapshot }} }} }} }} }} }}"
            );
            let nodes = tenant.gql(Some(&owner), &query).await.payload()[list]["nodes"].clone();
            assert!(
                nodes[0]["history"]["nodes"][0]["snapshot"].is_object(),
                "{nodes:#}"
            );
            assert_eq!(
                tenant.gql(Some(&viewer), &query).await.code(),
                "FORBIDDEN",
                "{list}"
            );
        }
    });
}

#[test]
fn who_uploaded_is_told_only_to_those_who_may_see_members() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let viewer = tenant.token(BuiltIn::Viewer).await;
        let (_, client_id, pin) = tenant.device(&owner).await;
        let auth = tenant.device_auth(&client_id, &pin).await;
        let device = auth.body["access_token"].as_str().unwrap();
        tenant.upload(&owner).await;
        let query =
            "{ tenant { media { nodes { uploadedBy { __typename ... on Member { email } } } } } }";
        let email = format!("owner@{}.test", tenant.slug);
        let seen = tenant.gql(Some(&viewer), query).await.body.to_string();
        assert!(seen.contains(&email), "{seen}");
        // A device sees media, and not members.
        let seen = tenant.gql(Some(device), query).await;
        seen.data();
        assert!(!seen.body.to_string().contains(&email), "{:#}", seen.body);
    });
}

#[test]
fn secrets_are_nowhere_in_the_database() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let (_, client_id, pin) = tenant.device(&owner).await;
        let auth = tenant.device_auth(&client_id, &pin).await;
        let first = auth.body["access_token"].as_str().unwrap();
        let rotate = tenant.request(Method::POST, "/device/token/rotate");
        let rotated = tenant.send(rotate.bearer_auth(first)).await;
        let second = rotated.body["access_token"].as_str().unwrap();
        let link = tenant.photo(&owner).await["url"]
            .as_str()
            .unwrap()
            .to_owned();
        let signature = link.rsplit_once("sig=").unwrap().1;
        let history = dump(&tenant, "history").await;
        assert!(history.contains(&client_id), "the dump holds rows");
        let all = everything(&tenant).await;
        for secret in [PASSWORD, &owner, &owner[4..], first, second, signature] {
            assert!(!all.contains(secret), "{secret} is in the database");
        }
        // Eight digits may be part of some number: only the PIN by itself counts.
        let alone = |text: &str| {
            text.split(|c: char| !c.is_ascii_alphanumeric())
                .any(|word| word == pin)
        };
        assert!(!alone(&all), "the PIN is in the database");
        for hash in [token_hash(&owner), token_hash(first), token_hash(second)] {
            assert!(all.contains(&hash), "the dump holds the hashes");
            assert!(!history.contains(&hash), "a token's hash is in the history");
        }
        assert!(!history.contains("$argon2"), "a hash is in the history");
        let trail = "{ tenant { changes(first: 100) { nodes { snapshot fields { name before after } } } } }";
        let trail = tenant.gql(Some(&owner), trail).await.data().to_string();
        assert!(
            !trail.contains("$argon2") && !trail.contains(&token_hash(first)),
            "{trail}"
        );
    });
}

/// The rows of a table, as text.
async fn dump(tenant: &Tenant, table: &str) -> String {
    let query = format!("SELECT coalesce(string_agg(t::text, E'\\n'), '') FROM {table} t");
    sqlx::query_scalar(AssertSqlSafe(query))
        .fetch_one(&mut tenant.superuser().await)
        .await
        .unwrap()
}

/// All rows of all tables of the tenant's schema and of the platform's, as text.
async fn everything(tenant: &Tenant) -> String {
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT format('%I.%I', table_schema, table_name) FROM information_schema.tables
         WHERE table_type = 'BASE TABLE' AND table_schema IN (current_schema(), 'bulkhead')",
    )
    .fetch_all(&mut tenant.superuser().await)
    .await
    .unwrap();
    assert!(tables.len() > 8, "{tables:?}");
    let mut text = String::new();
    for table in tables {
        text.push_str(&dump(tenant, &table).await);
    }
    text
}

#[test]
fn signing_in_takes_json_and_nothing_that_a_form_can_send() {
    run(async {
        let tenant = Tenant::new().await;
        let input = json!({ "email": format!("owner@{}.test", tenant.slug), "password": PASSWORD });
        let body = json!({ "query": SIGN_IN, "variables": { "input": input } }).to_string();
        for content_type in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
        ] {
            let request = tenant
                .request(Method::POST, "/graphql")
                .header("Content-Type", content_type)
                .body(body.clone());
            assert_eq!(
                tenant.send(request).await.status,
                StatusCode::UNSUPPORTED_MEDIA_TYPE
            );
        }
        assert_eq!(tenant.count("SELECT count(*) FROM session").await, 0);
    });
}

#[test]
fn credentials_that_ended_a_month_ago_are_forgotten() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let (_, client_id, pin) = tenant.device(&owner).await;
        tenant.device_auth(&client_id, &pin).await;
        let sessions = [
            tenant.sign_in(&format!("owner@{}.test", tenant.slug)).await,
            tenant.sign_in(&format!("owner@{}.test", tenant.slug)).await,
        ];
        let age = |token: &str, set: &str| {
            format!(
                "UPDATE session SET {set} WHERE token_hash = '{}'",
                token_hash(token)
            )
        };
        for statement in [
            age(&sessions[0], "expires_at = now() - interval '31 days'"),
            age(&sessions[1], "revoked_at = now() - interval '29 days'"),
            "UPDATE device_token SET revoked_at = now() - interval '31 days'".to_owned(),
        ] {
            sqlx::raw_sql(AssertSqlSafe(statement))
                .execute(&mut tenant.superuser().await)
                .await
                .unwrap();
        }
        let tx = tenant.write().await;
        bulkhead::jobs::enqueue(&tx, &ForgetCredentials {})
            .await
            .unwrap();
        tx.commit().await.unwrap();
        until("the token is forgotten", async || {
            let left = tenant.count("SELECT count(*) FROM device_token").await;
            (left == 0).then_some(())
        })
        .await;
        let left = "SELECT count(*) FROM session";
        assert_eq!(
            tenant.count(left).await,
            2,
            "the owner's, and the newer one"
        );
        let trail = "SELECT count(*) FROM history WHERE action = 'delete' AND actor LIKE 'job:%'
            AND subject_type IN ('session', 'device_token')";
        assert_eq!(tenant.count(trail).await, 2, "what they were is kept");
    });
}

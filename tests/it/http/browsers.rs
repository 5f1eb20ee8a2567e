//! What browsers are told: by which pages an answer may be used, and that it is none itself.

use crate::harness::{Answer, Tenant, World, bare, finish, run, world};
use bulkhead::config::{Config, Scheme};
use bulkhead::identity::BuiltIn;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::json;

const APP: &str = "https://app.example.com";

async fn with(change: impl FnOnce(&mut Config)) -> Tenant {
    let here = Tenant::new().await;
    let world: &'static World = world().await.beside(change).await;
    Tenant { world, ..here }
}

/// Answers of every kind.
async fn answers(tenant: &Tenant) -> Vec<Answer> {
    let owner = tenant.token(BuiltIn::Owner).await;
    let nobody = tenant
        .world
        .request(Method::POST, "nobody.localhost", "/graphql");
    let requests: Vec<RequestBuilder> = vec![
        tenant.request(Method::GET, "/graphql?query={viewer{expiresAt}}"),
        tenant.request(Method::POST, "/graphql").body("text"),
        tenant.request(Method::DELETE, "/graphql"),
        nobody.json(&json!({ "query": "{ viewer { expiresAt } }" })),
        tenant.request(Method::GET, "/device/me"),
        tenant.request(Method::GET, "/none"),
        tenant.request(Method::PUT, "/device/me"),
        tenant.request(Method::GET, "/healthz/live"),
    ];
    let mut answers = vec![tenant.gql(Some(&owner), "{ tenant { slug } }").await];
    for request in requests {
        answers.push(tenant.send(request.header("Origin", APP)).await);
    }
    answers
}

#[test]
fn an_answer_is_no_page_and_nobody_elses() {
    run(async {
        let tenant = Tenant::new().await;
        for answer in answers(&tenant).await {
            let policy = answer.header("Content-Security-Policy");
            assert!(policy.contains("default-src 'none'"), "{answer:?}");
            assert!(policy.contains("frame-ancestors 'none'"), "{answer:?}");
            assert_eq!(answer.header("X-Content-Type-Options"), "nosniff");
            assert_eq!(answer.header("Referrer-Policy"), "no-referrer");
            assert_eq!(answer.header("Cross-Origin-Resource-Policy"), "same-origin");
            assert_eq!(answer.header("Cache-Control"), "no-store");
            assert_eq!(answer.header("Strict-Transport-Security"), "");
            assert_eq!(answer.header("Access-Control-Allow-Origin"), "");
        }
        let page = tenant.request(Method::GET, "/graphql");
        let page = tenant.send(page.header("Accept", "text/html")).await;
        assert_eq!(page.header("Cross-Origin-Opener-Policy"), "same-origin");
        assert_eq!(page.header("Cache-Control"), "no-cache");
        // A picture is shown by pages elsewhere: its link is what allows that.
        let owner = tenant.token(BuiltIn::Owner).await;
        let photo = tenant.photo(&owner).await;
        let photo = tenant.follow(Method::GET, photo["url"].as_str().unwrap());
        let photo = tenant.send(photo).await;
        assert_eq!(photo.status, StatusCode::OK);
        assert_eq!(photo.header("Cross-Origin-Resource-Policy"), "cross-origin");
        assert!(photo.header("Content-Security-Policy").contains("sandbox"));

        let secure = with(|config| config.scheme = Scheme::Https).await;
        for answer in answers(&secure).await {
            let told = answer.header("Strict-Transport-Security");
            assert_eq!(told, "max-age=31536000", "{answer:?}");
        }
    });
}

async fn preflight(tenant: &Tenant, origin: &str) -> Answer {
    let request = tenant
        .request(Method::OPTIONS, "/graphql")
        .header("Origin", origin)
        .header("Access-Control-Request-Method", "POST")
        .header(
            "Access-Control-Request-Headers",
            "authorization,content-type",
        );
    tenant.send(request).await
}

#[test]
fn pages_of_other_origins_are_let_in_as_configured_and_else_not_at_all() {
    run(async {
        let closed = preflight(&Tenant::new().await, APP).await;
        assert_eq!(closed.status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(closed.header("Access-Control-Allow-Origin"), "");

        let local = "http://localhost:5173";
        let listed =
            with(|config| config.allowed_origins = vec![APP.to_owned(), local.to_owned()]).await;
        for origin in [APP, local] {
            let allowed = preflight(&listed, origin).await;
            assert_eq!(allowed.status, StatusCode::OK);
            assert_eq!(allowed.header("Access-Control-Allow-Origin"), origin);
            assert!(
                allowed
                    .header("Access-Control-Allow-Methods")
                    .contains("POST")
            );
            let headers = allowed.header("Access-Control-Allow-Headers");
            assert_eq!(headers, "authorization,content-type");
            assert_eq!(allowed.header("Access-Control-Allow-Credentials"), "");
            assert_eq!(allowed.header("Access-Control-Max-Age"), "3600");
        }
        for origin in [
            "https://evil.example.com",
            "https://app.example.com.evil.org",
            "null",
            "http://app.example.com",
        ] {
            let refused = preflight(&listed, origin).await;
            assert_eq!(
                refused.header("Access-Control-Allow-Origin"),
                "",
                "{origin}"
            );
        }
        // Errors are for these pages too.
        for answer in &answers(&listed).await[1..] {
            assert_eq!(
                answer.header("Access-Control-Allow-Origin"),
                APP,
                "{answer:?}"
            );
            assert!(
                answer
                    .header("Access-Control-Expose-Headers")
                    .contains("x-request-id")
            );
            assert!(answer.header("Vary").contains("origin"), "{answer:?}");
        }
        let with_credentials = with(|config| {
            config.allowed_origins = vec![APP.to_owned()];
            config.cors_credentials = true;
        });
        let allowed = preflight(&with_credentials.await, APP).await;
        assert_eq!(allowed.header("Access-Control-Allow-Credentials"), "true");
        assert_eq!(allowed.header("Access-Control-Allow-Origin"), APP);

        let open = with(|config| config.allowed_origins = vec!["*".to_owned()]).await;
        let allowed = preflight(&open, "https://anybody.example").await;
        assert_eq!(allowed.header("Access-Control-Allow-Origin"), "*");
        assert_eq!(allowed.header("Access-Control-Allow-Credentials"), "");
    });
}

#[test]
fn an_origin_is_written_as_browsers_write_it() {
    for (origins, credentials, said) in [
        ("*", true, "never with cors_credentials"),
        ("*,https://app.example.com", false, "stands alone"),
        ("app.example.com", false, "is no origin"),
        ("https://app.example.com/", false, "is no origin"),
        ("https://app.example.com/a", false, "is no origin"),
        ("https://App.example.com", false, "is no origin"),
        ("https://a@app.example.com", false, "is no origin"),
        ("ftp://app.example.com", false, "is no origin"),
        ("https://app.example.com,null", false, "is no origin"),
        ("https://app.example.com, http://localhost:5173", true, ""),
        ("*", false, ""),
    ] {
        let mut command = bare();
        command
            .args(["config", "show"])
            .env("BULKHEAD_ALLOWED_ORIGINS", origins)
            .env("BULKHEAD_CORS_CREDENTIALS", credentials.to_string());
        let (code, _, error) = finish(&mut command, "");
        let wanted = if said.is_empty() { Some(0) } else { Some(1) };
        assert_eq!(code, wanted, "{origins}: {error}");
        assert!(error.contains(said), "{origins}: {error}");
    }
}

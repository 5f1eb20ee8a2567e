//! Hosts: subdomains however they are spelt, and verified domains.

use super::{at, command};
use crate::harness::{Tenant, run};
use bulkhead::identity::BuiltIn;
use reqwest::StatusCode;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor as _};

#[test]
fn a_tenant_is_found_however_its_host_is_spelt() {
    run(async {
        let tenant = Tenant::new().await;
        let slug = &tenant.slug;
        let token = tenant.token(BuiltIn::Owner).await;
        let upper = slug.to_uppercase();
        for host in [
            format!("{slug}.localhost"),
            format!("{slug}.localhost:8080"),
            format!("{slug}.localhost."),
            format!("{slug}.localhost.:80"),
            format!("{upper}.LocalHost"),
            format!("{upper}.LOCALHOST.:65535"),
        ] {
            let (status, body) = at(&tenant, &token, &host).await;
            assert_eq!(status, StatusCode::OK, "{host}: {body:#}");
            assert_eq!(body["data"]["tenant"]["slug"], slug.as_str());
        }
        for (host, status, code) in [
            ("localhost", 404, "TENANT_NOT_FOUND"),
            ("nobody.localhost", 404, "TENANT_NOT_FOUND"),
            (&format!("x.{slug}.localhost"), 404, "TENANT_NOT_FOUND"),
            (&format!("{slug}.example.com"), 404, "TENANT_NOT_FOUND"),
            (&format!("x{slug}.localhost"), 404, "TENANT_NOT_FOUND"),
            ("127.0.0.1", 400, "BAD_USER_INPUT"),
            ("[::1]:8080", 400, "BAD_USER_INPUT"),
            (&format!("{slug}.localhost.."), 400, "BAD_USER_INPUT"),
            (&format!("{slug}.localhost:port"), 400, "BAD_USER_INPUT"),
            (&format!("{slug}_.localhost"), 400, "BAD_USER_INPUT"),
        ] {
            let (found, body) = at(&tenant, &token, host).await;
            assert_eq!(found.as_u16(), status, "{host}: {body:#}");
            assert_eq!(body["errors"][0]["extensions"]["code"], code, "{host}");
        }
    });
}

#[test]
fn a_verified_domain_leads_to_its_tenant_alone() {
    run(async {
        let (tenant, other) = (Tenant::new().await, Tenant::new().await);
        let token = tenant.token(BuiltIn::Owner).await;
        let mut owner = tenant.world.owner().await;
        let domains = [
            ("shop.example", tenant.row.id, "now()"),
            ("soon.example", tenant.row.id, "NULL"),
            ("other.example", other.row.id, "now()"),
            // Subdomains of ours are slugs, whoever else claims them.
            (&format!("{}.localhost", tenant.slug), other.row.id, "now()"),
        ];
        for (host, id, verified) in domains {
            let sql = format!(
                "INSERT INTO bulkhead.domain (host, tenant_id, verified_at) VALUES ('{host}', '{id}', {verified})"
            );
            owner
                .execute(sqlx::raw_sql(AssertSqlSafe(sql)))
                .await
                .unwrap();
        }
        let own = format!("{}.localhost", tenant.slug);
        for host in ["shop.example", "SHOP.example.:8080", &own] {
            let (status, body) = at(&tenant, &token, host).await;
            assert_eq!(status, StatusCode::OK, "{host}: {body:#}");
            assert_eq!(body["data"]["tenant"]["slug"], tenant.slug.as_str());
        }
        for host in ["soon.example", "www.shop.example", "example"] {
            let (status, body) = at(&tenant, &token, host).await;
            assert_eq!(status, StatusCode::NOT_FOUND, "{host}: {body:#}");
        }
        // At another tenant's domain the token is nobody's.
        let (status, _) = at(&tenant, &token, "other.example").await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        let (_, out, _) = command(&["tenant", "show", &tenant.slug, "--json"], "").await;
        let shown: Value = serde_json::from_str(&out).unwrap();
        let domains = shown["domains"].as_array().unwrap().iter();
        let hosts: Vec<_> = domains
            .map(|d| (&d["host"], d["verified_at"].is_string()))
            .collect();
        let (shop, soon) = (json!("shop.example"), json!("soon.example"));
        assert_eq!(hosts, [(&shop, true), (&soon, false)]);
    });
}

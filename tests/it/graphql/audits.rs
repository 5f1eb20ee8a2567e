//! The audits of GraphQL over HTTP, as npm's graphql-http has them.
//!
//! Where there is no npm, this test says so and checks nothing. `tests/audits` is what runs them.

use crate::harness::{Package, Tenant, run};
use serde_json::Value;

#[test]
fn the_servers_audits_pass() {
    run(async {
        let Some(package) = Package::new("tests/audits") else {
            return;
        };
        let tenant = Tenant::new().await;
        let url = format!("http://{}/graphql", tenant.host());
        // It is answered by this process: not by the thread that waits for it.
        let asked = move || package.node("audits.js").arg(url).output().unwrap();
        let done = tokio::task::spawn_blocking(asked).await.unwrap();
        let error = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{error}");
        let results: Vec<Value> = serde_json::from_slice(&done.stdout).unwrap();
        assert_eq!(results.len(), 61, "the audits of this version");
        let failed: Vec<_> = results.iter().filter(|r| r["status"] != "ok").collect();
        assert!(failed.is_empty(), "{failed:#?}");
    });
}

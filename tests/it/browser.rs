//! What people see, in Chromium: nothing but the site's own host is asked for anything, and the browser complains of nothing.
//!
//! Playwright comes from npm. Where there is no npm or no Chromium, these tests say so and check nothing.

use crate::harness::{PASSWORD, Package, Process, Tenant, chromium, png, repository, run, succeed};
use bulkhead::identity::BuiltIn;
use std::fs;
use std::process::Command;

/// With `BULKHEAD_SCREENSHOT` it leaves a picture there, such as `docs/playground.png`.
#[test]
fn the_playground() {
    run(async {
        let picture = screenshot();
        let tenant = match &picture {
            Some(_) => Tenant::named_like("acme", "").await,
            None => Tenant::new().await,
        };
        let owner = tenant.token(BuiltIn::Owner).await;
        tenant.device(&owner).await;
        tenant.photo(&owner).await;
        let base = format!("http://{}", tenant.host());
        let Some(mut command) = browse("playground.mjs", &tenant, &base) else {
            return;
        };
        if let Some(picture) = picture {
            command.env("SCREENSHOT", repository().join(picture));
        }
        succeed(&mut command);
    });
}

/// It stands before the server with its own, and passes the tenant's host on.
#[test]
fn the_react_client() {
    let Some(client) = Package::new("examples/react-client") else {
        return;
    };
    let client = client.with("schema.graphql");
    client.run("build");
    run(async {
        let tenant = Tenant::new().await;
        let mut preview = client.command("vite");
        preview
            .args(["preview", "--port", "0"])
            .env("NO_COLOR", "1")
            .env("BULKHEAD", format!("http://{}", tenant.world.address));
        let mut preview = Process::start(&mut preview);
        let place = "http://127.0.0.1:";
        let said = preview.says(place).await;
        let port = said.split_once(place).unwrap().1;
        let port = port.split('/').next().unwrap();
        let base = format!("http://{}.localhost:{port}", tenant.slug);
        let Some(mut command) = browse("react-client.mjs", &tenant, &base) else {
            return;
        };
        let picture = client.directory().join("gate.png");
        fs::write(&picture, png()).unwrap();
        succeed(command.env("PICTURE", picture));
    });
}

/// A script of `web/browser`, for the owner of the tenant at this site.
fn browse(script: &str, tenant: &Tenant, base: &str) -> Option<Command> {
    let (package, chromium) = Package::new("web/browser").zip(chromium())?;
    let mut command = package.node(script);
    command
        .env("CHROMIUM", chromium)
        .env("BASE", base)
        .env("EMAIL", format!("owner@{}.test", tenant.slug))
        .env("PASSWORD", PASSWORD);
    Some(command)
}

#[expect(
    clippy::disallowed_methods,
    reason = "whether the run is to leave a picture"
)]
fn screenshot() -> Option<std::ffi::OsString> {
    std::env::var_os("BULKHEAD_SCREENSHOT")
}

//! `bulkhead dev`: the whole system on one machine, with nothing to prepare.

use super::{demo, out, serve};
use crate::app::App;
use crate::config::{Config, Env};
use crate::error::{Error, Result};
use std::time::Instant;

/// Spares at most: few tenants are made on somebody's own machine.
const SPARES: u32 = 2;

/// Runs everything until Ctrl-C.
pub(super) async fn run(config: Config) -> Result<()> {
    if config.env == Env::Production {
        return Err(Error::config(
            "`bulkhead dev` makes tenants with known passwords, so it does not run with BULKHEAD_ENV=production; use `bulkhead serve`",
        ));
    }
    let began = Instant::now();
    let key = serve::key(&config)?;
    let (listener, config) = serve::listen(config).await?;
    let config = Config {
        spares: config.spares.min(SPARES),
        ..config
    };
    let app = App::start(config, key, true).await?;
    demo::seed(&app.services).await?;
    out::print(&summary(&app, began.elapsed().as_secs_f64()))?;
    serve::until_signalled(app, Some(listener), true).await
}

fn summary(app: &App, seconds: f64) -> String {
    let services = &app.services;
    let port = services.config.http.port();
    let host = format!("{}.localhost:{port}", demo::TENANTS[0].0);
    let version = env!("CARGO_PKG_VERSION");
    let postgres = services.database.server_version();
    let password = demo::PASSWORD;
    let (client_id, pin) = (demo::CLIENT_ID, demo::PIN);
    let mut text = format!(
        "\n  Bulkhead {version} on PostgreSQL {postgres}, ready in {seconds:.1} s. Media in {}. Ctrl-C stops it.\n\n",
        services.store.place()
    );
    for (slug, name) in demo::TENANTS {
        text.extend([format!(
            "  {name:<8} http://{slug}.localhost:{port}/graphql\n"
        )]);
    }
    text.extend([format!(
        "\n  Members   owner@, admin@, member@, viewer@<tenant>.test   password {password}\n\
         \x20 Device    client_id {client_id}   PIN {pin}\n\n\
         \x20 GraphQL   curl -s http://{host}/graphql -H 'Content-Type: application/json' \\\n\
         \x20             -d '{{\"query\":\"mutation {{ sessionCreate(input: {{email: \\\"owner@acme.test\\\", password: \\\"{password}\\\"}}) {{ token }} }}\"}}'\n\
         \x20 Device    curl -s http://{host}/device/auth -H 'Content-Type: application/json' \\\n\
         \x20             -d '{{\"client_id\":\"{client_id}\",\"pin\":\"{pin}\"}}'\n\n"
    )]);
    text
}

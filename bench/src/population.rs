//! Many tenants, made as onboarding makes them: each with its owner, a session of theirs and a few devices. One password
//! was hashed for all: hashing is what `onboarding` measures.

use crate::Result;
use crate::place::explain;
use crate::report::progress;
use bulkhead::app::App;
use bulkhead::config::Config;
use bulkhead::devices::{self, NewDevice};
use bulkhead::error::Error;
use bulkhead::identity::{self, BuiltIn, NewMember, TOKEN_PREFIX};
use bulkhead::secret::{token_from, token_hash};
use bulkhead::services::Services;
use bulkhead::tenancy::{self, Act, NewTenant, cells};
use futures::{StreamExt as _, TryStreamExt as _, stream};

/// Tenants made side by side: the machine's cores are few.
const SIDE_BY_SIDE: usize = 3;
/// Devices of each.
const DEVICES: usize = 3;
/// Days that the sessions last.
const DAYS: u32 = 14;
/// Every owner's password.
const PASSWORD: &str = "correct horse";

/// A tenant that a client can ask.
#[derive(Clone, Debug)]
pub(crate) struct Resident {
    /// Its host.
    pub(crate) host: String,
    /// The owner's token.
    pub(crate) token: String,
    /// A device's global id.
    pub(crate) device: String,
}

/// Makes tenants of these numbers.
pub(crate) async fn make(app: &App, numbers: std::ops::Range<u32>) -> Result<Vec<Resident>> {
    let hash = hash(app).await?;
    let bar = progress(numbers.len() as u64);
    let made = stream::iter(numbers)
        .map(|number| one(&app.services, number, &hash))
        .buffered(SIDE_BY_SIDE)
        .inspect(|_| bar.inc(1))
        .try_collect()
        .await;
    bar.finish_and_clear();
    made.map_err(explain)
}

/// The settings of a server that is to have so many tenants: as many cells as the doctor advises, and half as many connections
/// again.
pub(crate) fn settings(tenants: u32) -> Config {
    let config = Config::default();
    let cells = u16::try_from(i64::from(tenants) / cells::ROOMY + 1).unwrap_or(u16::MAX);
    let cells = cells.max(config.cells);
    let connections = u32::from(cells) * 3 / 2;
    Config {
        cells,
        max_connections: config.max_connections.max(connections),
        ..config
    }
}

/// The same, for a process of its own.
pub(crate) fn variables(config: &Config) -> [(&'static str, String); 2] {
    [
        ("BULKHEAD_CELLS", config.cells.to_string()),
        (
            "BULKHEAD_MAX_CONNECTIONS",
            config.max_connections.to_string(),
        ),
    ]
}

/// The hash of every owner's password.
pub(crate) async fn hash(app: &App) -> Result<String> {
    let hash = async { app.services.hasher.slot().await?.hash(PASSWORD).await };
    hash.await.map_err(explain)
}

/// The slug of the tenant of this number.
pub(crate) fn slug(number: u32) -> String {
    format!("resident-{number}")
}

/// Makes one.
pub(crate) async fn one(services: &Services, number: u32, hash: &str) -> Result<Resident, Error> {
    let slug = slug(number);
    let new = NewTenant {
        slug: slug.clone(),
        name: format!("Resident {number}"),
        act: Act::by("bench"),
    };
    let mut secret = [0; 32];
    secret[..4].copy_from_slice(&number.to_be_bytes());
    let token = token_from(TOKEN_PREFIX, secret);
    let tx = tenancy::create(&services.database, new).await?;
    let filled = async {
        let owner = NewMember {
            email: "owner@bench.test".to_owned(),
            name: None,
            password_hash: hash.to_owned(),
            role: BuiltIn::Owner,
        };
        let owner = identity::create_member(&tx, owner).await?;
        identity::begin_session(&tx, owner.id, token_hash(&token), DAYS).await?;
        let mut device = None;
        for number in 0..DEVICES {
            let new = NewDevice {
                name: format!("Device {number}"),
                client_id: Some(format!("BENCH-{number}")),
                pin_hash: "none".to_owned(),
            };
            device = Some(devices::create(&tx, new).await?);
        }
        device.ok_or(Error::NotFound("device"))
    };
    let filled = filled.await;
    let device = tx.settle(filled).await?;
    Ok(Resident {
        host: format!("{slug}.localhost"),
        token,
        device: bulkhead::graphql::global_id::<devices::Device>(device.id).to_string(),
    })
}

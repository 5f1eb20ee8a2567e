//! The application: services, schema and worker, built once and used by server, commands and tests.

use crate::actor::Actor;
use crate::caller::Callers;
use crate::config::{Config, Env};
use crate::database::{self, Database, Listener, Tenant, TenantTx, managed::Server};
use crate::error::{Error, Result};
use crate::feed::Feeds;
use crate::history::{
    Notes,
    seal::{Keys, Sealer},
    stream::Streamer,
};
use crate::identity::{self, BuiltIn, NewMember};
use crate::jobs::Worker;
use crate::mail::Mailer;
use crate::media::{self, store::Store};
use crate::rates::Rates;
use crate::resources::{self, Door, Mutation, Query, Schema, Subscription};
use crate::secret::{Hasher, SecretKey};
use crate::services::Services;
use crate::telemetry::Metrics;
use crate::tenancy::{self, Keeper, NewTenant, Registry, render_template};
use async_graphql::ValidationMode;
use futures::TryStreamExt as _;
use std::sync::{Arc, OnceLock};

/// Everything that runs.
pub struct App {
    /// What operations, resolvers and jobs work with.
    pub services: Arc<Services>,
    /// The tenant API.
    pub door: Arc<Door>,
    server: Option<Server>,
    listener: Listener,
    keeper: OnceLock<Keeper>,
    keys: Keys,
    sealer: OnceLock<Sealer>,
    streamer: OnceLock<Option<Streamer>>,
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App")
            .field("services", &self.services)
            .finish_non_exhaustive()
    }
}

impl App {
    /// Connects to the database, or starts one, and makes it ready.
    ///
    /// `may_download`: PostgreSQL may be fetched if it is not installed.
    pub async fn start(config: Config, key: SecretKey, may_download: bool) -> Result<Self> {
        crate::secret::ensure_tls();
        let keys = Keys::of(&config, &key)?;
        let (database, server) = database::connect(&config, &key, may_download).await?;
        let tx = database.platform().await?;
        let rendered = render_template(&tx).await;
        match rendered {
            Ok(()) => tx.commit().await?,
            Err(error) => return Err(error),
        }
        let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let registry = Registry::new(database.clone(), &config.base_domains);
        let services = Services {
            feeds: Feeds::new(database.clone(), registry.clone()),
            registry,
            callers: Callers::default(),
            notes: Notes::default(),
            rates: Rates::new(&config.rate_limits, config.env),
            metrics: Metrics::default(),
            mailer: Mailer::open(&config)?,
            hasher: Hasher::new(threads)?,
            store: Store::open(&config)?,
            database,
            key,
            config,
        };
        let registry = services.registry.clone();
        let listener = services.database.listen(move |event| registry.hear(event));
        let env = services.config.env;
        let schemas = (
            schema(env, ValidationMode::Strict),
            schema(env, ValidationMode::Fast),
        );
        let door = Door::new(schemas, &services.config, resources::COSTLY)?;
        Ok(Self {
            door: Arc::new(door),
            services: Arc::new(services),
            server,
            listener,
            keeper: OnceLock::new(),
            keys,
            sealer: OnceLock::new(),
            streamer: OnceLock::new(),
        })
    }

    /// Starts running jobs in this process, making spares, and sealing the histories and sending them on, until the app stops.
    pub async fn worker(&self) -> Worker {
        let Services {
            database,
            store,
            config,
            ..
        } = &*self.services;
        self.keeper
            .get_or_init(|| Keeper::start(database.clone(), config.spares));
        self.sealer.get_or_init(|| {
            let anchors = (store.clone(), config.audit_anchor_minutes);
            Sealer::start(database.clone(), self.keys.clone(), anchors)
        });
        self.streamer
            .get_or_init(|| Streamer::start(database.clone(), &config.audit_stream));
        Worker::start(Arc::clone(&self.services), resources::jobs()).await
    }

    /// Waits until a PostgreSQL of ours ends by itself; for ever if there is none.
    pub async fn database_ended(&self) -> Error {
        match &self.server {
            Some(server) => Error::config(format!("PostgreSQL ended: {}", server.exited().await)),
            None => std::future::pending().await,
        }
    }

    /// Closes the connections, and stops the PostgreSQL that is ours.
    pub async fn stop(self) -> Result<()> {
        drop((self.listener, self.keeper, self.sealer, self.streamer));
        self.services.database.close().await;
        match self.server {
            Some(server) => server.stop().await.map_err(Error::internal),
            None => Ok(()),
        }
    }
}

/// Makes a tenant and its first owner: both or neither. The password is hashed while PostgreSQL makes the schema.
pub async fn create_tenant(
    services: &Services,
    new: NewTenant,
    email: &str,
    password: &str,
) -> Result<Tenant> {
    identity::check_password(password)?;
    let hashed = async { services.hasher.slot().await?.hash(password).await };
    let created = tenancy::create(&services.database, new);
    let (password_hash, tx) = tokio::try_join!(hashed, created)?;
    settle(tx, email, password_hash).await
}

/// The same for an owner whose password is hashed already, which takes longer than all the rest.
pub async fn provision(
    database: &Database,
    new: NewTenant,
    email: &str,
    password_hash: String,
) -> Result<Tenant> {
    let tx = tenancy::create(database, new).await?;
    settle(tx, email, password_hash).await
}

async fn settle(tx: TenantTx, email: &str, password_hash: String) -> Result<Tenant> {
    let owner = NewMember {
        email: email.to_owned(),
        name: None,
        password_hash,
        role: BuiltIn::Owner,
    };
    let made = identity::create_member(&tx, owner).await;
    let tenant = Tenant::clone(tx.tenant());
    tx.settle(made).await?;
    Ok(tenant)
}

/// Copies a tenant into a new one: rows as of one moment without credentials, media, plan and settings. Cut short, it goes on
/// when it is begun again.
pub async fn clone_tenant(
    services: &Services,
    source: &str,
    new: NewTenant,
    copied: impl Fn(),
) -> Result<Tenant> {
    let (database, store) = (&services.database, &services.store);
    let act = new.act.clone();
    let (source, clone) = tenancy::clone::begin(database, source, new).await?;
    if let Some(tx) = tenancy::clone::rows(database, (&source, &clone), &act).await? {
        let settled = media::settle_clone(&tx).await;
        tx.settle(settled).await?;
    }
    let tx = database.read(&Arc::new(clone.clone())).await?;
    let ids = media::ids(&tx).await;
    let ids = tx.settle(ids).await?;
    tenancy::clone::objects(database, store, (&source, &clone), &ids, copied).await?;
    let there = store.list(&clone).map_ok(|object| object.location);
    let there = there.try_collect().await.map_err(Error::from)?;
    let by = Actor::Operator(act.operator.clone());
    let tx = database.write(&Arc::new(clone.clone()), &by.into()).await?;
    let ended = media::end_lost(&tx, &there).await;
    tx.settle(ended).await?;
    tenancy::clone::activate(database, &clone, &act).await
}

/// The schema as it is served: in production it does not tell about itself.
pub fn schema(env: Env, validation: ValidationMode) -> Schema {
    let roots = (
        Query::default(),
        Mutation::default(),
        Subscription::default(),
    );
    let builder = Schema::build(roots.0, roots.1, roots.2).validation_mode(validation);
    let builder = resources::describe(builder).data(resources::jobs());
    match env {
        Env::Development => builder.finish(),
        Env::Production => builder
            .disable_introspection()
            .disable_suggestions()
            .finish(),
    }
}

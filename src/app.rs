//! The application: services, schema and worker, built once and used by server, commands and tests.

use crate::caller::Callers;
use crate::config::{Config, Env};
use crate::database::{self, Tenant, managed::Server};
use crate::error::{Error, Result};
use crate::identity::{self, BuiltIn, NewMember};
use crate::jobs::Worker;
use crate::media::store::Store;
use crate::resources::{self, Mutation, Query, Schema};
use crate::secret::{Hasher, SecretKey};
use crate::services::Services;
use crate::tenancy::{self, NewTenant, Registry, render_template};
use async_graphql::EmptySubscription;
use std::sync::Arc;

/// Levels of nesting that a document may have.
const MAX_DEPTH: usize = 15;
/// Fields that a document may ask for.
const MAX_COMPLEXITY: usize = 5000;

/// Everything that runs.
pub struct App {
    /// What operations, resolvers and jobs work with.
    pub services: Arc<Services>,
    /// The tenant API.
    pub schema: Schema,
    server: Option<Server>,
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
        let (database, server) = database::connect(&config, &key, may_download).await?;
        let tx = database.platform().await?;
        let rendered = render_template(&tx).await;
        match rendered {
            Ok(()) => tx.commit().await?,
            Err(error) => return Err(error),
        }
        let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        let services = Services {
            registry: Registry::new(database.clone(), &config.base_domains),
            callers: Callers::default(),
            hasher: Hasher::new(threads)?,
            store: Store::open(&config)?,
            database,
            key,
            config,
        };
        let schema = schema(services.config.env);
        Ok(Self {
            services: Arc::new(services),
            schema,
            server,
        })
    }

    /// Starts running jobs in this process.
    pub async fn worker(&self) -> Worker {
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
    let owner = NewMember {
        email: email.to_owned(),
        name: None,
        password_hash,
        role: BuiltIn::Owner,
    };
    let seeded = async {
        identity::seed_roles(&tx).await?;
        identity::create_member(&tx, owner).await
    };
    let seeded = seeded.await;
    let tenant = Tenant::clone(tx.tenant());
    tx.settle(seeded).await?;
    Ok(tenant)
}

/// The schema as it is served: in production it does not tell about itself.
pub fn schema(env: Env) -> Schema {
    let builder = Schema::build(Query::default(), Mutation::default(), EmptySubscription)
        .limit_depth(MAX_DEPTH)
        .limit_complexity(MAX_COMPLEXITY);
    match env {
        Env::Development => builder.finish(),
        Env::Production => builder
            .disable_introspection()
            .disable_suggestions()
            .finish(),
    }
}

//! A tenant of a test's own, and what is done to it from outside.

use super::{World, png, until, world};
use bulkhead::actor::Actor;
use bulkhead::app::App;
use bulkhead::database::{self, TenantTx};
use bulkhead::identity::{self, BuiltIn, NewMember};
use bulkhead::tenancy::{self, Act, NewTenant};
use reqwest::{Method, RequestBuilder, StatusCode, Url};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Every member's password.
pub const PASSWORD: &str = "a-password-of-the-tests";

/// One tenant.
#[derive(Clone, Debug)]
pub struct Tenant {
    pub slug: String,
    pub row: Arc<database::Tenant>,
    pub world: &'static World,
}

/// What the server said.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}

impl Tenant {
    /// A new tenant with the built-in roles and an owner, made as onboarding makes it.
    pub async fn new() -> Self {
        Self::of(world().await).await
    }

    /// The same in another world than the shared one.
    pub async fn of(world: &'static World) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let slug = format!("test-{}-{number}", std::process::id());
        Self::made(world, slug).await
    }

    /// One whose slug goes on where another's ends.
    pub async fn named_like(slug: &str, end: &str) -> Self {
        Self::made(world().await, format!("{slug}{end}")).await
    }

    async fn made(world: &'static World, slug: String) -> Self {
        let new = NewTenant {
            slug: slug.clone(),
            name: format!("Test {slug}"),
            act: Act::by("tests"),
        };
        let tx = tenancy::create(&world.app.services.database, new)
            .await
            .unwrap();
        let row = Arc::clone(tx.tenant());
        tx.commit().await.unwrap();
        let tenant = Self { slug, row, world };
        tenant.member(BuiltIn::Owner).await;
        tenant
    }

    /// A tenant that is there already.
    pub async fn named(slug: &str) -> Self {
        let world = world().await;
        let tx = world.app.services.database.platform().await.unwrap();
        let row = tenancy::by_slug(&tx, slug).await.unwrap();
        tx.commit().await.unwrap();
        Self {
            slug: slug.to_owned(),
            row: Arc::new(row.expect("a tenant")),
            world,
        }
    }

    /// Makes the member `<role>@<slug>.test`.
    pub async fn member(&self, role: BuiltIn) -> String {
        let slot = self.world.app.services.hasher.slot().await.unwrap();
        let password_hash = slot.hash(PASSWORD).await.unwrap();
        let email = format!("{}@{}.test", role.name(), self.slug);
        let tx = self.write().await;
        let new = NewMember {
            email: email.clone(),
            name: None,
            password_hash,
            role,
        };
        identity::create_member(&tx, new).await.unwrap();
        tx.commit().await.unwrap();
        email
    }

    /// Signs the member with this role in, by HTTP, making them first unless they are the owner.
    pub async fn token(&self, role: BuiltIn) -> String {
        let email = match role {
            BuiltIn::Owner => format!("owner@{}.test", self.slug),
            other => self.member(other).await,
        };
        self.sign_in(&email).await
    }

    /// A session of the member with this address.
    pub async fn sign_in(&self, email: &str) -> String {
        self.sign_in_with(email, PASSWORD).await
    }

    /// The same, with another password than the tests'.
    pub async fn sign_in_with(&self, email: &str, password: &str) -> String {
        let query =
            "mutation($input: SessionCreateInput!) { sessionCreate(input: $input) { token } }";
        let variables = json!({ "input": { "email": email, "password": password } });
        let answer = self.gql_with(None, query, variables).await;
        answer.body["data"]["sessionCreate"]["token"]
            .as_str()
            .unwrap_or_else(|| panic!("no token in {:#}", answer.body))
            .to_owned()
    }

    /// A device and its PIN, made through GraphQL: `(global id, client id, PIN)`.
    pub async fn device(&self, owner: &str) -> (String, String, String) {
        let query = "mutation { deviceCreate(input: { name: \"A device\" }) { pin device { id clientId } } }";
        let made = self.gql(Some(owner), query).await.data()["deviceCreate"].clone();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (
            text(&made["device"]["id"]),
            text(&made["device"]["clientId"]),
            text(&made["pin"]),
        )
    }

    /// Signs a device in by REST.
    pub async fn device_auth(&self, client_id: &str, pin: &str) -> Answer {
        let body = json!({ "client_id": client_id, "pin": pin });
        self.send(self.request(Method::POST, "/device/auth").json(&body))
            .await
    }

    /// Runs a document, as whoever has the token.
    pub async fn gql(&self, token: Option<&str>, query: &str) -> Answer {
        self.gql_with(token, query, Value::Null).await
    }

    /// The same with variables.
    pub async fn gql_with(&self, token: Option<&str>, query: &str, variables: Value) -> Answer {
        let mut request = self
            .request(Method::POST, "/graphql")
            .json(&json!({ "query": query, "variables": variables }));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        self.send(request).await
    }

    /// The tenant's host, with the port.
    pub fn host(&self) -> String {
        let port = self.world.address.rsplit_once(':').unwrap().1;
        format!("{}.localhost:{port}", self.slug)
    }

    /// A request to the tenant's host.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.world.request(method, &self.host(), path)
    }

    /// A request to a link that the server gave out. Its host is not resolved: the connection goes to the tests' server.
    pub fn follow(&self, method: Method, link: &str) -> RequestBuilder {
        let mut url = Url::parse(link).unwrap();
        let host = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap());
        url.set_host(Some("127.0.0.1")).unwrap();
        self.world.client.request(method, url).header("Host", host)
    }

    /// Sends it and reads the answer as JSON, or as text in a JSON string.
    pub async fn send(&self, request: RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Answer {
            status,
            headers,
            body,
        }
    }

    /// Begins the upload of a photo: `media { id } upload { url }`.
    pub async fn upload(&self, token: &str) -> Value {
        let query = "mutation($input: MediaCreateUploadInput!) { mediaCreateUpload(input: $input) {
            media { id } upload { url } errors { code } } }";
        let input = json!({ "resourceType": "photo", "filename": "gate.png", "contentType": "image/png", "size": png().len() });
        let made = self
            .gql_with(Some(token), query, json!({ "input": input }))
            .await;
        made.data()["mediaCreateUpload"].clone()
    }

    /// Uploads a photo and waits until it is READY, as [`Self::processed`] gives it; `job` is the id of what processed it.
    pub async fn photo(&self, token: &str) -> Value {
        let made = self.upload(token).await;
        let put = self.follow(Method::PUT, made["upload"]["url"].as_str().unwrap());
        assert_eq!(self.send(put.body(png())).await.status, StatusCode::CREATED);
        let complete = "mutation($id: ID!) { mediaCompleteUpload(input: { mediaId: $id }) { job { id } errors { code } } }";
        let id = made["media"]["id"].as_str().unwrap();
        let done = self
            .gql_with(Some(token), complete, json!({ "id": id }))
            .await;
        let job = done.data()["mediaCompleteUpload"]["job"]["id"].clone();
        let mut media = self.processed(token, id).await;
        assert_eq!(media["state"], "READY", "{media:#}");
        media["job"] = job;
        media
    }

    /// A connection as PostgreSQL's superuser with the tenant's schema in its path: what no client can do.
    pub async fn superuser(&self) -> PgConnection {
        let mut connection = self.world.superuser().await;
        let bind = format!(
            "SET search_path TO \"{}\"; SET bulkhead.actor = 'system:tests'",
            self.row.schema_name
        );
        sqlx::raw_sql(AssertSqlSafe(bind))
            .execute(&mut connection)
            .await
            .unwrap();
        connection
    }

    /// A connection as the login role of its cell, bound to nobody.
    pub async fn cell(&self) -> PgConnection {
        self.world.cell(self.row.cell_id).await
    }

    /// Runs a statement as superuser; says how many rows it touched.
    pub async fn sql(&self, statement: &'static str) -> u64 {
        let done = sqlx::query(statement)
            .execute(&mut self.superuser().await)
            .await;
        done.unwrap().rows_affected()
    }

    /// A number that a query gives.
    pub async fn count(&self, query: &'static str) -> i64 {
        let found = sqlx::query_scalar(query)
            .fetch_one(&mut self.superuser().await)
            .await;
        found.unwrap()
    }

    /// How many changes the tenant's history has.
    pub async fn changes(&self) -> i64 {
        self.count("SELECT count(*) FROM history").await
    }

    /// A unit of work in the tenant, as the tests.
    pub async fn write(&self) -> TenantTx {
        self.write_on(&self.world.app).await
    }

    /// The same, by another server.
    pub async fn write_on(&self, app: &App) -> TenantTx {
        let by = Actor::System("tests".to_owned()).into();
        let database = &app.services.database;
        database.write(&self.row, &by).await.unwrap()
    }

    /// Waits until the media has left its processing, and returns it: `id filename state failure contentType size url`.
    pub async fn processed(&self, token: &str, media: &str) -> Value {
        let query = "query($id: ID!) { node(id: $id) { ... on Media {
            id filename state failure contentType size sha256 url thumbnail(size: SMALL) } } }";
        until("the media is processed", async || {
            let answer = self
                .gql_with(Some(token), query, json!({ "id": media }))
                .await;
            let node = answer.body["data"]["node"].clone();
            matches!(node["state"].as_str(), Some("READY" | "FAILED")).then_some(node)
        })
        .await
    }
}

impl Answer {
    /// The data of an answer without errors.
    #[track_caller]
    pub fn data(&self) -> &Value {
        assert!(self.body.get("errors").is_none(), "{:#}", self.body);
        &self.body["data"]
    }

    /// The payload of a document's only root field.
    #[track_caller]
    pub fn payload(&self) -> &Value {
        let fields = self.data().as_object().expect("data");
        fields.values().next().expect("a root field")
    }

    /// The only expected failure of a document's only mutation.
    #[track_caller]
    pub fn failure(&self) -> &Value {
        let errors = self.payload()["errors"].as_array().expect("errors");
        assert_eq!(errors.len(), 1, "{errors:#?}");
        &errors[0]
    }

    /// A header, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("")
    }

    /// The code of the first top-level error.
    #[track_caller]
    pub fn code(&self) -> &str {
        let code = self.body["errors"][0]["extensions"]["code"].as_str();
        code.unwrap_or_else(|| panic!("no error in {:#}", self.body))
    }
}

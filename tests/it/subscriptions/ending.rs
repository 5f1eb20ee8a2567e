//! A connection lasts as long as its credential, its tenant and its server, and shows what its caller may see.

use super::{Server, followed, rename};
use crate::harness::{Events, Heard, Socket, Tenant, World, finish, run};
use bulkhead::identity::BuiltIn;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

const CHANGES: &str = "subscription { changeRecorded { id } }";
const JOBS: &str = "subscription { jobUpdated { id } }";

/// Somebody with a socket and an event stream, both following.
struct Both {
    socket: Socket,
    events: Events,
}

impl Both {
    async fn of(tenant: &Tenant, token: &str) -> Self {
        let mut socket = Socket::init(tenant, Some(token)).await;
        socket.subscribe("a", JOBS).await;
        let events = Events::open(tenant, Some(token), JOBS).await;
        followed(tenant, 4).await;
        Self { socket, events }
    }

    /// Waits until both have ended, the socket with this code, the stream with this one.
    async fn ended(mut self, close: u16, code: &str) {
        match self.socket.closed().await {
            Heard::Closed(closed, _) if closed == close => {}
            other => panic!("not closed with {close}: {other:?}"),
        }
        assert_eq!(code_of(&self.events.next().await), code);
        let over = Some(("complete".to_owned(), String::new()));
        assert_eq!(self.events.hear().await, over);
        assert_eq!(self.events.hear().await, None);
    }
}

fn code_of(answer: &Value) -> &str {
    let code = &answer["errors"][0]["extensions"]["code"];
    code.as_str().unwrap_or_else(|| panic!("{answer:#}"))
}

#[test]
fn a_suspended_tenants_connections_end() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let both = Both::of(&tenant, &owner).await;
        let mut nobodys = Socket::init(&tenant, None).await;
        let mut command = tenant.world.command();
        let done = finish(command.args(["tenant", "suspend", &tenant.slug]), "");
        assert_eq!(done.0, Some(0), "{done:?}");
        both.ended(4403, "TENANT_SUSPENDED").await;
        let unknown = Heard::Closed(4403, "No tenant is served at this host.".to_owned());
        assert_eq!(nobodys.closed().await, unknown);
    });
}

#[test]
fn who_signs_out_is_gone_and_their_other_session_stays() {
    run(async {
        let tenant = Tenant::new().await;
        let email = format!("owner@{}.test", tenant.slug);
        let (one, other) = (tenant.sign_in(&email).await, tenant.sign_in(&email).await);
        let both = Both::of(&tenant, &one).await;
        let mut stays = Socket::init(&tenant, Some(&other)).await;
        tenant
            .gql(
                Some(&one),
                "mutation { sessionRevoke(input: {}) { revokedCount } }",
            )
            .await
            .data();
        both.ended(4401, "UNAUTHENTICATED").await;
        stays.subscribe("a", "{ tenant { slug } }").await;
        assert_eq!(
            stays.next("a").await["data"]["tenant"]["slug"],
            tenant.slug.as_str()
        );
    });
}

/// By another server, or by hand: nobody here is told.
#[test]
fn a_session_that_is_revoked_elsewhere_ends() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let both = Both::of(&tenant, &owner).await;
        tenant.sql("UPDATE session SET revoked_at = now()").await;
        both.ended(4401, "UNAUTHENTICATED").await;
    });
}

#[test]
fn a_session_that_has_had_its_time_ends() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let both = Both::of(&tenant, &owner).await;
        tenant
            .sql("UPDATE session SET expires_at = now() + interval '1500 milliseconds'")
            .await;
        both.ended(4401, "UNAUTHENTICATED").await;
    });
}

#[test]
fn a_device_that_is_switched_off_is_gone() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let (device, client_id, pin) = tenant.device(&owner).await;
        let auth = tenant.device_auth(&client_id, &pin).await;
        let both = Both::of(&tenant, auth.body["access_token"].as_str().unwrap()).await;
        let off = format!(
            r#"mutation {{ deviceUpdate(input: {{ deviceId: "{device}", enabled: false }}) {{ errors {{ code }} }} }}"#
        );
        tenant.gql(Some(&owner), &off).await.data();
        both.ended(4401, "UNAUTHENTICATED").await;
    });
}

#[test]
fn who_may_see_it_no_longer_is_told_nothing_more() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let (device, ..) = tenant.device(&owner).await;
        let admin = tenant.token(BuiltIn::Admin).await;
        let mut socket = Socket::init(&tenant, Some(&admin)).await;
        socket.subscribe("a", CHANGES).await;
        let mut events = Events::open(&tenant, Some(&admin), CHANGES).await;
        followed(&tenant, 4).await;
        tenant
            .sql("DELETE FROM member_role WHERE member_id = (SELECT id FROM member WHERE email LIKE 'admin@%')")
            .await;
        // The change itself may be seen still, or one that comes with it.
        let mut number = 0;
        let mut change = async || {
            number += 1;
            rename(&tenant, &owner, &device, &format!("unseen {number}")).await;
        };
        let told = loop {
            change().await;
            let told = socket.next("a").await;
            if told.get("errors").is_some() {
                break told;
            }
        };
        assert_eq!(code_of(&told), "FORBIDDEN");
        let over = Heard::Said(json!({ "id": "a", "type": "complete" }));
        assert_eq!(socket.hear().await, over);
        let told = loop {
            change().await;
            let told = events.next().await;
            if told.get("errors").is_some() {
                break told;
            }
        };
        assert_eq!(code_of(&told), "FORBIDDEN");
        assert_eq!(events.hear().await.unwrap().0, "complete");
        socket.subscribe("a", CHANGES).await;
        assert_eq!(code_of(&socket.next("a").await), "FORBIDDEN");
    });
}

#[test]
fn a_server_that_stops_says_goodbye() {
    run(async {
        let world = World::private(|_| ()).await;
        let tenant = Tenant::of(world).await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let mut server = Server::start(world).await;
        let mut greeted = server.socket(&tenant).await.greeted(Some(&owner)).await;
        greeted.subscribe("a", JOBS).await;
        greeted.subscribe("b", "{ tenant { slug } }").await;
        greeted.next("b").await;
        let mut silent = server.socket(&tenant).await;
        let request = Events::asking(server.request(&tenant), Some(&owner), JOBS);
        let mut events = Events::of(request).await;
        server.process.signal(Signal::SIGTERM);
        for socket in [&mut greeted, &mut silent] {
            let closed = Heard::Closed(1001, "The server stops".to_owned());
            assert_eq!(socket.closed().await, closed);
        }
        // Broken off rather than complete: the client tries again.
        assert_eq!(events.hear().await, None);
        drop((greeted, silent));
        assert!(server.process.ended().await.success());
    });
}

/// Whose role has another login now is sent away, and finds it.
#[test]
fn a_tenant_that_moves_to_another_cell_connects_again() {
    run(async {
        let world = World::private(|config| config.cells = 1).await;
        let tenants = [Tenant::of(world).await, Tenant::of(world).await];
        let mut sockets = Vec::new();
        for tenant in &tenants {
            let owner = tenant.token(BuiltIn::Owner).await;
            sockets.push((Socket::init(tenant, Some(&owner)).await, owner));
        }
        let done = finish(world.command().args(["cell", "add"]), "");
        assert_eq!(done.0, Some(0), "{done:?}");
        let select = "SELECT slug FROM bulkhead.tenant WHERE cell_id = 1";
        let moved: Vec<String> = sqlx::query_scalar(AssertSqlSafe(select))
            .fetch_all(&mut world.superuser().await)
            .await
            .unwrap();
        assert_eq!(moved.len(), 1, "{moved:?}");
        for (tenant, (socket, owner)) in tenants.iter().zip(&mut sockets) {
            if moved.contains(&tenant.slug) {
                let closed = Heard::Closed(1012, "Connect again".to_owned());
                assert_eq!(socket.closed().await, closed);
                *socket = Socket::init(tenant, Some(owner)).await;
            }
            socket.subscribe("a", "{ tenant { slug } }").await;
            assert_eq!(
                socket.next("a").await["data"]["tenant"]["slug"],
                tenant.slug.as_str()
            );
        }
    });
}

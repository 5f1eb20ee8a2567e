//! A pool of connections that is sure of each one it hands out: one budget over the platform and all cells.
//!
//! sqlx's own pool (0.9.0) can hand on a connection inside the transaction of a cancelled `begin`, and pings on every
//! return. Here a connection comes back only when its last statement was answered: after its `COMMIT` or
//! `ROLLBACK`, or, from a read, to be ended by the next begin. One whose last statement was cut short is closed.

mod connection;
mod idle;
mod lease;
mod places;
mod tenants;

pub(super) use connection::{Holder, Login};
pub(super) use lease::Lease;

use super::cell::Logins;
use super::unit::Unit;
use crate::error::{Error, Result};
use connection::Connection;
use idle::{LINGER, Open};
use places::{Grant, Place, Places};
use sqlx::ConnectOptions as _;
use std::fmt;
use std::io::ErrorKind;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};
use tenants::{Admission, Tenants};
use tokio::time::{sleep, timeout_at};

/// How long a unit of work waits for its turn before it is refused.
const WAIT: Duration = Duration::from_secs(3);
/// How long it may then take to begin, if it waited for long: a connection that has hardly any time left would be lost.
const BEGIN: Duration = Duration::from_secs(1);

/// Connections of all login roles.
#[derive(Clone, Debug)]
pub(super) struct Pool(Arc<Inner>);

struct Inner {
    logins: Logins,
    places: Arc<Places>,
    tenants: Arc<Tenants>,
    sweeping: AtomicBool,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("places", &self.places)
            .finish_non_exhaustive()
    }
}

/// What a unit of work has been given to begin with, and until when it may take.
#[derive(Debug)]
struct Turn {
    holder: Holder,
    admission: Option<Admission>,
    grant: Grant,
    deadline: Instant,
}

impl Pool {
    /// A pool of up to `budget` connections, of which one tenant may use the half.
    pub(super) fn new(logins: Logins, budget: usize) -> Self {
        Self(Arc::new(Inner {
            logins,
            places: Arc::new(Places::new(budget)),
            tenants: Arc::new(Tenants::new((budget / 2).max(1))),
            sweeping: AtomicBool::new(false),
        }))
    }

    pub(super) fn logins(&self) -> &Logins {
        &self.0.logins
    }

    /// Begins a transaction with `begin`, which binds it in the same round trip.
    ///
    /// An idle connection may have died unseen (PostgreSQL was restarted): then all idle ones are dropped, and a new one is
    /// tried once.
    pub(super) async fn begin(&self, holder: Holder, begin: String) -> Result<Unit> {
        let turn = self.turn(holder).await?;
        self.begin_with(turn, begin).await
    }

    /// The same for reading. A read of the same tenant that ended a moment ago, its transaction still open, is gone on with:
    /// it is bound as this one would be, and each of its statements sees what is committed by then.
    pub(super) async fn begin_read(&self, holder: Holder, begin: String) -> Result<Unit> {
        let turn = self.turn(holder).await?;
        let began = match &turn.grant {
            Grant::Idle(entry) => entry.reads(holder),
            _ => None,
        };
        let unit = match (turn.grant, began) {
            (Grant::Idle(entry), Some(began)) => {
                let lease = Lease::new(self.clone(), holder, turn.admission, entry.connection);
                Unit::new(lease.since(began))
            }
            (grant, _) => self.begin_with(Turn { grant, ..turn }, begin).await?,
        };
        Ok(unit.reading())
    }

    /// Waits in the tenant's line, then in that of all who use its login.
    async fn turn(&self, holder: Holder) -> Result<Turn> {
        let deadline = Instant::now() + WAIT;
        let mut waiting = pin!(async {
            let admission = match holder.tenant() {
                Some(tenant) => Some(self.0.tenants.admit(tenant).await?),
                None => None,
            };
            let grant = self.0.places.take(holder).await?;
            Ok(Turn {
                holder,
                admission,
                grant,
                deadline: deadline.max(Instant::now() + BEGIN),
            })
        });
        // Mostly there is nothing to wait for, and no need of a timer.
        match futures::poll!(waiting.as_mut()) {
            Poll::Ready(turn) => turn,
            Poll::Pending => timeout_at(deadline.into(), waiting)
                .await
                .map_err(|_| Error::Unavailable)?,
        }
    }

    async fn begin_with(&self, turn: Turn, begin: String) -> Result<Unit> {
        let Turn {
            holder,
            admission,
            grant,
            deadline,
        } = turn;
        let (place, admission) = match grant {
            Grant::Free(place) => (place, admission),
            Grant::Instead(entry) => {
                let closed = timeout_at(deadline.into(), entry.close()).await;
                (closed.map_err(|_| Error::Unavailable)?, admission)
            }
            Grant::Idle(entry) => {
                let first = match entry.open {
                    Some(_) => format!("COMMIT; {begin}"),
                    None => begin.clone(),
                };
                let mut lease = Lease::new(self.clone(), holder, admission, entry.connection);
                match lease.begin(first, deadline).await {
                    Ok(()) => return Ok(Unit::new(lease)),
                    Err(error) if !is_lost(&error) => return Err(error.into()),
                    Err(error) => {
                        drop(self.0.places.take_all());
                        lease.forget().ok_or(error)?
                    }
                }
            }
        };
        let connection = self.connect(place, holder, deadline).await?;
        let mut lease = Lease::new(self.clone(), holder, admission, connection);
        lease.begin(begin, deadline).await?;
        Ok(Unit::new(lease))
    }

    async fn connect(&self, place: Place, holder: Holder, deadline: Instant) -> Result<Connection> {
        let connected = timeout_at(deadline.into(), async {
            let options = self.0.logins.options(holder.login()).await?;
            Ok(Connection::new(options.connect().await?, holder, place))
        });
        connected.await.map_err(|_| Error::Unavailable)?
    }

    /// Closes the idle connections and refuses to begin anything.
    pub(super) async fn close(&self) {
        self.0.places.close();
        let idle = self.0.places.take_all();
        for entry in idle {
            drop(entry.close().await);
        }
    }

    fn put(&self, connection: Connection, open: Option<Open>) {
        if !connection.is_worn() {
            self.0.places.put(connection, open);
        } else if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { drop(connection.close().await) });
        }
    }

    /// Takes back a connection whose last read is over but not ended: the tenant's next read goes on with it, another begin
    /// here ends it in the same round trip, and the sweeper does if there is neither soon. So a read of one statement costs
    /// one round trip, not three.
    fn put_open(&self, connection: Connection, began: Instant) {
        let over = Instant::now();
        self.put(connection, Some(Open { began, over }));
        if !self.0.sweeping.swap(true, Ordering::AcqRel) {
            let pool = self.clone();
            tokio::runtime::Handle::current().spawn(async move { pool.sweep().await });
        }
    }

    /// Ends the reads that nobody has ended for a moment, until there is none.
    async fn sweep(&self) {
        loop {
            sleep(LINGER).await;
            while let Some(mut connection) = self.0.places.take_stale() {
                if connection.end("COMMIT").await {
                    self.put(connection, None);
                }
            }
            // A read that ends meanwhile is seen here, or begins another sweep.
            self.0.sweeping.store(false, Ordering::Release);
            if !self.0.places.has_open() || self.0.sweeping.swap(true, Ordering::AcqRel) {
                return;
            }
        }
    }
}

/// A pool that is dropped is closed: its places hold the idle connections, and these their places.
impl Drop for Inner {
    fn drop(&mut self) {
        self.places.close();
        drop(self.places.take_all());
    }
}

/// Whether the connection is gone: a new one can succeed where this one failed. One that we did not wait for any longer may only
/// be slow; that it is gone is for the system to say.
fn is_lost(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(e) if e.kind() != ErrorKind::TimedOut || e.raw_os_error().is_some())
        || matches!(error, sqlx::Error::Protocol(_))
        || error
            .as_database_error()
            .and_then(|e| {
                e.code()
                    .map(|code| code.starts_with("57P") || code.starts_with("08"))
            })
            .unwrap_or(false)
}

//! A pool of connections that is sure of each one it hands out: one budget over the platform and all cells.
//!
//! sqlx's own pool (0.9.0) can hand on a connection inside the transaction of a cancelled `begin`, and pings on every
//! return. Here a connection comes back only when its last statement was answered: after its `COMMIT` or
//! `ROLLBACK`, or, from a read, to be ended by the next begin. One whose last statement was cut short is closed.

mod connection;
mod idle;
mod lease;
mod tenants;

pub(super) use connection::{Holder, Login};
pub(super) use lease::Lease;

use super::cell::Logins;
use super::unit::Unit;
use crate::error::{Error, Result};
use connection::Connection;
use idle::{Entry, Idle, LINGER, Open};
use sqlx::ConnectOptions as _;
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};
use tenants::{Admission, Tenants};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout_at};

/// How long a unit of work waits, for its turn and for a connection that works, before it is refused.
const WAIT: Duration = Duration::from_secs(3);

/// Connections of all login roles.
#[derive(Clone, Debug)]
pub(super) struct Pool(Arc<Inner>);

struct Inner {
    logins: Logins,
    /// Whoever has a turn may use one connection. There are as many as the budget, first come, first served.
    turns: Arc<Semaphore>,
    /// Whatever is open has a place, used or idle. There are as many as the budget.
    places: Arc<Semaphore>,
    tenants: Arc<Tenants>,
    idle: Mutex<Idle>,
    sweeping: AtomicBool,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("turns", &self.turns)
            .field("places", &self.places)
            .finish_non_exhaustive()
    }
}

/// The right to use one connection. The next in the queue of all has it before the next of the tenant joins that queue.
#[derive(Debug)]
struct Turn {
    _turn: OwnedSemaphorePermit,
    _admission: Option<Admission>,
}

impl Pool {
    /// A pool of up to `budget` connections, of which one tenant may use the half.
    pub(super) fn new(logins: Logins, budget: usize) -> Self {
        Self(Arc::new(Inner {
            logins,
            turns: Arc::new(Semaphore::new(budget)),
            places: Arc::new(Semaphore::new(budget)),
            tenants: Arc::new(Tenants::new((budget / 2).max(1))),
            idle: Mutex::default(),
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
        let deadline = Instant::now() + WAIT;
        let turn = self.turn(holder, deadline).await?;
        self.begin_with(turn, holder, begin, deadline).await
    }

    /// The same for reading. A read of the same tenant that ended a moment ago, its transaction still open, is gone on with:
    /// it is bound as this one would be, and each of its statements sees what is committed by then.
    pub(super) async fn begin_read(&self, holder: Holder, begin: String) -> Result<Unit> {
        let deadline = Instant::now() + WAIT;
        let turn = self.turn(holder, deadline).await?;
        let open = self.idle().take_open(holder);
        let Some((connection, began)) = open else {
            let unit = self.begin_with(turn, holder, begin, deadline).await?;
            return Ok(unit.reading());
        };
        let lease = Lease::new(self.clone(), holder, turn, connection).since(began);
        Ok(Unit::new(lease).reading())
    }

    /// Waits for the tenant's line, then for everybody's.
    async fn turn(&self, holder: Holder, deadline: Instant) -> Result<Turn> {
        let mut waiting = pin!(async {
            let admission = match holder.tenant() {
                Some(tenant) => Some(self.0.tenants.admit(tenant).await?),
                None => None,
            };
            let turn = Arc::clone(&self.0.turns).acquire_owned().await;
            Ok(Turn {
                _turn: turn.map_err(|_| Error::Unavailable)?,
                _admission: admission,
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

    async fn begin_with(
        &self,
        turn: Turn,
        holder: Holder,
        begin: String,
        deadline: Instant,
    ) -> Result<Unit> {
        let reused = self.idle().take(holder);
        let turn = match reused {
            None => turn,
            Some(Entry { connection, open }) => {
                let first = match open {
                    Some(_) => format!("COMMIT; {begin}"),
                    None => begin.clone(),
                };
                let mut lease = Lease::new(self.clone(), holder, turn, connection);
                match lease.begin(first, deadline).await {
                    Ok(()) => return Ok(Unit::new(lease)),
                    Err(error) if !is_lost(&error) => return Err(error.into()),
                    Err(error) => {
                        let turn = lease.forget().ok_or(error)?;
                        drop(self.idle().take_all());
                        turn
                    }
                }
            }
        };
        let connection = self.connect(holder, deadline).await?;
        let mut lease = Lease::new(self.clone(), holder, turn, connection);
        lease.begin(begin, deadline).await?;
        Ok(Unit::new(lease))
    }

    /// A new connection, in the place of an idle one of another login if the budget is spent.
    async fn connect(&self, holder: Holder, deadline: Instant) -> Result<Connection> {
        let connected = timeout_at(deadline.into(), async {
            let place = self.place().await?;
            let options = self.0.logins.options(holder.login()).await?;
            Ok(Connection::new(options.connect().await?, holder, place))
        });
        connected.await.map_err(|_| Error::Unavailable)?
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit> {
        let places = &self.0.places;
        if let Ok(place) = Arc::clone(places).try_acquire_owned() {
            return Ok(place);
        }
        let coldest = self.idle().take_coldest();
        if let Some(coldest) = coldest {
            coldest.close().await;
        }
        // Whoever has a turn gets a place: as soon as the one that is being closed is gone.
        let place = Arc::clone(places).acquire_owned().await;
        place.map_err(|_| Error::Unavailable)
    }

    /// Closes the idle connections and refuses to begin anything.
    pub(super) async fn close(&self) {
        self.0.turns.close();
        let idle = self.idle().take_all();
        for entry in idle {
            entry.close().await;
        }
    }

    fn put(&self, connection: Connection, open: Option<Open>) {
        if connection.is_worn() {
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(connection.close());
            }
        } else if !self.0.turns.is_closed() {
            self.idle().push(Entry { connection, open });
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
            while let Some((mut connection, turn)) = self.take_stale() {
                if connection.end("COMMIT").await {
                    self.put(connection, None);
                }
                drop(turn);
            }
            let idle = self.idle();
            if !idle.has_open() {
                self.0.sweeping.store(false, Ordering::Release);
                return;
            }
        }
    }

    /// With a turn, so that nobody connects in its place. Without one to be had, those who have them take what is idle.
    fn take_stale(&self) -> Option<(Connection, OwnedSemaphorePermit)> {
        let turn = Arc::clone(&self.0.turns).try_acquire_owned().ok()?;
        Some((self.idle().take_stale()?, turn))
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the connection is gone: a new one can succeed where this one failed.
fn is_lost(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(_) | sqlx::Error::Protocol(_))
        || error
            .as_database_error()
            .and_then(|e| {
                e.code()
                    .map(|code| code.starts_with("57P") || code.starts_with("08"))
            })
            .unwrap_or(false)
}

//! One connection of the pool, and whom it is used for.

use super::places::Place;
use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Executor as _};
use std::collections::HashSet;
use std::time::Duration;
use tokio::time::timeout;
use uuid::Uuid;

/// How many tenants' tables a connection reads in its life: PostgreSQL keeps about 290 kB for each, and frees them only with
/// the connection.
const TENANTS: usize = 300;
/// How many new schemas a connection makes, or writes the first rows of. The history's triggers have plans of their own in each
/// schema, and with every further schema PostgreSQL goes through all of them a thousand times.
const MADE: usize = 20;
/// How long a rollback or a close that nobody waits for may take before the connection is dropped instead.
const GOODBYE: Duration = Duration::from_secs(1);

/// For whom a connection is used: affinity, logins and retirement go by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::database) enum Holder {
    /// The platform's own work.
    Platform,
    /// A tenant, and the cell it is in.
    Tenant { id: Uuid, cell: i16 },
}

/// Which login role a connection is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::database) enum Login {
    /// The owner of the schemas.
    Platform,
    /// The login of a cell.
    Cell(i16),
}

impl Holder {
    pub(super) fn login(self) -> Login {
        match self {
            Self::Platform => Login::Platform,
            Self::Tenant { cell, .. } => Login::Cell(cell),
        }
    }

    pub(super) fn tenant(self) -> Option<Uuid> {
        match self {
            Self::Platform => None,
            Self::Tenant { id, .. } => Some(id),
        }
    }
}

/// An open connection, with its place in the budget.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) session: PgConnection,
    /// Whom it served last, or serves.
    pub(super) last: Holder,
    /// The tenants whose tables it has read.
    touched: HashSet<Uuid>,
    /// How many schemas it has made or furnished.
    made: usize,
    pub(super) place: Place,
}

impl Connection {
    pub(super) fn new(session: PgConnection, holder: Holder, place: Place) -> Self {
        Self {
            session,
            last: holder,
            touched: holder.tenant().into_iter().collect(),
            made: 0,
            place,
        }
    }

    pub(super) fn login(&self) -> Login {
        self.last.login()
    }

    /// Notes whom it serves from now on.
    pub(super) fn serve(&mut self, holder: Holder) {
        if self.last != holder {
            self.last = holder;
            self.touched.extend(holder.tenant());
        }
    }

    /// Whether it has read the holder's tables.
    pub(super) fn knows(&self, holder: Holder) -> bool {
        holder
            .tenant()
            .is_some_and(|tenant| self.touched.contains(&tenant))
    }

    /// Notes that it makes or furnishes so many schemas.
    pub(super) fn make(&mut self, schemas: usize) {
        self.made += schemas;
    }

    /// Whether it has seen so many tenants' tables that a new one is cheaper.
    pub(super) fn is_worn(&self) -> bool {
        self.touched.len() >= TENANTS || self.made >= MADE
    }

    /// Ends its transaction, which nobody waits for. False: it did not answer as it should, and is to be dropped.
    pub(super) async fn end(&mut self, statement: &'static str) -> bool {
        let end = self.session.execute(sqlx::raw_sql(statement));
        matches!(timeout(GOODBYE, end).await, Ok(Ok(_)))
    }

    /// Closes it: the place that it had. One that cannot say goodbye is gone already.
    pub(super) async fn close(self) -> Place {
        let _ = timeout(GOODBYE, self.session.close()).await;
        self.place
    }
}

//! Pages of lists: Relay connections by keyset, never by offset.

use crate::database::TenantTx;
use crate::error::{Error, Result};
use async_graphql::connection::{Connection, CursorType, Edge, EmptyFields};
use async_graphql::{OutputType, SimpleObject};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sea_orm::sea_query::{Alias, Expr, ExprTrait as _, Query};
use sea_orm::{
    ColumnTrait, ConnectionTrait as _, EntityTrait, QueryFilter as _, QueryOrder as _,
    QuerySelect as _, QueryTrait as _, Select,
};
use std::fmt;
use uuid::Uuid;

/// The largest page; more is an error, not a smaller page.
const MAX_PAGE: i32 = 100;
/// Where counting stops.
const COUNT_CAP: u64 = 10_000;

/// A place in a list: the id of the row there, opaque outside.
#[derive(Clone, Copy, Debug)]
pub struct Cursor(pub Uuid);

/// The text is no cursor of ours.
#[derive(Debug)]
pub struct NotACursor;

impl fmt::Display for NotACursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a cursor of this list")
    }
}

impl CursorType for Cursor {
    type Error = NotACursor;

    fn decode_cursor(text: &str) -> std::result::Result<Self, NotACursor> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| NotACursor)?;
        Uuid::from_slice(&bytes).map(Self).map_err(|_| NotACursor)
    }

    fn encode_cursor(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }
}

/// `first` and `after`, checked.
#[derive(Clone, Copy, Debug)]
pub struct PageInput {
    /// Rows wanted, 0 to 100.
    pub first: u64,
    /// After which row.
    pub after: Option<Uuid>,
}

impl PageInput {
    /// Checks a field's arguments.
    pub fn new(first: i32, after: Option<&str>) -> Result<Self> {
        if !(0..=MAX_PAGE).contains(&first) {
            return Err(Error::BadRequest(format!(
                "first must be from 0 to {MAX_PAGE}, not {first}."
            )));
        }
        let after = after
            .map(Cursor::decode_cursor)
            .transpose()
            .map_err(|e| Error::BadRequest(format!("after is {e}.")))?;
        Ok(Self {
            first: u64::try_from(first).unwrap_or_default(),
            after: after.map(|cursor| cursor.0),
        })
    }
}

/// Rows of a page, and whether there are more.
#[derive(Debug)]
pub struct Paged<T> {
    /// At most as many as wanted.
    pub rows: Vec<T>,
    /// Whether others follow.
    pub more: bool,
    /// Whether it began after a row.
    pub after: bool,
}

impl<T> Paged<T> {
    /// From up to `first + 1` rows.
    pub fn of(mut rows: Vec<T>, page: PageInput) -> Self {
        let wanted = usize::try_from(page.first).unwrap_or(usize::MAX);
        let more = rows.len() > wanted;
        rows.truncate(wanted);
        Self {
            rows,
            more,
            after: page.after.is_some(),
        }
    }
}

/// A page in the order of ids, which is that of creation: newest first.
pub async fn page_by_id<E: EntityTrait>(
    tx: &TenantTx,
    select: Select<E>,
    id: E::Column,
    page: PageInput,
) -> Result<Paged<E::Model>> {
    let select = match page.after {
        Some(after) => select.filter(id.lt(after)),
        None => select,
    };
    let rows = select
        .order_by_desc(id)
        .limit(page.first + 1)
        .all(tx)
        .await?;
    Ok(Paged::of(rows, page))
}

/// What connections have besides the page.
#[derive(Debug, SimpleObject)]
pub struct Total {
    /// Counted only when selected; capped at 10 000.
    total_count: Option<i32>,
}

impl Total {
    /// Counts, if the field asks for it.
    pub async fn of<E: EntityTrait>(
        ctx: &async_graphql::Context<'_>,
        tx: &TenantTx,
        select: Select<E>,
    ) -> Result<Self> {
        if !ctx.look_ahead().field("totalCount").exists() {
            return Ok(Self { total_count: None });
        }
        let rows = select
            .select_only()
            .expr(Expr::val(1))
            .limit(COUNT_CAP)
            .into_query();
        let count = Query::select()
            .expr_as(
                Expr::col(sea_orm::sea_query::Asterisk).count(),
                Alias::new("count"),
            )
            .from_subquery(rows, Alias::new("counted"))
            .take();
        let row = tx.query_one(&count).await?;
        let count = row.map_or(Ok(0), |row| row.try_get::<i64>("", "count"))?;
        Ok(Self {
            total_count: i32::try_from(count).ok(),
        })
    }
}

/// The connection of a page: each row becomes a node at the cursor of its id.
pub fn connection<M, N: OutputType>(
    page: Paged<M>,
    id: impl Fn(&M) -> Uuid,
    node: impl Fn(M) -> N,
) -> Connection<Cursor, N> {
    with_fields(page, EmptyFields, id, node)
}

/// The same, with fields of its own.
pub fn with_fields<M, N: OutputType, F: async_graphql::ObjectType>(
    page: Paged<M>,
    fields: F,
    id: impl Fn(&M) -> Uuid,
    node: impl Fn(M) -> N,
) -> Connection<Cursor, N, F> {
    let mut connection = Connection::with_additional_fields(page.after, page.more, fields);
    connection.edges = page
        .rows
        .into_iter()
        .map(|row| Edge::new(Cursor(id(&row)), node(row)))
        .collect();
    connection
}

//! Pages of lists: Relay connections by keyset, never by offset, forwards and backwards.

use super::cursor::{Cursor, Key, Order, Place, SortKey};
use super::loader::{Batch, id_column, load};
use crate::clock::Timestamp;
use crate::database::TenantTx;
use crate::error::{Error, Result};
use crate::history::as_of;
use async_graphql::connection::{Connection, CursorType as _, Edge, EmptyFields};
use async_graphql::{Context, Enum, Object, ObjectType, OutputType};
use futures::future::BoxFuture;
use sea_orm::sea_query::{Alias, Asterisk, Expr, ExprTrait as _, Func, Query, SelectStatement};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait as _, EntityTrait, FromQueryResult as _, JoinType,
    QueryFilter as _, QueryOrder as _, QuerySelect as _, QueryTrait as _, Select, Value,
};
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The largest page; more is an error, not a smaller page.
pub(super) const MAX_PAGE: i32 = 100;
/// A page of which neither `first` nor `last` says the size.
pub(super) const DEFAULT_PAGE: i32 = 20;
/// Where counting stops.
const COUNT_CAP: u64 = 10_000;
/// Values that a list of a filter may have.
const MAX_VALUES: usize = 100;
/// Characters that may be searched for.
const MAX_SEARCH: usize = 100;

/// Which end comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
pub enum OrderDirection {
    /// The smallest first.
    Asc,
    /// The largest first.
    Desc,
}

/// The arguments of a connection, as they came.
#[derive(Clone, Debug)]
pub struct PageArgs {
    /// Rows from the beginning.
    pub first: Option<i32>,
    /// After the row of this cursor.
    pub after: Option<String>,
    /// Rows from the end.
    pub last: Option<i32>,
    /// Before the row of this cursor.
    pub before: Option<String>,
}

impl PageArgs {
    /// Checks them for a list that has this order.
    pub fn of(self, order: Order) -> Result<Page> {
        let (size, name) = match (self.first, self.last) {
            (Some(_), Some(_)) => {
                return Err(bad("Give first or last, not both.".to_owned()));
            }
            (None, Some(last)) => (last, "last"),
            (first, None) => (first.unwrap_or(DEFAULT_PAGE), "first"),
        };
        if !(0..=MAX_PAGE).contains(&size) {
            return Err(bad(format!(
                "{name} must be from 0 to {MAX_PAGE}, not {size}."
            )));
        }
        Ok(Page {
            order,
            size: usize::try_from(size).map_err(Error::internal)?,
            backwards: name == "last",
            after: place("after", self.after, order)?,
            before: place("before", self.before, order)?,
        })
    }
}

fn place(name: &str, text: Option<String>, order: Order) -> Result<Option<Place>> {
    let Some(text) = text else {
        return Ok(None);
    };
    let cursor = Cursor::decode_cursor(&text).map_err(|e| bad(format!("{name} is {e}.")))?;
    let place = cursor.place_in(order);
    place.map(Some).ok_or_else(|| {
        bad(format!(
            "{name} is a cursor of another list, or of this one in another order."
        ))
    })
}

fn bad(why: String) -> Error {
    Error::BadRequest(why)
}

/// Which page of a list: checked.
#[derive(Clone, Debug)]
pub struct Page {
    order: Order,
    size: usize,
    /// From the end.
    backwards: bool,
    after: Option<Place>,
    before: Option<Place>,
}

/// A part of a list: the first or last rows of those between two places.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Slice {
    order: Order,
    /// Not with it.
    pub after: Option<Place>,
    /// Not with it.
    pub before: Option<Place>,
    /// The last of them, and the last first.
    pub backwards: bool,
    /// How many at most.
    pub limit: u64,
}

impl Slice {
    /// Of its rows.
    fn direction(&self) -> sea_orm::Order {
        if self.order.descending == self.backwards {
            sea_orm::Order::Asc
        } else {
            sea_orm::Order::Desc
        }
    }
}

impl Page {
    /// Fetches the page by its slices. What is behind it is only looked at when the client asks.
    pub async fn fetch<'a, M: Send + 'a>(
        &self,
        ctx: &Context<'_>,
        place: fn(&M) -> Place,
        rows: impl Fn(Slice) -> BoxFuture<'a, Result<Vec<M>>> + Send,
    ) -> Result<Paged<M>> {
        let mut found = rows(self.slice()).await?;
        let more = found.len() > self.size;
        found.truncate(self.size);
        if self.backwards {
            found.reverse();
        }
        let info = ctx.look_ahead().field("pageInfo");
        let mut next = more && !self.backwards;
        if !next && self.before.is_some() && info.field("hasNextPage").exists() {
            next = !rows(self.at_before()).await?.is_empty();
        }
        let mut previous = more && self.backwards;
        if !previous && self.after.is_some() && info.field("hasPreviousPage").exists() {
            previous = !rows(self.up_to_after()).await?.is_empty();
        }
        Ok(Paged {
            rows: found.into_iter().map(|row| (place(&row), row)).collect(),
            order: self.order,
            previous,
            next,
        })
    }

    /// Its rows, and one more.
    fn slice(&self) -> Slice {
        Slice {
            order: self.order,
            after: self.after.clone(),
            before: self.before.clone(),
            backwards: self.backwards,
            limit: self.size as u64 + 1,
        }
    }

    /// The row at `before`, or else the one after it.
    fn at_before(&self) -> Slice {
        let before = self.before.as_ref();
        Slice {
            after: before.map(|place| place.step(self.order.descending)),
            before: None,
            backwards: false,
            limit: 1,
            order: self.order,
        }
    }

    /// The row at `after`, or else the one before it.
    fn up_to_after(&self) -> Slice {
        let after = self.after.as_ref();
        Slice {
            after: None,
            before: after.map(|place| place.step(!self.order.descending)),
            backwards: true,
            limit: 1,
            order: self.order,
        }
    }
}

/// Rows of a page, and whether there are others.
#[derive(Debug)]
pub struct Paged<M> {
    rows: Vec<(Place, M)>,
    order: Order,
    previous: bool,
    next: bool,
}

impl<M> Paged<M> {
    /// Each row as a node, at its cursor.
    pub fn connection<N: OutputType>(self, node: impl Fn(M) -> N) -> Connection<Cursor, N> {
        self.with_fields(EmptyFields, node)
    }

    /// The same, with fields of its own.
    pub fn with_fields<N: OutputType, F: ObjectType>(
        self,
        fields: F,
        node: impl Fn(M) -> N,
    ) -> Connection<Cursor, N, F> {
        let order = self.order;
        let mut connection = Connection::with_additional_fields(self.previous, self.next, fields);
        let rows = self.rows.into_iter();
        connection.edges = rows
            .map(|(place, row)| Edge::new(Cursor::new(order, place), node(row)))
            .collect();
        connection
    }
}

/// A slice of a table's rows.
pub async fn rows<E: EntityTrait>(
    tx: &TenantTx,
    select: Select<E>,
    slice: Slice,
) -> Result<Vec<E::Model>> {
    Ok(sliced(select, &slice)?.all(tx).await?)
}

/// Rows that are listed by what they belong to.
pub trait Owned: EntityTrait {
    /// What they belong to, as their column has it.
    type Owner: Clone + Eq + Hash + Send + Sync + 'static;

    /// The column.
    fn owned_by() -> Self::Column;
    /// What is in it.
    fn owner(row: &Self::Model) -> Self::Owner;
    /// Several, as an array of PostgreSQL's.
    fn array(owners: Vec<Self::Owner>) -> Value;

    /// The rows, now or as of a moment.
    fn rows(at: Option<Timestamp>) -> Select<Self> {
        as_of(Self::find(), at)
    }
}

/// A slice of the rows that belong to one owner, now or as of a moment, in a batch with those of others.
pub async fn rows_of<E>(
    ctx: &Context<'_>,
    (owner, at): (E::Owner, Option<Timestamp>),
    slice: Slice,
) -> Result<Vec<E::Model>>
where
    E: Owned,
    E::Model: Clone + Send + Sync + 'static,
{
    let key = SliceOf::<E> { owner, at, slice };
    Ok(load(ctx, key).await?.unwrap_or_default())
}

/// A slice of the rows that belong to one owner.
struct SliceOf<E: Owned> {
    owner: E::Owner,
    at: Option<Timestamp>,
    slice: Slice,
}

impl<E: Owned> Clone for SliceOf<E> {
    fn clone(&self) -> Self {
        Self {
            owner: self.owner.clone(),
            at: self.at,
            slice: self.slice.clone(),
        }
    }
}

impl<E: Owned> PartialEq for SliceOf<E> {
    fn eq(&self, other: &Self) -> bool {
        (&self.owner, self.at, &self.slice) == (&other.owner, other.at, &other.slice)
    }
}

impl<E: Owned> Eq for SliceOf<E> {}

impl<E: Owned> Hash for SliceOf<E> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.owner, self.at, &self.slice).hash(state);
    }
}

impl<E> Batch for SliceOf<E>
where
    E: Owned,
    E::Model: Clone + Send + Sync + 'static,
{
    type Value = Vec<E::Model>;

    async fn load(tx: &TenantTx, keys: Vec<Self>) -> Result<HashMap<Self, Vec<E::Model>>> {
        let mut slices: HashMap<(Slice, Option<Timestamp>), Vec<E::Owner>> = HashMap::new();
        for Self { owner, at, slice } in keys {
            slices.entry((slice, at)).or_default().push(owner);
        }
        let mut found: HashMap<Self, Vec<E::Model>> = HashMap::new();
        for ((slice, at), owners) in slices {
            for row in rows_of_each::<E>(tx, (owners, at), &slice).await? {
                let key = Self {
                    owner: E::owner(&row),
                    at,
                    slice: slice.clone(),
                };
                found.entry(key).or_default().push(row);
            }
        }
        Ok(found)
    }
}

/// The same slice of the rows of each owner, in one statement: PostgreSQL looks into the index once for each.
async fn rows_of_each<E: Owned>(
    tx: &TenantTx,
    (owners, at): (Vec<E::Owner>, Option<Timestamp>),
    slice: &Slice,
) -> Result<Vec<E::Model>> {
    let owner = Alias::new("owner");
    // Under the table's own name, so that what it is sorted by is called the same inside and outside.
    let table = Alias::new(E::default().table_name());
    let own = E::owned_by()
        .into_expr()
        .eq(Expr::col((owner.clone(), owner.clone())));
    let own = sliced(E::rows(at).filter(own), slice)?.into_query();
    let mut each = Query::select();
    each.column((table.clone(), Asterisk))
        .from_function(
            Func::cust("unnest").arg(Expr::value(E::array(owners))),
            owner,
        )
        .join_lateral(JoinType::InnerJoin, own, table, Expr::value(true));
    for by in sorted_by::<E>(slice)? {
        each.order_by_expr(by, slice.direction());
    }
    let rows = tx.query_all(&each).await?;
    let rows = rows.iter().map(|row| E::Model::from_query_result(row, ""));
    Ok(rows.collect::<std::result::Result<_, _>>()?)
}

fn sliced<E: EntityTrait>(mut select: Select<E>, slice: &Slice) -> Result<Select<E>> {
    let by = sorted_by::<E>(slice)?;
    let ends = [
        (&slice.after, !slice.order.descending),
        (&slice.before, slice.order.descending),
    ];
    for (place, beyond) in ends {
        if let Some(place) = place {
            let (here, there) = (Expr::tuple(by.clone()), Expr::tuple(values(place)));
            select = select.filter(if beyond {
                here.gt(there)
            } else {
                here.lt(there)
            });
        }
    }
    for by in by {
        select = select.order_by(by, slice.direction());
    }
    Ok(select.limit(slice.limit))
}

/// What a list is sorted by: its key, if it has one, and the id.
fn sorted_by<E: EntityTrait>(slice: &Slice) -> Result<Vec<Expr>> {
    let id = id_column::<E>().ok_or_else(|| Error::internal("a list of rows without an id"))?;
    let key = match slice.order.key {
        SortKey::Id => None,
        SortKey::Text(sql) => Some(Expr::cust(format!("{sql} COLLATE \"C\""))),
        SortKey::Time(sql) => Some(Expr::cust(sql)),
    };
    Ok(key.into_iter().chain([id.into_expr()]).collect())
}

/// The values of that at a place.
fn values(place: &Place) -> Vec<Expr> {
    let key = match &place.key {
        Key::Id => None,
        Key::Text(text) => Some(Expr::value(text.as_str())),
        Key::Time(Some(at)) => Some(Expr::value(*at)),
        Key::Time(None) => Some(Expr::cust("'-infinity'::timestamptz")),
    };
    key.into_iter().chain([Expr::value(place.id)]).collect()
}

/// Refuses a list of a filter that has too many values.
pub fn few<T>(name: &str, list: Option<&[T]>) -> Result<()> {
    if list.is_some_and(|list| list.len() > MAX_VALUES) {
        return Err(bad(format!("{name} has at most {MAX_VALUES} values.")));
    }
    Ok(())
}

/// The pattern of ILIKE for what has the text anywhere in it; `%`, `_` and `\` stand for themselves.
pub fn containing(search: &str) -> Result<String> {
    if search.chars().count() > MAX_SEARCH || search.contains('\0') {
        let rule = format!("search has at most {MAX_SEARCH} characters, and no NUL.");
        return Err(bad(rule));
    }
    Ok(format!("%{}%", escaped(search)))
}

/// A text as part of a pattern: `%`, `_` and `\` stand for themselves.
pub fn escaped(text: &str) -> String {
    let special = |c| matches!(c, '%' | '_' | '\\');
    text.chars()
        .flat_map(|c| special(c).then_some('\\').into_iter().chain([c]))
        .collect()
}

/// What connections of large lists have besides the page.
#[derive(Clone, Debug)]
pub struct Total(Arc<SelectStatement>);

/// What connections of large lists have besides the page.
#[Object]
impl Total {
    /// Counted only when selected; capped at 10 000.
    async fn total_count(&self, ctx: &Context<'_>) -> Result<Option<i32>> {
        let count = load(ctx, Count(Arc::clone(&self.0))).await?;
        Ok(count.and_then(|count| i32::try_from(count).ok()))
    }
}

impl Total {
    /// Of the rows that are listed.
    pub fn of<E: EntityTrait>(select: Select<E>) -> Self {
        let rows = select.select_only().expr(Expr::value(1)).limit(COUNT_CAP);
        Self(Arc::new(rows.into_query()))
    }
}

/// How many rows these are.
#[derive(Clone, Debug)]
struct Count(Arc<SelectStatement>);

impl PartialEq for Count {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Count {}

impl Hash for Count {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

impl Batch for Count {
    type Value = i64;

    async fn load(tx: &TenantTx, keys: Vec<Self>) -> Result<HashMap<Self, i64>> {
        let name = |number: usize| format!("count{number}");
        let mut counts = Query::select();
        for (number, Self(rows)) in keys.iter().enumerate() {
            let count = Query::select()
                .expr(Expr::col(Asterisk).count())
                .from_subquery(SelectStatement::clone(rows), Alias::new("counted"))
                .take();
            counts.expr_as(
                Expr::SubQuery(None, Box::new(count.into())),
                Alias::new(name(number)),
            );
        }
        let row = tx.query_one(&counts).await?;
        let row = row.ok_or_else(|| Error::internal("a count without an answer"))?;
        let counts = keys.into_iter().enumerate();
        counts
            .map(|(number, key)| Ok((key, row.try_get("", &name(number))?)))
            .collect()
    }
}

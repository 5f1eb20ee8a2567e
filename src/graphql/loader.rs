//! Loads rows by id in batches, on the request's own unit of work: no N+1, and nothing outlives the request.

use super::RequestContext;
use crate::error::{Error, Result};
use async_graphql::Context;
use async_graphql::dataloader::{DataLoader, Loader};
use sea_orm::{
    ColumnTrait as _, EntityTrait, Iterable as _, ModelTrait as _, QueryFilter as _, Value,
};
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// The row of `E` with this id.
pub struct ById<E>(Uuid, PhantomData<fn() -> E>);

impl<E> std::fmt::Debug for ById<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ById({})", self.0)
    }
}

impl<E> Clone for ById<E> {
    fn clone(&self) -> Self {
        Self(self.0, PhantomData)
    }
}

impl<E> PartialEq for ById<E> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<E> Eq for ById<E> {}

impl<E> Hash for ById<E> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

/// The request whose unit of work the batches run on. Resources add loaders of their own to it.
#[derive(Clone, Debug)]
pub struct Loaders(pub Arc<RequestContext>);

impl Loaders {
    /// The request's loader; made anew for each request.
    #[expect(
        clippy::disallowed_methods,
        reason = "a batch is awaited by the fields that asked for it"
    )]
    pub(super) fn of(request: Arc<RequestContext>) -> DataLoader<Self> {
        // Long enough for the fields of one level to ask, which they do without waiting for anything.
        DataLoader::new(Self(request), tokio::spawn).delay(Duration::from_micros(100))
    }
}

/// Loads by any key that the loaders know.
pub async fn load<K>(ctx: &Context<'_>, key: K) -> Result<Option<<Loaders as Loader<K>>::Value>>
where
    K: Send + Sync + Hash + Eq + Clone + 'static,
    Loaders: Loader<K, Error = Arc<Error>>,
{
    let loader: &DataLoader<Loaders> = ctx.data_unchecked();
    loader.load_one(key).await.map_err(Error::shared)
}

/// The row of `E` with this id, in a batch with the others that the request asks for.
pub async fn load_row<E>(ctx: &Context<'_>, id: Uuid) -> Result<Option<E::Model>>
where
    E: EntityTrait,
    E::Model: Clone + Send + Sync + 'static,
{
    load(ctx, ById::<E>(id, PhantomData)).await
}

impl<E> Loader<ById<E>> for Loaders
where
    E: EntityTrait,
    E::Model: Clone + Send + Sync + 'static,
{
    type Value = E::Model;
    type Error = Arc<Error>;

    async fn load(&self, keys: &[ById<E>]) -> Result<HashMap<ById<E>, E::Model>, Arc<Error>> {
        let Some(id) = E::PrimaryKey::iter()
            .next()
            .map(sea_orm::PrimaryKeyToColumn::into_column)
        else {
            return Ok(HashMap::new());
        };
        let tx = self.0.reading().await?;
        let rows = E::find()
            .filter(id.is_in(keys.iter().map(|key| key.0)))
            .all(&*tx)
            .await
            .map_err(Error::from)?;
        Ok(rows
            .into_iter()
            .filter_map(|row| match row.get(id) {
                Value::Uuid(Some(key)) => Some((ById(key, PhantomData), row)),
                _ => None,
            })
            .collect())
    }
}

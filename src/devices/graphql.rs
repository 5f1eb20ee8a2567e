//! The type `Device` and its mutations.

use super::list::{DeviceFilter, DeviceOrder};
use super::{Change as DeviceChange, NewDevice, token};
use crate::actor::Actor;
use crate::clock::Timestamp;
use crate::database::TenantTx;
use crate::error::Result;
use crate::graphql::{
    Batch, ContextExt as _, Cursor, DateTime, Id, Kind, PageArgs, Total, UserError, expected,
    follow, global_id, load, load_row_at, rows, until_error,
};
use crate::history::{self, as_of, graphql::Change};
use crate::media::graphql::Media;
use crate::permission::Permission;
use crate::secret::new_pin;
use async_graphql::connection::Connection;
use async_graphql::{Context, Enum, ID, InputObject, Object, SimpleObject, Subscription};
use entity::tenant::device::{Entity, Model};
use futures::{FutureExt as _, Stream, TryStreamExt as _};
use std::collections::HashMap;
use uuid::Uuid;

/// Whether a device can sign in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
pub enum DeviceState {
    /// It has signed in before, and may.
    Active,
    /// Switched off.
    Disabled,
    /// Too many wrong PINs; until `lockedUntil`.
    Locked,
    /// It has not signed in yet.
    Unclaimed,
}

impl DeviceState {
    fn of(device: &Model, now: Timestamp) -> Self {
        match device {
            device if !device.enabled => Self::Disabled,
            device if device.locked_until.is_some_and(|until| until > now) => Self::Locked,
            device if device.provisioned_at.is_none() => Self::Unclaimed,
            _ => Self::Active,
        }
    }
}

/// A piece of hardware.
#[derive(Clone, Debug)]
pub struct Device {
    row: Model,
    /// The moment that it is shown as of; none is now.
    at: Option<Timestamp>,
}

impl Kind for Device {
    const NAME: &'static str = "Device";
}

impl From<Model> for Device {
    fn from(row: Model) -> Self {
        Self { row, at: None }
    }
}

/// A piece of hardware.
#[Object]
impl Device {
    /// Opaque, globally unique.
    pub async fn id(&self) -> ID {
        global_id::<Self>(self.row.id)
    }

    /// Name for people.
    async fn name(&self) -> &str {
        &self.row.name
    }

    /// What the device presents with its PIN. Unique in the tenant, never reused.
    async fn client_id(&self) -> &str {
        &self.row.client_id
    }

    /// Whether it can sign in.
    async fn state(&self, ctx: &Context<'_>) -> DeviceState {
        let now = || ctx.request().services.database.clock().now();
        DeviceState::of(&self.row, self.at.unwrap_or_else(now))
    }

    /// Reported by the device when it authenticates.
    async fn firmware_version(&self) -> Option<&str> {
        self.row.firmware_version.as_deref()
    }

    /// First successful PIN authentication. Null while UNCLAIMED.
    async fn provisioned_at(&self) -> Option<DateTime> {
        self.row.provisioned_at.map(DateTime)
    }

    /// When it last signed in or rotated its token.
    async fn last_seen_at(&self) -> Option<DateTime> {
        self.row.last_seen_at.map(DateTime)
    }

    /// When its newest token stops working. Null if it has none, or it was revoked.
    async fn token_expires_at(&self, ctx: &Context<'_>) -> Result<Option<DateTime>> {
        Ok(load(ctx, TokenEnd(self.row.id, self.at))
            .await?
            .map(DateTime))
    }

    /// Wrong PINs since the last success; the device locks at ten.
    async fn failed_pin_attempts(&self) -> i32 {
        self.row.failed_pin_attempts
    }

    /// No PIN is evaluated before this.
    async fn locked_until(&self) -> Option<DateTime> {
        self.row.locked_until.map(DateTime)
    }

    /// When it was made.
    async fn created_at(&self) -> DateTime {
        self.row.created_at.into()
    }

    /// When it was last changed.
    async fn updated_at(&self) -> DateTime {
        self.row.updated_at.into()
    }

    /// Bumped by every write; pass back as `ifVersion` to refuse lost updates.
    async fn version(&self) -> i32 {
        self.row.version
    }

    /// What it uploaded, newest first.
    #[expect(
        clippy::too_many_arguments,
        reason = "they are the arguments of the field"
    )]
    async fn media(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Rows from the beginning, at most 100; 20 if last is not given either.")]
        first: Option<i32>,
        #[graphql(desc = "After the row of this cursor.")] after: Option<String>,
        #[graphql(desc = "Rows from the end, at most 100.")] last: Option<i32>,
        #[graphql(desc = "Before the row of this cursor.")] before: Option<String>,
    ) -> Result<Connection<Cursor, Media, Total>> {
        let page = PageArgs {
            first,
            after,
            last,
            before,
        };
        Media::of_uploader(ctx, (&Actor::Device(self.row.id), self.at), page).await
    }

    /// Every recorded change of this object, newest first.
    #[expect(
        clippy::too_many_arguments,
        reason = "they are the arguments of the field"
    )]
    async fn history(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Rows from the beginning, at most 100; 20 if last is not given either.")]
        first: Option<i32>,
        #[graphql(desc = "After the row of this cursor.")] after: Option<String>,
        #[graphql(desc = "Rows from the end, at most 100.")] last: Option<i32>,
        #[graphql(desc = "Before the row of this cursor.")] before: Option<String>,
    ) -> Result<Connection<Cursor, Change>> {
        let page = PageArgs {
            first,
            after,
            last,
            before,
        };
        Change::of(ctx, (self.row.id, self.at), page).await
    }
}

impl Device {
    /// The device with this id, if it is the tenant's.
    pub async fn find(ctx: &Context<'_>, id: Uuid) -> Result<Option<Self>> {
        ctx.require(Permission::DevicesRead)?;
        Self::find_at(ctx, id, None).await
    }

    /// The same as it was at a moment, if there is one.
    pub async fn find_at(
        ctx: &Context<'_>,
        id: Uuid,
        at: Option<Timestamp>,
    ) -> Result<Option<Self>> {
        let row = load_row_at::<Entity>(ctx, id, at).await?;
        Ok(row.map(|row| Self { row, at }))
    }

    /// A page of the tenant's devices, now or as of a moment.
    pub async fn page(
        ctx: &Context<'_>,
        page: PageArgs,
        (filter, order): (Option<DeviceFilter>, Option<DeviceOrder>),
        at: Option<Timestamp>,
    ) -> Result<Connection<Cursor, Self, Total>> {
        ctx.require_past(at)?;
        let tx = ctx.read(Permission::DevicesRead).await?;
        let (order, place) = DeviceOrder::of(order);
        let page = page.of(order)?;
        let select = filter.unwrap_or_default();
        let select = as_of(select.select(at.unwrap_or_else(|| tx.now()))?, at);
        let fetch = |slice| rows(&tx, select.clone(), slice).boxed();
        let found = page.fetch(ctx, place, fetch).await?;
        Ok(found.with_fields(Total::of(select), |row| Self { row, at }))
    }
}

/// When the newest token of the device with this id stops working, as of a moment or as it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct TokenEnd(Uuid, Option<Timestamp>);

impl Batch for TokenEnd {
    type Value = Timestamp;

    async fn load(tx: &TenantTx, keys: Vec<Self>) -> Result<HashMap<Self, Timestamp>> {
        let mut moments: HashMap<Option<Timestamp>, Vec<Uuid>> = HashMap::new();
        for Self(device, at) in keys {
            moments.entry(at).or_default().push(device);
        }
        let mut found = HashMap::new();
        for (at, devices) in moments {
            let ends = token::ends(tx, devices, at).await?.into_iter();
            found.extend(ends.map(|(device, end)| (Self(device, at), end)));
        }
        Ok(found)
    }
}

/// Root fields for following.
#[derive(Debug, Default)]
pub struct Subscription;

/// Root fields for following.
#[Subscription(name = "DevicesSubscription")]
impl Subscription {
    /// The device as it is after each change of it, or each of the tenant's devices as it is made or changed; in order.
    async fn device_updated(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Only this one.")] device_id: Option<Id<Device>>,
    ) -> Result<impl Stream<Item = async_graphql::Result<Device>>> {
        let changes = follow(ctx, Permission::DevicesRead).await?;
        let only = device_id.map(|id| id.uuid());
        if let Some(id) = only {
            let tx = ctx.read(Permission::DevicesRead).await?;
            super::find(&tx, id).await?;
            drop(tx);
            ctx.request().end_reading().await?;
        }
        Ok(until_error(
            history::rows::<Model>(changes, "device", only).map_ok(Device::from),
        ))
    }
}

/// A device to be made.
#[derive(Debug, InputObject)]
pub struct DeviceCreateInput {
    /// Name for people.
    name: String,
    /// Chosen by the caller or, when left out, by the server.
    client_id: Option<String>,
}

/// The new device and its PIN.
#[derive(Debug, SimpleObject)]
pub struct DeviceCreatePayload {
    /// The new device.
    device: Option<Device>,
    /// Shown once; only a hash is stored.
    pin: Option<String>,
    /// Expected failures.
    errors: Vec<UserError>,
}

/// What to change of a device.
#[derive(Debug, InputObject)]
pub struct DeviceUpdateInput {
    /// Which.
    device_id: Id<Device>,
    /// A new name.
    name: Option<String>,
    /// False: it may not sign in, and its tokens end.
    enabled: Option<bool>,
    /// Refuse unless this is its version.
    if_version: Option<i32>,
}

/// The changed device.
#[derive(Debug, SimpleObject)]
pub struct DeviceUpdatePayload {
    /// The device after the change.
    device: Option<Device>,
    /// Expected failures.
    errors: Vec<UserError>,
}

/// Root fields for writing.
#[derive(Debug, Default)]
pub struct Mutation;

/// Root fields for writing.
#[Object(name = "DevicesMutation")]
impl Mutation {
    /// Makes a device and shows its PIN, once.
    async fn device_create(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The device to be made.")] input: DeviceCreateInput,
    ) -> Result<DeviceCreatePayload> {
        let pin = new_pin();
        let (device, errors) = expected(create(ctx, input, &pin).await)?;
        Ok(DeviceCreatePayload {
            pin: device.is_some().then_some(pin),
            device: device.map(Device::from),
            errors,
        })
    }

    /// Renames a device, or switches it on or off.
    async fn device_update(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which device, and what to change.")] input: DeviceUpdateInput,
    ) -> Result<DeviceUpdatePayload> {
        let change = DeviceChange {
            name: input.name,
            enabled: input.enabled,
            if_version: input.if_version,
        };
        let (device, errors) = expected(update(ctx, input.device_id.uuid(), change).await)?;
        let request = ctx.request();
        if device.is_some() {
            request.services.callers.forget(request.tenant.id);
        }
        Ok(DeviceUpdatePayload {
            device: device.map(Device::from),
            errors,
        })
    }
}

async fn create(ctx: &Context<'_>, input: DeviceCreateInput, pin: &str) -> Result<Model> {
    ctx.require(Permission::DevicesManage)?;
    ctx.request().end_reading().await?;
    let pin_hash = ctx
        .request()
        .services
        .hasher
        .slot()
        .await?
        .hash(pin)
        .await?;
    let new = NewDevice {
        name: input.name,
        client_id: input.client_id,
        pin_hash,
    };
    let tx: TenantTx = ctx.write(Permission::DevicesManage).await?;
    let created = super::create(&tx, new).await;
    tx.settle(created).await
}

async fn update(ctx: &Context<'_>, id: Uuid, change: DeviceChange) -> Result<Model> {
    let tx = ctx.write(Permission::DevicesManage).await?;
    let updated = super::update(&tx, id, change).await;
    tx.settle(updated).await
}

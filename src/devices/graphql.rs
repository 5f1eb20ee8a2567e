//! The type `Device` and its mutations.

use super::{Change as DeviceChange, NewDevice};
use crate::database::TenantTx;
use crate::error::Result;
use crate::graphql::{
    ContextExt as _, Cursor, DateTime, Id, Kind, PageInput, Total, UserError, expected, global_id,
    page_by_id, with_fields,
};
use crate::history::graphql::Change;
use crate::permission::Permission;
use crate::secret::new_pin;
use async_graphql::connection::Connection;
use async_graphql::{Context, Enum, ID, InputObject, Object, SimpleObject};
use entity::tenant::device::{Column, Entity, Model};
use sea_orm::EntityTrait as _;
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

/// A piece of hardware.
#[derive(Clone, Debug)]
pub struct Device(Model);

impl Kind for Device {
    const NAME: &'static str = "Device";
}

impl From<Model> for Device {
    fn from(row: Model) -> Self {
        Self(row)
    }
}

/// A piece of hardware.
#[Object]
impl Device {
    /// Opaque, globally unique.
    pub async fn id(&self) -> ID {
        global_id::<Self>(self.0.id)
    }

    /// Name for people.
    async fn name(&self) -> &str {
        &self.0.name
    }

    /// What the device presents with its PIN. Unique in the tenant, never reused.
    async fn client_id(&self) -> &str {
        &self.0.client_id
    }

    /// Whether it can sign in.
    async fn state(&self, ctx: &Context<'_>) -> DeviceState {
        let now = ctx.request().services.database.clock().now();
        match &self.0 {
            device if !device.enabled => DeviceState::Disabled,
            device if device.locked_until.is_some_and(|until| until > now) => DeviceState::Locked,
            device if device.provisioned_at.is_none() => DeviceState::Unclaimed,
            _ => DeviceState::Active,
        }
    }

    /// Reported by the device when it authenticates.
    async fn firmware_version(&self) -> Option<&str> {
        self.0.firmware_version.as_deref()
    }

    /// First successful PIN authentication. Null while UNCLAIMED.
    async fn provisioned_at(&self) -> Option<DateTime> {
        self.0.provisioned_at.map(DateTime)
    }

    /// When it last signed in or rotated its token.
    async fn last_seen_at(&self) -> Option<DateTime> {
        self.0.last_seen_at.map(DateTime)
    }

    /// Wrong PINs since the last success; the device locks at ten.
    async fn failed_pin_attempts(&self) -> i32 {
        self.0.failed_pin_attempts
    }

    /// No PIN is evaluated before this.
    async fn locked_until(&self) -> Option<DateTime> {
        self.0.locked_until.map(DateTime)
    }

    /// When it was made.
    async fn created_at(&self) -> DateTime {
        self.0.created_at.into()
    }

    /// When it was last changed.
    async fn updated_at(&self) -> DateTime {
        self.0.updated_at.into()
    }

    /// Bumped by every write; pass back as `ifVersion` to refuse lost updates.
    async fn version(&self) -> i32 {
        self.0.version
    }

    /// Every recorded change of this object, newest first.
    async fn history(
        &self,
        ctx: &Context<'_>,
        #[graphql(default = 20)] first: i32,
        after: Option<String>,
    ) -> Result<Connection<Cursor, Change>> {
        Change::page(
            ctx,
            PageInput::new(first, after.as_deref())?,
            Some(self.0.id),
        )
        .await
    }
}

impl Device {
    /// The device with this id, if it is the tenant's.
    pub async fn find(ctx: &Context<'_>, id: Uuid) -> Result<Option<Self>> {
        let tx = ctx.read(Permission::DevicesRead).await?;
        Ok(Entity::find_by_id(id).one(&*tx).await?.map(Self))
    }

    /// A page of the tenant's devices, newest first.
    pub async fn page(
        ctx: &Context<'_>,
        page: PageInput,
    ) -> Result<Connection<Cursor, Self, Total>> {
        let tx = ctx.read(Permission::DevicesRead).await?;
        let total = Total::of(ctx, &tx, Entity::find()).await?;
        let rows = page_by_id(&tx, Entity::find(), Column::Id, page).await?;
        Ok(with_fields(rows, total, |row| row.id, Self))
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
        input: DeviceCreateInput,
    ) -> Result<DeviceCreatePayload> {
        let pin = new_pin();
        let (device, errors) = expected(create(ctx, input, &pin).await)?;
        Ok(DeviceCreatePayload {
            pin: device.is_some().then_some(pin),
            device: device.map(Device),
            errors,
        })
    }

    /// Renames a device, or switches it on or off.
    async fn device_update(
        &self,
        ctx: &Context<'_>,
        input: DeviceUpdateInput,
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
            device: device.map(Device),
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

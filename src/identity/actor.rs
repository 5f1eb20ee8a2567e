//! The union `Actor`: who did it, as an object.

use super::graphql::Member;
use crate::actor::Actor;
use crate::clock::Timestamp;
use crate::devices::Device;
use crate::error::Result;
use crate::graphql::{ContextExt as _, Kind as _, parse_global_id};
use crate::permission::Permission;
use async_graphql::{Context, SimpleObject, Union};

/// Who is calling, or did it: a person, a device, or the platform.
#[derive(Clone, Debug, Union)]
#[graphql(name = "Actor")]
pub enum ActorObject {
    /// A device.
    Device(Device),
    /// A person.
    Member(Member),
    /// The platform.
    System(SystemActor),
}

/// The platform itself: jobs, operators, migrations.
#[derive(Clone, Debug, SimpleObject)]
pub struct SystemActor {
    /// What made it act.
    reason: String,
}

impl ActorObject {
    /// The object behind an actor. One that is gone, that tenants do not see, or that this caller may not see, is the
    /// platform with a reason.
    pub async fn load(ctx: &Context<'_>, actor: &Actor) -> Result<Self> {
        Self::load_at(ctx, actor, None).await
    }

    /// The same as it was at a moment, if there is one.
    async fn load_at(ctx: &Context<'_>, actor: &Actor, at: Option<Timestamp>) -> Result<Self> {
        let caller = ctx.request().caller()?;
        let own = caller.actor.acted_for();
        let is_own = caller.actor == *actor || own.as_ref() == Some(actor);
        let may_see = |permission| is_own || caller.require(permission).is_ok();
        let found = match actor {
            Actor::Member(_) if !may_see(Permission::MembersRead) => Some(Self::hidden("a member")),
            Actor::Device(_) if !may_see(Permission::DevicesRead) => Some(Self::hidden("a device")),
            Actor::Member(id) => Member::find_at(ctx, *id, at).await?.map(Self::Member),
            Actor::Device(id) => Device::find_at(ctx, *id, at).await?.map(Self::Device),
            Actor::Job(_) | Actor::Operator(_) | Actor::Impersonation { .. } | Actor::System(_) => {
                None
            }
        };
        Ok(found.unwrap_or_else(|| {
            Self::System(SystemActor {
                reason: reason(actor),
            })
        }))
    }

    /// The actor that a global id names, if it is a member's or a device's.
    pub fn named(id: &str) -> Option<Actor> {
        let (kind, row) = parse_global_id(id)?;
        match kind.as_str() {
            Device::NAME => Some(Actor::Device(row)),
            Member::NAME => Some(Actor::Member(row)),
            _ => None,
        }
    }

    fn hidden(reason: &str) -> Self {
        Self::System(SystemActor {
            reason: reason.to_owned(),
        })
    }

    /// The same, from the text that rows keep.
    pub async fn parse(ctx: &Context<'_>, actor: &str) -> Result<Self> {
        Self::parse_at(ctx, actor, None).await
    }

    /// The same as it was at a moment, if there is one.
    pub async fn parse_at(ctx: &Context<'_>, actor: &str, at: Option<Timestamp>) -> Result<Self> {
        match actor.parse() {
            Ok(actor) => Self::load_at(ctx, &actor, at).await,
            Err(_) => Ok(Self::System(SystemActor {
                reason: "unknown".to_owned(),
            })),
        }
    }
}

/// Operators' names are not the tenants' business.
fn reason(actor: &Actor) -> String {
    match actor {
        Actor::Member(_) => "a former member".to_owned(),
        Actor::Device(_) => "a former device".to_owned(),
        Actor::Job(_) => "a job".to_owned(),
        Actor::Operator(_) | Actor::Impersonation { .. } => "an operator".to_owned(),
        Actor::System(reason) => reason.clone(),
    }
}

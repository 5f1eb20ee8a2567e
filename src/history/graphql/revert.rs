//! The mutation that takes changes back.

use super::fields::{FieldChange, camel};
use super::{Change, ChangeAction, Subject};
use crate::error::Result;
use crate::graphql::{ContextExt as _, Id, UserError, expected, global_id_of};
use crate::history::{Row, revert};
use crate::identity;
use crate::permission::Permission;
use async_graphql::{Context, ID, InputObject, Object, SimpleObject};

/// What is shown of what a whole transaction's taking back changes.
const SHOWN: usize = 100;

/// Which change to take back.
#[derive(Debug, InputObject)]
pub struct ChangeRevertInput {
    /// Puts the object back to how it was just before this change.
    change_id: Id<Change>,
    /// The same for everything that was committed together with it; credentials are left as they are.
    #[graphql(default = false)]
    whole_transaction: bool,
    /// Check and report, write nothing.
    #[graphql(default = false)]
    dry_run: bool,
}

/// What is done to an object when a change is taken back.
#[derive(Clone, Debug, SimpleObject)]
pub struct Reverted {
    /// Type name of the object.
    subject_type: String,
    /// Its id.
    subject_id: ID,
    /// Whether it is made again, removed or changed.
    action: ChangeAction,
    /// What is changed, field by field.
    fields: Vec<FieldChange>,
}

impl Reverted {
    fn of(change: &Row) -> Self {
        let name = camel(&change.subject_type, true);
        Self {
            subject_id: global_id_of(&name, change.subject_id),
            subject_type: name,
            action: ChangeAction::of(&Row {
                reverts: None,
                ..change.clone()
            }),
            fields: FieldChange::of(change),
        }
    }
}

/// What was taken back, or would be.
#[derive(Debug)]
pub struct ChangeRevertPayload {
    done: Option<Done>,
    errors: Vec<UserError>,
}

#[derive(Debug)]
struct Done {
    /// What was asked to be taken back.
    asked: Row,
    /// What that changed.
    changes: Vec<Row>,
    is_dry: bool,
}

impl Done {
    /// What was changed of the object that was asked for.
    fn own(&self) -> Option<&Row> {
        let own = |change: &&Row| change.subject_id == self.asked.subject_id;
        self.changes.iter().rev().find(own)
    }
}

/// What was taken back, or would be.
#[Object]
impl ChangeRevertPayload {
    /// The change that puts the object back. Null for a dry run.
    async fn change(&self) -> Option<Change> {
        let done = self.done.as_ref().filter(|done| !done.is_dry)?;
        done.own().cloned().map(Change)
    }

    #[graphql(flatten)]
    async fn subject(&self) -> Subject {
        let done = self.done.as_ref();
        done.map(|done| Subject::of(&done.asked))
            .unwrap_or_default()
    }

    /// What is changed of the object, field by field.
    async fn fields(&self) -> Vec<FieldChange> {
        let own = self.done.as_ref().and_then(Done::own);
        own.map(FieldChange::of).unwrap_or_default()
    }

    /// What is changed, object by object, in order; the first 100.
    async fn reverted(&self) -> Vec<Reverted> {
        let changes = self.done.iter().flat_map(|done| &done.changes);
        changes.take(SHOWN).map(Reverted::of).collect()
    }

    /// How many objects that are in all.
    async fn reverted_count(&self) -> i32 {
        let count = self.done.as_ref().map_or(0, |done| done.changes.len());
        i32::try_from(count).unwrap_or(i32::MAX)
    }

    /// Expected failures.
    async fn errors(&self) -> &[UserError] {
        &self.errors
    }
}

/// Root fields for writing.
#[derive(Debug, Default)]
pub struct Mutation;

/// Root fields for writing.
#[Object(name = "HistoryMutation")]
impl Mutation {
    /// Takes a change back, which is a change too: with the caller's reason, and to be taken back in its turn. Refused if newer
    /// changes are in the way. Needs AUDIT_REVERT, and what changing the object itself needs.
    async fn change_revert(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which change, and how.")] input: ChangeRevertInput,
    ) -> Result<ChangeRevertPayload> {
        let (done, errors) = expected(take_back(ctx, input).await)?;
        let request = ctx.request();
        if done.as_ref().is_some_and(|done| !done.is_dry) {
            // What callers are or may do can be among it.
            request.services.callers.forget(request.tenant.id);
        }
        Ok(ChangeRevertPayload { done, errors })
    }
}

async fn take_back(ctx: &Context<'_>, input: ChangeRevertInput) -> Result<Done> {
    let id = input.change_id.uuid();
    let tx = ctx.write(Permission::AuditRevert).await?;
    let done = async {
        let (asked, changes) = revert::changes(&tx, id, input.whole_transaction).await?;
        for change in &changes {
            if let Some(permission) = needed(change) {
                ctx.require(permission)?;
            }
        }
        let of_members = |change: &Row| needed(change) == Some(Permission::MembersManage);
        let may_end_owners = changes.iter().any(of_members);
        let changes = revert::revert(&tx, id, &changes).await?;
        if may_end_owners {
            identity::require_owner(&tx).await?;
        }
        Ok(Done {
            asked,
            changes,
            is_dry: input.dry_run,
        })
    };
    match done.await {
        Ok(done) if done.is_dry => {
            tx.rollback().await?;
            Ok(done)
        }
        done => tx.settle(done).await,
    }
}

/// What changing such an object needs; what nothing is said of is refused as what it is.
fn needed(change: &Row) -> Option<Permission> {
    match change.subject_type.as_str() {
        "device" => Some(Permission::DevicesManage),
        "media" => Some(Permission::MediaWrite),
        "member" | "member_role" | "schedule" => Some(Permission::MembersManage),
        _ => None,
    }
}

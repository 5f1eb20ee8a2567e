//! What the triggers wrote: one row for each change of a row, and for each event. The tenant's role can read it and nothing else.

use sea_orm::entity::prelude::*;

/// What was done to the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "Text", rename_all = "snake_case")]
pub enum Action {
    /// Inserted.
    Create,
    /// Updated.
    Update,
    /// Deleted.
    Delete,
    /// The member or device signed in: no change of a row, as all that follow.
    SignIn,
    /// Somebody tried to sign in, and failed.
    SignInFailed,
    /// The member signed out.
    SignOut,
    /// The actor was denied a permission.
    Denied,
    /// The actor was given a link to the media, or for its bytes.
    LinkIssued,
    /// An operator did something to the tenant, or the platform did.
    OperatorAct,
    /// What the history had of this person was erased.
    Erased,
    /// The trail was written out, for somebody to take along.
    Exported,
}

impl Action {
    /// Whether a row was changed.
    pub fn is_change(self) -> bool {
        matches!(self, Self::Create | Self::Update | Self::Delete)
    }
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "history")]
pub struct Model {
    /// Identity; together with `recorded_at` the order.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// The database's clock at the change.
    pub recorded_at: DateTimeUtc,
    /// The changed row's table.
    pub subject_type: String,
    /// The changed row.
    pub subject_id: Uuid,
    /// What was done to it.
    pub action: Action,
    /// The row after the change (before it, for a delete), without its secret columns; what there is to say of what is no
    /// change.
    pub row: Json,
    /// Former values of the changed columns, without the secret ones; empty unless an update.
    pub before: Json,
    /// Names of the changed columns, the secret ones too.
    pub changed: Vec<String>,
    /// Equal for all changes that were committed together.
    pub transaction_id: i64,
    /// Who, e.g. `member:<uuid>`.
    pub actor: String,
    /// Who caused the job that did it.
    pub cause: Option<String>,
    /// The request it came with.
    pub request_id: Option<String>,
    /// Why, in the caller's words.
    pub reason: Option<String>,
    /// The change that this one takes back, or one of those.
    pub reverts: Option<Uuid>,
    /// Whose personal values are in it.
    pub person: Option<Uuid>,
    /// What they are committed to with; none if they were erased.
    pub salt: Option<String>,
}

impl Model {
    /// Whether what it had of a person was taken out.
    pub fn is_erased(&self) -> bool {
        self.person.is_some() && self.salt.is_none()
    }
}

/// No relations: the subject may be gone.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

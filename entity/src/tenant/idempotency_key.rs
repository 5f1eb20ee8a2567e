//! A key that a mutation was sent with, and the mutation's answer.

use sea_orm::entity::prelude::*;

/// One key of one actor.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "idempotency_key")]
pub struct Model {
    /// Made of the actor and the key, which is not kept.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// What was sent, hashed with a secret.
    pub request: Vec<u8>,
    /// What was answered, encrypted.
    pub answer: Vec<u8>,
    /// When it was sent first.
    pub created_at: DateTimeUtc,
}

/// None.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

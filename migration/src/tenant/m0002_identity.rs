//! Roles, members and their sessions.

use crate::history::{Audited, audited, audited_with};
use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, &[ROLE, MEMBER, MEMBER_ROLE, SESSION]).await?;
        crate::run(manager, &INDEXES).await?;
        audited(manager, "role").await?;
        audited(manager, "member_role").await?;
        let member = Audited {
            table: "member",
            secret: &["password_hash"],
            untracked: &["last_seen_at"],
        };
        audited_with(manager, member).await?;
        let session = Audited {
            table: "session",
            secret: &["token_hash"],
            untracked: &[],
        };
        audited_with(manager, session).await
    }
}

const ROLE: &str = "CREATE TABLE role (
    id uuid CONSTRAINT role_pkey PRIMARY KEY,
    name text NOT NULL CONSTRAINT role_name_key UNIQUE,
    permissions text[] NOT NULL,
    built_in boolean NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    version integer NOT NULL DEFAULT 1
)";

const MEMBER: &str = "CREATE TABLE member (
    id uuid CONSTRAINT member_pkey PRIMARY KEY,
    email text NOT NULL CONSTRAINT member_email_key UNIQUE
        CONSTRAINT member_email_check CHECK (email = lower(email)),
    name text,
    password_hash text NOT NULL,
    avatar_id uuid,
    last_seen_at timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    version integer NOT NULL DEFAULT 1
)";

const MEMBER_ROLE: &str = "CREATE TABLE member_role (
    id uuid CONSTRAINT member_role_pkey PRIMARY KEY,
    member_id uuid NOT NULL CONSTRAINT member_role_member_id_fkey REFERENCES member ON DELETE CASCADE,
    role_id uuid NOT NULL CONSTRAINT member_role_role_id_fkey REFERENCES role,
    CONSTRAINT member_role_key UNIQUE (member_id, role_id)
)";

const SESSION: &str = "CREATE TABLE session (
    id uuid CONSTRAINT session_pkey PRIMARY KEY,
    member_id uuid NOT NULL CONSTRAINT session_member_id_fkey REFERENCES member ON DELETE CASCADE,
    token_hash text NOT NULL CONSTRAINT session_token_hash_key UNIQUE,
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz,
    created_at timestamptz NOT NULL
)";

const INDEXES: [&str; 2] = [
    "CREATE INDEX member_role_role_id_idx ON member_role (role_id)",
    "CREATE INDEX session_member_id_idx ON session (member_id)",
];

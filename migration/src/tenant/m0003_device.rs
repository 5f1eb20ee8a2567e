//! Devices and their tokens.

use crate::history::{Audited, audited_with};
use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, &[DEVICE, TOKEN, TOKEN_INDEX]).await?;
        let device = Audited {
            table: "device",
            secret: &["pin_hash"],
            untracked: &["last_seen_at"],
        };
        audited_with(manager, device).await?;
        let token = Audited {
            table: "device_token",
            secret: &["token_hash"],
            untracked: &[],
        };
        audited_with(manager, token).await
    }
}

const DEVICE: &str = "CREATE TABLE device (
    id uuid CONSTRAINT device_pkey PRIMARY KEY,
    name text NOT NULL,
    client_id text NOT NULL CONSTRAINT device_client_id_key UNIQUE,
    pin_hash text NOT NULL,
    enabled boolean NOT NULL DEFAULT true,
    firmware_version text,
    provisioned_at timestamptz,
    last_seen_at timestamptz,
    failed_pin_attempts integer NOT NULL DEFAULT 0,
    locked_until timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    version integer NOT NULL DEFAULT 1
)";

const TOKEN: &str = "CREATE TABLE device_token (
    id uuid CONSTRAINT device_token_pkey PRIMARY KEY,
    device_id uuid NOT NULL CONSTRAINT device_token_device_id_fkey REFERENCES device ON DELETE CASCADE,
    family_id uuid NOT NULL,
    token_hash text NOT NULL CONSTRAINT device_token_token_hash_key UNIQUE,
    expires_at timestamptz NOT NULL,
    rotated_at timestamptz,
    revoked_at timestamptz,
    created_at timestamptz NOT NULL
)";

const TOKEN_INDEX: &str = "CREATE INDEX device_token_device_id_idx ON device_token (device_id)";

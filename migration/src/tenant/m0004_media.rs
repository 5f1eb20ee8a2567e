//! Media: rows for what the object store holds.

use crate::history::audited;
use sea_orm_migration::prelude::*;

#[derive(Debug, DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        crate::run(manager, &[MEDIA]).await?;
        audited(manager, "media").await
    }
}

const MEDIA: &str = "CREATE TABLE media (
    id uuid CONSTRAINT media_pkey PRIMARY KEY,
    filename text NOT NULL,
    content_type text NOT NULL,
    size bigint NOT NULL CONSTRAINT media_size_check CHECK (size >= 0),
    sha256 text,
    state text NOT NULL
        CONSTRAINT media_state_check CHECK (state IN ('awaiting_upload', 'processing', 'ready', 'failed')),
    resource_type text NOT NULL,
    ext text,
    thumbnail_ext text,
    failure text,
    uploaded_by text NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    version integer NOT NULL DEFAULT 1
)";

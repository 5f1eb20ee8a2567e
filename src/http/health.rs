//! Health: alive means the process answers, ready means that it can do its work.

use crate::error::Result;
use crate::services::Services;
use axum::Json;
use axum::extract::State;
use sea_orm::{ConnectionTrait as _, DbBackend, Statement};
use std::sync::Arc;

/// The process answers.
pub(super) async fn live() -> Json<serde_json::Value> {
    Json(serde_json::json!({ "status": "ok" }))
}

/// PostgreSQL answers too; 503 if not.
pub(super) async fn ready(
    State(services): State<Arc<Services>>,
) -> Result<Json<serde_json::Value>> {
    let tx = services.database.platform().await?;
    tx.execute_raw(Statement::from_string(DbBackend::Postgres, "SELECT 1"))
        .await?;
    tx.commit().await?;
    Ok(Json(serde_json::json!({ "status": "ok" })))
}

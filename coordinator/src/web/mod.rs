//! Plain HTTP beside gRPC: health, metrics, and the JSON API that the CLI and people read.

mod builds;
mod health;
mod metrics;
mod workers;

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use buildyard_store::{Store, StoreError};

use crate::api::Api;
use crate::farm::Farm;

/// What the handlers look at.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) farm: Arc<Farm>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) api: Api,
}

/// The routes.
pub(crate) fn router(shared: Shared) -> Router {
    Router::new()
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(metrics::metrics))
        .route("/api/v1/workers", get(workers::list))
        .route("/api/v1/builds", get(builds::list))
        .route("/api/v1/builds/{id}", get(builds::detail))
        .route("/api/v1/builds/{id}/logs", get(builds::logs))
        .with_state(shared)
}

/// Why a request was not answered.
pub(crate) enum WebError {
    NotFound(String),
    BadRequest(String),
    Store(StoreError),
}

impl From<StoreError> for WebError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl IntoResponse for WebError {
    fn into_response(self) -> Response {
        match self {
            Self::NotFound(text) => (StatusCode::NOT_FOUND, text).into_response(),
            Self::BadRequest(text) => (StatusCode::BAD_REQUEST, text).into_response(),
            Self::Store(error) => {
                tracing::error!(%error, "a request to the HTTP API failed");
                (
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "the coordinator could not read its storage\n",
                )
                    .into_response()
            }
        }
    }
}

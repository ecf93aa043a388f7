//! Refusals of the API.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tiltyard_ledger::ReadError;
use tiltyard_store::StoreError;
use tracing::warn;

/// A refusal: a status and words for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    status: StatusCode,
    fact: String,
}

impl Refusal {
    /// What was asked for does not exist here.
    pub(crate) fn unknown(fact: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, fact: fact.into() }
    }

    /// What was asked for existed and is not kept any more.
    pub(crate) fn expired(fact: impl Into<String>) -> Self {
        Self { status: StatusCode::GONE, fact: fact.into() }
    }

    /// The request itself is malformed.
    pub(crate) fn malformed(fact: impl ToString) -> Self {
        Self { status: StatusCode::BAD_REQUEST, fact: fact.to_string() }
    }

    /// The request is well formed, and the rules refuse it.
    pub(crate) fn refused(fact: impl ToString) -> Self {
        Self { status: StatusCode::UNPROCESSABLE_ENTITY, fact: fact.to_string() }
    }

    /// Not allowed to whoever asks.
    pub(crate) fn forbidden(fact: impl Into<String>) -> Self {
        Self { status: StatusCode::FORBIDDEN, fact: fact.into() }
    }

    /// The node cannot serve it now.
    pub(crate) fn unavailable(fact: impl ToString) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, fact: fact.to_string() }
    }

    /// Something of this node is broken.
    pub(crate) fn broken(fact: impl ToString) -> Self {
        let fact = fact.to_string();
        warn!(fact, "API read failed");
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, fact }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": self.fact }))).into_response()
    }
}

impl From<ReadError> for Refusal {
    fn from(error: ReadError) -> Self {
        Self::broken(error)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::broken(error)
    }
}

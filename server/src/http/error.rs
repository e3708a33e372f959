//! Errors as clients see them: `{"error":{"code","message"},"outcome"}`.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use qunlong_core::Refusal;
use serde_json::{Value, json};

/// An error that happened before anything was asked of the cluster.
pub(super) fn error(status: StatusCode, code: &str, message: &str) -> Response {
    told(status, &json!({ "code": code, "message": message }), "refused")
}

/// A request that makes no sense, and why.
pub(super) fn bad_request(message: &str) -> Response {
    error(StatusCode::BAD_REQUEST, "BAD_REQUEST", message)
}

/// Something was asked for, and nobody knows what came of it.
pub(super) fn unknown(status: StatusCode, code: &str, message: &str) -> Response {
    told(status, &json!({ "code": code, "message": message }), "unknown")
}

/// A request that the cluster did not do, or may not have done.
pub(super) fn refused(refusal: &Refusal) -> Response {
    let status = match refusal {
        Refusal::TimeoutUnknown { .. } | Refusal::SurvivorLost { .. } | Refusal::SessionExpired { .. } => {
            StatusCode::GATEWAY_TIMEOUT
        }
        Refusal::Conflict { .. } => StatusCode::PRECONDITION_FAILED,
        Refusal::NoQuorum { .. }
        | Refusal::NoEpoch
        | Refusal::WrongEpoch { .. }
        | Refusal::StaleRound { .. }
        | Refusal::NotAnOwner
        | Refusal::CatchingUp
        | Refusal::NotAVoter
        | Refusal::StorageLost
        | Refusal::Recovering
        | Refusal::Leaving => StatusCode::SERVICE_UNAVAILABLE,
        Refusal::BadLevel { .. } | Refusal::InvalidContext | Refusal::BadNamespace => StatusCode::BAD_REQUEST,
        Refusal::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        Refusal::UnknownMember { .. } | Refusal::NoNamespace => StatusCode::NOT_FOUND,
        Refusal::TooManySiblings
        | Refusal::ConfigChangeInProgress { .. }
        | Refusal::TooFewMembers { .. }
        | Refusal::LearnerStalled { .. }
        | Refusal::MajorityAlive
        | Refusal::NotASurvivor
        | Refusal::SurvivorSilent { .. }
        | Refusal::NotANumber
        | Refusal::WrongMode { .. }
        | Refusal::NamespaceExists { .. }
        | Refusal::TooManyNamespaces { .. }
        | Refusal::NoChange => StatusCode::CONFLICT,
        Refusal::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
        Refusal::Overloaded => StatusCode::TOO_MANY_REQUESTS,
    };
    let outcome = if refusal.is_definite() { "refused" } else { "unknown" };
    let error = json!({ "code": refusal.code(), "message": refusal.to_string(), "detail": refusal });
    told(status, &error, outcome)
}

fn told(status: StatusCode, error: &Value, outcome: &str) -> Response {
    (status, Json(json!({ "error": error, "outcome": outcome }))).into_response()
}

//! Errors as clients see them: `{"error":{"code","message"},"outcome"}`.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use qunlong_core::Refusal;
use serde_json::json;

/// An error that happened before anything was asked of the cluster.
pub(super) fn error(status: StatusCode, code: &str, message: &str) -> Response {
    let body = json!({ "error": { "code": code, "message": message }, "outcome": "refused" });
    (status, Json(body)).into_response()
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
        | Refusal::NoChange => StatusCode::CONFLICT,
        Refusal::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
        Refusal::Overloaded => StatusCode::TOO_MANY_REQUESTS,
    };
    let outcome = if refusal.is_definite() { "refused" } else { "unknown" };
    let body = json!({
        "error": { "code": refusal.code(), "message": refusal.to_string(), "detail": refusal },
        "outcome": outcome,
    });
    (status, Json(body)).into_response()
}

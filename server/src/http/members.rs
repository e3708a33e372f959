//! Who is there, as this node knows it; and what pages say of their tabs.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use qunlong_core::{Generation, NodeId, Refusal, membership};
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::{error, refused};
use super::{App, snapshot};

/// All members that are known, with the epoch.
pub(super) async fn list(State(app): State<App>) -> Result<Json<Value>, Response> {
    let snapshot = snapshot(&app).await?;
    Ok(Json(json!({
        "me": snapshot.id,
        "epoch": snapshot.config.as_ref().map(|config| config.epoch.0),
        "owners": snapshot.config.as_ref().map(|config| config.current.owners().map(|(node, _)| node).collect::<Vec<_>>()),
        "config": snapshot.config,
        "members": snapshot.members,
    })))
}

/// What the page of a tab says as it is closed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Farewell {
    generation: Generation,
}

/// The page of a tab says that it is being closed: a browser brings that here also where it has ended the node already.
pub(super) async fn farewell(State(app): State<App>, Path(member): Path<String>, body: Bytes) -> Response {
    const FORM: &str = "a farewell is {\"generation\":N} to /v1/members/ID/farewell; an ID is 32 hexadecimal digits";
    const BODY_MAX: usize = 1 << 10;
    if body.len() > BODY_MAX {
        return refused(&Refusal::TooLarge { limit: BODY_MAX as u32 });
    }
    let (Some(member), Ok(Farewell { generation })) = (NodeId::parse_hex(&member), serde_json::from_slice(&body))
    else {
        return error(StatusCode::BAD_REQUEST, "BAD_REQUEST", FORM);
    };
    match app.node.commands.request(membership::Op::Farewell { member, generation }.into()).await {
        Ok(_) => Json(json!({ "outcome": "done" })).into_response(),
        Err(refusal) => refused(&refusal),
    }
}

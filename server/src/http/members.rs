//! Who is there, as this node knows it; and what pages say of their tabs.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use qunlong_core::{Generation, NodeId, membership};
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::json_of;
use super::error::{bad_request, refused};
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
pub(super) async fn farewell(
    State(app): State<App>,
    Path(member): Path<String>,
    body: Body,
) -> Result<Response, Response> {
    const FORM: &str = "a farewell is {\"generation\":N} to /v1/members/ID/farewell; an ID is 32 hexadecimal digits";
    let Some(member) = NodeId::parse_hex(&member) else { return Err(bad_request(FORM)) };
    let Farewell { generation } = json_of(body, BODY_MAX, FORM).await?;
    match app.node.commands.request(membership::Op::Farewell { member, generation }.into()).await {
        Ok(_) => Ok(Json(json!({ "outcome": "done" })).into_response()),
        Err(refusal) => Err(refused(&refusal)),
    }
}

/// More would be no farewell.
const BODY_MAX: usize = 1 << 10;

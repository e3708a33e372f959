//! Controls of the demonstration: kill and restart its nodes, cut and heal this node's links.
//!
//! They exist only in a node that `qunlong demo` started. Killing goes through the demo's supervisor, which owns the
//! processes, so that any living node can pass it on.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use qunlong_core::NodeId;
use serde_json::json;

use super::App;
use super::error::error;
use crate::demo::{Order, ask_supervisor};
use crate::driver::Command;

pub(super) async fn list(State(app): State<App>) -> Response {
    pass_on(&app, Order::List).await
}

pub(super) async fn node(State(app): State<App>, Path((name, action)): Path<(String, String)>) -> Response {
    match action.as_str() {
        "kill" => pass_on(&app, Order::Kill { name }).await,
        "restart" => pass_on(&app, Order::Restart { name }).await,
        _ => error(StatusCode::NOT_FOUND, "NOT_FOUND", "a node can be killed or restarted"),
    }
}

pub(super) async fn link(State(app): State<App>, Path((peer, action)): Path<(String, String)>) -> Response {
    if app.supervisor.is_none() {
        return no_demo();
    }
    let Some(peer) = NodeId::parse_hex(&peer) else {
        return error(StatusCode::BAD_REQUEST, "BAD_NODE_ID", "a node id is 32 hexadecimal digits");
    };
    let cut = match action.as_str() {
        "cut" => true,
        "heal" => false,
        _ => return error(StatusCode::NOT_FOUND, "NOT_FOUND", "a link can be cut or healed"),
    };
    app.node.commands.send(Command::Cut { peer, cut }).await;
    Json(json!({ "outcome": "done" })).into_response()
}

async fn pass_on(app: &App, order: Order) -> Response {
    let Some(supervisor) = &app.supervisor else { return no_demo() };
    match ask_supervisor(supervisor, &order).await {
        Ok(report) => Json(report).into_response(),
        Err(failure) => error(StatusCode::CONFLICT, failure.code, &failure.message),
    }
}

fn no_demo() -> Response {
    error(StatusCode::NOT_FOUND, "NO_DEMO", "this node is not part of a demonstration")
}

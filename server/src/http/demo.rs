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
use super::error::{error, unknown};
use crate::demo::{Order, Undone, ask_supervisor};
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
        Err(undone) => told(&order, &undone),
    }
}

fn told(order: &Order, undone: &Undone) -> Response {
    let message = undone.to_string();
    match undone {
        Undone::NoSuchNode { .. } => error(StatusCode::NOT_FOUND, "NO_SUCH_NODE", &message),
        Undone::Refused { .. } => error(StatusCode::CONFLICT, "DEMO_REFUSED", &message),
        Undone::NoSupervisor => error(StatusCode::SERVICE_UNAVAILABLE, "NO_SUPERVISOR", &message),
        Undone::NoAnswer => match order {
            // To ask changes nothing.
            Order::List => error(StatusCode::SERVICE_UNAVAILABLE, "NO_SUPERVISOR", &message),
            Order::Kill { .. } | Order::Restart { .. } => {
                unknown(StatusCode::GATEWAY_TIMEOUT, "NO_SUPERVISOR", &message)
            }
        },
    }
}

fn no_demo() -> Response {
    error(StatusCode::NOT_FOUND, "NO_DEMO", "this node is not part of a demonstration")
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    #[tokio::test]
    async fn an_order_that_was_sent_is_never_said_to_be_refused_for_want_of_an_answer() {
        let kill = || Order::Kill { name: "n9".to_owned() };
        let name = "n9".to_owned();
        for (order, undone, status, outcome) in [
            (kill(), Undone::NoSuchNode { name }, 404, "refused"),
            (kill(), Undone::Refused { why: "cannot start n9".to_owned() }, 409, "refused"),
            (kill(), Undone::NoSupervisor, 503, "refused"),
            (kill(), Undone::NoAnswer, 504, "unknown"),
            (Order::List, Undone::NoAnswer, 503, "refused"),
        ] {
            let response = told(&order, &undone);
            assert_eq!(response.status().as_u16(), status, "{order:?} {undone:?}");
            let body = to_bytes(response.into_body(), usize::MAX).await.expect("it is there");
            let body = String::from_utf8_lossy(&body);
            assert!(body.contains(&format!("\"outcome\":\"{outcome}\"")), "{order:?} {undone:?}: {body}");
        }
    }
}

//! `GET /v1/namespaces` and `PUT /v1/namespaces/{name}`: what is promised for which keys.
//!
//! To create one is a change of the configuration, so it may have to wait for another one that is under way; and since
//! it is idempotent, a client that heard nothing asks again.

use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use qunlong_core::namespace::{Mode, Namespace};
use qunlong_core::topology::{Op, Outcome, Step};
use qunlong_core::{Outcome as AnyOutcome, Refusal};
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::json_of;
use super::error::{error, refused};
use super::{App, snapshot};

/// How long another change is waited for.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often it is looked for meanwhile.
const LOOK: Duration = Duration::from_millis(20);
/// More would be no wish.
const BODY_MAX: usize = 1 << 10;

/// All of them, those included that are always there.
pub(super) async fn list(State(app): State<App>) -> Result<Json<Value>, Response> {
    let snapshot = snapshot(&app).await?;
    let Some(config) = &snapshot.config else { return Err(refused(&Refusal::NoEpoch)) };
    let describe = |(name, Namespace { mode, replicas }): (&str, Namespace)| {
        let replicas = if replicas == 0 { config.replicas } else { replicas };
        json!({ "name": name, "mode": mode, "replicas": replicas })
    };
    let all: Vec<Value> = config.namespaces.iter().map(describe).collect();
    Ok(Json(json!({ "epoch": config.epoch, "namespaces": all })))
}

/// What a namespace is to be.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    mode: Mode,
    /// As many as the cluster has, where it is not said.
    #[serde(default)]
    replicas: u8,
}

/// Creates one, or finds that it is there.
pub(super) async fn create(State(app): State<App>, Path(name): Path<String>, body: Body) -> Result<Response, Response> {
    const FORM: &str = "a namespace is {\"mode\":\"eventual\", \"quorum\", \"atomic\" or \"consensus\",\"replicas\":N}";
    let wish: Wish = json_of(body, BODY_MAX, FORM).await?;
    let namespace = Namespace { mode: wish.mode, replicas: wish.replicas };
    let until = Instant::now() + PATIENCE;
    loop {
        let steps = vec![Step::Create { name: name.clone(), namespace }];
        let answer = match app.node.commands.request(Op::Change { steps }.into()).await {
            Ok(AnyOutcome::Topology(Outcome::Begun { epoch })) => Ok(Some(epoch)),
            Err(Refusal::NoChange) => Ok(None),
            Ok(_) => return Err(error(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", "an answer to another question")),
            Err(refusal) => Err(refusal),
        };
        match answer {
            Ok(epoch) => {
                known_here(&app, &name, until).await?;
                let body = json!({ "outcome": "done", "name": name, "mode": wish.mode, "epoch": epoch });
                return Ok(Json(body).into_response());
            }
            Err(Refusal::ConfigChangeInProgress { .. } | Refusal::NotAVoter) if Instant::now() < until => {
                tokio::time::sleep(LOOK).await;
            }
            Err(refusal) => return Err(refused(&refusal)),
        }
    }
}

/// Waits until this node has heard of it too, so that whoever created it can use it here.
async fn known_here(app: &App, name: &str, until: Instant) -> Result<(), Response> {
    while Instant::now() < until {
        let config = snapshot(app).await?.config;
        if config.is_some_and(|config| config.namespaces.get(name).is_ok()) {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

//! The HTTP side of a node: data, members, traces, links of other nodes, and the dashboard's files.
//!
//! Every request passes [`policy`]: the Host must be one of this node's names and an Origin, if there is one, a
//! server's of this cluster. There are no cookies, so a foreign page has nothing to borrow.

mod body;
mod demo;
mod error;
mod kv;
mod members;
mod namespaces;
mod openapi;
mod parameters;
mod policy;
mod registers;
mod topology;
mod trace;
mod upgrade;
mod watch;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, delete, get, post, put};
use axum::{Json, Router, middleware};
use qunlong_core::{Bytes, Refusal, key, namespace};
use serde_json::{Value, json};
use tower_http::services::ServeDir;

use crate::driver::{Handle, Snapshot};
use crate::link;
use crate::store::Counters;
pub(crate) use policy::{Policy, keep_policy_current};
use upgrade::Upgrade;

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) node: Handle,
    pub(crate) counters: Arc<Counters>,
    pub(crate) policy: Policy,
    /// Where the demonstration's supervisor listens, if this node is part of one.
    pub(crate) supervisor: Option<String>,
    /// Where it speaks the protocol of Redis, if it does.
    pub(crate) resp: Option<SocketAddr>,
    /// The dashboard's files.
    pub(crate) web: Option<PathBuf>,
}

/// Writes the list of routes and the router from the same lines, so that neither says what the other does not.
macro_rules! routes {
    ($($method:ident $path:literal => $handler:path;)*) => {
        /// Every route of the interface: its method and its path. A test holds the description to it.
        #[cfg(test)]
        const ROUTES: &[(&str, &str)] = &[$((stringify!($method), $path)),*];

        fn interface() -> Router<App> {
            Router::new()$(.route($path, $method($handler)))*
        }
    };
}

routes! {
    get "/v1/kv" => kv::list;
    get "/v1/kv/{*key}" => kv::read;
    put "/v1/kv/{*key}" => kv::write;
    delete "/v1/kv/{*key}" => kv::delete;
    get "/v1/registers" => registers::list;
    get "/v1/registers/{*key}" => registers::read;
    put "/v1/registers/{*key}" => registers::write;
    post "/v1/registers/{*key}" => registers::post;
    delete "/v1/registers/{*key}" => registers::delete;
    get "/v1/watch" => watch::watch;
    get "/v1/namespaces" => namespaces::list;
    put "/v1/namespaces/{name}" => namespaces::create;
    get "/v1/members" => members::list;
    post "/v1/members/{id}/farewell" => members::farewell;
    get "/v1/topology" => topology::show;
    post "/v1/topology/changes" => topology::change_it;
    post "/v1/topology/recoveries" => topology::recover;
    get "/v1/status" => status;
    get "/v1/trace" => trace::events;
    any "/v1/trace/socket" => trace::socket;
    any "/v1/link" => link_socket;
    get "/v1/openapi.json" => openapi::show;
    get "/v1/demo" => demo::list;
    post "/v1/demo/nodes/{name}/{action}" => demo::node;
    post "/v1/demo/links/{peer}/{action}" => demo::link;
}

/// The interface and, beside it, the dashboard.
pub(crate) fn router(app: App) -> Router {
    let api = interface()
        .route("/v1/{*rest}", any(|| async { StatusCode::NOT_FOUND }))
        // The handlers that take a body limit it themselves, and say so in the usual form.
        .layer(DefaultBodyLimit::disable());
    let files = match &app.web {
        Some(web) => api.fallback_service(ServeDir::new(web).precompressed_br()),
        None => api.fallback(no_dashboard),
    };
    files.layer(middleware::from_fn_with_state(app.clone(), policy::enforce)).with_state(app)
}

async fn no_dashboard() -> Response {
    const TEXT: &str = "This node serves no dashboard: it was started without --web.\n\
                        The interface is there: /v1/status, /v1/members, /v1/kv, /v1/registers.\n";
    TEXT.into_response()
}

async fn link_socket(State(app): State<App>, Upgrade(upgrade): Upgrade) -> Response {
    upgrade.on_upgrade(move |socket| link::accept(socket, app.node.link_context))
}

/// A key of the namespace that a request names, if it names one.
fn key_of(namespace: Option<&str>, key: &str) -> Bytes {
    namespace.map_or_else(|| key.into(), |name| namespace::key_in(name, key.as_bytes()))
}

/// What clients call a key.
fn outside(key: &Bytes) -> String {
    key::place_of(key).map_or_else(|| key.to_string(), |place| Bytes::from(place.key).to_string())
}

fn wants_json(headers: &HeaderMap) -> bool {
    headers.get(ACCEPT).is_some_and(|accept| accept.as_bytes().starts_with(b"application/json"))
}

async fn snapshot(app: &App) -> Result<Snapshot, Response> {
    app.node.commands.inspect().await.ok_or_else(|| error::refused(&Refusal::Leaving))
}

async fn status(State(app): State<App>) -> Result<Json<Value>, Response> {
    use std::sync::atomic::Ordering::Relaxed;
    let snapshot = snapshot(&app).await?;
    let me = snapshot.members.iter().find(|member| member.id == snapshot.id);
    Ok(Json(json!({
        "id": snapshot.id,
        "name": me.map(|me| &me.profile.name),
        "generation": snapshot.generation,
        "version": env!("CARGO_PKG_VERSION"),
        "protocol": qunlong_core::wire::VERSION,
        "cluster": snapshot.config.as_ref().map(|config| config.cluster),
        "epoch": snapshot.config.as_ref().map(|config| config.epoch),
        "replicas": snapshot.config.as_ref().map(|config| config.replicas),
        "alive": snapshot.members.iter().filter(|member| member.is_reachable()).count(),
        "links": snapshot.links,
        "cuts": snapshot.cuts,
        "keys": snapshot.keys,
        "registers": snapshot.registers,
        "digest": format!("{:016x}", snapshot.digest),
        "dropped_packets": snapshot.dropped,
        "uptime_ms": snapshot.uptime.as_millis() as u64,
        "resp": app.resp.map(|address| address.to_string()),
        "demo": app.supervisor.is_some(),
        "journal": {
            "syncs": app.counters.syncs.load(Relaxed),
            "records": app.counters.records.load(Relaxed),
            "bytes": app.counters.bytes.load(Relaxed),
        },
    })))
}

/// How long a closing node gives its connections to finish.
pub(crate) const GRACE: Duration = Duration::from_millis(500);

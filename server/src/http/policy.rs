//! Who may talk to this node from a browser.
//!
//! - **Host** must be one of this node's own names: a page that re-binds its name to our address is refused.
//! - **Origin**, when there is one, must be the interface of a server of this cluster, exactly; `null` is none.
//! - The content security policy lets the dashboard's scripts connect to those same servers and to nothing else:
//!   a tab must reach its second relay, so 'self' alone would be too little.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, RwLock};

use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, ORIGIN, REFERRER_POLICY,
    VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use qunlong_core::ClusterId;

use super::App;
use super::error::error;
use crate::driver::Handle;

/// The cluster that a request is for, and that an answer comes from.
const CLUSTER: HeaderName = HeaderName::from_static("qunlong-cluster");

/// The names in force; refreshed when members change.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    own: BTreeSet<String>,
    allowed: Arc<RwLock<Allowed>>,
}

#[derive(Debug, Default)]
struct Allowed {
    origins: BTreeSet<String>,
    content: String,
}

impl Policy {
    /// For a node that listens at `address` and is also called by `names` (`host:port`).
    pub(crate) fn new(address: SocketAddr, advertised: &str, names: &[String]) -> Self {
        let mut own = spellings(&address.to_string());
        own.extend(spellings(advertised));
        own.extend(names.iter().map(|name| name.to_ascii_lowercase()));
        let policy = Self { own, allowed: Arc::default() };
        policy.allow([]);
        policy
    }

    /// Servers whose pages may talk to this node, besides its own.
    fn allow(&self, servers: impl IntoIterator<Item = String>) {
        let hosts: BTreeSet<String> =
            servers.into_iter().flat_map(|server| spellings(&server)).chain(self.own.iter().cloned()).collect();
        let connect: Vec<String> =
            hosts.iter().flat_map(|host| [format!("http://{host}"), format!("ws://{host}")]).collect();
        let content = format!(
            "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; style-src 'self'; \
             img-src 'self' data:; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
             connect-src 'self' {}",
            connect.join(" ")
        );
        let origins = hosts.iter().map(|host| format!("http://{host}")).collect();
        *self.allowed.write().expect("no holder panics") = Allowed { origins, content };
    }
}

/// `127.0.0.1:7100` and `localhost:7100` are one server to its users and two to a browser.
fn spellings(host: &str) -> BTreeSet<String> {
    let host = host.to_ascii_lowercase();
    let mut all = BTreeSet::new();
    if let Some((name, port)) = host.rsplit_once(':')
        && ["127.0.0.1", "localhost", "[::1]"].contains(&name)
    {
        all.extend([format!("127.0.0.1:{port}"), format!("localhost:{port}")]);
    }
    all.insert(host);
    all
}

/// Follows the list of servers until the node stops.
pub(crate) async fn keep_policy_current(policy: Policy, mut node: Handle) {
    loop {
        let servers = node.servers.borrow_and_update().clone();
        policy.allow(servers.into_iter().filter(|server| is_host(server)));
        if node.servers.changed().await.is_err() {
            return;
        }
    }
}

/// An address from gossip goes into a header: nothing but a host and a port may pass.
fn is_host(address: &str) -> bool {
    address.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".:-[]".contains(&byte))
}

/// Checks a request and adds the headers that every answer carries.
pub(super) async fn enforce(State(app): State<App>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    // HTTP/2 names the host in the request line instead.
    let authority = request.uri().authority().map(axum::http::uri::Authority::as_str);
    let host = text(headers, &HOST).or(authority).map(str::to_ascii_lowercase);
    if !host.is_some_and(|host| app.policy.own.contains(&host)) {
        let message = "the Host header is none of this node's names; use its address, or name it with --allow-host";
        return error(StatusCode::MISDIRECTED_REQUEST, "HOST_REFUSED", message);
    }
    let origin = headers.get(&ORIGIN).cloned();
    if let Some(origin) = &origin {
        let known = origin.to_str().is_ok_and(|origin| {
            app.policy.allowed.read().expect("no holder panics").origins.contains(&origin.to_ascii_lowercase())
        });
        if !known {
            let message = "pages of this origin may not talk to this node; open the dashboard that a server of the cluster serves";
            return error(StatusCode::FORBIDDEN, "ORIGIN_REFUSED", message);
        }
    }
    // A client may name the cluster that it means: another one is none of its business, however alike their data.
    let cluster = *app.node.link_context.cluster.borrow();
    if let Some(meant) = text(headers, &CLUSTER)
        && let Some(mine) = cluster
        && ClusterId::parse_hex(meant) != Some(mine)
    {
        let message = format!("this node belongs to cluster {mine}, the request is for {meant}");
        return error(StatusCode::CONFLICT, "WRONG_CLUSTER", &message);
    }
    let is_preflight = request.method() == Method::OPTIONS && origin.is_some();
    let is_api = request.uri().path().starts_with("/v1/");
    let mut response = if is_preflight { StatusCode::NO_CONTENT.into_response() } else { next.run(request).await };
    if is_api && response.status().is_client_error() && !is_json(&response) {
        response = in_the_usual_form(response.status());
    }
    let headers = response.headers_mut();
    if let Some(cluster) = cluster.and_then(|cluster| HeaderValue::from_str(&format!("{cluster}")).ok()) {
        headers.insert(CLUSTER, cluster);
    }
    if let Some(origin) = origin {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, PUT, DELETE, POST"));
        let allowed = "accept, content-type, if-match, if-none-match, qunlong-cluster, qunlong-context, \
                       qunlong-request-id, qunlong-seen";
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(allowed));
        headers.insert(
            ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("etag, qunlong-cluster, qunlong-context, qunlong-outcome"),
        );
    }
    headers.append(VARY, HeaderValue::from_static("origin"));
    let content = app.policy.allowed.read().expect("no holder panics").content.clone();
    if let Ok(content) = HeaderValue::from_str(&content) {
        headers.insert(CONTENT_SECURITY_POLICY, content);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    let cache = if is_api { "no-store" } else { "no-cache" };
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
    response
}

fn is_json(response: &Response) -> bool {
    response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"))
}

/// What the router itself refuses, as every other error is told.
fn in_the_usual_form(status: StatusCode) -> Response {
    let (code, message) = match status {
        StatusCode::NOT_FOUND => ("NOT_FOUND", "there is no such resource"),
        StatusCode::METHOD_NOT_ALLOWED => ("METHOD_NOT_ALLOWED", "the resource does not take this method"),
        _ => ("BAD_REQUEST", "the request's path makes no sense: what its percent signs stand for must be UTF-8"),
    };
    error(status, code, message)
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_two_spellings_and_others_have_one() {
        assert_eq!(spellings("127.0.0.1:7100"), spellings("localhost:7100"));
        assert_eq!(spellings("Example.org:80"), BTreeSet::from(["example.org:80".to_owned()]));
    }

    #[test]
    fn an_address_that_would_break_out_of_the_header_is_no_host() {
        assert!(is_host("127.0.0.1:7100") && is_host("[::1]:7100"));
        assert!(!is_host("x; script-src *") && !is_host("x\r\ny"));
    }
}

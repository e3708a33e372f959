//! `GET | PUT | DELETE /v1/kv/{key}` and `GET /v1/kv?prefix=`.
//!
//! A value is the raw body; what a write supersedes travels in the header `qunlong-context`:
//!
//! - a write without the header supersedes whatever is there now;
//! - with the context of an earlier read, exactly what that read saw;
//! - with the word `none`, nothing: it becomes a sibling of whatever is there.
//!
//! `?namespace=` names the namespace; `?r=` and `?w=` say how many owners answer and hold, as far as it allows.
//!
//! A key with several siblings answers 300 with all of them. A retry names itself with `qunlong-request-id`.

#![expect(clippy::result_large_err, reason = "an error here is the finished answer")]

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use qunlong_core::kv::{Op as KvOp, Outcome as KvOutcome, WriteContext};
use qunlong_core::quorum::Level;
use qunlong_core::version::{Context, Sibling, Versions};
use qunlong_core::{Bytes, Op, Outcome, Refusal, WriteId};
use serde_json::{Value, json};

use super::body::value_of;
use super::error::{error, refused};
use super::parameters::{Parameters, page_size, within};
use super::{App, key_of, outside, wants_json};

const CONTEXT: HeaderName = HeaderName::from_static("qunlong-context");
pub(super) const OUTCOME: HeaderName = HeaderName::from_static("qunlong-outcome");
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("qunlong-request-id");

pub(super) async fn read(
    State(app): State<App>,
    Path(key): Path<String>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Response> {
    let [namespace, r, timeout] = parameters.of(["namespace", "r", "timeout"])?;
    let op = KvOp::Get {
        key: key_of(namespace.as_deref(), &key),
        read: level("r", r.as_deref())?,
        within: within(timeout.as_deref())?,
    };
    let KvOutcome::Read { versions, answered } = ask(&app, op).await? else { return Err(mixed_up()) };
    let values: Vec<&Sibling> = versions.values().collect();
    let status = match values.len() {
        0 => StatusCode::NOT_FOUND,
        1 => StatusCode::OK,
        _ => StatusCode::MULTIPLE_CHOICES,
    };
    let context = encode_context(&versions.to_context());
    let mut response = match values.as_slice() {
        [only] if !wants_json(&headers) => {
            let value = only.value.as_deref().unwrap_or_default().to_vec();
            ([(CONTENT_TYPE, "application/octet-stream")], value).into_response()
        }
        _ => {
            let mut body = describe(&key, &versions);
            body["deletes"] = versions
                .siblings()
                .iter()
                .filter(|sibling| sibling.value.is_none())
                .map(|sibling| json!({ "dot": sibling.dot, "request_id": sibling.write }))
                .collect();
            body["context"] = json!(context);
            body["answered"] = json!(answered);
            body["outcome"] = json!("done");
            if values.is_empty() {
                // That there is nothing is what the read was to find out: it was done.
                body["error"] = json!({ "code": "KEY_NOT_FOUND", "message": "there is no such key" });
            }
            (status, Json(body)).into_response()
        }
    };
    response.headers_mut().insert(CONTEXT, header(&context));
    response.headers_mut().insert(OUTCOME, HeaderValue::from_static("done"));
    Ok(response)
}

pub(super) async fn write(
    State(app): State<App>,
    Path(key): Path<String>,
    parameters: Parameters,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Response> {
    put(&app, &key, Some(value_of(body).await?), parameters, &headers).await
}

pub(super) async fn delete(
    State(app): State<App>,
    Path(key): Path<String>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Response> {
    put(&app, &key, None, parameters, &headers).await
}

async fn put(
    app: &App,
    key: &str,
    value: Option<Bytes>,
    parameters: Parameters,
    headers: &HeaderMap,
) -> Result<Response, Response> {
    let [namespace, w, timeout] = parameters.of(["namespace", "w", "timeout"])?;
    let op = KvOp::Put {
        key: key_of(namespace.as_deref(), key),
        value,
        context: write_context(headers)?,
        write: write_id(headers)?,
        stored: level("w", w.as_deref())?,
        within: within(timeout.as_deref())?,
    };
    let KvOutcome::Written { dot, write, context, acked } = ask(app, op).await? else { return Err(mixed_up()) };
    let context = encode_context(&context);
    let body = json!({
        "outcome": "done",
        "context": context,
        "dot": dot,
        "request_id": write,
        "acked": acked,
    });
    let mut response = Json(body).into_response();
    response.headers_mut().insert(CONTEXT, header(&context));
    response.headers_mut().insert(OUTCOME, HeaderValue::from_static("done"));
    Ok(response)
}

pub(super) async fn list(State(app): State<App>, parameters: Parameters) -> Result<Response, Response> {
    let [namespace, prefix, after, limit, timeout] =
        parameters.of(["namespace", "prefix", "after", "limit", "timeout"])?;
    let inside = |key: &str| key_of(namespace.as_deref(), key);
    let op = KvOp::List {
        prefix: inside(prefix.as_deref().unwrap_or_default()),
        after: after.as_deref().map(inside),
        limit: page_size(limit.as_deref())?,
        within: within(timeout.as_deref())?,
    };
    let KvOutcome::Listed { entries, next, answered } = ask(&app, op).await? else { return Err(mixed_up()) };
    let keys: Vec<Value> = entries.iter().map(|(key, versions)| describe(&outside(key), versions)).collect();
    let next = next.map(|next| outside(&next));
    Ok(Json(json!({ "keys": keys, "next": next, "answered": answered, "outcome": "done" })).into_response())
}

async fn ask(app: &App, op: KvOp) -> Result<KvOutcome, Response> {
    match app.node.commands.request(Op::Kv(op)).await {
        Ok(Outcome::Kv(outcome)) => Ok(outcome),
        Ok(_) => Err(mixed_up()),
        Err(refusal) => Err(refused(&refusal)),
    }
}

pub(super) fn mixed_up() -> Response {
    error(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", "the node answered another question; please report this")
}

/// A key with its current values, as text where they are text.
fn describe(key: &str, versions: &Versions) -> Value {
    let values: Vec<Value> = versions
        .values()
        .map(|sibling| {
            let bytes = sibling.value.as_deref().unwrap_or_default();
            json!({
                "text": std::str::from_utf8(bytes).ok(),
                "base64": STANDARD.encode(bytes),
                "dot": sibling.dot,
                "request_id": sibling.write,
            })
        })
        .collect();
    json!({ "key": key, "values": values })
}

/// How many owners are to answer or to hold it: the parameter of this name.
fn level(name: &str, text: Option<&str>) -> Result<Level, Response> {
    let bad = |_| {
        let levels = "is a number of owners, one, quorum or majority, all, or local_zone";
        error(StatusCode::BAD_REQUEST, "BAD_LEVEL", &format!("{name} {levels}"))
    };
    match text {
        None => Ok(Level::Usual),
        Some("one") => Ok(Level::Count(1)),
        Some("majority" | "quorum") => Ok(Level::Majority),
        Some("all") => Ok(Level::All),
        Some("local_zone") => Ok(Level::LocalZone),
        Some(count) => count.parse().map(Level::Count).map_err(bad),
    }
}

fn write_context(headers: &HeaderMap) -> Result<WriteContext, Response> {
    match headers.get(&CONTEXT).map(HeaderValue::as_bytes) {
        None => Ok(WriteContext::Current),
        Some(b"none") => Ok(WriteContext::Seen(Context::default())),
        Some(text) => decode_context(text).map(WriteContext::Seen).ok_or_else(|| refused(&Refusal::InvalidContext)),
    }
}

fn write_id(headers: &HeaderMap) -> Result<Option<WriteId>, Response> {
    let Some(text) = headers.get(&REQUEST_ID) else { return Ok(None) };
    let id = text.to_str().ok().and_then(WriteId::parse_hex);
    let bad = || error(StatusCode::BAD_REQUEST, "BAD_REQUEST_ID", "qunlong-request-id is 32 hexadecimal digits");
    id.map(Some).ok_or_else(bad)
}

/// A context is opaque to clients: they hand back what they were given.
fn encode_context(context: &Context) -> String {
    URL_SAFE_NO_PAD.encode(context.to_bytes())
}

fn decode_context(text: &[u8]) -> Option<Context> {
    Context::from_bytes(&URL_SAFE_NO_PAD.decode(text).ok()?)
}

fn header(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    use qunlong_core::NodeId;
    use qunlong_core::version::{Dot, VersionVector};

    #[test]
    fn a_context_reads_back() {
        let mut versions = Versions::default();
        for counter in [7, u64::MAX] {
            let dot = Dot { node: NodeId::small(1), counter };
            let (write, context) = (WriteId([counter as u8; 16]), VersionVector::default());
            versions.write(Sibling { dot, write, context, value: None }, &BTreeMap::new());
        }
        let context = versions.to_context();
        assert_eq!(context.writes.len(), 2);
        assert_eq!(decode_context(encode_context(&context).as_bytes()), Some(context));
        assert_eq!(decode_context(b"AAAA"), None);
        assert_eq!(decode_context(b"!"), None);
    }

    #[test]
    fn a_level_is_a_number_or_a_word() {
        let read = |text| level("r", Some(text)).ok();
        assert_eq!(level("r", None).ok(), Some(Level::Usual));
        assert_eq!(["one", "2"].map(read), [Some(Level::Count(1)), Some(Level::Count(2))]);
        assert_eq!(["quorum", "majority"].map(read), [Some(Level::Majority), Some(Level::Majority)]);
        assert_eq!(["all", "local_zone"].map(read), [Some(Level::All), Some(Level::LocalZone)]);
        assert_eq!(["", "most", "-1", "256"].map(read), [None, None, None, None]);
    }
}

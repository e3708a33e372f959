//! `GET | PUT | DELETE | POST /v1/registers/{key}`: linearizable registers.
//!
//! A value is the raw body. Each change makes a version, which travels as an entity tag, so conditions are HTTP's own:
//!
//! - `If-Match: "5"`: only if the register is of version 5;
//! - `If-None-Match: *`: only if it holds nothing;
//! - `PUT …?ttl=5000`: the value is to be removed after so many milliseconds;
//! - `POST …?increment=3` adds to a number, `POST …?append` appends the body.
//!
//! A condition that does not hold is answered 412 with the version that there is. A client that may ask again names its
//! request with `qunlong-request-id`, the same in all attempts, and says with `qunlong-seen` which version it knew before the
//! first: then it is carried out once, through whichever node it comes. The name is 32 hexadecimal digits of its own for
//! each request, or those of a session, a dot and a number that counts the session's requests, one at a time.

#![expect(clippy::result_large_err, reason = "an error here is the finished answer")]

use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::header::{CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use qunlong_core::cell::{Change, Expiry, When};
use qunlong_core::registers::{Op as RegisterOp, Outcome as RegisterOutcome};
use qunlong_core::{Name, Op, Outcome, Refusal, WallTime, limits};
use serde::Deserialize;
use serde_json::json;

use super::error::{error, refused};
use super::kv::{OUTCOME, REQUEST_ID, mixed_up};
use super::{App, key_of, outside, value_of, wants_json, within};

const SEEN: HeaderName = HeaderName::from_static("qunlong-seen");

/// Options of a request.
#[derive(Debug, Deserialize)]
pub(super) struct Options {
    /// Deadline in milliseconds.
    timeout: Option<u64>,
    /// Of which namespace; the one that is called `registers` if it is not said.
    namespace: Option<String>,
    /// Of a `PUT`: the value is to be removed after so many milliseconds.
    ttl: Option<u64>,
    /// Of a `POST`: add this.
    increment: Option<i64>,
    /// Of a `POST`: append the body.
    append: Option<String>,
}

/// Which registers there are.
pub(super) async fn list(State(app): State<App>, Query(options): Query<Listing>) -> Result<Response, Response> {
    let inside = |key: &str| key_of(options.namespace.as_deref(), key);
    let op = RegisterOp::List {
        prefix: inside(&options.prefix),
        after: options.after.as_deref().map(inside),
        limit: options.limit.unwrap_or(limits::LIST_KEYS),
        within: within(options.timeout),
    };
    let RegisterOutcome::Listed { keys, next } = ask(&app, op).await? else { return Err(mixed_up()) };
    let keys: Vec<String> = keys.iter().map(outside).collect();
    let next = next.as_ref().map(outside);
    Ok(Json(json!({ "keys": keys, "next": next, "outcome": "done" })).into_response())
}

/// What is to be listed.
#[derive(Debug, Deserialize)]
pub(super) struct Listing {
    #[serde(default)]
    prefix: String,
    after: Option<String>,
    limit: Option<u32>,
    timeout: Option<u64>,
    namespace: Option<String>,
}

pub(super) async fn read(
    State(app): State<App>,
    Path(key): Path<String>,
    Query(options): Query<Options>,
    headers: HeaderMap,
) -> Result<Response, Response> {
    let inside = key_of(options.namespace.as_deref(), &key);
    let op = RegisterOp::Get { key: inside, within: within(options.timeout) };
    let RegisterOutcome::Read { value, version, expires } = ask(&app, op).await? else { return Err(mixed_up()) };
    let wants_json = wants_json(&headers);
    let status = if value.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
    let mut response = match value {
        None if !wants_json => error(status, "KEY_NOT_FOUND", "there is no such register, or it was deleted"),
        Some(value) if !wants_json => ([(CONTENT_TYPE, "application/octet-stream")], value.to_vec()).into_response(),
        value => {
            let expires = expires.map(|at| at.0 / 1_000);
            let mut body = json!({ "key": key, "version": version, "expires": expires, "outcome": "done" });
            match &value {
                Some(value) => {
                    body["text"] = json!(std::str::from_utf8(value).ok());
                    body["base64"] = json!(STANDARD.encode(&value[..]));
                }
                None => {
                    let message = "there is no such register, or it was deleted";
                    body["error"] = json!({ "code": "KEY_NOT_FOUND", "message": message });
                }
            }
            (status, Json(body)).into_response()
        }
    };
    told(&mut response, version);
    Ok(response)
}

pub(super) async fn write(
    State(app): State<App>,
    Path(key): Path<String>,
    Query(options): Query<Options>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Response> {
    let (value, when) = (value_of(body).await?, condition(&headers)?);
    let expiry = match options.ttl {
        None => Expiry::Never,
        Some(ttl) => Expiry::At(deadline_in(ttl)),
    };
    change(&app, &key, Change::Put { value, when, expiry }, &options, &headers).await
}

pub(super) async fn delete(
    State(app): State<App>,
    Path(key): Path<String>,
    Query(options): Query<Options>,
    headers: HeaderMap,
) -> Result<Response, Response> {
    let when = condition(&headers)?;
    change(&app, &key, Change::Delete { when }, &options, &headers).await
}

pub(super) async fn post(
    State(app): State<App>,
    Path(key): Path<String>,
    Query(options): Query<Options>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Response> {
    let what = match (options.increment, &options.append) {
        (Some(by), None) => Change::Increment { by },
        (None, Some(_)) => Change::Append { suffix: value_of(body).await? },
        _ => {
            let message = "say what to do: ?increment=N adds to a number, ?append appends the body";
            return Err(error(StatusCode::BAD_REQUEST, "BAD_REQUEST", message));
        }
    };
    if condition(&headers)? != When::Always {
        let message = "increments and appends take no condition; use PUT";
        return Err(error(StatusCode::BAD_REQUEST, "BAD_REQUEST", message));
    }
    change(&app, &key, what, &options, &headers).await
}

async fn change(
    app: &App,
    key: &str,
    change: Change,
    options: &Options,
    headers: &HeaderMap,
) -> Result<Response, Response> {
    let (name, seen) = (name(headers)?, seen(headers)?);
    let (key, within) = (key_of(options.namespace.as_deref(), key), within(options.timeout));
    let op = RegisterOp::Change { key, change, name, seen, within };
    let RegisterOutcome::Changed { name, version, number } = ask(app, op).await? else { return Err(mixed_up()) };
    let mut body = json!({ "outcome": "done", "version": version, "request_id": name.to_string() });
    if let Some(number) = number {
        body["number"] = json!(number);
    }
    let mut response = Json(body).into_response();
    told(&mut response, version);
    Ok(response)
}

async fn ask(app: &App, op: RegisterOp) -> Result<RegisterOutcome, Response> {
    match app.node.commands.request(Op::Registers(op)).await {
        Ok(Outcome::Registers(outcome)) => Ok(outcome),
        Ok(_) => Err(mixed_up()),
        Err(refusal) => {
            let mut response = refused(&refusal);
            if let Refusal::Conflict { version } = refusal {
                response.headers_mut().insert(ETAG, tag(version));
            }
            Err(response)
        }
    }
}

/// The time after so many milliseconds, by this host's clock.
fn deadline_in(ttl: u64) -> WallTime {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallTime((now.as_micros() as u64).saturating_add(ttl.saturating_mul(1_000)))
}

fn told(response: &mut Response, version: u64) {
    response.headers_mut().insert(ETAG, tag(version));
    response.headers_mut().insert(OUTCOME, HeaderValue::from_static("done"));
}

fn tag(version: u64) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{version}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

/// What a change depends on: HTTP's own headers.
fn condition(headers: &HeaderMap) -> Result<When, Response> {
    let bad = |message| error(StatusCode::BAD_REQUEST, "BAD_CONDITION", message);
    match (headers.get(IF_MATCH), headers.get(IF_NONE_MATCH)) {
        (None, None) => Ok(When::Always),
        (None, Some(any)) if any.as_bytes() == b"*" => Ok(When::Holds(None)),
        (None, Some(_)) => Err(bad("if-none-match takes nothing but *: only if the register holds nothing")),
        (Some(tag), None) => {
            let version = tag.to_str().ok().map(|text| text.trim_matches('"')).and_then(|text| text.parse().ok());
            version.map(When::Version).ok_or_else(|| bad("if-match takes one version, as an entity tag: \"5\""))
        }
        (Some(_), Some(_)) => Err(bad("one condition at a time")),
    }
}

fn name(headers: &HeaderMap) -> Result<Option<Name>, Response> {
    let Some(text) = headers.get(&REQUEST_ID) else { return Ok(None) };
    let name = text.to_str().ok().and_then(Name::parse);
    let bad = "qunlong-request-id is 32 hexadecimal digits, and for a session's n-th request .n behind them";
    name.map(Some).ok_or_else(|| error(StatusCode::BAD_REQUEST, "BAD_REQUEST_ID", bad))
}

fn seen(headers: &HeaderMap) -> Result<u64, Response> {
    let Some(text) = headers.get(&SEEN) else { return Ok(0) };
    let version = text.to_str().ok().and_then(|text| text.parse().ok());
    version.ok_or_else(|| error(StatusCode::BAD_REQUEST, "BAD_REQUEST", "qunlong-seen is a version: a whole number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_those_of_http() {
        let read = |name: &'static str, value: &'static str| {
            let headers = HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static(value))]);
            condition(&headers).ok()
        };
        assert_eq!(condition(&HeaderMap::new()).ok(), Some(When::Always));
        assert_eq!(read("if-match", "\"5\""), Some(When::Version(5)));
        assert_eq!(read("if-match", "5"), Some(When::Version(5)));
        assert_eq!(read("if-none-match", "*"), Some(When::Holds(None)));
        assert_eq!(read("if-match", "*"), None);
        assert_eq!(read("if-none-match", "\"5\""), None);
    }
}

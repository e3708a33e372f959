//! `GET | PUT | DELETE | POST /v1/registers/{key}`: linearizable registers.
//!
//! A value is the raw body. Each change makes a version, which travels as an entity tag, so conditions are HTTP's own:
//!
//! - `If-Match: "5"`, or 5 without quotes: only if the register is of version 5; `"0"`: only if it was never written;
//! - `If-Match: *`: only if it holds anything;
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
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use qunlong_core::cell::{Change, Expiry, When};
use qunlong_core::registers::{Op as RegisterOp, Outcome as RegisterOutcome};
use qunlong_core::{Bytes, Duration, Name, Op, Outcome, Refusal, WallTime};
use serde_json::json;

use super::body::value_of;
use super::error::{bad_request, error, refused};
use super::kv::{OUTCOME, REQUEST_ID, mixed_up};
use super::parameters::{MILLISECONDS, Parameters, number, page_size, within};
use super::{App, key_of, outside, wants_json};

const SEEN: HeaderName = HeaderName::from_static("qunlong-seen");

/// Which registers there are.
pub(super) async fn list(State(app): State<App>, parameters: Parameters) -> Result<Response, Response> {
    let [namespace, prefix, after, limit, timeout] =
        parameters.of(["namespace", "prefix", "after", "limit", "timeout"])?;
    let inside = |key: &str| key_of(namespace.as_deref(), key);
    let op = RegisterOp::List {
        prefix: inside(prefix.as_deref().unwrap_or_default()),
        after: after.as_deref().map(inside),
        limit: page_size(limit.as_deref())?,
        within: within(timeout.as_deref())?,
    };
    let RegisterOutcome::Listed { keys, next } = ask(&app, op).await? else { return Err(mixed_up()) };
    let keys: Vec<String> = keys.iter().map(outside).collect();
    let next = next.as_ref().map(outside);
    Ok(Json(json!({ "keys": keys, "next": next, "outcome": "done" })).into_response())
}

pub(super) async fn read(
    State(app): State<App>,
    Path(key): Path<String>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Response> {
    let [namespace, timeout] = parameters.of(["namespace", "timeout"])?;
    let op = RegisterOp::Get { key: key_of(namespace.as_deref(), &key), within: within(timeout.as_deref())? };
    let RegisterOutcome::Read { value, version, expires } = ask(&app, op).await? else { return Err(mixed_up()) };
    let status = if value.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
    let mut response = match value {
        Some(value) if !wants_json(&headers) => {
            ([(CONTENT_TYPE, "application/octet-stream")], value.to_vec()).into_response()
        }
        value => {
            let expires = expires.map(|at| at.0 / 1_000);
            let mut body = json!({ "key": key, "version": version, "expires": expires, "outcome": "done" });
            match &value {
                Some(value) => {
                    body["text"] = json!(std::str::from_utf8(value).ok());
                    body["base64"] = json!(STANDARD.encode(&value[..]));
                }
                // That there is nothing is what the read was to find out: it was done.
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
    parameters: Parameters,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Response> {
    let [namespace, ttl, timeout] = parameters.of(["namespace", "ttl", "timeout"])?;
    let (when, within) = (condition(&headers)?, within(timeout.as_deref())?);
    let expiry = match number("ttl", ttl.as_deref(), MILLISECONDS)? {
        None => Expiry::Never,
        Some(ttl) => Expiry::At(deadline_in(ttl)),
    };
    let what = Change::Put { value: value_of(body).await?, when, expiry };
    change(&app, key_of(namespace.as_deref(), &key), what, within, &headers).await
}

pub(super) async fn delete(
    State(app): State<App>,
    Path(key): Path<String>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Response> {
    let [namespace, timeout] = parameters.of(["namespace", "timeout"])?;
    let (when, within) = (condition(&headers)?, within(timeout.as_deref())?);
    change(&app, key_of(namespace.as_deref(), &key), Change::Delete { when }, within, &headers).await
}

pub(super) async fn post(
    State(app): State<App>,
    Path(key): Path<String>,
    parameters: Parameters,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Response> {
    let [namespace, increment, append, timeout] = parameters.of(["namespace", "increment", "append", "timeout"])?;
    let within = within(timeout.as_deref())?;
    if condition(&headers)? != When::Always {
        return Err(bad_condition("increments and appends take no condition; use PUT"));
    }
    let what = match (number("increment", increment.as_deref(), "a whole number of 64 bits")?, append) {
        (Some(by), None) => Change::Increment { by },
        (None, Some(_)) => Change::Append { suffix: value_of(body).await? },
        (None, None) | (Some(_), Some(_)) => {
            return Err(bad_request("say what to do: ?increment=N adds to a number, ?append appends the body"));
        }
    };
    change(&app, key_of(namespace.as_deref(), &key), what, within, &headers).await
}

async fn change(
    app: &App,
    key: Bytes,
    change: Change,
    within: Option<Duration>,
    headers: &HeaderMap,
) -> Result<Response, Response> {
    let (name, seen) = (name(headers)?, seen(headers)?);
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

/// What a change depends on: HTTP's own headers (RFC 9110, §13.1), as far as a version and nothing else tells registers
/// apart.
fn condition(headers: &HeaderMap) -> Result<When, Response> {
    match (conditional(headers, &IF_MATCH)?, conditional(headers, &IF_NONE_MATCH)?) {
        (None, None) => Ok(When::Always),
        (None, Some("*")) => Ok(When::Holds(None)),
        (None, Some(_)) => Err(bad_condition("if-none-match takes nothing but *: only if the register holds nothing")),
        (Some("*"), None) => Ok(When::Exists),
        (Some(tag), None) => version_of(tag).map(When::Version).ok_or_else(|| {
            bad_condition("if-match takes a version, as in \"5\", or *: only if the register holds anything")
        }),
        (Some(_), Some(_)) => Err(bad_condition("one condition at a time")),
    }
}

/// What one of those headers says. It may be there once: a second one would be a second condition.
fn conditional<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Response> {
    let mut all = headers.get_all(name).iter();
    match (all.next(), all.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| bad_condition("a condition is plain text")),
        (Some(_), Some(_)) => Err(bad_condition("one condition at a time")),
    }
}

/// The version that an entity tag names. Both of its quotes may be left out.
fn version_of(tag: &str) -> Option<u64> {
    let digits = tag.strip_prefix('"').map_or(Some(tag), |rest| rest.strip_suffix('"'))?;
    let version: u64 = digits.parse().ok()?;
    // Tags are compared as text: 05 and +5 are no tags of ours.
    (version.to_string() == digits).then_some(version)
}

fn bad_condition(message: &str) -> Response {
    error(StatusCode::BAD_REQUEST, "BAD_CONDITION", message)
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
    version.ok_or_else(|| bad_request("qunlong-seen is a version: a whole number"))
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
        assert_eq!(read("if-match", "\"0\""), Some(When::Version(0)));
        assert_eq!(read("if-match", "*"), Some(When::Exists));
        assert_eq!(read("if-none-match", "\"5\""), None);
    }

    #[test]
    fn an_entity_tag_is_taken_as_it_is_given_or_not_at_all() {
        let taken = ["5", "\"5\"", "18446744073709551615"].map(version_of);
        assert_eq!(taken, [Some(5), Some(5), Some(u64::MAX)]);
        for tag in r#"|"|""|5"|"5|""5|""5""|"5", "6"|W/"5"|+5|05|-1|" 5""#.split('|') {
            assert_eq!(version_of(tag), None, "{tag}");
        }
        assert_eq!(version_of("18446744073709551616"), None);
    }

    #[test]
    fn a_second_condition_is_refused_and_not_left_out() {
        for headers in [
            [(IF_MATCH, "\"5\""), (IF_MATCH, "\"6\"")],
            [(IF_NONE_MATCH, "*"), (IF_NONE_MATCH, "*")],
            [(IF_MATCH, "*"), (IF_NONE_MATCH, "*")],
        ] {
            let mut all = HeaderMap::new();
            for (name, value) in headers.clone() {
                all.append(name, HeaderValue::from_static(value));
            }
            let refused = condition(&all).err().map(|response| response.status());
            assert_eq!(refused, Some(StatusCode::BAD_REQUEST), "{headers:?}");
        }
    }
}

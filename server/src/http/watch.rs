//! `GET /v1/watch?key=K` or `?prefix=P`: what changes of registers, as it changes.
//!
//! ```text
//!   as JSON            one answer: what has changed behind ?after=TOKEN, as soon as there is anything, and the next token
//!   text/event-stream  the same without an end: events `change`, and `resync` where the token was not known
//! ```
//!
//! Of each register the last change is told, in the order of these; what it held in between may be left out. A token is
//! good at the node that gave it. Another one, or the same after a restart, begins with all there is and says *resync*:
//! whoever keeps a copy empties it then. The token of an event is its id, so a page's `EventSource` goes on by itself.

#![expect(clippy::result_large_err, reason = "an error here is the finished answer")]

use std::convert::Infallible;

use axum::Json;
use axum::extract::State;
use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, HeaderName};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::{Stream, StreamExt, stream};
use qunlong_core::namespace::Mode;
use qunlong_core::registers::{Changed, Op as RegisterOp, Outcome as RegisterOutcome, Token, Watched};
use qunlong_core::{Duration, Op, Outcome, Refusal};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::error::{bad_request, refused};
use super::parameters::{Parameters, within};
use super::{App, key_of, outside, snapshot};

/// A page's `EventSource` says with it where it was.
const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");
/// A stream asks its node anew this often, if nothing changes.
const PATIENCE: Duration = Duration::secs(20);
/// A stream whose node cannot tell now asks again after this.
const AGAIN: std::time::Duration = std::time::Duration::from_secs(1);

/// What a client follows, and where it is.
struct Follower {
    app: App,
    watched: Watched,
    after: Option<Token>,
}

/// What was told, and where to go on.
struct News {
    changes: Vec<Changed>,
    next: Token,
    resync: bool,
}

pub(super) async fn watch(
    State(app): State<App>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Response> {
    let [namespace, key, prefix, after, timeout] = parameters.of(["namespace", "key", "prefix", "after", "timeout"])?;
    let within = within(timeout.as_deref())?;
    let (key, is_prefix) = match (key, prefix) {
        (Some(key), None) => (key, false),
        (None, Some(prefix)) => (prefix, true),
        (None, None) | (Some(_), Some(_)) => return Err(bad_request("say what to watch: ?key=K or ?prefix=P")),
    };
    let last = headers.get(&LAST_EVENT).map(|last| last.to_str().unwrap_or_default().to_owned());
    let after = last.or(after).map(|text| token(&text)).transpose()?;
    let watched = Watched { key: key_of(namespace.as_deref(), &key), is_prefix };
    let mut follower = Follower { app, watched, after };
    if headers.get(ACCEPT).is_some_and(|accept| accept.as_bytes().starts_with(b"text/event-stream")) {
        follower.check().await?;
        return Ok(Sse::new(follower.stream()).keep_alive(KeepAlive::default()).into_response());
    }
    let News { changes, next, resync } = follower.next(within).await.map_err(|refusal| refused(&refusal))?;
    let changes: Vec<Value> = changes.iter().map(told).collect();
    Ok(Json(json!({ "changes": changes, "next": next.to_string(), "resync": resync, "outcome": "done" }))
        .into_response())
}

impl Follower {
    /// Refuses before the stream begins what can never be told.
    async fn check(&self) -> Result<(), Response> {
        let Some(config) = snapshot(&self.app).await?.config else { return Err(refused(&Refusal::NoEpoch)) };
        match config.namespaces.resolve(self.watched.key.clone(), Mode::Consensus) {
            Ok((_, Mode::Atomic | Mode::Consensus)) => Ok(()),
            Ok((_, mode)) => Err(refused(&Refusal::WrongMode { mode })),
            Err(refusal) => Err(refused(&refusal)),
        }
    }

    /// Waits until something changes, or so long.
    async fn next(&mut self, within: Option<Duration>) -> Result<News, Refusal> {
        let op = RegisterOp::Watch { watched: self.watched.clone(), after: self.after, within };
        match self.app.node.commands.request(Op::Registers(op)).await? {
            Outcome::Registers(RegisterOutcome::Watched { changes, next, resync }) => {
                self.after = Some(next);
                Ok(News { changes, next, resync })
            }
            _ => Err(Refusal::Leaving),
        }
    }

    fn stream(self) -> impl Stream<Item = Result<SseEvent, Infallible>> {
        let batches = stream::unfold(Some(self), |follower| async move {
            let mut follower = follower?;
            match follower.next(Some(PATIENCE)).await {
                Ok(news) => Some((events(&news), Some(follower))),
                Err(refusal) => {
                    let is_over = matches!(refusal, Refusal::Leaving | Refusal::TooLarge { .. } | Refusal::NoNamespace);
                    let event = SseEvent::default().event("error");
                    let body = json!({ "code": refusal.code(), "message": refusal.to_string() });
                    sleep(AGAIN).await;
                    Some((vec![event.data(body.to_string())], (!is_over).then_some(follower)))
                }
            }
        });
        batches.flat_map(|batch| stream::iter(batch.into_iter().map(Ok)))
    }
}

/// The last one carries the token: whoever has not had them all begins with the first of them again.
fn events(news: &News) -> Vec<SseEvent> {
    let mut all = Vec::new();
    if news.resync {
        all.push(SseEvent::default().event("resync").data("{}"));
    }
    all.extend(news.changes.iter().map(|changed| SseEvent::default().event("change").data(told(changed).to_string())));
    all.pop().map(|last| last.id(news.next.to_string())).into_iter().for_each(|last| all.push(last));
    all
}

fn told(changed: &Changed) -> Value {
    let mut body = json!({ "key": outside(&changed.key), "version": changed.version });
    match &changed.value {
        Some(value) => {
            body["text"] = json!(std::str::from_utf8(value).ok());
            body["base64"] = json!(STANDARD.encode(&value[..]));
        }
        None => body["deleted"] = json!(true),
    }
    body
}

fn token(text: &str) -> Result<Token, Response> {
    let bad = "after is a token that an earlier answer gave as next, or an event as its id";
    Token::parse(text).ok_or_else(|| bad_request(bad))
}

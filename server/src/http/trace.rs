//! What the node tells, live: as server-sent events for people and scripts, over a WebSocket for the dashboard.
//!
//! A subscriber that cannot keep up loses events, and is told how many; the node never waits for it. While nobody
//! listens, events are not even made.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Query, State};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt, stream};
use qunlong_core::lift::EventKind;
use qunlong_core::{Event, limits};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{MissedTickBehavior, interval};

use super::{App, limited};

/// The dashboard's batches leave this often.
const BATCH: Duration = Duration::from_millis(33);
/// Events of one batch; more wait for the next.
const BATCH_EVENTS: usize = 2_000;

/// Which events a subscriber wants.
#[derive(Debug, Deserialize)]
pub(super) struct Filter {
    /// Families separated by commas: `node`, `message`, `membership`, `topology`, `kv`. All when absent.
    kinds: Option<String>,
}

pub(super) async fn events(State(app): State<App>, Query(filter): Query<Filter>) -> Response {
    let kinds: Option<BTreeSet<String>> =
        filter.kinds.map(|kinds| kinds.split(',').map(|kind| kind.trim().to_owned()).collect());
    let wanted = move |event: &Event| kinds.as_ref().is_none_or(|kinds| kinds.contains(family(&event.kind)));
    let told = subscribe(app.node.trace.subscribe()).filter_map(move |told| {
        let event = match told {
            Told::Event(event) if wanted(&event) => Some(render(&event)),
            Told::Event(_) => None,
            Told::Lost(count) => Some(SseEvent::default().event("lost").data(count.to_string())),
        };
        std::future::ready(event.map(Ok::<_, Infallible>))
    });
    Sse::new(told).keep_alive(KeepAlive::default()).into_response()
}

pub(super) async fn socket(State(app): State<App>, upgrade: WebSocketUpgrade) -> Response {
    limited(upgrade).on_upgrade(move |socket| feed(socket, app.node.trace.subscribe()))
}

enum Told {
    Event(Box<Event>),
    Lost(u64),
}

fn subscribe(events: broadcast::Receiver<Event>) -> impl Stream<Item = Told> {
    stream::unfold(events, |mut events| async move {
        match events.recv().await {
            Ok(event) => Some((Told::Event(Box::new(event)), events)),
            Err(RecvError::Lagged(count)) => Some((Told::Lost(count), events)),
            Err(RecvError::Closed) => None,
        }
    })
}

/// The family an event belongs to, for filters.
fn family(kind: &EventKind) -> &'static str {
    match kind {
        EventKind::Started | EventKind::Slept { .. } | EventKind::DiskFull { .. } => "node",
        EventKind::Sent { .. } | EventKind::Received { .. } => "message",
        EventKind::Membership(_) => "membership",
        EventKind::Topology(_) => "topology",
        EventKind::Kv(_) => "kv",
        EventKind::Registers(_) => "registers",
    }
}

fn render(event: &Event) -> SseEvent {
    let body = json!({
        "at": event.at.wall,
        "node": event.node,
        "generation": event.generation,
        "seq": event.seq,
        "cause": event.cause,
        "text": event.kind.to_string(),
        "event": event.kind,
    });
    SseEvent::default().event(family(&event.kind)).data(body.to_string())
}

/// Sends events in batches of the wire's own encoding until the page hangs up.
async fn feed(mut socket: WebSocket, mut events: broadcast::Receiver<Event>) {
    let mut tick = interval(BATCH);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => (),
            message = socket.recv() => match message {
                Some(Ok(_)) => continue,
                Some(Err(_)) | None => return,
            },
        }
        let mut batch: Vec<Event> = Vec::new();
        while batch.len() < BATCH_EVENTS {
            match events.try_recv() {
                Ok(event) => batch.push(event),
                // The gap in the events' numbers shows that some were lost; the newest are worth more than all.
                Err(broadcast::error::TryRecvError::Lagged(_)) => (),
                Err(broadcast::error::TryRecvError::Empty) => break,
                Err(broadcast::error::TryRecvError::Closed) => return,
            }
        }
        if batch.is_empty() {
            continue;
        }
        for bytes in encode(&batch) {
            if socket.send(Message::Binary(bytes.into())).await.is_err() {
                return;
            }
        }
    }
}

/// One message, or several when the batch is too large for one.
fn encode(batch: &[Event]) -> Vec<Vec<u8>> {
    let bytes = qunlong_core::wire::encode_events(batch);
    if bytes.len() <= limits::FRAME_BYTES || batch.len() == 1 {
        return vec![bytes];
    }
    let (left, right) = batch.split_at(batch.len() / 2);
    [encode(left), encode(right)].concat()
}

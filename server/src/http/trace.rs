//! What the node tells, live: as server-sent events for people and scripts, over a WebSocket for the dashboard.
//!
//! A subscriber that cannot keep up loses events, and is told how many; the node never waits for it. While nobody
//! listens, events are not even made.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::{Message, WebSocket};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt, stream};
use qunlong_core::lift::EventKind;
use qunlong_core::{Event, limits};
use serde_json::json;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{MissedTickBehavior, interval};

use super::App;
use super::error::bad_request;
use super::parameters::Parameters;
use super::upgrade::Upgrade;

/// The dashboard's batches leave this often.
const BATCH: Duration = Duration::from_millis(33);
/// Events of one batch; more wait for the next.
const BATCH_EVENTS: usize = 2_000;

/// What events are filtered by: each belongs to one of these.
const FAMILIES: [&str; 6] = ["node", "message", "membership", "topology", "kv", "registers"];

pub(super) async fn events(State(app): State<App>, parameters: Parameters) -> Result<Response, Response> {
    let [kinds] = parameters.of(["kinds"])?;
    let kinds = kinds.as_deref().map(families).transpose().map_err(|message| bad_request(&message))?;
    let wanted = move |event: &Event| kinds.as_ref().is_none_or(|kinds| kinds.contains(family(&event.kind)));
    let told = subscribe(app.node.trace.subscribe()).filter_map(move |told| {
        let event = match told {
            Told::Event(event) if wanted(&event) => Some(render(&event)),
            Told::Event(_) => None,
            Told::Lost(count) => Some(SseEvent::default().event("lost").data(count.to_string())),
        };
        std::future::ready(event.map(Ok::<_, Infallible>))
    });
    Ok(Sse::new(told).keep_alive(KeepAlive::default()).into_response())
}

/// The families that `kinds` names, separated by commas, or why it names none.
fn families(kinds: &str) -> Result<BTreeSet<&'static str>, String> {
    let one = |kind: &str| {
        let known = FAMILIES.into_iter().find(|family| *family == kind.trim());
        known.ok_or_else(|| format!("kinds are {}, separated by commas; {kind:?} is none", FAMILIES.join(", ")))
    };
    kinds.split(',').map(one).collect()
}

pub(super) async fn socket(State(app): State<App>, Upgrade(upgrade): Upgrade) -> Response {
    upgrade.on_upgrade(move |socket| feed(socket, app.node.trace.subscribe()))
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

/// The family that an event belongs to: one of [`FAMILIES`].
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The compiler sees to it that every event has a family, and this that the family can be asked for.
    #[test]
    fn every_family_is_listed() {
        let code = include_str!("trace.rs").split("fn family(").nth(1).and_then(|rest| rest.split("\n}").next());
        let told: Vec<&str> = code.expect("it is there").split('"').skip(1).step_by(2).collect();
        assert_eq!(told, FAMILIES);
    }

    #[test]
    fn kinds_that_there_are_not_are_refused() {
        assert_eq!(families("kv, membership"), Ok(BTreeSet::from(["kv", "membership"])));
        assert_eq!(families(&FAMILIES.join(",")), Ok(BTreeSet::from(FAMILIES)));
        for kinds in ["nonsense", "", "kv,", "kv membership", "KV"] {
            let refused = families(kinds).expect_err("it is none");
            assert!(FAMILIES.iter().all(|family| refused.contains(family)), "{refused}");
        }
    }
}

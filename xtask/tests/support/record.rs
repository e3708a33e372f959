//! What clients asked and were told, in the order in which it happened, judged by the simulator's own checker.
//!
//! ```text
//!   client: put_asked ── HTTP ──▶ put_answered        get_asked ── HTTP ──▶ get_answered
//!                  └────────── events, one lock, one order ──────────┘
//!                                      │ judge
//!                                      ▼
//!                 History: asked, acked, check_read_since(when the read began)
//! ```
//!
//! **Invariant**: an event is written down before its request leaves, or after its answer has come. So every operation
//! is recorded at least as wide as it was, and what the record puts one after the other happened so.
//!
//! Besides what [`History`] judges: a write that was refused each time it was asked for is never seen, and every value
//! is the one that its write put there. A value is therefore the write's own id.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use qunlong_core::sim::check::{History, Seen};
use qunlong_core::version::{Context, Dot, Sibling, VersionVector, Versions};
use qunlong_core::{Bytes, WriteId};
use serde_json::{Value, json};

use super::cluster::Answer;

/// Everything that all clients saw.
#[derive(Default)]
pub struct Record {
    events: Mutex<Vec<Event>>,
}

/// One thing that a client did or was told.
#[derive(Clone, Debug)]
pub enum Event {
    Asked { key: Bytes, write: WriteId, seen: Option<Seen>, deletes: bool },
    Acked { key: Bytes, write: WriteId, dot: Dot },
    Refused { key: Bytes, write: WriteId, code: String },
    Unknown { key: Bytes, write: WriteId },
    Read { key: Bytes, began: Time, versions: Versions },
    Unread { key: Bytes, code: String },
}

/// Events before a moment.
pub type Time = usize;

/// What became of a write.
#[derive(Clone, Debug)]
pub enum Put {
    Done {
        dot: Dot,
        context: Context,
    },
    /// It did not happen and will not.
    Refused {
        code: String,
    },
    Unknown,
}

/// What became of a read.
#[derive(Clone, Debug)]
pub enum Get {
    Done { versions: Versions, context: Context },
    Refused { code: String },
}

impl Record {
    /// A write is about to leave, for the first time or again.
    pub fn put_asked(&self, key: &Bytes, write: WriteId, seen: Option<&Seen>, deletes: bool) {
        self.events().push(Event::Asked { key: key.clone(), write, seen: seen.cloned(), deletes });
    }

    /// A write was answered, or nobody will ever know.
    pub fn put_answered(&self, key: &Bytes, write: WriteId, answer: &Put) {
        let key = key.clone();
        self.events().push(match answer.clone() {
            Put::Done { dot, .. } => Event::Acked { key, write, dot },
            Put::Refused { code } => Event::Refused { key, write, code },
            Put::Unknown => Event::Unknown { key, write },
        });
    }

    /// A read is about to leave. Returns when.
    pub fn get_asked(&self) -> Time {
        self.events().len()
    }

    /// A read that left at `began` was answered.
    pub fn get_answered(&self, key: &Bytes, began: Time, answer: &Get) {
        let key = key.clone();
        self.events().push(match answer.clone() {
            Get::Done { versions, .. } => Event::Read { key, began, versions },
            Get::Refused { code } => Event::Unread { key, code },
        });
    }

    /// All of it.
    pub fn into_events(self) -> Vec<Event> {
        self.events.into_inner().expect("no client panics while it writes")
    }

    fn events(&self) -> MutexGuard<'_, Vec<Event>> {
        self.events.lock().expect("no client panics while it writes")
    }
}

/// Reads the answer to a `PUT` or a `DELETE`.
///
/// # Panics
///
/// If it is none of those that are documented.
pub fn read_put((status, body): &Answer) -> Put {
    let body = json_of(body);
    match body["outcome"].as_str() {
        Some("done") if *status == 200 => {
            Put::Done { dot: parse(&body["dot"]), context: context(body["context"].as_str().expect("a context")) }
        }
        Some("refused") => Put::Refused { code: code(&body) },
        Some("unknown") => Put::Unknown,
        _ => panic!("a put was answered {status} {body}"),
    }
}

/// Reads the answer to a `GET` that accepts JSON.
///
/// # Panics
///
/// If it is none of those that are documented.
pub fn read_get((status, body): &Answer) -> Get {
    let body = json_of(body);
    match body["outcome"].as_str() {
        Some("done") => {
            let context = context(body["context"].as_str().expect("a context"));
            Get::Done { versions: versions(&body, &context), context }
        }
        Some("refused") => Get::Refused { code: code(&body) },
        _ => panic!("a get was answered {status} {body}"),
    }
}

fn json_of(body: &str) -> Value {
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error} in {body}"))
}

fn code(body: &Value) -> String {
    body["error"]["code"].as_str().expect("an error has a code").to_owned()
}

fn parse<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{error} in {value}"))
}

/// The versions that an answer shows, each with an empty context of its own: an answer does not tell those.
fn versions(body: &Value, context: &Context) -> Versions {
    let shown = |list: &str, value: &dyn Fn(&Value) -> Option<Bytes>| -> Vec<Sibling> {
        let of = |entry: &Value| Sibling {
            dot: parse(&entry["dot"]),
            write: parse(&entry["request_id"]),
            context: VersionVector::default(),
            value: value(entry),
        };
        body[list].as_array().expect("a list").iter().map(of).collect()
    };
    let mut siblings = shown("values", &|entry| entry["text"].as_str().map(Bytes::from));
    siblings.extend(shown("deletes", &|_| None));
    siblings.sort_by_key(|sibling| sibling.dot);
    parse(&json!({ "seen": context.seen, "siblings": siblings, "superseded": {} }))
}

/// Looks into what is opaque to every other client.
fn context(text: &str) -> Context {
    let bytes = URL_SAFE_NO_PAD.decode(text).expect("a context is base64");
    Context::from_bytes(&bytes).expect("the server gives whole ones")
}

/// What a client is to send as the header `qunlong-context`.
pub fn context_header(context: &Context) -> String {
    if context.seen.is_empty() {
        return "none".to_owned();
    }
    URL_SAFE_NO_PAD.encode(context.to_bytes())
}

/// Judges all reads.
///
/// # Errors
///
/// The first violation, and what had happened to its key shortly before.
pub fn judge(events: &[Event]) -> Result<(), String> {
    // Nothing is collected within a minute, and a record is shorter.
    let mut history = History::new(false);
    let never = never_happened(events);
    let mut clock = Vec::with_capacity(events.len());
    for (at, event) in events.iter().enumerate() {
        clock.push(history.now());
        match event {
            Event::Asked { key, write, seen, deletes } => history.asked(key, *write, seen.clone(), *deletes),
            Event::Acked { key, write, dot } => history.acked(key, *write, *dot),
            Event::Read { key, began, versions } => {
                let since = clock.get(*began).copied().unwrap_or_else(|| history.now());
                let checked = history.check_read_since(key, versions, since).map_err(|violation| violation.to_string());
                let checked = checked.and_then(|()| check_values(versions, &never));
                checked.map_err(|what| format!("{what}\n{}", tell(events, at, key)))?;
            }
            Event::Refused { .. } | Event::Unknown { .. } | Event::Unread { .. } => (),
        }
    }
    Ok(())
}

/// Writes that were refused as often as they were asked for.
fn never_happened(events: &[Event]) -> BTreeSet<WriteId> {
    let mut open: BTreeMap<WriteId, usize> = BTreeMap::new();
    for event in events {
        match event {
            Event::Asked { write, .. } => *open.entry(*write).or_default() += 1,
            Event::Refused { write, .. } => *open.entry(*write).or_default() -= 1,
            Event::Acked { .. } | Event::Unknown { .. } | Event::Read { .. } | Event::Unread { .. } => (),
        }
    }
    open.into_iter().filter(|(_, open)| *open == 0).map(|(write, _)| write).collect()
}

fn check_values(versions: &Versions, never: &BTreeSet<WriteId>) -> Result<(), String> {
    for Sibling { write, value, .. } in versions.siblings() {
        if never.contains(write) {
            return Err(format!("write {write} was refused and is there"));
        }
        if value.as_ref().is_some_and(|value| **value != *write.to_string().as_bytes()) {
            return Err(format!("write {write} has another value: {value:?}"));
        }
    }
    Ok(())
}

/// The last events of a key, up to the one at `end`.
fn tell(events: &[Event], end: usize, key: &Bytes) -> String {
    const TOLD: usize = 60;
    let of_key = |event: &&Event| match event {
        Event::Asked { key: of, .. }
        | Event::Acked { key: of, .. }
        | Event::Refused { key: of, .. }
        | Event::Unknown { key: of, .. }
        | Event::Read { key: of, .. }
        | Event::Unread { key: of, .. } => of == key,
    };
    let told = events[..=end].iter().enumerate().filter(|(_, event)| of_key(event));
    let mut lines: Vec<String> = told.map(|(at, event)| format!("{at}: {event:?}")).collect();
    lines.drain(..lines.len().saturating_sub(TOLD));
    lines.join("\n")
}

/// How many operations ended how.
#[derive(Clone, Debug, Default)]
pub struct Outcomes {
    pub acked: usize,
    pub read: usize,
    pub siblings: usize,
    pub unknown: usize,
    /// By code.
    pub failed: BTreeMap<String, usize>,
}

impl Outcomes {
    pub fn of(events: &[Event]) -> Self {
        let mut outcomes = Self::default();
        for event in events {
            match event {
                Event::Asked { .. } => (),
                Event::Acked { .. } => outcomes.acked += 1,
                Event::Unknown { .. } => outcomes.unknown += 1,
                Event::Refused { code, .. } | Event::Unread { code, .. } => {
                    *outcomes.failed.entry(code.clone()).or_default() += 1;
                }
                Event::Read { versions, .. } => {
                    outcomes.read += 1;
                    outcomes.siblings += usize::from(versions.siblings().len() > 1);
                }
            }
        }
        outcomes
    }
}

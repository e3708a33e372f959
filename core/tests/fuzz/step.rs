//! One node, and whatever its host, its peers and its clients may tell it.
//!
//! ```text
//!   input    which state to start from (1)  Act*        what does not decode ends the list
//! ```
//!
//! A host keeps its part of the contract: what it says is durable was handed to it, and a message's sender is who it
//! says. Everything else is as wild as the bytes. The node's part: it does not panic; what it sends fits a frame and
//! means the same when it is read; every request is answered once at most; nothing leaves before the boot is durable;
//! and it holds no more than it may.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use qunlong_core::kv::{self, WriteContext};
use qunlong_core::lift::Payload;
use qunlong_core::quorum::Level;
use qunlong_core::version::Context;
use qunlong_core::wire::{self, Envelope};
use qunlong_core::{
    Bytes, Duration, Epoch, Generation, Input, Instant, Node, NodeId, Now, Op, Output, PersistId, Record, RequestId,
    WallTime, WriteId, limits,
};
use serde::{Deserialize, Serialize};

#[path = "world.rs"]
pub(crate) mod world;
use world::{PLACES, Spot, TAB, World};

/// One thing that a node may be told, or that happens around it. A list of these is an input.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant, reason = "most acts are messages")]
pub(crate) enum Act {
    /// Both clocks go on.
    Wait { micros: u32 },
    /// The clocks show something else.
    Clock(Now),
    /// A message arrives.
    Message { from: u8, generation: Generation, seq: u64, epoch: Epoch, payload: Payload },
    /// A client asks.
    Request(Op),
    /// All batches but so many of the last are durable.
    Durable { but: u8 },
    /// A link to a peer.
    Link { peer: u8, up: bool },
    /// A redial was refused.
    Refused { peer: u8 },
    /// The disk.
    DiskFull(bool),
    /// Nothing but the time.
    Tick,
    /// The process ends and starts again with what was durable.
    Restart,
}

/// Who may speak: all of the cluster, the node itself included, a stranger, and nobody of this protocol.
pub(crate) const PEERS: [NodeId; 6] =
    [PLACES[0], PLACES[1], PLACES[2], PLACES[TAB], NodeId::small(9), NodeId([0xab; 16])];
/// Acts of one input, at most.
const ACTS: usize = 200;
/// No clock gets there. A timer cannot be set behind the end of time, and would fire without end.
const END_OF_TIME: u64 = 1 << 62;

/// Returns whether there was anything to do.
pub(crate) fn check(bytes: &[u8]) -> bool {
    let Some((&start, mut rest)) = bytes.split_first() else { return false };
    let mut host = Host::new(start);
    let mut acts = 0;
    while acts < ACTS
        && let Ok((act, after)) = postcard::take_from_bytes::<Act>(rest)
    {
        host.act(act);
        (rest, acts) = (after, acts + 1);
    }
    acts > 0
}

/// A state to start from.
#[derive(Clone, Copy)]
pub(crate) struct Start {
    /// What has happened before.
    pub(crate) prepare: fn(&mut World),
    /// Whose state it is.
    pub(crate) place: usize,
}

/// The states to start from.
pub(crate) const STARTS: [Start; 4] = [
    // Nothing has happened yet; n1 is to make the first epoch.
    Start { prepare: |_| (), place: 0 },
    // A member that owns.
    Start { prepare: formed, place: 0 },
    // A member that owns nothing.
    Start { prepare: formed, place: TAB },
    // An owner that has just come back and has heard of nobody.
    Start { prepare: back, place: 0 },
];

fn back(world: &mut World) {
    formed(world);
    world.spots[0].restart();
}

/// A cluster with a plain key, one with siblings, and one that was deleted.
fn formed(world: &mut World) {
    world.form();
    world.ask(0, put(1, "plain", Some("1"), WriteContext::Current));
    world.ask(1, put(2, "both", Some("2"), sibling()));
    world.ask(2, put(3, "both", Some("3"), sibling()));
    world.ask(0, put(4, "gone", Some("4"), WriteContext::Current));
    world.ask(0, put(5, "gone", None, WriteContext::Current));
    world.pass(Duration::millis(100));
}

/// Supersedes nothing.
pub(crate) fn sibling() -> WriteContext {
    WriteContext::Seen(Context::default())
}

/// A write with the name `n`.
pub(crate) fn put(n: u8, key: &str, value: Option<&str>, context: WriteContext) -> kv::Op {
    let (key, value) = (Bytes::from(key), value.map(Bytes::from));
    kv::Op::Put { key, value, context, write: Some(WriteId([n; 16])), stored: Level::Majority, within: None }
}

impl Spot {
    fn restart(&mut self) {
        self.node = Node::restore(self.config.clone(), 11, self.records.clone()).expect("sound settings");
        self.node.set_level(qunlong_core::trace::Level::Messages);
    }
}

/// What stands between a node and the world.
struct Host {
    spot: Spot,
    now: Now,
    /// Handed out and not yet durable, oldest first.
    batches: Vec<(PersistId, Vec<Record>)>,
    newest: PersistId,
    booted: bool,
    requests: u64,
    open: BTreeSet<RequestId>,
}

impl Host {
    fn new(start: u8) -> Self {
        static READY: OnceLock<Vec<(Spot, Now)>> = OnceLock::new();
        let ready = READY.get_or_init(|| {
            let ready = STARTS.iter().map(|start| {
                let mut world = World::new();
                (start.prepare)(&mut world);
                (world.spots.swap_remove(start.place), world.now)
            });
            ready.collect()
        });
        let (spot, now) = ready[usize::from(start) % ready.len()].clone();
        let booted = spot.records.contains(&Record::Boot(spot.node.generation()));
        let newest = PersistId::default();
        Self { spot, now, batches: vec![], newest, booted, requests: 0, open: BTreeSet::new() }
    }

    fn act(&mut self, act: Act) {
        let peer = |n: u8| PEERS[usize::from(n) % PEERS.len()];
        match act {
            Act::Wait { micros } => {
                let Now { mono, wall } = self.now;
                self.now = Now {
                    mono: Instant((mono.0 + u64::from(micros)).min(END_OF_TIME)),
                    wall: WallTime(wall.0.saturating_add(u64::from(micros))),
                };
            }
            Act::Clock(now) => self.now = Now { mono: Instant(now.mono.0.min(END_OF_TIME)), wall: now.wall },
            Act::Message { from, generation, seq, epoch, payload } => {
                self.input(Input::Message(Envelope { from: peer(from), generation, seq, epoch, payload }));
            }
            Act::Request(op) => {
                self.requests += 1;
                let id = RequestId(self.requests);
                self.open.insert(id);
                self.input(Input::Request { id, op });
            }
            Act::Durable { but } => self.durable(but),
            Act::Link { peer: n, up } => self.input(Input::Link { peer: peer(n), up }),
            Act::Refused { peer: n } => self.input(Input::Refused { peer: peer(n) }),
            Act::DiskFull(full) => self.input(Input::DiskFull(full)),
            Act::Tick => self.input(Input::Tick),
            Act::Restart => {
                self.batches.clear();
                self.open.clear();
                let before = self.spot.node.generation();
                self.spot.restart();
                assert!(!self.booted || self.spot.node.generation() > before, "no two boots share a number");
                (self.newest, self.booted) = (PersistId::default(), false);
            }
        }
    }

    fn durable(&mut self, but: u8) {
        let count = self.batches.len().saturating_sub(usize::from(but));
        let done: Vec<_> = self.batches.drain(..count).collect();
        let Some(&(id, _)) = done.last() else { return };
        self.spot.records.extend(done.into_iter().flat_map(|(_, records)| records));
        self.booted = true;
        self.input(Input::Persisted(id));
    }

    fn input(&mut self, input: Input) {
        self.spot.node.handle(self.now, input);
        while let Some(output) = self.spot.node.poll() {
            self.output(output);
        }
        let node = &self.spot.node;
        let is_later = |deadline: Instant| deadline > self.now.mono;
        assert!(node.deadline().is_none_or(is_later), "what was due has been done");
        let load = node.holding();
        assert!(load.held <= 2 * limits::HELD && load.operations <= limits::PENDING_OPERATIONS);
        assert!(load.members <= limits::MEMBERS && load.rumours <= load.members + 1);
        assert!(load.timers <= 2 * load.operations + 3 * load.members + 16);
    }

    fn output(&mut self, output: Output) {
        match output {
            Output::Persist { id, records } => {
                assert!(id > self.newest && !records.is_empty(), "batches are counted, and none is empty");
                self.newest = id;
                self.batches.push((id, records));
            }
            Output::Send { to, message } => {
                let node = &self.spot.node;
                assert!(self.booted, "nothing leaves before the boot is durable");
                assert!(!to.is_empty() && !to.contains(&node.id()), "a message goes to others");
                assert_eq!((message.from, message.generation), (node.id(), node.generation()));
                let body = wire::encode_message(&message).expect("what a node sends fits a frame");
                assert_eq!(wire::decode_message(message.from, &body), Ok(message), "what is sent is what is heard");
            }
            Output::Reply { id, .. } => assert!(self.open.remove(&id), "a request is answered once"),
            Output::Trace(event) => {
                let events = [event];
                assert_eq!(wire::decode_events(&wire::encode_events(&events)).as_deref(), Ok(&events[..]));
            }
        }
    }
}

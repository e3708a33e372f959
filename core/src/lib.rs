//! Qunlong's core: the protocols of a leaderless cluster as one deterministic state machine.
//!
//! A [`Node`] takes [`Input`]s with their times and yields [`Output`]s. It owns no socket, disk, clock, thread or
//! source of randomness, so the same code runs in a native server, in a browser tab and in a simulator:
//!
//! ```text
//!   host: wait → node.handle(now, input) for every input that is ready → node.poll() until None → flush
//! ```
//!
//! **Determinism.** The same settings, seed and inputs give the same outputs and state hash, natively and in wasm32:
//! ordered maps, integers, an own generator, hashes that do not depend on the target.
//!
//! **Panics.** Nothing a peer, a client or a disk says makes the core panic. Assertions state invariants, in release
//! builds too; one that fails is a bug here, or in a host that acknowledges a write it never got.
//!
//! **Durability.** Whatever depends on a record leaves only after the host has made that record durable; see
//! [`outbox`]. Protocols cannot get this wrong by forgetting it, only by asking for the opposite.
//!
//! Read [`protocol`] for what a protocol is, [`membership`], [`topology`] and [`kv`] for the ones there are, and
//! [`sim`] for how they are tried out.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod abd;
pub mod bytes;
pub mod cell;
pub mod cluster;
pub mod config;
pub mod hash;
pub mod id;
pub mod journal;
pub mod key;
pub mod kv;
pub mod lease;
pub mod lift;
pub mod limits;
pub mod member;
pub mod membership;
pub mod mutant;
pub mod namespace;
pub mod node;
pub mod outbox;
pub mod paxos;
pub mod placement;
pub mod protocol;
pub mod quorum;
pub mod recording;
pub mod refusal;
pub mod registers;
pub mod rng;
pub mod roster;
#[cfg(feature = "sim")]
pub mod sim;
pub mod time;
pub mod timers;
pub mod topology;
pub mod trace;
pub mod version;
pub mod view;
pub mod wire;

pub use bytes::Bytes;
pub use id::{ClusterId, Epoch, Generation, Name, NodeId, OpId, RequestId, Round, Storage, WriteId};
pub use lift::{Event, EventKind, Op, Outcome, Record};
pub use node::{Input, Node};
pub use outbox::{Output, PersistId};
pub use refusal::Refusal;
pub use time::{Duration, Instant, Now, WallTime};

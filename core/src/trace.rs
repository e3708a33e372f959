//! What a node tells about itself: stamped events with their causes.
//!
//! The trace is the core's only window. The dashboard draws it, golden scenarios pin it, checkers read it. An
//! event's cause is the input that was being handled, so that arrows can be drawn and a story told.

use serde::{Deserialize, Serialize};

use crate::id::{Generation, NodeId, RequestId};
use crate::time::Now;

/// How much is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Level {
    /// Nothing; events are not even built.
    #[default]
    Off,
    /// What protocols decide.
    Decisions,
    /// And every message that leaves or arrives.
    Messages,
}

/// Names one message: the sender's boot and its count of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MessageId {
    /// The sender.
    pub node: NodeId,
    /// Its boot.
    pub generation: Generation,
    /// Counts the boot's messages.
    pub seq: u64,
}

/// The input that led to an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Cause {
    /// The node started.
    Start,
    /// A message arrived.
    Message(MessageId),
    /// A client of this node asked.
    Request(RequestId),
    /// Records became durable.
    Durable,
    /// A timer fired.
    Timer,
    /// A link opened or closed.
    Link,
}

/// An event with where, when and why.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Traced<K> {
    /// When, on both of the node's clocks.
    pub at: Now,
    /// Where.
    pub node: NodeId,
    /// In which boot.
    pub generation: Generation,
    /// Counts the boot's events: a gap means that events were dropped on the way.
    pub seq: u64,
    /// Why.
    pub cause: Cause,
    /// What.
    pub kind: K,
}

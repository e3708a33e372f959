//! What page and worker say to each other: batches of bytes, so that one message costs one copy.

use std::sync::Arc;

use qunlong_core::cluster::ClusterConfig;
use qunlong_core::member::{Durability, Member};
use qunlong_core::{Event, Generation, NodeId, Op, Outcome, Refusal};
use serde::{Deserialize, Serialize};

/// From the page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToWorker {
    /// The first message: how to join.
    Join {
        /// The identity that this tab had before a reload, 32 digits.
        hint: Option<String>,
        /// What people shall call the node; made from its id if `None`.
        name: Option<String>,
        /// `host:port` of the server that the page came from.
        server: String,
    },
    /// A request to this tab's own node.
    Ask {
        /// Returned with the answer.
        id: u64,
        /// What.
        op: Op,
    },
    /// Whether anybody looks: events are only made and sent while somebody does.
    Watch(bool),
    /// The page is hidden or about to be frozen, or is back in front.
    Drowsy(bool),
    /// The page is going away.
    Leave,
}

/// From the worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FromWorker {
    /// The worker listens; earlier messages would have been lost.
    Ready,
    /// The node runs under this identity.
    Started(Started),
    /// The node could not start: a code and what happened.
    Failed {
        /// Stable.
        code: String,
        /// For people.
        message: String,
    },
    /// The node's cluster is gone: its identity was forgotten, and a new worker will be a new node.
    Forgotten {
        /// What the server said.
        reason: String,
    },
    /// How things are, whenever they have changed.
    Status(Box<Status>),
    /// An answer.
    Answer {
        /// As asked.
        id: u64,
        /// The answer.
        result: Result<Outcome, Refusal>,
    },
    /// What the node told since the last batch.
    Events(Vec<Event>),
}

/// What a node is from its start on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Started {
    /// Its id.
    pub id: NodeId,
    /// Its boot.
    pub generation: Generation,
    /// Whether it keeps what it acknowledges.
    pub durability: Durability,
    /// Why it is volatile, or why it is a new node, if it is.
    pub reason: Option<String>,
    /// Whether the browser promised not to evict its storage.
    pub persisted: bool,
}

/// A node's state, for the screens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// As gossip has them.
    pub members: Vec<Arc<Member>>,
    /// The chosen configuration, once known.
    pub config: Option<ClusterConfig>,
    /// The tab's own links.
    pub links: Vec<LinkStatus>,
    /// Bytes of its journal.
    pub journal_bytes: u64,
    /// Syncs so far.
    pub syncs: u64,
    /// How long the last sync took, in µs.
    pub last_sync_us: u64,
    /// How late the worker's last timer was, in ms.
    pub lag_ms: u64,
    /// From the worker's start to its first message from a peer, in ms; 0 before.
    pub first_gossip_ms: u64,
    /// Inputs handled.
    pub inputs: u64,
}

/// One of a tab's links.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// `host:port`.
    pub address: String,
    /// The proven peer, once linked.
    pub peer: Option<NodeId>,
    /// Why there is no link, if there is none.
    pub trouble: Option<String>,
}

/// A message's bytes.
#[must_use]
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    postcard::to_allocvec(message).expect("plain data encodes into a growing buffer")
}

/// Reads a message. `None` can only mean that page and worker are of different builds.
#[must_use]
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    postcard::from_bytes(bytes).ok()
}

/// A name that people can say, made from an id: two words and two digits.
#[must_use]
pub fn spoken_name(id: NodeId) -> String {
    const FIRST: [&str; 16] = [
        "amber", "azure", "brisk", "calm", "coral", "dusky", "golden", "ivory", "jade", "lunar", "misty", "noble",
        "rusty", "silver", "swift", "vivid",
    ];
    const SECOND: [&str; 16] = [
        "badger", "crane", "dragon", "egret", "falcon", "gecko", "heron", "ibis", "koi", "lynx", "marten", "newt",
        "otter", "panda", "tiger", "wren",
    ];
    let pick = |words: &[&'static str; 16], byte: u8| words[usize::from(byte % 16)];
    format!("{}-{}-{:02}", pick(&FIRST, id.0[0]), pick(&SECOND, id.0[1]), id.0[2] % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_read_back() {
        let message = ToWorker::Join { hint: None, name: Some("x".into()), server: "localhost:7100".into() };
        assert_eq!(decode(&encode(&message)), Some(message));
    }

    #[test]
    fn noise_is_no_message() {
        assert_eq!(decode::<FromWorker>(&[255, 255]), None);
    }
}

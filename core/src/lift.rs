//! The sums of what the protocols define: one message, timer, record, operation, outcome and event type for a node.
//!
//! A new protocol appears here, in [`crate::node`] and nowhere else.

use serde::{Deserialize, Serialize};

use crate::bytes::Bytes;
use crate::id::{Generation, NodeId};
use crate::paxos::Ballot;
use crate::placement::Partition;
use crate::time::Duration;
use crate::trace::MessageId;
use crate::{kv, membership, registers, topology};

/// What travels between nodes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each variant is a protocol's own type, documented there")]
pub enum Payload {
    Membership(membership::Msg),
    Topology(topology::Msg),
    Kv(kv::Msg),
    Registers(registers::Msg),
}

/// Names of timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each variant is a protocol's own type, documented there")]
pub enum Timer {
    Membership(membership::Timer),
    Topology(topology::Timer),
    Kv(kv::Timer),
    Registers(registers::Timer),
}

/// What is kept. A later record replaces an earlier one of the same [`Record::key`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each variant is a protocol's own type, documented there")]
pub enum Record {
    /// The node has started its so-manieth boot.
    Boot(Generation),
    Membership(membership::Record),
    Topology(topology::Record),
    Kv(kv::Record),
    Registers(registers::Record),
}

/// What a record replaces.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordKey {
    /// The boot counter.
    Boot,
    /// The chosen configuration.
    Chosen,
    /// The vote on its successor.
    Vote,
    /// The cluster that was left.
    Left,
    /// The epoch that the data is of.
    Owned,
    /// One key.
    Key(Bytes),
    /// What is kept of a partition besides its keys.
    Partition(Partition),
    /// One register.
    Register(Bytes),
    /// What was promised of it last.
    Promise(Bytes),
}

/// What a client may ask.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each variant is a protocol's own type, documented there")]
pub enum Op {
    Membership(membership::Op),
    Topology(topology::Op),
    Kv(kv::Op),
    Registers(registers::Op),
}

/// What a node answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each variant is a protocol's own type, documented there")]
pub enum Outcome {
    Membership(membership::Outcome),
    Topology(topology::Outcome),
    Kv(kv::Outcome),
    Registers(registers::Outcome),
}

/// What a node tells the trace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each variant is a protocol's own type, documented there")]
pub enum EventKind {
    /// The boot began.
    Started,
    /// A message left, after whatever it depends on had become durable.
    Sent {
        /// Its name.
        message: MessageId,
        /// To whom.
        to: alloc::vec::Vec<NodeId>,
        /// What kind.
        kind: MessageKind,
    },
    /// A message arrived.
    Received {
        /// Its name.
        message: MessageId,
        /// What kind.
        kind: MessageKind,
    },
    /// The clock jumped: this node was paused.
    Slept {
        /// For how long.
        span: Duration,
    },
    /// The disk is full, or has room again.
    DiskFull {
        /// Whether it is full now.
        full: bool,
    },
    Membership(membership::Event),
    Topology(topology::Event),
    Kv(kv::Event),
    Registers(registers::Event),
}

/// An event of a node.
pub type Event = crate::trace::Traced<EventKind>;

/// Kinds of messages, for drawings and filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each variant names a variant of a protocol's message")]
pub enum MessageKind {
    Ping,
    Ack,
    PingReq,
    Nack,
    Vanished,
    Gossip,
    Syn,
    SynAck,
    Delta,
    Ask,
    Nothing,
    Config,
    EpochPrepare,
    EpochPromise,
    EpochAccept,
    EpochAccepted,
    EpochOutbid,
    Ready,
    Learn,
    Learnt,
    Learning,
    Survey,
    Surveyed,
    Leave,
    Left,
    Change,
    Changed,
    Read,
    ReadReply,
    Mint,
    Store,
    Stored,
    Refused,
    List,
    ListReply,
    Repair,
    Collect,
    Transfer,
    Propose,
    Answer,
    Prepare,
    Promise,
    Accept,
    Accepted,
    Outbid,
    Report,
    Reported,
    Keys,
    Kept,
    Keep,
    Holding,
    Watch,
    Watching,
    Touched,
}

/// Families of messages: one colour each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Family {
    /// Failure detection and gossip.
    Membership,
    /// Epochs.
    Topology,
    /// Reads and their answers.
    Read,
    /// Writes on their way to owners.
    Write,
    /// Owners' acknowledgements.
    Acknowledge,
    /// Repair and hand-over between owners, and collection of deletes.
    Repair,
    /// Rounds of Paxos for registers.
    Consensus,
}

impl MessageKind {
    /// The family it belongs to.
    #[must_use]
    pub fn family(self) -> Family {
        match self {
            Self::Ping
            | Self::Ack
            | Self::PingReq
            | Self::Nack
            | Self::Vanished
            | Self::Gossip
            | Self::Syn
            | Self::SynAck
            | Self::Delta => Family::Membership,
            Self::Ask
            | Self::Nothing
            | Self::Config
            | Self::EpochPrepare
            | Self::EpochPromise
            | Self::EpochAccept
            | Self::EpochAccepted
            | Self::EpochOutbid
            | Self::Ready
            | Self::Learn
            | Self::Learnt
            | Self::Learning
            | Self::Survey
            | Self::Surveyed
            | Self::Leave
            | Self::Left
            | Self::Change
            | Self::Changed => Family::Topology,
            Self::Read
            | Self::ReadReply
            | Self::List
            | Self::ListReply
            | Self::Watch
            | Self::Watching
            | Self::Touched => Family::Read,
            Self::Mint | Self::Store => Family::Write,
            Self::Stored | Self::Refused => Family::Acknowledge,
            Self::Repair | Self::Collect | Self::Transfer | Self::Keys | Self::Kept => Family::Repair,
            Self::Propose
            | Self::Answer
            | Self::Prepare
            | Self::Promise
            | Self::Accept
            | Self::Accepted
            | Self::Outbid
            | Self::Keep
            | Self::Holding
            | Self::Report
            | Self::Reported => Family::Consensus,
        }
    }
}

impl Payload {
    /// What kind of message this is.
    #[must_use]
    pub fn kind(&self) -> MessageKind {
        match self {
            Self::Membership(msg) => match msg {
                membership::Msg::Ping { .. } => MessageKind::Ping,
                membership::Msg::Ack { .. } => MessageKind::Ack,
                membership::Msg::PingReq { .. } => MessageKind::PingReq,
                membership::Msg::Nack { .. } => MessageKind::Nack,
                membership::Msg::Refused { .. } => MessageKind::Vanished,
                membership::Msg::Gossip { .. } => MessageKind::Gossip,
                membership::Msg::Syn { .. } => MessageKind::Syn,
                membership::Msg::SynAck { .. } => MessageKind::SynAck,
                membership::Msg::Delta { .. } => MessageKind::Delta,
            },
            Self::Topology(msg) => match msg {
                topology::Msg::Ask => MessageKind::Ask,
                topology::Msg::Nothing { .. } => MessageKind::Nothing,
                topology::Msg::Config(_) => MessageKind::Config,
                topology::Msg::Prepare { .. } => MessageKind::EpochPrepare,
                topology::Msg::Promise { .. } => MessageKind::EpochPromise,
                topology::Msg::Accept { .. } => MessageKind::EpochAccept,
                topology::Msg::Accepted { .. } => MessageKind::EpochAccepted,
                topology::Msg::Refused { .. } => MessageKind::EpochOutbid,
                topology::Msg::Ready { .. } => MessageKind::Ready,
                topology::Msg::Learn { .. } => MessageKind::Learn,
                topology::Msg::Learnt { .. } => MessageKind::Learnt,
                topology::Msg::Learning { .. } => MessageKind::Learning,
                topology::Msg::Survey { .. } => MessageKind::Survey,
                topology::Msg::Surveyed { .. } => MessageKind::Surveyed,
                topology::Msg::Leave { .. } => MessageKind::Leave,
                topology::Msg::Left { .. } => MessageKind::Left,
                topology::Msg::Change { .. } => MessageKind::Change,
                topology::Msg::Changed { .. } => MessageKind::Changed,
            },
            Self::Registers(msg) => match msg {
                registers::Msg::Ask { .. } => MessageKind::Propose,
                registers::Msg::Answer { .. } => MessageKind::Answer,
                registers::Msg::Prepare { .. } => MessageKind::Prepare,
                registers::Msg::Promise { .. } => MessageKind::Promise,
                registers::Msg::Accept { .. } => MessageKind::Accept,
                registers::Msg::Accepted { .. } => MessageKind::Accepted,
                registers::Msg::Keep { .. } => MessageKind::Keep,
                registers::Msg::Holding { .. } => MessageKind::Holding,
                registers::Msg::Outbid { .. } => MessageKind::Outbid,
                registers::Msg::Report { .. } => MessageKind::Report,
                registers::Msg::Reported { .. } => MessageKind::Reported,
                registers::Msg::List { .. } => MessageKind::List,
                registers::Msg::Listed { .. } => MessageKind::ListReply,
                registers::Msg::Keys { .. } => MessageKind::Keys,
                registers::Msg::Kept { .. } => MessageKind::Kept,
                registers::Msg::Watch { .. } => MessageKind::Watch,
                registers::Msg::Watching { .. } => MessageKind::Watching,
                registers::Msg::Touched { .. } => MessageKind::Touched,
            },
            Self::Kv(msg) => match msg {
                kv::Msg::Read { .. } => MessageKind::Read,
                kv::Msg::ReadReply { .. } => MessageKind::ReadReply,
                kv::Msg::Mint { .. } => MessageKind::Mint,
                kv::Msg::Store { .. } => MessageKind::Store,
                kv::Msg::Stored { .. } => MessageKind::Stored,
                kv::Msg::Refused { .. } => MessageKind::Refused,
                kv::Msg::List { .. } => MessageKind::List,
                kv::Msg::ListReply { .. } => MessageKind::ListReply,
                kv::Msg::Repair(_) => MessageKind::Repair,
                kv::Msg::Collect(_) => MessageKind::Collect,
                kv::Msg::Transfer(_) => MessageKind::Transfer,
            },
        }
    }
}

impl Record {
    /// What it replaces.
    #[must_use]
    pub fn key(&self) -> RecordKey {
        match self {
            Self::Boot(_) => RecordKey::Boot,
            Self::Membership(record) => match *record {},
            Self::Topology(topology::Record::Chosen(_)) => RecordKey::Chosen,
            Self::Topology(topology::Record::Vote(_)) => RecordKey::Vote,
            Self::Topology(topology::Record::Left(_)) => RecordKey::Left,
            Self::Kv(kv::Record::Owned(_)) => RecordKey::Owned,
            Self::Kv(kv::Record::Key { key, .. } | kv::Record::Removed { key }) => RecordKey::Key(key.clone()),
            Self::Kv(kv::Record::Partition { partition, .. }) => RecordKey::Partition(*partition),
            Self::Registers(registers::Record::Register { key, .. } | registers::Record::Removed { key }) => {
                RecordKey::Register(key.clone())
            }
            Self::Registers(registers::Record::Promised { key, .. }) => RecordKey::Promise(key.clone()),
        }
    }

    /// Whether a node of this name can have written it. A journal's checksums and incarnation say so of its own; what
    /// comes from elsewhere is asked.
    #[must_use]
    pub fn is_sound(&self, me: NodeId) -> bool {
        match self {
            Self::Topology(topology::Record::Chosen(config)) => config.is_sound(),
            Self::Topology(topology::Record::Vote(vote)) => {
                vote.acceptor.accepted().is_none_or(|(_, config)| config.is_sound())
            }
            Self::Topology(topology::Record::Left(left)) => left.config.is_sound(),
            Self::Kv(kv::Record::Key { counter, key, versions }) => {
                !key.is_empty() && versions.is_sound() && versions.context().counter(me) <= *counter
            }
            Self::Registers(registers::Record::Register { key, acceptor }) => {
                let accepted = acceptor.accepted().is_none_or(|(_, cell)| cell.is_sound());
                !key.is_empty() && acceptor.is_sound() && accepted
            }
            Self::Registers(registers::Record::Promised { key, .. } | registers::Record::Removed { key }) => {
                !key.is_empty()
            }
            Self::Boot(_) | Self::Membership(_) | Self::Kv(_) => true,
        }
    }

    /// Whether it only says that there is nothing any more: compaction drops it with what it replaced.
    #[must_use]
    pub fn is_removal(&self) -> bool {
        match self {
            Self::Kv(kv::Record::Removed { .. }) | Self::Registers(registers::Record::Removed { .. }) => true,
            Self::Registers(registers::Record::Promised { ballot, .. }) => *ballot == Ballot::NONE,
            Self::Boot(_) | Self::Membership(_) | Self::Topology(_) | Self::Kv(_) | Self::Registers(_) => false,
        }
    }
}

macro_rules! lift {
    ($protocol:ident as $variant:ident) => {
        impl From<$protocol::Msg> for Payload {
            fn from(inner: $protocol::Msg) -> Self {
                Self::$variant(inner)
            }
        }
        impl From<$protocol::Timer> for Timer {
            fn from(inner: $protocol::Timer) -> Self {
                Self::$variant(inner)
            }
        }
        impl From<$protocol::Record> for Record {
            fn from(inner: $protocol::Record) -> Self {
                Self::$variant(inner)
            }
        }
        impl From<$protocol::Op> for Op {
            fn from(inner: $protocol::Op) -> Self {
                Self::$variant(inner)
            }
        }
        impl From<$protocol::Outcome> for Outcome {
            fn from(inner: $protocol::Outcome) -> Self {
                Self::$variant(inner)
            }
        }
        impl From<$protocol::Event> for EventKind {
            fn from(inner: $protocol::Event) -> Self {
                Self::$variant(inner)
            }
        }
    };
}

lift!(membership as Membership);
lift!(topology as Topology);
lift!(kv as Kv);
lift!(registers as Registers);

impl core::fmt::Display for EventKind {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Started => f.write_str("started"),
            Self::Sent { message, to, kind } => {
                write!(f, "sent {kind:?} #{} to", message.seq)?;
                to.iter().try_for_each(|to| write!(f, " {to}"))
            }
            Self::Received { message, kind } => write!(f, "received {kind:?} #{} from {}", message.seq, message.node),
            Self::Slept { span } => write!(f, "slept for {span}"),
            Self::DiskFull { full: true } => f.write_str("has no room on its disk"),
            Self::DiskFull { full: false } => f.write_str("has room on its disk again"),
            Self::Membership(event) => event.fmt(f),
            Self::Topology(event) => event.fmt(f),
            Self::Kv(event) => event.fmt(f),
            Self::Registers(event) => event.fmt(f),
        }
    }
}

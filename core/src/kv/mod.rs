//! Replicated keys with quorums: no leader, and no acknowledged write lost.
//!
//! Each key has N owners, fixed by the chosen epoch. Any node takes a request and *coordinates* it: it sends, it
//! counts, it answers. A write becomes a dot, and only an owner mints one ([`crate::version`] says why), so a
//! coordinator that owns nothing hands the write to an owner and goes on counting.
//!
//! ```text
//!   get   client ─▶ C ── Read ──▶ all N owners;  R ReadReply ─▶ C: merge, answer, repair who was behind
//!
//!   put   client ─▶ C ── Read ──▶ owners;  R ReadReply ─▶ C     (a plain put: what is there now is superseded)
//!                   C ── Mint(context, value) ──▶ one owner O: merge, counter and siblings in one record, durable
//!                                               O ── Stored ──▶ C
//!                                               O ── Store(whole merged set) ──▶ the other owners
//!                                                                the others, durable ── Stored ──▶ C
//!                   C: W owners hold one dot ─▶ done
//! ```
//!
//! With the context of an earlier read the first line falls away; an explicit empty context makes a sibling.
//!
//! **Invariants.** A reply that says *done* means that W owners hold the dot durably; acknowledgements of different
//! dots are never added together. R and W are at least majorities, so a read meets every write that was answered
//! before it began. A write that nobody's context has seen is never dropped. Every message names its epoch, owners
//! refuse another, and a coordinator whose epoch moved starts over under the same write id.
//!
//! **Outcomes**: done; refused (nothing happened and nothing will); unknown, once a write was handed out and its
//! deadline passed. Retries carry the write id, and an owner that has the write does not mint it again.
//!
//! **Rounds**: what carries data carries the collection round of its partition, and an owner refuses a lower one: it
//! may hold a value whose delete all owners have forgotten since (`collect.rs`).
//!
//! **Change of owners**: while one is under way a partition has two groups of owners, and whatever is acknowledged or read
//! needs a majority of both; the new group takes over from the old (`transfer.rs`).
//!
//! **Not here**: linearizable reads (see the registers), hints for owners that are down. What an owner missed is found
//! by reads and by comparison (`repair.rs`).
//!
//! Sources: DeCandia et al., "Dynamo", 2007; Preguiça et al., "Dotted version vectors", 2012.

mod collect;
mod coordinator;
mod learnt;
mod refusals;
mod repair;
mod replica;
mod store;
mod transfer;

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::bytes::Bytes;
use crate::id::{Epoch, NodeId, OpId, RequestId, Round, WriteId};
use crate::placement::Partition;
use crate::protocol::{Ctx, Effects, Protocol};
use crate::quorum::Level;
use crate::refusal::Refusal;
use crate::time::Duration;
use crate::version::{Context, Dot, Versions};
use collect::Collector;
use coordinator::{Coordinator, Page};
use refusals::Refusals;
use repair::Repair;
pub use store::Store;
use transfer::Transfer;

/// The state of one node's keys: what it stores as an owner, and what it coordinates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Kv {
    store: Store,
    refusals: Refusals,
    coordinator: Coordinator,
    collector: Collector,
    repair: Repair,
    transfer: Transfer,
    /// The epoch that the store is of: what it does not own there was dropped.
    owned: Epoch,
}

/// What a write supersedes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum WriteContext {
    /// Whatever a quorum read sees now: a plain put.
    Current,
    /// What an earlier read saw; empty for nothing, which makes a sibling of whatever is there.
    Seen(Context),
}

/// A write as it travels to the owner that mints its dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Write {
    /// Its name across retries.
    pub id: WriteId,
    /// The key.
    pub key: Bytes,
    /// The value, or `None` for a delete.
    pub value: Option<Bytes>,
    /// What it supersedes.
    pub context: Context,
}

/// What nodes tell each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Msg {
    /// What do you hold of this key?
    Read {
        /// The operation.
        op: OpId,
        /// The coordinator's epoch.
        epoch: Epoch,
        /// The latest round that the coordinator knows of.
        round: Round,
        /// The key.
        key: Bytes,
    },
    /// This.
    ReadReply {
        /// The operation.
        op: OpId,
        /// The owner's round.
        round: Round,
        /// What the owner holds, durably.
        versions: Versions,
    },
    /// Mint a dot for this write, store it, and send it to the other owners.
    Mint {
        /// The operation; acknowledgements go to its coordinator.
        op: OpId,
        /// The coordinator's epoch.
        epoch: Epoch,
        /// The latest round that the coordinator knows of.
        round: Round,
        /// The write.
        write: Write,
    },
    /// Merge this.
    Store {
        /// The operation; the acknowledgement goes to its coordinator.
        op: OpId,
        /// The coordinator's epoch.
        epoch: Epoch,
        /// The round that the versions are from.
        round: Round,
        /// The key.
        key: Bytes,
        /// The dot that is being stored.
        dot: Dot,
        /// The minting owner's whole merged set; or, of a write that turns out to be there already, all that was read.
        versions: Versions,
    },
    /// I hold the dot durably.
    Stored {
        /// The operation.
        op: OpId,
        /// The dot.
        dot: Dot,
        /// From the minting owner alone: what a later write may supersede without having read.
        context: Option<Context>,
    },
    /// I did not do it, and will not.
    Refused {
        /// The operation.
        op: OpId,
        /// Why.
        refusal: Refusal,
    },
    /// Which keys with this prefix do you hold?
    List {
        /// The operation.
        op: OpId,
        /// The coordinator's epoch.
        epoch: Epoch,
        /// The prefix.
        prefix: Bytes,
        /// Only keys behind this one.
        after: Option<Bytes>,
        /// At most so many.
        limit: u32,
    },
    /// These.
    ListReply {
        /// The operation.
        op: OpId,
        /// The owner's rounds, where they are not the first.
        rounds: Vec<(Partition, Round)>,
        /// Keys in order, each with what the owner holds.
        entries: Vec<(Bytes, Versions)>,
        /// If set, the owner stopped behind this key and may hold more.
        stopped: Option<Bytes>,
    },
    /// Repair between owners.
    Repair(repair::Msg),
    /// Collection of deletes.
    Collect(collect::Msg),
    /// The owners to come take over.
    Transfer(transfer::Msg),
}

impl Msg {
    /// Whether taking it in needs room on the disk. A write to be minted does too; that one is answered.
    fn brings_more(&self) -> bool {
        let repairs = matches!(self, Self::Repair(repair::Msg::Differ { .. } | repair::Msg::Push { .. }));
        let takes_over = matches!(self, Self::Transfer(transfer::Msg::Page { .. }));
        repairs || takes_over || matches!(self, Self::Store { .. } | Self::Collect(_))
    }
}

/// Timers, by the coordinator's number of the operation where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Timer {
    /// The client's deadline.
    Deadline(u64),
    /// Owners are silent: ask again, or ask another to mint.
    Retry(u64),
    /// Compare with another owner.
    Repair,
    /// Collect deletes.
    Collect,
    /// Ask again for what is to be taken over.
    Transfer,
}

/// What an owner keeps.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Record {
    /// One key with its partition's counter: together, because a dot and the count it came from must not part.
    Key {
        /// The partition's counter of own dots, after this write.
        counter: u64,
        /// The key.
        key: Bytes,
        /// Everything known of it.
        versions: Versions,
    },
    /// What is kept of a partition besides its keys.
    Partition {
        /// Of which partition.
        partition: Partition,
        /// Its counter of own dots.
        counter: u64,
        /// The round.
        round: Round,
        /// The keys that were collected, with their digests.
        collected: Vec<(Bytes, u64)>,
        /// Whether this owner has still to take over what others have acknowledged.
        lacking: bool,
    },
    /// A key was collected. Replaces the key's record.
    Removed {
        /// The key.
        key: Bytes,
    },
    /// What is held is of this epoch: what this node does not own in it, it has dropped.
    Owned(Epoch),
}

/// What a client may ask. `within` is its deadline; the node's default where it is `None`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Op {
    /// Read a key.
    Get {
        /// The key.
        key: Bytes,
        /// Owners that must answer.
        read: Level,
        /// The deadline.
        within: Option<Duration>,
    },
    /// Write or delete a key.
    Put {
        /// The key.
        key: Bytes,
        /// The value, or `None` to delete.
        value: Option<Bytes>,
        /// What it supersedes.
        context: WriteContext,
        /// Its name across retries; minted here where it is `None`.
        write: Option<WriteId>,
        /// Owners that must hold it.
        stored: Level,
        /// The deadline.
        within: Option<Duration>,
    },
    /// List keys in order.
    List {
        /// Only keys that begin with this.
        prefix: Bytes,
        /// Only keys behind this one.
        after: Option<Bytes>,
        /// At most so many; never more than [`crate::limits::LIST_KEYS`].
        limit: u32,
        /// The deadline.
        within: Option<Duration>,
    },
}

/// What it answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// The merged answer of `answered`.
    Read {
        /// What is current, and the context to write with.
        versions: Versions,
        /// Owners that were heard.
        answered: Vec<NodeId>,
    },
    /// The write is held durably by `acked`.
    Written {
        /// Its name in the cluster.
        dot: Dot,
        /// Its name for retries.
        write: WriteId,
        /// What a later write supersedes if it names this: this write, where it stands alone; only what this write
        /// itself superseded, where it has siblings that the client never saw, or where the owner that minted it was
        /// not among those heard. Read to resolve those.
        context: Context,
        /// Owners that hold it.
        acked: Vec<NodeId>,
    },
    /// A page of keys.
    Listed {
        /// Keys in order with their current versions; deleted ones are left out.
        entries: Vec<(Bytes, Versions)>,
        /// If set, there may be more: ask again with `after` set to this.
        next: Option<Bytes>,
        /// Owners that were heard.
        answered: Vec<NodeId>,
    },
}

/// Kinds of operations, for the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum OpKind {
    /// A read.
    Get,
    /// A write.
    Put,
    /// A delete.
    Delete,
    /// A listing.
    List,
}

/// What is being waited for, for the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// Owners' answers to a read.
    Reading,
    /// Owners' acknowledgements of a dot.
    Writing,
}

/// What it tells.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Event {
    /// This node began to coordinate an operation.
    Began {
        /// The operation.
        op: OpId,
        /// What kind.
        kind: OpKind,
        /// The key or prefix.
        key: Bytes,
        /// Who is asked.
        owners: Vec<NodeId>,
        /// How many must answer.
        needed: u8,
    },
    /// The write was handed to an owner.
    Handed {
        /// The operation.
        op: OpId,
        /// The owner that shall mint.
        to: NodeId,
        /// 1 for the first owner asked.
        attempt: u32,
    },
    /// This owner minted a dot.
    Minted {
        /// The operation.
        op: OpId,
        /// The key.
        key: Bytes,
        /// The dot.
        dot: Dot,
    },
    /// An answer was counted.
    Counted {
        /// The operation.
        op: OpId,
        /// Toward what.
        phase: Phase,
        /// From whom.
        from: NodeId,
        /// How many now.
        have: u8,
        /// How many are needed.
        needed: u8,
    },
    /// The client was answered.
    Finished {
        /// The operation.
        op: OpId,
        /// `None` for done, else why not.
        refusal: Option<Refusal>,
    },
    /// All owners held the same deletes, and this one has forgotten them.
    Collected {
        /// Of which partition.
        partition: Partition,
        /// The round that began with it.
        round: Round,
        /// Keys forgotten here.
        keys: u32,
    },
    /// An owner to come fetched some of what is to be its own.
    Fetched {
        /// Of which partition.
        partition: Partition,
        /// From whom.
        from: NodeId,
        /// How much.
        bytes: u64,
    },
    /// A learner has what one owner has of a partition.
    Learnt {
        /// Which.
        partition: Partition,
        /// How many it has now.
        have: u16,
        /// How many it has to learn in all.
        of: u16,
    },
    /// An owner to come has everything of a partition.
    TookOver {
        /// Which.
        partition: Partition,
        /// How many it has now.
        have: u16,
        /// How many it has to take over in all.
        of: u16,
    },
    /// A replica was behind and took in what it had missed.
    Repaired {
        /// The key.
        key: Bytes,
        /// From whom.
        from: NodeId,
    },
}

impl Kv {
    /// What this node stores as an owner.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Operations that this node coordinates now.
    pub(crate) fn operations(&self) -> usize {
        self.coordinator.pending()
    }

    /// If another epoch is in force: drops what is not owned in it, takes over what is to be, and asks anew whatever was
    /// asked in the one before.
    fn enter(&mut self, cx: &mut Ctx<'_>, fx: &mut Effects<Self>) {
        let epoch = cx.view.epoch();
        if epoch == Epoch(0) || (epoch == self.owned && epoch == self.transfer.epoch()) {
            return;
        }
        if epoch != self.owned {
            transfer::leave(&mut self.store, cx, self.owned, fx);
            self.owned = epoch;
            fx.persist(Record::Owned(epoch));
        }
        self.collector.give_up();
        self.transfer.begin(&mut self.store, cx, fx);
        self.coordinator.on_epoch(cx, fx);
    }

    /// Mints, unless this very message was refused before: what was refused stays so, however late a copy comes.
    fn mint(&mut self, cx: &Ctx<'_>, at: (OpId, Epoch, Round), write: Write, fx: &mut Effects<Self>) {
        let op = at.0;
        let minted = match self.refusals.of(op) {
            Some(refusal) => Err(refusal.clone()),
            None => self.store.on_mint(cx, at, write, fx),
        };
        if let Err(refusal) = minted {
            self.refusals.remember(op, &refusal);
            replica::refuse(op, refusal, fx);
        }
    }
}

impl Protocol for Kv {
    type Msg = Msg;
    type Timer = Timer;
    type Record = Record;
    type Op = Op;
    type Outcome = Outcome;
    type Event = Event;

    fn on_start(&mut self, cx: &mut Ctx<'_>, fx: &mut Effects<Self>) {
        self.store.start(cx.now.mono);
        self.enter(cx, fx);
        self.repair.arm(cx, fx);
        collect::arm(cx, fx);
    }

    fn on_message(&mut self, cx: &mut Ctx<'_>, from: NodeId, msg: Msg, fx: &mut Effects<Self>) {
        if cx.disk_full && msg.brings_more() {
            // As if it was lost: it is sent again.
            return;
        }
        match msg {
            Msg::Read { op, epoch, round, key } => self.store.on_read(cx, (op, epoch, round), &key, fx),
            Msg::Mint { op, epoch, round, write } => self.mint(cx, (op, epoch, round), write, fx),
            Msg::Store { op, epoch, round, key, dot, versions } => {
                self.store.on_store(cx, from, (op, epoch, round), key, (dot, &versions), fx);
            }
            Msg::List { op, epoch, prefix, after, limit } => {
                self.store.on_list(cx, (op, epoch), &prefix, after.as_ref(), limit, fx);
            }
            Msg::ReadReply { op, round, versions } => {
                self.coordinator.on_read_reply(cx, from, op, (round, versions), fx);
            }
            Msg::Stored { op, dot, context } => self.coordinator.on_stored(cx, from, op, (dot, context), fx),
            Msg::ListReply { op, rounds, entries, stopped } => {
                self.coordinator.on_list_reply(cx, from, op, Page::new(rounds, entries, stopped), fx);
            }
            Msg::Refused { op, refusal } => self.coordinator.on_refused(cx, from, op, refusal, fx),
            Msg::Repair(msg) => self.repair.on_message(&mut self.store, cx, from, msg, fx),
            Msg::Collect(msg) => self.collector.on_message(&mut self.store, cx, from, msg, fx),
            Msg::Transfer(msg) => self.transfer.on_message(&mut self.store, cx, from, msg, fx),
        }
    }

    fn on_timer(&mut self, cx: &mut Ctx<'_>, timer: Timer, fx: &mut Effects<Self>) {
        match timer {
            Timer::Deadline(seq) => self.coordinator.on_deadline(cx, seq, fx),
            Timer::Retry(seq) => self.coordinator.on_retry(cx, seq, fx),
            Timer::Repair => self.repair.on_timer(&self.store, cx, fx),
            Timer::Collect => self.collector.on_timer(&self.store, cx, fx),
            Timer::Transfer => self.transfer.on_timer(&mut self.store, cx, fx),
        }
    }

    fn on_op(&mut self, cx: &mut Ctx<'_>, id: RequestId, op: Op, fx: &mut Effects<Self>) {
        if cx.has_lost_storage() {
            // Nothing was asked of anybody: what this node would ask bears the same names as what it asked before.
            return fx.finish_now(id, Err(Refusal::StorageLost));
        }
        self.coordinator.on_op(cx, id, op, fx);
    }

    fn on_link(&mut self, cx: &mut Ctx<'_>, peer: NodeId, up: bool, fx: &mut Effects<Self>) {
        if up {
            self.repair.hurry(cx, peer, fx);
        } else {
            self.coordinator.on_unlinked(cx, peer, fx);
        }
    }

    fn on_view(&mut self, cx: &mut Ctx<'_>, fx: &mut Effects<Self>) {
        self.enter(cx, fx);
        self.transfer.learn(&mut self.store, cx, fx);
    }

    fn restore(&mut self, record: Record) {
        if let Record::Owned(epoch) = record {
            self.owned = epoch;
        }
        self.store.restore(record);
    }
}

impl core::fmt::Display for Event {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Began { op, kind, key, owners, needed } => {
                write!(f, "began {kind:?} {key:?} as {}, needs {needed} of {}", op.seq, owners.len())
            }
            Self::Handed { op, to, attempt: 1 } => write!(f, "handed {} to {to}", op.seq),
            Self::Handed { op, to, attempt } => {
                write!(f, "handed {} to {to}, attempt {attempt}", op.seq)
            }
            Self::Minted { op, key, dot } => {
                write!(f, "minted ({}, {}) of {key:?} for {} of {}", dot.node, dot.counter, op.seq, op.node)
            }
            Self::Counted { op, phase, from, have, needed } => {
                write!(f, "counts {have}/{needed} {phase:?} for {}: {from}", op.seq)
            }
            Self::Finished { op, refusal: None } => write!(f, "finished {}", op.seq),
            Self::Finished { op, refusal: Some(refusal) } => write!(f, "finished {}: {}", op.seq, refusal.code()),
            Self::Collected { partition, round, keys } => {
                write!(f, "forgot {keys} deleted keys of partition {}, round {} begins", partition, round.0)
            }
            Self::Fetched { partition, from, bytes } => {
                write!(f, "fetched {bytes} bytes of partition {partition} from {from}")
            }
            Self::Learnt { partition, have, of } => write!(f, "has learnt partition {partition}, {have} of {of}"),
            Self::TookOver { partition, have, of } => {
                write!(f, "has taken over partition {partition}, {have} of {of}")
            }
            Self::Repaired { key, from } => {
                write!(f, "was behind on {key:?}, brought up to date by {from}")
            }
        }
    }
}

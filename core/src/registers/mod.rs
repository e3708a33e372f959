//! Linearizable registers: one CASPaxos register per key, without a leader and without a log.
//!
//! Each key has N owners, fixed by the chosen epoch; each is an *acceptor* of the key, and any of them may *propose*.
//! A node that is asked by a client hands the request to the owner that everybody prefers, the first that seems alive,
//! because proposers that do not meet do not outbid each other. That is a hint and never a right: if it is silent
//! another is asked, and two at once are merely slow.
//!
//! ```text
//!   client ─▶ C ── Ask(request) ──▶ P, an owner
//!                                   P ── Prepare(ballot) ──▶ all N owners     phase 1; left out where the last round had
//!                                   P ◀── Promise(what is accepted) ── majority          this ballot promised already
//!                                   P ── Accept(ballot, new content, next ballot) ──▶ all N owners            phase 2
//!                                   P ◀── Accepted(is the next ballot promised?) ── majority: it is chosen
//!             C ◀── Answer ── P
//!
//!   read:                           P ── Report? ──▶ all N owners; a majority reports the same ballot: that is the value
//!                                   they do not agree: both phases, with the content as it is
//! ```
//!
//! What waits for the same key is decided in one round, in the order in which it came; so a key that everybody wants is
//! not slower than any other. A change is data ([`crate::cell`]) and is applied to what the promises report.
//!
//! **Invariants.** No two contents are chosen under one ballot. What was answered is chosen. An acceptor's state is
//! durable before any answer that speaks of it. A condition that failed is answered only after a round or a read that
//! proves the content it failed on. An owner takes part in no epoch but its own, and without its storage in none.
//!
//! **Exactly once.** The content carries the latest result of each session ([`crate::cell`]), so a request that comes again,
//! through whomever, finds its own. How many are kept is bounded. A request therefore says up to which version it was
//! certainly not carried out (*seen*): the client knew that version before it asked, or a proposer has looked through a
//! chosen content of that version meanwhile. If more than that is forgotten, nobody knows, and it is refused. A coordinator
//! whose only attempt was refused so knows better, and asks again with the version it was told. It numbers the requests of
//! clients that do not: as few sessions as it has requests for one register at a time.
//!
//! **Change of owners**: while it is under way every quorum is a majority of both groups, and every register is *read*
//! once (`moving.rs`), for a read in the joint epoch leaves the value with majorities of both.
//!
//! **Not here**: collection of deleted registers; a deleted one keeps its version for good.
//!
//! Sources: Rystsov, "CASPaxos", 2018, arXiv 1802.07000; Lamport, "Paxos made simple", 2001; for exactly once, Ongaro's
//! dissertation, 2014, §6.3.

mod atomic;
mod coordinator;
mod expiry;
mod feeds;
mod hints;
mod listing;
mod moving;
mod proposer;
mod recent;
mod replica;
mod store;

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::bytes::Bytes;
use crate::cell::{Cell, Change};
use crate::id::{Epoch, Name, NodeId, OpId, RequestId};
use crate::paxos::{Accepted, Acceptor, Ballot};
use crate::placement::Partition;
use crate::protocol::{Ctx, Effects, Protocol};
use crate::refusal::Refusal;
use crate::time::{Duration, WallTime};
use coordinator::Coordinator;
use expiry::Sweep;
pub use feeds::{Changed, Token};
use feeds::{Feeds, Found};
use hints::Hints;
pub use hints::{Count, Watched};
use listing::{Listings, Wanted};
use moving::{Moving, Page};
use proposer::Proposers;
pub use store::Store;

/// The state of one node's registers: what it has promised and accepted, what it proposes, what it was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Registers {
    store: Store,
    proposers: Proposers,
    coordinator: Coordinator,
    listings: Listings,
    sweep: Sweep,
    moving: Moving,
    hints: Hints,
    feeds: Feeds,
    /// The epoch that all of it is of.
    entered: Epoch,
}

/// What a client asks of a register, as it travels to the owner that proposes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Ask {
    /// What does it hold?
    Read,
    /// Change it.
    Change {
        /// The same in all attempts.
        name: Name,
        /// A version up to which it was certainly not carried out.
        seen: u64,
        /// What is wanted.
        change: Change,
    },
}

/// Who wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Asker {
    Client(RequestId),
    /// A feed of this node, by its number.
    Feed(u64),
}

/// What nodes tell each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Msg {
    /// Do this for a client of mine.
    Ask {
        /// The operation.
        op: OpId,
        /// Counts the owners that were asked.
        attempt: u32,
        /// The coordinator's epoch.
        epoch: Epoch,
        /// The key.
        key: Bytes,
        /// What is asked.
        ask: Ask,
        /// How long the client waits yet.
        within: Duration,
    },
    /// This came of it.
    Answer {
        /// The operation.
        op: OpId,
        /// Which attempt: what an earlier one was refused says nothing of a later one.
        attempt: u32,
        /// What came of it.
        result: Result<Outcome, Refusal>,
    },
    /// Promise me to take nothing below this ballot.
    Prepare {
        /// The proposer's epoch.
        epoch: Epoch,
        /// The key.
        key: Bytes,
        /// The ballot.
        ballot: Ballot,
    },
    /// I promise; this is what I have accepted.
    Promise {
        /// As asked.
        key: Bytes,
        /// As asked.
        ballot: Ballot,
        /// What was accepted last.
        accepted: Accepted<Cell>,
    },
    /// Accept this.
    Accept {
        /// The proposer's epoch.
        epoch: Epoch,
        /// The key.
        key: Bytes,
        /// The ballot.
        ballot: Ballot,
        /// What the register is to hold.
        cell: Cell,
        /// The ballot of the next attempt, to be promised with it.
        next: Ballot,
    },
    /// I have accepted it.
    Accepted {
        /// As asked.
        key: Bytes,
        /// As asked.
        ballot: Ballot,
        /// Whether the next ballot is promised too.
        promised: bool,
    },
    /// Of an atomic register: hold this, unless you hold what is newer.
    Keep {
        /// The writer's epoch.
        epoch: Epoch,
        /// The key.
        key: Bytes,
        /// The timestamp.
        ballot: Ballot,
        /// What the register is to hold.
        cell: Cell,
    },
    /// I hold that, or what is newer.
    Holding {
        /// As asked: an owner that has left since, and is back, may not hold it any more.
        epoch: Epoch,
        /// As asked.
        key: Bytes,
        /// As asked.
        ballot: Ballot,
    },
    /// I have promised more to somebody else.
    Outbid {
        /// As asked.
        key: Bytes,
        /// As asked.
        ballot: Ballot,
        /// What was promised.
        promised: Ballot,
    },
    /// What have you accepted?
    Report {
        /// The proposer's epoch.
        epoch: Epoch,
        /// The key.
        key: Bytes,
        /// Which of the proposer's rounds asks.
        round: u64,
    },
    /// This.
    Reported {
        /// As asked.
        key: Bytes,
        /// As asked.
        round: u64,
        /// What was accepted last.
        accepted: Accepted<Cell>,
    },
    /// Which registers do you keep whose keys begin with this?
    List {
        /// The listing.
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
    Listed {
        /// The listing.
        op: OpId,
        /// Keys in order, each with the ballot that was accepted last and whether a value was.
        entries: Vec<(Bytes, Ballot, bool)>,
        /// If set, there may be more behind this key.
        stopped: Option<Bytes>,
    },
    /// Which registers do you keep of this partition?
    Keys {
        /// The joint epoch.
        epoch: Epoch,
        /// The partition.
        partition: Partition,
        /// Only keys behind this one.
        after: Option<Bytes>,
    },
    /// These.
    Kept {
        /// The joint epoch.
        epoch: Epoch,
        /// As asked.
        partition: Partition,
        /// As asked.
        after: Option<Bytes>,
        /// Keys in order.
        keys: Vec<Bytes>,
        /// Whether there are no more.
        complete: bool,
    },
    /// Tell me when one of these may have changed.
    Watch {
        /// Counts the lists.
        list: u64,
        /// All that the sender watches.
        watched: Vec<Watched>,
    },
    /// I shall.
    Watching {
        /// The list that is known.
        list: u64,
        /// How often I have.
        count: Count,
    },
    /// These may have changed.
    Touched {
        /// How often I have said so, with this.
        count: Count,
        /// Registers.
        keys: Vec<Bytes>,
    },
}

impl Msg {
    /// Whether taking it in needs room on the disk.
    fn brings_more(&self) -> bool {
        matches!(self, Self::Prepare { .. } | Self::Accept { .. } | Self::Keep { .. })
    }
}

/// Timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Timer {
    /// A client's deadline, by the coordinator's number of the operation.
    Deadline(u64),
    /// The owner that was asked is silent.
    Silent(u64),
    /// A round takes long, or a proposer that was outbid tries again; by the number of the round.
    Round(u64),
    /// Registers that wait to be moved.
    Moving,
    /// Owners are silent about which registers there are.
    List(u64),
    /// See which values' time has passed.
    Expiry,
    /// Tell those who watch what was accepted.
    Hints,
    /// Ask the owners again to tell what changes.
    Feeds,
    /// Something may have been missed.
    Doubt,
    /// The deadline of a client that waits for a change.
    Watch(u64),
}

/// What an owner keeps.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Record {
    /// What was promised and accepted. With an earlier promise that is higher, that one counts.
    Register {
        /// The key.
        key: Bytes,
        /// Both.
        acceptor: Acceptor<Cell>,
    },
    /// A promise alone: what was accepted is as it was. [`Ballot::NONE`] if there is none any more.
    Promised {
        /// The key.
        key: Bytes,
        /// The ballot.
        ballot: Ballot,
    },
    /// The register is kept no longer: this node is no owner of it.
    Removed {
        /// The key.
        key: Bytes,
    },
}

/// What a client may ask. `within` is its deadline; the node's default where it is `None`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Op {
    /// Read a register.
    Get {
        /// The key.
        key: Bytes,
        /// The deadline.
        within: Option<Duration>,
    },
    /// Change a register.
    Change {
        /// The key.
        key: Bytes,
        /// What is wanted.
        change: Change,
        /// The request's name, for a client that may ask again; minted here where it is `None`.
        name: Option<Name>,
        /// A version of the register that the client knew before it first asked under this name; 0 for none.
        seen: u64,
        /// The deadline.
        within: Option<Duration>,
    },
    /// List registers that hold a value, in the order of their keys.
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
    /// Wait until registers have changed.
    Watch {
        /// Which.
        watched: Watched,
        /// Where an earlier answer ended; `None` to begin with what there is.
        after: Option<Token>,
        /// The deadline. If nothing changes until then, that is the answer.
        within: Option<Duration>,
    },
}

/// What it answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// What the register holds.
    Read {
        /// The value; `None` if it was never written or was deleted.
        value: Option<Bytes>,
        /// How many changes were made; 0 if it was never written.
        version: u64,
        /// When the value is to be removed, if it is not wanted for good.
        expires: Option<WallTime>,
    },
    /// It was changed, now or by an earlier attempt of the same request.
    Changed {
        /// The request's name.
        name: Name,
        /// The version that it made.
        version: u64,
        /// The sum, if it was an increment.
        number: Option<i64>,
    },
    /// A page of keys.
    Listed {
        /// Keys in order.
        keys: Vec<Bytes>,
        /// If set, there may be more: ask again with `after` set to this.
        next: Option<Bytes>,
    },
    /// What has changed. Of each register only the last change is told, in the order of these.
    Watched {
        /// Registers with what they hold now.
        changes: Vec<Changed>,
        /// Where to go on.
        next: Token,
        /// Whether the place to go on from was not known: this is all there is, from its beginning, and what was known
        /// before and is not in it does not exist any more.
        resync: bool,
    },
}

/// What a round of a proposer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// Reports of what is accepted.
    Reading,
    /// Promises.
    Preparing,
    /// Acceptances.
    Accepting,
}

/// What it tells.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Event {
    /// This node asked an owner to propose.
    Asked {
        /// The operation.
        op: OpId,
        /// The key.
        key: Bytes,
        /// The owner.
        to: NodeId,
        /// 1 for the first owner asked.
        attempt: u32,
    },
    /// A round began to read.
    Reading {
        /// The key.
        key: Bytes,
        /// Which round.
        round: u64,
        /// Who is asked.
        owners: Vec<NodeId>,
        /// How many must agree.
        needed: u8,
    },
    /// Phase 1 began.
    Prepared {
        /// The key.
        key: Bytes,
        /// The ballot.
        ballot: Ballot,
        /// Who is asked.
        owners: Vec<NodeId>,
        /// How many must promise.
        needed: u8,
    },
    /// Phase 2 began.
    Proposed {
        /// The key.
        key: Bytes,
        /// The ballot.
        ballot: Ballot,
        /// Who is asked.
        owners: Vec<NodeId>,
        /// The version proposed.
        version: u64,
        /// Requests that are decided by it.
        requests: u16,
        /// Whether phase 1 was left out.
        at_once: bool,
        /// How many must accept.
        needed: u8,
    },
    /// An answer was counted.
    Counted {
        /// The key.
        key: Bytes,
        /// Of which phase.
        phase: Phase,
        /// From whom.
        from: NodeId,
        /// How many now.
        have: u8,
        /// How many are needed.
        needed: u8,
    },
    /// A majority has accepted.
    Chosen {
        /// The key.
        key: Bytes,
        /// The ballot.
        ballot: Ballot,
        /// The version.
        version: u64,
    },
    /// A majority reports the same.
    Agreed {
        /// The key.
        key: Bytes,
        /// The version.
        version: u64,
    },
    /// An acceptor has promised more to somebody else.
    Outbid {
        /// The key.
        key: Bytes,
        /// The ballot that is too low.
        ballot: Ballot,
        /// Who says so.
        from: NodeId,
        /// What it has promised.
        promised: Ballot,
    },
    /// The client was answered.
    Finished {
        /// The operation.
        op: OpId,
        /// `None` for done, else why not.
        refusal: Option<Refusal>,
    },
    /// Every register of a partition is with the owners to come.
    Moved {
        /// Which.
        partition: Partition,
        /// Registers.
        keys: u32,
    },
}

impl Registers {
    /// What this node keeps as an owner.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Requests that this node coordinates now.
    pub(crate) fn requests(&self) -> usize {
        self.coordinator.pending() + self.listings.pending() + self.feeds.waiting()
    }

    /// Requests and moves that wait for its rounds.
    pub(crate) fn proposals(&self) -> usize {
        self.proposers.waiting()
    }

    /// Registers whose next ballot is promised to this node already.
    pub(crate) fn sticky(&self) -> usize {
        self.proposers.sticky()
    }

    /// If another epoch is in force: drops what is not owned in it, and begins anew whatever was under way.
    fn enter(&mut self, cx: &mut Ctx<'_>, fx: &mut Effects<Self>) {
        let epoch = cx.view.epoch();
        if epoch == self.entered {
            return;
        }
        self.entered = epoch;
        replica::leave(&mut self.store, cx, fx);
        self.proposers.on_epoch(cx, fx);
        self.moving.begin(cx, fx);
        self.coordinator.on_epoch(cx, fx);
        self.listings.on_epoch(cx, fx);
        self.sweep.begin(&self.store, fx);
        self.feeds.start_over(cx, fx);
    }

    /// What rounds have found out about registers that are to be moved or are watched.
    fn settle(&mut self, cx: &mut Ctx<'_>, fx: &mut Effects<Self>) {
        while let Some(key) = self.proposers.pop_moved() {
            self.moving.on_moved(cx, &mut self.proposers, &key, fx);
        }
        while let Some(found) = self.pop_found() {
            self.feeds.on_found(cx, found, &mut self.coordinator, &mut self.listings, fx);
        }
    }

    fn pop_found(&mut self) -> Option<Found> {
        self.coordinator.pop_found().or_else(|| self.listings.pop_found())
    }
}

impl Protocol for Registers {
    type Msg = Msg;
    type Timer = Timer;
    type Record = Record;
    type Op = Op;
    type Outcome = Outcome;
    type Event = Event;

    fn on_start(&mut self, cx: &mut Ctx<'_>, fx: &mut Effects<Self>) {
        for (_, acceptor) in self.store.iter() {
            self.proposers.hear(acceptor.promised());
        }
        self.proposers.begin(cx.generation);
        self.sweep.begin(&self.store, fx);
        self.enter(cx, fx);
    }

    fn on_message(&mut self, cx: &mut Ctx<'_>, from: NodeId, msg: Msg, fx: &mut Effects<Self>) {
        if cx.disk_full && msg.brings_more() {
            // As if it was lost: it is sent again.
            return;
        }
        match msg {
            Msg::Ask { op, attempt, epoch, key, ask, within } => {
                self.proposers.on_ask(cx, (op, attempt), (epoch, key), ask, within, fx);
            }
            Msg::Answer { op, attempt, result } => self.coordinator.on_answer(cx, (op, attempt), result, fx),
            Msg::Prepare { epoch, key, ballot } => {
                if replica::may_propose(cx, from, epoch, &key, ballot) && self.proposers.hear(ballot) {
                    self.store.on_prepare(from, key, ballot, fx);
                }
            }
            Msg::Accept { epoch, key, ballot, cell, next } => {
                let near = |proposers: &mut Proposers| proposers.hear(ballot) && proposers.hear(next);
                if replica::may_propose(cx, from, epoch, &key, ballot) && next.node == from && near(&mut self.proposers)
                {
                    self.store.on_accept(from, key.clone(), (ballot, cell), next, fx);
                    self.hints.touch(cx, &key, fx);
                    self.sweep.begin(&self.store, fx);
                }
            }
            Msg::Report { epoch, key, round } => {
                if atomic::answers(cx, epoch, &key) {
                    self.store.on_report(from, key, round, fx);
                }
            }
            Msg::Promise { key, ballot, accepted } => {
                self.proposers.on_promise(cx, from, &key, (ballot, accepted), fx);
            }
            Msg::Accepted { key, ballot, promised } => {
                self.proposers.on_accepted(cx, from, &key, (ballot, promised), fx);
            }
            Msg::Keep { epoch, key, ballot, cell } => {
                let is_atomic = atomic::is_atomic(cx, &key) && cx.check_owner(epoch, &key).is_ok();
                if is_atomic && self.proposers.hear(ballot) {
                    self.store.on_keep(from, (epoch, key.clone()), (ballot, cell), fx);
                    self.hints.touch(cx, &key, fx);
                }
            }
            Msg::Holding { epoch, key, ballot } => {
                if epoch == cx.view.epoch() {
                    self.proposers.on_kept(cx, from, &key, ballot, fx);
                }
            }
            Msg::Outbid { key, ballot, promised } => self.proposers.on_outbid(cx, from, &key, (ballot, promised), fx),
            Msg::Reported { key, round, accepted } => {
                self.proposers.on_reported(cx, from, &key, (round, accepted), fx);
            }
            Msg::List { op, epoch, prefix, after, limit } => {
                self.store.on_list(cx, (op, epoch), &Wanted { prefix, after, limit: limit.max(1) }, fx);
            }
            Msg::Listed { op, entries, stopped } => {
                self.listings.on_answer(cx, from, op, listing::Page { entries, stopped }, fx);
            }
            Msg::Keys { epoch, partition, after } => {
                moving::tell_keys(&self.store, cx, from, (epoch, partition), after, fx);
            }
            Msg::Kept { epoch, partition, after, keys, complete } => {
                let page = Page { epoch, partition, after, keys, complete };
                self.moving.on_kept(cx, &mut self.proposers, from, page, fx);
            }
            Msg::Watch { list, watched } => self.hints.on_watch(cx, from, (list, watched), fx),
            Msg::Watching { list, count } => self.feeds.on_watching(cx, from, (list, count), fx),
            Msg::Touched { count, keys } => {
                self.feeds.on_touched(cx, from, (count, keys), &mut self.coordinator, fx);
            }
        }
        self.settle(cx, fx);
    }

    fn on_timer(&mut self, cx: &mut Ctx<'_>, timer: Timer, fx: &mut Effects<Self>) {
        match timer {
            Timer::Deadline(seq) => self.coordinator.on_deadline(cx, seq, fx),
            Timer::Silent(seq) => self.coordinator.on_silence(cx, seq, fx),
            Timer::Round(round) => self.proposers.on_timer(cx, round, fx),
            Timer::Moving => self.moving.on_timer(cx, fx),
            Timer::List(seq) => self.listings.on_timer(cx, seq, fx),
            Timer::Expiry => self.sweep.on_timer(&self.store, cx, &mut self.proposers, fx),
            Timer::Hints => self.hints.on_timer(fx),
            Timer::Feeds => self.feeds.on_renewal(cx, &mut self.coordinator, &mut self.listings, fx),
            Timer::Doubt => self.feeds.on_doubt(cx, &mut self.coordinator, &mut self.listings, fx),
            Timer::Watch(seq) => self.feeds.on_deadline(seq, fx),
        }
        self.settle(cx, fx);
    }

    fn on_op(&mut self, cx: &mut Ctx<'_>, id: RequestId, op: Op, fx: &mut Effects<Self>) {
        if cx.has_lost_storage() {
            // Nothing was asked of anybody.
            return fx.finish_now(id, Err(Refusal::StorageLost));
        }
        match op {
            Op::List { prefix, after, limit, within } => {
                self.listings.on_op(cx, id, Wanted { prefix, after, limit }, within, fx);
            }
            Op::Get { key, within } => self.coordinator.on_op(cx, id, (key, Ask::Read), true, within, fx),
            Op::Change { key, change, name, seen, within } => {
                let ask = Ask::Change { name: name.unwrap_or_default(), seen, change };
                self.coordinator.on_op(cx, id, (key, ask), name.is_some(), within, fx);
            }
            Op::Watch { watched, after, within } => self.feeds.on_op(cx, id, (watched, after), within, fx),
        }
        self.settle(cx, fx);
    }

    fn on_link(&mut self, cx: &mut Ctx<'_>, peer: NodeId, up: bool, fx: &mut Effects<Self>) {
        self.coordinator.on_link(cx, peer, up, fx);
        self.feeds.on_link(cx, peer, up, fx);
        self.settle(cx, fx);
    }

    fn on_view(&mut self, cx: &mut Ctx<'_>, fx: &mut Effects<Self>) {
        self.enter(cx, fx);
        self.settle(cx, fx);
    }

    fn on_pause(&mut self, cx: &mut Ctx<'_>, _slept: Duration, fx: &mut Effects<Self>) {
        self.proposers.forget_promised();
        self.feeds.start_over(cx, fx);
    }

    fn restore(&mut self, record: Record) {
        self.store.restore(record);
    }
}

impl core::fmt::Display for Event {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Asked { op, key, to, attempt } => {
                write!(f, "asked {to} to propose for {key:?} as {}, attempt {attempt}", op.seq)
            }
            Self::Reading { key, owners, needed, .. } => {
                write!(f, "asks what is accepted of {key:?}, {needed} of {} must agree", owners.len())
            }
            Self::Prepared { key, ballot, owners, needed } => {
                write!(f, "prepares {key:?} under {ballot}, needs {needed} promises of {}", owners.len())
            }
            Self::Proposed { key, ballot, version, requests, at_once, needed, .. } => {
                let how = if *at_once { " at once" } else { "" };
                write!(
                    f,
                    "proposes version {version} of {key:?} under {ballot}{how} for {requests}, needs {needed} to accept"
                )
            }
            Self::Counted { key, phase, from, have, needed } => {
                write!(f, "counts {have}/{needed} {phase:?} for {key:?}: {from}")
            }
            Self::Chosen { key, ballot, version } => write!(f, "version {version} of {key:?} is chosen under {ballot}"),
            Self::Agreed { key, version } => write!(f, "a majority agrees on version {version} of {key:?}"),
            Self::Outbid { key, ballot, from, promised } => {
                write!(f, "{ballot} for {key:?} is too low: {from} has promised {promised}")
            }
            Self::Finished { op, refusal: None } => write!(f, "finished {}", op.seq),
            Self::Finished { op, refusal: Some(refusal) } => write!(f, "finished {}: {}", op.seq, refusal.code()),
            Self::Moved { partition, keys } => {
                write!(f, "{keys} registers of partition {partition} are with the owners to come")
            }
        }
    }
}

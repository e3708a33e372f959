//! What a protocol is: a plain struct that reads a context and writes effects.
//!
//! Protocols never see each other's state, a socket, a disk or a clock. Everything they want to happen is an
//! [`Effect`], which the node lifts into its queues. The order of effects is kept.
//!
//! **Persist before send** is a property of the queue and not of the protocols' care: [`Effects::send`] and
//! [`Effects::finish`] wait until every record written so far is durable. [`Effects::send_now`] is for what a crash
//! could not falsify, and each use says why.

use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Debug;

use crate::cluster::ClusterConfig;
use crate::config::Config;
use crate::id::{Epoch, Generation, NodeId, RequestId};
use crate::member::Member;
use crate::mutant::{Mutant, planted};
use crate::placement::Partition;
use crate::refusal::Refusal;
use crate::rng::Rng;
use crate::time::{Duration, Now};
use crate::trace::Level;
use crate::view::View;

/// One protocol of a node.
pub trait Protocol: Sized {
    /// What it sends to its peers.
    type Msg: Debug;
    /// Names of its timers.
    type Timer: Debug;
    /// What it makes durable: keyed upserts, so that the latest record of each key is the whole state.
    type Record: Debug;
    /// What clients ask of it.
    type Op: Debug;
    /// What it answers.
    type Outcome: Debug;
    /// What it tells the trace.
    type Event: Debug;

    /// The node has started; `restore` has been called for every durable record.
    fn on_start(&mut self, cx: &mut Ctx<'_>, fx: &mut Effects<Self>);
    /// A peer's message, possibly late, repeated or from a peer that is wrong.
    fn on_message(&mut self, cx: &mut Ctx<'_>, from: NodeId, msg: Self::Msg, fx: &mut Effects<Self>);
    /// A timer fired, possibly late.
    fn on_timer(&mut self, cx: &mut Ctx<'_>, timer: Self::Timer, fx: &mut Effects<Self>);
    /// A client asks; every request is finished exactly once.
    fn on_op(&mut self, cx: &mut Ctx<'_>, id: RequestId, op: Self::Op, fx: &mut Effects<Self>);
    /// A link to a peer opened or closed.
    fn on_link(&mut self, _cx: &mut Ctx<'_>, _peer: NodeId, _up: bool, _fx: &mut Effects<Self>) {}
    /// The view changed.
    fn on_view(&mut self, _cx: &mut Ctx<'_>, _fx: &mut Effects<Self>) {}
    /// This node slept: timers that are due now say nothing about others.
    fn on_pause(&mut self, _cx: &mut Ctx<'_>, _slept: Duration, _fx: &mut Effects<Self>) {}
    /// A durable record from before the restart, oldest first.
    fn restore(&mut self, record: Self::Record);
}

/// What a protocol may read.
#[derive(Debug)]
pub struct Ctx<'a> {
    /// This node.
    pub me: NodeId,
    /// This boot.
    pub generation: Generation,
    /// The time of the input being handled.
    pub now: Now,
    /// The node's settings.
    pub config: &'a Config,
    /// Who owns and who is reachable.
    pub view: &'a View,
    /// Whether the disk has no room for anything new.
    pub disk_full: bool,
    /// Jitter and ids.
    pub rng: &'a mut Rng,
}

impl Ctx<'_> {
    /// Whether the seat that this node has in the chosen configuration was given to the storage that it has. Whoever
    /// lost its storage has lost its promises and what it acknowledged, and takes no part under that name.
    #[must_use]
    pub fn is_seated(&self) -> bool {
        let seat = self.view.chosen.as_ref().and_then(|chosen| chosen.config.seat(self.me));
        let mine = self.config.profile.storage;
        seat.is_some_and(|seat| seat.incarnation == mine || planted(Mutant::AmnesiacSits))
    }

    /// Whether a message of this epoch is one that this node answers: it is in that very epoch.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn check_epoch(&self, theirs: Epoch) -> Result<(), Refusal> {
        let mine = self.view.epoch();
        match mine {
            Epoch(0) => Err(Refusal::NoEpoch),
            _ if mine != theirs => Err(Refusal::WrongEpoch { mine, theirs }),
            _ => Ok(()),
        }
    }

    /// Whether it is, and this node owns the key there, with the storage that its seat was given to.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn check_owner(&self, theirs: Epoch, key: &[u8]) -> Result<(), Refusal> {
        self.check_epoch(theirs)?;
        let owns = self.view.chosen.as_ref().is_some_and(|chosen| chosen.owners_of(key).contains(self.me));
        if owns && self.is_seated() { Ok(()) } else { Err(Refusal::NotAnOwner) }
    }

    /// Whether it has a seat that was given to another storage than the one it has.
    #[must_use]
    pub fn has_lost_storage(&self) -> bool {
        self.view.chosen.as_ref().is_some_and(|chosen| chosen.config.seats(self.me)) && !self.is_seated()
    }
}

/// When a message may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Gate {
    /// Once every record written before it is durable.
    Durable,
    /// At once.
    Open,
}

/// One thing a protocol wants to happen.
#[derive(Debug)]
pub enum Effect<P: Protocol> {
    /// Send a message.
    Send {
        /// To whom; it is encoded once for all.
        to: Vec<NodeId>,
        /// What.
        msg: P::Msg,
        /// When.
        gate: Gate,
    },
    /// Make a record durable.
    Persist(P::Record),
    /// Set or move a timer.
    Arm {
        /// From now.
        after: Duration,
        /// Which.
        timer: P::Timer,
    },
    /// Remove a timer.
    Disarm(P::Timer),
    /// Answer a client.
    Finish {
        /// Which request.
        id: RequestId,
        /// Its answer.
        result: Result<P::Outcome, Refusal>,
        /// When.
        gate: Gate,
    },
    /// Tell the trace.
    Trace(P::Event),
    /// Membership alone: this is what gossip says of a member.
    Publish(Arc<Member>),
    /// Membership alone: gossip has forgotten the member.
    Retract(NodeId),
    /// Topology alone: this configuration was chosen and its record precedes this effect.
    Adopt(ClusterConfig),
    /// Topology alone: this node has left its cluster, and is in no other.
    Leave(ClusterConfig),
    /// Topology alone: this node is to own these partitions after the settled epoch, and fetches them now.
    Learn(Epoch, BTreeSet<Partition>),
    /// Data protocols: these partitions have been taken over in this joint epoch, and their records precede this.
    TakenOver(Epoch, BTreeSet<Partition>, u32),
    /// Registers alone: all registers of these partitions are with the owners to come in this joint epoch.
    Moved(Epoch, BTreeSet<Partition>),
}

/// The effects of one step, in order.
#[derive(Debug)]
pub struct Effects<P: Protocol> {
    list: Vec<Effect<P>>,
    level: Level,
}

impl<P: Protocol> Effects<P> {
    pub(crate) fn new(level: Level) -> Self {
        Self { list: Vec::new(), level }
    }

    pub(crate) fn into_list(self) -> Vec<Effect<P>> {
        self.list
    }

    /// Sends once every record written so far is durable. Costs nothing when none is pending.
    pub fn send(&mut self, to: NodeId, msg: P::Msg) {
        self.send_all([to], msg);
    }

    /// [`Effects::send`] to several, encoded once.
    pub fn send_all(&mut self, to: impl IntoIterator<Item = NodeId>, msg: P::Msg) {
        self.list.push(Effect::Send { to: to.into_iter().collect(), msg, gate: Gate::Durable });
    }

    /// Sends at once. Only for messages that reveal nothing a crash could take back.
    pub fn send_now(&mut self, to: NodeId, msg: P::Msg) {
        self.send_all_now([to], msg);
    }

    /// [`Effects::send_now`] to several, encoded once.
    pub fn send_all_now(&mut self, to: impl IntoIterator<Item = NodeId>, msg: P::Msg) {
        self.list.push(Effect::Send { to: to.into_iter().collect(), msg, gate: Gate::Open });
    }

    /// Makes a record durable before anything that is sent after it.
    pub fn persist(&mut self, record: P::Record) {
        self.list.push(Effect::Persist(record));
    }

    /// Sets or moves a timer.
    pub fn arm(&mut self, after: Duration, timer: P::Timer) {
        self.list.push(Effect::Arm { after, timer });
    }

    /// Removes a timer.
    pub fn disarm(&mut self, timer: P::Timer) {
        self.list.push(Effect::Disarm(timer));
    }

    /// Answers a client once every record written so far is durable.
    pub fn finish(&mut self, id: RequestId, result: Result<P::Outcome, Refusal>) {
        self.list.push(Effect::Finish { id, result, gate: Gate::Durable });
    }

    /// Answers a client at once. Only with what no crash of this node could falsify.
    pub fn finish_now(&mut self, id: RequestId, result: Result<P::Outcome, Refusal>) {
        self.list.push(Effect::Finish { id, result, gate: Gate::Open });
    }

    /// Tells the trace; the closure does not run when nobody listens.
    pub fn trace(&mut self, event: impl FnOnce() -> P::Event) {
        if self.level >= Level::Decisions {
            self.list.push(Effect::Trace(event()));
        }
    }

    pub(crate) fn publish(&mut self, member: Arc<Member>) {
        self.list.push(Effect::Publish(member));
    }

    pub(crate) fn retract(&mut self, node: NodeId) {
        self.list.push(Effect::Retract(node));
    }

    pub(crate) fn leave(&mut self, config: ClusterConfig) {
        self.list.push(Effect::Leave(config));
    }

    pub(crate) fn learn(&mut self, epoch: Epoch, partitions: BTreeSet<Partition>) {
        self.list.push(Effect::Learn(epoch, partitions));
    }

    pub(crate) fn moved(&mut self, epoch: Epoch, partitions: BTreeSet<Partition>) {
        self.list.push(Effect::Moved(epoch, partitions));
    }

    pub(crate) fn taken_over(&mut self, epoch: Epoch, partitions: BTreeSet<Partition>, pages: u32) {
        self.list.push(Effect::TakenOver(epoch, partitions, pages));
    }

    pub(crate) fn adopt(&mut self, config: ClusterConfig) {
        self.list.push(Effect::Adopt(config));
    }
}

//! The asking side: hands a client's request to an owner, to another one if that is silent, and answers exactly once.
//!
//! **What may be said.** An answer of *done* may come from any attempt. That nothing was done, and will not be, may be
//! said only if every owner that was asked has said so: one that was silent may still do it. Otherwise it is *unknown*.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::atomic;
use super::feeds::Found;
use super::recent::Attempt;
use super::{Ask, Asker, Event, Msg, Outcome, Registers, Timer};
use crate::bytes::Bytes;
use crate::id::{Name, NodeId, OpId, RequestId, WriteId};
use crate::limits;
use crate::namespace::Mode;
use crate::protocol::{Ctx, Effects};
use crate::quorum::majority;
use crate::refusal::Refusal;
use crate::time::{Duration, Instant};

/// An owner answers by the client's deadline; its answer gets this much longer to arrive.
const GRACE: Duration = Duration::millis(50);
/// Owners that cannot serve a request now, because they are in another epoch or take over, are asked again after this.
const AGAIN: Duration = Duration::millis(100);

/// The operations that wait for answers, by their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Coordinator {
    pending: BTreeMap<u64, Pending>,
    seq: u64,
    /// Versions of registers that this node was told of, the newest and those before them.
    known: (BTreeMap<Bytes, u64>, BTreeMap<Bytes, u64>),
    /// Of each register, which of this node's sessions have a request under way.
    busy: BTreeMap<Bytes, BTreeSet<u16>>,
    /// What the names of this boot's sessions begin with.
    sessions: Option<[u8; 16]>,
    /// Peers whose link has closed since it was last open.
    gone: BTreeSet<NodeId>,
    /// What this node's own feeds have asked for.
    found: Vec<Found>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Pending {
    asker: Asker,
    key: Bytes,
    ask: Ask,
    deadline: Instant,
    attempts: u32,
    /// Whose turn it is among the owners.
    turn: usize,
    /// The owner that was asked last and has not answered.
    asked: Option<NodeId>,
    /// Whether another one never did: it may still do it, or have done it.
    silent: bool,
    /// The session of this node that it is of: nobody but this node can ask for it under its name.
    lane: Option<u16>,
}

impl Coordinator {
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// A client asks; one that has named its request asks again under that name.
    pub(super) fn on_op(
        &mut self,
        cx: &mut Ctx<'_>,
        id: RequestId,
        (key, mut ask): (Bytes, Ask),
        is_named: bool,
        within: Option<Duration>,
        fx: &mut Effects<Registers>,
    ) {
        let key = match self.admit(cx, key, &ask, is_named) {
            Ok(key) => key,
            // Nothing was asked of anybody.
            Err(refusal) => return fx.finish_now(id, Err(refusal)),
        };
        self.seq += 1;
        let is_named = is_named || ask == Ask::Read;
        let lane = (!is_named).then(|| self.take_lane(&key));
        if let (Some(lane), Ask::Change { name, seen, .. }) = (lane, &mut ask) {
            // A name that was never used: whatever this node knows of the register was before.
            *seen = self.known_of(&key).max(*seen);
            *name = Name { session: self.session(cx, lane), number: self.seq };
        }
        let pending = Pending::new(cx, Asker::Client(id), (key, ask, lane), within);
        self.begin(cx, pending, fx);
    }

    /// A feed of this node wants to know what a register holds; the key is called as inside.
    pub(super) fn look(&mut self, cx: &Ctx<'_>, feed: u64, key: Bytes, fx: &mut Effects<Registers>) {
        self.seq += 1;
        self.begin(cx, Pending::new(cx, Asker::Feed(feed), (key, Ask::Read, None), None), fx);
    }

    pub(super) fn pop_found(&mut self) -> Option<Found> {
        self.found.pop()
    }

    fn begin(&mut self, cx: &Ctx<'_>, pending: Pending, fx: &mut Effects<Registers>) {
        fx.arm(pending.deadline.since(cx.now.mono) + GRACE, Timer::Deadline(self.seq));
        self.pending.insert(self.seq, pending);
        self.ask_next(cx, self.seq, fx);
    }

    /// The key as it is called inside the cluster, if the request can be taken on.
    fn admit(&self, cx: &Ctx<'_>, key: Bytes, ask: &Ask, is_named: bool) -> Result<Bytes, Refusal> {
        if self.pending.len() >= limits::PENDING_OPERATIONS {
            return Err(Refusal::Overloaded);
        }
        let key = match cx.view.serving()?.config.namespaces.resolve(key, Mode::Consensus)? {
            (key, Mode::Consensus) => key,
            (key, Mode::Atomic) if atomic::can_do(ask, is_named) => key,
            (_, mode) => return Err(Refusal::WrongMode { mode }),
        };
        check_size(&key, ask)?;
        Ok(key)
    }

    /// Asks the owner whose turn it is to propose.
    fn ask_next(&mut self, cx: &Ctx<'_>, seq: u64, fx: &mut Effects<Registers>) {
        let Some(pending) = self.pending.get_mut(&seq) else { return };
        if pending.attempts > 0 && pending.asked.is_some() && atomic::is_atomic(cx, &pending.key) {
            // It is this node itself that is at it, and goes on.
            return;
        }
        // What a feed wants to know has just changed: it is asked of whoever is at it, between two rounds.
        let is_read = matches!((&pending.ask, pending.asker), (Ask::Read, Asker::Client(_)));
        let owners = preferred(cx, &pending.key, &self.gone, is_read);
        let Some(&to) = owners.get(pending.turn % owners.len().max(1)) else { return };
        pending.attempts += 1;
        let (attempt, ask) = (pending.attempts, pending.ask.clone());
        pending.silent |= pending.asked.replace(to).is_some();
        let (op, epoch, key) = (op_id(cx, seq), cx.view.epoch(), pending.key.clone());
        let within = pending.deadline.since(cx.now.mono);
        fx.trace(|| Event::Asked { op, key: key.clone(), to, attempt });
        // The client's wish, handed on.
        fx.send_now(to, Msg::Ask { op, attempt, epoch, key, ask, within });
        fx.arm(cx.config.kv.retry.times(2), Timer::Silent(seq));
    }

    pub(super) fn on_answer(
        &mut self,
        cx: &Ctx<'_>,
        (op, attempt): Attempt,
        result: Result<Outcome, Refusal>,
        fx: &mut Effects<Registers>,
    ) {
        if op.node != cx.me || op.generation != cx.generation {
            return;
        }
        let Some(pending) = self.pending.get_mut(&op.seq) else { return };
        let refusal = match result {
            Ok(outcome) => return self.finish(cx, op.seq, Ok(outcome), fx),
            Err(_) if pending.asked.is_none() || attempt != pending.attempts => return,
            Err(refusal) => refusal,
        };
        pending.asked = None;
        let (is_read, in_time) = (matches!(pending.ask, Ask::Read), cx.now.mono < pending.deadline);
        let refusal = match refusal {
            // This one has not done it and will not. Another one can, or this one later.
            Refusal::NoEpoch | Refusal::WrongEpoch { .. } | Refusal::NotAnOwner | Refusal::Overloaded => {
                pending.turn += 1;
                return fx.arm(AGAIN, Timer::Silent(op.seq));
            }
            // It had to give up, as when it is no owner any more: another one finds out.
            Refusal::TimeoutUnknown { .. } if in_time => {
                pending.silent = true;
                pending.turn += 1;
                return fx.arm(AGAIN, Timer::Silent(op.seq));
            }
            // No attempt has done it, and every copy of one will be refused as well.
            Refusal::SessionExpired { version } if pending.lane.is_some() && !pending.silent && in_time => {
                if let Ask::Change { seen, .. } = &mut pending.ask {
                    *seen = version;
                }
                return self.ask_next(cx, op.seq, fx);
            }
            Refusal::SessionExpired { .. } if pending.lane.is_none() => refusal,
            refusal if is_read || !pending.silent => refusal,
            _ => Refusal::TimeoutUnknown { acked: 0, needed: needed(cx, &pending.key) },
        };
        self.finish(cx, op.seq, Err(refusal), fx);
    }

    /// The owner that was asked says nothing: another one is asked.
    pub(super) fn on_silence(&mut self, cx: &Ctx<'_>, seq: u64, fx: &mut Effects<Registers>) {
        let Some(pending) = self.pending.get_mut(&seq).filter(|pending| cx.now.mono < pending.deadline) else { return };
        if pending.asked.is_some() {
            pending.turn += 1;
        }
        self.ask_next(cx, seq, fx);
    }

    pub(super) fn on_deadline(&mut self, cx: &Ctx<'_>, seq: u64, fx: &mut Effects<Registers>) {
        let Some(pending) = self.pending.get(&seq) else { return };
        let needed = needed(cx, &pending.key);
        let may_be_done = pending.silent || pending.asked.is_some();
        let refusal = if may_be_done && !matches!(pending.ask, Ask::Read) {
            Refusal::TimeoutUnknown { acked: 0, needed }
        } else {
            Refusal::NoQuorum { answered: 0, needed }
        };
        self.finish(cx, seq, Err(refusal), fx);
    }

    /// A link has closed: whoever was asked over it may have died, and another one is asked at once. Or it is open again.
    pub(super) fn on_link(&mut self, cx: &Ctx<'_>, peer: NodeId, up: bool, fx: &mut Effects<Registers>) {
        if up {
            self.gone.remove(&peer);
            return;
        }
        if cx.view.chosen.as_ref().is_some_and(|chosen| chosen.config.seats(peer)) {
            self.gone.insert(peer);
        }
        let asked: Vec<u64> =
            self.pending.iter().filter(|(_, pending)| pending.asked == Some(peer)).map(|(&seq, _)| seq).collect();
        for seq in asked {
            if let Some(pending) = self.pending.get_mut(&seq) {
                // It is the last in the order now.
                pending.turn = 0;
            }
            self.ask_next(cx, seq, fx);
        }
    }

    /// The lowest session of this node that has no request to the register under way.
    fn take_lane(&mut self, key: &Bytes) -> u16 {
        let busy = self.busy.entry(key.clone()).or_default();
        let lane = (0..u16::MAX).find(|lane| !busy.contains(lane)).unwrap_or(u16::MAX);
        busy.insert(lane);
        lane
    }

    fn free_lane(&mut self, key: &Bytes, lane: u16) {
        if let Some(busy) = self.busy.get_mut(key) {
            busy.remove(&lane);
            if busy.is_empty() {
                self.busy.remove(key);
            }
        }
    }

    fn session(&mut self, cx: &mut Ctx<'_>, lane: u16) -> WriteId {
        let mut session = *self.sessions.get_or_insert_with(|| cx.rng.next_bytes());
        let [high, low] = lane.to_be_bytes();
        (session[14], session[15]) = (session[14] ^ high, session[15] ^ low);
        WriteId(session)
    }

    fn known_of(&self, key: &Bytes) -> u64 {
        let (newest, before) = &self.known;
        newest.get(key).or_else(|| before.get(key)).copied().unwrap_or(0)
    }

    fn learn(&mut self, key: Bytes, version: u64) {
        let version = version.max(self.known_of(&key));
        self.known.0.insert(key, version);
        if self.known.0.len() >= limits::VERSIONS {
            self.known.1 = core::mem::take(&mut self.known.0);
        }
    }

    /// Another epoch is in force: whoever was asked may be no owner any more.
    pub(super) fn on_epoch(&mut self, cx: &Ctx<'_>, fx: &mut Effects<Registers>) {
        self.gone.retain(|&node| cx.view.chosen.as_ref().is_some_and(|chosen| chosen.config.seats(node)));
        for (&seq, pending) in &self.pending {
            let owns =
                |node| cx.view.chosen.as_ref().is_some_and(|chosen| chosen.owners_of(&pending.key).contains(node));
            if !pending.asked.is_some_and(owns) {
                fx.arm(AGAIN, Timer::Silent(seq));
            }
        }
    }

    fn finish(&mut self, cx: &Ctx<'_>, seq: u64, result: Result<Outcome, Refusal>, fx: &mut Effects<Registers>) {
        let Some(pending) = self.pending.remove(&seq) else { return };
        if let Some(lane) = pending.lane {
            self.free_lane(&pending.key, lane);
        }
        fx.disarm(Timer::Deadline(seq));
        fx.disarm(Timer::Silent(seq));
        let refusal = result.as_ref().err().cloned();
        match &result {
            Ok(Outcome::Read { version, .. } | Outcome::Changed { version, .. })
            | Err(Refusal::Conflict { version } | Refusal::SessionExpired { version }) => {
                self.learn(pending.key.clone(), *version);
            }
            Ok(Outcome::Listed { .. } | Outcome::Watched { .. }) | Err(_) => (),
        }
        match pending.asker {
            // What was chosen is durable with a majority.
            Asker::Client(id) => fx.finish_now(id, result),
            Asker::Feed(feed) => self.found.push(Found { feed, key: Some(pending.key), result }),
        }
        let op = op_id(cx, seq);
        fx.trace(|| Event::Finished { op, refusal });
    }
}

impl Pending {
    fn new(cx: &Ctx<'_>, asker: Asker, (key, ask, lane): (Bytes, Ask, Option<u16>), within: Option<Duration>) -> Self {
        let deadline = cx.now.mono + within.unwrap_or(cx.config.kv.deadline).min(limits::DEADLINE_MAX);
        Self { asker, key, ask, deadline, attempts: 0, turn: 0, asked: None, silent: false, lane }
    }
}

/// The owners in the order in which everybody asks them: those of now that seem alive and are at hand first. A read may begin anywhere, so
/// it begins here if this node is an owner.
fn preferred(cx: &Ctx<'_>, key: &[u8], gone: &BTreeSet<NodeId>, is_read: bool) -> Vec<NodeId> {
    let Some(chosen) = &cx.view.chosen else { return Vec::new() };
    if atomic::is_atomic(cx, key) {
        return [cx.me].to_vec();
    }
    let owners = chosen.owners_of(key);
    let mut all: Vec<NodeId> = owners.all().collect();
    let seems_alive = |owner: NodeId| owner == cx.me || cx.view.seems_alive(owner) && !gone.contains(&owner);
    all.sort_by_key(|&owner| {
        let elsewhere = is_read && owner != cx.me;
        (!owners.current.contains(&owner), !seems_alive(owner), cx.view.is_drowsy(owner), elsewhere)
    });
    all
}

fn check_size(key: &Bytes, ask: &Ask) -> Result<(), Refusal> {
    if key.is_empty() || key.len() > limits::KEY_BYTES {
        return Err(Refusal::TooLarge { limit: limits::KEY_BYTES as u32 });
    }
    match ask {
        Ask::Change { change, .. } if change.weight() > limits::VALUE_BYTES => {
            Err(Refusal::TooLarge { limit: limits::VALUE_BYTES as u32 })
        }
        Ask::Change { .. } | Ask::Read => Ok(()),
    }
}

fn needed(cx: &Ctx<'_>, key: &Bytes) -> u8 {
    cx.view.chosen.as_ref().map_or(0, |chosen| majority(chosen.owners_of(key).current.len() as u8))
}

fn op_id(cx: &Ctx<'_>, seq: u64) -> OpId {
    OpId { node: cx.me, generation: cx.generation, seq }
}

//! The asking side: sends an operation to the owners, counts their answers, answers the client exactly once.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::replica::check_size;
use super::{Event, Kv, Msg, Op, OpKind, Outcome, Phase, Timer, Write, WriteContext, repair};
use crate::bytes::Bytes;
use crate::id::{Epoch, NodeId, OpId, RequestId, WriteId};
use crate::limits;
use crate::placement::Partition;
use crate::protocol::{Ctx, Effects};
use crate::quorum::{Level, Tally};
use crate::refusal::Refusal;
use crate::time::Instant;
use crate::version::{Dot, VersionVector, Versions};
use crate::view::Chosen;

/// The operations that wait for answers, by their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Coordinator {
    pending: BTreeMap<u64, Pending>,
    /// Counts operations; with the boot's generation it makes [`OpId`]s unique.
    seq: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Pending {
    id: RequestId,
    /// The epoch all of whose answers are counted together.
    epoch: Epoch,
    deadline: Instant,
    /// Whether a write has left for an owner: from then on only *done* or *unknown* can be said.
    handed_out: bool,
    work: Work,
}

/// What an operation is doing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Work {
    Get(Reading),
    /// A plain put's first half.
    ReadThenPut(Reading, Put),
    Put(Writing, Put),
    List(Listing),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Reading {
    key: Bytes,
    level: Level,
    tally: Tally,
    replies: BTreeMap<NodeId, Versions>,
}

/// A write as the client asked for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Put {
    id: WriteId,
    key: Bytes,
    value: Option<Bytes>,
    context: WriteContext,
    level: Level,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Writing {
    write: Write,
    owners: Vec<NodeId>,
    needed: u8,
    /// How often an owner was asked to mint.
    attempts: u32,
    /// Owners that hold each dot: answers for different dots are never added together.
    acked: BTreeMap<Dot, Tally>,
    /// What a client that made this write may say it has seen, by the owner that minted the dot.
    seen: BTreeMap<Dot, VersionVector>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Listing {
    prefix: Bytes,
    after: Option<Bytes>,
    limit: u32,
    answered: BTreeSet<NodeId>,
    entries: BTreeMap<Bytes, Versions>,
    /// The smallest key at which an answer stopped: nothing is known for certain beyond it.
    stopped: Option<Bytes>,
}

impl Coordinator {
    pub(super) fn on_op(&mut self, cx: &mut Ctx<'_>, id: RequestId, op: Op, fx: &mut Effects<Kv>) {
        if self.pending.len() >= limits::PENDING_OPERATIONS {
            // Nothing was asked of anybody.
            return fx.finish_now(id, Err(Refusal::Overloaded));
        }
        let within = match &op {
            Op::Get { within, .. } | Op::Put { within, .. } | Op::List { within, .. } => *within,
        };
        let deadline = cx.now.mono + within.unwrap_or(cx.config.kv.deadline).min(limits::DEADLINE_MAX);
        self.seq += 1;
        let seq = self.seq;
        match Self::begin(cx, seq, op, fx) {
            Ok(work) => {
                let pending = Pending { id, epoch: cx.view.epoch(), deadline, handed_out: false, work };
                self.wait(cx, seq, pending, fx);
            }
            // Nothing was asked of anybody.
            Err(refusal) => fx.finish_now(id, Err(refusal)),
        }
    }

    /// Waits for the answers to what was just asked.
    fn wait(&mut self, cx: &Ctx<'_>, seq: u64, mut pending: Pending, fx: &mut Effects<Kv>) {
        pending.handed_out |= matches!(pending.work, Work::Put(..));
        fx.arm(pending.deadline.since(cx.now.mono), Timer::Deadline(seq));
        self.pending.insert(seq, pending);
    }

    fn begin(cx: &mut Ctx<'_>, seq: u64, op: Op, fx: &mut Effects<Kv>) -> Result<Work, Refusal> {
        let chosen = cx.view.chosen.as_ref().ok_or(Refusal::NoEpoch)?;
        Ok(match op {
            Op::Get { key, read, .. } => {
                check_size(&key, None)?;
                Work::Get(Reading::begin(cx, seq, OpKind::Get, key, read, fx)?)
            }
            Op::Put { key, value, context, write, stored, .. } => {
                check_size(&key, value.as_ref())?;
                let id = write.unwrap_or_else(|| WriteId(cx.rng.next_bytes()));
                let put = Put { id, key, value, context, level: stored };
                needed(chosen, stored)?;
                Self::begin_put(cx, seq, put, fx)?
            }
            Op::List { prefix, after, limit, .. } => {
                Work::List(Listing::begin(cx, seq, prefix, after, limit.clamp(1, limits::LIST_KEYS), fx))
            }
        })
    }

    fn begin_put(cx: &mut Ctx<'_>, seq: u64, put: Put, fx: &mut Effects<Kv>) -> Result<Work, Refusal> {
        let kind = if put.value.is_some() { OpKind::Put } else { OpKind::Delete };
        match &put.context {
            WriteContext::Current => {
                let reading = Reading::begin(cx, seq, kind, put.key.clone(), Level::Majority, fx)?;
                Ok(Work::ReadThenPut(reading, put))
            }
            WriteContext::Seen(context) => {
                let writing = Writing::new(cx, &put, context.clone())?;
                began(cx, seq, kind, &put.key, &writing.owners, writing.needed, fx);
                let mut writing = writing;
                writing.hand_over(cx, seq, fx);
                Ok(Work::Put(writing, put))
            }
        }
    }

    pub(super) fn on_read_reply(
        &mut self,
        cx: &mut Ctx<'_>,
        from: NodeId,
        op: OpId,
        versions: Versions,
        fx: &mut Effects<Kv>,
    ) {
        let Some(pending) = self.matching(cx, op) else {
            return;
        };
        let (Work::Get(reading) | Work::ReadThenPut(reading, _)) = &mut pending.work else {
            return;
        };
        if !versions.is_sound() || !reading.tally.answer(from) {
            return;
        }
        reading.replies.insert(from, versions);
        counted(op, Phase::Reading, from, &reading.tally, fx);
        if !reading.tally.reached() {
            return;
        }
        if pending.epoch != cx.view.epoch() {
            return self.start_over(cx, op.seq, fx);
        }
        let Some(pending) = self.pending.remove(&op.seq) else { return };
        let id = pending.id;
        match pending.work {
            Work::Get(reading) => {
                let versions = reading.merged();
                let answered = reading.tally.answered().iter().copied().collect();
                finish(op, id, Ok(Outcome::Read { versions: versions.clone(), answered }), fx);
                reading.repair(cx, &versions, fx);
            }
            Work::ReadThenPut(reading, put) => match Writing::new(cx, &put, reading.merged().context().clone()) {
                Ok(mut writing) => {
                    writing.hand_over(cx, op.seq, fx);
                    self.wait(cx, op.seq, Pending { work: Work::Put(writing, put), ..pending }, fx);
                }
                Err(refusal) => finish(op, id, Err(refusal), fx),
            },
            Work::Put(..) | Work::List(_) => {
                unreachable!("the work was matched as a reading above")
            }
        }
    }

    pub(super) fn on_stored(
        &mut self,
        cx: &mut Ctx<'_>,
        from: NodeId,
        op: OpId,
        (dot, context): (Dot, Option<VersionVector>),
        fx: &mut Effects<Kv>,
    ) {
        let Some(Pending { id, epoch, work: Work::Put(writing, _), .. }) = self.matching(cx, op) else {
            return;
        };
        let (id, epoch) = (*id, *epoch);
        let owners = writing.owners.iter().copied();
        if let Some(context) = context {
            writing.seen.insert(dot, context);
        }
        let tally = writing.acked.entry(dot).or_insert_with(|| Tally::new(owners, writing.needed));
        if !tally.answer(from) {
            return;
        }
        counted(op, Phase::Writing, from, tally, fx);
        if !tally.reached() {
            return;
        }
        if epoch != cx.view.epoch() {
            return self.start_over(cx, op.seq, fx);
        }
        let acked = tally.answered().iter().copied().collect();
        let write = writing.write.id;
        // Without word from the owner that minted it, the client is known to have seen what it said it saw.
        let context = writing.seen.remove(&dot).unwrap_or_else(|| writing.write.context.clone());
        self.pending.remove(&op.seq);
        finish(op, id, Ok(Outcome::Written { dot, write, context, acked }), fx);
    }

    pub(super) fn on_list_reply(
        &mut self,
        cx: &mut Ctx<'_>,
        from: NodeId,
        op: OpId,
        entries: Vec<(Bytes, Versions)>,
        stopped: Option<Bytes>,
        fx: &mut Effects<Kv>,
    ) {
        let Some(Pending { id, epoch, work: Work::List(listing), .. }) = self.matching(cx, op) else {
            return;
        };
        let (id, epoch) = (*id, *epoch);
        let Some(chosen) = &cx.view.chosen else {
            return;
        };
        if !chosen.config.storage.contains_key(&from) || !listing.answered.insert(from) {
            return;
        }
        listing.take_in(entries, stopped);
        if !listing.is_complete(chosen) {
            return;
        }
        if epoch != cx.view.epoch() {
            return self.start_over(cx, op.seq, fx);
        }
        let outcome = listing.outcome();
        self.pending.remove(&op.seq);
        finish(op, id, Ok(outcome), fx);
    }

    /// An owner refused. A read waits for the others. A write goes to the next owner if this one could not judge it,
    /// and is over if this one could and nobody else was asked.
    pub(super) fn on_refused(
        &mut self,
        cx: &mut Ctx<'_>,
        from: NodeId,
        op: OpId,
        refusal: Refusal,
        fx: &mut Effects<Kv>,
    ) {
        let Some(Pending { id, work: Work::Put(writing, _), .. }) = self.matching(cx, op) else {
            return;
        };
        if writing.minter(writing.attempts) != from {
            return;
        }
        let could_not_judge = matches!(
            refusal,
            Refusal::NoEpoch | Refusal::WrongEpoch { .. } | Refusal::NotAnOwner | Refusal::Overloaded
        );
        if could_not_judge {
            if (writing.attempts as usize) < writing.owners.len() {
                writing.hand_over(cx, op.seq, fx);
            }
        } else if writing.attempts == 1 && refusal.is_definite() && writing.acked.is_empty() {
            let id = *id;
            self.pending.remove(&op.seq);
            finish(op, id, Err(refusal), fx);
        }
    }

    /// Asks again whoever is silent: a message may have been lost with the link that carried it.
    pub(super) fn on_retry(&mut self, cx: &mut Ctx<'_>, seq: u64, fx: &mut Effects<Kv>) {
        match self.pending.get_mut(&seq).map(|pending| &mut pending.work) {
            Some(Work::Get(reading) | Work::ReadThenPut(reading, _)) => reading.ask(cx, seq, fx),
            Some(Work::Put(writing, _)) => writing.hand_over(cx, seq, fx),
            Some(Work::List(listing)) => listing.ask(cx, seq, fx),
            None => (),
        }
    }

    pub(super) fn on_deadline(&mut self, cx: &mut Ctx<'_>, seq: u64, fx: &mut Effects<Kv>) {
        let Some(pending) = self.pending.remove(&seq) else { return };
        let refusal = match &pending.work {
            Work::Get(reading) | Work::ReadThenPut(reading, _) => pending.definite(no_quorum(&reading.tally)),
            Work::Put(writing, _) => {
                let acked = writing.acked.values().map(|tally| tally.answered().len()).max().unwrap_or(0);
                Refusal::TimeoutUnknown { acked: acked as u8, needed: writing.needed }
            }
            Work::List(listing) => {
                let needed =
                    cx.view.chosen.as_ref().map_or(0, |chosen| crate::quorum::majority(chosen.config.replicas));
                Refusal::NoQuorum { answered: listing.answered.len() as u8, needed }
            }
        };
        finish(op_id(cx, seq), pending.id, Err(refusal), fx);
    }

    /// The operation a reply belongs to, if it is one of this boot's that still waits.
    fn matching(&mut self, cx: &Ctx<'_>, op: OpId) -> Option<&mut Pending> {
        if op.node != cx.me || op.generation != cx.generation {
            return None;
        }
        self.pending.get_mut(&op.seq)
    }

    /// The epoch moved while answers were collected: asks the new owners, under the same write id and deadline, and
    /// under a new number, so that no answer of the old epoch is counted in the new one.
    fn start_over(&mut self, cx: &mut Ctx<'_>, old: u64, fx: &mut Effects<Kv>) {
        let Some(pending) = self.pending.remove(&old) else { return };
        fx.disarm(Timer::Deadline(old));
        fx.disarm(Timer::Retry(old));
        self.seq += 1;
        let (seq, id, deadline, handed_out) = (self.seq, pending.id, pending.deadline, pending.handed_out);
        let again = match pending.work {
            Work::Get(reading) => Reading::begin(cx, seq, OpKind::Get, reading.key, reading.level, fx).map(Work::Get),
            Work::ReadThenPut(_, put) | Work::Put(_, put) => Self::begin_put(cx, seq, put, fx),
            Work::List(listing) => {
                Ok(Work::List(Listing::begin(cx, seq, listing.prefix, listing.after, listing.limit, fx)))
            }
        };
        match again {
            Ok(work) => self.wait(cx, seq, Pending { id, epoch: cx.view.epoch(), deadline, handed_out, work }, fx),
            Err(_) if handed_out => {
                let unknown = Refusal::TimeoutUnknown { acked: 0, needed: 0 };
                finish(op_id(cx, seq), id, Err(unknown), fx);
            }
            Err(refusal) => finish(op_id(cx, seq), id, Err(refusal), fx),
        }
    }
}

impl Pending {
    /// The refusal as it may be told: nothing is definite once a write has left.
    fn definite(&self, refusal: Refusal) -> Refusal {
        match refusal {
            Refusal::NoQuorum { needed, .. } if self.handed_out => Refusal::TimeoutUnknown { acked: 0, needed },
            refusal => refusal,
        }
    }
}

impl Reading {
    fn begin(
        cx: &Ctx<'_>,
        seq: u64,
        kind: OpKind,
        key: Bytes,
        level: Level,
        fx: &mut Effects<Kv>,
    ) -> Result<Self, Refusal> {
        let chosen = cx.view.chosen.as_ref().ok_or(Refusal::NoEpoch)?;
        let needed = needed(chosen, level)?;
        let owners = chosen.placement.owners_of(&key);
        began(cx, seq, kind, &key, owners, needed, fx);
        let tally = Tally::new(owners.iter().copied(), needed);
        let reading = Self { key, level, tally, replies: BTreeMap::new() };
        reading.ask(cx, seq, fx);
        Ok(reading)
    }

    /// Asks every owner that has not answered yet.
    fn ask(&self, cx: &Ctx<'_>, seq: u64, fx: &mut Effects<Kv>) {
        let read = Msg::Read { op: op_id(cx, seq), epoch: cx.view.epoch(), key: self.key.clone() };
        // A question; the answers wait for durability.
        fx.send_all_now(self.tally.silent(), read);
        fx.arm(cx.config.kv.retry, Timer::Retry(seq));
    }

    fn merged(&self) -> Versions {
        self.replies.values().fold(Versions::default(), |mut all, versions| {
            all.merge(versions);
            all
        })
    }

    /// Brings owners that answered with less up to date.
    fn repair(self, cx: &Ctx<'_>, merged: &Versions, fx: &mut Effects<Kv>) {
        for (owner, versions) in self.replies {
            if versions != *merged {
                repair::push_merged(cx, owner, self.key.clone(), merged.clone(), fx);
            }
        }
    }
}

impl Writing {
    fn new(cx: &Ctx<'_>, put: &Put, context: VersionVector) -> Result<Self, Refusal> {
        let chosen = cx.view.chosen.as_ref().ok_or(Refusal::NoEpoch)?;
        let mut owners = chosen.placement.owners_of(&put.key).to_vec();
        // The nearest first, those that seem dead last: a hint about where to begin, and no more.
        owners.sort_by_key(|&owner| (owner != cx.me, !cx.view.seems_alive(owner), !cx.view.links.contains(&owner)));
        let write = Write { id: put.id, key: put.key.clone(), value: put.value.clone(), context };
        Ok(Self {
            write,
            owners,
            needed: needed(chosen, put.level)?,
            attempts: 0,
            acked: BTreeMap::new(),
            seen: BTreeMap::new(),
        })
    }

    /// Asks the next owner in turn to mint. One that has the write already sends it around again.
    fn hand_over(&mut self, cx: &Ctx<'_>, seq: u64, fx: &mut Effects<Kv>) {
        self.attempts += 1;
        let (op, to, attempt) = (op_id(cx, seq), self.minter(self.attempts), self.attempts);
        // A write that is handed on is the client's; it reveals nothing of what this node holds.
        fx.send_now(to, Msg::Mint { op, epoch: cx.view.epoch(), write: self.write.clone() });
        fx.arm(cx.config.kv.retry, Timer::Retry(seq));
        fx.trace(|| Event::Handed { op, to, attempt });
    }

    fn minter(&self, attempt: u32) -> NodeId {
        self.owners[(attempt as usize - 1) % self.owners.len()]
    }
}

impl Listing {
    fn begin(cx: &Ctx<'_>, seq: u64, prefix: Bytes, after: Option<Bytes>, limit: u32, fx: &mut Effects<Kv>) -> Self {
        if let Some(chosen) = &cx.view.chosen {
            let storage: Vec<NodeId> = chosen.config.storage.keys().copied().collect();
            let needed = crate::quorum::majority(chosen.config.replicas);
            began(cx, seq, OpKind::List, &prefix, &storage, needed, fx);
        }
        let (answered, entries) = (BTreeSet::new(), BTreeMap::new());
        let listing = Self { prefix, after, limit, answered, entries, stopped: None };
        listing.ask(cx, seq, fx);
        listing
    }

    /// Asks every storage member that has not answered yet.
    fn ask(&self, cx: &Ctx<'_>, seq: u64, fx: &mut Effects<Kv>) {
        let Some(chosen) = &cx.view.chosen else {
            return;
        };
        let silent = chosen.config.storage.keys().copied().filter(|node| !self.answered.contains(node));
        let (op, epoch, limit) = (op_id(cx, seq), cx.view.epoch(), self.limit);
        let list = Msg::List { op, epoch, prefix: self.prefix.clone(), after: self.after.clone(), limit };
        // A question; the answers wait for durability.
        fx.send_all_now(silent, list);
        fx.arm(cx.config.kv.retry, Timer::Retry(seq));
    }

    fn take_in(&mut self, entries: Vec<(Bytes, Versions)>, stopped: Option<Bytes>) {
        for (key, versions) in entries {
            if versions.is_sound() && key.starts_with(&self.prefix) {
                self.entries.entry(key).or_default().merge(&versions);
            }
        }
        self.stopped = match (self.stopped.take(), stopped) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }

    /// Whether a majority of every partition's owners has answered.
    fn is_complete(&self, chosen: &Chosen) -> bool {
        let needed = usize::from(crate::quorum::majority(chosen.config.replicas));
        Partition::all().all(|partition| {
            let owners = chosen.placement.owners(partition);
            owners.iter().filter(|owner| self.answered.contains(owner)).count() >= needed
        })
    }

    fn outcome(&self) -> Outcome {
        let certain = |key: &Bytes| self.stopped.as_ref().is_none_or(|stopped| key <= stopped);
        let limit = self.limit as usize;
        let mut page: Vec<(&Bytes, &Versions)> = self.entries.iter().filter(|(key, _)| certain(key)).collect();
        let next = if page.len() > limit { Some(page[limit - 1].0.clone()) } else { self.stopped.clone() };
        page.truncate(limit);
        let entries = page
            .into_iter()
            .filter(|(_, versions)| versions.values().next().is_some())
            .map(|(key, versions)| (key.clone(), versions.clone()))
            .collect();
        Outcome::Listed { entries, next, answered: self.answered.iter().copied().collect() }
    }
}

fn needed(chosen: &Chosen, level: Level) -> Result<u8, Refusal> {
    let replicas = chosen.config.replicas;
    level.needed(replicas).ok_or(Refusal::BadLevel { replicas })
}

fn no_quorum(tally: &Tally) -> Refusal {
    Refusal::NoQuorum { answered: tally.answered().len() as u8, needed: tally.needed() }
}

fn op_id(cx: &Ctx<'_>, seq: u64) -> OpId {
    OpId { node: cx.me, generation: cx.generation, seq }
}

fn began(cx: &Ctx<'_>, seq: u64, kind: OpKind, key: &Bytes, owners: &[NodeId], needed: u8, fx: &mut Effects<Kv>) {
    let op = op_id(cx, seq);
    fx.trace(|| Event::Began { op, kind, key: key.clone(), owners: owners.to_vec(), needed });
}

fn counted(op: OpId, phase: Phase, from: NodeId, tally: &Tally, fx: &mut Effects<Kv>) {
    let (have, needed) = (tally.answered().len() as u8, tally.needed());
    fx.trace(|| Event::Counted { op, phase, from, have, needed });
}

fn finish(op: OpId, id: RequestId, result: Result<Outcome, Refusal>, fx: &mut Effects<Kv>) {
    fx.disarm(Timer::Deadline(op.seq));
    fx.disarm(Timer::Retry(op.seq));
    let refusal = result.as_ref().err().cloned();
    // Every answer that was counted has passed its owner's gate, this node's own included.
    fx.finish_now(id, result);
    fx.trace(|| Event::Finished { op, refusal });
}

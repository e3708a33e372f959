//! The asking side: sends an operation to the owners, counts their answers, answers the client exactly once.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::replica::check_size;
use super::{Event, Kv, Msg, Op, OpKind, Outcome, Phase, Timer, Write, WriteContext, repair};
use crate::bytes::Bytes;
use crate::id::{Epoch, NodeId, OpId, RequestId, Round, WriteId};
use crate::key;
use crate::limits;
use crate::mutant::{Mutant, planted};
use crate::namespace::Mode;
use crate::placement::Partition;
use crate::protocol::{Ctx, Effects};
use crate::quorum::{Level, Tally, majority};
use crate::refusal::Refusal;
use crate::time::Instant;
use crate::version::{Context, Dot, Sibling, Versions};
use crate::view::Chosen;

/// The operations that wait for answers, by their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Coordinator {
    pending: BTreeMap<u64, Pending>,
    /// Counts operations; with the boot's generation it makes [`OpId`]s unique.
    seq: u64,
    /// The latest collection rounds heard of. A guess to begin with: owners refuse a lower one and say theirs.
    rounds: BTreeMap<Partition, Round>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Pending {
    id: RequestId,
    /// The epoch all of whose answers are counted together.
    epoch: Epoch,
    deadline: Instant,
    /// Whether a write has left for an owner: from then on only *done* or *unknown* can be said.
    handed_out: bool,
    /// Whether one had left before it was started over: then no refusal of now is the whole truth.
    handed_before: bool,
    work: Work,
}

/// What an operation is doing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Work {
    Get(Reading),
    /// A plain put's first half.
    ReadThenPut(Reading, Put),
    Put(Box<Writing>, Put),
    List(Listing),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Reading {
    key: Bytes,
    level: Level,
    /// The round of the answers that are counted; those of a lower one may hold what was deleted long ago.
    round: Round,
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
    round: Round,
    /// Set if a read has shown that an earlier attempt made the write: it is spread, and not made again.
    found: Option<(Dot, Versions)>,
    owners: Vec<NodeId>,
    /// What is waited for, with no answers yet.
    quorum: Tally,
    /// How often an owner was asked to mint.
    attempts: u32,
    /// Owners that have no room for it, and said so.
    full: BTreeSet<NodeId>,
    /// Owners that hold each dot: answers for different dots are never added together.
    acked: BTreeMap<Dot, Tally>,
    /// What a client that made this write may say it has seen, by the owner that minted the dot.
    seen: BTreeMap<Dot, Context>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Listing {
    prefix: Bytes,
    after: Option<Bytes>,
    limit: u32,
    pages: BTreeMap<NodeId, Page>,
}

/// One owner's answer to a listing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Page {
    rounds: BTreeMap<Partition, Round>,
    entries: Vec<(Bytes, Versions)>,
    /// The key behind which nothing is known.
    stopped: Option<Bytes>,
}

impl Coordinator {
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

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
        match self.begin(cx, seq, op, fx) {
            Ok(work) => {
                let pending =
                    Pending { id, epoch: cx.view.epoch(), deadline, handed_out: false, handed_before: false, work };
                self.wait(cx, seq, pending, fx);
            }
            // Nothing was asked of anybody.
            Err(refusal) => fx.finish_now(id, Err(refusal)),
        }
    }

    /// Waits for the answers to what was just asked.
    fn wait(&mut self, cx: &Ctx<'_>, seq: u64, mut pending: Pending, fx: &mut Effects<Kv>) {
        pending.handed_before = pending.handed_out;
        pending.handed_out |= matches!(pending.work, Work::Put(..));
        fx.arm(pending.deadline.since(cx.now.mono), Timer::Deadline(seq));
        self.pending.insert(seq, pending);
    }

    fn begin(&self, cx: &mut Ctx<'_>, seq: u64, op: Op, fx: &mut Effects<Kv>) -> Result<Work, Refusal> {
        let chosen = cx.view.serving()?;
        Ok(match op {
            Op::Get { key, read, .. } => {
                let key = resolve(chosen, key)?;
                check_size(&key, None)?;
                let round = self.round(&key);
                Work::Get(Reading::begin(cx, seq, OpKind::Get, (key, round), read, fx)?)
            }
            Op::Put { key, value, context, write, stored, .. } => {
                let key = resolve(chosen, key)?;
                check_size(&key, value.as_ref())?;
                let id = write.unwrap_or_else(|| WriteId(cx.rng.next_bytes()));
                let put = Put { id, key, value, context, level: stored };
                quorum(cx, &put.key, stored)?;
                self.begin_put(cx, seq, put, fx)?
            }
            Op::List { prefix, after, limit, .. } => {
                let after = after.map(|after| resolve(chosen, after)).transpose()?;
                let prefix = resolve(chosen, prefix)?;
                // Keys of namespaces come before all others, and are no part of this one.
                let after =
                    if prefix.is_empty() { after.max(Some(Bytes::from(key::BEHIND_NAMESPACES))) } else { after };
                Work::List(Listing::begin(cx, seq, prefix, after, limit.clamp(1, limits::LIST_KEYS), fx))
            }
        })
    }

    fn begin_put(&self, cx: &mut Ctx<'_>, seq: u64, put: Put, fx: &mut Effects<Kv>) -> Result<Work, Refusal> {
        let kind = if put.value.is_some() { OpKind::Put } else { OpKind::Delete };
        let round = self.round(&put.key);
        match &put.context {
            WriteContext::Current => {
                let reading = Reading::begin(cx, seq, kind, (put.key.clone(), round), Level::Usual, fx)?;
                Ok(Work::ReadThenPut(reading, put))
            }
            WriteContext::Seen(context) => {
                let writing = Writing::new(cx, &put, round, context.clone())?;
                began(cx, seq, kind, &put.key, writing.owners.clone(), writing.quorum.needed(), fx);
                let mut writing = writing;
                writing.hand_over(cx, seq, fx);
                Ok(Work::Put(Box::new(writing), put))
            }
        }
    }

    pub(super) fn on_read_reply(
        &mut self,
        cx: &mut Ctx<'_>,
        from: NodeId,
        op: OpId,
        (round, versions): (Round, Versions),
        fx: &mut Effects<Kv>,
    ) {
        let Some(pending) = self.matching(cx, op) else {
            return;
        };
        let (Work::Get(reading) | Work::ReadThenPut(reading, _)) = &mut pending.work else {
            return;
        };
        if !versions.is_sound() || !reading.take_in(cx, from, op, (round, versions), fx) {
            return;
        }
        let (partition, reached) = (Partition::of(&reading.key), reading.tally.reached());
        let moved = pending.epoch != cx.view.epoch();
        self.learn(partition, round);
        if !reached {
            return;
        }
        if moved {
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
            Work::ReadThenPut(reading, put) => match Writing::after(cx, &put, &reading) {
                Ok(mut writing) => {
                    writing.hand_over(cx, op.seq, fx);
                    self.wait(cx, op.seq, Pending { work: Work::Put(Box::new(writing), put), ..pending }, fx);
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
        (dot, context): (Dot, Option<Context>),
        fx: &mut Effects<Kv>,
    ) {
        let Some(Pending { id, epoch, work: Work::Put(writing, _), .. }) = self.matching(cx, op) else {
            return;
        };
        let (id, epoch) = (*id, *epoch);
        if let Some(context) = context {
            writing.seen.insert(dot, context);
        }
        let counted_as = if planted(Mutant::AcksOfDotsAdded) { Dot { node: cx.me, counter: 0 } } else { dot };
        let tally = writing.acked.entry(counted_as).or_insert_with(|| writing.quorum.clone());
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

    pub(super) fn on_list_reply(&mut self, cx: &mut Ctx<'_>, from: NodeId, op: OpId, page: Page, fx: &mut Effects<Kv>) {
        let Some(Pending { id, epoch, work: Work::List(listing), .. }) = self.matching(cx, op) else {
            return;
        };
        let (id, epoch) = (*id, *epoch);
        let Some(chosen) = &cx.view.chosen else {
            return;
        };
        if !chosen.config.seats(from) {
            return;
        }
        listing.pages.insert(from, page);
        if !listing.is_complete(chosen) {
            return;
        }
        if epoch != cx.view.epoch() {
            return self.start_over(cx, op.seq, fx);
        }
        let outcome = listing.outcome(chosen);
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
        let Some(Pending { id, handed_before, work: Work::Put(writing, _), .. }) = self.matching(cx, op) else {
            return;
        };
        if let Refusal::StaleRound { mine, .. } = refusal {
            return self.on_stale_round(cx, from, op, mine, fx);
        }
        if refusal == Refusal::DiskFull {
            writing.full.insert(from);
        }
        if writing.found.is_some() || writing.minter(writing.attempts) != from {
            return;
        }
        let could_not_judge = matches!(
            refusal,
            Refusal::NoEpoch
                | Refusal::WrongEpoch { .. }
                | Refusal::NotAnOwner
                | Refusal::CatchingUp
                | Refusal::Overloaded
                | Refusal::DiskFull
        );
        // An owner that refused for good refuses every copy of the same message; another copy may be under way.
        let nobody_else_was_asked = !*handed_before && writing.attempts == 1;
        let all_are_full = !*handed_before && writing.owners.iter().all(|owner| writing.full.contains(owner));
        if could_not_judge && !all_are_full {
            if (writing.attempts as usize) < writing.owners.len() {
                writing.hand_over(cx, op.seq, fx);
            }
        } else if (nobody_else_was_asked || all_are_full) && refusal.is_definite() && writing.acked.is_empty() {
            let id = *id;
            self.pending.remove(&op.seq);
            finish(op, id, Err(refusal), fx);
        }
    }

    /// Deletes were collected since: the owner that was to mint is asked again; what was read before is read again.
    fn on_stale_round(&mut self, cx: &mut Ctx<'_>, from: NodeId, op: OpId, round: Round, fx: &mut Effects<Kv>) {
        let Some(Pending { work: Work::Put(writing, _), .. }) = self.pending.get_mut(&op.seq) else { return };
        if round <= writing.round {
            return;
        }
        let partition = Partition::of(&writing.write.key);
        let found = writing.found.is_some();
        writing.round = round;
        if !found && writing.minter(writing.attempts) == from {
            writing.attempts -= 1;
            writing.hand_over(cx, op.seq, fx);
        }
        self.learn(partition, round);
        if found {
            self.start_over(cx, op.seq, fx);
        }
    }

    /// Another epoch is in force: what waits for owners of the one before waits in vain.
    pub(super) fn on_epoch(&mut self, cx: &mut Ctx<'_>, fx: &mut Effects<Kv>) {
        let epoch = cx.view.epoch();
        let outdated: Vec<u64> = self.pending.iter().filter(|(_, p)| p.epoch != epoch).map(|(&seq, _)| seq).collect();
        for seq in outdated {
            self.start_over(cx, seq, fx);
        }
    }

    /// Asks again whoever is silent: a message may have been lost with the link that carried it.
    pub(super) fn on_retry(&mut self, cx: &mut Ctx<'_>, seq: u64, fx: &mut Effects<Kv>) {
        if self.pending.get(&seq).is_some_and(|pending| cx.now.mono >= pending.deadline) {
            return;
        }
        match self.pending.get_mut(&seq).map(|pending| &mut pending.work) {
            Some(Work::Get(reading) | Work::ReadThenPut(reading, _)) => reading.ask(cx, seq, fx),
            Some(Work::Put(writing, _)) => writing.hand_over(cx, seq, fx),
            Some(Work::List(listing)) => listing.ask(cx, seq, fx),
            None => (),
        }
    }

    /// A link has closed: the owner that was to mint over it may have died, and another one is asked at once.
    pub(super) fn on_unlinked(&mut self, cx: &Ctx<'_>, peer: NodeId, fx: &mut Effects<Kv>) {
        for (&seq, pending) in &mut self.pending {
            if let Work::Put(writing, _) = &mut pending.work
                && writing.found.is_none()
                && writing.minter(writing.attempts) == peer
                && cx.now.mono < pending.deadline
            {
                writing.hand_over(cx, seq, fx);
            }
        }
    }

    pub(super) fn on_deadline(&mut self, cx: &mut Ctx<'_>, seq: u64, fx: &mut Effects<Kv>) {
        let Some(pending) = self.pending.remove(&seq) else { return };
        let refusal = match &pending.work {
            Work::Get(reading) | Work::ReadThenPut(reading, _) => pending.definite(no_quorum(&reading.tally)),
            Work::Put(writing, _) => {
                let acked = writing.acked.values().map(Tally::have).max().unwrap_or(0);
                Refusal::TimeoutUnknown { acked, needed: writing.quorum.needed() }
            }
            Work::List(listing) => {
                let needed = cx.view.chosen.as_ref().map_or(0, |chosen| majority(chosen.config.replicas));
                Refusal::NoQuorum { answered: listing.pages.len() as u8, needed }
            }
        };
        finish(op_id(cx, seq), pending.id, Err(refusal), fx);
    }

    /// The operation a reply belongs to, if it is one of this boot's that still waits. One whose deadline has passed
    /// does not, although its timer may be about to fire: what a pause has put off must not go on as if in time.
    fn matching(&mut self, cx: &Ctx<'_>, op: OpId) -> Option<&mut Pending> {
        if op.node != cx.me || op.generation != cx.generation {
            return None;
        }
        self.pending.get_mut(&op.seq).filter(|pending| cx.now.mono < pending.deadline)
    }

    fn round(&self, key: &[u8]) -> Round {
        self.rounds.get(&Partition::of(key)).copied().unwrap_or_default()
    }

    fn learn(&mut self, partition: Partition, round: Round) {
        if round > Round::default() {
            let known = self.rounds.entry(partition).or_default();
            *known = round.max(*known);
        }
    }

    /// The epoch moved, or what was read is from before a collection: asks the owners of now, under the same write id
    /// and deadline, and under a new number, so that no answer to the old question is counted.
    fn start_over(&mut self, cx: &mut Ctx<'_>, old: u64, fx: &mut Effects<Kv>) {
        let Some(pending) = self.pending.remove(&old) else { return };
        fx.disarm(Timer::Deadline(old));
        fx.disarm(Timer::Retry(old));
        self.seq += 1;
        let (seq, id, deadline, handed_out) = (self.seq, pending.id, pending.deadline, pending.handed_out);
        let refused = cx.view.serving().err();
        let again = match (refused, pending.work) {
            (Some(refusal), _) => Err(refusal),
            (None, Work::Get(reading)) => {
                Reading::begin(cx, seq, OpKind::Get, (reading.key, reading.round), reading.level, fx).map(Work::Get)
            }
            (None, Work::ReadThenPut(_, put) | Work::Put(_, put)) => self.begin_put(cx, seq, put, fx),
            (None, Work::List(listing)) => {
                Ok(Work::List(Listing::begin(cx, seq, listing.prefix, listing.after, listing.limit, fx)))
            }
        };
        match again {
            Ok(work) => self.wait(
                cx,
                seq,
                Pending { id, epoch: cx.view.epoch(), deadline, handed_out, handed_before: false, work },
                fx,
            ),
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
        (key, round): (Bytes, Round),
        level: Level,
        fx: &mut Effects<Kv>,
    ) -> Result<Self, Refusal> {
        let chosen = cx.view.chosen.as_ref().ok_or(Refusal::NoEpoch)?;
        let owners = chosen.owners_of(&key);
        let tally = match quorum(cx, &key, level)? {
            _ if planted(Mutant::ReadByOne) => Tally::new(owners.all(), 1),
            _ if planted(Mutant::JointReadFromOld) => {
                Tally::new(owners.current.iter().copied(), majority(owners.current.len() as u8))
            }
            tally => tally,
        };
        began(cx, seq, kind, &key, owners.all().collect(), tally.needed(), fx);
        let reading = Self { key, level, round, tally, replies: BTreeMap::new() };
        reading.ask(cx, seq, fx);
        Ok(reading)
    }

    /// Asks every owner that has not answered yet.
    fn ask(&self, cx: &Ctx<'_>, seq: u64, fx: &mut Effects<Kv>) {
        let read = Msg::Read { op: op_id(cx, seq), epoch: cx.view.epoch(), round: self.round, key: self.key.clone() };
        // A question; the answers wait for durability.
        fx.send_all_now(self.tally.silent(), read);
        fx.arm(cx.config.kv.retry, Timer::Retry(seq));
    }

    /// Counts an answer. One of a higher round makes all earlier ones void, and their owners are asked again, which
    /// tells them of the round.
    fn take_in(
        &mut self,
        cx: &Ctx<'_>,
        from: NodeId,
        op: OpId,
        (round, versions): (Round, Versions),
        fx: &mut Effects<Kv>,
    ) -> bool {
        if round < self.round || !self.tally.asks(from) {
            return false;
        }
        let voided = round > self.round && !self.replies.is_empty();
        if voided {
            self.tally.restart();
            self.replies.clear();
        }
        self.round = round;
        if !self.tally.answer(from) {
            return false;
        }
        self.replies.insert(from, versions);
        counted(op, Phase::Reading, from, &self.tally, fx);
        if voided && !self.tally.reached() {
            self.ask(cx, op.seq, fx);
        }
        true
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
                repair::push_merged(cx, owner, self.round, (self.key.clone(), merged.clone()), fx);
            }
        }
    }
}

impl Writing {
    /// The second half of a plain put: supersedes what was read, and leaves it to an owner that holds all of that. If
    /// what was read holds the write itself, an earlier attempt has made it.
    fn after(cx: &Ctx<'_>, put: &Put, reading: &Reading) -> Result<Self, Refusal> {
        let merged = reading.merged();
        let mut writing = Self::new(cx, put, reading.round, merged.to_context())?;
        let is_behind = |owner: &NodeId| reading.replies.get(owner).is_none_or(|held| *held != merged);
        writing.owners.sort_by_key(is_behind);
        if let Some(dot) = merged.dot_of(put.id) {
            writing.write.context = merged.seen_by(put.id);
            writing.found = Some((dot, merged));
        }
        Ok(writing)
    }

    fn new(cx: &Ctx<'_>, put: &Put, round: Round, context: Context) -> Result<Self, Refusal> {
        let chosen = cx.view.chosen.as_ref().ok_or(Refusal::NoEpoch)?;
        let group = chosen.owners_of(&put.key);
        let mut owners: Vec<NodeId> = group.all().collect();
        // Owners of now before those to come, the nearest first, those that seem dead last: a hint, and no more.
        let is_new = |owner: &NodeId| !group.current.contains(owner);
        owners.sort_by_key(|&owner| {
            let (dead, unlinked) = (!cx.view.seems_alive(owner), !cx.view.links.contains(&owner));
            (is_new(&owner), owner != cx.me, dead, unlinked)
        });
        let quorum = match quorum(cx, &put.key, put.level)? {
            _ if planted(Mutant::JointWriteToOld) => {
                Tally::new(group.current.iter().copied(), majority(group.current.len() as u8))
            }
            quorum => quorum,
        };
        let write = Write { id: put.id, key: put.key.clone(), value: put.value.clone(), context };
        Ok(Self {
            write,
            round,
            found: None,
            owners,
            quorum,
            attempts: 0,
            full: BTreeSet::new(),
            acked: BTreeMap::new(),
            seen: BTreeMap::new(),
        })
    }

    /// Asks the next owner in turn to mint. One that has the write already sends it around again.
    fn hand_over(&mut self, cx: &Ctx<'_>, seq: u64, fx: &mut Effects<Kv>) {
        self.attempts += 1;
        fx.arm(cx.config.kv.retry, Timer::Retry(seq));
        if let Some((dot, versions)) = self.found.clone() {
            return self.spread(cx, seq, dot, versions, fx);
        }
        let (op, to, attempt) = (op_id(cx, seq), self.minter(self.attempts), self.attempts);
        if planted(Mutant::MintedByCoordinator) && !self.owners.contains(&cx.me) {
            let Write { id, value, context, .. } = self.write.clone();
            let (dot, mut versions) = (Dot { node: cx.me, counter: seq }, Versions::default());
            versions.write(Sibling { dot, write: id, context: context.seen, value }, &context.writes);
            return self.spread(cx, seq, dot, versions, fx);
        }
        let mint = Msg::Mint { op, epoch: cx.view.epoch(), round: self.round, write: self.write.clone() };
        // A write that is handed on is the client's; it reveals nothing of what this node holds.
        fx.send_now(to, mint);
        fx.trace(|| Event::Handed { op, to, attempt });
    }

    /// Brings a write that was found, with all that was read beside it, to the owners that have not confirmed it.
    fn spread(&self, cx: &Ctx<'_>, seq: u64, dot: Dot, versions: Versions, fx: &mut Effects<Kv>) {
        let confirmed = |owner: &NodeId| self.acked.get(&dot).is_some_and(|tally| tally.answered().contains(owner));
        let silent: Vec<NodeId> = self.owners.iter().copied().filter(|owner| !confirmed(owner)).collect();
        let (op, epoch, key) = (op_id(cx, seq), cx.view.epoch(), self.write.key.clone());
        // It was durable with the owners that answered the read.
        fx.send_all_now(silent, Msg::Store { op, epoch, round: self.round, key, dot, versions });
    }

    fn minter(&self, attempt: u32) -> NodeId {
        self.owners[(attempt as usize - 1) % self.owners.len()]
    }
}

impl Listing {
    fn begin(cx: &Ctx<'_>, seq: u64, prefix: Bytes, after: Option<Bytes>, limit: u32, fx: &mut Effects<Kv>) -> Self {
        if let Some(chosen) = &cx.view.chosen {
            let needed = majority(chosen.config.replicas);
            began(cx, seq, OpKind::List, &prefix, chosen.config.storage().collect(), needed, fx);
        }
        let listing = Self { prefix, after, limit, pages: BTreeMap::new() };
        listing.ask(cx, seq, fx);
        listing
    }

    /// Asks every storage member that has not answered yet, or whose answer is too old somewhere to count.
    fn ask(&self, cx: &Ctx<'_>, seq: u64, fx: &mut Effects<Kv>) {
        let Some(chosen) = &cx.view.chosen else {
            return;
        };
        let missing = chosen.config.storage().filter(|&node| {
            !self.pages.contains_key(&node) || self.owned(chosen, node).any(|partition| !self.counts(node, partition))
        });
        let (op, epoch, limit) = (op_id(cx, seq), cx.view.epoch(), self.limit);
        let list = Msg::List { op, epoch, prefix: self.prefix.clone(), after: self.after.clone(), limit };
        // A question; the answers wait for durability.
        fx.send_all_now(missing, list);
        fx.arm(cx.config.kv.retry, Timer::Retry(seq));
    }

    fn owned<'a>(&self, chosen: &'a Chosen, node: NodeId) -> impl Iterator<Item = Partition> + use<'a> {
        chosen.partitions().filter(move |&partition| chosen.owners(partition).contains(node))
    }

    /// Whether a node's answer counts for a partition: no other answer is of a higher round there.
    fn counts(&self, node: NodeId, partition: Partition) -> bool {
        let highest = self.pages.values().map(|page| page.round(partition)).max();
        self.pages.get(&node).is_some_and(|page| Some(page.round(partition)) == highest)
    }

    /// Whether answers of a majority of every partition's owners count.
    fn is_complete(&self, chosen: &Chosen) -> bool {
        chosen.partitions().all(|partition| {
            let owners = chosen.owners(partition);
            let enough = |group: &[NodeId]| {
                let needed = usize::from(majority(group.len() as u8));
                group.iter().filter(|&&owner| self.counts(owner, partition)).count() >= needed
            };
            enough(owners.current) && owners.next.is_none_or(enough)
        })
    }

    fn outcome(&self, chosen: &Chosen) -> Outcome {
        // Nothing is known for certain behind the smallest key at which an answer stopped.
        let stopped = self.pages.values().filter_map(|page| page.stopped.as_ref()).min();
        let mut entries: BTreeMap<&Bytes, Versions> = BTreeMap::new();
        for (&node, page) in &self.pages {
            let owned: BTreeSet<Partition> =
                self.owned(chosen, node).filter(|&partition| self.counts(node, partition)).collect();
            for (key, versions) in page.entries.iter().filter(|(key, _)| owned.contains(&Partition::of(key))) {
                let certain = stopped.is_none_or(|stopped| key <= stopped);
                if certain && versions.is_sound() && key.starts_with(&self.prefix) {
                    entries.entry(key).or_default().merge(versions);
                }
            }
        }
        let limit = self.limit as usize;
        let next = entries.keys().nth(limit - 1).filter(|_| entries.len() > limit).copied().or(stopped).cloned();
        let page = entries.into_iter().take(limit).filter(|(_, versions)| versions.values().next().is_some());
        let entries = page.map(|(key, versions)| (key.clone(), versions)).collect();
        Outcome::Listed { entries, next, answered: self.pages.keys().copied().collect() }
    }
}

impl Page {
    pub(super) fn new(
        rounds: Vec<(Partition, Round)>,
        entries: Vec<(Bytes, Versions)>,
        stopped: Option<Bytes>,
    ) -> Self {
        Self { rounds: rounds.into_iter().collect(), entries, stopped }
    }

    fn round(&self, partition: Partition) -> Round {
        self.rounds.get(&partition).copied().unwrap_or_default()
    }
}

/// Whose answers are waited for, by what the key's namespace promises.
fn quorum(cx: &Ctx<'_>, key: &[u8], level: Level) -> Result<Tally, Refusal> {
    let chosen = cx.view.chosen.as_ref().ok_or(Refusal::NoEpoch)?;
    let owners = chosen.owners_of(key);
    let zone = cx.config.profile.zone();
    let is_near = |owner| chosen.config.seat(owner).is_some_and(|seat| seat.zone == zone);
    let tally = match chosen.config.namespaces.mode_of(key, Mode::Quorum)? {
        Mode::Eventual => owners.any(level, is_near),
        Mode::Quorum | Mode::Atomic | Mode::Consensus => owners.quorum(level),
    };
    tally.ok_or(Refusal::BadLevel { replicas: owners.current.len() as u8 })
}

/// A key, or a prefix of keys, as it is called inside the cluster, if this protocol keeps what is promised for it.
fn resolve(chosen: &Chosen, key: Bytes) -> Result<Bytes, Refusal> {
    match chosen.config.namespaces.resolve(key, Mode::Quorum)? {
        (key, Mode::Eventual | Mode::Quorum) => Ok(key),
        (_, mode @ (Mode::Atomic | Mode::Consensus)) => Err(Refusal::WrongMode { mode }),
    }
}

fn no_quorum(tally: &Tally) -> Refusal {
    Refusal::NoQuorum { answered: tally.have(), needed: tally.needed() }
}

fn op_id(cx: &Ctx<'_>, seq: u64) -> OpId {
    OpId { node: cx.me, generation: cx.generation, seq }
}

fn began(cx: &Ctx<'_>, seq: u64, kind: OpKind, key: &Bytes, owners: Vec<NodeId>, needed: u8, fx: &mut Effects<Kv>) {
    let op = op_id(cx, seq);
    fx.trace(|| Event::Began { op, kind, key: key.clone(), owners, needed });
}

fn counted(op: OpId, phase: Phase, from: NodeId, tally: &Tally, fx: &mut Effects<Kv>) {
    let (have, needed) = (tally.have(), tally.needed());
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

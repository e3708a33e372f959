//! The proposing side: rounds, one at a time for each key, each for all requests that have come meanwhile.
//!
//! ```text
//!   waiting ──▶ only reads:       Reading ── a majority reports one ballot ──▶ answered
//!                                    └── they do not agree ──▶ Preparing
//!           ──▶ anything else:    Preparing ──▶ Accepting ──▶ chosen: answered
//!           ──▶ next is promised: Accepting
//!   outbid: back to waiting, and on after a while that chance draws, longer each time
//! ```
//!
//! **Promised already.** An Accept carries the ballot of the next attempt, which the acceptors promise in the same write.
//! If a majority has accepted and promised, the next round begins with phase 2. What is kept for that saves the Prepare,
//! never the quorum: nobody is answered from it. It is forgotten at the first sign of somebody else, with the epoch, and
//! when this node slept.
//!
//! **While a request waits** it is looked for in every content that turns out to be chosen: if it is certain that it was not
//! carried out up to that version, its *seen* is raised to it. So it does not matter how long the queue is. A content that
//! a promise reports may never have been chosen, and raises nothing.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use super::atomic::is_atomic;
use super::recent::{Attempt, Recent};
use super::{Ask, Event, Msg, Outcome, Phase, Registers, Timer};
use crate::abd::Query;
use crate::bytes::Bytes;
use crate::cell::{Applied, Cell, Done, NotDone, Request};
use crate::id::{Epoch, Generation, NodeId};
use crate::limits;
use crate::mutant::{Mutant, planted};
use crate::paxos::{Accepted, Ballot, Next, Proposer, Read, Reader};
use crate::protocol::{Ctx, Effects};
use crate::quorum::{Level, Tally, majority};
use crate::refusal::Refusal;
use crate::time::{Duration, Instant};

/// A proposer that was outbid waits up to this long, and twice as long each time.
const BACKOFF: Duration = Duration::millis(10);
/// At most so many times doubled.
const DOUBLED: u64 = 7;
/// The highest counter of a ballot that is believed: far beyond what can be counted to.
const COUNTER_MAX: u64 = 1 << 62;

/// All keys for which this node proposes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Proposers {
    pub(super) keys: BTreeMap<Bytes, Hot>,
    /// Which key a round's timer is for.
    rounds: BTreeMap<u64, Bytes>,
    /// Counts rounds.
    round: u64,
    /// The highest ballot counter used or heard of.
    pub(super) counter: u64,
    recent: Recent,
    /// Requests that wait, over all keys.
    waiting: usize,
    /// Keys that are idle and have their next ballot promised, the longest idle first.
    idle: BTreeMap<u64, Bytes>,
    /// Registers that were to be moved, and are.
    moved: VecDeque<Bytes>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Hot {
    waiting: VecDeque<Waiting>,
    pub(super) round: Option<Round>,
    /// The round's number, also of the one that a rest precedes.
    pub(super) number: u64,
    /// Since which round it is idle, with its next ballot promised.
    idle: Option<u64>,
    /// Whether it was outbid and rests.
    rests: bool,
    outbid: u64,
    /// The content that this node saw chosen last, in this epoch. There may be a later one.
    known: Option<Cell>,
    /// The next ballot, if a majority has promised it when it accepted just that content.
    promised: Option<Ballot>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Waiting {
    who: Who,
    pub(super) ask: Ask,
    /// Whether it was ever proposed, and may have been carried out.
    pub(super) proposed: bool,
    /// What it is told once the content that is proposed is chosen.
    pub(super) answer: Option<Result<Outcome, Refusal>>,
}

/// Who waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Who {
    /// A client, by way of its coordinator, until then.
    Client { attempt: Attempt, until: Instant },
    /// The owners to come.
    Move,
    /// Nobody: the value's time has passed.
    Expiry,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Round {
    pub(super) takers: Vec<Waiting>,
    pub(super) work: Work,
    /// Owners that have promised more to somebody else.
    pub(super) refused: BTreeSet<NodeId>,
}

/// Why phase 2 may begin.
enum Begun {
    /// A majority has promised in phase 1.
    Prepared(Proposer<Cell>),
    /// A majority promised this ballot when it accepted what is there now.
    Promised(Ballot),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Work {
    Reading(Reader<Cell>),
    /// Of an atomic register: what is there?
    Querying(Query<Cell>),
    /// Of an atomic register: a majority is to hold this.
    Keeping {
        timestamp: Ballot,
        cell: Cell,
        kept: Tally,
    },
    Deciding {
        attempt: Proposer<Cell>,
        /// The ballot that is to be promised with the acceptance.
        next: Ballot,
        /// Who has promised it.
        promised: Tally,
    },
}

impl Proposers {
    /// A boot begins. Its rounds are numbered apart from those of every boot before: an owner that stood still may answer
    /// what an earlier one has asked, and what it held then must not be counted for a round of now.
    pub(super) fn begin(&mut self, boot: Generation) {
        self.round = boot.0 << 32;
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(super) fn sticky(&self) -> usize {
        self.keys.values().filter(|hot| hot.promised.is_some()).count()
    }

    /// Somebody's ballot: whether it can be believed. The next one of this node lies above it.
    pub(super) fn hear(&mut self, ballot: Ballot) -> bool {
        if ballot.counter <= COUNTER_MAX {
            self.counter = self.counter.max(ballot.counter);
        }
        ballot.counter <= COUNTER_MAX
    }

    pub(super) fn next_ballot(&mut self, cx: &Ctx<'_>) -> Ballot {
        self.counter = self.counter.max(base(cx)) + 1;
        Ballot { counter: self.counter, node: cx.me, generation: cx.generation }
    }

    /// A coordinator asks for a round.
    pub(super) fn on_ask(
        &mut self,
        cx: &mut Ctx<'_>,
        (op, attempt): Attempt,
        (epoch, key): (Epoch, Bytes),
        ask: Ask,
        within: Duration,
        fx: &mut Effects<Registers>,
    ) {
        if !self.recent.is_new((op, attempt)) {
            return;
        }
        let overloaded = self.waiting >= limits::PENDING_OPERATIONS;
        // Of an atomic register the node that was asked writes itself.
        let may = if is_atomic(cx, &key) { cx.check_epoch(epoch) } else { cx.check_owner(epoch, &key) };
        let allowed = may.and(if overloaded { Err(Refusal::Overloaded) } else { Ok(()) });
        if let Err(refusal) = allowed {
            // Nothing was proposed, and will not be.
            return fx.send_now(op.node, Msg::Answer { op, attempt, result: Err(refusal) });
        }
        let who = Who::Client { attempt: (op, attempt), until: cx.now.mono + within.min(limits::DEADLINE_MAX) };
        self.add(cx, &key, Waiting { who, ask, proposed: false, answer: None }, fx);
    }

    /// Has a register read in the joint epoch, which leaves it with the owners to come.
    pub(super) fn begin_move(&mut self, cx: &mut Ctx<'_>, key: &Bytes, fx: &mut Effects<Registers>) {
        self.add(cx, key, Waiting { who: Who::Move, ask: Ask::Read, proposed: false, answer: None }, fx);
    }

    /// Has a register read whose value's time has passed, which removes the value.
    pub(super) fn begin_expiry(&mut self, cx: &mut Ctx<'_>, key: &Bytes, fx: &mut Effects<Registers>) {
        let is_at_it = |hot: &Hot| {
            let mut takers = hot.waiting.iter().chain(hot.round.iter().flat_map(|round| &round.takers));
            takers.any(|taker| taker.who == Who::Expiry)
        };
        if !self.keys.get(key).is_some_and(is_at_it) {
            self.add(cx, key, Waiting { who: Who::Expiry, ask: Ask::Read, proposed: false, answer: None }, fx);
        }
    }

    pub(super) fn pop_moved(&mut self) -> Option<Bytes> {
        self.moved.pop_front()
    }

    fn add(&mut self, cx: &mut Ctx<'_>, key: &Bytes, waiting: Waiting, fx: &mut Effects<Registers>) {
        self.waiting += 1;
        let hot = self.keys.entry(key.clone()).or_default();
        let mut waiting = waiting;
        if let Some(known) = &hot.known {
            waiting.look_through(known);
            if let Some(refusal) = waiting.is_expired(known) {
                // So much is forgotten for good: no round is needed to say so.
                return self.tell(waiting.who, Err(refusal), fx);
            }
        }
        hot.waiting.push_back(waiting);
        self.go_on(cx, key, fx);
    }

    /// Begins the next round of a key, if any request waits and none is under way.
    pub(super) fn go_on(&mut self, cx: &mut Ctx<'_>, key: &Bytes, fx: &mut Effects<Registers>) {
        let Some(chosen) = &cx.view.chosen else { return };
        let Some(quorum) = quorum(chosen, key) else { return };
        let Some(hot) = self.keys.get_mut(key).filter(|hot| hot.round.is_none() && !hot.rests) else { return };
        let takers = hot.waiting.len().min(limits::ROUND);
        let takers = hot.waiting.drain(..takers).collect();
        let takers = self.expire(cx, key, takers, fx);
        if takers.is_empty() {
            return self.rest(cx, key, fx);
        }
        self.round += 1;
        let number = self.round;
        self.rounds.insert(number, key.clone());
        let Some(hot) = self.keys.get_mut(key) else { return };
        hot.number = number;
        hot.idle.take().map(|since| self.idle.remove(&since));
        if is_atomic(cx, key) {
            return self.query(cx, key, takers, fx);
        }
        let only_reads = takers.iter().all(|taker| taker.ask == Ask::Read);
        if let (Some(ballot), Some(cell)) = (hot.promised.take_if(|_| !only_reads), &hot.known) {
            let cell = cell.clone();
            return self.propose(cx, key, takers, Begun::Promised(ballot), cell, fx);
        }
        if !only_reads || is_recovering(cx) {
            return self.prepare(cx, key, takers, fx);
        }
        let owners = chosen.owners_of(key);
        let needed = quorum.needed();
        hot.round = Some(Round { takers, work: Work::Reading(Reader::new(quorum)), refused: BTreeSet::new() });
        fx.trace(|| Event::Reading { key: key.clone(), round: number, owners: owners.all().collect(), needed });
        self.ask(cx, key, fx);
    }

    /// Nothing waits: the key is kept in mind only while its next ballot is promised, and not for ever.
    fn rest(&mut self, cx: &mut Ctx<'_>, key: &Bytes, fx: &mut Effects<Registers>) {
        let Some(hot) = self.keys.get_mut(key) else { return };
        if !hot.waiting.is_empty() {
            return self.go_on(cx, key, fx);
        }
        if hot.promised.is_none() {
            self.keys.remove(key);
            return;
        }
        if hot.idle.is_none() {
            hot.idle = Some(hot.number);
            self.idle.insert(hot.number, key.clone());
        }
        while self.idle.len() > limits::PROMISED {
            if let Some((_, oldest)) = self.idle.pop_first() {
                self.keys.remove(&oldest);
            }
        }
    }

    /// Begins phase 1.
    fn prepare(&mut self, cx: &mut Ctx<'_>, key: &Bytes, takers: Vec<Waiting>, fx: &mut Effects<Registers>) {
        let ballot = self.next_ballot(cx);
        let Some(chosen) = &cx.view.chosen else { return };
        let Some(promises) = quorum(chosen, key) else { return };
        // Of a lost majority nobody knows who has what: all survivors have to promise.
        let survivors: Vec<NodeId> = chosen.config.storage().collect();
        let all = survivors.len() as u8;
        let promises = if is_recovering(cx) { promises.and(survivors, all) } else { promises };
        let (owners, needed) = (promises.silent().collect::<Vec<_>>(), promises.needed());
        fx.trace(|| Event::Prepared { key: key.clone(), ballot, owners, needed });
        let none = Tally::new([], 0);
        let work = Work::Deciding { attempt: Proposer::new(ballot, promises), next: Ballot::NONE, promised: none };
        let Some(hot) = self.keys.get_mut(key) else { return };
        hot.promised = None;
        hot.round = Some(Round { takers, work, refused: BTreeSet::new() });
        self.ask(cx, key, fx);
    }

    /// Begins phase 2, with what the takers make of the content.
    fn propose(
        &mut self,
        cx: &mut Ctx<'_>,
        key: &Bytes,
        mut takers: Vec<Waiting>,
        begun: Begun,
        mut cell: Cell,
        fx: &mut Effects<Registers>,
    ) {
        let Some(accepts) = cx.view.chosen.as_ref().and_then(|chosen| quorum(chosen, key)) else { return };
        if is_recovering(cx) {
            cell = cell.forked(base(cx));
        }
        if cell.is_over(cx.now.wall) {
            cell = cell.expired();
        }
        let next = self.next_ballot(cx);
        takers.iter_mut().for_each(|taker| taker.apply(&mut cell));
        let (version, requests, needed) = (cell.version(), takers.len() as u16, accepts.needed());
        let (promised, at_once) = (accepts.clone(), matches!(begun, Begun::Promised(_)));
        let attempt = match begun {
            Begun::Promised(ballot) => Proposer::prepared(ballot, cell, accepts),
            Begun::Prepared(mut attempt) => {
                attempt.propose(cell, accepts);
                attempt
            }
        };
        let ballot = attempt.ballot();
        let asked = &promised;
        fx.trace(|| {
            let (key, owners) = (key.clone(), asked.silent().collect());
            Event::Proposed { key, ballot, owners, version, requests, at_once, needed }
        });
        let work = Work::Deciding { attempt, next, promised };
        let Some(hot) = self.keys.get_mut(key) else { return };
        hot.round = Some(Round { takers, work, refused: BTreeSet::new() });
        self.ask(cx, key, fx);
    }

    /// Asks, or asks again, whoever has not answered in this phase.
    pub(super) fn ask(&self, cx: &Ctx<'_>, key: &Bytes, fx: &mut Effects<Registers>) {
        let Some(hot) = self.keys.get(key) else { return };
        let Some(round) = &hot.round else { return };
        let (epoch, key) = (cx.view.epoch(), key.clone());
        match &round.work {
            Work::Reading(reader) => {
                let silent: Vec<NodeId> = reader.silent().collect();
                // A question; the answers wait for durability.
                fx.send_all_now(silent, Msg::Report { epoch, key, round: hot.number });
            }
            Work::Querying(query) => {
                let silent: Vec<NodeId> = query.silent().collect();
                // A question; the answers wait for durability.
                fx.send_all_now(silent, Msg::Report { epoch, key, round: hot.number });
            }
            Work::Keeping { timestamp, cell, kept } => {
                let (silent, cell): (Vec<NodeId>, Cell) = (kept.silent().collect(), cell.clone());
                // The client's value, or what a majority holds durably.
                fx.send_all_now(silent, Msg::Keep { epoch, key, ballot: *timestamp, cell });
            }
            Work::Deciding { attempt, next, .. } => {
                let silent: Vec<NodeId> =
                    attempt.tally().silent().filter(|node| !round.refused.contains(node)).collect();
                let (ballot, next) = (attempt.ballot(), *next);
                // The boot's generation is in the ballot and was durable before anything left; the promises that allow
                // the Accept are durable with their acceptors.
                match attempt.proposed().cloned() {
                    None => fx.send_all_now(silent, Msg::Prepare { epoch, key, ballot }),
                    Some(cell) => fx.send_all_now(silent, Msg::Accept { epoch, key, ballot, cell, next }),
                }
            }
        }
        let first = round.takers.iter().filter_map(Waiting::until).min();
        let wait = first.map_or(cx.config.kv.retry, |until| cx.config.kv.retry.min(until.since(cx.now.mono)));
        fx.arm(wait.max(Duration::millis(1)), Timer::Round(hot.number));
    }

    pub(super) fn on_reported(
        &mut self,
        cx: &mut Ctx<'_>,
        from: NodeId,
        key: &Bytes,
        (number, accepted): (u64, Accepted<Cell>),
        fx: &mut Effects<Registers>,
    ) {
        if accepted.as_ref().is_some_and(|(_, cell)| !cell.is_sound()) {
            return;
        }
        let Some(hot) = self.keys.get_mut(key).filter(|hot| hot.number == number) else { return };
        if matches!(&hot.round, Some(Round { work: Work::Querying(_), .. })) {
            return self.on_queried(cx, from, key, accepted, fx);
        }
        let Some(Round { work: Work::Reading(reader), .. }) = &mut hot.round else { return };
        let before = reader.silent().count();
        let read = reader.on_report(from, accepted);
        if reader.silent().count() < before {
            let (have, needed) = reader.progress();
            fx.trace(|| Event::Counted { key: key.clone(), phase: Phase::Reading, from, have, needed });
        }
        match read {
            Read::Wait => (),
            Read::Holds(cell) => {
                let Some(round) = hot.round.take() else { return };
                let mut cell = cell.unwrap_or_default();
                if cell.is_over(cx.now.wall) {
                    // Its value's time has passed: it is removed before anybody is told so.
                    return self.prepare(cx, key, round.takers, fx);
                }
                hot.waiting.iter_mut().for_each(|waiting| waiting.look_through(&cell));
                fx.trace(|| Event::Agreed { key: key.clone(), version: cell.version() });
                self.end_round(key, fx);
                self.answer_reads(key, round.takers, &mut cell, fx);
                self.go_on(cx, key, fx);
            }
            Read::Undecided => {
                let Some(round) = hot.round.take() else { return };
                self.prepare(cx, key, round.takers, fx);
            }
        }
    }

    pub(super) fn on_promise(
        &mut self,
        cx: &mut Ctx<'_>,
        from: NodeId,
        key: &Bytes,
        (ballot, accepted): (Ballot, Accepted<Cell>),
        fx: &mut Effects<Registers>,
    ) {
        if accepted.as_ref().is_some_and(|(_, cell)| !cell.is_sound()) {
            return;
        }
        let Some(hot) = self.keys.get_mut(key) else { return };
        let Some(Round { work: Work::Deciding { attempt, .. }, .. }) = &mut hot.round else { return };
        let next = attempt.on_promise(from, ballot, accepted);
        counted(key, attempt, Phase::Preparing, (from, ballot), fx);
        let Next::Propose(seen) = next else { return };
        let Some(round) = hot.round.take() else { return };
        let seen = seen.filter(|_| !planted(Mutant::RegisterIgnored));
        let Round { takers, work: Work::Deciding { attempt, .. }, .. } = round else { return };
        if seen.is_none() && takers.iter().all(|taker| taker.ask == Ask::Read) {
            // A majority has never accepted anything: it was never written.
            self.end_round(key, fx);
            self.answer_reads(key, takers, &mut Cell::default(), fx);
            return self.go_on(cx, key, fx);
        }
        let cell = seen.map(|(_, cell)| cell).unwrap_or_default();
        self.propose(cx, key, takers, Begun::Prepared(attempt), cell, fx);
    }

    pub(super) fn on_accepted(
        &mut self,
        cx: &mut Ctx<'_>,
        from: NodeId,
        key: &Bytes,
        (ballot, is_promised): (Ballot, bool),
        fx: &mut Effects<Registers>,
    ) {
        let Some(hot) = self.keys.get_mut(key) else { return };
        let Some(Round { work: Work::Deciding { attempt, promised, .. }, .. }) = &mut hot.round else { return };
        if attempt.ballot() == ballot && attempt.proposed().is_some() && is_promised {
            promised.answer(from);
        }
        let next = attempt.on_accepted(from, ballot);
        counted(key, attempt, Phase::Accepting, (from, ballot), fx);
        let Next::Chosen(cell) = next else { return };
        let Some(round) = hot.round.take() else { return };
        let Work::Deciding { next, promised, .. } = round.work else { return };
        hot.outbid = 0;
        hot.waiting.iter_mut().for_each(|waiting| waiting.look_through(&cell));
        // The promise of the next ballot was given in the same write: it counts where a majority gave both.
        hot.promised = (promised.reached() && !is_recovering(cx)).then_some(next);
        fx.trace(|| Event::Chosen { key: key.clone(), ballot, version: cell.version() });
        hot.known = Some(cell);
        self.end_round(key, fx);
        for taker in round.takers {
            self.answer(key, taker, fx);
        }
        self.go_on(cx, key, fx);
    }

    /// An owner has promised more to somebody else. The round goes on while a majority may still be reached without it.
    pub(super) fn on_outbid(
        &mut self,
        cx: &mut Ctx<'_>,
        from: NodeId,
        key: &Bytes,
        (ballot, promised): (Ballot, Ballot),
        fx: &mut Effects<Registers>,
    ) {
        let Some(hot) = self.keys.get(key) else { return };
        let Some(Round { work: Work::Deciding { attempt, .. }, .. }) = &hot.round else { return };
        if attempt.ballot() != ballot || !attempt.tally().asks(from) || promised <= ballot || !self.hear(promised) {
            return;
        }
        fx.trace(|| Event::Outbid { key: key.clone(), ballot, from, promised });
        let Some(hot) = self.keys.get_mut(key) else { return };
        let Some(round) = &mut hot.round else { return };
        let Work::Deciding { attempt, .. } = &round.work else { return };
        round.refused.insert(from);
        let mut best = attempt.tally().clone();
        let left: Vec<NodeId> = best.silent().filter(|node| !round.refused.contains(node)).collect();
        for node in left {
            best.answer(node);
        }
        if best.reached() {
            return;
        }
        hot.outbid += 1;
        let span = BACKOFF.times(1 << hot.outbid.min(DOUBLED));
        self.give_up_round(key);
        let Some(hot) = self.keys.get_mut(key) else { return };
        hot.rests = true;
        // Who comes back first is left to chance, lest two go on outbidding each other.
        fx.arm(cx.rng.between(Duration::millis(1), span), Timer::Round(hot.number));
    }

    /// What waited for the round waits again, before all else. What was proposed may have been, or may yet be, chosen.
    pub(super) fn give_up_round(&mut self, key: &Bytes) {
        let Some(hot) = self.keys.get_mut(key) else { return };
        hot.promised = None;
        for taker in hot.round.take().into_iter().flat_map(|round| round.takers).rev() {
            hot.waiting.push_front(taker);
        }
    }

    pub(super) fn on_timer(&mut self, cx: &mut Ctx<'_>, number: u64, fx: &mut Effects<Registers>) {
        let Some(key) = self.rounds.get(&number).cloned() else { return };
        let Some(hot) = self.keys.get_mut(&key).filter(|hot| hot.number == number) else { return };
        if core::mem::take(&mut hot.rests) {
            self.rounds.remove(&number);
            return self.go_on(cx, &key, fx);
        }
        let Some(round) = hot.round.as_mut() else { return };
        let takers = core::mem::take(&mut round.takers);
        // Somebody's time may be over; the round goes on for the others.
        let takers = self.expire(cx, &key, takers, fx);
        let is_over = takers.is_empty();
        if let Some(round) = self.keys.get_mut(&key).and_then(|hot| hot.round.as_mut()) {
            round.takers = takers;
        }
        if is_over {
            self.give_up_round(&key);
            self.end_round(&key, fx);
            return self.go_on(cx, &key, fx);
        }
        // A majority has reported and does not agree, and who is left to report says nothing.
        let round = self.keys.get_mut(&key).and_then(|hot| {
            hot.round.take_if(|round| matches!(&round.work, Work::Reading(reader) if reader.is_heard()))
        });
        match round {
            Some(round) => self.prepare(cx, &key, round.takers, fx),
            None => self.ask(cx, &key, fx),
        }
    }

    /// Answers those whose clients have stopped to wait, and returns the others.
    fn expire(&mut self, cx: &Ctx<'_>, key: &Bytes, all: Vec<Waiting>, fx: &mut Effects<Registers>) -> Vec<Waiting> {
        let is_over = |taker: &Waiting| taker.until().is_some_and(|until| cx.now.mono >= until);
        let (over, left): (Vec<Waiting>, Vec<Waiting>) = all.into_iter().partition(is_over);
        let owners = cx.view.chosen.as_ref().map_or(0, |chosen| chosen.owners_of(key).current.len());
        let needed = majority(owners as u8);
        for taker in over {
            let refusal = match taker.proposed {
                true => Refusal::TimeoutUnknown { acked: 0, needed },
                false => Refusal::NoQuorum { answered: 0, needed },
            };
            self.tell(taker.who, Err(refusal), fx);
        }
        left
    }

    pub(super) fn end_round(&mut self, key: &Bytes, fx: &mut Effects<Registers>) {
        if let Some(hot) = self.keys.get(key) {
            self.rounds.remove(&hot.number);
            fx.disarm(Timer::Round(hot.number));
        }
    }

    pub(super) fn answer_reads(
        &mut self,
        key: &Bytes,
        takers: Vec<Waiting>,
        cell: &mut Cell,
        fx: &mut Effects<Registers>,
    ) {
        for mut taker in takers {
            taker.apply(cell);
            self.answer(key, taker, fx);
        }
    }

    pub(super) fn answer(&mut self, key: &Bytes, taker: Waiting, fx: &mut Effects<Registers>) {
        if taker.who == Who::Move {
            self.moved.push_back(key.clone());
        }
        let Some(answer) = taker.answer else { return };
        self.tell(taker.who, answer, fx);
    }

    fn tell(&mut self, who: Who, result: Result<Outcome, Refusal>, fx: &mut Effects<Registers>) {
        self.waiting -= 1;
        if let Who::Client { attempt: (op, attempt), .. } = who {
            // What was chosen is durable with a majority; a refusal promises nothing.
            fx.send_now(op.node, Msg::Answer { op, attempt, result });
        }
    }

    /// Another epoch is in force: no round of the one before counts any more. What this node does not own, others do.
    pub(super) fn on_epoch(&mut self, cx: &mut Ctx<'_>, fx: &mut Effects<Registers>) {
        let keys: Vec<Bytes> = self.keys.keys().cloned().collect();
        for key in keys {
            if is_atomic(cx, &key) {
                self.enter_atomic(cx, &key, fx);
                continue;
            }
            self.give_up_round(&key);
            self.end_round(&key, fx);
            let Some(hot) = self.keys.get_mut(&key) else { continue };
            (hot.rests, hot.outbid, hot.known) = (false, 0, None);
            // Moves belong to their epoch, and what is over is found again.
            let before = hot.waiting.len();
            hot.waiting.retain(|waiting| matches!(waiting.who, Who::Client { .. }));
            self.waiting -= before - hot.waiting.len();
            if cx.check_owner(cx.view.epoch(), &key).is_ok() {
                self.go_on(cx, &key, fx);
                continue;
            }
            hot.idle.take().map(|since| self.idle.remove(&since));
            let left = self.keys.remove(&key).map(|hot| hot.waiting).unwrap_or_default();
            for Waiting { who, proposed, .. } in left {
                let unknown = Refusal::TimeoutUnknown { acked: 0, needed: 0 };
                self.tell(who, Err(if proposed { unknown } else { Refusal::NotAnOwner }), fx);
            }
        }
    }

    /// This node slept: what was promised to it may long be promised to others.
    pub(super) fn forget_promised(&mut self) {
        self.keys.values_mut().for_each(|hot| (hot.promised, hot.known) = (None, None));
        self.idle.clear();
        self.keys.retain(|_, hot| hot.round.is_some() || !hot.waiting.is_empty() || hot.rests);
    }
}

impl Waiting {
    fn until(&self) -> Option<Instant> {
        match self.who {
            Who::Client { until, .. } => Some(until),
            Who::Move | Who::Expiry => None,
        }
    }

    /// If it was certainly not carried out up to this version of the register, notes that. Only of a content that is chosen.
    fn look_through(&mut self, chosen: &Cell) {
        if let Ask::Change { name, seen, .. } = &mut self.ask
            && chosen.has_not(*name, *seen)
        {
            *seen = chosen.version().max(*seen);
        }
    }

    /// Whether so much is forgotten in a content that was chosen that nobody can know any more whether it was carried out.
    fn is_expired(&self, chosen: &Cell) -> Option<Refusal> {
        let Ask::Change { name, seen, .. } = &self.ask else { return None };
        chosen.is_forgotten(*name, *seen).then(|| Refusal::SessionExpired { version: chosen.version() })
    }

    /// Acts on the content, and notes what it is to be told.
    fn apply(&mut self, cell: &mut Cell) {
        let Ask::Change { name, seen, change } = &self.ask else {
            self.answer = Some(Ok(Outcome::Read {
                value: cell.value().cloned(),
                version: cell.version(),
                expires: cell.expires(),
            }));
            return;
        };
        let request = Request { name: *name, seen: *seen, change: change.clone() };
        let changed = |done: Done| Ok(Outcome::Changed { name: *name, version: done.version, number: done.number });
        self.answer = Some(match cell.apply(&request) {
            Applied::Next(next, done) => {
                *cell = next;
                self.proposed = true;
                changed(done)
            }
            Applied::Before(done) => changed(done),
            Applied::Not(NotDone::SessionExpired) if self.proposed => {
                Err(Refusal::TimeoutUnknown { acked: 0, needed: 0 })
            }
            Applied::Not(NotDone::SessionExpired) => Err(Refusal::SessionExpired { version: cell.version() }),
            Applied::Not(NotDone::Conflict { version }) => Err(Refusal::Conflict { version }),
            Applied::Not(NotDone::NotANumber) => Err(Refusal::NotANumber),
            Applied::Not(NotDone::TooLarge) => Err(Refusal::TooLarge { limit: limits::VALUE_BYTES as u32 }),
        });
    }
}

/// A majority of the owners of now and, while they change, of those to come.
fn quorum(chosen: &crate::view::Chosen, key: &[u8]) -> Option<Tally> {
    let owners = chosen.owners_of(key);
    if planted(Mutant::JointReadFromOld) || planted(Mutant::JointWriteToOld) {
        return Some(Tally::new(owners.current.iter().copied(), majority(owners.current.len() as u8)));
    }
    owners.quorum(Level::Majority)
}

fn is_recovering(cx: &Ctx<'_>) -> bool {
    cx.view.chosen.as_ref().is_some_and(|chosen| chosen.config.recovers.is_some())
}

/// Ballots and versions of a cluster that was recovered lie above all that the old one could count to.
fn base(cx: &Ctx<'_>) -> u64 {
    cx.view.epoch().0 >> 32 << 32
}

fn counted(
    key: &Bytes,
    attempt: &Proposer<Cell>,
    phase: Phase,
    (from, ballot): (NodeId, Ballot),
    fx: &mut Effects<Registers>,
) {
    let tally = attempt.tally();
    if attempt.ballot() == ballot && tally.answered().contains(&from) {
        let (have, needed) = (tally.have(), tally.needed());
        fx.trace(|| Event::Counted { key: key.clone(), phase, from, have, needed });
    }
}

//! Rounds on registers of namespaces of mode *atomic*: the same owners, records and moves, and no consensus.
//!
//! The node that a client asked runs them itself, whether it owns the register or not: only it may send a write again,
//! with the timestamp that it has chosen, for under another one the write would take place twice. So such a round also
//! lives on from one epoch to the next, while a question merely begins anew.
//!
//! ```text
//!   takers wait ──▶ Querying ── a majority agrees, only reads ──▶ answered
//!                      └──▶ Keeping: what is there, or, with a timestamp above it, what the takers make of it ──▶ answered
//! ```

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::proposer::{Proposers, Round, Waiting, Work};
use super::{Ask, Event, Msg, Outcome, Phase, Registers, Store};
use crate::abd::{Found, Query};
use crate::bytes::Bytes;
use crate::cell::{Cell, Change, Expiry, When};
use crate::id::{Epoch, NodeId};
use crate::mutant::{Mutant, planted};
use crate::namespace::Mode;
use crate::paxos::{Accepted, Ballot};
use crate::protocol::{Ctx, Effects};
use crate::quorum::{Level, Tally};
use crate::view::Chosen;

/// Whether a register is of such a namespace.
pub(super) fn is_atomic(cx: &Ctx<'_>, key: &[u8]) -> bool {
    let mode = cx.view.chosen.as_ref().map(|chosen| chosen.config.namespaces.mode_of(key, Mode::Consensus));
    mode == Some(Ok(Mode::Atomic))
}

/// Whether it can be done without consensus: what does not depend on what is there. Whether a request has been carried out
/// before does, so none is taken that its client may send again under the same name.
pub(super) fn can_do(ask: &Ask, is_named: bool) -> bool {
    match ask {
        Ask::Read => true,
        Ask::Change { change: Change::Put { when: When::Always, expiry: Expiry::Never, .. }, .. }
        | Ask::Change { change: Change::Delete { when: When::Always }, .. } => !is_named,
        Ask::Change { .. } => false,
    }
}

impl Proposers {
    /// Begins a round: asks what there is.
    pub(super) fn query(&mut self, cx: &Ctx<'_>, key: &Bytes, takers: Vec<Waiting>, fx: &mut Effects<Registers>) {
        let Some(chosen) = &cx.view.chosen else { return };
        let Some(quorum) = queried(chosen, key) else { return };
        let Some(hot) = self.keys.get_mut(key) else { return };
        let (owners, needed, round) = (quorum.silent().collect(), quorum.needed(), hot.number);
        fx.trace(|| Event::Reading { key: key.clone(), round, owners, needed });
        hot.round = Some(Round { takers, work: Work::Querying(Query::new(quorum)), refused: BTreeSet::new() });
        self.ask(cx, key, fx);
    }

    pub(super) fn on_queried(
        &mut self,
        cx: &mut Ctx<'_>,
        from: NodeId,
        key: &Bytes,
        held: Accepted<Cell>,
        fx: &mut Effects<Registers>,
    ) {
        if held.as_ref().is_some_and(|(timestamp, _)| !self.hear(*timestamp)) {
            return;
        }
        let Some(hot) = self.keys.get_mut(key) else { return };
        let Some(Round { work: Work::Querying(query), .. }) = &mut hot.round else { return };
        let found = query.on_report(from, held);
        let (have, needed) = query.progress();
        fx.trace(|| Event::Counted { key: key.clone(), phase: Phase::Reading, from, have, needed });
        let Some(Found { newest, agree }) = found else { return };
        let Some(round) = hot.round.take() else { return };
        if !agree || round.takers.iter().any(|taker| taker.ask != Ask::Read) {
            return self.keep(cx, key, round.takers, newest, fx);
        }
        let mut cell = newest.map(|(_, cell)| cell).unwrap_or_default();
        fx.trace(|| Event::Agreed { key: key.clone(), version: cell.version() });
        self.end_round(key, fx);
        self.answer_reads(key, round.takers, &mut cell, fx);
        self.go_on(cx, key, fx);
    }

    /// Has a majority store what there is, or what the takers make of it.
    fn keep(
        &mut self,
        cx: &Ctx<'_>,
        key: &Bytes,
        mut takers: Vec<Waiting>,
        newest: Accepted<Cell>,
        fx: &mut Effects<Registers>,
    ) {
        let writes = takers.iter().any(|taker| taker.ask != Ask::Read);
        let (timestamp, cell) = match newest {
            Some((timestamp, cell)) if !writes => (timestamp, cell),
            newest => {
                if planted(Mutant::TimestampTooLow) {
                    self.counter = newest.as_ref().map_or(0, |(_, cell)| cell.version().saturating_sub(1));
                }
                (self.next_ballot(cx), newest.map(|(_, cell)| cell).unwrap_or_default())
            }
        };
        let cell = takers.iter_mut().fold(cell, |cell, taker| taker.write(cell, timestamp.counter));
        let Some(kept) = cx.view.chosen.as_ref().and_then(|chosen| chosen.owners_of(key).quorum(Level::Majority))
        else {
            return;
        };
        let (owners, needed, version) = (kept.silent().collect(), kept.needed(), cell.version());
        let requests = takers.len() as u16;
        fx.trace(|| {
            let (key, ballot, at_once) = (key.clone(), timestamp, false);
            Event::Proposed { key, ballot, owners, version, requests, at_once, needed }
        });
        let Some(hot) = self.keys.get_mut(key) else { return };
        hot.round = Some(Round { takers, work: Work::Keeping { timestamp, cell, kept }, refused: BTreeSet::new() });
        self.ask(cx, key, fx);
    }

    pub(super) fn on_kept(
        &mut self,
        cx: &mut Ctx<'_>,
        from: NodeId,
        key: &Bytes,
        ballot: Ballot,
        fx: &mut Effects<Registers>,
    ) {
        let Some(hot) = self.keys.get_mut(key) else { return };
        let Some(Round { work: Work::Keeping { timestamp, cell, kept }, .. }) = &mut hot.round else { return };
        if *timestamp != ballot || !kept.answer(from) {
            return;
        }
        let (have, needed, version) = (kept.have(), kept.needed(), cell.version());
        fx.trace(|| Event::Counted { key: key.clone(), phase: Phase::Accepting, from, have, needed });
        if !kept.reached() {
            return;
        }
        let Some(round) = hot.round.take() else { return };
        fx.trace(|| Event::Chosen { key: key.clone(), ballot, version });
        self.end_round(key, fx);
        for taker in round.takers {
            self.answer(key, taker, fx);
        }
        self.go_on(cx, key, fx);
    }

    /// Another epoch is in force. What is being stored has its timestamp, and is stored with the owners of now under that;
    /// what was only asked is asked anew.
    pub(super) fn enter_atomic(&mut self, cx: &mut Ctx<'_>, key: &Bytes, fx: &mut Effects<Registers>) {
        let owners = cx.view.chosen.as_ref().and_then(|chosen| chosen.owners_of(key).quorum(Level::Majority));
        let Some(hot) = self.keys.get_mut(key) else { return };
        if let (Some(Round { work: Work::Keeping { kept, .. }, .. }), Some(owners)) = (&mut hot.round, owners) {
            *kept = owners;
            return self.ask(cx, key, fx);
        }
        self.give_up_round(key);
        self.end_round(key, fx);
        self.go_on(cx, key, fx);
    }
}

impl Waiting {
    /// Acts on the content, which is of this version once it is changed, and notes what it is to be told.
    fn write(&mut self, cell: Cell, version: u64) -> Cell {
        let Ask::Change { name, change, .. } = &self.ask else {
            let (value, version) = (cell.value().cloned(), cell.version());
            self.answer = Some(Ok(Outcome::Read { value, version, expires: None }));
            return cell;
        };
        let value = if let Change::Put { value, .. } = change { Some(value.clone()) } else { None };
        self.proposed = true;
        self.answer = Some(Ok(Outcome::Changed { name: *name, version, number: None }));
        Cell::written(value, version)
    }
}

impl Store {
    /// Takes in what is newer than what it holds. What is not is answered as well: it has been replaced.
    pub(super) fn on_keep(
        &mut self,
        from: NodeId,
        (epoch, key): (Epoch, Bytes),
        (timestamp, cell): (Ballot, Cell),
        fx: &mut Effects<Registers>,
    ) {
        if !cell.is_sound() {
            return;
        }
        if self.update(&key, |acceptor| acceptor.keep(timestamp, cell)) {
            let acceptor = self.entry(&key).clone();
            fx.persist(super::Record::Register { key: key.clone(), acceptor });
        }
        fx.send(from, Msg::Holding { epoch, key, ballot: timestamp });
    }
}

/// Whether a node answers what a round of this epoch asks of a key: it owns it, or, of a lost majority, survives.
pub(super) fn answers(cx: &Ctx<'_>, epoch: Epoch, key: &[u8]) -> bool {
    let recovers = cx.view.chosen.as_ref().is_some_and(|chosen| chosen.config.recovers.is_some());
    cx.check_owner(epoch, key).is_ok() || (recovers && cx.check_epoch(epoch).is_ok() && cx.is_seated())
}

/// Who has to say what there is: a majority; of a lost one nobody knows who has what, and all survivors have to.
fn queried(chosen: &Chosen, key: &[u8]) -> Option<Tally> {
    let majority = chosen.owners_of(key).quorum(Level::Majority)?;
    if chosen.config.recovers.is_none() {
        return Some(majority);
    }
    let survivors: Vec<NodeId> = chosen.config.storage().collect();
    let all = survivors.len() as u8;
    Some(majority.and(survivors, all))
}

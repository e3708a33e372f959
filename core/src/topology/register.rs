//! The decision what follows an epoch: the voters' side and the proposer's.
//!
//! One round of Paxos per epoch. Who has adopted the successor answers every question about its predecessor with the
//! successor itself, so of all rounds only the newest needs its acceptor kept.

use alloc::boxed::Box;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::{Event, Msg, Record, Timer, Topology, announce};
use crate::cluster::ClusterConfig;
use crate::id::{Epoch, NodeId, OpId};
use crate::mutant::{Mutant, planted};
use crate::paxos::{Accepted, Acceptor, Ballot, Next, Proposer};
use crate::protocol::{Ctx, Effects};
use crate::quorum::{Tally, majority};
use crate::refusal::Refusal;
use crate::time::Duration;

/// An attempt that has led to nothing is followed by the next after this, and more each time.
const PATIENCE: Duration = Duration::millis(400);
/// At most after this many times as long.
const PATIENCE_MAX: u64 = 8;
/// How far a ballot's counter may be ahead of all heard of before. Beyond, it is nonsense and is refused unheard.
const AHEAD: u64 = 1 << 20;

/// What is decided: a configuration, on the heap, for it is large beside everything else that nodes say.
pub(super) type Value = Box<ClusterConfig>;

/// A voter's durable state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Vote {
    /// Whose successor it is about.
    pub epoch: Epoch,
    /// Promised and accepted.
    pub acceptor: Acceptor<Value>,
}

/// What one node does about the successor of its epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Register {
    vote: Vote,
    proposal: Option<Proposal>,
    /// The highest ballot counter used or heard of.
    counter: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Proposal {
    attempt: Proposer<Value>,
    wanted: ClusterConfig,
    /// Requests that are answered by how this ends.
    askers: Vec<OpId>,
    attempts: u64,
}

impl Register {
    /// A later epoch: nothing that was promised about an earlier one matters any more.
    pub(super) fn enter(&mut self, epoch: Epoch) {
        if self.vote.epoch < epoch {
            self.vote = Vote { epoch, acceptor: Acceptor::default() };
        }
    }

    pub(super) fn restore(&mut self, vote: Vote) {
        if self.vote.epoch <= vote.epoch {
            self.counter = self.counter.max(vote.acceptor.promised().counter);
            self.vote = vote;
        }
    }

    /// The node takes no part any more; whoever waits hears nothing.
    pub(super) fn forget(&mut self, fx: &mut Effects<Topology>) {
        fx.disarm(Timer::Retry);
        (self.proposal, self.vote) = (None, Vote::default());
    }

    pub(super) fn is_proposing(&self) -> bool {
        self.proposal.is_some()
    }
}

impl Topology {
    /// Wants this configuration to follow the one in force.
    pub(super) fn propose(
        &mut self,
        cx: &mut Ctx<'_>,
        wanted: ClusterConfig,
        askers: Vec<OpId>,
        fx: &mut Effects<Self>,
    ) {
        self.attempt(cx, wanted, askers, 1, fx);
    }

    /// A new attempt under a ballot that was never used.
    fn attempt(
        &mut self,
        cx: &mut Ctx<'_>,
        wanted: ClusterConfig,
        askers: Vec<OpId>,
        attempts: u64,
        fx: &mut Effects<Self>,
    ) {
        let Some(config) = &self.chosen else { return };
        self.register.counter += 1;
        let ballot = Ballot { counter: self.register.counter, node: cx.me, generation: cx.generation };
        let promises = quorum(cx, config.promises());
        let (epoch, voters, needed) = (config.epoch, promises.silent().collect::<Vec<_>>(), promises.needed());
        fx.trace(|| Event::Prepared { epoch, ballot, voters: voters.clone(), needed });
        // The boot's generation is in the ballot and was durable before anything left: no crash can lead to it again.
        fx.send_all_now(voters, Msg::Prepare { epoch, ballot });
        let attempt = Proposer::new(ballot, promises);
        self.register.proposal = Some(Proposal { attempt, wanted, askers, attempts });
        let patience = PATIENCE.times(attempts.min(PATIENCE_MAX));
        fx.arm(patience + cx.rng.between(Duration::ZERO, patience), Timer::Retry);
    }

    /// The attempt under way has taken too long.
    pub(super) fn retry(&mut self, cx: &mut Ctx<'_>, fx: &mut Effects<Self>) {
        let Some(Proposal { wanted, askers, attempts, .. }) = self.register.proposal.take() else { return };
        let is_voter = self.chosen.as_ref().is_some_and(|config| config.current.voters.contains(&cx.me));
        if is_voter {
            self.attempt(cx, wanted, askers, attempts + 1, fx);
        }
    }

    /// The voter's side of phase 1.
    pub(super) fn on_prepare(
        &mut self,
        cx: &Ctx<'_>,
        from: NodeId,
        epoch: Epoch,
        ballot: Ballot,
        fx: &mut Effects<Self>,
    ) {
        let is_voter = |config: &ClusterConfig| config.current.voters.contains(&cx.me);
        if !self.may_vote(cx, from, epoch, ballot, is_voter) {
            return;
        }
        let before = self.register.vote.clone();
        match self.register.vote.acceptor.prepare(ballot) {
            Ok(accepted) => {
                self.keep_vote(&before, fx);
                fx.send(from, Msg::Promise { epoch, ballot, accepted });
            }
            // A refusal promises nothing.
            Err(promised) => fx.send_now(from, Msg::Refused { epoch, ballot, promised }),
        }
    }

    /// The voter's side of phase 2. Voters to come accept as well what completes their change.
    pub(super) fn on_accept(
        &mut self,
        cx: &Ctx<'_>,
        from: NodeId,
        (epoch, ballot): (Epoch, Ballot),
        config: Value,
        fx: &mut Effects<Self>,
    ) {
        let follows = |mine: &ClusterConfig| {
            (mine.allows(&config) || planted(Mutant::OneStepChange)) && mine.accepts(&config).asks(cx.me)
        };
        if !self.may_vote(cx, from, epoch, ballot, follows) {
            return;
        }
        let before = self.register.vote.clone();
        match self.register.vote.acceptor.accept(ballot, config) {
            Ok(()) => {
                self.keep_vote(&before, fx);
                fx.send(from, Msg::Accepted { epoch, ballot });
            }
            // A refusal accepts nothing.
            Err(promised) => fx.send_now(from, Msg::Refused { epoch, ballot, promised }),
        }
    }

    /// Whether a question about this epoch is one that this node answers: it is in that very epoch, has a vote there
    /// and the storage that the vote was given to, and the ballot is its proposer's own.
    fn may_vote(
        &mut self,
        cx: &Ctx<'_>,
        from: NodeId,
        epoch: Epoch,
        ballot: Ballot,
        has_vote: impl FnOnce(&ClusterConfig) -> bool,
    ) -> bool {
        let Some(config) = &self.chosen else { return false };
        let proposes = config.current.voters.contains(&from) && ballot.node == from;
        let near = ballot.counter <= self.register.counter.saturating_add(AHEAD);
        let votes = epoch == config.epoch && proposes && near && has_vote(config);
        let seated = cx.is_seated();
        if votes && seated {
            self.register.counter = self.register.counter.max(ballot.counter);
        }
        votes && seated
    }

    fn keep_vote(&self, before: &Vote, fx: &mut Effects<Self>) {
        if *before != self.register.vote && !planted(Mutant::PromiseNotPersisted) {
            fx.persist(Record::Vote(self.register.vote.clone()));
        }
    }

    pub(super) fn on_promise(
        &mut self,
        cx: &mut Ctx<'_>,
        from: NodeId,
        (epoch, ballot): (Epoch, Ballot),
        accepted: Accepted<Value>,
        fx: &mut Effects<Self>,
    ) {
        let Some(config) = self.chosen.as_ref().filter(|config| config.epoch == epoch) else { return };
        let Some(proposal) = &mut self.register.proposal else { return };
        // What an acceptor reports can only be what may follow; anything else would be a lie.
        if accepted.as_ref().is_some_and(|(_, value)| !config.allows(value) && !planted(Mutant::OneStepChange)) {
            return;
        }
        let next = proposal.attempt.on_promise(from, ballot, accepted);
        counted(&proposal.attempt, ballot, from, fx);
        let Next::Propose(seen) = next else { return };
        let seen = seen.filter(|_| !planted(Mutant::AcceptedIgnored));
        let inherited = seen.is_some();
        let value = seen.map_or_else(|| Box::new(proposal.wanted.clone()), |(_, value)| value);
        let accepts = quorum(cx, config.accepts(&value));
        let (voters, needed) = (accepts.silent().collect::<Vec<_>>(), accepts.needed());
        proposal.attempt.propose(value.clone(), accepts);
        fx.trace(|| {
            let (config, voters) = (ClusterConfig::clone(&value), voters.clone());
            Event::Proposed { ballot, config, inherited, voters, needed }
        });
        // The promises that allow it are durable with their acceptors.
        fx.send_all_now(voters, Msg::Accept { epoch, ballot, config: value });
    }

    pub(super) fn on_accepted(
        &mut self,
        cx: &mut Ctx<'_>,
        from: NodeId,
        epoch: Epoch,
        ballot: Ballot,
        fx: &mut Effects<Self>,
    ) {
        if self.chosen.as_ref().is_none_or(|config| config.epoch != epoch) {
            return;
        }
        let Some(proposal) = &mut self.register.proposal else { return };
        let next = proposal.attempt.on_accepted(from, ballot);
        counted(&proposal.attempt, ballot, from, fx);
        let Next::Chosen(config) = next else { return };
        let config = *config;
        let epoch = config.epoch;
        fx.trace(|| Event::Chosen { ballot, epoch });
        self.adopt(cx, config.clone(), fx);
        announce(cx, &config, fx);
    }

    pub(super) fn on_refused(
        &mut self,
        cx: &mut Ctx<'_>,
        from: NodeId,
        (epoch, ballot): (Epoch, Ballot),
        promised: Ballot,
        fx: &mut Effects<Self>,
    ) {
        let Some(config) = self.chosen.as_ref().filter(|config| config.epoch == epoch) else { return };
        let known = config.votes(from) && promised.counter <= self.register.counter.saturating_add(AHEAD);
        let Some(proposal) = self.register.proposal.as_ref().filter(|p| p.attempt.ballot() == ballot && known) else {
            return;
        };
        let attempts = proposal.attempts;
        if promised > ballot {
            fx.trace(|| Event::Outbid { ballot, from, promised });
            self.register.counter = self.register.counter.max(promised.counter);
            // Whoever is ahead gets time to finish; who comes back first is left to chance, lest two go on outbidding.
            let patience = PATIENCE.times(attempts.min(PATIENCE_MAX));
            fx.arm(cx.rng.between(Duration::millis(50), patience), Timer::Retry);
        }
    }

    /// An epoch has begun: the requests that wait for it are answered. What they asked for was chosen or, as one epoch
    /// has one successor, never will be.
    pub(super) fn settle_proposal(&mut self, config: &ClusterConfig, fx: &mut Effects<Self>) {
        let Some(Proposal { wanted, askers, .. }) = self.register.proposal.take() else { return };
        fx.disarm(Timer::Retry);
        let epoch = config.epoch;
        let result = if wanted == *config { Ok(epoch) } else { Err(Refusal::ConfigChangeInProgress { epoch }) };
        for op in askers {
            fx.send(op.node, Msg::Changed { op, result: result.clone() });
        }
    }
}

/// The quorum as it is counted; with a mistake planted, of whoever gossip holds alive.
fn quorum(cx: &Ctx<'_>, tally: Tally) -> Tally {
    if !planted(Mutant::VotersFromGossip) {
        return tally;
    }
    let alive: Vec<NodeId> = tally.silent().filter(|&node| node == cx.me || cx.view.seems_alive(node)).collect();
    let needed = majority(alive.len() as u8);
    Tally::new(alive, needed)
}

fn counted(attempt: &Proposer<Value>, ballot: Ballot, from: NodeId, fx: &mut Effects<Topology>) {
    let tally = attempt.tally();
    if attempt.ballot() == ballot && tally.answered().contains(&from) {
        let (have, needed) = (tally.have(), tally.needed());
        fx.trace(|| Event::Counted { ballot, from, have, needed });
    }
}

//! One register: its voters, two proposers, every order of promises, refusals, acceptances and second attempts.
//!
//! Voters and proposers are the core's own [`Acceptor`] and [`Proposer`], and every quorum is one that a
//! [`ClusterConfig`] asks for. What is decided is what follows that configuration: a change that begins, where each
//! attempt wants another, or whether the change under way is completed or given up.
//!
//! ```text
//!   proposer ── Prepare(b) ──▶ voter ── Promise(b, accepted) ──▶ proposer      a quorum promised: Accept(b, value)
//!   proposer ── Accept(b, value) ──▶ voter ── Accepted(b) ──▶ proposer         a quorum accepted: chosen
//! ```
//!
//! **Invariant.** In all ballots together no two values are chosen, whether by what voters have accepted or by what a
//! proposer makes of their answers; what a proposer takes for chosen is; no voter promises less than it has accepted.
//!
//! **Bounds**: three voters and up to two attempts of each proposer, the second at any time, under a counter above all
//! that its proposer has heard of; or three voters of now and three to come, four or five in all, and one attempt each.
//! Whatever proposers have sent is delivered at any time, again, or never. An answer counts at once, or never: what
//! a proposer does with it is to send more, which may be late by itself, or to believe something. A voter answers once
//! its state is durable, so a crash changes nothing, and is no step but in the twin whose promises are not kept. What
//! cannot change anything any more is taken from the network.
//!
//! **Not here**: when a proposer tries again, whom it asks first, and how what was chosen gets around.

use std::collections::BTreeSet;

use qunlong_core::cluster::ClusterConfig;
use qunlong_core::paxos::{Acceptor, Ballot, Next, Proposer};
use qunlong_core::quorum::Tally;
use qunlong_core::{ClusterId, Generation, NodeId};
use stateright::{Model, Property};

use super::{prove, refute, roster};

const PROPOSERS: [NodeId; 2] = [NodeId::small(1), NodeId::small(2)];

const ONE: &str = "no two values are chosen";
const TRUE: &str = "what a proposer takes for chosen is chosen";
const PROMISED: &str = "no voter promises less than it has accepted";

/// A mistake that the model makes on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    None,
    /// A voter's promise is not durable, and a crash forgets it.
    PromiseForgotten,
    /// A proposer proposes its own value, whatever the promises say.
    AcceptedIgnored,
    /// A proposer takes over what any promise reports, and not what was accepted under the highest ballot.
    AnyReportTaken,
    /// The second attempt goes under the ballot of the first.
    BallotReused,
    /// One promise is enough.
    MinorityPromises,
    /// A voter accepts a ballot below the one that it has promised.
    AcceptedBelowPromise,
    /// To complete a change, a majority of the voters to come is enough.
    CompletedByNew,
}

/// What may follow, by its place in [`Register::values`].
type Value = usize;

#[derive(Clone, Debug)]
struct Register {
    /// The configuration in force.
    config: ClusterConfig,
    /// What is to follow it, by attempt: those of the first proposer, then the other's.
    values: Vec<ClusterConfig>,
    voters: Vec<NodeId>,
    /// Of each proposer.
    attempts: usize,
    mistake: Mistake,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    /// In the order of [`Register::voters`].
    acceptors: Vec<Acceptor<Value>>,
    candidates: [Candidate; 2],
    network: BTreeSet<Message>,
    crashes: u8,
    /// All that was ever accepted, but for values that are known to be chosen.
    votes: BTreeSet<(Ballot, Value, NodeId)>,
    /// What a quorum has accepted.
    chosen: BTreeSet<Value>,
    /// What proposers take for chosen.
    told: BTreeSet<Value>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Candidate {
    attempt: Option<Proposer<Value>>,
    attempts: usize,
    /// The highest ballot counter used or heard of.
    counter: u64,
}

/// What proposers send to voters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Message {
    Prepare { ballot: Ballot },
    Accept { ballot: Ballot, value: Value },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// A proposer begins its next attempt.
    Begin(usize),
    /// A voter is asked.
    Ask(usize, Message),
    /// A voter is asked, and its answer is lost.
    AskInVain(usize, Message),
    Crash(usize),
}

impl Register {
    /// What is to follow a settled configuration: each attempt wants another voter added.
    fn settled(attempts: usize, mistake: Mistake) -> Self {
        let config = ClusterConfig::first(ClusterId([1; 16]), 3, roster(&[1, 2, 3]));
        let newcomers = (4..).take(PROPOSERS.len() * attempts);
        let values = newcomers.map(|newcomer| config.begin(roster(&[1, 2, 3, newcomer]))).collect();
        Self::new(config, values, attempts, mistake)
    }

    /// A change is under way: one proposer would complete it, the other give it up.
    fn joint(next: &[u8], mistake: Mistake) -> Self {
        let config = ClusterConfig::first(ClusterId([1; 16]), 3, roster(&[1, 2, 3])).begin(roster(next));
        let values = [config.complete(), config.abort()].map(|value| value.expect("it is joint")).into();
        Self::new(config, values, 1, mistake)
    }

    fn new(config: ClusterConfig, values: Vec<ClusterConfig>, attempts: usize, mistake: Mistake) -> Self {
        assert!(values.iter().all(|value| config.allows(value)));
        let voters: BTreeSet<NodeId> = config.rosters().flat_map(|roster| roster.voters.iter().copied()).collect();
        Self { config, values, voters: voters.into_iter().collect(), attempts, mistake }
    }

    fn promises(&self) -> Tally {
        if self.mistake == Mistake::MinorityPromises {
            return Tally::new(self.config.current.voters.iter().copied(), 1);
        }
        self.config.promises()
    }

    fn accepts(&self, value: Value) -> Tally {
        let value = &self.values[value];
        match &self.config.next {
            Some(next) if self.mistake == Mistake::CompletedByNew && value.current == *next => {
                Tally::new(next.voters.iter().copied(), next.majority())
            }
            _ => self.config.accepts(value),
        }
    }

    /// Whether a message is for this voter.
    fn is_asked(&self, voter: NodeId, message: Message) -> bool {
        match message {
            Message::Prepare { .. } => self.promises().asks(voter),
            Message::Accept { value, .. } => self.accepts(value).asks(voter),
        }
    }

    fn begin(&self, world: &mut World, n: usize) -> Option<()> {
        let candidate = &mut world.candidates[n];
        if candidate.attempts == self.attempts {
            return None;
        }
        let reuses = self.mistake == Mistake::BallotReused && candidate.attempts > 0;
        candidate.counter += u64::from(!reuses);
        candidate.attempts += 1;
        let ballot = Ballot { counter: candidate.counter, node: PROPOSERS[n], generation: Generation(1) };
        candidate.attempt = Some(Proposer::new(ballot, self.promises()));
        world.network.insert(Message::Prepare { ballot });
        Some(())
    }

    /// A voter is asked, and the proposer hears its answer or does not.
    fn ask(&self, world: &mut World, n: usize, message: Message, heard: bool) -> Option<()> {
        let from = self.voters[n];
        if !self.is_asked(from, message) {
            return None;
        }
        let (ballot, next) = match message {
            Message::Prepare { ballot } => {
                let promise = world.acceptors[n].prepare(ballot);
                let attempt = world.attempt(ballot).filter(|_| heard);
                let next = match (promise, attempt) {
                    (Ok(accepted), Some(attempt)) => {
                        let levelled = accepted.map(|(_, value)| (Ballot { counter: 1, ..ballot }, value));
                        let levels = self.mistake == Mistake::AnyReportTaken;
                        Ok(attempt.on_promise(from, ballot, if levels { levelled } else { accepted }))
                    }
                    (promise, _) => promise.map(|_| Next::Wait),
                };
                (ballot, next)
            }
            Message::Accept { ballot, value } => {
                let accepted = self.accept(&mut world.acceptors[n], ballot, value);
                if world.acceptors[n].accepted() == Some((ballot, &value)) {
                    self.vote(world, (ballot, value, from));
                }
                let attempt = world.attempt(ballot);
                (ballot, accepted.map(|()| attempt.map_or(Next::Wait, |attempt| attempt.on_accepted(from, ballot))))
            }
        };
        match next {
            Ok(Next::Wait) => (),
            Ok(Next::Propose(seen)) => {
                let seen = seen.filter(|_| self.mistake != Mistake::AcceptedIgnored);
                let own = self.own(world, ballot)?;
                let value = seen.map_or(own, |(_, value)| value);
                world.attempt(ballot)?.propose(value, self.accepts(value));
                world.network.insert(Message::Accept { ballot, value });
            }
            Ok(Next::Chosen(value)) => {
                world.told.insert(value);
            }
            Err(promised) if heard => {
                let candidate = world.candidate(ballot)?;
                candidate.counter = candidate.counter.max(promised.counter);
            }
            Err(_) => (),
        }
        Some(())
    }

    fn accept(&self, acceptor: &mut Acceptor<Value>, ballot: Ballot, value: Value) -> Result<(), Ballot> {
        let accepted = acceptor.accepted().map(|(accepted, _)| accepted);
        match acceptor.accept(ballot, value) {
            Err(promised) if self.mistake == Mistake::AcceptedBelowPromise && accepted < Some(ballot) => {
                *acceptor = Acceptor::default();
                acceptor.accept(ballot, value)?;
                acceptor.prepare(promised).map(|_| ())
            }
            result => result,
        }
    }

    fn vote(&self, world: &mut World, vote: (Ballot, Value, NodeId)) {
        let (ballot, value, _) = vote;
        if world.chosen.contains(&value) {
            return;
        }
        world.votes.insert(vote);
        let mut tally = self.accepts(value);
        for &(_, _, from) in world.votes.iter().filter(|vote| (vote.0, vote.1) == (ballot, value)) {
            tally.answer(from);
        }
        if tally.reached() {
            world.chosen.insert(value);
            world.votes.retain(|vote| vote.1 != value);
        }
    }

    /// What an attempt proposes if nothing was accepted before.
    fn own(&self, world: &World, ballot: Ballot) -> Option<Value> {
        let n = PROPOSERS.iter().position(|&proposer| proposer == ballot.node)?;
        world.candidates[n].attempts.checked_sub(1).map(|attempt| n * self.attempts + attempt)
    }

    /// Takes from the network what cannot change anything any more.
    fn clear(&self, world: &mut World) {
        // A voter that forgets can be asked again.
        if world.crashes > 0 {
            return;
        }
        let World { network, acceptors, candidates, .. } = world;
        let waits = |voter: NodeId, ballot: Ballot, accepting: bool| {
            candidates.iter().filter_map(|candidate| candidate.attempt.as_ref()).any(|attempt| {
                let phase = attempt.ballot() == ballot && attempt.proposed().is_some() == accepting;
                let tally = attempt.tally();
                phase && !tally.reached() && !tally.answered().contains(&voter)
            })
        };
        let learns = |ballot: Ballot, promised: Ballot| {
            candidates.iter().any(|candidate| {
                let is_current = candidate.attempt.as_ref().is_some_and(|attempt| attempt.ballot() == ballot);
                is_current && candidate.attempts < self.attempts && promised.counter > candidate.counter
            })
        };
        network.retain(|&message| {
            let asked = self.voters.iter().zip(&*acceptors).filter(|(voter, _)| self.is_asked(**voter, message));
            asked.into_iter().any(|(&voter, acceptor)| {
                let promised = acceptor.promised();
                match message {
                    Message::Prepare { ballot } if promised == ballot => waits(voter, ballot, false),
                    Message::Accept { ballot, .. } if promised == ballot => true,
                    Message::Prepare { ballot } | Message::Accept { ballot, .. } => {
                        promised < ballot || learns(ballot, promised) || self.mistake == Mistake::AcceptedBelowPromise
                    }
                }
            })
        });
    }
}

impl World {
    fn candidate(&mut self, ballot: Ballot) -> Option<&mut Candidate> {
        let is_current =
            |candidate: &&mut Candidate| candidate.attempt.as_ref().is_some_and(|attempt| attempt.ballot() == ballot);
        self.candidates.iter_mut().find(is_current)
    }

    /// The attempt of this ballot, if it is its proposer's last.
    fn attempt(&mut self, ballot: Ballot) -> Option<&mut Proposer<Value>> {
        self.candidate(ballot)?.attempt.as_mut()
    }
}

impl Model for Register {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let acceptors = vec![Acceptor::default(); self.voters.len()];
        let (votes, chosen, told) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let crashes = u8::from(self.mistake == Mistake::PromiseForgotten);
        let (candidates, network) = (Default::default(), BTreeSet::new());
        vec![World { acceptors, candidates, network, crashes, votes, chosen, told }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        let voters = || 0..self.voters.len();
        actions.extend((0..PROPOSERS.len()).map(Action::Begin));
        for &message in &world.network {
            actions.extend(voters().map(|n| Action::Ask(n, message)));
            if matches!(message, Message::Prepare { .. }) {
                actions.extend(voters().map(|n| Action::AskInVain(n, message)));
            }
        }
        if world.crashes > 0 {
            actions.extend(voters().map(Action::Crash));
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        match action {
            Action::Begin(n) => self.begin(&mut world, n)?,
            Action::Ask(n, message) => self.ask(&mut world, n, message, true)?,
            Action::AskInVain(n, message) => self.ask(&mut world, n, message, false)?,
            Action::Crash(n) => {
                world.crashes -= 1;
                let mut durable = Acceptor::default();
                if let Some((ballot, &value)) = world.acceptors[n].accepted() {
                    durable.accept(ballot, value).expect("nothing was promised");
                }
                world.acceptors[n] = durable;
            }
        }
        self.clear(&mut world);
        (world != *last).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONE, |_: &Self, world: &World| world.chosen.union(&world.told).count() <= 1),
            Property::always(TRUE, |_: &Self, world: &World| world.told.is_subset(&world.chosen)),
            Property::always(PROMISED, |_: &Self, world: &World| {
                let accepted = |acceptor: &Acceptor<Value>| acceptor.accepted().map(|(ballot, _)| ballot);
                world.acceptors.iter().all(|acceptor| accepted(acceptor) <= Some(acceptor.promised()))
            }),
            Property::sometimes("both proposers learn what was chosen", |_: &Self, world: &World| {
                let knows = |attempt: &Proposer<Value>| attempt.proposed().is_some() && attempt.tally().reached();
                world.candidates.iter().all(|candidate| candidate.attempt.as_ref().is_some_and(knows))
            }),
            Property::sometimes("an attempt takes over the other proposer's value", |model: &Self, world: &World| {
                world.candidates.iter().enumerate().any(|(n, candidate)| {
                    let proposed = candidate.attempt.as_ref().and_then(|attempt| attempt.proposed().copied());
                    proposed.is_some_and(|value| value / model.attempts != n)
                })
            }),
            Property::sometimes("an attempt is refused by all who have not answered", |_: &Self, world: &World| {
                world.candidates.iter().filter_map(|candidate| candidate.attempt.as_ref()).any(|attempt| {
                    let outbid = world.acceptors.iter().filter(|acceptor| acceptor.promised() > attempt.ballot());
                    outbid.count() == world.acceptors.len() - attempt.tally().answered().len()
                })
            }),
        ]
    }
}

fn settled(attempts: usize, at_least: usize) {
    prove(Register::settled(attempts, Mistake::None), at_least);
}

fn joint(next: &[u8], at_least: usize) {
    prove(Register::joint(next, Mistake::None), at_least);
}

#[test]
fn two_attempts_of_each_proposer_choose_one_value() {
    settled(2, 100_000);
}

#[test]
fn a_change_is_completed_or_given_up_and_never_both() {
    joint(&[2, 3, 4], 1_000);
    joint(&[3, 4, 5], 3_000);
}

#[test]
fn a_promise_that_a_crash_forgets_is_none() {
    refute(Register::settled(1, Mistake::PromiseForgotten), ONE);
}

#[test]
fn what_was_accepted_must_be_proposed_again() {
    refute(Register::settled(1, Mistake::AcceptedIgnored), ONE);
}

#[test]
fn only_what_the_highest_ballot_has_may_have_been_chosen() {
    refute(Register::settled(2, Mistake::AnyReportTaken), ONE);
}

#[test]
fn a_ballot_must_not_carry_two_values() {
    refute(Register::settled(2, Mistake::BallotReused), ONE);
    refute(Register::settled(2, Mistake::BallotReused), TRUE);
}

#[test]
fn promises_of_a_minority_miss_what_was_chosen() {
    refute(Register::settled(1, Mistake::MinorityPromises), ONE);
}

#[test]
fn what_was_promised_must_be_kept() {
    refute(Register::settled(1, Mistake::AcceptedBelowPromise), ONE);
}

#[test]
fn the_voters_to_come_cannot_complete_their_change_alone() {
    refute(Register::joint(&[3, 4, 5], Mistake::CompletedByNew), ONE);
}

//! The asking side of a register: one attempt, from Prepare to chosen.

use super::{Accepted, Ballot};
use crate::id::NodeId;
use crate::quorum::Tally;

/// One attempt under one ballot. Never used for a second value: who is refused takes a new ballot and a new attempt.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Proposer<V> {
    ballot: Ballot,
    phase: Phase<V>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase<V> {
    Preparing { promises: Tally, highest: Accepted<V> },
    Accepting { accepts: Tally, value: V },
}

/// What an answer has led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next<V> {
    /// More answers are needed.
    Wait,
    /// A quorum has promised. This is what it has accepted under the highest ballot, `None` where nothing was: the
    /// proposer now calls [`Proposer::propose`].
    Propose(Accepted<V>),
    /// A quorum has accepted.
    Chosen(V),
}

impl<V: Clone> Proposer<V> {
    /// Begins phase 1. `promises` is the quorum whose promises are needed.
    #[must_use]
    pub fn new(ballot: Ballot, promises: Tally) -> Self {
        Self { ballot, phase: Phase::Preparing { promises, highest: None } }
    }

    /// Begins phase 2 at once: a majority promised this ballot when it accepted `value`, or what `value` follows, of this
    /// very proposer ([`super::Acceptor::accept_and_promise`]).
    #[must_use]
    pub fn prepared(ballot: Ballot, value: V, accepts: Tally) -> Self {
        Self { ballot, phase: Phase::Accepting { accepts, value } }
    }

    /// The attempt's ballot.
    #[must_use]
    pub fn ballot(&self) -> Ballot {
        self.ballot
    }

    /// A promise came, with what its acceptor has accepted. Those of another ballot, of strangers, and of later than
    /// phase 1 count for nothing.
    pub fn on_promise(&mut self, from: NodeId, ballot: Ballot, accepted: Accepted<V>) -> Next<V> {
        let Phase::Preparing { promises, highest } = &mut self.phase else { return Next::Wait };
        if ballot != self.ballot || promises.reached() || !promises.answer(from) {
            return Next::Wait;
        }
        let is_higher = |(ballot, _): &(Ballot, V)| highest.as_ref().is_none_or(|(before, _)| before < ballot);
        if let Some(accepted) = accepted.filter(is_higher) {
            *highest = Some(accepted);
        }
        if promises.reached() { Next::Propose(highest.clone()) } else { Next::Wait }
    }

    /// Begins phase 2 with the value that the promises allow. `accepts` is the quorum that has to accept it.
    ///
    /// # Panics
    ///
    /// If phase 1 is not over, or phase 2 has begun: one ballot must not carry two values.
    pub fn propose(&mut self, value: V, accepts: Tally) {
        let ready = matches!(&self.phase, Phase::Preparing { promises, .. } if promises.reached());
        assert!(ready, "a value is proposed once, after a quorum has promised");
        self.phase = Phase::Accepting { accepts, value };
    }

    /// An acceptor accepted.
    pub fn on_accepted(&mut self, from: NodeId, ballot: Ballot) -> Next<V> {
        let Phase::Accepting { accepts, value } = &mut self.phase else { return Next::Wait };
        if ballot != self.ballot || accepts.reached() || !accepts.answer(from) || !accepts.reached() {
            return Next::Wait;
        }
        Next::Chosen(value.clone())
    }

    /// The value that is proposed, in phase 2.
    #[must_use]
    pub fn proposed(&self) -> Option<&V> {
        match &self.phase {
            Phase::Preparing { .. } => None,
            Phase::Accepting { value, .. } => Some(value),
        }
    }

    /// Who has answered in this phase and who has not.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        match &self.phase {
            Phase::Preparing { promises, .. } => promises,
            Phase::Accepting { accepts, .. } => accepts,
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::id::Generation;
    use crate::paxos::Acceptor;
    use crate::rng::Rng;

    fn n(node: u8) -> NodeId {
        NodeId::small(node)
    }

    fn ballot(counter: u64, node: u8) -> Ballot {
        Ballot { counter, node: n(node), generation: Generation(1) }
    }

    fn majority_of_three() -> Tally {
        Tally::new([n(1), n(2), n(3)], 2)
    }

    #[test]
    fn what_a_promise_reports_under_the_highest_ballot_goes_on() {
        let mut proposer = Proposer::new(ballot(9, 1), majority_of_three());
        assert_eq!(proposer.on_promise(n(1), ballot(9, 1), Some((ballot(3, 2), 'a'))), Next::Wait);
        assert_eq!(
            proposer.on_promise(n(3), ballot(9, 1), Some((ballot(5, 3), 'b'))),
            Next::Propose(Some((ballot(5, 3), 'b')))
        );
        proposer.propose('b', majority_of_three());
        assert_eq!(proposer.on_accepted(n(1), ballot(9, 1)), Next::Wait);
        assert_eq!(proposer.on_accepted(n(2), ballot(9, 1)), Next::Chosen('b'));
    }

    #[test]
    fn answers_to_another_attempt_and_of_strangers_count_for_nothing() {
        let mut proposer: Proposer<char> = Proposer::new(ballot(9, 1), majority_of_three());
        assert_eq!(proposer.on_promise(n(1), ballot(8, 1), None), Next::Wait);
        assert_eq!(proposer.on_promise(n(7), ballot(9, 1), None), Next::Wait);
        assert_eq!(proposer.on_promise(n(1), ballot(9, 1), None), Next::Wait);
        assert_eq!(proposer.on_promise(n(1), ballot(9, 1), None), Next::Wait);
        assert_eq!(proposer.on_accepted(n(2), ballot(9, 1)), Next::Wait);
    }

    /// Three proposers, three acceptors, answers in any order, some of them lost: whatever is chosen is one value.
    #[test]
    fn two_values_are_never_chosen() {
        for seed in 0..3_000 {
            let mut rng = Rng::new(seed);
            let mut acceptors: Vec<Acceptor<u64>> = (0..3).map(|_| Acceptor::default()).collect();
            let mut attempts: Vec<Proposer<u64>> = Vec::new();
            let mut chosen: Vec<u64> = Vec::new();
            for step in 0..60_u64 {
                if rng.chance(150) {
                    let new = ballot(1 + step, rng.below(3) as u8);
                    attempts.push(Proposer::new(new, majority_of_three()));
                }
                let Some(attempt) = (!attempts.is_empty()).then(|| rng.below(attempts.len() as u64) as usize) else {
                    continue;
                };
                let (attempt, at) = (&mut attempts[attempt], rng.below(3) as usize);
                let (from, name) = (n(at as u8 + 1), attempt.ballot());
                let next = match attempt.proposed().copied() {
                    None => match acceptors[at].prepare(name) {
                        Ok(accepted) => attempt.on_promise(from, name, accepted),
                        Err(_) => Next::Wait,
                    },
                    Some(value) => match acceptors[at].accept(name, value) {
                        Ok(()) => attempt.on_accepted(from, name),
                        Err(_) => Next::Wait,
                    },
                };
                match next {
                    Next::Propose(seen) => {
                        attempt.propose(seen.map_or(100 + step, |(_, value)| value), majority_of_three());
                    }
                    Next::Chosen(value) => chosen.push(value),
                    Next::Wait => (),
                }
            }
            chosen.dedup();
            assert!(chosen.len() <= 1, "seed {seed}: {chosen:?}");
        }
    }
}

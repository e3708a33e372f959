//! The voting side of a register.

use serde::{Deserialize, Serialize};

use super::{Accepted, Ballot};
use crate::mutant::{Mutant, planted};

/// One acceptor's state of one register.
///
/// Every change must be durable before the answer that speaks of it leaves.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Acceptor<V> {
    /// Nothing below this is taken. Never below what was accepted, and never lowered.
    promised: Ballot,
    accepted: Accepted<V>,
}

impl<V> Default for Acceptor<V> {
    fn default() -> Self {
        Self { promised: Ballot::NONE, accepted: None }
    }
}

impl<V: Clone> Acceptor<V> {
    /// Phase 1: promises to take nothing below `ballot`, and says what it has accepted. A repeated Prepare gets the
    /// same answer, so that a duplicate does not fight its own proposer.
    ///
    /// # Errors
    ///
    /// The higher ballot that was promised; nothing changed.
    pub fn prepare(&mut self, ballot: Ballot) -> Result<Accepted<V>, Ballot> {
        if ballot < self.promised || ballot <= self.accepted_ballot() {
            return Err(self.promised);
        }
        self.promised = ballot;
        self.check();
        Ok(self.accepted.clone())
    }

    /// Phase 2: accepts a value. A repeated Accept changes nothing, and is accepted again.
    ///
    /// # Errors
    ///
    /// The higher ballot that was promised; nothing changed.
    pub fn accept(&mut self, ballot: Ballot, value: V) -> Result<(), Ballot> {
        if ballot == self.accepted_ballot() {
            return Ok(());
        }
        if (ballot < self.promised && !planted(Mutant::PromiseForgotten)) || ballot < self.accepted_ballot() {
            return Err(self.promised);
        }
        self.promised = ballot.max(self.promised);
        self.accepted = Some((ballot, value));
        self.check();
        Ok(())
    }

    /// Phase 2, and phase 1 of the same proposer's next attempt with it: accepts, and promises `next` in the same write.
    /// Whether `next` is promised; not if a higher ballot is. A repeated one grants it only while it is what was promised
    /// last, for somebody else may have prepared since.
    ///
    /// # Errors
    ///
    /// The higher ballot that was promised; nothing changed.
    pub fn accept_and_promise(&mut self, ballot: Ballot, value: V, next: Ballot) -> Result<bool, Ballot> {
        let is_new = ballot != self.accepted_ballot();
        self.accept(ballot, value)?;
        if is_new {
            self.promised = next.max(self.promised);
            self.check();
        }
        Ok(self.promised == next)
    }

    /// Of a register without consensus: holds what is newer than what it holds. Whether it was.
    pub fn keep(&mut self, timestamp: Ballot, value: V) -> bool {
        if timestamp <= self.accepted_ballot() {
            return false;
        }
        self.promised = timestamp.max(self.promised);
        self.accepted = Some((timestamp, value));
        self.check();
        true
    }

    /// Promises at least this: what a record from before a restart says.
    pub fn raise(&mut self, promised: Ballot) {
        self.promised = promised.max(self.promised);
    }

    /// Whether an acceptor can be in this state.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.promised >= self.accepted_ballot() && self.accepted.as_ref().is_none_or(|(ballot, _)| ballot.counter > 0)
    }

    /// The highest ballot it has answered.
    #[must_use]
    pub fn promised(&self) -> Ballot {
        self.promised
    }

    /// What it has accepted.
    #[must_use]
    pub fn accepted(&self) -> Option<(Ballot, &V)> {
        self.accepted.as_ref().map(|(ballot, value)| (*ballot, value))
    }

    fn accepted_ballot(&self) -> Ballot {
        self.accepted.as_ref().map_or(Ballot::NONE, |(ballot, _)| *ballot)
    }

    fn check(&self) {
        assert!(self.promised >= self.accepted_ballot(), "an acceptor must not promise less than it has accepted");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Generation, NodeId};
    use crate::rng::Rng;

    fn ballot(counter: u64, node: u8) -> Ballot {
        Ballot { counter, node: NodeId::small(node), generation: Generation(1) }
    }

    #[test]
    fn a_promise_shuts_out_what_is_below_it() {
        let mut acceptor = Acceptor::default();
        assert_eq!(acceptor.prepare(ballot(5, 1)), Ok(None));
        assert_eq!(acceptor.prepare(ballot(4, 2)), Err(ballot(5, 1)));
        assert_eq!(acceptor.accept(ballot(4, 2), 'x'), Err(ballot(5, 1)));
        assert_eq!(acceptor.accept(ballot(5, 1), 'y'), Ok(()));
        assert_eq!(acceptor.prepare(ballot(6, 2)), Ok(Some((ballot(5, 1), 'y'))));
    }

    #[test]
    fn a_repeated_prepare_gets_the_same_answer_until_its_ballot_was_used() {
        let mut acceptor = Acceptor::default();
        assert_eq!(acceptor.prepare(ballot(5, 1)), Ok(None));
        assert_eq!(acceptor.prepare(ballot(5, 1)), Ok(None));
        assert_eq!(acceptor.accept(ballot(5, 1), 'y'), Ok(()));
        assert_eq!(acceptor.prepare(ballot(5, 1)), Err(ballot(5, 1)));
    }

    #[test]
    fn a_repeated_accept_lowers_nothing() {
        let mut acceptor = Acceptor::default();
        assert_eq!(acceptor.accept(ballot(3, 1), 'x'), Ok(()));
        assert_eq!(acceptor.prepare(ballot(9, 2)), Ok(Some((ballot(3, 1), 'x'))));
        assert_eq!(acceptor.accept(ballot(3, 1), 'x'), Ok(()));
        assert_eq!(acceptor.promised(), ballot(9, 2));
    }

    #[test]
    fn accepting_without_a_promise_promises() {
        let mut acceptor = Acceptor::default();
        assert_eq!(acceptor.accept(ballot(7, 1), 'x'), Ok(()));
        assert_eq!(acceptor.promised(), ballot(7, 1));
        assert_eq!(acceptor.prepare(ballot(6, 3)), Err(ballot(7, 1)));
    }

    #[test]
    fn the_next_attempt_is_promised_with_the_value_and_only_as_long_as_nobody_else_is() {
        let mut acceptor = Acceptor::default();
        assert_eq!(acceptor.accept_and_promise(ballot(3, 1), 'x', ballot(4, 1)), Ok(true));
        assert_eq!(acceptor.promised(), ballot(4, 1));
        assert_eq!(acceptor.accept_and_promise(ballot(3, 1), 'x', ballot(4, 1)), Ok(true), "a duplicate");
        assert_eq!(acceptor.prepare(ballot(5, 2)), Ok(Some((ballot(3, 1), 'x'))));
        assert_eq!(acceptor.accept_and_promise(ballot(3, 1), 'x', ballot(4, 1)), Ok(false), "a late duplicate");
        assert_eq!(acceptor.accept_and_promise(ballot(4, 1), 'y', ballot(6, 1)), Err(ballot(5, 2)));
        assert_eq!(acceptor.promised(), ballot(5, 2), "a refused Accept grants no promise");
    }

    #[test]
    fn whatever_comes_nothing_is_ever_lowered() {
        let mut rng = Rng::new(1);
        let mut acceptor = Acceptor::default();
        for _ in 0..100_000 {
            let before = (acceptor.promised(), acceptor.accepted().map(|(ballot, _)| ballot));
            let drawn = ballot(rng.below(acceptor.promised().counter + 3), rng.below(3) as u8);
            if rng.chance(500) {
                let _ = acceptor.prepare(drawn);
            } else {
                let _ = acceptor.accept(drawn, rng.next_u64());
            }
            assert!(before <= (acceptor.promised(), acceptor.accepted().map(|(ballot, _)| ballot)));
        }
    }
}

//! The rules of an atomic register without consensus: who asks, and what follows from the answers.
//!
//! ```text
//!   write:   ask a majority for their timestamps  ──▶  store the value with a higher one at a majority
//!   read:    ask a majority for what they hold    ──▶  they all hold the same: that
//!                                                 └──▶  else the newest, once it is stored at a majority
//! ```
//!
//! A timestamp is a ballot: (counter, node, boot). Its counter is above all that a majority knows and above all that this
//! writer has used, for writes that it gave up included: a timestamp names one value for ever. What is stored is replaced
//! only by what has a higher one, so stores may come late, twice, and in any order.
//!
//! **The write-back** is what makes reads atomic and not merely regular: without it one read could see a value that is
//! with one owner alone, and a later read miss it. Agreement is judged on exactly the answers that are counted.
//!
//! Sources: Attiya, Bar-Noy, Dolev, "Sharing memory robustly in message-passing systems", 1995; Lynch and Shvartsman,
//! 1997, for several writers.

use crate::id::NodeId;
use crate::mutant::{Mutant, planted};
use crate::paxos::{Accepted, Ballot};
use crate::quorum::Tally;

/// A majority is asked what it holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Query<V> {
    asked: Tally,
    newest: Accepted<V>,
    /// Whether all that has been counted is the same.
    agree: bool,
}

/// What a majority holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<V> {
    /// The newest of it; `None` if none of them has ever stored anything.
    pub newest: Accepted<V>,
    /// Whether all of them hold just that.
    pub agree: bool,
}

impl<V: Clone> Query<V> {
    /// Begins. `quorum` is of those who are asked; while they change, of both groups.
    #[must_use]
    pub fn new(quorum: Tally) -> Self {
        Self { asked: quorum, newest: None, agree: true }
    }

    /// Who has not answered yet.
    pub fn silent(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.asked.silent()
    }

    /// How many have answered, and how many have to.
    #[must_use]
    pub fn progress(&self) -> (u8, u8) {
        (self.asked.have(), self.asked.needed())
    }

    /// Somebody says what it holds. Strangers, and second answers, count for nothing. What a majority holds, once it has
    /// answered.
    pub fn on_report(&mut self, from: NodeId, held: Accepted<V>) -> Option<Found<V>> {
        let is_first = self.asked.answered().is_empty();
        if !self.asked.answer(from) {
            return None;
        }
        let timestamp = |held: &Accepted<V>| held.as_ref().map_or(Ballot::NONE, |(timestamp, _)| *timestamp);
        self.agree &= is_first || timestamp(&held) == timestamp(&self.newest);
        if timestamp(&held) > timestamp(&self.newest) {
            self.newest = held;
        }
        let agree = self.agree || planted(Mutant::NotWrittenBack);
        self.asked.reached().then(|| Found { newest: self.newest.clone(), agree })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Generation;

    fn n(node: u8) -> NodeId {
        NodeId::small(node)
    }

    fn at(counter: u64, value: char) -> Accepted<char> {
        Some((Ballot { counter, node: n(1), generation: Generation(1) }, value))
    }

    fn query() -> Query<char> {
        Query::new(Tally::new([n(1), n(2), n(3)], 2))
    }

    #[test]
    fn a_majority_that_holds_the_same_needs_no_write_back() {
        let mut asked = query();
        assert_eq!(asked.on_report(n(1), at(5, 'a')), None);
        assert_eq!(asked.on_report(n(1), at(5, 'a')), None, "it counts once");
        assert_eq!(asked.on_report(n(9), at(7, 'x')), None, "a stranger");
        assert_eq!(asked.on_report(n(3), at(5, 'a')), Some(Found { newest: at(5, 'a'), agree: true }));
        let mut never = query();
        never.on_report(n(1), None);
        assert_eq!(never.on_report(n(2), None), Some(Found { newest: None, agree: true }));
    }

    #[test]
    fn of_a_majority_that_differs_the_newest_is_to_be_stored() {
        for reports in [[None, at(5, 'a')], [at(5, 'a'), None], [at(4, 'b'), at(5, 'a')], [at(5, 'a'), at(4, 'b')]] {
            let mut asked = query();
            let [first, second] = reports;
            asked.on_report(n(2), first);
            assert_eq!(asked.on_report(n(1), second), Some(Found { newest: at(5, 'a'), agree: false }));
        }
    }
}

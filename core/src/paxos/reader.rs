//! Reading a register without a ballot, where its acceptors agree.

use alloc::collections::BTreeMap;

use super::{Accepted, Ballot};
use crate::id::NodeId;
use crate::mutant::{Mutant, planted};
use crate::quorum::Tally;

/// One read in one round trip: each acceptor says what it has accepted, and promises nothing.
///
/// What *all* of one quorum report under the same ballot is chosen, and nothing later was before the read began: a later
/// value would be with one of them. The highest of what a quorum reports is not enough: it may be with one acceptor
/// alone, and a later read that does not meet that one would miss it. Where they do not agree, the reader has to propose
/// what there is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reader<V> {
    quorum: Tally,
    asked: Tally,
    reports: BTreeMap<Ballot, (Tally, Option<V>)>,
}

/// What a report has led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read<V> {
    /// More reports are needed.
    Wait,
    /// This is what the register holds; `None` if it was never written.
    Holds(Option<V>),
    /// All have reported, and no quorum of them agrees.
    Undecided,
}

impl<V: Clone> Reader<V> {
    /// Begins. `quorum` is of those who are asked; while they change, of both groups.
    #[must_use]
    pub fn new(quorum: Tally) -> Self {
        Self { asked: quorum.clone(), quorum, reports: BTreeMap::new() }
    }

    /// Whether a quorum has reported, though it may not agree. Whoever is silent might still decide it, or be gone.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        self.asked.reached()
    }

    /// Who has not reported yet.
    pub fn silent(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.asked.silent()
    }

    /// How many agree so far, at most, and how many have to.
    #[must_use]
    pub fn progress(&self) -> (u8, u8) {
        let have = self.reports.values().map(|(alike, _)| alike.have()).max().unwrap_or(0);
        (have, self.quorum.needed())
    }

    /// An acceptor reports. Strangers, and second reports, count for nothing.
    pub fn on_report(&mut self, from: NodeId, accepted: Accepted<V>) -> Read<V> {
        if !self.asked.answer(from) {
            return Read::Wait;
        }
        let (ballot, value) = accepted.map_or((Ballot::NONE, None), |(ballot, value)| (ballot, Some(value)));
        let (alike, value) = self.reports.entry(ballot).or_insert_with(|| (self.quorum.clone(), value));
        alike.answer(from);
        if alike.reached() {
            return Read::Holds(value.clone());
        }
        if planted(Mutant::HighestOfMajority) && self.is_heard() {
            return Read::Holds(self.reports.last_key_value().and_then(|(_, (_, value))| value.clone()));
        }
        if self.asked.complete() { Read::Undecided } else { Read::Wait }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Generation;

    fn n(node: u8) -> NodeId {
        NodeId::small(node)
    }

    fn under(counter: u64, value: char) -> Accepted<char> {
        Some((Ballot { counter, node: n(1), generation: Generation(1) }, value))
    }

    fn majority_of_three() -> Tally {
        Tally::new([n(1), n(2), n(3)], 2)
    }

    #[test]
    fn what_a_majority_reports_under_one_ballot_is_what_there_is() {
        let mut reader = Reader::new(majority_of_three());
        assert_eq!(reader.on_report(n(1), under(5, 'b')), Read::Wait);
        assert_eq!(reader.on_report(n(1), under(5, 'b')), Read::Wait, "each counts once");
        assert_eq!(reader.on_report(n(9), under(5, 'b')), Read::Wait, "and no stranger");
        assert_eq!(reader.on_report(n(2), under(4, 'a')), Read::Wait, "the highest of a majority is not enough");
        assert_eq!(reader.on_report(n(3), under(5, 'b')), Read::Holds(Some('b')));
    }

    #[test]
    fn never_written_is_an_agreement_as_well_and_disagreement_is_none() {
        let mut reader = Reader::<char>::new(majority_of_three());
        assert_eq!(reader.on_report(n(1), None), Read::Wait);
        assert_eq!(reader.on_report(n(3), None), Read::Holds(None));
        let mut reader = Reader::new(majority_of_three());
        reader.on_report(n(1), under(5, 'b'));
        reader.on_report(n(2), under(4, 'a'));
        assert_eq!(reader.on_report(n(3), None), Read::Undecided);
    }

    #[test]
    fn while_owners_change_both_groups_have_to_agree_on_one_ballot() {
        let joint = majority_of_three().and([n(3), n(4), n(5)], 2);
        let mut reader = Reader::new(joint);
        assert_eq!(reader.on_report(n(1), under(5, 'b')), Read::Wait);
        assert_eq!(reader.on_report(n(2), under(5, 'b')), Read::Wait);
        assert_eq!(reader.on_report(n(4), under(4, 'a')), Read::Wait);
        assert_eq!(
            reader.on_report(n(5), under(4, 'a')),
            Read::Wait,
            "each has its own majority, of different ballots"
        );
        assert_eq!(reader.on_report(n(3), under(5, 'b')), Read::Undecided);
    }
}

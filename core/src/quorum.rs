//! Quorum arithmetic and nothing else.

use alloc::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::id::NodeId;
use crate::mutant::{Mutant, planted};

/// The smallest count of `n` such that two groups of that size share a member.
#[must_use]
pub const fn majority(n: u8) -> u8 {
    n / 2 + 1
}

/// How many replicas must answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Level {
    /// More than half, so that every read meets every acknowledged write.
    #[default]
    Majority,
    /// Exactly this many. Refused below a majority, where the guarantee would be gone.
    Count(u8),
    /// Every one.
    All,
}

impl Level {
    /// The count this means for `n` replicas, or `None` when it asks for too few or too many.
    #[must_use]
    pub fn needed(self, n: u8) -> Option<u8> {
        match self {
            Self::Majority if planted(Mutant::QuorumOneShort) => Some(majority(n) - 1),
            Self::Majority => Some(majority(n)),
            Self::All => Some(n),
            Self::Count(count) => (majority(n) <= count && count <= n).then_some(count),
        }
    }
}

/// Who has answered, each counted once, and only those who were asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tally {
    asked: BTreeSet<NodeId>,
    answered: BTreeSet<NodeId>,
    needed: u8,
}

impl Tally {
    /// Waits for `needed` answers from `asked`.
    pub fn new(asked: impl IntoIterator<Item = NodeId>, needed: u8) -> Self {
        Self { asked: asked.into_iter().collect(), answered: BTreeSet::new(), needed }
    }

    /// Whether this one was asked.
    #[must_use]
    pub fn asks(&self, node: NodeId) -> bool {
        self.asked.contains(&node)
    }

    /// Forgets all answers.
    pub fn restart(&mut self) {
        self.answered.clear();
    }

    /// Counts an answer. False if `from` was not asked or has answered before.
    pub fn answer(&mut self, from: NodeId) -> bool {
        self.asked.contains(&from) && self.answered.insert(from)
    }

    /// Whether enough have answered.
    #[must_use]
    pub fn reached(&self) -> bool {
        self.answered.len() >= usize::from(self.needed)
    }

    /// Whether all have answered.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.answered.len() == self.asked.len()
    }

    /// Who has answered so far.
    #[must_use]
    pub fn answered(&self) -> &BTreeSet<NodeId> {
        &self.answered
    }

    /// Who was asked and has not answered.
    pub fn silent(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.asked.difference(&self.answered).copied()
    }

    /// The count that is waited for.
    #[must_use]
    pub fn needed(&self) -> u8 {
        self.needed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_majorities_always_meet() {
        for n in 1..=u8::MAX {
            assert!(2 * u16::from(majority(n)) > u16::from(n));
            assert!(2 * (u16::from(majority(n)) - 1) <= u16::from(n));
        }
    }

    #[test]
    fn a_level_below_a_majority_is_refused() {
        assert_eq!(Level::Count(1).needed(3), None);
        assert_eq!(Level::Count(2).needed(3), Some(2));
        assert_eq!(Level::Count(4).needed(3), None);
        assert_eq!(Level::All.needed(3), Some(3));
    }

    #[test]
    fn a_replica_is_counted_once_and_a_stranger_never() {
        let mut tally = Tally::new([NodeId::small(1), NodeId::small(2), NodeId::small(3)], 2);
        assert!(tally.answer(NodeId::small(1)));
        assert!(!tally.answer(NodeId::small(1)));
        assert!(!tally.answer(NodeId::small(9)));
        assert!(!tally.reached());
        assert!(tally.answer(NodeId::small(3)));
        assert!(tally.reached() && !tally.complete());
    }
}

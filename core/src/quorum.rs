//! Quorum arithmetic and nothing else.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

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
    /// What the key's namespace promises: a majority, or, where that is *eventual*, one.
    #[default]
    Usual,
    /// More than half, so that every read meets every acknowledged write.
    Majority,
    /// Exactly this many. Below a majority the guarantee is gone: only where none is promised.
    Count(u8),
    /// Every one.
    All,
    /// More than half of the owners in the zone of the node that is asked. Only where nothing more is promised.
    LocalZone,
}

impl Level {
    /// The count this means for `n` replicas, or `None` when it asks for too few or too many.
    #[must_use]
    pub fn needed(self, n: u8) -> Option<u8> {
        match self {
            Self::Usual | Self::Majority if planted(Mutant::QuorumOneShort) => Some(majority(n) - 1),
            Self::Usual | Self::Majority => Some(majority(n)),
            Self::All => Some(n),
            Self::Count(count) => (majority(n) <= count && count <= n).then_some(count),
            Self::LocalZone => None,
        }
    }

    /// The same where no read has to meet any write; `None` also where it is no count of all.
    #[must_use]
    pub fn needed_of_any(self, n: u8) -> Option<u8> {
        match self {
            Self::Usual => Some(1),
            Self::Count(count) => (1 <= count && count <= n).then_some(count),
            Self::Majority | Self::All | Self::LocalZone => self.needed(n),
        }
    }
}

/// Who has answered, each counted once, and only those who were asked.
///
/// Usually of one group of nodes so many must answer. While the cluster changes its members there are two groups, the
/// old owners and the new, and each must reach its own count (*joint* quorums): one node may count in both.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tally {
    groups: Vec<Group>,
    answered: BTreeSet<NodeId>,
}

/// Nodes of which so many must answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Group {
    nodes: Vec<NodeId>,
    needed: u8,
}

impl Group {
    fn have(&self, answered: &BTreeSet<NodeId>) -> u8 {
        let have = self.nodes.iter().filter(|node| answered.contains(node)).count();
        have.min(usize::from(self.needed)) as u8
    }
}

impl Tally {
    /// Waits for `needed` answers from `asked`.
    pub fn new(asked: impl IntoIterator<Item = NodeId>, needed: u8) -> Self {
        Self { groups: Vec::new(), answered: BTreeSet::new() }.and(asked, needed)
    }

    /// And for `needed` answers from these: both groups must reach their counts.
    #[must_use]
    pub fn and(mut self, asked: impl IntoIterator<Item = NodeId>, needed: u8) -> Self {
        self.groups.push(Group { nodes: asked.into_iter().collect(), needed });
        self
    }

    /// Whether this one was asked.
    #[must_use]
    pub fn asks(&self, node: NodeId) -> bool {
        self.groups.iter().any(|group| group.nodes.contains(&node))
    }

    /// Forgets all answers.
    pub fn restart(&mut self) {
        self.answered.clear();
    }

    /// Counts an answer. False if `from` was not asked or has answered before.
    pub fn answer(&mut self, from: NodeId) -> bool {
        self.asks(from) && self.answered.insert(from)
    }

    /// Whether enough have answered.
    #[must_use]
    pub fn reached(&self) -> bool {
        self.groups.iter().all(|group| group.have(&self.answered) >= group.needed)
    }

    /// Whether all have answered.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.silent().next().is_none()
    }

    /// Who has answered so far.
    #[must_use]
    pub fn answered(&self) -> &BTreeSet<NodeId> {
        &self.answered
    }

    /// Who was asked and has not answered, each once.
    pub fn silent(&self) -> impl Iterator<Item = NodeId> + '_ {
        let asked =
            self.groups.iter().enumerate().flat_map(|(n, group)| group.nodes.iter().map(move |&node| (n, node)));
        let is_first = |n: usize, node: NodeId| !self.groups[..n].iter().any(|group| group.nodes.contains(&node));
        asked.filter(move |&(n, node)| is_first(n, node) && !self.answered.contains(&node)).map(|(_, node)| node)
    }

    /// How many answers count so far: of each group at most as many as it needs.
    #[must_use]
    pub fn have(&self) -> u8 {
        self.groups.iter().map(|group| group.have(&self.answered)).sum()
    }

    /// The count that is waited for, over all groups.
    #[must_use]
    pub fn needed(&self) -> u8 {
        self.groups.iter().map(|group| group.needed).sum()
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

    #[test]
    fn joint_quorums_need_both_majorities() {
        let n = NodeId::small;
        let mut tally = Tally::new([n(1), n(2), n(3)], 2).and([n(3), n(4), n(5)], 2);
        assert!(tally.answer(n(1)) && tally.answer(n(2)) && !tally.reached());
        assert!(tally.answer(n(3)));
        assert_eq!((tally.have(), tally.needed()), (3, 4));
        assert_eq!(tally.silent().collect::<Vec<_>>(), [n(4), n(5)]);
        assert!(tally.answer(n(5)) && tally.reached() && !tally.complete());
    }
}

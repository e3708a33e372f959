//! Who owns what: the partitions as the squares of a board, and a colour for each member. Pure.

use std::collections::BTreeMap;

use qunlong_core::NodeId;
use qunlong_core::cluster::ClusterConfig;
use qunlong_core::placement::Partition;

/// Squares in a row of the board; there are as many rows.
pub const SIDE: usize = 16;

/// Colours there are; the style sheet says what they look like in each theme.
pub const COLOURS: usize = 12;

/// One partition.
#[derive(Clone, Debug, PartialEq)]
pub struct Square {
    /// Which.
    pub partition: Partition,
    /// Best first.
    pub owners: Vec<NodeId>,
    /// Who is to follow, if they are others.
    pub next: Option<Vec<NodeId>>,
}

/// How much one member owns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Partitions of which it is the first owner.
    pub first: usize,
    /// Partitions of which it is an owner.
    pub owned: usize,
    /// The same after the change under way, or now if there is none.
    pub then: usize,
}

/// A configuration with the placement that follows from it.
#[derive(Clone, Debug, PartialEq)]
pub struct Ownership {
    /// The configuration.
    pub config: ClusterConfig,
    /// All partitions in order.
    pub squares: Vec<Square>,
    shares: BTreeMap<NodeId, Share>,
}

impl Ownership {
    /// Computes it; with many members that takes a moment, so it is kept.
    #[must_use]
    pub fn of(config: &ClusterConfig) -> Self {
        let now = config.placement(&config.current);
        let then = config.next.as_ref().map(|next| config.placement(next));
        let mut shares: BTreeMap<NodeId, Share> = config.storage().map(|node| (node, Share::default())).collect();
        let square = |partition: Partition| {
            let owners = now.owners(partition).to_vec();
            let following = then.as_ref().map_or(&owners[..], |then| then.owners(partition));
            for (rank, owner) in owners.iter().enumerate() {
                let share = shares.entry(*owner).or_default();
                share.first += usize::from(rank == 0);
                share.owned += 1;
            }
            for owner in following {
                shares.entry(*owner).or_default().then += 1;
            }
            let moves = then.as_ref().is_some_and(|then| !now.same_owners(then, partition));
            let next = moves.then(|| following.to_vec());
            Square { partition, owners, next }
        };
        let squares = config.partitions().map(square).collect();
        Self { config: config.clone(), squares, shares }
    }

    /// How much a member owns.
    #[must_use]
    pub fn share(&self, node: NodeId) -> Share {
        self.shares.get(&node).copied().unwrap_or_default()
    }

    /// Partitions that get other owners.
    #[must_use]
    pub fn moved(&self) -> usize {
        self.squares.iter().filter(|square| square.next.is_some()).count()
    }
}

/// Which colour each member with a seat has. It keeps it for as long as it has the seat.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Colours(BTreeMap<NodeId, usize>);

impl Colours {
    /// Colours the newcomers, and frees the colours of those who have no seat any more. The first colours differ most.
    pub fn follow(&mut self, config: &ClusterConfig) {
        self.0.retain(|&node, _| config.seats(node));
        for node in config.storage() {
            if !self.0.contains_key(&node) {
                let free = (0..COLOURS).find(|colour| !self.0.values().any(|taken| taken == colour));
                // Where there are more members than colours, some share one.
                let colour = free.unwrap_or(self.0.len() % COLOURS);
                self.0.insert(node, colour);
            }
        }
    }

    /// A member's colour.
    #[must_use]
    pub fn of(&self, node: NodeId) -> Option<usize> {
        self.0.get(&node).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use qunlong_core::member::Class;
    use qunlong_core::roster::{Roster, Seat};
    use qunlong_core::{ClusterId, Storage};

    fn roster(nodes: impl IntoIterator<Item = u8>) -> Roster {
        let seat = |n| {
            let (zone, incarnation) = (String::new(), Storage([n; 16]));
            (NodeId::small(n), Seat { weight: 1, class: Class::Server, zone, incarnation })
        };
        let storage: BTreeMap<_, _> = nodes.into_iter().map(seat).collect();
        let voters = storage.keys().copied().take(3).collect();
        Roster { storage, voters }
    }

    fn settled(nodes: impl IntoIterator<Item = u8>) -> ClusterConfig {
        ClusterConfig::first(ClusterId([1; 16]), 3, roster(nodes))
    }

    #[test]
    fn every_partition_has_a_square_and_every_copy_an_owner() {
        let ownership = Ownership::of(&settled(1..=5));
        assert_eq!(ownership.squares.len(), SIDE * SIDE);
        let shares: Vec<Share> = (1..=5).map(|n| ownership.share(NodeId::small(n))).collect();
        assert_eq!(shares.iter().map(|share| share.first).sum::<usize>(), 256);
        assert_eq!(shares.iter().map(|share| share.owned).sum::<usize>(), 3 * 256);
        assert!(shares.iter().all(|share| share.owned == share.then) && ownership.moved() == 0);
        assert_eq!(ownership.share(NodeId::small(9)), Share::default());
    }

    #[test]
    fn what_moves_is_what_the_configuration_says() {
        let joint = settled(1..=4).begin(roster(2..=5));
        let ownership = Ownership::of(&joint);
        assert_eq!(ownership.moved(), joint.moved().len());
        let (leaves, joins) = (ownership.share(NodeId::small(1)), ownership.share(NodeId::small(5)));
        assert!(leaves.owned > 0 && leaves.then == 0 && joins.owned == 0 && joins.then > 0);
    }

    #[test]
    fn a_colour_stays_while_others_come_and_go() {
        let mut colours = Colours::default();
        colours.follow(&settled(10..=15));
        let before = colours.clone();
        let distinct: std::collections::BTreeSet<_> = before.0.values().collect();
        assert_eq!(distinct.len(), 6);
        colours.follow(&settled(1..=15));
        assert!((10..=15).map(NodeId::small).all(|node| colours.of(node) == before.of(node)));
        assert!((1..=15).all(|n| colours.of(NodeId::small(n)).is_some_and(|colour| colour < COLOURS)));
        colours.follow(&settled(12..=15));
        assert_eq!(colours.of(NodeId::small(1)), None);
    }
}

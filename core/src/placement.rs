//! Which storage members own a key: a pure function of a roster.
//!
//! Keys fall into [`PARTITIONS`] fixed partitions by hash. A partition's owners are the N members with the best
//! score in a weighted rendezvous hash (Thaler & Ravishankar 1998), so that a member that joins or leaves moves
//! only its own share. The classical score `-weight / ln(hash)` is computed in fixed point, because floats may
//! differ between targets and owners must not.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::hash::{hash_bytes, mix};
use crate::id::NodeId;
use crate::member::Class;
use crate::namespace::Copies;
use crate::roster::{Roster, Seat};

/// Partitions of every class of keys. Fixed for good: it is part of every placement.
pub const PARTITIONS: u16 = 256;

/// A slice of the key space: keys of one class, which have equally many copies, and of those a share by hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Partition(pub u16);

impl Partition {
    /// One of a class.
    #[must_use]
    pub const fn new(class: u8, slot: u8) -> Self {
        Self(u16::from_be_bytes([class, slot]))
    }

    /// The partition that a key belongs to.
    #[must_use]
    pub fn of(key: &[u8]) -> Self {
        let class = if let [0, class, ..] = key { *class } else { 0 };
        Self::new(class, (hash_bytes(key) >> 56) as u8)
    }

    /// The number of copies that its keys have, 0 for as many as the cluster has of everything.
    #[must_use]
    pub const fn class(self) -> u8 {
        self.0.to_be_bytes()[0]
    }

    /// Which of the class.
    #[must_use]
    pub const fn slot(self) -> u8 {
        self.0.to_be_bytes()[1]
    }
}

/// Its slot, and, where it is not the cluster's own number, how many copies there are.
impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.class() {
            0 => write!(f, "{}", self.slot()),
            copies => write!(f, "{}×{copies}", self.slot()),
        }
    }
}

/// The owners of every partition by one roster, best score first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Placement {
    /// By class, then by slot.
    owners: BTreeMap<u8, Vec<Vec<NodeId>>>,
}

impl Placement {
    /// Computes the table: `PARTITIONS × members` scores for each class.
    #[must_use]
    pub fn new(roster: &Roster, copies: &Copies) -> Self {
        let alone = roster.is_tabs_alone();
        let of_class = |replicas| (0..=u8::MAX).map(|slot| chosen(roster, replicas, alone, slot)).collect();
        Self { owners: copies.classes().map(|(class, replicas)| (class, of_class(replicas))).collect() }
    }

    /// The N owners of a partition; none if there is no such class.
    #[must_use]
    pub fn owners(&self, partition: Partition) -> &[NodeId] {
        self.owners.get(&partition.class()).map_or(&[], |slots| &slots[usize::from(partition.slot())])
    }

    /// The N owners of a key.
    #[must_use]
    pub fn owners_of(&self, key: &[u8]) -> &[NodeId] {
        self.owners(Partition::of(key))
    }

    /// Whether another placement gives the partition to the same owners, in whatever order.
    #[must_use]
    pub fn same_owners(&self, other: &Self, partition: Partition) -> bool {
        let (mine, theirs) = (self.owners(partition), other.owners(partition));
        mine.len() == theirs.len() && mine.iter().all(|owner| theirs.contains(owner))
    }
}

/// The N members with the best scores, with two rules that bend before they break: no two from one zone while there are
/// others, and of the tabs only a minority while there are servers.
fn chosen(roster: &Roster, replicas: u8, tabs_alone: bool, slot: u8) -> Vec<NodeId> {
    let mut ranked: Vec<(u128, NodeId, &Seat)> =
        roster.owners().map(|(node, seat)| (score(slot, node, seat.weight), node, seat)).collect();
    ranked.sort_unstable_by(|(a, a_node, _), (b, b_node, _)| (b, b_node).cmp(&(a, a_node)));
    let tabs_max = if tabs_alone { usize::from(replicas) } else { minority(replicas) };
    let mut taken: Vec<(NodeId, &Seat)> = Vec::new();
    for (spread, spare_tabs) in [(true, true), (false, true), (false, false)] {
        for &(_, node, seat) in &ranked {
            let tabs = taken.iter().filter(|(_, seat)| seat.class == Class::Tab).count();
            let crowds = spread && !seat.zone.is_empty() && taken.iter().any(|(_, other)| other.zone == seat.zone);
            let too_many_tabs = spare_tabs && seat.class == Class::Tab && tabs >= tabs_max;
            let is_taken = taken.iter().any(|(other, _)| *other == node);
            if taken.len() < usize::from(replicas) && !is_taken && !crowds && !too_many_tabs {
                taken.push((node, seat));
            }
        }
    }
    taken.into_iter().map(|(node, _)| node).collect()
}

/// The most of `n` that a majority can do without.
fn minority(n: u8) -> usize {
    usize::from(n.saturating_sub(1) / 2)
}

/// `weight / -log2(u)` for a hash `u` in (0, 1), scaled by 2^64.
fn score(slot: u8, node: NodeId, weight: u32) -> u128 {
    let hash = mix(hash_bytes(&node.0) ^ mix(u64::from(slot) + 1));
    (u128::from(weight) << 64) / u128::from(minus_log2(hash).max(1))
}

/// `-log2(x / 2^64)` with 32 fractional bits, by repeated squaring; 64 for zero.
fn minus_log2(x: u64) -> u64 {
    if x == 0 {
        return 64 << 32;
    }
    let whole = 63 - x.leading_zeros();
    let mut mantissa = u128::from(x) << (63 - whole);
    let mut fraction = 0_u64;
    for bit in (0..32).rev() {
        mantissa = (mantissa * mantissa) >> 63;
        if mantissa >= 1 << 64 {
            mantissa >>= 1;
            fraction |= 1 << bit;
        }
    }
    (64 << 32) - ((u64::from(whole) << 32) | fraction)
}

#[cfg(test)]
mod tests {
    use alloc::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::id::Storage;
    use crate::namespace::{Mode, Namespace, Namespaces};

    fn seat(weight: u32, class: Class, zone: &str) -> Seat {
        Seat { weight, class, zone: zone.into(), incarnation: Storage::default() }
    }

    fn roster(seats: impl IntoIterator<Item = (u8, Seat)>) -> Roster {
        let storage = seats.into_iter().map(|(n, seat)| (NodeId::small(n), seat)).collect();
        Roster { storage, voters: BTreeSet::new() }
    }

    fn config(weights: &[(u8, u32)], replicas: u8) -> (Roster, u8) {
        (roster(weights.iter().map(|&(n, weight)| (n, seat(weight, Class::Server, "")))), replicas)
    }

    fn placement((roster, replicas): &(Roster, u8)) -> Placement {
        of(roster, *replicas)
    }

    fn of(roster: &Roster, replicas: u8) -> Placement {
        Placement::new(roster, &Copies::only(replicas))
    }

    fn all() -> impl Iterator<Item = Partition> {
        (0..=u8::MAX).map(|slot| Partition::new(0, slot))
    }

    #[test]
    fn a_class_with_more_copies_has_the_same_owners_and_more() {
        let (five, _) = config(&[(1, 1), (2, 1), (3, 1), (4, 1), (5, 1)], 3);
        let namespace = Namespace { mode: Mode::Consensus, replicas: 5 };
        let namespaces = Namespaces::default().with("orders", namespace).expect("a good name");
        let placement = Placement::new(&five, &namespaces.copies(3));
        for slot in 0..=u8::MAX {
            let (three, all) = (Partition::new(0, slot), Partition::new(5, slot));
            assert_eq!(placement.owners(three), &placement.owners(all)[..3]);
            assert_eq!(placement.owners(all).len(), 5);
        }
        assert!(placement.owners(Partition::new(4, 0)).is_empty(), "there is no such class");
    }

    fn primaries(config: &(Roster, u8)) -> BTreeMap<NodeId, usize> {
        let placement = placement(config);
        all().fold(BTreeMap::new(), |mut counts, partition| {
            *counts.entry(placement.owners(partition)[0]).or_default() += 1;
            counts
        })
    }

    #[test]
    fn logarithms_are_exact_at_powers_of_two() {
        assert_eq!(minus_log2(1 << 63), 1 << 32);
        assert_eq!(minus_log2(1), 64 << 32);
        let half_octave = minus_log2(0xb504_f333_f9de_6484) as i64 - (1 << 31);
        assert!(half_octave.abs() < 4, "log2 of the root of a half is off by {half_octave}");
    }

    #[test]
    fn owners_are_distinct_and_as_many_as_asked_for() {
        let placement = placement(&config(&[(1, 1), (2, 1), (3, 1), (4, 1), (5, 1)], 3));
        for partition in all() {
            let owners: BTreeSet<_> = placement.owners(partition).iter().collect();
            assert_eq!(owners.len(), 3);
        }
    }

    #[test]
    fn a_heavier_member_owns_more() {
        let counts = primaries(&config(&[(1, 1), (2, 1), (3, 2)], 1));
        let heavy = counts[&NodeId::small(3)];
        assert!((100..=156).contains(&heavy), "weight 2 of 4 should own about 128 of 256, not {heavy}");
    }

    #[test]
    fn a_newcomer_takes_only_its_share() {
        let before = placement(&config(&[(1, 1), (2, 1), (3, 1)], 1));
        let after = placement(&config(&[(1, 1), (2, 1), (3, 1), (4, 1)], 1));
        for partition in all() {
            let (old, new) = (before.owners(partition)[0], after.owners(partition)[0]);
            assert!(old == new || new == NodeId::small(4), "{partition:?} moved between old members");
        }
    }

    #[test]
    fn placement_is_pinned_for_all_targets_and_releases() {
        let placement = placement(&config(&[(1, 1), (2, 3), (3, 2), (4, 1)], 3));
        assert_eq!(crate::hash::hash_of(&placement.owners[&0]), 2_955_936_942_363_383_391);
    }

    #[test]
    fn owners_are_spread_over_zones_while_there_are_enough() {
        let zones = ["a", "a", "a", "b", "b", "c"];
        let seats = zones.iter().zip(1..).map(|(zone, n)| (n, seat(1, Class::Server, zone)));
        let six = roster(seats);
        let placement = of(&six, 3);
        for partition in all() {
            let zones: BTreeSet<&str> =
                placement.owners(partition).iter().map(|owner| six.storage[owner].zone.as_str()).collect();
            assert_eq!(zones.len(), 3, "{partition:?}");
        }
        assert_eq!(of(&six, 5).owners(Partition(7)).len(), 5, "zones give way before copies do");
    }

    #[test]
    fn tabs_own_a_minority_of_each_partition_unless_there_is_nobody_else() {
        let tab = |n| (n, seat(1, Class::Tab, ""));
        let server = |n| (n, seat(1, Class::Server, ""));
        let tabs = |config: &Roster, placement: &Placement, partition| {
            let owners = placement.owners(partition).iter();
            owners.filter(|owner| config.storage[*owner].class == Class::Tab).count()
        };
        let mixed = roster((1..=3).map(server).chain((11..=16).map(tab)));
        let few = roster([server(1), tab(11), tab(12)]);
        let alone = roster((11..=13).map(tab));
        for partition in all() {
            assert!(tabs(&mixed, &of(&mixed, 3), partition) <= 1);
            assert_eq!(tabs(&few, &of(&few, 3), partition), 2, "copies before budgets");
            assert_eq!(tabs(&alone, &of(&alone, 3), partition), 3);
        }
    }

    #[test]
    fn a_server_that_only_relays_owns_nothing() {
        let seats =
            roster([(1, seat(0, Class::Server, "")), (2, seat(1, Class::Tab, "")), (3, seat(1, Class::Tab, ""))]);
        let placement = of(&seats, 2);
        assert!(all().all(|partition| !placement.owners(partition).contains(&NodeId::small(1))));
    }
}

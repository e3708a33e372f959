//! Which storage members own a key: a pure function of the chosen configuration.
//!
//! Keys fall into [`PARTITIONS`] fixed partitions by hash. A partition's owners are the N members with the best
//! score in a weighted rendezvous hash (Thaler & Ravishankar 1998), so that a member that joins or leaves moves
//! only its own share. The classical score `-weight / ln(hash)` is computed in fixed point, because floats may
//! differ between targets and owners must not.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::cluster::ClusterConfig;
use crate::hash::{hash_bytes, mix};
use crate::id::NodeId;

/// Partitions of every cluster. Fixed for good: it is part of every placement.
pub const PARTITIONS: u16 = 256;

/// A slice of the key space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Partition(pub u8);

impl Partition {
    /// The partition that a key belongs to.
    #[must_use]
    pub fn of(key: &[u8]) -> Self {
        Self((hash_bytes(key) >> 56) as u8)
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..=u8::MAX).map(Self)
    }
}

/// The owners of every partition in one epoch, best score first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Placement {
    owners: Vec<Vec<NodeId>>,
}

impl Placement {
    /// Computes the table: `PARTITIONS × members` scores.
    #[must_use]
    pub fn new(config: &ClusterConfig) -> Self {
        Self { owners: Partition::all().map(|partition| ranked(config, partition)).collect() }
    }

    /// The N owners of a partition.
    #[must_use]
    pub fn owners(&self, partition: Partition) -> &[NodeId] {
        &self.owners[usize::from(partition.0)]
    }

    /// The N owners of a key.
    #[must_use]
    pub fn owners_of(&self, key: &[u8]) -> &[NodeId] {
        self.owners(Partition::of(key))
    }
}

fn ranked(config: &ClusterConfig, partition: Partition) -> Vec<NodeId> {
    let mut scored: Vec<(u128, NodeId)> =
        config.storage.iter().map(|(&node, &weight)| (score(partition, node, weight), node)).collect();
    scored.sort_unstable_by(|a, b| b.cmp(a));
    scored.truncate(usize::from(config.replicas));
    scored.into_iter().map(|(_, node)| node).collect()
}

/// `weight / -log2(u)` for a hash `u` in (0, 1), scaled by 2^64.
fn score(partition: Partition, node: NodeId, weight: u32) -> u128 {
    let hash = mix(hash_bytes(&node.0) ^ mix(u64::from(partition.0) + 1));
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
    use crate::id::{ClusterId, Epoch};

    fn config(weights: &[(u8, u32)], replicas: u8) -> ClusterConfig {
        ClusterConfig {
            cluster: ClusterId([1; 16]),
            epoch: Epoch(1),
            storage: weights.iter().map(|&(n, weight)| (NodeId::small(n), weight)).collect(),
            replicas,
        }
    }

    fn primaries(config: &ClusterConfig) -> BTreeMap<NodeId, usize> {
        let placement = Placement::new(config);
        Partition::all().fold(BTreeMap::new(), |mut counts, partition| {
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
        let placement = Placement::new(&config(&[(1, 1), (2, 1), (3, 1), (4, 1), (5, 1)], 3));
        for partition in Partition::all() {
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
        let before = Placement::new(&config(&[(1, 1), (2, 1), (3, 1)], 1));
        let after = Placement::new(&config(&[(1, 1), (2, 1), (3, 1), (4, 1)], 1));
        for partition in Partition::all() {
            let (old, new) = (before.owners(partition)[0], after.owners(partition)[0]);
            assert!(old == new || new == NodeId::small(4), "{partition:?} moved between old members");
        }
    }

    #[test]
    fn placement_is_pinned_for_all_targets_and_releases() {
        let placement = Placement::new(&config(&[(1, 1), (2, 3), (3, 2), (4, 1)], 3));
        assert_eq!(crate::hash::hash_of(&placement), 2_955_936_942_363_383_391);
    }
}

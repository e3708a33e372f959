//! Dotted versions: concurrent writes become siblings, and nothing acknowledged is silently overwritten.
//!
//! A **dot** names one write: (owner that minted it, its counter). A key's [`Versions`] are the siblings that are
//! current, each with its dot, and one **vector** that says which dots have been seen, current or superseded.
//! Two replicas merge by keeping a sibling when both hold it, or when the other has not seen its dot.
//!
//! ```text
//!   A: {(n1,1) "red"}  vector n1:1            merge:  {(n1,1) "red", (n2,1) "blue"}
//!   B: {(n2,1) "blue"} vector n2:1                    vector n1:1 n2:1
//!   a write whose context is that vector supersedes both; one with context n1:1 only supersedes "red"
//! ```
//!
//! The idea is from Preguiça et al., "Dotted version vectors", 2012. **Only owners mint**: a vector entry claims
//! that its owner has seen every one of its own earlier dots of the key, which only the owner's own durable state
//! can promise.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::bytes::Bytes;
use crate::id::{NodeId, WriteId};

/// Names one write: minted by `node`, its `counter`-th in the key's partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dot {
    /// The owner that minted it.
    pub node: NodeId,
    /// Counts that owner's dots of the partition, from 1, and never restarts.
    pub counter: u64,
}

/// Per owner, the highest counter seen. What a client holds as the *context* of its read.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VersionVector(BTreeMap<NodeId, u64>);

impl VersionVector {
    /// The highest counter of `node`, zero for none.
    #[must_use]
    pub fn counter(&self, node: NodeId) -> u64 {
        self.0.get(&node).copied().unwrap_or(0)
    }

    /// Whether the dot has been seen.
    #[must_use]
    pub fn covers(&self, dot: Dot) -> bool {
        dot.counter <= self.counter(dot.node)
    }

    /// Whether everything that `other` has seen has been seen here.
    #[must_use]
    pub fn includes(&self, other: &Self) -> bool {
        other.0.iter().all(|(&node, &counter)| counter <= self.counter(node))
    }

    /// Marks the dot as seen.
    pub fn add(&mut self, dot: Dot) {
        let counter = self.0.entry(dot.node).or_default();
        *counter = (*counter).max(dot.counter);
    }

    /// Marks as seen whatever `other` has seen.
    pub fn merge(&mut self, other: &Self) {
        for (&node, &counter) in &other.0 {
            self.add(Dot { node, counter });
        }
    }

    /// The entries, by node.
    pub fn iter(&self) -> impl Iterator<Item = Dot> + '_ {
        self.0.iter().map(|(&node, &counter)| Dot { node, counter })
    }

    /// Whether nothing has been seen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many owners appear.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// One current version of a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Sibling {
    /// Its name.
    pub dot: Dot,
    /// The write that made it. A retry through another owner makes a second dot under the same id.
    pub write: WriteId,
    /// The value, or `None` for a delete.
    pub value: Option<Bytes>,
}

/// Everything a replica knows of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Versions {
    /// Every dot of `siblings` is covered, and no two siblings share a dot.
    seen: VersionVector,
    /// Sorted by dot.
    siblings: Vec<Sibling>,
}

impl Versions {
    /// What has been seen: the context that supersedes all of it.
    #[must_use]
    pub fn context(&self) -> &VersionVector {
        &self.seen
    }

    /// The current versions, deletes included.
    #[must_use]
    pub fn siblings(&self) -> &[Sibling] {
        &self.siblings
    }

    /// The current values as a reader should see them: no deletes, and two dots of one write shown once.
    pub fn values(&self) -> impl Iterator<Item = &Sibling> {
        let mut shown = BTreeSet::new();
        self.siblings.iter().filter(move |sibling| sibling.value.is_some() && shown.insert(sibling.write))
    }

    /// The dot under which a write is current here, if it is.
    #[must_use]
    pub fn dot_of(&self, write: WriteId) -> Option<Dot> {
        self.siblings.iter().find(|sibling| sibling.write == write).map(|sibling| sibling.dot)
    }

    /// Whether the structure's own rules hold; versions from a peer are checked before they are merged.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.siblings.iter().all(|sibling| sibling.dot.counter > 0 && self.seen.covers(sibling.dot))
            && self.siblings.windows(2).all(|pair| pair[0].dot < pair[1].dot)
    }

    /// How many siblings a write with this context would leave, itself included.
    #[must_use]
    pub fn siblings_after(&self, context: &VersionVector) -> usize {
        1 + self.siblings.iter().filter(|sibling| !context.covers(sibling.dot)).count()
    }

    /// Adds a write that supersedes what `context` has seen.
    ///
    /// # Panics
    ///
    /// If the dot has been seen before: a dot names one write for ever.
    pub fn write(&mut self, sibling: Sibling, context: &VersionVector) {
        assert!(!self.seen.covers(sibling.dot), "a dot must never be minted twice");
        self.siblings.retain(|old| !context.covers(old.dot));
        self.seen.merge(context);
        self.seen.add(sibling.dot);
        let place = self.siblings.partition_point(|old| old.dot < sibling.dot);
        self.siblings.insert(place, sibling);
    }

    /// Takes in what another replica knows. Returns whether anything changed.
    pub fn merge(&mut self, other: &Self) -> bool {
        let known: BTreeSet<Dot> = self.siblings.iter().map(|sibling| sibling.dot).collect();
        let theirs: BTreeSet<Dot> = other.siblings.iter().map(|sibling| sibling.dot).collect();
        let before = self.siblings.len();
        self.siblings.retain(|sibling| theirs.contains(&sibling.dot) || !other.seen.covers(sibling.dot));
        let mut changed = self.siblings.len() != before;
        for sibling in &other.siblings {
            if !known.contains(&sibling.dot) && !self.seen.covers(sibling.dot) {
                self.siblings.push(sibling.clone());
                changed = true;
            }
        }
        self.siblings.sort_unstable_by_key(|sibling| sibling.dot);
        if !self.seen.includes(&other.seen) {
            self.seen.merge(&other.seen);
            changed = true;
        }
        changed
    }

    /// Bytes of the values held, for budgets.
    #[must_use]
    pub fn weight(&self) -> usize {
        const OVERHEAD: usize = 48;
        let values: usize =
            self.siblings.iter().map(|s| OVERHEAD + s.value.as_ref().map_or(0, |value| value.len())).sum();
        values + OVERHEAD * self.seen.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn sibling(node: u8, counter: u64) -> Sibling {
        let dot = Dot { node: NodeId::small(node), counter };
        let mut write = [0; 16];
        write[0] = node;
        write[1] = counter as u8;
        Sibling { dot, write: WriteId(write), value: Some(Bytes::from("v")) }
    }

    fn written(node: u8, counter: u64, context: &VersionVector) -> Versions {
        let mut versions = Versions::default();
        versions.write(sibling(node, counter), context);
        versions
    }

    #[test]
    fn concurrent_writes_become_siblings() {
        let mut a = written(1, 1, &VersionVector::default());
        assert!(a.merge(&written(2, 1, &VersionVector::default())));
        assert_eq!(a.values().count(), 2);
    }

    #[test]
    fn a_write_supersedes_exactly_what_its_context_saw() {
        let mut a = written(1, 1, &VersionVector::default());
        let saw_one = a.context().clone();
        a.merge(&written(2, 1, &VersionVector::default()));
        a.write(sibling(1, 2), &saw_one);
        let dots: Vec<_> = a.siblings().iter().map(|s| (s.dot.node, s.dot.counter)).collect();
        assert_eq!(dots, [(NodeId::small(1), 2), (NodeId::small(2), 1)]);
    }

    #[test]
    fn a_late_copy_of_a_superseded_write_stays_away() {
        let old = written(1, 1, &VersionVector::default());
        let mut new = old.clone();
        let context = new.context().clone();
        new.write(sibling(1, 2), &context);
        let expected = new.clone();
        assert!(!new.merge(&old));
        assert_eq!(new, expected);
    }

    #[test]
    fn two_dots_of_one_write_are_shown_once_and_both_kept() {
        let mut a = written(1, 1, &VersionVector::default());
        let mut retry = sibling(2, 1);
        retry.write = a.siblings()[0].write;
        let mut b = Versions::default();
        b.write(retry, &VersionVector::default());
        a.merge(&b);
        assert_eq!((a.values().count(), a.siblings().len()), (1, 2));
    }

    /// Three owners write and exchange at random; merging must be a join: order, grouping and repetition do not
    /// show, and no write disappears that no context had seen.
    #[test]
    fn merging_is_commutative_associative_and_idempotent() {
        for seed in 0..500 {
            let mut rng = Rng::new(seed);
            let mut replicas = [Versions::default(), Versions::default(), Versions::default()];
            let mut counters = [0_u64; 3];
            for _ in 0..12 {
                let at = rng.below(3) as usize;
                match rng.below(3) {
                    0 => {
                        counters[at] += 1;
                        let context =
                            if rng.chance(500) { replicas[at].context().clone() } else { VersionVector::default() };
                        replicas[at].write(sibling(at as u8 + 1, counters[at]), &context);
                    }
                    _ => {
                        let other = replicas[rng.below(3) as usize].clone();
                        replicas[at].merge(&other);
                    }
                }
                assert!(replicas[at].is_sound());
            }
            let join = |order: [usize; 3]| {
                order.iter().fold(Versions::default(), |mut all, &i| {
                    all.merge(&replicas[i]);
                    all.merge(&replicas[i]);
                    all
                })
            };
            assert_eq!(join([0, 1, 2]), join([2, 1, 0]), "seed {seed}");
            assert_eq!(join([0, 1, 2]), join([1, 2, 0]), "seed {seed}");
        }
    }
}

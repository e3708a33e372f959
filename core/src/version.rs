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
//! **A retry is the same write.** A client that got no answer asks again under the same [`WriteId`], and an owner that
//! had not heard of the first copy mints a second dot. While both are current they are shown as one. Once a later
//! write supersedes one of them, the other must go as well, or an old value would stand beside the new one. So a key
//! remembers the last [`limits::SUPERSEDED`] writes that were superseded and by which dot, and a sibling of a
//! remembered write that was born without knowledge of that dot is dropped.
//!
//! The idea is from Preguiça et al., "Dotted version vectors", 2012. **Only owners mint**: a vector entry claims
//! that its owner has seen every one of its own earlier dots of the key, which only the owner's own durable state
//! can promise.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::bytes::Bytes;
use crate::id::{NodeId, WriteId};
use crate::limits;
use crate::mutant::{Mutant, planted};

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

    /// Grows along every chain of writes that saw each other; says nothing across chains.
    fn age(&self) -> u64 {
        self.0.values().fold(0, |age, &counter| age.saturating_add(counter))
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

/// A write that a reader has heard of: it must not come back once the reader's own write has superseded it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Heard {
    /// A dot under which it was, or had been, current.
    pub dot: Dot,
    /// See [`Superseded::age`]; of a write that was current, that of the vector.
    age: u64,
}

/// What a client has seen of a key, which its next write supersedes.
///
/// The vector would do if every write had one dot. A late copy of a superseded write has another, and the owner that
/// mints the superseding one may never have held the first. So the context names the writes as well, and whoever mints
/// remembers them.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Context {
    /// The dots seen.
    pub seen: VersionVector,
    /// The writes that were current, and those remembered as superseded before.
    pub writes: BTreeMap<WriteId, Heard>,
}

impl Context {
    /// Whether the parts fit together and within their limit; a client may say anything.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.writes.len() <= limits::CONTEXT_WRITES && self.writes.values().all(|heard| self.seen.covers(heard.dot))
    }
}

impl Context {
    /// As clients carry it, opaque to them.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        postcard::to_allocvec(self).expect("plain data encodes into a growing buffer")
    }

    /// What a client brought back; `None` if it is nothing that it was ever given.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (context, rest) = postcard::take_from_bytes::<Self>(bytes).ok()?;
        (rest.is_empty() && context.is_sound()).then_some(context)
    }
}

/// Of a vector alone: fine where no write was ever repeated.
impl From<VersionVector> for Context {
    fn from(seen: VersionVector) -> Self {
        Self { seen, writes: BTreeMap::new() }
    }
}

/// One current version of a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Sibling {
    /// Its name.
    pub dot: Dot,
    /// The write that made it. A retry through another owner makes a second dot under the same id.
    pub write: WriteId,
    /// What it superseded: all that its writer had seen.
    pub context: VersionVector,
    /// The value, or `None` for a delete.
    pub value: Option<Bytes>,
}

/// What became of a write that is not current any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Superseded {
    /// Of the context of the write that superseded it; the oldest are forgotten first.
    age: u64,
    /// The dot that superseded it.
    by: Dot,
    /// A dot under which the write had been current.
    dot: Dot,
}

/// Everything a replica knows of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Versions {
    /// Every dot of `siblings` is covered, and no two siblings share a dot.
    seen: VersionVector,
    /// Sorted by dot.
    siblings: Vec<Sibling>,
    /// The youngest writes that are not current any more, at most [`limits::SUPERSEDED`].
    superseded: BTreeMap<WriteId, Superseded>,
}

impl Versions {
    /// What has been seen: the context that supersedes all of it.
    #[must_use]
    pub fn context(&self) -> &VersionVector {
        &self.seen
    }

    /// What a reader of all this has seen.
    #[must_use]
    pub fn to_context(&self) -> Context {
        let age = self.seen.age();
        let current = self.siblings.iter().map(|sibling| (sibling.write, Heard { dot: sibling.dot, age }));
        let before = self.superseded.iter().map(|(&write, old)| (write, Heard { dot: old.dot, age: old.age }));
        Context { seen: self.seen.clone(), writes: before.chain(current).collect() }
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

    /// The dot under which a write is current here, or was when it was superseded, if it is remembered at all.
    #[must_use]
    pub fn dot_of(&self, write: WriteId) -> Option<Dot> {
        let current = self.siblings.iter().find(|sibling| sibling.write == write).map(|sibling| sibling.dot);
        current.or_else(|| self.superseded.get(&write).map(|superseded| superseded.dot))
    }

    /// What the client that made this write may say it has seen: everything, where the write stands alone; what the
    /// write itself superseded, where it has siblings that its client was never shown; nothing, once it is superseded.
    #[must_use]
    pub fn seen_by(&self, write: WriteId) -> Context {
        match self.siblings.iter().find(|sibling| sibling.write == write) {
            Some(_) if self.siblings.len() == 1 => self.to_context(),
            Some(sibling) => {
                let context = sibling.context.clone();
                let known = self.superseded.iter().filter(|(_, old)| context.covers(old.dot));
                let writes = known.map(|(&write, old)| (write, Heard { dot: old.dot, age: old.age })).collect();
                Context { seen: context, writes }
            }
            None => Context::default(),
        }
    }

    /// Whether every current version is a delete: there is nothing to read, but there was.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        !self.siblings.is_empty() && self.siblings.iter().all(|sibling| sibling.value.is_none())
    }

    /// Whether the structure's own rules hold; versions from a peer are checked before they are merged.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let siblings = self.siblings.iter();
        siblings.clone().all(|sibling| sibling.dot.counter > 0 && self.seen.covers(sibling.dot))
            && siblings.clone().all(|sibling| self.seen.includes(&sibling.context))
            && self.siblings.windows(2).all(|pair| pair[0].dot < pair[1].dot)
            && self.superseded.len() <= limits::SUPERSEDED
    }

    /// How many siblings a write with this context would leave, itself included.
    #[must_use]
    pub fn siblings_after(&self, context: &VersionVector) -> usize {
        1 + self.siblings.iter().filter(|sibling| !context.covers(sibling.dot)).count()
    }

    /// Adds a write that supersedes what its context has seen. `heard` are the writes among that, whether or not they
    /// are known here.
    ///
    /// # Panics
    ///
    /// If the dot has been seen before: a dot names one write for ever.
    pub fn write(&mut self, sibling: Sibling, heard: &BTreeMap<WriteId, Heard>) {
        assert!(!self.seen.covers(sibling.dot), "a dot must never be minted twice");
        let context = &sibling.context;
        let by = sibling.dot;
        let age = context.age();
        let gone = self.siblings.iter().filter(|old| context.covers(old.dot));
        let mut gone: BTreeMap<WriteId, Superseded> =
            gone.map(|old| (old.write, Superseded { age, by, dot: old.dot })).collect();
        if !planted(Mutant::HeardForgotten) {
            let heard = heard.iter().filter(|(write, heard)| **write != sibling.write && context.covers(heard.dot));
            for (&write, heard) in heard {
                gone.entry(write).or_insert(Superseded { age: heard.age.min(age), by, dot: heard.dot });
            }
        }
        self.siblings.retain(|old| !context.covers(old.dot) && !gone.contains_key(&old.write));
        self.remember(&gone);
        self.seen.merge(context);
        self.seen.add(by);
        let place = self.siblings.partition_point(|old| old.dot < by);
        self.siblings.insert(place, sibling);
    }

    /// Takes in what another replica knows. Returns whether anything changed.
    pub fn merge(&mut self, other: &Self) -> bool {
        let holds = |versions: &Self, dot| versions.siblings.binary_search_by_key(&dot, |sibling| sibling.dot).is_ok();
        let gone = |from: &Self, to: &Self| -> Vec<Sibling> {
            let gone = from.siblings.iter().filter(|sibling| to.seen.covers(sibling.dot) && !holds(to, sibling.dot));
            gone.cloned().collect()
        };
        let (mine, theirs) = (gone(self, other), gone(other, self));
        let before = self.siblings.len();
        self.siblings.retain(|sibling| !other.seen.covers(sibling.dot) || holds(other, sibling.dot));
        let mut changed = self.siblings.len() != before;
        for sibling in other.siblings.iter().filter(|sibling| !self.seen.covers(sibling.dot)) {
            self.siblings.push(sibling.clone());
            changed = true;
        }
        self.siblings.sort_unstable_by_key(|sibling| sibling.dot);

        changed |= self.remember(&other.superseded);
        let superseded = mine.iter().chain(&theirs).filter_map(|old| Some((old.write, self.who_superseded(old)?)));
        changed |= self.remember(&superseded.collect());
        let before = self.siblings.len();
        let outlived: Vec<Dot> = self.siblings.iter().filter(|s| self.outlived(s)).map(|s| s.dot).collect();
        self.siblings.retain(|sibling| !outlived.contains(&sibling.dot));
        changed |= self.siblings.len() != before;
        if planted(Mutant::SiblingDropped) && self.siblings.len() > 1 {
            self.siblings.drain(..self.siblings.len() - 1);
            changed = true;
        }
        if !self.seen.includes(&other.seen) {
            self.seen.merge(&other.seen);
            changed = true;
        }
        changed
    }

    /// Names the youngest current version that knew of `old`, which is not current any more.
    fn who_superseded(&self, old: &Sibling) -> Option<Superseded> {
        let knew = self.siblings.iter().filter(|sibling| sibling.context.covers(old.dot));
        knew.map(|by| Superseded { age: by.context.age(), by: by.dot, dot: old.dot }).max()
    }

    /// Whether the sibling is another copy of a write that has been superseded here by one it knew nothing of.
    fn outlived(&self, sibling: &Sibling) -> bool {
        !planted(Mutant::WriteIdForgotten)
            && self.superseded.get(&sibling.write).is_some_and(|superseded| !sibling.context.covers(superseded.by))
    }

    /// Adds to the memory of superseded writes and forgets the oldest. Returns whether it changed.
    fn remember(&mut self, more: &BTreeMap<WriteId, Superseded>) -> bool {
        let before = self.superseded.clone();
        for (&write, &superseded) in more {
            let entry = self.superseded.entry(write).or_insert(superseded);
            *entry = superseded.max(*entry);
        }
        while self.superseded.len() > limits::SUPERSEDED {
            let oldest = self.superseded.iter().min_by_key(|(write, superseded)| (superseded.age, **write));
            let Some(oldest) = oldest.map(|(write, _)| *write) else { break };
            self.superseded.remove(&oldest);
        }
        self.superseded != before
    }

    /// Bytes of the values held, for budgets.
    #[must_use]
    pub fn weight(&self) -> usize {
        const OVERHEAD: usize = 48;
        let of = |s: &Sibling| OVERHEAD * (1 + s.context.len()) + s.value.as_ref().map_or(0, |value| value.len());
        let values: usize = self.siblings.iter().map(of).sum();
        values + OVERHEAD * (self.seen.len() + 2 * self.superseded.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn sibling(node: u8, counter: u64, context: &VersionVector) -> Sibling {
        let dot = Dot { node: NodeId::small(node), counter };
        let mut write = [0; 16];
        write[0] = node;
        write[1] = counter as u8;
        Sibling { dot, write: WriteId(write), context: context.clone(), value: Some(Bytes::from("v")) }
    }

    fn written(node: u8, counter: u64, context: &VersionVector) -> Versions {
        let mut versions = Versions::default();
        versions.write(sibling(node, counter, context), &BTreeMap::new());
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
        a.write(sibling(1, 2, &saw_one), &BTreeMap::new());
        let dots: Vec<_> = a.siblings().iter().map(|s| (s.dot.node, s.dot.counter)).collect();
        assert_eq!(dots, [(NodeId::small(1), 2), (NodeId::small(2), 1)]);
    }

    #[test]
    fn a_late_copy_of_a_superseded_write_stays_away() {
        let old = written(1, 1, &VersionVector::default());
        let mut new = old.clone();
        let context = new.context().clone();
        new.write(sibling(1, 2, &context), &BTreeMap::new());
        let expected = new.clone();
        assert!(!new.merge(&old));
        assert_eq!(new, expected);
    }

    #[test]
    fn two_dots_of_one_write_are_shown_once_and_both_kept() {
        let mut a = written(1, 1, &VersionVector::default());
        a.merge(&retried(2, &a));
        assert_eq!((a.values().count(), a.siblings().len()), (1, 2));
    }

    /// The same write as `first` holds, minted again by an owner that had not heard of it.
    fn retried(node: u8, first: &Versions) -> Versions {
        let mut retry = sibling(node, 1, &VersionVector::default());
        retry.write = first.siblings()[0].write;
        let mut versions = Versions::default();
        versions.write(retry, &BTreeMap::new());
        versions
    }

    #[test]
    fn a_second_copy_of_a_superseded_write_does_not_come_back() {
        let first = written(1, 1, &VersionVector::default());
        let second = retried(2, &first);
        let mut newer = first.clone();
        newer.write(sibling(1, 2, first.context()), &BTreeMap::new());
        let newest = newer.siblings().to_vec();
        assert_eq!(newer.dot_of(first.siblings()[0].write), Some(first.siblings()[0].dot), "remembered");

        let mut a = newer.clone();
        assert!(a.merge(&second));
        assert_eq!(a.siblings(), newest);
        let mut b = second.clone();
        assert!(b.merge(&newer));
        assert_eq!(b, a);
        // Also where both copies had met before one of them was superseded.
        let mut both = second;
        both.merge(&first);
        both.merge(&newer);
        assert_eq!(both.siblings(), newest);
    }

    #[test]
    fn a_write_that_knew_what_superseded_it_is_a_new_write() {
        let first = written(1, 1, &VersionVector::default());
        let mut newer = first.clone();
        newer.write(sibling(1, 2, first.context()), &BTreeMap::new());
        let mut again = sibling(2, 1, newer.context());
        again.write = first.siblings()[0].write;
        let mut elsewhere = Versions::default();
        elsewhere.write(again.clone(), &BTreeMap::new());
        newer.merge(&elsewhere);
        assert_eq!(newer.siblings(), [again], "dropping it as well would leave nothing");
    }

    #[test]
    fn the_memory_of_superseded_writes_is_bounded_and_keeps_the_youngest() {
        let mut versions = Versions::default();
        for counter in 1..=20 {
            versions.write(sibling(1, counter, &versions.context().clone()), &BTreeMap::new());
        }
        let remembered = |counter| versions.dot_of(sibling(1, counter, &VersionVector::default()).write).is_some();
        assert_eq!((1..=20).filter(|&counter| remembered(counter)).collect::<Vec<_>>(), Vec::from_iter(12..=20));
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
                        replicas[at].write(sibling(at as u8 + 1, counters[at], &context), &BTreeMap::new());
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
            // What is remembered of superseded writes may differ until replicas have met again; what is current may not.
            let current = |order| {
                let Versions { seen, siblings, .. } = join(order);
                (seen, siblings)
            };
            assert_eq!(current([0, 1, 2]), current([2, 1, 0]), "seed {seed}");
            assert_eq!(current([0, 1, 2]), current([1, 2, 0]), "seed {seed}");
            let (mut a, mut b) = (replicas[0].clone(), replicas[1].clone());
            a.merge(&replicas[1]);
            b.merge(&replicas[0]);
            assert_eq!(a, b, "seed {seed}: two that met know the same");
            assert!(!a.merge(&b), "seed {seed}");
        }
    }
}

//! What an owner holds: per partition a counter of its own dots, a digest, and the keys.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Bound;

use super::Record;
use super::transfer::Range;
use crate::bytes::Bytes;
use crate::hash::hash_of;
use crate::id::{NodeId, Round};
use crate::mutant::{Mutant, planted};
use crate::placement::Partition;
use crate::time::Instant;
use crate::version::Versions;

/// All keys of one node, in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Store {
    shards: BTreeMap<Partition, Shard>,
}

/// One partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Shard {
    /// The highest counter of this node's own dots, never lowered.
    pub(super) counter: u64,
    /// XOR of the entries' digests: equal on two owners that hold the same.
    digest: u64,
    keys: BTreeMap<Bytes, Entry>,
    /// The deleted ones among them, with the time since when this boot has known.
    deleted: BTreeMap<Bytes, Instant>,
    /// Counts the collections of deletes, never lowered.
    round: Round,
    /// What the last one collected, for an owner that missed it.
    collected: Vec<(Bytes, u64)>,
    /// Whether this owner may lack what others have acknowledged: it has come new or come back, and not taken over yet.
    /// Until then it mints nothing, for its dots claim that it has seen all of its own before.
    lacking: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Entry {
    versions: Versions,
    /// Hash of key and versions.
    digest: u64,
}

impl Store {
    /// What is held of a key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&Versions> {
        self.shards.get(&Partition::of(key))?.keys.get(key).map(|entry| &entry.versions)
    }

    /// All keys, deleted ones included, with what is held of each; by partition, then by key.
    pub fn iter(&self) -> impl Iterator<Item = (&Bytes, &Versions)> {
        self.shards.values().flat_map(|shard| shard.keys.iter().map(|(key, entry)| (key, &entry.versions)))
    }

    /// How many keys are held, deleted ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.values().map(|shard| shard.keys.len()).sum()
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shards.values().all(|shard| shard.keys.is_empty())
    }

    /// The digest of everything held: equal on nodes that hold the same.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.shards.values().fold(0, |all, shard| all ^ shard.digest)
    }

    /// The digest of one partition.
    pub(super) fn digest_of(&self, partition: Partition) -> u64 {
        self.shards.get(&partition).map_or(0, |shard| shard.digest)
    }

    /// The highest counter of own dots in a partition.
    pub(super) fn counter(&self, partition: Partition) -> u64 {
        self.shards.get(&partition).map_or(0, |shard| shard.counter)
    }

    /// Replaces what is held of a key and raises the partition's counter; returns the counter.
    pub(super) fn put(&mut self, me: NodeId, now: Instant, key: Bytes, versions: Versions) -> u64 {
        let shard = self.shards.entry(Partition::of(&key)).or_default();
        // A peer may know dots of this node that are newer than the ones it remembers minting for another key of
        // the partition; it must never mint one of them again.
        shard.counter = shard.counter.max(versions.context().counter(me));
        shard.put(key, versions, now);
        shard.counter
    }

    /// Takes over a durable record.
    pub(super) fn restore(&mut self, record: Record) {
        match record {
            Record::Key { counter, key, versions } => {
                let shard = self.shards.entry(Partition::of(&key)).or_default();
                if !planted(Mutant::CounterRestarts) {
                    shard.counter = shard.counter.max(counter);
                }
                shard.put(key, versions, Instant::default());
            }
            Record::Partition { partition, counter, round, collected, lacking } => {
                let shard = self.shards.entry(partition).or_default();
                shard.counter = shard.counter.max(counter);
                (shard.round, shard.collected, shard.lacking) = (round, collected, lacking);
            }
            Record::Removed { key } => {
                self.shards.entry(Partition::of(&key)).or_default().remove(&key);
            }
            Record::Owned(_) => (),
        }
    }

    /// The boot begins: deletes that were restored count as new.
    pub(super) fn start(&mut self, now: Instant) {
        self.shards.values_mut().flat_map(|shard| shard.deleted.values_mut()).for_each(|since| *since = now);
    }

    /// The collection round that a partition is in.
    #[must_use]
    pub fn round(&self, partition: Partition) -> Round {
        self.shards.get(&partition).map_or(Round::default(), |shard| shard.round)
    }

    /// The rounds of all partitions where deletes were ever collected.
    pub(super) fn rounds(&self) -> impl Iterator<Item = (Partition, Round)> {
        let collected = self.shards.iter().filter(|(_, shard)| shard.round > Round::default());
        collected.map(|(&partition, shard)| (partition, shard.round))
    }

    /// What the partition's last round collected.
    pub(super) fn collected(&self, partition: Partition) -> &[(Bytes, u64)] {
        self.shards.get(&partition).map(|shard| shard.collected.as_slice()).unwrap_or_default()
    }

    /// Partitions that hold deleted keys.
    pub(super) fn with_deletes(&self) -> impl Iterator<Item = Partition> {
        self.shards.iter().filter(|(_, shard)| !shard.deleted.is_empty()).map(|(&partition, _)| partition)
    }

    /// The deleted keys of a partition, with their digests, and since when this boot has known.
    pub(super) fn deletes(&self, partition: Partition) -> impl Iterator<Item = (&Bytes, u64, Instant)> {
        let shard = self.shards.get(&partition);
        shard.into_iter().flat_map(|shard| {
            shard.deleted.iter().filter_map(|(key, &since)| Some((key, shard.keys.get(key)?.digest, since)))
        })
    }

    /// Whether exactly this delete is held.
    pub(super) fn holds_delete(&self, partition: Partition, key: &Bytes, digest: u64) -> bool {
        self.shards.get(&partition).is_some_and(|shard| shard.holds_delete(key, digest))
    }

    /// Begins a round: forgets those of `keys` that are still held just so, and returns them.
    pub(super) fn begin_round(&mut self, partition: Partition, round: Round, keys: Vec<(Bytes, u64)>) -> Vec<Bytes> {
        let shard = self.shards.entry(partition).or_default();
        let held = keys.iter().filter(|(key, digest)| shard.holds_delete(key, *digest));
        let removed: Vec<Bytes> = held.map(|(key, _)| key.clone()).collect();
        removed.iter().for_each(|key| shard.remove(key));
        (shard.round, shard.collected) = (round, keys);
        removed
    }

    /// Takes a round as it is, with nothing to forget.
    pub(super) fn set_round(&mut self, partition: Partition, round: Round) {
        let shard = self.shards.entry(partition).or_default();
        (shard.round, shard.collected) = (round, Vec::new());
    }

    /// Whether what others have acknowledged may be missing here.
    pub(super) fn lacks(&self, partition: Partition) -> bool {
        self.shards.get(&partition).is_some_and(|shard| shard.lacking)
    }

    /// Notes that it may be, or that it is not any more.
    pub(super) fn set_lacking(&mut self, partition: Partition, lacking: bool) {
        self.shards.entry(partition).or_default().lacking = lacking;
    }

    /// Whether there are any keys or a round to forget.
    pub(super) fn holds(&self, partition: Partition) -> bool {
        self.shards.get(&partition).is_some_and(|shard| !shard.keys.is_empty() || shard.round > Round::default())
    }

    /// Forgets all keys of a partition, and returns them. Only the count of own dots stays: a dot is never minted twice.
    pub(super) fn leave(&mut self, partition: Partition) -> Vec<Bytes> {
        let shard = self.shards.entry(partition).or_default();
        let left = core::mem::take(shard);
        shard.counter = left.counter;
        left.keys.into_keys().collect()
    }

    /// The keys of a range, with what is held of them.
    pub(super) fn partition(&self, partition: Partition, range: &Range) -> impl Iterator<Item = (&Bytes, &Versions)> {
        self.entries(partition, range).map(|(key, entry)| (key, &entry.versions))
    }

    /// The digest of what is held of a range.
    pub(super) fn digest_of_range(&self, partition: Partition, range: &Range) -> u64 {
        match range {
            Range { after: None, upto: None } => self.digest_of(partition),
            _ => self.entries(partition, range).fold(0, |all, (_, entry)| all ^ entry.digest),
        }
    }

    fn entries(&self, partition: Partition, Range { after, upto }: &Range) -> impl Iterator<Item = (&Bytes, &Entry)> {
        let bounds = (behind(after.as_ref()), upto.clone().map_or(Bound::Unbounded, Bound::Included));
        // A range that ends before it begins holds nothing.
        let is_sound = upto.is_none() || after < upto;
        let shard = self.shards.get(&partition).filter(|_| is_sound);
        shard.into_iter().flat_map(move |shard| shard.keys.range(bounds.clone()))
    }

    /// What is to be kept of a partition besides its keys.
    pub(super) fn partition_record(&self, partition: Partition) -> Record {
        let (counter, round) = (self.counter(partition), self.round(partition));
        let lacking = self.lacks(partition);
        Record::Partition { partition, counter, round, collected: self.collected(partition).to_vec(), lacking }
    }

    /// The keys of a partition behind `after`, with their digests.
    pub(super) fn digests(&self, partition: Partition, after: Option<&Bytes>) -> impl Iterator<Item = (&Bytes, u64)> {
        let shard = self.shards.get(&partition);
        let from = behind(after);
        shard.into_iter().flat_map(move |shard| {
            shard.keys.range((from.clone(), Bound::Unbounded)).map(|(key, entry)| (key, entry.digest))
        })
    }

    /// The keys that begin with `prefix` and lie behind `after`, in order over all partitions.
    pub(super) fn list(&self, prefix: &Bytes, after: Option<&Bytes>, limit: usize) -> BTreeMap<&Bytes, &Versions> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after.clone()),
            _ => Bound::Included(prefix.clone()),
        };
        let mut listed = BTreeMap::new();
        for shard in self.shards.values() {
            let range = shard.keys.range((start.clone(), Bound::Unbounded));
            for (key, entry) in range.take_while(|(key, _)| key.starts_with(prefix)).take(limit) {
                listed.insert(key, &entry.versions);
            }
        }
        listed
    }
}

impl Shard {
    fn put(&mut self, key: Bytes, versions: Versions, now: Instant) {
        let digest = digest(&key, &versions);
        self.digest ^= digest;
        if versions.is_deleted() {
            self.deleted.entry(key.clone()).or_insert(now);
        } else {
            self.deleted.remove(&key);
        }
        if let Some(before) = self.keys.insert(key, Entry { versions, digest }) {
            self.digest ^= before.digest;
        }
    }

    fn remove(&mut self, key: &Bytes) {
        self.deleted.remove(key);
        if let Some(before) = self.keys.remove(key) {
            self.digest ^= before.digest;
        }
    }

    fn holds_delete(&self, key: &Bytes, digest: u64) -> bool {
        self.deleted.contains_key(key) && self.keys.get(key).is_some_and(|entry| entry.digest == digest)
    }
}

/// The digest of one key with what is held of it.
pub(super) fn digest(key: &Bytes, versions: &Versions) -> u64 {
    hash_of(&(key, versions))
}

fn behind(after: Option<&Bytes>) -> Bound<Bytes> {
    after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.clone()))
}

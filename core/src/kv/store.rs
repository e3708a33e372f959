//! What an owner holds: per partition a counter of its own dots, a digest, and the keys.

use alloc::collections::BTreeMap;
use core::ops::Bound;

use crate::bytes::Bytes;
use crate::hash::hash_of;
use crate::id::NodeId;
use crate::placement::Partition;
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
    pub(super) fn put(&mut self, me: NodeId, key: Bytes, versions: Versions) -> u64 {
        let shard = self.shards.entry(Partition::of(&key)).or_default();
        // A peer may know dots of this node that are newer than the ones it remembers minting for another key of
        // the partition; it must never mint one of them again.
        shard.counter = shard.counter.max(versions.context().counter(me));
        shard.put(key, versions);
        shard.counter
    }

    /// Takes over a durable record.
    pub(super) fn restore(&mut self, partition: Partition, counter: u64, key: Bytes, versions: Versions) {
        let shard = self.shards.entry(partition).or_default();
        shard.counter = shard.counter.max(counter);
        shard.put(key, versions);
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
    fn put(&mut self, key: Bytes, versions: Versions) {
        let digest = hash_of(&(&key, &versions));
        self.digest ^= digest;
        if let Some(before) = self.keys.insert(key, Entry { versions, digest }) {
            self.digest ^= before.digest;
        }
    }
}

fn behind(after: Option<&Bytes>) -> Bound<Bytes> {
    after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.clone()))
}

//! What an owner keeps of its registers: per partition, in memory, what was promised and accepted of each key.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::Bound;

use super::Record;
use crate::bytes::Bytes;
use crate::cell::Cell;
use crate::mutant::{Mutant, planted};
use crate::paxos::{Acceptor, Ballot};
use crate::placement::Partition;

/// All registers of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Store {
    shards: BTreeMap<Partition, BTreeMap<Bytes, Acceptor<Cell>>>,
}

impl Store {
    /// What was promised and accepted of a key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&Acceptor<Cell>> {
        self.shards.get(&Partition::of(key))?.get(key)
    }

    /// All registers; by partition, then by key.
    pub fn iter(&self) -> impl Iterator<Item = (&Bytes, &Acceptor<Cell>)> {
        self.shards.values().flatten()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.values().map(BTreeMap::len).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shards.values().all(BTreeMap::is_empty)
    }

    /// The state of a key, to be changed.
    pub(super) fn entry(&mut self, key: &Bytes) -> &mut Acceptor<Cell> {
        self.shards.entry(Partition::of(key)).or_default().entry(key.clone()).or_default()
    }

    /// The keys of a partition behind `after`.
    pub(super) fn keys(&self, partition: Partition, after: Option<&Bytes>) -> impl Iterator<Item = &Bytes> {
        let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.clone()));
        let shard = self.shards.get(&partition);
        shard.into_iter().flat_map(move |shard| shard.range((from.clone(), Bound::Unbounded)).map(|(key, _)| key))
    }

    /// Partitions of which anything is kept.
    pub(super) fn partitions(&self) -> Vec<Partition> {
        self.shards.keys().copied().collect()
    }

    /// Forgets a partition, and returns its keys.
    pub(super) fn leave(&mut self, partition: Partition) -> Vec<Bytes> {
        self.shards.remove(&partition).unwrap_or_default().into_keys().collect()
    }

    /// Takes over a durable record.
    pub(super) fn restore(&mut self, record: Record) {
        match record {
            Record::Register { key, acceptor } => {
                let promised = self.get(&key).map(Acceptor::promised).unwrap_or_default();
                let kept = self.entry(&key);
                *kept = acceptor;
                kept.raise(promised);
            }
            Record::Promised { key, ballot } => {
                if ballot != Ballot::NONE && !planted(Mutant::RegisterPromiseForgotten) {
                    self.entry(&key).raise(ballot);
                }
            }
            Record::Removed { key } => {
                if let Some(shard) = self.shards.get_mut(&Partition::of(&key)) {
                    shard.remove(&key);
                }
            }
        }
    }
}

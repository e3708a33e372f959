//! What an owner keeps of its registers: per partition, in memory, what was promised and accepted of each key.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::ops::Bound;

use super::Record;
use crate::bytes::Bytes;
use crate::cell::Cell;
use crate::mutant::{Mutant, planted};
use crate::paxos::{Acceptor, Ballot};
use crate::placement::Partition;
use crate::time::WallTime;

/// All registers of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Store {
    shards: BTreeMap<Partition, BTreeMap<Bytes, Acceptor<Cell>>>,
    /// Registers whose values have a deadline, the earliest first.
    deadlines: BTreeSet<(WallTime, Bytes)>,
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

    /// Registers whose values' time has passed, as far as this owner knows.
    pub(super) fn over(&self, now: WallTime) -> impl Iterator<Item = &Bytes> {
        self.deadlines.iter().take_while(move |(at, _)| *at <= now).map(|(_, key)| key)
    }

    /// Whether any value has a deadline.
    pub(super) fn has_deadlines(&self) -> bool {
        !self.deadlines.is_empty()
    }

    /// Changes the state of a key.
    pub(super) fn update<R>(&mut self, key: &Bytes, change: impl FnOnce(&mut Acceptor<Cell>) -> R) -> R {
        let before = self.deadline(key);
        let result = change(self.entry(key));
        let after = self.deadline(key);
        if before != after {
            before.map(|at| self.deadlines.remove(&(at, key.clone())));
            after.map(|at| self.deadlines.insert((at, key.clone())));
        }
        result
    }

    fn deadline(&self, key: &Bytes) -> Option<WallTime> {
        self.get(key).and_then(Acceptor::accepted).and_then(|(_, cell)| cell.expires())
    }

    /// The state of a key, for changes that leave the content as it is.
    pub(super) fn entry(&mut self, key: &Bytes) -> &mut Acceptor<Cell> {
        self.shards.entry(Partition::of(key)).or_default().entry(key.clone()).or_default()
    }

    /// The keys of a partition behind `after`.
    pub(super) fn keys(&self, partition: Partition, after: Option<&Bytes>) -> impl Iterator<Item = &Bytes> {
        let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.clone()));
        let shard = self.shards.get(&partition);
        shard.into_iter().flat_map(move |shard| shard.range((from.clone(), Bound::Unbounded)).map(|(key, _)| key))
    }

    /// The keys of a partition from `from` on.
    pub(super) fn keys_at(&self, partition: Partition, from: Bytes) -> impl Iterator<Item = &Bytes> {
        let shard = self.shards.get(&partition);
        shard.into_iter().flat_map(move |shard| shard.range(from.clone()..).map(|(key, _)| key))
    }

    /// Partitions of which anything is kept.
    pub(super) fn partitions(&self) -> Vec<Partition> {
        self.shards.keys().copied().collect()
    }

    /// Forgets a partition, and returns its keys.
    pub(super) fn leave(&mut self, partition: Partition) -> Vec<Bytes> {
        self.deadlines.retain(|(_, key)| Partition::of(key) != partition);
        self.shards.remove(&partition).unwrap_or_default().into_keys().collect()
    }

    /// Takes over a durable record.
    pub(super) fn restore(&mut self, record: Record) {
        match record {
            Record::Register { key, acceptor } => {
                let promised = self.get(&key).map(Acceptor::promised).unwrap_or_default();
                self.update(&key, |kept| {
                    *kept = acceptor;
                    kept.raise(promised);
                });
            }
            Record::Promised { key, ballot } => {
                if ballot != Ballot::NONE && !planted(Mutant::RegisterPromiseForgotten) {
                    self.entry(&key).raise(ballot);
                }
            }
            Record::Removed { key } => {
                self.update(&key, |kept| *kept = Acceptor::default());
                if let Some(shard) = self.shards.get_mut(&Partition::of(&key)) {
                    shard.remove(&key);
                }
            }
        }
    }
}

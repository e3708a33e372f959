//! Collection of deletes: once every owner holds the same delete of a key, all of them forget the key.
//!
//! A delete has to be remembered as long as an older value of its key may still turn up: at an owner that was away,
//! or in a message that is under way. Time proves neither (that is how deleted data rises again), so a delete goes
//! only when **every** owner of the epoch has confirmed that it holds exactly this delete, durably; and against what
//! is under way each partition counts its collections in a [`Round`], which every message with data carries.
//!
//! ```text
//!   I ── Confirm(round r, deleted keys with their digests) ──▶ every owner of the partition, I too
//!   I ◀── Confirmed(those it holds just so, durably) ── all of them
//!   I ── Collect(round r+1, the keys that all confirmed) ──▶ every owner: the round, then the removals, durable
//!
//!   L (at r) ── anything ──▶ A (at r+1):   refused as STALE_ROUND;   A ── Collect(r+1, …) ──▶ L
//!   L (at r) ◀── anything ── A (at r+1):   L ── Behind(r) ──▶ owners;   A ── Collect(r+1, …) ──▶ L
//! ```
//!
//! **Invariants.**
//! - *What was under way before stays away.* A message of a lower round is refused; a read counts only answers of the
//!   highest round among them. After the confirmations no owner holds an older value, so only such messages could
//!   bring one.
//! - *Nobody who holds anything older is ever two rounds behind*, because round r+2 needs every owner's confirmation at
//!   r+1, and an owner that joins brings nothing from before (`transfer.rs`). So whoever is ahead brings a laggard up
//!   with the keys of its last round; nothing is wiped and copied anew.
//! - *Nothing is collected while the owners change.*
//! - *A key that changed after it was confirmed stays* where it changed, and repair brings it back to the others.
//! - *Counters stay.* Dots are counted per partition, so a key that is written again never meets an old dot.
//!
//! Two owners may collect at once; then some removals happen at some owners only, and repair brings those deletes
//! back until a later round. `collect_after` is pacing: it keeps the memory of a write's id beyond every deadline.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::{Event, Kv, Record, Store, Timer};
use crate::bytes::Bytes;
use crate::id::{Epoch, NodeId, Round};
use crate::limits;
use crate::mutant::{Mutant, planted};
use crate::placement::Partition;
use crate::protocol::{Ctx, Effects};
use crate::quorum::Tally;

/// Partitions that one owner collects at once.
const PARTITIONS_AT_ONCE: usize = 32;

/// A deleted key and the digest of what is held of it.
type Deleted = (Bytes, u64);

/// What owners tell each other to collect.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Msg {
    /// Do you hold these deletes, exactly so?
    Confirm {
        /// The sender's epoch.
        epoch: Epoch,
        /// Of which partition.
        partition: Partition,
        /// The round the sender is in.
        round: Round,
        /// Deleted keys with the digests of what the sender holds of them.
        keys: Vec<(Bytes, u64)>,
    },
    /// These I do, durably.
    Confirmed {
        /// The partition.
        partition: Partition,
        /// The round in which that holds.
        round: Round,
        /// Those of the keys.
        keys: Vec<(Bytes, u64)>,
    },
    /// This round begins: forget these keys where you still hold them so.
    Collect {
        /// The sender's epoch.
        epoch: Epoch,
        /// The partition.
        partition: Partition,
        /// The round that begins.
        round: Round,
        /// What all owners confirmed.
        keys: Vec<(Bytes, u64)>,
    },
    /// You seem to be ahead of me; what did the next round collect?
    Behind {
        /// The sender's epoch.
        epoch: Epoch,
        /// The partition.
        partition: Partition,
        /// The round the sender is in.
        round: Round,
    },
}

/// The collections that this node has begun and not finished.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Collector {
    attempts: BTreeMap<Partition, Attempt>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Attempt {
    epoch: Epoch,
    round: Round,
    /// What every owner heard so far has confirmed.
    keys: BTreeSet<Deleted>,
    owners: Tally,
}

pub(super) fn arm(cx: &mut Ctx<'_>, fx: &mut Effects<Kv>) {
    let interval = cx.config.kv.repair_interval;
    fx.arm(cx.rng.between(interval, interval.times(2)), Timer::Collect);
}

impl Collector {
    /// The epoch has changed: what was begun in the one before is void.
    pub(super) fn give_up(&mut self) {
        self.attempts.clear();
    }

    /// Asks for confirmation of what has been deleted for long enough, and gives up what was not confirmed so far.
    pub(super) fn on_timer(&mut self, store: &Store, cx: &mut Ctx<'_>, fx: &mut Effects<Kv>) {
        self.attempts.clear();
        let mut partitions: Vec<Partition> =
            store.with_deletes().filter(|&partition| collects_here(cx, partition)).collect();
        let count = cx.rng.choose(&mut partitions, PARTITIONS_AT_ONCE);
        for &partition in &partitions[..count] {
            self.begin(store, cx, partition, fx);
        }
        arm(cx, fx);
    }

    fn begin(&mut self, store: &Store, cx: &Ctx<'_>, partition: Partition, fx: &mut Effects<Kv>) {
        let keys = ripe(store, cx, partition);
        if keys.is_empty() {
            return;
        }
        let (epoch, round) = (cx.view.epoch(), store.round(partition));
        let owners = owners(cx, partition);
        let tally = Tally::new(owners.iter().copied(), owners.len() as u8);
        self.attempts.insert(partition, Attempt { epoch, round, keys: keys.iter().cloned().collect(), owners: tally });
        fx.send_all(owners.to_vec(), super::Msg::Collect(Msg::Confirm { epoch, partition, round, keys }));
    }

    pub(super) fn on_message(&mut self, store: &mut Store, cx: &Ctx<'_>, from: NodeId, msg: Msg, fx: &mut Effects<Kv>) {
        match msg {
            Msg::Confirm { epoch, partition, round, keys } if among_owners(cx, epoch, partition, from) => {
                if round == store.round(partition) {
                    let unasked = planted(Mutant::CollectedUnasked);
                    let held = |(key, digest): &Deleted| unasked || store.holds_delete(partition, key, *digest);
                    let keys = keys.into_iter().filter(held);
                    let keys = keys.collect();
                    fx.send(from, super::Msg::Collect(Msg::Confirmed { partition, round, keys }));
                } else {
                    settle_round(store, cx, from, partition, round, fx);
                }
            }
            Msg::Confirmed { partition, round, keys } => self.on_confirmed(cx, from, partition, round, keys, fx),
            Msg::Collect { epoch, partition, round, keys } if among_owners(cx, epoch, partition, from) => {
                on_collect(store, partition, round, keys, fx);
            }
            Msg::Behind { epoch, partition, round } if among_owners(cx, epoch, partition, from) => {
                settle_round(store, cx, from, partition, round, fx);
            }
            Msg::Confirm { .. } | Msg::Collect { .. } | Msg::Behind { .. } => (),
        }
    }

    fn on_confirmed(
        &mut self,
        cx: &Ctx<'_>,
        from: NodeId,
        partition: Partition,
        round: Round,
        keys: Vec<Deleted>,
        fx: &mut Effects<Kv>,
    ) {
        let Some(attempt) = self.attempts.get_mut(&partition) else { return };
        if attempt.round != round || attempt.epoch != cx.view.epoch() || !attempt.owners.answer(from) {
            return;
        }
        let confirmed: BTreeSet<Deleted> = keys.into_iter().collect();
        attempt.keys.retain(|key| confirmed.contains(key));
        let enough = if planted(Mutant::CollectedByMajority) { 2 } else { owners(cx, partition).len() };
        if attempt.owners.answered().len() < enough {
            return;
        }
        let Some(attempt) = self.attempts.remove(&partition) else { return };
        if attempt.keys.is_empty() {
            return;
        }
        let (epoch, round) = (attempt.epoch, round.next());
        let keys = attempt.keys.into_iter().collect();
        fx.send_all(
            owners(cx, partition).to_vec(),
            super::Msg::Collect(Msg::Collect { epoch, partition, round, keys }),
        );
    }
}

fn on_collect(store: &mut Store, partition: Partition, round: Round, keys: Vec<Deleted>, fx: &mut Effects<Kv>) {
    if round <= store.round(partition) {
        return;
    }
    let removed = store.begin_round(partition, round, keys);
    // The round goes first: a tail torn between the two keeps deletes too long, never a round too low.
    fx.persist(store.partition_record(partition));
    for key in &removed {
        fx.persist(Record::Removed { key: key.clone() });
    }
    fx.trace(|| Event::Collected { partition, round, keys: removed.len() as u32 });
}

/// Brings whichever of two owners is behind up to the other's round.
pub(super) fn settle_round(
    store: &Store,
    cx: &Ctx<'_>,
    other: NodeId,
    partition: Partition,
    theirs: Round,
    fx: &mut Effects<Kv>,
) {
    let (epoch, round) = (cx.view.epoch(), store.round(partition));
    if theirs < round {
        let keys = store.collected(partition).to_vec();
        fx.send(other, super::Msg::Collect(Msg::Collect { epoch, partition, round, keys }));
    } else if theirs > round {
        fx.send(other, super::Msg::Collect(Msg::Behind { epoch, partition, round }));
    }
}

/// Somebody knows of a later round: asks the other owners for it.
pub(super) fn catch_up(store: &Store, cx: &Ctx<'_>, partition: Partition, theirs: Round, fx: &mut Effects<Kv>) {
    let owners = cx.view.chosen.as_ref().into_iter().flat_map(|chosen| chosen.owners(partition).all());
    for owner in owners.filter(|&owner| owner != cx.me) {
        settle_round(store, cx, owner, partition, theirs, fx);
    }
}

/// What has been deleted here for long enough, as much as one message takes.
fn ripe(store: &Store, cx: &Ctx<'_>, partition: Partition) -> Vec<Deleted> {
    let mut bytes = 0;
    let ripe = store.deletes(partition).filter(|(.., since)| cx.now.mono.since(*since) >= cx.config.kv.collect_after);
    let fits = ripe.take(limits::COLLECT_KEYS).take_while(|(key, ..)| {
        bytes += key.len();
        bytes <= limits::COLLECT_BYTES
    });
    fits.map(|(key, digest, _)| (key.clone(), digest)).collect()
}

/// Whether it is this owner's turn: the first of those that seem alive, and only while all do. A hint that saves
/// messages; any owner may collect at any time.
fn collects_here(cx: &Ctx<'_>, partition: Partition) -> bool {
    let owners = owners(cx, partition);
    let is_joint = cx.view.chosen.as_ref().is_some_and(|chosen| chosen.config.next.is_some());
    let alive = || owners.iter().all(|&owner| owner == cx.me || cx.view.seems_alive(owner));
    !is_joint && owners.first() == Some(&cx.me) && alive()
}

fn among_owners(cx: &Ctx<'_>, epoch: Epoch, partition: Partition, from: NodeId) -> bool {
    let owns = |node: NodeId| cx.view.chosen.as_ref().is_some_and(|chosen| chosen.owners(partition).contains(node));
    cx.check_epoch(epoch).is_ok() && owns(from) && owns(cx.me) && cx.is_seated()
}

fn owners<'a>(cx: &Ctx<'a>, partition: Partition) -> &'a [NodeId] {
    cx.view.chosen.as_ref().map(|chosen| chosen.owners(partition).current).unwrap_or_default()
}

//! Comparison between owners: what one missed, the other brings.
//!
//! ```text
//!   A ── Compare(round and digest of each partition both own) ──▶ B
//!   A ◀── Differ(partitions) ── B
//!   A ── KeysOf(partition, after) ──▶ B ── Keys(key digests, page by page) ──▶ A
//!   A ── Push(what B lacks or has otherwise) ──▶ B         A ── Fetch(keys) ──▶ B ── Push ──▶ A
//! ```
//!
//! Where the rounds differ, the one behind is first brought up (`collect.rs`), and what it pushes meanwhile is refused.
//!
//! **Whose turn it is.** Members take turns in an order that chance draws anew each time around, so that nobody waits
//! for longer than two times around, however chance falls. Who comes back, or turns out to be in another epoch, is
//! compared first: it is the likeliest to have missed something, or to bring something.
//!
//! Pushing merges, so it is harmless at any time and in any order; nothing here is ever counted toward a quorum.
//! The tree has two levels, partitions and keys; digests are kept up to date with each write at no extra cost.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::replica::is_acceptable;
use super::{Event, Kv, Store, Timer, collect};
use crate::bytes::Bytes;
use crate::id::{Epoch, NodeId, Round};
use crate::limits;
use crate::mutant::Mutant;
use crate::placement::Partition;
use crate::protocol::{Ctx, Effects};
use crate::time::Duration;
use crate::version::Versions;

/// Partitions whose keys are compared in one round; the rest waits for the next.
const PARTITIONS_PER_ROUND: usize = 32;
/// With more to do, the next round begins so soon.
const SOON: Duration = Duration::millis(250);

/// What owners tell each other to find differences.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Msg {
    /// My digests.
    Compare {
        /// The sender's epoch.
        epoch: Epoch,
        /// One for each partition that both own.
        digests: Vec<(Partition, Round, u64)>,
    },
    /// Mine are different for these.
    Differ {
        /// The partitions.
        partitions: Vec<Partition>,
    },
    /// Which keys do you hold there?
    KeysOf {
        /// The partition.
        partition: Partition,
        /// Only keys behind this one.
        after: Option<Bytes>,
    },
    /// These.
    Keys {
        /// The partition.
        partition: Partition,
        /// As asked.
        after: Option<Bytes>,
        /// Keys in order with their digests.
        digests: Vec<(Bytes, u64)>,
        /// Whether the page ends the partition.
        complete: bool,
    },
    /// Send me these.
    Fetch {
        /// The partition.
        partition: Partition,
        /// The keys.
        keys: Vec<Bytes>,
    },
    /// Merge these.
    Push {
        /// The sender's epoch.
        epoch: Epoch,
        /// The partition of all the keys.
        partition: Partition,
        /// The round that the versions are from.
        round: Round,
        /// Keys with what the sender holds.
        entries: Vec<(Bytes, Versions)>,
    },
}

/// With whom to compare next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Repair {
    /// Those that come first.
    first: BTreeSet<NodeId>,
    /// Those that have not had their turn this time around, the next one last.
    turns: Vec<NodeId>,
}

impl Repair {
    pub(super) fn arm(&self, cx: &mut Ctx<'_>, fx: &mut Effects<Kv>) {
        let interval = cx.config.kv.repair_interval;
        let wait = if self.first.is_empty() { interval + cx.rng.between(Duration::ZERO, interval) } else { SOON };
        fx.arm(wait, Timer::Repair);
    }

    /// Compares with a peer soon, before all others.
    pub(super) fn hurry(&mut self, cx: &Ctx<'_>, peer: NodeId, fx: &mut Effects<Kv>) {
        if may_compare(cx, peer) && self.first.insert(peer) {
            fx.arm(SOON, Timer::Repair);
        }
    }

    pub(super) fn on_timer(&mut self, store: &Store, cx: &mut Ctx<'_>, fx: &mut Effects<Kv>) {
        if let Some(peer) = self.next(cx) {
            let of = |partition| (partition, store.round(partition), store.digest_of(partition));
            let digests = shared_partitions(cx, peer).map(of).collect();
            send(fx, peer, Msg::Compare { epoch: cx.view.epoch(), digests });
        }
        self.arm(cx, fx);
    }

    /// Another storage member of the epoch: one that comes first, or the next that seems alive.
    fn next(&mut self, cx: &mut Ctx<'_>) -> Option<NodeId> {
        while let Some(peer) = self.first.pop_first() {
            if may_compare(cx, peer) {
                return Some(peer);
            }
        }
        let begins = self.turns.is_empty();
        self.take_turn(cx).or_else(|| {
            // Nobody is left of this time around; the next one begins, unless it just has.
            if begins { None } else { self.take_turn(cx) }
        })
    }

    fn take_turn(&mut self, cx: &mut Ctx<'_>) -> Option<NodeId> {
        if self.turns.is_empty() {
            let config = &cx.view.chosen.as_ref()?.config;
            self.turns = config.storage().collect();
            let all = self.turns.len();
            cx.rng.choose(&mut self.turns, all);
        }
        while let Some(peer) = self.turns.pop() {
            if may_compare(cx, peer) && cx.view.seems_alive(peer) {
                return Some(peer);
            }
        }
        None
    }

    pub(super) fn on_message(
        &mut self,
        store: &mut Store,
        cx: &mut Ctx<'_>,
        from: NodeId,
        msg: Msg,
        fx: &mut Effects<Kv>,
    ) {
        match msg {
            Msg::Compare { epoch, digests } => {
                if cx.check_epoch(epoch).is_err() {
                    // One of the two is about to follow the other.
                    return self.hurry(cx, from, fx);
                }
                let shared: BTreeSet<Partition> = shared_partitions(cx, from).collect();
                let shared = digests.into_iter().filter(|(partition, ..)| shared.contains(partition));
                let mut partitions = Vec::new();
                for (partition, round, digest) in shared {
                    if round != store.round(partition) {
                        collect::settle_round(store, cx, from, partition, round, fx);
                    } else if digest != store.digest_of(partition) {
                        partitions.push(partition);
                    }
                }
                if !partitions.is_empty() {
                    send(fx, from, Msg::Differ { partitions });
                }
            }
            Msg::Differ { mut partitions } => {
                let chosen = cx.rng.choose(&mut partitions, PARTITIONS_PER_ROUND);
                if chosen < partitions.len() {
                    self.hurry(cx, from, fx);
                }
                for &partition in &partitions[..chosen] {
                    send(fx, from, Msg::KeysOf { partition, after: None });
                }
            }
            Msg::KeysOf { partition, after } => {
                let mut digests: Vec<(Bytes, u64)> = store
                    .digests(partition, after.as_ref())
                    .take(limits::REPAIR_KEYS + 1)
                    .map(|(key, digest)| (key.clone(), digest))
                    .collect();
                let complete = digests.len() <= limits::REPAIR_KEYS;
                digests.truncate(limits::REPAIR_KEYS);
                send(fx, from, Msg::Keys { partition, after, digests, complete });
            }
            Msg::Keys { partition, after, digests, complete } => {
                let last = digests.last().map(|(key, _)| key.clone());
                exchange(store, cx, from, partition, after.as_ref(), (digests, complete), fx);
                if let (false, Some(last)) = (complete, last) {
                    send(fx, from, Msg::KeysOf { partition, after: Some(last) });
                }
            }
            Msg::Fetch { partition, keys } => push(store, cx, from, partition, keys.into_iter(), fx),
            Msg::Push { epoch, partition, round, entries } => {
                if cx.check_epoch(epoch).is_err() || store.check_round(cx, partition, round, fx).is_err() {
                    return;
                }
                for (key, versions) in entries.into_iter().filter(|(key, _)| Partition::of(key) == partition) {
                    take_in(store, cx, from, key, &versions, fx);
                }
            }
        }
    }
}

/// Sends a replica that answered a read what the others knew better.
pub(super) fn push_merged(
    cx: &Ctx<'_>,
    to: NodeId,
    round: Round,
    (key, versions): (Bytes, Versions),
    fx: &mut Effects<Kv>,
) {
    let (epoch, partition) = (cx.view.epoch(), Partition::of(&key));
    send(fx, to, Msg::Push { epoch, partition, round, entries: alloc::vec![(key, versions)] });
}

/// Compares a page of the peer's keys with the same stretch of ours.
fn exchange(
    store: &Store,
    cx: &Ctx<'_>,
    from: NodeId,
    partition: Partition,
    after: Option<&Bytes>,
    (theirs, complete): (Vec<(Bytes, u64)>, bool),
    fx: &mut Effects<Kv>,
) {
    let last = theirs.last().map(|(key, _)| key.clone());
    let theirs: BTreeMap<Bytes, u64> = theirs.into_iter().collect();
    let in_page = |key: &Bytes| complete || last.as_ref().is_some_and(|last| key <= last);
    let mine: BTreeMap<&Bytes, u64> =
        store.digests(partition, after).take_while(|(key, _)| in_page(key)).take(2 * limits::REPAIR_KEYS).collect();

    let to_push: Vec<Bytes> =
        mine.iter().filter(|(key, digest)| theirs.get(**key) != Some(digest)).map(|(key, _)| (*key).clone()).collect();
    let to_fetch: Vec<Bytes> =
        theirs.iter().filter(|(key, digest)| mine.get(key) != Some(digest)).map(|(key, _)| key.clone()).collect();
    push(store, cx, from, partition, to_push.into_iter(), fx);
    if !to_fetch.is_empty() {
        send(fx, from, Msg::Fetch { partition, keys: to_fetch });
    }
}

/// Pushes keys until the round's budget is used up.
fn push(
    store: &Store,
    cx: &Ctx<'_>,
    to: NodeId,
    partition: Partition,
    keys: impl Iterator<Item = Bytes>,
    fx: &mut Effects<Kv>,
) {
    let mut budget = limits::REPAIR_BYTES;
    let mut entries = Vec::new();
    for key in keys.filter(|key| Partition::of(key) == partition) {
        let Some(versions) = store.get(&key) else {
            continue;
        };
        let weight = key.len() + versions.weight();
        // One key always goes, however heavy, lest it hold up all others for good.
        if weight > budget && !entries.is_empty() {
            break;
        }
        budget = budget.saturating_sub(weight);
        entries.push((key, versions.clone()));
    }
    if !entries.is_empty() {
        let (epoch, round) = (cx.view.epoch(), store.round(partition));
        send(fx, to, Msg::Push { epoch, partition, round, entries });
    }
}

fn take_in(store: &mut Store, cx: &Ctx<'_>, from: NodeId, key: Bytes, versions: &Versions, fx: &mut Effects<Kv>) {
    let owns = cx.view.chosen.as_ref().is_some_and(|chosen| chosen.owners_of(&key).contains(cx.me));
    if !owns || !cx.is_seated() || !is_acceptable(&key, versions) {
        return;
    }
    let before = store.get(&key).cloned();
    let after = store.take_in(cx, key.clone(), versions, Mutant::RepairReplaces, fx);
    if after.is_some() && before != after {
        fx.trace(|| Event::Repaired { key, from });
    }
}

/// Whether both have a seat in the epoch.
fn may_compare(cx: &Ctx<'_>, peer: NodeId) -> bool {
    let seats = |node| cx.view.chosen.as_ref().is_some_and(|chosen| chosen.config.seats(node));
    peer != cx.me && seats(peer) && cx.is_seated()
}

fn shared_partitions(cx: &Ctx<'_>, peer: NodeId) -> impl Iterator<Item = Partition> {
    let partitions = cx.view.chosen.iter().flat_map(crate::view::Chosen::partitions);
    partitions.filter(move |&partition| {
        cx.view.chosen.as_ref().is_some_and(|chosen| {
            let owners = chosen.owners(partition);
            owners.contains(cx.me) && owners.contains(peer)
        })
    })
}

fn send(fx: &mut Effects<Kv>, to: NodeId, msg: Msg) {
    fx.send(to, super::Msg::Repair(msg));
}

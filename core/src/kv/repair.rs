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
//! Pushing merges, so it is harmless at any time and in any order; nothing here is ever counted toward a quorum.
//! The tree has two levels, partitions and keys; digests are kept up to date with each write at no extra cost.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::replica::{check_epoch, is_acceptable};
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
/// With more to do, and when an owner comes back, the next round begins so soon.
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

pub(super) fn arm(cx: &mut Ctx<'_>, fx: &mut Effects<Kv>) {
    let interval = cx.config.kv.repair_interval;
    fx.arm(interval + cx.rng.between(Duration::ZERO, interval), Timer::Repair);
}

/// An owner may have come back with a gap: compare soon.
pub(super) fn on_link_up(cx: &Ctx<'_>, peer: NodeId, fx: &mut Effects<Kv>) {
    let config = cx.view.chosen.as_ref().map(|chosen| &chosen.config);
    if config.is_some_and(|config| config.seats(peer) && config.seats(cx.me)) {
        fx.arm(SOON, Timer::Repair);
    }
}

pub(super) fn on_timer(store: &Store, cx: &mut Ctx<'_>, fx: &mut Effects<Kv>) {
    if let Some(peer) = choose_peer(cx) {
        let of = |partition| (partition, store.round(partition), store.digest_of(partition));
        let digests = shared_partitions(cx, peer).map(of).collect();
        send(fx, peer, Msg::Compare { epoch: cx.view.epoch(), digests });
    }
    arm(cx, fx);
}

pub(super) fn on_message(store: &mut Store, cx: &mut Ctx<'_>, from: NodeId, msg: Msg, fx: &mut Effects<Kv>) {
    match msg {
        Msg::Compare { epoch, digests } => {
            if check_epoch(cx, epoch).is_err() {
                return;
            }
            let shared: BTreeSet<Partition> = shared_partitions(cx, from).collect();
            let mut partitions = Vec::new();
            for (partition, round, digest) in digests.into_iter().filter(|(partition, ..)| shared.contains(partition)) {
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
                fx.arm(SOON, Timer::Repair);
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
            if check_epoch(cx, epoch).is_err() || store.check_round(cx, partition, round, fx).is_err() {
                return;
            }
            for (key, versions) in entries.into_iter().filter(|(key, _)| Partition::of(key) == partition) {
                take_in(store, cx, from, key, &versions, fx);
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

/// Another storage member of the epoch, one that seems alive if there is one.
fn choose_peer(cx: &mut Ctx<'_>) -> Option<NodeId> {
    let config = &cx.view.chosen.as_ref()?.config;
    if !cx.is_seated() {
        return None;
    }
    let mut others: Vec<NodeId> = config.storage().filter(|&node| node != cx.me && cx.view.seems_alive(node)).collect();
    cx.rng.choose(&mut others, 1);
    others.first().copied()
}

fn shared_partitions(cx: &Ctx<'_>, peer: NodeId) -> impl Iterator<Item = Partition> {
    Partition::all().filter(move |&partition| {
        cx.view.chosen.as_ref().is_some_and(|chosen| {
            let owners = chosen.owners(partition);
            owners.contains(cx.me) && owners.contains(peer)
        })
    })
}

fn send(fx: &mut Effects<Kv>, to: NodeId, msg: Msg) {
    fx.send(to, super::Msg::Repair(msg));
}

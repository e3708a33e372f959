//! While the owners change: every register is read once in the joint epoch.
//!
//! ```text
//!   N, an owner to come                                       O, an owner of now
//!     N ── Keys(epoch e+1, partition, after) ──▶ O
//!     N ◀── Kept(keys, page by page) ── O                     … of a majority of the owners of now: the union is all keys
//!     N reads each key: one ballot that majorities of both groups report, or a round of its own    (`proposer.rs`)
//!   all keys are read: N tells the voters that the partition *is moved*
//! ```
//!
//! **Why it is enough.** O answers only from epoch e+1, and whoever is in e+1 accepts nothing of epoch e any more. So what
//! was chosen in e is with a majority of owners that are in e+1, and one of them has told of the key. A read in the joint
//! epoch ends with the value accepted, under one ballot, by majorities of both groups: of the owners to come by
//! themselves, too. What is written in e+1 goes to majorities of both anyway. Promises are not copied, nor are ballots:
//! a copy with an old ballot could lose to an attempt that no majority had accepted (the paper's own warning).
//!
//! One owner suffices for a partition, because what it reports is a fact about majorities. The first that seems alive
//! begins; the others wait for their turn, in case it does not. After a crash another begins anew, and finds what is
//! moved already in one round trip.
//!
//! **After a lost majority** every survivor is asked for its keys, and every survivor has to promise; the highest that any
//! of them has accepted wins. Versions and ballots then lie above all those of the old cluster.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::proposer::Proposers;
use super::{Event, Msg, Registers, Store, Timer};
use crate::bytes::Bytes;
use crate::id::{Epoch, NodeId};
use crate::limits;
use crate::mutant::{Mutant, planted};
use crate::placement::Partition;
use crate::protocol::{Ctx, Effects};
use crate::quorum::{Tally, majority};
use crate::time::{Duration, Instant};

/// Owners that are silent are asked again this often; whoever's turn has come begins as soon as that.
const LOOK: Duration = Duration::millis(200);
/// The second of the owners to come begins after this, the third after twice as long, ….
const TURN: Duration = Duration::millis(1_500);

/// The partitions that this node may have to move.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Moving {
    epoch: Epoch,
    began: Instant,
    waiting: BTreeSet<Partition>,
    running: BTreeMap<Partition, Move>,
    done: BTreeSet<Partition>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Move {
    /// Owners of now whose keys are all known.
    heard: Tally,
    /// Up to which key those of the others are.
    cursors: BTreeMap<NodeId, Option<Bytes>>,
    /// To be read.
    keys: BTreeSet<Bytes>,
    under_way: BTreeSet<Bytes>,
    count: u32,
}

/// Some of the keys that an owner keeps.
pub(super) struct Page {
    pub(super) epoch: Epoch,
    pub(super) partition: Partition,
    pub(super) after: Option<Bytes>,
    pub(super) keys: Vec<Bytes>,
    pub(super) complete: bool,
}

impl Moving {
    /// Another epoch is in force.
    pub(super) fn begin(&mut self, cx: &Ctx<'_>, fx: &mut Effects<Registers>) {
        *self = Self { epoch: cx.view.epoch(), began: cx.now.mono, ..Self::default() };
        fx.disarm(Timer::Moving);
        let Some(chosen) = &cx.view.chosen else { return };
        let mine = |partition: &Partition| to_come(cx, *partition).is_some_and(|owners| owners.contains(&cx.me));
        if (chosen.config.next.is_some() || chosen.config.recovers.is_some()) && cx.is_seated() {
            self.waiting = chosen.partitions().filter(mine).collect();
            // At once, in the same step.
            fx.arm(Duration::ZERO, Timer::Moving);
        }
    }

    /// Begins with partitions whose turn it is, while few are under way; asks again who is silent.
    pub(super) fn on_timer(&mut self, cx: &Ctx<'_>, fx: &mut Effects<Registers>) {
        if self.epoch != cx.view.epoch() {
            return;
        }
        for (&partition, run) in &self.running {
            run.ask(cx, partition, fx);
        }
        self.begin_more(cx, fx);
        if !(self.waiting.is_empty() && self.running.is_empty()) {
            fx.arm(LOOK, Timer::Moving);
        }
    }

    fn begin_more(&mut self, cx: &Ctx<'_>, fx: &mut Effects<Registers>) {
        let elapsed = cx.now.mono.since(self.began);
        let is_my_turn = |partition: &Partition| {
            let owners = to_come(cx, *partition).unwrap_or_default();
            let alive = owners.iter().filter(|&&owner| owner == cx.me || cx.view.seems_alive(owner));
            let rank = alive.take_while(|&&owner| owner != cx.me).count();
            elapsed >= TURN.times(rank as u64)
        };
        let room = limits::TRANSFERS.saturating_sub(self.running.len());
        let begin: Vec<Partition> = self.waiting.iter().copied().filter(is_my_turn).take(room).collect();
        for partition in begin {
            self.waiting.remove(&partition);
            let Some(run) = Move::new(cx, partition) else { continue };
            run.ask(cx, partition, fx);
            self.running.insert(partition, run);
        }
    }

    /// A page of an owner's keys.
    pub(super) fn on_kept(
        &mut self,
        cx: &mut Ctx<'_>,
        proposers: &mut Proposers,
        from: NodeId,
        page: Page,
        fx: &mut Effects<Registers>,
    ) {
        let Page { epoch, partition, after, keys, complete } = page;
        if epoch != self.epoch || epoch != cx.view.epoch() {
            return;
        }
        let Some(run) = self.running.get_mut(&partition) else { return };
        if run.heard.reached() || run.cursors.get(&from) != Some(&after) {
            return;
        }
        let last = keys.last().cloned();
        run.keys.extend(keys.into_iter().filter(|key| Partition::of(key) == partition));
        if complete {
            run.cursors.remove(&from);
            run.heard.answer(from);
            run.count = run.keys.len() as u32;
            return self.go_on(cx, proposers, partition, fx);
        }
        if last > after {
            run.cursors.insert(from, last.clone());
            // A question.
            fx.send_now(from, Msg::Keys { epoch, partition, after: last });
        }
    }

    /// Reads more of the keys while few are under way.
    fn go_on(
        &mut self,
        cx: &mut Ctx<'_>,
        proposers: &mut Proposers,
        partition: Partition,
        fx: &mut Effects<Registers>,
    ) {
        let Some(run) = self.running.get_mut(&partition).filter(|run| run.heard.reached()) else { return };
        if planted(Mutant::NotMoved) {
            run.keys.clear();
        }
        while run.under_way.len() < limits::MOVES {
            let Some(key) = run.keys.pop_first() else { break };
            run.under_way.insert(key.clone());
            proposers.begin_move(cx, &key, fx);
        }
        if run.under_way.is_empty() {
            let keys = run.count;
            self.running.remove(&partition);
            self.done.insert(partition);
            fx.trace(|| Event::Moved { partition, keys });
            fx.moved(self.epoch, self.done.clone());
            self.begin_more(cx, fx);
        }
    }

    /// A key was read.
    pub(super) fn on_moved(
        &mut self,
        cx: &mut Ctx<'_>,
        proposers: &mut Proposers,
        key: &Bytes,
        fx: &mut Effects<Registers>,
    ) {
        let partition = Partition::of(key);
        if self.running.get_mut(&partition).is_some_and(|run| run.under_way.remove(key)) {
            self.go_on(cx, proposers, partition, fx);
        }
    }
}

impl Move {
    fn new(cx: &Ctx<'_>, partition: Partition) -> Option<Self> {
        let chosen = cx.view.chosen.as_ref()?;
        // Of a lost majority nobody knows who has what: all survivors are asked.
        let (asked, needed): (Vec<NodeId>, u8) = match chosen.config.recovers {
            Some(_) => (chosen.config.storage().collect(), chosen.config.storage().count() as u8),
            None => {
                let current = chosen.owners(partition).current;
                let one = planted(Mutant::TransferFromOne);
                (current.to_vec(), if one { 1 } else { majority(current.len() as u8) })
            }
        };
        let cursors = asked.iter().map(|&owner| (owner, None)).collect();
        let heard = Tally::new(asked, needed);
        Some(Self { heard, cursors, keys: BTreeSet::new(), under_way: BTreeSet::new(), count: 0 })
    }

    /// Asks whoever has not told all of its keys.
    fn ask(&self, cx: &Ctx<'_>, partition: Partition, fx: &mut Effects<Registers>) {
        if self.heard.reached() {
            return;
        }
        let epoch = cx.view.epoch();
        for (&owner, after) in &self.cursors {
            // A question; that this node is in this epoch is durable before the answer counts.
            fx.send(owner, Msg::Keys { epoch, partition, after: after.clone() });
        }
    }
}

/// An owner's side: a page of its keys, if it is in the very epoch it is asked from.
pub(super) fn tell_keys(
    store: &Store,
    cx: &Ctx<'_>,
    to: NodeId,
    (epoch, partition): (Epoch, Partition),
    after: Option<Bytes>,
    fx: &mut Effects<Registers>,
) {
    let Some(chosen) = &cx.view.chosen else { return };
    let tells = chosen.owners(partition).contains(cx.me) || chosen.config.recovers.is_some();
    if epoch != chosen.config.epoch || !tells || !cx.is_seated() {
        return;
    }
    let (mut weight, mut keys, mut complete) = (0, Vec::new(), true);
    for key in store.keys(partition, after.as_ref()) {
        weight += key.len();
        if !keys.is_empty() && (weight > limits::TRANSFER_BYTES || keys.len() >= limits::REPAIR_KEYS) {
            complete = false;
            break;
        }
        keys.push(key.clone());
    }
    fx.send(to, Msg::Kept { epoch, partition, after, keys, complete });
}

/// The owners that a partition is moved to, if it is.
fn to_come<'a>(cx: &Ctx<'a>, partition: Partition) -> Option<&'a [NodeId]> {
    let chosen = cx.view.chosen.as_ref()?;
    let owners = chosen.owners(partition);
    owners.next.or(chosen.config.recovers.is_some().then_some(owners.current))
}

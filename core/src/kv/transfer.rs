//! Taking over: while a change is under way, the owners to come fetch what is theirs from the owners there are.
//!
//! ```text
//!   N, owner in B of a partition that moves                           O, owner in A of it
//!     N ── Pull(epoch e+1, partition, a range of keys, the digest of what N has of it) ──▶ O
//!     N ◀── Page(epoch e+1, round, some keys with all that O knows of them, or: the same) ── O       … until the last
//!   done with a majority of the owners in A, itself counted where it is one: N *has taken over* the partition
//! ```
//!
//! **Why it is enough.** O answers only from epoch e+1, and whoever is in e+1 acknowledges nothing of epoch e any more:
//! so O's pages, all of them read later, hold whatever O has ever acknowledged in e. What was acknowledged in e is on a
//! majority of the owners in A, and N has heard a majority: one of them it has heard. What is written meanwhile, in
//! e+1, goes to majorities of both by itself. Owners that stay take over as well, because a majority of B may consist
//! of those who stay, and each of them may have missed something.
//!
//! Merging is harmless at any time and in any order, so nothing has to be remembered: after a crash N begins anew, and
//! what it holds already costs one message per partition and owner.
//!
//! **Not before.** An owner that has come new, or has come back after it had dropped its data, *lacks*: it stores what it
//! is sent and says what it holds, which is safe because a majority without it has everything; but it mints nothing. A
//! dot claims that its owner has seen all dots that it minted before, and it may have forgotten some that stand. Where
//! the change was completed without it, it takes over from a majority of its fellows all the same.
//!
//! **Learning.** A member that is to get a seat is told so before the change begins (`topology::learners`) and fetches
//! the same partitions then, of each from one owner. It keeps the pages apart from what it stores (`learnt.rs`). While it
//! takes over it says which pages it has; where O holds just that, O says so, and the page is merged as if O had sent it.
//!
//! Few partitions are fetched at once, a page at a time: what clients ask for goes on beside it.
//!
//! **After a lost majority** (`topology::recovery`) every owner of the new cluster asks every survivor, of every partition
//! that it owns, and nobody drops anything before that is done.
//!
//! **Dropping.** Who is no owner of a partition drops what it holds of it when it adopts the epoch in which that is so
//! ([`Store::leave`]), for by then a majority of its successors has everything. So an owner's data is always from the
//! time of its present ownership, and no value returns with it whose delete the others have since forgotten. A node
//! that has missed epochs cannot tell from them whether it owned all the time; the configuration tells it, per
//! partition, since when the owners are the same.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::learnt::Learnt;
use super::replica::is_acceptable;
use super::{Event, Kv, Record, Store, Timer};
use crate::bytes::Bytes;
use crate::id::{Epoch, NodeId, Round};
use crate::limits;
use crate::mutant::{Mutant, planted};
use crate::placement::Partition;
use crate::protocol::{Ctx, Effects};
use crate::quorum::majority;
use crate::time::Duration;
use crate::version::Versions;
use crate::view::Owners;

/// Whoever has not answered for so long is asked again, another one first. The next one gets twice as long, for perhaps
/// it is the way that is slow.
const RETRY: Duration = Duration::millis(500);
/// At most this many times doubled.
const DOUBLED: usize = 4;

/// What owners say to hand over.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Msg {
    /// What do you hold of this partition?
    Pull {
        /// The joint epoch.
        epoch: Epoch,
        /// Which.
        partition: Partition,
        /// Which keys of it.
        range: Range,
        /// What the sender has of them: if it is the same, nothing needs to be sent.
        round: Round,
        /// Its digest; `None` if it knows nothing of these keys.
        digest: Option<u64>,
    },
    /// This.
    Page {
        /// The joint epoch.
        epoch: Epoch,
        /// Which.
        partition: Partition,
        /// The sender's round.
        round: Round,
        /// As asked.
        range: Range,
        /// What the sender holds of these keys.
        content: Content,
    },
}

/// Keys of a partition, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Range {
    /// Only those behind this one.
    pub after: Option<Bytes>,
    /// Only those up to this one.
    pub upto: Option<Bytes>,
}

/// What a page says.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Content {
    /// I hold just what you have.
    Same,
    /// This.
    Entries {
        /// Keys in order with all that the sender knows of them.
        entries: Vec<(Bytes, Versions)>,
        /// Whether there are no more in this range.
        complete: bool,
    },
}

/// What this node still takes over, and what it has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Transfer {
    epoch: Epoch,
    waiting: Vec<Partition>,
    running: BTreeMap<Partition, Pull>,
    done: BTreeSet<Partition>,
    /// What this node was told to learn in this epoch.
    learning: BTreeSet<Partition>,
    /// What it has learnt, in this epoch or for the change that began with it.
    learnt: Learnt,
    /// Pages that have come.
    pages: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Pull {
    /// Who is asked now, and for what.
    pub(super) from: NodeId,
    pub(super) range: Range,
    /// Owners of whom all pages have come.
    heard: BTreeSet<NodeId>,
    /// How often nobody answered.
    silences: usize,
    /// Whether an answer came since the last look.
    moved: bool,
    /// Looks since the last answer, or since it was asked.
    waited: usize,
}

impl Transfer {
    /// The epoch that it has begun with.
    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Begins with the epoch in force, if it gives this node something to take over.
    pub(super) fn begin(&mut self, store: &mut Store, cx: &mut Ctx<'_>, fx: &mut Effects<Kv>) {
        let epoch = cx.view.epoch();
        let learnt = core::mem::take(&mut self.learnt);
        let learnt = if self.epoch.next() == epoch { learnt } else { Learnt::default() };
        *self = Self { epoch, learnt, ..Self::default() };
        fx.disarm(Timer::Transfer);
        let Some(chosen) = &cx.view.chosen else { return };
        let mine = |partition: &Partition| {
            let owners = chosen.owners(*partition);
            let comes = owners.next.is_some_and(|next| next.contains(&cx.me));
            // After a restart in the middle of a recovery, too: what was merged before it has to be told again.
            let merges = chosen.config.recovers.is_some() || store.lacks(*partition);
            comes || (owners.contains(cx.me) && merges)
        };
        self.waiting = chosen.partitions().filter(mine).collect();
        self.learnt.keep_only(&self.waiting);
        // In another order on each, so that they do not all ask the same owner for the same at once.
        let all = self.waiting.len();
        cx.rng.choose(&mut self.waiting, all);
        if !self.waiting.is_empty() && cx.is_seated() {
            fx.arm(RETRY, Timer::Transfer);
            self.go_on(store, cx, fx);
        }
    }

    /// Fetches what this node is to own later, if it is told to.
    pub(super) fn learn(&mut self, store: &mut Store, cx: &mut Ctx<'_>, fx: &mut Effects<Kv>) {
        let Some((epoch, wanted)) = &cx.view.learning else { return };
        if *epoch != self.epoch || *epoch != cx.view.epoch() || *wanted == self.learning {
            return;
        }
        *self = Self { epoch: self.epoch, learning: wanted.clone(), ..Self::default() };
        self.waiting = wanted.iter().copied().collect();
        fx.arm(RETRY, Timer::Transfer);
        self.go_on(store, cx, fx);
    }

    /// Begins with more partitions while few are under way.
    fn go_on(&mut self, store: &mut Store, cx: &Ctx<'_>, fx: &mut Effects<Kv>) {
        while self.running.len() < limits::TRANSFERS {
            let Some(partition) = self.waiting.pop() else { break };
            let Some(chosen) = &cx.view.chosen else { return };
            let owners = chosen.owners(partition);
            let mut heard = BTreeSet::new();
            if owners.current.contains(&cx.me) || chosen.config.recovers.is_some() {
                heard.insert(cx.me);
            }
            let pull = Pull { from: cx.me, range: Range::default(), heard, silences: 0, moved: false, waited: 0 };
            self.running.insert(partition, pull);
            self.ask_next(store, cx, partition, owners, fx);
        }
        let told = cx.view.taken_over.as_ref().is_some_and(|(epoch, done)| *epoch == self.epoch && *done == self.done);
        if !told {
            fx.taken_over(self.epoch, self.done.clone(), self.pages);
        }
    }

    /// Asks the next owner that was not heard; if enough were, the partition is taken over.
    fn ask_next(
        &mut self,
        store: &mut Store,
        cx: &Ctx<'_>,
        partition: Partition,
        owners: Owners<'_>,
        fx: &mut Effects<Kv>,
    ) {
        let Some(pull) = self.running.get_mut(&partition) else { return };
        let sources = if planted(Mutant::FenceOnWrongSet) { owners.next.unwrap_or_default() } else { owners.current };
        let one = self.learning.contains(&partition) || planted(Mutant::TransferFromOne);
        let needed = if one { 1 } else { usize::from(majority(sources.len() as u8)) };
        // Of a lost majority nobody knows who has what: all survivors are asked.
        let survivors = cx.view.chosen.as_ref().filter(|chosen| chosen.config.recovers.is_some());
        let survivors: Option<Vec<NodeId>> = survivors.map(|chosen| chosen.config.storage().collect());
        let needed = survivors.as_ref().map_or(needed, Vec::len);
        let sources = survivors.as_deref().unwrap_or(sources);
        if pull.heard.len() >= needed {
            self.running.remove(&partition);
            if !self.learning.contains(&partition) {
                self.learnt.drop(partition);
            }
            if store.lacks(partition) {
                store.set_lacking(partition, false);
                fx.persist(store.partition_record(partition));
            }
            self.done.insert(partition);
            let (have, of) =
                (self.done.len() as u16, (self.done.len() + self.running.len() + self.waiting.len()) as u16);
            let learns = self.learning.contains(&partition);
            let taken = Event::TookOver { partition, have, of };
            fx.trace(|| if learns { Event::Learnt { partition, have, of } } else { taken });
            return;
        }
        let mut silent: Vec<NodeId> = sources.iter().copied().filter(|owner| !pull.heard.contains(owner)).collect();
        silent.sort_by_key(|&owner| !cx.view.seems_alive(owner));
        let Some(&from) = silent.get(pull.silences % silent.len().max(1)) else { return };
        pull.from = from;
        if self.learning.contains(&partition) {
            self.learnt.drop(partition);
        }
        self.learnt.ask(store, cx, partition, pull, None, fx);
    }

    /// Whoever has been silent is asked again, or somebody else is.
    pub(super) fn on_timer(&mut self, store: &mut Store, cx: &Ctx<'_>, fx: &mut Effects<Kv>) {
        let Some(chosen) = cx.view.chosen.as_ref().filter(|chosen| chosen.config.epoch == self.epoch) else { return };
        let running: Vec<Partition> = self.running.keys().copied().collect();
        for partition in running {
            let Some(pull) = self.running.get_mut(&partition) else { continue };
            pull.waited = if core::mem::take(&mut pull.moved) { 0 } else { pull.waited + 1 };
            if pull.waited < 1 << pull.silences.min(DOUBLED) {
                continue;
            }
            pull.silences += 1;
            pull.waited = 0;
            self.ask_next(store, cx, partition, chosen.owners(partition), fx);
        }
        self.go_on(store, cx, fx);
        if !self.running.is_empty() {
            fx.arm(RETRY, Timer::Transfer);
        }
    }

    pub(super) fn on_message(&mut self, store: &mut Store, cx: &Ctx<'_>, from: NodeId, msg: Msg, fx: &mut Effects<Kv>) {
        match msg {
            Msg::Pull { epoch, partition, range, round, digest } => {
                hand_over(store, cx, from, (epoch, partition), range, (round, digest), fx);
            }
            Msg::Page { epoch, partition, round, range, content } => {
                self.on_page(store, cx, from, (epoch, partition, round), (range, content), fx);
            }
        }
    }

    fn on_page(
        &mut self,
        store: &mut Store,
        cx: &Ctx<'_>,
        from: NodeId,
        (epoch, partition, round): (Epoch, Partition, Round),
        (range, content): (Range, Content),
        fx: &mut Effects<Kv>,
    ) {
        let Some(chosen) = cx.view.chosen.as_ref().filter(|chosen| chosen.config.epoch == epoch) else { return };
        let Some(pull) = self.running.get_mut(&partition) else { return };
        if epoch != self.epoch || pull.from != from || pull.range != range {
            return;
        }
        let learns = self.learning.contains(&partition);
        // An owner that joins has nothing from before, so it has nothing to forget: it takes the round as it is.
        if round > store.round(partition) && !chosen.owners(partition).current.contains(&cx.me) && !learns {
            store.set_round(partition, round);
            fx.persist(store.partition_record(partition));
        }
        let is_news = content != Content::Same;
        let (entries, complete) = match content {
            Content::Same => (self.learnt.take(partition, &range), true),
            Content::Entries { entries, complete } => (entries, complete),
        };
        // Also of what is not taken in: the next page lies behind it.
        let last = entries.last().map(|(key, _)| key.clone());
        let fits =
            |(key, versions): &(Bytes, Versions)| Partition::of(key) == partition && is_acceptable(key, versions);
        let entries: Vec<(Bytes, Versions)> = entries.into_iter().filter(fits).collect();
        let bytes: u64 = entries.iter().map(|(key, versions)| (key.len() + versions.weight()) as u64).sum();
        if bytes > 0 && is_news {
            fx.trace(|| Event::Fetched { partition, from, bytes });
        }
        let go_on = if complete { range.upto.clone() } else { last };
        if learns {
            let upto = if complete { range.upto } else { go_on.clone() };
            self.learnt.keep(partition, round, Range { after: range.after, upto }, entries);
        } else {
            for (key, versions) in entries {
                store.take_in(cx, key, &versions, Mutant::RepairReplaces, fx);
            }
        }
        pull.moved = true;
        self.pages += 1;
        if go_on.is_some() {
            if learns {
                fx.taken_over(self.epoch, self.done.clone(), self.pages);
            }
            return self.learnt.ask(store, cx, partition, pull, go_on, fx);
        }
        pull.heard.insert(from);
        pull.silences = 0;
        self.ask_next(store, cx, partition, chosen.owners(partition), fx);
        self.go_on(store, cx, fx);
    }
}

/// An owner's side: a page of what it holds, if it is in the very epoch it is asked from.
fn hand_over(
    store: &Store,
    cx: &Ctx<'_>,
    to: NodeId,
    (epoch, partition): (Epoch, Partition),
    range: Range,
    (round, digest): (Round, Option<u64>),
    fx: &mut Effects<Kv>,
) {
    let Some(chosen) = &cx.view.chosen else { return };
    let fenced = chosen.config.epoch == epoch;
    let owns =
        (chosen.owners(partition).current.contains(&cx.me) || chosen.config.recovers.is_some()) && cx.is_seated();
    if !fenced || !(owns || planted(Mutant::FenceOnWrongSet)) {
        return;
    }
    let mine = store.round(partition);
    let content = if round == mine && digest == Some(store.digest_of_range(partition, &range)) {
        Content::Same
    } else {
        page(store, partition, &range)
    };
    fx.send(to, super::Msg::Transfer(Msg::Page { epoch, partition, round: mine, range, content }));
}

/// As much of a range as one answer may hold.
fn page(store: &Store, partition: Partition, range: &Range) -> Content {
    let (mut entries, mut complete, mut weight) = (Vec::new(), true, 0);
    for (key, versions) in store.partition(partition, range) {
        weight += key.len() + versions.weight();
        if !entries.is_empty() && (weight > limits::TRANSFER_BYTES || entries.len() >= limits::REPAIR_KEYS) {
            complete = false;
            break;
        }
        entries.push((key.clone(), versions.clone()));
    }
    Content::Entries { entries, complete }
}

/// The epoch has changed: drops what this node does not own in it, and what it cannot have owned all the time.
pub(super) fn leave(store: &mut Store, cx: &Ctx<'_>, before: Epoch, fx: &mut Effects<Kv>) {
    let Some(chosen) = &cx.view.chosen else { return };
    if planted(Mutant::StaleDataKept) {
        return;
    }
    if chosen.config.recovers.is_some() {
        return recover(store, cx, fx);
    }
    for partition in chosen.partitions() {
        let owners = chosen.owners(partition);
        let since = chosen.config.since(partition);
        let early =
            planted(Mutant::DroppedEarly) && owners.are_joint() && owners.next.is_some_and(|n| !n.contains(&cx.me));
        let stays = owners.current.contains(&cx.me) && before.next() >= since && cx.is_seated() && !early;
        let comes = owners.contains(cx.me);
        if stays || !(store.holds(partition) || comes != store.lacks(partition)) {
            continue;
        }
        let keys = store.leave(partition);
        for key in keys {
            fx.persist(Record::Removed { key });
        }
        store.set_lacking(partition, comes);
        fx.persist(store.partition_record(partition));
    }
}

/// A new cluster begins with what survivors hold: nobody drops anything, and every owner has to ask all others.
fn recover(store: &mut Store, cx: &Ctx<'_>, fx: &mut Effects<Kv>) {
    let Some(chosen) = &cx.view.chosen else { return };
    for partition in chosen.partitions().filter(|&partition| chosen.owners(partition).contains(cx.me)) {
        store.set_lacking(partition, true);
        fx.persist(store.partition_record(partition));
    }
}

//! Which registers there are: every owner is asked, and a majority of each partition's owners has to answer.
//!
//! A listing says what owners have accepted, and is no linearizable read: of registers that are changed at the same time
//! it may tell what they were before. Of each register the highest ballot among the answers counts: so it tells what was
//! chosen before it began, or what was accepted after that, chosen or not. Feeds, which read what they are told of, are told
//! of every register that some owner holds a value of.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::feeds::Found;
use super::{Asker, Msg, Outcome, Registers, Store, Timer};
use crate::bytes::Bytes;
use crate::id::{Epoch, NodeId, OpId, RequestId};
use crate::key;
use crate::limits;
use crate::namespace::Mode;
use crate::paxos::Ballot;
use crate::placement::Partition;
use crate::protocol::{Ctx, Effects};
use crate::quorum::majority;
use crate::refusal::Refusal;
use crate::time::{Duration, Instant};
use crate::view::Chosen;

/// The listings that wait for answers, by their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Listings {
    pending: BTreeMap<u64, Listing>,
    seq: u64,
    /// What this node's own feeds have asked for.
    found: Vec<Found>,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Wanted {
    pub(super) prefix: Bytes,
    pub(super) after: Option<Bytes>,
    pub(super) limit: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Listing {
    asker: Asker,
    epoch: Epoch,
    deadline: Instant,
    wanted: Wanted,
    pages: BTreeMap<NodeId, Page>,
}

/// One owner's answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Page {
    /// Registers in order, each with the ballot that was accepted last and whether a value was.
    pub(super) entries: Vec<(Bytes, Ballot, bool)>,
    /// The key behind which nothing is said.
    pub(super) stopped: Option<Bytes>,
}

impl Listings {
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn on_op(
        &mut self,
        cx: &Ctx<'_>,
        id: RequestId,
        wanted: Wanted,
        within: Option<Duration>,
        fx: &mut Effects<Registers>,
    ) {
        let wanted = match self.admit(cx, wanted) {
            Ok(wanted) => wanted,
            // Nothing was asked of anybody.
            Err(refusal) => return fx.finish_now(id, Err(refusal)),
        };
        self.begin(cx, Asker::Client(id), wanted, within, fx);
    }

    /// A feed of this node wants a page; its keys are called as inside.
    pub(super) fn look(&mut self, cx: &Ctx<'_>, feed: u64, wanted: Wanted, fx: &mut Effects<Registers>) {
        self.begin(cx, Asker::Feed(feed), wanted.apart(), None, fx);
    }

    fn begin(
        &mut self,
        cx: &Ctx<'_>,
        asker: Asker,
        wanted: Wanted,
        within: Option<Duration>,
        fx: &mut Effects<Registers>,
    ) {
        self.seq += 1;
        let deadline = cx.now.mono + within.unwrap_or(cx.config.kv.deadline).min(limits::DEADLINE_MAX);
        let listing = Listing { asker, epoch: cx.view.epoch(), deadline, wanted, pages: BTreeMap::new() };
        self.pending.insert(self.seq, listing);
        self.ask(cx, self.seq, fx);
    }

    pub(super) fn pop_found(&mut self) -> Option<Found> {
        self.found.pop()
    }

    /// What is wanted, in keys as they are called inside the cluster.
    fn admit(&self, cx: &Ctx<'_>, wanted: Wanted) -> Result<Wanted, Refusal> {
        let of_clients = self.pending.values().filter(|listing| matches!(listing.asker, Asker::Client(_))).count();
        if of_clients >= limits::LISTINGS {
            return Err(Refusal::Overloaded);
        }
        let namespaces = &cx.view.serving()?.config.namespaces;
        let resolve = |key| match namespaces.resolve(key, Mode::Consensus)? {
            (key, Mode::Atomic | Mode::Consensus) => Ok(key),
            (_, mode) => Err(Refusal::WrongMode { mode }),
        };
        let (prefix, after) = (resolve(wanted.prefix)?, wanted.after.map(resolve).transpose()?);
        Ok(Wanted { prefix, after, limit: wanted.limit.clamp(1, limits::LIST_KEYS) }.apart())
    }

    /// Asks every storage member that has not answered.
    fn ask(&self, cx: &Ctx<'_>, seq: u64, fx: &mut Effects<Registers>) {
        let Some(listing) = self.pending.get(&seq) else { return };
        let left = listing.deadline.since(cx.now.mono).max(Duration::millis(1));
        fx.arm(cx.config.kv.retry.min(left), Timer::List(seq));
        let Some(chosen) = &cx.view.chosen else { return };
        let silent: Vec<NodeId> = chosen.config.storage().filter(|node| !listing.pages.contains_key(node)).collect();
        let Wanted { prefix, after, limit } = listing.wanted.clone();
        let op = OpId { node: cx.me, generation: cx.generation, seq };
        // A question; the answers wait for durability.
        fx.send_all_now(silent, Msg::List { op, epoch: cx.view.epoch(), prefix, after, limit });
    }

    pub(super) fn on_answer(&mut self, cx: &Ctx<'_>, from: NodeId, op: OpId, page: Page, fx: &mut Effects<Registers>) {
        let Some(chosen) = cx.view.chosen.as_ref().filter(|chosen| chosen.config.seats(from)) else { return };
        if op.node != cx.me || op.generation != cx.generation {
            return;
        }
        let Some(listing) = self.pending.get_mut(&op.seq).filter(|listing| listing.epoch == cx.view.epoch()) else {
            return;
        };
        listing.pages.insert(from, page);
        if listing.is_complete(chosen) {
            let (asker, outcome) = (listing.asker, listing.outcome(chosen));
            fx.disarm(Timer::List(op.seq));
            self.finish(op.seq, asker, Ok(outcome), fx);
        }
    }

    fn finish(&mut self, seq: u64, asker: Asker, result: Result<Outcome, Refusal>, fx: &mut Effects<Registers>) {
        self.pending.remove(&seq);
        match asker {
            // It was durable with those that said so.
            Asker::Client(id) => fx.finish_now(id, result),
            Asker::Feed(feed) => self.found.push(Found { feed, key: None, result }),
        }
    }

    pub(super) fn on_timer(&mut self, cx: &Ctx<'_>, seq: u64, fx: &mut Effects<Registers>) {
        let Some(listing) = self.pending.get(&seq) else { return };
        if cx.now.mono < listing.deadline {
            return self.ask(cx, seq, fx);
        }
        let answered = listing.pages.len() as u8;
        let needed = cx.view.chosen.as_ref().map_or(0, |chosen| majority(chosen.config.copies().most()));
        self.finish(seq, listing.asker, Err(Refusal::NoQuorum { answered, needed }), fx);
    }

    /// Another epoch is in force: its owners are asked.
    pub(super) fn on_epoch(&mut self, cx: &Ctx<'_>, fx: &mut Effects<Registers>) {
        let all: Vec<u64> = self.pending.keys().copied().collect();
        for seq in all {
            if let Some(listing) = self.pending.get_mut(&seq) {
                (listing.epoch, listing.pages) = (cx.view.epoch(), BTreeMap::new());
            }
            self.ask(cx, seq, fx);
        }
    }
}

impl Wanted {
    /// As much as one page holds.
    pub(super) fn all(prefix: Bytes, after: Option<Bytes>) -> Self {
        Self { prefix, after, limit: limits::LIST_KEYS }
    }

    /// Registers of namespaces come before all others, and are no part of these.
    fn apart(self) -> Self {
        let behind = self.prefix.is_empty().then(|| Bytes::from(key::BEHIND_NAMESPACES));
        Self { after: self.after.max(behind), ..self }
    }
}

impl Listing {
    /// Whether of every partition a majority of its owners has answered.
    fn is_complete(&self, chosen: &Chosen) -> bool {
        chosen.partitions().all(|partition| {
            let owners = chosen.owners(partition);
            let enough = |group: &[NodeId]| {
                let have = group.iter().filter(|owner| self.pages.contains_key(owner)).count();
                have >= usize::from(majority(group.len() as u8))
            };
            enough(owners.current) && owners.next.is_none_or(enough)
        })
    }

    fn outcome(&self, chosen: &Chosen) -> Outcome {
        // Nothing is known behind the smallest key at which an answer stopped.
        let stopped = self.pages.values().filter_map(|page| page.stopped.as_ref()).min();
        let mut latest: BTreeMap<&Bytes, (Ballot, bool)> = BTreeMap::new();
        for (&node, page) in &self.pages {
            for (key, ballot, holds) in &page.entries {
                let certain = stopped.is_none_or(|stopped| key <= stopped);
                if certain && key.starts_with(&self.wanted.prefix) && chosen.owners_of(key).contains(node) {
                    let known = latest.entry(key).or_insert((*ballot, *holds));
                    let any = known.1 || *holds;
                    *known = (*known).max((*ballot, *holds));
                    // A feed reads what it is told of: a delete that was accepted last need not have been chosen.
                    known.1 |= any && matches!(self.asker, Asker::Feed(_));
                }
            }
        }
        let limit = self.wanted.limit as usize;
        let next = latest.keys().nth(limit - 1).filter(|_| latest.len() > limit).copied().or(stopped).cloned();
        let keys = latest.into_iter().take(limit).filter(|(_, (_, holds))| *holds).map(|(key, _)| key.clone());
        Outcome::Listed { keys: keys.collect(), next }
    }
}

impl Store {
    /// What this owner says to a listing.
    pub(super) fn on_list(
        &self,
        cx: &Ctx<'_>,
        (op, epoch): (OpId, Epoch),
        wanted: &Wanted,
        fx: &mut Effects<Registers>,
    ) {
        if cx.check_epoch(epoch).is_err() || !cx.is_seated() {
            return;
        }
        let limit = wanted.limit.min(limits::LIST_KEYS) as usize;
        let mut found: BTreeSet<&Bytes> = BTreeSet::new();
        for partition in self.partitions() {
            let behind = self.keys_from(partition, &wanted.prefix, wanted.after.as_ref());
            found.extend(behind.take_while(|key| key.starts_with(&wanted.prefix)).take(limit + 1));
            while found.len() > limit + 1 {
                found.pop_last();
            }
        }
        let stops = found.len() > limit;
        let accepted = |key: &Bytes| {
            let (ballot, cell) = self.get(key)?.accepted()?;
            Some((key.clone(), ballot, cell.value().is_some()))
        };
        let stopped = found.iter().nth(limit - 1).filter(|_| stops).map(|key| (*key).clone());
        let entries = found.into_iter().take(limit).filter_map(accepted).collect();
        fx.send(op.node, Msg::Listed { op, entries, stopped });
    }

    fn keys_from<'a>(
        &'a self,
        partition: Partition,
        prefix: &Bytes,
        after: Option<&Bytes>,
    ) -> impl Iterator<Item = &'a Bytes> + use<'a> {
        let from = after.filter(|after| *after > prefix).unwrap_or(prefix).clone();
        let is_after = after.cloned();
        self.keys_at(partition, from).filter(move |key| is_after.as_ref().is_none_or(|after| *key > after))
    }
}

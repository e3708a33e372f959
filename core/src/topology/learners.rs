//! Learners: who is to get a seat fetches what will be its own before it gets it.
//!
//! While a change is under way every quorum is one of both rosters, and it is under way until the owners to come have
//! taken over. So most of the copying comes before it: the voter that was asked for the change has the newcomers learn,
//! and begins once they have.
//!
//! ```text
//!   voter ── Learn(epoch e, the roster to come) ──▶ each newcomer      fetches the partitions that it is to own,
//!   voter ◀── Learnt(epoch e, have, of) ────────── newcomer            from any owner of each (`kv`)
//!                asked again all the time; once everybody has everything: Prepare, Accept {A, next: B}
//! ```
//!
//! **It decides nothing.** What a learner holds is in no quorum. Once the change has begun it takes over as everybody
//! else does, from a majority of owners that are in the joint epoch; what it holds already costs one message per
//! partition. The voter may forget all of it at any time: then nothing has happened.
//!
//! **A newcomer that makes no headway** ends the change before it has begun, with `LEARNER_STALLED`. Without this, a
//! member that cannot be reached would get a seat, and be missed in every quorum of the partitions it is to own.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::{Event, Msg, Step, Timer, Topology};
use crate::cluster::ClusterConfig;
use crate::id::{Epoch, NodeId, OpId};
use crate::placement::Partition;
use crate::protocol::{Ctx, Effects};
use crate::refusal::Refusal;
use crate::roster::Roster;
use crate::time::{Duration, Instant};

/// Newcomers are asked how far they are this often.
const INTERVAL: Duration = Duration::millis(200);
/// One that has got no further for so long has stalled.
const STALLED: Duration = Duration::secs(10);
/// A newcomer that nobody has asked for so long forgets what it has fetched.
const ABANDONED: Duration = Duration::secs(30);
/// A voter that has newcomers learn and has not said so for so long has stopped.
const FRESH: Duration = Duration::secs(1);

/// How far a newcomer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Progress {
    /// Partitions of which it has everything that an owner had.
    pub have: u16,
    /// Partitions that it is to own; 0 before it has answered.
    pub of: u16,
    /// Pages it has fetched so far: what tells headway from none where a partition takes long.
    pub pages: u32,
}

impl Progress {
    fn is_complete(self) -> bool {
        self.of > 0 && self.have == self.of
    }

    /// Whether it has got further than it had been before. One that begins anew all the time has not.
    fn is_beyond(self, before: Self) -> bool {
        self.have > before.have || self.pages > before.pages || (before.of == 0 && self.of > 0)
    }
}

/// A change that waits for its newcomers, at the voter that was asked for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Learning {
    wanted: ClusterConfig,
    op: OpId,
    newcomers: BTreeMap<NodeId, Newcomer>,
    /// How far they were when the trace was told last.
    told: BTreeMap<NodeId, Progress>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Newcomer {
    progress: Progress,
    /// The furthest that it has been.
    best: Progress,
    /// Since when it has been no further.
    since: Instant,
}

/// What the node that a client asked for a change knows of it before it begins.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Followed {
    /// The request.
    pub op: OpId,
    /// The epoch in which the newcomers learn.
    pub epoch: Epoch,
    /// How far each is.
    pub newcomers: BTreeMap<NodeId, Progress>,
    /// How it ended: with a joint epoch, or without.
    pub ended: Option<Result<Epoch, Refusal>>,
}

impl Topology {
    /// Has the newcomers of a change learn first, if there are any.
    pub(super) fn learn_first(&mut self, cx: &mut Ctx<'_>, wanted: ClusterConfig, op: OpId, fx: &mut Effects<Self>) {
        let seated = |node: &NodeId| wanted.current.storage.contains_key(node);
        let placement = wanted.next.as_ref().map(|next| wanted.placement(next));
        let owns = |node: &NodeId| {
            placement.iter().any(|p| wanted.partitions().any(|partition| p.owners(partition).contains(node)))
        };
        let to_come = wanted.next.iter().flat_map(Roster::owners).map(|(node, _)| node);
        let to_come = to_come.filter(|node| !seated(node) && owns(node));
        let begins = Newcomer { progress: Progress::default(), best: Progress::default(), since: cx.now.mono };
        let newcomers: BTreeMap<_, _> = to_come.map(|node| (node, begins)).collect();
        if newcomers.is_empty() || !cx.config.autopilot.learn_first {
            return self.propose(cx, wanted, alloc::vec![op], fx);
        }
        self.learning = Some(Learning { wanted, op, newcomers, told: BTreeMap::new() });
        self.ask_learners(cx, fx);
    }

    /// Asks the newcomers how far they are; begins once all have learnt, and gives up on one that has stalled.
    pub(super) fn ask_learners(&mut self, cx: &mut Ctx<'_>, fx: &mut Effects<Self>) {
        let (Some(learning), Some(config)) = (&mut self.learning, &self.chosen) else { return };
        let epoch = config.epoch;
        if learning.newcomers.values().all(|newcomer| newcomer.progress.is_complete()) {
            let Some(Learning { wanted, op, .. }) = self.learning.take() else { return };
            return self.propose(cx, wanted, alloc::vec![op], fx);
        }
        let is_stalled = |(_, newcomer): &(&NodeId, &Newcomer)| {
            !newcomer.progress.is_complete() && cx.now.mono.since(newcomer.since) >= STALLED
        };
        if let Some((&member, &Newcomer { progress, .. })) = learning.newcomers.iter().find(is_stalled) {
            let Progress { have, of, .. } = progress;
            fx.trace(|| Event::Stalled { member });
            return self.stop_learning(&Refusal::LearnerStalled { member, have, of }, fx);
        }
        let Some(roster) = &learning.wanted.next else { return };
        let newcomers: BTreeMap<NodeId, Progress> =
            learning.newcomers.iter().map(|(&node, newcomer)| (node, newcomer.progress)).collect();
        // Nothing is promised by asking, nor by saying how far it is.
        fx.send_all_now(newcomers.keys().copied(), Msg::Learn { epoch, roster: Box::new(roster.clone()) });
        if learning.told != newcomers {
            learning.told.clone_from(&newcomers);
            fx.trace(|| Event::Learning { newcomers: newcomers.clone() });
        }
        let mut told: BTreeSet<NodeId> =
            config.current.voters.iter().copied().filter(|&voter| voter != cx.me).collect();
        told.insert(learning.op.node);
        // How far they are, for those who follow it; it may be wrong the next moment.
        fx.send_all_now(told, Msg::Learning { op: learning.op, epoch, newcomers });
        fx.arm(INTERVAL, Timer::Learn);
    }

    /// Whether this voter, or another one, has newcomers learn: one change at a time.
    pub(super) fn is_preparing(&self, cx: &Ctx<'_>) -> bool {
        self.learning.is_some() || self.prepares_elsewhere(cx).is_some()
    }

    fn prepares_elsewhere(&self, cx: &Ctx<'_>) -> Option<NodeId> {
        self.preparing.filter(|(_, at)| cx.now.mono.since(*at) < FRESH).map(|(voter, _)| voter)
    }

    /// Gives up a change that waits for newcomers, here or where it waits. Whether there is one.
    pub(super) fn give_up_learning(&mut self, cx: &Ctx<'_>, op: OpId, fx: &mut Effects<Self>) -> bool {
        let epoch = cx.view.epoch();
        if self.learning.is_some() {
            self.stop_learning(&Refusal::ConfigChangeInProgress { epoch }, fx);
            // Nothing was proposed.
            fx.send_now(op.node, Msg::Changed { op, result: Ok(epoch) });
            return true;
        }
        let Some(voter) = self.prepares_elsewhere(cx) else { return false };
        // The client's wish, handed on.
        fx.send_now(voter, Msg::Change { op, steps: alloc::vec![Step::GiveUp] });
        true
    }

    /// The change that newcomers learn for will not begin.
    pub(super) fn stop_learning(&mut self, why: &Refusal, fx: &mut Effects<Self>) {
        let Some(Learning { op, .. }) = self.learning.take() else { return };
        fx.disarm(Timer::Learn);
        let mut told = BTreeSet::from([op.node]);
        // Their autopilots leave it alone for a while as well.
        if let (Refusal::LearnerStalled { .. }, Some(config)) = (why, &self.chosen) {
            told.extend(&config.current.voters);
        }
        // Nothing was proposed.
        fx.send_all_now(told, Msg::Changed { op, result: Err(why.clone()) });
    }

    /// The newcomer's side: begins to fetch, and says how far it is.
    pub(super) fn on_learn(
        &mut self,
        cx: &Ctx<'_>,
        from: NodeId,
        epoch: Epoch,
        roster: &Roster,
        fx: &mut Effects<Self>,
    ) {
        let Some(config) = self.chosen.as_ref().filter(|config| config.epoch == epoch && config.next.is_none()) else {
            return;
        };
        let mine = roster.storage.get(&cx.me).filter(|seat| seat.incarnation == cx.config.profile.storage);
        if mine.is_none() || config.seats(cx.me) || !config.votes(from) || !roster.is_sound() {
            return;
        }
        if self.taught.as_ref() != Some(roster) {
            let placement = config.placement(roster);
            let own = |partition: &Partition| placement.owners(*partition).contains(&cx.me);
            fx.learn(epoch, config.partitions().filter(own).collect());
            self.taught = Some(roster.clone());
            fx.arm(ABANDONED, Timer::Unlearn);
            // It says how far it is once it has begun.
            return;
        }
        fx.arm(ABANDONED, Timer::Unlearn);
        let Some((_, wanted)) = cx.view.learning.as_ref().filter(|(since, _)| *since == epoch) else { return };
        let taken = cx.view.taken_over.as_ref().filter(|(since, _)| *since == epoch);
        let have = taken.map_or(0, |(_, taken)| wanted.intersection(taken).count()) as u16;
        let progress = Progress { have, of: wanted.len() as u16, pages: cx.view.pages };
        // How far it is; a crash would make it less, and then it is asked again.
        fx.send_now(from, Msg::Learnt { epoch, progress });
    }

    /// Nobody has asked this newcomer for long how far it is: what it has fetched is of no use any more.
    pub(super) fn unlearn(&mut self, cx: &Ctx<'_>, fx: &mut Effects<Self>) {
        if self.taught.take().is_some() {
            fx.learn(cx.view.epoch(), BTreeSet::new());
        }
    }

    /// This node slept: it judges nobody by the time that it has missed.
    pub(super) fn wake_learning(&mut self, now: Instant) {
        for newcomer in self.learning.iter_mut().flat_map(|learning| learning.newcomers.values_mut()) {
            newcomer.since = now;
        }
    }

    /// A newcomer says how far it is.
    pub(super) fn on_learnt(
        &mut self,
        cx: &mut Ctx<'_>,
        from: NodeId,
        epoch: Epoch,
        progress: Progress,
        fx: &mut Effects<Self>,
    ) {
        let is_mine = self.chosen.as_ref().is_some_and(|config| config.epoch == epoch);
        let Some(newcomer) = self.learning.as_mut().and_then(|learning| learning.newcomers.get_mut(&from)) else {
            return;
        };
        if is_mine && newcomer.progress != progress {
            newcomer.progress = progress;
            if progress.is_beyond(newcomer.best) {
                (newcomer.best, newcomer.since) = (progress, cx.now.mono);
            }
            if progress.is_complete() {
                self.ask_learners(cx, fx);
            }
        }
    }

    /// A voter says how far its newcomers are: a client that asked for the change here has its answer, and can follow the
    /// rest; and a voter begins nothing else meanwhile.
    pub(super) fn on_learning(
        &mut self,
        cx: &Ctx<'_>,
        from: NodeId,
        op: OpId,
        epoch: Epoch,
        newcomers: BTreeMap<NodeId, Progress>,
        fx: &mut Effects<Self>,
    ) {
        if from != cx.me && epoch == cx.view.epoch() {
            self.preparing = Some((from, cx.now.mono));
            if self.learning.is_some() && from < cx.me {
                // Two began at once: one of them is enough.
                self.stop_learning(&Refusal::ConfigChangeInProgress { epoch }, fx);
            }
        }
        if op.node != cx.me || op.generation != cx.generation {
            return;
        }
        if let Some(id) = self.asked.remove(&op.seq) {
            fx.disarm(Timer::Deadline(op.seq));
            let waits_for: Vec<NodeId> = newcomers.keys().copied().collect();
            // Nothing was changed, and the answer says so.
            fx.finish_now(id, Ok(super::Outcome::Learning { epoch, newcomers: waits_for }));
        }
        // What is late does not make what has ended go on.
        let ended = self.followed.take().filter(|followed| followed.op == op).and_then(|followed| followed.ended);
        self.followed = Some(Followed { op, epoch, newcomers, ended });
    }

    /// An epoch has begun. The answer to a change that was followed may have been lost; but the epoch tells it.
    pub(super) fn settle_followed(&mut self, config: &ClusterConfig) {
        let Some(followed) = self.followed.as_mut().filter(|f| f.ended.is_none() && f.epoch < config.epoch) else {
            return;
        };
        let (epoch, mut newcomers) = (config.epoch, followed.newcomers.keys());
        let seats_them = newcomers.all(|&node| config.seats(node));
        followed.ended = Some(if seats_them { Ok(epoch) } else { Err(Refusal::ConfigChangeInProgress { epoch }) });
    }
}

//! A lost majority: survivors begin a new cluster with what they hold.
//!
//! When more owners or voters are gone for good than the rest can do without, nothing can be decided any more, and
//! nothing may be: those who are gone may hold what was acknowledged last, and may be deciding on their own. A person who
//! knows better can say so. Then the survivors that the person names *leave* the cluster, each durably, and found
//! another one, with another id, in which their data lives on.
//!
//! ```text
//!   C, asked by a person     Survey ──▶ the survivors ── Surveyed(newest config) ──▶ C             nothing has happened
//!                            again, until all of them know the newest, in which each has its seat
//!                            Leave(old id, new id) ──▶ each: durable, then in no cluster at all ── Left(config) ──▶ C
//!                            all of them have left: C makes the first epoch of the new cluster and hands it out
//!   epoch e + 2^32           {survivors}, recovering: every owner fetches its partitions from *every* survivor (`kv`)
//!   epoch e + 2^32 + 1       {survivors}: chosen by them like every other; clients are served again
//! ```
//!
//! **Why leaving comes first.** Whoever has left acknowledges nothing of the old cluster any more. So all that the
//! survivors have ever acknowledged is in what they hold when the new cluster begins, and no vote of theirs can let the
//! old one go on beside it. Whoever is in between and hears nothing serves nobody; the person asks again, of any of
//! those who have left.
//!
//! **A `Leave` is obeyed once**: it names the cluster that is to be left, which the survivor has to be in still, and the
//! survey that the survivor has answered last. One that comes late, of an attempt that ended, pulls nobody out of the
//! cluster that another attempt has founded since.
//!
//! **What may be lost**: writes that only members who are gone hold; and what they have decided without the survivors.
//! They cannot come back under their old names: the new cluster has another id, and links between the two are refused.
//! Its epochs lie 2^32 above those of the old one, beyond all that the old one could count to, so that nothing that is
//! still under way from there is ever taken for something of the new one.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Event, Msg, Outcome, Record, Timer, Topology, announce};
use crate::cluster::ClusterConfig;
use crate::id::{ClusterId, NodeId, OpId, RequestId};
use crate::member::State;
use crate::protocol::{Ctx, Effects};
use crate::quorum::majority;
use crate::refusal::Refusal;
use crate::time::{Duration, Instant};
use crate::view::Chosen;

/// Survivors that have not answered are asked again this often.
const INTERVAL: Duration = Duration::millis(300);
/// Those who have not answered the survey by then are not there.
const PATIENCE: Duration = Duration::secs(5);
/// Those who were there, and have not said by then that they have left, are gone as well.
const LEAVING: Duration = Duration::secs(10);

/// A cluster that a node has left for another one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Left {
    /// The newest configuration it had known of the old one.
    pub config: ClusterConfig,
    /// The new one, which it has not seen yet.
    pub to: ClusterId,
}

/// The recovery that a person has asked this node for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Recovery {
    request: Option<RequestId>,
    op: OpId,
    to: ClusterId,
    survivors: BTreeSet<NodeId>,
    began: Instant,
    /// Whether all of them are there, and are leaving.
    leaving: bool,
    /// Who has answered the survey, with the newest configuration each knows, and whether it is in it still.
    surveyed: BTreeMap<NodeId, (ClusterConfig, bool)>,
    /// Who has left, with the one that each has left.
    answers: BTreeMap<NodeId, ClusterConfig>,
}

impl Recovery {
    /// Survivors that have not answered what they are asked now.
    fn silent(&self) -> impl Iterator<Item = NodeId> + '_ {
        let has_answered = |node: &NodeId| match self.leaving {
            true => self.answers.contains_key(node),
            false => self.surveyed.contains_key(node),
        };
        self.survivors.iter().copied().filter(move |node| !has_answered(node))
    }

    /// The newest configuration that a survivor knows.
    fn newest(&self) -> Option<&ClusterConfig> {
        self.surveyed.values().map(|(config, _)| config).max_by_key(|config| config.epoch)
    }
}

impl Topology {
    /// A person names the survivors.
    pub(super) fn recover(
        &mut self,
        cx: &mut Ctx<'_>,
        request: RequestId,
        survivors: BTreeSet<NodeId>,
        fx: &mut Effects<Self>,
    ) {
        if let Err(refusal) = self.may_recover(cx, &survivors) {
            // Nothing was asked of anybody.
            return fx.finish_now(request, Err(refusal));
        }
        self.seq += 1;
        let op = OpId { node: cx.me, generation: cx.generation, seq: self.seq };
        let (to, began) = (ClusterId(cx.rng.next_bytes()), cx.now.mono);
        let (surveyed, answers) = (BTreeMap::new(), BTreeMap::new());
        let request = Some(request);
        self.recovery = Some(Recovery { request, op, to, survivors, began, leaving: false, surveyed, answers });
        self.go_on_recovering(cx, fx);
    }

    fn may_recover(&self, cx: &Ctx<'_>, survivors: &BTreeSet<NodeId>) -> Result<(), Refusal> {
        let config = self.known().ok_or(Refusal::NoEpoch)?;
        if let Some(&member) = survivors.iter().find(|&&node| !config.seats(node)) {
            return Err(Refusal::UnknownMember { member });
        }
        if !survivors.contains(&cx.me) || self.recovery.is_some() {
            return Err(Refusal::NotASurvivor);
        }
        // One that recovers already serves nobody: if a survivor is lost meanwhile, it is begun anew without it.
        if self.left.is_none() && config.recovers.is_none() && has_majority(cx, config) {
            return Err(Refusal::MajorityAlive);
        }
        Ok(())
    }

    /// Asks those who have not answered; goes on once all have.
    pub(super) fn go_on_recovering(&mut self, cx: &mut Ctx<'_>, fx: &mut Effects<Self>) {
        let Some(recovery) = &self.recovery else { return };
        let waited = cx.now.mono.since(recovery.began);
        let silent = recovery.silent().next();
        match silent {
            Some(member) if recovery.leaving && waited >= LEAVING => {
                return self.end_recovery(Err(Refusal::SurvivorLost { member }), fx);
            }
            Some(member) if !recovery.leaving && waited >= PATIENCE => {
                return self.end_recovery(Err(Refusal::SurvivorSilent { member }), fx);
            }
            Some(_) if recovery.leaving => {
                for node in recovery.silent() {
                    let Some((config, _)) = recovery.surveyed.get(&node) else { continue };
                    let leave = Msg::Leave { op: recovery.op, from: config.cluster, to: recovery.to };
                    fx.send(node, leave);
                }
            }
            Some(_) => fx.send_all(recovery.silent().collect::<BTreeSet<_>>(), Msg::Survey { op: recovery.op }),
            None if recovery.leaving => return self.found_anew(cx, fx),
            None => return self.end_survey(cx, fx),
        }
        fx.arm(INTERVAL, Timer::Recover);
    }

    /// All survivors are there. They leave if each has a seat in the newest configuration that any of them knows, and
    /// knows it as well; whoever is behind is told of it, and asked again.
    fn end_survey(&mut self, cx: &mut Ctx<'_>, fx: &mut Effects<Self>) {
        let Some(recovery) = &mut self.recovery else { return };
        let Some(newest) = recovery.newest().cloned() else { return };
        if let Some(&member) = recovery.survivors.iter().find(|&&node| !newest.seats(node)) {
            return self.end_recovery(Err(Refusal::UnknownMember { member }), fx);
        }
        if newest.fork(recovery.to, &recovery.survivors).is_none() {
            return self.end_recovery(Err(Refusal::TooFewMembers { replicas: newest.replicas }), fx);
        }
        // Whoever has left a cluster takes in nothing of it any more.
        let is_behind = |(config, is_in): &(ClusterConfig, bool)| *is_in && config.epoch < newest.epoch;
        let mut behind: BTreeSet<NodeId> =
            recovery.surveyed.iter().filter(|(_, known)| is_behind(known)).map(|(&node, _)| node).collect();
        if !behind.is_empty() {
            recovery.surveyed.retain(|node, _| !behind.contains(node));
            fx.arm(INTERVAL, Timer::Recover);
            if behind.remove(&cx.me) {
                self.adopt(cx, newest.clone(), fx);
            }
            if !behind.is_empty() {
                fx.send_all(behind, Msg::Config(Box::new(newest)));
            }
            return;
        }
        (recovery.leaving, recovery.began) = (true, cx.now.mono);
        self.go_on_recovering(cx, fx);
    }

    /// All survivors have left: the new cluster begins.
    fn found_anew(&mut self, cx: &mut Ctx<'_>, fx: &mut Effects<Self>) {
        let Some(recovery) = &self.recovery else { return };
        let newest = recovery.answers.values().max_by_key(|config| config.epoch);
        let newest = newest.filter(|config| recovery.survivors.iter().all(|&node| config.seats(node)));
        // It has left for this very cluster, and not for that of a recovery that somebody else was asked for meanwhile.
        let is_mine = self.left.as_ref().is_some_and(|left| left.to == recovery.to);
        let config = newest.filter(|_| is_mine).and_then(|config| config.fork(recovery.to, &recovery.survivors));
        let Some(config) = config else {
            return self.end_recovery(Err(Refusal::SurvivorLost { member: cx.me }), fx);
        };
        fx.trace(|| Event::Recovered(config.clone()));
        self.adopt(cx, config.clone(), fx);
        announce(cx, &config, fx);
        let (cluster, epoch) = (config.cluster, config.epoch);
        self.end_recovery(Ok(Outcome::Recovered { cluster, epoch }), fx);
    }

    pub(super) fn end_recovery(&mut self, result: Result<Outcome, Refusal>, fx: &mut Effects<Self>) {
        fx.disarm(Timer::Recover);
        if let Some(request) = self.recovery.take().and_then(|recovery| recovery.request) {
            fx.finish(request, result);
        }
    }

    /// A survivor's side of the survey: what it knows. Whoever has lost the storage of its seat is none.
    pub(super) fn on_survey(&mut self, cx: &Ctx<'_>, from: NodeId, op: OpId, fx: &mut Effects<Self>) {
        let Some(config) = self.known() else { return };
        let mine = config.seat(cx.me).filter(|seat| seat.incarnation == cx.config.profile.storage);
        if mine.is_some() && config.seats(from) {
            let (config, is_in) = (Box::new(config.clone()), self.chosen.is_some());
            fx.send(from, Msg::Surveyed { op, config, is_in });
            self.surveyed = Some(op);
        }
    }

    /// The configuration that this node is in, or has left.
    fn known(&self) -> Option<&ClusterConfig> {
        self.chosen.as_ref().or(self.left.as_ref().map(|left| &left.config))
    }

    /// A survivor leaves its cluster: from now on it takes no part in it, whatever happens.
    pub(super) fn on_leave(
        &mut self,
        cx: &Ctx<'_>,
        asker: NodeId,
        op: OpId,
        (from, to): (ClusterId, ClusterId),
        fx: &mut Effects<Self>,
    ) {
        let Some(config) = self.known().filter(|config| config.cluster == from && config.seats(asker)).cloned() else {
            return;
        };
        let mine = config.seat(cx.me).filter(|seat| seat.incarnation == cx.config.profile.storage);
        // Whoever recovers itself does not leave for another's recovery: one of the two ends, and is asked for again.
        let other = self.recovery.as_ref().is_some_and(|recovery| recovery.leaving && recovery.op != op);
        // Nor does whoever is just entering the new one.
        if mine.is_none() || other || self.adopting.is_some() || self.surveyed != Some(op) {
            return;
        }
        if self.left.as_ref().is_none_or(|left| left.to != to) {
            let left = Left { config: config.clone(), to };
            fx.persist(Record::Left(left.clone()));
            fx.trace(|| Event::Left { cluster: left.config.cluster });
            self.leave_for(left, fx);
        }
        // Its own attempt, which was still asking who is there, comes to nothing.
        if self.recovery.as_ref().is_some_and(|recovery| recovery.op != op) {
            self.end_recovery(Err(Refusal::Recovering), fx);
        }
        fx.send(asker, Msg::Left { op, config: Box::new(config) });
    }

    /// Is in no cluster until it hears of the new one.
    pub(super) fn leave_for(&mut self, left: Left, fx: &mut Effects<Self>) {
        (self.chosen, self.adopting) = (None, None);
        self.register.forget(fx);
        fx.disarm(Timer::Look);
        fx.arm(super::ASK_INTERVAL, Timer::Ask);
        fx.leave(left.config.clone());
        self.left = Some(left);
    }

    pub(super) fn on_surveyed(
        &mut self,
        cx: &mut Ctx<'_>,
        from: NodeId,
        op: OpId,
        known: (ClusterConfig, bool),
        fx: &mut Effects<Self>,
    ) {
        let asks = |recovery: &&mut Recovery| recovery.op == op && recovery.survivors.contains(&from);
        let Some(recovery) = self.recovery.as_mut().filter(asks) else { return };
        if !recovery.leaving && known.0.is_sound() {
            recovery.surveyed.insert(from, known);
            self.go_on_once_all_answered(cx, fx);
        }
    }

    pub(super) fn on_left(
        &mut self,
        cx: &mut Ctx<'_>,
        from: NodeId,
        op: OpId,
        config: ClusterConfig,
        fx: &mut Effects<Self>,
    ) {
        let asks = |recovery: &&mut Recovery| recovery.op == op && recovery.survivors.contains(&from);
        let Some(recovery) = self.recovery.as_mut().filter(asks) else { return };
        if recovery.leaving && config.is_sound() {
            recovery.answers.insert(from, config);
            self.go_on_once_all_answered(cx, fx);
        }
    }

    /// This node slept: it judges nobody by the time that it has missed.
    pub(super) fn wake_recovery(&mut self, now: Instant) {
        if let Some(recovery) = &mut self.recovery {
            recovery.began = now;
        }
    }

    fn go_on_once_all_answered(&mut self, cx: &mut Ctx<'_>, fx: &mut Effects<Self>) {
        if self.recovery.as_ref().is_some_and(|recovery| recovery.silent().next().is_none()) {
            self.go_on_recovering(cx, fx);
        }
    }
}

/// Whether, as far as gossip knows, the votes and every partition still have their majorities: then there is nothing to
/// recover from.
fn has_majority(cx: &Ctx<'_>, config: &ClusterConfig) -> bool {
    let lives = |node: &&NodeId| {
        let member = cx.view.members.get(*node);
        let seat = config.seat(**node);
        member.is_some_and(|member| {
            let may_answer = matches!(member.state, State::Alive | State::Suspect);
            may_answer && seat.is_some_and(|seat| seat.incarnation == member.profile.storage)
        })
    };
    let enough = |group: &[NodeId]| group.iter().filter(lives).count() >= usize::from(majority(group.len() as u8));
    let chosen = Chosen::new(config.clone());
    let partitions = chosen.partitions().all(|partition| {
        let owners = chosen.owners(partition);
        enough(owners.current) && owners.next.is_none_or(enough)
    });
    let voters =
        |voters: &BTreeSet<NodeId>| voters.iter().filter(lives).count() >= usize::from(majority(voters.len() as u8));
    partitions && config.rosters().all(|roster| voters(&roster.voters))
}

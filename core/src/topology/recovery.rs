//! A lost majority: survivors begin a new cluster with what they hold.
//!
//! When more owners or voters are gone for good than the rest can do without, nothing can be decided any more, and
//! nothing may be: those who are gone may hold what was acknowledged last, and may be deciding on their own. A person who
//! knows better can say so. Then the survivors that the person names *leave* the cluster, each durably, and found
//! another one, with another id, in which their data lives on.
//!
//! ```text
//!   C, asked by a person     Survey ──▶ the survivors ── Surveyed(seated, newest config) ──▶ C     nothing has happened
//!                            Leave(new id) ──▶ each: durable, then in no cluster at all ── Left(newest config) ──▶ C
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
use crate::placement::Partition;
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
    /// Who has answered, with the newest configuration each knows.
    answers: BTreeMap<NodeId, ClusterConfig>,
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
        let answers = BTreeMap::new();
        self.recovery = Some(Recovery { request: Some(request), op, to, survivors, began, leaving: false, answers });
        self.go_on_recovering(cx, fx);
    }

    fn may_recover(&self, cx: &Ctx<'_>, survivors: &BTreeSet<NodeId>) -> Result<(), Refusal> {
        let config = self.chosen.as_ref().or(self.left.as_ref().map(|left| &left.config)).ok_or(Refusal::NoEpoch)?;
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
        let Some(recovery) = &mut self.recovery else { return };
        let silent = || recovery.survivors.iter().copied().filter(|node| !recovery.answers.contains_key(node));
        let waited = cx.now.mono.since(recovery.began);
        match silent().next() {
            Some(member) if recovery.leaving && waited >= LEAVING => {
                return self.end_recovery(Err(Refusal::SurvivorLost { member }), fx);
            }
            Some(member) if !recovery.leaving && waited >= PATIENCE => {
                return self.end_recovery(Err(Refusal::SurvivorSilent { member }), fx);
            }
            Some(_) => {
                let (op, to) = (recovery.op, recovery.to);
                let question = if recovery.leaving { Msg::Leave { op, to } } else { Msg::Survey { op } };
                fx.send_all(silent().collect::<BTreeSet<_>>(), question);
            }
            None if recovery.leaving => return self.found_anew(cx, fx),
            None => {
                (recovery.leaving, recovery.began) = (true, cx.now.mono);
                recovery.answers.clear();
                return self.go_on_recovering(cx, fx);
            }
        }
        fx.arm(INTERVAL, Timer::Recover);
    }

    /// All survivors have left: the new cluster begins.
    fn found_anew(&mut self, cx: &mut Ctx<'_>, fx: &mut Effects<Self>) {
        let Some(recovery) = &self.recovery else { return };
        let newest = recovery.answers.values().max_by_key(|config| config.epoch);
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

    fn end_recovery(&mut self, result: Result<Outcome, Refusal>, fx: &mut Effects<Self>) {
        fx.disarm(Timer::Recover);
        if let Some(request) = self.recovery.take().and_then(|recovery| recovery.request) {
            fx.finish(request, result);
        }
    }

    /// A survivor's side of the survey: what it knows. Whoever has lost the storage of its seat is none.
    pub(super) fn on_survey(&self, cx: &Ctx<'_>, from: NodeId, op: OpId, fx: &mut Effects<Self>) {
        let Some(config) = self.chosen.as_ref().or(self.left.as_ref().map(|left| &left.config)) else { return };
        let mine = config.seat(cx.me).filter(|seat| seat.incarnation == cx.config.profile.storage);
        if mine.is_some() && config.seats(from) {
            fx.send(from, Msg::Surveyed { op, config: Box::new(config.clone()) });
        }
    }

    /// A survivor leaves its cluster: from now on it takes no part in it, whatever happens.
    pub(super) fn on_leave(&mut self, cx: &Ctx<'_>, from: NodeId, op: OpId, to: ClusterId, fx: &mut Effects<Self>) {
        let known = self.chosen.as_ref().or(self.left.as_ref().map(|left| &left.config));
        let Some(config) = known.filter(|config| config.seats(from)).cloned() else { return };
        let mine = config.seat(cx.me).filter(|seat| seat.incarnation == cx.config.profile.storage);
        // Whoever recovers itself does not leave for another's recovery: one of the two ends, and is asked for again.
        let other = self.recovery.as_ref().is_some_and(|recovery| recovery.leaving && recovery.op != op);
        // Nor does whoever is just entering the new one.
        if mine.is_none() || other || self.adopting.is_some() {
            return;
        }
        if self.chosen.as_ref().is_some_and(|config| config.cluster == to) {
            return;
        }
        if self.left.as_ref().is_none_or(|left| left.to != to) {
            let left = Left { config: config.clone(), to };
            fx.persist(Record::Left(left.clone()));
            fx.trace(|| Event::Left { cluster: left.config.cluster });
            self.leave_for(left, fx);
        }
        fx.send(from, Msg::Left { op, config: Box::new(config) });
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
        config: ClusterConfig,
        leaving: bool,
        fx: &mut Effects<Self>,
    ) {
        let asked = |recovery: &&mut Recovery| recovery.op == op && recovery.leaving == leaving;
        let Some(recovery) = self.recovery.as_mut().filter(asked) else { return };
        if config.is_sound() && recovery.survivors.contains(&from) {
            recovery.answers.insert(from, config);
            let all = recovery.answers.len() == recovery.survivors.len();
            if all {
                self.go_on_recovering(cx, fx);
            }
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
    let partitions = Partition::all().all(|partition| {
        let owners = chosen.owners(partition);
        enough(owners.current) && owners.next.is_none_or(enough)
    });
    let voters =
        |voters: &BTreeSet<NodeId>| voters.iter().filter(lives).count() >= usize::from(majority(voters.len() as u8));
    partitions && config.rosters().all(|roster| voters(&roster.voters))
}

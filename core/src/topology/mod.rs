//! Who owns and who votes: the cluster's chosen configurations, one epoch after the other.
//!
//! **The first epoch.** A new cluster begins when exactly one node is told to bootstrap. It asks all it can see whether
//! they know an epoch; once enough have said *no*, and none *yes*, it mints a random cluster id, makes epoch 1 durable
//! and hands it out. Everybody else only ever adopts: nobody bootstraps by timeout, and a node without an epoch serves
//! no data.
//!
//! **Every later one** is chosen by the voters of the one before it, in a round of Paxos (`register`) that decides
//! nothing but this: *what follows epoch e*. A change takes two such decisions:
//!
//! ```text
//!   epoch e      {A}        voter: Prepare ──▶ voters of A ── Promise ──▶ Accept {A, next: B} ──▶ Accepted: chosen
//!                           before that, newcomers in B fetch what is to be theirs (`learners`)
//!   epoch e+1    {A, B}     every quorum is one of A and one of B; owners in B take over what is theirs from a
//!                           majority of the owners in A (`kv`), and tell the voters: Ready
//!                           once a majority of the owners in B of each partition is: Accept {B}, in A and in B
//!   epoch e+2    {B}        those who are not in it any more drop their data, never the epoch
//! ```
//!
//! A change that cannot be completed is given up: {A} follows as epoch e+2, and for that A alone suffices.
//!
//! **The fence.** Everything nodes say carries their epoch. Who hears of a later one asks for it and takes part in
//! nothing until it has adopted it; who is asked something from an earlier one refuses and tells. So once an owner has
//! answered from epoch e+1, nothing of epoch e counts on it any more, and what is taken over from a majority of such
//! owners is all that epoch e has ever acknowledged.
//!
//! **Invariants**: one configuration per (cluster, epoch); a node's epoch never decreases and survives restarts; a
//! configuration is adopted only once it is chosen, and is durable before it is used; a node leaves its cluster for
//! another one only when a person has a lost majority recovered (`recovery`); a seat belongs to a storage, so that a node
//! without the storage it was seated with takes no part.
//!
//! Gossip says whom to ask and what to wish for (`autopilot`). What is counted are answers.
//!
//! Sources: Lamport, Malkhi, Zhou, "Vertical Paxos and primary-backup replication", 2009, for configurations that
//! choose their successors; Ongaro's dissertation, 2014, §4.3, for joint consensus.

mod autopilot;
mod change;
mod learners;
mod recovery;
mod register;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::cluster::ClusterConfig;
use crate::config::Bootstrap;
use crate::id::{ClusterId, Epoch, NodeId, OpId, RequestId};
use crate::member::{Class, Durability, Member};
use crate::mutant::{Mutant, planted};
use crate::paxos::{Accepted, Ballot};
use crate::placement::Partition;
use crate::protocol::{Ctx, Effects, Protocol};
use crate::refusal::Refusal;
use crate::roster::{Roster, Seat, choose_voters};
use crate::time::{Duration, Instant};
use autopilot::Autopilot;
pub use autopilot::{Reason, spare_servers};
pub use change::{Step, seat_of};
use learners::Learning;
pub use learners::{Followed, Progress};
pub use recovery::Left;
use recovery::Recovery;
use register::Register;

/// A node without an epoch asks this often.
const ASK_INTERVAL: Duration = Duration::millis(250);
/// While a change is under way, owners report and voters look this often.
const LOOK_INTERVAL: Duration = Duration::millis(500);
/// A voter whose report is older than this is not counted on to accept what completes a change.
const FRESH: Duration = Duration::secs(3);
/// Whoever is in another epoch is told so, or asked, at most this often.
const TELL_INTERVAL: Duration = Duration::millis(50);
/// The first voter that seems alive acts; each further one waits so much longer.
const TURN: Duration = Duration::secs(3);

/// The state of one node's topology.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Topology {
    chosen: Option<ClusterConfig>,
    /// One that was chosen and is being made durable; in force once it is.
    adopting: Option<ClusterConfig>,
    /// Since when this boot has known the one in force.
    chosen_at: Instant,
    /// When others were last told of it or asked for theirs.
    told: BTreeMap<NodeId, Instant>,
    /// Those who said that they know no epoch, with the seats they asked for; counted by a bootstrapper only.
    without_epoch: BTreeMap<NodeId, Seat>,
    register: Register,
    /// A change that waits for its newcomers to learn.
    learning: Option<Learning>,
    /// The roster in which this node is to have a seat, for which it learns.
    taught: Option<Roster>,
    /// Another voter that has newcomers learn, and when it last said so.
    preparing: Option<(NodeId, Instant)>,
    /// The cluster that it has left, while it is in no other.
    left: Option<Left>,
    /// What a person has asked it to do about a lost majority.
    recovery: Option<Recovery>,
    /// The survey of survivors that this boot has answered last.
    surveyed: Option<OpId>,
    /// The last change that a client asked for here and that had newcomers learn.
    followed: Option<Followed>,
    /// What owners of the change under way have taken over, and when they said so last.
    reports: BTreeMap<NodeId, Report>,
    /// Changes that clients of this node wait for.
    asked: BTreeMap<u64, RequestId>,
    /// Counts them.
    seq: u64,
    autopilot: Autopilot,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Report {
    at: Instant,
    partitions: BTreeSet<Partition>,
    /// Of whose registers it has seen that they are with the owners to come.
    moved: BTreeSet<Partition>,
}

/// What nodes tell each other. `epoch` is always the one whose successor is being decided.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Msg {
    /// Do you know an epoch later than mine?
    Ask,
    /// I know none at all; this is the seat I could take.
    Nothing {
        /// Its seat.
        seat: Seat,
    },
    /// This is the newest I know.
    Config(Box<ClusterConfig>),
    /// Phase 1: promise to take nothing below this ballot.
    Prepare {
        /// See [`Msg`].
        epoch: Epoch,
        /// The attempt.
        ballot: Ballot,
    },
    /// I do; and this is what I have accepted.
    Promise {
        /// See [`Msg`].
        epoch: Epoch,
        /// The attempt.
        ballot: Ballot,
        /// Under which ballot, and what.
        accepted: Accepted<Box<ClusterConfig>>,
    },
    /// Phase 2: accept this.
    Accept {
        /// See [`Msg`].
        epoch: Epoch,
        /// The attempt.
        ballot: Ballot,
        /// What is to follow.
        config: Box<ClusterConfig>,
    },
    /// I have.
    Accepted {
        /// See [`Msg`].
        epoch: Epoch,
        /// The attempt.
        ballot: Ballot,
    },
    /// I do not: I have promised more.
    Refused {
        /// See [`Msg`].
        epoch: Epoch,
        /// The attempt.
        ballot: Ballot,
        /// The higher ballot.
        promised: Ballot,
    },
    /// An owner of the roster to come: this I have taken over, durably.
    Ready {
        /// The joint epoch.
        epoch: Epoch,
        /// The partitions.
        partitions: Vec<Partition>,
        /// Those whose registers are all with the owners to come.
        moved: Vec<Partition>,
    },
    /// You are to have a seat in this roster: fetch what will be yours. How far are you?
    Learn {
        /// See [`Msg`].
        epoch: Epoch,
        /// Who is to own and vote.
        roster: Box<Roster>,
    },
    /// So far.
    Learnt {
        /// See [`Msg`].
        epoch: Epoch,
        /// How far.
        progress: Progress,
    },
    /// A change, which your client asked for or in which you vote, waits for these newcomers.
    Learning {
        /// The request.
        op: OpId,
        /// See [`Msg`].
        epoch: Epoch,
        /// How far each is.
        newcomers: BTreeMap<NodeId, Progress>,
    },
    /// A person names you as a survivor: are you there, and what do you know?
    Survey {
        /// Names the recovery.
        op: OpId,
    },
    /// I am, and this is the newest I know.
    Surveyed {
        /// The recovery.
        op: OpId,
        /// The configuration.
        config: Box<ClusterConfig>,
        /// Whether I am in it, rather than have left it.
        is_in: bool,
    },
    /// All survivors are there: leave your cluster for this one.
    Leave {
        /// The recovery.
        op: OpId,
        /// The cluster that you said you are in, or have left.
        from: ClusterId,
        /// The new cluster, which is yet to begin.
        to: ClusterId,
    },
    /// I have.
    Left {
        /// The recovery.
        op: OpId,
        /// The newest I knew of the old one.
        config: Box<ClusterConfig>,
    },
    /// A client of mine asks for a change; you vote.
    Change {
        /// Names the request.
        op: OpId,
        /// What is to change.
        steps: Vec<Step>,
    },
    /// What came of it.
    Changed {
        /// The request.
        op: OpId,
        /// The joint epoch that began, or why not.
        result: Result<Epoch, Refusal>,
    },
}

/// Timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Timer {
    /// Still no epoch: ask again.
    Ask,
    /// An attempt to choose has taken too long or was refused: the next.
    Retry,
    /// A change is under way: report, or see whether it can be completed.
    Look,
    /// See what the cluster needs.
    Autopilot,
    /// See how far the newcomers are.
    Learn,
    /// The change that this newcomer learns for seems to be given up.
    Unlearn,
    /// See which survivors have answered.
    Recover,
    /// A client has waited long enough.
    Deadline(u64),
}

/// What is kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Record {
    /// The newest chosen configuration.
    Chosen(ClusterConfig),
    /// This voter's promise and what it accepted, as to what follows an epoch.
    Vote(register::Vote),
    /// The cluster that this node has left.
    Left(Left),
}

/// What a client may ask.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Op {
    /// Begin a change of who owns and votes, or give up the one under way.
    Change {
        /// All at once.
        steps: Vec<Step>,
    },
    /// A majority is lost for good: begin a new cluster with what these members hold. This node is one of them.
    Recover {
        /// Who.
        survivors: Vec<NodeId>,
    },
}

/// What it answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// The change has begun with this epoch, or was given up with it. It goes on by itself.
    Begun {
        /// The epoch that was chosen.
        epoch: Epoch,
    },
    /// The survivors have left their cluster, and this one has begun.
    Recovered {
        /// The new cluster.
        cluster: ClusterId,
        /// Its first epoch.
        epoch: Epoch,
    },
    /// It begins once these members have fetched what they are to own; see [`crate::Node::followed`].
    Learning {
        /// The epoch in force.
        epoch: Epoch,
        /// Who.
        newcomers: Vec<NodeId>,
    },
}

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Event {
    /// This node made the first epoch.
    Bootstrapped(ClusterConfig),
    /// This node adopted a configuration that was chosen.
    Adopted(ClusterConfig),
    /// A peer offered a configuration of another cluster.
    RefusedCluster {
        /// The peer.
        from: NodeId,
        /// Its cluster.
        cluster: ClusterId,
    },
    /// This voter began an attempt: phase 1.
    Prepared {
        /// The epoch whose successor is to be chosen.
        epoch: Epoch,
        /// The attempt.
        ballot: Ballot,
        /// Who is asked.
        voters: Vec<NodeId>,
        /// How many must promise.
        needed: u8,
    },
    /// A quorum has promised: phase 2.
    Proposed {
        /// The attempt.
        ballot: Ballot,
        /// What is proposed.
        config: ClusterConfig,
        /// Whether an earlier attempt's value had to be taken over.
        inherited: bool,
        /// Who is asked.
        voters: Vec<NodeId>,
        /// How many must accept.
        needed: u8,
    },
    /// A vote was counted.
    Counted {
        /// The attempt.
        ballot: Ballot,
        /// Whose vote.
        from: NodeId,
        /// How many now.
        have: u8,
        /// How many are needed.
        needed: u8,
    },
    /// A voter refused, having promised more to another.
    Outbid {
        /// The attempt.
        ballot: Ballot,
        /// Who refused.
        from: NodeId,
        /// The ballot it had promised.
        promised: Ballot,
    },
    /// A quorum has accepted.
    Chosen {
        /// The attempt.
        ballot: Ballot,
        /// What follows.
        epoch: Epoch,
    },
    /// This node has a seat that was given to a storage it does not have: it takes no part.
    Unseated {
        /// In which epoch.
        epoch: Epoch,
    },
    /// This node began a new cluster with what survivors hold.
    Recovered(ClusterConfig),
    /// This node has left its cluster, to begin another one with the other survivors.
    Left {
        /// The old one.
        cluster: ClusterId,
    },
    /// A change waits for its newcomers to fetch what they are to own.
    Learning {
        /// How far each is.
        newcomers: BTreeMap<NodeId, Progress>,
    },
    /// The change does not begin, because of a newcomer that gets no further.
    Stalled {
        /// Who.
        member: NodeId,
    },
    /// The autopilot wants a change, and why.
    Autopilot {
        /// Why.
        reason: Reason,
        /// What it asks for.
        steps: Vec<Step>,
    },
}

impl Topology {
    /// The last change that a client asked for at this node and that had newcomers learn.
    pub(crate) fn followed(&self) -> Option<&Followed> {
        self.followed.as_ref()
    }

    /// Takes over a chosen configuration: it is in force once this node's own word of it has passed the gate.
    fn adopt(&mut self, cx: &mut Ctx<'_>, config: ClusterConfig, fx: &mut Effects<Self>) {
        if self.adopting.as_ref().is_some_and(|adopting| config.epoch <= adopting.epoch) {
            return;
        }
        fx.persist(Record::Chosen(config.clone()));
        fx.send(cx.me, Msg::Config(Box::new(config.clone())));
        self.adopting = Some(config);
    }

    /// A configuration is in force from now on.
    fn enter(&mut self, cx: &mut Ctx<'_>, config: ClusterConfig, fx: &mut Effects<Self>) {
        if config.seat(cx.me).is_some_and(|seat| seat.incarnation != cx.config.profile.storage) {
            let epoch = config.epoch;
            fx.trace(|| Event::Unseated { epoch });
        }
        self.without_epoch.clear();
        self.reports.clear();
        self.told.clear();
        fx.disarm(Timer::Ask);
        self.register.enter(config.epoch);
        self.chosen = Some(config.clone());
        self.chosen_at = cx.now.mono;
        self.settle_proposal(&config, fx);
        self.settle_followed(&config);
        self.stop_learning(&Refusal::ConfigChangeInProgress { epoch: config.epoch }, fx);
        if self.left.is_some() {
            // Somebody else's attempt has founded the cluster that it had left for.
            self.end_recovery(Err(Refusal::Recovering), fx);
        }
        (self.taught, self.preparing, self.left) = (None, None, None);
        if config.next.is_some() && config.seats(cx.me) {
            fx.arm(LOOK_INTERVAL, Timer::Look);
        } else {
            fx.disarm(Timer::Look);
        }
        self.autopilot.enter(cx, fx);
        fx.adopt(config);
    }

    /// Asks those in sight, or one member when this node only wants to join.
    fn ask(&mut self, cx: &mut Ctx<'_>, fx: &mut Effects<Self>) {
        if self.chosen.is_some() {
            return;
        }
        let mut peers: Vec<NodeId> =
            cx.view.members.values().filter(|m| m.is_reachable() && m.id != cx.me).map(|m| m.id).collect();
        if cx.config.bootstrap.is_none() && self.left.is_none() {
            let one = cx.rng.choose(&mut peers, 1);
            peers.truncate(one);
        }
        if !peers.is_empty() {
            // A question.
            fx.send_all_now(peers, Msg::Ask);
        }
        fx.arm(ASK_INTERVAL, Timer::Ask);
    }

    fn try_bootstrap(&mut self, cx: &mut Ctx<'_>, bootstrap: Bootstrap, fx: &mut Effects<Self>) {
        if self.adopting.is_some() || self.left.is_some() {
            return;
        }
        let mut mine = seat_of(&cx.config.profile);
        if bootstrap.tabs {
            mine.weight = 0;
        }
        let own = usize::from(mine.weight > 0);
        let others = self.without_epoch.iter().take(usize::from(bootstrap.owners).saturating_sub(own));
        let others = others.map(|(&id, seat)| (id, seat.clone()));
        let storage: BTreeMap<NodeId, Seat> = others.chain([(cx.me, mine)]).collect();
        let voters = choose_voters(&storage, &BTreeSet::new(), |_| true);
        let roster = Roster { storage, voters };
        if roster.owners().count() < usize::from(bootstrap.owners) {
            return;
        }
        let config = ClusterConfig::first(ClusterId(cx.rng.next_bytes()), bootstrap.replicas, roster);
        fx.trace(|| Event::Bootstrapped(config.clone()));
        self.adopt(cx, config.clone(), fx);
        announce(cx, &config, fx);
    }

    /// Takes over a newer configuration, from servers and from those who have a seat in the one known so far. A stray tab
    /// of an older cluster must not found anything.
    fn consider(&mut self, cx: &mut Ctx<'_>, from: NodeId, config: ClusterConfig, fx: &mut Effects<Self>) {
        if !config.is_sound() {
            return;
        }
        match &self.chosen {
            _ if from == cx.me => {
                if self.adopting.take_if(|adopting| *adopting == config).is_some() {
                    fx.trace(|| Event::Adopted(config.clone()));
                    self.enter(cx, config, fx);
                }
            }
            None if !is_server(cx, from) && !config.seats(from) => (),
            None if self.left.as_ref().is_some_and(|left| left.to != config.cluster) => (),
            Some(mine) if mine.cluster == config.cluster && !mine.seats(from) && !is_server(cx, from) => (),
            Some(mine) if mine.cluster != config.cluster => {
                let cluster = config.cluster;
                fx.trace(|| Event::RefusedCluster { from, cluster });
            }
            Some(mine) if config.epoch <= mine.epoch => (),
            _ => self.adopt(cx, config, fx),
        }
    }

    /// Somebody is in another epoch than this node: whoever is behind is told, or asks.
    pub(crate) fn on_epoch(&mut self, cx: &Ctx<'_>, from: NodeId, theirs: Epoch, fx: &mut Effects<Self>) {
        let Some(mine) = &self.chosen else { return };
        let last = self.told.get(&from).copied();
        if last.is_some_and(|last| cx.now.mono.since(last) < TELL_INTERVAL) || theirs == Epoch(0) {
            return;
        }
        self.told.insert(from, cx.now.mono);
        if theirs > mine.epoch {
            // A question.
            fx.send_now(from, Msg::Ask);
        } else if theirs < mine.epoch {
            self.tell(cx, from, fx);
        }
    }

    /// Says what is in force. Only servers and those who have a seat do, for only they are believed.
    fn tell(&self, cx: &Ctx<'_>, to: NodeId, fx: &mut Effects<Self>) {
        let is_server = cx.config.profile.class == Class::Server;
        if let Some(mine) = self.chosen.as_ref().filter(|mine| is_server || mine.seats(cx.me)) {
            fx.send(to, Msg::Config(Box::new(mine.clone())));
        }
    }

    /// While a change is under way: owners to come report to the voters, and the voter whose turn it is completes it.
    fn look(&mut self, cx: &mut Ctx<'_>, fx: &mut Effects<Self>) {
        let Some(config) = self.chosen.as_ref().filter(|config| config.next.is_some()) else { return };
        fx.arm(LOOK_INTERVAL, Timer::Look);
        let owns_next = config.next.as_ref().is_some_and(|next| next.storage.contains_key(&cx.me));
        if owns_next && cx.is_seated() {
            let partitions = cx.view.taken_over.as_ref().filter(|(epoch, _)| *epoch == config.epoch);
            let partitions = partitions.map(|(_, partitions)| partitions.iter().copied().collect()).unwrap_or_default();
            let epoch = config.epoch;
            let moved = cx.view.moved.as_ref().filter(|(epoch, _)| *epoch == config.epoch);
            let moved = moved.map(|(_, moved)| moved.iter().copied().collect()).unwrap_or_default();
            fx.send_all(config.current.voters.iter().copied(), Msg::Ready { epoch, partitions, moved });
        }
        if !self.is_my_turn(cx) || self.register.is_proposing() || !self.can_complete(cx) {
            return;
        }
        if let Some(done) = self.chosen.as_ref().and_then(ClusterConfig::complete) {
            self.propose(cx, done, Vec::new(), fx);
        }
    }

    /// Whether this voter should act now: the first that seems alive at once, the others later, in case it does not.
    fn is_my_turn(&self, cx: &Ctx<'_>) -> bool {
        let Some(config) = &self.chosen else { return false };
        let voters = &config.current.voters;
        let seems_alive = |voter: &&NodeId| **voter == cx.me || cx.view.seems_alive(**voter);
        let rank = voters.iter().filter(seems_alive).position(|&voter| voter == cx.me);
        rank.is_some_and(|rank| cx.now.mono.since(self.chosen_at) >= TURN.times(rank as u64))
    }

    /// Whether of every partition that moves a majority of the owners to come has taken over, and a majority of the
    /// voters to come has just been heard.
    fn can_complete(&self, cx: &Ctx<'_>) -> bool {
        let (Some(chosen), Some(config)) = (&cx.view.chosen, &self.chosen) else { return false };
        let Some(next) = &config.next else { return false };
        let is_fresh =
            |node: &&NodeId| self.reports.get(*node).is_some_and(|report| cx.now.mono.since(report.at) <= FRESH);
        let heard = next.voters.iter().filter(is_fresh).count();
        let taken = |partition: Partition| {
            let owners = chosen.owners(partition);
            // What survivors hold is merged by every owner, for none of them need have been one before.
            let recovers = config.recovers.is_some();
            let Some(owners) = owners.next.or(recovers.then_some(owners.current)) else { return true };
            let has =
                |owner: &&NodeId| self.reports.get(*owner).is_some_and(|report| report.partitions.contains(&partition));
            let most = usize::from(crate::quorum::majority(owners.len() as u8));
            let needed = if recovers { owners.len() } else { most };
            // Of registers one owner's word is enough: it tells of majorities.
            let moved = self.reports.values().any(|report| report.moved.contains(&partition));
            (owners.iter().filter(has).count() >= needed && moved) || planted(Mutant::TransferNotAwaited)
        };
        heard >= usize::from(next.majority()) && chosen.partitions().all(taken)
    }

    /// A client of this node, or of another, asks for a change.
    fn on_change(&mut self, cx: &mut Ctx<'_>, op: OpId, steps: &[Step], fx: &mut Effects<Self>) {
        if steps == [Step::GiveUp] && self.give_up_learning(cx, op, fx) {
            return;
        }
        match self.plan(cx, steps) {
            Ok(wanted) if wanted.next.is_some() => self.learn_first(cx, wanted, op, fx),
            Ok(wanted) => self.propose(cx, wanted, alloc::vec![op], fx),
            // Nothing was proposed.
            Err(refusal) => fx.send_now(op.node, Msg::Changed { op, result: Err(refusal) }),
        }
    }

    /// The configuration that these steps lead to from the one in force.
    fn plan(&self, cx: &Ctx<'_>, steps: &[Step]) -> Result<ClusterConfig, Refusal> {
        let config = self.chosen.as_ref().ok_or(Refusal::NoEpoch)?;
        if !config.current.voters.contains(&cx.me) || !cx.is_seated() {
            return Err(Refusal::NotAVoter);
        }
        if steps == [Step::GiveUp] {
            return config.abort().ok_or(Refusal::NoChange);
        }
        if let [Step::Create { name, namespace }] = steps {
            let next = config.create(name, *namespace)?;
            let in_progress = Refusal::ConfigChangeInProgress { epoch: config.epoch };
            return if self.register.is_proposing() { Err(in_progress) } else { Ok(next) };
        }
        if config.next.is_some() || self.register.is_proposing() || self.is_preparing(cx) {
            return Err(Refusal::ConfigChangeInProgress { epoch: config.epoch });
        }
        let next = change::apply(config, steps, cx.view)?;
        if planted(Mutant::OneStepChange) {
            let joint = config.begin(next);
            let shortened = |mut done: ClusterConfig| {
                done.epoch = joint.epoch;
                done.since.values_mut().flatten().for_each(|since| *since = joint.epoch.min(*since));
                done
            };
            return joint.complete().map(shortened).ok_or(Refusal::NoChange);
        }
        Ok(config.begin(next))
    }

    /// The answer to a request that was made here or passed on from here; of a member that has stalled, told to all voters.
    fn on_changed(&mut self, cx: &Ctx<'_>, op: OpId, result: Result<Epoch, Refusal>, fx: &mut Effects<Self>) {
        if let Err(Refusal::LearnerStalled { member, .. }) = result {
            self.autopilot.stalled(member, cx.now.mono);
        }
        if op.node != cx.me || op.generation != cx.generation {
            return;
        }
        if let Some(id) = self.asked.remove(&op.seq) {
            fx.disarm(Timer::Deadline(op.seq));
            fx.finish(id, result.map(|epoch| Outcome::Begun { epoch }));
        } else if let Some(followed) = self.followed.as_mut().filter(|followed| followed.op == op) {
            followed.ended = Some(result);
        }
    }
}

fn is_server(cx: &Ctx<'_>, node: NodeId) -> bool {
    cx.view.members.get(&node).is_some_and(|member| member.profile.class == Class::Server)
}

/// Hands a configuration to everybody with a seat in it.
fn announce(cx: &Ctx<'_>, config: &ClusterConfig, fx: &mut Effects<Topology>) {
    let others: Vec<NodeId> = config.storage().filter(|&node| node != cx.me).collect();
    if !others.is_empty() {
        fx.send_all(others, Msg::Config(Box::new(config.clone())));
    }
}

impl Protocol for Topology {
    type Msg = Msg;
    type Timer = Timer;
    type Record = Record;
    type Op = Op;
    type Outcome = Outcome;
    type Event = Event;

    fn on_start(&mut self, cx: &mut Ctx<'_>, fx: &mut Effects<Self>) {
        match self.chosen.clone() {
            Some(config) => match self.left.take().filter(|left| left.config.cluster == config.cluster) {
                Some(left) => self.leave_for(left, fx),
                None => self.enter(cx, config, fx),
            },
            None => fx.arm(ASK_INTERVAL, Timer::Ask),
        }
    }

    fn on_message(&mut self, cx: &mut Ctx<'_>, from: NodeId, msg: Msg, fx: &mut Effects<Self>) {
        match (msg, &self.chosen) {
            (Msg::Ask, Some(_)) => self.tell(cx, from, fx),
            (Msg::Ask, None) if self.left.is_some() => (),
            (Msg::Ask, None) => fx.send(from, Msg::Nothing { seat: seat_of(&cx.config.profile) }),
            (Msg::Nothing { seat }, None) => {
                let Some(bootstrap) = cx.config.bootstrap else {
                    return;
                };
                if cx.view.members.get(&from).is_some_and(|member| may_own(member, bootstrap)) {
                    self.without_epoch.insert(from, seat);
                    self.try_bootstrap(cx, bootstrap, fx);
                }
            }
            // It lost the race or missed the announcement.
            (Msg::Nothing { .. }, Some(_)) => self.tell(cx, from, fx),
            (Msg::Config(config), _) => self.consider(cx, from, *config, fx),
            (Msg::Prepare { epoch, ballot }, _) => self.on_prepare(cx, from, epoch, ballot, fx),
            (Msg::Accept { epoch, ballot, config }, _) => self.on_accept(cx, from, (epoch, ballot), config, fx),
            (Msg::Promise { epoch, ballot, accepted }, _) => self.on_promise(cx, from, (epoch, ballot), accepted, fx),
            (Msg::Accepted { epoch, ballot }, _) => self.on_accepted(cx, from, epoch, ballot, fx),
            (Msg::Refused { epoch, ballot, promised }, _) => self.on_refused(cx, from, (epoch, ballot), promised, fx),
            (Msg::Ready { epoch, partitions, moved }, Some(config)) if epoch == config.epoch => {
                let (partitions, moved) = (partitions.into_iter().collect(), moved.into_iter().collect());
                let report = Report { at: cx.now.mono, partitions, moved };
                self.reports.insert(from, report);
            }
            (Msg::Ready { .. }, _) => (),
            (Msg::Learn { epoch, roster }, _) => self.on_learn(cx, from, epoch, &roster, fx),
            (Msg::Learnt { epoch, progress }, _) => self.on_learnt(cx, from, epoch, progress, fx),
            (Msg::Learning { op, epoch, newcomers }, _) => self.on_learning(cx, from, op, epoch, newcomers, fx),
            (Msg::Survey { op }, _) => self.on_survey(cx, from, op, fx),
            (Msg::Surveyed { op, config, is_in }, _) => self.on_surveyed(cx, from, op, (*config, is_in), fx),
            (Msg::Leave { op, from: old, to }, _) => self.on_leave(cx, from, op, (old, to), fx),
            (Msg::Left { op, config }, _) => self.on_left(cx, from, op, *config, fx),
            (Msg::Change { op, steps }, _) => self.on_change(cx, op, &steps, fx),
            (Msg::Changed { op, result }, _) => self.on_changed(cx, op, result, fx),
        }
    }

    fn on_timer(&mut self, cx: &mut Ctx<'_>, timer: Timer, fx: &mut Effects<Self>) {
        match timer {
            Timer::Ask => {
                if let (None, Some(bootstrap)) = (&self.chosen, cx.config.bootstrap) {
                    self.try_bootstrap(cx, bootstrap, fx);
                }
                self.ask(cx, fx);
            }
            Timer::Retry => self.retry(cx, fx),
            Timer::Look => self.look(cx, fx),
            Timer::Learn => self.ask_learners(cx, fx),
            Timer::Unlearn => self.unlearn(cx, fx),
            Timer::Recover => self.go_on_recovering(cx, fx),
            Timer::Autopilot => self.steer(cx, fx),
            Timer::Deadline(seq) => {
                if let Some(id) = self.asked.remove(&seq) {
                    // What became of it is not known here, and this says so.
                    fx.finish_now(id, Err(Refusal::TimeoutUnknown { acked: 0, needed: 0 }));
                }
            }
        }
    }

    fn on_op(&mut self, cx: &mut Ctx<'_>, id: RequestId, op: Op, fx: &mut Effects<Self>) {
        let steps = match op {
            Op::Change { steps } => steps,
            Op::Recover { survivors } => return self.recover(cx, id, survivors.into_iter().collect(), fx),
        };
        let Some(config) = &self.chosen else {
            // Nothing was asked of anybody.
            return fx.finish_now(id, Err(Refusal::NoEpoch));
        };
        self.seq += 1;
        self.asked.insert(self.seq, id);
        fx.arm(cx.config.kv.deadline.times(5), Timer::Deadline(self.seq));
        let op = OpId { node: cx.me, generation: cx.generation, seq: self.seq };
        if config.current.voters.contains(&cx.me) {
            return self.on_change(cx, op, &steps, fx);
        }
        let voters = || config.current.voters.iter().copied();
        let voter = voters().find(|&voter| cx.view.seems_alive(voter)).or_else(|| voters().next());
        if let Some(voter) = voter {
            // The client's wish, handed on.
            fx.send_now(voter, Msg::Change { op, steps });
        }
    }

    fn on_link(&mut self, _cx: &mut Ctx<'_>, peer: NodeId, up: bool, fx: &mut Effects<Self>) {
        if up && self.chosen.is_none() {
            // A question.
            fx.send_now(peer, Msg::Ask);
        }
    }

    fn on_view(&mut self, cx: &mut Ctx<'_>, fx: &mut Effects<Self>) {
        self.autopilot.see(cx);
        let done = cx.view.taken_over.as_ref().is_some_and(|(epoch, _)| *epoch == cx.view.epoch());
        if done && self.chosen.as_ref().is_some_and(|config| config.next.is_some()) {
            // What was taken over is told soon, and once for several.
            fx.arm(Duration::millis(50), Timer::Look);
        }
    }

    fn on_pause(&mut self, cx: &mut Ctx<'_>, _slept: Duration, _fx: &mut Effects<Self>) {
        self.wake_learning(cx.now.mono);
        self.wake_recovery(cx.now.mono);
    }

    fn restore(&mut self, record: Record) {
        match record {
            Record::Chosen(config) => {
                if self.chosen.as_ref().is_none_or(|mine| mine.epoch <= config.epoch) {
                    self.register.enter(config.epoch);
                    self.chosen = Some(config);
                }
            }
            Record::Vote(vote) => self.register.restore(vote),
            Record::Left(left) => self.left = Some(left),
        }
    }
}

/// The first owners are durable servers, or tabs of any kind where the cluster is to be of tabs alone.
fn may_own(member: &Member, bootstrap: Bootstrap) -> bool {
    match member.profile.class {
        Class::Server => !bootstrap.tabs && member.profile.durability == Durability::Durable,
        Class::Tab => bootstrap.tabs,
    }
}

impl core::fmt::Display for Event {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Bootstrapped(config) => write!(
                f,
                "made epoch {} of a new cluster, {} owners, {} voters, {} replicas",
                config.epoch.0,
                config.current.owners().count(),
                config.current.voters.len(),
                config.replicas
            ),
            Self::Adopted(config) => {
                let state = if config.next.is_some() { "joint" } else { "settled" };
                write!(f, "adopted epoch {}, {state}", config.epoch.0)
            }
            Self::RefusedCluster { from, cluster } => {
                write!(f, "refused cluster {cluster} offered by {from}")
            }
            Self::Prepared { epoch, ballot, voters, needed } => write!(
                f,
                "asks {} voters to promise ballot {ballot} for what follows epoch {}, needs {needed}",
                voters.len(),
                epoch.0
            ),
            Self::Proposed { ballot, config, inherited, needed, .. } => {
                let why = if *inherited { ", as somebody had before" } else { "" };
                write!(f, "proposes epoch {} under ballot {ballot}{why}, needs {needed}", config.epoch.0)
            }
            Self::Counted { ballot, from, have, needed } => {
                write!(f, "counts {have}/{needed} for ballot {ballot}: {from}")
            }
            Self::Outbid { ballot, from, promised } => {
                write!(f, "was refused ballot {ballot} by {from}, which had promised {promised}")
            }
            Self::Chosen { ballot, epoch } => write!(f, "saw epoch {} chosen under ballot {ballot}", epoch.0),
            Self::Unseated { epoch } => {
                write!(f, "has a seat in epoch {} that belongs to a storage it has lost", epoch.0)
            }
            Self::Learning { newcomers } => {
                f.write_str("waits until those who are to own have fetched:")?;
                newcomers.iter().try_for_each(|(node, Progress { have, of, .. })| write!(f, " {node} {have}/{of}"))
            }
            Self::Recovered(config) => write!(
                f,
                "began cluster {} in epoch {} with what {} survivors hold",
                config.cluster,
                config.epoch.0,
                config.current.storage.len()
            ),
            Self::Left { cluster } => write!(f, "left cluster {cluster}"),
            Self::Stalled { member } => write!(f, "does not begin the change: {member} gets no further"),
            Self::Autopilot { reason, steps } => {
                write!(f, "wants a change because {reason}:")?;
                steps.iter().try_for_each(|step| write!(f, " {step}"))
            }
        }
    }
}

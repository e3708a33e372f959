//! Who is reachable: SWIM failure detection, gossip, and push-pull.
//!
//! Each node probes one other per period. A member that answers neither directly nor through others becomes a
//! *suspect*; the claim spreads, the suspect may refute it with a higher incarnation, and after a while an
//! unrefuted suspect is *dead*. Claims travel on the back of probes and in a gossip tick; a periodic exchange of
//! digests finds what they missed.
//!
//! ```text
//!   a ── Ping ──▶ b                     a answers in time: fine
//!   a ◀── Ack ─── b
//!   a ── PingReq(b) ──▶ c ── Ping ──▶ b      no direct answer: others try
//!   a ◀───── Ack ───── c ◀── Ack ─── b
//!   a: Suspect b ──gossip──▶ all, b first    still none; b refutes with incarnation + 1, or is Dead
//!
//!   a ── Syn(digest) ──▶ b ── SynAck(what differs) ──▶ a ── Delta(what is newer) ──▶ b
//! ```
//!
//! **Slow is not dead.** A node that misses answers may be the slow one: it has a *local health*, and probes and accuses
//! the less the worse that is (Lifeguard). Helpers say *Nack* when they get no answer either, so that it can tell. A
//! suspicion begins long and shrinks with each member that finds out for itself (`suspicion.rs`). Who comes and goes is
//! not accused each time (`damping.rs`). A member that knows
//! that it will fall silent, a tab that is being hidden, says that it is *drowsy*, and gets much longer.
//!
//! **Gone is not slow.** A closed link is no proof, but a good reason to probe at once and through others. A redial that
//! is refused, because no process listens there, is one when two members find it out for themselves: such a member is
//! dead at once.
//!
//! **Invariant**: of two claims about one member the one with the higher [`Member::precedence`] is kept, on every
//! node, so that views converge whatever the order of arrival. Only the member itself raises its incarnation.
//!
//! **Not here**: any decision about data. What this module believes is published as a hint and never counted.
//!
//! Sources: Das, Gupta, Motivala, "SWIM", 2002; Dadgar, Phillips, Currey, "Lifeguard", 2017; van Renesse et al., "Efficient reconciliation and flow control for
//! anti-entropy protocols", 2008, for the digests; generations that replace older boots, after Serf.

mod damping;
mod digest;
mod probe;
mod rumours;
mod suspicion;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::id::{Generation, NodeId, RequestId};
use crate::limits;
use crate::member::{Class, Load, Member, Profile, State};
use crate::mutant::{Mutant, planted};
use crate::protocol::{Ctx, Effects, Protocol};
use crate::refusal::Refusal;
use crate::time::{Duration, Instant};
use damping::Damping;
use digest::Digest;
use probe::{Probes, Purpose};
use rumours::Rumours;
use suspicion::Suspicions;

/// Members that must find out for themselves that nobody listens at an address.
const WITNESSES: usize = 2;
/// More who could confirm a suspicion make no difference.
const WITNESSES_ENOUGH: usize = 8;
/// A drowsy member has so many times as long to refute a suspicion.
const DROWSY: u64 = 10;
/// A member says at most this often how much it has to do.
const LOAD_INTERVAL: Duration = Duration::secs(30);

/// The state of one node's membership.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Membership {
    own: Arc<Member>,
    /// Everybody else. Published to the view whenever an entry changes.
    known: BTreeMap<NodeId, Arc<Member>>,
    rumours: Rumours,
    probes: Probes,
    suspicions: Suspicions,
    damping: Damping,
    /// When this node last said how much it has to do.
    load_told: Option<Instant>,
    /// *Local health* (Lifeguard): raised by whatever may mean that this node itself is slow, lowered by what goes well.
    /// A node that may be slow probes less often, waits longer, and so accuses less.
    health: u64,
    /// Members that nobody answers for any more at their addresses, as they were then, and who found out.
    refused: BTreeMap<NodeId, ((Generation, u64), BTreeSet<NodeId>)>,
    /// A newer boot that speaks under this node's id.
    superseded: Option<Generation>,
    leaving: bool,
}

/// What members tell each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Msg {
    /// Are you there?
    Ping {
        /// Matches the answer to the probe.
        seq: u64,
        /// Piggybacked claims.
        rumours: Vec<Arc<Member>>,
    },
    /// I am, or: `target` answered me, on whose behalf you asked.
    Ack {
        /// The asker's number.
        seq: u64,
        /// Who is alive.
        target: NodeId,
        /// Piggybacked claims.
        rumours: Vec<Arc<Member>>,
    },
    /// You asked me to try `target`: I do answer you, but it does not answer me.
    Nack {
        /// The asker's number.
        seq: u64,
        /// Who is silent.
        target: NodeId,
    },
    /// Nobody listens any more where this member did: its process is gone.
    Refused {
        /// The member.
        target: NodeId,
        /// Its boot.
        generation: Generation,
        /// Its incarnation.
        incarnation: u64,
    },
    /// I cannot reach `target`; please try.
    PingReq {
        /// The asker's number.
        seq: u64,
        /// Whom to probe.
        target: NodeId,
    },
    /// Claims that spread.
    Gossip {
        /// The claims.
        rumours: Vec<Arc<Member>>,
    },
    /// Opens an exchange: who I am and a digest of what I know.
    Syn {
        /// The sender's own entry.
        own: Arc<Member>,
        /// Hashes of its buckets.
        digest: Digest,
    },
    /// Everything I know in the buckets where we differ.
    SynAck {
        /// Which buckets differ.
        buckets: Vec<u8>,
        /// The answerer's entries there.
        members: Vec<Arc<Member>>,
    },
    /// What is newer on my side; ends the exchange.
    Delta {
        /// The newer entries.
        members: Vec<Arc<Member>>,
    },
}

/// Timers by what they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Timer {
    /// Probe the next member.
    Probe,
    /// Greet who is held dead.
    Greet,
    /// The direct answer is late: ask others.
    ProbeIndirect(NodeId),
    /// No answer at all: suspect.
    ProbeEnd(NodeId),
    /// The suspect has not refuted: dead.
    Suspicion(NodeId),
    /// Spread rumours.
    Gossip,
    /// Exchange digests.
    PushPull,
    /// Forget a dead or departed member.
    Forget(NodeId),
}

/// What membership keeps: nothing but the boot's number, which the node itself records.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Record {}

/// What a client may ask.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Op {
    /// Say goodbye to all, so that nobody has to suspect. The host stops afterwards.
    Leave,
    /// This node is about to be hidden or frozen, or is back in front. It says so, and is not suspected lightly then.
    Drowsy(bool),
    /// The page of a tab says for its node that it is being closed: the node itself may not get to it any more. If it was
    /// mistaken, the node refutes it as every other claim.
    Farewell {
        /// The tab.
        member: NodeId,
        /// The boot that the page had started.
        generation: Generation,
    },
    /// How much this node's host has to do. Said as often as the host likes; told to the others now and then.
    Load(Load),
}

/// What it answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// The goodbyes are on their way.
    Left,
    /// Everybody is being told.
    Told,
}

/// What it tells.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Event {
    /// A member was heard of for the first time, or came back as a new boot.
    Joined(Arc<Member>),
    /// The claim about a member changed.
    Changed(Arc<Member>),
    /// A probe of `target` found no direct answer; these others were asked to try.
    AskedOthers {
        /// The silent member.
        target: NodeId,
        /// Who tries.
        helpers: Vec<NodeId>,
    },
    /// This node was suspected and said otherwise.
    Refuted {
        /// Its new incarnation.
        incarnation: u64,
    },
    /// Somebody speaks under this node's id with a newer generation: two processes share one identity, and this one is
    /// the older.
    Conflict {
        /// The other's generation.
        generation: Generation,
    },
    /// Nobody listens at a member's address, by the word of so many.
    Vanished {
        /// The member.
        target: NodeId,
        /// Who found out.
        witnesses: Vec<NodeId>,
    },
    /// A dead or departed member was dropped from memory.
    Forgot(NodeId),
}

impl Membership {
    /// A node that knows only itself. The generation is set when it starts.
    #[must_use]
    pub(crate) fn new(id: NodeId, profile: Profile) -> Self {
        let (generation, incarnation) = (Generation(0), 0);
        Self {
            own: Arc::new(Member { id, generation, incarnation, state: State::Alive, accuser: None, profile }),
            known: BTreeMap::new(),
            rumours: Rumours::default(),
            probes: Probes::default(),
            suspicions: Suspicions::default(),
            damping: Damping::default(),
            load_told: None,
            health: 0,
            refused: BTreeMap::new(),
            superseded: None,
            leaving: false,
        }
    }

    /// Claims that still have to spread.
    pub(crate) fn rumours(&self) -> usize {
        self.rumours.len()
    }

    /// See [`crate::Node::acquaint`].
    #[cfg(feature = "sim")]
    pub(crate) fn acquaint(&mut self, member: Arc<Member>) {
        self.known.insert(member.id, member);
    }

    /// A newer boot that speaks under this node's id: this one has to end.
    pub(crate) fn superseded(&self) -> Option<Generation> {
        self.superseded
    }

    /// Something went well, or may have gone wrong because this node is slow.
    fn feel(&mut self, better: bool) {
        self.health = if better { self.health.saturating_sub(1) } else { (self.health + 1).min(limits::HEALTH) };
    }

    /// A time that is the longer, the slower this node seems to be.
    fn patience(&self, usual: Duration) -> Duration {
        usual.times(1 + self.health)
    }

    /// Takes in one claim and lets it spread if it is news.
    fn learn(&mut self, cx: &mut Ctx<'_>, claim: Arc<Member>, fx: &mut Effects<Self>) {
        if claim.id == cx.me {
            return self.hear_of_myself(cx, &claim, fx);
        }
        if !claim.profile.is_sound() || !is_countable(&claim) {
            return;
        }
        let before = self.known.get(&claim.id);
        match before {
            Some(before)
                if planted(Mutant::IncarnationIgnored)
                    && claim.generation == before.generation
                    && claim.state <= before.state =>
            {
                return;
            }
            Some(_) if planted(Mutant::DeadRevived) && claim.state == State::Alive => (),
            Some(before) if claim.precedence() == before.precedence() && claim.state == State::Suspect => {
                return self.confirm(cx, claim, fx);
            }
            Some(before) if claim.precedence() <= before.precedence() => return,
            // Old rumours of the dead must not fill the memory again.
            None if !claim.is_reachable() || self.known.len() >= limits::MEMBERS => return,
            _ => (),
        }
        let is_new_boot = before.is_none_or(|before| before.generation < claim.generation);
        if is_new_boot || !claim.is_reachable() {
            self.damping.end(claim.id);
        } else if claim.state == State::Alive && before.is_some_and(|before| before.profile == claim.profile) {
            // It has nothing else to say than that it lives: it refutes.
            self.damping.spoke(claim.id, cx.now.mono);
        }
        match claim.state {
            State::Alive => {
                self.suspicions.end(claim.id);
                self.refused.remove(&claim.id);
                fx.disarm(Timer::Suspicion(claim.id));
                fx.disarm(Timer::Forget(claim.id));
                if is_new_boot {
                    self.probes.drop_target(claim.id, fx);
                }
            }
            State::Suspect => {
                let by = claim.accuser.unwrap_or(claim.id);
                self.suspicions.accuse(claim.id, (claim.generation, claim.incarnation), by, cx.now.mono);
                let left = self.suspicion_time(cx, &claim);
                fx.arm(left, Timer::Suspicion(claim.id));
            }
            State::Dead | State::Left => {
                self.suspicions.end(claim.id);
                self.refused.remove(&claim.id);
                fx.disarm(Timer::Suspicion(claim.id));
                fx.arm(cx.config.membership.forget_after, Timer::Forget(claim.id));
                self.probes.drop_target(claim.id, fx);
            }
        }
        fx.trace(|| if is_new_boot { Event::Joined(claim.clone()) } else { Event::Changed(claim.clone()) });
        self.spread(cx, claim.clone(), fx);
        fx.publish(claim.clone());
        self.known.insert(claim.id, claim);
    }

    /// Another accuser of a member that is suspected already.
    fn confirm(&mut self, cx: &mut Ctx<'_>, claim: Arc<Member>, fx: &mut Effects<Self>) {
        let Some(by) = claim.accuser else { return };
        if self.suspicions.accuse(claim.id, (claim.generation, claim.incarnation), by, cx.now.mono) {
            let left = self.suspicion_time(cx, &claim);
            fx.arm(left, Timer::Suspicion(claim.id));
            self.spread(cx, claim, fx);
        }
    }

    /// This node's host found that nobody listens where a peer did.
    pub(crate) fn on_refused(&mut self, cx: &mut Ctx<'_>, peer: NodeId, fx: &mut Effects<Self>) {
        let Some(member) = self.known.get(&peer).filter(|member| member.is_reachable()) else { return };
        let (generation, incarnation) = (member.generation, member.incarnation);
        let told = self.sample(cx, usize::from(cx.config.membership.gossip_fanout), peer);
        if !told.is_empty() {
            // What this node has found out for itself.
            fx.send_all_now(told, Msg::Refused { target: peer, generation, incarnation });
        }
        self.vanished(cx, peer, cx.me, (generation, incarnation), fx);
    }

    /// Somebody found that nobody listens where a member did. Two who found out for themselves are enough: that is no
    /// network that loses messages, but a machine that says that there is no such process.
    fn vanished(
        &mut self,
        cx: &mut Ctx<'_>,
        target: NodeId,
        by: NodeId,
        at: (Generation, u64),
        fx: &mut Effects<Self>,
    ) {
        let Some(member) = self.known.get(&target).filter(|member| member.is_reachable()).cloned() else { return };
        if (member.generation, member.incarnation) != at {
            return;
        }
        let (found_at, witnesses) = self.refused.entry(target).or_insert_with(|| (at, BTreeSet::new()));
        if *found_at != at {
            (*found_at, *witnesses) = (at, BTreeSet::new());
        }
        if !witnesses.insert(by) || witnesses.len() < WITNESSES {
            return;
        }
        let witnesses = witnesses.iter().copied().collect();
        fx.trace(|| Event::Vanished { target, witnesses });
        self.learn(cx, Arc::new(Member { state: State::Dead, accuser: None, ..Member::clone(&member) }), fx);
    }

    /// A claim about this node itself: refuted if it is worse than the truth.
    fn hear_of_myself(&mut self, cx: &mut Ctx<'_>, claim: &Member, fx: &mut Effects<Self>) {
        if !is_countable(claim) {
            return;
        }
        if claim.generation > self.own.generation {
            let generation = claim.generation;
            self.superseded = Some(generation);
            fx.trace(|| Event::Conflict { generation });
            return;
        }
        if claim.precedence() <= self.own.precedence() || claim.generation < self.own.generation || self.leaving {
            return;
        }
        self.feel(false);
        self.announce(cx, claim.incarnation + 1, fx);
        let incarnation = self.own.incarnation;
        fx.trace(|| Event::Refuted { incarnation });
    }

    /// A tab says through which servers it can be reached, whenever that changes.
    fn name_relays(&mut self, cx: &mut Ctx<'_>, fx: &mut Effects<Self>) {
        if self.own.profile.class != Class::Tab || self.leaving {
            return;
        }
        let relays: Vec<NodeId> = cx.view.relays().take(limits::RELAYS).collect();
        if relays != self.own.profile.relays {
            Arc::make_mut(&mut self.own).profile.relays = relays;
            self.announce(cx, self.own.incarnation + 1, fx);
        }
    }

    /// Tells everybody about this node under a new incarnation.
    fn announce(&mut self, cx: &mut Ctx<'_>, incarnation: u64, fx: &mut Effects<Self>) {
        Arc::make_mut(&mut self.own).incarnation = incarnation;
        fx.publish(self.own.clone());
        self.spread(cx, self.own.clone(), fx);
    }

    fn spread(&mut self, cx: &Ctx<'_>, claim: Arc<Member>, fx: &mut Effects<Self>) {
        let was_quiet = self.rumours.is_empty();
        self.rumours.add(claim);
        if was_quiet {
            fx.arm(cx.config.membership.gossip_interval, Timer::Gossip);
        }
    }

    fn suspect(&mut self, cx: &mut Ctx<'_>, target: NodeId, fx: &mut Effects<Self>) {
        let Some(member) = self.known.get(&target).filter(|member| member.is_reachable()) else {
            return;
        };
        let claim = Arc::new(Member { state: State::Suspect, accuser: Some(cx.me), ..Member::clone(member) });
        // The suspect hears it first: a member that lives can refute before anybody else believes it.
        // A suspicion is a claim about another, nothing that a crash here could take back.
        fx.send_now(target, Msg::Gossip { rumours: alloc::vec![claim.clone()] });
        self.learn(cx, claim, fx);
    }

    /// How long a suspect has from now.
    fn suspicion_time(&self, cx: &Ctx<'_>, suspect: &Member) -> Duration {
        let could_confirm = |member: &&Arc<Member>| member.state == State::Alive && member.id != suspect.id;
        let others = self.known.values().filter(could_confirm).take(WITNESSES_ENOUGH).count();
        self.suspicions.remaining(suspect.id, self.least_suspicion(cx, suspect), others, cx.now.mono)
    }

    /// The time that a suspicion takes at least: the more members, the longer a rumour and its denial need. One that has
    /// said that it may fall silent has much longer.
    fn least_suspicion(&self, cx: &Ctx<'_>, claim: &Member) -> Duration {
        let settings = &cx.config.membership;
        let factor = u64::from(settings.suspicion_factor) * if claim.profile.drowsy { DROWSY } else { 1 };
        let log = log10_permille(self.known.len() as u64 + 2).max(1_000);
        settings.probe_period.times(factor).permille(log)
    }

    /// ⌈log10(N+1)⌉, at least 1.
    fn log_members(&self) -> u64 {
        let all = self.known.len() as u64 + 2;
        u64::from(all.saturating_sub(1).checked_ilog10().unwrap_or(0)) + 1
    }

    fn rumours_for(&mut self, targets: usize, cx: &Ctx<'_>) -> Vec<Arc<Member>> {
        let sends = u64::from(cx.config.membership.rumour_factor) * self.log_members();
        self.rumours.take(targets, u32::try_from(sends).unwrap_or(u32::MAX))
    }

    fn is_reachable(&self, id: NodeId) -> bool {
        self.known.get(&id).is_some_and(|member| member.is_reachable())
    }

    /// Up to `count` random members that may answer, without `except`.
    fn sample(&self, cx: &mut Ctx<'_>, count: usize, except: NodeId) -> Vec<NodeId> {
        let mut ids: Vec<NodeId> =
            self.known.values().filter(|member| member.is_reachable() && member.id != except).map(|m| m.id).collect();
        let count = cx.rng.choose(&mut ids, count);
        ids.truncate(count);
        ids
    }

    /// Whom to tell: random members, and at least one with a link to this node. Where many have died at once, most of the
    /// others are dead members that nobody has found out yet, and what is told to them reaches nobody.
    fn audience(&self, cx: &mut Ctx<'_>, count: usize) -> Vec<NodeId> {
        let mut targets = self.sample(cx, count, cx.me);
        if targets.iter().any(|target| cx.view.links.contains(target)) {
            return targets;
        }
        let mut linked: Vec<NodeId> = cx.view.links.iter().copied().filter(|peer| self.is_reachable(*peer)).collect();
        if cx.rng.choose(&mut linked, 1) == 1 {
            targets.pop();
            targets.push(linked[0]);
        }
        targets
    }

    /// Whom to ask to try: those with a link to this node before others, for they are surely there.
    fn helpers(&self, cx: &mut Ctx<'_>, target: NodeId) -> Vec<NodeId> {
        let count = usize::from(cx.config.membership.indirect_probes);
        let is_there = |id: &NodeId| *id != target && self.is_reachable(*id);
        let mut helpers: Vec<NodeId> = cx.view.links.iter().copied().filter(is_there).collect();
        let linked = cx.rng.choose(&mut helpers, count);
        helpers.truncate(linked);
        let others = self.sample(cx, count, target);
        helpers.extend(others.into_iter().take(count - linked).filter(|other| !cx.view.links.contains(other)));
        helpers
    }

    fn syn(&self) -> Msg {
        Msg::Syn { own: self.own.clone(), digest: Digest::of(self.everyone()) }
    }

    fn everyone(&self) -> impl Iterator<Item = &Arc<Member>> {
        [&self.own].into_iter().chain(self.known.values())
    }

    fn begin_probe(&mut self, cx: &mut Ctx<'_>, target: NodeId, purpose: Purpose, fx: &mut Effects<Self>) {
        let Some(seq) = self.probes.begin(target, purpose) else {
            return;
        };
        let rumours = self.rumours_for(1, cx);
        // Asking whether somebody is there promises nothing.
        fx.send_now(target, Msg::Ping { seq, rumours });
        fx.arm(self.patience(cx.config.membership.probe_timeout), Timer::ProbeIndirect(target));
        fx.arm(self.patience(cx.config.membership.probe_period), Timer::ProbeEnd(target));
    }

    fn ask_others(&mut self, cx: &mut Ctx<'_>, target: NodeId, fx: &mut Effects<Self>) {
        let Some(seq) = self.probes.own_seq(target) else {
            return;
        };
        let helpers = self.helpers(cx, target);
        if helpers.is_empty() {
            return;
        }
        self.probes.asked(target, &helpers);
        fx.trace(|| Event::AskedOthers { target, helpers: helpers.clone() });
        // Asking others to look promises nothing.
        fx.send_all_now(helpers, Msg::PingReq { seq, target });
    }

    /// Greets a dead member or a linked stranger, if there is one, as if it were new. After a cut between two halves
    /// that declared each other dead, and after a lost first greeting, nobody else would make the first step.
    fn greet_someone(&self, cx: &mut Ctx<'_>, fx: &mut Effects<Self>) {
        let dead = self.known.values().filter(|member| member.state == State::Dead).map(|member| member.id);
        let strangers = cx.view.links.iter().copied().filter(|peer| !self.known.contains_key(peer));
        let mut silent: Vec<NodeId> = dead.chain(strangers).collect();
        if cx.rng.choose(&mut silent, 1) == 1 {
            // Soft state.
            fx.send_now(silent[0], self.syn());
        }
    }

    fn next_target(&mut self, cx: &mut Ctx<'_>) -> Option<NodeId> {
        let Self { probes, known, .. } = self;
        let may_answer = |id: &NodeId| known.get(id).is_some_and(|member| member.is_reachable());
        probes.next_in_round(may_answer, || {
            let mut round: Vec<NodeId> = known.keys().copied().collect();
            let all = round.len();
            cx.rng.choose(&mut round, all);
            round
        })
    }

    /// Says what this node is straight to those it is linked to: it may be too late for rumours.
    fn tell_links(&mut self, cx: &mut Ctx<'_>, fx: &mut Effects<Self>) {
        let links: Vec<NodeId> = cx.view.links.iter().copied().take(limits::RUMOURS_PER_MESSAGE).collect();
        if !links.is_empty() {
            // What this node is, in its own words.
            fx.send_all_now(links, Msg::Gossip { rumours: alloc::vec![self.own.clone()] });
        }
    }

    fn leave(&mut self, cx: &mut Ctx<'_>, id: RequestId, fx: &mut Effects<Self>) {
        self.leaving = true;
        let own = Arc::make_mut(&mut self.own);
        own.state = State::Left;
        own.incarnation += 1;
        fx.publish(self.own.clone());
        let goodbye = Msg::Gossip { rumours: alloc::vec![self.own.clone()] };
        let mut targets: Vec<NodeId> = cx.view.links.iter().copied().take(limits::RUMOURS_PER_MESSAGE).collect();
        targets.extend(self.sample(cx, usize::from(cx.config.membership.gossip_fanout), cx.me));
        targets.sort_unstable();
        targets.dedup();
        if !targets.is_empty() {
            // A goodbye that a crash overtakes is still true.
            fx.send_all_now(targets, goodbye);
        }
        fx.finish(id, Ok(Outcome::Left));
    }
}

impl Protocol for Membership {
    type Msg = Msg;
    type Timer = Timer;
    type Record = Record;
    type Op = Op;
    type Outcome = Outcome;
    type Event = Event;

    fn on_start(&mut self, cx: &mut Ctx<'_>, fx: &mut Effects<Self>) {
        let settings = cx.config.membership;
        Arc::make_mut(&mut self.own).generation = cx.generation;
        fx.publish(self.own.clone());
        // Spread over the period, so that nodes started together do not probe together.
        fx.arm(cx.rng.between(Duration::millis(1), settings.probe_period), Timer::Probe);
        fx.arm(settings.probe_period, Timer::Greet);
        fx.arm(cx.rng.between(settings.gossip_interval, settings.push_pull_interval), Timer::PushPull);
    }

    fn on_message(&mut self, cx: &mut Ctx<'_>, from: NodeId, msg: Msg, fx: &mut Effects<Self>) {
        // An exchange introduces both sides by itself; answering it with another would never end.
        let is_exchange = matches!(msg, Msg::Syn { .. } | Msg::SynAck { .. } | Msg::Delta { .. });
        match msg {
            Msg::Ping { seq, rumours } => {
                self.learn_all(cx, rumours, fx);
                let rumours = self.rumours_for(1, cx);
                // That this node is alive now is true whatever is lost later.
                fx.send_now(from, Msg::Ack { seq, target: cx.me, rumours });
            }
            Msg::Ack { seq, target, rumours } => {
                self.learn_all(cx, rumours, fx);
                if let Some(asked) = self.probes.answered(target, seq, fx) {
                    self.damping.answered(target);
                    self.feel(true);
                    for (asker, seq) in asked {
                        // Passing on an answer reveals no state of ours.
                        fx.send_now(asker, Msg::Ack { seq, target, rumours: Vec::new() });
                    }
                }
            }
            Msg::Nack { seq, target } => {
                if self.probes.nacked(target, seq, from) {
                    self.feel(true);
                }
            }
            Msg::Refused { target, generation, incarnation } => {
                self.vanished(cx, target, from, (generation, incarnation), fx);
            }
            Msg::PingReq { seq, target } => {
                if target != cx.me && self.known.contains_key(&target) {
                    self.begin_probe(cx, target, Purpose::Help { asker: from, seq }, fx);
                }
            }
            Msg::Gossip { rumours } => {
                let me = cx.me;
                let accused = rumours.iter().any(|claim| claim.id == me && claim.state != State::Alive);
                self.learn_all(cx, rumours, fx);
                if accused && !self.leaving {
                    // What this node is now, told straight to whoever believes otherwise.
                    fx.send_now(from, Msg::Gossip { rumours: alloc::vec![self.own.clone()] });
                }
            }
            Msg::Syn { own, digest } => {
                if own.id == from {
                    self.learn(cx, own, fx);
                }
                let buckets = digest.differing(&Digest::of(self.everyone()));
                let members = digest::entries(self.everyone(), &buckets, cx.rng.next_u64());
                // Membership is soft state: nothing in it was promised to anybody.
                fx.send_now(from, Msg::SynAck { buckets, members });
            }
            Msg::SynAck { buckets, members } => {
                let newer = digest::newer(self.everyone(), &buckets, &members);
                self.learn_all(cx, members, fx);
                if !newer.is_empty() {
                    // Soft state, as above.
                    fx.send_now(from, Msg::Delta { members: newer });
                }
            }
            Msg::Delta { members } => self.learn_all(cx, members, fx),
        }
        if !is_exchange {
            self.correct(from, fx);
        }
    }

    fn on_timer(&mut self, cx: &mut Ctx<'_>, timer: Timer, fx: &mut Effects<Self>) {
        let settings = cx.config.membership;
        match timer {
            Timer::Probe => {
                if let Some(target) = self.next_target(cx) {
                    self.begin_probe(cx, target, Purpose::Own, fx);
                }
                fx.arm(self.patience(settings.probe_period), Timer::Probe);
            }
            Timer::Greet => {
                self.greet_someone(cx, fx);
                fx.arm(settings.probe_period, Timer::Greet);
            }
            Timer::ProbeIndirect(target) => {
                for (asker, seq) in self.probes.askers(target) {
                    // That this node is here and the other does not answer is true whatever is lost later.
                    fx.send_now(asker, Msg::Nack { seq, target });
                }
                self.ask_others(cx, target, fx);
            }
            Timer::ProbeEnd(target) => {
                // No helper even said that it tried: perhaps it is this node that nobody reaches.
                if let Some(alone) = self.probes.failed(target) {
                    if alone {
                        self.feel(false);
                    }
                    if self.damping.looks_again(target, cx.now.mono) {
                        self.begin_probe(cx, target, Purpose::Own, fx);
                    } else {
                        self.suspect(cx, target, fx);
                    }
                }
            }
            Timer::Suspicion(target) => {
                if let Some(member) = self.known.get(&target).filter(|member| member.state == State::Suspect) {
                    let claim = Arc::new(Member { state: State::Dead, accuser: None, ..Member::clone(member) });
                    self.learn(cx, claim, fx);
                }
            }
            Timer::Gossip => {
                let targets = self.audience(cx, usize::from(settings.gossip_fanout));
                let rumours = self.rumours_for(targets.len(), cx);
                if !targets.is_empty() && !rumours.is_empty() {
                    // Claims are soft state; losing them in a crash contradicts nothing.
                    fx.send_all_now(targets, Msg::Gossip { rumours });
                }
                if !self.rumours.is_empty() && !self.known.is_empty() {
                    fx.arm(settings.gossip_interval, Timer::Gossip);
                }
            }
            Timer::PushPull => {
                for target in self.sample(cx, 1, cx.me) {
                    // Soft state.
                    fx.send_now(target, self.syn());
                }
                fx.arm(settings.push_pull_interval, Timer::PushPull);
            }
            // Owners are called for as long as they own.
            Timer::Forget(node) if cx.view.config().is_some_and(|config| config.seats(node)) => {
                fx.arm(settings.forget_after, Timer::Forget(node));
            }
            Timer::Forget(node) => {
                if self.known.get(&node).is_some_and(|member| !member.is_reachable()) {
                    self.known.remove(&node);
                    fx.retract(node);
                    fx.trace(|| Event::Forgot(node));
                }
            }
        }
    }

    fn on_op(&mut self, cx: &mut Ctx<'_>, id: RequestId, op: Op, fx: &mut Effects<Self>) {
        match op {
            Op::Leave => self.leave(cx, id, fx),
            Op::Drowsy(drowsy) => {
                if self.own.profile.drowsy != drowsy && !self.leaving {
                    Arc::make_mut(&mut self.own).profile.drowsy = drowsy;
                    self.announce(cx, self.own.incarnation + 1, fx);
                    self.tell_links(cx, fx);
                }
                fx.finish(id, Ok(Outcome::Told));
            }
            Op::Farewell { member, generation } => {
                let known = self.known.get(&member).filter(|known| known.profile.class == Class::Tab);
                let Some(known) = known.filter(|known| known.generation == generation) else {
                    // Nothing was said to anybody.
                    return fx.finish_now(id, Err(Refusal::UnknownMember { member }));
                };
                let left = Member { state: State::Left, accuser: None, ..Member::clone(known) };
                self.learn(cx, Arc::new(left), fx);
                fx.finish(id, Ok(Outcome::Told));
            }
            Op::Load(load) => {
                let is_due = self.load_told.is_none_or(|told| cx.now.mono.since(told) >= LOAD_INTERVAL);
                if self.own.profile.load != load && is_due && !self.leaving {
                    self.load_told = Some(cx.now.mono);
                    Arc::make_mut(&mut self.own).profile.load = load;
                    self.announce(cx, self.own.incarnation + 1, fx);
                }
                fx.finish(id, Ok(Outcome::Told));
            }
        }
    }

    fn on_link(&mut self, cx: &mut Ctx<'_>, peer: NodeId, up: bool, fx: &mut Effects<Self>) {
        self.name_relays(cx, fx);
        if up {
            // Soft state.
            fx.send_now(peer, self.syn());
        } else if self.is_reachable(peer) {
            // A closed link is no proof, but a good reason to look at once, and through others.
            self.begin_probe(cx, peer, Purpose::Own, fx);
            self.ask_others(cx, peer, fx);
        }
    }

    fn on_view(&mut self, cx: &mut Ctx<'_>, fx: &mut Effects<Self>) {
        self.name_relays(cx, fx);
    }

    fn on_pause(&mut self, cx: &mut Ctx<'_>, _slept: Duration, fx: &mut Effects<Self>) {
        self.probes.drop_all(fx);
        self.feel(false);
        self.suspicions.restart(cx.now.mono);
        for suspect in self.known.values().filter(|member| member.state == State::Suspect) {
            let left = self.suspicion_time(cx, suspect);
            fx.arm(left, Timer::Suspicion(suspect.id));
        }
    }

    fn restore(&mut self, record: Record) {
        match record {}
    }
}

/// log10 in thousandths.
fn log10_permille(n: u64) -> u64 {
    let whole = u64::from(n.max(1).ilog2());
    // Between two powers of two a straight line is near enough for a time to wait.
    let fraction = n.max(1) * 1_000 / (1 << whole) - 1_000;
    (whole * 1_000 + fraction) * 301 / 1_000
}

/// Whether the claim's numbers leave room to count on from them.
fn is_countable(claim: &Member) -> bool {
    claim.incarnation < limits::INCARNATION && claim.generation.0 < limits::INCARNATION
}

impl Membership {
    fn learn_all(&mut self, cx: &mut Ctx<'_>, claims: Vec<Arc<Member>>, fx: &mut Effects<Self>) {
        for claim in claims.into_iter().take(limits::DELTA_MEMBERS) {
            self.learn(cx, claim, fx);
        }
    }

    /// A member that speaks although it is held dead does not know of it: tell it, so that it can refute.
    /// One that nobody told us of is asked to introduce itself.
    fn correct(&self, from: NodeId, fx: &mut Effects<Self>) {
        match self.known.get(&from) {
            Some(member) if member.state == State::Dead => {
                // A claim about another.
                fx.send_now(from, Msg::Gossip { rumours: alloc::vec![member.clone()] });
            }
            Some(_) => (),
            // Soft state.
            None if from != self.own.id => fx.send_now(from, self.syn()),
            None => (),
        }
    }
}

impl core::fmt::Display for Event {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Joined(member) => write!(f, "heard of {}, boot {}", member.profile.name, member.generation.0),
            Self::Changed(member) => {
                write!(f, "holds {} {:?} at incarnation {}", member.profile.name, member.state, member.incarnation)
            }
            Self::AskedOthers { target, helpers } => {
                write!(f, "got no answer from {target} and asked")?;
                helpers.iter().try_for_each(|helper| write!(f, " {helper}"))
            }
            Self::Refuted { incarnation } => write!(f, "refuted with incarnation {incarnation}"),
            Self::Conflict { generation } => {
                write!(f, "heard of a newer boot {} under its own id", generation.0)
            }
            Self::Vanished { target, witnesses } => {
                write!(f, "holds {target} gone: nobody listens at its address, say")?;
                witnesses.iter().try_for_each(|witness| write!(f, " {witness}"))
            }
            Self::Forgot(node) => write!(f, "forgot {node}"),
        }
    }
}

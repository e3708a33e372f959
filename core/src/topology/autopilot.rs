//! What the cluster needs, decided without a person: each decision says why.
//!
//! Gossip is what it goes by, so it may wish for the wrong thing; it can only ask for what any client may ask for, and
//! the change itself is as safe as every other. It acts on one thing at a time, and not before that thing has lasted:
//!
//! | it sees | for | it asks for |
//! |---|---|---|
//! | a change that cannot be completed | `give_up_after` | to give it up |
//! | a tab with a seat that has said goodbye, or is hidden | at once | its seat, or its vote, to go |
//! | a member with a seat that is dead or gone | `replace_after` | its seat to go, to another if there is one |
//! | a durable member without a seat | `promote_after` | a seat |
//! | fewer voters than there could be | `promote_after` | votes to be given out anew |
//!
//! Never below three voters, nor below N owners, and not for who comes and goes: a member that has been down in the last
//! minutes waits the longer for a seat.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use super::change::Step;
use super::{Event, Timer, Topology};
use crate::cluster::ClusterConfig;
use crate::config::Tabs;
use crate::id::{NodeId, OpId};
use crate::limits;
use crate::member::{Class, Durability, Load, Member, State};
use crate::namespace::Copies;
use crate::placement::Placement;
use crate::protocol::{Ctx, Effects};
use crate::quorum::majority;
use crate::roster::{Roster, Seat, choose_voters};
use crate::time::{Duration, Instant};
use crate::view::View;

/// How often a voter looks.
const INTERVAL: Duration = Duration::secs(1);
/// A member that went down so often within what is remembered is one that flaps.
const FLAPS: u32 = 3;
/// How much longer a member that flaps waits for a seat.
const FLAPPING: u64 = 6;
/// A member that has stayed up for so long has stopped to flap.
const STEADY: Duration = Duration::secs(600);

/// A member that has not got on with learning is not asked again before this.
const SPARED: Duration = Duration::secs(60);

/// Why a change is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// The change under way has made no headway.
    Stuck,
    /// A member with a seat has been dead or gone for long enough.
    Gone {
        /// Who.
        member: NodeId,
    },
    /// A tab has said goodbye.
    Closed {
        /// Which.
        member: NodeId,
    },
    /// A tab that votes is hidden, and may be frozen any time.
    Hidden {
        /// Which.
        member: NodeId,
    },
    /// A durable member could store.
    Ready {
        /// Who.
        member: NodeId,
    },
    /// More members could vote, or healthier ones.
    Votes,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stuck => f.write_str("the change under way cannot be completed"),
            Self::Gone { member } => write!(f, "{member} has been down for too long"),
            Self::Closed { member } => write!(f, "the tab {member} was closed"),
            Self::Hidden { member } => write!(f, "the tab {member} is hidden"),
            Self::Ready { member } => write!(f, "{member} is durable and has stayed"),
            Self::Votes => f.write_str("other members can vote better"),
        }
    }
}

/// What a voter has seen of members lately.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Autopilot {
    seen: BTreeMap<NodeId, Seen>,
    /// Members that were to get a seat and did not get on with learning, and when that was.
    stalled: BTreeMap<NodeId, Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Seen {
    up: bool,
    since: Instant,
    /// How often it went down.
    falls: u32,
}

impl Autopilot {
    /// A configuration is in force: its voters go on looking.
    pub(super) fn enter(&mut self, cx: &mut Ctx<'_>, fx: &mut Effects<Topology>) {
        if cx.config.autopilot.enabled {
            fx.arm(INTERVAL + cx.rng.between(Duration::ZERO, INTERVAL), Timer::Autopilot);
        }
    }

    /// Notes who came and who went.
    pub(super) fn see(&mut self, cx: &Ctx<'_>) {
        if !cx.config.autopilot.enabled {
            return;
        }
        self.seen.retain(|node, _| cx.view.members.contains_key(node));
        for (&node, member) in &cx.view.members {
            let up = member.state == State::Alive;
            let down = matches!(member.state, State::Dead | State::Left);
            let seen = self.seen.entry(node).or_insert(Seen { up, since: cx.now.mono, falls: 0 });
            if (up && !seen.up) || (down && seen.up) {
                let steady = seen.up && cx.now.mono.since(seen.since) >= STEADY;
                let falls = if steady { 0 } else { seen.falls };
                *seen = Seen { up, since: cx.now.mono, falls: falls + u32::from(down) };
            }
        }
    }

    /// A member was to get a seat, and got no further with learning: others first, for a while.
    pub(super) fn stalled(&mut self, node: NodeId, now: Instant) {
        self.stalled.retain(|_, at| now.since(*at) < SPARED);
        self.stalled.insert(node, now);
    }

    fn has_stalled(&self, node: NodeId, now: Instant) -> bool {
        self.stalled.get(&node).is_some_and(|&at| now.since(at) < SPARED)
    }

    fn lasted(&self, node: NodeId, now: Instant) -> Duration {
        self.seen.get(&node).map_or(Duration::ZERO, |seen| now.since(seen.since))
    }

    fn flaps(&self, node: NodeId) -> bool {
        self.seen.get(&node).is_some_and(|seen| seen.falls >= FLAPS)
    }

    /// What is needed most, if anything.
    fn decide(&self, cx: &Ctx<'_>, config: &ClusterConfig, since: Instant) -> Option<(Reason, Vec<Step>)> {
        let settings = &cx.config.autopilot;
        if config.next.is_some() {
            let stuck = cx.now.mono.since(since) >= settings.give_up_after;
            return stuck.then(|| (Reason::Stuck, alloc::vec![Step::GiveUp]));
        }
        let roster = &config.current;
        self.departed(cx, config)
            .or_else(|| hidden_voter(cx.view, roster))
            .or_else(|| self.newcomer(cx, config))
            .or_else(|| self.better_votes(cx, roster))
    }

    /// A member with a seat that is gone for good, as far as can be told; in its place another, if there is one.
    fn departed(&self, cx: &Ctx<'_>, config: &ClusterConfig) -> Option<(Reason, Vec<Step>)> {
        let roster = &config.current;
        for (&node, seat) in &roster.storage {
            let member = cx.view.members.get(&node);
            let other_storage = member.is_some_and(|member| member.profile.storage != seat.incarnation);
            let state = member.map_or(State::Dead, |member| member.state);
            let closed = seat.class == Class::Tab && state == State::Left;
            let gone = matches!(state, State::Dead | State::Left) || other_storage;
            let lasted = self.lasted(node, cx.now.mono) >= cx.config.autopilot.replace_after || other_storage;
            if !(closed || (gone && lasted)) {
                continue;
            }
            let reason = if closed { Reason::Closed { member: node } } else { Reason::Gone { member: node } };
            let owns = |step: &Step| !matches!(step, Step::Add { weight: 0, .. });
            let stand_in = self.candidates(cx, config).map(|member| seat_for(cx, config, member)).find(owns);
            let steps: Vec<Step> = stand_in.into_iter().chain([Step::Remove { member: node }]).collect();
            let owners = roster.owners().count() + steps.len() - 1;
            if owners > usize::from(config.copies().most()) && owners > VOTERS_MIN {
                return Some((reason, steps));
            }
        }
        None
    }

    /// A durable member without a seat that has stayed.
    fn newcomer(&self, cx: &Ctx<'_>, config: &ClusterConfig) -> Option<(Reason, Vec<Step>)> {
        let member = self.candidates(cx, config).next()?;
        Some((Reason::Ready { member }, alloc::vec![seat_for(cx, config, member)]))
    }

    /// Members that could get a seat: servers first, phones last.
    fn candidates<'a>(&'a self, cx: &'a Ctx<'_>, config: &'a ClusterConfig) -> impl Iterator<Item = NodeId> + 'a {
        let settings = &cx.config.autopilot;
        let waits = |member: &Arc<Member>| member.profile.class == Class::Tab && !config.seats(member.id);
        // Once for all tabs: a placement is computed for it.
        let room = cx.view.members.values().any(waits) && tabs_have_room(settings.tabs, config);
        let alone = config.current.is_tabs_alone();
        let may = move |member: &&Arc<Member>| {
            let profile = &member.profile;
            let patience = settings.promote_after.times(if self.flaps(member.id) { FLAPPING } else { 1 });
            let class = match profile.class {
                Class::Server => profile.durability == Durability::Durable,
                Class::Tab => !profile.drowsy && room && (profile.durability == Durability::Durable || alone),
            };
            let same = config.may_seat(member.id, profile.storage);
            let fresh = !config.seats(member.id) && member.state == State::Alive && same && profile.load != Load::Full;
            let stalled = self.has_stalled(member.id, cx.now.mono);
            fresh && class && !stalled && self.lasted(member.id, cx.now.mono) >= patience
        };
        let of = move |class: Class, mobile: bool| {
            let is = move |member: &&Arc<Member>| member.profile.class == class && member.profile.mobile == mobile;
            cx.view.members.values().filter(is).filter(may)
        };
        let tabs = of(Class::Tab, false).chain(of(Class::Tab, true));
        of(Class::Server, false).chain(of(Class::Server, true)).chain(tabs).map(|member| member.id)
    }

    /// Votes given out anew, where that brings more voters, or healthy ones for those that are down.
    fn better_votes(&self, cx: &Ctx<'_>, roster: &Roster) -> Option<(Reason, Vec<Step>)> {
        let good = |node: NodeId| cx.view.seems_alive(node) && !cx.view.is_drowsy(node);
        let settled = roster.storage.keys().all(|&node| {
            let patience =
                if good(node) { cx.config.autopilot.promote_after } else { cx.config.autopilot.replace_after };
            self.lasted(node, cx.now.mono) >= patience
        });
        let voters = choose_voters(&roster.storage, &roster.voters, good);
        let healthy = |voters: &alloc::collections::BTreeSet<NodeId>| voters.iter().filter(|&&v| good(v)).count();
        let better = healthy(&voters) > healthy(&roster.voters) && voters.len() >= roster.voters.len();
        (settled && better).then(|| (Reason::Votes, alloc::vec![Step::Vote]))
    }
}

/// A seat for a newcomer: a server beside tabs that own alone only relays.
fn seat_for(cx: &Ctx<'_>, config: &ClusterConfig, member: NodeId) -> Step {
    let is_server = cx.view.members.get(&member).is_some_and(|member| member.profile.class == Class::Server);
    Step::Add { member, weight: u32::from(!(is_server && config.current.is_tabs_alone())) }
}

/// The fewest voters that the autopilot leaves.
const VOTERS_MIN: usize = 2;

/// A tab that votes and is hidden, where another can vote in its place.
fn hidden_voter(view: &View, roster: &Roster) -> Option<(Reason, Vec<Step>)> {
    let hidden = roster.voters.iter().copied().find(|&voter| view.is_drowsy(voter) && view.seems_alive(voter))?;
    let good = |node: NodeId| node != hidden && view.seems_alive(node) && !view.is_drowsy(node);
    let voters = choose_voters(&roster.storage, &roster.voters, good);
    let moves = !voters.contains(&hidden) && voters.len() > VOTERS_MIN;
    moves.then(|| (Reason::Hidden { member: hidden }, alloc::vec![Step::Unvote { member: hidden }]))
}

/// Whether one more tab may get a seat: as the operator allows it, and never so many that they are more than can be spared.
fn tabs_have_room(policy: Tabs, config: &ClusterConfig) -> bool {
    let roster = &config.current;
    let alone = roster.is_tabs_alone();
    let seats = roster.owners().filter(|(_, seat)| seat.class == Class::Tab).count();
    let room = seats < limits::VOTERS || alone;
    room && match policy {
        Tabs::Never => alone,
        Tabs::Always => true,
        Tabs::Spare => {
            let mut with = roster.clone();
            let tab = Seat {
                weight: 1,
                class: Class::Tab,
                zone: alloc::string::String::new(),
                incarnation: crate::id::Storage::default(),
            };
            with.storage.insert(NodeId([255; 16]), tab);
            with.voters = choose_voters(&with.storage, &roster.voters, |_| true);
            alone || spare_servers(&with, &config.copies(), |_, seat| seat.class == Class::Server) >= 1
        }
    }
}

/// How many more servers may fail, whichever they are, before some partition or the votes lack a majority, if of all
/// members only those live of whom `lives` says so.
#[must_use]
pub fn spare_servers(roster: &Roster, copies: &Copies, lives: impl Fn(NodeId, &Seat) -> bool) -> usize {
    let alive = |node: &NodeId| roster.storage.get(node).is_some_and(|seat| lives(*node, seat));
    let server = |node: &NodeId| roster.storage.get(node).is_some_and(|seat| seat.class == Class::Server);
    let spare = |group: &[NodeId]| {
        let living = group.iter().filter(|node| alive(node)).count();
        let servers = group.iter().filter(|node| alive(node) && server(node)).count();
        let needed = usize::from(majority(group.len() as u8));
        // A group that lacks its majority already has nothing to spare; one that needs no server spares them all.
        (living + 1)
            .saturating_sub(needed)
            .checked_sub(1)
            .map(|spare| if spare >= servers { usize::MAX } else { spare })
    };
    let voters: Vec<NodeId> = roster.voters.iter().copied().collect();
    let placement = Placement::new(roster, copies);
    let groups = copies.partitions().map(|partition| spare(placement.owners(partition)));
    let least = groups.chain([spare(&voters)]).map(|spare| spare.unwrap_or(0)).min().unwrap_or(0);
    least.min(roster.storage.iter().filter(|(node, _)| alive(node) && server(node)).count())
}

impl Topology {
    /// Sees what the cluster needs, if it is this voter's turn, and asks for it.
    pub(super) fn steer(&mut self, cx: &mut Ctx<'_>, fx: &mut Effects<Self>) {
        let Some(config) = self.chosen.clone() else { return };
        self.autopilot.enter(cx, fx);
        let busy = self.register.is_proposing() || self.is_preparing(cx);
        if !self.is_my_turn(cx) || busy || !cx.is_seated() {
            return;
        }
        let Some((reason, steps)) = self.autopilot.decide(cx, &config, self.chosen_at) else { return };
        fx.trace(|| Event::Autopilot { reason, steps: steps.clone() });
        // Nobody waits for it: an answer to a request with this number finds no client.
        let op = OpId { node: cx.me, generation: cx.generation, seq: 0 };
        self.on_change(cx, op, &steps, fx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Storage;
    use alloc::collections::BTreeSet;
    use alloc::string::String;

    fn roster(servers: u8, tabs: u8) -> Roster {
        let seat = |class| Seat { weight: 1, class, zone: String::new(), incarnation: Storage::default() };
        let servers = (1..=servers).map(|n| (NodeId::small(n), seat(Class::Server)));
        let storage: BTreeMap<_, _> =
            servers.chain((1..=tabs).map(|n| (NodeId::small(100 + n), seat(Class::Tab)))).collect();
        let voters = choose_voters(&storage, &BTreeSet::new(), |_| true);
        Roster { storage, voters }
    }

    #[test]
    fn what_may_still_fail_is_counted_by_the_weakest_group() {
        let all = |_, _: &Seat| true;
        assert_eq!(spare_servers(&roster(3, 0), &Copies::only(3), all), 1);
        assert_eq!(spare_servers(&roster(5, 0), &Copies::only(5), all), 2);
        assert_eq!(spare_servers(&roster(5, 0), &Copies::only(3), all), 1);
        assert_eq!(spare_servers(&roster(3, 0), &Copies::only(3), |node, _| node != NodeId::small(2)), 0);
        assert_eq!(spare_servers(&roster(3, 2), &Copies::only(3), |_, seat| seat.class == Class::Server), 0);
        assert_eq!(spare_servers(&roster(1, 0), &Copies::only(1), all), 0);
    }
}

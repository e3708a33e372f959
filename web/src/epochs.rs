//! Epochs as they are chosen: what nodes told of it, kept for the page. Pure.
//!
//! ```text
//!   what follows epoch e      Prepared ─▶ Counted … ─▶ Proposed ─▶ Counted … ─▶ Chosen ─▶ Adopted {A, next: B}
//!   while e+1 is in force     Fetched, TookOver, Ready … from each owner in B
//!   what follows e+1          Prepared ─▶ …                                                ─▶ Adopted {B}, or {A}
//! ```
//!
//! Both decisions are rounds of votes; the owners' work lies between them.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use qunlong_core::cluster::ClusterConfig;
use qunlong_core::kv::Event as KvEvent;
use qunlong_core::lift::{EventKind, MessageKind};
use qunlong_core::paxos::Ballot;
use qunlong_core::placement::Partition;
use qunlong_core::roster::Roster;
use qunlong_core::topology::{Event as TopologyEvent, Progress};
use qunlong_core::{Duration, Epoch, Event, NodeId};

/// Events of the history remembered.
const HISTORY: usize = 50;
/// Attempts remembered: voters may outbid each other for a while.
const ATTEMPTS: usize = 16;

/// What nodes do within so long of each other is put in order by their clocks; beyond it a clock may simply be wrong.
const BATCH: Duration = Duration::secs(1);

/// What is known of how epochs were chosen.
#[derive(Clone, Debug, Default)]
pub struct Epochs {
    history: VecDeque<Event>,
    attempts: VecDeque<Attempt>,
    change: Option<Change>,
    /// How far newcomers are with what they fetch before a change begins.
    learning: BTreeMap<NodeId, Progress>,
    /// Which epoch each node has adopted last: what it tells of taking over belongs to that one.
    adopted: BTreeMap<NodeId, Epoch>,
}

/// One attempt to choose what follows an epoch: a ballot and its votes.
#[derive(Clone, Debug, PartialEq)]
struct Attempt {
    ballot: Ballot,
    epoch: Epoch,
    /// Whether it is in its second phase: votes that are counted now are acceptances.
    proposed: bool,
    chosen: bool,
    votes: Votes,
}

/// Whose votes were counted, in each phase.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Votes {
    /// Phase 1.
    pub promised: BTreeSet<NodeId>,
    /// Phase 2.
    pub accepted: BTreeSet<NodeId>,
}

/// The newest change from one roster to the next, also when it is over.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The joint configuration that began it.
    pub joint: ClusterConfig,
    /// How many partitions get other owners by it.
    pub moved: usize,
    /// The votes on what follows it, in the attempt that was chosen or else in the newest.
    pub votes: Votes,
    /// Owners to come that have told the voters how far they are.
    pub reported: BTreeSet<NodeId>,
    /// How far the owners to come are.
    pub takers: BTreeMap<NodeId, Taking>,
    /// How it ended, if it has.
    pub end: Option<End>,
}

/// One of the two groups of voters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Each with how far it is.
    pub voters: Vec<(NodeId, Mark)>,
    /// How many must accept.
    pub needed: u8,
}

/// How much of what is to be its own an owner to come has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taking {
    /// Partitions that it has taken over.
    pub have: u16,
    /// Partitions that it has to take over in all.
    pub of: u16,
    /// Bytes that it fetched for it.
    pub bytes: u64,
}

/// How a change ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The new roster is in force.
    Completed,
    /// The old roster is in force again.
    GivenUp,
}

/// How far a voter is with what follows the joint epoch, from nothing to all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// Nothing was heard of it.
    Silent,
    /// As an owner to come it has reported; a vote is still to be asked for.
    Reported,
    /// It has promised.
    Promised,
    /// It has accepted.
    Accepted,
}

impl Epochs {
    /// Takes in what a node told. Whether it changed anything.
    pub fn see(&mut self, event: &Event) -> bool {
        match &event.kind {
            EventKind::Topology(topology) => self.follow(event, topology),
            EventKind::Kv(kv) => self.take_over(event.node, kv),
            EventKind::Sent { kind: MessageKind::Ready, .. } => self.report(event.node),
            // Only the report of a node whose own trace does not reach us is news.
            EventKind::Received { message, kind: MessageKind::Ready } => self.report(message.node),
            EventKind::Started
            | EventKind::Slept { .. }
            | EventKind::DiskFull { .. }
            | EventKind::Membership(_)
            | EventKind::Registers(_)
            | EventKind::Sent { .. }
            | EventKind::Received { .. } => false,
        }
    }

    fn follow(&mut self, event: &Event, topology: &TopologyEvent) -> bool {
        match topology {
            TopologyEvent::Prepared { epoch, ballot, .. } => {
                self.attempt(*ballot, *epoch);
            }
            TopologyEvent::Proposed { ballot, config, .. } => {
                let before = Epoch(config.epoch.0.saturating_sub(1));
                self.attempt(*ballot, before).proposed = true;
            }
            TopologyEvent::Counted { ballot, from, .. } => {
                if let Some(attempt) = self.attempts.iter_mut().find(|attempt| attempt.ballot == *ballot) {
                    let votes = &mut attempt.votes;
                    let phase = if attempt.proposed { &mut votes.accepted } else { &mut votes.promised };
                    phase.insert(*from);
                }
            }
            TopologyEvent::Chosen { ballot, epoch } => {
                self.attempt(*ballot, Epoch(epoch.0.saturating_sub(1))).chosen = true;
            }
            TopologyEvent::Adopted(config) => {
                self.adopted.insert(event.node, config.epoch);
                self.learning.clear();
                self.adopt(config);
            }
            TopologyEvent::Learning { newcomers } => {
                self.learning.clone_from(newcomers);
                return true;
            }
            TopologyEvent::Stalled { .. } => self.learning.clear(),
            TopologyEvent::Recovered(_) | TopologyEvent::Left { .. } => (),
            TopologyEvent::Bootstrapped(_) | TopologyEvent::Outbid { .. } | TopologyEvent::Autopilot { .. } => (),
            TopologyEvent::RefusedCluster { .. } | TopologyEvent::Unseated { .. } => return false,
        }
        self.count();
        self.remember(event);
        true
    }

    /// Nodes tell in batches, so what one tells may come a little after what another did later.
    fn remember(&mut self, event: &Event) {
        let overtook = |newer: &&Event| {
            let ahead = newer.at.wall.since(event.at.wall);
            newer.node != event.node && ahead > Duration::ZERO && ahead < BATCH
        };
        let at = self.history.iter().take_while(overtook).count();
        self.history.insert(at, event.clone());
        self.history.truncate(HISTORY);
    }

    /// The attempt with this ballot, which may be one that was not seen to begin.
    fn attempt(&mut self, ballot: Ballot, epoch: Epoch) -> &mut Attempt {
        let same = |attempt: &Attempt| attempt.ballot == ballot && attempt.epoch == epoch;
        let at = self.attempts.iter().position(same).unwrap_or_else(|| {
            let attempt = Attempt { ballot, epoch, proposed: false, chosen: false, votes: Votes::default() };
            self.attempts.push_front(attempt);
            self.attempts.truncate(ATTEMPTS);
            0
        });
        &mut self.attempts[at]
    }

    /// Shows the change the votes of the attempt that matters.
    fn count(&mut self) {
        let Some(change) = &mut self.change else { return };
        let attempts = || self.attempts.iter().filter(|attempt| attempt.epoch == change.joint.epoch);
        let best = attempts().find(|attempt| attempt.chosen).or_else(|| attempts().max_by_key(|a| a.ballot));
        if let Some(attempt) = best {
            change.votes = attempt.votes.clone();
        }
    }

    fn adopt(&mut self, config: &ClusterConfig) {
        let newest = self.change.as_ref().map_or(Epoch(0), |change| change.joint.epoch);
        if config.epoch <= newest {
            return;
        }
        if config.next.is_some() {
            self.change = Some(Change::begun(config));
        } else if let Some(change) = self.change.as_mut().filter(|change| change.end.is_none()) {
            change.end = change.ended_by(config);
            if change.end.is_none() {
                self.change = None;
            }
        }
    }

    fn take_over(&mut self, node: NodeId, kv: &KvEvent) -> bool {
        let Some(change) = self.change.as_mut().filter(|change| change.end.is_none()) else { return false };
        if self.adopted.get(&node).is_some_and(|&epoch| epoch != change.joint.epoch) {
            return false;
        }
        match *kv {
            KvEvent::TookOver { have, of, .. } => {
                let taking = change.takers.entry(node).or_default();
                taking.have = taking.have.max(have);
                taking.of = of;
            }
            KvEvent::Fetched { bytes, .. } => change.takers.entry(node).or_default().bytes += bytes,
            KvEvent::Began { .. }
            | KvEvent::Handed { .. }
            | KvEvent::Minted { .. }
            | KvEvent::Counted { .. }
            | KvEvent::Finished { .. }
            | KvEvent::Learnt { .. }
            | KvEvent::Collected { .. }
            | KvEvent::Repaired { .. } => return false,
        }
        true
    }

    fn report(&mut self, node: NodeId) -> bool {
        let change = self.change.as_mut().filter(|change| change.end.is_none());
        change.is_some_and(|change| change.reported.insert(node))
    }

    /// Who fetches what it is to own before a change begins, and how far each is.
    #[must_use]
    pub fn learning(&self) -> &BTreeMap<NodeId, Progress> {
        &self.learning
    }

    /// What was told of epochs, newest first.
    #[must_use]
    pub fn history(&self) -> &VecDeque<Event> {
        &self.history
    }

    /// The change to show: the newest that was told of, unless the configuration in force is a newer one of which
    /// nothing was told yet. None if it is over and nobody knows how it ended.
    #[must_use]
    pub fn change<'a>(&'a self, in_force: Option<&'a ClusterConfig>) -> Option<Cow<'a, Change>> {
        let newest = self.change.as_ref().map_or(Epoch(0), |change| change.joint.epoch);
        match (in_force.filter(|config| config.epoch > newest), &self.change) {
            (Some(config), _) if config.next.is_some() => Some(Cow::Owned(Change::begun(config))),
            (Some(config), Some(change)) if change.end.is_none() => {
                let end = Some(change.ended_by(config)?);
                Some(Cow::Owned(Change { end, ..change.clone() }))
            }
            (_, change) => change.as_ref().map(Cow::Borrowed),
        }
    }
}

impl Change {
    /// A change of which nothing is known but its joint configuration.
    #[must_use]
    pub fn begun(joint: &ClusterConfig) -> Self {
        let (mut takers, taken) = (BTreeMap::new(), joint.to_take_over());
        if let Some(next) = &joint.next {
            let placement = joint.placement(next);
            for (node, _) in next.owners() {
                let takes = |partition: &&Partition| placement.owners(**partition).contains(&node);
                let of = taken.iter().filter(takes).count() as u16;
                takers.insert(node, Taking { of, ..Taking::default() });
            }
        }
        let (votes, reported) = (Votes::default(), BTreeSet::new());
        Self { joint: joint.clone(), moved: joint.moved().len(), votes, reported, takers, end: None }
    }

    /// How it ended, by a settled configuration that came later. `None` if others came between that were not seen.
    fn ended_by(&self, settled: &ClusterConfig) -> Option<End> {
        if self.joint.next.as_ref() == Some(&settled.current) {
            Some(End::Completed)
        } else {
            (self.joint.current == settled.current).then_some(End::GivenUp)
        }
    }

    /// Who gets a seat.
    #[must_use]
    pub fn joins(&self) -> Vec<NodeId> {
        let Some(next) = &self.joint.next else { return Vec::new() };
        next.storage.keys().copied().filter(|node| !self.joint.current.storage.contains_key(node)).collect()
    }

    /// Who loses its seat.
    #[must_use]
    pub fn leaves(&self) -> Vec<NodeId> {
        let Some(next) = &self.joint.next else { return Vec::new() };
        self.joint.current.storage.keys().copied().filter(|node| !next.storage.contains_key(node)).collect()
    }

    /// Whose weight changes, from what to what.
    #[must_use]
    pub fn weighs(&self) -> Vec<(NodeId, u32, u32)> {
        let Some(next) = &self.joint.next else { return Vec::new() };
        let both =
            self.joint.current.storage.iter().filter_map(|(node, seat)| Some((node, seat, next.storage.get(node)?)));
        both.filter(|(_, now, then)| now.weight != then.weight)
            .map(|(&n, now, then)| (n, now.weight, then.weight))
            .collect()
    }

    /// The voters there are.
    #[must_use]
    pub fn old_group(&self) -> Group {
        self.group(&self.joint.current, true)
    }

    /// The voters to come. Nobody asks them to promise: what may follow is for the old ones to say, and for both to
    /// accept.
    #[must_use]
    pub fn new_group(&self) -> Group {
        self.joint.next.as_ref().map(|next| self.group(next, false)).unwrap_or_default()
    }

    fn group(&self, roster: &Roster, promises: bool) -> Group {
        let voters = roster.voters.iter().map(|&voter| (voter, self.mark(voter, promises))).collect();
        Group { voters, needed: roster.majority() }
    }

    fn mark(&self, voter: NodeId, promises: bool) -> Mark {
        if self.votes.accepted.contains(&voter) {
            Mark::Accepted
        } else if promises && self.votes.promised.contains(&voter) {
            Mark::Promised
        } else if self.reported.contains(&voter) {
            Mark::Reported
        } else {
            Mark::Silent
        }
    }
}

impl Group {
    /// How many have accepted.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.voters.iter().filter(|(_, mark)| *mark == Mark::Accepted).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use qunlong_core::member::Class;
    use qunlong_core::roster::Seat;
    use qunlong_core::sim::Sim;
    use qunlong_core::topology::{Op, Step};
    use qunlong_core::trace::{Cause, Level};
    use qunlong_core::{ClusterId, Generation, Instant, Now, Storage, WallTime};

    fn n(node: u8) -> NodeId {
        NodeId::small(node)
    }

    fn roster(nodes: &[u8]) -> Roster {
        let seat = |&node: &u8| {
            let (zone, incarnation) = (String::new(), Storage([node; 16]));
            (n(node), Seat { weight: 1, class: Class::Server, zone, incarnation })
        };
        Roster { storage: nodes.iter().map(seat).collect(), voters: nodes.iter().map(|&node| n(node)).collect() }
    }

    fn joint() -> ClusterConfig {
        ClusterConfig::first(ClusterId([1; 16]), 3, roster(&[1, 2, 3])).begin(roster(&[2, 3, 4]))
    }

    fn event(node: u8, seq: u64, kind: impl Into<EventKind>) -> Event {
        let (generation, cause) = (Generation(1), Cause::Timer);
        Event { at: Now::default(), node: n(node), generation, seq, cause, kind: kind.into() }
    }

    fn ballot(counter: u64, node: u8) -> Ballot {
        Ballot { counter, node: n(node), generation: Generation(1) }
    }

    fn tell(epochs: &mut Epochs, node: u8, kinds: impl IntoIterator<Item = TopologyEvent>) {
        for (seq, kind) in (1..).zip(kinds) {
            epochs.see(&event(node, seq, kind));
        }
    }

    fn prepared(epoch: Epoch, ballot: Ballot) -> TopologyEvent {
        TopologyEvent::Prepared { epoch, ballot, voters: vec![n(1), n(2), n(3)], needed: 2 }
    }

    fn counted(ballot: Ballot, from: u8) -> TopologyEvent {
        TopologyEvent::Counted { ballot, from: n(from), have: 1, needed: 2 }
    }

    #[test]
    fn newcomers_are_shown_while_they_learn_and_no_longer() {
        let mut epochs = Epochs::default();
        let newcomers = |have| BTreeMap::from([(n(4), Progress { have, of: 9, pages: 0 })]);
        tell(&mut epochs, 1, [1, 5].map(|have| TopologyEvent::Learning { newcomers: newcomers(have) }));
        assert_eq!(*epochs.learning(), newcomers(5));
        tell(&mut epochs, 2, [TopologyEvent::Adopted(joint())]);
        assert!(epochs.learning().is_empty());
        tell(&mut epochs, 1, [TopologyEvent::Learning { newcomers: newcomers(1) }]);
        tell(&mut epochs, 1, [TopologyEvent::Stalled { member: n(4) }]);
        assert!(epochs.learning().is_empty());
    }

    #[test]
    fn votes_are_promises_before_the_proposal_and_acceptances_after_it() {
        let (mut epochs, joint, one) = (Epochs::default(), joint(), ballot(1, 1));
        let done = joint.complete().expect("joint");
        let voters = vec![n(1), n(2), n(3), n(4)];
        let proposed = TopologyEvent::Proposed { ballot: one, config: done, inherited: false, voters, needed: 4 };
        let told =
            [TopologyEvent::Adopted(joint.clone()), prepared(joint.epoch, one), counted(one, 1), counted(one, 3)];
        tell(&mut epochs, 1, told.into_iter().chain([proposed, counted(one, 3), counted(one, 4)]));
        let change = epochs.change(None).expect("a change");
        let (old, new) = (change.old_group(), change.new_group());
        assert_eq!(old.voters, [(n(1), Mark::Promised), (n(2), Mark::Silent), (n(3), Mark::Accepted)]);
        assert_eq!(new.voters, [(n(2), Mark::Silent), (n(3), Mark::Accepted), (n(4), Mark::Accepted)]);
        assert_eq!([(old.accepted(), old.needed), (new.accepted(), new.needed)], [(1, 2), (2, 2)]);
        assert_eq!((change.joins(), change.leaves()), (vec![n(4)], vec![n(1)]));
    }

    #[test]
    fn votes_of_different_attempts_are_not_added_up() {
        let (mut epochs, joint) = (Epochs::default(), joint());
        let (first, second) = (ballot(1, 1), ballot(2, 3));
        tell(&mut epochs, 1, [TopologyEvent::Adopted(joint.clone()), prepared(joint.epoch, first), counted(first, 1)]);
        tell(&mut epochs, 3, [prepared(joint.epoch, second), counted(second, 3)]);
        let promised = |epochs: &Epochs| epochs.change(None).map(|change| change.votes.promised.clone());
        assert_eq!(promised(&epochs), Some(BTreeSet::from([n(3)])));
        // The lower ballot was in time after all.
        tell(&mut epochs, 1, [TopologyEvent::Chosen { ballot: first, epoch: joint.epoch.next() }]);
        assert_eq!(promised(&epochs), Some(BTreeSet::from([n(1)])));
    }

    #[test]
    fn a_change_ends_in_one_of_two_ways() {
        let joint = joint();
        for (settled, end) in [(joint.complete(), End::Completed), (joint.abort(), End::GivenUp)] {
            let mut epochs = Epochs::default();
            let settled = settled.expect("joint");
            tell(&mut epochs, 1, [TopologyEvent::Adopted(joint.clone()), TopologyEvent::Adopted(settled)]);
            // Whoever is late does not begin it again.
            tell(&mut epochs, 2, [TopologyEvent::Adopted(joint.clone())]);
            assert_eq!(epochs.change(None).and_then(|change| change.end), Some(end));
        }
    }

    #[test]
    fn after_a_lost_majority_every_survivor_takes_over_everything() {
        let before = joint();
        let survivors: BTreeSet<NodeId> = before.current.storage.keys().copied().take(2).collect();
        let forked = before.fork(ClusterId([7; 16]), &survivors).expect("they own");
        let change = Change::begun(&forked);
        assert_eq!(change.moved, 0);
        assert!(change.takers.len() == 2 && change.takers.values().all(|taking| taking.of == 256));
    }

    #[test]
    fn what_is_in_force_is_shown_before_anything_was_told_of_it() {
        let (epochs, joint) = (Epochs::default(), joint());
        let change = epochs.change(Some(&joint)).expect("a change");
        let of: u16 = change.takers.values().map(|taking| taking.of).sum();
        assert_eq!(usize::from(of), 3 * joint.moved().len());
        let done = joint.complete().expect("joint");
        assert!(epochs.change(Some(&done)).is_none());
        // And its end as well.
        let mut epochs = Epochs::default();
        tell(&mut epochs, 1, [TopologyEvent::Adopted(joint)]);
        assert_eq!(epochs.change(Some(&done)).and_then(|change| change.end), Some(End::Completed));
    }

    #[test]
    fn what_is_told_late_of_an_earlier_change_is_not_counted_for_this_one() {
        let (mut epochs, first) = (Epochs::default(), joint());
        let second = first.complete().expect("joint").begin(roster(&[1, 2, 3]));
        tell(&mut epochs, 4, [TopologyEvent::Adopted(first)]);
        tell(&mut epochs, 2, [TopologyEvent::Adopted(second)]);
        let took = KvEvent::TookOver { partition: Partition(1), have: 5, of: 9 };
        assert!(!epochs.see(&event(4, 9, took.clone())) && epochs.see(&event(2, 9, took)));
    }

    #[test]
    fn progress_goes_forward_and_bytes_are_added_up() {
        let mut epochs = Epochs::default();
        tell(&mut epochs, 1, [TopologyEvent::Adopted(joint())]);
        let fetched = |bytes| KvEvent::Fetched { partition: Partition(1), from: n(1), bytes };
        let took = |have| KvEvent::TookOver { partition: Partition(1), have, of: 9 };
        for (seq, kv) in (1..).zip([fetched(10), fetched(5), took(2), took(1)]) {
            assert!(epochs.see(&event(4, seq, kv)));
        }
        let change = epochs.change(None).expect("a change");
        assert_eq!(change.takers[&n(4)], Taking { have: 2, of: 9, bytes: 15 });
    }

    #[test]
    fn the_history_is_bounded_and_newest_first() {
        let mut epochs = Epochs::default();
        tell(&mut epochs, 1, (0..80).map(|counter| prepared(Epoch(1), ballot(counter, 1))));
        assert_eq!((epochs.history().len(), epochs.history()[0].seq), (HISTORY, 80));
    }

    #[test]
    fn what_is_told_a_little_late_is_put_in_its_place() {
        let told = |node, wall_ms: u64| {
            let at = Now { mono: Instant(0), wall: WallTime(wall_ms * 1_000) };
            Event { at, ..event(node, wall_ms, prepared(Epoch(1), ballot(wall_ms, node))) }
        };
        let mut epochs = Epochs::default();
        // The clock of node 3 is an hour ahead: it says nothing of order.
        let (right, wrong) = (5_000, 3_605_000);
        for event in [told(3, wrong), told(1, right), told(1, right + 30), told(2, right + 10), told(3, wrong + 20)] {
            epochs.see(&event);
        }
        let order: Vec<_> = epochs.history().iter().map(|event| (event.node, event.seq)).collect();
        assert_eq!(order, [(n(3), wrong + 20), (n(1), right + 30), (n(2), right + 10), (n(1), right), (n(3), wrong)]);
    }

    #[test]
    fn a_real_change_is_followed_to_its_end() {
        let mut sim = Sim::with(5, 4, 0, 3, |config| config.autopilot.enabled = false);
        sim.set_level(Level::Messages);
        let mut epochs = Epochs::default();
        sim.run_for(Duration::secs(5));
        let member = sim.id(1);
        sim.request(0, Op::Change { steps: vec![Step::Weight { member, weight: 3 }] }.into());
        sim.run_for(Duration::secs(20));
        while let Some(event) = sim.next_event() {
            epochs.see(&event);
        }
        let change = epochs.change(None).expect("a change");
        assert_eq!((change.end, change.weighs()), (Some(End::Completed), vec![(member, 1, 3)]));
        assert!(change.takers.values().all(|taking| taking.have == taking.of));
        for group in [change.old_group(), change.new_group()] {
            assert!(group.accepted() >= usize::from(group.needed), "{group:?}");
        }
        assert!(!change.reported.is_empty());
    }
}

//! The chosen configuration: who owns data, who votes on its successor, and how many copies there are.
//!
//! A configuration is either *settled*, with one roster, or *joint*, with the roster in force and the one that is to
//! follow. No change is made in one step, because a majority of the one roster need not meet a majority of the other
//! (protocols of the `topology` module).
//!
//! ```text
//!   epoch e      {current: A}               settled
//!   epoch e+1    {current: A, next: B}      joint: whatever is decided or stored needs A and B
//!   epoch e+2    {current: B}               settled again; or {current: A} where the change was given up
//! ```
//!
//! A namespace is created in one step, from one settled configuration to the next: the owners of all that there is stay
//! the same, and of what is to come nobody holds anything.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::id::{ClusterId, Epoch, NodeId, Storage};
use crate::limits;
use crate::member::Class;
use crate::namespace::{Copies, Namespace, Namespaces};
use crate::placement::{PARTITIONS, Partition, Placement};
use crate::quorum::Tally;
use crate::refusal::Refusal;
use crate::roster::{Roster, Seat, choose_voters};

/// A new cluster that lives on another one's data begins so many epochs later.
const FORK: u64 = 1 << 32;

/// One epoch's configuration. Chosen once, durable before it is used, and the same on every node that knows its epoch.
///
/// Every quorum is counted from here and never from gossip.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ClusterConfig {
    /// The cluster this belongs to.
    pub cluster: ClusterId,
    /// The cluster whose data this one lives on, while its members merge what they hold of it: until then nobody is
    /// served. Such a configuration is joint with itself.
    pub recovers: Option<ClusterId>,
    /// Its number; a larger one replaces a smaller one.
    pub epoch: Epoch,
    /// N: copies of each key, but for namespaces with a number of their own.
    pub replicas: u8,
    /// The namespaces, each with its guarantee.
    pub namespaces: Namespaces,
    /// Who owns and votes.
    pub current: Roster,
    /// Who is to own and vote next, while the change is under way.
    pub next: Option<Roster>,
    /// Per class and partition, the settled epoch since which its owners have been the same. Whoever has not known that
    /// epoch, or the joint one before it, cannot have taken part in handing the partition over.
    pub since: BTreeMap<u8, Vec<Epoch>>,
    /// Who had a seat and lost it, oldest first, at most [`limits::RETIRED`]. Under the same name only the same storage
    /// may come back: another one would not know which names it has given to writes.
    pub retired: Vec<(NodeId, Storage)>,
}

impl ClusterConfig {
    /// The first of a cluster.
    #[must_use]
    pub fn first(cluster: ClusterId, replicas: u8, roster: Roster) -> Self {
        Self {
            cluster,
            recovers: None,
            epoch: Epoch(1),
            replicas,
            namespaces: Namespaces::default(),
            current: roster,
            next: None,
            since: BTreeMap::from([(0, alloc::vec![Epoch(1); usize::from(PARTITIONS)])]),
            retired: Vec::new(),
        }
    }

    /// How many copies there are of keys.
    #[must_use]
    pub fn copies(&self) -> Copies {
        self.namespaces.copies(self.replicas)
    }

    /// Who owns what by one of its rosters, or by one that is wished for.
    #[must_use]
    pub fn placement(&self, roster: &Roster) -> Placement {
        Placement::new(roster, &self.copies())
    }

    /// Every partition that there is.
    pub fn partitions(&self) -> impl Iterator<Item = Partition> + use<> {
        self.copies().partitions()
    }

    /// Since when a partition's owners have been the same.
    #[must_use]
    pub fn since(&self, partition: Partition) -> Epoch {
        let class = self.since.get(&partition.class());
        class.and_then(|slots| slots.get(usize::from(partition.slot()))).copied().unwrap_or_default()
    }

    /// The settled configuration that follows a settled one when a namespace is created. Nobody holds anything of it, so
    /// nothing has to be taken over.
    ///
    /// # Errors
    ///
    /// If the namespace cannot be, if there are fewer members than it is to have copies, or while a change is under way.
    pub fn create(&self, name: &str, namespace: Namespace) -> Result<Self, Refusal> {
        if self.next.is_some() {
            return Err(Refusal::ConfigChangeInProgress { epoch: self.epoch });
        }
        let namespaces = self.namespaces.with(name, namespace)?;
        if usize::from(namespace.replicas) > self.current.owners().count() {
            return Err(Refusal::TooFewMembers { replicas: namespace.replicas });
        }
        let (epoch, mut since) = (self.epoch.next(), self.since.clone());
        for (class, _) in namespaces.copies(self.replicas).classes() {
            since.entry(class).or_insert_with(|| alloc::vec![epoch; usize::from(PARTITIONS)]);
        }
        Ok(Self { epoch, namespaces, since, ..self.clone() })
    }

    /// Whether the parts fit together; a config from a peer is checked before it is believed.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        (1..=limits::REPLICAS).contains(&self.replicas)
            && self.epoch > Epoch(0)
            && self.retired.len() <= limits::RETIRED
            && self.namespaces.is_sound()
            && self.since.keys().copied().eq(self.copies().classes().map(|(class, _)| class))
            && self.since.values().all(|slots| slots.len() == usize::from(PARTITIONS))
            && self.since.values().flatten().all(|&since| since <= self.epoch)
            && self.rosters().all(Roster::is_sound)
            && (self.recovers.is_none() || self.next.as_ref() == Some(&self.current))
    }

    /// The roster in force and, while joint, the one to follow.
    pub fn rosters(&self) -> impl Iterator<Item = &Roster> {
        [&self.current].into_iter().chain(&self.next)
    }

    /// Storage members of now and, while joint, of then; each once.
    pub fn storage(&self) -> impl Iterator<Item = NodeId> {
        let all: BTreeSet<NodeId> = self.rosters().flat_map(|roster| roster.storage.keys().copied()).collect();
        all.into_iter()
    }

    /// The seat of a node, that of now before that of then.
    #[must_use]
    pub fn seat(&self, node: NodeId) -> Option<&Seat> {
        self.rosters().find_map(|roster| roster.storage.get(&node))
    }

    /// Whether a node has a seat.
    #[must_use]
    pub fn seats(&self, node: NodeId) -> bool {
        self.seat(node).is_some()
    }

    /// Whether a node passes on what is not for it: servers with a seat do.
    #[must_use]
    pub fn relays(&self, node: NodeId) -> bool {
        self.seat(node).is_some_and(|seat| seat.class == Class::Server)
    }

    /// Whether a node votes, now or then.
    #[must_use]
    pub fn votes(&self, node: NodeId) -> bool {
        self.rosters().any(|roster| roster.voters.contains(&node))
    }

    /// The quorum whose promises a successor of this configuration needs.
    #[must_use]
    pub fn promises(&self) -> Tally {
        Tally::new(self.current.voters.iter().copied(), self.current.majority())
    }

    /// The quorum that must accept `successor`: a majority of the voters in force, and to complete a change also one of
    /// those to come.
    #[must_use]
    pub fn accepts(&self, successor: &Self) -> Tally {
        match &self.next {
            Some(next) if successor.current == *next => {
                self.promises().and(next.voters.iter().copied(), next.majority())
            }
            _ => self.promises(),
        }
    }

    /// The joint configuration that begins a change to `next`.
    #[must_use]
    pub fn begin(&self, next: Roster) -> Self {
        Self { epoch: self.epoch.next(), next: Some(next), ..self.clone() }
    }

    /// The settled configuration that ends the change; `None` if none is under way.
    #[must_use]
    pub fn complete(&self) -> Option<Self> {
        let (epoch, next) = (self.epoch.next(), self.next.clone()?);
        let moved = self.to_take_over();
        let mut since = self.since.clone();
        for (&class, slots) in &mut since {
            for (slot, since) in (0..=u8::MAX).zip(slots) {
                *since = if moved.contains(&Partition::new(class, slot)) { epoch } else { *since };
            }
        }
        let retired = self.retire(&next);
        Some(Self { epoch, recovers: None, current: next, next: None, since, retired, ..self.clone() })
    }

    /// Those who have lost their seats once `next` is in force.
    fn retire(&self, next: &Roster) -> Vec<(NodeId, Storage)> {
        let leaves = |node: &NodeId| !next.storage.contains_key(node);
        let before = self.retired.iter().copied().filter(|(node, _)| leaves(node));
        let now = self.current.storage.iter().filter(|(node, _)| leaves(node));
        let mut retired: Vec<(NodeId, Storage)> =
            before.chain(now.map(|(&node, seat)| (node, seat.incarnation))).collect();
        retired.drain(..retired.len().saturating_sub(limits::RETIRED));
        retired
    }

    /// Whether a member may have a seat: it never had one, or it had one with the same storage.
    #[must_use]
    pub fn may_seat(&self, node: NodeId, storage: Storage) -> bool {
        self.retired.iter().all(|&(id, before)| id != node || before == storage)
    }

    /// The settled configuration that gives the change up; `None` if none is under way that can be.
    #[must_use]
    pub fn abort(&self) -> Option<Self> {
        self.next.as_ref().filter(|_| self.recovers.is_none())?;
        Some(Self { epoch: self.epoch.next(), next: None, ..self.clone() })
    }

    /// The first configuration of a new cluster, of those members of this one that survive: they own and vote, and are
    /// yet to merge what they hold. `None` if none of them has a seat that owns.
    #[must_use]
    pub fn fork(&self, cluster: ClusterId, survivors: &BTreeSet<NodeId>) -> Option<Self> {
        let seats = self.rosters().flat_map(|roster| &roster.storage);
        let (kept, gone): (Vec<_>, Vec<_>) = seats.partition(|(node, _)| survivors.contains(node));
        let storage: BTreeMap<NodeId, Seat> = kept.into_iter().map(|(&node, seat)| (node, seat.clone())).collect();
        // No storage is this one: under its name nobody who is gone has a seat again.
        let gone: BTreeSet<NodeId> = gone.into_iter().map(|(&node, _)| node).collect();
        let gone = gone.into_iter().map(|node| (node, Storage::default()));
        let mut retired: Vec<(NodeId, Storage)> = self.retired.iter().copied().chain(gone).collect();
        retired.drain(..retired.len().saturating_sub(limits::RETIRED));
        let voters = choose_voters(&storage, &BTreeSet::new(), |_| true);
        let current = Roster { storage, voters };
        let epoch = Epoch(self.epoch.0.checked_add(FORK)?);
        let since = self.since.keys().map(|&class| (class, alloc::vec![epoch; usize::from(PARTITIONS)])).collect();
        let (recovers, next) = (Some(self.cluster), Some(current.clone()));
        let (replicas, namespaces) = (self.replicas, self.namespaces.clone());
        let forked = Self { cluster, recovers, epoch, replicas, namespaces, current, next, since, retired };
        forked.is_sound().then_some(forked)
    }

    /// Whether `successor` can follow this one: the next epoch of the same cluster, begun, completed or given up.
    #[must_use]
    pub fn allows(&self, successor: &Self) -> bool {
        if self.next.is_some() {
            return self.complete().as_ref() == Some(successor) || self.abort().as_ref() == Some(successor);
        }
        let follows = match &successor.next {
            Some(next) => self.begin(next.clone()) == *successor,
            None => {
                let known = |name: &str| self.namespaces.get(name).is_ok();
                let created = successor.namespaces.iter().find(|(name, _)| !known(name));
                created.is_some_and(|(name, namespace)| self.create(name, namespace).as_ref() == Ok(successor))
            }
        };
        successor.is_sound() && follows
    }

    /// The partitions whose owners to come have to take over: those that move, or, after a lost majority, all.
    #[must_use]
    pub fn to_take_over(&self) -> BTreeSet<Partition> {
        if self.recovers.is_some() { self.partitions().collect() } else { self.moved() }
    }

    /// The partitions that get other owners by the change under way.
    #[must_use]
    pub fn moved(&self) -> BTreeSet<Partition> {
        let Some(next) = &self.next else { return BTreeSet::new() };
        let (old, new) = (self.placement(&self.current), self.placement(next));
        self.partitions().filter(|&partition| !old.same_owners(&new, partition)).collect()
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::String;

    use super::*;
    use crate::namespace::Mode;

    fn roster(nodes: &[u8]) -> Roster {
        let seat = |&n: &u8| {
            let incarnation = Storage([n; 16]);
            (NodeId::small(n), Seat { weight: 1, class: Class::Server, zone: String::new(), incarnation })
        };
        Roster { storage: nodes.iter().map(seat).collect(), voters: nodes.iter().map(|&n| NodeId::small(n)).collect() }
    }

    fn first() -> ClusterConfig {
        ClusterConfig::first(ClusterId([1; 16]), 3, roster(&[1, 2, 3]))
    }

    #[test]
    fn a_change_goes_through_a_joint_epoch_and_ends_in_one_of_two_ways() {
        let first = first();
        let joint = first.begin(roster(&[2, 3, 4]));
        let (done, given_up) = (joint.complete().expect("joint"), joint.abort().expect("joint"));
        assert_eq!((joint.epoch, done.epoch, given_up.epoch), (Epoch(2), Epoch(3), Epoch(3)));
        assert!(first.allows(&joint) && joint.allows(&done) && joint.allows(&given_up));
        assert!(!first.allows(&done) && !first.allows(&first) && !joint.allows(&joint.begin(roster(&[1, 2, 3]))));
        assert_eq!(given_up.current, first.current);
    }

    #[test]
    fn completing_needs_a_majority_of_both_and_giving_up_only_of_the_old() {
        let joint = first().begin(roster(&[4, 5, 6]));
        let answer = |mut tally: Tally, nodes: &[u8]| {
            nodes.iter().for_each(|&n| {
                tally.answer(NodeId::small(n));
            });
            tally.reached()
        };
        let (done, given_up) = (joint.complete().expect("joint"), joint.abort().expect("joint"));
        assert!(!answer(joint.accepts(&done), &[1, 2]) && answer(joint.accepts(&done), &[1, 2, 4, 6]));
        assert!(answer(joint.accepts(&given_up), &[1, 2]) && !answer(joint.accepts(&given_up), &[4, 5, 6]));
    }

    #[test]
    fn a_partition_remembers_since_when_its_owners_are_the_same() {
        let joint = first().begin(roster(&[1, 2, 3, 4]));
        let (moved, done) = (joint.moved(), joint.complete().expect("joint"));
        assert!(!moved.is_empty() && moved.len() < usize::from(PARTITIONS));
        for partition in done.partitions() {
            let expected = if moved.contains(&partition) { Epoch(3) } else { Epoch(1) };
            assert_eq!(done.since(partition), expected);
        }
    }

    #[test]
    fn under_an_old_name_only_the_old_storage_may_come_back() {
        let done = first().begin(roster(&[1, 2, 4])).complete().expect("joint");
        assert!(
            done.may_seat(NodeId::small(3), Storage([3; 16])) && !done.may_seat(NodeId::small(3), Storage([9; 16]))
        );
        assert!(done.may_seat(NodeId::small(9), Storage([9; 16])));
        let back = done.begin(roster(&[1, 2, 3])).complete().expect("joint");
        assert_eq!(back.retired, [(NodeId::small(4), Storage([4; 16]))]);
    }

    #[test]
    fn a_namespace_is_created_in_one_step_and_moves_nothing() {
        let first = ClusterConfig::first(ClusterId([1; 16]), 3, roster(&[1, 2, 3, 4, 5]));
        let orders = Namespace { mode: Mode::Consensus, replicas: 5 };
        let second = first.create("orders", orders).expect("it can be");
        assert!(second.is_sound() && first.allows(&second) && second.to_take_over().is_empty());
        assert_eq!((second.since(Partition::new(0, 7)), second.since(Partition::new(5, 7))), (Epoch(1), Epoch(2)));
        let tampered = ClusterConfig { replicas: 1, ..second.clone() };
        assert!(!first.allows(&tampered) && !second.allows(&first.begin(roster(&[1, 2, 3]))));
        let both = second.create("notes", orders).expect("it can be");
        assert!(!first.allows(&ClusterConfig { epoch: Epoch(2), ..both }), "one at a time");
        let joint = second.begin(roster(&[1, 2, 3, 4, 6]));
        assert_eq!(joint.create("more", orders), Err(Refusal::ConfigChangeInProgress { epoch: Epoch(3) }));
        assert_eq!(joint.complete().map(|done| done.namespaces), Some(second.namespaces.clone()));
        let seven = Namespace { replicas: 7, ..orders };
        assert_eq!(first.create("more", seven), Err(Refusal::TooFewMembers { replicas: 7 }));
    }

    #[test]
    fn what_does_not_fit_together_is_not_believed() {
        assert!(first().is_sound());
        let mut stranger = first();
        stranger.current.voters.insert(NodeId::small(9));
        assert!(!stranger.is_sound());
        let mut relay_votes = first();
        relay_votes.current.storage.get_mut(&NodeId::small(1)).expect("a seat").weight = 0;
        assert!(!relay_votes.is_sound());
        assert!(!ClusterConfig { since: BTreeMap::new(), ..first() }.is_sound());
        assert!(!ClusterConfig { recovers: Some(ClusterId([2; 16])), ..first() }.is_sound());
    }
}

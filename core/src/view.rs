//! The two planes, kept apart: who *owns* (chosen, durable, never wrong) and who is *reachable* (gossip, a hint).

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::cluster::ClusterConfig;
use crate::id::{Epoch, NodeId};
use crate::member::{Class, Member, State};
use crate::placement::{Partition, Placement};
use crate::quorum::{Level, Tally, majority};
use crate::refusal::Refusal;

/// What every protocol of a node may read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct View {
    /// The newest chosen configuration this node knows. Every quorum is counted from it.
    pub chosen: Option<Chosen>,
    /// Members as gossip has them, this node included. Never counted.
    pub members: BTreeMap<NodeId, Arc<Member>>,
    /// Peers with an open link to this node.
    pub links: BTreeSet<NodeId>,
    /// The configuration of the cluster that this node has left, while it is in no other. Nothing is counted from it.
    pub left: Option<ClusterConfig>,
    /// The partitions that this node is to own after the epoch named, if it is told to fetch them before.
    pub learning: Option<(Epoch, BTreeSet<Partition>)>,
    /// While a change is under way, or this node learns: of which epoch, and the partitions that this node has taken over, durably.
    pub taken_over: Option<(Epoch, BTreeSet<Partition>)>,
    /// Pages that this node has fetched for that so far.
    pub pages: u32,
    /// While a change is under way: of which epoch, and the partitions whose registers this node has seen to be with the
    /// owners to come.
    pub moved: Option<(Epoch, BTreeSet<Partition>)>,
}

/// A chosen configuration and the placement that follows from it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Chosen {
    /// As decided.
    pub config: ClusterConfig,
    /// By the roster in force; computed once from `config`.
    placement: Placement,
    /// By the roster to follow, while there is one.
    next: Option<Placement>,
}

impl Chosen {
    /// Computes the placements.
    #[must_use]
    pub fn new(config: ClusterConfig) -> Self {
        let placement = config.placement(&config.current);
        let next = config.next.as_ref().map(|next| config.placement(next));
        Self { config, placement, next }
    }

    /// The owners of a partition.
    #[must_use]
    pub fn owners(&self, partition: Partition) -> Owners<'_> {
        let current = self.placement.owners(partition);
        let next = self.next.as_ref().filter(|next| !next.same_owners(&self.placement, partition));
        Owners { current, next: next.map(|next| next.owners(partition)) }
    }

    /// Every partition that there is.
    pub fn partitions(&self) -> impl Iterator<Item = Partition> + use<> {
        self.config.copies().partitions()
    }

    /// The owners of a key.
    #[must_use]
    pub fn owners_of(&self, key: &[u8]) -> Owners<'_> {
        self.owners(Partition::of(key))
    }
}

/// Who owns one partition in one epoch: quorums are counted of `current` and, where there is a `next`, of that as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owners<'a> {
    /// Best first.
    pub current: &'a [NodeId],
    /// Those who are to follow, while the change is under way and if they are others.
    pub next: Option<&'a [NodeId]>,
}

impl<'a> Owners<'a> {
    /// All of them, each once, those of now first.
    pub fn all(self) -> impl Iterator<Item = NodeId> + Clone + 'a {
        let newcomers = self.next.unwrap_or_default().iter().filter(move |node| !self.current.contains(node));
        self.current.iter().chain(newcomers).copied()
    }

    /// Whether it is one of them.
    #[must_use]
    pub fn contains(self, node: NodeId) -> bool {
        self.current.contains(&node) || self.next.is_some_and(|next| next.contains(&node))
    }

    /// Whether they are about to change.
    #[must_use]
    pub fn are_joint(self) -> bool {
        self.next.is_some()
    }

    /// The quorum of `level`: of the owners of now and, where they change, also of those to follow. `None` for a level
    /// below a majority or above N.
    #[must_use]
    pub fn quorum(self, level: Level) -> Option<Tally> {
        self.tally(|_| true, |n| level.needed(n))
    }

    /// The same where no read has to meet any write. `is_near` says who is in the zone of whoever asks; `None` if none is
    /// and the level is of that zone.
    #[must_use]
    pub fn any(self, level: Level, is_near: impl Fn(NodeId) -> bool) -> Option<Tally> {
        match level {
            Level::LocalZone => self.tally(is_near, |n| (n > 0).then(|| majority(n))),
            level => self.tally(|_| true, |n| level.needed_of_any(n)),
        }
    }

    /// Of those owners of each group that count, as many as are needed of so many.
    fn tally(self, counts: impl Fn(NodeId) -> bool, needed: impl Fn(u8) -> Option<u8>) -> Option<Tally> {
        let group = |owners: &[NodeId]| {
            let asked: Vec<NodeId> = owners.iter().copied().filter(|&owner| counts(owner)).collect();
            let needed = needed(asked.len() as u8)?;
            Some((asked, needed))
        };
        let (asked, count) = group(self.current)?;
        let current = Tally::new(asked, count);
        let Some(next) = self.next else { return Some(current) };
        let (asked, count) = group(next)?;
        Some(current.and(asked, count))
    }
}

fn choose(mut nodes: impl Iterator<Item = NodeId> + Clone, turn: u64) -> Option<NodeId> {
    let count = nodes.clone().count() as u64;
    nodes.nth(turn.checked_rem(count)? as usize)
}

impl View {
    /// The epoch in force here, 0 for none.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.chosen.as_ref().map_or(Epoch(0), |chosen| chosen.config.epoch)
    }

    /// The configuration by which clients are served.
    ///
    /// # Errors
    ///
    /// If there is none, or it still recovers from a lost majority.
    pub fn serving(&self) -> Result<&Chosen, Refusal> {
        match &self.chosen {
            Some(chosen) if chosen.config.recovers.is_none() => Ok(chosen),
            Some(_) => Err(Refusal::Recovering),
            None if self.left.is_some() => Err(Refusal::Recovering),
            None => Err(Refusal::NoEpoch),
        }
    }

    /// Whether gossip holds the member alive. Orders attempts; never replaces one.
    #[must_use]
    pub fn seems_alive(&self, node: NodeId) -> bool {
        self.members.get(&node).is_some_and(|member| member.state == State::Alive)
    }

    /// Whether the member says that it may fall silent.
    #[must_use]
    pub fn is_drowsy(&self, node: NodeId) -> bool {
        self.members.get(&node).is_some_and(|member| member.profile.drowsy)
    }

    /// The linked peer to hand a packet for `to`: itself, or a server that the tab `to` is linked to, or, for a node
    /// that has no link to it, any of its own links that relays.
    ///
    /// Where there are several, `turn` chooses: callers count it up, so that a retry takes another way than the
    /// message it repeats. A link that is cut or stuck says nothing, and must not swallow everything.
    #[must_use]
    pub fn next_hop(&self, to: NodeId, turn: u64) -> Option<NodeId> {
        if self.links.contains(&to) {
            return Some(to);
        }
        let relays = self.members.get(&to).map(|member| member.profile.relays.as_slice()).unwrap_or_default();
        let linked = relays.iter().copied().filter(|relay| self.links.contains(relay));
        choose(linked, turn).or_else(|| choose(self.relays(), turn))
    }

    /// The configuration in force, or the one that this node has left.
    #[must_use]
    pub fn config(&self) -> Option<&ClusterConfig> {
        self.chosen.as_ref().map(|chosen| &chosen.config).or(self.left.as_ref())
    }

    /// Whether a peer may speak for others: servers of the epoch do, and those of the one that this node has left.
    #[must_use]
    pub fn may_relay(&self, peer: NodeId) -> bool {
        self.config().is_some_and(|config| config.relays(peer))
    }

    /// The linked peers that relay: servers of the epoch, and before there is one, any server.
    pub fn relays(&self) -> impl Iterator<Item = NodeId> + Clone + '_ {
        self.links.iter().copied().filter(|link| match &self.chosen {
            Some(chosen) => chosen.config.relays(*link),
            None => self.members.get(link).is_some_and(|member| member.profile.class == Class::Server),
        })
    }
}

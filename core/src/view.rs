//! The two planes, kept apart: who *owns* (chosen, durable, never wrong) and who is *reachable* (gossip, a hint).

use alloc::collections::{BTreeMap, BTreeSet};

use crate::cluster::ClusterConfig;
use crate::id::{Epoch, NodeId};
use crate::member::{Class, Member, State};
use crate::placement::Placement;

/// What every protocol of a node may read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct View {
    /// The newest chosen configuration this node knows. Every quorum is counted from it.
    pub chosen: Option<Chosen>,
    /// Members as gossip has them, this node included. Never counted.
    pub members: BTreeMap<NodeId, Member>,
    /// Peers with an open link to this node.
    pub links: BTreeSet<NodeId>,
}

/// A chosen configuration and the placement that follows from it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Chosen {
    /// As decided.
    pub config: ClusterConfig,
    /// Computed once from `config`.
    pub placement: Placement,
}

impl Chosen {
    /// Computes the placement.
    #[must_use]
    pub fn new(config: ClusterConfig) -> Self {
        let placement = Placement::new(&config);
        Self { config, placement }
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

    /// Whether gossip holds the member alive. Orders attempts; never replaces one.
    #[must_use]
    pub fn seems_alive(&self, node: NodeId) -> bool {
        self.members.get(&node).is_some_and(|member| member.state == State::Alive)
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

    /// The linked peers that relay: servers of the epoch, and before there is one, any server.
    pub fn relays(&self) -> impl Iterator<Item = NodeId> + Clone + '_ {
        self.links.iter().copied().filter(|link| match &self.chosen {
            Some(chosen) => chosen.config.storage.contains_key(link),
            None => self.members.get(link).is_some_and(|member| member.profile.class == Class::Server),
        })
    }
}

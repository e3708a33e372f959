//! Who stores and who votes: what a configuration is made of.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;

use serde::{Deserialize, Serialize};

use crate::id::{NodeId, Storage};
use crate::limits;
use crate::member::Class;
use crate::quorum::majority;

/// Who stores and who votes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Roster {
    /// Storage members, each with what its placement needs to know.
    pub storage: BTreeMap<NodeId, Seat>,
    /// The acceptors of the config register, storage members all of them; an odd number, at most
    /// [`limits::VOTERS`], unless there are only two members.
    pub voters: BTreeSet<NodeId>,
}

/// What a roster says of one storage member.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Seat {
    /// Twice the weight, twice the partitions. Zero for a server that only relays: it owns nothing and does not vote.
    pub weight: u32,
    /// Tabs together never own or vote more than a minority, where there are servers.
    pub class: Class,
    /// Members of one zone fail together; owners of a partition are spread over zones. Empty: a zone of its own.
    pub zone: String,
    /// The storage that the seat was given to. A node that lost it has lost its promises and its acknowledged writes
    /// with it, and does not sit here, whatever its name.
    pub incarnation: Storage,
}

impl Roster {
    /// Those who own partitions.
    pub fn owners(&self) -> impl Iterator<Item = (NodeId, &Seat)> {
        self.storage.iter().filter(|(_, seat)| seat.weight > 0).map(|(&node, seat)| (node, seat))
    }

    /// More than half of the voters.
    #[must_use]
    pub fn majority(&self) -> u8 {
        majority(self.voters.len() as u8)
    }

    /// How many of `class` vote.
    #[must_use]
    pub fn voting(&self, class: Class) -> usize {
        self.voters.iter().filter(|voter| self.storage.get(*voter).is_some_and(|seat| seat.class == class)).count()
    }

    /// Whether nothing but tabs owns and votes here: then all of them may, and nothing outlives their closing.
    #[must_use]
    pub fn is_tabs_alone(&self) -> bool {
        self.owners().all(|(_, seat)| seat.class == Class::Tab)
    }

    /// Whether the parts fit together where each key has so many copies.
    #[must_use]
    pub fn is_sound(&self, replicas: u8) -> bool {
        let owners = self.owners().count();
        let fits = self.storage.len() <= limits::STORAGE_MEMBERS && usize::from(replicas) <= owners;
        let votes = (1..=limits::VOTERS).contains(&self.voters.len());
        let own = |voter: &NodeId| self.storage.get(voter).is_some_and(|seat| seat.weight > 0);
        let named =
            self.storage.values().all(|seat| seat.zone.len() <= limits::ZONE_BYTES && seat.weight <= limits::WEIGHT);
        fits && votes && named && self.voters.iter().all(own)
    }
}

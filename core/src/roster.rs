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

    /// Whether the parts fit together.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let fits = self.storage.len() <= limits::STORAGE_MEMBERS && self.owners().next().is_some();
        let votes = (1..=limits::VOTERS).contains(&self.voters.len());
        let own = |voter: &NodeId| self.storage.get(voter).is_some_and(|seat| seat.weight > 0);
        let named =
            self.storage.values().all(|seat| seat.zone.len() <= limits::ZONE_BYTES && seat.weight <= limits::WEIGHT);
        fits && votes && named && self.voters.iter().all(own)
    }
}

/// Who votes: as many owners as there may be voters and an odd number of them; of the tabs a minority, unless there is
/// nobody else. Those in good health come first, then those who vote already, then servers.
#[must_use]
pub fn choose_voters(
    storage: &BTreeMap<NodeId, Seat>,
    before: &BTreeSet<NodeId>,
    good: impl Fn(NodeId) -> bool,
) -> BTreeSet<NodeId> {
    let owners = || storage.iter().filter(|(_, seat)| seat.weight > 0);
    let rank =
        |&(&node, seat): &(&NodeId, &Seat)| (!good(node), seat.class != Class::Server, !before.contains(&node), node);
    let mut servers: alloc::vec::Vec<_> = owners().filter(|(_, seat)| seat.class == Class::Server).collect();
    let mut tabs: alloc::vec::Vec<_> = owners().filter(|(_, seat)| seat.class == Class::Tab).collect();
    servers.sort_by_key(rank);
    tabs.sort_by_key(rank);
    // A vote of one that is down is better than none only for want of another.
    let healthy_tabs = tabs.iter().filter(|(node, _)| good(**node)).count();
    let (count, tabs_taken) = if servers.is_empty() {
        let count = odd(tabs.len().min(limits::VOTERS));
        (count, count)
    } else {
        let budget = |count: usize| (count.saturating_sub(1)) / 2;
        let most = odd((servers.len() + healthy_tabs).min(limits::VOTERS));
        let fits = |&count: &usize| count.saturating_sub(servers.len()) <= budget(count).min(healthy_tabs);
        let count = (1..=most).rev().filter(|count| count % 2 == 1).find(fits).unwrap_or(1);
        let healthy_servers = servers.iter().filter(|(node, _)| good(**node)).count();
        let wanted = count.saturating_sub(healthy_servers.min(count));
        (count, wanted.min(budget(count)).min(healthy_tabs).max(count.saturating_sub(servers.len())))
    };
    let of_servers = servers.into_iter().take(count - tabs_taken.min(count));
    let of_tabs = tabs.into_iter().take(tabs_taken);
    of_servers.chain(of_tabs).map(|(&node, _)| node).collect()
}

/// The largest odd number that is not above, and 1 for none.
fn odd(n: usize) -> usize {
    if n % 2 == 1 { n } else { n.saturating_sub(1).max(1) }
}

#[cfg(test)]
mod tests {
    use alloc::string::String;

    use super::*;
    use crate::id::Storage;

    fn storage(servers: u8, tabs: u8) -> BTreeMap<NodeId, Seat> {
        let seat = |class| Seat { weight: 1, class, zone: String::new(), incarnation: Storage::default() };
        let servers = (1..=servers).map(|n| (NodeId::small(n), seat(Class::Server)));
        servers.chain((1..=tabs).map(|n| (NodeId::small(100 + n), seat(Class::Tab)))).collect()
    }

    fn voters(servers: u8, tabs: u8) -> (usize, usize) {
        let storage = storage(servers, tabs);
        let chosen = choose_voters(&storage, &BTreeSet::new(), |_| true);
        let tabs = chosen.iter().filter(|voter| storage[*voter].class == Class::Tab).count();
        (chosen.len() - tabs, tabs)
    }

    #[test]
    fn voters_are_odd_in_number_and_tabs_a_minority_of_them() {
        assert_eq!(voters(1, 0), (1, 0));
        assert_eq!(voters(2, 0), (1, 0));
        assert_eq!(voters(3, 0), (3, 0));
        assert_eq!(voters(4, 0), (3, 0));
        assert_eq!(voters(9, 0), (7, 0));
        assert_eq!(voters(3, 2), (3, 2));
        assert_eq!(voters(3, 9), (3, 2));
        assert_eq!(voters(2, 1), (2, 1));
        assert_eq!(voters(1, 9), (1, 0));
        assert_eq!(voters(4, 3), (4, 3));
        for servers in 1..10 {
            for tabs in 0..10 {
                let (servers, tabs) = voters(servers, tabs);
                assert!((servers + tabs) % 2 == 1 && tabs <= (servers + tabs - 1) / 2);
            }
        }
    }

    #[test]
    fn tabs_alone_all_vote() {
        assert_eq!(voters(0, 5), (0, 5));
        assert_eq!(voters(0, 8), (0, 7));
    }

    #[test]
    fn who_votes_goes_on_voting_and_who_is_down_makes_room() {
        let storage = storage(5, 0);
        let n = |nodes: &[u8]| nodes.iter().map(|&n| NodeId::small(n)).collect::<BTreeSet<_>>();
        let four: BTreeMap<_, _> = storage.iter().take(4).map(|(&node, seat)| (node, seat.clone())).collect();
        assert_eq!(choose_voters(&four, &n(&[2, 3, 4]), |_| true), n(&[2, 3, 4]));
        assert_eq!(choose_voters(&four, &n(&[2, 3, 4]), |node| node != NodeId::small(3)), n(&[1, 2, 4]));
    }
}

//! From what is wished for to a roster: pure functions.

use alloc::collections::{BTreeMap, BTreeSet};
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::cluster::ClusterConfig;
use crate::id::NodeId;
use crate::limits;
use crate::member::{Class, Profile};
use crate::mutant::{Mutant, planted};
use crate::refusal::Refusal;
use crate::roster::{Roster, Seat};
use crate::view::View;

/// One wish. Several make one change, which happens whole or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Step {
    /// A member gets a seat.
    Add {
        /// Who. Must be known to gossip.
        member: NodeId,
        /// See [`Seat::weight`].
        weight: u32,
    },
    /// A member loses its seat.
    Remove {
        /// Who.
        member: NodeId,
    },
    /// A member's share changes.
    Weight {
        /// Who.
        member: NodeId,
        /// See [`Seat::weight`].
        weight: u32,
    },
    /// A member that has a seat stops voting where others can vote in its place, and keeps its data.
    Unvote {
        /// Who.
        member: NodeId,
    },
    /// The votes are given out anew: to as many members as there may be voters, servers first.
    Vote,
    /// The change under way is given up. Stands alone.
    GiveUp,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add { member, weight: 1 } => write!(f, "add {member}"),
            Self::Add { member, weight } => write!(f, "add {member} weight {weight}"),
            Self::Remove { member } => write!(f, "remove {member}"),
            Self::Weight { member, weight } => write!(f, "weigh {member} {weight}"),
            Self::Unvote { member } => write!(f, "take {member}'s vote"),
            Self::Vote => f.write_str("give out votes"),
            Self::GiveUp => f.write_str("give up"),
        }
    }
}

/// The seat that a member can take, by its own word.
#[must_use]
pub fn seat_of(profile: &Profile) -> Seat {
    Seat { weight: 1, class: profile.class, zone: profile.zone(), incarnation: profile.storage }
}

/// The roster that the steps lead to.
///
/// # Errors
///
/// If a member is unknown or has lost the storage that it once had a seat with, if too few would be left, or if nothing would change.
pub(super) fn apply(config: &ClusterConfig, steps: &[Step], view: &View) -> Result<Roster, Refusal> {
    let before = &config.current;
    let mut storage = before.storage.clone();
    let mut without_vote = BTreeSet::new();
    for step in steps.iter().take(limits::STORAGE_MEMBERS) {
        match *step {
            Step::Add { member, weight } => {
                let known = view.members.get(&member).ok_or(Refusal::UnknownMember { member })?;
                if !config.may_seat(member, known.profile.storage) && !planted(Mutant::AmnesiacSits) {
                    return Err(Refusal::StorageLost);
                }
                let seat = Seat { weight: weight.min(limits::WEIGHT), ..seat_of(&known.profile) };
                storage.entry(member).or_insert(seat);
            }
            Step::Remove { member } => {
                storage.remove(&member).ok_or(Refusal::UnknownMember { member })?;
            }
            Step::Weight { member, weight } => {
                let seat = storage.get_mut(&member).ok_or(Refusal::UnknownMember { member })?;
                seat.weight = weight.min(limits::WEIGHT);
            }
            Step::Unvote { member } => {
                storage.get(&member).ok_or(Refusal::UnknownMember { member })?;
                without_vote.insert(member);
            }
            Step::Vote => (),
            Step::GiveUp => return Err(Refusal::NoChange),
        }
    }
    let good = |node: NodeId| !without_vote.contains(&node) && view.seems_alive(node) && !view.is_drowsy(node);
    let voters = choose_voters(&storage, &before.voters, good);
    let roster = Roster { storage, voters };
    if roster.owners().count() < usize::from(config.replicas) || roster.storage.len() > limits::STORAGE_MEMBERS {
        return Err(Refusal::TooFewMembers { replicas: config.replicas });
    }
    if roster == *before {
        return Err(Refusal::NoChange);
    }
    Ok(roster)
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

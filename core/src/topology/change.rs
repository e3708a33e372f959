//! From what is wished for to a roster: pure functions.

use alloc::collections::BTreeSet;
use alloc::string::String;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::cluster::ClusterConfig;
use crate::id::NodeId;
use crate::limits;
use crate::member::Profile;
use crate::mutant::{Mutant, planted};
use crate::namespace::Namespace;
use crate::refusal::Refusal;
use crate::roster::{Roster, Seat, choose_voters};
use crate::view::View;

/// One wish. Several make one change, which happens whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
    /// A namespace is created. Stands alone.
    Create {
        /// How it is called; see [`crate::key::is_name`].
        name: String,
        /// What it is.
        namespace: Namespace,
    },
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
            Self::Create { name, namespace: Namespace { mode, replicas: 0 } } => write!(f, "create {name}, {mode}"),
            Self::Create { name, namespace: Namespace { mode, replicas } } => {
                write!(f, "create {name}, {mode} with {replicas} copies")
            }
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
                // Also where it has a seat still that this very change takes from it.
                let same = config.seat(member).is_none_or(|seat| seat.incarnation == known.profile.storage);
                let may = same && config.may_seat(member, known.profile.storage);
                if !may && !planted(Mutant::AmnesiacSits) {
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
            Step::GiveUp | Step::Create { .. } => return Err(Refusal::NoChange),
        }
    }
    let good = |node: NodeId| !without_vote.contains(&node) && view.seems_alive(node) && !view.is_drowsy(node);
    let voters = choose_voters(&storage, &before.voters, good);
    let roster = Roster { storage, voters };
    let (before_it, after_it) = (before.owners().count(), roster.owners().count());
    let replicas = config.copies().most();
    let is_too_few = after_it < usize::from(replicas) && after_it <= before_it;
    if after_it == 0 || is_too_few || roster.storage.len() > limits::STORAGE_MEMBERS {
        return Err(Refusal::TooFewMembers { replicas });
    }
    if roster == *before {
        return Err(Refusal::NoChange);
    }
    Ok(roster)
}

//! Which namespace a screen works on. Pure.
//!
//! Keys with versions and registers are asked for in different ways, so a screen offers the namespaces whose guarantee
//! it can ask for, of which one is always there:
//!
//! ```text
//!   Keys        default (quorum)        and all of mode eventual or quorum
//!   Consensus   registers (consensus)   and all of mode atomic or consensus
//! ```
//!
//! The table of them is part of the chosen configuration, so whoever knows an epoch has it, and nothing is fetched for
//! it. Requests name their keys as [`key_in`] does, those of the two that are always there as well: the node that is
//! asked knows how a key is called inside.

use qunlong_core::cluster::ClusterConfig;
use qunlong_core::key::place_of;
use qunlong_core::namespace::{DEFAULT, Mode, Namespace, Namespaces, REGISTERS, key_in};
use qunlong_core::{Bytes, NodeId, Refusal};

/// What a screen works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Keys with versions.
    Keys,
    /// Registers.
    Registers,
}

impl Kind {
    /// The guarantees that its namespaces have, the cheaper one first.
    #[must_use]
    pub fn modes(self) -> [Mode; 2] {
        match self {
            Self::Keys => [Mode::Eventual, Mode::Quorum],
            Self::Registers => [Mode::Atomic, Mode::Consensus],
        }
    }

    /// The namespace that is always there.
    #[must_use]
    pub fn usual(self) -> &'static str {
        match self {
            Self::Keys => DEFAULT,
            Self::Registers => REGISTERS,
        }
    }
}

/// A namespace that a screen works on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Space {
    /// How it is called.
    pub name: String,
    /// What is known of it; nothing before there is a table, or if it is not in there.
    pub known: Option<Known>,
}

/// What the table says of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// What is promised.
    pub mode: Mode,
    /// N: as many owners as each key has. Fewer than copies are wanted only where there are fewer members.
    pub copies: u8,
}

impl Space {
    /// The one that was named, if the screen can work on it, else the usual one. One that is not in the table stays
    /// chosen: its requests are refused, which says more than the keys of another namespace in its place.
    #[must_use]
    pub fn chosen(config: Option<&ClusterConfig>, kind: Kind, named: Option<&str>) -> Self {
        let fits = |name: &&str| {
            let namespace = config.map(|config| config.namespaces.get(name));
            namespace.and_then(Result::ok).is_none_or(|namespace| kind.modes().contains(&namespace.mode))
        };
        let name = named.filter(fits).unwrap_or(kind.usual());
        let known =
            config.and_then(|config| config.namespaces.get(name).ok().map(|namespace| Known::of(config, namespace)));
        Self { name: name.to_owned(), known }
    }

    /// All that a screen can work on, the one that is always there first.
    #[must_use]
    pub fn all(config: &ClusterConfig, kind: Kind) -> Vec<Self> {
        let fitting = config.namespaces.iter().filter(|(_, namespace)| kind.modes().contains(&namespace.mode));
        fitting.map(|(name, of)| Self { name: name.to_owned(), known: Some(Known::of(config, of)) }).collect()
    }

    /// A key of it, or a prefix of keys, as a node is asked for it.
    #[must_use]
    pub fn key(&self, key: &str) -> Bytes {
        key_in(&self.name, key.as_bytes())
    }

    /// The owners of a key with versions by the roster in force, best first; nobody if there is no such namespace.
    #[must_use]
    pub fn owners(&self, config: &ClusterConfig, key: &str) -> Vec<NodeId> {
        let Ok((inside, _)) = config.namespaces.resolve(self.key(key), Mode::Quorum) else { return Vec::new() };
        config.placement(&config.current).owners_of(&inside).to_vec()
    }
}

impl Known {
    fn of(config: &ClusterConfig, namespace: Namespace) -> Self {
        let wanted = if namespace.replicas == 0 { config.replicas } else { namespace.replicas };
        let members = config.current.owners().count();
        Self { mode: namespace.mode, copies: usize::from(wanted).min(members) as u8 }
    }
}

/// What people call a key that is called so inside the cluster.
#[must_use]
pub fn outside(key: &Bytes) -> String {
    place_of(key).map_or_else(|| key.to_string(), |place| Bytes::from(place.key).to_string())
}

/// The number of copies that was typed: nothing for as many as the cluster has. What is no number is too many.
#[must_use]
pub fn copies_of(text: &str) -> u8 {
    if text.trim().is_empty() { 0 } else { text.trim().parse().unwrap_or(u8::MAX) }
}

/// Whether such a namespace may be created, as far as the table says. One that is there already is as good.
///
/// # Errors
///
/// What the cluster would refuse it with.
pub fn check(table: &Namespaces, name: &str, wanted: Namespace) -> Result<(), Refusal> {
    match table.with(name, wanted) {
        Ok(_) | Err(Refusal::NoChange) => Ok(()),
        Err(refusal) => Err(refusal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use qunlong_core::member::Class;
    use qunlong_core::roster::{Roster, Seat};
    use qunlong_core::{ClusterId, Storage};

    const LIKES: Namespace = Namespace { mode: Mode::Eventual, replicas: 1 };
    const ORDERS: Namespace = Namespace { mode: Mode::Consensus, replicas: 0 };

    fn config() -> ClusterConfig {
        let seat = |n: u8| {
            let (zone, incarnation) = (String::new(), Storage([n; 16]));
            (NodeId::small(n), Seat { weight: 1, class: Class::Server, zone, incarnation })
        };
        let storage: std::collections::BTreeMap<_, _> = (1..=3).map(seat).collect();
        let voters = storage.keys().copied().collect();
        let first = ClusterConfig::first(ClusterId([1; 16]), 3, Roster { storage, voters });
        first.create("likes", LIKES).and_then(|config| config.create("orders", ORDERS)).expect("both can be")
    }

    fn names(kind: Kind) -> Vec<String> {
        Space::all(&config(), kind).into_iter().map(|space| space.name).collect()
    }

    #[test]
    fn a_screen_offers_what_it_can_ask_for() {
        assert_eq!(names(Kind::Keys), ["default", "likes"]);
        assert_eq!(names(Kind::Registers), ["registers", "orders"]);
        let known: Vec<_> = Space::all(&config(), Kind::Keys).into_iter().filter_map(|space| space.known).collect();
        let (usual, likes) = (Known { mode: Mode::Quorum, copies: 3 }, Known { mode: Mode::Eventual, copies: 1 });
        assert_eq!(known, [usual, likes]);
    }

    #[test]
    fn the_named_one_is_chosen_unless_it_is_another_screens() {
        let chosen = |kind, named| {
            let space = Space::chosen(Some(&config()), kind, named);
            (space.name, space.known.map(|known| known.mode))
        };
        assert_eq!(chosen(Kind::Keys, None), ("default".to_owned(), Some(Mode::Quorum)));
        assert_eq!(chosen(Kind::Keys, Some("likes")), ("likes".to_owned(), Some(Mode::Eventual)));
        assert_eq!(chosen(Kind::Keys, Some("orders")), ("default".to_owned(), Some(Mode::Quorum)));
        assert_eq!(chosen(Kind::Registers, Some("likes")), ("registers".to_owned(), Some(Mode::Consensus)));
        assert_eq!(chosen(Kind::Keys, Some("unheard-of")), ("unheard-of".to_owned(), None));
        let early = Space::chosen(None, Kind::Keys, Some("likes"));
        assert_eq!(early, Space { name: "likes".to_owned(), known: None });
    }

    #[test]
    fn a_key_goes_in_and_comes_out() {
        for (name, copies) in [("default", 3), ("likes", 1)] {
            let space = Space::chosen(Some(&config()), Kind::Keys, Some(name));
            let (inside, _) = config().namespaces.resolve(space.key("a"), Mode::Quorum).expect("it is there");
            assert_eq!(outside(&inside), "a");
            assert_eq!(space.owners(&config(), "a").len(), copies);
        }
        let nowhere = Space { name: "unheard-of".to_owned(), known: None };
        assert!(nowhere.owners(&config(), "a").is_empty());
    }

    #[test]
    fn what_the_cluster_would_refuse_is_refused_before() {
        let check = |name: &str, copies: &str| {
            let wanted = Namespace { mode: Mode::Eventual, replicas: copies_of(copies) };
            check(&config().namespaces, name, wanted)
        };
        assert_eq!(check("new", ""), Ok(()));
        assert_eq!(check("likes", "1"), Ok(()), "it is there, and the same");
        assert_eq!(check("likes", "2"), Err(Refusal::NamespaceExists { mode: Mode::Eventual, replicas: 1 }));
        for (name, copies) in [("New", ""), ("", ""), ("new", "8"), ("new", "many")] {
            assert_eq!(check(name, copies), Err(Refusal::BadNamespace), "{name:?} with {copies:?}");
        }
    }
}

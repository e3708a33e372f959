//! Namespaces: each has a name, one guarantee for all its keys, and a number of copies, fixed when it is created.
//!
//! The table of them is part of the chosen configuration ([`crate::cluster`]), so it is decided by consensus, and whoever
//! serves an epoch knows all that is to be known of it: no request is served under another guarantee than its namespace
//! has, and mixing the two on one key, which loses data, cannot happen. How a key says to which it belongs: [`crate::key`].

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::bytes::Bytes;
use crate::key::{self, Place, is_name, place_of};
use crate::limits;
use crate::placement::Partition;
use crate::refusal::Refusal;

/// The namespace of keys that are named without one, of mode [`Mode::Quorum`].
pub const DEFAULT: &str = "default";
/// The namespace of registers that are named without one, of mode [`Mode::Consensus`].
pub const REGISTERS: &str = "registers";

/// The class of a key whose namespace has not been looked up.
const UNRESOLVED: u8 = u8::MAX;

/// What is promised for every key of a namespace. Each costs more than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Reads and writes ask as many owners as each request says, one by default; concurrent writes become siblings.
    Eventual,
    /// The same, with majorities: a read meets every acknowledged write.
    Quorum,
    /// Linearizable reads and writes of one register a key, without consensus: no conditions, no counters, no retries.
    Atomic,
    /// Linearizable: one register a key, without a leader; conditions, counters, retries that are carried out once.
    Consensus,
}

impl Mode {
    /// All of them, the cheapest first.
    pub const ALL: [Self; 4] = [Self::Eventual, Self::Quorum, Self::Atomic, Self::Consensus];

    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Eventual => "eventual",
            Self::Quorum => "quorum",
            Self::Atomic => "atomic",
            Self::Consensus => "consensus",
        }
    }

    /// Reads what [`Mode::name`] writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == text)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is fixed of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Namespace {
    /// What is promised.
    pub mode: Mode,
    /// N: copies of each key; 0 for as many as the cluster has.
    pub replicas: u8,
}

/// The namespaces of a cluster besides the two that are always there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Namespaces(BTreeMap<String, Namespace>);

/// How many copies there are of keys: N of the cluster, and those of namespaces that have another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Copies {
    cluster: u8,
    others: BTreeSet<u8>,
}

impl Namespaces {
    /// By their names, those two included that are always there.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Namespace)> {
        let always = [(DEFAULT, Mode::Quorum), (REGISTERS, Mode::Consensus)];
        let always = always.map(|(name, mode)| (name, Namespace { mode, replicas: 0 }));
        always.into_iter().chain(self.0.iter().map(|(name, &namespace)| (name.as_str(), namespace)))
    }

    /// One of them.
    ///
    /// # Errors
    ///
    /// If there is none of this name.
    pub fn get(&self, name: &str) -> Result<Namespace, Refusal> {
        self.iter().find(|(other, _)| *other == name).map(|(_, namespace)| namespace).ok_or(Refusal::NoNamespace)
    }

    /// The same table with one more.
    ///
    /// # Errors
    ///
    /// If the name is none or is taken, if it is to have too many copies, or if there are too many.
    pub fn with(&self, name: &str, namespace: Namespace) -> Result<Self, Refusal> {
        if !is_name(name) || namespace.replicas > limits::REPLICAS {
            return Err(Refusal::BadNamespace);
        }
        match self.get(name) {
            Ok(same) if same == namespace => return Err(Refusal::NoChange),
            Ok(other) => return Err(Refusal::NamespaceExists { mode: other.mode, replicas: other.replicas }),
            Err(_) if self.0.len() >= limits::NAMESPACES => {
                return Err(Refusal::TooManyNamespaces { limit: limits::NAMESPACES as u32 });
            }
            Err(_) => (),
        }
        let mut with = self.clone();
        with.0.insert(name.into(), namespace);
        Ok(with)
    }

    /// Whether it can have come about by creating one after the other.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let one = |(name, namespace): (&String, &Namespace)| {
            is_name(name) && name != DEFAULT && name != REGISTERS && namespace.replicas <= limits::REPLICAS
        };
        self.0.len() <= limits::NAMESPACES && self.0.iter().all(one)
    }

    /// A key as it is called inside the cluster, and what is promised for it. `always` is what the protocol that is asked
    /// promises for keys of no namespace.
    ///
    /// # Errors
    ///
    /// If it belongs to no namespace that there is.
    pub fn resolve(&self, key: Bytes, always: Mode) -> Result<(Bytes, Mode), Refusal> {
        let Place { name, class, key: outside } = place_of(&key).ok_or(Refusal::NoNamespace)?;
        let Some(name) = name else { return Ok((key, always)) };
        let Namespace { mode, replicas } = self.get(name)?;
        if name == DEFAULT || name == REGISTERS {
            return if outside.first() == Some(&0) { Err(Refusal::NoNamespace) } else { Ok((outside.into(), mode)) };
        }
        let inside = if class == replicas { key } else { key::inside(replicas, name, outside).into() };
        Ok((inside, mode))
    }

    /// What is promised for a key, as it is called inside. `always` is what the protocol that is asked promises for keys of
    /// no namespace.
    ///
    /// # Errors
    ///
    /// If it belongs to no namespace that there is.
    pub fn mode_of(&self, key: &[u8], always: Mode) -> Result<Mode, Refusal> {
        let place = place_of(key).ok_or(Refusal::NoNamespace)?;
        let Some(name) = place.name else { return Ok(always) };
        let namespace = self.0.get(name).filter(|namespace| namespace.replicas == place.class);
        Ok(namespace.ok_or(Refusal::NoNamespace)?.mode)
    }

    /// How many copies there are of keys, if there are so many of those of no namespace.
    #[must_use]
    pub fn copies(&self, cluster: u8) -> Copies {
        Copies { cluster, others: self.0.values().map(|namespace| namespace.replicas).filter(|&n| n > 0).collect() }
    }
}

impl Copies {
    /// As many of everything.
    #[must_use]
    pub const fn only(cluster: u8) -> Self {
        Self { cluster, others: BTreeSet::new() }
    }

    /// Classes of keys, each with its number of copies.
    pub fn classes(&self) -> impl Iterator<Item = (u8, u8)> + '_ {
        [(0, self.cluster)].into_iter().chain(self.others.iter().map(|&n| (n, n)))
    }

    /// The most copies that anything has.
    #[must_use]
    pub fn most(&self) -> u8 {
        self.others.last().copied().unwrap_or_default().max(self.cluster)
    }

    /// Every partition, class by class.
    pub fn partitions(&self) -> impl Iterator<Item = Partition> + use<> {
        let classes: Vec<u8> = self.classes().map(|(class, _)| class).collect();
        classes.into_iter().flat_map(|class| (0..=u8::MAX).map(move |slot| Partition::new(class, slot)))
    }
}

/// A key of a namespace, as a host asks for it: the node that is asked knows what there is of the namespace.
#[must_use]
pub fn key_in(name: &str, key: &[u8]) -> Bytes {
    key::inside(UNRESOLVED, name, key).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Namespaces {
        let orders = Namespace { mode: Mode::Consensus, replicas: 5 };
        let notes = Namespace { mode: Mode::Eventual, replicas: 0 };
        Namespaces::default().with("orders", orders).and_then(|some| some.with("notes-2", notes)).expect("good names")
    }

    #[test]
    fn a_key_says_where_it_belongs() {
        for (name, key) in [("orders", "a"), ("notes-2", ""), ("notes-2", "\0x"), (DEFAULT, "k"), (REGISTERS, "k")] {
            let (inside, mode) = some().resolve(key_in(name, key.as_bytes()), Mode::Quorum).expect("it is there");
            let place = place_of(&inside).expect("it says so");
            assert_eq!((place.name.unwrap_or(name), place.key), (name, key.as_bytes()));
            assert_eq!(some().get(name).map(|namespace| namespace.mode), Ok(mode));
            assert_eq!(some().resolve(inside.clone(), mode), Ok((inside, mode)), "once is enough");
        }
        let (inside, _) = some().resolve(key_in("orders", b"a"), Mode::Quorum).expect("it is there");
        assert_eq!(alloc::format!("{inside} {inside:?}"), "orders/a \"orders/a\"");
        assert_eq!(Partition::of(&inside).class(), 5);
        assert_eq!(some().mode_of(&inside, Mode::Quorum), Ok(Mode::Consensus));
        assert_eq!(some().mode_of(b"a", Mode::Quorum), Ok(Mode::Quorum));
    }

    #[test]
    fn what_belongs_nowhere_is_refused() {
        for key in [key_in("nowhere", b"a"), key_in("", b"a"), key_in(DEFAULT, b"\0a"), Bytes::from("\0a")] {
            assert_eq!(some().resolve(key, Mode::Quorum), Err(Refusal::NoNamespace));
        }
        for inside in
            [&b"\0"[..], b"\0\x05", b"\0\x05orders", b"\0\x05Orders\0a", b"\0\x03orders\0a", b"\0\x05nowhere\0a"]
        {
            assert_eq!(some().mode_of(inside, Mode::Quorum), Err(Refusal::NoNamespace), "{inside:?}");
        }
    }

    #[test]
    fn a_name_is_given_once() {
        let other = Namespace { mode: Mode::Quorum, replicas: 5 };
        assert_eq!(some().with("orders", other), Err(Refusal::NamespaceExists { mode: Mode::Consensus, replicas: 5 }));
        assert_eq!(some().with("orders", Namespace { mode: Mode::Consensus, ..other }), Err(Refusal::NoChange));
        for name in ["", "Orders", "1a", "-a", "a_b", "über", &"a".repeat(33)] {
            assert_eq!(some().with(name, other), Err(Refusal::BadNamespace), "{name}");
        }
        assert!(matches!(some().with(DEFAULT, other), Err(Refusal::NamespaceExists { .. })));
        let many = (0..limits::NAMESPACES)
            .try_fold(Namespaces::default(), |all, n| all.with(&alloc::format!("n{n}"), other))
            .expect("so many");
        let limit = limits::NAMESPACES as u32;
        assert_eq!(many.with("more", other), Err(Refusal::TooManyNamespaces { limit }));
        assert_eq!(many.with("n0", other), Err(Refusal::NoChange), "one that is there is found still");
    }
}

//! Judges of client histories. They know what clients asked and were told, and nothing of the nodes.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::fmt;

use crate::bytes::Bytes;
use crate::id::WriteId;
use crate::version::{Dot, Versions};

/// What clients did to one key of the quorum mode.
#[derive(Clone, Debug, Default)]
pub struct History {
    keys: BTreeMap<Bytes, KeyHistory>,
}

#[derive(Clone, Debug, Default)]
struct KeyHistory {
    /// Every write that was asked for, whether or not it was answered, with what its client had seen.
    asked: BTreeMap<WriteId, Option<BTreeSet<Dot>>>,
    acked: Vec<(WriteId, Dot)>,
}

/// What must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A write was acknowledged, and a later quorum read has never heard of it.
    AckedWriteForgotten {
        /// The key.
        key: Bytes,
        /// The write's dot.
        dot: Dot,
    },
    /// A write was acknowledged and is gone, although no write that was ever asked for had seen it.
    AckedWriteOverwritten {
        /// The key.
        key: Bytes,
        /// The write's dot.
        dot: Dot,
    },
    /// A value is there that nobody wrote.
    Invented {
        /// The key.
        key: Bytes,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AckedWriteForgotten { key, dot } => {
                write!(f, "acked write ({}, {}) of {key:?} is forgotten", dot.node, dot.counter)
            }
            Self::AckedWriteOverwritten { key, dot } => {
                write!(f, "acked write ({}, {}) of {key:?} was overwritten by nobody who saw it", dot.node, dot.counter)
            }
            Self::Invented { key } => write!(f, "{key:?} has a value that nobody wrote"),
        }
    }
}

impl History {
    /// A client asks for a write. `seen` are the versions whose values it was shown, or wrote, before it asked;
    /// `None` for a plain put, which may supersede anything that was there when it ran. Not the context: that is what
    /// the cluster claims the client saw, and is on trial here.
    pub fn asked(&mut self, key: &Bytes, write: WriteId, seen: Option<BTreeSet<Dot>>) {
        self.keys.entry(key.clone()).or_default().asked.insert(write, seen);
    }

    /// A client was told that its write is done.
    pub fn acked(&mut self, key: &Bytes, write: WriteId, dot: Dot) {
        self.keys.entry(key.clone()).or_default().acked.push((write, dot));
    }

    /// Acknowledged writes so far.
    #[must_use]
    pub fn acked_count(&self) -> usize {
        self.keys.values().map(|key| key.acked.len()).sum()
    }

    /// The keys that were written.
    pub fn keys(&self) -> impl Iterator<Item = &Bytes> {
        self.keys.keys()
    }

    /// Judges a quorum read of `key` made after everything that was acknowledged.
    ///
    /// # Errors
    ///
    /// The first violation found.
    pub fn check_read(&self, key: &Bytes, read: &Versions) -> Result<(), Violation> {
        let Some(history) = self.keys.get(key) else {
            return if read.siblings().is_empty() { Ok(()) } else { Err(Violation::Invented { key: key.clone() }) };
        };
        if read.siblings().iter().any(|sibling| !history.asked.contains_key(&sibling.write)) {
            return Err(Violation::Invented { key: key.clone() });
        }
        for &(write, dot) in &history.acked {
            if !read.context().covers(dot) {
                return Err(Violation::AckedWriteForgotten { key: key.clone(), dot });
            }
            let current = read.siblings().iter().any(|sibling| sibling.dot == dot || sibling.write == write);
            if !current && !history.may_supersede(write, dot) {
                return Err(Violation::AckedWriteOverwritten { key: key.clone(), dot });
            }
        }
        Ok(())
    }
}

impl KeyHistory {
    fn may_supersede(&self, write: WriteId, dot: Dot) -> bool {
        self.asked
            .iter()
            .filter(|(other, _)| **other != write)
            .any(|(_, seen)| seen.as_ref().is_none_or(|seen| seen.contains(&dot)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NodeId;
    use crate::version::{Sibling, VersionVector};

    const DOT: Dot = Dot { node: NodeId::small(1), counter: 1 };

    fn written(dot: Dot, write: WriteId) -> Versions {
        let mut versions = Versions::default();
        versions.write(Sibling { dot, write, value: None }, &VersionVector::default());
        versions
    }

    #[test]
    fn a_forgotten_write_is_noticed() {
        let (mut history, key, write) = (History::default(), Bytes::from("k"), WriteId([1; 16]));
        history.asked(&key, write, None);
        history.acked(&key, write, DOT);
        assert_eq!(history.check_read(&key, &written(DOT, write)), Ok(()));
        let forgotten = Violation::AckedWriteForgotten { key: key.clone(), dot: DOT };
        assert_eq!(history.check_read(&key, &Versions::default()), Err(forgotten));
    }

    #[test]
    fn a_write_lost_to_one_that_never_saw_it_is_noticed() {
        let (mut history, key) = (History::default(), Bytes::from("k"));
        let (first, second) = (WriteId([1; 16]), WriteId([2; 16]));
        history.asked(&key, first, None);
        history.acked(&key, first, DOT);
        history.asked(&key, second, Some(BTreeSet::new()));
        let mut read = written(DOT, first);
        let all = read.context().clone();
        read.write(Sibling { dot: Dot { counter: 2, ..DOT }, write: second, value: None }, &all);
        let lost = Violation::AckedWriteOverwritten { key: key.clone(), dot: DOT };
        assert_eq!(history.check_read(&key, &read), Err(lost));
    }

    #[test]
    fn an_invented_value_is_noticed() {
        let (mut history, key) = (History::default(), Bytes::from("k"));
        history.asked(&key, WriteId([1; 16]), None);
        let read = written(DOT, WriteId([9; 16]));
        assert_eq!(history.check_read(&key, &read), Err(Violation::Invented { key }));
    }
}

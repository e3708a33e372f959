//! Judges of client histories. They know what clients asked and were told, and nothing of the nodes.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::fmt;

use crate::bytes::Bytes;
use crate::id::WriteId;
use crate::limits;
use crate::version::{Context, Dot, Versions};

/// What clients did to one key of the quorum mode.
#[derive(Clone, Debug, Default)]
pub struct History {
    keys: BTreeMap<Bytes, KeyHistory>,
    /// Counts what happened, so that *before* has a meaning.
    clock: usize,
    collects: bool,
}

#[derive(Clone, Debug, Default)]
struct KeyHistory {
    /// Every write that was asked for, whether or not it was answered.
    writes: BTreeMap<WriteId, Written>,
    /// Which write each dot names, as far as clients were ever shown.
    named: BTreeMap<Dot, WriteId>,
}

/// What a client knows of a key when it writes.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// What the cluster says that it has seen, which is what its write names.
    pub context: Context,
    /// The writes whose values it was really shown, or wrote.
    pub writes: BTreeSet<WriteId>,
}

/// One write, whatever became of it.
#[derive(Clone, Debug)]
struct Written {
    /// When it was first asked for.
    asked: usize,
    /// What its client had seen; `None` for a plain put, which supersedes what is there when it runs.
    seen: Option<Seen>,
    deletes: bool,
    /// How often it was asked for and how often that was refused, as not done and never to be done.
    asks: (u32, u32),
    /// When its client was first told that it is done.
    acked: Option<usize>,
    /// The dots that were acknowledged and when: more than one where a retry was.
    dots: BTreeMap<Dot, usize>,
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
    /// A write is current although another that had seen it was acknowledged.
    Resurrected {
        /// The key.
        key: Bytes,
        /// The dot under which it stands there.
        dot: Dot,
    },
    /// A dot names two writes: whoever has seen the one is taken to have seen the other.
    DotReused {
        /// The key.
        key: Bytes,
        /// The dot.
        dot: Dot,
    },
    /// A write is there although its client was told that it was not done and never will be.
    RefusedButDone {
        /// The key.
        key: Bytes,
        /// The dot under which it stands there.
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
            Self::Resurrected { key, dot } => {
                write!(f, "({}, {}) of {key:?} stands there although it was superseded", dot.node, dot.counter)
            }
            Self::DotReused { key, dot } => write!(f, "({}, {}) of {key:?} names two writes", dot.node, dot.counter),
            Self::RefusedButDone { key, dot } => {
                write!(f, "({}, {}) of {key:?} was refused, and is there", dot.node, dot.counter)
            }
            Self::Invented { key } => write!(f, "{key:?} has a value that nobody wrote"),
        }
    }
}

impl History {
    /// An empty history. `collects` says that the cluster forgets deleted keys while it is judged: then what a delete
    /// may have ended need not be remembered.
    #[must_use]
    pub fn new(collects: bool) -> Self {
        Self { collects, ..Self::default() }
    }

    /// A client asks for a write, for the first time or again. `seen` is `None` for a plain put, which may supersede
    /// anything that was there when it ran.
    pub fn asked(&mut self, key: &Bytes, write: WriteId, seen: Option<Seen>, deletes: bool) {
        self.clock += 1;
        let asked = self.clock;
        let history = self.keys.entry(key.clone()).or_default();
        let new = Written { asked, seen, deletes, asks: (0, 0), acked: None, dots: BTreeMap::new() };
        history.writes.entry(write).or_insert(new).asks.0 += 1;
    }

    /// A client was told that its write was not done and never will be.
    pub fn refused(&mut self, key: &Bytes, write: WriteId) {
        self.clock += 1;
        if let Some(written) = self.keys.get_mut(key).and_then(|history| history.writes.get_mut(&write)) {
            written.asks.1 += 1;
        }
    }

    /// A client was told that its write is done.
    pub fn acked(&mut self, key: &Bytes, write: WriteId, dot: Dot) {
        self.clock += 1;
        let now = self.clock;
        let written = self.keys.get_mut(key).and_then(|history| history.writes.get_mut(&write));
        if let Some(written) = written {
            written.acked.get_or_insert(now);
            written.dots.entry(dot).or_insert(now);
        }
    }

    /// Acknowledged writes so far.
    #[must_use]
    pub fn acked_count(&self) -> usize {
        self.keys.values().flat_map(|key| key.writes.values()).filter(|written| written.acked.is_some()).count()
    }

    /// The keys that were written.
    pub fn keys(&self) -> impl Iterator<Item = &Bytes> {
        self.keys.keys()
    }

    /// What has happened until now, for a read that begins.
    #[must_use]
    pub fn now(&self) -> usize {
        self.clock
    }

    /// Judges a quorum read of `key` that begins now: it knows all that was acknowledged.
    ///
    /// # Errors
    ///
    /// The first violation found.
    pub fn check_read(&mut self, key: &Bytes, read: &Versions) -> Result<(), Violation> {
        self.check_read_since(key, read, self.clock)
    }

    /// Judges a quorum read of `key` that began at an earlier [`History::now`]: it knows at least what was acknowledged
    /// by then, and may know what came later.
    ///
    /// # Errors
    ///
    /// The first violation found.
    pub fn check_read_since(&mut self, key: &Bytes, read: &Versions, began: usize) -> Result<(), Violation> {
        let Some(history) = self.keys.get_mut(key) else {
            return if read.siblings().is_empty() { Ok(()) } else { Err(Violation::Invented { key: key.clone() }) };
        };
        for sibling in read.siblings() {
            let Some(written) = history.writes.get(&sibling.write) else {
                return Err(Violation::Invented { key: key.clone() });
            };
            let dot = sibling.dot;
            if *history.named.entry(dot).or_insert(sibling.write) != sibling.write {
                return Err(Violation::DotReused { key: key.clone(), dot });
            }
            let (asked, refused) = written.asks;
            if asked == refused {
                return Err(Violation::RefusedButDone { key: key.clone(), dot });
            }
            // An owner may forget a delete that another brings back; what is deleted stays so.
            let harmless = self.collects && written.deletes;
            // A late second copy is told from a new write only while the key remembers the first.
            let remembered = written.dots.contains_key(&sibling.dot) || history.writes.len() <= limits::SUPERSEDED;
            if !harmless && remembered && history.was_superseded(sibling.write, written, sibling.dot, began) {
                return Err(Violation::Resurrected { key: key.clone(), dot: sibling.dot });
            }
        }
        for (&write, written) in &history.writes {
            let current = read.siblings().iter().any(|sibling| sibling.write == write);
            for (&dot, _) in written.dots.iter().filter(|(_, acked)| **acked <= began) {
                let key = key.clone();
                if self.collects && history.may_be_collected(write, written) {
                    continue;
                }
                if !read.context().covers(dot) {
                    return Err(Violation::AckedWriteForgotten { key, dot });
                }
                if !current && !history.may_be_superseded(write) {
                    return Err(Violation::AckedWriteOverwritten { key, dot });
                }
            }
        }
        Ok(())
    }
}

impl KeyHistory {
    fn others(&self, write: WriteId) -> impl Iterator<Item = &Written> {
        self.writes.iter().filter(move |(other, _)| **other != write).map(|(_, other)| other)
    }

    /// Whether any write that was ever asked for may have superseded this one: its client was shown this one. What
    /// its context says does not excuse it; that is on trial here.
    fn may_be_superseded(&self, write: WriteId) -> bool {
        self.others(write).any(|other| other.seen.as_ref().is_none_or(|seen| seen.writes.contains(&write)))
    }

    /// Whether a write that is known to have happened must have superseded this one, which now stands there as `dot`:
    /// its context covers this one, or it is a plain put that began when this one was done.
    fn was_superseded(&self, write: WriteId, written: &Written, dot: Dot, began: usize) -> bool {
        // Of a copy that was shown under another dot, only what the key remembers tells.
        let remembers = self.writes.len() <= limits::SUPERSEDED;
        let shown = self.named.iter().filter(|(_, named)| remembers && **named == write).map(|(dot, _)| dot);
        let dots: Vec<&Dot> = written.dots.keys().chain(shown).chain([&dot]).collect();
        let known = |other: &&Written| other.acked.is_some_and(|acked| acked <= began);
        self.others(write).filter(known).any(|other| match &other.seen {
            Some(seen) => dots.iter().any(|&&dot| seen.context.seen.covers(dot)),
            None => written.acked.is_some_and(|acked| acked < other.asked),
        })
    }

    /// Whether the key may have been deleted after this write, directly or by a chain of writes.
    fn may_be_collected(&self, write: WriteId, written: &Written) -> bool {
        written.deletes || self.others(write).any(|other| other.deletes)
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
        versions.write(Sibling { dot, write, context: VersionVector::default(), value: None }, &BTreeMap::new());
        versions
    }

    #[test]
    fn a_forgotten_write_is_noticed() {
        let (mut history, key, write) = (History::default(), Bytes::from("k"), WriteId([1; 16]));
        history.asked(&key, write, None, false);
        history.acked(&key, write, DOT);
        assert_eq!(history.check_read(&key, &written(DOT, write)), Ok(()));
        let forgotten = Violation::AckedWriteForgotten { key: key.clone(), dot: DOT };
        assert_eq!(history.check_read(&key, &Versions::default()), Err(forgotten));
    }

    #[test]
    fn a_write_lost_to_one_that_never_saw_it_is_noticed() {
        let (mut history, key) = (History::default(), Bytes::from("k"));
        let (first, second) = (WriteId([1; 16]), WriteId([2; 16]));
        history.asked(&key, first, None, false);
        history.acked(&key, first, DOT);
        history.asked(&key, second, Some(Seen::default()), false);
        let mut read = written(DOT, first);
        let all = read.context().clone();
        read.write(
            Sibling { dot: Dot { counter: 2, ..DOT }, write: second, context: all, value: None },
            &BTreeMap::new(),
        );
        let lost = Violation::AckedWriteOverwritten { key: key.clone(), dot: DOT };
        assert_eq!(history.check_read(&key, &read), Err(lost));
    }

    #[test]
    fn a_superseded_write_that_stands_there_again_is_noticed() {
        let (mut history, key) = (History::default(), Bytes::from("k"));
        let (first, second) = (WriteId([1; 16]), WriteId([2; 16]));
        history.asked(&key, first, None, false);
        history.acked(&key, first, DOT);
        history.asked(&key, second, None, false);
        let newer = Dot { counter: 2, ..DOT };
        history.acked(&key, second, newer);
        let mut read = written(DOT, first);
        let all = read.context().clone();
        read.write(Sibling { dot: newer, write: second, context: all.clone(), value: None }, &BTreeMap::new());
        assert_eq!(history.check_read(&key, &read), Ok(()));

        let mut zombie = written(Dot { node: NodeId::small(2), counter: 1 }, first);
        zombie.write(Sibling { dot: newer, write: second, context: all, value: None }, &BTreeMap::new());
        let back = Violation::Resurrected { key: key.clone(), dot: Dot { node: NodeId::small(2), counter: 1 } };
        assert_eq!(history.check_read(&key, &zombie), Err(back));
    }

    #[test]
    fn a_dot_that_names_two_writes_is_noticed() {
        let (mut history, key) = (History::default(), Bytes::from("k"));
        let (first, second) = (WriteId([1; 16]), WriteId([2; 16]));
        history.asked(&key, first, None, false);
        history.asked(&key, second, None, false);
        assert_eq!(history.check_read(&key, &written(DOT, first)), Ok(()));
        let reused = Violation::DotReused { key: key.clone(), dot: DOT };
        assert_eq!(history.check_read(&key, &written(DOT, second)), Err(reused));
    }

    #[test]
    fn a_refused_write_that_is_done_is_noticed_unless_it_was_asked_for_again() {
        let (mut history, key, write) = (History::default(), Bytes::from("k"), WriteId([1; 16]));
        history.asked(&key, write, None, false);
        history.refused(&key, write);
        let done = Violation::RefusedButDone { key: key.clone(), dot: DOT };
        assert_eq!(history.check_read(&key, &written(DOT, write)), Err(done));
        history.asked(&key, write, None, false);
        assert_eq!(history.check_read(&key, &written(DOT, write)), Ok(()));
    }

    #[test]
    fn only_a_delete_excuses_that_a_write_is_forgotten() {
        let (mut history, key) = (History::new(true), Bytes::from("k"));
        history.asked(&key, WriteId([1; 16]), None, false);
        history.acked(&key, WriteId([1; 16]), DOT);
        assert!(history.check_read(&key, &Versions::default()).is_err());
        history.asked(&key, WriteId([2; 16]), None, true);
        assert_eq!(history.check_read(&key, &Versions::default()), Ok(()));
    }

    #[test]
    fn an_invented_value_is_noticed() {
        let (mut history, key) = (History::default(), Bytes::from("k"));
        history.asked(&key, WriteId([1; 16]), None, false);
        let read = written(DOT, WriteId([9; 16]));
        assert_eq!(history.check_read(&key, &read), Err(Violation::Invented { key }));
    }
}

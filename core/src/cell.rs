//! What a register holds, and how a change acts on it: a pure function from one content to the next.
//!
//! A change is data and not code, so that it crosses the wire, is recorded, and does the same on every node. The whole
//! content is what Paxos decides, with the results of the latest requests in it: so whoever proposes next knows of every
//! request that was decided before, and a retry that comes by another node is not carried out again.
//!
//! **Exactly once, for as long as it is remembered.** A request has a name, the same in all its attempts: the number-th of a
//! session, which has one under way at a time. So the content keeps one result for each session, the latest; a request
//! that has to wait is not forgotten because others are fast. The request also says which version of the register its
//! client knew before the first attempt (`seen`). If its result is kept, that is the answer. If a later one of its session
//! is, nobody waits for it any more. If neither, but a result of a version beyond `seen` had to be forgotten that may have
//! been its own, nobody knows whether it is new. In both cases it is refused, and nothing changes. Otherwise it was never
//! carried out, and is now. A request that changed nothing leaves no trace: asked again, it is tried again.
//!
//! **A deadline is carried out, not assumed.** A value may be wanted only until a time. Whoever finds that time passed by its
//! own clock removes the value, which is a change like any other and makes a version, and answers after it. So no two
//! readers differ on whether a value is there, whatever their clocks show.
//!
//! **A version counts the changes** and never restarts, not by a delete either: who compares by version is never taken in
//! by a value that has come back.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::bytes::Bytes;
use crate::id::Name;
use crate::limits;
use crate::mutant::{Mutant, planted};
use crate::time::WallTime;

/// The content of one register.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Cell {
    value: Option<Bytes>,
    /// When the value is to be removed.
    expires: Option<WallTime>,
    version: u64,
    /// One for each session, by version, at most [`limits::RESULTS`].
    results: Vec<Kept>,
    /// The highest version whose result was forgotten.
    forgotten: u64,
}

/// The result of a request that changed the register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Kept {
    name: Name,
    done: Done,
    /// The first version since which the results of the session were kept without a gap.
    since: u64,
}

/// What a change did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Done {
    /// The version that it made.
    pub version: u64,
    /// The sum, if it was an increment.
    pub number: Option<i64>,
}

/// A change that a client asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Request {
    /// The same in all its attempts, and in no other request.
    pub name: Name,
    /// A version of this register that the client knew before the first attempt; 0 if it knew none.
    pub seen: u64,
    /// What is wanted.
    pub change: Change,
}

/// What may be done to a register.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Change {
    /// Sets the value.
    Put {
        /// To this.
        value: Bytes,
        /// Only then.
        when: When,
        /// For how long.
        expiry: Expiry,
    },
    /// Removes the value; the version goes on.
    Delete {
        /// Only then.
        when: When,
    },
    /// Sets, or takes away, the deadline of the value that is there.
    Expire {
        /// When it is to be removed; `None` for never.
        at: Option<WallTime>,
        /// Only then. Where there is no value there is nothing to set it of.
        when: When,
    },
    /// Adds to a number, which is written in decimal digits; nothing counts as 0.
    Increment {
        /// So much; may be negative.
        by: i64,
    },
    /// Adds at the end; nothing counts as empty.
    Append {
        /// This.
        suffix: Bytes,
    },
}

/// For how long a value is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Expiry {
    /// Until it is changed.
    #[default]
    Never,
    /// As long as the value that it replaces.
    Keep,
    /// Until then at most.
    At(WallTime),
}

impl Change {
    /// Bytes of the values in it.
    #[must_use]
    pub fn weight(&self) -> usize {
        let of = |when: &When| match when {
            When::Holds(Some(value)) => value.len(),
            When::Always | When::Version(_) | When::Holds(None) | When::Exists => 0,
        };
        match self {
            Self::Put { value, when, .. } => value.len().max(of(when)),
            Self::Delete { when } | Self::Expire { when, .. } => of(when),
            Self::Increment { .. } => 0,
            Self::Append { suffix } => suffix.len(),
        }
    }
}

/// On what a change depends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum When {
    /// Nothing.
    #[default]
    Always,
    /// The register is of this version; 0: it was never written.
    Version(u64),
    /// It holds this, or nothing.
    Holds(Option<Bytes>),
    /// It holds anything.
    Exists,
}

/// Why a change was not made. The register is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NotDone {
    /// What it depends on does not hold.
    Conflict {
        /// The version that does.
        version: u64,
    },
    /// The value is no number of 64 bits, or would be none any more.
    NotANumber,
    /// The value would be longer than [`limits::VALUE_BYTES`].
    TooLarge,
    /// Its session has gone on without it, or so much was forgotten since `seen` that nobody knows whether it was done.
    SessionExpired,
}

/// What a change makes of a value.
struct Made {
    value: Option<Bytes>,
    expires: Option<WallTime>,
    /// The sum, if it was an increment.
    number: Option<i64>,
}

/// What a content knows of a request.
enum Memory {
    /// It was carried out.
    Done(Done),
    /// A later one of its session was carried out.
    Later,
    /// It was not, if its client had seen this version before it asked.
    No {
        /// The highest version whose result may have been its own and was forgotten.
        unless: u64,
    },
}

/// What a request leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The register is to hold this.
    Next(Cell, Done),
    /// It was carried out before, with this result: nothing is to be changed.
    Before(Done),
    /// Nothing is to be changed.
    Not(NotDone),
}

impl Cell {
    /// What a register without conditions and retries holds.
    #[must_use]
    pub fn written(value: Option<Bytes>, version: u64) -> Self {
        Self { value, version, ..Self::default() }
    }

    /// The value; `None` if it was never written or was deleted.
    #[must_use]
    pub fn value(&self) -> Option<&Bytes> {
        self.value.as_ref()
    }

    /// When the value is to be removed, if it is not wanted for good.
    #[must_use]
    pub fn expires(&self) -> Option<WallTime> {
        self.expires
    }

    /// Whether the value's time has passed.
    #[must_use]
    pub fn is_over(&self, now: WallTime) -> bool {
        self.expires.is_some_and(|at| at <= now)
    }

    /// The content after the value was removed because its time has passed.
    #[must_use]
    pub fn expired(self) -> Self {
        Self { value: None, expires: None, version: self.version + 1, ..self }
    }

    /// How many changes were made; 0 if it was never written.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether it can have come about by changes.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let expires = self.expires.is_none() || self.value.is_some();
        let fits = self.value.as_ref().is_none_or(|value| value.len() <= limits::VALUE_BYTES);
        let in_order = self.results.is_sorted_by(|a, b| a.done.version < b.done.version);
        let last = self.results.last().map_or(self.forgotten, |kept| kept.done.version);
        let first = self.results.first().map_or(u64::MAX, |kept| kept.done.version);
        let counted = self.forgotten < first && last <= self.version;
        let countable = self.version <= limits::CELL_VERSION;
        let since = self.results.iter().all(|kept| kept.since <= kept.done.version);
        fits && expires && in_order && since && counted && countable && self.results.len() <= limits::RESULTS
    }

    /// The same value in a cluster that was recovered: its version lies above `base`, beyond all that the old cluster could
    /// count to, and of no request of then is it known whether it was carried out.
    #[must_use]
    pub fn forked(self, base: u64) -> Self {
        if self.version == 0 || self.version > base {
            return self;
        }
        let version = self.version.saturating_add(base);
        Self { version, results: Vec::new(), forgotten: version, ..self }
    }

    /// Whether it is certain that a request was not carried out up to this version, if its client had seen that one. What
    /// is true of a content that was chosen stays true: the request may then count as one whose client has seen it.
    #[must_use]
    pub fn has_not(&self, name: Name, seen: u64) -> bool {
        matches!(self.memory_of(name), Memory::No { unless } if unless <= seen)
    }

    /// Whether a request will never be carried out any more, though it may have been: its session has gone on, or its
    /// result may be among those that were forgotten since its client had seen the register. What is so once stays so.
    #[must_use]
    pub fn is_forgotten(&self, name: Name, seen: u64) -> bool {
        match self.memory_of(name) {
            Memory::Done(_) => false,
            Memory::Later => true,
            Memory::No { unless } => unless > seen,
        }
    }

    fn memory_of(&self, name: Name) -> Memory {
        match self.results.iter().find(|kept| kept.name.session == name.session) {
            None => Memory::No { unless: self.forgotten },
            Some(kept) if kept.name.number == name.number => Memory::Done(kept.done),
            Some(kept) if kept.name.number > name.number => Memory::Later,
            Some(kept) => Memory::No { unless: self.forgotten.min(kept.since.saturating_sub(1)) },
        }
    }

    /// What a request makes of this content.
    #[must_use]
    pub fn apply(&self, request: &Request) -> Applied {
        match self.memory_of(request.name) {
            _ if planted(Mutant::CarriedOutTwice) => (),
            Memory::Done(done) => return Applied::Before(done),
            Memory::No { unless } if unless <= request.seen => (),
            Memory::No { .. } | Memory::Later => return Applied::Not(NotDone::SessionExpired),
        }
        match self.change(&request.change) {
            Ok(made) => {
                let restarts = planted(Mutant::VersionRestarts) && made.value.is_none();
                let done = Done { version: if restarts { 1 } else { self.version + 1 }, number: made.number };
                Applied::Next(self.after(made, request.name, done), done)
            }
            Err(why) => Applied::Not(why),
        }
    }

    /// What a change makes of the value.
    fn change(&self, change: &Change) -> Result<Made, NotDone> {
        match change {
            Change::Put { value, when, expiry } => {
                self.holds(when)?;
                let expires = match *expiry {
                    Expiry::Never => None,
                    Expiry::Keep => self.expires,
                    Expiry::At(at) => Some(at),
                };
                Ok(Made { value: Some(fitting(value.clone())?), expires, number: None })
            }
            Change::Delete { when } => {
                self.holds(when)?;
                Ok(Made { value: None, expires: None, number: None })
            }
            Change::Expire { at, when } => {
                self.holds(when)?;
                self.holds(&When::Exists)?;
                Ok(Made { value: self.value.clone(), expires: *at, number: None })
            }
            Change::Increment { by } => {
                let number = self.number()?.checked_add(*by).ok_or(NotDone::NotANumber)?;
                let value = Some(Bytes::from(alloc::format!("{number}").as_str()));
                Ok(Made { value, expires: self.expires, number: Some(number) })
            }
            Change::Append { suffix } => {
                let before = self.value.as_deref().unwrap_or_default();
                let value = Some(fitting(Bytes::from([before, suffix].concat()))?);
                Ok(Made { value, expires: self.expires, number: None })
            }
        }
    }

    fn holds(&self, when: &When) -> Result<(), NotDone> {
        let holds = match when {
            When::Always => true,
            When::Version(version) => self.version == *version,
            When::Holds(value) => self.value == *value,
            When::Exists => self.value.is_some(),
        };
        if holds { Ok(()) } else { Err(NotDone::Conflict { version: self.version }) }
    }

    fn number(&self) -> Result<i64, NotDone> {
        let Some(value) = &self.value else { return Ok(0) };
        let text = core::str::from_utf8(value).map_err(|_| NotDone::NotANumber)?;
        let number: i64 = text.parse().map_err(|_| NotDone::NotANumber)?;
        // One way to write each number, or an increment would change more than it says.
        if alloc::format!("{number}") == text { Ok(number) } else { Err(NotDone::NotANumber) }
    }

    fn after(&self, made: Made, name: Name, done: Done) -> Self {
        let (mut results, mut forgotten) = (self.results.clone(), self.forgotten);
        if planted(Mutant::VersionRestarts) && made.value.is_none() {
            (results, forgotten) = (Vec::new(), 0);
        }
        let before = results.iter().position(|kept| kept.name.session == name.session).map(|at| results.remove(at));
        if results.len() >= limits::RESULTS {
            forgotten = results.remove(0).done.version;
        }
        let since = before.map_or(done.version, |kept| kept.since);
        results.push(Kept { name, done, since });
        Self { value: made.value, expires: made.expires, version: done.version, results, forgotten }
    }
}

fn fitting(value: Bytes) -> Result<Bytes, NotDone> {
    if value.len() > limits::VALUE_BYTES { Err(NotDone::TooLarge) } else { Ok(value) }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;

    use super::*;
    use crate::id::WriteId;
    use crate::rng::Rng;

    fn request(id: u8, seen: u64, change: Change) -> Request {
        Request { name: Name::single(WriteId([id; 16])), seen, change }
    }

    fn put(value: &str, when: When) -> Change {
        Change::Put { value: Bytes::from(value), when, expiry: Expiry::Never }
    }

    fn next(cell: &Cell, id: u8, change: Change) -> Cell {
        match cell.apply(&request(id, cell.version(), change)) {
            Applied::Next(next, done) => {
                assert_eq!(done.version, cell.version() + 1);
                next
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn conditions_are_on_the_version_or_on_the_value_and_a_delete_is_a_change() {
        let empty = Cell::default();
        let one = next(&empty, 1, put("a", When::Version(0)));
        let not = |cell: &Cell, when: When| cell.apply(&request(9, 0, put("x", when)));
        assert_eq!(not(&one, When::Version(0)), Applied::Not(NotDone::Conflict { version: 1 }));
        assert_eq!(not(&one, When::Holds(None)), Applied::Not(NotDone::Conflict { version: 1 }));
        let two = next(&one, 2, put("b", When::Holds(Some(Bytes::from("a")))));
        let gone = next(&two, 3, Change::Delete { when: When::Version(2) });
        assert_eq!((gone.value(), gone.version()), (None, 3));
        let again = next(&gone, 4, put("a", When::Holds(None)));
        assert_eq!(
            not(&again, When::Version(1)),
            Applied::Not(NotDone::Conflict { version: 4 }),
            "the same value, later"
        );
    }

    #[test]
    fn numbers_are_counted_and_what_is_none_is_left_alone() {
        let seven = next(&Cell::default(), 1, Change::Increment { by: 7 });
        let minus = next(&seven, 2, Change::Increment { by: -9 });
        assert_eq!(minus.value(), Some(&Bytes::from("-2")));
        let most = next(&Cell::default(), 3, put("9223372036854775807", When::Always));
        for (cell, by) in
            [(most, 1), (next(&minus, 4, put("+2", When::Always)), 1), (next(&minus, 5, put("2 ", When::Always)), 1)]
        {
            let answer = cell.apply(&request(6, cell.version(), Change::Increment { by }));
            assert_eq!(answer, Applied::Not(NotDone::NotANumber), "{:?}", cell.value());
        }
    }

    #[test]
    fn a_value_has_a_deadline_until_it_is_set_for_good() {
        let (soon, later) = (WallTime(1_000), WallTime(2_000));
        let set = |value: &str, expiry| Change::Put { value: Bytes::from(value), when: When::Always, expiry };
        let one = next(&Cell::default(), 1, set("1", Expiry::At(soon)));
        assert!(!one.is_over(WallTime(999)) && one.is_over(soon));
        let kept = next(&next(&one, 2, Change::Increment { by: 1 }), 3, set("3", Expiry::Keep));
        assert_eq!((kept.expires(), next(&kept, 4, set("4", Expiry::Never)).expires()), (Some(soon), None));
        let moved = next(&kept, 5, Change::Expire { at: Some(later), when: When::Exists });
        assert_eq!((moved.value(), moved.expires()), (Some(&Bytes::from("3")), Some(later)));
        let over = moved.clone().expired();
        assert_eq!((over.value(), over.expires(), over.version()), (None, None, moved.version() + 1));
        assert!(over.is_sound());
        let nothing = request(6, 0, Change::Expire { at: Some(later), when: When::Always });
        assert!(matches!(over.apply(&nothing), Applied::Not(NotDone::Conflict { .. })));
        assert_eq!(next(&moved, 7, Change::Delete { when: When::Exists }).expires(), None);
    }

    #[test]
    fn nothing_grows_without_bound() {
        let long = Bytes::from(alloc::vec![b'x'; limits::VALUE_BYTES]);
        let full = next(&Cell::default(), 1, Change::Append { suffix: long.clone() });
        let more = request(2, 1, Change::Append { suffix: Bytes::from("y") });
        assert_eq!(full.apply(&more), Applied::Not(NotDone::TooLarge));
        let mut cell = Cell::default();
        for id in 0..100 {
            cell = next(&cell, id, Change::Increment { by: 1 });
        }
        assert_eq!(cell.results.len(), limits::RESULTS);
    }

    /// Requests are carried out and come again at any time, those that were given up included, from clients that knew any
    /// version before. No request is ever carried out twice, whatever is remembered of it; and one that is answered again
    /// gets the answer it had.
    #[test]
    fn no_request_is_carried_out_twice() {
        let (mut again, mut expired) = (0, 0);
        for seed in 0..400 {
            let mut rng = Rng::new(seed);
            // With more sessions than are remembered, and with fewer.
            let sessions = if seed % 2 == 0 { limits::RESULTS as u64 * 2 } else { 12 };
            let (mut cell, mut sum) = (Cell::default(), 0);
            let mut sent: Vec<Request> = Vec::new();
            let mut answers: BTreeMap<Name, Done> = BTreeMap::new();
            for step in 1..=400 {
                if sent.is_empty() || rng.chance(600) {
                    let session = WriteId([rng.below(sessions) as u8; 16]);
                    let seen = cell.version() - rng.below(4).min(cell.version());
                    let change = Change::Increment { by: step as i64 };
                    sent.push(Request { name: Name { session, number: step }, seen, change });
                }
                let asked = sent[rng.below(sent.len() as u64) as usize].clone();
                let (not_yet, expires) =
                    (cell.has_not(asked.name, asked.seen), cell.is_forgotten(asked.name, asked.seen));
                assert!(!(not_yet && answers.contains_key(&asked.name)), "seed {seed}: it was carried out");
                match cell.apply(&asked) {
                    Applied::Next(next, done) => {
                        let Change::Increment { by } = asked.change else { panic!("another change") };
                        assert_eq!(answers.insert(asked.name, done), None, "seed {seed}: carried out twice");
                        assert!(not_yet && !expires && next.is_sound(), "seed {seed}");
                        (cell, sum) = (next, sum + by);
                        assert_eq!(done.number, Some(sum));
                    }
                    Applied::Before(done) => {
                        assert_eq!(answers.get(&asked.name), Some(&done), "seed {seed}");
                        again += 1;
                    }
                    Applied::Not(why) => {
                        assert_eq!((why, expires), (NotDone::SessionExpired, true), "seed {seed}");
                        expired += 1;
                    }
                }
            }
        }
        assert!(again > 1_000 && expired > 1_000, "{again} came again, {expired} were too old");
    }

    /// A request that waits is answered however many others come before it, as long as they are of few sessions.
    #[test]
    fn who_waits_is_not_forgotten_because_others_are_fast() {
        let slow = Request { name: Name::single(WriteId([9; 16])), seen: 0, change: Change::Increment { by: 1 } };
        let named = |cell: &Cell, session: u8, number| {
            let name = Name { session: WriteId([session; 16]), number };
            Request { name, seen: cell.version(), change: Change::Increment { by: 1 } }
        };
        let Applied::Next(mut cell, done) = Cell::default().apply(&slow) else { panic!("it is new") };
        let late = named(&cell, 1, 7);
        for number in 10..1_000 {
            for session in [2, 3, 4] {
                let Applied::Next(next, _) = cell.apply(&named(&cell, session, number)) else { panic!("it is new") };
                cell = next;
            }
        }
        assert_eq!(cell.apply(&slow), Applied::Before(done), "it asks again");
        assert!(matches!(cell.apply(&late), Applied::Next(..)), "it comes late, for the first time");
        let stale = named(&Cell::default(), 2, 10);
        assert_eq!(cell.apply(&stale), Applied::Not(NotDone::SessionExpired), "nobody waits for it any more");
    }
}

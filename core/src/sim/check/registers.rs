//! What clients asked of registers and were told: one order of all operations has to explain it, for each key.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::linear::{self, Model, Operation, Verdict};

/// Changes of one key of which nobody knows whether they were made. With more, too many orders explain what was told, and
/// the search would not end.
const UNKNOWN_MAX: usize = 12;
/// Steps after which the search for an order is given up.
const BUDGET: usize = 3_000_000;

/// A register with versions, conditions, and requests that are carried out once however often they come.
#[derive(Clone, Copy, Debug)]
pub struct Versioned;

/// What such a register is.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct State {
    value: Option<i64>,
    version: u64,
    /// What was told of each request that changed it and has a name.
    done: BTreeMap<u32, Answer>,
}

/// What is asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// What it holds.
    Read,
    /// Change it, under a name; 0 for a change that comes once.
    Change(u32, Change),
}

/// How it is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Set it, or remove the value; only if it has this version.
    Set(Option<i64>, Option<u64>),
    /// Add to it.
    Add(i64),
}

/// What it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Answer {
    /// The value and the version.
    Holds(Option<i64>, u64),
    /// The version that was made, and the sum.
    Changed(u64, Option<i64>),
    /// It is of this version, and was not changed.
    Conflict(u64),
}

impl Model for Versioned {
    type State = State;
    type Call = Call;
    type Answer = Answer;

    fn initial() -> State {
        State::default()
    }

    fn apply(state: &State, call: &Call) -> (State, Answer) {
        let (write, change) = match *call {
            Call::Read => return (state.clone(), Answer::Holds(state.value, state.version)),
            Call::Change(write, change) => (write, change),
        };
        if let Some(&answer) = state.done.get(&write) {
            return (state.clone(), answer);
        }
        let version = state.version + 1;
        let (value, answer) = match change {
            Change::Set(_, Some(expected)) if expected != state.version => {
                return (state.clone(), Answer::Conflict(state.version));
            }
            Change::Set(value, _) => (value, Answer::Changed(version, None)),
            Change::Add(by) => {
                let sum = state.value.unwrap_or(0) + by;
                (Some(sum), Answer::Changed(version, Some(sum)))
            }
        };
        let mut done = state.done.clone();
        if write > 0 {
            done.insert(write, answer);
        }
        (State { value, version, done }, answer)
    }

    /// Versions never go back.
    fn may_come(state: &State, call: &Call, answer: &Answer) -> bool {
        match (*call, *answer) {
            (Call::Change(write, _), Answer::Changed(version, _)) => {
                version > state.version || state.done.get(&write) == Some(answer)
            }
            (_, Answer::Holds(_, version) | Answer::Conflict(version)) => version >= state.version,
            (Call::Read, Answer::Changed(..)) => false,
        }
    }

    fn only_reads(_call: &Call, answer: &Answer) -> bool {
        matches!(answer, Answer::Holds(..) | Answer::Conflict(_))
    }
}

/// A register that is set and read. Its versions are timestamps: several writes may have the same, and none a lower one
/// than those that take effect before it.
#[derive(Clone, Copy, Debug)]
pub struct Timestamped;

/// What is asked of such a register, with the version that was told of it, 0 if none was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// What it holds.
    Read(u64),
    /// Set it.
    Set(Option<i64>, u64),
}

impl Model for Timestamped {
    /// The value, and the highest version that was told.
    type State = (Option<i64>, u64);
    type Call = Access;
    /// What a read returns.
    type Answer = Option<i64>;

    fn initial() -> Self::State {
        (None, 0)
    }

    fn apply(state: &Self::State, call: &Access) -> (Self::State, Option<i64>) {
        match *call {
            Access::Read(_) => (*state, state.0),
            Access::Set(value, version) => ((value, version.max(state.1)), None),
        }
    }

    fn may_come(state: &Self::State, call: &Access, _answer: &Option<i64>) -> bool {
        let (Access::Read(version) | Access::Set(_, version)) = call;
        *version >= state.1
    }

    fn only_reads(call: &Access, _answer: &Option<i64>) -> bool {
        matches!(call, Access::Read(_))
    }
}

/// All that was asked and told.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Whether versions are timestamps.
    atomic: bool,
    by_key: BTreeMap<u32, Vec<Entry>>,
    /// Counts what happens.
    now: u64,
    /// The highest version of each key that anybody was told.
    known: BTreeMap<u32, u64>,
}

#[derive(Clone, Debug)]
struct Entry {
    operation: Operation<Versioned>,
    /// Whether it is certain that it was not done.
    refused: bool,
}

impl Ledger {
    /// An empty one, of registers of mode atomic or consensus.
    #[must_use]
    pub fn new(atomic: bool) -> Self {
        Self { atomic, ..Self::default() }
    }

    /// Somebody asks. Returns the operation's number among those of the key.
    pub fn asked(&mut self, key: u32, call: Call) -> usize {
        self.now += 1;
        let entries = self.by_key.entry(key).or_default();
        entries.push(Entry { operation: Operation { began: self.now, call, ended: None }, refused: false });
        entries.len() - 1
    }

    /// It was answered.
    pub fn answered(&mut self, key: u32, number: usize, answer: Answer) {
        self.now += 1;
        let (Answer::Holds(_, version) | Answer::Changed(version, _) | Answer::Conflict(version)) = answer;
        let known = self.known.entry(key).or_default();
        *known = version.max(*known);
        if let Some(entry) = self.by_key.get_mut(&key).and_then(|entries| entries.get_mut(number)) {
            entry.operation.ended = Some((self.now, answer));
        }
    }

    /// It was not done, and will not be.
    pub fn refused(&mut self, key: u32, number: usize) {
        if let Some(entry) = self.by_key.get_mut(&key).and_then(|entries| entries.get_mut(number)) {
            entry.refused = true;
        }
    }

    /// Whether so little is known of a key that it should not be changed any more.
    #[must_use]
    pub fn is_obscure(&self, key: u32) -> bool {
        let unknown =
            |entry: &&Entry| entry.operation.ended.is_none() && !entry.refused && entry.operation.call != Call::Read;
        self.by_key.get(&key).is_some_and(|entries| entries.iter().filter(unknown).count() >= UNKNOWN_MAX)
    }

    /// The highest version of a key that anybody was told.
    #[must_use]
    pub fn known(&self, key: u32) -> u64 {
        self.known.get(&key).copied().unwrap_or(0)
    }

    /// Whether one order explains everything.
    ///
    /// # Errors
    ///
    /// The first key of which none does, or of which none was found.
    pub fn judge(&self) -> Result<(), String> {
        for (key, entries) in &self.by_key {
            if self.atomic {
                let operations: Vec<Operation<Timestamped>> =
                    entries.iter().filter(|entry| !entry.refused).filter_map(timestamped).collect();
                let operations = dated(operations);
                verdict(*key, operations.len(), linear::check(&operations, BUDGET))?;
                continue;
            }
            let mut operations: Vec<Operation<Versioned>> =
                entries.iter().filter(|entry| !entry.refused).map(|entry| entry.operation.clone()).collect();
            let mut times: BTreeMap<u32, u32> = BTreeMap::new();
            for operation in &operations {
                if let Call::Change(write, _) = operation.call {
                    *times.entry(write).or_default() += 1;
                }
            }
            for operation in &mut operations {
                // Whoever comes once needs no name: less to remember, less to tell apart.
                if let Call::Change(write, _) = &mut operation.call {
                    *write = if times.get(write) > Some(&1) { *write } else { 0 };
                }
            }
            verdict(*key, operations.len(), linear::check(&operations, BUDGET))?;
        }
        Ok(())
    }
}

fn verdict(key: u32, of: usize, verdict: Verdict) -> Result<(), String> {
    match verdict {
        Verdict::Linearizable => Ok(()),
        Verdict::Violated { explained } => {
            Err(format!("no order explains what was told of register k{key}: {explained} of {of} operations at most"))
        }
        Verdict::Undecided => Err(format!("whether register k{key} is linearizable was not decided")),
    }
}

/// Gives writes that were never answered the version that reads tell of them, and leaves out those that nobody has read:
/// values are written once, so a read says which write it saw.
fn dated(operations: Vec<Operation<Timestamped>>) -> Vec<Operation<Timestamped>> {
    let mut seen: BTreeMap<Option<i64>, u64> = BTreeMap::new();
    for operation in &operations {
        if let (Access::Read(version), Some((_, value))) = (&operation.call, &operation.ended) {
            seen.insert(*value, *version);
        }
    }
    let date = |mut operation: Operation<Timestamped>| {
        if operation.ended.is_some() {
            return Some(operation);
        }
        let Access::Set(value @ Some(_), _) = operation.call else { return Some(operation) };
        operation.call = Access::Set(value, *seen.get(&value)?);
        Some(operation)
    };
    operations.into_iter().filter_map(date).collect()
}

/// The operation on a register whose versions are timestamps. What was only read and never answered says nothing.
fn timestamped(entry: &Entry) -> Option<Operation<Timestamped>> {
    let Operation { began, call, ended } = &entry.operation;
    let version = match ended {
        Some((_, Answer::Holds(_, version) | Answer::Changed(version, _) | Answer::Conflict(version))) => *version,
        None => 0,
    };
    let call = match *call {
        Call::Read if ended.is_none() => return None,
        Call::Read => Access::Read(version),
        Call::Change(_, Change::Set(value, _)) => Access::Set(value, version),
        Call::Change(_, Change::Add(_)) => return None,
    };
    let read = |answer: &Answer| if let Answer::Holds(value, _) = answer { *value } else { None };
    Some(Operation { began: *began, call, ended: ended.as_ref().map(|(at, answer)| (*at, read(answer))) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_comes_twice_is_noticed() {
        let mut ledger = Ledger::default();
        for (write, version) in [(1, 1), (2, 1)] {
            let number = ledger.asked(0, Call::Change(write, Change::Add(1)));
            ledger.answered(0, number, Answer::Changed(version, Some(1)));
        }
        assert!(ledger.judge().is_err());
    }

    #[test]
    fn what_was_told_as_not_done_must_not_be_seen() {
        let mut ledger = Ledger::default();
        let number = ledger.asked(0, Call::Change(1, Change::Set(Some(5), None)));
        ledger.refused(0, number);
        let read = ledger.asked(0, Call::Read);
        let mut seen = ledger.clone();
        seen.answered(0, read, Answer::Holds(Some(5), 1));
        assert!(seen.judge().is_err());
        ledger.answered(0, read, Answer::Holds(None, 0));
        assert_eq!(ledger.judge(), Ok(()));
    }

    #[test]
    fn a_request_that_comes_again_is_one() {
        let add = Call::Change(1, Change::Add(1));
        let mut ledger = Ledger::default();
        // Its first answer never came.
        ledger.asked(0, add);
        let again = ledger.asked(0, add);
        ledger.answered(0, again, Answer::Changed(1, Some(1)));
        let read = ledger.asked(0, Call::Read);
        let mut twice = ledger.clone();
        twice.answered(0, read, Answer::Holds(Some(2), 2));
        assert!(twice.judge().is_err());
        ledger.answered(0, read, Answer::Holds(Some(1), 1));
        assert_eq!(ledger.judge(), Ok(()));
    }

    #[test]
    fn of_atomic_registers_old_after_new_is_noticed() {
        let mut ledger = Ledger::new(true);
        for (write, version) in [(1, 1), (2, 2)] {
            let number = ledger.asked(0, Call::Change(write, Change::Set(Some(i64::from(write)), None)));
            ledger.answered(0, number, Answer::Changed(version, None));
        }
        let read = |ledger: &mut Ledger, value, version| {
            let number = ledger.asked(0, Call::Read);
            ledger.answered(0, number, Answer::Holds(Some(value), version));
        };
        read(&mut ledger, 2, 2);
        assert_eq!(ledger.judge(), Ok(()));
        // One that nobody was told of may take effect between any two reads, and once.
        ledger.asked(0, Call::Change(3, Change::Set(Some(3), None)));
        read(&mut ledger, 3, 3);
        assert_eq!(ledger.judge(), Ok(()));
        read(&mut ledger, 2, 2);
        assert!(ledger.judge().is_err(), "new, then old");
    }
}

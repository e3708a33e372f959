//! Is there one order of all operations that explains every answer? (Herlihy & Wing, "Linearizability", 1990.)
//!
//! The search is Wing and Gong's with Lowe's memory ("Testing for linearizability", 2017): take any operation that
//! no other one had finished before, apply it to the model, go on; on a dead end take it back and try another. A pair
//! of (operations taken, state) that failed once is never tried again.
//!
//! What only reads is taken as soon as its answer is right: if any order explains the rest, one does that has it here.
//!
//! An operation whose outcome is unknown may have happened at any time after it began, or never. Its answer is not
//! compared, it stays concurrent with everything later, and it need not be taken at all.
//!
//! The search can explode, so it has limits and an honest third verdict: [`Verdict::Undecided`] counts as a failure of
//! the run that recorded the history, never as a pass.

use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Debug;

/// What an object does when it is used by one client after the other.
pub trait Model {
    /// Its state.
    type State: Clone + Ord + Debug;
    /// What is asked of it.
    type Call: Clone + Debug;
    /// What it answers.
    type Answer: Clone + PartialEq + Debug;

    /// The state before anything happened.
    fn initial() -> Self::State;
    /// The next state and the answer.
    fn apply(state: &Self::State, call: &Self::Call) -> (Self::State, Self::Answer);
    /// Whether this answer may still be given, now or later. False only if it cannot: that ends the search on this path.
    fn may_come(_state: &Self::State, _call: &Self::Call, _answer: &Self::Answer) -> bool {
        true
    }
    /// Whether a call that is answered so changes no state, whenever that is its answer.
    fn only_reads(_call: &Self::Call, _answer: &Self::Answer) -> bool {
        false
    }
}

/// One operation of one client, with times that only need to be in order.
#[derive(Clone, Debug)]
pub struct Operation<M: Model> {
    /// When it was asked.
    pub began: u64,
    /// What was asked.
    pub call: M::Call,
    /// When it was answered, and what; `None` if nobody knows whether it happened.
    pub ended: Option<(u64, M::Answer)>,
}

/// What the search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// An order that explains everything exists.
    Linearizable,
    /// None does.
    Violated {
        /// The most operations that any order explained before it met a contradiction.
        explained: usize,
    },
    /// The search was given up. Not a pass.
    Undecided,
}

/// Operations of one history, at most: one bit each in the memory.
pub const OPERATIONS_MAX: usize = 16_384;

/// Looks for an order, giving up after `budget` steps.
#[must_use]
pub fn check<M: Model>(operations: &[Operation<M>], budget: usize) -> Verdict {
    if operations.len() > OPERATIONS_MAX {
        return Verdict::Undecided;
    }
    let mut search = Search::new(operations);
    for _ in 0..budget {
        if let Some(verdict) = search.step() {
            return verdict;
        }
    }
    Verdict::Undecided
}

/// One bit per operation: taken or not.
type Taken = Vec<u64>;

struct Search<'a, M: Model> {
    operations: &'a [Operation<M>],
    taken: Taken,
    /// Answered operations that are not taken yet.
    open: usize,
    explained: usize,
    /// The operations taken so far, each with the state before it and the candidates that were left to try there.
    path: Vec<(usize, M::State, Vec<usize>)>,
    state: M::State,
    candidates: Vec<usize>,
    failed: BTreeSet<(Taken, M::State)>,
}

impl<'a, M: Model> Search<'a, M> {
    fn new(operations: &'a [Operation<M>]) -> Self {
        let open = operations.iter().filter(|operation| operation.ended.is_some()).count();
        let mut search = Self {
            operations,
            taken: vec![0; operations.len().div_ceil(64)],
            open,
            explained: 0,
            path: Vec::new(),
            state: M::initial(),
            candidates: Vec::new(),
            failed: BTreeSet::new(),
        };
        search.candidates = search.next_candidates();
        search
    }

    /// Takes one operation, or takes one back. Returns the verdict once there is one.
    fn step(&mut self) -> Option<Verdict> {
        if self.open == 0 {
            return Some(Verdict::Linearizable);
        }
        let Some(next) = self.candidates.pop() else {
            self.failed.insert((self.taken.clone(), self.state.clone()));
            let Some((last, state, candidates)) = self.path.pop() else {
                return Some(Verdict::Violated { explained: self.explained });
            };
            self.mark(last, false);
            (self.state, self.candidates) = (state, candidates);
            return None;
        };
        let operation = &self.operations[next];
        let (state, answer) = M::apply(&self.state, &operation.call);
        if operation.ended.as_ref().is_some_and(|(_, told)| *told != answer) {
            return None;
        }
        if operation.ended.is_none() && state == self.state {
            // It need not have happened, and if it has it changed nothing.
            return None;
        }
        self.mark(next, true);
        let may_come = |i: usize| {
            let Operation { call, ended, .. } = &self.operations[i];
            ended.as_ref().is_none_or(|(_, answer)| M::may_come(&state, call, answer))
        };
        if !(0..self.operations.len()).filter(|&i| !self.is_taken(i)).all(may_come) {
            self.mark(next, false);
            return None;
        }
        if self.failed.contains(&(self.taken.clone(), state.clone())) {
            self.mark(next, false);
            return None;
        }
        let before = core::mem::replace(&mut self.state, state);
        let left = core::mem::take(&mut self.candidates);
        self.path.push((next, before, left));
        self.explained = self.explained.max(self.path.len());
        self.candidates = self.next_candidates();
        None
    }

    /// Operations that nothing still open had finished before they began; last, and so tried first, those that were
    /// answered, the earliest first.
    fn next_candidates(&self) -> Vec<usize> {
        let open = (0..self.operations.len()).filter(|&i| !self.is_taken(i));
        let first_end = open.clone().filter_map(|i| self.operations[i].ended.as_ref().map(|(at, _)| *at)).min();
        let may_be_next = |&i: &usize| first_end.is_none_or(|end| self.operations[i].began <= end);
        let mut candidates: Vec<usize> = open.filter(may_be_next).collect();
        let ended = |i: usize| self.operations[i].ended.as_ref().map_or(u64::MAX, |(at, _)| *at);
        if let Some(&read) = candidates.iter().find(|&&i| self.is_read_now(i)) {
            return vec![read];
        }
        candidates.sort_by_key(|&i| core::cmp::Reverse((ended(i), self.operations[i].began)));
        candidates
    }

    fn is_read_now(&self, i: usize) -> bool {
        let Operation { call, ended, .. } = &self.operations[i];
        let told = ended.as_ref().map(|(_, answer)| answer).filter(|answer| M::only_reads(call, answer));
        told.is_some_and(|answer| M::apply(&self.state, call).1 == *answer)
    }

    fn is_taken(&self, i: usize) -> bool {
        self.taken[i / 64] >> (i % 64) & 1 == 1
    }

    fn mark(&mut self, i: usize, taken: bool) {
        self.taken[i / 64] ^= 1 << (i % 64);
        if self.operations[i].ended.is_some() {
            self.open = if taken { self.open - 1 } else { self.open + 1 };
        }
    }
}

/// A register that is read, written, and compared and set.
#[derive(Clone, Copy, Debug)]
pub struct Register;

/// What is asked of a [`Register`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Its value.
    Read,
    /// Replace it.
    Write(u64),
    /// Replace it if it is the first.
    CompareAndSet(u64, u64),
}

impl Model for Register {
    type State = u64;
    type Call = Call;
    /// The value read, or whether a comparison held.
    type Answer = u64;

    fn initial() -> u64 {
        0
    }

    fn apply(state: &u64, call: &Call) -> (u64, u64) {
        match *call {
            Call::Read => (*state, *state),
            Call::Write(value) => (value, 0),
            Call::CompareAndSet(old, new) if *state == old => (new, 1),
            Call::CompareAndSet(..) => (*state, 0),
        }
    }

    fn only_reads(call: &Call, answer: &u64) -> bool {
        matches!((call, answer), (Call::Read, _) | (Call::CompareAndSet(..), 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn done(began: u64, ended: u64, call: Call, answer: u64) -> Operation<Register> {
        Operation { began, call, ended: Some((ended, answer)) }
    }

    fn verdict(operations: &[Operation<Register>]) -> Verdict {
        check(operations, 100_000)
    }

    #[test]
    fn answers_in_order_are_linearizable() {
        let history = [done(1, 2, Call::Write(1), 0), done(3, 4, Call::Read, 1)];
        assert_eq!(verdict(&history), Verdict::Linearizable);
    }

    #[test]
    fn a_stale_read_is_not() {
        let history = [done(1, 2, Call::Write(1), 0), done(3, 4, Call::Write(2), 0), done(5, 6, Call::Read, 1)];
        assert!(matches!(verdict(&history), Verdict::Violated { explained: 2 }));
    }

    #[test]
    fn new_then_old_during_one_write_is_not() {
        let history = [done(1, 10, Call::Write(1), 0), done(2, 3, Call::Read, 1), done(4, 5, Call::Read, 0)];
        assert!(matches!(verdict(&history), Verdict::Violated { .. }));
        let concurrent = [done(1, 10, Call::Write(1), 0), done(2, 5, Call::Read, 1), done(3, 6, Call::Read, 0)];
        assert_eq!(verdict(&concurrent), Verdict::Linearizable);
    }

    #[test]
    fn a_write_of_unknown_outcome_may_happen_late_once_or_never() {
        let unknown = Operation { began: 1, call: Call::Write(7), ended: None };
        let never = [unknown.clone(), done(2, 3, Call::Read, 0)];
        let late = [unknown.clone(), done(2, 3, Call::Read, 0), done(4, 5, Call::Read, 7)];
        let twice = [unknown, done(2, 3, Call::Read, 7), done(4, 5, Call::Write(1), 0), done(6, 7, Call::Read, 7)];
        assert_eq!(verdict(&never), Verdict::Linearizable);
        assert_eq!(verdict(&late), Verdict::Linearizable);
        assert!(matches!(verdict(&twice), Verdict::Violated { .. }));
    }

    #[test]
    fn two_comparisons_cannot_both_win() {
        let history = [done(1, 9, Call::CompareAndSet(0, 1), 1), done(2, 8, Call::CompareAndSet(0, 2), 1)];
        assert!(matches!(verdict(&history), Verdict::Violated { .. }));
    }

    #[test]
    fn what_was_not_searched_is_undecided() {
        let history: Vec<_> = (0..20).map(|n| done(1, 100, Call::Write(n), 0)).collect();
        assert_eq!(check(&history, 5), Verdict::Undecided);
    }

    /// Histories made by really using a register are linearizable; the same with one answer changed to a value that
    /// was never there are not.
    #[test]
    fn histories_of_a_real_register_pass_and_forged_ones_do_not() {
        for seed in 0..200 {
            let mut rng = Rng::new(seed);
            let mut state = 0;
            let mut history = Vec::new();
            for n in 1..60 {
                let call = match rng.below(3) {
                    0 => Call::Read,
                    1 => Call::Write(n),
                    _ => Call::CompareAndSet(state, n),
                };
                let (next, answer) = Register::apply(&state, &call);
                state = next;
                // Each takes effect at 10 n, and is seen to last some time around that.
                history.push(done(10 * n - rng.below(40).min(10 * n), 10 * n + rng.below(40), call, answer));
            }
            assert_eq!(verdict(&history), Verdict::Linearizable, "seed {seed}");
            let Some(read) = history.iter_mut().find(|operation| operation.call == Call::Read) else { continue };
            read.ended = read.ended.take().map(|(at, _)| (at, 1_000));
            assert!(matches!(verdict(&history), Verdict::Violated { .. }), "seed {seed}");
        }
    }
}

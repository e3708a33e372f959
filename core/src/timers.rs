//! Timers as data: armed under a name, at most once each.

use alloc::collections::{BTreeMap, BTreeSet};

use crate::time::Instant;

/// A set of named deadlines. Arming a name again moves its deadline.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Timers<T: Ord + Clone> {
    // Each entry of one is an entry of the other; `arm`, `disarm` and `pop_due` keep them in step.
    due: BTreeSet<(Instant, T)>,
    armed: BTreeMap<T, Instant>,
}

impl<T: Ord + Clone> Default for Timers<T> {
    fn default() -> Self {
        Self { due: BTreeSet::new(), armed: BTreeMap::new() }
    }
}

impl<T: Ord + Clone> Timers<T> {
    /// Sets or moves a timer.
    pub fn arm(&mut self, at: Instant, timer: T) {
        if let Some(before) = self.armed.insert(timer.clone(), at) {
            self.due.remove(&(before, timer.clone()));
        }
        self.due.insert((at, timer));
    }

    /// Removes a timer if it is set.
    pub fn disarm(&mut self, timer: &T) {
        if let Some(at) = self.armed.remove(timer) {
            self.due.remove(&(at, timer.clone()));
        }
    }

    /// Takes the earliest timer whose time has come.
    pub fn pop_due(&mut self, now: Instant) -> Option<T> {
        if self.next()? > now {
            return None;
        }
        let (_, timer) = self.due.pop_first()?;
        self.armed.remove(&timer);
        Some(timer)
    }

    /// How many are set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.armed.len()
    }

    /// Whether none is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.armed.is_empty()
    }

    /// The earliest deadline.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arming_again_moves_the_deadline() {
        let mut timers = Timers::default();
        timers.arm(Instant(5), "a");
        timers.arm(Instant(9), "a");
        assert_eq!(timers.pop_due(Instant(8)), None);
        assert_eq!(timers.pop_due(Instant(9)), Some("a"));
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn a_disarmed_timer_never_fires() {
        let mut timers = Timers::default();
        timers.arm(Instant(5), "a");
        timers.arm(Instant(6), "b");
        timers.disarm(&"a");
        assert_eq!(timers.pop_due(Instant(9)), Some("b"));
    }
}

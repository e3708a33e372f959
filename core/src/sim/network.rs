//! What becomes of a message: delayed, lost, repeated, overtaken, or stopped by a cut.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::rng::Rng;
use crate::time::{Duration, Instant};

/// A network between numbered places.
#[derive(Clone, Debug)]
pub struct Network {
    /// The shortest delay.
    pub delay_min: Duration,
    /// Delays stay below this.
    pub delay_max: Duration,
    /// Messages lost of a thousand.
    pub loss_per_mille: u32,
    /// Messages delivered twice of a thousand.
    pub duplicate_per_mille: u32,
    /// Whether messages between two places may overtake each other.
    pub reorder: bool,
    /// Directed pairs whose messages are dropped in silence.
    cuts: BTreeSet<(usize, usize)>,
    last: BTreeMap<(usize, usize), Instant>,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            delay_min: Duration(500),
            delay_max: Duration::millis(2),
            loss_per_mille: 0,
            duplicate_per_mille: 0,
            reorder: false,
            cuts: BTreeSet::new(),
            last: BTreeMap::new(),
        }
    }
}

impl Network {
    /// Drops everything from `a` to `b`; the other direction is not touched.
    pub fn cut(&mut self, a: usize, b: usize) {
        self.cuts.insert((a, b));
    }

    /// Lets messages from `a` to `b` through again.
    pub fn heal(&mut self, a: usize, b: usize) {
        self.cuts.remove(&(a, b));
    }

    /// Undoes all cuts, losses and repetitions.
    pub fn heal_all(&mut self) {
        self.cuts.clear();
        self.loss_per_mille = 0;
        self.duplicate_per_mille = 0;
    }

    /// When a message sent now arrives: never, once or twice.
    pub fn deliveries(&mut self, rng: &mut Rng, now: Instant, from: usize, to: usize) -> Vec<Instant> {
        if self.cuts.contains(&(from, to)) || rng.chance(self.loss_per_mille) {
            return Vec::new();
        }
        let copies = if rng.chance(self.duplicate_per_mille) { 2 } else { 1 };
        (0..copies).map(|_| self.arrival(rng, now, from, to)).collect()
    }

    fn arrival(&mut self, rng: &mut Rng, now: Instant, from: usize, to: usize) -> Instant {
        let drawn = now + rng.between(self.delay_min, self.delay_max);
        if self.reorder {
            return drawn;
        }
        let last = self.last.entry((from, to)).or_default();
        *last = drawn.max(*last);
        *last
    }
}

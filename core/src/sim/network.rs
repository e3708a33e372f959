//! What becomes of a message: delayed, lost, repeated, overtaken, held up by a clog, or stopped by a cut.

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
    /// Directed pairs that deliver nothing before a time, and then everything.
    clogs: BTreeMap<(usize, usize), Instant>,
    /// Directed pairs that take longer than the others.
    slow: BTreeMap<(usize, usize), Duration>,
    /// What has become of messages so far.
    pub tally: Tally,
}

/// Counts what became of messages.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs, reason = "each is what it says")]
pub struct Tally {
    pub delivered: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub cut: u64,
    pub clogged: u64,
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
            clogs: BTreeMap::new(),
            slow: BTreeMap::new(),
            tally: Tally::default(),
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

    /// Holds back everything from `a` to `b` until then.
    pub fn clog(&mut self, a: usize, b: usize, until: Instant) {
        self.clogs.insert((a, b), until);
    }

    /// Makes everything from `a` to `b` take so much longer.
    pub fn slow(&mut self, a: usize, b: usize, by: Duration) {
        self.slow.insert((a, b), by);
    }

    /// Undoes all cuts, delays, losses and repetitions. What a clog holds back stays so until its time, and what is sent
    /// from now on may overtake it.
    pub fn heal_all(&mut self) {
        self.cuts.clear();
        self.slow.clear();
        self.clogs.clear();
        self.last.clear();
        self.loss_per_mille = 0;
        self.duplicate_per_mille = 0;
    }

    /// When a message sent now arrives: never, once or twice.
    pub fn deliveries(&mut self, rng: &mut Rng, now: Instant, from: usize, to: usize) -> Vec<Instant> {
        if self.cuts.contains(&(from, to)) {
            self.tally.cut += 1;
            return Vec::new();
        }
        if rng.chance(self.loss_per_mille) {
            self.tally.lost += 1;
            return Vec::new();
        }
        let copies = if rng.chance(self.duplicate_per_mille) { 2 } else { 1 };
        self.tally.delivered += 1;
        self.tally.duplicated += copies - 1;
        (0..copies).map(|_| self.arrival(rng, now, from, to)).collect()
    }

    fn arrival(&mut self, rng: &mut Rng, now: Instant, from: usize, to: usize) -> Instant {
        let mut drawn = now + rng.between(self.delay_min, self.delay_max);
        drawn = drawn + self.slow.get(&(from, to)).copied().unwrap_or(Duration::ZERO);
        if let Some(&until) = self.clogs.get(&(from, to)).filter(|&&until| until > drawn) {
            self.tally.clogged += 1;
            drawn = until;
        }
        if self.reorder {
            return drawn;
        }
        let last = self.last.entry((from, to)).or_default();
        *last = drawn.max(*last);
        *last
    }
}

//! The core's own generator: the same stream on every target.

use serde::{Deserialize, Serialize};

use crate::hash::mix;
use crate::time::Duration;

/// SplitMix64 (Steele, Lea, Flood 2014). Spreads load and jitters timers; it is no source of secrets.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rng(u64);

impl Rng {
    /// A generator whose whole stream is given by `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// The next 16 bytes, for ids that only must not repeat.
    pub fn next_bytes(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.next_u64().to_le_bytes());
        bytes[8..].copy_from_slice(&self.next_u64().to_le_bytes());
        bytes
    }

    /// A number below `bound`; zero when `bound` is zero. The bias is below `bound / 2^64`.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// True `per_mille` times in a thousand.
    pub fn chance(&mut self, per_mille: u32) -> bool {
        self.below(1_000) < u64::from(per_mille)
    }

    /// A span in `[low, high)`, or `low` when the range is empty.
    pub fn between(&mut self, low: Duration, high: Duration) -> Duration {
        low + Duration(self.below(high.0.saturating_sub(low.0)))
    }

    /// A generator for another purpose, independent of what this one yields later.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self(self.next_u64())
    }

    /// Moves `count` randomly chosen items to the front, fewer when there are fewer.
    pub fn choose<T>(&mut self, items: &mut [T], count: usize) -> usize {
        let count = count.min(items.len());
        for front in 0..count {
            let rest = (items.len() - front) as u64;
            let picked = front + self.below(rest) as usize;
            items.swap(front, picked);
        }
        count
    }
}

//! Hashes that are the same on every target and in every release.
//!
//! Placement and state hashes are compared between nodes and between native and wasm32 builds, so neither the
//! language's default hasher nor the width of `usize` may show in them.

use core::hash::{Hash, Hasher};

/// Scrambles 64 bits reversibly (SplitMix64's finaliser).
#[must_use]
pub const fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Hashes bytes. Not keyed: whoever picks the keys can pick collisions.
#[must_use]
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut hasher = StableHasher::default();
    hasher.write(bytes);
    hasher.finish()
}

/// Hashes any value the way it derives `Hash`, independent of the target's word size.
#[must_use]
pub fn hash_of<T: Hash + ?Sized>(value: &T) -> u64 {
    let mut hasher = StableHasher::default();
    value.hash(&mut hasher);
    hasher.finish()
}

/// FNV-1a's shape over 64-bit little-endian words, with `usize` widened to 64 bits.
#[derive(Clone, Debug)]
pub struct StableHasher(u64);

impl Default for StableHasher {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl StableHasher {
    fn word(&mut self, word: u64) {
        self.0 = mix(self.0 ^ word).wrapping_mul(0x0000_0100_0000_01b3);
    }
}

impl Hasher for StableHasher {
    fn finish(&self) -> u64 {
        mix(self.0)
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
        self.word(bytes.len() as u64);
    }

    fn write_u8(&mut self, i: u8) {
        self.word(u64::from(i));
    }

    fn write_u16(&mut self, i: u16) {
        self.word(u64::from(i));
    }

    fn write_u32(&mut self, i: u32) {
        self.word(u64::from(i));
    }

    fn write_u64(&mut self, i: u64) {
        self.word(i);
    }

    fn write_usize(&mut self, i: usize) {
        self.word(i as u64);
    }

    fn write_isize(&mut self, i: isize) {
        self.word(i as i64 as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_pinned_for_all_targets_and_releases() {
        assert_eq!(hash_bytes(b"qunlong"), 10_671_008_289_694_124_795);
        assert_eq!(hash_of(&(1_u8, 2_usize, [3_u16, 4])), 17_486_826_276_959_608_796);
    }
}

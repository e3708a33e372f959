//! Whether every read quorum meets every write quorum. Pure.
//!
//! Of N owners W hold the last acknowledged write and R answer a read. In the worst case both sets are as far apart as
//! they can be, so the one is laid from the left and the other from the right:
//!
//! ```text
//!   N = 5     1   2   3   4   5
//!   W = 3     ●───●───●                who holds the write
//!   R = 3             ●───●───●        who answers the read
//!                     └ R + W − N = 1: somebody who answers has it
//! ```
//!
//! Which counts are allowed is the core's to say ([`Level`]): below a majority only where nothing more is promised.

use qunlong_core::Refusal;
use qunlong_core::namespace::Mode;
use qunlong_core::quorum::Level;

/// The counts that were chosen for requests; where none was, the namespace's usual one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Owners that answer a read.
    pub read: Option<u8>,
    /// Owners that hold a write.
    pub write: Option<u8>,
}

impl Wish {
    /// What reads are asked with.
    #[must_use]
    pub fn read_level(self) -> Level {
        self.read.map_or(Level::Usual, Level::Count)
    }

    /// What writes are asked with.
    #[must_use]
    pub fn write_level(self) -> Level {
        self.write.map_or(Level::Usual, Level::Count)
    }

    /// What requests with these counts are refused with, if they are: a namespace may have fewer owners than a count
    /// that was chosen before, and an address may say anything.
    #[must_use]
    pub fn refusal(self, mode: Mode, n: u8) -> Option<Refusal> {
        let is_allowed = |level| needed(level, mode, n).is_some();
        let both = is_allowed(self.read_level()) && is_allowed(self.write_level());
        (!both).then_some(Refusal::BadLevel { replicas: n })
    }
}

/// How many of how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// All owners.
    pub n: u8,
    /// Those that answer a read.
    pub r: u8,
    /// Those that hold a write.
    pub w: u8,
}

/// What one owner takes part in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// It holds the write.
    pub holds: bool,
    /// It answers the read.
    pub answers: bool,
}

impl Counts {
    /// Those of a wish in a namespace of this mode with `n` owners.
    #[must_use]
    pub fn of(wish: Wish, mode: Mode, n: u8) -> Self {
        let usual = needed(Level::Usual, mode, n).unwrap_or(n);
        Self { n, r: wish.read.unwrap_or(usual), w: wish.write.unwrap_or(usual) }
    }

    /// How many owners a read quorum and a write quorum share at least.
    #[must_use]
    pub fn overlap(self) -> u8 {
        let (r, w) = (self.r.min(self.n), self.w.min(self.n));
        (u16::from(r) + u16::from(w)).saturating_sub(u16::from(self.n)) as u8
    }

    /// The owners where both sets are as far apart as they can be.
    pub fn parts(self) -> impl Iterator<Item = Part> {
        (0..self.n).map(move |i| Part { holds: i < self.w, answers: i >= self.n.saturating_sub(self.r) })
    }
}

/// The smallest count that is allowed.
#[must_use]
pub fn least(mode: Mode, n: u8) -> u8 {
    (1..=n).find(|&count| needed(Level::Count(count), mode, n).is_some()).unwrap_or(n)
}

/// The count that a level means, if the mode allows it.
fn needed(level: Level, mode: Mode, n: u8) -> Option<u8> {
    match mode {
        Mode::Eventual => level.needed_of_any(n),
        Mode::Quorum | Mode::Atomic | Mode::Consensus => level.needed(n),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The owners of the worst case: `W` holds, `R` answers, `B` both, `.` neither.
    fn drawn(n: u8, r: u8, w: u8) -> String {
        let mark = |part: Part| match (part.holds, part.answers) {
            (true, true) => 'B',
            (true, false) => 'W',
            (false, true) => 'R',
            (false, false) => '.',
        };
        Counts { n, r, w }.parts().map(mark).collect()
    }

    #[test]
    fn the_worst_case_leaves_a_gap_or_the_least_overlap() {
        assert_eq!([drawn(3, 2, 2), drawn(3, 1, 1), drawn(5, 3, 3)], ["WBR", "W.R", "WWBRR"]);
        assert_eq!([drawn(3, 1, 2), drawn(3, 3, 1), drawn(1, 1, 1)], ["WWR", "BRR", "B"]);
        for (n, r, w) in (1..=7).flat_map(|n| (1..=n).flat_map(move |r| (1..=n).map(move |w| (n, r, w)))) {
            let counts = Counts { n, r, w };
            let both = counts.parts().filter(|part| part.holds && part.answers).count();
            assert_eq!(both, usize::from(counts.overlap()), "{counts:?}");
            assert_eq!(counts.overlap() > 0, r + w > n, "{counts:?}");
        }
    }

    #[test]
    fn no_two_sets_share_fewer_than_the_worst_case() {
        const N: u8 = 5;
        let sets = |size: u8| (0_u32..1 << N).filter(move |set| set.count_ones() == u32::from(size));
        for (r, w) in (1..=N).flat_map(|r| (1..=N).map(move |w| (r, w))) {
            let shared = sets(r).flat_map(|read| sets(w).map(move |written| (read & written).count_ones())).min();
            assert_eq!(shared, Some(u32::from(Counts { n: N, r, w }.overlap())), "R = {r}, W = {w}");
        }
    }

    #[test]
    fn the_mode_says_what_is_usual_and_what_is_allowed() {
        let usual = |mode| Counts::of(Wish::default(), mode, 5);
        assert_eq!(usual(Mode::Quorum), Counts { n: 5, r: 3, w: 3 });
        assert_eq!(usual(Mode::Eventual), Counts { n: 5, r: 1, w: 1 });
        assert_eq!((least(Mode::Quorum, 5), least(Mode::Eventual, 5), least(Mode::Quorum, 1)), (3, 1, 1));
        let one = Wish { read: Some(1), write: None };
        assert_eq!(one.refusal(Mode::Eventual, 3), None);
        assert_eq!(one.refusal(Mode::Quorum, 3), Some(Refusal::BadLevel { replicas: 3 }));
        let many = Wish { read: None, write: Some(4) };
        assert_eq!(many.refusal(Mode::Eventual, 3), Some(Refusal::BadLevel { replicas: 3 }));
        assert_eq!(Wish::default().refusal(Mode::Quorum, 3), None);
    }

    #[test]
    fn nothing_is_drawn_beyond_the_owners() {
        let counts = Counts { n: 3, r: 9, w: 9 };
        assert_eq!((counts.overlap(), counts.parts().count()), (3, 3));
    }
}

//! Suspicions that run: who is suspected, since when, and by how many who found out for themselves.
//!
//! A suspicion begins with a long time to refute it, because a single accuser may be the one that is slow. Each further
//! member that got no answer either shortens it, down to what the failure detector needs at least (*dynamic suspicion*:
//! Dadgar, Phillips, Currey, "Lifeguard", 2017). The time falls with the logarithm of the number of accusers, so that
//! the first confirmations count for most.

use alloc::collections::{BTreeMap, BTreeSet};

use crate::id::{Generation, NodeId};
use crate::time::{Duration, Instant};

/// Confirmations that bring the time down to its least, where there are so many who could confirm.
const CONFIRMATIONS: usize = 2;
/// A suspicion that nobody confirms takes so many times the least.
const LONGEST: u64 = 4;
/// log(1 + confirmations) / log(1 + those who could), in thousandths.
const FALL: [&[u64]; CONFIRMATIONS + 1] = [&[1_000], &[0, 1_000], &[0, 631, 1_000]];

/// At most one per member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Suspicions(BTreeMap<NodeId, Suspicion>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Suspicion {
    claim: (Generation, u64),
    since: Instant,
    accusers: BTreeSet<NodeId>,
}

impl Suspicions {
    /// Somebody suspects a member under this claim. Whether that was news: the first accusation of the claim, or another
    /// one that still shortens it.
    pub(super) fn accuse(&mut self, node: NodeId, claim: (Generation, u64), by: NodeId, now: Instant) -> bool {
        let suspicion =
            self.0.entry(node).or_insert_with(|| Suspicion { claim, since: now, accusers: BTreeSet::new() });
        if suspicion.claim != claim {
            *suspicion = Suspicion { claim, since: now, accusers: BTreeSet::new() };
        }
        suspicion.accusers.len() <= CONFIRMATIONS && suspicion.accusers.insert(by)
    }

    /// The member is not suspected any more, or dead.
    pub(super) fn end(&mut self, node: NodeId) {
        self.0.remove(&node);
    }

    /// How long from now until the member is dead, if `least` is the time that a well confirmed suspicion takes, and so many
    /// `others` could confirm it.
    pub(super) fn remaining(&self, node: NodeId, least: Duration, others: usize, now: Instant) -> Duration {
        let Some(suspicion) = self.0.get(&node) else { return least };
        time(suspicion.accusers.len(), others, least) - now.since(suspicion.since)
    }

    /// This node slept: what it has not heard meanwhile says nothing, and everybody gets the whole time again.
    pub(super) fn restart(&mut self, now: Instant) {
        self.0.values_mut().for_each(|suspicion| suspicion.since = now);
    }
}

/// The whole time of a suspicion with so many accusers, where so many others could be.
fn time(accusers: usize, others: usize, least: Duration) -> Duration {
    let falls = FALL[others.min(CONFIRMATIONS)];
    let confirmations = accusers.saturating_sub(1).min(falls.len() - 1);
    let longest = least.times(LONGEST);
    longest - (longest - least).permille(falls[confirmations])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_further_accuser_shortens_it_down_to_the_least() {
        let least = Duration::secs(4);
        let times = |others| [1, 2, 3, 4, 5].map(|accusers| time(accusers, others, least).as_millis());
        assert_eq!(times(9), [16_000, 8_428, 4_000, 4_000, 4_000]);
        assert_eq!(times(1), [16_000, 4_000, 4_000, 4_000, 4_000]);
        assert_eq!(times(0), [4_000; 5], "nobody else could confirm it");
    }

    #[test]
    fn the_same_accuser_counts_once_and_a_new_claim_begins_anew() {
        let (n, mut suspicions) = (NodeId::small, Suspicions::default());
        let (claim, now) = ((Generation(1), 0), Instant(0));
        assert!(suspicions.accuse(n(9), claim, n(1), now) && !suspicions.accuse(n(9), claim, n(1), now));
        assert!(suspicions.accuse(n(9), claim, n(2), now));
        assert_eq!(suspicions.remaining(n(9), Duration::secs(4), 9, now).as_millis(), 8_428);
        assert!(suspicions.accuse(n(9), (Generation(1), 1), n(2), now));
        assert_eq!(suspicions.remaining(n(9), Duration::secs(4), 9, now).as_millis(), 16_000);
    }
}

//! Members that come and go: whoever has spoken up lately is looked at again before it is accused anew.
//!
//! A member that is up for a second and down for a second would be suspected, and refute, and be suspected: each time
//! everybody would tell everybody, and whoever goes by the view would be sent back and forth. So a member that has
//! raised its incarnation within the last [`CALM`], as it does to refute, must miss [`LOOKS`] probes more, in a row,
//! before this node accuses it. One that comes and goes answers one of them; one that is gone is found out a few
//! seconds later than others. What changes in the view of such a member changes about once a [`CALM`].

use alloc::collections::BTreeMap;

use crate::id::NodeId;
use crate::time::{Duration, Instant};

/// So long after it has spoken up a member is looked at again.
const CALM: Duration = Duration::secs(60);
/// How often.
const LOOKS: u8 = 4;

/// Who has spoken up lately, when, and how often it has been looked at again since it last answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Damping(BTreeMap<NodeId, (Instant, u8)>);

impl Damping {
    /// A member has raised its incarnation.
    pub(super) fn spoke(&mut self, node: NodeId, now: Instant) {
        self.0.retain(|_, (at, _)| now.since(*at) < CALM);
        self.0.insert(node, (now, 0));
    }

    /// It has answered.
    pub(super) fn answered(&mut self, node: NodeId) {
        if let Some((_, looks)) = self.0.get_mut(&node) {
            *looks = 0;
        }
    }

    /// It is held dead, or is another boot now.
    pub(super) fn end(&mut self, node: NodeId) {
        self.0.remove(&node);
    }

    /// It has not answered: whether to look again rather than to accuse it.
    pub(super) fn looks_again(&mut self, node: NodeId, now: Instant) -> bool {
        let Some((at, looks)) = self.0.get_mut(&node) else { return false };
        let again = now.since(*at) < CALM && *looks < LOOKS;
        *looks += u8::from(again);
        again
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_spoken_up_is_looked_at_again_and_not_for_ever() {
        let (node, mut damping, now) = (NodeId::small(1), Damping::default(), Instant(0));
        assert!(!damping.looks_again(node, now), "nobody heard it speak up");
        damping.spoke(node, now);
        assert_eq!((0..9).filter(|_| damping.looks_again(node, now)).count(), usize::from(LOOKS));
        damping.answered(node);
        assert!(damping.looks_again(node, now));
        assert!(!damping.looks_again(node, now + CALM));
    }
}

//! Members that come and go: whoever has spoken up lately is looked at again before it is accused anew.
//!
//! A member that is up for a second and down for a second would be suspected, and refute, and be suspected: each time
//! everybody would tell everybody, and whoever goes by the view would be sent back and forth. So a member that has
//! refuted a suspicion within the last [`CALM`] must miss all probes for [`LOOK`] more before this node accuses it. One
//! that comes and goes answers one of them; one that is gone is found out a few seconds later than others. What changes
//! in the view of such a member changes about once a [`CALM`].

use alloc::collections::BTreeMap;

use crate::id::NodeId;
use crate::time::{Duration, Instant};

/// So long after it has spoken up a member is looked at again.
const CALM: Duration = Duration::secs(60);
/// For how long it must have been silent then. A node that is slow itself looks at it less often in that time, not for
/// longer.
const LOOK: Duration = Duration::secs(4);

/// Who has spoken up lately, when, and since when it has been silent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Damping(BTreeMap<NodeId, (Instant, Option<Instant>)>);

impl Damping {
    /// A member has refuted what was said of it.
    pub(super) fn spoke(&mut self, node: NodeId, now: Instant) {
        self.0.retain(|_, (at, _)| now.since(*at) < CALM);
        self.0.insert(node, (now, None));
    }

    /// It has answered.
    pub(super) fn answered(&mut self, node: NodeId) {
        if let Some((_, silent)) = self.0.get_mut(&node) {
            *silent = None;
        }
    }

    /// It is held dead, or is another boot now.
    pub(super) fn end(&mut self, node: NodeId) {
        self.0.remove(&node);
    }

    /// It has not answered: whether to look again rather than to accuse it.
    pub(super) fn looks_again(&mut self, node: NodeId, now: Instant) -> bool {
        let Some((at, silent)) = self.0.get_mut(&node) else { return false };
        let since = *silent.get_or_insert(now);
        now.since(*at) < CALM && now.since(since) < LOOK
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
        assert!(damping.looks_again(node, now) && damping.looks_again(node, now + Duration::secs(3)));
        assert!(!damping.looks_again(node, now + LOOK));
        damping.answered(node);
        assert!(damping.looks_again(node, now + LOOK));
        assert!(!damping.looks_again(node, now + CALM));
    }
}

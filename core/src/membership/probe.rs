//! Probes in flight: whom we asked, and on whose behalf.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::{Membership, Timer};
use crate::id::NodeId;
use crate::protocol::Effects;

/// At most one probe per member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Probes {
    running: BTreeMap<NodeId, Probe>,
    /// Members left to probe in this round: everybody is probed once before anybody is probed twice.
    round: Vec<NodeId>,
    seq: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Probe {
    seq: u64,
    /// Whether this node itself wants to know. Only then does silence make it ask others and suspect: a helper
    /// that did so too would turn one dead member into a storm.
    own: bool,
    /// Others who asked us to look, with their numbers.
    askers: BTreeMap<NodeId, u64>,
    /// Helpers that were asked and have not said that they tried.
    helpers: BTreeSet<NodeId>,
    /// Whether any of them said so.
    heard: bool,
}

/// Why a member is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To know it here.
    Own,
    /// To tell another, under its number.
    Help { asker: NodeId, seq: u64 },
}

impl Probes {
    /// Starts a probe for `purpose` and numbers it. `None` if one is running, which then serves this purpose too.
    pub(super) fn begin(&mut self, target: NodeId, purpose: Purpose) -> Option<u64> {
        let is_new = !self.running.contains_key(&target);
        if is_new {
            self.seq += 1;
            self.running.insert(
                target,
                Probe { seq: self.seq, own: false, askers: BTreeMap::new(), helpers: BTreeSet::new(), heard: false },
            );
        }
        let probe = self.running.get_mut(&target)?;
        match purpose {
            Purpose::Own => probe.own = true,
            Purpose::Help { asker, seq } => {
                probe.askers.insert(asker, seq);
            }
        }
        is_new.then_some(probe.seq)
    }

    /// The number of a probe that this node runs for itself.
    pub(super) fn own_seq(&self, target: NodeId) -> Option<u64> {
        self.running.get(&target).filter(|probe| probe.own).map(|probe| probe.seq)
    }

    /// Ends a probe with success and yields who else wants to know. An answer to an older probe counts for nothing.
    pub(super) fn answered(
        &mut self,
        target: NodeId,
        seq: u64,
        fx: &mut Effects<Membership>,
    ) -> Option<BTreeMap<NodeId, u64>> {
        self.running.get(&target).filter(|probe| probe.seq == seq)?;
        self.drop_target(target, fx)
    }

    /// Others were asked to try.
    pub(super) fn asked(&mut self, target: NodeId, helpers: &[NodeId]) {
        if let Some(probe) = self.running.get_mut(&target) {
            probe.helpers.extend(helpers);
        }
    }

    /// One of them tried, and got no answer either. Whether it was asked, and had not said so before.
    pub(super) fn nacked(&mut self, target: NodeId, seq: u64, by: NodeId) -> bool {
        let Some(probe) = self.running.get_mut(&target).filter(|probe| probe.seq == seq) else { return false };
        let is_news = probe.helpers.remove(&by);
        probe.heard |= is_news;
        is_news
    }

    /// Who asked this node to try, with their numbers.
    pub(super) fn askers(&self, target: NodeId) -> Vec<(NodeId, u64)> {
        let asked = self.running.get(&target).map(|probe| probe.askers.iter().map(|(&asker, &seq)| (asker, seq)));
        asked.into_iter().flatten().collect()
    }

    /// Ends a probe without an answer. `None` if this node did not run it for itself; else whether all helpers that were
    /// asked were silent as well.
    pub(super) fn failed(&mut self, target: NodeId) -> Option<bool> {
        let probe = self.running.remove(&target).filter(|probe| probe.own)?;
        Some(!probe.helpers.is_empty() && !probe.heard)
    }

    pub(super) fn drop_target(
        &mut self,
        target: NodeId,
        fx: &mut Effects<Membership>,
    ) -> Option<BTreeMap<NodeId, u64>> {
        let probe = self.running.remove(&target)?;
        fx.disarm(Timer::ProbeIndirect(target));
        fx.disarm(Timer::ProbeEnd(target));
        Some(probe.askers)
    }

    pub(super) fn drop_all(&mut self, fx: &mut Effects<Membership>) {
        let targets: Vec<NodeId> = self.running.keys().copied().collect();
        for target in targets {
            self.drop_target(target, fx);
        }
    }

    /// The next member of the round that may answer; a new round is drawn when this one is used up.
    pub(super) fn next_in_round(
        &mut self,
        may_answer: impl Fn(&NodeId) -> bool,
        new_round: impl FnOnce() -> Vec<NodeId>,
    ) -> Option<NodeId> {
        if let Some(target) = self.pop(&may_answer) {
            return Some(target);
        }
        self.round = new_round();
        self.pop(&may_answer)
    }

    fn pop(&mut self, may_answer: &impl Fn(&NodeId) -> bool) -> Option<NodeId> {
        while let Some(target) = self.round.pop() {
            if may_answer(&target) && !self.running.contains_key(&target) {
                return Some(target);
            }
        }
        None
    }
}

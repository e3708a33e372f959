//! Writes that this owner has refused for good.
//!
//! A coordinator tells its client that nothing happened once every owner that it asked has refused. Messages may be
//! repeated on their way, so a copy could come later, when there is room again, and be done after all. An owner
//! therefore refuses every copy of what it has refused, for as long as a copy may be under way. A restart forgets them:
//! it also ends every link on which one could still arrive.

use alloc::collections::{BTreeMap, VecDeque};

use crate::id::OpId;
use crate::limits;
use crate::mutant::{Mutant, planted};
use crate::refusal::Refusal;

/// The newest [`limits::REFUSED`] of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Refusals {
    by_op: BTreeMap<OpId, Refusal>,
    oldest_first: VecDeque<OpId>,
}

impl Refusals {
    pub(super) fn of(&self, op: OpId) -> Option<&Refusal> {
        self.by_op.get(&op)
    }

    /// Remembers a refusal that may end the operation. After the others the coordinator asks again.
    pub(super) fn remember(&mut self, op: OpId, refusal: &Refusal) {
        let is_final = matches!(
            refusal,
            Refusal::DiskFull | Refusal::TooManySiblings | Refusal::InvalidContext | Refusal::TooLarge { .. }
        );
        if !is_final || planted(Mutant::RefusalForgotten) {
            return;
        }
        if self.by_op.insert(op, refusal.clone()).is_some() {
            return;
        }
        self.oldest_first.push_back(op);
        if self.oldest_first.len() > limits::REFUSED {
            let forgotten = self.oldest_first.pop_front();
            forgotten.map(|op| self.by_op.remove(&op));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Generation, NodeId};

    #[test]
    fn the_newest_are_remembered_and_only_those_that_are_final() {
        let mut refusals = Refusals::default();
        let op = |seq: usize| OpId { node: NodeId::small(1), generation: Generation(1), seq: seq as u64 };
        refusals.remember(op(0), &Refusal::NotAnOwner);
        assert_eq!(refusals.of(op(0)), None);
        for n in 1..=limits::REFUSED + 1 {
            refusals.remember(op(n), &Refusal::DiskFull);
            refusals.remember(op(n), &Refusal::DiskFull);
        }
        assert_eq!(refusals.of(op(1)), None);
        assert_eq!(refusals.of(op(2)), Some(&Refusal::DiskFull));
        assert_eq!(refusals.by_op.len(), limits::REFUSED);
    }
}

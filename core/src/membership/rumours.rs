//! Claims that still have to spread, the least told first.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::id::NodeId;
use crate::limits;
use crate::member::Member;

/// At most one rumour per member: a newer claim replaces an older one and starts afresh.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Rumours(BTreeMap<NodeId, Rumour>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Rumour {
    claim: Arc<Member>,
    sent: u32,
}

impl Rumours {
    pub(super) fn add(&mut self, claim: Arc<Member>) {
        self.0.insert(claim.id, Rumour { claim, sent: 0 });
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The claims for a message to `targets` members; each is dropped once it has been sent `sends` times.
    pub(super) fn take(&mut self, targets: usize, sends: u32) -> Vec<Arc<Member>> {
        if targets == 0 || self.0.is_empty() {
            return Vec::new();
        }
        let mut order: Vec<(u32, NodeId)> = self.0.iter().map(|(&id, rumour)| (rumour.sent, id)).collect();
        order.sort_unstable();
        let chosen = order.into_iter().take(limits::RUMOURS_PER_MESSAGE).map(|(_, id)| id);
        chosen.filter_map(|id| self.tell(id, targets as u32, sends)).collect()
    }

    fn tell(&mut self, id: NodeId, targets: u32, sends: u32) -> Option<Arc<Member>> {
        let rumour = self.0.get_mut(&id)?;
        rumour.sent += targets;
        let claim = rumour.claim.clone();
        if rumour.sent >= sends {
            self.0.remove(&id);
        }
        Some(claim)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Generation, Storage};
    use crate::member::{Class, Durability, Profile, State};

    fn claim(n: u8) -> Arc<Member> {
        let name = alloc::string::String::new();
        let profile = Profile::new(name, Class::Server, Durability::Durable, Storage::default());
        Arc::new(Member {
            id: NodeId::small(n),
            generation: Generation(1),
            incarnation: 0,
            state: State::Alive,
            accuser: None,
            profile,
        })
    }

    #[test]
    fn a_rumour_is_told_as_often_as_asked_and_then_rests() {
        let mut rumours = Rumours::default();
        rumours.add(claim(1));
        let told = (0..10).filter(|_| !rumours.take(2, 6).is_empty()).count();
        assert_eq!(told, 3);
        assert!(rumours.is_empty());
    }

    #[test]
    fn the_least_told_go_first() {
        let mut rumours = Rumours::default();
        (1..=limits::RUMOURS_PER_MESSAGE as u8 + 1).for_each(|n| rumours.add(claim(n)));
        rumours.take(1, 9);
        let last = NodeId::small(limits::RUMOURS_PER_MESSAGE as u8 + 1);
        assert_eq!(rumours.take(1, 9)[0].id, last);
    }
}

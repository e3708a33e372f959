//! The links of a node: who is linked, where a packet goes next, and whom to dial.
//!
//! One link per peer. When two servers dial each other at the same moment, both keep the one that the smaller id
//! dialled, so they agree without a word.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use qunlong_core::NodeId;
use qunlong_core::member::{Class, State};
use qunlong_core::view::View;
use qunlong_core::wire::{DecodeError, Side};
use tokio::sync::{mpsc, watch};

use crate::link::{Outgoing, QUEUE};

/// Redialling waits between these, doubling.
const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Two links between the same two servers count as crossing when they were made within this time.
const CROSSING: Duration = Duration::from_secs(5);

/// An open link.
#[derive(Debug)]
struct Link {
    id: u64,
    /// Which side of it this node is.
    side: Side,
    since: Instant,
    queue: mpsc::Sender<Outgoing>,
    close: watch::Sender<Option<DecodeError>>,
}

/// A peer that should be linked.
#[derive(Debug)]
struct Dial {
    /// Named by the operator: kept for good. Others are kept while gossip knows their server.
    is_seed: bool,
    not_before: Instant,
    wait: Duration,
    running: bool,
    /// Known once a link to the address was made.
    peer: Option<NodeId>,
}

/// All links.
#[derive(Debug)]
pub(crate) struct Hub {
    me: NodeId,
    my_address: String,
    links: BTreeMap<NodeId, Link>,
    next_id: u64,
    /// Peers whose packets are dropped both ways, by order of the demonstration.
    cuts: BTreeSet<NodeId>,
    dials: BTreeMap<String, Dial>,
    /// Packets that found their queue full or no way to go.
    dropped: u64,
}

/// What became of a new link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Added {
    /// The first to this peer.
    New(u64),
    /// It takes the place of an older one.
    Replaced(u64),
    /// The older one stays.
    Refused,
}

impl Hub {
    pub(crate) fn new(me: NodeId, my_address: String, seeds: &[String]) -> Self {
        let dials = seeds.iter().map(|seed| (seed.clone(), Dial { is_seed: true, ..Dial::new() })).collect();
        Self { me, my_address, links: BTreeMap::new(), next_id: 0, cuts: BTreeSet::new(), dials, dropped: 0 }
    }

    pub(crate) fn add(
        &mut self,
        peer: NodeId,
        side: Side,
        queue: mpsc::Sender<Outgoing>,
        close: watch::Sender<Option<DecodeError>>,
        address: Option<&str>,
    ) -> Added {
        let before = self.links.get(&peer).map(|link| (link.side, link.since));
        // Only links made at the same moment cross; an older one that is dialled again has died unnoticed.
        let crosses = |(before, since): (Side, Instant)| before != side && since.elapsed() < CROSSING;
        if before.is_some_and(crosses) && side != self.preferred(peer) {
            return Added::Refused;
        }
        if let Some(dial) = address.and_then(|address| self.dials.get_mut(address)) {
            dial.peer = Some(peer);
            dial.wait = BACKOFF_MIN;
        }
        self.next_id += 1;
        self.links.insert(peer, Link { id: self.next_id, side, since: Instant::now(), queue, close });
        if before.is_some() { Added::Replaced(self.next_id) } else { Added::New(self.next_id) }
    }

    /// The side that this node is on in the link that both keep.
    fn preferred(&self, peer: NodeId) -> Side {
        if self.me < peer { Side::Dialer } else { Side::Listener }
    }

    /// A link closed. Whether that leaves the peer without one.
    pub(crate) fn remove(&mut self, id: u64, peer: NodeId) -> bool {
        let is_current = self.is_current(id, peer);
        if is_current {
            self.links.remove(&peer);
        }
        is_current
    }

    /// Whether this is the link that counts; what an older one still brings is dropped.
    pub(crate) fn is_current(&self, id: u64, peer: NodeId) -> bool {
        self.links.get(&peer).is_some_and(|link| link.id == id)
    }

    /// Hangs up on a peer that sent nonsense.
    pub(crate) fn hang_up(&mut self, peer: NodeId, why: DecodeError) -> bool {
        match self.links.remove(&peer) {
            Some(link) => {
                let _ = link.close.send(Some(why));
                true
            }
            None => false,
        }
    }

    pub(crate) fn peers(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.links.keys().copied()
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Sends a packet one hop on. `is_gossip` packets give way first when the queue fills.
    pub(crate) fn send(&mut self, next: Option<NodeId>, packet: Outgoing, is_gossip: bool) {
        let link = next.filter(|next| !self.cuts.contains(next)).and_then(|next| self.links.get(&next));
        let Some(link) = link else {
            self.dropped += 1;
            return;
        };
        let gives_way = is_gossip && link.queue.capacity() < QUEUE / 2;
        if gives_way || link.queue.try_send(packet).is_err() {
            self.dropped += 1;
        }
    }

    pub(crate) fn is_cut(&self, peer: NodeId) -> bool {
        self.cuts.contains(&peer)
    }

    pub(crate) fn set_cut(&mut self, peer: NodeId, cut: bool) {
        if cut {
            self.cuts.insert(peer);
        } else {
            self.cuts.remove(&peer);
        }
    }

    pub(crate) fn cuts(&self) -> Vec<NodeId> {
        self.cuts.iter().copied().collect()
    }

    /// The addresses to dial now: seeds, and servers that gossip knows, where there is no link.
    pub(crate) fn due_dials(&mut self, view: &View, now: Instant) -> Vec<String> {
        for member in view.members.values().filter(|member| member.id != self.me) {
            let Some(address) = &member.profile.address else { continue };
            if member.profile.class == Class::Server && member.state != State::Left && *address != self.my_address {
                let dial = self.dials.entry(address.clone()).or_insert_with(|| {
                    let mut dial = Dial::new();
                    // The smaller id dials at once; the other waits for it, and dials if nothing comes.
                    if self.me > member.id {
                        dial.not_before = now + Duration::from_secs(1);
                    }
                    dial
                });
                dial.peer = Some(member.id);
            }
        }
        let is_wanted = |address: &String, dial: &Dial| {
            dial.is_seed
                || dial.running
                || view.members.values().any(|m| m.profile.address.as_ref() == Some(address) && m.state != State::Left)
        };
        self.dials.retain(|address, dial| is_wanted(address, dial));
        let mut due = Vec::new();
        for (address, dial) in &mut self.dials {
            let linked = dial.peer.is_some_and(|peer| peer == self.me || self.links.contains_key(&peer));
            if linked || dial.running || now < dial.not_before {
                continue;
            }
            dial.running = true;
            due.push(address.clone());
        }
        due
    }

    /// Who is known to listen at an address.
    pub(crate) fn listens_at(&self, address: &str) -> Option<NodeId> {
        self.dials.get(address)?.peer.filter(|&peer| peer != self.me)
    }

    /// A dial, or the link it made, has ended.
    pub(crate) fn dial_ended(&mut self, address: &str, was_myself: bool) {
        if let Some(dial) = self.dials.get_mut(address) {
            dial.running = false;
            dial.not_before = Instant::now() + dial.wait;
            dial.wait = (dial.wait * 2).min(BACKOFF_MAX);
            if was_myself {
                dial.peer = Some(self.me);
            }
        }
    }
}

impl Dial {
    fn new() -> Self {
        Self { is_seed: false, not_before: Instant::now(), wait: BACKOFF_MIN, running: false, peer: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(hub: &mut Hub, peer: u8, side: Side) -> Added {
        hub.add(NodeId::small(peer), side, mpsc::channel(1).0, watch::channel(None).0, None)
    }

    #[test]
    fn of_two_crossing_links_both_ends_keep_the_same() {
        for order in [[Side::Dialer, Side::Listener], [Side::Listener, Side::Dialer]] {
            let mut small = Hub::new(NodeId::small(1), String::new(), &[]);
            let mut large = Hub::new(NodeId::small(2), String::new(), &[]);
            for side in order {
                add(&mut small, 2, side);
                add(&mut large, 1, if side == Side::Dialer { Side::Listener } else { Side::Dialer });
            }
            assert_eq!(small.links[&NodeId::small(2)].side, Side::Dialer);
            assert_eq!(large.links[&NodeId::small(1)].side, Side::Listener);
        }
    }

    #[test]
    fn a_redial_replaces_a_link_that_died_unnoticed() {
        let mut hub = Hub::new(NodeId::small(1), String::new(), &[]);
        assert_eq!(add(&mut hub, 2, Side::Dialer), Added::New(1));
        assert_eq!(add(&mut hub, 2, Side::Dialer), Added::Replaced(2));
        assert!(!hub.remove(1, NodeId::small(2)), "the old one's end is no news");
        assert!(hub.remove(2, NodeId::small(2)));
    }

    #[test]
    fn gossip_gives_way_before_data() {
        let mut hub = Hub::new(NodeId::small(1), String::new(), &[]);
        let (queue, _kept) = mpsc::channel(QUEUE);
        hub.add(NodeId::small(2), Side::Dialer, queue, watch::channel(None).0, None);
        let packet = || {
            let body = tokio_tungstenite::tungstenite::Bytes::new();
            Outgoing { to: NodeId::small(2), from: NodeId::small(1), hops: 0, body }
        };
        for _ in 0..=QUEUE / 2 {
            hub.send(Some(NodeId::small(2)), packet(), false);
        }
        hub.send(Some(NodeId::small(2)), packet(), true);
        assert_eq!(hub.dropped(), 1);
        hub.send(Some(NodeId::small(2)), packet(), false);
        assert_eq!(hub.dropped(), 1);
    }
}

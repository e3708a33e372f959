//! The owner's side: promise, accept, report. Update, persist, send.

use super::{Msg, Record, Registers, Store};
use crate::bytes::Bytes;
use crate::cell::Cell;
use crate::id::{Epoch, NodeId};
use crate::mutant::{Mutant, planted};
use crate::paxos::{Acceptor, Ballot};
use crate::protocol::{Ctx, Effects};

/// Whether a proposer's question is one that this node answers: it owns the key in that very epoch, with the storage that
/// its seat was given to, and so does the proposer, whose own ballot it is.
pub(super) fn may_propose(cx: &Ctx<'_>, from: NodeId, epoch: Epoch, key: &[u8], ballot: Ballot) -> bool {
    let owns = |node| cx.view.chosen.as_ref().is_some_and(|chosen| chosen.owners_of(key).contains(node));
    let recovers = cx.view.chosen.as_ref().is_some_and(|chosen| chosen.config.recovers.is_some());
    // Of a lost majority every survivor is asked, whether it is to own the key or not.
    let is_asked = cx.check_owner(epoch, key).is_ok() || (recovers && cx.check_epoch(epoch).is_ok() && cx.is_seated());
    is_asked && owns(from) && ballot.node == from
}

impl Store {
    pub(super) fn on_prepare(&mut self, from: NodeId, key: Bytes, ballot: Ballot, fx: &mut Effects<Registers>) {
        let acceptor = self.entry(&key);
        let before = acceptor.promised();
        match acceptor.prepare(ballot) {
            Ok(accepted) => {
                if before != ballot {
                    fx.persist(Record::Promised { key: key.clone(), ballot });
                }
                fx.send(from, Msg::Promise { key, ballot, accepted });
            }
            // A refusal promises nothing.
            Err(promised) => fx.send_now(from, Msg::Outbid { key, ballot, promised }),
        }
    }

    pub(super) fn on_accept(
        &mut self,
        from: NodeId,
        key: Bytes,
        (ballot, cell): (Ballot, Cell),
        next: Ballot,
        fx: &mut Effects<Registers>,
    ) {
        if !cell.is_sound() || next <= ballot {
            return;
        }
        let before = self.get(&key).and_then(Acceptor::accepted).map(|(ballot, _)| ballot);
        match self.update(&key, |acceptor| acceptor.accept_and_promise(ballot, cell, next)) {
            Ok(promised) => {
                if before != Some(ballot) {
                    let acceptor = self.entry(&key).clone();
                    fx.persist(Record::Register { key: key.clone(), acceptor });
                }
                fx.send(from, Msg::Accepted { key, ballot, promised });
            }
            // A refusal accepts nothing.
            Err(promised) => fx.send_now(from, Msg::Outbid { key, ballot, promised }),
        }
    }

    pub(super) fn on_report(&self, from: NodeId, key: Bytes, round: u64, fx: &mut Effects<Registers>) {
        let accepted = self.get(&key).and_then(|acceptor| acceptor.accepted());
        let accepted = accepted.map(|(ballot, cell)| (ballot, cell.clone()));
        fx.send(from, Msg::Reported { key, round, accepted });
    }
}

/// The epoch has changed: drops what this node does not own in it. By then the owners of it have everything; and whoever
/// comes back as an owner begins as a newcomer does, for no quorum of the epochs between has counted it.
pub(super) fn leave(store: &mut Store, cx: &Ctx<'_>, fx: &mut Effects<Registers>) {
    let Some(chosen) = &cx.view.chosen else { return };
    if chosen.config.recovers.is_some() || planted(Mutant::StaleDataKept) {
        return;
    }
    for partition in store.partitions() {
        let owners = chosen.owners(partition);
        let early = planted(Mutant::DroppedEarly) && owners.next.is_some_and(|next| !next.contains(&cx.me));
        if owners.contains(cx.me) && !early {
            continue;
        }
        for key in store.leave(partition) {
            fx.persist(Record::Promised { key: key.clone(), ballot: Ballot::NONE });
            fx.persist(Record::Removed { key });
        }
    }
}

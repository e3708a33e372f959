//! The owner's side: read, mint, merge, list. Check staleness, update, persist, send, trace.

use alloc::vec::Vec;

use super::{Event, Kv, Msg, Record, Store, Write};
use crate::bytes::Bytes;
use crate::id::{Epoch, NodeId, OpId};
use crate::limits;
use crate::placement::Partition;
use crate::protocol::{Ctx, Effects};
use crate::refusal::Refusal;
use crate::version::{Dot, Sibling, Versions};

impl Store {
    pub(super) fn on_read(&self, cx: &Ctx<'_>, op: OpId, epoch: Epoch, key: &Bytes, fx: &mut Effects<Kv>) {
        match check_owner(cx, epoch, key) {
            Ok(()) => {
                let versions = self.get(key).cloned().unwrap_or_default();
                fx.send(op.node, Msg::ReadReply { op, versions });
            }
            Err(refusal) => refuse(op, refusal, fx),
        }
    }

    pub(super) fn on_mint(&mut self, cx: &Ctx<'_>, op: OpId, epoch: Epoch, write: Write, fx: &mut Effects<Kv>) {
        let Write { id, key, value, context } = write;
        let minted = check_owner(cx, epoch, &key).and_then(|()| {
            check_size(&key, value.as_ref())?;
            let mut versions = self.get(&key).cloned().unwrap_or_default();
            if let Some(dot) = versions.dot_of(id) {
                return Ok((dot, versions));
            }
            let counter = self.counter(Partition::of(&key));
            if context.counter(cx.me) > counter {
                return Err(Refusal::InvalidContext);
            }
            if versions.siblings_after(&context) > limits::SIBLINGS {
                return Err(Refusal::TooManySiblings);
            }
            let dot = Dot { node: cx.me, counter: counter + 1 };
            versions.write(Sibling { dot, write: id, value }, &context);
            self.keep(cx, key.clone(), versions.clone(), fx);
            Ok((dot, versions))
        });
        match minted {
            Ok((dot, versions)) => {
                fx.send(op.node, Msg::Stored { op, dot, context: versions.context().clone() });
                let others = other_owners(cx, &key);
                if !others.is_empty() {
                    fx.send_all(others, Msg::Store { op, epoch, key: key.clone(), dot, versions });
                }
                fx.trace(|| Event::Minted { op, key, dot });
            }
            Err(refusal) => refuse(op, refusal, fx),
        }
    }

    pub(super) fn on_store(
        &mut self,
        cx: &Ctx<'_>,
        (op, epoch): (OpId, Epoch),
        key: Bytes,
        dot: Dot,
        theirs: &Versions,
        fx: &mut Effects<Kv>,
    ) {
        if let Err(refusal) = check_owner(cx, epoch, &key) {
            return refuse(op, refusal, fx);
        }
        if !is_acceptable(&key, theirs) || !theirs.context().covers(dot) {
            return refuse(op, Refusal::InvalidContext, fx);
        }
        let context = self.take_in(cx, key, theirs, fx).context().clone();
        fx.send(op.node, Msg::Stored { op, dot, context });
    }

    pub(super) fn on_list(
        &self,
        cx: &Ctx<'_>,
        (op, epoch): (OpId, Epoch),
        prefix: &Bytes,
        after: Option<&Bytes>,
        limit: u32,
        fx: &mut Effects<Kv>,
    ) {
        if let Err(refusal) = check_epoch(cx, epoch) {
            return refuse(op, refusal, fx);
        }
        let limit = limit.clamp(1, limits::LIST_KEYS) as usize;
        let mut entries: Vec<(Bytes, Versions)> = Vec::new();
        let mut stopped = None;
        let mut weight = 0;
        for (key, versions) in self.list(prefix, after, limit + 1) {
            weight += key.len() + versions.weight();
            if !entries.is_empty() && (entries.len() == limit || weight > limits::LIST_BYTES) {
                stopped = entries.last().map(|(key, _)| key.clone());
                break;
            }
            entries.push((key.clone(), versions.clone()));
        }
        fx.send(op.node, Msg::ListReply { op, entries, stopped });
    }

    /// Merges what a peer knows of a key and keeps the result if that was news. Returns what is held now.
    pub(super) fn take_in(&mut self, cx: &Ctx<'_>, key: Bytes, theirs: &Versions, fx: &mut Effects<Kv>) -> Versions {
        let mut versions = self.get(&key).cloned().unwrap_or_default();
        if versions.merge(theirs) {
            self.keep(cx, key, versions.clone(), fx);
        }
        versions
    }

    fn keep(&mut self, cx: &Ctx<'_>, key: Bytes, versions: Versions, fx: &mut Effects<Kv>) {
        let counter = self.put(cx.me, key.clone(), versions.clone());
        fx.persist(Record::Key { counter, key, versions });
    }
}

/// Whether versions from a peer may be merged at all.
pub(super) fn is_acceptable(key: &Bytes, versions: &Versions) -> bool {
    versions.is_sound() && versions.siblings().iter().all(|sibling| check_size(key, sibling.value.as_ref()).is_ok())
}

pub(super) fn check_size(key: &Bytes, value: Option<&Bytes>) -> Result<(), Refusal> {
    if key.is_empty() || key.len() > limits::KEY_BYTES {
        return Err(Refusal::TooLarge { limit: limits::KEY_BYTES as u32 });
    }
    match value {
        Some(value) if value.len() > limits::VALUE_BYTES => {
            Err(Refusal::TooLarge { limit: limits::VALUE_BYTES as u32 })
        }
        _ => Ok(()),
    }
}

pub(super) fn check_epoch(cx: &Ctx<'_>, theirs: Epoch) -> Result<(), Refusal> {
    let mine = cx.view.epoch();
    if mine == Epoch(0) {
        return Err(Refusal::NoEpoch);
    }
    if mine != theirs {
        return Err(Refusal::WrongEpoch { mine, theirs });
    }
    Ok(())
}

fn check_owner(cx: &Ctx<'_>, epoch: Epoch, key: &Bytes) -> Result<(), Refusal> {
    check_epoch(cx, epoch)?;
    let owns = cx.view.chosen.as_ref().is_some_and(|chosen| chosen.placement.owners_of(key).contains(&cx.me));
    if owns { Ok(()) } else { Err(Refusal::NotAnOwner) }
}

fn other_owners(cx: &Ctx<'_>, key: &Bytes) -> Vec<NodeId> {
    let owners = cx.view.chosen.as_ref().map(|chosen| chosen.placement.owners_of(key)).unwrap_or_default();
    owners.iter().copied().filter(|&owner| owner != cx.me).collect()
}

fn refuse(op: OpId, refusal: Refusal, fx: &mut Effects<Kv>) {
    // A refusal changes nothing, here or later.
    fx.send_now(op.node, Msg::Refused { op, refusal });
}

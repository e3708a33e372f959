//! The owner's side: read, mint, merge, list. Check staleness, update, persist, send, trace.

use alloc::vec::Vec;

use super::{Event, Kv, Msg, Record, Store, Write, collect};
use crate::bytes::Bytes;
use crate::id::{Epoch, NodeId, OpId, Round};
use crate::limits;
use crate::mutant::{Mutant, planted};
use crate::placement::Partition;
use crate::protocol::{Ctx, Effects};
use crate::refusal::Refusal;
use crate::version::{Context, Dot, Sibling, Versions};

/// Bytes of a key's versions that still fit one message with everything around them.
const MERGED_BYTES: usize = limits::MESSAGE_BYTES - limits::KEY_BYTES - 1_024;

impl Store {
    pub(super) fn on_read(
        &self,
        cx: &Ctx<'_>,
        (op, epoch, round): (OpId, Epoch, Round),
        key: &Bytes,
        fx: &mut Effects<Kv>,
    ) {
        match cx.check_owner(epoch, key) {
            Ok(()) => {
                let partition = Partition::of(key);
                if round > self.round(partition) {
                    collect::catch_up(self, cx, partition, round, fx);
                }
                let versions = self.get(key).cloned().unwrap_or_default();
                let reply = Msg::ReadReply { op, round: self.round(partition), versions };
                if planted(Mutant::ReadBeforeSync) {
                    // A mistake on purpose.
                    return fx.send_now(op.node, reply);
                }
                fx.send(op.node, reply);
            }
            Err(refusal) => refuse(op, refusal, fx),
        }
    }

    /// Mints a dot for a write and sends the result around; of a write that is here already, the dot it has.
    ///
    /// # Errors
    ///
    /// Why not; nothing was changed.
    pub(super) fn on_mint(
        &mut self,
        cx: &Ctx<'_>,
        (op, epoch, round): (OpId, Epoch, Round),
        write: Write,
        fx: &mut Effects<Kv>,
    ) -> Result<(), Refusal> {
        let Write { id, key, value, context } = write;
        let minted = cx.check_owner(epoch, &key).and_then(|()| {
            check_size(&key, value.as_ref())?;
            self.check_round(cx, Partition::of(&key), round, fx)?;
            if self.lacks(Partition::of(&key)) && !planted(Mutant::MintedTooEarly) {
                return Err(Refusal::CatchingUp);
            }
            let mut versions = self.get(&key).cloned().unwrap_or_default();
            if let Some(dot) = versions.dot_of(id) {
                return Ok((dot, versions));
            }
            if cx.disk_full {
                return Err(Refusal::DiskFull);
            }
            if planted(Mutant::MintForgetsHeld) {
                versions = Versions::default();
            }
            let counter = self.counter(Partition::of(&key));
            if context.seen.counter(cx.me) > counter || !is_plausible(cx, &context, &versions) {
                return Err(Refusal::InvalidContext);
            }
            let value_bytes = value.as_ref().map_or(0, |value| value.len());
            if versions.siblings_after(&context.seen) > limits::SIBLINGS
                || versions.weight() + value_bytes > weight_max(cx)
            {
                return Err(Refusal::TooManySiblings);
            }
            let dot = Dot { node: cx.me, counter: counter.checked_add(1).ok_or(Refusal::InvalidContext)? };
            versions.write(Sibling { dot, write: id, context: context.seen, value }, &context.writes);
            self.keep(cx, key.clone(), versions.clone(), fx);
            Ok((dot, versions))
        });
        let (dot, versions) = minted?;
        let seen = if planted(Mutant::ContextTooWide) { versions.to_context() } else { versions.seen_by(id) };
        fx.send(op.node, Msg::Stored { op, dot, context: Some(seen) });
        let others = other_owners(cx, &key);
        if !others.is_empty() {
            let round = self.round(Partition::of(&key));
            fx.send_all(others, Msg::Store { op, epoch, round, key: key.clone(), dot, versions });
        }
        fx.trace(|| Event::Minted { op, key, dot });
        Ok(())
    }

    pub(super) fn on_store(
        &mut self,
        cx: &Ctx<'_>,
        from: NodeId,
        (op, epoch, round): (OpId, Epoch, Round),
        key: Bytes,
        (dot, theirs): (Dot, &Versions),
        fx: &mut Effects<Kv>,
    ) {
        if let Err(refusal) = cx.check_owner(epoch, &key) {
            return refuse(op, refusal, fx);
        }
        let partition = Partition::of(&key);
        if let Err(refusal) = self.check_round(cx, partition, round, fx) {
            if other_owners(cx, &key).contains(&from) {
                collect::settle_round(self, cx, from, partition, round, fx);
            }
            return refuse(op, refusal, fx);
        }
        if !is_acceptable(&key, theirs) || !theirs.context().covers(dot) {
            return refuse(op, Refusal::InvalidContext, fx);
        }
        if self.take_in(cx, key, theirs, Mutant::StoreReplaces, fx).is_none() {
            return;
        }
        fx.send(op.node, Msg::Stored { op, dot, context: None });
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
        if let Err(refusal) = cx.check_epoch(epoch) {
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
        fx.send(op.node, Msg::ListReply { op, rounds: self.rounds().collect(), entries, stopped });
    }

    /// Refuses what is from before the last collection, and looks for a later one that somebody else knows of.
    pub(super) fn check_round(
        &self,
        cx: &Ctx<'_>,
        partition: Partition,
        theirs: Round,
        fx: &mut Effects<Kv>,
    ) -> Result<(), Refusal> {
        let mine = self.round(partition);
        if theirs < mine && !planted(Mutant::RoundIgnored) {
            return Err(Refusal::StaleRound { mine, theirs });
        }
        if theirs > mine {
            collect::catch_up(self, cx, partition, theirs, fx);
        }
        Ok(())
    }

    /// Merges what a peer knows of a key and keeps the result if that was news. Returns what is held now; `None` if
    /// that would be more than a message can carry, which owners that keep to [`weight_max`] never send each other.
    pub(super) fn take_in(
        &mut self,
        cx: &Ctx<'_>,
        key: Bytes,
        theirs: &Versions,
        mistake: Mutant,
        fx: &mut Effects<Kv>,
    ) -> Option<Versions> {
        let replaces = planted(mistake);
        let mut versions = self.get(&key).cloned().unwrap_or_default();
        if replaces {
            versions = Versions::default();
        }
        if versions.merge(theirs) {
            if versions.weight() > MERGED_BYTES {
                return None;
            }
            self.keep(cx, key, versions.clone(), fx);
        }
        Some(versions)
    }

    fn keep(&mut self, cx: &Ctx<'_>, key: Bytes, mut versions: Versions, fx: &mut Effects<Kv>) {
        if planted(Mutant::DeleteLeavesNothing) && versions.is_deleted() {
            versions = Versions::default();
        }
        let counter = self.put(cx.me, cx.now.mono, key.clone(), versions.clone());
        fx.persist(Record::Key { counter, key, versions });
    }
}

/// Whether versions from a peer may be merged at all.
pub(super) fn is_acceptable(key: &Bytes, versions: &Versions) -> bool {
    versions.is_sound() && versions.siblings().iter().all(|sibling| check_size(key, sibling.value.as_ref()).is_ok())
}

/// Whether a client's context can come from a read: it names owners only, and counts that they may have reached.
fn is_plausible(cx: &Ctx<'_>, context: &Context, held: &Versions) -> bool {
    let Some(chosen) = &cx.view.chosen else { return false };
    context.is_sound()
        && context.seen.iter().all(|dot| {
            let known = held.context().counter(dot.node);
            let is_owner = known > 0 || chosen.config.seats(dot.node);
            is_owner && dot.counter <= known.saturating_add(limits::CONTEXT_AHEAD)
        })
}

/// Bytes of a key's versions at the owner that mints the next: every owner may have as many before they meet, and
/// what they merge to must still fit one message.
fn weight_max(cx: &Ctx<'_>) -> usize {
    let replicas = cx.view.chosen.as_ref().map_or(1, |chosen| usize::from(chosen.config.copies().most()));
    limits::MESSAGE_BYTES / (replicas + 1)
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

fn other_owners(cx: &Ctx<'_>, key: &Bytes) -> Vec<NodeId> {
    let owners = cx.view.chosen.as_ref().into_iter().flat_map(|chosen| chosen.owners_of(key).all());
    owners.filter(|&owner| owner != cx.me).collect()
}

pub(super) fn refuse(op: OpId, refusal: Refusal, fx: &mut Effects<Kv>) {
    // A refusal changes nothing, here or later.
    fx.send_now(op.node, Msg::Refused { op, refusal });
}

//! Pages that a learner has fetched, kept apart from what it stores until an owner of the joint epoch says that it holds
//! just the same.
//!
//! They were true when they came, before the change began, and may not be any more: keys were written since, or deleted
//! and forgotten. So none of it is stored as it is. Its digest goes along when the same range is asked for, and the
//! answer decides.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::store::digest;
use super::transfer::{Msg, Pull, Range};
use super::{Kv, Store};
use crate::bytes::Bytes;
use crate::id::Round;
use crate::placement::Partition;
use crate::protocol::{Ctx, Effects};
use crate::version::Versions;

/// What has been learnt, by partition, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Learnt(BTreeMap<Partition, Vec<Page>>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Page {
    range: Range,
    round: Round,
    digest: u64,
    entries: Vec<(Bytes, Versions)>,
}

impl Learnt {
    /// Keeps a page.
    pub(super) fn keep(&mut self, partition: Partition, round: Round, range: Range, entries: Vec<(Bytes, Versions)>) {
        let digest = entries.iter().fold(0, |all, (key, versions)| all ^ digest(key, versions));
        self.0.entry(partition).or_default().push(Page { range, round, digest, entries });
    }

    /// Forgets all but these partitions.
    pub(super) fn keep_only(&mut self, partitions: &[Partition]) {
        self.0.retain(|partition, _| partitions.contains(partition));
    }

    /// Forgets a partition.
    pub(super) fn drop(&mut self, partition: Partition) {
        self.0.remove(&partition);
    }

    /// The page of just this range; it is not kept any longer.
    pub(super) fn take(&mut self, partition: Partition, range: &Range) -> Vec<(Bytes, Versions)> {
        let Some(pages) = self.0.get_mut(&partition) else { return Vec::new() };
        let place = pages.iter().position(|page| page.range == *range);
        place.map(|place| pages.remove(place).entries).unwrap_or_default()
    }

    /// Asks for what lies behind a key. Where a page was learnt, only for its range, with its digest; where none was, for
    /// the rest, and of a whole partition with the digest of what is stored.
    pub(super) fn ask(
        &self,
        store: &Store,
        cx: &Ctx<'_>,
        partition: Partition,
        pull: &mut Pull,
        after: Option<Bytes>,
        fx: &mut Effects<Kv>,
    ) {
        let pages = self.0.get(&partition);
        let page = pages.into_iter().flatten().find(|page| page.range.upto.is_none() || page.range.upto > after);
        let upto = page.and_then(|page| page.range.upto.clone());
        let is_whole = after.is_none() && upto.is_none();
        pull.range = Range { after, upto };
        let (round, digest) = match page.filter(|page| page.range == pull.range) {
            Some(page) => (page.round, Some(page.digest)),
            None => (store.round(partition), is_whole.then(|| store.digest_of(partition))),
        };
        let (epoch, range) = (cx.view.epoch(), pull.range.clone());
        // A question; that this node is in this epoch is durable before the answer counts.
        fx.send(pull.from, super::Msg::Transfer(Msg::Pull { epoch, partition, range, round, digest }));
    }
}

//! The owner's side of watches: tells those who watch which registers may have changed.
//!
//! ```text
//!   W ── Watch(list) ──▶ all storage members, again and again, for as long as anybody watches through W
//!   owner ── Watching(which list, how many hints so far) ──▶ W
//!   owner accepts a content, a moment passes ── Touched(which hint, keys) ──▶ W, which reads (`feeds.rs`)
//! ```
//!
//! **A hint proves nothing.** It says that a content was accepted, not which one, and nothing is told to anybody but what a
//! read returns. It waits for a moment, so that the round that has the content accepted can come to its end: a read before
//! would have to end it itself.
//!
//! **A hint may be lost**, and that is noticed: hints are counted, and each answer to a `Watch` says how many there were.
//! What a majority has accepted, an owner of every other majority has; so whoever hears from enough of them misses nothing,
//! and whoever heard from too few looks at everything again.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::{Msg, Registers, Timer};
use crate::bytes::Bytes;
use crate::id::NodeId;
use crate::limits;
use crate::protocol::{Ctx, Effects};
use crate::time::{Duration, Instant};

/// Who does not ask again for so long is told nothing any more.
const LEASE: Duration = Duration::secs(10);
/// How long a hint waits.
const MOMENT: Duration = Duration::millis(10);

/// What is watched: one register, or all whose keys begin so.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Watched {
    /// The key, or what it begins with.
    pub key: Bytes,
    /// Whether it is only the beginning.
    pub is_prefix: bool,
}

/// A list of hints, by an owner that may have begun to count anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Count {
    /// Of which boot the owner is, and how many watchers it has had in that before.
    pub since: (u64, u64),
    /// Hints since then.
    pub hints: u64,
}

/// Who watches, as an owner knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Hints {
    watchers: BTreeMap<NodeId, Watcher>,
    had: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Watcher {
    list: u64,
    watched: Vec<Watched>,
    until: Instant,
    count: Count,
    touched: BTreeSet<Bytes>,
}

impl Watched {
    /// Whether a register is meant. Those of namespaces are no part of those of none.
    pub(super) fn is_of(&self, key: &Bytes) -> bool {
        let is_inside = key.first() == Some(&0) && self.key.first() != Some(&0);
        if self.is_prefix { key.starts_with(&self.key) && !is_inside } else { *key == self.key }
    }
}

impl Hints {
    /// Somebody watches.
    pub(super) fn on_watch(
        &mut self,
        cx: &Ctx<'_>,
        from: NodeId,
        (list, mut watched): (u64, Vec<Watched>),
        fx: &mut Effects<Registers>,
    ) {
        self.watchers.retain(|_, watcher| watcher.until > cx.now.mono);
        if !cx.is_seated() || !self.watchers.contains_key(&from) && self.watchers.len() >= limits::WATCHERS {
            return;
        }
        watched.truncate(limits::FEEDS);
        let (since, until) = ((cx.generation.0, self.had), cx.now.mono + LEASE);
        let watcher = self.watchers.entry(from).or_insert_with(|| {
            self.had += 1;
            let count = Count { since, hints: 0 };
            Watcher { list: 0, watched: Vec::new(), until, count, touched: BTreeSet::new() }
        });
        watcher.until = until;
        if list >= watcher.list {
            (watcher.list, watcher.watched) = (list, watched);
        }
        // What this node will tell, and nothing that it keeps.
        fx.send_now(from, Msg::Watching { list: watcher.list, count: watcher.count });
    }

    /// This owner has accepted something.
    pub(super) fn touch(&mut self, cx: &Ctx<'_>, key: &Bytes, fx: &mut Effects<Registers>) {
        let is_quiet = self.watchers.values().all(|watcher| watcher.touched.is_empty());
        for watcher in self.watchers.values_mut().filter(|watcher| watcher.until > cx.now.mono) {
            if watcher.watched.iter().any(|watched| watched.is_of(key)) {
                watcher.touched.insert(key.clone());
            }
        }
        if is_quiet && self.watchers.values().any(|watcher| !watcher.touched.is_empty()) {
            fx.arm(MOMENT, Timer::Hints);
        }
    }

    pub(super) fn on_timer(&mut self, fx: &mut Effects<Registers>) {
        let mut is_more = false;
        for (&node, watcher) in self.watchers.iter_mut().filter(|(_, watcher)| !watcher.touched.is_empty()) {
            let keys: Vec<Bytes> =
                core::iter::from_fn(|| watcher.touched.pop_first()).take(limits::HINT_KEYS).collect();
            is_more |= !watcher.touched.is_empty();
            watcher.count.hints += 1;
            // A hint: whoever gets it reads.
            fx.send_now(node, Msg::Touched { count: watcher.count, keys });
        }
        if is_more {
            fx.arm(MOMENT, Timer::Hints);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_means_all_keys_of_the_same_place() {
        let watched = |key: &str, is_prefix| Watched { key: Bytes::from(key), is_prefix };
        let is_of = |watched: &Watched, key: &str| watched.is_of(&Bytes::from(key));
        assert!(is_of(&watched("a", false), "a") && !is_of(&watched("a", false), "ab"));
        assert!(
            is_of(&watched("a", true), "a") && is_of(&watched("a", true), "ab") && !is_of(&watched("a", true), "b")
        );
        assert!(is_of(&watched("", true), "b") && !is_of(&watched("", true), "\0\x05orders\0b"));
        assert!(is_of(&watched("\0\x05orders\0", true), "\0\x05orders\0b"));
    }
}

//! The watching side: follows registers for clients that want to be told of changes.
//!
//! ```text
//!   client ── Watch(key or beginning, token) ──▶ W          waits until there is something behind the token
//!   hint of an owner ──▶ W reads the register ──▶ a feed takes the content in ──▶ all who wait are answered
//!   now and then, or in doubt: W lists and reads all of it       that is how a feed begins, too
//! ```
//!
//! **A feed is a state and no log**: of each register the content that was read last, in the order in which they last
//! changed. Whoever was away for long is told of each register once, whatever happened to it meanwhile; so a feed needs no
//! room for what nobody has fetched yet, and loses nothing that lasts.
//!
//! **Invariants.** Whatever is told was chosen: it comes from a linearizable read. Of one register the versions that are
//! told go up. A change that lasts is told at last: hints that are missing are noticed (`hints.rs`), and then everything is
//! read again. Order is that of each register alone.
//!
//! **A token** is a place in one node's feed. Another node, another boot, and a feed that was given up in between do not know
//! it, and begin with all there is, which they say: *resync*.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::ops::Bound;

use serde::{Deserialize, Serialize};

use super::coordinator::Coordinator;
use super::hints::{Count, Watched};
use super::listing::{Listings, Wanted};
use super::{Msg, Outcome, Registers, Timer};
use crate::bytes::Bytes;
use crate::id::{NodeId, RequestId};
use crate::limits;
use crate::namespace::Mode;
use crate::protocol::{Ctx, Effects};
use crate::quorum::majority;
use crate::refusal::Refusal;
use crate::time::{Duration, Instant};

/// Owners are asked again this often, well within what they remember.
const RENEWAL: Duration = Duration::secs(2);
/// Doubts are gathered for so long before everything is read again.
const DOUBT: Duration = Duration::millis(50);
/// A feed that nobody asks for is given up after this.
const IDLE: Duration = Duration::secs(60);
/// Of each feed, how many reads that failed are tried again with a renewal.
const RETRIES: usize = limits::FEED_READS / 4;
/// What keeping a register costs beside its key and value.
const OVERHEAD: usize = 128;

/// A place in a feed, to go on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Token {
    /// Which feed.
    pub feed: u64,
    /// The last change that was told.
    pub at: u64,
}

/// What a register holds now.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Changed {
    /// The key, as it is called inside.
    pub key: Bytes,
    /// How many changes were made.
    pub version: u64,
    /// The value; `None` if it was deleted.
    pub value: Option<Bytes>,
}

/// What a feed wanted to know.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Found {
    pub(super) feed: u64,
    /// The register that was read; `None` for a page of a listing.
    pub(super) key: Option<Bytes>,
    pub(super) result: Result<Outcome, Refusal>,
}

/// All feeds of a node, and who waits for them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Feeds {
    feeds: BTreeMap<Watched, Feed>,
    waiting: BTreeMap<u64, Waiting>,
    seq: u64,
    /// Counts the lists of what is watched.
    list: u64,
    owners: BTreeMap<NodeId, Heard>,
    /// Whether what is watched is to be read again.
    doubt: bool,
    /// Only feeds that came after this list.
    doubted: Option<u64>,
    reads: usize,
    /// Whose turn it is to have its registers read.
    turn: usize,
    /// Whether the owners are about to be asked again.
    is_due: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Waiting {
    id: RequestId,
    watched: Watched,
    after: Option<Token>,
}

/// What an owner has told, and how much more it says that it had.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Heard {
    list: u64,
    count: Count,
    said: u64,
    /// When it was heard last.
    at: Instant,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Feed {
    number: u64,
    /// The first list that it is in.
    list: u64,
    known: BTreeMap<Bytes, Known>,
    /// Registers in the order in which they last changed.
    order: BTreeMap<u64, Bytes>,
    last: u64,
    /// Up to here deletions have been forgotten.
    forgotten: u64,
    bytes: usize,
    /// Registers to be read.
    due: BTreeSet<Bytes>,
    /// Registers that are being read, and whether each has been touched since.
    reading: BTreeMap<Bytes, bool>,
    /// Reads that failed, to be tried again with the next renewal.
    failed: BTreeSet<Bytes>,
    listing: Listing,
    /// Whether a listing has ever come to its end.
    is_listed: bool,
    /// What the first look has not read yet; `None` once it has all.
    first: Option<BTreeSet<Bytes>>,
    used: Instant,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Known {
    at: u64,
    version: u64,
    value: Option<Bytes>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Listing {
    Done,
    UnderWay,
    /// And to be done again.
    Again,
    Failed,
}

impl Feeds {
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// A client wants to know what changes behind its token.
    pub(super) fn on_op(
        &mut self,
        cx: &mut Ctx<'_>,
        id: RequestId,
        (watched, after): (Watched, Option<Token>),
        within: Option<Duration>,
        fx: &mut Effects<Registers>,
    ) {
        let watched = match self.admit(cx, watched) {
            Ok(watched) => watched,
            // Nothing was asked of anybody.
            Err(refusal) => return fx.finish_now(id, Err(refusal)),
        };
        if !self.feeds.contains_key(&watched) {
            let number = cx.rng.next_u64();
            let before = self.list;
            self.count_list(cx);
            self.feeds.insert(watched.clone(), Feed::new(number, self.list, cx.now.mono));
            self.subscribe(cx, fx);
            self.doubted = Some(self.doubted.map_or(before, |doubted| doubted.min(before)));
            self.doubt(fx);
        }
        self.seq += 1;
        let within = within.unwrap_or(cx.config.kv.deadline).min(limits::DEADLINE_MAX);
        fx.arm(within, Timer::Watch(self.seq));
        self.waiting.insert(self.seq, Waiting { id, watched: watched.clone(), after });
        self.answer(cx, &watched, fx);
    }

    fn admit(&self, cx: &Ctx<'_>, watched: Watched) -> Result<Watched, Refusal> {
        if self.waiting.len() >= limits::WAITING {
            return Err(Refusal::Overloaded);
        }
        if watched.key.len() > limits::KEY_BYTES || watched.key.is_empty() && !watched.is_prefix {
            return Err(Refusal::TooLarge { limit: limits::KEY_BYTES as u32 });
        }
        let key = match cx.view.serving()?.config.namespaces.resolve(watched.key, Mode::Consensus)? {
            (key, Mode::Atomic | Mode::Consensus) => key,
            (_, mode) => return Err(Refusal::WrongMode { mode }),
        };
        let watched = Watched { key, ..watched };
        let has_room = self.feeds.contains_key(&watched) || self.feeds.len() < limits::FEEDS;
        if has_room { Ok(watched) } else { Err(Refusal::Overloaded) }
    }

    /// There is another list, of a later number than any of this boot or of one before.
    fn count_list(&mut self, cx: &Ctx<'_>) {
        self.list = self.list.max(cx.generation.0 << 32) + 1;
    }

    /// Tells the owners what is watched here.
    fn subscribe(&mut self, cx: &Ctx<'_>, fx: &mut Effects<Registers>) {
        if self.feeds.is_empty() {
            return;
        }
        if !core::mem::replace(&mut self.is_due, true) {
            fx.arm(RENEWAL, Timer::Feeds);
        }
        let Some(chosen) = &cx.view.chosen else { return };
        let owners: Vec<NodeId> = chosen.config.storage().collect();
        let watched = self.feeds.keys().cloned().collect();
        // What this node wants to hear.
        fx.send_all_now(owners, Msg::Watch { list: self.list, watched });
    }

    /// Something may have been missed: everything is read again, a moment later.
    fn doubt_all(&mut self, fx: &mut Effects<Registers>) {
        self.doubted = Some(0);
        self.doubt(fx);
    }

    fn doubt(&mut self, fx: &mut Effects<Registers>) {
        if !self.doubt && !self.feeds.is_empty() {
            self.doubt = true;
            fx.arm(DOUBT, Timer::Doubt);
        }
    }

    pub(super) fn on_watching(
        &mut self,
        cx: &Ctx<'_>,
        from: NodeId,
        (list, count): (u64, Count),
        fx: &mut Effects<Registers>,
    ) {
        let at = cx.now.mono;
        match self.owners.get_mut(&from) {
            Some(heard) if heard.count.since == count.since => {
                (heard.said, heard.at) = (heard.said.max(count.hints), at);
                let news = heard.list;
                heard.list = news.max(list);
                // Of what is new in its list it tells from now on; what it has accepted before, it has not told.
                if self.feeds.values().any(|feed| feed.list > news && feed.list <= list) {
                    self.doubted = Some(self.doubted.map_or(news, |doubted| doubted.min(news)));
                    self.doubt(fx);
                }
            }
            _ => {
                // It tells from now on.
                self.owners.insert(from, Heard { list, count, said: count.hints, at });
                self.doubt_all(fx);
            }
        }
    }

    /// Whether so many owners of some partition have fallen silent that a change may have been accepted by those alone.
    fn is_deaf(&self, cx: &Ctx<'_>) -> bool {
        let Some(chosen) = &cx.view.chosen else { return false };
        let is_heard = |owner: &&NodeId| {
            self.owners.get(*owner).is_some_and(|heard| cx.now.mono.since(heard.at) < RENEWAL.times(3))
        };
        let is_deaf = |group: &[NodeId]| {
            let (all, heard) = (group.len(), group.iter().filter(is_heard).count());
            heard < all + 1 - usize::from(majority(all as u8))
        };
        chosen.partitions().any(|partition| {
            let owners = chosen.owners(partition);
            is_deaf(owners.current) || owners.next.is_some_and(is_deaf)
        })
    }

    pub(super) fn on_touched(
        &mut self,
        cx: &Ctx<'_>,
        from: NodeId,
        (count, keys): (Count, Vec<Bytes>),
        coordinator: &mut Coordinator,
        fx: &mut Effects<Registers>,
    ) {
        match self.owners.get_mut(&from) {
            Some(heard) if heard.count.since == count.since => {
                let is_next = count.hints <= heard.count.hints.saturating_add(1);
                (heard.count.hints, heard.at) = (heard.count.hints.max(count.hints), cx.now.mono);
                if !is_next {
                    self.doubt_all(fx);
                }
            }
            _ => self.doubt_all(fx),
        }
        for (watched, feed) in &mut self.feeds {
            keys.iter().take(limits::HINT_KEYS).filter(|key| watched.is_of(key)).for_each(|key| feed.touch(key));
        }
        self.read(cx, coordinator, fx);
    }

    /// Looks at everything that is watched.
    pub(super) fn on_doubt(
        &mut self,
        cx: &Ctx<'_>,
        coordinator: &mut Coordinator,
        listings: &mut Listings,
        fx: &mut Effects<Registers>,
    ) {
        self.doubt = false;
        let doubted = self.doubted.take().unwrap_or(0);
        for (watched, feed) in self.feeds.iter_mut().filter(|(_, feed)| feed.list > doubted) {
            feed.look(cx, watched, listings, fx);
        }
        self.read(cx, coordinator, fx);
    }

    /// Asks the owners again, tries again what failed, and gives up what nobody wants any more.
    pub(super) fn on_renewal(
        &mut self,
        cx: &Ctx<'_>,
        coordinator: &mut Coordinator,
        listings: &mut Listings,
        fx: &mut Effects<Registers>,
    ) {
        self.is_due = false;
        let wanted: BTreeSet<&Watched> = self.waiting.values().map(|waiting| &waiting.watched).collect();
        let before = self.feeds.len();
        self.feeds.retain(|watched, feed| {
            if wanted.contains(watched) {
                feed.used = cx.now.mono;
            }
            cx.now.mono.since(feed.used) < IDLE
        });
        if self.feeds.len() != before {
            self.count_list(cx);
        }
        let mut is_missing = false;
        for heard in self.owners.values_mut() {
            is_missing |= heard.said > heard.count.hints;
            heard.count.hints = heard.count.hints.max(heard.said);
        }
        if is_missing || self.is_deaf(cx) {
            self.doubt_all(fx);
        }
        for (watched, feed) in &mut self.feeds {
            // Whatever has no majority now must not stand in the way of all else.
            for _ in 0..RETRIES {
                let Some(key) = feed.failed.pop_first() else { break };
                feed.touch(&key);
            }
            if feed.listing == Listing::Failed {
                feed.list(cx, watched, listings, fx);
            }
        }
        self.subscribe(cx, fx);
        self.read(cx, coordinator, fx);
    }

    /// Other owners, or this node slept.
    pub(super) fn start_over(&mut self, cx: &Ctx<'_>, fx: &mut Effects<Registers>) {
        self.owners.retain(|&owner, _| cx.view.chosen.as_ref().is_some_and(|chosen| chosen.config.seats(owner)));
        self.subscribe(cx, fx);
        self.doubt_all(fx);
    }

    pub(super) fn on_link(&self, cx: &Ctx<'_>, peer: NodeId, up: bool, fx: &mut Effects<Registers>) {
        let owns = cx.view.chosen.as_ref().is_some_and(|chosen| chosen.config.seats(peer));
        if up && owns && !self.feeds.is_empty() {
            let watched = self.feeds.keys().cloned().collect();
            // What this node wants to hear.
            fx.send_now(peer, Msg::Watch { list: self.list, watched });
        }
    }

    /// A read or a page of a listing has come.
    pub(super) fn on_found(
        &mut self,
        cx: &Ctx<'_>,
        found: Found,
        coordinator: &mut Coordinator,
        listings: &mut Listings,
        fx: &mut Effects<Registers>,
    ) {
        self.reads -= usize::from(found.key.is_some());
        let feed = self.feeds.iter_mut().find(|(_, feed)| feed.number == found.feed);
        if let Some((watched, feed)) = feed {
            let watched = watched.clone();
            match found.key {
                Some(key) => feed.on_read(key, found.result),
                None => feed.on_listed(cx, &watched, found.result, listings, fx),
            }
            self.answer(cx, &watched, fx);
        }
        self.read(cx, coordinator, fx);
    }

    /// Begins as many reads as may be under way.
    fn read(&mut self, cx: &Ctx<'_>, coordinator: &mut Coordinator, fx: &mut Effects<Registers>) {
        // Each time another feed has its turn first.
        let turn = self.turn % self.feeds.len().max(1);
        self.turn = self.turn.wrapping_add(1);
        let (first, last): (Vec<_>, Vec<_>) = self.feeds.values_mut().enumerate().partition(|(n, _)| *n >= turn);
        for (_, feed) in first.into_iter().chain(last) {
            while self.reads < limits::FEED_READS {
                let Some(key) = feed.due.pop_first() else { break };
                if let Some(touched) = feed.reading.get_mut(&key) {
                    *touched = true;
                    continue;
                }
                self.reads += 1;
                feed.reading.insert(key.clone(), false);
                coordinator.look(cx, feed.number, key, fx);
            }
        }
    }

    /// Answers all who wait for something that is there now.
    fn answer(&mut self, cx: &Ctx<'_>, watched: &Watched, fx: &mut Effects<Registers>) {
        let Some(feed) = self.feeds.get(watched) else { return };
        let is_too_large = feed.bytes > limits::WATCHED_BYTES;
        let ready = |waiting: &Waiting| waiting.watched == *watched && (is_too_large || feed.has_news(waiting.after));
        let ready: Vec<u64> = self.waiting.iter().filter(|(_, waiting)| ready(waiting)).map(|(&seq, _)| seq).collect();
        let is_wanted = !ready.is_empty();
        for seq in ready {
            let Some(waiting) = self.waiting.remove(&seq) else { continue };
            fx.disarm(Timer::Watch(seq));
            let limit = limits::WATCHED_BYTES as u32;
            let result = if is_too_large { Err(Refusal::TooLarge { limit }) } else { Ok(feed.news(waiting.after)) };
            // Whatever was read is durable with a majority.
            fx.finish_now(waiting.id, result);
        }
        if is_too_large {
            self.feeds.remove(watched);
        } else if let Some(feed) = self.feeds.get_mut(watched).filter(|_| is_wanted) {
            feed.used = cx.now.mono;
        }
    }

    /// The client has waited long enough: it is told that there was nothing, or that nobody knows.
    pub(super) fn on_deadline(&mut self, seq: u64, fx: &mut Effects<Registers>) {
        let Some(waiting) = self.waiting.remove(&seq) else { return };
        let feed = self.feeds.get(&waiting.watched).filter(|feed| feed.first.is_none());
        let result = match (feed, waiting.after) {
            (Some(feed), Some(_)) => Ok(feed.news(waiting.after)),
            _ => Err(Refusal::NoQuorum { answered: 0, needed: 0 }),
        };
        // It says what was read before.
        fx.finish_now(waiting.id, result);
    }
}

impl Feed {
    fn new(number: u64, list: u64, now: Instant) -> Self {
        Self {
            number,
            list,
            known: BTreeMap::new(),
            order: BTreeMap::new(),
            last: 0,
            forgotten: 0,
            bytes: 0,
            due: BTreeSet::new(),
            reading: BTreeMap::new(),
            failed: BTreeSet::new(),
            listing: Listing::Failed,
            is_listed: false,
            first: Some(BTreeSet::new()),
            used: now,
        }
    }

    fn touch(&mut self, key: &Bytes) {
        self.failed.remove(key);
        match self.reading.get_mut(key) {
            Some(touched) => *touched = true,
            None => drop(self.due.insert(key.clone())),
        }
    }

    /// Has everything read again that is there, or that it knows of.
    fn look(&mut self, cx: &Ctx<'_>, watched: &Watched, listings: &mut Listings, fx: &mut Effects<Registers>) {
        if self.listing == Listing::UnderWay {
            self.listing = Listing::Again;
            return;
        }
        let known: Vec<Bytes> =
            self.known.iter().filter(|(_, known)| known.value.is_some()).map(|(key, _)| key.clone()).collect();
        known.iter().for_each(|key| self.touch(key));
        self.list(cx, watched, listings, fx);
    }

    /// Asks which registers there are.
    fn list(&mut self, cx: &Ctx<'_>, watched: &Watched, listings: &mut Listings, fx: &mut Effects<Registers>) {
        if watched.is_prefix {
            self.listing = Listing::UnderWay;
            listings.look(cx, self.number, Wanted::all(watched.key.clone(), None), fx);
            return;
        }
        (self.listing, self.is_listed) = (Listing::Done, true);
        self.touch(&watched.key);
        if let Some(first) = &mut self.first {
            first.insert(watched.key.clone());
        }
    }

    fn on_listed(
        &mut self,
        cx: &Ctx<'_>,
        watched: &Watched,
        result: Result<Outcome, Refusal>,
        listings: &mut Listings,
        fx: &mut Effects<Registers>,
    ) {
        let Ok(Outcome::Listed { keys, next }) = result else {
            self.listing = Listing::Failed;
            return;
        };
        for key in keys {
            self.touch(&key);
            if let Some(first) = &mut self.first {
                first.insert(key);
            }
        }
        if next.is_some() {
            return listings.look(cx, self.number, Wanted::all(watched.key.clone(), next), fx);
        }
        let again = core::mem::replace(&mut self.listing, Listing::Done) == Listing::Again;
        self.is_listed = true;
        if again {
            self.look(cx, watched, listings, fx);
        }
        self.begun();
    }

    fn on_read(&mut self, key: Bytes, result: Result<Outcome, Refusal>) {
        if self.reading.remove(&key) == Some(true) {
            self.due.insert(key.clone());
        }
        let Ok(Outcome::Read { value, version, .. }) = result else {
            self.failed.insert(key);
            return;
        };
        if let Some(first) = &mut self.first {
            first.remove(&key);
        }
        self.learn(key, version, value);
        self.begun();
    }

    /// Whether everything was read once.
    fn begun(&mut self) {
        if self.is_listed && self.first.as_ref().is_some_and(BTreeSet::is_empty) {
            self.first = None;
        }
    }

    /// Takes in what a read has returned.
    fn learn(&mut self, key: Bytes, version: u64, value: Option<Bytes>) {
        let known = self.known.get(&key);
        let is_old = known
            .map_or(version == 0, |known| version < known.version || version == known.version && value == known.value);
        if is_old {
            return;
        }
        self.forget(&key);
        self.last += 1;
        self.bytes += weight(&key, value.as_ref());
        self.order.insert(self.last, key.clone());
        self.known.insert(key, Known { at: self.last, version, value });
        while self.bytes > limits::WATCHED_BYTES {
            let is_deleted = |key: &Bytes| self.known.get(key).is_some_and(|known| known.value.is_none());
            let Some((&at, key)) = self.order.iter().find(|(_, key)| is_deleted(key)) else { break };
            let key = key.clone();
            self.forgotten = self.forgotten.max(at);
            self.forget(&key);
        }
    }

    fn forget(&mut self, key: &Bytes) {
        if let Some(known) = self.known.remove(key) {
            self.bytes -= weight(key, known.value.as_ref());
            self.order.remove(&known.at);
        }
    }

    /// The place from which whoever has this token goes on, if it is one of this feed.
    fn place(&self, after: Option<Token>) -> Option<u64> {
        after
            .filter(|token| token.feed == self.number && token.at >= self.forgotten && token.at <= self.last)
            .map(|token| token.at)
    }

    /// Whether there is anything to say behind the token: whoever has none that is known is told where it stands.
    fn has_news(&self, after: Option<Token>) -> bool {
        self.first.is_none() && self.place(after).is_none_or(|at| at < self.last)
    }

    fn news(&self, after: Option<Token>) -> Outcome {
        let place = self.place(after);
        let (mut at, mut bytes, mut changes) = (place.unwrap_or(0), 0, VecDeque::new());
        for (&next, key) in self.order.range((Bound::Excluded(at), Bound::Unbounded)) {
            let Some(known) = self.known.get(key) else { continue };
            bytes += weight(key, known.value.as_ref());
            if bytes > limits::LIST_BYTES && !changes.is_empty() {
                let changes = changes.into();
                return Outcome::Watched { changes, next: Token { feed: self.number, at }, resync: place.is_none() };
            }
            at = next;
            changes.push_back(Changed { key: key.clone(), version: known.version, value: known.value.clone() });
        }
        let next = Token { feed: self.number, at: self.last };
        Outcome::Watched { changes: changes.into(), next, resync: place.is_none() }
    }
}

fn weight(key: &Bytes, value: Option<&Bytes>) -> usize {
    key.len() + value.map_or(0, |value| value.len()) + OVERHEAD
}

impl core::fmt::Display for Token {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:016x}.{}", self.feed, self.at)
    }
}

impl Token {
    /// Reads what [`Token`] is written as.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (feed, at) = text.split_once('.')?;
        let feed = u64::from_str_radix(feed, 16).ok().filter(|_| feed.len() == 16)?;
        Some(Self { feed, at: at.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Bytes {
        Bytes::from(text)
    }

    fn feed() -> Feed {
        Feed { first: None, ..Feed::new(7, 1, Instant(0)) }
    }

    fn told(feed: &Feed, after: Option<Token>) -> (Vec<(Bytes, u64)>, Token, bool) {
        let Outcome::Watched { changes, next, resync } = feed.news(after) else { panic!("news are told") };
        (changes.into_iter().map(|changed| (changed.key, changed.version)).collect(), next, resync)
    }

    #[test]
    fn each_register_is_told_once_however_often_it_changed() {
        let mut feed = feed();
        feed.learn(key("a"), 1, Some(key("x")));
        feed.learn(key("b"), 1, Some(key("y")));
        let (all, token, resync) = told(&feed, None);
        assert_eq!((all, resync), (alloc::vec![(key("a"), 1), (key("b"), 1)], true));
        assert!(!feed.has_news(Some(token)));
        (2..5).for_each(|version| feed.learn(key("a"), version, None));
        feed.learn(key("a"), 3, Some(key("late")));
        let (news, next, resync) = told(&feed, Some(token));
        assert_eq!((news, resync), (alloc::vec![(key("a"), 4)], false));
        assert_eq!(told(&feed, Some(next)).0, []);
    }

    #[test]
    fn a_token_of_another_feed_begins_anew() {
        let mut feed = feed();
        feed.learn(key("a"), 1, Some(key("x")));
        for token in [Token { feed: 8, at: 1 }, Token { feed: 7, at: 9 }] {
            assert!(feed.has_news(Some(token)));
            assert!(told(&feed, Some(token)).2);
        }
        assert_eq!(Token::parse(&alloc::format!("{}", Token { feed: 7, at: 9 })), Some(Token { feed: 7, at: 9 }));
        assert_eq!([Token::parse("7.9"), Token::parse(""), Token::parse("0000000000000007.")], [None; 3]);
    }

    #[test]
    fn what_was_deleted_is_forgotten_where_room_is_short_and_who_missed_it_begins_anew() {
        let mut feed = feed();
        feed.learn(key("gone"), 1, None);
        let early = Token { feed: 7, at: 0 };
        let value: Vec<u8> = alloc::vec![0; limits::VALUE_BYTES];
        let many = limits::WATCHED_BYTES / limits::VALUE_BYTES;
        (0..many).for_each(|n| feed.learn(key(&alloc::format!("k{n}")), 1, Some(Bytes::from(value.as_slice()))));
        assert!(!feed.known.contains_key(&key("gone")) && told(&feed, Some(early)).2);
    }
}

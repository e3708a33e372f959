//! What the screens show, computed from the events that nodes told. Pure: no browser, no clock of its own.
//!
//! Messages on a loopback network take a fifth of a millisecond; nobody can follow that. [`Playback`] therefore
//! stretches time *along causality*: a message takes a visible while to fly, and whatever it caused begins when it
//! has arrived. Order and causes stay true, only the pace is for people.
//!
//! ```text
//!   real       n1 sends ┐0.2 ms┌ n2 answers ┐0.2 ms┌ n1 counts 2/2
//!   shown      n1 sends ──────600 ms──────▶ n2 answers ──────600 ms──────▶ n1 counts 2/2
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use qunlong_core::kv::{Event as KvEvent, OpKind, Phase};
use qunlong_core::lift::{EventKind, Family, MessageKind};
use qunlong_core::registers::Event as RegisterEvent;
use qunlong_core::trace::{Cause, MessageId};
use qunlong_core::version::Dot;
use qunlong_core::{Bytes, Event, NodeId, OpId, Refusal};

use crate::epochs::Epochs;
use crate::rounds::Rounds;
use crate::rumour::Rumours;

/// How long a message flies at speed 1, in ms.
pub const FLIGHT_MS: f64 = 700.0;
/// Events of several nodes are collected so long before they are put in order by their clocks.
const GATHER_MS: f64 = 120.0;
/// An event whose cause a node has yet to tell us of waits for it so long.
const PATIENCE_MS: f64 = 2_000.0;
/// Events that wait to be shown; beyond it gossip is not shown at all, and beyond twice this nothing is.
const WAITING: usize = 1_500;
/// Messages in the air; further ones are not drawn.
const FLIGHTS: usize = 400;
/// Operations remembered.
const OPERATIONS: usize = 8;
/// Lines of the story remembered.
const STORY: usize = 120;
/// A picture that is further behind than this catches up faster, then faster still.
const RELAXED_MS: f64 = 4_000.0;

/// A message on its way.
#[derive(Clone, Debug, PartialEq)]
pub struct Flight {
    /// Who sent it.
    pub from: NodeId,
    /// Who gets it.
    pub to: NodeId,
    /// What it is.
    pub kind: MessageKind,
    /// When it left, on the picture's clock.
    pub start: f64,
}

/// An operation and its votes.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// Its name.
    pub op: OpId,
    /// What it does.
    pub kind: OpKind,
    /// To which key.
    pub key: String,
    /// Who is asked.
    pub owners: Vec<NodeId>,
    /// How many must answer.
    pub needed: u8,
    /// Whose answers to the read were counted, in order.
    pub read: Vec<NodeId>,
    /// Whose acknowledgements were counted, in order.
    pub acked: Vec<NodeId>,
    /// The dot, once minted.
    pub dot: Option<Dot>,
    /// How it ended, if it has.
    pub end: Option<Option<Refusal>>,
}

/// One line of the story.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Counts lines, for stable keys.
    pub number: u64,
    /// What happened.
    pub event: Event,
}

/// Events turned into a picture at a pace that a person can follow.
#[derive(Clone, Debug)]
pub struct Playback {
    /// The picture's time, in ms.
    clock: f64,
    /// Where the clock would be without pauses.
    edge: f64,
    /// Real time, in ms, of the last frame.
    last_frame: f64,
    speed: f64,
    paused: bool,
    /// Families that are not drawn.
    hidden: BTreeSet<Family>,
    gathering: Vec<(f64, Event)>,
    waiting: BTreeMap<(u64, u64), Event>,
    scheduled: u64,
    /// When each message arrives on the picture's clock.
    arrivals: BTreeMap<MessageId, f64>,
    /// Nodes whose own events reach us.
    tellers: BTreeSet<NodeId>,
    /// When the newest of each is shown.
    step_times: BTreeMap<Steps, f64>,
    seen: BTreeSet<(NodeId, u64, u64)>,
    flights: Vec<Flight>,
    operations: VecDeque<Operation>,
    rounds: Rounds,
    story: VecDeque<Line>,
    epochs: Epochs,
    rumours: Rumours,
    /// Whether one of the two changed since the last frame.
    noted: bool,
    lines: u64,
    rates: VecDeque<u32>,
    rate_since: f64,
    total: u64,
}

impl Default for Playback {
    fn default() -> Self {
        Self {
            clock: 0.0,
            edge: 0.0,
            last_frame: 0.0,
            speed: 1.0,
            paused: false,
            hidden: BTreeSet::new(),
            gathering: Vec::new(),
            waiting: BTreeMap::new(),
            scheduled: 0,
            arrivals: BTreeMap::new(),
            tellers: BTreeSet::new(),
            step_times: BTreeMap::new(),
            seen: BTreeSet::new(),
            flights: Vec::new(),
            operations: VecDeque::new(),
            rounds: Rounds::default(),
            story: VecDeque::new(),
            epochs: Epochs::default(),
            rumours: Rumours::default(),
            noted: false,
            lines: 0,
            rates: VecDeque::from(vec![0; 60]),
            rate_since: 0.0,
            total: 0,
        }
    }
}

impl Playback {
    /// An empty picture at the same pace, with the same kinds hidden.
    #[must_use]
    pub fn fresh(&self) -> Self {
        Self {
            clock: self.clock.max(self.edge),
            edge: self.clock.max(self.edge),
            last_frame: self.last_frame,
            speed: self.speed,
            hidden: self.hidden.clone(),
            ..Self::default()
        }
    }

    /// Takes in what a node told. Events that came by two ways are taken once.
    pub fn push(&mut self, real_ms: f64, events: impl IntoIterator<Item = Event>) {
        for event in events {
            if self.seen.insert((event.node, event.generation.0, event.seq)) {
                self.total += 1;
                if let Some(rate) = self.rates.back_mut() {
                    *rate += 1;
                }
                self.tellers.insert(event.node);
                // Handing over partitions brings more events than can be shown; what is kept of them misses none.
                self.noted |= self.epochs.see(&event) | self.rumours.see(&event);
                self.gathering.push((real_ms, event));
            }
        }
        if self.seen.len() > 60_000 {
            self.seen.clear();
        }
    }

    /// Moves the picture to real time `real_ms`. Returns whether anything but flying changed.
    pub fn frame(&mut self, real_ms: f64) -> bool {
        let step = (real_ms - self.last_frame).clamp(0.0, 200.0);
        self.last_frame = real_ms;
        self.edge += step * self.speed;
        if !self.paused {
            let behind = self.behind_ms();
            let hurry = 1.0 + (behind / RELAXED_MS).powi(2).min(30.0);
            self.clock =
                self.clock.max((self.clock + step * self.speed * hurry).min(self.edge.max(self.last_waiting())));
        }
        if real_ms - self.rate_since >= 1_000.0 {
            self.rate_since = real_ms;
            self.rates.pop_front();
            self.rates.push_back(0);
        }
        self.schedule(real_ms);
        let changed = self.show() | std::mem::take(&mut self.noted);
        let clock = self.clock;
        self.flights.retain(|flight| clock < flight.start + FLIGHT_MS);
        changed
    }

    fn last_waiting(&self) -> f64 {
        self.waiting.last_key_value().map_or(0.0, |((at, _), _)| *at as f64 / 1_000.0)
    }

    fn behind_ms(&self) -> f64 {
        let next = self.waiting.first_key_value().map_or(self.clock, |((at, _), _)| *at as f64 / 1_000.0);
        (self.last_waiting() - next).max(0.0)
    }

    /// Gives each gathered event its time: no earlier than what caused it has arrived.
    fn schedule(&mut self, real_ms: f64) {
        let (arrivals, tellers) = (&self.arrivals, &self.tellers);
        let is_ready = |at: f64, event: &Event, told: &BTreeSet<MessageId>| {
            let waits = match event.cause {
                Cause::Message(message) => {
                    tellers.contains(&message.node) && !arrivals.contains_key(&message) && !told.contains(&message)
                }
                Cause::Start | Cause::Request(_) | Cause::Durable | Cause::Timer | Cause::Link => false,
            };
            real_ms - at >= if waits { PATIENCE_MS } else { GATHER_MS }
        };
        // Messages whose sending is ready to be shown, and so on along the chain of causes.
        let mut told: BTreeSet<MessageId> = BTreeSet::new();
        loop {
            let before = told.len();
            for (at, event) in &self.gathering {
                if let Some(message) = sent_message(event).filter(|_| is_ready(*at, event, &told)) {
                    told.insert(message);
                }
            }
            if told.len() == before {
                break;
            }
        }
        // What a node did later in an operation or a round waits for what it did before.
        let mut held: BTreeMap<Steps, u64> = BTreeMap::new();
        for (at, event) in &self.gathering {
            if let Some(steps) = coordinated(event).filter(|_| !is_ready(*at, event, &told)) {
                let first = held.entry(steps).or_insert(event.seq);
                *first = (*first).min(event.seq);
            }
        }
        let is_next = |event: &Event| {
            coordinated(event).and_then(|steps| held.get(&steps)).is_none_or(|&first| event.seq < first)
        };
        let (mut ready, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.gathering)
            .into_iter()
            .partition(|(at, event)| is_ready(*at, event, &told) && is_next(event));
        self.gathering = rest;
        ready.sort_by_key(|(_, event)| (event.at.wall, event.node, event.seq));
        for event in causally(ready.into_iter().map(|(_, event)| event).collect()) {
            self.schedule_one(event);
        }
        while self.arrivals.len() > 20_000 {
            self.arrivals.pop_first();
        }
        while self.step_times.len() > 2_000 {
            self.step_times.pop_first();
        }
    }

    fn schedule_one(&mut self, event: Event) {
        let now = if self.paused { self.edge.max(self.clock) } else { self.clock };
        let cause = match event.cause {
            Cause::Message(message) => self.arrivals.get(&message).copied().unwrap_or(now),
            Cause::Start | Cause::Request(_) | Cause::Durable | Cause::Timer | Cause::Link => now,
        };
        let mut at = now.max(cause);
        if let Some(steps) = coordinated(&event) {
            let last = self.step_times.entry(steps).or_insert(at);
            *last = last.max(at);
            at = *last;
        }
        if let EventKind::Sent { message, .. } = &event.kind {
            self.arrivals.insert(*message, at + FLIGHT_MS);
        }
        let gives_way = is_gossip(&event.kind) && self.waiting.len() > WAITING;
        if !gives_way && self.waiting.len() <= 2 * WAITING {
            self.scheduled += 1;
            self.waiting.insert(((at * 1_000.0) as u64, self.scheduled), event);
        }
    }

    /// Shows everything whose time has come.
    fn show(&mut self) -> bool {
        let mut changed = false;
        while let Some(entry) = self.waiting.first_entry() {
            let at = entry.key().0 as f64 / 1_000.0;
            if at > self.clock {
                break;
            }
            let event = entry.remove();
            changed |= self.apply(at, event);
        }
        changed
    }

    fn apply(&mut self, at: f64, event: Event) -> bool {
        match &event.kind {
            EventKind::Sent { to, kind, .. } => {
                if self.hidden.contains(&kind.family()) {
                    return false;
                }
                for &to in to.iter().take(FLIGHTS.saturating_sub(self.flights.len())) {
                    self.flights.push(Flight { from: event.node, to, kind: *kind, start: at });
                }
                false
            }
            // Only what a node whose own trace we do not see has sent; its flight begins now.
            EventKind::Received { message, kind } => {
                let is_ours = self.arrivals.contains_key(message);
                if !is_ours && !self.hidden.contains(&kind.family()) && self.flights.len() < FLIGHTS {
                    self.flights.push(Flight { from: message.node, to: event.node, kind: *kind, start: at });
                }
                false
            }
            EventKind::Kv(kv) => {
                self.follow(kv);
                self.tell(event);
                true
            }
            EventKind::Registers(register) => {
                self.rounds.see(event.node, register);
                self.tell(event);
                true
            }
            EventKind::Started
            | EventKind::Slept { .. }
            | EventKind::DiskFull { .. }
            | EventKind::Membership(_)
            | EventKind::Topology(_) => {
                self.tell(event);
                true
            }
        }
    }

    fn tell(&mut self, event: Event) {
        if is_one_of_many(&event.kind) {
            return;
        }
        self.lines += 1;
        self.story.push_front(Line { number: self.lines, event });
        self.story.truncate(STORY);
    }

    /// Follows an operation from its beginning to its end.
    fn follow(&mut self, event: &KvEvent) {
        match event {
            // Listings have no quorum of their own: each partition has one.
            KvEvent::Began { kind: OpKind::List, .. } => (),
            KvEvent::Began { op, kind, key, owners, needed } => {
                self.operations.push_front(Operation {
                    op: *op,
                    kind: *kind,
                    key: key.to_string(),
                    owners: owners.clone(),
                    needed: *needed,
                    read: Vec::new(),
                    acked: Vec::new(),
                    dot: None,
                    end: None,
                });
                self.operations.truncate(OPERATIONS);
            }
            KvEvent::Counted { op, phase, from, .. } => {
                if let Some(operation) = self.operation(*op) {
                    let counted = match phase {
                        Phase::Reading => &mut operation.read,
                        Phase::Writing => &mut operation.acked,
                    };
                    // A read that begins again in a later round counts its owners again.
                    if !counted.contains(from) {
                        counted.push(*from);
                    }
                }
            }
            KvEvent::Minted { op, dot, .. } => {
                if let Some(operation) = self.operation(*op) {
                    operation.dot = Some(*dot);
                }
            }
            KvEvent::Finished { op, refusal } => {
                if let Some(operation) = self.operation(*op) {
                    operation.end = Some(refusal.clone());
                }
            }
            KvEvent::Handed { .. }
            | KvEvent::Collected { .. }
            | KvEvent::Fetched { .. }
            | KvEvent::Learnt { .. }
            | KvEvent::TookOver { .. }
            | KvEvent::Repaired { .. } => (),
        }
    }

    fn operation(&mut self, op: OpId) -> Option<&mut Operation> {
        self.operations.iter_mut().find(|operation| operation.op == op)
    }

    /// Messages in the air with how far each has come, 0 to 1.
    pub fn flights(&self) -> impl Iterator<Item = (&Flight, f64)> {
        self.flights.iter().map(|flight| (flight, ((self.clock - flight.start) / FLIGHT_MS).clamp(0.0, 1.0)))
    }

    /// The newest operations, newest first.
    #[must_use]
    pub fn operations(&self) -> &VecDeque<Operation> {
        &self.operations
    }

    /// The newest rounds on registers.
    #[must_use]
    pub fn rounds(&self) -> &Rounds {
        &self.rounds
    }

    /// The story, newest first.
    #[must_use]
    pub fn story(&self) -> &VecDeque<Line> {
        &self.story
    }

    /// How epochs were chosen. Neither a pause nor a slow pace holds this back.
    #[must_use]
    pub fn epochs(&self) -> &Epochs {
        &self.epochs
    }

    /// How claims about members spread. Neither a pause nor a slow pace holds this back.
    #[must_use]
    pub fn rumours(&self) -> &Rumours {
        &self.rumours
    }

    /// Whether a node's own events reach this page.
    #[must_use]
    pub fn tells(&self, node: NodeId) -> bool {
        self.tellers.contains(&node)
    }

    /// Events that are not shown yet.
    #[must_use]
    pub fn behind(&self) -> usize {
        self.waiting.len() + self.gathering.len()
    }

    /// Events in each of the last 60 seconds.
    #[must_use]
    pub fn rates(&self) -> &VecDeque<u32> {
        &self.rates
    }

    /// Events taken in so far.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Whether the picture stands still.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Stops or goes on. Going on plays what was missed.
    pub fn set_paused(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// How fast it plays; 1 is the usual pace.
    #[must_use]
    pub fn speed(&self) -> f64 {
        self.speed
    }

    /// Sets the pace, between 1/100 and 4.
    pub fn set_speed(&mut self, speed: f64) {
        self.speed = speed.clamp(0.01, 4.0);
    }

    /// Moves to the next event and shows it.
    pub fn step(&mut self) {
        if let Some(((at, _), _)) = self.waiting.first_key_value() {
            self.clock = self.clock.max(*at as f64 / 1_000.0);
            self.edge = self.edge.max(self.clock);
        } else {
            self.clock += FLIGHT_MS / 2.0;
            self.edge = self.edge.max(self.clock);
        }
    }

    /// Drops what is waiting and goes on live.
    pub fn catch_up(&mut self) {
        for event in std::mem::take(&mut self.waiting).into_values() {
            if !matches!(event.kind, EventKind::Sent { .. } | EventKind::Received { .. }) {
                self.apply(self.clock, event);
            }
        }
        self.arrivals.clear();
        self.clock = self.edge;
        self.paused = false;
    }

    /// Whether a family is drawn.
    #[must_use]
    pub fn is_hidden(&self, family: Family) -> bool {
        self.hidden.contains(&family)
    }

    /// Draws a family or not.
    pub fn toggle(&mut self, family: Family) {
        if !self.hidden.remove(&family) {
            self.hidden.insert(family);
            self.flights.retain(|flight| flight.kind.family() != family);
        }
    }
}

/// Puts the sending of a message before whatever it caused: clocks of different nodes differ by more than a message
/// takes.
fn causally(events: Vec<Event>) -> Vec<Event> {
    let mut slots: Vec<Option<Event>> = events.into_iter().map(Some).collect();
    let sent: BTreeMap<MessageId, usize> =
        slots.iter().enumerate().filter_map(|(i, event)| Some((sent_message(event.as_ref()?)?, i))).collect();
    let mut ordered = Vec::with_capacity(slots.len());
    for i in 0..slots.len() {
        // The chain of causes that are not placed yet, latest first.
        let mut chain = vec![i];
        while let Some(Event { cause: Cause::Message(message), .. }) = chain.last().and_then(|&j| slots[j].as_ref()) {
            match sent.get(message) {
                Some(&cause) if slots[cause].is_some() && !chain.contains(&cause) => chain.push(cause),
                _ => break,
            }
        }
        ordered.extend(chain.into_iter().rev().filter_map(|j| slots[j].take()));
    }
    ordered
}

/// The message that an event tells of leaving.
fn sent_message(event: &Event) -> Option<MessageId> {
    match event.kind {
        EventKind::Sent { message, .. } => Some(message),
        _ => None,
    }
}

/// Steps of one node that follow each other, whichever answer flew faster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Steps {
    /// Of an operation on a key, at its coordinator.
    Operation(OpId),
    /// Of a request to a register, at its coordinator.
    Request(OpId),
    /// Of the rounds on a register, at their proposer.
    Rounds(NodeId, Bytes),
}

/// The steps that an event is one of.
fn coordinated(event: &Event) -> Option<Steps> {
    match &event.kind {
        EventKind::Kv(kv) => match kv {
            KvEvent::Began { op, .. }
            | KvEvent::Handed { op, .. }
            | KvEvent::Counted { op, .. }
            | KvEvent::Finished { op, .. } => Some(Steps::Operation(*op)),
            KvEvent::Minted { .. }
            | KvEvent::Collected { .. }
            | KvEvent::Fetched { .. }
            | KvEvent::Learnt { .. }
            | KvEvent::TookOver { .. }
            | KvEvent::Repaired { .. } => None,
        },
        EventKind::Registers(register) => match register {
            RegisterEvent::Asked { op, .. } | RegisterEvent::Finished { op, .. } => Some(Steps::Request(*op)),
            RegisterEvent::Reading { key, .. }
            | RegisterEvent::Prepared { key, .. }
            | RegisterEvent::Proposed { key, .. }
            | RegisterEvent::Counted { key, .. }
            | RegisterEvent::Chosen { key, .. }
            | RegisterEvent::Agreed { key, .. }
            | RegisterEvent::Outbid { key, .. } => Some(Steps::Rounds(event.node, key.clone())),
            RegisterEvent::Moved { .. } => None,
        },
        EventKind::Started
        | EventKind::Slept { .. }
        | EventKind::DiskFull { .. }
        | EventKind::Sent { .. }
        | EventKind::Received { .. }
        | EventKind::Membership(_)
        | EventKind::Topology(_) => None,
    }
}

/// Whether hundreds of its kind come at once; a story tells the last of them.
fn is_one_of_many(kind: &EventKind) -> bool {
    match kind {
        EventKind::Kv(KvEvent::Fetched { .. }) | EventKind::Registers(RegisterEvent::Moved { .. }) => true,
        EventKind::Kv(KvEvent::TookOver { have, of, .. } | KvEvent::Learnt { have, of, .. }) => have != of,
        _ => false,
    }
}

fn is_gossip(kind: &EventKind) -> bool {
    match kind {
        EventKind::Sent { kind, .. } | EventKind::Received { kind, .. } => kind.family() == Family::Membership,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use qunlong_core::{Generation, Instant, Now, WallTime};

    fn event(node: u8, seq: u64, wall: u64, cause: Cause, kind: EventKind) -> Event {
        let at = Now { mono: Instant(wall), wall: WallTime(wall) };
        Event { at, node: NodeId::small(node), generation: Generation(1), seq, cause, kind }
    }

    fn message(node: u8, seq: u64) -> MessageId {
        MessageId { node: NodeId::small(node), generation: Generation(1), seq }
    }

    fn sent(from: u8, to: u8, seq: u64) -> EventKind {
        EventKind::Sent { message: message(from, seq), to: vec![NodeId::small(to)], kind: MessageKind::Read }
    }

    fn flying(playback: &Playback) -> Vec<(NodeId, NodeId)> {
        playback.flights().map(|(flight, _)| (flight.from, flight.to)).collect()
    }

    /// 60 frames a second from `from` to `to`.
    fn play(playback: &mut Playback, from: f64, to: f64) {
        let mut at = from;
        while at <= to {
            playback.frame(at);
            at += 16.0;
        }
    }

    #[test]
    fn an_answer_takes_off_when_the_question_has_landed() {
        let mut playback = Playback::default();
        // 200 µs apart in reality, and told in the wrong order.
        playback.push(0.0, [event(2, 1, 200, Cause::Message(message(1, 1)), sent(2, 1, 1))]);
        playback.push(0.0, [event(1, 1, 0, Cause::Timer, sent(1, 2, 1))]);
        play(&mut playback, 0.0, 400.0);
        assert_eq!(flying(&playback), [(NodeId::small(1), NodeId::small(2))]);
        play(&mut playback, 416.0, 1_300.0);
        assert_eq!(flying(&playback), [(NodeId::small(2), NodeId::small(1))]);
    }

    #[test]
    fn a_clock_that_is_behind_does_not_put_an_answer_before_its_question() {
        let mut playback = Playback::default();
        // The answering node's clock is a millisecond behind.
        playback.push(0.0, [event(1, 1, 1_000, Cause::Timer, sent(1, 2, 1))]);
        playback.push(0.0, [event(2, 1, 200, Cause::Message(message(1, 1)), sent(2, 1, 1))]);
        play(&mut playback, 0.0, 400.0);
        assert_eq!(flying(&playback), [(NodeId::small(1), NodeId::small(2))]);
    }

    #[test]
    fn an_answer_told_early_waits_for_its_question_to_be_told() {
        let mut playback = Playback::default();
        // Node 1 has told us something before, so it will tell us of this question as well.
        playback.push(0.0, [event(1, 1, 0, Cause::Timer, EventKind::Started)]);
        playback.push(0.0, [event(2, 1, 200, Cause::Message(message(1, 1)), sent(2, 1, 1))]);
        play(&mut playback, 0.0, 300.0);
        assert_eq!(flying(&playback), []);
        playback.push(300.0, [event(1, 2, 100, Cause::Timer, sent(1, 2, 1))]);
        play(&mut playback, 316.0, 600.0);
        assert_eq!(flying(&playback), [(NodeId::small(1), NodeId::small(2))]);
    }

    #[test]
    fn an_event_that_came_by_two_ways_is_shown_once() {
        let mut playback = Playback::default();
        let one = event(1, 1, 0, Cause::Timer, sent(1, 2, 1));
        playback.push(0.0, [one.clone(), one]);
        play(&mut playback, 0.0, 300.0);
        assert_eq!(flying(&playback).len(), 1);
    }

    #[test]
    fn a_pause_keeps_what_happens_and_shows_it_later() {
        let mut playback = Playback::default();
        playback.set_paused(true);
        playback.push(0.0, [event(1, 1, 0, Cause::Timer, sent(1, 2, 1))]);
        play(&mut playback, 0.0, 1_000.0);
        assert_eq!((flying(&playback).len(), playback.behind()), (0, 1));
        playback.step();
        playback.frame(1_010.0);
        assert_eq!((flying(&playback).len(), playback.behind()), (1, 0));
    }

    #[test]
    fn a_message_from_a_node_that_tells_us_nothing_is_shown_when_it_arrives() {
        let mut playback = Playback::default();
        let received = EventKind::Received { message: message(9, 4), kind: MessageKind::Mint };
        playback.push(0.0, [event(1, 1, 0, Cause::Message(message(9, 4)), received)]);
        play(&mut playback, 0.0, 300.0);
        assert_eq!(flying(&playback), [(NodeId::small(9), NodeId::small(1))]);
    }

    #[test]
    fn votes_fill_toward_the_quorum() {
        let mut playback = Playback::default();
        let op = OpId { node: NodeId::small(1), generation: Generation(1), seq: 1 };
        let owners = vec![NodeId::small(1), NodeId::small(2), NodeId::small(3)];
        let began = KvEvent::Began { op, kind: OpKind::Put, key: "k".into(), owners, needed: 2 };
        let counted =
            |from: u8, have| KvEvent::Counted { op, phase: Phase::Writing, from: NodeId::small(from), have, needed: 2 };
        let told = [began, counted(1, 1), counted(3, 2), KvEvent::Finished { op, refusal: None }];
        for (seq, kv) in (1..).zip(told) {
            playback.push(0.0, [event(1, seq, seq, Cause::Timer, EventKind::Kv(kv))]);
        }
        play(&mut playback, 0.0, 300.0);
        let shown = &playback.operations()[0];
        assert_eq!((shown.acked.len(), &shown.end), (2, &Some(None)));
    }

    #[test]
    fn done_is_not_shown_before_the_votes_that_made_it() {
        let mut playback = Playback::default();
        let op = OpId { node: NodeId::small(1), generation: Generation(1), seq: 1 };
        let owners = vec![NodeId::small(2), NodeId::small(3)];
        let began = KvEvent::Began { op, kind: OpKind::Put, key: "k".into(), owners, needed: 1 };
        let counted = KvEvent::Counted { op, phase: Phase::Writing, from: NodeId::small(2), have: 1, needed: 1 };
        // Node 2 tells us things, but not yet of the message that was counted.
        playback.push(0.0, [event(2, 1, 0, Cause::Timer, EventKind::Started)]);
        playback.push(0.0, [event(1, 1, 1, Cause::Timer, EventKind::Kv(began))]);
        playback.push(0.0, [event(1, 2, 2, Cause::Message(message(2, 7)), EventKind::Kv(counted))]);
        let finished = KvEvent::Finished { op, refusal: None };
        playback.push(0.0, [event(1, 3, 3, Cause::Timer, EventKind::Kv(finished))]);
        let mut at = 0.0;
        while playback.operations().front().is_none_or(|operation| operation.end.is_none()) {
            at += 16.0;
            playback.frame(at);
            assert!(at < 5_000.0, "it is shown at last");
        }
        assert_eq!(playback.operations()[0].acked.len(), 1);
    }

    /// The proposer's own acceptance is there at once, while the promises that came before it are still in flight.
    #[test]
    fn acceptances_are_not_shown_before_the_proposal() {
        use qunlong_core::paxos::Ballot;
        use qunlong_core::registers::Phase;
        let ballot = Ballot { counter: 1, node: NodeId::small(1), generation: Generation(1) };
        let (key, owners) = (Bytes::from("k"), vec![NodeId::small(1), NodeId::small(2)]);
        let counted = |phase, from| {
            let (key, from) = (Bytes::from("k"), NodeId::small(from));
            EventKind::Registers(RegisterEvent::Counted { key, phase, from, have: 1, needed: 2 })
        };
        let prepared = RegisterEvent::Prepared { key: key.clone(), ballot, owners: owners.clone(), needed: 2 };
        let (version, requests, at_once, needed) = (1, 1, false, 2);
        let proposed = RegisterEvent::Proposed { key: key.clone(), ballot, owners, version, requests, at_once, needed };
        let answer = |seq| Cause::Message(message(2, seq));
        let mut playback = Playback::default();
        playback.push(
            0.0,
            [
                event(1, 1, 0, Cause::Timer, EventKind::Registers(prepared)),
                event(2, 1, 1, Cause::Timer, sent(2, 1, 1)),
                event(1, 2, 2, answer(1), counted(Phase::Preparing, 2)),
                event(1, 3, 2, answer(1), EventKind::Registers(proposed)),
                event(1, 4, 3, Cause::Durable, counted(Phase::Accepting, 1)),
                event(2, 2, 4, Cause::Timer, sent(2, 1, 2)),
                event(1, 5, 5, answer(2), counted(Phase::Accepting, 2)),
                event(1, 6, 5, answer(2), EventKind::Registers(RegisterEvent::Chosen { key, ballot, version: 1 })),
            ],
        );
        for at in 0..60 {
            playback.frame(f64::from(at) * 100.0);
            let round = playback.rounds().list().front();
            let early = round.is_some_and(|round| !round.accepted.is_empty() && round.version.is_none());
            assert!(!early, "an acceptance of nothing at {at}");
        }
        let round = playback.rounds().list().front().expect("it was shown");
        assert_eq!((round.accepted.len(), round.end), (2, Some(crate::rounds::End::Chosen)));
    }

    #[test]
    fn what_is_kept_of_epochs_waits_for_no_pause_and_misses_nothing_in_a_flood() {
        use qunlong_core::kv::OpKind;
        use qunlong_core::topology::Event as TopologyEvent;
        let mut playback = Playback::default();
        playback.set_paused(true);
        let op = |seq| OpId { node: NodeId::small(1), generation: Generation(1), seq };
        let began = |seq| KvEvent::Began { op: op(seq), kind: OpKind::Get, key: "k".into(), owners: vec![], needed: 2 };
        playback.push(0.0, (1..5_000).map(|seq| event(1, seq, seq, Cause::Timer, EventKind::Kv(began(seq)))));
        let chosen = TopologyEvent::Chosen { ballot: qunlong_core::paxos::Ballot::NONE, epoch: qunlong_core::Epoch(2) };
        playback.push(0.0, [event(1, 5_000, 5_000, Cause::Timer, EventKind::Topology(chosen))]);
        assert!(playback.frame(16.0) && !playback.frame(32.0));
        assert_eq!(playback.epochs().history().len(), 1);
    }

    #[test]
    fn a_flood_is_bounded_and_gossip_gives_way() {
        let mut playback = Playback::default();
        let flood = (1..20_000).map(|seq| {
            let kind =
                EventKind::Sent { message: message(1, seq), to: vec![NodeId::small(2)], kind: MessageKind::Gossip };
            event(1, seq, seq, Cause::Timer, kind)
        });
        playback.push(0.0, flood);
        playback.set_paused(true);
        play(&mut playback, 0.0, 300.0);
        assert!(playback.behind() <= WAITING + 1);
    }
}

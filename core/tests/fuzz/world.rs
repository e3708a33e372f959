//! A small cluster whose nodes hear each other at once, to bring a node into a state and to record what it is told.
//!
//! Three servers n1, n2, n3 and a tab t1. Disks sync at once, messages arrive in the order in which they were sent, and
//! timers fire when they are due. Everything follows from nothing: two worlds are equal at every moment.

use std::collections::{BTreeSet, VecDeque};

use qunlong_core::config::{Bootstrap, Config};
use qunlong_core::member::{Class, Durability, Profile};
use qunlong_core::trace::Level;
use qunlong_core::wire::Envelope;
use qunlong_core::{
    Duration, Event, Input, Instant, Node, NodeId, Now, Op, Output, Record, RequestId, Storage, WallTime,
};

/// Who is there.
pub(crate) const PLACES: [NodeId; 4] = [NodeId::small(1), NodeId::small(2), NodeId::small(3), NodeId::small(101)];
/// The tab's place.
pub(crate) const TAB: usize = 3;

/// When worlds begin, on the wall clock.
const BEGAN: WallTime = WallTime(1_700_000_000_000_000);

/// The cluster.
#[derive(Debug)]
pub(crate) struct World {
    /// The time.
    pub(crate) now: Now,
    /// The nodes, by place.
    pub(crate) spots: Vec<Spot>,
    /// Places that hear and say nothing.
    pub(crate) silent: BTreeSet<usize>,
    /// Everything that any node was told, oldest first.
    pub(crate) told: Vec<(Now, usize, Input)>,
    /// Everything that any node said.
    pub(crate) said: Vec<(Vec<NodeId>, Envelope)>,
    /// Everything that any node let its trace know.
    pub(crate) events: Vec<Event>,
    waiting: VecDeque<(usize, Input)>,
    requests: u64,
}

/// A node with what it has made durable.
#[derive(Clone, Debug)]
pub(crate) struct Spot {
    /// The node.
    pub(crate) node: Node,
    /// Its settings.
    pub(crate) config: Config,
    /// Its records, oldest first.
    pub(crate) records: Vec<Record>,
}

/// A node's settings: fast enough that a seed of a few messages reaches repair and collection.
fn config(place: usize) -> Config {
    let class = if place == TAB { Class::Tab } else { Class::Server };
    let name = if place == TAB { "t1".to_owned() } else { format!("n{}", place + 1) };
    let address = (class == Class::Server).then(|| name.clone());
    let profile = Profile { address, ..Profile::new(name, class, Durability::Durable, Storage([place as u8; 16])) };
    let mut config = Config::new(PLACES[place], profile);
    config.bootstrap = (place == 0).then_some(Bootstrap { owners: 3, replicas: 3, tabs: false });
    config.kv.repair_interval = Duration::secs(1);
    config.kv.collect_after = Duration::secs(2);
    config
}

impl World {
    /// Nobody has been told anything yet.
    pub(crate) fn new() -> Self {
        let spot = |place| {
            let config = config(place);
            let mut node = Node::new(config.clone(), 7 + place as u64).expect("sound settings");
            node.set_level(Level::Messages);
            Spot { node, config, records: vec![] }
        };
        Self {
            now: Now { mono: Instant(0), wall: BEGAN },
            spots: (0..PLACES.len()).map(spot).collect(),
            silent: BTreeSet::new(),
            told: vec![],
            said: vec![],
            events: vec![],
            waiting: VecDeque::new(),
            requests: 0,
        }
    }

    /// Everybody is linked, and knows the epoch once 3 s have passed.
    pub(crate) fn form(&mut self) {
        for (a, b) in (0..PLACES.len()).flat_map(|a| (0..PLACES.len()).map(move |b| (a, b))) {
            if a != b {
                self.tell(a, Input::Link { peer: PLACES[b], up: true });
            }
        }
        self.pass(Duration::secs(3));
        assert!(self.spots.iter().all(|spot| spot.node.view().chosen.is_some()), "a cluster forms within 3 s");
    }

    /// Asks a node.
    pub(crate) fn ask(&mut self, place: usize, op: impl Into<Op>) {
        self.requests += 1;
        let id = RequestId(self.requests);
        self.tell(place, Input::Request { id, op: op.into() });
    }

    /// Tells a node something, and lets all that follows at once happen.
    pub(crate) fn tell(&mut self, place: usize, input: Input) {
        self.waiting.push_back((place, input));
        while let Some((place, input)) = self.waiting.pop_front() {
            if !self.silent.contains(&place) {
                self.input(place, input);
            }
        }
    }

    /// Lets time pass.
    pub(crate) fn pass(&mut self, span: Duration) {
        let end = self.now.mono + span;
        while let Some(next) = self.next().filter(|&next| next <= end) {
            self.advance(next);
            for place in 0..PLACES.len() {
                if self.deadline(place).is_some_and(|deadline| deadline <= next) {
                    self.tell(place, Input::Tick);
                }
            }
        }
        self.advance(end);
    }

    fn advance(&mut self, to: Instant) {
        let mono = self.now.mono.max(to);
        self.now = Now { mono, wall: WallTime(BEGAN.0 + mono.0) };
    }

    fn next(&self) -> Option<Instant> {
        (0..PLACES.len()).filter_map(|place| self.deadline(place)).min()
    }

    fn deadline(&self, place: usize) -> Option<Instant> {
        self.spots[place].node.deadline().filter(|_| !self.silent.contains(&place))
    }

    fn input(&mut self, place: usize, input: Input) {
        self.told.push((self.now, place, input.clone()));
        let Spot { node, records: kept, .. } = &mut self.spots[place];
        node.handle(self.now, input);
        while let Some(output) = node.poll() {
            match output {
                Output::Persist { id, records } => {
                    kept.extend(records);
                    self.waiting.push_back((place, Input::Persisted(id)));
                }
                Output::Send { to, message } => {
                    for receiver in PLACES.iter().enumerate().filter(|(_, id)| to.contains(id)) {
                        self.waiting.push_back((receiver.0, Input::Message(message.clone())));
                    }
                    self.said.push((to, message));
                }
                Output::Reply { .. } => (),
                Output::Trace(event) => self.events.push(event),
            }
        }
    }
}

//! A cluster in virtual time.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::disk::Disk;
use super::network::Network;
use crate::config::{Bootstrap, Config};
use crate::hash::StableHasher;
use crate::id::{Epoch, NodeId, RequestId, Storage};
use crate::journal::{JournalError, StorageIdentity};
use crate::lift::{Event, MessageKind, Op, Outcome};
use crate::limits;
use crate::member::{Class, Durability, Profile};
use crate::node::{Input, Node};
use crate::outbox::{Output, PersistId};
use crate::recording::Recorder;
use crate::refusal::Refusal;
use crate::rng::Rng;
use crate::time::{Duration, Instant, Now, WallTime};
use crate::trace::Level;
use crate::wire::{self, Envelope};

/// When virtual time begins on the wall clock.
pub const EPOCH_WALL: u64 = 1_700_000_000_000_000;
/// How long after a start or a crash the other side of a link notices.
const LINK_DELAY: Duration = Duration::millis(1);

/// After a link has closed its end is dialled again within this.
const REDIAL: Duration = Duration::millis(400);

/// A running simulation.
#[derive(Clone, Debug)]
pub struct Sim {
    now: Instant,
    rng: Rng,
    places: Vec<Place>,
    /// What happens next, by time and then by order of planning.
    agenda: BTreeMap<(Instant, u64), Happening>,
    planned: u64,
    /// The network between the places.
    pub network: Network,
    requests: u64,
    replies: BTreeMap<RequestId, Result<Outcome, Refusal>>,
    trace: VecDeque<Event>,
    level: Level,
    inputs: u64,
    /// If set, everything that happens is hashed into it.
    happened: Option<StableHasher>,
    recorder: Option<Recorder>,
    /// Which places get no messages of which kinds.
    withheld: BTreeSet<(usize, MessageKind)>,
    /// Whether messages travel as bytes, as on a real link. Off, they are cheaper.
    pub through_bytes: bool,
}

/// A node's place: its disk stays when the node crashes.
#[derive(Clone, Debug)]
struct Place {
    config: Config,
    disk: Disk,
    /// Boxed: it is taken out and put back for each input.
    node: Option<Box<Node>>,
    /// Counts starts, so that what was planned for an earlier run finds nobody.
    run: u64,
    /// The number of its start in a recording.
    number: u32,
    /// The wake-up that is planned.
    wake: Option<Instant>,
    clock: Clock,
    /// Until then the process stands still; what arrives waits.
    paused_until: Instant,
    /// Until then its timers fire at whole seconds only, as those of a hidden page do.
    hidden_until: Instant,
    /// Of a tab, the servers that it is linked to, as of which epoch.
    servers: (Epoch, Vec<usize>),
    /// Lives with storage of their own; each but the first is a new node.
    lives: u8,
}

/// A place's own clocks: they run faster or slower than time, and the one on the wall may be set.
#[derive(Clone, Copy, Debug)]
struct Clock {
    /// Local time passes at so many thousandths of time.
    rate: u64,
    /// Where `rate` began: the time, and what the monotonic clock showed.
    since: (Instant, Instant),
    /// What the wall clock is ahead of the monotonic one.
    wall: u64,
}

impl Default for Clock {
    fn default() -> Self {
        Self { rate: 1_000, since: (Instant(0), Instant(0)), wall: EPOCH_WALL }
    }
}

impl Clock {
    fn mono(&self, now: Instant) -> Instant {
        self.since.1 + Duration(now.since(self.since.0).0 * self.rate / 1_000)
    }

    fn now(&self, now: Instant) -> Now {
        let mono = self.mono(now);
        Now { mono, wall: WallTime(self.wall.saturating_add(mono.0)) }
    }

    /// When the monotonic clock will show this, not before.
    fn time_of(&self, local: Instant) -> Instant {
        self.since.0 + Duration((local.since(self.since.1).0 * 1_000).div_ceil(self.rate))
    }
}

#[derive(Clone, Debug)]
enum Happening {
    Wake { place: usize, run: u64 },
    Arrive { place: usize, run: u64, to: NodeId, hops: u8, message: Arc<Envelope> },
    Synced { place: usize, run: u64 },
    Told { place: usize, run: u64, id: PersistId },
    Link { place: usize, run: u64, peer: NodeId, up: bool },
    Redial { place: usize, run: u64, peer: NodeId },
    Room { place: usize },
}

impl Happening {
    fn place(&self) -> usize {
        match *self {
            Self::Wake { place, .. }
            | Self::Arrive { place, .. }
            | Self::Synced { place, .. }
            | Self::Told { place, .. }
            | Self::Room { place }
            | Self::Redial { place, .. }
            | Self::Link { place, .. } => place,
        }
    }
}

impl Sim {
    /// `servers` named n1, n2, …, the first of which bootstraps with `replicas` copies, and `tabs` named t1, t2, …,
    /// each linked to two servers. Everything else follows from the seed.
    #[must_use]
    pub fn new(seed: u64, servers: u8, tabs: u8, replicas: u8) -> Self {
        Self::with(seed, servers, tabs, replicas, |_| ())
    }

    /// [`Sim::new`] with other settings of the nodes.
    #[must_use]
    pub fn with(seed: u64, servers: u8, tabs: u8, replicas: u8, tune: impl Fn(&mut Config)) -> Self {
        Self::build(seed, (servers, tabs, replicas), tune, None)
    }

    /// [`Sim::with`], recorded from its first input on.
    #[must_use]
    pub fn recorded(seed: u64, servers: u8, tabs: u8, replicas: u8, tune: impl Fn(&mut Config)) -> Self {
        Self::build(seed, (servers, tabs, replicas), tune, Some(Recorder::default()))
    }

    fn build(
        seed: u64,
        (servers, tabs, replicas): (u8, u8, u8),
        tune: impl Fn(&mut Config),
        recorder: Option<Recorder>,
    ) -> Self {
        let mut sim = Self {
            now: Instant(0),
            rng: Rng::new(seed),
            places: Vec::new(),
            agenda: BTreeMap::new(),
            planned: 0,
            network: Network::default(),
            requests: 0,
            replies: BTreeMap::new(),
            trace: VecDeque::new(),
            level: Level::Off,
            inputs: 0,
            happened: None,
            recorder,
            withheld: BTreeSet::new(),
            through_bytes: true,
        };
        for n in 1..=servers {
            let bootstrap = (n == 1).then_some(Bootstrap { owners: servers, replicas, tabs: false });
            sim.add(NodeId::small(n), alloc::format!("n{n}"), Class::Server, bootstrap);
        }
        for n in 1..=tabs {
            sim.add(NodeId::small(100 + n), alloc::format!("t{n}"), Class::Tab, None);
        }
        for place in 0..sim.places.len() {
            tune(&mut sim.places[place].config);
            sim.places[place].servers.1 = sim.servers_for(place);
        }
        for place in 0..sim.places.len() {
            sim.start(place);
        }
        sim
    }

    fn add(&mut self, id: NodeId, name: String, class: Class, bootstrap: Option<Bootstrap>) {
        let address = (class == Class::Server).then(|| name.clone());
        let identity = StorageIdentity { node: id, incarnation: self.rng.next_bytes() };
        let storage = Storage(identity.incarnation);
        let profile = Profile { address, ..Profile::new(name, class, Durability::Durable, storage) };
        let config = Config { bootstrap, ..Config::new(id, profile) };
        self.places.push(Place {
            config,
            disk: Disk::new(identity),
            node: None,
            run: 0,
            number: 0,
            wake: None,
            clock: Clock::default(),
            paused_until: Instant(0),
            hidden_until: Instant(0),
            servers: (Epoch(0), Vec::new()),
            lives: 1,
        });
    }

    /// The number of a place by its node's name.
    #[must_use]
    pub fn place(&self, name: &str) -> Option<usize> {
        self.places.iter().position(|place| place.config.profile.name == name)
    }

    /// The name of a node.
    #[must_use]
    pub fn name(&self, id: NodeId) -> String {
        self.place_of(id).map_or_else(|| id.to_string(), |place| self.places[place].config.profile.name.clone())
    }

    /// How many places there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The node at a place, if it runs.
    #[must_use]
    pub fn node(&self, place: usize) -> Option<&Node> {
        self.places[place].node.as_deref()
    }

    /// The disk at a place.
    pub fn disk(&mut self, place: usize) -> &mut Disk {
        &mut self.places[place].disk
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// A generator for whoever drives the simulation, apart from its own.
    pub fn fork_rng(&mut self) -> Rng {
        self.rng.fork()
    }

    /// How much is under way: messages, syncs, wake-ups.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.agenda.len()
    }

    /// Inputs handled by all nodes so far.
    #[must_use]
    pub fn inputs(&self) -> u64 {
        self.inputs
    }

    /// Sets how much is told.
    pub fn set_level(&mut self, level: Level) {
        self.level = level;
        for node in self.places.iter_mut().filter_map(|place| place.node.as_mut()) {
            node.set_level(level);
        }
    }

    /// The oldest event that nobody has taken yet.
    pub fn next_event(&mut self) -> Option<Event> {
        self.trace.pop_front()
    }

    /// A hash over the state of all nodes that run.
    #[must_use]
    pub fn state_hash(&self) -> u64 {
        use core::hash::{Hash, Hasher};
        let mut hasher = StableHasher::default();
        for place in &self.places {
            place.node.hash(&mut hasher);
        }
        hasher.finish()
    }

    /// From now on hashes every input of every node with its time.
    pub fn hash_what_happens(&mut self) {
        self.happened = Some(StableHasher::default());
    }

    /// The hash of all inputs so far, if they are hashed.
    #[must_use]
    pub fn happened(&self) -> Option<u64> {
        use core::hash::Hasher;
        self.happened.as_ref().map(StableHasher::finish)
    }

    /// The recording since the last call, with the state that it leads to; `None` if nothing is recorded.
    pub fn take_recording(&mut self) -> Option<Vec<u8>> {
        let recorder = self.recorder.as_mut()?;
        let mut running: Vec<(u32, &Node)> =
            self.places.iter().filter_map(|place| Some((place.number, place.node.as_deref()?))).collect();
        running.sort_unstable_by_key(|(number, _)| *number);
        recorder.state(running.into_iter().map(|(_, node)| node));
        Some(recorder.take())
    }

    /// Stops a process without ending it, as SIGSTOP or a frozen tab does.
    pub fn pause(&mut self, place: usize, span: Duration) {
        let until = self.now + span;
        let place = &mut self.places[place];
        place.paused_until = place.paused_until.max(until);
    }

    /// Lets a place's timers fire at whole seconds only, as browsers do to pages that nobody sees.
    pub fn hide(&mut self, place: usize, span: Duration) {
        let until = self.now + span;
        let place = &mut self.places[place];
        place.hidden_until = place.hidden_until.max(until);
    }

    /// Fills a place's disk for a while. What its node wants written waits, and the node knows.
    pub fn fill(&mut self, place: usize, span: Duration) {
        let spot = &mut self.places[place];
        spot.disk.set_full(&mut self.rng, true);
        self.input(place, Input::DiskFull(true));
        self.plan(span, Happening::Room { place });
    }

    /// Makes room on a place's disk.
    pub fn make_room(&mut self, place: usize) {
        let spot = &mut self.places[place];
        let (next, run) = (spot.disk.set_full(&mut self.rng, false), spot.run);
        if let Some(span) = next {
            self.plan(span, Happening::Synced { place, run });
        }
        self.input(place, Input::DiskFull(false));
    }

    /// The node that lives at a place, running or not.
    #[must_use]
    pub fn id(&self, place: usize) -> NodeId {
        self.places[place].config.id
    }

    /// Makes a place's clocks run at so many thousandths of time.
    pub fn set_rate(&mut self, place: usize, rate: u64) {
        let now = self.now;
        let spot = &mut self.places[place];
        spot.clock.since = (now, spot.clock.mono(now));
        spot.clock.rate = rate.max(1);
        self.plan_wake(place);
    }

    /// Sets a place's wall clock forward or back.
    pub fn set_wall(&mut self, place: usize, by: i64) {
        let wall = &mut self.places[place].clock.wall;
        *wall = wall.saturating_add_signed(by);
    }

    /// A place loses its storage, and comes back as a new node that nobody knows.
    pub fn wipe(&mut self, place: usize) {
        self.crash(place);
        let incarnation = self.rng.next_bytes();
        let spot = &mut self.places[place];
        let mut id = spot.config.id.0;
        id[0] = spot.lives;
        spot.lives += 1;
        spot.config.id = NodeId(id);
        spot.config.profile.storage = Storage(incarnation);
        spot.disk = Disk::new(StorageIdentity { node: spot.config.id, incarnation });
        self.start(place);
    }

    /// A place loses its storage and comes back under its old name, as a folder does whose journal was deleted by hand
    /// beside its key.
    pub fn forget(&mut self, place: usize) {
        self.crash(place);
        let incarnation = self.rng.next_bytes();
        let spot = &mut self.places[place];
        spot.config.profile.storage = Storage(incarnation);
        spot.disk = Disk::new(StorageIdentity { node: spot.config.id, incarnation });
        self.start(place);
    }

    /// The class of the node at a place.
    #[must_use]
    pub fn class(&self, place: usize) -> Class {
        self.places[place].config.profile.class
    }

    /// Hands a request to a node; its answer appears in [`Sim::reply`]. `None` if the node does not run.
    pub fn request(&mut self, place: usize, op: Op) -> Option<RequestId> {
        self.places[place].node.as_ref()?;
        self.requests += 1;
        let id = RequestId(self.requests);
        self.input(place, Input::Request { id, op });
        Some(id)
    }

    /// The answer to a request, once there is one.
    #[must_use]
    pub fn reply(&self, id: RequestId) -> Option<&Result<Outcome, Refusal>> {
        self.replies.get(&id)
    }

    /// The answer to a request, taken out.
    pub fn take_reply(&mut self, id: RequestId) -> Option<Result<Outcome, Refusal>> {
        self.replies.remove(&id)
    }

    /// Stops a node as kill -9 and a power cut would.
    pub fn crash(&mut self, place: usize) {
        if self.places[place].node.take().is_none() {
            return;
        }
        self.places[place].run += 1;
        self.places[place].wake = None;
        if let Some(recorder) = &mut self.recorder {
            recorder.stopped(self.places[place].number);
        }
        self.places[place].disk.crash(&mut self.rng);
        let id = self.places[place].config.id;
        for other in self.partners(place) {
            let run = self.places[other].run;
            self.plan(LINK_DELAY, Happening::Link { place: other, run, peer: id, up: false });
            if self.class(place) == Class::Server {
                let wait = self.rng.between(LINK_DELAY.times(2), REDIAL);
                self.plan(wait, Happening::Redial { place: other, run, peer: id });
            }
        }
    }

    /// Starts a node from what its disk kept.
    ///
    /// # Panics
    ///
    /// If its journal is damaged: nothing here damages it, unless a test did so itself.
    pub fn start(&mut self, place: usize) {
        self.try_start(place).expect("a crash only tears the tail");
    }

    /// Starts a node from what its disk kept, unless that is damaged.
    ///
    /// # Errors
    ///
    /// Says how the journal is damaged; the node stays down, as a process that refuses to start does.
    ///
    /// # Panics
    ///
    /// If the node's settings are not sound.
    pub fn try_start(&mut self, place: usize) -> Result<(), JournalError> {
        if self.places[place].node.is_some() {
            return Ok(());
        }
        let seed = self.rng.next_u64();
        let spot = &mut self.places[place];
        let records = spot.disk.recover()?;
        if let Some(recorder) = &mut self.recorder {
            spot.number = recorder.start(&spot.config, seed, &records);
        }
        let mut node = Node::restore(spot.config.clone(), seed, records).expect("the settings are sound");
        node.set_level(self.level);
        spot.node = Some(Box::new(node));
        spot.run += 1;
        let (id, run) = (spot.config.id, spot.run);
        self.input(place, Input::Tick);
        if self.places[place].disk.is_full() {
            self.input(place, Input::DiskFull(true));
        }
        for other in self.partners(place) {
            if self.places[other].node.is_none() {
                continue;
            }
            let (peer, other_run) = (self.places[other].config.id, self.places[other].run);
            self.plan(LINK_DELAY, Happening::Link { place, run, peer, up: true });
            self.plan(LINK_DELAY, Happening::Link { place: other, run: other_run, peer: id, up: true });
        }
        Ok(())
    }

    /// Runs for a while.
    pub fn run_for(&mut self, span: Duration) {
        let end = self.now + span;
        while self.agenda.first_key_value().is_some_and(|((at, _), _)| *at <= end) {
            self.step();
        }
        self.now = end;
    }

    /// Runs until the condition holds or the time is up. Returns whether it holds.
    pub fn run_until(&mut self, span: Duration, mut condition: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now + span;
        loop {
            if condition(self) {
                return true;
            }
            if self.agenda.first_key_value().is_none_or(|((at, _), _)| *at > end) {
                self.now = end;
                return condition(self);
            }
            self.step();
        }
    }

    /// Does the next thing.
    pub fn step(&mut self) {
        let Some(((at, order), happening)) = self.agenda.pop_first() else {
            return;
        };
        self.now = self.now.max(at);
        let resumes = self.places[happening.place()].paused_until;
        if resumes > self.now {
            // In the order in which it would have happened, also where the pause is drawn out meanwhile.
            self.agenda.insert((resumes, order), happening);
            return;
        }
        match happening {
            Happening::Wake { place, run } => {
                if self.is_running(place, run) && self.places[place].wake.is_some_and(|wake| wake <= at) {
                    self.places[place].wake = None;
                    self.input(place, Input::Tick);
                }
            }
            Happening::Arrive { place, run, to, hops, message } => {
                if self.is_running(place, run) {
                    self.arrive(place, to, hops, message);
                }
            }
            Happening::Synced { place, run } => {
                if self.is_running(place, run) && core::mem::take(&mut self.places[place].disk.failing) {
                    self.crash(place);
                } else if self.is_running(place, run) {
                    let (done, next) = self.places[place].disk.synced(&mut self.rng);
                    if let Some(span) = next {
                        self.plan(span, Happening::Synced { place, run });
                    }
                    if let Some(id) = done {
                        self.input(place, Input::Persisted(id));
                    }
                }
            }
            Happening::Room { place } => self.make_room(place),
            Happening::Redial { place, run, peer } => {
                let is_down = self.place_of(peer).is_some_and(|peer| self.places[peer].node.is_none());
                if self.is_running(place, run) && is_down {
                    self.input(place, Input::Refused { peer });
                }
            }
            Happening::Told { place, run, id } => {
                if self.is_running(place, run) {
                    self.input(place, Input::Persisted(id));
                }
            }
            Happening::Link { place, run, peer, up } => {
                let peer_runs = self.place_of(peer).is_some_and(|peer| self.places[peer].node.is_some());
                if self.is_running(place, run) && (peer_runs || !up) {
                    self.input(place, Input::Link { peer, up });
                }
            }
        }
    }

    /// A message arrives at a node now: one that was under way for longer than the network ever keeps one.
    pub fn deliver(&mut self, place: usize, message: Envelope) {
        self.input(place, Input::Message(message));
    }

    /// From now on a node gets no message of this kind, or gets them again.
    pub fn withhold(&mut self, place: usize, kind: MessageKind, withheld: bool) {
        if withheld {
            self.withheld.insert((place, kind));
        } else {
            self.withheld.remove(&(place, kind));
        }
    }

    /// A packet reached a node's host: for the node, or to be passed on.
    fn arrive(&mut self, place: usize, to: NodeId, hops: u8, message: Arc<Envelope>) {
        if self.withheld.contains(&(place, message.payload.kind())) {
            return;
        }
        if to == self.places[place].config.id {
            self.input(place, Input::Message(Arc::unwrap_or_clone(message)));
        } else if hops < limits::HOPS && self.places[place].config.profile.class == Class::Server {
            self.transmit(place, to, hops + 1, &message);
        }
    }

    /// The host's loop: handle, drain, plan the next wake-up.
    fn input(&mut self, place: usize, input: Input) {
        let now = self.places[place].clock.now(self.now);
        let Some(mut node) = self.places[place].node.take() else {
            return;
        };
        self.inputs += 1;
        if let Some(hasher) = &mut self.happened {
            use core::hash::Hash;
            (self.now, place, &input).hash(hasher);
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.input(self.places[place].number, self.now, now, &input);
        }
        node.handle(now, input);
        let run = self.places[place].run;
        while let Some(output) = node.poll() {
            match output {
                Output::Persist { id, records } => {
                    if let Some(span) = self.places[place].disk.persist(&mut self.rng, id, records) {
                        self.plan(span, Happening::Synced { place, run });
                    }
                    if self.places[place].disk.lies {
                        self.plan(Duration::ZERO, Happening::Told { place, run, id });
                    }
                }
                Output::Send { to, message } => {
                    let message = Arc::new(message);
                    // The hop is looked up in the node's own view, as a host does.
                    for to in to {
                        let hop = node.view().next_hop(to, message.seq);
                        self.transmit_via(place, hop, to, 0, &message);
                    }
                }
                Output::Reply { id, result } => {
                    self.replies.insert(id, result);
                }
                Output::Trace(event) => self.trace.push_back(event),
            }
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.drained(self.places[place].number);
        }
        self.places[place].node = Some(node);
        self.plan_wake(place);
        self.redial(place);
    }

    /// A tab keeps links to two servers that relay in the epoch it knows, as its host does.
    fn redial(&mut self, place: usize) {
        let spot = &self.places[place];
        let epoch = spot.node.as_ref().map_or(Epoch(0), |node| node.view().epoch());
        if spot.config.profile.class == Class::Server || spot.servers.0 == epoch {
            return;
        }
        let servers = self.servers_for(place);
        let before = core::mem::replace(&mut self.places[place].servers, (epoch, servers.clone())).1;
        for (server, up) in
            before.iter().map(|&server| (server, false)).chain(servers.iter().map(|&server| (server, true)))
        {
            if before.contains(&server) && servers.contains(&server) {
                continue;
            }
            for (one, other) in [(place, server), (server, place)] {
                let (run, peer) = (self.places[one].run, self.places[other].config.id);
                self.plan(LINK_DELAY, Happening::Link { place: one, run, peer, up });
            }
        }
    }

    /// The servers that a tab should be linked to: two of those that relay, or of all while it knows of none.
    fn servers_for(&self, tab: usize) -> Vec<usize> {
        let is_server = |place: &usize| self.places[*place].config.profile.class == Class::Server;
        let count = (0..self.places.len()).filter(is_server).count();
        let config = self.places[tab].node.as_ref().and_then(|node| node.view().chosen.as_ref());
        let relays = |server: &usize| config.is_none_or(|chosen| chosen.config.relays(self.places[*server].config.id));
        (0..count).map(|n| (tab.saturating_sub(count) + n) % count).filter(relays).take(2).collect()
    }

    fn plan_wake(&mut self, place: usize) {
        let spot = &mut self.places[place];
        let deadline = spot.node.as_deref().and_then(Node::deadline);
        let at = deadline.map(|at| spot.clock.time_of(at).max(self.now));
        let at = at.map(|at| if at < spot.hidden_until { at.next_second() } else { at });
        if let Some(at) = at.filter(|&at| spot.wake != Some(at)) {
            spot.wake = Some(at);
            let run = spot.run;
            self.plan(at.since(self.now), Happening::Wake { place, run });
        }
    }

    fn transmit(&mut self, place: usize, to: NodeId, hops: u8, message: &Arc<Envelope>) {
        let hop = self.places[place].node.as_ref().and_then(|node| node.view().next_hop(to, message.seq));
        self.transmit_via(place, hop, to, hops, message);
    }

    fn transmit_via(&mut self, place: usize, hop: Option<NodeId>, to: NodeId, hops: u8, message: &Arc<Envelope>) {
        let Some(next) = hop.and_then(|hop| self.place_of(hop)) else {
            return;
        };
        let run = self.places[next].run;
        for at in self.network.deliveries(&mut self.rng, self.now, place, next) {
            let message = if self.through_bytes { Arc::new(through_bytes(message)) } else { Arc::clone(message) };
            self.plan(at.since(self.now), Happening::Arrive { place: next, run, to, hops, message });
        }
    }

    fn plan(&mut self, after: Duration, happening: Happening) {
        self.planned += 1;
        self.agenda.insert((self.now + after, self.planned), happening);
    }

    fn is_running(&self, place: usize, run: u64) -> bool {
        self.places[place].node.is_some() && self.places[place].run == run
    }

    fn place_of(&self, id: NodeId) -> Option<usize> {
        self.places.iter().position(|place| place.config.id == id)
    }

    /// The places that a place has links with: servers all to all, a tab with those it has dialled.
    fn partners(&self, place: usize) -> Vec<usize> {
        (0..self.places.len()).filter(|&other| other != place && self.is_linked(place, other)).collect()
    }

    fn is_linked(&self, a: usize, b: usize) -> bool {
        let is_server = |place: usize| self.places[place].config.profile.class == Class::Server;
        match (is_server(a), is_server(b)) {
            (true, true) => true,
            (false, true) => self.places[a].servers.1.contains(&b),
            (true, false) => self.places[b].servers.1.contains(&a),
            (false, false) => false,
        }
    }
}

fn through_bytes(message: &Envelope) -> Envelope {
    let body = wire::encode_message(message).expect("the core keeps messages below the limit");
    wire::decode_message(message.from, &body).expect("what was encoded decodes")
}

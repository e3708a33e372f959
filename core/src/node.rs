//! One node: the switchboard between a host and the protocols.
//!
//! `handle` routes an input to its protocol and lifts the protocol's effects into queues; `poll` hands them out.
//! Nothing else happens here: no protocol's rule, no clock, no I/O. Every host runs the same loop:
//!
//! ```text
//!   wait for an input or for deadline()  →  handle every input that is ready  →  poll until None  →  flush
//! ```
//!
//! The same inputs with the same times give the same outputs and the same [`Node::state_hash`], natively and in
//! wasm32, so a log of inputs is a recording.

use alloc::sync::Arc;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::config::{Config, ConfigError};
use crate::hash::hash_of;
use crate::id::{Generation, NodeId, RequestId};
use crate::kv::Kv;
use crate::lift::{Event, EventKind, Op, Outcome, Payload, Record, Timer};
use crate::limits;
use crate::membership::Membership;
use crate::outbox::{Outbox, Output, Parcel, PersistId};
use crate::protocol::{Ctx, Effect, Effects, Gate, Protocol};
use crate::refusal::Refusal;
use crate::registers::Registers;
use crate::rng::Rng;
use crate::time::{Duration, Instant, Now};
use crate::timers::Timers;
use crate::topology::Topology;
use crate::trace::{Cause, Level, MessageId};
use crate::view::{Chosen, View};
use crate::wire::Envelope;

/// What a host tells a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Input {
    /// A message for this node arrived; its sender was checked by the host.
    Message(Envelope),
    /// A client asks. Every request gets exactly one [`Output::Reply`], unless the node stops.
    Request {
        /// Unique within this boot.
        id: RequestId,
        /// What it asks.
        op: Op,
    },
    /// This batch and all earlier ones are durable.
    Persisted(PersistId),
    /// A link to a proven peer opened or closed.
    Link {
        /// The peer.
        peer: NodeId,
        /// Whether it is open now.
        up: bool,
    },
    /// A redial of a peer was refused: nobody listens where it did. Not that nobody answered.
    Refused {
        /// The peer.
        peer: NodeId,
    },
    /// The disk is full, or has room again. Until it has, batches may wait, and this node stores nothing new.
    DiskFull(bool),
    /// Nothing but the time.
    Tick,
}

/// One member of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    shared: Shared,
    membership: Membership,
    topology: Topology,
    kv: Kv,
    registers: Registers,
}

/// How much a node holds of what could grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Messages and answers that wait for the disk.
    pub held: usize,
    /// Operations on keys that it coordinates.
    pub operations: usize,
    /// Requests to registers that it coordinates.
    pub requests: usize,
    /// What waits for its rounds on registers.
    pub proposals: usize,
    /// Registers whose next ballot is promised to it.
    pub promised: usize,
    /// Timers that are set.
    pub timers: usize,
    /// Members that it knows, the dead included.
    pub members: usize,
    /// Claims about members that it still passes on.
    pub rumours: usize,
}

/// What belongs to the node and not to one protocol.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Shared {
    config: Config,
    generation: Generation,
    started: bool,
    /// The time of the newest input; `mono` never goes back.
    now: Now,
    rng: Rng,
    view: View,
    timers: Timers<Timer>,
    outbox: Outbox,
    /// Counts messages of this boot.
    messages: u64,
    cause: Cause,
    tracer: Tracer,
    view_changed: bool,
    disk_full: bool,
}

/// Who watches must not change what happens: equal and hashed as nothing, whatever it holds.
#[derive(Clone, Debug, Default, Eq)]
struct Tracer {
    level: Level,
    /// Counts events of this boot.
    events: u64,
}

impl PartialEq for Tracer {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl core::hash::Hash for Tracer {
    fn hash<H: core::hash::Hasher>(&self, _: &mut H) {}
}

/// What a journal held cannot be this node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreError {
    /// The settings cannot work.
    Config(ConfigError),
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => fmt::Display::fmt(error, f),
        }
    }
}

impl core::error::Error for RestoreError {}

impl Node {
    /// A node in its first boot. It starts with its first input.
    ///
    /// # Errors
    ///
    /// If the settings cannot work.
    pub fn new(config: Config, seed: u64) -> Result<Self, ConfigError> {
        Self::restore(config, seed, []).map_err(|RestoreError::Config(error)| error)
    }

    /// A node in its next boot, rebuilt from the records that were durable, oldest first.
    ///
    /// # Errors
    ///
    /// If the settings cannot work.
    pub fn restore(config: Config, seed: u64, records: impl IntoIterator<Item = Record>) -> Result<Self, RestoreError> {
        config.check().map_err(RestoreError::Config)?;
        let mut membership = Membership::new(config.id, config.profile.clone());
        let (mut topology, mut kv, mut registers) = (Topology::default(), Kv::default(), Registers::default());
        let mut last_boot = Generation(0);
        for record in records {
            match record {
                Record::Boot(generation) => last_boot = last_boot.max(generation),
                Record::Membership(record) => membership.restore(record),
                Record::Topology(record) => topology.restore(record),
                Record::Kv(record) => kv.restore(record),
                Record::Registers(record) => registers.restore(record),
            }
        }
        let shared = Shared {
            config,
            generation: Generation(last_boot.0.saturating_add(1)),
            started: false,
            now: Now::default(),
            rng: Rng::new(seed),
            view: View::default(),
            timers: Timers::default(),
            outbox: Outbox::default(),
            messages: 0,
            cause: Cause::Start,
            tracer: Tracer::default(),
            view_changed: false,
            disk_full: false,
        };
        Ok(Self { shared, membership, topology, kv, registers })
    }

    /// Takes in one input. Due timers fire; nothing blocks and nothing fails.
    pub fn handle(&mut self, now: Now, input: Input) {
        let slept = self.shared.advance(now);
        if !self.shared.started {
            self.start();
        }
        if let Some(span) = slept {
            self.shared.cause = Cause::Timer;
            self.shared.trace(|| EventKind::Slept { span });
            self.each(
                |p, cx, fx| p.on_pause(cx, span, fx),
                |p, cx, fx| p.on_pause(cx, span, fx),
                |p, cx, fx| p.on_pause(cx, span, fx),
                |p, cx, fx| p.on_pause(cx, span, fx),
            );
        }
        match input {
            Input::Message(envelope) => self.receive(envelope),
            Input::Request { id, op } => self.request(id, op),
            Input::Persisted(id) => {
                self.shared.cause = Cause::Durable;
                self.shared.outbox.persisted(id);
            }
            Input::Link { peer, up } => self.link(peer, up),
            Input::Refused { peer } => {
                self.shared.cause = Cause::Link;
                let Self { shared, membership, .. } = self;
                step(shared, membership, |membership, cx, fx| membership.on_refused(cx, peer, fx));
            }
            Input::DiskFull(full) => self.disk_full(full),
            Input::Tick => (),
        }
        self.settle();
        self.fire();
    }

    /// The next thing to do, if any. Pops only.
    pub fn poll(&mut self) -> Option<Output> {
        self.shared.outbox.poll()
    }

    /// `handle(.., Input::Tick)` is wanted no later than this. Late is harmless.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        if self.shared.started { self.shared.timers.next() } else { Some(Instant(0)) }
    }

    /// Who owns and who is reachable.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.shared.view
    }

    /// What it stores as an owner.
    #[must_use]
    pub fn store(&self) -> &crate::kv::Store {
        self.kv.store()
    }

    /// The registers that it keeps as an owner.
    #[must_use]
    pub fn registers(&self) -> &crate::registers::Store {
        self.registers.store()
    }

    /// Makes these members known to a node that has not started, as if it had been among them for long. For simulations
    /// of more members than could get to know each other in reasonable time.
    #[cfg(feature = "sim")]
    pub fn acquaint(&mut self, members: &[Arc<crate::member::Member>]) {
        for member in members.iter().filter(|member| member.id != self.shared.config.id) {
            self.shared.view.members.insert(member.id, member.clone());
            self.membership.acquaint(member.clone());
        }
    }

    /// A newer boot under this node's id that was heard of: two processes share one identity, and this one, the older,
    /// has to stop.
    #[must_use]
    pub fn superseded(&self) -> Option<Generation> {
        self.membership.superseded()
    }

    /// The last change of owners and voters that a client asked this node for and that waits, or waited, for newcomers
    /// to fetch what they are to own.
    #[must_use]
    pub fn followed(&self) -> Option<&crate::topology::Followed> {
        self.topology.followed()
    }

    /// How much it holds of what could grow; [`limits`] bounds each.
    #[must_use]
    pub fn holding(&self) -> Holding {
        Holding {
            held: self.shared.outbox.held(),
            operations: self.kv.operations(),
            requests: self.registers.requests(),
            proposals: self.registers.proposals(),
            promised: self.registers.sticky(),
            timers: self.shared.timers.len(),
            members: self.shared.view.members.len(),
            rumours: self.membership.rumours(),
        }
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.shared.config.id
    }

    /// The storage that it was started with.
    #[must_use]
    pub fn storage(&self) -> crate::id::Storage {
        self.shared.config.profile.storage
    }

    /// Its boot.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.shared.generation
    }

    /// Sets how much it tells. Not part of the protocols: outputs other than traces are the same.
    pub fn set_level(&mut self, level: Level) {
        self.shared.tracer.level = level;
    }

    /// A hash of the whole state, the same on every target.
    #[must_use]
    pub fn state_hash(&self) -> u64 {
        hash_of(self)
    }

    fn start(&mut self) {
        self.shared.started = true;
        self.shared.cause = Cause::Start;
        self.shared.outbox.persist(Record::Boot(self.shared.generation));
        self.shared.trace(|| EventKind::Started);
        self.each(Protocol::on_start, Protocol::on_start, Protocol::on_start, Protocol::on_start);
    }

    fn receive(&mut self, envelope: Envelope) {
        let known = self.shared.view.members.get(&envelope.from);
        if known.is_some_and(|member| envelope.generation < member.generation) {
            return;
        }
        if self.shared.outbox.is_congested() && matches!(envelope.payload, Payload::Kv(_) | Payload::Registers(_)) {
            return;
        }
        let (message, kind) = (envelope.id(), envelope.payload.kind());
        self.shared.cause = Cause::Message(message);
        self.shared.trace_message(|| EventKind::Received { message, kind });
        // Topology's own messages carry what it needs to know of epochs.
        if envelope.epoch != self.shared.view.epoch() && !matches!(envelope.payload, Payload::Topology(_)) {
            let Self { shared, topology, .. } = self;
            step(shared, topology, |topology, cx, fx| topology.on_epoch(cx, envelope.from, envelope.epoch, fx));
        }
        self.deliver(envelope.from, envelope.payload);
    }

    fn request(&mut self, id: RequestId, op: Op) {
        self.shared.cause = Cause::Request(id);
        if self.shared.outbox.is_congested() && matches!(op, Op::Kv(_) | Op::Registers(_)) {
            self.shared.outbox.push(Parcel::Reply { id, result: Err(Refusal::Overloaded) }, Gate::Open);
            return;
        }
        let Self { shared, membership, topology, kv, registers } = self;
        match op {
            Op::Membership(op) => step(shared, membership, |p, cx, fx| p.on_op(cx, id, op, fx)),
            Op::Topology(op) => step(shared, topology, |p, cx, fx| p.on_op(cx, id, op, fx)),
            Op::Kv(op) => step(shared, kv, |p, cx, fx| p.on_op(cx, id, op, fx)),
            Op::Registers(op) => step(shared, registers, |p, cx, fx| p.on_op(cx, id, op, fx)),
        }
    }

    fn disk_full(&mut self, full: bool) {
        if core::mem::replace(&mut self.shared.disk_full, full) != full {
            self.shared.cause = Cause::Durable;
            self.shared.trace(|| EventKind::DiskFull { full });
        }
    }

    fn link(&mut self, peer: NodeId, up: bool) {
        let changed = if up { self.shared.view.links.insert(peer) } else { self.shared.view.links.remove(&peer) };
        if !changed {
            return;
        }
        self.shared.cause = Cause::Link;
        self.each(
            |p, cx, fx| p.on_link(cx, peer, up, fx),
            |p, cx, fx| p.on_link(cx, peer, up, fx),
            |p, cx, fx| p.on_link(cx, peer, up, fx),
            |p, cx, fx| p.on_link(cx, peer, up, fx),
        );
    }

    fn deliver(&mut self, from: NodeId, payload: Payload) {
        let Self { shared, membership, topology, kv, registers } = self;
        match payload {
            Payload::Membership(msg) => step(shared, membership, |p, cx, fx| p.on_message(cx, from, msg, fx)),
            Payload::Topology(msg) => step(shared, topology, |p, cx, fx| p.on_message(cx, from, msg, fx)),
            Payload::Kv(msg) => step(shared, kv, |p, cx, fx| p.on_message(cx, from, msg, fx)),
            Payload::Registers(msg) => step(shared, registers, |p, cx, fx| p.on_message(cx, from, msg, fx)),
        }
    }

    fn fire(&mut self) {
        while let Some(timer) = self.shared.timers.pop_due(self.shared.now.mono) {
            self.shared.cause = Cause::Timer;
            let Self { shared, membership, topology, kv, registers } = self;
            match timer {
                Timer::Membership(timer) => step(shared, membership, |p, cx, fx| p.on_timer(cx, timer, fx)),
                Timer::Topology(timer) => step(shared, topology, |p, cx, fx| p.on_timer(cx, timer, fx)),
                Timer::Kv(timer) => step(shared, kv, |p, cx, fx| p.on_timer(cx, timer, fx)),
                Timer::Registers(timer) => step(shared, registers, |p, cx, fx| p.on_timer(cx, timer, fx)),
            }
            self.settle();
        }
    }

    /// Posts what the gate has released and delivers what the node sent itself, until nothing is left.
    fn settle(&mut self) {
        let mut deliveries = 0;
        loop {
            if core::mem::take(&mut self.shared.view_changed) {
                self.each(Protocol::on_view, Protocol::on_view, Protocol::on_view, Protocol::on_view);
            }
            let Some(parcel) = self.shared.outbox.pop_released() else {
                return;
            };
            if let Some((cause, payload)) = self.shared.dispatch(parcel) {
                deliveries += 1;
                assert!(deliveries < limits::SETTLE, "a node must not talk to itself forever");
                self.shared.cause = cause;
                self.deliver(self.shared.config.id, payload);
            }
        }
    }

    /// Runs one step of each protocol.
    fn each(
        &mut self,
        membership: impl FnOnce(&mut Membership, &mut Ctx<'_>, &mut Effects<Membership>),
        topology: impl FnOnce(&mut Topology, &mut Ctx<'_>, &mut Effects<Topology>),
        kv: impl FnOnce(&mut Kv, &mut Ctx<'_>, &mut Effects<Kv>),
        registers: impl FnOnce(&mut Registers, &mut Ctx<'_>, &mut Effects<Registers>),
    ) {
        step(&mut self.shared, &mut self.membership, membership);
        step(&mut self.shared, &mut self.topology, topology);
        step(&mut self.shared, &mut self.kv, kv);
        step(&mut self.shared, &mut self.registers, registers);
    }
}

/// Runs one step of one protocol and lifts its effects.
fn step<P: Protocol>(shared: &mut Shared, protocol: &mut P, run: impl FnOnce(&mut P, &mut Ctx<'_>, &mut Effects<P>))
where
    Payload: From<P::Msg>,
    Timer: From<P::Timer>,
    Record: From<P::Record>,
    Outcome: From<P::Outcome>,
    EventKind: From<P::Event>,
{
    let mut fx = Effects::new(shared.tracer.level);
    let mut cx = Ctx {
        me: shared.config.id,
        generation: shared.generation,
        now: shared.now,
        config: &shared.config,
        view: &shared.view,
        disk_full: shared.disk_full,
        rng: &mut shared.rng,
    };
    run(protocol, &mut cx, &mut fx);
    for effect in fx.into_list() {
        shared.lift(effect);
    }
}

impl Shared {
    /// Moves the clock. Returns how long the node slept, if it did.
    fn advance(&mut self, now: Now) -> Option<Duration> {
        let before = self.now;
        self.now = Now { mono: before.mono.max(now.mono), wall: now.wall };
        // Whoever had nothing to do did not sleep: only what comes later than it was asked for shows it.
        let expected = self.timers.next().map_or(self.now.mono, |due| due.max(before.mono));
        let late = self.now.mono.since(expected);
        // Some monotonic clocks stand still while the machine sleeps; then only the wall clock shows it.
        let mono = self.now.mono.since(before.mono);
        let slept = late.max(now.wall.since(before.wall) - mono);
        (self.started && slept > limits::PAUSE_MAX).then_some(slept)
    }

    fn lift<P: Protocol>(&mut self, effect: Effect<P>)
    where
        Payload: From<P::Msg>,
        Timer: From<P::Timer>,
        Record: From<P::Record>,
        Outcome: From<P::Outcome>,
        EventKind: From<P::Event>,
    {
        match effect {
            Effect::Send { to, msg, gate } => {
                let parcel = Parcel::Send { to, payload: msg.into(), cause: self.cause };
                self.outbox.push(parcel, gate);
            }
            Effect::Persist(record) => self.outbox.persist(record.into()),
            Effect::Arm { after, timer } => self.timers.arm(self.now.mono + after, timer.into()),
            Effect::Disarm(timer) => self.timers.disarm(&timer.into()),
            Effect::Finish { id, result, gate } => {
                self.outbox.push(Parcel::Reply { id, result: result.map(Into::into) }, gate);
            }
            Effect::Trace(event) => self.trace(|| event.into()),
            Effect::Publish(member) => {
                self.view.members.insert(member.id, member);
                self.view_changed = true;
            }
            Effect::Retract(node) => {
                self.view.members.remove(&node);
                self.view_changed = true;
            }
            Effect::Leave(config) => {
                (self.view.chosen, self.view.left) = (None, Some(config));
                self.view_changed = true;
            }
            Effect::Learn(epoch, partitions) => {
                self.view.learning = Some((epoch, partitions));
                self.view_changed = true;
            }
            Effect::TakenOver(epoch, partitions, pages) => {
                (self.view.taken_over, self.view.pages) = (Some((epoch, partitions)), pages);
                self.view_changed = true;
            }
            Effect::Moved(epoch, partitions) => {
                self.view.moved = Some((epoch, partitions));
                self.view_changed = true;
            }
            Effect::Adopt(config) => {
                self.view.chosen = Some(Chosen::new(config));
                (self.view.learning, self.view.left) = (None, None);
                self.view_changed = true;
            }
        }
    }

    /// Posts a released parcel; a message to this node itself is returned for delivery.
    fn dispatch(&mut self, parcel: Parcel) -> Option<(Cause, Payload)> {
        match parcel {
            Parcel::Reply { id, result } => {
                self.outbox.post(Output::Reply { id, result });
                None
            }
            Parcel::Send { mut to, payload, cause } => {
                let others = to.len();
                to.retain(|&receiver| receiver != self.config.id);
                let to_myself = (to.len() < others).then(|| (cause, payload.clone()));
                if !to.is_empty() {
                    self.post_message(to, payload, cause);
                }
                to_myself
            }
        }
    }

    fn post_message(&mut self, to: alloc::vec::Vec<NodeId>, payload: Payload, cause: Cause) {
        self.messages += 1;
        let (seq, kind) = (self.messages, payload.kind());
        let message = MessageId { node: self.config.id, generation: self.generation, seq };
        let current = core::mem::replace(&mut self.cause, cause);
        self.trace_message(|| EventKind::Sent { message, to: to.clone(), kind });
        self.cause = current;
        let (from, generation, epoch) = (self.config.id, self.generation, self.view.epoch());
        let message = Envelope { from, generation, seq, epoch, payload };
        self.outbox.post(Output::Send { to, message });
    }

    fn trace(&mut self, kind: impl FnOnce() -> EventKind) {
        if self.tracer.level >= Level::Decisions {
            self.post_event(kind());
        }
    }

    fn trace_message(&mut self, kind: impl FnOnce() -> EventKind) {
        if self.tracer.level >= Level::Messages {
            self.post_event(kind());
        }
    }

    fn post_event(&mut self, kind: EventKind) {
        self.tracer.events += 1;
        self.outbox.post(Output::Trace(Event {
            at: self.now,
            node: self.config.id,
            generation: self.generation,
            seq: self.tracer.events,
            cause: self.cause,
            kind,
        }));
    }
}

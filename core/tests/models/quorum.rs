//! One key, three owners, two clients: writes, retries, reads and crashes over a network that does what it likes.
//!
//! Each client coordinates its own operations, owns nothing, and works through a short program. The owners are real:
//! what one does with a message is asked of a node that was restored with what the owner holds.
//!
//! ```text
//!   put    client ── Mint ──▶ one owner ── Stored ──▶ client            two owners hold one dot: acknowledged
//!                                       ── Store ──▶ the others ── Stored ──▶ client
//!   read   client ── Read ──▶ all owners ── ReadReply ──▶ client        two answered: merged
//! ```
//!
//! **Invariant.** A write that was acknowledged is current, or superseded by a write whose client had seen it, in
//! whatever a majority of the owners holds on disk, and in every read that begins later. A dot names one write.
//!
//! Who had seen what is kept beside the vectors, as sets of writes, so that a vector that claims too much is noticed.
//!
//! **Bounds**: up to two operations a client, the owners that are asked to mint fixed by the program, one crash.
//! Whatever was sent is delivered to its receiver at any time, again, or never, with two exceptions. The answer to a
//! read counts at once: to count later is to be asked later, or to go on later. A read and a request to mint are
//! delivered once: one answer of an owner counts, and programs ask again. What cannot change anything any more is
//! taken from the network.
//!
//! **Not here**: deletes and their collection, repair, and epochs. The coordinator's rules are those of the core, but
//! written once more: its state cannot be taken from a node and put into another. Tally and level are the core's.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Debug, Formatter};
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::{Arc, Mutex};

use qunlong_core::cluster::ClusterConfig;
use qunlong_core::hash::hash_of;
use qunlong_core::kv::{self, Msg, Write};
use qunlong_core::lift::Payload;
use qunlong_core::placement::Partition;
use qunlong_core::quorum::{Level, Tally};
use qunlong_core::roster::Roster;
use qunlong_core::version::{self, Dot, Sibling, Versions};
use qunlong_core::wire::Envelope;
use qunlong_core::{
    Bytes, ClusterId, Epoch, Generation, Input, Instant, Node, NodeId, OpId, Output, Record, Round, WriteId, topology,
};
use stateright::{Model, Property};

use super::{at, config, persisted, prove, refute};

const OWNERS: [NodeId; 3] = [NodeId::small(1), NodeId::small(2), NodeId::small(3)];
const CLIENTS: [NodeId; 2] = [NodeId::small(11), NodeId::small(12)];
/// Writes another key, so that the disk has something to do.
const BYSTANDER: NodeId = NodeId::small(13);
const EPOCH: Epoch = Epoch(1);
const BOOT: Generation = Generation(1);
const KEY: &str = "key";
const OTHER_KEY: &str = "another";

const KEPT: &str = "an acknowledged write is current or superseded wherever a majority is";
const READ: &str = "a read shows or supersedes whatever was acknowledged before it";
const ONE_WRITE: &str = "a dot never names two writes";
const GONE: &str = "no copy of a superseded write stands beside its successor in what any majority holds";

/// A mistake that the model makes on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    None,
    /// W = 1.
    WrittenToOne,
    /// R = 1.
    ReadFromOne,
    /// A client that has read writes as if it had not.
    ContextForgotten,
    /// A coordinator that owns nothing mints.
    MintedByCoordinator,
    /// Answers leave before what they speak of is synced.
    AckBeforeSync,
    /// What a client gets back after a write covers siblings that it was never shown.
    ContextTooWide,
    /// An owner mints on top of nothing.
    MintForgetsHeld,
}

/// One operation of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Get,
    /// A write, and the owners that are asked to mint it, one after the other.
    Put(Context, &'static [usize]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Context {
    /// Whatever a quorum read sees now.
    Current,
    Nothing,
    /// What the client's last operation gave it.
    Last,
}

#[derive(Debug)]
struct Register {
    programs: [&'static [Step]; 2],
    crashes: u8,
    mistake: Mistake,
    /// Reactions of owners that were asked for before.
    reactions: Mutex<BTreeMap<u64, Reaction>>,
}

/// What an owner holds of the key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Held {
    /// Of its own dots.
    counter: u64,
    versions: Versions,
}

/// What an owner does with a message.
#[derive(Clone, Debug)]
struct Reaction {
    held: Named<Held>,
    /// Leaves at once.
    open: Vec<Named<Packet>>,
    /// Leaves once all that the owner holds is durable.
    gated: Vec<Named<Packet>>,
}

/// A value under its hash, which stands for it: states are cloned, compared and hashed all the time.
#[derive(Clone)]
struct Named<T> {
    name: u64,
    value: Arc<T>,
}

impl<T: Hash> From<T> for Named<T> {
    fn from(value: T) -> Self {
        Self { name: hash_of(&value), value: Arc::new(value) }
    }
}

impl<T: Default + Hash> Default for Named<T> {
    fn default() -> Self {
        T::default().into()
    }
}

impl<T> Deref for Named<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> PartialEq for Named<T> {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl<T> Eq for Named<T> {}

impl<T> PartialOrd for Named<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Named<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name.cmp(&other.name)
    }
}

impl<T> Hash for Named<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl<T: Debug> Debug for Named<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Packet {
    from: NodeId,
    to: NodeId,
    msg: Msg,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Owner {
    memory: Named<Held>,
    durable: Named<Held>,
    waiting: BTreeSet<Named<Packet>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Client {
    /// Operations that are finished.
    done: usize,
    work: Work,
    /// What the last operation gave it to write with.
    context: version::Context,
    /// The writes that this stands for.
    saw: BTreeSet<WriteId>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
enum Work {
    #[default]
    Idle,
    Reading {
        tally: Tally,
        replies: BTreeMap<NodeId, Versions>,
        /// Writes that were acknowledged before it began.
        owed: BTreeSet<WriteId>,
    },
    Writing {
        write: Write,
        /// Owners that were asked to mint.
        asked: usize,
        acked: BTreeMap<Dot, Tally>,
        seen: BTreeMap<Dot, version::Context>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    owners: [Owner; 3],
    clients: [Client; 2],
    network: BTreeSet<Named<Packet>>,
    crashes: u8,
    acked: BTreeSet<WriteId>,
    /// What the client of each write had seen, and what the clients of those had.
    saw: BTreeMap<WriteId, BTreeSet<WriteId>>,
    /// Whether a read has missed a write.
    stale: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Action {
    /// A client begins its next operation.
    Begin(usize),
    /// A client asks an owner to mint, for the first time or because it heard nothing.
    Ask(usize),
    Deliver(Named<Packet>),
    Sync(usize),
    Crash(usize),
}

impl Register {
    fn new(programs: [&'static [Step]; 2], crashes: u8, mistake: Mistake) -> Self {
        assert_ne!(Partition::of(KEY.as_bytes()), Partition::of(OTHER_KEY.as_bytes()), "their dots are counted apart");
        Self { programs, crashes, mistake, reactions: Mutex::default() }
    }

    /// What an owner that holds this does with a message.
    fn reaction(&self, owner: NodeId, held: &Named<Held>, packet: &Named<Packet>) -> Reaction {
        let name = hash_of(&(owner, held, packet));
        let mut reactions = self.reactions.lock().expect("nobody panics while asking");
        reactions.entry(name).or_insert_with(|| react(owner, held, packet)).clone()
    }

    fn needed(&self, mistake: Mistake) -> u8 {
        let majority = Level::Majority.needed(OWNERS.len() as u8).expect("a majority is always allowed");
        if self.mistake == mistake { 1 } else { majority }
    }

    fn begin(&self, world: &mut World, client: usize) -> Option<()> {
        match *self.programs[client].get(world.clients[client].done)? {
            Step::Get | Step::Put(Context::Current, _) => {
                let tally = Tally::new(OWNERS, self.needed(Mistake::ReadFromOne));
                let owed = world.acked.clone();
                world.clients[client].work = Work::Reading { tally, replies: BTreeMap::new(), owed };
                let key = Bytes::from(KEY);
                let read = Msg::Read { op: world.op(client), epoch: EPOCH, round: Round(0), key };
                world.send(OWNERS.map(|to| Packet { from: CLIENTS[client], to, msg: read.clone() }));
            }
            Step::Put(Context::Nothing, _) => world.put(client, version::Context::default(), BTreeSet::new()),
            Step::Put(Context::Last, _) => {
                let Client { context, saw, .. } = world.clients[client].clone();
                world.put(client, context, saw);
            }
        }
        Some(())
    }

    /// Asks the next owner in turn.
    fn ask(&self, world: &mut World, client: usize) -> Option<()> {
        let Step::Put(_, minters) = self.programs[client].get(world.clients[client].done)? else { return None };
        let (op, from) = (world.op(client), CLIENTS[client]);
        let Work::Writing { write, asked, .. } = &mut world.clients[client].work else { return None };
        let to = OWNERS[*minters.get(*asked)?];
        *asked += 1;
        let (write, epoch, round) = (write.clone(), EPOCH, Round(0));
        if self.mistake == Mistake::MintedByCoordinator {
            let Write { id, key, value, context } = write;
            let (dot, mut versions) = (Dot { node: from, counter: op.seq }, Versions::default());
            versions.write(Sibling { dot, write: id, context: context.seen, value }, &context.writes);
            let msg = Msg::Store { op, epoch, round, key, dot, versions };
            world.send(OWNERS.map(|to| Packet { from, to, msg: msg.clone() }));
        } else {
            world.send([Packet { from, to, msg: Msg::Mint { op, epoch, round, write } }]);
        }
        Some(())
    }

    fn deliver(&self, world: &mut World, packet: &Named<Packet>) -> Option<()> {
        if matches!(packet.msg, Msg::Read { .. } | Msg::Mint { .. }) {
            world.network.remove(packet);
        }
        if let Some(owner) = OWNERS.iter().position(|&owner| owner == packet.to) {
            self.deliver_to_owner(world, owner, packet);
            return Some(());
        }
        let client = CLIENTS.iter().position(|&client| client == packet.to)?;
        match &packet.msg {
            Msg::Stored { dot, context, .. } => self.on_stored(world, client, packet.from, *dot, context.as_ref()),
            Msg::Read { .. } | Msg::ReadReply { .. } | Msg::Mint { .. } | Msg::Store { .. } => None,
            Msg::Refused { .. }
            | Msg::List { .. }
            | Msg::ListReply { .. }
            | Msg::Repair(_)
            | Msg::Collect(_)
            | Msg::Transfer(_) => None,
        }
    }

    fn deliver_to_owner(&self, world: &mut World, n: usize, packet: &Named<Packet>) {
        let owner = &mut world.owners[n];
        if self.mistake == Mistake::MintForgetsHeld && matches!(packet.msg, Msg::Mint { .. }) {
            owner.memory = Held { versions: Versions::default(), ..*owner.memory }.into();
        }
        let Reaction { held, open, mut gated } = self.reaction(OWNERS[n], &owner.memory, packet);
        owner.memory = held;
        if self.mistake == Mistake::ContextTooWide {
            let widen = |packet: Named<Packet>| {
                let mut packet = Packet::clone(&packet);
                if let Msg::Stored { context: Some(context), .. } = &mut packet.msg {
                    *context = owner.memory.versions.to_context();
                }
                packet.into()
            };
            gated = gated.into_iter().map(widen).collect();
        }
        if self.mistake == Mistake::AckBeforeSync {
            self.release(world, gated);
        } else {
            owner.waiting.extend(gated);
        }
        self.release(world, open);
        if world.crashes == 0 {
            // Without a crash to come, an answer that waits for its sync is an answer that is late.
            self.sync(world, n);
        }
    }

    fn sync(&self, world: &mut World, owner: usize) {
        let owner = &mut world.owners[owner];
        owner.durable = owner.memory.clone();
        let released = std::mem::take(&mut owner.waiting);
        self.release(world, released);
    }

    /// Lets packets leave an owner.
    fn release(&self, world: &mut World, packets: impl IntoIterator<Item = Named<Packet>>) {
        for packet in packets {
            match (&packet.msg, CLIENTS.iter().position(|&client| client == packet.to)) {
                (Msg::ReadReply { op, versions, .. }, Some(client)) if *op == world.op(client) => {
                    self.on_read_reply(world, client, packet.from, versions);
                }
                (Msg::ReadReply { .. }, _) => (),
                _ => {
                    world.network.insert(packet);
                }
            }
        }
    }

    fn on_read_reply(&self, world: &mut World, client: usize, from: NodeId, versions: &Versions) {
        let Work::Reading { tally, replies, owed } = &mut world.clients[client].work else { return };
        if tally.answer(from) {
            replies.insert(from, versions.clone());
        }
        if !tally.reached() {
            return;
        }
        let (merged, owed) = (merged(replies.values()), std::mem::take(owed));
        let saw = world.shown(&merged);
        world.stale |= !owed.is_subset(&saw);
        if matches!(self.programs[client][world.clients[client].done], Step::Put(..)) {
            let forgets = self.mistake == Mistake::ContextForgotten;
            let context = if forgets { version::Context::default() } else { merged.to_context() };
            world.put(client, context, saw);
        } else {
            world.finish(client, merged.to_context(), saw);
        }
    }

    fn on_stored(
        &self,
        world: &mut World,
        client: usize,
        from: NodeId,
        dot: Dot,
        context: Option<&version::Context>,
    ) -> Option<()> {
        let needed = self.needed(Mistake::WrittenToOne);
        let Work::Writing { write, acked, seen, .. } = &mut world.clients[client].work else { return None };
        if let Some(context) = context {
            seen.insert(dot, context.clone());
        }
        let tally = acked.entry(dot).or_insert_with(|| Tally::new(OWNERS, needed));
        if tally.answer(from) && tally.reached() {
            let id = write.id;
            let context = seen.remove(&dot).unwrap_or_else(|| write.context.clone());
            world.acked.insert(id);
            // Without word from the owner that minted it, the write itself is not in the context.
            let itself = context.seen.covers(dot).then_some(id);
            let saw = world.saw[&id].iter().copied().chain(itself).collect();
            world.finish(client, context, saw);
        }
        Some(())
    }
}

/// Asks a node that was restored with what the owner holds. Another key is written first, and the disk is not done
/// with it: what leaves all the same waits for nothing.
fn react(owner: NodeId, held: &Held, packet: &Packet) -> Reaction {
    let seats = OWNERS.map(|owner| (owner, topology::seat_of(&config(owner).profile))).into();
    let roster = Roster { storage: seats, voters: OWNERS.into() };
    let chosen = ClusterConfig::first(ClusterId([1; 16]), OWNERS.len() as u8, roster);
    let mut records = vec![Record::Topology(topology::Record::Chosen(chosen))];
    if *held != Held::default() {
        let Held { counter, versions } = held.clone();
        records.push(Record::Kv(kv::Record::Key { counter, key: KEY.into(), versions }));
    }
    let mut node = Node::restore(config(owner), 7, records).expect("sound settings");
    let mut outputs = handle(&mut node, Input::Tick);
    outputs = handle(&mut node, Input::Persisted(persisted(&outputs).expect("the boot is recorded")));
    assert_eq!(persisted(&outputs), None);

    let op = OpId { node: BYSTANDER, generation: BOOT, seq: 1 };
    let write =
        Write { id: WriteId::default(), key: OTHER_KEY.into(), value: None, context: version::Context::default() };
    let bystander = Packet { from: BYSTANDER, to: owner, msg: Msg::Mint { op, epoch: EPOCH, round: Round(0), write } };
    let mut durable = persisted(&receive(&mut node, &bystander)).expect("the other key is recorded");

    let outputs = receive(&mut node, packet);
    let open = packets(&outputs);
    let mut after = held.clone();
    for record in outputs.iter().flat_map(persists) {
        let Record::Kv(kv::Record::Key { counter, key, versions }) = record else {
            panic!("only keys change: {record:?}")
        };
        assert_eq!(**key, *KEY.as_bytes());
        after = Held { counter: *counter, versions: versions.clone() };
    }
    durable = durable.max(persisted(&outputs).unwrap_or_default());
    let gated = packets(&handle(&mut node, Input::Persisted(durable)));
    Reaction { held: after.into(), open, gated }
}

fn handle(node: &mut Node, input: Input) -> Vec<Output> {
    node.handle(at(Instant(0)), input);
    std::iter::from_fn(|| node.poll()).collect()
}

fn receive(node: &mut Node, Packet { from, msg, .. }: &Packet) -> Vec<Output> {
    let payload = Payload::Kv(msg.clone());
    handle(node, Input::Message(Envelope { from: *from, generation: BOOT, seq: 1, epoch: EPOCH, payload }))
}

fn persists(output: &Output) -> &[Record] {
    match output {
        Output::Persist { records, .. } => records,
        Output::Send { .. } | Output::Reply { .. } | Output::Trace(_) => &[],
    }
}

/// What is sent about the key.
fn packets(outputs: &[Output]) -> Vec<Named<Packet>> {
    let mut packets = vec![];
    for output in outputs {
        let Output::Send { to, message: Envelope { from, payload: Payload::Kv(msg), .. } } = output else { continue };
        assert!(!matches!(msg, Msg::Refused { .. }), "a client that makes nothing up is not refused");
        if op_of(msg).is_some_and(|op| op.node != BYSTANDER) {
            packets.extend(to.iter().map(|&to| Named::from(Packet { from: *from, to, msg: msg.clone() })));
        }
    }
    packets
}

fn op_of(msg: &Msg) -> Option<OpId> {
    match msg {
        Msg::Read { op, .. } | Msg::ReadReply { op, .. } | Msg::Mint { op, .. } | Msg::Store { op, .. } => Some(*op),
        Msg::Stored { op, .. } | Msg::Refused { op, .. } => Some(*op),
        Msg::List { op, .. } | Msg::ListReply { op, .. } => Some(*op),
        Msg::Repair(_) | Msg::Collect(_) | Msg::Transfer(_) => None,
    }
}

fn merged<'a>(all: impl IntoIterator<Item = &'a Versions>) -> Versions {
    all.into_iter().fold(Versions::default(), |mut merged, versions| {
        merged.merge(versions);
        merged
    })
}

impl World {
    /// The client's current operation.
    fn op(&self, client: usize) -> OpId {
        OpId { node: CLIENTS[client], generation: BOOT, seq: self.clients[client].done as u64 + 1 }
    }

    fn put(&mut self, client: usize, context: version::Context, saw: BTreeSet<WriteId>) {
        let op = self.op(client);
        let mut id = WriteId::default();
        (id.0[0], id.0[1]) = (client as u8 + 1, op.seq as u8);
        let write = Write { id, key: KEY.into(), value: Some("value".into()), context };
        self.saw.insert(id, saw);
        let (acked, seen) = (BTreeMap::new(), BTreeMap::new());
        self.clients[client].work = Work::Writing { write, asked: 0, acked, seen };
    }

    fn finish(&mut self, client: usize, context: version::Context, saw: BTreeSet<WriteId>) {
        let done = self.clients[client].done + 1;
        self.clients[client] = Client { done, work: Work::Idle, context, saw };
    }

    fn send(&mut self, packets: impl IntoIterator<Item = Packet>) {
        self.network.extend(packets.into_iter().map(Named::from));
    }

    /// Takes from the network what cannot change anything any more.
    fn clear(&mut self) {
        let Self { network, clients, owners, .. } = self;
        let waits = |op: OpId, reading: bool| {
            let client = CLIENTS.iter().position(|&client| client == op.node).map(|client| &clients[client]);
            client.is_some_and(|client| {
                let same = op.seq == client.done as u64 + 1;
                same && match client.work {
                    Work::Idle => false,
                    Work::Reading { .. } => reading,
                    Work::Writing { .. } => !reading,
                }
            })
        };
        let matters = |packet: &Named<Packet>| match &packet.msg {
            Msg::Read { op, .. } | Msg::ReadReply { op, .. } => waits(*op, true),
            Msg::Stored { op, .. } => waits(*op, false),
            Msg::Mint { .. } => true,
            Msg::Store { op, versions, .. } => {
                let owner = OWNERS.iter().position(|&owner| owner == packet.to);
                let adds = |owner: usize| owners[owner].durable.versions.clone().merge(versions);
                waits(*op, false) || owner.is_some_and(adds)
            }
            Msg::Refused { .. }
            | Msg::List { .. }
            | Msg::ListReply { .. }
            | Msg::Repair(_)
            | Msg::Collect(_)
            | Msg::Transfer(_) => false,
        };
        network.retain(matters);
    }

    /// The writes that are current, and those that their clients had seen.
    fn shown(&self, versions: &Versions) -> BTreeSet<WriteId> {
        let current = versions.siblings().iter().map(|sibling| sibling.write);
        current.flat_map(|write| self.saw[&write].iter().copied().chain([write])).collect()
    }

    fn is_kept(&self) -> bool {
        self.acked.is_empty() || self.majorities().all(|held| self.acked.is_subset(&self.shown(&held)))
    }

    /// What each majority of the owners holds on disk.
    fn majorities(&self) -> impl Iterator<Item = Versions> {
        (0..OWNERS.len()).map(|down| {
            let up = self.owners.iter().enumerate().filter(move |(n, _)| *n != down);
            merged(up.map(|(_, owner)| &owner.durable.versions))
        })
    }

    /// All dots that have left their owner or are durable there, with the writes they name.
    fn dots(&self) -> BTreeSet<(Dot, WriteId)> {
        let durable = self.owners.iter().map(|owner| &owner.durable.versions);
        let sent = self.network.iter().filter_map(|packet| {
            let Msg::Store { versions, .. } = &packet.msg else { return None };
            Some(versions)
        });
        durable.chain(sent).flat_map(Versions::siblings).map(|sibling| (sibling.dot, sibling.write)).collect()
    }
}

impl Model for Register {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let (owners, clients) = (Default::default(), Default::default());
        let (acked, saw) = (BTreeSet::new(), BTreeMap::new());
        vec![World { owners, clients, network: BTreeSet::new(), crashes: self.crashes, acked, saw, stale: false }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        for (n, client) in world.clients.iter().enumerate() {
            actions.push(match client.work {
                Work::Idle => Action::Begin(n),
                Work::Reading { .. } | Work::Writing { .. } => Action::Ask(n),
            });
        }
        actions.extend(world.network.iter().cloned().map(Action::Deliver));
        if world.crashes > 0 {
            actions.extend((0..OWNERS.len()).flat_map(|n| [Action::Sync(n), Action::Crash(n)]));
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        match action {
            Action::Begin(client) => self.begin(&mut world, client)?,
            Action::Ask(client) => self.ask(&mut world, client)?,
            Action::Deliver(packet) => self.deliver(&mut world, &packet)?,
            Action::Sync(owner) => self.sync(&mut world, owner),
            Action::Crash(n) => {
                world.crashes -= 1;
                let durable = world.owners[n].durable.clone();
                world.owners[n] = Owner { memory: durable.clone(), durable, waiting: BTreeSet::new() };
                if world.crashes == 0 {
                    (0..OWNERS.len()).for_each(|n| self.sync(&mut world, n));
                }
            }
        }
        world.clear();
        (world != *last).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(KEPT, |_: &Self, world: &World| world.is_kept()),
            Property::always(READ, |_: &Self, world: &World| !world.stale),
            Property::always(ONE_WRITE, |_: &Self, world: &World| {
                let dots = world.dots();
                dots.iter().zip(dots.iter().skip(1)).all(|(one, next)| one.0 != next.0)
            }),
            Property::always(GONE, |_: &Self, world: &World| {
                world.majorities().all(|held| {
                    let current: BTreeSet<WriteId> = held.siblings().iter().map(|sibling| sibling.write).collect();
                    current.iter().all(|write| world.saw[write].is_disjoint(&current))
                })
            }),
            Property::sometimes("every program ends", |model: &Self, world: &World| {
                world.clients.iter().zip(model.programs).all(|(client, program)| client.done == program.len())
            }),
        ]
    }
}

const NOTHING: Context = Context::Nothing;
const TWO_WRITERS: [&[Step]; 2] =
    [&[Step::Put(NOTHING, &[0]), Step::Put(Context::Last, &[0])], &[Step::Put(NOTHING, &[1])]];
const RETRIED: [&[Step]; 2] = [&[Step::Put(NOTHING, &[0, 1])], &[Step::Put(Context::Current, &[2])]];
const REPEATED: [&[Step]; 2] = [&[Step::Put(NOTHING, &[0, 0])], &[Step::Put(Context::Current, &[1])]];
const TWICE_AND_READ: [&[Step]; 2] = [&[Step::Put(NOTHING, &[0]), Step::Put(NOTHING, &[1])], &[Step::Get]];
const ONCE_AND_READ: [&[Step]; 2] = [&[Step::Put(NOTHING, &[0])], &[Step::Get]];
const SAME_OWNER: [&[Step]; 2] = [&[Step::Put(NOTHING, &[0])], &[Step::Put(NOTHING, &[0])]];

fn holds(programs: [&'static [Step]; 2], crashes: u8, at_least: usize) {
    prove(Register::new(programs, crashes, Mistake::None), at_least);
}

fn fails(programs: [&'static [Step]; 2], crashes: u8, mistake: Mistake, property: &'static str) {
    refute(Register::new(programs, crashes, mistake), property);
}

#[test]
fn writers_that_know_nothing_of_each_other_lose_nothing() {
    holds(TWO_WRITERS, 0, 2_000);
}

#[test]
fn a_write_that_is_retried_elsewhere_is_one_write() {
    holds(RETRIED, 0, 20_000);
}

#[test]
fn a_late_copy_of_a_request_to_mint_is_the_same_write() {
    holds(REPEATED, 0, 1_000);
}

#[test]
fn a_read_meets_what_was_acknowledged() {
    holds(TWICE_AND_READ, 0, 1_000);
}

#[test]
fn a_crash_between_a_write_and_a_read_loses_nothing() {
    holds(ONCE_AND_READ, 1, 2_000);
}

#[test]
fn a_crash_between_two_mints_of_one_owner_names_no_two_writes_alike() {
    holds(SAME_OWNER, 1, 5_000);
}

#[test]
fn one_owner_is_not_enough_to_acknowledge() {
    fails(ONCE_AND_READ, 0, Mistake::WrittenToOne, KEPT);
}

#[test]
fn one_owner_is_not_enough_to_read() {
    fails(ONCE_AND_READ, 0, Mistake::ReadFromOne, READ);
}

#[test]
fn a_write_that_hides_what_its_client_saw_stands_beside_it() {
    fails(RETRIED, 0, Mistake::ContextForgotten, GONE);
}

#[test]
fn a_coordinator_that_owns_nothing_must_not_mint() {
    fails(TWICE_AND_READ, 0, Mistake::MintedByCoordinator, KEPT);
}

#[test]
fn an_owner_must_not_mint_on_top_of_nothing() {
    fails(SAME_OWNER, 0, Mistake::MintForgetsHeld, KEPT);
}

#[test]
fn a_context_must_not_cover_what_its_client_was_never_shown() {
    fails(TWO_WRITERS, 0, Mistake::ContextTooWide, KEPT);
}

#[test]
fn an_answer_before_its_sync_is_lost_in_a_crash() {
    fails(ONCE_AND_READ, 1, Mistake::AckBeforeSync, KEPT);
}

#[test]
fn a_dot_that_leaves_before_its_sync_comes_to_name_two_writes() {
    fails(SAME_OWNER, 1, Mistake::AckBeforeSync, ONE_WRITE);
}

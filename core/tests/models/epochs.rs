//! One key whose owners change: a history of epochs, and everybody in whichever of them it has adopted.
//!
//! Epochs are chosen one after the other. Owners and clients adopt them late, never, or with some left out. Clients
//! coordinate their own operations and own nothing.
//!
//! ```text
//!   epoch e      {A}       a majority of A, in e, has answered: a write is acknowledged, a read is over
//!   epoch e+1    {A, B}    a majority of A and one of B; each owner in B takes over from a majority of A, in e+1
//!   epoch e+2    {B}       chosen once a majority of B has; or {A}, where the change is given up
//! ```
//!
//! **Invariant.** A read that begins after a write was acknowledged returns it, whatever the epochs of the two.
//!
//! The rules are the core's own. Whether an owner in one epoch answers a request from another, whether it hands over
//! to somebody in another, what it still holds when it adopts a third, and whom somebody must have heard to have taken
//! over: all that is asked of real nodes beforehand. Quorums are those of [`Chosen::owners_of`]. What a coordinator
//! does when its epoch moves, and when a change may be completed, is written here once more.
//!
//! **Bounds**: three owners; one change, to one new owner or to two, completed or given up; one begun anew after it was
//! given up; two in a row. Writes are sets of names that grow, and nobody acts on what is held: so writes do not meet,
//! and one client that writes and one that reads stand for any number. For the same reason all is left out that only
//! brings an owner more: repair, what is fetched by an owner that lacks, and what is taken over once the change was
//! completed.
//!
//! **What is late.** Requests are delivered at any time, again, or never. The answer to a read counts at once: to count
//! later is to be asked later, or to go on later. The answer to a write counts at any later time in the models of one
//! change, and copies of the request arrive even after that; in the larger ones it counts at once, which brings
//! owners less and owes reads more. What is handed over is the least that it can be, namely what its owner held when it
//! could first be asked, and arrives at any later time, even once that owner has gone on.
//!
//! **Not here**: minting, deletes and what must not come back after them (with neither, data that is kept too long does
//! no harm), crashes, storage that is lost, and how an epoch is chosen, which is `paxos`.

use std::collections::BTreeMap;
use std::fmt::{self, Debug, Formatter};

use qunlong_core::cluster::ClusterConfig;
use qunlong_core::kv::{self, Msg, Write};
use qunlong_core::lift::Payload;
use qunlong_core::placement::Partition;
use qunlong_core::quorum::{Level, Tally, majority};
use qunlong_core::version::{self, Dot, Sibling, VersionVector, Versions};
use qunlong_core::view::{Chosen, Owners};
use qunlong_core::wire::Envelope;
use qunlong_core::{
    ClusterId, Duration, Epoch, Generation, Input, Instant, Node, NodeId, OpId, Output, Record, Round, WriteId,
    topology,
};
use stateright::{Model, Property};

use super::{at, config, persisted, prove, refute, roster};

/// Owners of any time, at most.
const OWNERS: usize = 5;
/// Of a history, at most.
const EPOCHS: usize = 5;
const CLIENTS: [NodeId; 2] = [NodeId::small(11), NodeId::small(12)];
const BOOT: Generation = Generation(1);
/// Of one of the partitions that are taken over first.
const KEY: &str = "star";

const READ: &str = "a read returns whatever was acknowledged before it began";

/// A mistake that the model makes on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    None,
    /// An owner hands over while it goes on in an epoch before.
    FenceSkipped,
    /// A new owner takes over from any one of the old.
    TransferFromOne,
    /// New owners take over from each other.
    TransferFromNew,
    /// The change is completed before a majority of the new owners has taken over.
    TransferNotAwaited,
    /// While joint, reads ask the old owners alone.
    ReadFromOld,
    /// While joint, reads ask the new owners alone.
    ReadFromNew,
    /// While joint, the old owners alone acknowledge.
    WrittenToOld,
    /// While joint, the new owners alone acknowledge.
    WrittenToNew,
    /// An owner answers requests of an earlier epoch.
    EarlierServed,
    /// An owner answers requests of a later epoch without adopting it.
    LaterServed,
    /// A coordinator whose epoch moved goes on, and counts what it was answered before.
    AnswersAdded,
    /// Who is not to own any more drops its data as soon as the change begins.
    DroppedEarly,
}

/// One operation of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Put,
    Get,
}

/// How an epoch follows another.
#[derive(Clone, Copy, Debug)]
enum Turn {
    Begin(&'static [u8]),
    Complete,
    GiveUp,
    /// A mistake: these own at once.
    Replace(&'static [u8]),
}

/// Owners or writes, by their numbers.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Set(u8);

impl Set {
    /// All there are of owners.
    fn all() -> impl Iterator<Item = Self> {
        (0..1 << OWNERS).map(Self)
    }

    fn with(self, number: usize) -> Self {
        Self(self.0 | 1 << number)
    }

    fn without(self, number: usize) -> Self {
        Self(self.0 & !(1 << number))
    }

    fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn both(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    fn contains(self, number: usize) -> bool {
        self.0 & 1 << number != 0
    }

    fn includes(self, other: Self) -> bool {
        self.both(other) == other
    }

    fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn numbers(self) -> impl Iterator<Item = usize> {
        (0..8).filter(move |&number| self.contains(number))
    }

    /// Where something about it is found in a table.
    fn at(self) -> usize {
        usize::from(self.0)
    }
}

impl FromIterator<usize> for Set {
    fn from_iter<I: IntoIterator<Item = usize>>(numbers: I) -> Self {
        numbers.into_iter().fold(Self::default(), Self::with)
    }
}

impl Debug for Set {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.numbers()).finish()
    }
}

/// The owner of this number.
fn owner(n: usize) -> NodeId {
    NodeId::small(n as u8 + 1)
}

fn number(owner: NodeId) -> usize {
    usize::from(owner.0[15]) - 1
}

fn numbers(owners: &[NodeId]) -> Set {
    owners.iter().copied().map(number).collect()
}

/// What nodes do, as asked of them: by owner, by the epoch that it is in, and by another epoch.
#[derive(Clone, Debug, Default)]
struct Rules {
    /// Whether what it holds survives that it adopts the other epoch.
    keeps: [[[bool; EPOCHS]; EPOCHS]; OWNERS],
    /// Whether it answers requests of the other epoch.
    serves: [[[bool; EPOCHS]; EPOCHS]; OWNERS],
    /// Whether it hands over to owners in the other epoch.
    hands_over: [[[bool; EPOCHS]; EPOCHS]; OWNERS],
    /// Whether it has taken over once these others have handed over.
    has_taken_over: [[[bool; 1 << OWNERS]; EPOCHS]; OWNERS],
    /// Whether a read is over in this epoch once these have answered.
    reads: [[bool; 1 << OWNERS]; EPOCHS],
    /// Whether a write is acknowledged.
    writes: [[bool; 1 << OWNERS]; EPOCHS],
}

impl Rules {
    fn ask(epochs: &[Chosen]) -> Self {
        let mut rules = Self::default();
        for (mine, chosen) in epochs.iter().enumerate() {
            let quorum = owners(chosen).quorum(Level::Majority).expect("a majority is always allowed");
            for set in Set::all() {
                let reached = is_reached(quorum.clone(), set);
                (rules.reads[mine][set.at()], rules.writes[mine][set.at()]) = (reached, reached);
            }
            for n in 0..OWNERS {
                for (other, theirs) in epochs.iter().enumerate() {
                    rules.keeps[n][mine][other] = mine < other && keeps(n, chosen, theirs);
                    rules.serves[n][mine][other] = serves(n, chosen, theirs.config.epoch);
                    rules.hands_over[n][mine][other] = hands_over(n, chosen, theirs);
                }
                for others in Set::all().filter(|others| !others.contains(n)) {
                    rules.has_taken_over[n][mine][others.at()] = takes_over(n, chosen, others);
                }
            }
        }
        rules
    }

    /// The rules with a mistake in them.
    fn plant(&mut self, mistake: Mistake, epochs: &[Chosen]) {
        for (epoch, chosen) in epochs.iter().enumerate().filter(|(_, chosen)| owners(chosen).are_joint()) {
            let (old, new) = (numbers(owners(chosen).current), newcomers(chosen));
            let enough = |of: Set, set: Set| is_reached(Tally::new(of.numbers().map(owner), majority(3)), set);
            for set in Set::all() {
                match mistake {
                    Mistake::ReadFromOld => self.reads[epoch][set.at()] = enough(old, set),
                    Mistake::ReadFromNew => self.reads[epoch][set.at()] = enough(new, set),
                    Mistake::WrittenToOld => self.writes[epoch][set.at()] = enough(old, set),
                    Mistake::WrittenToNew => self.writes[epoch][set.at()] = enough(new, set),
                    _ => (),
                }
                for n in new.numbers() {
                    match mistake {
                        Mistake::TransferFromOne => self.has_taken_over[n][epoch][set.at()] = !set.is_empty(),
                        Mistake::TransferFromNew => self.has_taken_over[n][epoch][set.at()] = enough(new, set.with(n)),
                        _ => (),
                    }
                }
            }
            for n in 0..OWNERS {
                if mistake == Mistake::TransferFromNew {
                    self.hands_over[n][epoch][epoch] = new.contains(n);
                }
                for before in 0..epoch {
                    match mistake {
                        Mistake::FenceSkipped => self.hands_over[n][before][epoch] = old.contains(n),
                        Mistake::DroppedEarly => self.keeps[n][before][epoch] &= new.contains(n),
                        _ => (),
                    }
                }
            }
        }
        for (mine, chosen) in epochs.iter().enumerate() {
            for n in (0..OWNERS).filter(|&n| owners(chosen).contains(owner(n))) {
                match mistake {
                    Mistake::EarlierServed => self.serves[n][mine][..mine].fill(true),
                    Mistake::LaterServed => self.serves[n][mine][mine..].fill(true),
                    _ => (),
                }
            }
        }
    }
}

fn owners(chosen: &Chosen) -> Owners<'_> {
    chosen.owners_of(KEY.as_bytes())
}

/// Those who are to own once the change is completed.
fn newcomers(chosen: &Chosen) -> Set {
    numbers(owners(chosen).next.unwrap_or_default())
}

fn is_reached(mut tally: Tally, answered: Set) -> bool {
    for n in answered.numbers() {
        tally.answer(owner(n));
    }
    tally.reached()
}

/// A node in this epoch.
fn start(n: usize, chosen: &Chosen, records: impl IntoIterator<Item = kv::Record>) -> (Node, Vec<Output>) {
    let chosen = Record::Topology(topology::Record::Chosen(chosen.config.clone()));
    let records = [chosen].into_iter().chain(records.into_iter().map(Record::Kv));
    let mut node = Node::restore(config(owner(n)), 7, records).expect("sound settings");
    let outputs = tell(&mut node, Instant(0), Input::Tick);
    (node, outputs)
}

/// One that has been an owner for as long as it could, and holds the key.
fn holder(n: usize, chosen: &Chosen) -> Node {
    let (dot, mut versions) = (Dot { node: owner(n), counter: 1 }, Versions::default());
    let (context, value) = (VersionVector::default(), Some("value".into()));
    versions.write(Sibling { dot, write: WriteId::default(), context, value }, &BTreeMap::new());
    let key = kv::Record::Key { counter: 1, key: KEY.into(), versions };
    start(n, chosen, [kv::Record::Owned(chosen.config.epoch), key]).0
}

/// What a node does with an input, once all of it is durable.
fn tell(node: &mut Node, now: Instant, input: Input) -> Vec<Output> {
    node.handle(at(now), input);
    let mut outputs: Vec<Output> = std::iter::from_fn(|| node.poll()).collect();
    let mut durable = None;
    while let Some(batch) = persisted(&outputs).filter(|&batch| Some(batch) > durable) {
        durable = Some(batch);
        node.handle(at(now), Input::Persisted(batch));
        outputs.extend(std::iter::from_fn(|| node.poll()));
    }
    outputs
}

fn message(from: NodeId, epoch: Epoch, payload: Payload) -> Input {
    Input::Message(Envelope { from, generation: BOOT, seq: 1, epoch, payload })
}

/// What is sent about keys.
fn sent(outputs: Vec<Output>) -> impl Iterator<Item = (NodeId, Msg, Envelope)> {
    let about_keys = outputs.into_iter().filter_map(|output| match output {
        Output::Send { to, message } => match message.payload.clone() {
            Payload::Kv(msg) => Some((to, msg, message)),
            Payload::Membership(_) | Payload::Topology(_) | Payload::Registers(_) => None,
        },
        Output::Persist { .. } | Output::Reply { .. } | Output::Trace(_) => None,
    });
    about_keys.flat_map(|(to, msg, message)| to.into_iter().map(move |to| (to, msg.clone(), message.clone())))
}

fn keeps(n: usize, mine: &Chosen, theirs: &Chosen) -> bool {
    let mut node = holder(n, mine);
    let peer = mine.config.current.voters.iter().copied().find(|&peer| peer != owner(n)).expect("there are three");
    let payload = Payload::Topology(topology::Msg::Config(theirs.config.clone().into()));
    tell(&mut node, Instant(1), message(peer, theirs.config.epoch, payload));
    assert_eq!(node.view().epoch(), theirs.config.epoch);
    node.store().get(KEY.as_bytes()).is_some()
}

fn serves(n: usize, mine: &Chosen, epoch: Epoch) -> bool {
    let (op, round, key) = (OpId { node: CLIENTS[0], generation: BOOT, seq: 1 }, Round(0), KEY.into());
    let write = Write { id: WriteId([1; 16]), key, value: None, context: version::Context::default() };
    let (dot, mut versions) = (Dot { node: NodeId::small(99), counter: 1 }, Versions::default());
    let (context, value) = (VersionVector::default(), None);
    versions.write(Sibling { dot, write: write.id, context, value }, &BTreeMap::new());
    let requests = [
        Msg::Read { op, epoch, round, key: KEY.into() },
        Msg::Mint { op, epoch, round, write },
        Msg::Store { op, epoch, round, key: KEY.into(), dot, versions },
    ];
    let answers = requests.map(|request| {
        let outputs = tell(&mut holder(n, mine), Instant(1), message(op.node, epoch, Payload::Kv(request)));
        let answer = sent(outputs).find(|(to, ..)| *to == op.node).expect("every request is answered");
        !matches!(answer.1, Msg::Refused { .. })
    });
    assert!(answers.iter().all(|&answer| answer == answers[0]), "all requests are served, or none");
    answers[0]
}

/// Lets a node that comes to this epoch with nothing take over. What it asks of others is passed on, and their answers
/// are returned, if there are any.
fn pull(n: usize, chosen: &Chosen, mut pass_on: impl FnMut(usize, Envelope) -> Option<Envelope>) -> bool {
    let (mut node, mut outputs) = start(n, chosen, []);
    let (mut now, mut silences) = (Instant(0), 0);
    // Those who are silent are asked in turn.
    while silences <= OWNERS {
        let questions = sent(outputs).filter(|(_, msg, _)| matches!(msg, Msg::Transfer(_)));
        let pages: Vec<Envelope> = questions.filter_map(|(to, _, message)| pass_on(number(to), message)).collect();
        outputs = if pages.is_empty() {
            silences += 1;
            now = now + Duration::millis(500);
            tell(&mut node, now, Input::Tick)
        } else {
            silences = 0;
            pages.into_iter().flat_map(|page| tell(&mut node, now, Input::Message(page))).collect()
        };
        let taken_over = node.view().taken_over.as_ref();
        if taken_over.is_some_and(|(_, partitions)| partitions.contains(&Partition::of(KEY.as_bytes()))) {
            return true;
        }
    }
    false
}

fn page(node: &mut Node, question: Envelope) -> Option<Envelope> {
    let outputs = tell(node, Instant(1), Input::Message(question));
    sent(outputs).find(|(_, msg, _)| matches!(msg, Msg::Transfer(_))).map(|(.., message)| message)
}

fn hands_over(n: usize, mine: &Chosen, theirs: &Chosen) -> bool {
    let mut node = holder(n, mine);
    (0..OWNERS).filter(|&asker| asker != n).any(|asker| {
        let mut answered = false;
        pull(asker, theirs, |to, question| {
            answered |= to == n && page(&mut node, question).is_some();
            None
        });
        answered
    })
}

fn takes_over(n: usize, chosen: &Chosen, others: Set) -> bool {
    let mut nodes: Vec<Node> = (0..OWNERS).map(|n| holder(n, chosen)).collect();
    pull(n, chosen, |to, question| others.contains(to).then(|| page(&mut nodes[to], question)).flatten())
}

#[derive(Clone, Debug)]
struct Change {
    programs: [&'static [Step]; 2],
    epochs: Vec<Chosen>,
    rules: Rules,
    /// Whether the answers to writes, and copies of their requests, may be late.
    late: bool,
    mistake: Mistake,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    /// The newest epoch.
    chosen: usize,
    owners: [Owner; OWNERS],
    clients: [Client; 2],
    /// By client, the epochs in which owners were asked to store its write.
    asked: [Set; 2],
    acked: Set,
    /// Whether a read has missed a write.
    stale: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Owner {
    epoch: usize,
    held: Set,
    /// The least that it may hand over to those in the newest epoch.
    page: Option<Set>,
    /// Who has handed over to it in the newest epoch.
    heard: Set,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Client {
    epoch: usize,
    /// Operations that are finished.
    done: usize,
    work: Work,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Work {
    #[default]
    Idle,
    Writing {
        answered: Set,
    },
    Reading {
        answered: Set,
        merged: Set,
        /// Writes that were acknowledged before it began.
        owed: Set,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// The next epoch is chosen.
    Choose,
    /// An owner adopts this epoch.
    Adopt(usize, usize),
    /// A client does.
    Follow(usize, usize),
    /// A client begins its next operation.
    Begin(usize),
    /// An owner is asked to store this client's write, from this epoch.
    Store {
        owner: usize,
        write: usize,
        epoch: usize,
    },
    /// Enough answers to its write reach a client.
    Acknowledge(usize),
    /// An owner is asked to answer this client's read.
    Read {
        owner: usize,
        client: usize,
    },
    TakeOver {
        owner: usize,
        from: usize,
    },
}

impl Change {
    fn new(programs: [&'static [Step]; 2], turns: &[Turn], late: bool, mistake: Mistake) -> Self {
        let first = ClusterConfig::first(ClusterId([1; 16]), 3, roster(&[1, 2, 3]));
        let mut epochs = vec![Chosen::new(first)];
        for turn in turns {
            let last = &epochs[epochs.len() - 1].config;
            let next = match *turn {
                Turn::Begin(next) => last.begin(roster(next)),
                Turn::Complete => last.complete().expect("it is joint"),
                Turn::GiveUp => last.abort().expect("it is joint"),
                Turn::Replace(next) => {
                    let (epoch, current) = (last.epoch.next(), roster(next));
                    ClusterConfig { epoch, current, since: BTreeMap::from([(0, vec![epoch; 256])]), ..last.clone() }
                }
            };
            assert!(last.allows(&next) || matches!(turn, Turn::Replace(_)));
            epochs.push(Chosen::new(next));
        }
        let mut rules = Rules::ask(&epochs);
        rules.plant(mistake, &epochs);
        Self { programs, epochs, rules, late, mistake }
    }

    fn is_joint(&self, epoch: usize) -> bool {
        owners(&self.epochs[epoch]).are_joint()
    }

    fn has_taken_over(&self, world: &World, n: usize) -> bool {
        let Owner { epoch, heard, .. } = world.owners[n];
        epoch == world.chosen && self.rules.has_taken_over[n][epoch][heard.at()]
    }

    fn choose(&self, world: &mut World) -> Option<()> {
        let next = self.epochs.get(world.chosen + 1)?;
        let newcomers = newcomers(&self.epochs[world.chosen]);
        let completes = !newcomers.is_empty() && numbers(owners(next).current) == newcomers;
        let have = newcomers.numbers().filter(|&n| self.has_taken_over(world, n)).count();
        let needed = usize::from(majority(newcomers.numbers().count() as u8));
        if completes && have < needed && self.mistake != Mistake::TransferNotAwaited {
            return None;
        }
        world.chosen += 1;
        for owner in &mut world.owners {
            (owner.page, owner.heard) = (None, Set::default());
        }
        Some(())
    }

    fn next(&self, world: &World, client: usize) -> Option<Step> {
        self.programs[client].get(world.clients[client].done).copied()
    }

    fn begin(&self, world: &mut World, client: usize) -> Option<()> {
        let (answered, merged, owed) = (Set::default(), Set::default(), world.acked);
        world.clients[client].work = match self.next(world, client)? {
            // It cannot miss anything.
            Step::Get if owed.is_empty() => return None,
            Step::Get => Work::Reading { answered, merged, owed },
            Step::Put => Work::Writing { answered },
        };
        self.send(world, client);
        Some(())
    }

    /// A client that writes asks owners in its epoch.
    fn send(&self, world: &mut World, client: usize) {
        let Client { epoch, work: Work::Writing { .. }, .. } = world.clients[client] else { return };
        let before = if self.late { world.asked[client] } else { Set::default() };
        world.asked[client] = before.with(epoch);
    }

    fn follow(&self, world: &mut World, client: usize, epoch: usize) {
        world.clients[client].epoch = epoch;
        if self.mistake != Mistake::AnswersAdded {
            match &mut world.clients[client].work {
                Work::Idle => (),
                Work::Writing { answered } => *answered = Set::default(),
                Work::Reading { answered, merged, .. } => (*answered, *merged) = Default::default(),
            }
        }
        self.send(world, client);
    }

    fn store(&self, world: &mut World, n: usize, write: usize, epoch: usize) -> Option<()> {
        let owner = &mut world.owners[n];
        if !world.asked[write].contains(epoch) || !self.rules.serves[n][owner.epoch][epoch] {
            return None;
        }
        owner.held = owner.held.with(write);
        let client = &mut world.clients[write];
        if let (true, Work::Writing { answered }) = (client.epoch == epoch, &mut client.work) {
            *answered = answered.with(n);
        }
        if !self.late && self.is_acknowledged(world, write) {
            self.acknowledge(world, write);
        }
        Some(())
    }

    fn is_acknowledged(&self, world: &World, write: usize) -> bool {
        let Client { epoch, work: Work::Writing { answered }, .. } = world.clients[write] else { return false };
        self.rules.writes[epoch][answered.at()]
    }

    /// Whether one more answer, at most, would acknowledge a write.
    fn is_due(&self, world: &World, write: usize) -> bool {
        let Client { epoch, work: Work::Writing { answered }, .. } = world.clients[write] else { return false };
        let serves = |n: &usize| self.rules.serves[*n][world.owners[*n].epoch][epoch];
        (0..OWNERS).filter(serves).any(|n| self.rules.writes[epoch][answered.with(n).at()])
    }

    fn acknowledge(&self, world: &mut World, write: usize) {
        world.acked = world.acked.with(write);
        if !self.late {
            world.asked[write] = Set::default();
        }
        world.clients[write].finish();
    }

    fn read(&self, world: &mut World, n: usize, client: usize) -> Option<()> {
        let (owner, client) = (&world.owners[n], &mut world.clients[client]);
        let Work::Reading { answered, merged, owed } = &mut client.work else { return None };
        if !self.rules.serves[n][owner.epoch][client.epoch] || answered.contains(n) {
            return None;
        }
        (*answered, *merged) = (answered.with(n), merged.union(owner.held.both(*owed)));
        if self.rules.reads[client.epoch][answered.at()] {
            world.stale |= !merged.includes(*owed);
            client.finish();
        }
        Some(())
    }

    fn take_over(&self, world: &mut World, n: usize, from: usize) -> Option<()> {
        let page = world.owners[from].page.filter(|_| n != from)?;
        let Owner { epoch, heard, .. } = world.owners[n];
        let wants = epoch == world.chosen && newcomers(&self.epochs[epoch]).contains(n);
        if !wants || heard.contains(from) || self.has_taken_over(world, n) {
            return None;
        }
        world.owners[n].held = world.owners[n].held.union(page);
        world.owners[n].heard = heard.with(from);
        if self.has_taken_over(world, n) {
            // From whom matters no more.
            world.owners[n].heard = (0..OWNERS).collect::<Set>().without(n);
        }
        Some(())
    }

    /// Who may be asked to hand over from now on, holds at least this when it does.
    fn offer(&self, world: &mut World) {
        for (n, owner) in world.owners.iter_mut().enumerate() {
            if owner.page.is_none() && self.rules.hands_over[n][owner.epoch][world.chosen] {
                owner.page = Some(owner.held);
            }
        }
    }
}

impl Client {
    fn finish(&mut self) {
        self.done += 1;
        self.work = Work::Idle;
    }
}

impl Model for Change {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let (owners, clients, asked) = Default::default();
        vec![World { chosen: 0, owners, clients, asked, acked: Set::default(), stale: false }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        actions.push(Action::Choose);
        let is_seated = |n: &usize| self.epochs.iter().any(|chosen| chosen.config.seats(owner(*n)));
        for n in (0..OWNERS).filter(is_seated) {
            actions.extend((world.owners[n].epoch + 1..=world.chosen).map(|epoch| Action::Adopt(n, epoch)));
            actions.extend((0..OWNERS).map(|from| Action::TakeOver { owner: n, from }));
            for client in 0..CLIENTS.len() {
                actions.push(Action::Read { owner: n, client });
                let epochs = world.asked[client].numbers();
                actions.extend(epochs.map(|epoch| Action::Store { owner: n, write: client, epoch }));
            }
        }
        for (client, Client { epoch, .. }) in world.clients.iter().enumerate() {
            if self.next(world, client).is_some() {
                actions.extend((epoch + 1..=world.chosen).map(|epoch| Action::Follow(client, epoch)));
                actions.extend([Action::Begin(client), Action::Acknowledge(client)]);
            }
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        match action {
            Action::Choose => self.choose(&mut world)?,
            Action::Adopt(n, epoch) => {
                let owner = &mut world.owners[n];
                if !self.rules.keeps[n][owner.epoch][epoch] {
                    owner.held = Set::default();
                }
                owner.epoch = epoch;
            }
            Action::Follow(client, epoch) => self.follow(&mut world, client, epoch),
            Action::Begin(client) if world.clients[client].work == Work::Idle => self.begin(&mut world, client)?,
            Action::Store { owner, write, epoch } => self.store(&mut world, owner, write, epoch)?,
            Action::Acknowledge(write) if self.is_acknowledged(&world, write) => self.acknowledge(&mut world, write),
            Action::Begin(_) | Action::Acknowledge(_) => return None,
            Action::Read { owner, client } => self.read(&mut world, owner, client)?,
            Action::TakeOver { owner, from } => self.take_over(&mut world, owner, from)?,
        }
        if self.is_joint(world.chosen) {
            self.offer(&mut world);
        }
        (world != *last).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(READ, |_: &Self, world: &World| !world.stale),
            Property::sometimes("a write is acknowledged while joint", |model: &Self, world: &World| {
                (0..CLIENTS.len()).any(|write| model.is_joint(world.clients[write].epoch) && model.is_due(world, write))
            }),
            Property::sometimes("a write is acknowledged while an owner is ahead", |model: &Self, world: &World| {
                let is_ahead = |write: usize| world.owners.iter().any(|owner| owner.epoch > world.clients[write].epoch);
                let is_first = |write: usize| world.clients[write].epoch == 0;
                (0..CLIENTS.len()).any(|write| is_first(write) && is_ahead(write) && model.is_due(world, write))
            }),
            Property::sometimes("a read is answered in the last epoch", |model: &Self, world: &World| {
                let last = model.epochs.len() - 1;
                let mut clients = world.clients.iter().zip(model.programs);
                clients.any(|(client, program)| client.epoch == last && client.done == program.len())
            }),
        ]
    }
}

const ONE_EACH: [&[Step]; 2] = [&[Step::Put], &[Step::Get]];
const TWO_WRITES: [&[Step]; 2] = [&[Step::Put], &[Step::Put, Step::Get]];

const TWO_STAY: &[Turn] = &[Turn::Begin(&[2, 3, 4]), Turn::Complete];
const ONE_STAYS: &[Turn] = &[Turn::Begin(&[3, 4, 5]), Turn::Complete];
const GIVEN_UP: &[Turn] = &[Turn::Begin(&[3, 4, 5]), Turn::GiveUp];
const BEGUN_ANEW: &[Turn] = &[Turn::Begin(&[2, 3, 4]), Turn::GiveUp, Turn::Begin(&[2, 3, 4]), Turn::Complete];
const THERE_AND_BACK: &[Turn] = &[Turn::Begin(&[2, 3, 4]), Turn::Complete, Turn::Begin(&[1, 2, 3]), Turn::Complete];
const ON_AND_ON: &[Turn] = &[Turn::Begin(&[2, 3, 4]), Turn::Complete, Turn::Begin(&[1, 2, 4]), Turn::Complete];
const ONE_STEP: &[Turn] = &[Turn::Replace(&[2, 3, 4])];

fn holds(programs: [&'static [Step]; 2], turns: &[Turn], late: bool, at_least: usize) {
    prove(Change::new(programs, turns, late, Mistake::None), at_least);
}

fn fails(mistake: Mistake) {
    refute(Change::new(ONE_EACH, TWO_STAY, true, mistake), READ);
}

#[test]
fn a_change_of_one_owner_loses_nothing() {
    holds(ONE_EACH, TWO_STAY, true, 50_000);
}

#[test]
fn a_change_of_two_owners_loses_nothing() {
    holds(ONE_EACH, ONE_STAYS, true, 200_000);
}

#[test]
fn two_writes_beside_a_change_are_both_kept() {
    holds(TWO_WRITES, TWO_STAY, false, 1_000_000);
}

#[test]
fn a_change_that_is_given_up_loses_nothing() {
    holds(ONE_EACH, GIVEN_UP, true, 200_000);
}

#[test]
fn a_change_that_is_begun_anew_loses_nothing() {
    holds(ONE_EACH, BEGUN_ANEW, false, 300_000);
}

#[test]
fn an_owner_that_comes_back_lets_nothing_be_lost() {
    holds(ONE_EACH, THERE_AND_BACK, false, 300_000);
}

#[test]
fn another_change_may_follow_before_everybody_has_what_is_its_own() {
    holds(ONE_EACH, ON_AND_ON, false, 300_000);
}

#[test]
fn who_hands_over_must_have_left_the_epoch_before() {
    fails(Mistake::FenceSkipped);
}

#[test]
fn one_old_owner_does_not_hold_everything() {
    fails(Mistake::TransferFromOne);
}

#[test]
fn the_new_owners_have_nothing_to_take_over_from_each_other() {
    fails(Mistake::TransferFromNew);
}

#[test]
fn a_change_must_wait_for_the_new_owners() {
    fails(Mistake::TransferNotAwaited);
}

#[test]
fn while_joint_a_read_needs_the_new_owners() {
    fails(Mistake::ReadFromOld);
}

#[test]
fn while_joint_a_read_needs_the_old_owners() {
    fails(Mistake::ReadFromNew);
}

#[test]
fn while_joint_a_write_needs_the_new_owners() {
    fails(Mistake::WrittenToOld);
}

#[test]
fn while_joint_a_write_needs_the_old_owners() {
    fails(Mistake::WrittenToNew);
}

#[test]
fn an_owner_must_not_answer_from_an_earlier_epoch() {
    fails(Mistake::EarlierServed);
}

#[test]
fn an_owner_must_not_answer_from_an_epoch_that_it_has_not_adopted() {
    fails(Mistake::LaterServed);
}

#[test]
fn answers_from_two_epochs_are_never_added_together() {
    fails(Mistake::AnswersAdded);
}

#[test]
fn data_must_not_be_dropped_before_it_was_taken_over() {
    fails(Mistake::DroppedEarly);
}

#[test]
fn owners_must_not_change_in_one_step() {
    refute(Change::new(ONE_EACH, ONE_STEP, true, Mistake::None), READ);
}

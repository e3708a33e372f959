//! A register without consensus: its owners, writers and readers, and owners that change under them.
//!
//! Owners, questions and quorums are the core's own: [`Acceptor::keep`], [`Query`], [`Tally`]. What a client does once
//! a majority has answered, and when its epoch moves, is written here once more.
//!
//! ```text
//!   client ── what do you hold? ──▶ owner ── timestamp, value ──▶ client    a majority holds the same, a read: that
//!   client ── Keep(e, t, value) ──▶ owner ── Holding(e, t) ──▶ client       a majority holds it: the client is told
//!
//!   epoch 1   owners 1 2 3
//!   epoch 2   owners 1 2     the newest of two of the three is with both; owner 3 drops what it holds
//!   epoch 3   owners 1 2 3   the newest of both is with two of the three; owner 3 may have nothing
//! ```
//!
//! **Invariant.** No read returns anything older, and every write is newer, than what any client was told before it
//! began: that its write is done, or what its read returned. So operations are in the order of their timestamps, and no
//! read goes back. A timestamp names one value. A majority of the owners holds what was told, or something newer.
//!
//! **Bounds**: two writers and one reader that reads twice, one writer and two readers, or one writer that may give up
//! its first write. While the owners change: one writer and one reader that reads twice, or two writers. Keeps are
//! delivered to any owner of their epoch at any time, again, or never. Their answers count at any later time, or never,
//! and for whoever waits for the same: what they say of an owner is true whoever asked. What an owner reports to a
//! question counts at once, or never: to count later is to be asked later, or to go on later. Answers that nobody waits
//! for are taken from the network.
//!
//! **A change of owners is one step.** All owners are in the new epoch at once, and what they have to hold is with a
//! majority of them; clients follow at any later time, or never. The real cluster does it in a joint epoch, by a read
//! of its own with majorities of both groups. That quorums may be joint, and that owners adopt epochs one by one, is
//! `epochs.rs`.
//!
//! **Not here**: restarts of a writer, which has another generation then, and when a client asks again.

use std::collections::BTreeSet;

use qunlong_core::abd::{Found, Query};
use qunlong_core::paxos::{Accepted, Acceptor, Ballot};
use qunlong_core::quorum::{Tally, majority};
use qunlong_core::{Epoch, Generation, NodeId};
use stateright::{Model, Property};

use super::{prove, refute};

const OWNERS: [NodeId; 3] = [NodeId::small(1), NodeId::small(2), NodeId::small(3)];
const FIRST: Epoch = Epoch(1);
/// The last owner is none in this one. It is back in the next.
const AWAY: Epoch = Epoch(2);

const PUT: &[Step] = &[Step::Put];
const PUTS: &[Step] = &[Step::Put, Step::Put];
const GET: &[Step] = &[Step::Get];
const GETS: &[Step] = &[Step::Get, Step::Get];

const READ: &str = "a read returns nothing older than what was told before it began";
const WRITE: &str = "a write is newer than what was told before it began";
const ONE: &str = "a timestamp names one value";
const KEPT: &str = "a majority of the owners holds what was told, or something newer";

/// A mistake that the model makes on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    None,
    /// A read returns the newest that a majority reports, and leaves it where it is.
    NoWriteBack,
    /// A writer counts its own writes, whatever a majority holds.
    TimestampNotAbove,
    /// A writer goes by what a majority holds, whatever it has sent before.
    GivenUpForgotten,
    /// One owner less than a majority is enough.
    OneShort,
    /// An owner holds what came last, older or newer.
    StoreReplaces,
    /// A client counts answers that name an earlier epoch, whose owner may have dropped what it spoke of.
    OldEpochCounted,
    /// An owner takes, and answers, what was sent in an earlier epoch.
    OldKeepAnswered,
    /// Owners change, and nothing is moved.
    NotMoved,
}

/// One operation of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Put,
    Get,
}

#[derive(Clone, Debug)]
struct Register {
    /// What each client does, one after the other.
    programs: &'static [&'static [Step]],
    /// Whether clients may give up what they have sent.
    gives_up: bool,
    /// Whether the owners change.
    changes: bool,
    mistake: Mistake,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    /// Of the owners.
    epoch: Epoch,
    acceptors: [Acceptor<char>; 3],
    clients: Vec<Client>,
    network: BTreeSet<Message>,
    /// The newest that any client was told of.
    told: Ballot,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Client {
    epoch: Epoch,
    /// How many operations it has begun.
    begun: usize,
    /// The highest counter that it has used.
    counter: u64,
    /// What had been told when the operation began.
    since: Ballot,
    work: Work,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Work {
    /// Nothing was begun, or what was begun is given up.
    Idle,
    Querying(Query<char>),
    Keeping {
        timestamp: Ballot,
        value: char,
        kept: Tally,
    },
    /// A read is over: a majority held just this.
    Agreed(Ballot),
    /// A write or a read is over: a majority has stored this.
    Kept(Ballot),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Message {
    Keep { epoch: Epoch, timestamp: Ballot, value: char },
    Holding { epoch: Epoch, timestamp: Ballot, from: usize },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Begin(usize),
    /// A client is told what an owner holds.
    Report(usize, usize),
    /// An owner gets a Keep, or a client an answer.
    Deliver(usize, Message),
    GiveUp(usize),
    /// The last owner leaves. Of the three this one does not say what it holds.
    Leave(usize),
    /// The last owner comes back. This one of the three is not brought what the others hold.
    Return(usize),
    /// A client adopts the owners' epoch.
    Enter(usize),
}

/// How many own: the first of [`OWNERS`].
fn owners(epoch: Epoch) -> usize {
    if epoch == AWAY { OWNERS.len() - 1 } else { OWNERS.len() }
}

fn quorum(epoch: Epoch) -> Tally {
    let owners = owners(epoch);
    Tally::new(OWNERS.into_iter().take(owners), majority(owners as u8))
}

/// A smallest majority: both of two, or all of three but one.
fn majority_without(left_out: usize, epoch: Epoch) -> impl Iterator<Item = usize> {
    let owners = owners(epoch);
    (0..owners).filter(move |&at| owners < OWNERS.len() || at != left_out)
}

fn held(acceptor: &Acceptor<char>) -> Accepted<char> {
    acceptor.accepted().map(|(timestamp, &value)| (timestamp, value))
}

fn timestamp_of(held: Accepted<char>) -> Ballot {
    held.map_or(Ballot::NONE, |(timestamp, _)| timestamp)
}

fn name(client: usize) -> NodeId {
    NodeId::small(11 + client as u8)
}

impl Register {
    fn new(programs: &'static [&'static [Step]], mistake: Mistake) -> Self {
        Self { programs, gives_up: false, changes: false, mistake }
    }

    fn begin(&self, world: &mut World, n: usize) -> Option<()> {
        let client = &mut world.clients[n];
        if client.begun == self.programs[n].len() {
            return None;
        }
        client.begun += 1;
        (client.epoch, client.since) = (world.epoch, world.told);
        client.work = Work::Querying(Query::new(quorum(world.epoch)));
        Some(())
    }

    fn report(&self, world: &mut World, n: usize, at: usize) -> Option<()> {
        let client = &mut world.clients[n];
        let Work::Querying(query) = &mut client.work else { return None };
        if client.epoch != world.epoch {
            return None;
        }
        let found = query.on_report(OWNERS[at], held(&world.acceptors[at]));
        let Some(Found { newest, agree }) = found else { return Some(()) };
        let (timestamp, value) = match self.programs[n][client.begun - 1] {
            Step::Get if agree || self.mistake == Mistake::NoWriteBack => {
                let newest = timestamp_of(newest);
                client.work = Work::Agreed(newest);
                world.told = world.told.max(newest);
                return Some(());
            }
            Step::Get => newest?,
            Step::Put => self.write(client, n, timestamp_of(newest)),
        };
        client.work = Work::Keeping { timestamp, value, kept: quorum(world.epoch) };
        world.network.insert(Message::Keep { epoch: world.epoch, timestamp, value });
        Some(())
    }

    /// What a client writes: a letter of its own, above all that a majority holds and all that it has used.
    fn write(&self, client: &mut Client, n: usize, newest: Ballot) -> (Ballot, char) {
        let known = if self.mistake == Mistake::TimestampNotAbove { 0 } else { newest.counter };
        let used = if self.mistake == Mistake::GivenUpForgotten { 0 } else { client.counter };
        client.counter = known.max(used) + 1;
        let timestamp = Ballot { counter: client.counter, node: name(n), generation: Generation(1) };
        (timestamp, char::from(b'a' + (n * PUTS.len() + client.begun - 1) as u8))
    }

    fn deliver(&self, world: &mut World, to: usize, message: Message) -> Option<()> {
        match message {
            Message::Keep { epoch, timestamp, value } => {
                let takes = epoch == world.epoch || self.mistake == Mistake::OldKeepAnswered;
                if !takes || to >= owners(world.epoch) {
                    return None;
                }
                if self.mistake == Mistake::StoreReplaces {
                    world.acceptors[to] = Acceptor::default();
                }
                // What is not newer is answered as well: it has been replaced.
                world.acceptors[to].keep(timestamp, value);
                world.network.insert(Message::Holding { epoch, timestamp, from: to });
            }
            Message::Holding { epoch, timestamp, from } => {
                let client = &mut world.clients[to];
                if !self.counts(client, epoch) {
                    return None;
                }
                let Work::Keeping { timestamp: sent, kept, .. } = &mut client.work else { return None };
                if *sent != timestamp || !kept.answer(OWNERS[from]) {
                    return None;
                }
                let is_one_short = kept.have() + 1 == kept.needed();
                if kept.reached() || (is_one_short && self.mistake == Mistake::OneShort) {
                    client.work = Work::Kept(timestamp);
                    world.told = world.told.max(timestamp);
                }
            }
        }
        Some(())
    }

    /// Whether an answer that names this epoch counts.
    fn counts(&self, client: &Client, epoch: Epoch) -> bool {
        epoch == client.epoch || (epoch < client.epoch && self.mistake == Mistake::OldEpochCounted)
    }

    fn change(&self, world: &mut World, left_out: usize) {
        let newest = majority_without(left_out, world.epoch).filter_map(|at| held(&world.acceptors[at])).max();
        world.epoch = world.epoch.next();
        if world.epoch == AWAY {
            world.acceptors[owners(AWAY)] = Acceptor::default();
        }
        if let Some((timestamp, value)) = newest.filter(|_| self.mistake != Mistake::NotMoved) {
            for at in majority_without(left_out, world.epoch) {
                world.acceptors[at].keep(timestamp, value);
            }
        }
    }

    /// Takes from the network the answers that nobody waits for.
    fn clear(&self, world: &mut World) {
        let World { network, clients, .. } = world;
        let waits = |client: &Client, timestamp: Ballot, from: NodeId| match &client.work {
            Work::Keeping { timestamp: sent, kept, .. } => *sent == timestamp && !kept.answered().contains(&from),
            Work::Idle | Work::Querying(_) | Work::Agreed(_) | Work::Kept(_) => false,
        };
        network.retain(|&message| match message {
            Message::Keep { .. } => true,
            Message::Holding { epoch, timestamp, from } => clients.iter().any(|client| {
                // A client may be in the epoch that is named later.
                let may_count = epoch > client.epoch || self.counts(client, epoch);
                may_count && waits(client, timestamp, OWNERS[from])
            }),
        });
    }

    /// Operations of this kind that are over: what had been told when each began, and with what it ended.
    fn ended(&self, world: &World, kind: Step) -> impl Iterator<Item = (Ballot, Ballot)> {
        world.clients.iter().zip(self.programs).filter_map(move |(client, program)| {
            let ended = client.ended()?;
            (program[client.begun - 1] == kind).then_some((client.since, ended))
        })
    }

    fn is_done(&self, world: &World) -> bool {
        let mut clients = world.clients.iter().zip(self.programs);
        clients.all(|(client, program)| client.begun == program.len() && client.ended().is_some())
    }
}

impl World {
    /// What clients have sent to be stored.
    fn sent(&self) -> impl Iterator<Item = (Epoch, Ballot, char)> {
        self.network.iter().filter_map(|&message| match message {
            Message::Keep { epoch, timestamp, value } => Some((epoch, timestamp, value)),
            Message::Holding { .. } => None,
        })
    }

    /// What is being stored keeps its timestamp; what was only asked is asked anew.
    fn enter(&mut self, n: usize) -> Option<()> {
        let client = &mut self.clients[n];
        match &mut client.work {
            Work::Querying(query) => *query = Query::new(quorum(self.epoch)),
            Work::Keeping { timestamp, value, kept } => {
                *kept = quorum(self.epoch);
                self.network.insert(Message::Keep { epoch: self.epoch, timestamp: *timestamp, value: *value });
            }
            Work::Idle | Work::Agreed(_) | Work::Kept(_) => return None,
        }
        client.epoch = self.epoch;
        Some(())
    }
}

impl Client {
    fn ended(&self) -> Option<Ballot> {
        match self.work {
            Work::Agreed(ended) | Work::Kept(ended) => Some(ended),
            Work::Idle | Work::Querying(_) | Work::Keeping { .. } => None,
        }
    }
}

impl Model for Register {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let client = Client { epoch: FIRST, begun: 0, counter: 0, since: Ballot::NONE, work: Work::Idle };
        let clients = vec![client; self.programs.len()];
        let (acceptors, network) = (Default::default(), BTreeSet::new());
        vec![World { epoch: FIRST, acceptors, clients, network, told: Ballot::NONE }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        for (n, client) in world.clients.iter().enumerate() {
            match &client.work {
                Work::Idle | Work::Agreed(_) | Work::Kept(_) => actions.push(Action::Begin(n)),
                Work::Querying(_) => actions.extend((0..OWNERS.len()).map(|at| Action::Report(n, at))),
                Work::Keeping { .. } if self.gives_up => actions.push(Action::GiveUp(n)),
                Work::Keeping { .. } => (),
            }
            if client.epoch < world.epoch {
                actions.push(Action::Enter(n));
            }
        }
        for &message in &world.network {
            let receivers = match message {
                Message::Keep { .. } => OWNERS.len(),
                Message::Holding { .. } => world.clients.len(),
            };
            actions.extend((0..receivers).map(|to| Action::Deliver(to, message)));
        }
        match world.epoch {
            FIRST if self.changes => actions.extend((0..OWNERS.len()).map(Action::Leave)),
            AWAY => actions.extend((0..OWNERS.len()).map(Action::Return)),
            _ => (),
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        match action {
            Action::Begin(n) => self.begin(&mut world, n)?,
            Action::Report(n, at) => self.report(&mut world, n, at)?,
            Action::Deliver(to, message) => self.deliver(&mut world, to, message)?,
            Action::GiveUp(n) => {
                let client = &mut world.clients[n];
                (client.since, client.work) = (Ballot::NONE, Work::Idle);
            }
            Action::Leave(left_out) | Action::Return(left_out) => self.change(&mut world, left_out),
            Action::Enter(n) => world.enter(n)?,
        }
        self.clear(&mut world);
        (world != *last).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(READ, |model: &Self, world: &World| {
                model.ended(world, Step::Get).all(|(since, returned)| returned >= since)
            }),
            Property::always(WRITE, |model: &Self, world: &World| {
                model.ended(world, Step::Put).all(|(since, written)| written > since)
            }),
            Property::always(ONE, |_: &Self, world: &World| {
                let writes: BTreeSet<(Ballot, char)> = world.sent().map(|(_, at, value)| (at, value)).collect();
                let timestamps: BTreeSet<Ballot> = writes.iter().map(|&(at, _)| at).collect();
                timestamps.len() == writes.len()
            }),
            Property::always(KEPT, |_: &Self, world: &World| {
                let mut holders = quorum(world.epoch);
                for (owner, acceptor) in OWNERS.into_iter().zip(&world.acceptors) {
                    if timestamp_of(held(acceptor)) >= world.told {
                        holders.answer(owner);
                    }
                }
                holders.reached()
            }),
            Property::sometimes("every operation is done", |model: &Self, world: &World| model.is_done(world)),
        ];
        if self.programs.iter().any(|program| program.contains(&Step::Get)) {
            properties.extend([
                Property::sometimes("a read begins when every write is done", |model: &Self, world: &World| {
                    let follows = |since: Ballot| model.ended(world, Step::Put).all(|(_, written)| written <= since);
                    model.is_done(world) && model.ended(world, Step::Get).any(|(since, _)| follows(since))
                }),
                Property::sometimes("a read needs no write-back", |_: &Self, world: &World| {
                    world.clients.iter().any(|client| matches!(client.work, Work::Agreed(at) if at > Ballot::NONE))
                }),
                Property::sometimes("a read writes back", |_: &Self, world: &World| {
                    let mut clients = world.clients.iter().enumerate();
                    clients.any(|(n, client)| matches!(client.work, Work::Kept(at) if at.node != name(n)))
                }),
            ]);
        }
        if self.changes {
            properties.extend([
                Property::sometimes("a write begun in one epoch is done in another", |_: &Self, world: &World| {
                    world.clients.iter().enumerate().any(|(n, client)| {
                        let own = client.ended().filter(|at| at.node == name(n));
                        world.sent().any(|(epoch, at, _)| own == Some(at) && epoch < client.epoch)
                    })
                }),
                Property::sometimes("an answer is later than its epoch", |_: &Self, world: &World| {
                    let mut network = world.network.iter();
                    network.any(|message| matches!(message, Message::Holding { epoch, .. } if *epoch < world.epoch))
                }),
            ]);
        }
        properties
    }
}

fn giving_up(programs: &'static [&'static [Step]], mistake: Mistake) -> Register {
    Register { gives_up: true, ..Register::new(programs, mistake) }
}

fn changing(programs: &'static [&'static [Step]], mistake: Mistake) -> Register {
    Register { changes: true, ..Register::new(programs, mistake) }
}

#[test]
fn operations_are_in_the_order_of_their_timestamps() {
    prove(Register::new(&[PUT, PUT, GETS], Mistake::None), 50_000);
    prove(Register::new(&[PUT, GET, GET], Mistake::None), 1_000);
}

#[test]
fn a_write_that_was_given_up_keeps_its_timestamp() {
    prove(giving_up(&[PUTS, GETS], Mistake::None), 5_000);
    refute(giving_up(&[PUTS], Mistake::GivenUpForgotten), ONE);
}

#[test]
fn what_a_read_has_found_must_be_stored_before_it_returns() {
    refute(Register::new(&[PUT, GETS], Mistake::NoWriteBack), READ);
}

#[test]
fn a_timestamp_must_lie_above_what_a_majority_holds() {
    refute(Register::new(&[PUT, PUT], Mistake::TimestampNotAbove), WRITE);
}

#[test]
fn less_than_a_majority_is_missed() {
    refute(Register::new(&[PUT, GET], Mistake::OneShort), READ);
    refute(Register::new(&[PUT, GET], Mistake::OneShort), KEPT);
}

#[test]
fn what_is_newer_must_not_be_replaced() {
    refute(Register::new(&[PUT, PUT, GET], Mistake::StoreReplaces), READ);
    refute(Register::new(&[PUT, PUT], Mistake::StoreReplaces), KEPT);
}

#[test]
fn operations_outlive_a_change_of_owners() {
    prove(changing(&[PUT, GETS], Mistake::None), 10_000);
    prove(changing(&[PUT, PUT], Mistake::None), 20_000);
}

#[test]
fn answers_of_an_earlier_epoch_must_not_count() {
    refute(changing(&[PUT, GET], Mistake::OldEpochCounted), READ);
    refute(changing(&[PUT, GET], Mistake::OldEpochCounted), KEPT);
}

#[test]
fn what_was_sent_in_an_earlier_epoch_must_not_be_answered() {
    refute(changing(&[PUT, GET], Mistake::OldKeepAnswered), READ);
}

#[test]
fn what_was_told_must_be_moved_to_the_owners_of_the_next_epoch() {
    refute(changing(&[PUT, GET], Mistake::NotMoved), READ);
}

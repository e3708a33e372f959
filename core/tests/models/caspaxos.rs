//! A register that changes: its acceptors, two proposers with two changes each, retries, and reads beside them.
//!
//! Acceptors, proposers, readers and contents are the core's own: [`Acceptor`], [`Proposer`], [`Reader`], [`Cell`]. Each
//! change appends a letter of its own, so that a content tells which changes led to it, and in which order.
//!
//! ```text
//!   proposer ── Prepare(b) ──▶ acceptor ── Promise(b, accepted) ──▶ proposer     a quorum: change what there is
//!   proposer ── Accept(b, content, next) ──▶ acceptor ── Accepted(b, is next promised?) ──▶ proposer
//!                                                 a quorum accepted: chosen; it promised next as well: no Prepare
//!   acceptor ── what it has accepted ──▶ acceptor                                a repair, where phase 1 may be skipped
//!   reader ── Read ──▶ acceptor ── Report(accepted) ──▶ reader                   a quorum reports one ballot: that
//! ```
//!
//! **Invariant.** Contents that are chosen are one chain, in which each change stands once; who is told that a change
//! was done finds it there, at the version that was told; a read returns what was chosen, and nothing older than what
//! was chosen before it began.
//!
//! **Bounds**: three acceptors; two changes of each proposer in so many attempts as each test says, which begin at any
//! time; one read. Whatever proposers have sent is delivered at any time, again, or never. An answer counts at once, or never:
//! that to an Accept is lost if its proposer has begun another attempt before. Acceptors forget nothing (`paxos.rs` has those that do).

use std::collections::{BTreeMap, BTreeSet};

use qunlong_core::cell::{Applied, Cell, Change, Done, Request};
use qunlong_core::paxos::{Acceptor, Ballot, Next, Proposer, Read, Reader};
use qunlong_core::quorum::Tally;
use qunlong_core::{Bytes, Generation, Name, NodeId, WriteId};
use stateright::{Model, Property};

use super::{prove, refute};

const ACCEPTORS: [NodeId; 3] = [NodeId::small(1), NodeId::small(2), NodeId::small(3)];
const CHANGES: usize = 2;

const CHAIN: &str = "chosen contents are one chain";
const ONCE: &str = "no change is made twice";
const TOLD: &str = "what a client is told was done is done";
const READ: &str = "a read is of what was chosen, and not older than its beginning";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    None,
    /// Phase 1 is skipped although only one acceptor has promised the next ballot.
    SkippedAfterOne,
    /// An Accept of what was accepted before, by a repair, is answered as if it promised the next ballot.
    DuplicateGrants,
    /// A retry goes under another id, and is carried out again.
    RetryRenamed,
    /// A read takes the highest of what a majority reports.
    HighestRead,
    /// A read takes what any acceptor reports.
    AnyRead,
    /// A change is made to the content that the proposer knew before, and not to what the promises report.
    OldContentChanged,
}

#[derive(Clone, Debug)]
struct Register {
    /// Attempts of each proposer, for both its changes together.
    attempts: [usize; 2],
    sticky: bool,
    reads: bool,
    /// So many changes can be done, all in all.
    most: usize,
    mistake: Mistake,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    acceptors: Vec<Acceptor<Cell>>,
    proposers: [Asker; 2],
    network: BTreeSet<Message>,
    /// What each ballot carries.
    proposed: BTreeMap<Ballot, Cell>,
    /// Who has accepted it, until it is chosen.
    votes: BTreeMap<Ballot, BTreeSet<usize>>,
    chosen: BTreeSet<Content>,
    /// What clients were told, by change.
    told: BTreeMap<u8, Done>,
    read: Option<(Reader<Cell>, u64)>,
    /// What a read has returned, and the version that was chosen when it began.
    found: Option<(Option<Content>, u64)>,
}

/// A content, as far as the properties look at it.
type Content = (u64, Bytes);

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Asker {
    attempt: Option<Proposer<Cell>>,
    attempts: usize,
    counter: u64,
    /// The change that it is at.
    change: usize,
    /// What the attempt does, if it was a change, once chosen.
    done: Option<Done>,
    /// Who has promised the next ballot with the Accept.
    granted: BTreeSet<usize>,
    /// The next ballot, and what was chosen under the one before: phase 1 is done.
    skip: Option<(Ballot, Cell)>,
    /// Whether the attempt began with phase 2.
    skipped: bool,
    /// The content that it knew last.
    known: Cell,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Message {
    Prepare(Ballot),
    Accept(Ballot),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Begin(usize),
    Ask(usize, Message),
    AskInVain(usize, Message),
    /// An acceptor is brought what another one has accepted; nothing is promised with it.
    Repair(usize, usize),
    Read,
    Report(usize),
}

fn quorum() -> Tally {
    Tally::new(ACCEPTORS, 2)
}

fn content(cell: &Cell) -> Content {
    (cell.version(), cell.value().cloned().unwrap_or_default())
}

fn next_of(ballot: Ballot) -> Ballot {
    Ballot { counter: ballot.counter + 1, ..ballot }
}

impl Register {
    fn new(attempts: [usize; 2], mistake: Mistake) -> Self {
        let most = attempts.iter().map(|&attempts| attempts.min(CHANGES)).sum();
        Self { attempts, sticky: false, reads: false, most, mistake }
    }

    fn letter(n: usize, change: usize) -> u8 {
        b'a' + (n * CHANGES + change) as u8
    }

    fn request(&self, asker: &Asker, n: usize) -> Request {
        let letter = Self::letter(n, asker.change);
        let attempt = if self.mistake == Mistake::RetryRenamed { asker.attempts as u8 } else { 0 };
        let id = WriteId([letter, attempt, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        Request { name: Name::single(id), seen: 0, change: Change::Append { suffix: Bytes::from([letter].as_slice()) } }
    }

    fn begin(&self, world: &mut World, n: usize) -> Option<()> {
        let asker = &mut world.proposers[n];
        if asker.attempts == self.attempts[n] || asker.change == CHANGES {
            return None;
        }
        asker.attempts += 1;
        asker.granted.clear();
        let skip = asker.skip.take();
        asker.skipped = skip.is_some();
        match skip {
            Some((ballot, before)) => {
                asker.counter = asker.counter.max(ballot.counter);
                let cell = self.changed(asker, n, &before);
                asker.attempt = Some(Proposer::prepared(ballot, cell.clone(), quorum()));
                world.propose(ballot, cell);
            }
            None => {
                // Above every ballot that was used or reserved.
                asker.counter += if self.sticky { 2 } else { 1 };
                let node = NodeId::small(n as u8 + 1);
                let ballot = Ballot { counter: asker.counter, node, generation: Generation(1) };
                asker.attempt = Some(Proposer::new(ballot, quorum()));
                world.network.insert(Message::Prepare(ballot));
            }
        }
        Some(())
    }

    /// What this proposer makes of a content, and what it will tell its client.
    fn changed(&self, asker: &mut Asker, n: usize, before: &Cell) -> Cell {
        let before = if self.mistake == Mistake::OldContentChanged { asker.known.clone() } else { before.clone() };
        match before.apply(&self.request(asker, n)) {
            Applied::Next(cell, done) => {
                asker.done = Some(done);
                cell
            }
            Applied::Before(done) => {
                asker.done = Some(done);
                before
            }
            Applied::Not(why) => panic!("{why:?}"),
        }
    }

    fn ask(&self, world: &mut World, at: usize, message: Message, heard: bool) -> Option<()> {
        let (from, acceptor) = (ACCEPTORS[at], &mut world.acceptors[at]);
        let (ballot, next) = match message {
            Message::Prepare(ballot) => {
                let promise = acceptor.prepare(ballot);
                let attempt = world.attempt(ballot).filter(|_| heard);
                let next = match (promise, attempt) {
                    (Ok(accepted), Some(attempt)) => Ok(attempt.on_promise(from, ballot, accepted)),
                    (promise, _) => promise.map(|_| Next::Wait),
                };
                (ballot, next)
            }
            Message::Accept(ballot) => {
                let cell = world.proposed.get(&ballot)?.clone();
                let granted = if self.sticky {
                    acceptor.accept_and_promise(ballot, cell, next_of(ballot))
                } else {
                    acceptor.accept(ballot, cell).map(|()| false)
                };
                if granted.is_ok() {
                    world.vote(ballot, at);
                }
                let asker = world.asker(ballot).filter(|_| heard);
                let next = match (granted, asker) {
                    (Ok(granted), Some(asker)) => {
                        if granted || self.mistake == Mistake::DuplicateGrants {
                            asker.granted.insert(at);
                        }
                        Ok(asker.attempt.as_mut()?.on_accepted(from, ballot))
                    }
                    (granted, _) => granted.map(|_| Next::Wait),
                };
                (ballot, next)
            }
        };
        let n = usize::from(ballot.node.0[15]).checked_sub(1)?;
        match next {
            Ok(Next::Wait) => (),
            Ok(Next::Propose(seen)) => {
                let before = seen.map(|(_, cell)| cell).unwrap_or_default();
                let mut asker = world.proposers[n].clone();
                let cell = self.changed(&mut asker, n, &before);
                asker.attempt.as_mut()?.propose(cell.clone(), quorum());
                world.proposers[n] = asker;
                world.propose(ballot, cell);
            }
            Ok(Next::Chosen(cell)) => {
                let asker = &mut world.proposers[n];
                let done = asker.done.take()?;
                let letter = Self::letter(n, asker.change);
                asker.change += 1;
                asker.known = cell;
                world.told.insert(letter, done);
            }
            Err(promised) if heard => {
                if let Some(asker) = world.asker(ballot) {
                    asker.counter = asker.counter.max(promised.counter);
                    asker.skip = None;
                }
            }
            Err(_) => (),
        }
        let needed = if self.mistake == Mistake::SkippedAfterOne { 1 } else { 2 };
        let asker = &mut world.proposers[n];
        let is_over = asker.attempt.as_ref().is_some_and(|a| a.ballot() == ballot && a.tally().reached());
        let is_accepted = asker.attempt.as_ref().is_some_and(|attempt| attempt.proposed().is_some());
        if self.sticky && is_over && is_accepted && asker.granted.len() >= needed && asker.change < CHANGES {
            asker.skip = world.proposed.get(&ballot).map(|cell| (next_of(ballot), cell.clone()));
        }
        Some(())
    }

    fn report(&self, world: &mut World, at: usize) -> Option<()> {
        let accepted = world.acceptors[at].accepted().map(|(ballot, cell)| (ballot, cell.clone()));
        let (reader, since) = world.read.as_mut()?;
        let mistaken = match self.mistake {
            Mistake::AnyRead => Some(Read::Holds(accepted.clone().map(|(_, cell)| cell))),
            // The twin has two reports at this point, of which it takes the higher.
            Mistake::HighestRead if reader.silent().count() == 2 => {
                let before = ACCEPTORS.iter().position(|node| reader.silent().all(|silent| silent != *node));
                let before = before.and_then(|at| world.acceptors[at].accepted()).map(|(b, cell)| (b, cell.clone()));
                Some(Read::Holds(before.max_by_ballot(accepted.clone())))
            }
            _ => None,
        };
        let heard = reader.on_report(ACCEPTORS[at], accepted);
        match mistaken.unwrap_or(heard) {
            Read::Wait => (),
            Read::Holds(cell) => {
                world.found = Some((cell.as_ref().map(content), *since));
                world.read = None;
            }
            Read::Undecided => world.read = None,
        }
        Some(())
    }

    /// Takes from the network what cannot change anything any more.
    fn clear(&self, world: &mut World) {
        if self.mistake != Mistake::None {
            return;
        }
        let World { network, acceptors, proposers, .. } = world;
        let waits = |at: usize, ballot: Ballot, accepting: bool| {
            proposers.iter().any(|asker| {
                asker.attempt.as_ref().is_some_and(|attempt| {
                    let phase = attempt.ballot() == ballot && attempt.proposed().is_some() == accepting;
                    phase && !attempt.tally().answered().contains(&ACCEPTORS[at]) && !attempt.tally().reached()
                })
            })
        };
        let learns = |ballot: Ballot, promised: Ballot| {
            proposers.iter().enumerate().any(|(n, asker)| {
                let is_current = asker.attempt.as_ref().is_some_and(|attempt| attempt.ballot() == ballot);
                let goes_on = asker.attempts < self.attempts[n] && asker.change < CHANGES;
                is_current && goes_on && (promised.counter > asker.counter || asker.skip.is_some())
            })
        };
        network.retain(|&message| {
            acceptors.iter().enumerate().any(|(at, acceptor)| {
                let promised = acceptor.promised();
                let accepted = acceptor.accepted().map_or(Ballot::NONE, |(ballot, _)| ballot);
                match message {
                    Message::Prepare(ballot) if promised == ballot => waits(at, ballot, false),
                    Message::Accept(ballot) if accepted == ballot => waits(at, ballot, true) || self.sticky,
                    Message::Prepare(ballot) | Message::Accept(ballot) => {
                        promised <= ballot || learns(ballot, promised)
                    }
                }
            })
        });
    }
}

/// The higher of two reports.
trait Higher {
    fn max_by_ballot(self, other: Self) -> Option<Cell>;
}

impl Higher for Option<(Ballot, Cell)> {
    fn max_by_ballot(self, other: Self) -> Option<Cell> {
        let ballot = |report: &Self| report.as_ref().map(|(ballot, _)| *ballot);
        let higher = if ballot(&self) < ballot(&other) { other } else { self };
        higher.map(|(_, cell)| cell)
    }
}

impl World {
    fn asker(&mut self, ballot: Ballot) -> Option<&mut Asker> {
        let is_current = |asker: &&mut Asker| asker.attempt.as_ref().is_some_and(|attempt| attempt.ballot() == ballot);
        self.proposers.iter_mut().find(is_current)
    }

    fn attempt(&mut self, ballot: Ballot) -> Option<&mut Proposer<Cell>> {
        self.asker(ballot)?.attempt.as_mut()
    }

    fn propose(&mut self, ballot: Ballot, cell: Cell) {
        self.proposed.insert(ballot, cell);
        self.network.insert(Message::Accept(ballot));
    }

    fn vote(&mut self, ballot: Ballot, at: usize) {
        let Some(cell) = self.proposed.get(&ballot) else { return };
        let content = content(cell);
        if self.chosen.contains(&content) {
            return;
        }
        let votes = self.votes.entry(ballot).or_default();
        votes.insert(at);
        if votes.len() >= 2 {
            self.chosen.insert(content);
            self.votes.remove(&ballot);
        }
    }
}

impl Model for Register {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let acceptors = vec![Acceptor::default(); ACCEPTORS.len()];
        vec![World {
            acceptors,
            proposers: Default::default(),
            network: BTreeSet::new(),
            proposed: BTreeMap::new(),
            votes: BTreeMap::new(),
            chosen: BTreeSet::new(),
            told: BTreeMap::new(),
            read: None,
            found: None,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        actions.extend((0..world.proposers.len()).map(Action::Begin));
        for &message in &world.network {
            actions.extend((0..ACCEPTORS.len()).map(|at| Action::Ask(at, message)));
            if matches!(message, Message::Prepare(_)) {
                actions.extend((0..ACCEPTORS.len()).map(|at| Action::AskInVain(at, message)));
            }
        }
        if self.sticky {
            let all = 0..ACCEPTORS.len();
            actions.extend(all.clone().flat_map(|from| all.clone().map(move |to| Action::Repair(from, to))));
        }
        if let Some((reader, _)) = &world.read {
            let silent: Vec<NodeId> = reader.silent().collect();
            actions.extend((0..ACCEPTORS.len()).filter(|&at| silent.contains(&ACCEPTORS[at])).map(Action::Report));
        } else if self.reads && world.found.is_none() && !world.chosen.is_empty() {
            actions.push(Action::Read);
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        match action {
            Action::Begin(n) => self.begin(&mut world, n)?,
            Action::Ask(at, message) => self.ask(&mut world, at, message, true)?,
            Action::AskInVain(at, message) => self.ask(&mut world, at, message, false)?,
            Action::Repair(from, to) => {
                let (ballot, cell) = world.acceptors[from].accepted().map(|(ballot, cell)| (ballot, cell.clone()))?;
                world.acceptors[to].accept(ballot, cell).ok()?;
                world.vote(ballot, to);
            }
            Action::Read => {
                let since = world.chosen.iter().map(|(version, _)| *version).max().unwrap_or_default();
                world.read = Some((Reader::new(quorum()), since));
            }
            Action::Report(at) => self.report(&mut world, at)?,
        }
        self.clear(&mut world);
        (world != *last).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(CHAIN, |_: &Self, world: &World| {
                let chain: Vec<&Content> = world.chosen.iter().collect();
                chain.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[1].1.starts_with(&pair[0].1))
            }),
            Property::always(ONCE, |_: &Self, world: &World| {
                world.chosen.iter().all(|(_, letters)| letters.iter().collect::<BTreeSet<_>>().len() == letters.len())
            }),
            Property::always(TOLD, |_: &Self, world: &World| {
                world.told.iter().all(|(letter, done)| {
                    let stands = |(version, letters): &Content| {
                        *version >= done.version && letters.get(done.version as usize - 1) == Some(letter)
                    };
                    world.chosen.iter().any(stands)
                })
            }),
            Property::always(READ, |_: &Self, world: &World| {
                world.found.as_ref().is_none_or(|(found, since)| {
                    found.as_ref().is_some_and(|found| world.chosen.contains(found) && found.0 >= *since)
                })
            }),
            Property::sometimes("as many changes as can be are done", |model: &Self, world: &World| {
                world.told.len() == model.most
            }),
        ];
        if self.reads {
            properties.push(Property::sometimes("a read ends in one round trip", |_: &Self, world: &World| {
                world.found.is_some()
            }));
        }
        if self.sticky {
            properties.push(Property::sometimes("phase 1 is skipped", |_: &Self, world: &World| {
                world.proposers.iter().any(|asker| asker.skipped)
            }));
        }
        properties
    }
}

fn sticky(attempts: [usize; 2], mistake: Mistake) -> Register {
    // Whoever comes second is refused first, for the next ballot is promised already.
    Register { sticky: true, most: 2, ..Register::new(attempts, mistake) }
}

fn reading(attempts: [usize; 2], mistake: Mistake) -> Register {
    Register { reads: true, ..Register::new(attempts, mistake) }
}

#[test]
fn two_proposers_with_two_changes_each_make_one_chain() {
    prove(Register::new([2, 2], Mistake::None), 50_000);
}

#[test]
fn a_retry_is_the_same_change() {
    refute(Register::new([2, 1], Mistake::RetryRenamed), ONCE);
}

#[test]
fn a_majority_that_promised_the_next_ballot_needs_not_be_asked_again() {
    prove(sticky([2, 1], Mistake::None), 5_000);
    refute(sticky([2, 1], Mistake::SkippedAfterOne), CHAIN);
    refute(sticky([2, 1], Mistake::DuplicateGrants), CHAIN);
}

#[test]
fn what_all_of_a_majority_report_is_what_there_is() {
    prove(reading([1, 1], Mistake::None), 1_000);
    refute(reading([1, 1], Mistake::HighestRead), READ);
    refute(reading([1, 1], Mistake::AnyRead), READ);
}

#[test]
fn what_the_promises_report_is_changed_and_nothing_else() {
    refute(Register::new([1, 1], Mistake::OldContentChanged), CHAIN);
}

//! Runs a plan and judges it from outside.
//!
//! ```text
//!   form a cluster → do the steps, judging every answer when it comes
//!     → the healthy core: one server stays down, all else heals; reads of some keys must be *done* within 30 s,
//!       and everybody must know who is dead
//!     → everything heals: within 60 s owners hold the same and members see each other as they are
//!     → every key is read once more, and judged against all that was ever acknowledged
//! ```
//!
//! What a run reached is counted ([`Report::reached`]), because a suite that never tears a tail or never makes a
//! sibling proves nothing about them.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use super::Sim;
use super::check::epochs::Epochs;
use super::check::registers::{Answer, Call, Change, Ledger};
use super::check::{History, Seen};
use super::check::{bounds, converge};
use super::disk::Disk;
use super::drawer::REPEATED;
use super::plan::{Action, Context, Move, Place, Plan, Registers, Step, World};
use crate::bytes::Bytes;
use crate::cell::{self, When};
use crate::config::{AutopilotConfig, Config, Tabs};
use crate::id::{Name, RequestId, WriteId};
use crate::kv::{self, WriteContext};
use crate::lift::{Event, EventKind, Op, Outcome};
use crate::member::{Class, State};
use crate::membership;
use crate::namespace::{self, Mode, Namespace, Namespaces};
use crate::quorum::Level;
use crate::refusal::Refusal;
use crate::registers;
use crate::rng::Rng;
use crate::time::{Duration, Instant};
use crate::topology;
use crate::trace;
use crate::version::Versions;
use crate::view::Chosen;

/// Replicas of each key.
const REPLICAS: u8 = 3;
/// A healthy core does whatever it is asked within this.
const CORE_DONE_WITHIN: Duration = Duration::secs(30);
/// Links come up, pauses end, and whatever a clog or a pause held back arrives.
const UNDER_WAY: Duration = Duration::secs(30);
/// A dead server is known as dead within this.
const DEAD_KNOWN_WITHIN: Duration = Duration::secs(30);
/// After everything has healed, all are equal within this.
const EQUAL_WITHIN: Duration = Duration::secs(60);
/// Inputs that a node handles within [`STORM_WITHIN`] at most. Several hundred are usual; answers that provoke each
/// other without end soon come to more.
const STORM: u64 = 20_000;
const STORM_WITHIN: Duration = Duration::secs(1);
/// Requests that are open at once, at most; beyond, a step that asks is skipped.
const OPEN_MAX: usize = 64;

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Something happened that must never happen.
    Safety(String),
    /// Something did not happen in time.
    Liveness(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Safety(what) => write!(f, "safety: {what}"),
            Self::Liveness(what) => write!(f, "liveness: {what}"),
        }
    }
}

/// How a run went.
#[derive(Clone, Debug)]
pub struct Report {
    /// The first thing that went wrong, if anything did.
    pub verdict: Result<(), Failure>,
    /// Steps that were done before that.
    pub steps: Vec<Step>,
    /// Inputs that all nodes handled.
    pub inputs: u64,
    /// A hash of everything that happened.
    pub hash: u64,
    /// How often each thing was reached.
    pub reached: BTreeMap<&'static str, u64>,
}

/// Everything that a long run must have reached at least once.
pub const REACHED: [&str; 43] = [
    "acknowledged",
    "unknown",
    "refused",
    "read",
    "siblings",
    "repeated",
    "handed to another owner",
    "repaired",
    "collected",
    "crashed",
    "torn tail cut",
    "lost",
    "cut off",
    "duplicated",
    "clogged",
    "paused",
    "clock set",
    "disk full",
    "sync failed",
    "hidden",
    "slept",
    "suspected",
    "declared dead",
    "refuted",
    "tab came back as another",
    "change begun",
    "change completed",
    "change given up",
    "change refused",
    "outbid",
    "another's value taken over",
    "partition taken over",
    "unseated",
    "autopilot",
    "learning",
    "learner stalled",
    "register changed",
    "register read",
    "condition failed",
    "phase 1 left out",
    "proposer outbid",
    "another proposer asked",
    "registers moved",
];

/// Runs the steps until they end or the nodes have handled `inputs`, then lets the cluster heal, and judges. `watch`
/// sees every step before it is done and what the nodes decide.
pub fn run(
    world: &World,
    steps: impl Iterator<Item = Step>,
    inputs: u64,
    watch: &mut dyn FnMut(Instant, Watched<'_>),
) -> Report {
    run_recorded(world, steps, inputs, false, watch).0
}

/// [`run`], recorded if that is wanted: the recording holds all that the nodes were told.
pub fn run_recorded(
    world: &World,
    steps: impl Iterator<Item = Step>,
    inputs: u64,
    recorded: bool,
    watch: &mut dyn FnMut(Instant, Watched<'_>),
) -> (Report, Option<Vec<u8>>) {
    let mut run = Run::new(world, recorded, watch);
    let verdict = run.all(steps, inputs);
    let hash = run.sim.happened().unwrap_or_default() ^ run.sim.state_hash();
    run.count_faults();
    let recording = run.sim.take_recording();
    (Report { verdict, steps: run.done, inputs: run.sim.inputs(), hash, reached: run.reached }, recording)
}

/// [`run`] for a plan that was written down.
pub fn replay(plan: &Plan, watch: &mut dyn FnMut(Instant, Watched<'_>)) -> Report {
    run(&plan.world, plan.steps.iter().cloned(), u64::MAX, watch)
}

/// What an onlooker sees.
#[derive(Clone, Copy, Debug)]
pub enum Watched<'a> {
    /// A step that is about to be done.
    Step(&'a Step),
    /// What a node decided.
    Event(&'a Event),
    /// A new part of the run.
    Phase(&'a str),
}

struct Run<'w> {
    sim: Sim,
    servers: usize,
    history: History,
    registers: Registers,
    /// How many copies there are of keys, if they are of namespaces.
    copies: Option<u8>,
    /// Whether registers take no conditions and count nothing.
    atomic: bool,
    /// The namespaces, once they are there.
    namespaces: Option<Namespaces>,
    ledger: Ledger,
    epochs: Epochs,
    /// What each client last saw of each key.
    sessions: BTreeMap<(u8, u32), Seen>,
    /// And of each register.
    versions: BTreeMap<(u8, u32), u64>,
    /// Puts by number, to be repeated.
    puts: BTreeMap<u32, Put>,
    open: BTreeMap<RequestId, Asked>,
    /// Places whose journals were damaged on purpose: they must notice and stay down for good.
    damaged: BTreeSet<Place>,
    /// A place that has lost its storage and kept its name: it takes no part any more.
    unseated: Option<Place>,
    /// A journal that is damaged although nobody damaged it.
    unprovoked: Option<Failure>,
    /// When the nodes had handled how many inputs, to notice a storm.
    mark: (Instant, u64),
    done: Vec<Step>,
    reached: BTreeMap<&'static str, u64>,
    watch: &'w mut dyn FnMut(Instant, Watched<'_>),
}

#[derive(Clone)]
struct Put {
    key: u32,
    write: WriteId,
    deletes: bool,
    seen: Option<Seen>,
    client: u8,
    /// Of a register: the change, and a version that was known before it was first asked for.
    change: Change,
    known: u64,
}

/// A request that is not answered yet.
enum Asked {
    Put { key: u32, write: WriteId, seen: Seen, client: u8 },
    Get { key: u32, client: u8, began: usize },
    Register { key: u32, number: usize, client: u8 },
    Change,
}

/// How the namespaces are called, where keys are of some: that of registers, and that of the others.
const NAMESPACES: [&str; 2] = ["registers-apart", "keys-apart"];

impl<'w> Run<'w> {
    fn new(world: &World, recorded: bool, watch: &'w mut dyn FnMut(Instant, Watched<'_>)) -> Self {
        let tune = |config: &mut Config| {
            config.kv.collect_after = world.collect.unwrap_or(Duration::secs(1_000_000));
            config.kv.repair_interval = world.repair;
            let kept = if world.autopilot { Tabs::Always } else { Tabs::Never };
            config.autopilot = AutopilotConfig {
                enabled: world.autopilot,
                tabs: if world.tabs_keep { kept } else { Tabs::Never },
                promote_after: Duration::secs(3),
                replace_after: Duration::secs(10),
                give_up_after: Duration::secs(20),
                learn_first: world.learn,
            };
            if let Some(bootstrap) = &mut config.bootstrap {
                bootstrap.owners = world.owners;
            }
        };
        let (servers, tabs, replicas) = (world.servers, world.tabs, REPLICAS.min(world.servers));
        let mut sim = match recorded {
            true => Sim::recorded(world.seed, servers, tabs, replicas, tune),
            false => Sim::with(world.seed, servers, tabs, replicas, tune),
        };
        sim.hash_what_happens();
        sim.set_level(trace::Level::Decisions);
        sim.through_bytes = world.bytes;
        sim.network.reorder = world.reorder;
        sim.network.delay_max = world.delay;
        for place in 0..sim.len() {
            sim.disk(place).sync_max = world.sync;
            sim.disk(place).lies = world.lies;
        }
        Self {
            sim,
            servers: usize::from(world.servers),
            history: History::new(world.collect.is_some()),
            registers: world.registers,
            copies: world.copies,
            atomic: world.atomic,
            namespaces: None,
            ledger: Ledger::new(world.atomic),
            epochs: Epochs::default(),
            sessions: BTreeMap::new(),
            versions: BTreeMap::new(),
            puts: BTreeMap::new(),
            open: BTreeMap::new(),
            damaged: BTreeSet::new(),
            unseated: None,
            unprovoked: None,
            mark: (Instant(0), 0),
            done: Vec::new(),
            reached: BTreeMap::new(),
            watch,
        }
    }

    fn all(&mut self, steps: impl Iterator<Item = Step>, inputs: u64) -> Result<(), Failure> {
        self.phase("a cluster forms");
        let formed = |sim: &Sim| (0..sim.len()).all(|p| sim.node(p).is_some_and(|node| node.view().chosen.is_some()));
        if !self.until(Duration::secs(20), formed)? {
            return Err(Failure::Liveness("no epoch within 20 s".to_string()));
        }
        if let Some(replicas) = self.copies {
            self.create_namespaces(replicas)?;
        }
        let began = self.sim.now();
        self.phase("steps");
        for step in steps {
            // Before the wait for the next, so that the steps that were done are all that happened.
            if self.sim.inputs() >= inputs {
                break;
            }
            let wait = (began + step.at).since(self.sim.now());
            self.pass(wait)?;
            (self.watch)(self.sim.now(), Watched::Step(&step));
            self.act(&step.action);
            self.done.push(step);
        }
        self.heal_but_one()?;
        self.heal_all()?;
        self.read_everything()
    }

    /// A key as it is called inside the cluster.
    fn name(&self, key: u32) -> Bytes {
        let name = format!("k{key}");
        let Some(table) = &self.namespaces else { return Bytes::from(name.as_str()) };
        let namespace = NAMESPACES[usize::from(!self.registers.contain(key))];
        let inside = table.resolve(namespace::key_in(namespace, name.as_bytes()), Mode::Quorum);
        inside.map_or_else(|_| Bytes::from(name.as_str()), |(inside, _)| inside)
    }

    /// Has the namespaces created, and waits until everybody knows them.
    fn create_namespaces(&mut self, replicas: u8) -> Result<(), Failure> {
        self.phase("namespaces are created");
        let mut table = Namespaces::default();
        let of_registers = if self.atomic { Mode::Atomic } else { Mode::Consensus };
        for (name, mode) in NAMESPACES.into_iter().zip([of_registers, Mode::Quorum]) {
            let namespace = Namespace { mode, replicas };
            table = table.with(name, namespace).map_err(|refusal| Failure::Safety(format!("{name}: {refusal}")))?;
            let known = |sim: &Sim| {
                let knows = |chosen: &Chosen| chosen.config.namespaces.get(name) == Ok(namespace);
                (0..sim.len()).all(|place| sim.node(place).is_some_and(|n| n.view().chosen.as_ref().is_some_and(knows)))
            };
            // Voters may be at another change.
            for _ in 0..120 {
                let steps = [topology::Step::Create { name: name.to_string(), namespace }].to_vec();
                // Whether it is done is seen at the nodes.
                let _ = self.sim.request(0, Op::Topology(topology::Op::Change { steps }));
                if self.until(Duration::millis(500), known)? {
                    break;
                }
            }
            if !known(&self.sim) {
                return Err(Failure::Liveness(format!("not everybody knows the namespace {name}")));
            }
        }
        self.namespaces = Some(table);
        Ok(())
    }

    /// Lets time pass and takes in what happens.
    fn pass(&mut self, span: Duration) -> Result<(), Failure> {
        self.until(span, |_| false).map(drop)
    }

    /// [`Run::pass`] until the condition holds. Returns whether it does.
    fn until(&mut self, span: Duration, mut condition: impl FnMut(&Sim) -> bool) -> Result<bool, Failure> {
        let places = self.sim.len() as u64;
        let (mut since, mut before) = self.mark;
        let mut storm = false;
        let met = self.sim.run_until(span, |sim| {
            if sim.now().since(since) >= STORM_WITHIN {
                (since, before) = (sim.now(), sim.inputs());
            }
            storm = sim.inputs() - before > STORM * places;
            storm || condition(sim)
        });
        self.mark = (since, before);
        self.look()?;
        if storm {
            return Err(Failure::Liveness(format!("a storm: {STORM} inputs a node within {STORM_WITHIN}")));
        }
        bounds::check(&self.sim).map_err(Failure::Safety)?;
        self.epochs.look(&self.sim).map_err(Failure::Safety)?;
        Ok(met)
    }

    fn act(&mut self, action: &Action) {
        let places = self.sim.len();
        let exists = |place: Place| place < places;
        match *action {
            Action::Put { place, key, write, deletes, context } if exists(place) => {
                let (seen, client) = match context {
                    Context::Plain => (None, 0),
                    Context::New => (Some(Seen::default()), 0),
                    Context::Seen(client) => {
                        (Some(self.sessions.get(&(client, key)).cloned().unwrap_or_default()), client)
                    }
                };
                let mut id = [0; 16];
                id[..4].copy_from_slice(&write.to_be_bytes());
                let (change, known) = (self.drawn_change(key, write, deletes, context), self.ledger.known(key));
                let put = Put { key, write: WriteId(id), deletes, seen, client, change, known };
                self.puts.insert(write, put.clone());
                self.put(place, write, &put);
            }
            Action::Again { place, write } if exists(place) => {
                // A write of an atomic register has no name: asked again, it is another one, of the same value.
                let may = |put: &&Put| !(self.atomic && self.registers.contain(put.key));
                if let Some(put) = self.puts.get(&write).filter(may).cloned() {
                    self.reach("repeated");
                    self.put(place, write, &put);
                }
            }
            Action::Get { place, key, client } if exists(place) => self.get(place, key, client),
            Action::Crash(place) if exists(place) => {
                self.reach("crashed");
                self.sim.crash(place);
            }
            Action::Start(place) if exists(place) => self.start(place),
            Action::Power => {
                self.reach("crashed");
                (0..places).for_each(|place| self.sim.crash(place));
                (0..places).for_each(|place| self.start(place));
            }
            Action::Cut(a, b) if exists(a) && exists(b) => self.sim.network.cut(a, b),
            Action::Heal(a, b) if exists(a) && exists(b) => self.sim.network.heal(a, b),
            Action::Mend => self.sim.network.heal_all(),
            Action::Pause(place, span) if exists(place) => {
                self.reach("paused");
                self.sim.pause(place, span);
            }
            Action::Clog(a, b, span) if exists(a) && exists(b) => {
                let until = self.sim.now() + span;
                self.sim.network.clog(a, b, until);
            }
            Action::Slow(a, b, by) if exists(a) && exists(b) => self.sim.network.slow(a, b, by),
            Action::Rate(place, rate) if exists(place) => {
                self.reach("clock set");
                self.sim.set_rate(place, rate);
            }
            Action::Wall(place, by) if exists(place) => {
                self.reach("clock set");
                self.sim.set_wall(place, by.saturating_mul(1_000_000));
            }
            Action::Loss(rate) => self.sim.network.loss_per_mille = rate,
            Action::Duplicate(rate) => self.sim.network.duplicate_per_mille = rate,
            Action::Amnesia(place)
                if exists(place) && self.damaged.is_empty() && self.unseated.is_none() && place < self.servers =>
            {
                self.unseated = Some(place);
                self.epochs.forget(self.sim.id(place));
                self.sim.forget(place);
            }
            Action::Change { place, ref moves } if exists(place) => self.change(place, moves),
            Action::Wipe(place) if exists(place) && self.sim.class(place) == Class::Tab => {
                self.reach("tab came back as another");
                self.sim.wipe(place);
            }
            Action::Fill(place, span) if exists(place) => {
                self.reach("disk full");
                self.sim.fill(place, span);
            }
            Action::Fail(place) if exists(place) => {
                self.reach("sync failed");
                self.sim.disk(place).failing = true;
            }
            Action::Hide(place, span) if exists(place) && self.sim.class(place) == Class::Tab => {
                self.reach("hidden");
                self.sim.hide(place, span);
            }
            Action::Flip(place) if exists(place) => self.damage(place, Disk::flip),
            Action::Misdirect(place) if exists(place) => self.damage(place, Disk::misdirect),
            _ => (),
        }
    }

    fn start(&mut self, place: Place) {
        if self.damaged.contains(&place) {
            return;
        }
        if let Err(error) = self.sim.try_start(place) {
            let what = format!("a crash alone made the journal of place {place} unreadable: {error}");
            self.unprovoked.get_or_insert(Failure::Safety(what));
        }
    }

    /// Damages a journal and restarts its node, which must notice. Beyond what is promised once it hits a second one,
    /// so it never does.
    fn damage(&mut self, place: Place, damage: impl FnOnce(&mut Disk, &mut Rng) -> bool) {
        if !self.damaged.is_empty() || self.unseated.is_some() {
            return;
        }
        self.sim.crash(place);
        let mut rng = self.sim.fork_rng();
        if !damage(self.sim.disk(place), &mut rng) {
            return self.start(place);
        }
        self.damaged.insert(place);
        if self.sim.try_start(place).is_ok() {
            let what = format!("the journal of place {place} was damaged where it is sealed, and that was not noticed");
            self.unprovoked.get_or_insert(Failure::Safety(what));
        }
    }

    fn change(&mut self, place: Place, moves: &[Move]) {
        if self.open.len() >= OPEN_MAX {
            return;
        }
        let places = self.sim.len();
        let id = |place: Place| self.sim.id(place.min(places - 1));
        let steps = moves.iter().map(|step| match *step {
            Move::Join(place) => topology::Step::Add { member: id(place), weight: 1 },
            Move::Leave(place) => topology::Step::Remove { member: id(place) },
            Move::Weigh(place, weight) => topology::Step::Weight { member: id(place), weight },
            Move::GiveUp => topology::Step::GiveUp,
        });
        let steps = steps.collect();
        if let Some(id) = self.sim.request(place, Op::Topology(topology::Op::Change { steps })) {
            self.open.insert(id, Asked::Change);
        }
    }

    /// What a put to a register is, of all that may be asked of one.
    fn drawn_change(&self, key: u32, write: u32, deletes: bool, context: Context) -> Change {
        let value = (!deletes).then_some(i64::from(write));
        match context {
            Context::Plain => Change::Set(value, None),
            Context::New | Context::Seen(_) if self.atomic => Change::Set(value, None),
            Context::New if write.is_multiple_of(4) => Change::Set(value, Some(self.ledger.known(key))),
            Context::New => Change::Add(i64::from(write % 7)),
            Context::Seen(client) => {
                Change::Set(value, Some(self.versions.get(&(client, key)).copied().unwrap_or_default()))
            }
        }
    }

    fn change_register(&mut self, place: Place, write: u32, put: &Put) {
        if self.ledger.is_obscure(put.key) {
            return self.get(place, put.key, put.client);
        }
        let change = match put.change {
            Change::Add(by) => cell::Change::Increment { by },
            Change::Set(value, version) => {
                let when = version.map_or(When::Always, When::Version);
                match value {
                    Some(value) => cell::Change::Put {
                        value: Bytes::from(value.to_string().as_str()),
                        when,
                        expiry: cell::Expiry::Never,
                    },
                    None => cell::Change::Delete { when },
                }
            }
        };
        // Only what may be repeated has a name of its own.
        let name_of = (put.key >= REPEATED).then_some(Name::single(put.write));
        let op =
            registers::Op::Change { key: self.name(put.key), change, name: name_of, seen: put.known, within: None };
        if let Some(id) = self.sim.request(place, Op::Registers(op)) {
            let number = self.ledger.asked(put.key, Call::Change(write, put.change));
            self.open.insert(id, Asked::Register { key: put.key, number, client: put.client });
        }
    }

    fn put(&mut self, place: Place, write: u32, put: &Put) {
        if self.open.len() >= OPEN_MAX || self.unseated == Some(place) {
            // A node without its storage would ask under its old name with old numbers, and take answers of its former
            // life for new ones.
            return;
        }
        if self.registers.contain(put.key) {
            return self.change_register(place, write, put);
        }
        let key = self.name(put.key);
        let op = kv::Op::Put {
            key: key.clone(),
            value: (!put.deletes).then(|| Bytes::from(put.write.to_string().as_str())),
            context: put.seen.as_ref().map_or(WriteContext::Current, |seen| WriteContext::Seen(seen.context.clone())),
            write: Some(put.write),
            stored: Level::Majority,
            within: None,
        };
        if let Some(id) = self.sim.request(place, Op::Kv(op)) {
            self.history.asked(&key, put.write, put.seen.clone(), put.deletes);
            let seen = put.seen.clone().unwrap_or_default();
            self.open.insert(id, Asked::Put { key: put.key, write: put.write, seen, client: put.client });
        }
    }

    fn get(&mut self, place: Place, key: u32, client: u8) {
        if self.open.len() >= OPEN_MAX || self.unseated == Some(place) {
            return;
        }
        self.ask_for(place, key, client, None);
    }

    /// Asks what a key holds.
    fn ask_for(&mut self, place: Place, key: u32, client: u8, within: Option<Duration>) -> Option<RequestId> {
        if self.registers.contain(key) {
            let id = self.sim.request(place, Op::Registers(registers::Op::Get { key: self.name(key), within }))?;
            let number = self.ledger.asked(key, Call::Read);
            self.open.insert(id, Asked::Register { key, number, client });
            return Some(id);
        }
        let op = kv::Op::Get { key: self.name(key), read: Level::Majority, within };
        let began = self.history.now();
        let id = self.sim.request(place, Op::Kv(op))?;
        self.open.insert(id, Asked::Get { key, client, began });
        Some(id)
    }

    /// Takes in what the nodes have told and answered since the last look.
    fn look(&mut self) -> Result<(), Failure> {
        if let Some(failure) = self.unprovoked.take() {
            return Err(failure);
        }
        while let Some(event) = self.sim.next_event() {
            self.notice(&event);
            (self.watch)(self.sim.now(), Watched::Event(&event));
        }
        let answered: Vec<RequestId> = self.open.keys().copied().filter(|&id| self.sim.reply(id).is_some()).collect();
        for id in answered {
            let (Some(asked), Some(reply)) = (self.open.remove(&id), self.sim.take_reply(id)) else { continue };
            match (asked, reply) {
                (
                    Asked::Put { key, write, mut seen, client },
                    Ok(Outcome::Kv(kv::Outcome::Written { dot, context, .. })),
                ) => {
                    self.reach("acknowledged");
                    self.history.acked(&self.name(key), write, dot);
                    seen.context = context;
                    seen.writes.insert(write);
                    self.sessions.insert((client, key), seen);
                }
                (Asked::Get { key, client, began }, Ok(Outcome::Kv(kv::Outcome::Read { versions, .. }))) => {
                    self.reach("read");
                    if versions.values().count() > 1 {
                        self.reach("siblings");
                    }
                    self.judge(key, &versions, began)?;
                    let writes = versions.siblings().iter().map(|sibling| sibling.write).collect();
                    self.sessions.insert((client, key), Seen { context: versions.to_context(), writes });
                }
                (Asked::Register { key, number, client }, Ok(Outcome::Registers(outcome))) => {
                    let answer = self.register_answer(outcome)?;
                    if let Answer::Holds(_, version) | Answer::Changed(version, _) = answer {
                        self.versions.insert((client, key), version);
                    }
                    self.ledger.answered(key, number, answer);
                }
                (Asked::Register { key, number, .. }, Err(Refusal::Conflict { version })) => {
                    self.reach("condition failed");
                    self.ledger.answered(key, number, Answer::Conflict(version));
                }
                (Asked::Change, Ok(Outcome::Topology(_))) => (),
                (Asked::Change, Err(refusal)) if refusal.is_definite() => self.reach("change refused"),
                (asked, Err(refusal)) if refusal.is_definite() => {
                    self.reach("refused");
                    match asked {
                        Asked::Put { key, write, .. } => self.history.refused(&self.name(key), write),
                        Asked::Register { key, number, .. } => self.ledger.refused(key, number),
                        Asked::Get { .. } | Asked::Change => (),
                    }
                }
                (_, Err(_)) => self.reach("unknown"),
                (_, Ok(outcome)) => return Err(Failure::Safety(format!("an answer to another question: {outcome:?}"))),
            }
        }
        Ok(())
    }

    fn register_answer(&mut self, outcome: registers::Outcome) -> Result<Answer, Failure> {
        let number = |value: &Bytes| core::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        match outcome {
            registers::Outcome::Changed { version, number, .. } => {
                self.reach("register changed");
                Ok(Answer::Changed(version, number))
            }
            registers::Outcome::Listed { .. } | registers::Outcome::Watched { .. } => {
                Err(Failure::Safety("an answer to another question".to_string()))
            }
            registers::Outcome::Read { value: None, version, .. } => {
                self.reach("register read");
                Ok(Answer::Holds(None, version))
            }
            registers::Outcome::Read { value: Some(value), version, .. } => {
                self.reach("register read");
                let value = number(&value).ok_or_else(|| Failure::Safety(format!("nobody wrote {value:?}")))?;
                Ok(Answer::Holds(Some(value), version))
            }
        }
    }

    fn judge(&mut self, key: u32, versions: &Versions, began: usize) -> Result<(), Failure> {
        let verdict = self.history.check_read_since(&self.name(key), versions, began);
        verdict.map_err(|violation| Failure::Safety(violation.to_string()))
    }

    fn notice(&mut self, event: &Event) {
        let what = match &event.kind {
            EventKind::Slept { .. } => "slept",
            EventKind::Kv(kv::Event::Repaired { .. }) => "repaired",
            EventKind::Kv(kv::Event::Handed { attempt: 2.., .. }) => "handed to another owner",
            EventKind::Kv(kv::Event::Collected { .. }) => "collected",
            EventKind::Kv(kv::Event::TookOver { .. }) => "partition taken over",
            EventKind::Registers(registers::Event::Proposed { at_once: true, .. }) => "phase 1 left out",
            EventKind::Registers(registers::Event::Outbid { .. }) => "proposer outbid",
            EventKind::Registers(registers::Event::Moved { keys: 1.., .. }) => "registers moved",
            EventKind::Registers(registers::Event::Asked { attempt: 2.., .. }) => "another proposer asked",
            EventKind::Topology(topology::Event::Outbid { .. }) => "outbid",
            EventKind::Topology(topology::Event::Proposed { inherited: true, .. }) => "another's value taken over",
            EventKind::Topology(topology::Event::Unseated { .. }) => "unseated",
            EventKind::Topology(topology::Event::Autopilot { .. }) => "autopilot",
            EventKind::Topology(topology::Event::Learning { .. }) => "learning",
            EventKind::Topology(topology::Event::Stalled { .. }) => "learner stalled",
            EventKind::Membership(membership::Event::Refuted { .. }) => "refuted",
            EventKind::Membership(membership::Event::Changed(member)) if member.state == State::Suspect => "suspected",
            EventKind::Membership(membership::Event::Changed(member)) if member.state == State::Dead => "declared dead",
            _ => return,
        };
        self.reach(what);
    }

    fn reach(&mut self, what: &'static str) {
        *self.reached.entry(what).or_default() += 1;
    }

    fn count_faults(&mut self) {
        let tally = self.sim.network.tally;
        let torn = (0..self.sim.len()).map(|place| self.sim.disk(place).torn).sum();
        let counts = [
            ("change begun", self.epochs.begun()),
            ("change completed", self.epochs.completed()),
            ("change given up", self.epochs.given_up()),
            ("lost", tally.lost),
            ("cut off", tally.cut),
            ("duplicated", tally.duplicated),
            ("clogged", tally.clogged),
            ("torn tail cut", torn),
        ];
        for (what, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            *self.reached.entry(what).or_default() += count;
        }
    }

    fn phase(&mut self, what: &str) {
        (self.watch)(self.sim.now(), Watched::Phase(what));
    }

    /// One server stays down, all else heals. What is left is a majority of every key's owners, and must work.
    fn heal_but_one(&mut self) -> Result<(), Failure> {
        self.phase("one server is down, all else is healthy");
        self.look()?;
        self.sim.network.heal_all();
        for place in 0..self.sim.len() {
            self.sim.disk(place).failing = false;
            self.sim.make_room(place);
        }
        let lost = self.damaged.first().copied().or(self.unseated);
        let any = self.done.len() % self.servers;
        let spared = if self.is_only_relay(any) { (any + 1) % self.servers } else { any };
        let down = lost.unwrap_or(spared);
        let serves = !self.is_only_relay(down);
        self.sim.crash(down);
        for place in (0..self.sim.len()).filter(|&place| place != down) {
            self.sim.set_rate(place, 1_000);
            self.start(place);
        }
        self.pass(UNDER_WAY)?;
        let keys: Vec<u32> = self.keys().into_iter().take(if serves { 8 } else { 0 }).collect();
        let mut asked: Vec<(u32, Place, RequestId)> = Vec::new();
        for (n, &key) in keys.iter().enumerate() {
            let place = (down + 1 + n % (self.servers - 1)) % self.servers;
            if let Some(id) = self.ask_for(place, key, 0, Some(CORE_DONE_WITHIN)) {
                asked.push((key, place, id));
            }
        }
        let ids: Vec<RequestId> = asked.iter().map(|(.., id)| *id).collect();
        self.sim.run_until(CORE_DONE_WITHIN, |sim| ids.iter().all(|&id| sim.reply(id).is_some()));
        for (key, place, id) in asked {
            if !matches!(self.sim.reply(id), Some(Ok(_))) {
                let answer = self.sim.reply(id).map(|reply| reply.clone().map(drop));
                return Err(Failure::Liveness(format!(
                    "a healthy core does not serve k{key} at place {place}: {answer:?}"
                )));
            }
        }
        self.look()?;
        self.dead_is_known(down)
    }

    /// Whether tabs own, and this is the only server that passes on what they say: without it nobody reaches them.
    fn is_only_relay(&self, place: Place) -> bool {
        let configs = (0..self.sim.len()).filter_map(|place| self.sim.node(place)?.view().config());
        configs.max_by_key(|config| config.epoch).is_some_and(|config| {
            let seats = || config.rosters().flat_map(|roster| &roster.storage);
            let mut relays = seats().filter(|(_, seat)| seat.class == Class::Server).map(|(node, _)| *node);
            seats().any(|(_, seat)| seat.class == Class::Tab) && relays.all(|relay| relay == self.sim.id(place))
        })
    }

    fn dead_is_known(&mut self, down: Place) -> Result<(), Failure> {
        let gone = self.sim.id(down);
        let knows = |sim: &Sim, place: Place| {
            let member = sim.node(place).and_then(|node| node.view().members.get(&gone));
            member.is_none_or(|member| matches!(member.state, State::Dead | State::Left))
        };
        let others: Vec<Place> = (0..self.sim.len()).filter(|&place| place != down).collect();
        if !self.until(DEAD_KNOWN_WITHIN, |sim| others.iter().all(|&place| knows(sim, place)))? {
            return Err(Failure::Liveness(format!("not everybody knows that place {down} is dead")));
        }
        // And it stays so.
        self.pass(Duration::secs(5))?;
        if !others.iter().all(|&place| knows(&self.sim, place)) {
            return Err(Failure::Safety(format!("somebody believes again that place {down} is alive")));
        }
        Ok(())
    }

    fn heal_all(&mut self) -> Result<(), Failure> {
        self.phase("all is healthy");
        self.look()?;
        (0..self.sim.len()).for_each(|place| self.sim.set_rate(place, 1_000));
        (0..self.sim.len()).for_each(|place| self.start(place));
        let mut equal = converge::agree(&self.sim, self.unseated);
        for second in 0..EQUAL_WITHIN.as_millis() / 1_000 {
            if equal.is_ok() {
                break;
            }
            // A change to a member that has lost its storage since may lack the votes for ever. Where no autopilot gives
            // it up, its operator has to.
            if let (20, Some(lost)) = (second, self.unseated) {
                for place in (0..self.servers).filter(|&place| place != lost) {
                    let steps = [topology::Step::GiveUp].to_vec();
                    // Nobody waits for the answer.
                    let _ = self.sim.request(place, Op::Topology(topology::Op::Change { steps }));
                }
            }
            self.pass(Duration::secs(1))?;
            equal = converge::agree(&self.sim, self.unseated);
        }
        equal.map_err(Failure::Liveness)
    }

    fn read_everything(&mut self) -> Result<(), Failure> {
        self.phase("everything is read once more");
        self.look()?;
        let lost = |place: &Place| self.damaged.contains(place) || self.unseated == Some(*place);
        let place = (0..self.servers).find(|place| !lost(place)).unwrap_or_default();
        for key in self.keys() {
            let Some(id) = self.ask_for(place, key, 0, Some(CORE_DONE_WITHIN)) else { continue };
            self.sim.run_until(CORE_DONE_WITHIN, |sim| sim.reply(id).is_some());
            if !matches!(self.sim.reply(id), Some(Ok(_))) {
                let answer = self.sim.reply(id).map(|reply| reply.clone().map(drop));
                return Err(Failure::Liveness(format!("k{key} cannot be read: {answer:?}")));
            }
            self.look()?;
        }
        self.ledger.judge().map_err(Failure::Safety)
    }

    fn keys(&self) -> BTreeSet<u32> {
        self.puts.values().map(|put| put.key).collect()
    }
}

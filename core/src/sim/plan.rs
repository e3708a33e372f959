//! What a run is made of: a cluster, its surroundings, and a list of steps with their times.
//!
//! It is drawn from one seed (`drawer.rs`). It is also text, one step a line, so that a failing run can be shrunk, read,
//! and kept as a test:
//!
//! ```text
//!   seed 17 / servers 6 / owners 4 / tabs 2 / tabs keep / autopilot / learn / delay 60ms / sync 20ms / registers odd / copies 4 / atomic / reorder / bytes / collect 6s / repair 1s
//!   1204ms put 2 k3 #5 plain            at place 2, key k3, write 5: supersedes what is there
//!   1300ms delete 0 k3 #6 new           supersedes nothing
//!   1301ms put 0 k3 #7 seen 1           supersedes what client 1 last saw of the key
//!   1400ms get 1 k3 1                   for client 1
//!   1500ms again 3 #5                   write 5 once more, at place 3
//!   2000ms crash 1 / start 1 / power / cut 0 1 / heal 0 1 / mend / pause 2 3000ms / clog 0 2 1500ms
//!   2500ms slow 0 1 80ms / rate 2 900 / wall 2 -3600s / loss 100 / duplicate 50 / wipe 5
//!   2550ms change 0 +4 -1 2*3          asks place 0 that 4 joins, 1 leaves, and 2 gets weight 3; `abort` gives up
//!   2600ms amnesia 3                    place 3 loses its storage and keeps its name
//!   2600ms fill 0 3000ms / fail 0 / hide 5 60000ms / flip 1 / misdirect 1
//! ```

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use crate::limits;
use crate::time::Duration;

/// A cluster, its surroundings, and what happens to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What stays as it is.
    pub world: World,
    /// What happens, in the order of times.
    pub steps: Vec<Step>,
}

/// What stays as it is during a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    /// Of the nodes, the network and the disks.
    pub seed: u64,
    /// Servers; places 0, 1, ….
    pub servers: u8,
    /// How many of the servers own data from the start.
    pub owners: u8,
    /// Tabs; the places behind the servers.
    pub tabs: u8,
    /// Whether voters change the configuration by themselves, and soon.
    pub autopilot: bool,
    /// Whether members that are to own learn before a change begins.
    pub learn: bool,
    /// Whether tabs may own data too: where none of them loses its storage.
    pub tabs_keep: bool,
    /// Messages take less than this.
    pub delay: Duration,
    /// Syncs take less than this.
    pub sync: Duration,
    /// Which keys are registers.
    pub registers: Registers,
    /// If set, all keys are of namespaces with so many copies.
    pub copies: Option<u8>,
    /// Whether registers are of a namespace of mode atomic; only where keys are of namespaces.
    pub atomic: bool,
    /// Whether messages overtake each other.
    pub reorder: bool,
    /// Whether messages travel as bytes.
    pub bytes: bool,
    /// Whether disks say *durable* too early, which nothing can survive.
    pub lies: bool,
    /// If set, deletes are collected after so long; else never.
    pub collect: Option<Duration>,
    /// How often owners compare.
    pub repair: Duration,
}

/// Which keys are registers: what is put to them, got and deleted is put, got and deleted there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registers {
    /// None.
    None,
    /// Every other one.
    Odd,
    /// All.
    All,
}

impl Registers {
    /// Whether a key is one.
    #[must_use]
    pub fn contain(self, key: u32) -> bool {
        match self {
            Self::None => false,
            Self::Odd => key % 2 == 1,
            Self::All => true,
        }
    }
}

/// One thing that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Since the cluster had its first epoch.
    pub at: Duration,
    /// What.
    pub action: Action,
}

/// A place, by number.
pub type Place = usize;

/// What a write supersedes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// What a quorum read sees.
    Plain,
    /// Nothing.
    New,
    /// What this client last saw of the key.
    Seen(u8),
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the module's header shows each with its fields")]
pub enum Action {
    Put {
        place: Place,
        key: u32,
        write: u32,
        deletes: bool,
        context: Context,
    },
    Get {
        place: Place,
        key: u32,
        client: u8,
    },
    Again {
        place: Place,
        write: u32,
    },
    Crash(Place),
    Start(Place),
    Power,
    Cut(Place, Place),
    Heal(Place, Place),
    Mend,
    Pause(Place, Duration),
    Clog(Place, Place, Duration),
    Slow(Place, Place, Duration),
    Rate(Place, u64),
    /// Seconds by which the wall clock is set.
    Wall(Place, i64),
    Loss(u32),
    Duplicate(u32),
    Wipe(Place),
    Amnesia(Place),
    Change {
        place: Place,
        moves: Vec<Move>,
    },
    Fill(Place, Duration),
    Fail(Place),
    Hide(Place, Duration),
    Flip(Place),
    Misdirect(Place),
}

/// A wish for the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the module's header shows each")]
pub enum Move {
    Join(Place),
    Leave(Place),
    Weigh(Place, u32),
    GiveUp,
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}", self.seed)?;
        writeln!(f, "servers {}", self.servers)?;
        if self.owners != self.servers {
            writeln!(f, "owners {}", self.owners)?;
        }
        writeln!(f, "tabs {}", self.tabs)?;
        if self.autopilot {
            writeln!(f, "autopilot")?;
        }
        if self.learn {
            writeln!(f, "learn")?;
        }
        if self.tabs_keep {
            writeln!(f, "tabs keep")?;
        }
        writeln!(f, "delay {}", Millis(self.delay))?;
        writeln!(f, "sync {}", Millis(self.sync))?;
        writeln!(f, "repair {}", Millis(self.repair))?;
        if let Some(after) = self.collect {
            writeln!(f, "collect {}", Millis(after))?;
        }
        match self.registers {
            Registers::None => (),
            Registers::Odd => writeln!(f, "registers odd")?,
            Registers::All => writeln!(f, "registers all")?,
        }
        if let Some(copies) = self.copies {
            writeln!(f, "copies {copies}")?;
        }
        if self.atomic {
            writeln!(f, "atomic")?;
        }
        if self.reorder {
            writeln!(f, "reorder")?;
        }
        if self.bytes {
            writeln!(f, "bytes")?;
        }
        if self.lies {
            writeln!(f, "lies")?;
        }
        Ok(())
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.world, f)?;
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}us {}", self.at.0, self.action)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put { place, key, write, deletes, context } => {
                let verb = if *deletes { "delete" } else { "put" };
                write!(f, "{verb} {place} k{key} #{write} ")?;
                match context {
                    Context::Plain => f.write_str("plain"),
                    Context::New => f.write_str("new"),
                    Context::Seen(client) => write!(f, "seen {client}"),
                }
            }
            Self::Get { place, key, client } => write!(f, "get {place} k{key} {client}"),
            Self::Again { place, write } => write!(f, "again {place} #{write}"),
            Self::Crash(place) => write!(f, "crash {place}"),
            Self::Start(place) => write!(f, "start {place}"),
            Self::Power => f.write_str("power"),
            Self::Cut(a, b) => write!(f, "cut {a} {b}"),
            Self::Heal(a, b) => write!(f, "heal {a} {b}"),
            Self::Mend => f.write_str("mend"),
            Self::Pause(place, span) => write!(f, "pause {place} {}", Millis(*span)),
            Self::Clog(a, b, span) => write!(f, "clog {a} {b} {}", Millis(*span)),
            Self::Slow(a, b, span) => write!(f, "slow {a} {b} {}", Millis(*span)),
            Self::Rate(place, rate) => write!(f, "rate {place} {rate}"),
            Self::Wall(place, by) => write!(f, "wall {place} {by}s"),
            Self::Loss(rate) => write!(f, "loss {rate}"),
            Self::Duplicate(rate) => write!(f, "duplicate {rate}"),
            Self::Wipe(place) => write!(f, "wipe {place}"),
            Self::Amnesia(place) => write!(f, "amnesia {place}"),
            Self::Change { place, moves } => {
                write!(f, "change {place}")?;
                moves.iter().try_for_each(|step| match step {
                    Move::Join(place) => write!(f, " +{place}"),
                    Move::Leave(place) => write!(f, " -{place}"),
                    Move::Weigh(place, weight) => write!(f, " {place}*{weight}"),
                    Move::GiveUp => f.write_str(" abort"),
                })
            }
            Self::Fill(place, span) => write!(f, "fill {place} {}", Millis(*span)),
            Self::Fail(place) => write!(f, "fail {place}"),
            Self::Hide(place, span) => write!(f, "hide {place} {}", Millis(*span)),
            Self::Flip(place) => write!(f, "flip {place}"),
            Self::Misdirect(place) => write!(f, "misdirect {place}"),
        }
    }
}

struct Millis(Duration);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0.as_millis())
    }
}

/// A line that is no step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanError {
    /// Counted from 1.
    pub line: usize,
    /// What is there.
    pub what: String,
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: not understood: {}", self.line, self.what)
    }
}

impl core::error::Error for PlanError {}

impl FromStr for Plan {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        let world = World {
            seed: 1,
            servers: 3,
            owners: 0,
            autopilot: false,
            learn: false,
            tabs_keep: false,
            tabs: 0,
            delay: Duration::millis(2),
            sync: Duration::millis(1),
            registers: Registers::None,
            copies: None,
            atomic: false,
            reorder: false,
            bytes: false,
            lies: false,
            collect: None,
            repair: Duration::secs(5),
        };
        let mut plan = Self { world, steps: Vec::new() };
        for (index, line) in text.lines().enumerate() {
            let words: Vec<&str> = line.split("//").next().unwrap_or_default().split_whitespace().collect();
            plan.line(&words).ok_or_else(|| PlanError { line: index + 1, what: line.to_string() })?;
        }
        let world = &mut plan.world;
        if !(SERVERS_MIN..=world.servers).contains(&world.owners) {
            world.owners = world.servers;
        }
        Ok(plan)
    }
}

/// Places that a plan may name; more than any world has.
const PLACES_MAX: u8 = 16;
/// Servers that a plan needs: a run ends with one of them down, and the others must be a majority.
const SERVERS_MIN: u8 = 3;

impl Plan {
    fn line(&mut self, words: &[&str]) -> Option<()> {
        let world = &mut self.world;
        match words {
            [] => (),
            ["seed", n] => world.seed = n.parse().ok()?,
            ["servers", n] => world.servers = n.parse().ok().filter(|n| (SERVERS_MIN..=PLACES_MAX / 2).contains(n))?,
            ["owners", n] => world.owners = n.parse().ok()?,
            ["tabs", "keep"] => world.tabs_keep = true,
            ["autopilot"] => world.autopilot = true,
            ["learn"] => world.learn = true,
            ["tabs", n] => world.tabs = n.parse().ok().filter(|&n| n <= PLACES_MAX / 2)?,
            ["delay", span] => world.delay = millis(span)?,
            ["sync", span] => world.sync = millis(span)?,
            ["repair", span] => world.repair = millis(span).filter(|&span| span > Duration::ZERO)?,
            ["collect", span] => world.collect = Some(millis(span)?),
            ["registers", "odd"] => world.registers = Registers::Odd,
            ["registers", "all"] => world.registers = Registers::All,
            ["copies", n] => world.copies = Some(n.parse().ok().filter(|n| (1..=limits::REPLICAS).contains(n))?),
            ["atomic"] => world.atomic = true,
            ["reorder"] => world.reorder = true,
            ["bytes"] => world.bytes = true,
            ["lies"] => world.lies = true,
            [at, rest @ ..] => {
                let at = match at.strip_suffix("us") {
                    Some(micros) => Duration(micros.parse().ok()?),
                    None => millis(at)?,
                };
                let action = action(rest)?;
                self.steps.push(Step { at, action });
            }
        }
        Some(())
    }
}

fn action(words: &[&str]) -> Option<Action> {
    Some(match *words {
        [verb @ ("put" | "delete"), place, key, write, ref context @ ..] => {
            let context = match *context {
                ["plain"] => Context::Plain,
                ["new"] => Context::New,
                ["seen", client] => Context::Seen(client.parse().ok()?),
                _ => return None,
            };
            let (key, write) = (tagged('k', key)?, tagged('#', write)?);
            Action::Put { place: at(place)?, key, write, deletes: verb == "delete", context }
        }
        ["get", place, key, client] => {
            Action::Get { place: at(place)?, key: tagged('k', key)?, client: client.parse().ok()? }
        }
        ["again", place, write] => Action::Again { place: at(place)?, write: tagged('#', write)? },
        ["crash", place] => Action::Crash(at(place)?),
        ["start", place] => Action::Start(at(place)?),
        ["power"] => Action::Power,
        ["cut", a, b] => Action::Cut(at(a)?, at(b)?),
        ["heal", a, b] => Action::Heal(at(a)?, at(b)?),
        ["mend"] => Action::Mend,
        ["pause", place, span] => Action::Pause(at(place)?, millis(span)?),
        ["clog", a, b, span] => Action::Clog(at(a)?, at(b)?, millis(span)?),
        ["slow", a, b, span] => Action::Slow(at(a)?, at(b)?, millis(span)?),
        ["rate", place, rate] => {
            Action::Rate(at(place)?, rate.parse().ok().filter(|rate| (1..=100_000).contains(rate))?)
        }
        ["wall", place, by] => Action::Wall(at(place)?, by.strip_suffix('s')?.parse().ok()?),
        ["loss", rate] => Action::Loss(rate.parse().ok().filter(|&rate| rate <= 1_000)?),
        ["duplicate", rate] => Action::Duplicate(rate.parse().ok().filter(|&rate| rate <= 1_000)?),
        ["wipe", place] => Action::Wipe(at(place)?),
        ["amnesia", place] => Action::Amnesia(at(place)?),
        ["change", place, ref moves @ ..] => {
            let moves = moves.iter().map(|step| wish(step)).collect::<Option<Vec<Move>>>()?;
            Action::Change { place: at(place)?, moves }
        }
        ["fill", place, span] => Action::Fill(at(place)?, millis(span)?),
        ["fail", place] => Action::Fail(at(place)?),
        ["hide", place, span] => Action::Hide(at(place)?, millis(span)?),
        ["flip", place] => Action::Flip(at(place)?),
        ["misdirect", place] => Action::Misdirect(at(place)?),
        _ => return None,
    })
}

fn wish(text: &str) -> Option<Move> {
    if text == "abort" {
        return Some(Move::GiveUp);
    }
    if let Some(place) = text.strip_prefix('+') {
        return at(place).map(Move::Join);
    }
    if let Some(place) = text.strip_prefix('-') {
        return at(place).map(Move::Leave);
    }
    let (place, weight) = text.split_once('*')?;
    Some(Move::Weigh(at(place)?, weight.parse().ok()?))
}

fn at(place: &str) -> Option<Place> {
    place.parse().ok().filter(|&place| place < usize::from(PLACES_MAX))
}

fn tagged(tag: char, text: &str) -> Option<u32> {
    text.strip_prefix(tag)?.parse().ok()
}

fn millis(text: &str) -> Option<Duration> {
    let n: u64 = text.strip_suffix("ms")?.parse().ok()?;
    (n <= 1_000_000_000).then_some(Duration::millis(n))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::drawer::Drawer;

    #[test]
    fn a_plan_reads_back_as_it_was_written() {
        for seed in 0..200 {
            let mut drawer = Drawer::new(seed, true);
            let steps = drawer.by_ref().take(500).collect();
            let plan = Plan { world: drawer.world, steps };
            assert_eq!(plan.to_string().parse(), Ok(plan), "seed {seed}");
        }
    }

    #[test]
    fn a_line_that_is_no_step_is_named() {
        let error = "seed 1\n5ms fly 1".parse::<Plan>().expect_err("no such step");
        assert_eq!(error.to_string(), "line 2: not understood: 5ms fly 1");
        for bad in ["5ms put 1 k1 #1", "5ms crash 99", "5ms loss 1001", "tabs 200", "servers 2", "x", "5 power"] {
            assert!(bad.parse::<Plan>().is_err(), "{bad}");
        }
    }
}

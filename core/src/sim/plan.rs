//! What a run is made of: a cluster, its surroundings, and a list of steps with their times.
//!
//! A [`Drawer`] draws all of it from one seed, *swarm* style (Groce et al., "Swarm testing", 2012): each kind of fault
//! is switched off in half of the seeds, for a run with all of them at once hides what only one of them provokes.
//! A plan is also text, one step a line, so that a failing run can be shrunk, read, and kept as a test:
//!
//! ```text
//!   seed 17 / servers 6 / owners 4 / tabs 2 / tabs keep / autopilot / learn / delay 60ms / sync 20ms / reorder / bytes / collect 6s / repair 1s
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

use alloc::collections::VecDeque;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use crate::limits;
use crate::rng::Rng;
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

/// The kinds of trouble that a seed can switch on, with how often each comes in a thousand steps.
const TROUBLES: [(&str, u64); 18] = [
    ("crash", 30),
    ("power", 3),
    ("cut", 30),
    ("island", 10),
    ("pause", 12),
    ("clog", 15),
    ("slow", 10),
    ("rate", 8),
    ("wall", 8),
    ("loss", 10),
    ("duplicate", 10),
    ("wipe", 10),
    ("fill", 10),
    ("fail", 10),
    ("hide", 10),
    ("echo", 6),
    ("churn", 20),
    ("amnesia", 1),
];

/// Draws a world and then steps without end, all from one seed.
#[derive(Clone, Debug)]
pub struct Drawer {
    /// The world that was drawn.
    pub world: World,
    /// The kinds of trouble that are on.
    pub troubles: Vec<&'static str>,
    rng: Rng,
    at: Duration,
    /// The usual time between two steps.
    gap: Duration,
    keys: u64,
    deletes_per_mille: u32,
    writes: u32,
    /// A key that is written few enough times to remember all its writes, and how many times yet.
    repeated: (u32, usize),
    /// Recent writes of such keys, with their times.
    recent: Vec<(u32, Duration)>,
    /// Whether members come and go all the time.
    churning: bool,
    down: Vec<Place>,
    /// What follows before anything else is drawn, with the time before each.
    coming: VecDeque<(Duration, Action)>,
}

/// Keys from here on are written at most as often as a key remembers, and their writes are repeated.
pub const REPEATED: u32 = 1_000;
/// A write is repeated within this time. Together with the longest that a copy is under way it is well below the time
/// after which deletes are collected.
const REPEAT_WITHIN: Duration = Duration::secs(1);
/// Rates of clocks, in thousandths. Where deletes are collected, an operation must end before that by the slowest clock
/// as seen by the fastest: the promise holds for clocks of which none runs twice as fast as another.
const RATES: core::ops::Range<u64> = 500..2_000;
const RATES_WITH_COLLECTION: core::ops::Range<u64> = 720..1_400;
/// Clients.
const CLIENTS: u64 = 4;

/// Whether owners change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Churn {
    Drawn,
    Always,
    Never,
}

impl Drawer {
    /// Draws a world. `beyond` adds what the cluster does not promise to survive.
    #[must_use]
    pub fn new(seed: u64, beyond: bool) -> Self {
        Self::drawn(seed, beyond, Churn::Drawn)
    }

    /// Draws a world whose members come and go all the time, in half of the seeds without any other trouble.
    #[must_use]
    pub fn churning(seed: u64) -> Self {
        Self::drawn(seed, false, Churn::Always)
    }

    /// Draws a world whose owners stay.
    #[must_use]
    pub fn steady(seed: u64) -> Self {
        Self::drawn(seed, false, Churn::Never)
    }

    fn drawn(seed: u64, beyond: bool, churn: Churn) -> Self {
        let churning = churn == Churn::Always;
        let mut rng = Rng::new(seed ^ 0x5eed_0f5e_ed5e);
        let collect = rng.chance(500).then_some(Duration::secs(6));
        let servers = 3 + rng.below(3) as u8;
        let mut world = World {
            seed,
            servers,
            owners: servers,
            autopilot: false,
            learn: false,
            tabs_keep: false,
            tabs: rng.below(3) as u8,
            delay: if rng.chance(500) { Duration::millis(5 + rng.below(60)) } else { Duration::millis(2) },
            sync: Duration::millis(1 + rng.below(20)),
            reorder: rng.chance(500),
            bytes: rng.chance(125),
            lies: false,
            collect,
            repair: Duration::secs(if collect.is_some() { 1 } else { 5 }),
        };
        let mut troubles: Vec<&str> = Vec::new();
        for (name, _) in TROUBLES {
            if rng.chance(500) {
                troubles.push(name);
            }
        }
        if beyond {
            troubles.push("flip");
        }
        // In some seeds nothing else happens, on slow disks or on fast ones: the moments in which an epoch can
        // go wrong are short, and differ.
        let only_churn = rng.chance(if churning { 500 } else { 125 }) && churn != Churn::Never;
        if churn == Churn::Never {
            troubles.retain(|&kind| kind != "churn");
        }
        if churning && !troubles.contains(&"churn") {
            troubles.push("churn");
        }
        if only_churn {
            troubles = alloc::vec!["churn"];
            let slow = rng.chance(500);
            world.delay = Duration::millis(2 + rng.below(if slow { 60 } else { 3 }));
            world.sync = Duration::millis(1 + rng.below(if slow { 220 } else { 4 }));
            world.owners = 5;
        }
        if troubles.contains(&"churn") {
            world.owners += rng.below(2) as u8;
            world.servers = world.owners + 1 + rng.below(2) as u8;
            world.autopilot = rng.chance(500);
            world.learn = rng.chance(500);
            world.tabs_keep = !troubles.contains(&"wipe");
        }
        Self {
            gap: Duration::millis(20 + rng.below(300)),
            keys: 1 + rng.below(12),
            deletes_per_mille: if rng.chance(500) { 400 } else { 100 },
            world,
            troubles,
            rng,
            at: Duration::ZERO,
            writes: 0,
            repeated: (REPEATED, 0),
            recent: Vec::new(),
            churning: churning || only_churn,
            down: Vec::new(),
            coming: VecDeque::new(),
        }
    }

    fn place(&mut self) -> Place {
        self.rng.below(u64::from(self.world.servers + self.world.tabs)) as Place
    }

    fn server(&mut self) -> Place {
        self.rng.below(u64::from(self.world.servers)) as Place
    }

    fn span(&mut self, millis: u64) -> Duration {
        Duration::millis(1 + self.rng.below(millis))
    }

    fn trouble(&mut self, kind: &str) -> Action {
        match kind {
            "crash" | "fail" => {
                if let Some(place) = self.down.pop() {
                    // Somebody is waiting for it.
                    let key = self.rng.below(self.keys) as u32;
                    self.writes += 1;
                    let (write, context) = (self.writes, Context::New);
                    let put = Action::Put { place, key, write, deletes: false, context };
                    let wait = Duration(self.rng.below(200_000));
                    self.coming.push_back((wait, put));
                    return Action::Start(place);
                }
                let place = self.place();
                self.down.push(place);
                if kind == "crash" { Action::Crash(place) } else { Action::Fail(place) }
            }
            "power" => {
                self.down.clear();
                Action::Power
            }
            "cut" if self.rng.chance(500) => Action::Cut(self.place(), self.place()),
            "cut" if self.rng.chance(300) => Action::Mend,
            "cut" => Action::Heal(self.place(), self.place()),
            // Long enough to be declared dead, and to be greeted again.
            "island" => Action::Pause(self.server(), Duration::secs(5 + self.rng.below(20))),
            "pause" => Action::Pause(self.place(), self.span(3_000)),
            "clog" => Action::Clog(self.place(), self.place(), self.span(20_000)),
            "slow" => Action::Slow(self.place(), self.place(), self.span(200)),
            // Now and then a clock stands as good as still.
            "rate" if self.world.collect.is_none() && self.rng.chance(100) => Action::Rate(self.place(), 1),
            "rate" => {
                let rates = if self.world.collect.is_some() { RATES_WITH_COLLECTION } else { RATES };
                Action::Rate(self.place(), rates.start + self.rng.below(rates.end - rates.start))
            }
            "wall" => Action::Wall(self.place(), self.rng.below(63_072_000) as i64 - 31_536_000),
            "loss" => Action::Loss(self.rng.below(300) as u32),
            "duplicate" => Action::Duplicate(self.rng.below(500) as u32),
            "wipe" if self.world.tabs > 0 => {
                Action::Wipe(usize::from(self.world.servers) + self.rng.below(u64::from(self.world.tabs)) as Place)
            }
            "churn" if self.rng.chance(150) => self.duel(),
            "churn" if self.rng.chance(80) => self.split(),
            "churn" if self.rng.chance(120) => self.forget_all(),
            "churn" if self.rng.chance(250) => self.straggle(),
            "churn" if self.rng.chance(150) => self.miss_a_change(),
            "churn" => self.change(),
            "amnesia" => Action::Amnesia(self.server()),
            "fill" if self.rng.chance(300) => self.fill_all(),
            "fill" => Action::Fill(self.place(), self.span(20_000)),
            "hide" => Action::Hide(self.place(), self.span(60_000)),
            "echo" => self.echo(),
            "flip" if self.rng.chance(500) => Action::Misdirect(self.server()),
            "flip" => Action::Flip(self.server()),
            _ => Action::Mend,
        }
    }

    /// A late copy of a superseded write, where chance alone would seldom lead: a client reads a write that has reached
    /// one owner and supersedes it through another, while the first stands still; a third is then asked to do the first
    /// write again.
    fn echo(&mut self) -> Action {
        let servers = u64::from(self.world.servers);
        let first = self.rng.below(servers);
        let [first, second, third] = [0, 1, 2].map(|n| ((first + n) % servers) as Place);
        let (key, client) = (self.repeated_key(), self.rng.below(CLIENTS) as u8);
        self.repeated_key();
        let (old, new) = (self.writes + 1, self.writes + 2);
        self.writes = new;
        let put = |place, write, context| Action::Put { place, key, write, deletes: false, context };
        let get = |place| Action::Get { place, key, client };
        let acts = [
            put(first, old, Context::New),
            get(first),
            Action::Pause(first, Duration::secs(3)),
            put(second, new, Context::Seen(client)),
            Action::Again { place: third, write: old },
            Action::Loss(0),
            get(second),
            get(third),
        ];
        for act in acts {
            let wait = Duration(self.rng.below(60_000));
            self.coming.push_back((wait, act));
        }
        Action::Loss(300 + self.rng.below(400) as u32)
    }

    /// Up to three wishes at once, for whoever is a server or, where tabs keep their storage, a tab.
    fn change(&mut self) -> Action {
        let place = self.place();
        let tabs_keep = self.world.tabs_keep;
        let count = 1 + self.rng.below(3);
        let moves = (0..count).map(|_| {
            let who = if tabs_keep { self.place() } else { self.server() };
            match self.rng.below(9) {
                0..4 => Move::Join(who),
                4..7 => Move::Leave(who),
                7 => Move::Weigh(who, 1 + self.rng.below(3) as u32),
                _ => Move::GiveUp,
            }
        });
        let moves = moves.collect();
        Action::Change { place, moves }
    }

    /// All disks are full for a moment, in which writes are refused; late copies of them come when there is room again.
    fn fill_all(&mut self) -> Action {
        let span = Duration::millis(100 + self.rng.below(4 * self.world.delay.as_millis() + 200));
        let fills = (1..usize::from(self.world.servers)).map(|place| (Duration::ZERO, Action::Fill(place, span)));
        let mut script: Vec<(Duration, Action)> = fills.collect();
        script.push((Duration::ZERO, Action::Duplicate(800)));
        for _ in 0..8 {
            let (place, key) = (self.server(), self.rng.below(self.keys) as u32);
            self.writes += 1;
            let put = Action::Put { place, key, write: self.writes, deletes: false, context: Context::New };
            script.push((Duration(self.rng.below(span.0 / 4)), put));
        }
        script.push((self.span(500), Action::Duplicate(50)));
        self.coming.extend(script);
        Action::Fill(0, span)
    }

    /// Several who want different things at once: somebody is outbid.
    fn duel(&mut self) -> Action {
        for _ in 0..2 + self.rng.below(3) {
            let wait = Duration(self.rng.below(2 * self.world.delay.0 + 10_000));
            let change = self.change();
            self.coming.push_back((wait, change));
        }
        // What was chosen is heard of by few, and one who has promised may forget, if it can.
        if self.rng.chance(500) {
            for _ in 0..2 {
                let (place, before, after) = (self.server(), self.span(60), self.span(200));
                self.coming.extend([(before, Action::Crash(place)), (after, Action::Start(place))]);
            }
            let quiet = self.span(1_500);
            self.coming.push_back((quiet, Action::Loss(0)));
            let change = self.change();
            self.coming.push_front((Duration::ZERO, change));
            return Action::Loss(200 + self.rng.below(400) as u32);
        }
        self.change()
    }

    /// Two halves that hold each other dead, and want different things.
    fn split(&mut self) -> Action {
        let servers = usize::from(self.world.servers);
        let side = |place: Place| place < servers / 2;
        for from in 0..servers {
            for to in (0..servers).filter(|&to| side(to) != side(from)) {
                self.coming.push_back((Duration::ZERO, Action::Cut(from, to)));
            }
        }
        let mut wait = Duration(10_000_000 + self.rng.below(10_000_000));
        for place in [0, servers - 1, 0, servers - 1] {
            let moves = alloc::vec![Move::Weigh(self.server(), 1 + self.rng.below(3) as u32)];
            self.coming.push_back((wait, Action::Change { place, moves }));
            wait = self.span(500);
        }
        let mended = self.span(2_000);
        self.coming.push_back((mended, Action::Mend));
        Action::Mend
    }

    /// The power goes about when a change is chosen; when it is back, whoever asked for the change is cut off, and the
    /// others want something else. What they had accepted they must not have forgotten.
    fn forget_all(&mut self) -> Action {
        let (asks, servers) = (self.server(), usize::from(self.world.servers));
        let weigh = |drawer: &mut Self, place: Place| {
            let moves = alloc::vec![Move::Weigh(drawer.server(), 1 + drawer.rng.below(3) as u32)];
            Action::Change { place, moves }
        };
        let wait = Duration(5_000 + self.rng.below(4 * (self.world.delay.0 + self.world.sync.0)));
        self.coming.push_back((wait, Action::Power));
        self.down.clear();
        for other in (0..servers).filter(|&other| other != asks) {
            self.coming.push_back((Duration::ZERO, Action::Cut(asks, other)));
            self.coming.push_back((Duration::ZERO, Action::Cut(other, asks)));
        }
        for _ in 0..3 {
            let place = (asks + 1 + self.rng.below(servers as u64 - 1) as Place) % servers;
            let change = weigh(self, place);
            let soon = self.span(300);
            self.coming.push_back((soon, change));
        }
        let mended = self.span(2_000);
        self.coming.push_back((mended, Action::Mend));
        weigh(self, asks)
    }

    /// A few are not told that the owners change, or not that the change is done, and go on working: others hear them,
    /// but of the others they hear one at most.
    fn straggle(&mut self) -> Action {
        let places = usize::from(self.world.servers + self.world.tabs);
        let spare =
            usize::from(self.world.owners + self.rng.below(u64::from(self.world.servers - self.world.owners)) as u8);
        let (one, two) = (self.server(), self.server());
        let heard = if self.rng.chance(500) { spare } else { self.place() };
        let stragglers = [one, two];
        let mut cuts: Vec<Action> = Vec::new();
        for from in (0..places).filter(|from| !stragglers.contains(from)) {
            let cut = |to: Place| (from != heard || to != one).then_some(Action::Cut(from, to));
            cuts.extend(stragglers.into_iter().filter_map(cut));
        }
        let joins = [spare, self.server()].map(Move::Join);
        let leaves = [if self.rng.chance(500) { one } else { self.server() }, two].map(Move::Leave);
        let place = self.server();
        let change = Action::Change { place, moves: joins.into_iter().chain(leaves).collect() };
        let mut script: Vec<(Duration, Action)> = cuts.into_iter().map(|cut| (Duration::ZERO, cut)).collect();
        if self.rng.chance(500) {
            script.push((Duration::ZERO, change));
        } else {
            script.insert(0, (Duration::ZERO, change));
            script[1].0 = self.span(400);
        }
        // The moment that matters is short, and comes when the change is chosen, or when it is completed.
        for burst in [24, 24, 8] {
            let pause = self.span(600);
            for n in 0..burst {
                let key = self.rng.below(self.keys) as u32;
                let place = [one, two, heard, self.place()][self.rng.below(4) as usize];
                self.writes += 1;
                let put = Action::Put { place, key, write: self.writes, deletes: false, context: Context::New };
                let client = self.rng.below(CLIENTS) as u8;
                let act = if self.rng.chance(600) { put } else { Action::Get { place, key, client } };
                let gap = Duration(self.rng.below(12_000));
                script.push((if n == 0 { pause } else { gap }, act));
            }
        }
        for mended in [false, true] {
            let mut pause = if mended { self.span(100) } else { self.span(300) };
            if mended {
                script.push((self.span(100), Action::Mend));
            }
            for key in 0..self.keys.min(6) as u32 {
                let (place, client) = (self.server(), self.rng.below(CLIENTS) as u8);
                script.push((core::mem::take(&mut pause), Action::Get { place, key, client }));
            }
        }
        self.coming.extend(script);
        Action::Mend
    }

    /// One is down while the owners change, and is asked to write as soon as it is back.
    fn miss_a_change(&mut self) -> Action {
        let (place, key) = (self.server(), self.rng.below(self.keys) as u32);
        let put = |write| Action::Put { place, key, write, deletes: false, context: Context::New };
        let (before, after) = (self.writes + 1, self.writes + 2);
        self.writes = after;
        let change = |drawer: &mut Self, what: fn(Place) -> Move| {
            let at = drawer.server();
            let who = drawer.server();
            Action::Change { place: at, moves: alloc::vec![what(who)] }
        };
        let script = [
            (Duration::millis(500), Action::Crash(place)),
            (Duration::ZERO, change(self, Move::Leave)),
            (self.span(4_000), change(self, Move::Join)),
            (self.span(4_000), Action::Start(place)),
            (self.span(200), put(after)),
        ];
        self.coming.extend(script);
        for _ in 0..4 {
            let (place, client) = (self.server(), self.rng.below(CLIENTS) as u8);
            let wait = self.span(100);
            self.coming.push_back((wait, Action::Get { place, key, client }));
        }
        put(before)
    }

    fn operation(&mut self) -> Action {
        let place = self.place();
        let client = self.rng.below(CLIENTS) as u8;
        match self.rng.below(20) {
            0..11 => {
                let repeats = self.rng.chance(300);
                let key = if repeats { self.repeated_key() } else { self.rng.below(self.keys) as u32 };
                self.writes += 1;
                if repeats {
                    self.recent.push((self.writes, self.at));
                }
                let context = match self.rng.below(3) {
                    0 => Context::Plain,
                    1 => Context::New,
                    _ => Context::Seen(client),
                };
                let deletes = self.rng.chance(self.deletes_per_mille);
                Action::Put { place, key, write: self.writes, deletes, context }
            }
            11..14 if !self.recent.is_empty() => {
                let newest = self.recent.len().saturating_sub(4);
                let (write, asked) = self.recent[newest + self.rng.below(4.min(self.recent.len() as u64)) as usize];
                if self.at.0.saturating_sub(asked.0) < REPEAT_WITHIN.0 {
                    return Action::Again { place, write };
                }
                Action::Get { place, key: self.repeated.0, client }
            }
            n => {
                let key = if n % 4 == 0 { self.repeated.0 } else { self.rng.below(self.keys) as u32 };
                Action::Get { place, key, client }
            }
        }
    }

    fn repeated_key(&mut self) -> u32 {
        if self.repeated.1 == limits::SUPERSEDED {
            self.repeated = (self.repeated.0 + 1, 0);
        }
        self.repeated.1 += 1;
        self.repeated.0
    }
}

impl Iterator for Drawer {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        if let Some((wait, action)) = self.coming.pop_front() {
            self.at = Duration(self.at.0 + wait.0);
            return Some(Step { at: self.at, action });
        }
        // Bursts, and rests.
        if self.rng.chance(600) {
            self.at = Duration(self.at.0 + self.rng.below(2 * self.gap.0));
        }
        if self.churning && self.rng.chance(100) {
            let action = self.trouble("churn");
            return Some(Step { at: self.at, action });
        }
        let mut draw = self.rng.below(1_000);
        let on: Vec<&str> = self.troubles.clone();
        for (kind, weight) in TROUBLES.into_iter().chain([("flip", 3)]).filter(|(kind, _)| on.contains(kind)) {
            if draw < weight {
                let action = self.trouble(kind);
                return Some(Step { at: self.at, action });
            }
            draw -= weight;
        }
        let action = self.operation();
        Some(Step { at: self.at, action })
    }
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
    fn equal_seeds_draw_equal_plans_and_each_trouble_is_often_off() {
        let draw = |seed| Drawer::new(seed, false).take(100).collect::<Vec<_>>();
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        for (kind, _) in TROUBLES {
            let on = (0..1_000).filter(|&seed| Drawer::new(seed, false).troubles.contains(&kind)).count();
            assert!((400..600).contains(&on), "{kind}: {on} of 1,000");
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

//! Drawing a plan: a world and then steps without end, all from one seed.
//!
//! *Swarm* style (Groce et al., "Swarm testing", 2012): each kind of fault is switched off in half of the seeds, for a run
//! with all of them at once hides what only one of them provokes.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::plan::{Action, Context, Move, Place, Registers, Step, World};
use crate::limits;
use crate::rng::Rng;
use crate::time::Duration;

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
            registers: match rng.below(3) {
                0 => Registers::None,
                1 => Registers::Odd,
                _ => Registers::All,
            },
            copies: None,
            atomic: false,
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
        // Of its own, so that what else happens in a seed is the same with and without.
        let mut copies = Rng::new(seed ^ 0xc0_91e5);
        // With fewer than three no server may be down; with as many as owners nothing moves.
        let (n, most) = (3 + copies.below(5).saturating_sub(2) as u8, world.owners);
        world.copies = copies.chance(400).then_some(n.min(most));
        world.atomic = world.copies.is_some() && copies.chance(500);
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

#[cfg(test)]
mod tests {
    use super::*;

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
}

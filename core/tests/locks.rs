//! Locks, by way of the simulator: some who want one, ask nodes that crash over links that are cut, stand still when they
//! like, and write to what the lock protects.
//!
//! ```text
//!   client, by lease::Contender ──▶ node ──▶ … register        every 5 ms: who holds it, by its own word?
//!      │                                                         never two; and tokens rise
//!      └── looks: may I? ── perhaps stands still ──▶ writes, with its token, to a resource that checks tokens
//!                                                                       and to one that trusts
//! ```
//!
//! Simulated time is everybody's monotonic clock. The nodes' wall clocks are set at random, for nobody reads them.

use qunlong_core::cell::{Change, Expiry, When};
use qunlong_core::lease::{Contender, Held, Lock, Step, Token};
use qunlong_core::registers::{Op, Outcome};
use qunlong_core::rng::Rng;
use qunlong_core::sim::cluster::Sim;
use qunlong_core::{Bytes, Duration, Instant, Outcome as AnyOutcome, Refusal, RequestId, WriteId};

const TTL: Duration = Duration::secs(3);
const TICK: Duration = Duration::millis(5);
/// What nodes are given to answer, and for how long a client waits before it asks another one.
const WITHIN: Duration = Duration::secs(1);
const PATIENCE: Duration = Duration::millis(1_500);
const SEEDS: u64 = 20;

/// A cluster, and what the lock protects.
struct World {
    sim: Sim,
    rng: Rng,
    flaw: Flaw,
    /// Whether clients stand still between a look at the lock and the write that they looked for.
    stumbles: bool,
    /// For how long a client keeps the lock.
    keeps: (Duration, Duration),
    checking: Resource,
    trusting: Resource,
    judge: Judge,
    tally: Tally,
}

/// A mistake to plant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    /// Rivals believe that the holder's ttl is half of what it is.
    Hasty,
}

/// Writes that were accepted, by their tokens.
#[derive(Default)]
struct Resource {
    log: Vec<Token>,
    refused: u32,
}

/// Says what is wrong with what clients believe.
#[derive(Default)]
struct Judge {
    /// Who took the lock last, and its token.
    last: Option<(usize, Token)>,
    taken: u32,
}

/// What has happened, to see that enough has.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    taken: u32,
    lost: u32,
    released: u32,
    unknown: u32,
    stale_refused: u32,
    stale_accepted: bool,
}

/// A process that wants the lock now and then.
struct Client {
    contender: Option<Contender>,
    /// The node that it asks.
    place: usize,
    asked: Option<Asked>,
    /// It stands still until then.
    stopped_until: Instant,
    /// It does not want the lock before then.
    rests_until: Instant,
    /// It gives the lock back then.
    keeps_until: Instant,
    /// The token that it had last.
    token: Option<Token>,
    /// A write that it has looked at the lock for, before it stood still.
    write: Option<Token>,
}

struct Asked {
    id: RequestId,
    since: Instant,
    is_change: bool,
}

enum Mend {
    Start(usize),
    Heal(usize, usize),
}

impl World {
    fn new(seed: u64, servers: u8) -> Self {
        let mut sim = Sim::with(seed, servers, 0, 3, |config| config.autopilot.enabled = false);
        sim.through_bytes = false;
        sim.run_for(Duration::secs(10));
        Self {
            sim,
            rng: Rng::new(seed),
            flaw: Flaw::None,
            stumbles: false,
            keeps: (Duration::millis(200), TTL.times(2)),
            checking: Resource::default(),
            trusting: Resource::default(),
            judge: Judge::default(),
            tally: Tally::default(),
        }
    }

    /// Time passes, everybody acts who does not stand still, and beliefs are judged. Who holds the lock.
    fn tick(&mut self, clients: &mut [Client]) -> Result<Option<(usize, Held)>, String> {
        self.sim.run_for(TICK);
        clients.iter_mut().for_each(|client| client.act(self));
        let now = self.sim.now();
        let held = |client: &Client| client.contender.as_ref().and_then(|contender| contender.held(now));
        let holders: Vec<(usize, Held)> =
            clients.iter().enumerate().filter_map(|(n, client)| Some((n, held(client)?))).collect();
        self.judge.judge(&holders).map_err(|what| format!("at {now}: {what}"))
    }

    /// Ticks until somebody holds the lock. Who, and when.
    fn until_held(&mut self, clients: &mut [Client], within: Duration) -> (usize, Held, Instant) {
        let end = self.sim.now() + within;
        while self.sim.now() < end {
            if let Some((client, held)) = self.tick(clients).expect("all is well") {
                return (client, held, self.sim.now());
            }
        }
        panic!("nobody holds the lock within {within}");
    }

    fn write(&mut self, token: Token) {
        if self.checking.log.iter().all(|&seen| seen <= token) {
            self.checking.log.push(token);
        } else {
            self.checking.refused += 1;
        }
        self.trusting.log.push(token);
    }

    /// Something goes wrong. What is to be done about it, and when.
    fn disturb(&mut self, clients: &mut [Client]) -> Option<(Instant, Mend)> {
        let now = self.sim.now();
        let mended = now + self.rng.between(Duration::millis(500), Duration::secs(4));
        let place = self.rng.below(self.sim.len() as u64) as usize;
        let other = (place + 1 + self.rng.below(self.sim.len() as u64 - 1) as usize) % self.sim.len();
        let client = &mut clients[self.rng.below(clients.len() as u64) as usize];
        match self.rng.below(8) {
            0 => {
                self.sim.crash(place);
                return Some((mended, Mend::Start(place)));
            }
            1 | 2 => {
                self.sim.network.cut(place, other);
                return Some((mended, Mend::Heal(place, other)));
            }
            3 => {
                let span = self.rng.between(Duration::millis(100), Duration::secs(2));
                self.sim.pause(place, span);
            }
            4 => {
                let hours = self.rng.below(9) as i64 - 4;
                self.sim.set_wall(place, hours * 3_600_000_000);
            }
            5 | 6 => client.stopped_until = now + self.rng.between(Duration::millis(100), TTL.times(2)),
            // It is killed, and another one is started in its place.
            _ => *client = Client { rests_until: now + self.rng.between(Duration::ZERO, TTL), ..Client::new(place) },
        }
        None
    }
}

impl Flaw {
    fn see(self, value: Bytes) -> Bytes {
        match self {
            Self::None => value,
            Self::Hasty => {
                let lock = Lock::parse(&value).expect("a lock");
                Bytes::from(Lock { ttl: Duration(lock.ttl.0 / 2), ..lock }.to_string().as_str())
            }
        }
    }
}

impl Judge {
    fn judge(&mut self, holders: &[(usize, Held)]) -> Result<Option<(usize, Held)>, String> {
        let &[(client, held)] = holders else {
            return if holders.is_empty() { Ok(None) } else { Err(format!("several hold the lock: {holders:?}")) };
        };
        match self.last {
            Some((before, last)) if last == held.token && before == client => (),
            Some((before, last)) if last >= held.token => {
                return Err(format!("{client} has token {} after {before} had {last}", held.token));
            }
            Some(_) | None => {
                self.last = Some((client, held.token));
                self.taken += 1;
            }
        }
        Ok(Some((client, held)))
    }
}

impl Client {
    fn new(place: usize) -> Self {
        Self {
            contender: None,
            place,
            asked: None,
            stopped_until: Instant(0),
            rests_until: Instant(0),
            keeps_until: Instant(0),
            token: None,
            write: None,
        }
    }

    fn act(&mut self, world: &mut World) {
        if world.sim.now() < self.stopped_until {
            return;
        }
        if let Some(token) = self.write.take() {
            world.write(token);
        }
        self.hear(world);
        self.ask(world);
        self.work(world);
    }

    fn hear(&mut self, world: &mut World) {
        let (Some(contender), Some(Asked { id, since, is_change })) = (&mut self.contender, &self.asked) else {
            return;
        };
        let (now, is_change) = (world.sim.now(), *is_change);
        let reply = match world.sim.take_reply(*id) {
            Some(reply) => reply,
            None if now.since(*since) < PATIENCE => return,
            // As when a connection breaks.
            None => Err(Refusal::TimeoutUnknown { acked: 0, needed: 0 }),
        };
        self.asked = None;
        match reply {
            Ok(AnyOutcome::Registers(Outcome::Read { value, version, .. })) => {
                let value = value.map(|value| world.flaw.see(value));
                contender.on_read(now, version, value.as_deref()).expect("a lock, or nothing");
            }
            Ok(AnyOutcome::Registers(Outcome::Changed { version, .. })) => contender.on_changed(version),
            Ok(other) => panic!("an answer to another question: {other:?}"),
            Err(Refusal::Conflict { .. }) => contender.on_conflict(),
            Err(refusal) => {
                if refusal.is_definite() || !is_change {
                    contender.on_refused(now);
                } else {
                    contender.on_unknown();
                    world.tally.unknown += 1;
                }
                self.place = (self.place + 1) % world.sim.len();
            }
        }
    }

    fn ask(&mut self, world: &mut World) {
        let now = world.sim.now();
        if self.contender.is_none() && now >= self.rests_until {
            self.contender = Some(Contender::new(WriteId(world.rng.next_bytes()), TTL));
        }
        let (Some(contender), None) = (&mut self.contender, &self.asked) else { return };
        let (key, within) = (Bytes::from("lock/it"), Some(WITHIN));
        let (op, is_change) = match contender.next(now) {
            Step::WaitUntil(_) => return,
            Step::Read => (Op::Get { key, within }, false),
            Step::Change { name, version, value } => {
                let when = When::Version(version);
                let change = match value {
                    Some(value) => Change::Put { value: Bytes::from(value.as_str()), when, expiry: Expiry::Never },
                    None => Change::Delete { when },
                };
                (Op::Change { key, change, name: Some(name), seen: version, within }, true)
            }
            end @ (Step::Lost | Step::Released) => {
                let is_lost = end == Step::Lost;
                world.tally.lost += u32::from(is_lost);
                world.tally.released += u32::from(!is_lost);
                self.contender = None;
                self.rests_until = self.rests_until.max(now + world.rng.between(Duration::ZERO, Duration::secs(1)));
                return;
            }
        };
        match world.sim.request(self.place, op.into()) {
            Some(id) => self.asked = Some(Asked { id, since: now, is_change }),
            None => {
                contender.on_refused(now);
                self.place = (self.place + 1) % world.sim.len();
            }
        }
    }

    /// What the lock is wanted for.
    fn work(&mut self, world: &mut World) {
        let now = world.sim.now();
        let Some(contender) = &mut self.contender else { return };
        let Some(Held { token, .. }) = contender.held(now) else { return };
        if self.token != Some(token) {
            self.token = Some(token);
            self.keeps_until = now + world.rng.between(world.keeps.0, world.keeps.1);
        }
        if now >= self.keeps_until {
            contender.release();
        } else if world.rng.chance(50) {
            if world.stumbles && world.rng.chance(60) {
                self.write = Some(token);
                self.stopped_until = now + world.rng.between(Duration(TTL.0 / 2), TTL.times(3));
            } else {
                world.write(token);
            }
        }
    }
}

/// Half a minute of disturbances, and the time after. Fails as soon as somebody believes what it must not.
fn live(seed: u64, flaw: Flaw) -> Result<Tally, String> {
    let mut world = World { flaw, stumbles: true, ..World::new(seed, 3 + (seed % 3) as u8) };
    let mut clients: Vec<Client> = (0..4).map(|n| Client::new(n % world.sim.len())).collect();
    let mut mends: Vec<(Instant, Mend)> = Vec::new();
    let end = world.sim.now() + Duration::secs(30);
    while world.sim.now() < end {
        if world.rng.chance(10) {
            mends.extend(world.disturb(&mut clients));
        }
        let now = world.sim.now();
        for (_, mend) in mends.extract_if(.., |(at, _)| *at <= now) {
            match mend {
                Mend::Start(place) => world.sim.start(place),
                Mend::Heal(a, b) => world.sim.network.heal(a, b),
            }
        }
        world.tick(&mut clients)?;
    }

    // Everything is well from here on: somebody gets the lock, and then another one.
    world.stumbles = false;
    world.sim.network.heal_all();
    (0..world.sim.len()).for_each(|place| world.sim.start(place));
    let healed = world.sim.now();
    clients.iter_mut().for_each(|client| client.stopped_until = healed);
    let before = world.judge.taken;
    let (mut first, mut next) = (None, None);
    while next.is_none() {
        let (held, now) = (world.tick(&mut clients)?, world.sim.now());
        first = first.or(held.map(|_| now));
        next = (world.judge.taken > before).then_some(now);
        let waited = now.since(healed);
        if first.is_none() && waited > TTL + Duration::secs(5) || waited > TTL.times(3) + Duration::secs(5) {
            return Err(format!("{waited} after all is well: held at {first:?}, not taken anew"));
        }
    }
    assert!(world.checking.log.is_sorted(), "a resource that checks accepts no token below one that it has seen");
    Ok(Tally {
        taken: world.judge.taken,
        stale_refused: world.checking.refused,
        stale_accepted: !world.trusting.log.is_sorted(),
        ..world.tally
    })
}

#[test]
fn never_do_two_hold_a_lock_whatever_happens_and_tokens_tell_who_is_late() {
    let (mut all, mut mixed_up) = (Tally::default(), 0);
    for seed in 1..=SEEDS {
        let tally = live(seed, Flaw::None).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
        all.taken += tally.taken;
        all.lost += tally.lost;
        all.released += tally.released;
        all.unknown += tally.unknown;
        all.stale_refused += tally.stale_refused;
        mixed_up += u64::from(tally.stale_accepted);
    }
    assert!(all.taken > 100 && all.released > 20 && all.lost > 10 && all.unknown > 2, "too little happens: {all:?}");
    // This is why the token is there: both looked at the lock before they wrote.
    assert!(all.stale_refused > 0 && mixed_up > 0, "nobody was late: {all:?}");
}

/// The check above is worth something: a rival that takes the lock after half the ttl is found out.
#[test]
fn a_rival_that_does_not_wait_for_the_whole_ttl_is_caught() {
    let found = (1..=SEEDS).find_map(|seed| live(seed, Flaw::Hasty).err());
    assert!(found.as_ref().is_some_and(|what| what.contains("several hold the lock")), "{found:?}");
}

#[test]
fn the_judge_finds_tokens_that_do_not_rise() {
    let held = |token| Held { token: Token(token), until: Instant(9) };
    let mut judge = Judge::default();
    assert!(judge.judge(&[(1, held(5))]).is_ok() && judge.judge(&[]).is_ok());
    assert!(judge.judge(&[(1, held(5))]).is_ok(), "it is the same one");
    assert!(judge.judge(&[(2, held(5))]).is_err() && judge.judge(&[(2, held(4))]).is_err());
    assert!(judge.judge(&[(2, held(7))]).is_ok() && judge.judge(&[(1, held(5))]).is_err());
    assert!(judge.judge(&[(1, held(8)), (2, held(9))]).is_err());
    assert_eq!(judge.taken, 2);
}

/// The rival waits while the holder renews, an owner of the register crashed or not; once the holder is dead it takes the
/// lock, after the ttl that the last renewal has begun, and not before.
#[test]
fn the_lock_of_a_holder_that_dies_is_taken_over_after_its_ttl_and_not_before() {
    for crashes in [false, true] {
        let mut world = World { keeps: (Duration::secs(99), Duration::secs(100)), ..World::new(1, 3) };
        let mut clients = vec![Client::new(0)];
        let (_, first, _) = world.until_held(&mut clients, Duration::secs(1));
        clients.push(Client::new(1));
        let mut last = first;
        for tick in 0..2_000 {
            if tick == 500 && crashes {
                world.sim.crash(2);
            }
            let (holder, held) = world.tick(&mut clients).expect("all is well").expect("somebody holds it");
            assert_eq!((holder, held.token), (0, first.token), "it renews");
            last = held;
        }
        // What it has asked for and not been told would count from its sending.
        while clients[0].asked.is_some() {
            last = world.tick(&mut clients).expect("all is well").expect("somebody holds it").1;
        }
        clients[0] = Client { rests_until: Instant(u64::MAX), ..Client::new(0) };
        let (heir, held, at) = world.until_held(&mut clients, TTL.times(2));
        assert!(heir == 1 && held.token > first.token);
        assert!(at >= last.until, "taken at {at}, before {}", last.until);
        assert!(at.since(last.until) < Duration::millis(500), "taken at {at}, long after {}", last.until);
    }
}

#[test]
fn a_release_passes_the_lock_on_at_once() {
    let mut world = World { keeps: (Duration::secs(99), Duration::secs(100)), ..World::new(2, 3) };
    let mut clients = vec![Client::new(0)];
    let (_, first, _) = world.until_held(&mut clients, Duration::secs(1));
    clients.push(Client::new(1));
    for _ in 0..200 {
        world.tick(&mut clients).expect("all is well");
    }
    let now = world.sim.now();
    clients[0].keeps_until = now;
    clients[0].rests_until = Instant(u64::MAX);
    let next = (0..200).find_map(|_| {
        let held = world.tick(&mut clients).expect("all is well");
        held.filter(|(client, _)| *client == 1).map(|(_, held)| held)
    });
    assert!(next.is_some_and(|held| held.token > first.token));
    assert!(world.sim.now().since(now) < Duration::millis(400), "{} is much", world.sim.now().since(now));
}

/// A holder that stood still for long, and whom nobody has robbed, goes on under its token; in between it held nothing.
#[test]
fn who_comes_late_and_is_alone_still_has_its_lock() {
    let mut world = World { keeps: (Duration::secs(99), Duration::secs(100)), ..World::new(3, 3) };
    let mut clients = vec![Client::new(0)];
    let (_, first, now) = world.until_held(&mut clients, Duration::secs(1));
    clients[0].stopped_until = now + TTL.times(3);
    let mut held_nothing = false;
    while world.sim.now() < now + TTL.times(3) {
        held_nothing |= world.tick(&mut clients).expect("all is well").is_none();
    }
    let (_, again, _) = world.until_held(&mut clients, Duration::secs(1));
    assert!(held_nothing && again.token == first.token);
}

//! Watches, by way of the simulator: what changes is told, soon, in order, and whatever is lost on the way.

use std::collections::BTreeMap;

use qunlong_core::cell::{Change, Expiry, When};
use qunlong_core::lift::{EventKind, MessageKind};
use qunlong_core::namespace::{Mode, Namespace, key_in};
use qunlong_core::registers::{self, Changed, Op, Outcome, Token, Watched};
use qunlong_core::rng::Rng;
use qunlong_core::sim::cluster::Sim;
use qunlong_core::topology::{self, Step};
use qunlong_core::trace::Level;
use qunlong_core::{Bytes, Duration, Outcome as AnyOutcome, Refusal, RequestId};

fn cluster(seed: u64, servers: u8) -> Sim {
    let mut sim = Sim::with(seed, servers, 0, 3, |config| config.autopilot.enabled = false);
    sim.run_for(Duration::secs(10));
    sim
}

fn key(text: &str) -> Bytes {
    Bytes::from(text)
}

fn put(key: &Bytes, value: &str) -> Op {
    let change = Change::Put { value: Bytes::from(value), when: When::Always, expiry: Expiry::Never };
    Op::Change { key: key.clone(), change, name: None, seen: 0, within: None }
}

fn delete(key: &Bytes) -> Op {
    Op::Change { key: key.clone(), change: Change::Delete { when: When::Always }, name: None, seen: 0, within: None }
}

fn ask(sim: &mut Sim, place: usize, op: Op) -> Result<Outcome, Refusal> {
    let id = sim.request(place, op.into()).expect("it runs");
    assert!(sim.run_until(Duration::secs(40), |sim| sim.reply(id).is_some()), "no answer");
    match sim.take_reply(id).expect("an answer")? {
        AnyOutcome::Registers(outcome) => Ok(outcome),
        other => panic!("an answer to another question: {other:?}"),
    }
}

fn create(sim: &mut Sim, name: &str, mode: Mode) {
    let steps = vec![Step::Create { name: name.to_owned(), namespace: Namespace { mode, replicas: 0 } }];
    let id = sim.request(0, topology::Op::Change { steps }.into()).expect("it runs");
    assert!(sim.run_until(Duration::secs(5), |sim| sim.reply(id).is_some_and(Result::is_ok)));
    sim.run_for(Duration::secs(2));
}

/// A client that follows what changes, through one node.
struct Follower {
    place: usize,
    watched: Watched,
    token: Option<Token>,
    asked: Option<RequestId>,
    /// What it holds for true.
    seen: BTreeMap<Bytes, (u64, Option<Bytes>)>,
    /// Versions that it was told of before it began anew.
    before: BTreeMap<Bytes, u64>,
    told: usize,
    resyncs: usize,
}

impl Follower {
    fn new(place: usize, key: Bytes, is_prefix: bool) -> Self {
        let watched = Watched { key, is_prefix };
        Self {
            place,
            watched,
            token: None,
            asked: None,
            seen: BTreeMap::new(),
            before: BTreeMap::new(),
            told: 0,
            resyncs: 0,
        }
    }

    /// Takes an answer, and asks if nothing is asked.
    fn follow(&mut self, sim: &mut Sim) {
        if sim.node(self.place).is_none() {
            return;
        }
        if let Some(reply) = self.asked.and_then(|id| sim.take_reply(id)) {
            self.asked = None;
            match reply {
                Ok(AnyOutcome::Registers(Outcome::Watched { changes, next, resync })) => {
                    self.take(changes, resync);
                    self.token = Some(next);
                }
                Ok(other) => panic!("an answer to another question: {other:?}"),
                Err(_) => (),
            }
        }
        if self.asked.is_none() {
            let within = Some(Duration::secs(20));
            let op = Op::Watch { watched: self.watched.clone(), after: self.token, within };
            self.asked = sim.request(self.place, op.into());
        }
    }

    fn take(&mut self, changes: Vec<Changed>, resync: bool) {
        self.resyncs += usize::from(resync);
        self.told += changes.len();
        if resync {
            self.before.extend(core::mem::take(&mut self.seen).into_iter().map(|(key, (version, _))| (key, version)));
        }
        for Changed { key, version, value } in changes {
            let before = self.before.get(&key).copied().unwrap_or(0);
            assert!(version >= before, "{key:?} went back from {before} to {version}");
            let last = self.seen.insert(key.clone(), (version, value));
            assert!(last.is_none_or(|(last, _)| version > last), "{key:?} was told of version {version} again");
        }
    }

    fn value(&self, key: &Bytes) -> Option<Bytes> {
        self.seen.get(key).and_then(|(_, value)| value.clone())
    }
}

fn run(sim: &mut Sim, followers: &mut [Follower], span: Duration) {
    let end = sim.now() + span;
    while sim.now() < end {
        followers.iter_mut().for_each(|follower| follower.follow(sim));
        sim.run_for(Duration::millis(5));
    }
}

#[test]
fn a_change_is_told_at_once_and_once() {
    let mut sim = cluster(1, 3);
    let mut all = [Follower::new(1, key("k"), false)];
    run(&mut sim, &mut all, Duration::secs(5));
    assert_eq!((all[0].resyncs, all[0].told), (1, 0), "there is nothing yet, which it is told");
    for n in 1..=5 {
        ask(&mut sim, 0, put(&key("k"), &n.to_string())).expect("done");
        run(&mut sim, &mut all, Duration::millis(150));
        assert_eq!((all[0].told, all[0].value(&key("k"))), (n, Some(key(&n.to_string()))));
    }
    run(&mut sim, &mut all, Duration::secs(30));
    assert_eq!((all[0].resyncs, all[0].told), (1, 5), "nothing is told twice");
}

#[test]
fn a_beginning_is_watched_in_its_own_namespace() {
    for mode in [Mode::Consensus, Mode::Atomic] {
        let mut sim = cluster(2, 5);
        create(&mut sim, "n", mode);
        let inside = |text: &str| key_in("n", text.as_bytes());
        ask(&mut sim, 0, put(&inside("a1"), "before")).expect("done");
        let mut all = [Follower::new(2, inside("a"), true), Follower::new(3, key(""), true)];
        run(&mut sim, &mut all, Duration::secs(5));
        for (name, value) in [("a2", "x"), ("b", "y"), ("a1", "z")] {
            ask(&mut sim, 4, put(&inside(name), value)).expect("done");
        }
        ask(&mut sim, 4, delete(&inside("a2"))).expect("done");
        run(&mut sim, &mut all, Duration::secs(1));
        let held: Vec<String> = all[0].seen.iter().map(|(key, (_, value))| format!("{key} {value:?}")).collect();
        assert_eq!(held, ["n/a1 Some(\"z\")", "n/a2 None"], "{mode:?}");
        assert_eq!(all[1].seen.len(), 0, "registers of namespaces are no part of those of none");
    }
}

#[test]
fn what_has_no_rounds_cannot_be_watched() {
    let mut sim = cluster(3, 3);
    create(&mut sim, "n", Mode::Quorum);
    let watched = Watched { key: key_in("n", b"k"), is_prefix: false };
    let refused = ask(&mut sim, 0, Op::Watch { watched, after: None, within: None });
    assert_eq!(refused, Err(Refusal::WrongMode { mode: Mode::Quorum }));
}

/// Hints are lost for a while, as are whole links; the register is read again as soon as that is noticed.
#[test]
fn hints_that_are_missing_are_noticed() {
    let mut sim = cluster(4, 4);
    let chosen = sim.node(0).and_then(|node| node.view().chosen.as_ref()).expect("an epoch");
    let owns = |place: &usize| chosen.owners_of(b"k").contains(sim.id(*place));
    let outside = (0..4).find(|place| !owns(place)).expect("three of four own");
    let (inside, mut all) = ((outside + 1) % 4, [Follower::new(outside, key("k"), false)]);
    run(&mut sim, &mut all, Duration::secs(5));
    sim.withhold(outside, MessageKind::Touched, true);
    ask(&mut sim, inside, put(&key("k"), "unheard")).expect("done");
    run(&mut sim, &mut all, Duration::millis(500));
    assert_eq!(all[0].told, 0);
    sim.withhold(outside, MessageKind::Touched, false);
    run(&mut sim, &mut all, Duration::secs(5));
    assert_eq!(all[0].value(&key("k")), Some(key("unheard")));
    for other in 0..4 {
        sim.network.cut(outside, other);
        sim.network.cut(other, outside);
    }
    ask(&mut sim, inside, put(&key("k"), "apart")).expect("done");
    run(&mut sim, &mut all, Duration::secs(15));
    assert_eq!(all[0].value(&key("k")), Some(key("unheard")));
    sim.network.heal_all();
    run(&mut sim, &mut all, Duration::secs(10));
    assert_eq!(all[0].value(&key("k")), Some(key("apart")));
}

/// What is watched is read through whoever proposes, between two of its rounds, so nobody is outbid for it.
#[test]
fn who_watches_outbids_nobody() {
    let mut sim = cluster(5, 3);
    let mut all = [Follower::new(1, key("k"), false), Follower::new(2, key(""), true)];
    run(&mut sim, &mut all, Duration::secs(5));
    sim.set_level(Level::Decisions);
    let mut open: Vec<RequestId> = Vec::new();
    let (mut done, wanted) = (0, 300);
    while done < wanted {
        open.retain(|&id| match sim.take_reply(id) {
            Some(reply) => {
                reply.expect("done");
                done += 1;
                false
            }
            None => true,
        });
        while open.len() < 8 {
            let change = Change::Increment { by: 1 };
            let op = Op::Change { key: key("k"), change, name: None, seen: 0, within: None };
            open.push(sim.request(0, op.into()).expect("it runs"));
        }
        all.iter_mut().for_each(|follower| follower.follow(&mut sim));
        sim.run_for(Duration::millis(1));
    }
    let events = core::iter::from_fn(|| sim.next_event());
    let outbid = |kind| matches!(kind, EventKind::Registers(registers::Event::Outbid { .. }));
    assert_eq!(events.filter(|event| outbid(event.kind.clone())).count(), 0);
    assert!(all.iter().all(|follower| follower.told > 10), "they are told meanwhile");
}

/// Nodes crash, pause and are cut off while registers change. Of each register versions only go up, a version is one value,
/// and in the end everybody has been told what there is.
#[test]
fn what_lasts_is_told_whatever_happens() {
    for seed in 0..16 {
        let mut sim = cluster(seed, 5);
        let mut rng = Rng::new(seed);
        let keys: Vec<Bytes> = (0..6).map(|n| key(&format!("k{n}"))).collect();
        let mut followers: Vec<Follower> = (0..5).map(|place| Follower::new(place, key("k"), true)).collect();
        followers.push(Follower::new(0, key("k3"), false));
        let mut values: BTreeMap<(Bytes, u64), Option<Bytes>> = BTreeMap::new();
        for step in 0..150 {
            let place = rng.below(5) as usize;
            match rng.below(12) {
                0 => {
                    sim.crash(place);
                    // Nobody answers what was asked of that boot.
                    followers.iter_mut().filter(|one| one.place == place).for_each(|one| one.asked = None);
                }
                1 | 2 => (0..5)
                    .filter(|&place| sim.node(place).is_none())
                    .collect::<Vec<_>>()
                    .into_iter()
                    .for_each(|place| sim.start(place)),
                3 => sim.network.cut(place, rng.below(5) as usize),
                4 => sim.network.heal_all(),
                5 if sim.node(place).is_some() => sim.pause(place, Duration::millis(rng.below(4_000))),
                _ => {
                    let key = &keys[rng.below(6) as usize];
                    let op = if rng.below(4) == 0 { delete(key) } else { put(key, &step.to_string()) };
                    sim.request(place, op.into());
                }
            }
            run(&mut sim, &mut followers, Duration::millis(rng.below(400)));
            for (key, (version, value)) in followers.iter().flat_map(|follower| &follower.seen) {
                let told = values.entry((key.clone(), *version)).or_insert_with(|| value.clone());
                assert_eq!(told, value, "seed {seed}: version {version} of {key:?} is two values");
            }
        }
        sim.network.heal_all();
        (0..5)
            .filter(|&place| sim.node(place).is_none())
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|place| sim.start(place));
        run(&mut sim, &mut followers, Duration::secs(25));
        for key in &keys {
            let Ok(Outcome::Read { value, version, .. }) = ask(&mut sim, 0, Op::Get { key: key.clone(), within: None })
            else {
                panic!("seed {seed}: {key:?} is not read");
            };
            for follower in
                followers.iter().filter(|follower| follower.watched.is_prefix || follower.watched.key == *key)
            {
                let seen = follower.seen.get(key).cloned().unwrap_or((0, None));
                // What was deleted before it began to follow, it need not know of.
                let knows = seen == (version, value.clone()) || value.is_none() && seen.1.is_none();
                assert!(knows, "seed {seed}: {key:?} is {value:?} of {version}, and {} holds {seen:?}", follower.place);
            }
        }
    }
}

/// A beginning is told as all there is only once all of it has been listed and read, however often that is begun anew.
#[test]
fn a_part_is_not_told_as_all_there_is() {
    let mut sim = cluster(6, 5);
    let keys: Vec<Bytes> = (0..8).map(|n| key(&format!("k{n}"))).collect();
    for key in &keys {
        ask(&mut sim, 0, put(key, "x")).expect("done");
    }
    // Whoever watches gets no page of the listing for a while, and is in doubt again meanwhile.
    sim.withhold(3, MessageKind::ListReply, true);
    let mut all = [Follower::new(3, key("k"), true)];
    for n in 0..4 {
        run(&mut sim, &mut all, Duration::millis(500));
        sim.network.cut(3, n % 3);
        run(&mut sim, &mut all, Duration::millis(300));
        sim.network.heal_all();
        ask(&mut sim, 0, put(&keys[0], &n.to_string())).expect("done");
        sim.crash(4);
        sim.start(4);
    }
    assert_eq!(all[0].told, 0, "it cannot know yet what there is");
    sim.withhold(3, MessageKind::ListReply, false);
    run(&mut sim, &mut all, Duration::secs(10));
    assert_eq!((all[0].resyncs, all[0].seen.len()), (1, keys.len()));
}

/// What nobody asks for any more is not followed any more, also if it changes all the time.
#[test]
fn a_feed_that_nobody_wants_makes_room() {
    let mut sim = cluster(7, 3);
    let watch = |n: usize| Watched { key: key(&format!("k{n}")), is_prefix: false };
    for n in 0..qunlong_core::limits::FEEDS {
        ask(&mut sim, 1, Op::Watch { watched: watch(n), after: None, within: None }).expect("it is told");
    }
    let one_more = |sim: &mut Sim| ask(sim, 1, Op::Watch { watched: watch(999), after: None, within: None });
    assert_eq!(one_more(&mut sim), Err(Refusal::Overloaded));
    for n in 0..8 {
        for busy in 0..qunlong_core::limits::FEEDS {
            ask(&mut sim, 0, put(&watch(busy).key, &n.to_string())).expect("done");
        }
        sim.run_for(Duration::secs(10));
    }
    assert!(one_more(&mut sim).is_ok(), "nobody has asked for the others for more than a minute");
}

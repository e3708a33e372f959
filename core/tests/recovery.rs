//! A lost majority, and a new cluster of those who survive.

use std::collections::BTreeMap;

use qunlong_core::kv::{self, WriteContext};
use qunlong_core::quorum::Level;
use qunlong_core::sim::cluster::Sim;
use qunlong_core::topology;
use qunlong_core::wire::Envelope;
use qunlong_core::{Bytes, ClusterId, Duration, Op, OpId, Outcome, Refusal};

fn cluster(seed: u64, servers: u8) -> Sim {
    let mut sim = Sim::with(seed, servers, 0, 3, |config| config.autopilot.enabled = false);
    sim.run_for(Duration::secs(10));
    sim
}

fn ask(sim: &mut Sim, place: usize, op: impl Into<Op>) -> Result<Outcome, Refusal> {
    let id = sim.request(place, op.into()).expect("it runs");
    assert!(sim.run_until(Duration::secs(40), |sim| sim.reply(id).is_some()), "no answer");
    sim.take_reply(id).expect("an answer")
}

fn key(n: usize) -> Bytes {
    Bytes::from(format!("key {n}").as_str())
}

fn put(sim: &mut Sim, place: usize, n: usize, value: &str) -> Result<Outcome, Refusal> {
    let (value, context) = (Some(Bytes::from(value)), WriteContext::Current);
    ask(sim, place, kv::Op::Put { key: key(n), value, context, write: None, stored: Level::Majority, within: None })
}

fn get(sim: &mut Sim, place: usize, n: usize) -> Result<Vec<Bytes>, Refusal> {
    match ask(sim, place, kv::Op::Get { key: key(n), read: Level::Majority, within: None })? {
        Outcome::Kv(kv::Outcome::Read { versions, .. }) => {
            Ok(versions.values().filter_map(|sibling| sibling.value.clone()).collect())
        }
        other => panic!("an answer to another question: {other:?}"),
    }
}

fn recover(sim: &mut Sim, place: usize, survivors: &[usize]) -> Result<Outcome, Refusal> {
    let survivors = survivors.iter().map(|&place| sim.id(place)).collect();
    ask(sim, place, topology::Op::Recover { survivors })
}

fn is_served(sim: &Sim, places: &[usize]) -> bool {
    let settled = |place: usize| {
        let config = sim.node(place).and_then(|node| node.view().chosen.as_ref()).map(|chosen| &chosen.config);
        config.is_some_and(|config| config.epoch.0 > 1 << 32 && config.next.is_none())
    };
    places.iter().all(|&place| settled(place))
}

/// Everything that a survivor holds is there afterwards, on whichever owners, and new writes are acknowledged.
#[test]
fn what_survivors_hold_lives_on() {
    lives_on(1, 5, 2);
    lives_on(5, 7, 3);
}

fn lives_on(seed: u64, servers: usize, survivors: usize) {
    let mut sim = cluster(seed, servers as u8);
    let alive: Vec<usize> = (0..survivors).collect();
    for n in 0..60 {
        put(&mut sim, n % servers, n, "old").expect("acknowledged");
    }
    sim.run_for(Duration::secs(5));
    for place in survivors..servers {
        sim.crash(place);
    }
    sim.run_for(Duration::secs(30));
    let held: BTreeMap<usize, bool> = (0..60)
        .map(|n| {
            (n, alive.iter().any(|&place| sim.node(place).is_some_and(|node| node.store().get(&key(n)).is_some())))
        })
        .collect();
    assert!(put(&mut sim, 0, 99, "x").is_err(), "no majority is left");
    assert!(held.values().any(|held| *held) && held.values().any(|held| !*held), "some keys have survived, some not");

    let answer = recover(&mut sim, 0, &alive);
    assert!(matches!(answer, Ok(Outcome::Topology(topology::Outcome::Recovered { .. }))), "{answer:?}");
    assert!(sim.run_until(Duration::secs(20), |sim| is_served(sim, &alive)), "it does not serve");
    for (&n, &was_held) in &held {
        let expected: Vec<Bytes> = was_held.then(|| Bytes::from("old")).into_iter().collect();
        assert_eq!(get(&mut sim, n % survivors, n), Ok(expected), "key {n}");
    }
    put(&mut sim, 1, 99, "new").expect("acknowledged");
    assert_eq!(get(&mut sim, 0, 99), Ok(vec![Bytes::from("new")]));

    // Those who were given up come back: they are of another cluster, and change nothing.
    for place in survivors..servers {
        sim.start(place);
    }
    sim.run_for(Duration::secs(30));
    put(&mut sim, 0, 98, "newer").expect("acknowledged");
    assert_eq!(get(&mut sim, 1, 99), Ok(vec![Bytes::from("new")]));
    let clusters: Vec<_> =
        (0..servers).filter_map(|place| Some(sim.node(place)?.view().chosen.as_ref()?.config.cluster)).collect();
    assert!(
        clusters[0] == clusters[1] && clusters[survivors..].iter().all(|&other| other != clusters[0]),
        "{clusters:?}"
    );
    let written: Vec<usize> = (200..220).filter(|&n| put(&mut sim, survivors, n, "old world").is_ok()).collect();
    assert!(!written.is_empty(), "the old majority is one still, among itself");
    assert!(written.iter().all(|&n| get(&mut sim, 0, n) == Ok(Vec::new())), "and of no interest any more");
}

#[test]
fn nothing_is_recovered_while_a_majority_lives_or_a_survivor_is_silent() {
    let mut sim = cluster(2, 5);
    assert_eq!(recover(&mut sim, 0, &[0, 1]), Err(Refusal::MajorityAlive));
    for place in [2, 3, 4] {
        sim.crash(place);
    }
    sim.run_for(Duration::secs(30));
    let member = sim.id(2);
    assert_eq!(recover(&mut sim, 0, &[0, 2]), Err(Refusal::SurvivorSilent { member }));
    assert_eq!(recover(&mut sim, 0, &[1]), Err(Refusal::NotASurvivor));
    assert_eq!(sim.node(0).map(|node| node.view().epoch().0), Some(1), "nothing has happened");
}

/// Whoever was asked dies after the others have left: they are in no cluster, also after a restart, until the person
/// asks one of them.
#[test]
fn a_recovery_that_broke_off_is_begun_anew() {
    let mut sim = cluster(3, 5);
    put(&mut sim, 0, 1, "kept").expect("acknowledged");
    sim.run_for(Duration::secs(5));
    for place in [3, 4] {
        sim.crash(place);
    }
    let survivors: Vec<_> = [0, 1, 2].map(|place| sim.id(place)).into();
    // Two of five partitions' owners are gone together somewhere: asked for in spite of the votes' majority.
    sim.run_for(Duration::secs(30));
    sim.request(0, topology::Op::Recover { survivors }.into()).expect("it runs");
    let left = |sim: &Sim| [1, 2].iter().all(|&place| sim.node(place).is_some_and(|node| node.view().left.is_some()));
    assert!(sim.run_until(Duration::secs(10), left), "they leave");
    sim.crash(0);
    sim.run_for(Duration::millis(100));
    sim.crash(1);
    sim.start(1);
    sim.run_for(Duration::secs(30));
    assert_eq!(put(&mut sim, 1, 2, "x"), Err(Refusal::Recovering));
    let answer = recover(&mut sim, 1, &[1, 2]);
    assert!(matches!(answer, Ok(Outcome::Topology(topology::Outcome::Recovered { .. }))), "{answer:?}");
    assert!(sim.run_until(Duration::secs(20), |sim| is_served(sim, &[1, 2])), "it does not serve");
    put(&mut sim, 2, 3, "new").expect("acknowledged");
    sim.start(0);
    sim.run_for(Duration::secs(20));
    assert!(put(&mut sim, 0, 4, "x").is_err(), "it left for a cluster that never began");
}

/// A single survivor serves alone, and others join it.
#[test]
fn one_is_enough() {
    let mut sim = cluster(4, 3);
    put(&mut sim, 0, 1, "kept").expect("acknowledged");
    sim.run_for(Duration::secs(5));
    sim.crash(1);
    sim.crash(2);
    sim.run_for(Duration::secs(30));
    let answer = recover(&mut sim, 0, &[0]);
    assert!(matches!(answer, Ok(Outcome::Topology(topology::Outcome::Recovered { .. }))), "{answer:?}");
    assert!(sim.run_until(Duration::secs(20), |sim| is_served(sim, &[0])), "it does not serve");
    assert_eq!(get(&mut sim, 0, 1), Ok(vec![Bytes::from("kept")]));
    put(&mut sim, 0, 2, "new").expect("acknowledged");
    let listed = ask(&mut sim, 0, kv::Op::List { prefix: Bytes::from(""), after: None, limit: 10, within: None });
    assert!(
        matches!(&listed, Ok(Outcome::Kv(kv::Outcome::Listed { entries, .. })) if entries.len() == 2),
        "{listed:?}"
    );
}

/// A survivor dies while the others leave: the person hears of it, and names those who are left, to any of them.
#[test]
fn a_survivor_that_is_lost_on_the_way_is_left_out_the_next_time() {
    let mut sim = cluster(6, 5);
    for place in [3, 4] {
        sim.crash(place);
    }
    sim.run_for(Duration::secs(30));
    let survivors = [0, 1, 2].map(|place| sim.id(place)).into();
    let id = sim.request(0, topology::Op::Recover { survivors }.into()).expect("it runs");
    let left = |sim: &Sim| sim.node(0).is_some_and(|node| node.view().left.is_some());
    assert!(sim.run_until(Duration::secs(10), left), "it leaves");
    sim.crash(2);
    sim.run_for(Duration::secs(15));
    let member = sim.id(2);
    assert_eq!(sim.take_reply(id), Some(Err(Refusal::SurvivorLost { member })));
    let answer = recover(&mut sim, 1, &[0, 1]);
    assert!(matches!(answer, Ok(Outcome::Topology(topology::Outcome::Recovered { .. }))), "{answer:?}");
    assert!(sim.run_until(Duration::secs(20), |sim| is_served(sim, &[0, 1])), "it does not serve");
}

/// Two persons ask two survivors at once: never two clusters that serve, and whoever asks again gets one.
#[test]
fn two_recoveries_at_once_do_not_make_two_clusters() {
    for delay in 0..12 {
        let mut sim = cluster(7, 5);
        for place in [2, 3, 4] {
            sim.crash(place);
        }
        sim.run_for(Duration::secs(30));
        let survivors: Vec<_> = [0, 1].map(|place| sim.id(place)).into();
        sim.request(0, topology::Op::Recover { survivors: survivors.clone() }.into()).expect("it runs");
        sim.run_for(Duration::millis(delay));
        sim.request(1, topology::Op::Recover { survivors }.into()).expect("it runs");
        sim.run_for(Duration::secs(30));
        if !is_served(&sim, &[0, 1]) {
            let answer = recover(&mut sim, 0, &[0, 1]);
            assert!(answer.is_ok(), "{answer:?} after {delay} ms");
            assert!(sim.run_until(Duration::secs(20), |sim| is_served(sim, &[0, 1])), "after {delay} ms");
        }
        let cluster = |place: usize| sim.node(place).and_then(|n| n.view().chosen.as_ref()).map(|c| c.config.cluster);
        assert_eq!(cluster(0), cluster(1), "after {delay} ms");
    }
}

/// A survivor restarts while they merge: what it had merged before it merges and tells of again.
#[test]
fn a_restart_while_survivors_merge_blocks_nothing() {
    for delay in (0..1_000).step_by(50) {
        let mut sim = cluster(8, 5);
        put(&mut sim, 0, 1, "kept").expect("acknowledged");
        for place in [2, 3, 4] {
            sim.crash(place);
        }
        sim.run_for(Duration::secs(30));
        recover(&mut sim, 0, &[0, 1]).expect("it begins");
        sim.run_for(Duration::millis(delay));
        sim.crash(0);
        sim.start(0);
        assert!(sim.run_until(Duration::secs(30), |sim| is_served(sim, &[0, 1])), "after {delay} ms");
    }
}

/// A survivor is lost after the new cluster has begun and before it serves: it is begun anew without it.
#[test]
fn a_survivor_that_is_lost_while_they_merge_is_left_out() {
    let mut sim = cluster(9, 5);
    for place in [3, 4] {
        sim.crash(place);
    }
    sim.run_for(Duration::secs(30));
    recover(&mut sim, 0, &[0, 1, 2]).expect("it begins");
    sim.crash(2);
    sim.run_for(Duration::secs(20));
    assert!(!is_served(&sim, &[0, 1]), "what it holds is not merged");
    let answer = recover(&mut sim, 0, &[0, 1]);
    assert!(matches!(answer, Ok(Outcome::Topology(topology::Outcome::Recovered { .. }))), "{answer:?}");
    assert!(sim.run_until(Duration::secs(20), |sim| is_served(sim, &[0, 1])), "it does not serve");
}

/// A word to leave that comes late, from an attempt that is long over, pulls nobody out of the cluster that was founded
/// since; nor does one that nobody was surveyed for.
#[test]
fn nobody_leaves_for_a_recovery_that_is_over() {
    let mut sim = cluster(10, 5);
    let old = sim.node(0).and_then(|node| node.view().config()).expect("an epoch").cluster;
    for place in [3, 4] {
        sim.crash(place);
    }
    sim.run_for(Duration::secs(30));
    recover(&mut sim, 0, &[0, 1, 2]).expect("it begins");
    assert!(sim.run_until(Duration::secs(20), |sim| is_served(sim, &[0, 1, 2])), "it does not serve");
    let asker = sim.id(0);
    let generation = sim.node(1).and_then(|node| node.view().members.get(&asker)).expect("known").generation;
    let new = sim.node(1).and_then(|node| node.view().config()).expect("an epoch").clone();
    for (seq, from) in [(1, old), (2, new.cluster)] {
        let (op, to) = (OpId { node: asker, generation, seq }, ClusterId([9; 16]));
        let payload = topology::Msg::Leave { op, from, to }.into();
        sim.deliver(1, Envelope { from: asker, generation, seq: 1 << 30 | seq, epoch: new.epoch, payload });
        assert_eq!(sim.node(1).map(|node| node.view().left.is_some()), Some(false), "{seq}");
        put(&mut sim, 1, 1, "served").expect("acknowledged");
    }
}

/// One survivor has missed the last change: it hears of it before anybody leaves.
#[test]
fn survivors_know_the_same_epoch_before_they_leave() {
    let mut sim = cluster(11, 5);
    for other in [0, 2, 3, 4] {
        sim.network.cut(1, other);
        sim.network.cut(other, 1);
    }
    let steps = vec![topology::Step::Weight { member: sim.id(0), weight: 2 }];
    ask(&mut sim, 0, topology::Op::Change { steps }).expect("it begins");
    let epoch = |sim: &Sim, place: usize| sim.node(place).map(|node| node.view().epoch().0);
    assert!(sim.run_until(Duration::secs(30), |sim| epoch(sim, 0) == Some(3)), "the change does not end");
    for place in [2, 3, 4] {
        sim.crash(place);
    }
    sim.run_for(Duration::secs(30));
    assert_eq!(epoch(&sim, 1), Some(1));
    sim.network.heal_all();
    let survivors = [0, 1].map(|place| sim.id(place)).into();
    sim.request(1, topology::Op::Recover { survivors }.into()).expect("it runs");
    let left = |sim: &Sim| sim.node(1).and_then(|node| node.view().left.clone());
    assert!(sim.run_until(Duration::secs(20), |sim| left(sim).is_some()), "it does not leave");
    assert_eq!(left(&sim).map(|config| config.epoch.0), Some(3));
    assert!(sim.run_until(Duration::secs(20), |sim| is_served(sim, &[0, 1])), "it does not serve");
}

/// Registers live on with what any survivor has accepted last; their versions lie above all that the old cluster could
/// count to, so nobody takes a value of the new one for one of the old.
#[test]
fn registers_of_survivors_live_on_with_versions_above_all_before() {
    use qunlong_core::cell::{Change, Expiry, When};
    use qunlong_core::registers;
    let change =
        |n: usize, change: Change| registers::Op::Change { key: key(n), change, name: None, seen: 0, within: None };
    let set = |n, value: &str, when| change(n, Change::Put { value: Bytes::from(value), when, expiry: Expiry::Never });
    for (seed, servers, survivors) in [(1, 5, 2), (5, 7, 3)] {
        let mut sim = cluster(seed, servers as u8);
        for n in 0..60 {
            let version = ask(&mut sim, n % servers, set(n, "old", When::Always));
            assert!(matches!(version, Ok(Outcome::Registers(registers::Outcome::Changed { version: 1, .. }))));
        }
        (survivors..servers).for_each(|place| sim.crash(place));
        sim.run_for(Duration::secs(30));
        let alive: Vec<usize> = (0..survivors).collect();
        let accepted = |sim: &Sim, n| {
            let holds = |place: &usize| {
                let register = sim.node(*place).and_then(|node| node.registers().get(&key(n)));
                register.is_some_and(|register| register.accepted().is_some())
            };
            alive.iter().any(holds)
        };
        let held: Vec<bool> = (0..60).map(|n| accepted(&sim, n)).collect();
        assert!(held.contains(&true) && held.contains(&false), "some registers have survived, some not");
        assert!(ask(&mut sim, 0, set(99, "x", When::Always)).is_err(), "no majority is left");
        recover(&mut sim, 0, &alive).expect("they are there");
        assert!(sim.run_until(Duration::secs(60), |sim| is_served(sim, &alive)), "seed {seed}: it is not served");
        for (n, was_held) in held.into_iter().enumerate() {
            let place = n % survivors;
            let Ok(Outcome::Registers(registers::Outcome::Read { value, version, .. })) =
                ask(&mut sim, place, registers::Op::Get { key: key(n), within: None })
            else {
                panic!("register {n} cannot be read");
            };
            if was_held {
                assert_eq!((value, version), (Some(Bytes::from("old")), (1 << 32) + 1), "register {n}");
                let stale = ask(&mut sim, place, set(n, "new", When::Version(1)));
                assert_eq!(stale, Err(Refusal::Conflict { version }));
                assert!(ask(&mut sim, place, set(n, "new", When::Version(version))).is_ok());
            } else {
                assert_eq!((value, version), (None, 0), "register {n}");
            }
        }
    }
}

//! Members that are to own fetch what will be theirs before the change begins.

use qunlong_core::kv::{self, WriteContext};
use qunlong_core::lift::EventKind;
use qunlong_core::quorum::Level as Copies;
use qunlong_core::sim::cluster::Sim;
use qunlong_core::topology::{self, Step};
use qunlong_core::trace::Level;
use qunlong_core::{Bytes, Duration, Op, Outcome, Refusal};

/// Three servers own, a fourth runs beside them, and there is something to fetch.
fn cluster(learn_first: bool) -> Sim {
    let mut sim = Sim::with(7, 4, 0, 3, |config| {
        config.autopilot.enabled = false;
        config.autopilot.learn_first = learn_first;
        if let Some(bootstrap) = &mut config.bootstrap {
            bootstrap.owners = 3;
        }
    });
    sim.run_for(Duration::secs(10));
    for n in 0..400 {
        put(&mut sim, n);
    }
    sim.run_for(Duration::secs(2));
    sim.set_level(Level::Decisions);
    while sim.next_event().is_some() {}
    sim
}

/// The place without a seat. Place 0 has one: it made the first epoch.
fn newcomer(sim: &Sim) -> usize {
    let config = sim.node(0).and_then(|node| node.view().chosen.as_ref()).map(|chosen| &chosen.config);
    (0..sim.len()).find(|&place| config.is_some_and(|config| !config.seats(sim.id(place)))).expect("one is over")
}

fn put(sim: &mut Sim, n: u32) {
    let (key, value) = (Bytes::from(format!("key {n}").as_str()), Some(Bytes::from("x".repeat(900).as_str())));
    let op =
        kv::Op::Put { key, value, context: WriteContext::Current, write: None, stored: Copies::Majority, within: None };
    sim.request(0, Op::Kv(op)).expect("it runs");
    sim.run_for(Duration::millis(5));
}

fn add(sim: &mut Sim, place: usize) -> Result<Outcome, Refusal> {
    let steps = vec![Step::Add { member: sim.id(place), weight: 1 }];
    let id = sim.request(0, Op::Topology(topology::Op::Change { steps })).expect("it runs");
    assert!(sim.run_until(Duration::secs(30), |sim| sim.reply(id).is_some()), "no answer");
    sim.take_reply(id).expect("an answer")
}

/// Bytes that a place has fetched, in settled epochs and in joint ones.
fn fetched(sim: &mut Sim, place: usize) -> (u64, u64) {
    let (id, mut joint, mut sums) = (sim.id(place), false, (0, 0));
    while let Some(event) = sim.next_event() {
        if event.node != id {
            continue;
        }
        match event.kind {
            EventKind::Topology(topology::Event::Adopted(config)) => joint = config.next.is_some(),
            EventKind::Kv(kv::Event::Fetched { bytes, .. }) if joint => sums.1 += bytes,
            EventKind::Kv(kv::Event::Fetched { bytes, .. }) => sums.0 += bytes,
            _ => (),
        }
    }
    sums
}

fn is_settled(sim: &Sim) -> bool {
    let config = sim.node(0).and_then(|node| node.view().chosen.as_ref()).map(|chosen| &chosen.config);
    config.is_some_and(|config| config.epoch.0 == 3 && config.next.is_none())
}

#[test]
fn what_was_learnt_is_not_copied_again_while_the_change_is_under_way() {
    let mut sim = cluster(true);
    let place = newcomer(&sim);
    let answer = add(&mut sim, place);
    assert!(matches!(answer, Ok(Outcome::Topology(topology::Outcome::Learning { .. }))), "{answer:?}");
    assert!(sim.run_until(Duration::secs(30), is_settled), "the change does not end");
    let (before, during) = fetched(&mut sim, place);
    assert!(before > 100_000 && during == 0, "{before} bytes before, {during} during");

    let mut sim = cluster(false);
    let place = newcomer(&sim);
    let answer = add(&mut sim, place);
    assert!(matches!(answer, Ok(Outcome::Topology(topology::Outcome::Begun { .. }))), "{answer:?}");
    assert!(sim.run_until(Duration::secs(30), is_settled), "the change does not end");
    let (before, during) = fetched(&mut sim, place);
    assert!(before == 0 && during > 100_000, "{before} bytes before, {during} during");
}

/// What is written between the learning and the change arrives all the same, and costs what it weighs.
#[test]
fn what_was_written_since_is_fetched() {
    let mut sim = cluster(true);
    let place = newcomer(&sim);
    let steps = vec![Step::Add { member: sim.id(place), weight: 1 }];
    sim.request(0, Op::Topology(topology::Op::Change { steps })).expect("it runs");
    let mut n = 1_000;
    while !is_settled(&sim) {
        put(&mut sim, n);
        n += 1;
        assert!(n < 9_000, "the change does not end");
    }
    let (before, during) = fetched(&mut sim, place);
    assert!(before > 100_000 && during < before / 2, "{before} bytes before, {during} during");
    sim.run_for(Duration::secs(30));
    let owner = sim.node(place).expect("it runs");
    let chosen = owner.view().chosen.as_ref().expect("an epoch");
    let others = sim.node(0).expect("it runs").store();
    for n in (0..400).chain(1_000..n) {
        let key = Bytes::from(format!("key {n}").as_str());
        let owners = chosen.owners_of(&key).current;
        if owners.contains(&owner.id()) && owners.contains(&sim.id(0)) {
            assert!(others.get(&key).is_some() && owner.store().get(&key) == others.get(&key), "{key:?}");
        }
    }
}

#[test]
fn a_member_that_does_not_answer_gets_no_seat() {
    let mut sim = cluster(true);
    let place = newcomer(&sim);
    sim.pause(place, Duration::secs(60));
    let answer = add(&mut sim, place);
    assert!(matches!(answer, Ok(Outcome::Topology(topology::Outcome::Learning { .. }))), "{answer:?}");
    sim.run_for(Duration::secs(15));
    let node = sim.node(0).expect("it runs");
    let ended = node.followed().and_then(|followed| followed.ended.clone());
    assert_eq!(ended, Some(Err(Refusal::LearnerStalled { member: sim.id(place), have: 0, of: 0 })));
    assert_eq!(node.view().epoch().0, 1, "nothing was changed");
}

#[test]
fn a_change_that_waits_for_a_learner_can_be_given_up() {
    let mut sim = cluster(true);
    let place = newcomer(&sim);
    sim.pause(place, Duration::secs(60));
    add(&mut sim, place).expect("it learns");
    assert!(matches!(add(&mut sim, place), Err(Refusal::ConfigChangeInProgress { .. })));
    sim.run_for(Duration::millis(100));
    let other = (1..sim.len()).find(|&other| other != place).expect("another voter");
    let id = sim.request(other, Op::Topology(topology::Op::Change { steps: vec![Step::GiveUp] })).expect("it runs");
    sim.run_for(Duration::secs(1));
    let answer = sim.take_reply(id).expect("an answer");
    assert!(answer.is_ok(), "{answer:?}");
    let ended = sim.node(0).and_then(|node| node.followed()?.ended.clone());
    assert!(matches!(ended, Some(Err(Refusal::ConfigChangeInProgress { .. }))), "{ended:?}");
}

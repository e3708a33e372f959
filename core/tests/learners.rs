//! Members that are to own fetch what will be theirs before the change begins.

use qunlong_core::kv::{self, WriteContext};
use qunlong_core::lift::{EventKind, MessageKind};
use qunlong_core::placement::Partition;
use qunlong_core::quorum::Level as Copies;
use qunlong_core::sim::cluster::Sim;
use qunlong_core::topology::{self, Step};
use qunlong_core::trace::Level;
use qunlong_core::{Bytes, Duration, Instant, Op, Outcome, Refusal};

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

/// Two voters are asked at once, and both have the newcomer learn: the one with the lower id goes on.
#[test]
fn of_two_that_prepare_at_once_the_lower_goes_on() {
    let mut sim = cluster(true);
    let place = newcomer(&sim);
    sim.pause(place, Duration::secs(5));
    let mut voters: Vec<usize> = (0..sim.len()).filter(|&voter| voter != place).collect();
    voters.sort_by_key(|&voter| sim.id(voter));
    let steps = vec![Step::Add { member: sim.id(place), weight: 1 }];
    for &voter in voters[..2].iter().rev() {
        sim.request(voter, Op::Topology(topology::Op::Change { steps: steps.clone() })).expect("it runs");
    }
    sim.run_for(Duration::secs(1));
    let ended = |sim: &Sim, voter| sim.node(voter).and_then(|node| node.followed()).map(|f| f.ended.clone());
    assert_eq!(ended(&sim, voters[0]), Some(None), "the lower one still waits for the newcomer");
    let other = ended(&sim, voters[1]);
    assert!(matches!(other, Some(Some(Err(Refusal::ConfigChangeInProgress { .. })))), "{other:?}");
    assert!(sim.run_until(Duration::secs(30), is_settled), "and its change is made");
}

/// What was fetched for a change that was given up is of no use, and does not stay in memory.
#[test]
fn what_was_learnt_in_vain_is_dropped() {
    let mut sim = cluster(true);
    let place = newcomer(&sim);
    add(&mut sim, place).expect("it learns");
    let pages = |sim: &Sim| sim.node(place).map_or(0, |node| node.view().pages);
    assert!(sim.run_until(Duration::secs(10), |sim| pages(sim) > 3));
    let id = sim.request(0, Op::Topology(topology::Op::Change { steps: vec![Step::GiveUp] })).expect("it runs");
    sim.run_for(Duration::secs(20));
    assert!(sim.take_reply(id).is_some_and(|answer| answer.is_ok()));
    assert!(pages(&sim) > 3, "somebody might still ask");
    sim.run_for(Duration::secs(20));
    assert_eq!(pages(&sim), 0, "nobody has asked for long");
    // And it learns anew when it is wanted after all.
    add(&mut sim, place).expect("it learns");
    assert!(sim.run_until(Duration::secs(30), is_settled), "the change does not end");
}

/// One large partition over a slow way takes much longer than a newcomer may stand still: each page is headway.
#[test]
fn a_large_partition_over_a_slow_way_is_not_taken_for_a_standstill() {
    let mut sim = cluster(true);
    let place = newcomer(&sim);
    let id = sim.id(place);
    // Partitions are fetched from the last to the first, so the first one that will be its own is fetched alone.
    let chosen = sim.node(0).and_then(|node| node.view().chosen.clone()).expect("an epoch");
    let mut roster = chosen.config.current.clone();
    let seat = roster.storage.values().next().expect("a seat").clone();
    roster.storage.insert(id, seat);
    let placement = chosen.config.placement(&roster);
    let first =
        chosen.config.partitions().find(|&partition| placement.owners(partition).contains(&id)).expect("it owns some");
    let keys = (0..).map(|n| Bytes::from(format!("large {n}").as_str())).filter(|key| Partition::of(key) == first);
    for key in keys.take(40) {
        let value = Some(Bytes::from("x".repeat(60_000).as_str()));
        let (context, stored) = (WriteContext::Current, Copies::Majority);
        let op = kv::Op::Put { key, value, context, write: None, stored, within: None };
        sim.request(0, Op::Kv(op)).expect("it runs");
        sim.run_for(Duration::millis(50));
    }
    for other in (0..sim.len()).filter(|&other| other != place) {
        sim.network.slow(place, other, Duration::millis(400));
        sim.network.slow(other, place, Duration::millis(400));
    }
    let answer = add(&mut sim, place);
    assert!(matches!(answer, Ok(Outcome::Topology(topology::Outcome::Learning { .. }))), "{answer:?}");
    let ended = |sim: &Sim| sim.node(0).and_then(|node| node.followed()?.ended.clone());
    let mut have = Vec::new();
    while ended(&sim).is_none() {
        sim.run_for(Duration::secs(1));
        let followed = sim.node(0).and_then(|node| node.followed()).expect("a change that is followed");
        have.push(followed.newcomers[&id].have);
        assert!(have.len() < 300, "it does not end");
    }
    assert!(matches!(ended(&sim), Some(Ok(_))), "{:?} after {} s", ended(&sim), have.len());
    let still = have.chunk_by(|a, b| a == b).map(<[_]>::len).max();
    assert!(still > Some(15), "no partition took long: {have:?}");
}

/// A member that could not learn is left alone for a while by all autopilots, and gets its seat later.
#[test]
fn a_member_that_stalled_is_spared_for_a_while() {
    let mut sim = Sim::with(7, 4, 0, 3, |config| {
        config.autopilot.promote_after = Duration::secs(3);
        if let Some(bootstrap) = &mut config.bootstrap {
            bootstrap.owners = 3;
        }
    });
    sim.set_level(Level::Decisions);
    assert!(sim.run_until(Duration::secs(10), |sim| sim.node(0).is_some_and(|node| node.view().chosen.is_some())));
    let place = newcomer(&sim);
    let (id, seats) = (sim.id(place), |sim: &Sim, id| {
        sim.node(0).and_then(|node| node.view().chosen.as_ref()).is_some_and(|chosen| chosen.config.seats(id))
    });
    // It lives and is heard, and none of what owners send it arrives.
    let (mut stalls, mut asked, mut stalled_at) = (0, 0, None);
    sim.withhold(place, MessageKind::Transfer, true);
    while stalls == 0 || stalled_at.is_some_and(|at| sim.now().since(at) < Duration::secs(50)) {
        sim.run_for(Duration::secs(1));
        while let Some(event) = sim.next_event() {
            match event.kind {
                EventKind::Topology(topology::Event::Stalled { member }) => {
                    assert_eq!(member, id);
                    (stalls, stalled_at) = (stalls + 1, Some(sim.now()));
                    asked = 0;
                }
                EventKind::Topology(topology::Event::Autopilot { .. }) => asked += 1,
                _ => (),
            }
        }
        assert!(sim.now() < Instant(0) + Duration::secs(120), "nobody stalls");
    }
    assert_eq!((stalls, asked), (1, 0), "left alone");
    sim.withhold(place, MessageKind::Transfer, false);
    assert!(sim.run_until(Duration::secs(40), |sim| seats(sim, id)), "and given a seat later");
}

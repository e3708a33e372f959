//! Registers of mode atomic, by way of the simulator: no consensus, no preferred owner, and no read that goes back.

use qunlong_core::cell::{Change, Expiry, When};
use qunlong_core::lift::{EventKind, MessageKind};
use qunlong_core::namespace::{Mode, Namespace, key_in};
use qunlong_core::registers::{Op, Outcome};
use qunlong_core::sim::cluster::Sim;
use qunlong_core::topology::{self, Step};
use qunlong_core::trace::Level;
use qunlong_core::{Bytes, Duration, Name, Outcome as AnyOutcome, Refusal, RequestId, WriteId};

fn cluster(seed: u64, servers: u8) -> Sim {
    let mut sim = Sim::with(seed, servers, 0, 3, |config| config.autopilot.enabled = false);
    sim.run_for(Duration::secs(10));
    let namespace = Namespace { mode: Mode::Atomic, replicas: 0 };
    let steps = vec![Step::Create { name: "a".to_owned(), namespace }];
    let id = sim.request(0, topology::Op::Change { steps }.into()).expect("it runs");
    assert!(sim.run_until(Duration::secs(5), |sim| sim.reply(id).is_some_and(Result::is_ok)));
    sim.run_for(Duration::secs(2));
    sim
}

fn begin(sim: &mut Sim, place: usize, op: Op) -> RequestId {
    sim.request(place, op.into()).expect("it runs")
}

fn ask(sim: &mut Sim, place: usize, op: Op) -> Result<Outcome, Refusal> {
    let id = begin(sim, place, op);
    assert!(sim.run_until(Duration::secs(40), |sim| sim.reply(id).is_some()), "no answer");
    match sim.take_reply(id).expect("an answer")? {
        AnyOutcome::Registers(outcome) => Ok(outcome),
        other => panic!("an answer to another question: {other:?}"),
    }
}

fn change(change: Change) -> Op {
    Op::Change { key: key_in("a", b"k"), change, name: None, seen: 0, within: None }
}

fn set(value: &str) -> Op {
    change(Change::Put { value: Bytes::from(value), when: When::Always, expiry: Expiry::Never })
}

fn read(sim: &mut Sim, place: usize) -> Option<String> {
    match ask(sim, place, Op::Get { key: key_in("a", b"k"), within: None }) {
        Ok(Outcome::Read { value, .. }) => value.map(|value| value.to_string()),
        other => panic!("not read: {other:?}"),
    }
}

#[test]
fn what_was_set_through_any_node_is_read_through_any_other() {
    let mut sim = cluster(1, 5);
    assert_eq!(read(&mut sim, 4), None);
    for place in 0..5 {
        ask(&mut sim, place, set(&format!("by {place}"))).expect("done");
        for reader in 0..5 {
            assert_eq!(read(&mut sim, reader), Some(format!("by {place}")));
        }
    }
    ask(&mut sim, 3, change(Change::Delete { when: When::Always })).expect("done");
    assert_eq!(read(&mut sim, 0), None);
}

/// What needs to know what is there before needs consensus.
#[test]
fn conditions_counters_deadlines_and_names_are_refused() {
    let mut sim = cluster(1, 3);
    let wrong = Err(Refusal::WrongMode { mode: Mode::Atomic });
    let put = |when, expiry| Change::Put { value: Bytes::from("v"), when, expiry };
    for refused in [
        put(When::Version(0), Expiry::Never),
        put(When::Holds(None), Expiry::Never),
        put(When::Always, Expiry::Keep),
        Change::Increment { by: 1 },
        Change::Append { suffix: Bytes::from("x") },
        Change::Delete { when: When::Exists },
    ] {
        assert_eq!(ask(&mut sim, 1, change(refused)), wrong);
    }
    let named = Op::Change {
        key: key_in("a", b"k"),
        change: put(When::Always, Expiry::Never),
        name: Some(Name::single(WriteId([1; 16]))),
        seen: 0,
        within: None,
    };
    assert_eq!(ask(&mut sim, 1, named), wrong, "nobody could tell whether it was carried out before");
    assert_eq!(read(&mut sim, 2), None, "nothing has happened");
}

/// A write has reached one owner alone when its writer dies. Whoever reads it has a majority store it first, so no later
/// read can miss it, also where that owner is gone (T1).
#[test]
fn a_read_that_saw_a_write_leaves_it_with_a_majority() {
    let mut seen = 0;
    for seed in 1..=12 {
        let mut sim = cluster(seed, 4);
        ask(&mut sim, 0, set("old")).expect("done");
        let key = sim.node(0).and_then(|node| node.registers().iter().next()).map(|(key, _)| key.clone());
        let chosen = sim.node(0).and_then(|node| node.view().chosen.clone()).expect("an epoch");
        let owns = |place: &usize| key.as_ref().is_none_or(|key| chosen.owners_of(key).contains(sim.id(*place)));
        let (owners, others): (Vec<usize>, Vec<usize>) = (0..4).partition(owns);
        let (&[one, another, holds], &[writer]) = (&owners[..], &others[..]) else { continue };
        // What the writer has stored reaches one owner and no other before it dies.
        for owner in [one, another] {
            sim.withhold(owner, MessageKind::Keep, true);
        }
        begin(&mut sim, writer, set("new"));
        sim.run_for(Duration::millis(50));
        sim.crash(writer);
        for owner in [one, another] {
            sim.withhold(owner, MessageKind::Keep, false);
        }
        let first = read(&mut sim, one);
        sim.crash(holds);
        let second = read(&mut sim, another);
        assert!(first == second || second.as_deref() == Some("new"), "seed {seed}: {first:?}, then {second:?}");
        seen += usize::from(first.as_deref() == Some("new"));
    }
    assert!(seen > 0, "nobody has read what one owner alone held");
}

/// Writers through all nodes at once wait for nobody: two round trips each, whoever else writes.
#[test]
fn writers_do_not_outbid_each_other() {
    let mut sim = cluster(2, 5);
    sim.set_level(Level::Messages);
    let ids: Vec<RequestId> = (0..50).map(|n| begin(&mut sim, n % 5, set(&format!("v{n}")))).collect();
    assert!(sim.run_until(Duration::secs(2), |sim| ids.iter().all(|&id| sim.reply(id).is_some())));
    for id in ids {
        assert!(sim.take_reply(id).is_some_and(|reply| reply.is_ok()));
    }
    let mut refused = 0;
    while let Some(event) = sim.next_event() {
        let outbid = matches!(event.kind, EventKind::Sent { kind: MessageKind::Outbid | MessageKind::Prepare, .. });
        refused += u32::from(outbid);
    }
    assert_eq!(refused, 0);
    let value = read(&mut sim, 0);
    for place in 1..5 {
        assert_eq!(read(&mut sim, place), value);
    }
}

/// The owners change, one after the other, until nobody of the first ones is left; what was written goes with them.
#[test]
fn what_was_written_goes_where_its_owners_go() {
    let mut sim = Sim::with(5, 6, 0, 3, |config| {
        config.autopilot.enabled = false;
        if let Some(bootstrap) = &mut config.bootstrap {
            bootstrap.owners = 3;
        }
    });
    sim.run_for(Duration::secs(10));
    let namespace = Namespace { mode: Mode::Atomic, replicas: 0 };
    let steps = vec![Step::Create { name: "a".to_owned(), namespace }];
    let _ = sim.request(0, topology::Op::Change { steps }.into());
    sim.run_for(Duration::secs(2));
    ask(&mut sim, 0, set("kept")).expect("done");
    let seated = |sim: &Sim, place: usize| {
        let node = (0..sim.len()).filter_map(|place| sim.node(place)).max_by_key(|node| node.view().epoch());
        let chosen = node.and_then(|node| node.view().chosen.clone()).expect("an epoch");
        (chosen.config.seats(sim.id(place)), chosen.config.next.is_some())
    };
    let before: Vec<usize> = (0..6).filter(|&place| seated(&sim, place).0).collect();
    let after: Vec<usize> = (0..6).filter(|place| !before.contains(place)).collect();
    for (&old, &new) in before.iter().zip(&after) {
        let steps = vec![Step::Add { member: sim.id(new), weight: 1 }, Step::Remove { member: sim.id(old) }];
        let _ = sim.request(new, topology::Op::Change { steps }.into());
        let moved = |sim: &Sim| seated(sim, new) == (true, false) && !seated(sim, old).0;
        assert!(sim.run_until(Duration::secs(60), moved), "the change does not end");
        sim.run_for(Duration::secs(1));
    }
    before.iter().for_each(|&place| sim.crash(place));
    assert_eq!(read(&mut sim, after[0]).as_deref(), Some("kept"));
}

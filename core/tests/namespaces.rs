//! Namespaces, by way of the simulator: what each promises, on how many owners, and what is refused.

use std::collections::BTreeSet;

use qunlong_core::cell::{Change, Expiry, When};
use qunlong_core::kv::{self, WriteContext};
use qunlong_core::namespace::{Mode, Namespace, key_in};
use qunlong_core::placement::Partition;
use qunlong_core::quorum::Level;
use qunlong_core::registers;
use qunlong_core::sim::cluster::Sim;
use qunlong_core::topology::{self, Step};
use qunlong_core::{Bytes, Duration, Epoch, Op, Outcome, Refusal};

fn cluster(servers: u8) -> Sim {
    let mut sim = Sim::with(1, servers, 0, 3, |config| {
        config.autopilot.enabled = false;
        // Of five servers, two are in one zone and three in the other.
        config.profile.zone = if config.profile.name.ends_with(['1', '2']) { "east" } else { "west" }.to_owned();
    });
    sim.run_for(Duration::secs(10));
    sim
}

fn ask(sim: &mut Sim, place: usize, op: impl Into<Op>) -> Result<Outcome, Refusal> {
    let id = sim.request(place, op.into()).expect("it runs");
    assert!(sim.run_until(Duration::secs(40), |sim| sim.reply(id).is_some()), "no answer");
    sim.take_reply(id).expect("an answer")
}

fn create(sim: &mut Sim, place: usize, name: &str, mode: Mode, replicas: u8) -> Result<Outcome, Refusal> {
    let steps = vec![Step::Create { name: name.to_owned(), namespace: Namespace { mode, replicas } }];
    let answer = ask(sim, place, topology::Op::Change { steps });
    sim.run_for(Duration::secs(2));
    answer
}

fn set(namespace: &str, key: &str, value: &str) -> registers::Op {
    let change = Change::Put { value: Bytes::from(value), when: When::Always, expiry: Expiry::Never };
    registers::Op::Change { key: key_in(namespace, key.as_bytes()), change, name: None, seen: 0, within: None }
}

fn put(namespace: &str, key: &str, value: &str, stored: Level) -> kv::Op {
    let (key, value) = (key_in(namespace, key.as_bytes()), Some(Bytes::from(value)));
    kv::Op::Put { key, value, context: WriteContext::Current, write: None, stored, within: None }
}

fn get(namespace: &str, key: &str, read: Level) -> kv::Op {
    kv::Op::Get { key: key_in(namespace, key.as_bytes()), read, within: None }
}

/// Places that hold a key, as the cluster calls it.
fn holders(sim: &Sim, namespace: &str, key: &str, mode: Mode) -> Vec<usize> {
    let config = &sim.node(0).expect("it runs").view().chosen.as_ref().expect("an epoch").config;
    let (inside, _) = config.namespaces.resolve(key_in(namespace, key.as_bytes()), mode).expect("it is there");
    let holds = |place: &usize| {
        let node = sim.node(*place).expect("it runs");
        node.store().get(&inside).is_some() || node.registers().get(&inside).is_some()
    };
    (0..sim.len()).filter(holds).collect()
}

#[test]
fn each_namespace_has_its_own_keys_copies_and_promise() {
    let mut sim = cluster(5);
    assert!(create(&mut sim, 3, "orders", Mode::Consensus, 5).is_ok());
    assert!(create(&mut sim, 4, "carts", Mode::Quorum, 4).is_ok());
    assert!(create(&mut sim, 0, "notes", Mode::Consensus, 0).is_ok());
    for place in 0..5 {
        assert_eq!(sim.node(place).map(|node| node.view().epoch()), Some(Epoch(4)));
    }
    ask(&mut sim, 0, set("orders", "k", "in orders")).expect("done");
    ask(&mut sim, 1, set("notes", "k", "in notes")).expect("done");
    ask(&mut sim, 2, set("registers", "k", "in none")).expect("done");
    ask(&mut sim, 3, put("carts", "k", "in carts", Level::Usual)).expect("done");
    ask(&mut sim, 3, put("default", "k", "in default", Level::Usual)).expect("done");
    for (namespace, expected) in [("orders", "in orders"), ("notes", "in notes"), ("registers", "in none")] {
        let op = registers::Op::Get { key: key_in(namespace, b"k"), within: None };
        let Ok(Outcome::Registers(registers::Outcome::Read { value, .. })) = ask(&mut sim, 4, op) else { panic!() };
        assert_eq!(value, Some(Bytes::from(expected)));
    }
    sim.run_for(Duration::secs(2));
    let counts = [("orders", Mode::Consensus, 5), ("notes", Mode::Consensus, 3), ("carts", Mode::Quorum, 4)];
    for (namespace, mode, copies) in counts {
        assert_eq!(holders(&sim, namespace, "k", mode).len(), copies, "{namespace}");
    }
}

#[test]
fn what_a_namespace_does_not_promise_is_refused_and_nothing_happens() {
    let mut sim = cluster(3);
    create(&mut sim, 0, "orders", Mode::Consensus, 0).expect("created");
    create(&mut sim, 0, "carts", Mode::Quorum, 0).expect("created");
    create(&mut sim, 0, "likes", Mode::Eventual, 0).expect("created");
    let consensus = Err(Refusal::WrongMode { mode: Mode::Consensus });
    assert_eq!(ask(&mut sim, 1, put("orders", "k", "v", Level::Usual)), consensus);
    assert_eq!(ask(&mut sim, 1, get("orders", "k", Level::Usual)), consensus);
    assert_eq!(ask(&mut sim, 1, get("registers", "k", Level::Usual)), consensus);
    for (namespace, mode) in [("carts", Mode::Quorum), ("likes", Mode::Eventual), ("default", Mode::Quorum)] {
        assert_eq!(ask(&mut sim, 2, set(namespace, "k", "v")), Err(Refusal::WrongMode { mode }));
    }
    assert_eq!(ask(&mut sim, 2, set("nowhere", "k", "v")), Err(Refusal::NoNamespace));
    assert_eq!(ask(&mut sim, 2, put("default", "\0k", "v", Level::Usual)), Err(Refusal::NoNamespace));
    let weak = Err(Refusal::BadLevel { replicas: 3 });
    assert_eq!(ask(&mut sim, 2, put("carts", "k", "v", Level::Count(1))), weak);
    assert_eq!(ask(&mut sim, 2, get("carts", "k", Level::LocalZone)), weak);
    assert!(
        (0..3).all(|place| sim.node(place).is_some_and(|node| node.store().is_empty() && node.registers().is_empty()))
    );
    let exists = Refusal::NamespaceExists { mode: Mode::Quorum, replicas: 0 };
    assert_eq!(create(&mut sim, 1, "carts", Mode::Eventual, 0), Err(exists));
    assert_eq!(create(&mut sim, 1, "carts", Mode::Quorum, 0), Err(Refusal::NoChange));
    assert_eq!(create(&mut sim, 1, "many", Mode::Quorum, 5), Err(Refusal::TooFewMembers { replicas: 5 }));
}

/// In an eventual namespace one owner is enough, and the others learn of it when they are back.
#[test]
fn an_eventual_namespace_goes_on_with_one_owner() {
    let mut sim = cluster(3);
    create(&mut sim, 0, "likes", Mode::Eventual, 0).expect("created");
    create(&mut sim, 0, "carts", Mode::Quorum, 0).expect("created");
    sim.crash(1);
    sim.crash(2);
    sim.run_for(Duration::secs(15));
    ask(&mut sim, 0, put("likes", "k", "alone", Level::Usual)).expect("one is enough");
    assert!(ask(&mut sim, 0, put("likes", "k", "together", Level::Majority)).is_err());
    assert!(ask(&mut sim, 0, put("carts", "k", "together", Level::Usual)).is_err());
    let Ok(Outcome::Kv(kv::Outcome::Read { versions, answered })) = ask(&mut sim, 0, get("likes", "k", Level::Usual))
    else {
        panic!("not read")
    };
    assert!(versions.values().count() >= 1 && answered.len() == 1);
    sim.start(1);
    sim.start(2);
    let equal = |sim: &Sim| holders(sim, "likes", "k", Mode::Eventual).len() == 3;
    assert!(sim.run_until(Duration::secs(10), equal), "the others never learn of it");
}

/// A level of the zone asks owners there, and needs nobody else.
#[test]
fn a_zone_of_its_own_is_enough_where_nothing_more_is_promised() {
    let mut sim = cluster(5);
    create(&mut sim, 0, "likes", Mode::Eventual, 5).expect("created");
    let east: Vec<usize> = (0..5)
        .filter(|&place| sim.node(place).is_some_and(|node| node.view().members[&node.id()].profile.zone == "east"))
        .collect();
    assert_eq!(east.len(), 2);
    for place in (0..5).filter(|place| !east.contains(place)) {
        sim.crash(place);
    }
    sim.run_for(Duration::secs(15));
    ask(&mut sim, east[0], put("likes", "k", "v", Level::LocalZone)).expect("both of the zone are there");
    let answer = ask(&mut sim, east[1], get("likes", "k", Level::LocalZone));
    let Ok(Outcome::Kv(kv::Outcome::Read { answered, .. })) = answer else { panic!("{answer:?}") };
    let ids: BTreeSet<_> = east.iter().map(|&place| sim.id(place)).collect();
    assert_eq!(answered.into_iter().collect::<BTreeSet<_>>(), ids);
    assert!(ask(&mut sim, east[0], put("likes", "k", "w", Level::Majority)).is_err());
}

/// Listings are of one namespace, and in pages.
#[test]
fn a_listing_is_of_one_namespace() {
    let mut sim = cluster(3);
    create(&mut sim, 0, "carts", Mode::Quorum, 2).expect("created");
    for n in 0..5 {
        ask(&mut sim, n % 3, put("carts", &format!("c{n}"), "v", Level::Usual)).expect("done");
        ask(&mut sim, n % 3, put("default", &format!("d{n}"), "v", Level::Usual)).expect("done");
    }
    let mut list = |prefix: Bytes, after: Option<Bytes>| {
        let op = kv::Op::List { prefix, after, limit: 3, within: None };
        let Ok(Outcome::Kv(kv::Outcome::Listed { entries, next, .. })) = ask(&mut sim, 1, op) else { panic!() };
        (entries.into_iter().map(|(key, _)| key.to_string()).collect::<Vec<_>>(), next)
    };
    let (first, next) = list(key_in("carts", b""), None);
    assert_eq!(first, ["carts/c0", "carts/c1", "carts/c2"]);
    assert_eq!(Partition::of(next.as_deref().expect("there are more")).class(), 2);
    let (second, next) = list(key_in("carts", b""), next);
    assert_eq!((second, next), (vec!["carts/c3".to_owned(), "carts/c4".to_owned()], None));
    let (none, next) = list(Bytes::default(), None);
    assert_eq!(none, ["d0", "d1", "d2"]);
    assert_eq!(list(Bytes::default(), next).0, ["d3", "d4"]);
    assert_eq!(list(key_in("default", b"d4"), None).0, ["d4"]);
}

/// Members come and go: what has more copies than the cluster's own number is taken over like everything else.
#[test]
fn what_has_more_copies_goes_where_its_owners_go() {
    let mut sim = Sim::with(3, 6, 0, 3, |config| {
        config.autopilot.enabled = false;
        if let Some(bootstrap) = &mut config.bootstrap {
            bootstrap.owners = 5;
        }
    });
    sim.run_for(Duration::secs(10));
    create(&mut sim, 0, "orders", Mode::Consensus, 5).expect("created");
    create(&mut sim, 0, "carts", Mode::Quorum, 5).expect("created");
    for n in 0..60 {
        ask(&mut sim, n % 6, set("orders", &format!("k{n}"), "v")).expect("done");
        ask(&mut sim, n % 6, put("carts", &format!("k{n}"), "v", Level::Usual)).expect("done");
    }
    let seats = |sim: &Sim, place: usize| {
        sim.node(0).is_some_and(|node| node.view().chosen.as_ref().is_some_and(|c| c.config.seats(sim.id(place))))
    };
    let newcomer = (0..6).find(|&place| !seats(&sim, place)).expect("one has no seat");
    let old = (1..6).find(|&place| place != newcomer).expect("another one");
    let steps = vec![Step::Add { member: sim.id(newcomer), weight: 1 }, Step::Remove { member: sim.id(old) }];
    let _ = sim.request(newcomer, Op::from(topology::Op::Change { steps }));
    let done = |sim: &Sim| {
        let settled = |node: &qunlong_core::Node| node.view().chosen.as_ref().is_some_and(|c| c.config.next.is_none());
        seats(sim, newcomer) && !seats(sim, old) && (0..6).all(|place| sim.node(place).is_some_and(settled))
    };
    assert!(sim.run_until(Duration::secs(60), done), "the change does not end");
    sim.run_for(Duration::secs(3));
    for n in 0..60 {
        let key = format!("k{n}");
        let carts = holders(&sim, "carts", &key, Mode::Quorum);
        assert!(carts.len() == 5 && carts.contains(&newcomer) && !carts.contains(&old), "{key}: {carts:?}");
        // Of registers a majority is enough.
        let orders = holders(&sim, "orders", &key, Mode::Consensus);
        assert!(orders.len() >= 3 && !orders.contains(&old), "{key}: {orders:?}");
        let get = registers::Op::Get { key: key_in("orders", key.as_bytes()), within: None };
        let Ok(Outcome::Registers(registers::Outcome::Read { value, .. })) = ask(&mut sim, newcomer, get) else {
            panic!()
        };
        assert_eq!(value, Some(Bytes::from("v")));
    }
}

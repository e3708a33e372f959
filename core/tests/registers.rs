//! Registers, by way of the simulator: what they answer, whom they ask, and what they survive.

use qunlong_core::cell::{Change, Expiry, When};
use qunlong_core::lift::{EventKind, MessageKind, Payload};
use qunlong_core::registers::{self, Op, Outcome};
use qunlong_core::sim::cluster::{EPOCH_WALL, Sim};
use qunlong_core::topology::{self, Step};
use qunlong_core::trace::Level;
use qunlong_core::wire::Envelope;
use qunlong_core::{Bytes, Duration, Epoch, Name, NodeId, OpId, Refusal, RequestId, WallTime, WriteId};

fn cluster(seed: u64, servers: u8) -> Sim {
    let mut sim = Sim::with(seed, servers, 0, 3, |config| config.autopilot.enabled = false);
    sim.run_for(Duration::secs(10));
    sim
}

fn begin(sim: &mut Sim, place: usize, op: Op) -> RequestId {
    sim.request(place, op.into()).expect("it runs")
}

fn end(sim: &mut Sim, id: RequestId) -> Result<Outcome, Refusal> {
    assert!(sim.run_until(Duration::secs(40), |sim| sim.reply(id).is_some()), "no answer");
    match sim.take_reply(id).expect("an answer")? {
        qunlong_core::Outcome::Registers(outcome) => Ok(outcome),
        other => panic!("an answer to another question: {other:?}"),
    }
}

fn ask(sim: &mut Sim, place: usize, op: Op) -> Result<Outcome, Refusal> {
    let id = begin(sim, place, op);
    end(sim, id)
}

fn change(key: &str, change: Change) -> Op {
    Op::Change { key: Bytes::from(key), change, name: None, seen: 0, within: None }
}

fn put(key: &str, value: &str, when: When) -> Op {
    change(key, Change::Put { value: Bytes::from(value), when, expiry: Expiry::Never })
}

fn add(key: &str, by: i64) -> Op {
    change(key, Change::Increment { by })
}

fn get(sim: &mut Sim, place: usize, key: &str) -> (Option<Bytes>, u64) {
    match ask(sim, place, Op::Get { key: Bytes::from(key), within: None }) {
        Ok(Outcome::Read { value, version, .. }) => (value, version),
        other => panic!("not read: {other:?}"),
    }
}

fn version(outcome: Result<Outcome, Refusal>) -> u64 {
    match outcome {
        Ok(Outcome::Changed { version, .. }) => version,
        other => panic!("not changed: {other:?}"),
    }
}

#[test]
fn what_was_written_is_read_at_any_node_and_conditions_hold() {
    let mut sim = cluster(1, 5);
    assert_eq!(get(&mut sim, 3, "k"), (None, 0));
    for place in 0..5 {
        let value = format!("by {place}");
        assert_eq!(version(ask(&mut sim, place, put("k", &value, When::Version(place as u64)))), place as u64 + 1);
        for reader in 0..5 {
            assert_eq!(get(&mut sim, reader, "k"), (Some(Bytes::from(value.as_str())), place as u64 + 1));
        }
    }
    let stale = ask(&mut sim, 1, put("k", "too late", When::Version(3)));
    assert_eq!(stale, Err(Refusal::Conflict { version: 5 }));
    assert_eq!(ask(&mut sim, 2, add("k", 1)), Err(Refusal::NotANumber));
    assert_eq!(version(ask(&mut sim, 4, change("k", Change::Delete { when: When::Always }))), 6);
    assert_eq!(get(&mut sim, 0, "k"), (None, 6));
}

/// Everybody adds to one number at once, from every node: nothing is lost, nothing counted twice, and it takes few
/// rounds because those who wait share one.
#[test]
fn a_counter_that_everybody_wants() {
    for seed in 1..=5 {
        let mut sim = cluster(seed, 5);
        sim.set_level(Level::Decisions);
        let asked: Vec<RequestId> = (0..200).map(|n| begin(&mut sim, n % 5, add("n", 1))).collect();
        let mut seen: Vec<u64> = asked.into_iter().map(|id| version(end(&mut sim, id))).collect();
        seen.sort_unstable();
        assert_eq!(seen, (1..=200).collect::<Vec<u64>>(), "seed {seed}: each has made a version of its own");
        assert_eq!(get(&mut sim, 0, "n").0, Some(Bytes::from("200")));
        let mut rounds = 0;
        while let Some(event) = sim.next_event() {
            rounds += u32::from(matches!(event.kind, EventKind::Registers(registers::Event::Proposed { .. })));
        }
        assert!(rounds < 40, "seed {seed}: {rounds} rounds for 200 requests");
    }
}

/// The second change of a key needs no Prepare; after somebody else has proposed, the next one does.
#[test]
fn the_next_ballot_is_promised_with_the_value() {
    let mut sim = cluster(1, 3);
    sim.set_level(Level::Messages);
    let prepares = |sim: &mut Sim, place: usize, value: &str| {
        while sim.next_event().is_some() {}
        assert!(ask(sim, place, put("k", value, When::Always)).is_ok());
        let mut count = 0;
        while let Some(event) = sim.next_event() {
            count += usize::from(matches!(event.kind, EventKind::Sent { kind: MessageKind::Prepare, .. }));
        }
        count
    };
    assert!(prepares(&mut sim, 0, "a") > 0);
    assert_eq!(prepares(&mut sim, 1, "b"), 0);
    assert_eq!(prepares(&mut sim, 2, "c"), 0);
    // The proposer that everybody prefers is gone: another one has to prepare, and is preferred from then on.
    let proposer = preferred(&sim, "k");
    sim.crash(proposer);
    sim.run_for(Duration::secs(15));
    let other = (proposer + 1) % 3;
    assert!(prepares(&mut sim, other, "d") > 0);
    assert_eq!(prepares(&mut sim, other, "e"), 0);
    sim.start(proposer);
    sim.run_for(Duration::secs(15));
    assert!(prepares(&mut sim, other, "f") > 0, "it has forgotten what was promised to it");
}

fn preferred(sim: &Sim, key: &str) -> usize {
    let chosen = sim.node(0).and_then(|node| node.view().chosen.clone()).expect("an epoch");
    let first: NodeId = chosen.owners_of(key.as_bytes()).current[0];
    (0..sim.len()).find(|&place| sim.id(place) == first).expect("it has a place")
}

/// A request that comes again under its name, through another node, is answered and not carried out; where so much has
/// happened since that nobody can know, it is refused.
#[test]
fn a_request_is_carried_out_once() {
    let mut sim = cluster(3, 3);
    let named = |session: u8, by| Op::Change {
        key: Bytes::from("n"),
        change: Change::Increment { by },
        name: Some(Name::single(WriteId([session; 16]))),
        seen: 0,
        within: None,
    };
    let first = ask(&mut sim, 0, named(200, 5));
    assert_eq!(ask(&mut sim, 1, named(200, 5)), first);
    for _ in 0..100 {
        ask(&mut sim, 2, add("n", 1)).expect("done");
    }
    assert_eq!(ask(&mut sim, 2, named(200, 5)), first, "others are fast: it is remembered");
    for session in 0..64 {
        let Op::Change { key, change, name, within, .. } = named(session, 1) else { panic!("a change") };
        ask(&mut sim, 1, Op::Change { key, change, name, seen: 101, within }).expect("done");
    }
    assert_eq!(ask(&mut sim, 2, named(200, 5)), Err(Refusal::SessionExpired { version: 165 }), "others are many");
    assert_eq!(get(&mut sim, 1, "n"), (Some(Bytes::from("169")), 165));
}

/// A value is wanted for a while: whoever finds that over, a reader, a writer or an owner, removes it, which makes a
/// version; and owners whose clocks differ never tell different things.
#[test]
fn a_value_whose_time_has_passed_is_removed_and_not_hidden() {
    let mut sim = cluster(1, 3);
    let until = |sim: &Sim, key: &str, span: Duration| {
        let at = EPOCH_WALL + sim.now().0 + span.0;
        change(key, Change::Put { value: Bytes::from("7"), when: When::Always, expiry: Expiry::At(WallTime(at)) })
    };
    for key in ["read", "written", "left"] {
        let op = until(&sim, key, Duration::secs(3));
        assert_eq!(version(ask(&mut sim, 1, op)), 1);
        assert_eq!(get(&mut sim, 2, key), (Some(Bytes::from("7")), 1));
    }
    sim.run_for(Duration::millis(2_500));
    assert_eq!(get(&mut sim, 2, "read"), (Some(Bytes::from("7")), 1));
    // Nobody's timer has come by then, for it looks once a second.
    sim.run_for(Duration::millis(501));
    assert_eq!(get(&mut sim, 0, "read"), (None, 2));
    assert_eq!(version(ask(&mut sim, 2, add("written", 1))), 3, "the removal made one, too");
    assert_eq!(get(&mut sim, 0, "written").0, Some(Bytes::from("1")));
    sim.run_for(Duration::secs(2));
    let holds = |place: usize| {
        let (_, cell) =
            sim.node(place).expect("it runs").registers().get(b"left").expect("kept").accepted().expect("it");
        (cell.value().cloned(), cell.version())
    };
    assert_eq!((holds(0), holds(1), holds(2)), ((None, 2), (None, 2), (None, 2)), "nobody has asked");
    // One clock is an hour ahead: what it removes is gone for all, and nothing comes back.
    let op = until(&sim, "early", Duration::secs(1_000));
    ask(&mut sim, 1, op).expect("done");
    let ahead = preferred(&sim, "early");
    sim.set_wall(ahead, 3_600_000_000);
    sim.run_for(Duration::secs(2));
    for place in 0..3 {
        assert_eq!(get(&mut sim, place, "early"), (None, 2));
    }
}

/// Registers that hold a value are listed in order and in pages, deleted ones are not, with one owner down as well.
#[test]
fn registers_are_listed() {
    let mut sim = cluster(1, 4);
    for n in 0..10 {
        ask(&mut sim, n % 4, put(&format!("k{n}"), "v", When::Always)).expect("done");
    }
    ask(&mut sim, 0, change("k4", Change::Delete { when: When::Always })).expect("done");
    sim.crash(3);
    let mut list = |prefix: &str, after: Option<Bytes>| {
        let op = Op::List { prefix: Bytes::from(prefix), after, limit: 4, within: None };
        match ask(&mut sim, 1, op) {
            Ok(Outcome::Listed { keys, next }) => (keys.iter().map(Bytes::to_string).collect::<Vec<_>>(), next),
            other => panic!("{other:?}"),
        }
    };
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let (page, next) = list("k", after);
        all.extend(page);
        after = next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(all, ["k0", "k1", "k2", "k3", "k5", "k6", "k7", "k8", "k9"]);
    assert_eq!(list("k7", None), (vec!["k7".to_owned()], None));
    assert_eq!(list("x", None), (vec![], None));
}

#[test]
fn without_a_majority_nothing_is_done_and_that_is_said() {
    let mut sim = cluster(1, 3);
    ask(&mut sim, 0, put("k", "before", When::Always)).expect("done");
    sim.crash(1);
    sim.crash(2);
    sim.run_for(Duration::secs(20));
    let read = ask(&mut sim, 0, Op::Get { key: Bytes::from("k"), within: None });
    assert!(matches!(read, Err(Refusal::NoQuorum { .. })), "{read:?}");
    let write = ask(&mut sim, 0, put("k", "after", When::Always));
    assert!(matches!(write, Err(Refusal::NoQuorum { .. } | Refusal::TimeoutUnknown { .. })), "{write:?}");
    sim.start(1);
    sim.start(2);
    sim.run_for(Duration::secs(10));
    let (value, version) = get(&mut sim, 1, "k");
    let is_either = value == Some(Bytes::from("before")) || value == Some(Bytes::from("after"));
    assert!(is_either && version <= 2, "{value:?}");
}

/// The owners change, one after the other, until nobody of the first ones is left; every register goes with them.
#[test]
fn registers_go_where_their_owners_go() {
    let mut sim = Sim::with(5, 6, 0, 3, |config| {
        config.autopilot.enabled = false;
        if let Some(bootstrap) = &mut config.bootstrap {
            bootstrap.owners = 3;
        }
    });
    sim.run_for(Duration::secs(10));
    for n in 0..100 {
        ask(&mut sim, n % 6, put(&format!("k{n}"), &format!("v{n}"), When::Always)).expect("done");
    }
    let seated = |sim: &Sim, place: usize| {
        let node = (0..sim.len()).filter_map(|place| sim.node(place)).max_by_key(|node| node.view().epoch());
        let chosen = node.and_then(|node| node.view().chosen.clone()).expect("an epoch");
        (chosen.config.seats(sim.id(place)), chosen.config.next.is_some())
    };
    let before: Vec<usize> = (0..6).filter(|&place| seated(&sim, place).0).collect();
    let after: Vec<usize> = (0..6).filter(|place| !before.contains(place)).collect();
    for (&old, &new) in before.iter().zip(&after) {
        let steps = vec![Step::Add { member: sim.id(new), weight: 1 }, Step::Remove { member: sim.id(old) }];
        let id = sim.request(new, topology::Op::Change { steps }.into()).expect("it runs");
        let moved = |sim: &Sim| seated(sim, new) == (true, false) && !seated(sim, old).0;
        assert!(sim.run_until(Duration::secs(60), moved), "the change does not end: {:?}", sim.reply(id));
        sim.run_for(Duration::secs(1));
    }
    for &place in &before {
        sim.run_for(Duration::secs(2));
        assert_eq!(sim.node(place).map(|node| node.registers().len()), Some(0), "who owns nothing keeps nothing");
        sim.crash(place);
    }
    for n in 0..100 {
        let (value, version) = get(&mut sim, after[n % 3], &format!("k{n}"));
        assert_eq!((value, version), (Some(Bytes::from(format!("v{n}").as_str())), 1));
    }
}

/// A request reaches an owner that stands still, so another one carries it out. When the first one goes on, so much has
/// happened that nobody remembers it; all the same it must not be carried out again.
#[test]
fn a_request_that_was_held_up_is_not_carried_out_again() {
    let mut sim = cluster(2, 3);
    ask(&mut sim, 0, add("n", 1)).expect("done");
    let held_up = preferred(&sim, "n");
    let other = (held_up + 1) % 3;
    sim.pause(held_up, Duration::secs(4));
    let asked = begin(&mut sim, other, add("n", 1_000));
    assert!(matches!(end(&mut sim, asked), Ok(Outcome::Changed { number: Some(1_001), .. })), "by the next owner");
    let more: Vec<RequestId> = (0..40).map(|_| begin(&mut sim, other, add("n", 1))).collect();
    for id in more {
        end(&mut sim, id).expect("done");
    }
    let (before, _) = get(&mut sim, other, "n");
    sim.run_for(Duration::secs(10));
    assert_eq!((get(&mut sim, other, "n").0, before), (Some(Bytes::from("1041")), Some(Bytes::from("1041"))));
}

/// Many clients add to one register through all nodes, again and again, while what is remembered of each falls behind: in a
/// healthy cluster nobody outbids anybody, and every request is done.
#[test]
fn clients_of_all_nodes_share_one_proposer() {
    const CLIENTS: usize = 60;
    let mut sim = cluster(4, 5);
    sim.set_level(Level::Decisions);
    let mut open: Vec<(usize, RequestId)> =
        (0..CLIENTS).map(|client| (client, begin(&mut sim, client % 5, add("n", 1)))).collect();
    let mut done = 0;
    while done < 3_000 {
        sim.run_for(Duration::millis(1));
        for (client, id) in &mut open {
            if sim.reply(*id).is_some() {
                assert!(sim.take_reply(*id).is_some_and(|reply| reply.is_ok()), "client {client} after {done}");
                done += 1;
                *id = begin(&mut sim, *client % 5, add("n", 1));
            }
        }
    }
    let (mut outbid, mut prepared, mut proposed) = (0, 0, 0);
    while let Some(event) = sim.next_event() {
        match event.kind {
            EventKind::Registers(registers::Event::Outbid { .. }) => outbid += 1,
            EventKind::Registers(registers::Event::Prepared { .. }) => prepared += 1,
            EventKind::Registers(registers::Event::Proposed { .. }) => proposed += 1,
            _ => (),
        }
    }
    assert!(outbid == 0 && prepared == 1, "{outbid} times outbid, {prepared} prepared");
    assert!(proposed < done / 5, "{proposed} rounds for {done} requests");
}

/// A refusal that is repeated on its way counts once: the attempt that followed it may be under way.
#[test]
fn a_repeated_refusal_says_nothing_of_a_later_attempt() {
    let mut sim = cluster(2, 3);
    let proposer = preferred(&sim, "n");
    let asker = (proposer + 1) % 3;
    sim.pause(proposer, Duration::secs(3));
    sim.set_level(Level::Decisions);
    begin(&mut sim, asker, add("n", 1));
    let generation = |place: usize| sim.node(place).expect("it runs").generation();
    let op = OpId { node: sim.id(asker), generation: generation(asker), seq: 1 };
    let result = Err(Refusal::SessionExpired { version: 50 });
    let payload = Payload::Registers(registers::Msg::Answer { op, attempt: 1, result });
    let (from, epoch) = (sim.id(proposer), Epoch(1));
    let refusal = Envelope { from, generation: generation(proposer), seq: 1, epoch, payload };
    for _ in 0..3 {
        sim.deliver(asker, refusal.clone());
    }
    let mut attempts = Vec::new();
    while let Some(event) = sim.next_event() {
        if let EventKind::Registers(registers::Event::Asked { attempt, .. }) = event.kind {
            attempts.push(attempt);
        }
    }
    assert_eq!(attempts, [1, 2]);
}

/// The proposer that everybody asks is killed. Whoever waited for it asks another one as soon as the links close, and every
/// request is carried out, however many of the others are faster.
#[test]
fn when_the_proposer_is_killed_nobody_waits_long_and_nothing_is_unknown() {
    const CLIENTS: usize = 40;
    for seed in 1..=5 {
        let mut sim = cluster(seed, 5);
        let killed = preferred(&sim, "n");
        let others: Vec<usize> = (0..5).filter(|&place| place != killed).collect();
        let ask_again = |sim: &mut Sim, client: usize| (client, begin(sim, others[client % 4], add("n", 1)), sim.now());
        let mut open: Vec<_> = (0..CLIENTS).map(|client| ask_again(&mut sim, client)).collect();
        let (mut done, mut longest, mut is_killed) = (0, Duration::ZERO, false);
        while done < 4_000 {
            sim.run_for(Duration::millis(1));
            if done > 1_500 && !is_killed {
                sim.crash(killed);
                is_killed = true;
            }
            for slot in &mut open {
                let (client, id, since) = *slot;
                if let Some(reply) = sim.take_reply(id) {
                    assert!(reply.is_ok(), "seed {seed}, client {client} after {done}: {reply:?}");
                    longest = longest.max(sim.now().since(since));
                    done += 1;
                    *slot = ask_again(&mut sim, client);
                }
            }
        }
        assert!(longest < Duration::millis(250), "seed {seed}: somebody waited for {longest:?}");
    }
}

/// An owner that stood still may answer what an earlier boot has asked. No round of a later boot has the same number, so
/// that such a report is counted for none.
#[test]
fn rounds_of_two_boots_have_no_number_in_common() {
    let mut sim = cluster(1, 3);
    sim.set_level(Level::Decisions);
    let mut boots: Vec<Vec<u64>> = Vec::new();
    for _ in 0..3 {
        for _ in 0..3 {
            get(&mut sim, 0, "k");
        }
        let mut rounds = Vec::new();
        while let Some(event) = sim.next_event() {
            if let EventKind::Registers(registers::Event::Reading { round, .. }) = event.kind
                && event.node == sim.id(0)
            {
                rounds.push(round);
            }
        }
        assert!(!rounds.is_empty() && boots.iter().flatten().all(|round| !rounds.contains(round)), "{rounds:?}");
        boots.push(rounds);
        sim.crash(0);
        sim.start(0);
        sim.run_for(Duration::secs(10));
    }
}

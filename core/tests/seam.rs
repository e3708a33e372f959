//! The seam between a node and its host, one claim a test.

use std::collections::BTreeMap;
use std::sync::Arc;

use qunlong_core::config::{Bootstrap, Config};
use qunlong_core::kv::{self, WriteContext};
use qunlong_core::lift::Payload;
use qunlong_core::member::{Class, Durability, Member, Profile, State};
use qunlong_core::membership::Msg;
use qunlong_core::quorum::Level;
use qunlong_core::version::{Context, Dot, Sibling, VersionVector, Versions};
use qunlong_core::wire::Envelope;
use qunlong_core::{
    Bytes, Duration, Epoch, Generation, Input, Instant, Node, NodeId, Now, Op, OpId, Outcome, Output, PersistId,
    Record, Refusal, RequestId, Round, Storage, WallTime, WriteId,
};

fn at(ms: u64) -> Now {
    Now { mono: Instant(ms * 1_000), wall: WallTime(ms * 1_000) }
}

fn config(n: u8) -> Config {
    let profile = Profile::new(format!("n{n}"), Class::Server, Durability::Durable, Storage([n; 16]));
    Config::new(NodeId::small(n), profile)
}

/// A node that is a cluster of its own.
fn alone() -> Node {
    let config = Config { bootstrap: Some(Bootstrap { owners: 1, replicas: 1, tabs: false }), ..config(1) };
    let mut node = Node::new(config, 7).expect("sound settings");
    node.handle(at(0), Input::Tick);
    let (_, persisted) = drain(&mut node);
    node.handle(at(1), Input::Persisted(persisted.expect("the boot is recorded")));
    node.handle(at(300), Input::Tick);
    let (_, persisted) = drain(&mut node);
    node.handle(at(301), Input::Persisted(persisted.expect("the epoch is recorded")));
    assert!(node.view().chosen.is_some());
    make_durable(&mut node, 301);
    node
}

/// Makes durable whatever it wants to be, until it wants nothing more.
fn make_durable(node: &mut Node, ms: u64) {
    while let (_, Some(persisted)) = drain(node) {
        node.handle(at(ms), Input::Persisted(persisted));
    }
}

/// What a host would do now, and the newest batch it has to make durable.
fn drain(node: &mut Node) -> (Vec<Output>, Option<PersistId>) {
    let outputs: Vec<Output> = std::iter::from_fn(|| node.poll()).collect();
    let persisted = outputs
        .iter()
        .filter_map(|output| match output {
            Output::Persist { id, .. } => Some(*id),
            _ => None,
        })
        .max();
    (outputs, persisted)
}

fn put(n: u64, context: WriteContext) -> Input {
    let op = kv::Op::Put {
        key: Bytes::from("k"),
        value: Some(Bytes::from("v")),
        context,
        write: None,
        stored: Level::Majority,
        within: None,
    };
    Input::Request { id: RequestId(n), op: Op::Kv(op) }
}

fn gossip(from: u8, seq: u64, rumours: Vec<Member>) -> Input {
    let rumours = rumours.into_iter().map(Arc::new).collect();
    let payload = Payload::Membership(Msg::Gossip { rumours });
    Input::Message(Envelope { from: NodeId::small(from), generation: Generation(1), seq, epoch: Epoch(0), payload })
}

fn member(n: u8, incarnation: u64, state: State) -> Member {
    Member {
        id: NodeId::small(n),
        generation: Generation(1),
        incarnation,
        state,
        accuser: None,
        profile: config(n).profile,
    }
}

fn replies(outputs: &[Output]) -> usize {
    outputs.iter().filter(|output| matches!(output, Output::Reply { .. })).count()
}

#[test]
fn a_write_is_answered_only_once_its_record_is_durable() {
    let mut node = alone();
    node.handle(at(400), put(1, WriteContext::Seen(Context::default())));
    let (outputs, persisted) = drain(&mut node);
    assert_eq!(replies(&outputs), 0);
    node.handle(at(401), Input::Persisted(persisted.expect("the write is recorded")));
    assert_eq!(replies(&drain(&mut node).0), 1);
}

#[test]
fn writes_of_several_inputs_share_one_batch() {
    let mut node = alone();
    for n in 1..=5 {
        node.handle(at(400), put(n, WriteContext::Seen(Context::default())));
    }
    let (outputs, _) = drain(&mut node);
    let batches: Vec<usize> = outputs
        .iter()
        .filter_map(|output| match output {
            Output::Persist { records, .. } => Some(records.len()),
            _ => None,
        })
        .collect();
    assert_eq!(batches, [5]);
}

#[test]
fn nothing_leaves_before_the_generation_is_durable() {
    let mut node = Node::new(config(1), 7).expect("sound settings");
    node.handle(at(0), Input::Link { peer: NodeId::small(2), up: true });
    let (outputs, persisted) = drain(&mut node);
    assert!(!outputs.iter().any(|output| matches!(output, Output::Send { .. })));
    node.handle(at(1), Input::Persisted(persisted.expect("the boot is recorded")));
    assert!(drain(&mut node).0.iter().any(|output| matches!(output, Output::Send { .. })));
}

#[test]
fn each_boot_has_a_generation_of_its_own() {
    let mut node = Node::new(config(1), 7).expect("sound settings");
    node.handle(at(0), Input::Tick);
    let records: Vec<Record> = drain(&mut node)
        .0
        .into_iter()
        .flat_map(|output| match output {
            Output::Persist { records, .. } => records,
            _ => vec![],
        })
        .collect();
    let again = Node::restore(config(1), 8, records).expect("sound settings");
    assert_eq!((node.generation(), again.generation()), (Generation(1), Generation(2)));
}

#[test]
fn a_restored_node_holds_what_was_durable_and_never_mints_a_dot_again() {
    let mut node = alone();
    let mut records = vec![];
    let mut dots = vec![];
    for n in 0..2 {
        node.handle(at(400), put(n, WriteContext::Current));
        let (outputs, persisted) = drain(&mut node);
        records.extend(outputs.into_iter().flat_map(|output| match output {
            Output::Persist { records, .. } => records,
            _ => vec![],
        }));
        node.handle(at(401), Input::Persisted(persisted.expect("recorded")));
        drain(&mut node);
        dots.push(node.store().get(b"k").expect("written").siblings()[0].dot);
    }
    assert!(dots[0] < dots[1]);
    let again = Node::restore(config(1), 9, records).expect("sound settings");
    assert_eq!(again.store().digest(), node.store().digest());
    assert_eq!(again.store().get(b"k"), node.store().get(b"k"));
}

#[test]
fn a_node_without_an_epoch_refuses_data() {
    let mut node = Node::new(config(1), 7).expect("sound settings");
    node.handle(at(0), put(1, WriteContext::Current));
    let (_, persisted) = drain(&mut node);
    node.handle(at(1), Input::Persisted(persisted.expect("the boot is recorded")));
    let (outputs, _) = drain(&mut node);
    assert!(outputs.contains(&Output::Reply { id: RequestId(1), result: Err(Refusal::NoEpoch) }));
}

#[test]
fn a_context_that_names_writes_never_made_is_refused() {
    let mut node = alone();
    let mut context = VersionVector::default();
    context.add(Dot { node: NodeId::small(1), counter: 99 });
    node.handle(at(400), put(1, WriteContext::Seen(context.into())));
    let (outputs, _) = drain(&mut node);
    assert!(outputs.contains(&Output::Reply { id: RequestId(1), result: Err(Refusal::InvalidContext) }));
}

#[test]
fn a_context_that_runs_far_ahead_or_names_strangers_is_refused() {
    for (node, counter) in [(2, 1), (1, u64::MAX)] {
        let mut node_under_test = alone();
        let mut context = VersionVector::default();
        context.add(Dot { node: NodeId::small(node), counter });
        node_under_test.handle(at(400), put(1, WriteContext::Seen(context.into())));
        let refused = Output::Reply { id: RequestId(1), result: Err(Refusal::InvalidContext) };
        assert!(drain(&mut node_under_test).0.contains(&refused));
    }
}

#[test]
fn a_writer_is_not_handed_a_context_that_covers_what_it_never_saw() {
    let mut node = alone();
    let mut written = |n: u64, context: Context| {
        node.handle(at(400), put(n, WriteContext::Seen(context)));
        let (_, persisted) = drain(&mut node);
        node.handle(at(401), Input::Persisted(persisted.expect("recorded")));
        drain(&mut node)
            .0
            .into_iter()
            .find_map(|output| match output {
                Output::Reply { result: Ok(Outcome::Kv(kv::Outcome::Written { dot, context, .. })), .. } => {
                    Some((dot, context))
                }
                _ => None,
            })
            .expect("written")
    };
    let (other, _) = written(1, Context::default());
    let (_, mine) = written(2, Context::default());
    assert!(!mine.seen.covers(other));
    written(3, mine);
    let held = node.store().get(b"k").expect("written");
    assert!(held.siblings().iter().any(|sibling| sibling.dot == other), "nobody who saw it superseded it");
}

#[test]
fn claims_beyond_counting_are_not_believed() {
    let mut node = alone();
    node.handle(at(400), gossip(2, 1, vec![member(2, 0, State::Alive), member(1, u64::MAX, State::Suspect)]));
    node.handle(at(401), gossip(2, 2, vec![member(3, u64::MAX, State::Alive)]));
    assert_eq!(node.view().members[&NodeId::small(1)].state, State::Alive);
    assert!(!node.view().members.contains_key(&NodeId::small(3)));
}

#[test]
fn a_long_stall_of_the_disk_is_no_flood() {
    let mut node = alone();
    node.handle(at(400), put(1, WriteContext::Seen(Context::default())));
    let (_, persisted) = drain(&mut node);
    for seq in 0..100_000 {
        let op = OpId { node: NodeId::small(2), generation: Generation(1), seq };
        let payload = Payload::Kv(kv::Msg::Read { op, epoch: Epoch(1), round: Round(0), key: Bytes::from("k") });
        node.handle(
            at(401),
            Input::Message(Envelope {
                from: NodeId::small(2),
                generation: Generation(1),
                seq,
                epoch: Epoch(0),
                payload,
            }),
        );
    }
    node.handle(at(402), put(2, WriteContext::Current));
    assert!(drain(&mut node).0.contains(&Output::Reply { id: RequestId(2), result: Err(Refusal::Overloaded) }));
    node.handle(at(500), Input::Persisted(persisted.expect("recorded")));
    assert_eq!(replies(&drain(&mut node).0), 1);
}

/// A node that is a cluster of its own, wrote a key, deleted it and has forgotten it; and all that it recorded.
fn collected() -> (Node, Vec<Record>) {
    let mut node = alone();
    let mut records = vec![];
    let mut settle = |node: &mut Node, ms| {
        loop {
            let (outputs, persisted) = drain(node);
            let Some(persisted) = persisted else { break };
            records.extend(outputs.into_iter().flat_map(|output| match output {
                Output::Persist { records, .. } => records,
                _ => vec![],
            }));
            node.handle(at(ms), Input::Persisted(persisted));
        }
    };
    node.handle(at(400), put(1, WriteContext::Current));
    settle(&mut node, 401);
    let delete = kv::Op::Put {
        key: Bytes::from("k"),
        value: None,
        context: WriteContext::Current,
        write: None,
        stored: Level::Majority,
        within: None,
    };
    node.handle(at(500), Input::Request { id: RequestId(2), op: Op::Kv(delete) });
    settle(&mut node, 501);
    assert_eq!(node.store().len(), 1, "a delete is a version like any other");
    for ms in (1_000..75_000).step_by(500) {
        node.handle(at(ms), Input::Tick);
        settle(&mut node, ms);
    }
    assert_eq!(node.store().len(), 0, "every owner held the delete for long enough");
    (node, records)
}

fn from_n2(ms: u64, seq: u64, msg: kv::Msg, node: &mut Node) -> Vec<Output> {
    let payload = Payload::Kv(msg);
    node.handle(
        at(ms),
        Input::Message(Envelope { from: NodeId::small(2), generation: Generation(1), seq, epoch: Epoch(0), payload }),
    );
    drain(node).0
}

#[test]
fn what_was_under_way_before_a_collection_is_refused() {
    let (mut node, _) = collected();
    let op = OpId { node: NodeId::small(2), generation: Generation(1), seq: 1 };
    let (key, context) = (Bytes::from("k"), Context::default());
    let write = kv::Write { id: WriteId([9; 16]), key: key.clone(), value: Some(Bytes::from("old")), context };
    let mint = |round| kv::Msg::Mint { op, epoch: Epoch(1), round, write: write.clone() };
    let refused = |outputs: &[Output]| {
        outputs.iter().any(|output| match output {
            Output::Send { message, .. } => matches!(
                message.payload,
                Payload::Kv(kv::Msg::Refused { refusal: Refusal::StaleRound { mine: Round(1), theirs: Round(0) }, .. })
            ),
            _ => false,
        })
    };
    assert!(refused(&from_n2(76_000, 1, mint(Round(0)), &mut node)));
    let (dot, versions) = (Dot { node: NodeId::small(2), counter: 1 }, Versions::default());
    let store = kv::Msg::Store { op, epoch: Epoch(1), round: Round(0), key, dot, versions };
    assert!(refused(&from_n2(76_001, 2, store, &mut node)));
    assert!(node.store().is_empty());
    assert!(!refused(&from_n2(76_002, 3, mint(Round(1)), &mut node)));
    assert_eq!(node.store().len(), 1);
}

#[test]
fn a_put_that_does_not_know_the_round_is_minted_again() {
    let (mut node, _) = collected();
    node.handle(at(76_000), put(9, WriteContext::Seen(Context::default())));
    let (_, persisted) = drain(&mut node);
    node.handle(at(76_001), Input::Persisted(persisted.expect("minted")));
    assert_eq!(replies(&drain(&mut node).0), 1);
    let dot = node.store().get(b"k").expect("written").siblings()[0].dot;
    assert_eq!(dot.counter, 3, "counters go on where the collected key's dots ended");
}

#[test]
fn a_restart_does_not_bring_back_what_was_collected() {
    let (node, records) = collected();
    let compacted = qunlong_core::journal::latest(records.clone());
    for records in [records, compacted] {
        let mut again = Node::restore(config(1), 8, records).expect("sound settings");
        again.handle(at(0), Input::Tick);
        assert_eq!(again.store().len(), 0);
        let partition = qunlong_core::placement::Partition::of(b"k");
        assert_eq!(again.store().round(partition), node.store().round(partition));
    }
}

#[test]
fn a_bootstrapper_owns() {
    let config = Config { bootstrap: Some(Bootstrap { owners: 1, replicas: 1, tabs: false }), ..config(9) };
    let mut node = Node::new(config, 7).expect("sound settings");
    node.handle(at(0), gossip(2, 1, vec![member(2, 0, State::Alive)]));
    let nothing = Payload::Topology(qunlong_core::topology::Msg::Nothing {
        seat: qunlong_core::topology::seat_of(&self::config(2).profile),
    });
    let envelope =
        Envelope { from: NodeId::small(2), generation: Generation(1), seq: 2, epoch: Epoch(0), payload: nothing };
    node.handle(at(1), Input::Message(envelope));
    assert_eq!(node.view().chosen, None, "it is in force once it is durable");
    make_durable(&mut node, 2);
    let chosen = node.view().chosen.as_ref().expect("made");
    assert!(chosen.config.seats(NodeId::small(9)));
}

#[test]
fn the_ninth_sibling_is_refused() {
    let mut node = alone();
    for n in 1..=9 {
        node.handle(at(400), put(n, WriteContext::Seen(Context::default())));
        let (outputs, persisted) = drain(&mut node);
        let refused = Output::Reply { id: RequestId(n), result: Err(Refusal::TooManySiblings) };
        assert_eq!(outputs.contains(&refused), n == 9);
        persisted.into_iter().for_each(|id| node.handle(at(401), Input::Persisted(id)));
        drain(&mut node);
    }
}

#[test]
fn levels_below_a_majority_are_refused() {
    let mut node = alone();
    let get = kv::Op::Get { key: Bytes::from("k"), read: Level::Count(0), within: None };
    node.handle(at(400), Input::Request { id: RequestId(1), op: Op::Kv(get) });
    let (outputs, _) = drain(&mut node);
    assert!(outputs.contains(&Output::Reply { id: RequestId(1), result: Err(Refusal::BadLevel { replicas: 1 }) }));
}

#[test]
fn a_suspected_node_refutes_with_a_higher_incarnation() {
    let mut node = alone();
    node.handle(at(400), gossip(2, 1, vec![member(2, 0, State::Alive), member(1, 3, State::Suspect)]));
    let own = &node.view().members[&NodeId::small(1)];
    assert_eq!((own.state, own.incarnation), (State::Alive, 4));
}

#[test]
fn a_new_boot_replaces_a_dead_one_and_its_late_messages_count_for_nothing() {
    let mut node = alone();
    node.handle(at(400), gossip(2, 1, vec![member(3, 0, State::Alive)]));
    node.handle(at(401), gossip(2, 2, vec![member(3, 5, State::Dead)]));
    let reborn = Member { generation: Generation(2), ..member(3, 0, State::Alive) };
    node.handle(at(402), gossip(2, 3, vec![reborn]));
    assert_eq!(node.view().members[&NodeId::small(3)].state, State::Alive);
    // From the boot that is gone:
    node.handle(at(403), gossip(3, 9, vec![member(4, 0, State::Alive)]));
    assert!(!node.view().members.contains_key(&NodeId::small(4)));
}

#[test]
fn a_node_that_slept_suspects_nobody_for_it() {
    let mut node = alone();
    node.handle(at(400), gossip(2, 1, vec![member(2, 0, State::Alive)]));
    // Far enough that a probe of n2 is in flight.
    for ms in (400..1_350).step_by(50) {
        node.handle(at(ms), Input::Tick);
    }
    node.handle(at(60_000), Input::Tick);
    assert_eq!(node.view().members[&NodeId::small(2)].state, State::Alive);
}

#[test]
fn watching_changes_nothing() {
    let run = |level| {
        let mut node = alone();
        node.set_level(level);
        node.handle(at(400), put(1, WriteContext::Current));
        let (_, persisted) = drain(&mut node);
        node.handle(at(401), Input::Persisted(persisted.expect("recorded")));
        drain(&mut node);
        node.state_hash()
    };
    assert_eq!(run(qunlong_core::trace::Level::Off), run(qunlong_core::trace::Level::Messages));
}

#[test]
fn the_whole_node_copies_and_the_copy_goes_on_alike() {
    let mut one = alone();
    let mut two = one.clone();
    for node in [&mut one, &mut two] {
        node.handle(at(400), put(1, WriteContext::Current));
        node.handle(at(401), Input::Tick);
    }
    assert_eq!(one, two);
    assert_eq!(one.state_hash(), two.state_hash());
    assert!(one.deadline().is_some_and(|deadline| deadline < Instant(0) + Duration::secs(2)));
}

/// Siblings of a peer's making, each as large as a value may be: neither the key's record nor its messages may grow
/// beyond what a journal and a link can carry.
#[test]
fn a_peer_cannot_make_a_key_grow_beyond_a_message() {
    let mut node = alone();
    for round in 0..40 {
        let mut versions = Versions::default();
        for n in 1..=15 {
            let dot = Dot { node: NodeId::small(2), counter: 15 * round + n };
            let mut write = [0; 16];
            write[..8].copy_from_slice(&dot.counter.to_be_bytes());
            let value = Some(Bytes::from("x".repeat(64 << 10).as_str()));
            let sibling = Sibling { dot, write: WriteId(write), context: VersionVector::default(), value };
            versions.write(sibling, &BTreeMap::new());
        }
        let dot = versions.siblings()[0].dot;
        let op = OpId { node: NodeId::small(2), generation: Generation(1), seq: round };
        let key = Bytes::from("k");
        let store = kv::Msg::Store { op, epoch: Epoch(1), round: Round(0), key, dot, versions };
        let (from, generation, seq) = (NodeId::small(2), Generation(1), round + 1);
        let payload = Payload::Kv(store);
        node.handle(at(400 + round), Input::Message(Envelope { from, generation, seq, epoch: Epoch(0), payload }));
        let (_, persisted) = drain(&mut node);
        if let Some(id) = persisted {
            node.handle(at(400 + round), Input::Persisted(id));
        }
    }
    let held = node.store().get(b"k").expect("the first was taken in");
    assert!(
        held.siblings().len() >= 15 && held.weight() < qunlong_core::limits::MESSAGE_BYTES,
        "{} bytes",
        held.weight()
    );
}

//! Inputs to start from, recorded from runs of a small cluster. The same every time.

use std::collections::BTreeMap;

use qunlong_core::cell::Change;
use qunlong_core::journal as format;
use qunlong_core::kv::{self, WriteContext};
use qunlong_core::quorum::Level;
use qunlong_core::recording::Reader;
use qunlong_core::sim::Sim;
use qunlong_core::sim::drawer::Drawer;
use qunlong_core::sim::plan::Plan;
use qunlong_core::wire::{self, FrameWriter, Hello, Packet, Proof};
use qunlong_core::{Bytes, ClusterId, Duration, Generation, Input, NodeId, Op, Record, membership, registers};

use crate::Seeds;
use crate::frame::CLUSTER;
use crate::journal::{Damage, IDENTITY, Written};
use crate::recording::Entries;
use crate::step::world::{PLACES, TAB, World};
use crate::step::{Act, PEERS, STARTS, put, sibling};

/// An input above this is cut where that makes sense, else left out.
const SMALL: usize = 1_024;

/// The smallest message of each kind, a frame of several, and a frame of nothing; and a batch of each kind of event.
pub(crate) fn frames() -> Seeds {
    let world = eventful();
    let mut bodies: BTreeMap<String, (NodeId, NodeId, Vec<u8>)> = BTreeMap::new();
    for (to, message) in &world.said {
        let body = wire::encode_message(message).expect("what a node sends fits a frame");
        let smallest =
            bodies.entry(format!("{:?}", message.payload.kind())).or_insert((to[0], message.from, vec![0; SMALL]));
        if body.len() < smallest.2.len() {
            *smallest = (to[0], message.from, body);
        }
    }
    let frame = |packets: &[&(NodeId, NodeId, Vec<u8>)]| {
        let mut writer = FrameWriter::new(Some(CLUSTER));
        packets.iter().for_each(|(to, from, body)| writer.push(Packet { to: *to, from: *from, hops: 0, body }));
        writer.finish()
    };
    let mut seeds: Seeds = bodies.iter().map(|(kind, packet)| (kind.to_lowercase(), frame(&[packet]))).collect();
    seeds.push(("several".to_owned(), frame(&bodies.values().take(5).collect::<Vec<_>>())));
    let mut events = BTreeMap::new();
    for event in world.events {
        let kind = format!("{:?}", event.kind).chars().take(20).collect::<String>();
        events.entry(kind).or_insert(event);
    }
    let events: Vec<_> = events.into_values().collect();
    let batches = events.chunks(6).enumerate();
    seeds.extend(batches.map(|(n, events)| (format!("events-{n}"), wire::encode_events(events))));
    seeds
}

/// Hellos of newcomers and members, good and not, and proofs.
pub(crate) fn handshakes() -> Seeds {
    let hello = |cluster: Option<u8>| {
        let cluster = cluster.map(|n| ClusterId([n; 16]));
        wire::encode_hello(&Hello { public_key: [2; 32], cluster, nonce: [3; 32] })
    };
    let mut other_version = hello(None);
    other_version[4] += 1;
    let itself = wire::encode_hello(&Hello { public_key: [1; 32], cluster: None, nonce: [3; 32] });
    let proof = |length: u8| wire::encode_proof(&Proof { signature: (0..length).collect() });
    let seeds = [
        ("newcomer", hello(None)),
        ("member", hello(Some(5))),
        ("member-of-another", hello(Some(6))),
        ("itself", itself),
        ("proof", proof(64)),
        ("proof-short", proof(3)),
    ];
    seeds.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect()
}

/// A real journal, whole and torn, and journals to be written and damaged in each way.
pub(crate) fn journals() -> Seeds {
    let world = eventful();
    // One of each kind that a small journal can hold.
    let mut kinds = BTreeMap::new();
    for record in world.spots.iter().flat_map(|spot| &spot.records) {
        let kind = format!("{record:?}").chars().take(14).collect::<String>();
        kinds.entry(kind).or_insert_with(|| record.clone());
    }
    let records: Vec<Record> = kinds.into_values().collect();
    let (first, others) = records.split_first().expect("a node that booted has a record");
    let (mut writer, mut whole) = format::create(&IDENTITY, 1, std::slice::from_ref(first));
    for record in others {
        whole.extend(writer.batches(std::slice::from_ref(record)).concat());
    }
    let torn = whole[..whole.len() - 9].to_vec();
    let (_, young) = format::create(&IDENTITY, 2, &[Record::Boot(Generation(3))]);
    let mut seeds = vec![("whole".to_owned(), whole), ("torn".to_owned(), torn), ("young".to_owned(), young)];
    let damages: [(&str, &[Damage]); 7] = [
        ("untouched", &[]),
        ("head", &[Damage::Flip { at: 13, bit: 3 }]),
        ("flip", &[Damage::Flip { at: 150, bit: 3 }]),
        ("zero", &[Damage::Zero { at: 120, length: 16 }]),
        ("copy", &[Damage::Copy { from: 56, to: 150, length: 16 }]),
        ("cut", &[Damage::Cut { at: 301 }]),
        ("repeat", &[Damage::Cut { at: 260 }, Damage::Repeat { at: 56, length: 99 }]),
    ];
    for (name, damage) in damages {
        let batches = others.chunks(2).map(<[Record]>::to_vec).collect();
        let written = Written { number: 3, checkpoint: vec![first.clone()], batches, damage: damage.to_vec() };
        seeds.push((format!("written-{name}"), postcard::to_allocvec(&written).expect("plain data encodes")));
    }
    seeds
}

/// Plans as they are drawn, some of them to be run, and the scenarios that are kept as tests.
pub(crate) fn plans() -> Seeds {
    let mut seeds = Seeds::new();
    for seed in 0..16_u64 {
        let mut drawer = Drawer::new(seed, true);
        let steps = drawer.by_ref().take(12).collect();
        seeds.push((format!("plan-{seed:02}"), Plan { world: drawer.world, steps }.to_string().into_bytes()));
    }
    for seed in 0..4_u64 {
        let mut drawer = Drawer::new(seed, true);
        drawer.world.servers = 3;
        drawer.world.tabs = u8::from(seed > 1);
        let steps = drawer.by_ref().take_while(|step| step.at < Duration::secs(2)).take(12).collect();
        let text = format!("{}\n{}", crate::plan::RUN, Plan { world: drawer.world, steps });
        seeds.push((format!("plan-done-{seed}"), text.into_bytes()));
    }
    for (name, text) in [
        ("first-write", include_str!("../scenarios/first_write.txt")),
        ("siblings", include_str!("../scenarios/siblings.txt")),
        ("refutation", include_str!("../scenarios/refutation.txt")),
    ] {
        let commands = text.split_once("----\n").map_or(text, |(commands, _)| commands);
        let few: Vec<&str> = commands.lines().filter(|line| !line.starts_with('#')).take(14).collect();
        seeds.push((format!("scenario-{name}"), few.join("\n").into_bytes()));
    }
    seeds
}

/// What one node was told in runs of the small cluster, each from its start.
pub(crate) fn steps() -> Seeds {
    let mut seeds = Seeds::new();
    let mut record = |name: &str, start: usize, run: &dyn Fn(&mut World)| {
        let mut world = World::new();
        (STARTS[start].prepare)(&mut world);
        world.told.clear();
        let mut now = world.now;
        run(&mut world);
        let mut bytes = vec![start as u8];
        for (at, _, input) in world.told.iter().filter(|(_, place, _)| *place == STARTS[start].place) {
            let wait = at.mono.since(now.mono);
            let wait = (wait > Duration::ZERO).then_some(Act::Wait { micros: wait.0 as u32 });
            now = *at;
            for act in wait.into_iter().chain(act(input)) {
                let more = postcard::to_allocvec(&act).expect("plain data encodes");
                if bytes.len() + more.len() <= SMALL {
                    bytes.extend(more);
                }
            }
        }
        seeds.push((name.to_owned(), bytes));
    };
    let get = |key: &str| kv::Op::Get { key: Bytes::from(key), read: Level::Majority, within: None };
    let list = || kv::Op::List { prefix: Bytes::from(""), after: None, limit: 2, within: Some(Duration::secs(1)) };
    record("bootstrap", 0, &World::form);
    record("put", 1, &|world| world.ask(0, put(6, "plain", Some("6"), WriteContext::Current)));
    record("put-sibling", 1, &|world| world.ask(0, put(6, "plain", Some("6"), sibling())));
    record("put-elsewhere", 1, &|world| world.ask(1, put(6, "plain", Some("6"), WriteContext::Current)));
    record("put-twice", 1, &|world| {
        world.ask(1, put(6, "again", Some("6"), sibling()));
        world.ask(0, put(6, "again", Some("6"), sibling()));
    });
    record("delete", 1, &|world| world.ask(0, put(6, "both", None, WriteContext::Current)));
    record("get", 1, &|world| world.ask(0, get("both")));
    record("get-elsewhere", 1, &|world| world.ask(2, get("plain")));
    record("list", 1, &|world| world.ask(0, list()));
    record("list-elsewhere", 1, &|world| world.ask(TAB, list()));
    record("tab-puts", 2, &|world| world.ask(TAB, put(6, "plain", Some("6"), WriteContext::Current)));
    record("tab-gets", 2, &|world| world.ask(TAB, get("both")));
    record("tab-lists", 2, &|world| world.ask(TAB, list()));
    record("register-add", 1, &|world| world.ask(0, add("sum")));
    record("register-add-elsewhere", 1, &|world| world.ask(2, add("sum")));
    record("register-twice", 1, &|world| {
        world.ask(1, add("sum"));
        world.ask(0, add("sum"));
        world.ask(0, registers::Op::Get { key: Bytes::from("sum"), within: None });
    });
    record("register-tab", 2, &|world| world.ask(TAB, add("sum")));
    record("register-outbid", 1, &|world| {
        world.silent.insert(1);
        world.ask(0, add("sum"));
        world.silent.clear();
        world.silent.insert(0);
        world.ask(1, add("sum"));
        world.silent.clear();
        world.pass(Duration::secs(1));
        world.told.retain(|(_, _, input)| !is_gossip(input));
    });
    record("quiet", 1, &|world| world.pass(Duration::secs(1)));
    record("tab-quiet", 2, &|world| world.pass(Duration::secs(1)));
    record("collected", 1, &|world| {
        world.pass(Duration::secs(6));
        // Of so long a time only what is about data fits.
        world.told.retain(|(_, _, input)| !is_gossip(input));
    });
    record("repaired", 1, &|world| {
        world.silent.insert(0);
        world.ask(1, put(6, "missed", Some("6"), sibling()));
        world.silent.clear();
        world.pass(Duration::secs(3));
        world.told.retain(|(_, _, input)| !is_gossip(input));
    });
    record("suspected", 1, &|world| {
        world.silent.extend([1, 2]);
        world.pass(Duration::secs(3));
        world.silent.clear();
        world.pass(Duration::secs(1));
    });
    record("left", 1, &|world| world.ask(0, Op::Membership(membership::Op::Leave)));
    record("unlinked", 1, &|world| {
        world.tell(0, Input::Link { peer: PLACES[1], up: false });
        world.ask(0, put(6, "plain", Some("6"), sibling()));
        world.tell(0, Input::Link { peer: PLACES[1], up: true });
    });
    record("full", 1, &|world| {
        world.tell(0, Input::DiskFull(true));
        world.ask(0, put(6, "plain", Some("6"), sibling()));
        world.ask(1, put(7, "plain", Some("7"), sibling()));
        world.tell(0, Input::DiskFull(false));
    });
    record("back", 3, &|world| {
        world.tell(0, Input::Link { peer: PLACES[1], up: true });
        world.ask(0, get("plain"));
        world.pass(Duration::secs(1));
    });
    let mut again = seeds.iter().find(|(name, _)| name == "put").expect("recorded above").1.clone();
    again.extend(postcard::to_allocvec(&Act::Restart).expect("plain data encodes"));
    again.extend(postcard::to_allocvec(&Act::Tick).expect("plain data encodes"));
    seeds.push(("put-then-restart".to_owned(), again));
    seeds
}

fn act(input: &Input) -> Option<Act> {
    let peer = |id: &NodeId| PEERS.iter().position(|peer| peer == id).map(|n| n as u8);
    Some(match input {
        Input::Message(message) => Act::Message {
            from: peer(&message.from)?,
            generation: message.generation,
            seq: message.seq,
            epoch: message.epoch,
            payload: message.payload.clone(),
        },
        Input::Request { op, .. } => Act::Request(op.clone()),
        Input::Persisted(_) => Act::Durable { but: 0 },
        Input::Link { peer: id, up } => Act::Link { peer: peer(id)?, up: *up },
        Input::Refused { peer: id } => Act::Refused { peer: peer(id)? },
        Input::DiskFull(full) => Act::DiskFull(*full),
        Input::Tick => Act::Tick,
    })
}

fn is_gossip(input: &Input) -> bool {
    matches!(input, Input::Message(message) if matches!(message.payload, qunlong_core::lift::Payload::Membership(_)))
}

/// A cluster in which everything has happened that nodes tell each other about.
fn add(key: &str) -> registers::Op {
    let change = Change::Increment { by: 3 };
    registers::Op::Change { key: Bytes::from(key), change, name: None, seen: 0, within: None }
}

fn eventful() -> World {
    let mut world = World::new();
    (STARTS[1].prepare)(&mut world);
    world.silent.insert(2);
    world.ask(0, put(6, "missed", Some("6"), WriteContext::Current));
    world.ask(0, add("sum"));
    world.ask(TAB, add("sum"));
    world.ask(1, registers::Op::Get { key: Bytes::from("sum"), within: None });
    world.ask(TAB, kv::Op::List { prefix: Bytes::from(""), after: None, limit: 2, within: None });
    world.pass(Duration::secs(4));
    world.silent.clear();
    world.pass(Duration::secs(12));
    world.ask(0, Op::Membership(membership::Op::Leave));
    world
}

/// The beginnings of a node alone and of two, as files and as entries, and one that ends too early.
pub(crate) fn recordings() -> Seeds {
    let mut seeds = Seeds::new();
    for servers in 1..=2 {
        let mut sim = Sim::recorded(1, servers, 0, servers, |_| ());
        sim.run_for(Duration::secs(1));
        let get = kv::Op::Get { key: Bytes::from("k"), read: Level::Majority, within: None };
        sim.request(0, Op::Kv(get));
        sim.run_for(Duration::millis(50));
        let whole = sim.take_recording().expect("it was recorded");
        let mut reader = Reader::new(&whole).expect("a recording");
        let mut entries = Vec::new();
        while let Ok(Some((at, entry))) = reader.next_entry() {
            if at > SMALL {
                break;
            }
            entries.push(entry);
        }
        let entries = postcard::to_allocvec(&Entries(entries)).expect("plain data encodes");
        seeds.push((format!("{servers}-entries"), entries));
        seeds.push((format!("{servers}-cut-off"), whole[..whole.len().min(SMALL)].to_vec()));
    }
    seeds
}

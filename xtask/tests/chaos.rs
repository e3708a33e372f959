//! Five real nodes under kill -9, pauses and spoiled links, and clients whose histories the simulator's checker judges.
//!
//! ```text
//!   clients ── HTTP ──▶ n1 … n5          each put, delete and get is recorded as it leaves and as it returns
//!                       ▲ links, each through the proxy of the node that accepts it
//!   nemesis ── kill -9, SIGSTOP, delay, duplication, reordering, loss with reconnect, one-way and full cuts
//!     → all heals: members agree and digests are equal → every node reads every key → the record is judged
//! ```
//!
//! **Invariant**: at most two of the five are down or paused at once, so a majority always runs; its links may be cut.
//!
//! `QUNLONG_CHAOS_SEED` draws other faults and other requests. What meets what depends on the machine's timing: a seed
//! repeats the odds and not the run.

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use qunlong_core::rng::Rng;
use qunlong_core::sim::check::Seen;
use qunlong_core::version::{Dot, VersionVector, Versions};
use qunlong_core::{Bytes, NodeId, WriteId};
use serde_json::{Value, json};
use support::cluster::{Cluster, Process, Shape, read, wait_for};
use support::record::{Event, Get, Outcomes, Put, Record, context_header, judge, read_get, read_put};
use ureq::Agent;
use xtask::proxy::{Counts, Cut, Faults, Proxy, Rate};

const NODES: usize = 5;
/// Down or paused at once.
const MINORITY: usize = 2;
const CLIENTS: u64 = 8;
const KEYS: u64 = 6;
/// The faults last so long, and longer until there were enough kills.
const SPAN: Duration = Duration::from_secs(45);
const KILLS: usize = 60;
/// Above the deadline that requests ask for, below the longest pause.
const CLIENT_PATIENCE: Duration = Duration::from_secs(3);
/// Together shorter than deletes are kept, so that none is collected before it is judged.
const EQUAL_WITHIN: Duration = Duration::from_secs(45);

#[test]
fn what_clients_saw_of_five_nodes_under_faults_is_explained() {
    let seed = std::env::var("QUNLONG_CHAOS_SEED").map_or(1, |seed| seed.parse().expect("a number"));
    println!("QUNLONG_CHAOS_SEED={seed}");
    xtask::build_server().expect("the server builds");
    let mut rng = Rng::new(seed);
    // Replicas as many as nodes: then all digests must be equal.
    let (nodes, replicas, proxied) = (NODES as u16, NODES as u8, Some(rng.next_u64()));
    let shape = Shape { nodes, owners: nodes, replicas, more: &[], web: None, proxied };
    let mut cluster = Cluster::of(&shape);
    let world = World::new(&cluster);
    let (kills, pauses) = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let mut client = Client::new(&world, rng.fork());
                scope.spawn(move || client.use_it())
            })
            .collect();
        let mut nemesis = Nemesis::new(&mut cluster.nodes, &cluster.proxies, &world, rng.fork());
        nemesis.rage();
        nemesis.rest();
        let done = (nemesis.kills, nemesis.pauses);
        // Some requests meet the healing cluster.
        std::thread::sleep(CLIENT_PATIENCE);
        world.over.store(true, Ordering::Relaxed);
        clients.into_iter().for_each(|client| client.join().expect("a client"));
        done
    });
    let links = cluster.proxies.iter().map(Proxy::counts).fold(Counts::default(), std::ops::Add::add);

    agree(&mut cluster);
    let mut last = Client::new(&world, rng.fork());
    for node in 0..NODES {
        for key in keys() {
            let answer = last.get(node, &key);
            assert!(matches!(answer, Get::Done { .. }), "a healed cluster reads {key:?}: {answer:?}");
        }
    }
    drop(last);

    let mut events = world.record.into_events();
    let outcomes = Outcomes::of(&events);
    let failed: usize = outcomes.failed.values().sum();
    println!(
        "operations: {} writes acked, {} reads done ({} saw siblings), {failed} failed {:?}, {} unknown",
        outcomes.acked, outcomes.read, outcomes.siblings, outcomes.failed, outcomes.unknown
    );
    println!("nodes: {kills} kills, {pauses} pauses\nlinks: {links}");
    judge(&events).unwrap_or_else(|what| panic!("QUNLONG_CHAOS_SEED={seed}: {what}"));

    // A run that reached nothing proves nothing.
    let Counts { delayed, duplicated, reordered, cut, broken, .. } = links;
    let reached = [kills, pauses, outcomes.acked, outcomes.read, outcomes.siblings, outcomes.unknown, failed];
    assert!(reached.iter().all(|&count| count > 0), "{reached:?}");
    assert!([delayed, duplicated, reordered, cut, broken].iter().all(|&count| count > 0), "{links}");
    assert!(outcomes.acked + outcomes.read > 1_000, "most of the time a majority can serve");
    // The very record that passed is refused once its last read has lost what it showed.
    match events.last_mut() {
        Some(Event::Read { versions, .. }) => *versions = Versions::default(),
        other => panic!("the last event is a read: {other:?}"),
    }
    judge(&events).expect_err("a lost key is noticed");
}

/// Every node sees every other alive in the same boot, and all hold the same.
fn agree(cluster: &mut Cluster) {
    let ended: Vec<_> = cluster.nodes.iter_mut().map(Process::ended).collect();
    assert_eq!(ended, vec![None; NODES], "a node ended by itself");
    let seen_by = |node: &Process| -> Option<Vec<Value>> {
        let members: Value = serde_json::from_str(&node.get("/v1/members")?.1).ok()?;
        let of = |member: &Value| json!([member["id"], member["generation"], member["state"]]);
        Some(members["members"].as_array()?.iter().map(of).collect())
    };
    wait_for("members that agree and equal digests", EQUAL_WITHIN, || {
        let digests: Vec<_> = cluster.nodes.iter().map(|n| Some(n.status()?["digest"].clone())).collect();
        let views: Vec<_> = cluster.nodes.iter().map(seen_by).collect();
        let all_alive = |view: &Vec<Value>| view.len() == NODES && view.iter().all(|member| member[2] == "Alive");
        views[0].as_ref().is_some_and(all_alive)
            && views.iter().all(|view| *view == views[0])
            && digests[0].is_some()
            && digests.iter().all(|digest| *digest == digests[0])
    });
}

/// What clients and nemesis share.
struct World {
    addresses: Vec<String>,
    /// Cleared while a node is down. A paused one seems to run.
    runs: Vec<AtomicBool>,
    over: AtomicBool,
    record: Record,
    writes: AtomicUsize,
}

impl World {
    fn new(cluster: &Cluster) -> Self {
        Self {
            addresses: cluster.nodes.iter().map(|node| node.address.clone()).collect(),
            runs: (0..NODES).map(|_| AtomicBool::new(true)).collect(),
            over: AtomicBool::new(false),
            record: Record::default(),
            writes: AtomicUsize::new(0),
        }
    }
}

fn keys() -> impl Iterator<Item = Bytes> {
    (0..KEYS).map(key)
}

fn key(n: u64) -> Bytes {
    Bytes::from(format!("key-{n}").as_str())
}

/// One client, which asks one thing after the other.
struct Client<'w> {
    world: &'w World,
    agent: Agent,
    rng: Rng,
    /// What it last saw of each key.
    seen: BTreeMap<Bytes, Seen>,
}

impl<'w> Client<'w> {
    fn new(world: &'w World, rng: Rng) -> Self {
        // 300 tells of siblings and leads nowhere.
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(CLIENT_PATIENCE))
            .max_redirects(0)
            .max_redirects_will_error(false)
            .build();
        Self { world, agent: agent.into(), rng, seen: BTreeMap::new() }
    }

    fn use_it(&mut self) {
        while !self.world.over.load(Ordering::Relaxed) {
            let (key, node) = (key(self.rng.below(KEYS)), self.some_node());
            if self.rng.chance(500) {
                self.get(node, &key);
                continue;
            }
            let deletes = self.rng.chance(200);
            let seen = match self.rng.below(6) {
                0 | 1 => None,
                2 => Some(Seen::default()),
                _ => Some(self.seen.get(&key).cloned().unwrap_or_default()),
            };
            let mut id = [0; 16];
            let number = 1 + self.world.writes.fetch_add(1, Ordering::Relaxed) as u64;
            id[8..].copy_from_slice(&number.to_be_bytes());
            let write = WriteId(id);
            let answer = self.put(node, &key, write, seen.as_ref(), deletes);
            // Who does not know whether it happened may ask again, of another.
            if matches!(answer, Put::Unknown) && self.rng.chance(500) {
                let other = self.some_node();
                self.put(other, &key, write, seen.as_ref(), deletes);
            }
        }
    }

    /// A node that runs, most often.
    fn some_node(&mut self) -> usize {
        let all = 0..self.world.runs.len();
        let mut running: Vec<usize> = all.filter(|&node| self.world.runs[node].load(Ordering::Relaxed)).collect();
        if running.is_empty() || self.rng.chance(50) {
            return self.rng.below(NODES as u64) as usize;
        }
        running.swap_remove(self.rng.below(running.len() as u64) as usize)
    }

    fn put(&mut self, node: usize, key: &Bytes, write: WriteId, seen: Option<&Seen>, deletes: bool) -> Put {
        let (url, id) = (self.url(node, key), write.to_string());
        let context = seen.map(|seen| context_header(&seen.context));
        self.world.record.put_asked(key, write, seen, deletes);
        let answer = if deletes {
            let request = self.agent.delete(url).header("qunlong-request-id", &id);
            match &context {
                Some(context) => read(request.header("qunlong-context", context).call()),
                None => read(request.call()),
            }
        } else {
            let request = self.agent.put(url).header("qunlong-request-id", &id);
            match &context {
                Some(context) => read(request.header("qunlong-context", context).send(&id)),
                None => read(request.send(&id)),
            }
        };
        // Also a connection that was refused: nobody says how many were tried.
        let answer = answer.map_or(Put::Unknown, |answer| read_put(&answer));
        self.world.record.put_answered(key, write, &answer);
        if let Put::Done { context, .. } = &answer {
            let mut writes = seen.cloned().unwrap_or_default().writes;
            writes.insert(write);
            self.seen.insert(key.clone(), Seen { context: context.clone(), writes });
        }
        answer
    }

    fn get(&mut self, node: usize, key: &Bytes) -> Get {
        let began = self.world.record.get_asked();
        let answer = read(self.agent.get(self.url(node, key)).header("accept", "application/json").call());
        let silence = || Get::Refused { code: "no answer".to_owned() };
        let answer = answer.map_or_else(silence, |answer| read_get(&answer));
        self.world.record.get_answered(key, began, &answer);
        if let Get::Done { versions, context } = &answer {
            let writes = versions.siblings().iter().map(|sibling| sibling.write).collect();
            self.seen.insert(key.clone(), Seen { context: context.clone(), writes });
        }
        answer
    }

    fn url(&self, node: usize, key: &Bytes) -> String {
        format!("http://{}/v1/kv/{key}?timeout=1500", self.world.addresses[node])
    }
}

/// Who breaks things.
struct Nemesis<'a> {
    nodes: &'a mut [Process],
    proxies: &'a [Proxy],
    world: &'a World,
    rng: Rng,
    /// What has been broken and when it is mended.
    broken: Vec<(Instant, Broken)>,
    kills: usize,
    pauses: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    Down(usize),
    Paused(usize),
    Spoiled(usize),
}

impl<'a> Nemesis<'a> {
    fn new(nodes: &'a mut [Process], proxies: &'a [Proxy], world: &'a World, rng: Rng) -> Self {
        Self { nodes, proxies, world, rng, broken: Vec::new(), kills: 0, pauses: 0 }
    }

    /// Breaks one thing after the other.
    fn rage(&mut self) {
        let began = Instant::now();
        while began.elapsed() < SPAN || self.kills < KILLS {
            match self.rng.below(10) {
                0..5 => self.kill(),
                5 => self.pause(),
                _ => self.spoil(),
            }
            let until = Instant::now() + self.between(50, 400);
            self.mend_until(until);
        }
    }

    /// Mends everything.
    fn rest(&mut self) {
        while let Some((_, broken)) = self.broken.pop() {
            self.mend(broken);
        }
    }

    fn kill(&mut self) {
        if let Some(node) = self.victim() {
            assert_eq!(self.nodes[node].ended(), None, "{} ended by itself", self.nodes[node].name);
            self.world.runs[node].store(false, Ordering::Relaxed);
            self.nodes[node].kill();
            self.kills += 1;
            self.broken_for(100, 500, Broken::Down(node));
        }
    }

    fn pause(&mut self) {
        if let Some(node) = self.victim() {
            self.nodes[node].pause();
            self.pauses += 1;
            self.broken_for(200, 6_000, Broken::Paused(node));
        }
    }

    /// Draws faults for the links that one node accepts, each kind off half the time.
    fn spoil(&mut self) {
        let proxy = self.rng.below(NODES as u64) as usize;
        if self.broken.iter().any(|(_, broken)| *broken == Broken::Spoiled(proxy)) {
            return;
        }
        let mut rate = |max| Rate { per_mille: if self.rng.chance(500) { self.rng.below(max) as u32 } else { 0 } };
        let (duplicate, reorder, loss) = (rate(300), rate(300), rate(20));
        let delay = Duration::from_millis(if self.rng.chance(500) { self.rng.below(100) } else { 0 });
        let cut = match self.rng.below(6) {
            0 => Cut::In,
            1 => Cut::Out,
            2 => Cut::Both,
            _ => Cut::None,
        };
        self.proxies[proxy].set(Faults { delay, loss, duplicate, reorder, cut });
        self.broken_for(300, 3_000, Broken::Spoiled(proxy));
    }

    /// A node that runs, if one more may be taken.
    fn victim(&mut self) -> Option<usize> {
        let is_taken = |node: usize| {
            let as_node = |(_, broken): &(Instant, Broken)| [Broken::Down(node), Broken::Paused(node)].contains(broken);
            self.broken.iter().any(as_node)
        };
        let free: Vec<usize> = (0..NODES).filter(|&node| !is_taken(node)).collect();
        let chosen = self.rng.below(free.len() as u64) as usize;
        (free.len() > NODES - MINORITY).then(|| free[chosen])
    }

    fn mend_until(&mut self, until: Instant) {
        loop {
            self.broken.sort_by_key(|(due, _)| std::cmp::Reverse(*due));
            let next = self.broken.last().map_or(until, |(due, _)| until.min(*due));
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            match self.broken.pop_if(|(due, _)| *due <= Instant::now()) {
                Some((_, broken)) => self.mend(broken),
                None if Instant::now() >= until => return,
                None => (),
            }
        }
    }

    fn mend(&mut self, broken: Broken) {
        match broken {
            Broken::Down(node) => {
                self.nodes[node].start();
                self.world.runs[node].store(true, Ordering::Relaxed);
            }
            Broken::Paused(node) => self.nodes[node].resume(),
            Broken::Spoiled(proxy) => self.proxies[proxy].set(Faults::default()),
        }
    }

    /// Remembers what is broken, and to mend it after a while.
    fn broken_for(&mut self, low_ms: u64, high_ms: u64, broken: Broken) {
        let until = Instant::now() + self.between(low_ms, high_ms);
        self.broken.push((until, broken));
    }

    fn between(&mut self, low_ms: u64, high_ms: u64) -> Duration {
        Duration::from_millis(low_ms + self.rng.below(high_ms - low_ms))
    }
}

/// Records writes one after the other, as a client that is told these answers would, and then one read.
fn recorded(writes: &[(u8, Option<Seen>, Value)], shown: &Value) -> Result<(), String> {
    let (record, key) = (Record::default(), key(0));
    for (n, seen, body) in writes {
        let write = WriteId([*n; 16]);
        record.put_asked(&key, write, seen.as_ref(), false);
        let status = if body["outcome"] == "done" { 200 } else { 503 };
        record.put_answered(&key, write, &read_put(&(status, body.to_string())));
    }
    let began = record.get_asked();
    record.get_answered(&key, began, &read_get(&(300, shown.to_string())));
    judge(&record.into_events())
}

fn context(counter: u64) -> String {
    let mut seen = VersionVector::default();
    seen.add(Dot { node: NodeId::small(1), counter });
    context_header(&seen.into())
}

fn done(counter: u64) -> Value {
    let dot = Dot { node: NodeId::small(1), counter };
    json!({ "outcome": "done", "dot": dot, "context": context(counter) })
}

fn shown(writes: &[(u8, u64)], seen: u64) -> Value {
    let of = |&(n, counter): &(u8, u64)| {
        let write = WriteId([n; 16]);
        json!({ "dot": Dot { node: NodeId::small(1), counter }, "request_id": write, "text": write.to_string() })
    };
    let values: Vec<Value> = writes.iter().map(of).collect();
    json!({ "outcome": "done", "values": values, "deletes": [], "context": context(seen) })
}

#[test]
fn a_forged_history_is_refused() {
    let nothing = || Some(Seen::default());
    let two = [(1, nothing(), done(1)), (2, nothing(), done(2))];
    assert_eq!(recorded(&two, &shown(&[(1, 1), (2, 2)], 2)), Ok(()), "as it was");
    let refused = |writes: &[_], shown: &Value, why: &str| {
        let what = recorded(writes, shown).expect_err(why);
        assert!(what.contains(why), "{what}");
    };
    refused(&two, &shown(&[(1, 1)], 1), "is forgotten");
    refused(&two, &shown(&[(2, 2)], 2), "was overwritten by nobody who saw it");
    refused(&two, &shown(&[(1, 1), (2, 2), (3, 3)], 3), "a value that nobody wrote");
    let plain = [(1, None, done(1)), (2, None, done(2))];
    assert_eq!(recorded(&plain, &shown(&[(2, 2)], 2)), Ok(()), "a plain put supersedes");
    refused(&plain, &shown(&[(1, 1), (2, 2)], 2), "although it was superseded");
    let not_done = [(1, None, json!({ "outcome": "refused", "error": { "code": "NO_QUORUM" } }))];
    refused(&not_done, &shown(&[(1, 1)], 1), "was refused and is there");
    let mut changed = shown(&[(1, 1), (2, 2)], 2);
    changed["values"][0]["text"] = json!("another");
    refused(&two, &changed, "has another value");
}

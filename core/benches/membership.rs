//! Membership at scale, in virtual time: `cargo bench -p qunlong-core --bench membership [-- MEMBERS…]`.
//!
//! Nodes that all know each other, on a network that takes 1 to 5 ms. Measured are how long a claim takes to reach all
//! (a member announces something new about itself), what a member sends in quiet, how soon a member that falls silent
//! is held dead by all, and whether members that stand still now and then are ever held dead.

#![expect(clippy::disallowed_types, reason = "a bench measures real time")]

use std::collections::BTreeMap;
use std::sync::Arc;

use qunlong_core::config::Config;
use qunlong_core::member::{Class, Durability, Member, Profile, State};
use qunlong_core::rng::Rng;
use qunlong_core::{
    Duration, Generation, Input, Instant, Node, NodeId, Now, Op, Output, PersistId, RequestId, Storage, WallTime,
    membership, wire,
};

/// Bytes of a packet's head on the wire.
const HEAD: usize = 37;

struct World {
    nodes: Vec<Node>,
    places: BTreeMap<NodeId, usize>,
    agenda: BTreeMap<(Instant, u64), (usize, Option<wire::Envelope>)>,
    planned: u64,
    now: Instant,
    rng: Rng,
    bytes: u64,
    /// Until then a node stands still.
    paused: Vec<Instant>,
    wakes: Vec<Option<Instant>>,
}

fn id(n: usize) -> NodeId {
    let mut id = [0; 16];
    id[8..].copy_from_slice(&(n as u64 + 1).to_be_bytes());
    NodeId(id)
}

fn member(n: usize) -> Member {
    let storage = Storage(id(n).0);
    let mut profile = Profile::new(format!("n{n}"), Class::Server, Durability::Durable, storage);
    profile.address = Some(format!("10.0.{}.{}:7100", n / 256, n % 256));
    Member { id: id(n), generation: Generation(1), incarnation: 0, state: State::Alive, accuser: None, profile }
}

impl World {
    fn new(count: usize, seed: u64) -> Self {
        let members: Vec<Arc<Member>> = (0..count).map(member).map(Arc::new).collect();
        let mut world = Self {
            nodes: Vec::new(),
            places: (0..count).map(|n| (id(n), n)).collect(),
            agenda: BTreeMap::new(),
            planned: 0,
            now: Instant(0),
            rng: Rng::new(seed),
            bytes: 0,
            paused: vec![Instant(0); count],
            wakes: vec![None; count],
        };
        for (n, own) in members.iter().enumerate() {
            let mut config = Config::new(id(n), own.profile.clone());
            config.autopilot.enabled = false;
            let mut node = Node::new(config, seed ^ n as u64).expect("sound settings");
            node.acquaint(&members);
            world.nodes.push(node);
        }
        for n in 0..count {
            world.input(n, Input::Tick);
        }
        world
    }

    fn input(&mut self, n: usize, input: Input) {
        let now = Now { mono: self.now, wall: WallTime(self.now.0) };
        self.nodes[n].handle(now, input);
        let mut durable: Option<PersistId> = None;
        loop {
            while let Some(output) = self.nodes[n].poll() {
                match output {
                    Output::Persist { id, .. } => durable = Some(id),
                    Output::Send { to, message } => {
                        let size = wire::encode_message(&message).map_or(0, |body| body.len()) + HEAD;
                        for to in to {
                            self.bytes += size as u64;
                            let delay = self.rng.between(Duration::millis(1), Duration::millis(5));
                            let place = self.places[&to];
                            self.plan(delay, place, Some(message.clone()));
                        }
                    }
                    Output::Reply { .. } | Output::Trace(_) => (),
                }
            }
            let Some(id) = durable.take() else { break };
            self.nodes[n].handle(now, Input::Persisted(id));
        }
        if let Some(at) = self.nodes[n].deadline().filter(|&at| self.wakes[n] != Some(at)) {
            self.wakes[n] = Some(at);
            self.plan(at.since(self.now), n, None);
        }
    }

    fn plan(&mut self, after: Duration, place: usize, message: Option<wire::Envelope>) {
        self.planned += 1;
        self.agenda.insert((self.now + after, self.planned), (place, message));
    }

    /// Goes on until the time is up or the condition holds, which is looked at every 10 ms.
    fn run(&mut self, span: Duration, mut done: impl FnMut(&Self) -> bool) -> Duration {
        let (began, end) = (self.now, self.now + span);
        let mut look = self.now;
        while let Some(entry) = self.agenda.first_entry().filter(|entry| entry.key().0 <= end) {
            let ((at, order), (place, message)) = entry.remove_entry();
            self.now = self.now.max(at);
            if self.paused[place] > self.now {
                self.agenda.insert((self.paused[place], order), (place, message));
                continue;
            }
            match message {
                Some(message) => self.input(place, Input::Message(message)),
                None if self.wakes[place].is_some_and(|wake| wake <= self.now) => {
                    self.wakes[place] = None;
                    self.input(place, Input::Tick);
                }
                None => (),
            }
            if self.now.since(look) >= Duration::millis(10) {
                look = self.now;
                if done(self) {
                    return self.now.since(began);
                }
            }
        }
        self.now = end;
        span
    }

    fn all_hold(&self, about: usize, holds: impl Fn(&Member) -> bool) -> bool {
        let about_it = |node: &Node| node.view().members.get(&id(about)).is_some_and(|member| holds(member));
        self.nodes.iter().enumerate().all(|(n, node)| n == about || about_it(node))
    }
}

fn seconds(span: Duration) -> f64 {
    span.0 as f64 / 1e6
}

fn percentile(sorted: &[f64], per_cent: usize) -> f64 {
    sorted[(sorted.len() - 1) * per_cent / 100]
}

fn memory_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() / 1024
}

fn rumours(count: usize, times: usize) {
    let began = std::time::Instant::now();
    let mut world = World::new(count, 1);
    world.run(Duration::secs(15), |_| false);
    let before = (world.bytes, world.now);
    world.run(Duration::secs(20), |_| false);
    let rate = (world.bytes - before.0) as f64 / seconds(world.now.since(before.1)) / count as f64;
    let mut spans: Vec<f64> = (0..times)
        .map(|n| {
            let who = n * 7 % count;
            let drowsy = !world.nodes[who].view().members[&id(who)].profile.drowsy;
            let op = Op::Membership(membership::Op::Drowsy(drowsy));
            world.input(who, Input::Request { id: RequestId(n as u64 + 1), op });
            let span = world.run(Duration::secs(30), |world| world.all_hold(who, |m| m.profile.drowsy == drowsy));
            world.run(Duration::secs(5), |_| false);
            seconds(span)
        })
        .collect();
    spans.sort_by(f64::total_cmp);
    println!(
        "{count:>6} members: a claim reaches all in {:.2} s (median), {:.2} s (95 %), {:.2} s (worst of {times}); \
         {rate:.0} bytes/s and member in quiet; {} MiB; {:.0} s of real time",
        percentile(&spans, 50),
        percentile(&spans, 95),
        percentile(&spans, 100),
        memory_mib(),
        began.elapsed().as_secs_f64()
    );
}

/// A member falls silent: packets to and from it are as good as dropped.
fn silence(count: usize, times: u64) {
    let mut spans: Vec<f64> = (0..times)
        .map(|seed| {
            let mut world = World::new(count, 100 + seed);
            let wait = Duration::secs(5) + Duration::millis(seed * 37 % 1_000);
            world.run(wait, |_| false);
            world.paused[1] = Instant(u64::MAX);
            seconds(world.run(Duration::secs(60), |world| world.all_hold(1, |member| member.state == State::Dead)))
        })
        .collect();
    spans.sort_by(f64::total_cmp);
    println!(
        "{count:>6} members: one that falls silent is held dead by all after {:.1} s (median), {:.1} s (worst of {times})",
        percentile(&spans, 50),
        percentile(&spans, 100)
    );
}

/// One member after the other stands still for 2 s every 20 s. Counts deaths.
fn pauses(count: usize, hours: u64) {
    let mut world = World::new(count, 7);
    let (mut deaths, mut turns) = (0, 0);
    let end = Instant(0) + Duration::secs(hours * 3_600 / count as u64);
    while world.now < end {
        turns += 1;
        world.paused[0] = world.now + Duration::secs(2);
        let mut died = false;
        world.run(Duration::secs(20), |world| {
            let dead = |node: &Node| node.view().members.values().any(|member| member.state == State::Dead);
            died |= world.nodes.iter().any(dead);
            false
        });
        deaths += u64::from(died);
    }
    println!(
        "{count:>6} members: one stands still 2 s every 20 s, {hours} node-hours, {turns} times: {deaths} false deaths"
    );
}

fn main() {
    let wanted: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    if wanted.is_empty() {
        rumours(100, 40);
        rumours(1_000, 12);
        silence(10, 40);
        pauses(16, 1_000);
    } else {
        wanted.into_iter().for_each(|count| rumours(count, 8));
    }
}

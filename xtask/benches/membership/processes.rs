//! Thirty servers, each a process, three of which own.
//!
//! A proxy stands before each of them while the network falls into halves. Inside a half nodes are told each other's own
//! addresses and are linked before they ever hear of the other half, so that only links between the halves pass proxies.
//! A cut drops what they carry without a word and leaves the connections open, as a cable that is pulled does. All owners
//! are in the first half.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use qunlong_core::NodeId;
use qunlong_core::config::MembershipConfig;
use qunlong_core::member::State;
use xtask::proxy::{Cut, Faults, Proxy};

use crate::support::cluster::{Cluster, Process, free_ports};
use crate::views::Views;
use crate::{figure, figures, seconds, until};

/// Processes of the cluster.
const NODES: usize = 30;
/// The first of them, which all others are told of.
const SEEDS: usize = 3;
const KILLS: usize = 5;
const PAUSES: usize = 3;
/// How long a process stands still.
const PAUSE: Duration = Duration::from_secs(4);
/// How long it is watched afterwards.
const AFTERWARDS: Duration = Duration::from_secs(20);
/// Between two faults, so that each meets a quiet cluster.
const REST: Duration = Duration::from_secs(3);
/// A suspicion that nobody confirms takes so many times the least.
const LONGEST: f64 = 4.0;

/// Kills, pauses, and a partition.
pub(crate) fn measure() {
    let mut cluster = linked_directly();
    let views = Views::follow(&cluster.nodes);
    let began = Instant::now();
    let everybody: Vec<usize> = (0..NODES).collect();
    views.until_all_hold(began, &everybody, &everybody, State::Alive);
    let others = without_seats(&cluster, &views);
    kills(&mut cluster, &views, &others[..KILLS]);
    pauses(&cluster, &views, &others[KILLS..KILLS + PAUSES]);
    assert_eq!(views.heard().lost(), 0, "the traces were read in time");
    drop((views, cluster));
    partition();
}

/// Nodes that dial each other.
fn linked_directly() -> Cluster {
    let addresses = addresses();
    let arguments = |n: usize| {
        let seeds = addresses[..SEEDS].iter().enumerate().filter(|(seed, _)| *seed != n);
        joining(n, seeds.map(|(_, seed)| *seed))
    };
    start(&addresses, Vec::new(), arguments)
}

/// Two halves that have never met: their proxies are cut.
fn in_halves() -> Cluster {
    let (addresses, places) = (addresses(), addresses());
    let cut = Faults { cut: Cut::Both, ..Faults::default() };
    let proxies: Vec<Proxy> = (0..)
        .zip(places.iter().zip(&addresses))
        .map(|(seed, (&place, &node))| Proxy::start(place, node, cut, seed).expect("the port is free"))
        .collect();
    let arguments = |n: usize| {
        let [ours, theirs] = if half(0).contains(&n) { [half(0), half(1)] } else { [half(1), half(0)] };
        let near = ours.filter(|&other| other != n).map(|other| addresses[other]);
        let far = theirs.take(SEEDS).map(|other| places[other]);
        let mut arguments = joining(n, near.chain(far));
        arguments.extend(["--advertise".to_owned(), places[n].to_string()]);
        arguments
    };
    start(&addresses, proxies, arguments)
}

fn half(which: usize) -> Range<usize> {
    which * NODES / 2..(which + 1) * NODES / 2
}

fn addresses() -> Vec<SocketAddr> {
    let count = NODES as u16;
    let first = free_ports(count);
    (first..first + count).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect()
}

/// The arguments of a node that joins others; the first one makes the epoch. Seats stay as they are.
fn joining(n: usize, seeds: impl Iterator<Item = SocketAddr>) -> Vec<String> {
    let seeds: Vec<String> = seeds.map(|seed| seed.to_string()).collect();
    let mut arguments = vec!["--no-autopilot".to_owned(), "--join".to_owned(), seeds.join(",")];
    if n == 0 {
        arguments.extend(["--bootstrap", "--owners", "3"].map(str::to_owned));
    }
    arguments
}

fn start(addresses: &[SocketAddr], proxies: Vec<Proxy>, arguments: impl Fn(usize) -> Vec<String>) -> Cluster {
    let data = tempfile::tempdir().expect("a temporary folder");
    let nodes = addresses.iter().enumerate();
    let nodes = nodes.map(|(n, address)| Process::new(data.path(), n + 1, address.to_string(), arguments(n)));
    let mut cluster = Cluster { nodes: nodes.collect(), proxies, data };
    cluster.nodes.iter_mut().for_each(Process::start);
    cluster
}

/// Those who own nothing, once it is known who does.
fn without_seats(cluster: &Cluster, views: &Views) -> Vec<usize> {
    let mut owners: Vec<NodeId> = Vec::new();
    until("an epoch", Instant::now(), || {
        let topology = cluster.nodes[NODES - 1].topology().unwrap_or_default();
        let seats = topology["seats"].as_array().into_iter().flatten();
        owners = seats.filter_map(|seat| NodeId::parse_hex(seat["id"].as_str()?)).collect();
        !owners.is_empty()
    });
    (0..NODES).filter(|&n| !owners.contains(&views.id(n))).collect()
}

fn kills(cluster: &mut Cluster, views: &Views, victims: &[usize]) {
    let (mut deaths, mut returns) = (Vec::new(), Vec::new());
    for &victim in victims {
        std::thread::sleep(REST);
        let others: Vec<usize> = (0..NODES).filter(|&n| n != victim).collect();
        let began = Instant::now();
        cluster.nodes[victim].kill();
        deaths.push(views.until_all_hold(began, &others, &[victim], State::Dead));
        let began = Instant::now();
        cluster.nodes[victim].start();
        returns.push(views.until_all_hold(began, &others, &[victim], State::Alive));
        let everybody: Vec<usize> = (0..NODES).collect();
        views.until_all_hold(began, &everybody, &everybody, State::Alive);
    }
    figures(&format!("{NODES} processes, one killed: all others hold it dead"), deaths, "≤ 1 s");
    figures(&format!("{NODES} processes, it is started again: all others hold it alive"), returns, "");
}

fn pauses(cluster: &Cluster, views: &Views, victims: &[usize]) {
    let least = least_suspicion();
    let beyond = format!("{:+.3} s beyond the pause", least.as_secs_f64() - PAUSE.as_secs_f64());
    figure(&format!("{NODES} processes: the shortest suspicion"), &seconds(least), &beyond);
    figure("… the longest, which nobody confirms", &seconds(least.mul_f64(LONGEST)), "");
    let (mut suspecting, mut deaths, mut others) = (Vec::new(), 0, 0);
    let mut due = Duration::MAX;
    for &victim in victims {
        std::thread::sleep(REST);
        let began = Instant::now();
        cluster.nodes[victim].pause();
        std::thread::sleep(PAUSE);
        cluster.nodes[victim].resume();
        std::thread::sleep(AFTERWARDS);
        let (heard, id) = (views.heard(), views.id(victim));
        let is_it = |(_, of): &&(usize, NodeId)| *of == id;
        let held_dead = heard.came_to_hold(began, State::Dead);
        suspecting.push(heard.came_to_hold(began, State::Suspect).iter().filter(is_it).count());
        deaths += held_dead.iter().filter(is_it).count();
        others += held_dead.iter().filter(|claim| !is_it(claim)).count();
        if let Some(suspected) = heard.first_suspected(began, id) {
            due = due.min(suspected.duration_since(began) + least);
        }
    }
    let what = format!("{PAUSES} times one stands still for {PAUSE:?}");
    figure(&format!("{what}: nodes that held it dead, in all"), &deaths.to_string(), "0");
    figure("… deaths of others that anybody believed in", &others.to_string(), "0");
    figure("… nodes that suspected it, each time", &format!("{suspecting:?}"), "");
    figure("… from the pause to its earliest possible death", &seconds(due), &format!("> {PAUSE:?}"));
}

/// The time that a well confirmed suspicion takes among so many, by the rule of `core/src/membership`.
fn least_suspicion() -> Duration {
    let settings = MembershipConfig::default();
    let period = Duration::from_micros(settings.probe_period.0);
    period.mul_f64(f64::from(settings.suspicion_factor) * (NODES as f64 + 1.0).log10().max(1.0))
}

fn partition() {
    let cluster = in_halves();
    let views = Views::follow(&cluster.nodes);
    let halves: [Vec<usize>; 2] = [half(0).collect(), half(1).collect()];
    let everybody: Vec<usize> = (0..NODES).collect();
    for half in &halves {
        views.until_all_hold(Instant::now(), half, half, State::Alive);
    }
    let each = NODES / 2;
    let cut = |cut: Cut| cluster.proxies.iter().for_each(|proxy| proxy.set(Faults { cut, ..Faults::default() }));
    let began = Instant::now();
    cut(Cut::None);
    let met = views.until_all_hold(began, &everybody, &everybody, State::Alive);
    figure(&format!("two halves of {each} that have never met: {NODES} alive for all"), &seconds(met), "");
    until("links between the halves", began, || {
        cluster.nodes.iter().all(|node| {
            let status = node.status().unwrap_or_default();
            status["links"].as_array().is_some_and(|links| links.len() == NODES - 1)
        })
    });
    std::thread::sleep(REST);

    let began = Instant::now();
    cut(Cut::Both);
    views.until_all_hold(began, &halves[0], &halves[1], State::Dead);
    let apart = views.until_all_hold(began, &halves[1], &halves[0], State::Dead);
    figure(&format!("cut into halves of {each}: each holds the other dead"), &seconds(apart), "");
    let within = |half: &[usize], (by, of): &(usize, NodeId)| {
        half.contains(by) && half.iter().any(|&node| views.id(node) == *of)
    };
    let deaths = views.heard().came_to_hold(began, State::Dead);
    let wrong = deaths.iter().filter(|claim| halves.iter().any(|half| within(half, claim))).count();
    figure("… deaths that were believed in inside a half", &wrong.to_string(), "0");
    let began = Instant::now();
    cut(Cut::None);
    let healed = views.until_all_hold(began, &everybody, &everybody, State::Alive);
    figure(&format!("healed: {NODES} alive for all"), &seconds(healed), "≤ 10 s");
    assert_eq!(views.heard().lost(), 0, "the traces were read in time");
}

//! Who is held for what: members that come and go, and tabs whose relay goes.

use std::collections::BTreeMap;

use qunlong_core::lift::EventKind;
use qunlong_core::member::State;
use qunlong_core::sim::cluster::Sim;
use qunlong_core::trace::Level;
use qunlong_core::{Duration, Epoch, Generation, NodeId, Refusal, membership};

/// Per observer, how often what it holds of `about` has changed.
fn changes(sim: &mut Sim, about: NodeId, counts: &mut BTreeMap<NodeId, usize>) {
    while let Some(event) = sim.next_event() {
        if let EventKind::Membership(membership::Event::Changed(member)) = event.kind
            && member.id == about
            && event.node != about
        {
            *counts.entry(event.node).or_default() += 1;
        }
    }
}

/// Ten minutes of one second up, one second down: what others hold of a member changes once in 30 s at most.
#[test]
fn a_member_that_comes_and_goes_is_not_told_of_each_time() {
    let mut sim = Sim::new(1, 5, 0, 3);
    sim.set_level(Level::Decisions);
    sim.run_for(Duration::secs(20));
    let (flapping, mut counts) = (4, BTreeMap::new());
    let id = sim.id(flapping);
    changes(&mut sim, id, &mut BTreeMap::new());
    let minutes = 10;
    for _ in 0..minutes * 30 {
        for other in 0..flapping {
            sim.network.cut(flapping, other);
            sim.network.cut(other, flapping);
        }
        sim.run_for(Duration::secs(1));
        sim.network.heal_all();
        sim.run_for(Duration::secs(1));
        changes(&mut sim, id, &mut counts);
    }
    let most = counts.values().copied().max().unwrap_or_default();
    assert!(most <= 2 * minutes, "{counts:?}");
    let held = sim.node(0).and_then(|node| node.view().members.get(&id).map(|member| member.state));
    assert_eq!(held, Some(State::Alive));
}

/// A tab keeps two relays: when one of them goes, nobody doubts the tab, and nothing is decided anew.
#[test]
fn a_tab_outlives_its_relay_without_a_change_of_membership() {
    let mut sim = Sim::with(2, 3, 2, 3, |config| config.autopilot.enabled = false);
    sim.set_level(Level::Decisions);
    sim.run_for(Duration::secs(20));
    let (server, tab) = (1, 3);
    let (gone, tab_id) = (sim.id(server), sim.id(tab));
    assert_eq!(sim.node(tab).map(|node| node.view().links.len()), Some(2));
    changes(&mut sim, tab_id, &mut BTreeMap::new());
    sim.crash(server);
    let moved = |sim: &Sim| {
        let of = |place: usize| sim.node(place)?.view().members.get(&tab_id).map(|m| m.profile.relays.clone());
        [0, 2].into_iter().all(|place| of(place).is_some_and(|relays| !relays.contains(&gone) && !relays.is_empty()))
    };
    assert!(sim.run_until(Duration::secs(3), moved), "its new relays are not known");
    let mut doubts = 0;
    while let Some(event) = sim.next_event() {
        if let EventKind::Membership(membership::Event::Changed(member)) = event.kind {
            doubts += usize::from(member.id == tab_id && member.state != State::Alive);
        }
    }
    assert_eq!(doubts, 0);
    assert_eq!(sim.node(0).map(|node| node.view().epoch()), Some(Epoch(1)));
}

/// A page says for its node that it is closed, for the node may not get to it: everybody knows at once, and a node that
/// lives all the same says so.
#[test]
fn the_farewell_of_a_page_counts_at_once_and_is_refuted_by_a_node_that_lives() {
    let mut sim = Sim::with(5, 3, 2, 3, |config| config.autopilot.enabled = false);
    sim.run_for(Duration::secs(20));
    let (closed, open) = (3, 4);
    let farewell = |sim: &mut Sim, tab: usize, boot: u64| {
        let member = sim.id(tab);
        let generation = sim.node(0).and_then(|node| node.view().members.get(&member).map(|known| known.generation));
        let Generation(now) = generation.expect("it is known");
        let op = membership::Op::Farewell { member, generation: Generation(now - boot) };
        let id = sim.request(0, op.into()).expect("it runs");
        sim.run_for(Duration::millis(1));
        sim.take_reply(id).expect("an answer")
    };
    let held = |sim: &Sim, tab: usize, state: State| {
        let id = sim.id(tab);
        (0..3).all(|at| sim.node(at).and_then(|node| node.view().members.get(&id)).is_some_and(|m| m.state == state))
    };
    sim.crash(closed);
    assert!(farewell(&mut sim, closed, 0).is_ok());
    assert!(sim.run_until(Duration::secs(1), |sim| held(sim, closed, State::Left)), "they know");

    assert!(farewell(&mut sim, open, 0).is_ok());
    assert!(sim.run_until(Duration::secs(2), |sim| held(sim, open, State::Left)), "they believe it");
    assert!(sim.run_until(Duration::secs(5), |sim| held(sim, open, State::Alive)), "until it says otherwise");
    let member = sim.id(open);
    assert_eq!(farewell(&mut sim, open, 1), Err(Refusal::UnknownMember { member }), "that of an earlier boot");
    let member = sim.id(1);
    assert_eq!(farewell(&mut sim, 1, 0), Err(Refusal::UnknownMember { member }), "servers speak for themselves");
}

/// A class goes home without a word, and a server dies with it: who is left is told, though most of those that a rumour
/// could be told to are dead members that nobody has found out yet.
#[test]
fn where_most_have_died_at_once_the_rest_is_still_told() {
    for seed in 1..=6 {
        let mut sim = Sim::new(seed, 3, 60, 3);
        sim.run_for(Duration::secs(20));
        let (server, stays) = (2, 3);
        let gone = sim.id(server);
        (stays + 1..sim.len()).for_each(|tab| sim.crash(tab));
        sim.run_for(Duration::secs(1));
        sim.crash(server);
        let knows = |sim: &Sim, place| {
            let member = sim.node(place).and_then(|node| node.view().members.get(&gone));
            member.is_some_and(|member| member.state == State::Dead)
        };
        let told_within = Duration::secs(20);
        let told = sim.run_until(told_within, |sim| [0, 1, stays].iter().all(|&place| knows(sim, place)));
        assert!(told, "seed {seed}");
    }
}

//! Exhaustive small models: every state that a few nodes, messages and crashes can reach is visited.
//!
//! The simulator tries large clusters at random; a model tries a tiny one completely. What a model may do in a step is
//! written here, in the open, and what follows from it is the core's own code: its nodes, versions, tallies and
//! journals. So a model that passes speaks of that code, up to the model's bounds, and each file's header names those.
//!
//! **A model that cannot fail proves nothing.** Each has twins with one planted mistake, and the checker must find a
//! violation in every one of them.
//!
//! ```text
//!   prove(model, at_least)     no reachable state violates an `always`, some state shows each `sometimes`,
//!                              and every state was visited
//!   refute(twin, property)     some reachable state violates this `always`
//! ```
//!
//! To add a model: one file beside this one with a type that is a [`Model`], one `prove` for each set of bounds, one
//! `refute` for each mistake, and its `mod` below. Three habits keep models small and their verdicts sound:
//!
//! - The network is the *set* of all that was ever sent. Anything in it may be delivered at any time, again, or never:
//!   loss, delay, duplication and reordering cost no state of their own.
//! - Liveness is an `always` over *quiet* states, those in which no delivery changes anything. The checker's own
//!   `eventually` misses violations where paths join or run in circles.
//! - What a property needs to know of the past is kept in the state, as little as will do.
#![cfg(not(target_family = "wasm"))]

mod abd;
mod caspaxos;
mod epochs;
mod journal;
mod membership;
mod paxos;
mod quorum;

use std::fmt::Debug;
use std::hash::Hash;

use qunlong_core::config::Config;
use qunlong_core::member::{Class, Durability, Profile};
use qunlong_core::roster::Roster;
use qunlong_core::{Instant, NodeId, Now, Output, PersistId, Storage, WallTime, topology};
use stateright::{Checker, Expectation, HasDiscoveries, Model};

/// Unique states of one model, at most: beyond it a model is not small any more and needs tighter bounds.
const STATES_MAX: usize = 2_000_000;

/// Visits every state and returns how many there are.
///
/// # Panics
///
/// If a property fails, if a state was left out, or if there are fewer than `at_least`: a model that has lost most of
/// its behaviour to a slip would pass for nothing.
fn prove<M>(model: M, at_least: usize) -> usize
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq,
{
    let always = model.properties().iter().any(|property| property.expectation == Expectation::Always);
    assert!(always, "without an `always` the checker stops as soon as it has its examples");
    let checker = model.checker().spawn_bfs().join();
    checker.assert_properties();
    let (states, depth) = (checker.unique_state_count(), checker.max_depth());
    println!("{}: {states} states, depth {depth}", std::any::type_name::<M>());
    assert!(checker.is_done(), "every state must have been visited");
    assert!((at_least..STATES_MAX).contains(&states), "{states} states are not between {at_least} and {STATES_MAX}");
    states
}

/// Finds a state that violates the property and returns the number of steps that lead there.
///
/// # Panics
///
/// If there is none, or no `always` of that name.
fn refute<M>(twin: M, property: &'static str) -> usize
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq,
{
    let stated = twin.properties().iter().any(|p| p.name == property && p.expectation == Expectation::Always);
    assert!(stated, "only the violation of an `always` is a refutation: {property}");
    let checker = twin.checker().finish_when(HasDiscoveries::AnyOf([property].into())).spawn_bfs().join();
    let path = checker.discovery(property);
    let states = checker.unique_state_count();
    let path = path.unwrap_or_else(|| panic!("the planted mistake was not found in {states} states: {property}"));
    let steps = path.into_actions().len();
    println!("{}: {property:?} is violated after {steps} steps", std::any::type_name::<M>());
    steps
}

/// The usual settings of a server.
fn config(id: NodeId) -> Config {
    let (class, durability) = (Class::Server, Durability::Durable);
    Config::new(id, Profile::new(id.to_string(), class, durability, Storage(id.0)))
}

/// Servers that all own and all vote.
fn roster(nodes: &[u8]) -> Roster {
    let nodes = || nodes.iter().map(|&n| NodeId::small(n));
    let seats = nodes().map(|node| (node, topology::seat_of(&config(node).profile)));
    Roster { storage: seats.collect(), voters: nodes().collect() }
}

fn at(time: Instant) -> Now {
    Now { mono: time, wall: WallTime(time.0) }
}

/// The newest batch that these outputs ask the host to make durable.
fn persisted(outputs: &[Output]) -> Option<PersistId> {
    let id = |output: &Output| match output {
        Output::Persist { id, .. } => Some(*id),
        Output::Send { .. } | Output::Reply { .. } | Output::Trace(_) => None,
    };
    outputs.iter().filter_map(id).max()
}

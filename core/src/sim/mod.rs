//! The simulator: whole clusters in virtual time, with a network and disks that misbehave as told.
//!
//! It hosts the same [`crate::Node`] as the native server and the browser tab do, with the same loop, and is itself
//! deterministic and without I/O, so that a run is given by its seed and its script. It is no_std as well: the
//! dashboard can run a cluster inside one tab.
//!
//! - [`cluster`] moves time, delivers messages, crashes and restarts nodes;
//! - [`network`] decides what becomes of a message; [`disk`] what becomes of a write;
//! - [`drawer`] draws what happens from a seed; [`plan`] is that, also as text; [`swarm`] does it and judges; [`minimise`]
//!   shrinks a plan that fails;
//! - [`script`] reads scenarios as text and tells what happened as text;
//! - [`check`] judges client histories from outside: it knows what was acknowledged, and nothing of the nodes.

pub mod check;
pub mod cluster;
pub mod disk;
pub mod drawer;
pub mod minimise;
pub mod network;
pub mod plan;
pub mod script;
pub mod swarm;

pub use cluster::Sim;

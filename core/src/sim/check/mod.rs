//! Judges that stand outside of the nodes: they know what clients asked and were told, and nothing of the cluster.
//!
//! - [`quorum`]: keys with siblings. Acknowledged writes survive, nothing is superseded by who had not seen it, nothing
//!   that was superseded comes back, every read is regular;
//! - [`registers`]: one order of all operations explains every answer; [`linear`] looks for it;
//! - [`converge`]: after quiet, owners hold the same and members see each other as they are;
//! - [`epochs`]: each has one configuration, and nobody goes back to an earlier one;
//! - [`tasks`]: each has one result, and a paused worker's late one is refused;
//! - [`bounds`]: nothing in a node grows beyond its limit.
//!
//! [`tasks`] waits for the protocol that it judges. Each has tests that it can fail: a judge that never
//! convicts is no judge.

pub mod bounds;
pub mod converge;
pub mod epochs;
pub mod linear;
pub mod quorum;
pub mod registers;
pub mod tasks;

pub use quorum::{History, Seen, Violation};

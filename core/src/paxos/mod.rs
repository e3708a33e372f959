//! The rules of CASPaxos, and nothing else: a register that a majority of acceptors keeps, without a leader or a log.
//!
//! A *proposer* that wants to change the register takes a ballot that nobody has used, and goes through the textbook's
//! two phases. What it proposes is the value that the promises report under the highest ballot, changed as its client
//! asks; if none of them has accepted anything, the register is empty.
//!
//! ```text
//!   proposer ── Prepare(b) ──▶ acceptors      each promises to take nothing below b, and says what it has accepted
//!   proposer ◀── Promise(accepted) ── a majority
//!   proposer ── Accept(b, value) ──▶ acceptors
//!   proposer ◀── Accepted ── a majority:      the value is *chosen*
//! ```
//!
//! **Why it is safe.** Two majorities share an acceptor. So whoever prepares after a value was chosen hears of it from
//! one that accepted it, and proposes it again; and whoever prepared before cannot have its older ballot accepted by a
//! majority any more. *Promised* and *accepted* are kept apart (one variable for both was EPaxos' bug), and accepting
//! never leaves the promise below what was accepted.
//!
//! This is data and pure functions: no messages, timers or records. Who hosts an [`Acceptor`] makes its state durable
//! before it lets an answer leave; who hosts a [`Proposer`] sends what it says and hands it the answers.
//!
//! **Without phase 1.** A proposer may have its next ballot promised in the very write that accepts the present one
//! ([`Acceptor::accept_and_promise`]). It skips phase 1 only if one majority has both accepted and promised: an acceptor
//! that had the value from a repair accepts it again and has promised nothing.
//!
//! Sources: Lamport, "Paxos made simple", 2001; Rystsov, "CASPaxos", 2018, arXiv 1802.07000.

mod acceptor;
mod proposer;
mod reader;

pub use acceptor::Acceptor;
pub use proposer::{Next, Proposer};
pub use reader::{Read, Reader};

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{Generation, NodeId};

/// Names one attempt. Ballots are ordered, no two attempts share one, and a boot's ballots differ from every other
/// boot's because its generation was durable before its first message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ballot {
    /// Raised above every ballot that the proposer has heard of. Zero only in [`Ballot::NONE`].
    pub counter: u64,
    /// The proposer.
    pub node: NodeId,
    /// Its boot.
    pub generation: Generation,
}

impl Ballot {
    /// Below every attempt's.
    pub const NONE: Self = Self { counter: 0, node: NodeId([0; 16]), generation: Generation(0) };
}

impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.counter, self.node)
    }
}

/// What an acceptor has accepted last: under which ballot, and what.
pub type Accepted<V> = Option<(Ballot, V)>;

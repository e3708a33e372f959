//! Attempts that this node was asked to propose lately.
//!
//! Messages may be repeated on their way. Where an owner refuses a request because too much has been forgotten, its
//! coordinator concludes that it was never carried out, which is true only if no copy of it was. So an owner takes in each
//! attempt once, for as long as a copy may be under way. A restart forgets them: it also ends every link on which one could
//! still arrive.

use alloc::collections::{BTreeSet, VecDeque};

use crate::id::OpId;
use crate::limits;

/// An operation, and the how-manieth owner its coordinator has asked.
pub(super) type Attempt = (OpId, u32);

/// The newest [`limits::RECENT`] of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Recent {
    known: BTreeSet<Attempt>,
    oldest_first: VecDeque<Attempt>,
}

impl Recent {
    /// Whether it is new; from now on it is not.
    pub(super) fn is_new(&mut self, attempt: Attempt) -> bool {
        if !self.known.insert(attempt) {
            return false;
        }
        self.oldest_first.push_back(attempt);
        if self.oldest_first.len() > limits::RECENT {
            let forgotten = self.oldest_first.pop_front();
            forgotten.map(|attempt| self.known.remove(&attempt));
        }
        true
    }
}

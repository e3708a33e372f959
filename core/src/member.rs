//! What gossip says of a member. Hints only: nothing here is ever counted in a quorum.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::id::{Generation, NodeId};
use crate::limits;

/// What kind of host a member runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Class {
    /// A native process with an address that others can dial.
    Server,
    /// A browser tab, reached through the servers it is linked to.
    Tab,
}

/// Whether what a member acknowledged survives its restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Durability {
    /// Storage has confirmed every record before the reply that depends on it.
    Durable,
    /// Memory only: after a restart this is a new node under a new id.
    Volatile,
}

/// What a member says about itself. It changes rarely, and only together with its incarnation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Profile {
    /// What people call it. At most [`limits::NAME_BYTES`]; not unique.
    pub name: String,
    /// Its kind of host.
    pub class: Class,
    /// Whether it keeps what it acknowledged.
    pub durability: Durability,
    /// `host:port` of a server's listener. Tabs have none.
    pub address: Option<String>,
    /// The servers that a tab is linked to, best first: packets for the tab go there. Empty for servers.
    pub relays: Vec<NodeId>,
}

impl Profile {
    /// Whether it keeps to the limits; profiles from peers are checked before they are believed.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.name.len() <= limits::NAME_BYTES
            && self.address.as_ref().is_none_or(|address| address.len() <= limits::ADDRESS_BYTES)
            && self.relays.len() <= limits::RELAYS
    }
}

/// What is believed of a member's health, from best to worst; of two claims with one incarnation the worse wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum State {
    /// It answers.
    Alive,
    /// It did not answer, neither to us nor through others; it has some time to refute this.
    Suspect,
    /// It did not refute.
    Dead,
    /// It said goodbye.
    Left,
}

/// One claim about one member. Newer claims replace older ones by [`Member::precedence`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Member {
    /// Who.
    pub id: NodeId,
    /// Which of its boots.
    pub generation: Generation,
    /// Raised only by the member itself, to refute a suspicion or to announce a new profile.
    pub incarnation: u64,
    /// What is claimed.
    pub state: State,
    /// What it says about itself.
    pub profile: Profile,
}

impl Member {
    /// The order of claims about one member: the newest boot, then the highest incarnation, then the worst state.
    #[must_use]
    pub fn precedence(&self) -> (Generation, u64, State) {
        (self.generation, self.incarnation, self.state)
    }

    /// Whether messages to it have a chance.
    #[must_use]
    pub fn is_reachable(&self) -> bool {
        matches!(self.state, State::Alive | State::Suspect)
    }
}

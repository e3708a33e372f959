//! What gossip says of a member. Hints only: nothing here is ever counted in a quorum.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::id::{Generation, NodeId, Storage};
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

/// How much its host has to do, in steps so coarse that it is seldom news.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Load {
    /// Room for much more.
    #[default]
    Light,
    /// Busy half of the time or more.
    Busy,
    /// Hardly ever idle.
    Full,
}

impl Load {
    /// The step for a host that was busy for so many thousandths of the last seconds and was at step `self` before them.
    /// A step is left downwards later than it is entered, lest a load at its edge be told again and again.
    #[must_use]
    pub fn after(self, busy_permille: u64) -> Self {
        let slack = |step: Self| if self >= step { 150 } else { 0 };
        match busy_permille {
            busy if busy + slack(Self::Full) >= 850 => Self::Full,
            busy if busy + slack(Self::Busy) >= 500 => Self::Busy,
            _ => Self::Light,
        }
    }
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
    /// Its storage. Another one under the same id is another member that has lost its own.
    pub storage: Storage,
    /// What fails together with it, as its operator says. Empty: nothing, or for a tab its first relay.
    pub zone: String,
    /// Whether it is hidden or about to be frozen: it may fall silent for long at any time, and is not dead then.
    pub drowsy: bool,
    /// Whether it runs on a phone or the like: on a battery, on a radio, often put away.
    pub mobile: bool,
    /// How much its host has to do.
    pub load: Load,
    /// Of its program.
    pub version: String,
}

impl Profile {
    /// A member of which nothing more is known.
    #[must_use]
    pub fn new(name: String, class: Class, durability: Durability, storage: Storage) -> Self {
        Self {
            name,
            class,
            durability,
            address: None,
            relays: Vec::new(),
            storage,
            zone: String::new(),
            drowsy: false,
            mobile: false,
            load: Load::default(),
            version: String::new(),
        }
    }

    /// What fails together with it: as its operator says, else for a tab the server it is linked to first.
    #[must_use]
    pub fn zone(&self) -> String {
        match self.relays.first() {
            Some(relay) if self.zone.is_empty() => alloc::format!("{relay:x}"),
            _ => self.zone.clone(),
        }
    }

    /// Whether it keeps to the limits; profiles from peers are checked before they are believed.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.name.len() <= limits::NAME_BYTES
            && self.address.as_ref().is_none_or(|address| address.len() <= limits::ADDRESS_BYTES)
            && self.relays.len() <= limits::RELAYS
            && self.zone.len() <= limits::ZONE_BYTES
            && self.version.len() <= limits::NAME_BYTES
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
    /// Of a suspicion, who found out for itself; else nobody.
    pub accuser: Option<NodeId>,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_at_the_edge_of_a_step_is_no_news() {
        let steps = |loads: &[u64]| {
            let mut load = Load::Light;
            let step = |&busy| {
                load = load.after(busy);
                load
            };
            loads.iter().map(step).collect::<Vec<Load>>()
        };
        assert_eq!(
            steps(&[0, 499, 500, 499, 351, 349]),
            [Load::Light, Load::Light, Load::Busy, Load::Busy, Load::Busy, Load::Light]
        );
        assert_eq!(steps(&[1_000, 701, 699, 340]), [Load::Full, Load::Full, Load::Busy, Load::Light]);
    }
}

//! The screens, one a file, and the larger panels of some.

mod board;
mod change;
mod consensus;
mod join;
mod keys;
mod members;
mod namespaces;
mod node;
mod quorum;
mod rumour;
mod stage;
mod topology;

pub use consensus::ConsensusPage;
pub use join::JoinPage;
pub use keys::KeysPage;
pub use members::MembersPage;
pub use node::NodePage;
pub use stage::StagePage;
pub use topology::TopologyPage;

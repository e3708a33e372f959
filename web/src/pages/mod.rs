//! The screens, one a file.

mod join;
mod keys;
mod members;
mod node;
mod stage;

pub use join::JoinPage;
pub use keys::KeysPage;
pub use members::MembersPage;
pub use node::NodePage;
pub use stage::StagePage;

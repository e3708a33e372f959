//! The chosen configuration: who owns data, and how many copies there are.

use alloc::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{ClusterId, Epoch, NodeId};

/// One epoch's configuration. Chosen once, durable before it is used, and the same on every node that knows its epoch.
///
/// Every quorum is counted from here and never from gossip.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ClusterConfig {
    /// The cluster this belongs to.
    pub cluster: ClusterId,
    /// Its number; a larger one replaces a smaller one.
    pub epoch: Epoch,
    /// Who may own data, with a weight: twice the weight, twice the partitions. Weights are at least 1.
    pub storage: BTreeMap<NodeId, u32>,
    /// N: copies of each key, at most the number of storage members.
    pub replicas: u8,
}

impl ClusterConfig {
    /// Whether the parts fit together; a config from a peer is checked before it is believed.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        1 <= self.replicas
            && self.replicas <= crate::limits::REPLICAS
            && usize::from(self.replicas) <= self.storage.len()
            && self.storage.len() <= crate::limits::STORAGE_MEMBERS
            && self.storage.values().all(|&weight| weight > 0)
            && self.epoch > Epoch(0)
    }
}

//! Epochs: one configuration each, and nobody goes back.
//!
//! What a node has chosen is durable before anybody hears of it, so the highest epoch that a node has shown is remembered
//! across its restarts; and whoever shows an epoch shows the same configuration for it.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;

use crate::cluster::ClusterConfig;
use crate::id::{Epoch, NodeId};
use crate::sim::Sim;

/// What was seen so far.
#[derive(Clone, Debug, Default)]
pub struct Epochs {
    configs: BTreeMap<Epoch, ClusterConfig>,
    highest: BTreeMap<NodeId, Epoch>,
}

impl Epochs {
    /// Looks at all running nodes.
    ///
    /// # Errors
    ///
    /// Says who shows what cannot be.
    pub fn look(&mut self, sim: &Sim) -> Result<(), String> {
        for node in (0..sim.len()).filter_map(|place| sim.node(place)) {
            self.see(node.id(), node.view().chosen.as_ref().map(|chosen| &chosen.config))
                .map_err(|what| format!("{}: {what}", sim.name(node.id())))?;
        }
        Ok(())
    }

    fn see(&mut self, node: NodeId, config: Option<&ClusterConfig>) -> Result<(), String> {
        let epoch = config.map_or(Epoch(0), |config| config.epoch);
        let highest = self.highest.entry(node).or_default();
        // A node that has just restarted shows what it chose with its first input.
        if epoch < *highest && epoch > Epoch(0) {
            return Err(format!("went back from epoch {} to {}", highest.0, epoch.0));
        }
        *highest = epoch.max(*highest);
        let Some(config) = config else { return Ok(()) };
        let first = self.configs.entry(epoch).or_insert_with(|| config.clone());
        if first == config { Ok(()) } else { Err(format!("another configuration in epoch {}", epoch.0)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ClusterId;

    fn config(epoch: u64, cluster: u8) -> ClusterConfig {
        let storage = BTreeMap::from([(NodeId::small(1), 1)]);
        ClusterConfig { cluster: ClusterId([cluster; 16]), epoch: Epoch(epoch), replicas: 1, storage }
    }

    #[test]
    fn two_configurations_of_one_epoch_are_noticed() {
        let mut epochs = Epochs::default();
        assert_eq!(epochs.see(NodeId::small(1), Some(&config(1, 1))), Ok(()));
        assert_eq!(epochs.see(NodeId::small(2), Some(&config(1, 1))), Ok(()));
        assert!(epochs.see(NodeId::small(3), Some(&config(1, 2))).is_err());
    }

    #[test]
    fn going_back_is_noticed() {
        let mut epochs = Epochs::default();
        assert_eq!(epochs.see(NodeId::small(1), None), Ok(()));
        assert_eq!(epochs.see(NodeId::small(1), Some(&config(2, 1))), Ok(()));
        assert!(epochs.see(NodeId::small(1), Some(&config(1, 1))).is_err());
    }
}

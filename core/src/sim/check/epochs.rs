//! Epochs: one configuration each, nobody goes back, and the quorums of each meet those of the next.
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
    /// A node has lost its storage, and cannot remember.
    pub fn forget(&mut self, node: NodeId) {
        self.highest.remove(&node);
    }

    /// Changes that have begun.
    #[must_use]
    pub fn begun(&self) -> u64 {
        self.configs.values().filter(|config| config.next.is_some()).count() as u64
    }

    /// Changes that came to what was wanted.
    #[must_use]
    pub fn completed(&self) -> u64 {
        self.ended(|before, after| before.complete().as_ref() == Some(after))
    }

    /// Changes that were given up.
    #[must_use]
    pub fn given_up(&self) -> u64 {
        self.ended(|before, after| before.abort().as_ref() == Some(after))
    }

    fn ended(&self, how: impl Fn(&ClusterConfig, &ClusterConfig) -> bool) -> u64 {
        let pairs = self.configs.iter().filter_map(|(epoch, before)| Some((before, self.configs.get(&epoch.next())?)));
        pairs.filter(|(before, after)| how(before, after)).count() as u64
    }

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
        match self.configs.get(&epoch) {
            Some(first) if first == config => return Ok(()),
            Some(_) => return Err(format!("another configuration in epoch {}", epoch.0)),
            None => (),
        }
        let before = epoch.0.checked_sub(1).and_then(|before| self.configs.get(&Epoch(before)));
        let after = self.configs.get(&epoch.next());
        let follows =
            before.is_none_or(|before| before.allows(config)) && after.is_none_or(|after| config.allows(after));
        if !follows {
            return Err(format!("the quorums of epoch {} need not meet those beside it", epoch.0));
        }
        self.configs.insert(epoch, config.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ClusterId;
    use crate::roster::Roster;

    fn config(epoch: u64, cluster: u8) -> ClusterConfig {
        let first = ClusterConfig::first(ClusterId([cluster; 16]), 1, Roster::default());
        ClusterConfig { epoch: Epoch(epoch), ..first }
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

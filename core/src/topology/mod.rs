//! Who owns: the cluster's chosen configuration, from its first epoch on.
//!
//! A new cluster begins when exactly one node is told to bootstrap. It asks all servers it can see whether they
//! know an epoch; once enough have said *no*, and none *yes*, it mints a random cluster id, makes epoch 1 durable
//! and hands it out. Everybody else only ever adopts: nobody bootstraps by timeout, and a node without an epoch
//! serves no data.
//!
//! ```text
//!   bootstrapper ── Ask ──▶ servers        server ── Nothing ──▶ bootstrapper     (once `owners` said so)
//!   bootstrapper: epoch 1 durable ── Config ──▶ owners
//!   newcomer ── Ask ──▶ a member ── Config ──▶ newcomer: durable, then in force
//! ```
//!
//! **Invariants**: one configuration per (cluster, epoch); a node's epoch never decreases and survives restarts;
//! a node never leaves its cluster for another one.
//!
//! The answers of the owners, and not the member list, are what a bootstrapper counts: gossip says whom to ask.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::cluster::ClusterConfig;
use crate::config::Bootstrap;
use crate::id::{ClusterId, Epoch, NodeId, RequestId};
use crate::member::{Class, Durability, Member};
use crate::protocol::{Ctx, Effects, Protocol};
use crate::time::Duration;

/// A node without an epoch asks this often.
const ASK_INTERVAL: Duration = Duration::millis(250);

/// The state of one node's topology.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Topology {
    chosen: Option<ClusterConfig>,
    /// Servers that said they know no epoch; counted by a bootstrapper only.
    without_epoch: BTreeSet<NodeId>,
}

/// What nodes tell each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Msg {
    /// Do you know an epoch?
    Ask,
    /// No.
    Nothing,
    /// This is the newest I know.
    Config(ClusterConfig),
}

/// Timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Timer {
    /// Still no epoch: ask again.
    Ask,
}

/// What is kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Record {
    /// The newest chosen configuration.
    Chosen(ClusterConfig),
}

/// Nothing to ask yet: changes of the configuration come with the config register.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Op {}

/// Nothing to answer yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {}

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Event {
    /// This node made the first epoch.
    Bootstrapped(ClusterConfig),
    /// This node adopted a configuration from a peer.
    Adopted(ClusterConfig),
    /// A peer offered a configuration of another cluster.
    RefusedCluster {
        /// The peer.
        from: NodeId,
        /// Its cluster.
        cluster: ClusterId,
    },
}

impl Topology {
    fn adopt(&mut self, config: ClusterConfig, fx: &mut Effects<Self>) {
        self.chosen = Some(config.clone());
        self.without_epoch.clear();
        fx.disarm(Timer::Ask);
        fx.persist(Record::Chosen(config.clone()));
        fx.adopt(config);
    }

    /// Asks the servers in sight, or one member when this node only wants to join.
    fn ask(&mut self, cx: &mut Ctx<'_>, fx: &mut Effects<Self>) {
        if self.chosen.is_some() {
            return;
        }
        let mut peers: Vec<NodeId> =
            cx.view.members.values().filter(|m| m.is_reachable() && m.id != cx.me).map(|m| m.id).collect();
        if cx.config.bootstrap.is_none() {
            let one = cx.rng.choose(&mut peers, 1);
            peers.truncate(one);
        }
        if !peers.is_empty() {
            // A question.
            fx.send_all_now(peers, Msg::Ask);
        }
        fx.arm(ASK_INTERVAL, Timer::Ask);
    }

    fn try_bootstrap(&mut self, cx: &mut Ctx<'_>, bootstrap: Bootstrap, fx: &mut Effects<Self>) {
        let ready: BTreeMap<NodeId, u32> = [&cx.me]
            .into_iter()
            .chain(&self.without_epoch)
            .take(usize::from(bootstrap.owners))
            .map(|&id| (id, 1))
            .collect();
        if ready.len() < usize::from(bootstrap.owners) {
            return;
        }
        let config = ClusterConfig {
            cluster: ClusterId(cx.rng.next_bytes()),
            epoch: Epoch(1),
            storage: ready,
            replicas: bootstrap.replicas,
        };
        fx.trace(|| Event::Bootstrapped(config.clone()));
        self.adopt(config.clone(), fx);
        let others = config.storage.keys().copied().filter(|&owner| owner != cx.me);
        let others: Vec<NodeId> = others.collect();
        if !others.is_empty() {
            fx.send_all(others, Msg::Config(config));
        }
    }

    /// Takes over a newer configuration, from owners only: from one of its own where this node has none yet, else from
    /// one of those it knows. A stray tab of an older cluster must not found anything.
    fn consider(&mut self, from: NodeId, config: ClusterConfig, fx: &mut Effects<Self>) {
        if !config.is_sound() {
            return;
        }
        match &self.chosen {
            None if !config.storage.contains_key(&from) => (),
            Some(mine) if mine.cluster == config.cluster && !mine.storage.contains_key(&from) => (),
            Some(mine) if mine.cluster != config.cluster => {
                let cluster = config.cluster;
                fx.trace(|| Event::RefusedCluster { from, cluster });
            }
            Some(mine) if config.epoch <= mine.epoch => (),
            _ => {
                fx.trace(|| Event::Adopted(config.clone()));
                self.adopt(config, fx);
            }
        }
    }
}

impl Protocol for Topology {
    type Msg = Msg;
    type Timer = Timer;
    type Record = Record;
    type Op = Op;
    type Outcome = Outcome;
    type Event = Event;

    fn on_start(&mut self, _cx: &mut Ctx<'_>, fx: &mut Effects<Self>) {
        match &self.chosen {
            Some(config) => fx.adopt(config.clone()),
            None => fx.arm(ASK_INTERVAL, Timer::Ask),
        }
    }

    fn on_message(&mut self, cx: &mut Ctx<'_>, from: NodeId, msg: Msg, fx: &mut Effects<Self>) {
        match (msg, &self.chosen) {
            (Msg::Ask, Some(config)) => fx.send(from, Msg::Config(config.clone())),
            (Msg::Ask, None) => fx.send(from, Msg::Nothing),
            (Msg::Nothing, None) => {
                let Some(bootstrap) = cx.config.bootstrap else {
                    return;
                };
                if cx.view.members.get(&from).is_some_and(may_own) {
                    self.without_epoch.insert(from);
                    self.try_bootstrap(cx, bootstrap, fx);
                }
            }
            // It lost the race or missed the announcement.
            (Msg::Nothing, Some(config)) => fx.send(from, Msg::Config(config.clone())),
            (Msg::Config(config), _) => self.consider(from, config, fx),
        }
    }

    fn on_timer(&mut self, cx: &mut Ctx<'_>, timer: Timer, fx: &mut Effects<Self>) {
        match timer {
            Timer::Ask => {
                if let (None, Some(bootstrap)) = (&self.chosen, cx.config.bootstrap) {
                    self.try_bootstrap(cx, bootstrap, fx);
                }
                self.ask(cx, fx);
            }
        }
    }

    fn on_op(&mut self, _cx: &mut Ctx<'_>, _id: RequestId, op: Op, _fx: &mut Effects<Self>) {
        match op {}
    }

    fn on_link(&mut self, _cx: &mut Ctx<'_>, peer: NodeId, up: bool, fx: &mut Effects<Self>) {
        if up && self.chosen.is_none() {
            // A question.
            fx.send_now(peer, Msg::Ask);
        }
    }

    fn restore(&mut self, record: Record) {
        match record {
            Record::Chosen(config) => {
                if self.chosen.as_ref().is_none_or(|mine| mine.epoch < config.epoch) {
                    self.chosen = Some(config);
                }
            }
        }
    }
}

/// In the first epoch the owners are durable servers.
fn may_own(member: &Member) -> bool {
    member.profile.class == Class::Server && member.profile.durability == Durability::Durable
}

impl core::fmt::Display for Event {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Bootstrapped(config) => write!(
                f,
                "made epoch {} of a new cluster, {} owners, {} replicas",
                config.epoch.0,
                config.storage.len(),
                config.replicas
            ),
            Self::Adopted(config) => write!(f, "adopted epoch {}", config.epoch.0),
            Self::RefusedCluster { from, cluster } => {
                write!(f, "refused cluster {cluster} offered by {from}")
            }
        }
    }
}

//! A node's settings. The cluster's own configuration is in [`crate::cluster`].

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::id::NodeId;
use crate::limits;
use crate::member::Profile;
use crate::time::Duration;

/// Everything a node is told when it starts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Config {
    /// Its name, from its key.
    pub id: NodeId,
    /// What it says about itself.
    pub profile: Profile,
    /// If set, this node makes epoch 1 with so many owners, itself included, once it sees them and none of them
    /// knows an epoch. Exactly one node of a new cluster is told so; it has no effect where an epoch is known.
    pub bootstrap: Option<Bootstrap>,
    /// Failure detection and dissemination.
    pub membership: MembershipConfig,
    /// Replicated keys.
    pub kv: KvConfig,
    /// Changes of who owns and votes that the voters make by themselves.
    pub autopilot: AutopilotConfig,
}

/// The first epoch, as an operator asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Bootstrap {
    /// Storage members to wait for, at least `replicas`.
    pub owners: u8,
    /// N: copies of each key.
    pub replicas: u8,
    /// Whether tabs alone are to own and vote, of whatever durability, and this server only relays.
    pub tabs: bool,
}

/// Which tabs the autopilot gives seats to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Tabs {
    /// None, where there are servers.
    Never,
    /// Durable ones, as long as a server may fail and all tabs be closed at the same time.
    Spare,
    /// Durable ones, as many as a minority.
    Always,
}

/// The autopilot's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AutopilotConfig {
    /// Whether it acts at all.
    pub enabled: bool,
    /// Which tabs get seats.
    pub tabs: Tabs,
    /// How long a durable member without a seat has been there before it gets one. Shorter: those who only pass by
    /// make the cluster move data.
    pub promote_after: Duration,
    /// How long a member with a seat has been dead before it loses it. Shorter: a restart moves data; longer: the
    /// cluster does without a copy.
    pub replace_after: Duration,
    /// How long a change may take. Well above the time that the data of a member takes to be copied.
    pub give_up_after: Duration,
    /// Whether members that are to own fetch what will be theirs before a change begins. Without it, all of it is copied while
    /// the change is under way, which is as safe and makes changes longer.
    pub learn_first: bool,
}

impl Default for AutopilotConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            tabs: Tabs::Spare,
            promote_after: Duration::secs(5),
            replace_after: Duration::secs(60),
            give_up_after: Duration::secs(600),
            learn_first: true,
        }
    }
}

/// SWIM's settings. Shorter times find failures sooner and cost more messages and more false suspicions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MembershipConfig {
    /// One member is probed per period. Must exceed `probe_timeout`; 200 ms to 10 s is usable.
    pub probe_period: Duration,
    /// A direct answer is awaited this long before others are asked to try. Above the usual round trip.
    pub probe_timeout: Duration,
    /// Others asked to probe in our stead (the paper's k). More survive more broken paths, and cost messages.
    pub indirect_probes: u8,
    /// A well confirmed suspect may refute for this × log10(N+1) periods, at least this many; one whom few have found
    /// silent for up to four times as long. Lower means quicker and more often wrong.
    pub suspicion_factor: u8,
    /// Rumours leave this often when there are any.
    pub gossip_interval: Duration,
    /// Members that a round of rumours goes to.
    pub gossip_fanout: u8,
    /// A rumour is sent this × ⌈log10(N+1)⌉ times.
    pub rumour_factor: u8,
    /// Full exchange with a random member, which catches what rumours missed.
    pub push_pull_interval: Duration,
    /// How long the dead and the departed are remembered, so that old rumours of them find no ear.
    pub forget_after: Duration,
}

impl Default for MembershipConfig {
    fn default() -> Self {
        Self {
            probe_period: Duration::secs(1),
            probe_timeout: Duration::millis(400),
            indirect_probes: 3,
            suspicion_factor: 3,
            gossip_interval: Duration::millis(200),
            gossip_fanout: 3,
            rumour_factor: 4,
            push_pull_interval: Duration::secs(10),
            forget_after: Duration::secs(120),
        }
    }
}

/// Settings of replicated keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KvConfig {
    /// Deadline of a request that names none. At most [`limits::DEADLINE_MAX`].
    pub deadline: Duration,
    /// Silence after which silent owners are asked again, or another owner is asked to mint. Well below `deadline`,
    /// above the usual round trip.
    pub retry: Duration,
    /// How often an owner compares a random other owner's partitions with its own.
    pub repair_interval: Duration,
    /// How long a key has been deleted before its owners agree to forget it. Above [`limits::DEADLINE_MAX`], so that
    /// no request that is still waiting can bring it back.
    pub collect_after: Duration,
}

impl Default for KvConfig {
    fn default() -> Self {
        Self {
            deadline: Duration::secs(2),
            retry: Duration::millis(400),
            repair_interval: Duration::secs(5),
            collect_after: Duration::secs(60),
        }
    }
}

/// A setting that cannot work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// The name, the address or the relays are over their limits.
    Profile,
    /// The probe timeout must be shorter than the period, and neither may be zero.
    Probe,
    /// A deadline or an interval is zero or over its limit.
    Interval,
    /// Replicas must lie between 1 and 7, and not above the number of owners.
    Replicas,
}

impl Config {
    /// Usual settings for a node.
    #[must_use]
    pub fn new(id: NodeId, profile: Profile) -> Self {
        Self {
            id,
            profile,
            bootstrap: None,
            membership: MembershipConfig::default(),
            kv: KvConfig::default(),
            autopilot: AutopilotConfig::default(),
        }
    }

    /// Checks the settings against each other and the limits.
    ///
    /// # Errors
    ///
    /// Names the first rule that is broken.
    pub fn check(&self) -> Result<(), ConfigError> {
        let swim = &self.membership;
        let intervals =
            [swim.gossip_interval, swim.push_pull_interval, self.kv.deadline, self.kv.retry, self.kv.repair_interval];
        if !self.profile.is_sound() {
            return Err(ConfigError::Profile);
        }
        if swim.probe_timeout == Duration::ZERO || swim.probe_period <= swim.probe_timeout {
            return Err(ConfigError::Probe);
        }
        if intervals.contains(&Duration::ZERO) || self.kv.deadline > limits::DEADLINE_MAX {
            return Err(ConfigError::Interval);
        }
        match self.bootstrap {
            Some(Bootstrap { owners, replicas, .. })
                if replicas == 0 || replicas > limits::REPLICAS || replicas > owners =>
            {
                Err(ConfigError::Replicas)
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Profile => "the node's name or address is too long",
            Self::Probe => "the probe timeout must be above zero and below the probe period",
            Self::Interval => "an interval is zero, or the default deadline is above 30 s",
            Self::Replicas => "replicas must lie between 1 and 7 and not above the number of owners",
        })
    }
}

impl core::error::Error for ConfigError {}

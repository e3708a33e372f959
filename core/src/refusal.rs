//! Why a request was not done: stable codes, each definite or not.

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{Epoch, NodeId, Round};
use crate::namespace::Mode;

/// The answer to a request that was not done. See [`Refusal::is_definite`] for what may have happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Refusal {
    /// Too few replicas answered before the deadline, and nothing of this request was sent to be stored.
    NoQuorum {
        /// Replicas that answered.
        answered: u8,
        /// Replicas that were needed.
        needed: u8,
    },
    /// The deadline passed after a store was sent: it may or may not have taken place, now or later.
    TimeoutUnknown {
        /// Replicas that acknowledged.
        acked: u8,
        /// Replicas that were needed.
        needed: u8,
    },
    /// This node knows no epoch yet: the cluster has not been bootstrapped, or it has not heard of it.
    NoEpoch,
    /// The replica serves another epoch than the coordinator; the coordinator has to learn the newer one.
    WrongEpoch {
        /// The replica's.
        mine: Epoch,
        /// The request's.
        theirs: Epoch,
    },
    /// The message is from before the last collection of deletes in its partition.
    StaleRound {
        /// The replica's.
        mine: Round,
        /// The message's.
        theirs: Round,
    },
    /// R or W below a majority, or above N.
    BadLevel {
        /// N.
        replicas: u8,
    },
    /// A key, a value or a batch is larger than the limit.
    TooLarge {
        /// The limit in bytes.
        limit: u32,
    },
    /// The key already has as many concurrent versions as are allowed; read them and write with their context.
    TooManySiblings,
    /// The context names writes that its owner never made.
    InvalidContext,
    /// A queue is full; nothing was done.
    Overloaded,
    /// The disks of too many owners are full; nothing was written.
    DiskFull,
    /// The replica does not own the key in this epoch.
    NotAnOwner,
    /// The replica owns the key and has not taken it over yet.
    CatchingUp,
    /// The node is leaving the cluster and takes no more requests.
    Leaving,
    /// Another change of the configuration is under way, or was chosen in place of this one.
    ConfigChangeInProgress {
        /// The epoch of it, or the one that was chosen.
        epoch: Epoch,
    },
    /// This node has lost the storage that its seat was given to.
    StorageLost,
    /// The node that was asked for a change does not vote.
    NotAVoter,
    /// No member of this id is known, or has a seat.
    UnknownMember {
        /// The id.
        member: NodeId,
    },
    /// A member that was to get a seat does not get on with fetching what it is to own: it cannot be reached, or cannot
    /// reach the owners. Nothing has changed.
    LearnerStalled {
        /// Who.
        member: NodeId,
        /// Partitions it has.
        have: u16,
        /// Partitions it is to own; 0 if it has never answered.
        of: u16,
    },
    /// The votes and all data have their majorities still, as far as this node knows: there is nothing to recover from.
    MajorityAlive,
    /// The node that was asked to recover a lost majority is not one of the survivors named, or is at it already.
    NotASurvivor,
    /// A survivor that was named does not answer, or has lost its storage. Nothing has changed.
    SurvivorSilent {
        /// Who.
        member: NodeId,
    },
    /// A survivor stopped to answer after others had left the old cluster: they are in none, until the survivors are named
    /// again.
    SurvivorLost {
        /// Who.
        member: NodeId,
    },
    /// The cluster was recovered, and its members merge what they hold.
    Recovering,
    /// Fewer members would be left than each key has copies.
    TooFewMembers {
        /// N.
        replicas: u8,
    },
    /// The configuration is already as it was asked for.
    NoChange,
    /// What the change depends on does not hold. The register is as it was.
    Conflict {
        /// The version that it has.
        version: u64,
    },
    /// No namespace of this name has been created, as far as the node that was asked knows.
    NoNamespace,
    /// The namespace promises something else than what was asked for.
    WrongMode {
        /// What it promises.
        mode: Mode,
    },
    /// A namespace of this name is there, and is another one.
    NamespaceExists {
        /// What it promises.
        mode: Mode,
        /// Its number of copies; 0 for the cluster's.
        replicas: u8,
    },
    /// A namespace cannot be called so, or cannot have so many copies.
    BadNamespace,
    /// The register holds no number of 64 bits, or would hold none any more.
    NotANumber,
    /// So many changes came since the client saw the register that nobody knows whether this one was among them.
    SessionExpired {
        /// The version that it has.
        version: u64,
    },
    /// The cluster has as many namespaces as it may have, besides those that are always there. None was created.
    TooManyNamespaces {
        /// So many.
        limit: u32,
    },
}

impl Refusal {
    /// Every code, in the order of the variants.
    pub const CODES: [&'static str; 34] = [
        "NO_QUORUM",
        "TIMEOUT_UNKNOWN",
        "NO_EPOCH",
        "WRONG_EPOCH",
        "STALE_ROUND",
        "BAD_LEVEL",
        "TOO_LARGE",
        "TOO_MANY_SIBLINGS",
        "INVALID_CONTEXT",
        "OVERLOADED",
        "DISK_FULL",
        "NOT_AN_OWNER",
        "CATCHING_UP",
        "LEAVING",
        "CONFIG_CHANGE_IN_PROGRESS",
        "STORAGE_LOST",
        "NOT_A_VOTER",
        "UNKNOWN_MEMBER",
        "LEARNER_STALLED",
        "MAJORITY_ALIVE",
        "NOT_A_SURVIVOR",
        "SURVIVOR_SILENT",
        "SURVIVOR_LOST",
        "RECOVERING",
        "TOO_FEW_MEMBERS",
        "NO_CHANGE",
        "CONFLICT",
        "NO_NAMESPACE",
        "WRONG_MODE",
        "NAMESPACE_EXISTS",
        "BAD_NAMESPACE",
        "NOT_A_NUMBER",
        "SESSION_EXPIRED",
        "TOO_MANY_NAMESPACES",
    ];

    /// The stable code. One of [`Refusal::CODES`].
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoQuorum { .. } => "NO_QUORUM",
            Self::TimeoutUnknown { .. } => "TIMEOUT_UNKNOWN",
            Self::NoEpoch => "NO_EPOCH",
            Self::WrongEpoch { .. } => "WRONG_EPOCH",
            Self::StaleRound { .. } => "STALE_ROUND",
            Self::BadLevel { .. } => "BAD_LEVEL",
            Self::TooLarge { .. } => "TOO_LARGE",
            Self::TooManySiblings => "TOO_MANY_SIBLINGS",
            Self::InvalidContext => "INVALID_CONTEXT",
            Self::Overloaded => "OVERLOADED",
            Self::DiskFull => "DISK_FULL",
            Self::NotAnOwner => "NOT_AN_OWNER",
            Self::CatchingUp => "CATCHING_UP",
            Self::Leaving => "LEAVING",
            Self::ConfigChangeInProgress { .. } => "CONFIG_CHANGE_IN_PROGRESS",
            Self::StorageLost => "STORAGE_LOST",
            Self::NotAVoter => "NOT_A_VOTER",
            Self::UnknownMember { .. } => "UNKNOWN_MEMBER",
            Self::LearnerStalled { .. } => "LEARNER_STALLED",
            Self::MajorityAlive => "MAJORITY_ALIVE",
            Self::NotASurvivor => "NOT_A_SURVIVOR",
            Self::SurvivorSilent { .. } => "SURVIVOR_SILENT",
            Self::SurvivorLost { .. } => "SURVIVOR_LOST",
            Self::Recovering => "RECOVERING",
            Self::TooFewMembers { .. } => "TOO_FEW_MEMBERS",
            Self::NoChange => "NO_CHANGE",
            Self::Conflict { .. } => "CONFLICT",
            Self::NoNamespace => "NO_NAMESPACE",
            Self::WrongMode { .. } => "WRONG_MODE",
            Self::NamespaceExists { .. } => "NAMESPACE_EXISTS",
            Self::BadNamespace => "BAD_NAMESPACE",
            Self::NotANumber => "NOT_A_NUMBER",
            Self::SessionExpired { .. } => "SESSION_EXPIRED",
            Self::TooManyNamespaces { .. } => "TOO_MANY_NAMESPACES",
        }
    }

    /// True if nothing happened and nothing will; false if the request may still take effect.
    #[must_use]
    pub fn is_definite(&self) -> bool {
        !matches!(self, Self::TimeoutUnknown { .. } | Self::SurvivorLost { .. } | Self::SessionExpired { .. })
    }
}

/// What happened and what to do about it.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoQuorum { answered, needed } => write!(
                f,
                "{answered} of the {needed} needed replicas answered in time; nothing was written; try again when more \
                 owners are reachable"
            ),
            Self::TimeoutUnknown { acked, needed } => write!(
                f,
                "{acked} of the {needed} needed replicas acknowledged in time; the write may still take effect; retry \
                 with the same request id"
            ),
            Self::NoEpoch => {
                f.write_str("this node belongs to no cluster yet; start one node with --bootstrap or join a cluster")
            }
            Self::WrongEpoch { mine, theirs } => {
                write!(f, "the replica serves epoch {}, the request came from epoch {}; try again", mine.0, theirs.0)
            }
            Self::StaleRound { mine, theirs } => {
                write!(
                    f,
                    "deletes were collected since the message was made: it is of round {}, the replica of round {}; \
                     try again",
                    theirs.0, mine.0
                )
            }
            Self::BadLevel { replicas } => {
                write!(
                    f,
                    "with {replicas} replicas, R and W must lie between {} and {replicas}; from 1 on in namespaces of mode eventual",
                    crate::quorum::majority(*replicas)
                )
            }
            Self::TooLarge { limit } => write!(f, "larger than the limit of {limit} bytes"),
            Self::TooManySiblings => {
                f.write_str("too many concurrent versions; read the key and write with the context you get")
            }
            Self::InvalidContext => {
                f.write_str("the context names writes that were never made; use the context of a read")
            }
            Self::Overloaded => f.write_str("too many requests at once; nothing was done; slow down and try again"),
            Self::DiskFull => f.write_str(
                "the disk of every owner that could be asked is full; nothing was written; free some space, and it goes \
                 on by itself",
            ),
            Self::NotAnOwner => f.write_str("the replica does not own this key; try again"),
            Self::CatchingUp => f.write_str("the replica is taking over this key from others; try again"),
            Self::Leaving => f.write_str("this node is leaving the cluster; ask another one"),
            Self::ConfigChangeInProgress { epoch } => {
                write!(f, "another change is under way or was chosen, in epoch {}; look at it and try again", epoch.0)
            }
            Self::StorageLost => f.write_str(
                "this node has lost the storage that its place in the cluster belongs to; start it in an empty folder, as \
                 a new node, and remove the old one",
            ),
            Self::NotAVoter => f.write_str("the node that was asked does not vote on the configuration; try again"),
            Self::UnknownMember { member } => {
                write!(f, "no member {member} is known here; list the members and try again")
            }
            Self::LearnerStalled { member, of: 0, .. } => {
                write!(f, "{member} was to get a seat and does not answer; nothing was changed; see whether it runs")
            }
            Self::LearnerStalled { member, have, of } => write!(
                f,
                "{member} was to get a seat and has fetched {have} of the {of} partitions it is to own, and no more for \
                 a while; nothing was changed; see whether it reaches the owners"
            ),
            Self::MajorityAlive => f.write_str(
                "enough members live to decide and to serve everything; nothing was done; remove those that are gone, \
                 and if others seem alive that are not, wait until they are held dead",
            ),
            Self::NotASurvivor => {
                f.write_str("the node that is asked must be one of the survivors, and not at it already; nothing was done")
            }
            Self::SurvivorSilent { member } => write!(
                f,
                "{member} does not answer, or has not the storage that its seat was given to; nothing was done; name \
                 only members that run"
            ),
            Self::SurvivorLost { member } => write!(
                f,
                "{member} stopped to answer after others had left the old cluster, and nobody is served now; name the \
                 survivors again, to any of them, without those that are gone"
            ),
            Self::Recovering => f.write_str("the cluster was recovered and merges what its members hold; try again"),
            Self::TooFewMembers { replicas } => {
                write!(f, "fewer than {replicas} members would be left to hold {replicas} copies; add members first")
            }
            Self::NoChange => f.write_str("nothing would change"),
            Self::Conflict { version } => {
                write!(f, "the register is at version {version} and not as the change expects; read it and try again")
            }
            Self::NoNamespace => f.write_str(
                "there is no such namespace, or this node has not heard of it yet; create it, and list the namespaces",
            ),
            Self::WrongMode { mode: Mode::Atomic } => f.write_str(
                "the namespace is of mode atomic: registers that are read, set and deleted; conditions, counters and \
                 deadlines need mode consensus",
            ),
            Self::WrongMode { mode: Mode::Consensus } => f.write_str(
                "the namespace is of mode consensus: its keys are registers; ask /v1/registers, or qunlong register",
            ),
            Self::WrongMode { mode } => {
                write!(f, "the namespace is of mode {mode}: its keys have versions; ask /v1/kv, or qunlong put and get")
            }
            Self::NamespaceExists { mode, replicas: 0 } => {
                write!(f, "there is a namespace of this name, of mode {mode}; what a namespace is stays as it is")
            }
            Self::NamespaceExists { mode, replicas } => write!(
                f,
                "there is a namespace of this name, of mode {mode} with {replicas} copies; what a namespace is stays as \
                 it is"
            ),
            Self::BadNamespace => f.write_str(
                "a namespace is called by 1 to 32 small letters, digits and hyphens, a letter first, and has at most 7 \
                 copies",
            ),
            Self::NotANumber => {
                f.write_str("the register holds no whole number of 64 bits, or the sum would be none; nothing was changed")
            }
            Self::SessionExpired { .. } => f.write_str(
                "the register was changed so often since the request was first made that nobody knows whether it was \
                 carried out; read it, and decide anew",
            ),
            Self::TooManyNamespaces { limit } => {
                write!(f, "the cluster has {limit} namespaces, and can have no more; use one of them")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    /// The compiler sees to it that every variant has a code, and this that the code is in the list.
    #[test]
    fn every_code_is_listed() {
        let code = include_str!("refusal.rs").split("fn code(&self)").nth(1);
        let code = code.and_then(|rest| rest.split("fn is_definite(&self)").next()).expect("both functions are there");
        let codes: Vec<&str> = code.split('"').skip(1).step_by(2).collect();
        assert_eq!(codes, Refusal::CODES);
    }
}

//! Bugs that can be planted, to prove that the checkers of [`crate::sim`] notice them.
//!
//! A test that cannot fail proves nothing. Each [`Mutant`] is a mistake that a system like this one has really made,
//! or nearly; with the feature `mutants` one of them at a time can be switched on, and the swarm of random clusters
//! must then end in a violation. Without the feature `planted` is a constant and the compiler removes it all.

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Mutant {
    /// Acknowledgements leave before what they speak of is synced.
    AckBeforeSync = 1,
    /// An owner answers reads with what a crash could still take back.
    ReadBeforeSync,
    /// R + W = N: a majority is counted one short.
    QuorumOneShort,
    /// Acknowledgements of different dots are added together.
    AcksOfDotsAdded,
    /// A coordinator that owns nothing mints dots of its own.
    MintedByCoordinator,
    /// An owner counts its dots from the start again after a restart.
    CounterRestarts,
    /// An owner mints on top of nothing instead of what it holds.
    MintForgetsHeld,
    /// A replica replaces what it holds by what it is sent.
    StoreReplaces,
    /// Repair replaces instead of merging.
    RepairReplaces,
    /// Of concurrent versions only one is kept.
    SiblingDropped,
    /// What a client gets back after a write covers siblings that it was never shown.
    ContextTooWide,
    /// A second copy of a superseded write comes back.
    WriteIdForgotten,
    /// A delete leaves nothing behind.
    DeleteLeavesNothing,
    /// Deletes are collected when a majority of the owners has confirmed them.
    CollectedByMajority,
    /// Deletes are collected without asking.
    CollectedUnasked,
    /// Messages from before a collection are taken.
    RoundIgnored,
    /// A read is answered by the first owner that answers.
    ReadByOne,
    /// A member that is suspected cannot refute.
    IncarnationIgnored,
    /// Any rumour that a member lives is believed, however old.
    DeadRevived,
    /// A journal's torn tail is left where it is, and written behind.
    TornTailKept,
    /// A copy of a refused write is done after all.
    RefusalForgotten,
    /// An owner remembers only those superseded writes that it had held.
    HeardForgotten,
    /// A voter's promises are forgotten when it restarts.
    PromiseNotPersisted,
    /// An acceptor takes a ballot below the one that it has promised.
    PromiseForgotten,
    /// A proposer proposes its own value although another may have been chosen.
    AcceptedIgnored,
    /// Votes are counted of those voters whom gossip holds alive.
    VotersFromGossip,
    /// The new owners and voters are in force at once.
    OneStepChange,
    /// A change is completed before the new owners have what is theirs.
    TransferNotAwaited,
    /// A new owner takes over from one of the old owners, not from a majority of them.
    TransferFromOne,
    /// The new owners take over from each other instead of from the old.
    FenceOnWrongSet,
    /// While joint, reads ask the old owners alone.
    JointReadFromOld,
    /// While joint, writes are acknowledged by the old owners alone.
    JointWriteToOld,
    /// Who is no owner any more keeps its data, and owns it again when it comes back.
    StaleDataKept,
    /// A node that lost its storage goes on under its old name.
    AmnesiacSits,
    /// Data is dropped as soon as the change begins.
    DroppedEarly,
    /// An owner mints before it has taken over.
    MintedTooEarly,
    /// What a proposer was promised is forgotten when the acceptor restarts.
    RegisterPromiseForgotten,
    /// A proposer goes by its own value although a register holds another.
    RegisterIgnored,
    /// A read returns the highest that a majority reports, whether they agree or not.
    HighestOfMajority,
    /// A request that comes again is carried out again.
    CarriedOutTwice,
    /// Versions are counted from the start again after a delete.
    VersionRestarts,
    /// Registers are not moved to the owners to come.
    NotMoved,
    /// A read of an atomic register returns what one owner alone may hold, and leaves it so.
    NotWrittenBack,
    /// A write of an atomic register has a timestamp that does not lie above what a majority knows.
    TimestampTooLow,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 44] = [
        Self::AckBeforeSync,
        Self::ReadBeforeSync,
        Self::QuorumOneShort,
        Self::AcksOfDotsAdded,
        Self::MintedByCoordinator,
        Self::CounterRestarts,
        Self::MintForgetsHeld,
        Self::StoreReplaces,
        Self::RepairReplaces,
        Self::SiblingDropped,
        Self::ContextTooWide,
        Self::WriteIdForgotten,
        Self::DeleteLeavesNothing,
        Self::CollectedByMajority,
        Self::CollectedUnasked,
        Self::RoundIgnored,
        Self::ReadByOne,
        Self::IncarnationIgnored,
        Self::DeadRevived,
        Self::TornTailKept,
        Self::RefusalForgotten,
        Self::HeardForgotten,
        Self::PromiseNotPersisted,
        Self::PromiseForgotten,
        Self::AcceptedIgnored,
        Self::VotersFromGossip,
        Self::OneStepChange,
        Self::TransferNotAwaited,
        Self::TransferFromOne,
        Self::FenceOnWrongSet,
        Self::JointReadFromOld,
        Self::JointWriteToOld,
        Self::StaleDataKept,
        Self::AmnesiacSits,
        Self::DroppedEarly,
        Self::MintedTooEarly,
        Self::RegisterPromiseForgotten,
        Self::RegisterIgnored,
        Self::HighestOfMajority,
        Self::CarriedOutTwice,
        Self::VersionRestarts,
        Self::NotMoved,
        Self::NotWrittenBack,
        Self::TimestampTooLow,
    ];
}

impl Mutant {
    /// Whether only a change of owners or voters can show it.
    #[must_use]
    pub fn is_of_epochs(self) -> bool {
        (Self::PromiseNotPersisted..=Self::MintedTooEarly).contains(&self) || self == Self::NotMoved
    }

    /// Whether it is about registers.
    #[must_use]
    pub fn is_of_registers(self) -> bool {
        self >= Self::RegisterPromiseForgotten
    }
}

impl Mutant {
    /// Whether it is about atomic registers.
    #[must_use]
    pub fn is_of_atomic(self) -> bool {
        self >= Self::NotWrittenBack
    }
}

#[cfg(feature = "mutants")]
static PLANTED: core::sync::atomic::AtomicU8 = core::sync::atomic::AtomicU8::new(0);

/// Switches a mistake on, or all off, for the whole process.
#[cfg(feature = "mutants")]
pub fn plant(mutant: Option<Mutant>) {
    PLANTED.store(mutant.map_or(0, |mutant| mutant as u8), core::sync::atomic::Ordering::SeqCst);
}

/// The mistake that is switched on.
#[cfg(feature = "mutants")]
#[must_use]
pub fn current() -> Option<Mutant> {
    let planted = PLANTED.load(core::sync::atomic::Ordering::Relaxed);
    Mutant::ALL.into_iter().find(|&mutant| mutant as u8 == planted)
}

/// Whether this mistake is to be made.
#[cfg(feature = "mutants")]
#[inline]
pub(crate) fn planted(mutant: Mutant) -> bool {
    PLANTED.load(core::sync::atomic::Ordering::Relaxed) == mutant as u8
}

/// Whether this mistake is to be made: never.
#[cfg(not(feature = "mutants"))]
#[inline]
pub(crate) const fn planted(_: Mutant) -> bool {
    false
}

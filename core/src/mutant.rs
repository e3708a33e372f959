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
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 22] = [
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
    ];
}

#[cfg(feature = "mutants")]
static PLANTED: core::sync::atomic::AtomicU8 = core::sync::atomic::AtomicU8::new(0);

/// Switches a mistake on, or all off, for the whole process.
#[cfg(feature = "mutants")]
pub fn plant(mutant: Option<Mutant>) {
    PLANTED.store(mutant.map_or(0, |mutant| mutant as u8), core::sync::atomic::Ordering::SeqCst);
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

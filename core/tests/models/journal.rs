//! A journal through writes, torn writes, crashes and recoveries, with every byte at which a write can be cut.
//!
//! The host appends one batch, syncs it, and only then promises what is in it. A crash keeps what was synced and any
//! piece of the batch under way; recovery cuts the torn piece off, and writing goes on behind the rest.
//!
//! ```text
//!   Creating ──Create──▶ Idle ──Write──▶ Writing ──Sync──▶ Idle        acked grows
//!                         │                 │ Crash(torn)
//!                       Flip                ▼
//!                         ▼                Down ──Recover──▶ Idle      or Creating, if there was no journal yet
//!                      Damaged
//! ```
//!
//! **Invariant.** What was synced is recovered, in order, and nothing that was never written; a crash alone is never
//! taken for damage; damage in front of the last batch is never taken for a crash.
//!
//! **Bounds**: [`BATCHES`] batches of up to two records, [`CRASHES`] crashes, one segment. That is enough for a torn
//! batch behind, between and in front of whole ones, and for a second crash to meet what the first one left behind.
//! A torn batch is cut short, cut short and filled up with zeros, or zeros and then its end, as a file system that
//! writes its length or its last page first leaves it; a journal that was torn while it was made has no head or no
//! end, and its host makes it again. One bit is flipped, once there is no more to write.
//!
//! **Not here**: the change of segments, which is the host's, and batches of several pieces, which share one sync.

use std::hash::{Hash, Hasher};

use qunlong_core::journal::{self, JournalError, Recovered, StorageIdentity, Writer};
use qunlong_core::{Generation, NodeId, Record};
use stateright::{Model, Property};

use super::{prove, refute};

const BATCHES: u8 = 3;
const CRASHES: u8 = 2;
/// Records of a batch, at most.
const RECORDS: u64 = 2;

const IDENTITY: StorageIdentity = StorageIdentity { node: NodeId::small(1), incarnation: [7; 16] };

const RECOVERS: &str = "a crash never makes a journal unusable";
const KEPT: &str = "what was synced is recovered in order";
const NOT_INVENTED: &str = "only what was written is recovered";
const DETECTED: &str = "damage in front of the last batch is detected";

/// A mistake that the model makes on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    None,
    /// The torn tail is left where it is, and written behind.
    TornTailKept,
    /// A batch is promised when it is written, and not when it is synced.
    AckedUnsynced,
    /// A second batch is written before the first is synced.
    TwoUnderWay,
    /// Whatever does not read back counts as a torn tail.
    DamageCutOff,
    /// A batch that was under way is written again after the crash, though it was recovered.
    WrittenAgain,
}

#[derive(Clone, Debug)]
struct Journal {
    mistake: Mistake,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Disk {
    phase: Phase,
    /// What a crash has left or a sync has made durable.
    bytes: Vec<u8>,
    /// Bytes in front of the last batch that was synced, zero while there is none.
    sealed: usize,
    /// Promised, oldest first.
    acked: Vec<u64>,
    /// Written and not promised: may be recovered and may be lost.
    unsynced: Vec<u64>,
    /// Numbers the records, so that none can stand in for another.
    records: u64,
    batches: u8,
    crashes: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Creating,
    Idle(Position),
    /// Batches that are not synced: one, but for a mistake.
    Writing(Position, Vec<u8>),
    Down,
    Damaged,
}

/// Where writing goes on. A [`Writer`] has no hash of its own, but shows all it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Position(Writer);

impl Hash for Position {
    fn hash<H: Hasher>(&self, state: &mut H) {
        format!("{:?}", self.0).hash(state);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Create,
    /// So many records as one batch; none is a seal.
    Write(u64),
    Sync,
    Crash(Torn),
    Recover,
    Flip {
        byte: usize,
        bit: u8,
    },
}

/// What a crash leaves of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Torn {
    /// So many bytes from its start.
    Short(usize),
    /// So many bytes from its start, and zeros for the others.
    ZeroEnd(usize),
    /// Zeros for so many bytes from its start, and the others.
    ZeroStart(usize),
}

impl Torn {
    fn of(length: usize) -> impl Iterator<Item = Self> {
        let short = (0..=length).map(Self::Short);
        let zero = (1..length).flat_map(|at| [Self::ZeroEnd(at), Self::ZeroStart(at)]);
        short.chain(zero)
    }

    fn left(self, mut written: Vec<u8>) -> Vec<u8> {
        match self {
            Self::Short(at) => written.truncate(at),
            Self::ZeroEnd(at) => written[at..].fill(0),
            Self::ZeroStart(at) => written[..at].fill(0),
        }
        written
    }
}

impl Journal {
    fn recover(&self, bytes: &[u8]) -> Result<Recovered, JournalError> {
        match journal::recover(bytes, &IDENTITY) {
            Err(JournalError::Damaged { at }) if self.mistake == Mistake::DamageCutOff => self.recover(&bytes[..at]),
            result => result,
        }
    }

    /// The journal as it begins: one record in its checkpoint.
    fn created() -> (Writer, Vec<u8>) {
        journal::create(&IDENTITY, 1, &records(&[0]))
    }
}

fn records(numbers: &[u64]) -> Vec<Record> {
    numbers.iter().map(|&number| Record::Boot(Generation(number))).collect()
}

impl Disk {
    fn new() -> Self {
        let (acked, unsynced) = (vec![], vec![]);
        Self { phase: Phase::Creating, bytes: vec![], sealed: 0, acked, unsynced, records: 0, batches: 0, crashes: 0 }
    }

    /// Everything that was written and not lost.
    fn written(&self) -> Vec<Record> {
        records(&[&self.acked[..], &self.unsynced[..]].concat())
    }

    fn crash(&mut self, torn: Torn, written: Vec<u8>) {
        self.bytes.extend(torn.left(written));
        self.crashes += 1;
        self.phase = Phase::Down;
    }
}

impl Model for Journal {
    type State = Disk;
    type Action = Action;

    fn init_states(&self) -> Vec<Disk> {
        vec![Disk::new()]
    }

    fn actions(&self, disk: &Disk, actions: &mut Vec<Action>) {
        let may_crash = disk.crashes < CRASHES;
        let writes = (0..=RECORDS).filter(|_| disk.batches < BATCHES).map(Action::Write);
        let flippable = if disk.batches == BATCHES { disk.sealed } else { 0 };
        match &disk.phase {
            Phase::Creating => {
                actions.push(Action::Create);
                let length = Self::created().1.len();
                actions.extend(Torn::of(length).filter(|_| may_crash).map(Action::Crash));
            }
            Phase::Idle(_) => {
                actions.extend(writes);
                actions.extend((0..flippable).flat_map(|byte| (0..8).map(move |bit| Action::Flip { byte, bit })));
                actions.extend(may_crash.then_some(Action::Crash(Torn::Short(0))));
            }
            Phase::Writing(_, written) => {
                actions.push(Action::Sync);
                actions.extend(writes.filter(|_| self.mistake == Mistake::TwoUnderWay));
                actions.extend(Torn::of(written.len()).filter(|_| may_crash).map(Action::Crash));
            }
            Phase::Down => actions.push(Action::Recover),
            Phase::Damaged => (),
        }
    }

    fn next_state(&self, last: &Disk, action: Action) -> Option<Disk> {
        let mut disk = last.clone();
        match (action, last.phase.clone()) {
            (Action::Create, Phase::Creating) => {
                let (writer, bytes) = Self::created();
                (disk.phase, disk.bytes, disk.acked, disk.records) = (Phase::Idle(Position(writer)), bytes, vec![0], 1);
            }
            (Action::Write(count), Phase::Idle(mut position)) => {
                disk.take(count);
                let written = position.write(&disk.unsynced);
                disk.phase = Phase::Writing(position, written);
            }
            (Action::Write(count), Phase::Writing(mut position, mut written)) => {
                disk.take(count);
                let new = &disk.unsynced[last.unsynced.len()..];
                written.extend(position.write(new));
                disk.phase = Phase::Writing(position, written);
            }
            (Action::Sync, Phase::Writing(position, written)) => {
                disk.sealed = disk.bytes.len();
                disk.bytes.extend(written);
                disk.acked.append(&mut disk.unsynced);
                disk.phase = Phase::Idle(position);
            }
            (Action::Crash(torn), Phase::Creating) => {
                disk.unsynced = vec![0];
                disk.crash(torn, Self::created().1);
            }
            (Action::Crash(torn), Phase::Idle(_)) => disk.crash(torn, vec![]),
            (Action::Crash(torn), Phase::Writing(_, written)) => disk.crash(torn, written),
            (Action::Recover, Phase::Down) => match self.recover(&disk.bytes) {
                Ok(recovered) => {
                    // What was read back counts from here on, whether or not its sync had returned. If it is less than
                    // was promised, a property has failed already.
                    let whole = recovered.records.len().checked_sub(disk.acked.len())?;
                    let saved: Vec<u64> = disk.unsynced.drain(..).take(whole).collect();
                    disk.acked.extend(&saved);
                    disk.records = disk.records.max(1);
                    if self.mistake != Mistake::TornTailKept {
                        disk.bytes.truncate(recovered.length);
                    }
                    disk.sealed = disk.sealed.min(recovered.length);
                    let mut position = Position(recovered.writer);
                    disk.phase = if self.mistake == Mistake::WrittenAgain && !saved.is_empty() {
                        let written = position.write(&saved);
                        Phase::Writing(position, written)
                    } else {
                        Phase::Idle(position)
                    };
                }
                Err(JournalError::Unfinished | JournalError::BadHead) => {
                    let crashes = disk.crashes;
                    disk = Disk { crashes, ..Disk::new() };
                }
                Err(_) => return None,
            },
            (Action::Flip { byte, bit }, Phase::Idle(_)) => {
                // How the journal came to be matters no more.
                disk = Disk { phase: Phase::Damaged, bytes: disk.bytes, ..Disk::new() };
                disk.bytes[byte] ^= 1 << bit;
            }
            _ => return None,
        }
        if self.mistake == Mistake::AckedUnsynced && matches!(disk.phase, Phase::Writing(..)) {
            disk.acked.append(&mut disk.unsynced);
        }
        Some(disk)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(RECOVERS, |model: &Self, disk: &Disk| {
                disk.phase != Phase::Down
                    || match model.recover(&disk.bytes) {
                        Ok(_) => true,
                        Err(JournalError::Unfinished | JournalError::BadHead) => disk.acked.is_empty(),
                        Err(_) => false,
                    }
            }),
            Property::always(KEPT, |model: &Self, disk: &Disk| {
                let acked = records(&disk.acked);
                disk.phase != Phase::Down || model.recover(&disk.bytes).map_or(true, |r| r.records.starts_with(&acked))
            }),
            Property::always(NOT_INVENTED, |model: &Self, disk: &Disk| {
                let written = disk.written();
                disk.phase != Phase::Down
                    || model.recover(&disk.bytes).map_or(true, |r| written.starts_with(&r.records))
            }),
            Property::always(DETECTED, |model: &Self, disk: &Disk| {
                disk.phase != Phase::Damaged || model.recover(&disk.bytes).is_err()
            }),
            Property::sometimes("a torn tail is cut off", |model: &Self, disk: &Disk| {
                disk.phase == Phase::Down && model.recover(&disk.bytes).is_ok_and(|r| r.torn > 0)
            }),
            Property::sometimes("a batch whose sync never returned is recovered", |model: &Self, disk: &Disk| {
                disk.phase == Phase::Down
                    && model.recover(&disk.bytes).is_ok_and(|r| r.records.len() > disk.acked.len().max(1))
            }),
            Property::sometimes("a crash leaves no journal yet", |model: &Self, disk: &Disk| {
                disk.phase == Phase::Down && model.recover(&disk.bytes) == Err(JournalError::Unfinished)
            }),
            Property::sometimes("a batch is torn behind one that followed a torn one", |model: &Self, disk: &Disk| {
                disk.phase == Phase::Down
                    && disk.crashes == 2
                    && disk.batches == 3
                    && disk.acked.len() as u64 + 2 < disk.records
                    && model.recover(&disk.bytes).is_ok_and(|r| r.torn > 0)
            }),
        ]
    }
}

impl Disk {
    /// Numbers the next records.
    fn take(&mut self, count: u64) {
        self.batches += 1;
        self.unsynced.extend(self.records..self.records + count);
        self.records += count;
    }
}

impl Position {
    fn write(&mut self, numbers: &[u64]) -> Vec<u8> {
        if numbers.is_empty() {
            return self.0.seal();
        }
        self.0.batches(&records(numbers)).concat()
    }
}

#[test]
fn a_crash_loses_nothing_that_was_synced_and_damage_is_told_from_a_crash() {
    prove(Journal { mistake: Mistake::None }, 100_000);
}

#[test]
fn a_torn_tail_that_is_kept_hides_what_is_written_behind_it() {
    refute(Journal { mistake: Mistake::TornTailKept }, KEPT);
}

#[test]
fn what_is_promised_before_its_sync_is_lost() {
    refute(Journal { mistake: Mistake::AckedUnsynced }, KEPT);
}

#[test]
fn two_batches_under_way_make_a_crash_look_like_damage() {
    refute(Journal { mistake: Mistake::TwoUnderWay }, RECOVERS);
}

#[test]
fn damage_that_is_cut_off_like_a_torn_tail_passes_unseen() {
    refute(Journal { mistake: Mistake::DamageCutOff }, DETECTED);
}

#[test]
fn what_is_written_again_is_there_twice() {
    refute(Journal { mistake: Mistake::WrittenAgain }, NOT_INVENTED);
}

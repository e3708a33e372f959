//! What becomes of a write: durable once synced, lost or torn by a crash before that.

use alloc::vec::Vec;

use crate::journal::{self, JournalError, Recovered, StorageIdentity, Writer};
use crate::lift::Record;
use crate::mutant::{Mutant, planted};
use crate::outbox::PersistId;
use crate::rng::Rng;
use crate::time::Duration;

/// One node's journal on a simulated disk.
#[derive(Clone, Debug)]
pub struct Disk {
    identity: StorageIdentity,
    /// How long a sync takes, at least.
    pub sync_min: Duration,
    /// Syncs take less than this.
    pub sync_max: Duration,
    /// A disk that lies says *durable* at once. No node can survive it; it is here to show that checkers notice.
    pub lies: bool,
    /// The next sync fails; a host ends its process then, for no later sync would say what was lost.
    pub failing: bool,
    /// No room: what is handed in waits.
    full: bool,
    /// Starts that found a torn tail and cut it.
    pub torn: u64,
    durable: Vec<u8>,
    writer: Writer,
    /// Handed in, not yet written: waits for the sync that is running.
    waiting: Vec<(PersistId, Vec<Record>)>,
    /// Written and being synced.
    syncing: Option<(PersistId, Vec<u8>)>,
}

impl Disk {
    /// An empty journal for this storage.
    #[must_use]
    pub fn new(identity: StorageIdentity) -> Self {
        let (writer, durable) = journal::create(&identity, 1, &[]);
        Self {
            identity,
            sync_min: Duration(100),
            sync_max: Duration::millis(1),
            lies: false,
            failing: false,
            full: false,
            torn: 0,
            durable,
            writer,
            waiting: Vec::new(),
            syncing: None,
        }
    }

    /// Takes a batch. Returns how long its sync takes if one starts now.
    pub fn persist(&mut self, rng: &mut Rng, id: PersistId, records: Vec<Record>) -> Option<Duration> {
        self.waiting.push((id, records));
        self.begin_sync(rng)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.full
    }

    /// Fills the disk, or makes room. Returns how long the next sync takes if one starts.
    pub fn set_full(&mut self, rng: &mut Rng, full: bool) -> Option<Duration> {
        self.full = full;
        self.begin_sync(rng)
    }

    /// The running sync is done. Returns what it made durable, and how long the next one takes if one starts.
    pub fn synced(&mut self, rng: &mut Rng) -> (Option<PersistId>, Option<Duration>) {
        let done = self.syncing.take().map(|(id, bytes)| {
            self.durable.extend_from_slice(&bytes);
            id
        });
        (done, self.begin_sync(rng))
    }

    /// All that waits becomes one batch, so that one sync serves many writes.
    fn begin_sync(&mut self, rng: &mut Rng) -> Option<Duration> {
        if self.syncing.is_some() || self.waiting.is_empty() || self.full {
            return None;
        }
        let id = self.waiting.last().map(|(id, _)| *id)?;
        let records: Vec<Record> = self.waiting.drain(..).flat_map(|(_, records)| records).collect();
        // The simulated disk is slow enough that batches never grow into several.
        let bytes = self.writer.batches(&records).concat();
        self.syncing = Some((id, bytes));
        Some(rng.between(self.sync_min, self.sync_max))
    }

    /// Flips one bit of what is durable, but for the last batch: a bit there cannot be told from a torn write.
    /// Returns whether there was anything to flip.
    pub fn flip(&mut self, rng: &mut Rng) -> bool {
        let sealed = journal::sealed(&self.durable, &self.identity);
        if sealed == 0 {
            return false;
        }
        let at = rng.below(sealed as u64) as usize;
        self.durable[at] ^= 1 << rng.below(8);
        true
    }

    /// A write lands in the wrong place: a piece of what is sealed is replaced by another piece of it. Returns whether
    /// that changed anything.
    pub fn misdirect(&mut self, rng: &mut Rng) -> bool {
        const PIECE: usize = 16;
        let sealed = journal::sealed(&self.durable, &self.identity);
        if sealed < 2 * PIECE {
            return false;
        }
        let mut anywhere = || rng.below((sealed - PIECE) as u64) as usize;
        let (from, to) = (anywhere(), anywhere());
        let before = self.durable[to..to + PIECE].to_vec();
        self.durable.copy_within(from..from + PIECE, to);
        self.durable[to..to + PIECE] != before[..]
    }

    /// Power is cut: what was not synced is lost, but for a random piece of the write under way.
    pub fn crash(&mut self, rng: &mut Rng) {
        self.waiting.clear();
        if let Some((_, bytes)) = self.syncing.take() {
            let kept = rng.below(bytes.len() as u64 + 1) as usize;
            self.durable.extend_from_slice(&bytes[..kept]);
        }
    }

    /// Reads the journal back and cuts off its torn tail.
    ///
    /// # Errors
    ///
    /// If it is damaged elsewhere.
    pub fn recover(&mut self) -> Result<Vec<Record>, JournalError> {
        let Recovered { records, writer, length, torn, .. } = journal::recover(&self.durable, &self.identity)?;
        self.torn += u64::from(torn > 0);
        if !planted(Mutant::TornTailKept) {
            self.durable.truncate(length);
        }
        self.writer = writer;
        Ok(records)
    }
}

//! The durable format, one for files, browser storage and simulated disks.
//!
//! A journal is one segment: a head that says whose it is, a checkpoint, then batches as they come.
//!
//! ```text
//!   head    magic (8)  crc (4)  version (4)  number (8)  node (16)  incarnation (16)
//!   batch   magic (4)  crc (4)  length (4)  kind (4)  seq (8)  chain (8)  records
//!   segment = head, Checkpoint*, CheckpointEnd, Data*
//! ```
//!
//! `crc` is CRC-32C over the rest of the head and what follows. `chain` digests all batches before, so a batch
//! **seals** its predecessors: batch n+1 is written only after n was synced, hence a batch that does not read back
//! although a good one follows is **damage**, while one at the very end is a **torn tail**, the write that a crash
//! cut short and nobody was promised. The first ends the node's right to vote and own; the second is cut off.
//!
//! Records are keyed upserts. Compaction writes the latest record of each key as the checkpoint of a new segment;
//! the new segment counts once its `CheckpointEnd` is durable, and only then is the old one removed.
//!
//! `incarnation` is minted with the storage and kept beside the node's key as well: if the two differ, one of them
//! has been lost or put back from a copy, and the node's promises with it.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;

use crc::{CRC_32_ISCSI, Crc, Table};

use crate::hash::mix;
use crate::id::NodeId;
use crate::lift::{Record, RecordKey};
use crate::limits;

/// The format's version, in every head.
pub const VERSION: u32 = 9;

const CRC: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);
const SEGMENT_MAGIC: [u8; 8] = *b"QUNLONGJ";
const BATCH_MAGIC: [u8; 4] = *b"QLB\x01";
const SEGMENT_HEAD: usize = 56;
const BATCH_HEAD: usize = 32;
/// Where the checksum ends and what it covers begins, in both heads.
const SEGMENT_COVERED: usize = 12;
const BATCH_COVERED: usize = 8;
/// A batch is closed once it holds so many bytes: far below what a reader takes for damage.
const BATCH_TARGET: usize = 1 << 20;

/// Whose journal it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StorageIdentity {
    /// The node.
    pub node: NodeId,
    /// Minted with the storage.
    pub incarnation: [u8; 16],
}

/// Writes batches. The host makes each durable before it writes the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer {
    seq: u64,
    chain: u64,
    /// The storage's incarnation, part of every checksum: bytes that clients store cannot pass for a batch.
    salt: [u8; 16],
}

/// What a journal held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The records, oldest first.
    pub records: Vec<Record>,
    /// Goes on where the journal ends.
    pub writer: Writer,
    /// The segment's number; the next one gets the next.
    pub number: u64,
    /// Bytes that count. What lies behind them is a torn write: cut it off before writing on.
    pub length: usize,
    /// Bytes of the torn write, zero if there was none.
    pub torn: usize,
}

/// A journal that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalError {
    /// Empty, or its checkpoint was never finished: as if it did not exist.
    Unfinished,
    /// Not a journal, or its head is damaged, or the power went before the head of a new one was there.
    BadHead,
    /// Written by another version.
    Version {
        /// The one it was written by.
        theirs: u32,
    },
    /// It belongs to another node, or to this one's storage before it was lost.
    StorageLost,
    /// A batch that was durable does not read back.
    Damaged {
        /// Offset of the first bad batch.
        at: usize,
    },
}

impl JournalError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unfinished | Self::BadHead | Self::Damaged { .. } => "CORRUPT_RECORD",
            Self::Version { .. } => "VERSION_UNSUPPORTED",
            Self::StorageLost => "STORAGE_LOST",
        }
    }
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unfinished => f.write_str("the journal was never finished"),
            Self::BadHead => f.write_str("the journal's head is damaged or it is no journal"),
            Self::Version { theirs } => {
                write!(f, "the journal has format version {theirs}, this program reads version {VERSION}")
            }
            Self::StorageLost => f.write_str("the journal and the key do not belong to the same storage"),
            Self::Damaged { at } => {
                write!(f, "a batch at byte {at} was durable and does not read back")
            }
        }
    }
}

impl core::error::Error for JournalError {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Checkpoint = 1,
    CheckpointEnd = 2,
    Data = 3,
}

/// A new segment: its head and a checkpoint of `records`. Durable as a whole before it counts.
#[must_use]
pub fn create(identity: &StorageIdentity, number: u64, records: &[Record]) -> (Writer, Vec<u8>) {
    let mut bytes = Vec::with_capacity(SEGMENT_HEAD + 256);
    bytes.extend_from_slice(&SEGMENT_MAGIC);
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(&identity.node.0);
    bytes.extend_from_slice(&identity.incarnation);
    let crc = CRC.checksum(&bytes[SEGMENT_COVERED..]);
    bytes[8..SEGMENT_COVERED].copy_from_slice(&crc.to_le_bytes());

    let mut writer = Writer::after_head(identity, crc);
    for body in bodies(records) {
        writer.write(Kind::Checkpoint, &body, &mut bytes);
    }
    writer.write(Kind::CheckpointEnd, &[], &mut bytes);
    (writer, bytes)
}

/// The latest record of each key, in the order of keys, without those that only say that there is nothing any more.
pub fn latest(records: impl IntoIterator<Item = Record>) -> Vec<Record> {
    let by_key: BTreeMap<RecordKey, Record> = records.into_iter().map(|record| (record.key(), record)).collect();
    by_key.into_values().filter(|record| !record.is_removal()).collect()
}

impl Writer {
    fn after_head(identity: &StorageIdentity, crc: u32) -> Self {
        Self { seq: 0, chain: mix(u64::from(crc)), salt: identity.incarnation }
    }

    /// The records as batches, usually one. Each is appended and synced before the next is appended.
    #[must_use]
    pub fn batches(&mut self, records: &[Record]) -> Vec<Vec<u8>> {
        bodies(records).into_iter().map(|body| self.batch(&body)).collect()
    }

    /// A batch without records, which only seals what came before it.
    #[must_use]
    pub fn seal(&mut self) -> Vec<u8> {
        self.batch(&[])
    }

    fn batch(&mut self, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(BATCH_HEAD + body.len());
        self.write(Kind::Data, body, &mut bytes);
        bytes
    }

    fn write(&mut self, kind: Kind, body: &[u8], bytes: &mut Vec<u8>) {
        assert!(body.len() <= limits::BATCH_BYTES, "a batch must not be larger than its reader takes");
        let start = bytes.len();
        bytes.extend_from_slice(&BATCH_MAGIC);
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&(kind as u32).to_le_bytes());
        bytes.extend_from_slice(&self.seq.to_le_bytes());
        bytes.extend_from_slice(&self.chain.to_le_bytes());
        bytes.extend_from_slice(body);
        bytes[start + 8..start + 12].copy_from_slice(&(body.len() as u32).to_le_bytes());
        let crc = checksum(&self.salt, &bytes[start + BATCH_COVERED..]);
        bytes[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
        self.follow(crc);
    }

    /// Moves on behind a batch with this checksum.
    fn follow(&mut self, crc: u32) {
        self.seq += 1;
        self.chain = mix(self.chain ^ u64::from(crc));
    }
}

/// Encoded records, each with its length before it, in pieces of about [`BATCH_TARGET`].
fn bodies(records: &[Record]) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    let mut body = Vec::new();
    for record in records {
        let encoded = postcard::to_allocvec(record).expect("plain data encodes into a growing buffer");
        body.extend_from_slice(&(encoded.len() as u32).to_le_bytes());
        body.extend_from_slice(&encoded);
        if body.len() >= BATCH_TARGET {
            bodies.push(core::mem::take(&mut body));
        }
    }
    if !body.is_empty() {
        bodies.push(body);
    }
    bodies
}

fn checksum(salt: &[u8; 16], bytes: &[u8]) -> u32 {
    let mut digest = CRC.digest();
    digest.update(salt);
    digest.update(bytes);
    digest.finalize()
}

/// Reads a segment.
///
/// # Errors
///
/// If it is not this storage's, was never finished, or is damaged elsewhere than in its torn tail.
pub fn recover(bytes: &[u8], identity: &StorageIdentity) -> Result<Recovered, JournalError> {
    let (number, crc) = read_head(bytes, identity)?;
    let mut writer = Writer::after_head(identity, crc);
    let mut records = Vec::new();
    let mut finished = false;
    let mut at = SEGMENT_HEAD;
    while at < bytes.len() {
        let Some(batch) = read_batch(&bytes[at..], &writer.salt).filter(|batch| batch.follows(&writer)) else {
            if has_later_batch(&bytes[at..], &writer, finished) {
                return Err(JournalError::Damaged { at });
            }
            break;
        };
        let decoded = batch.records().ok_or(JournalError::Damaged { at })?;
        records.extend(decoded);
        finished |= batch.kind == Kind::CheckpointEnd;
        writer.follow(batch.crc);
        at += BATCH_HEAD + batch.body.len();
    }
    if !finished {
        return Err(JournalError::Unfinished);
    }
    Ok(Recovered { records, writer, number, length: at, torn: bytes.len() - at })
}

/// Bytes from the start that a later batch seals: a change in them is found and told from a torn write.
#[cfg(feature = "sim")]
#[must_use]
pub fn sealed(bytes: &[u8], identity: &StorageIdentity) -> usize {
    let Ok((_, crc)) = read_head(bytes, identity) else { return 0 };
    let mut writer = Writer::after_head(identity, crc);
    let (mut at, mut last) = (SEGMENT_HEAD, 0);
    while let Some(batch) = read_batch(&bytes[at..], &writer.salt).filter(|batch| batch.follows(&writer)) {
        writer.follow(batch.crc);
        last = at;
        at += BATCH_HEAD + batch.body.len();
    }
    last
}

fn read_head(bytes: &[u8], identity: &StorageIdentity) -> Result<(u64, u32), JournalError> {
    if bytes.len() < SEGMENT_HEAD {
        return Err(JournalError::Unfinished);
    }
    let crc = CRC.checksum(&bytes[SEGMENT_COVERED..SEGMENT_HEAD]);
    if bytes[..8] != SEGMENT_MAGIC || word(bytes, 8) != crc {
        return Err(JournalError::BadHead);
    }
    let theirs = word(bytes, 12);
    if theirs != VERSION {
        return Err(JournalError::Version { theirs });
    }
    if bytes[24..40] != identity.node.0 || bytes[40..56] != identity.incarnation {
        return Err(JournalError::StorageLost);
    }
    Ok((long(bytes, 16), crc))
}

struct Batch<'a> {
    kind: Kind,
    crc: u32,
    seq: u64,
    chain: u64,
    body: &'a [u8],
}

impl Batch<'_> {
    fn follows(&self, writer: &Writer) -> bool {
        self.seq == writer.seq && self.chain == writer.chain
    }

    fn records(&self) -> Option<Vec<Record>> {
        let mut records = Vec::new();
        let mut rest = self.body;
        while !rest.is_empty() {
            let (length, after) = rest.split_first_chunk::<4>()?;
            let (record, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            records.push(postcard::from_bytes(record).ok()?);
            rest = after;
        }
        Some(records)
    }
}

/// The batch at the start of `bytes`, if a whole and undamaged one is there.
fn read_batch<'a>(bytes: &'a [u8], salt: &[u8; 16]) -> Option<Batch<'a>> {
    if bytes.len() < BATCH_HEAD || bytes[..4] != BATCH_MAGIC {
        return None;
    }
    let length = word(bytes, 8) as usize;
    if length > limits::BATCH_BYTES || length > bytes.len() - BATCH_HEAD {
        return None;
    }
    let crc = checksum(salt, &bytes[BATCH_COVERED..BATCH_HEAD + length]);
    if crc != word(bytes, 4) {
        return None;
    }
    let kind = match word(bytes, 12) {
        1 => Kind::Checkpoint,
        2 => Kind::CheckpointEnd,
        3 => Kind::Data,
        _ => return None,
    };
    let body = &bytes[BATCH_HEAD..BATCH_HEAD + length];
    Some(Batch { kind, crc, seq: long(bytes, 16), chain: long(bytes, 24), body })
}

/// Whether a good batch with a later number lies anywhere behind the start of `bytes`: proof that what does not
/// read at the start had been durable. A checkpoint is synced as a whole, so before its end only data behind it is
/// such a proof.
fn has_later_batch(bytes: &[u8], writer: &Writer, finished: bool) -> bool {
    let most = writer.seq + (bytes.len() / BATCH_HEAD) as u64;
    (1..bytes.len().saturating_sub(BATCH_HEAD - 1))
        .filter(|&i| bytes[i..i + 4] == BATCH_MAGIC)
        .filter(|&i| (writer.seq + 1..=most).contains(&long(bytes, i + 16)))
        .filter_map(|i| read_batch(&bytes[i..], &writer.salt))
        .any(|batch| finished || batch.kind == Kind::Data)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from(word(bytes, at)) | u64::from(word(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::bytes::Bytes;
    use crate::id::Generation;
    use crate::kv;
    use crate::placement::Partition;
    use crate::rng::Rng;
    use crate::version::{Dot, Sibling, VersionVector, Versions};

    const IDENTITY: StorageIdentity = StorageIdentity { node: NodeId::small(1), incarnation: [7; 16] };

    fn key(n: u64) -> Record {
        let key = Bytes::from(alloc::format!("key-{n}").as_str());
        Record::Kv(kv::Record::Key { counter: n, key, versions: Versions::default() })
    }

    fn large_key(n: u64, size: usize) -> Record {
        let mut versions = Versions::default();
        let dot = Dot { node: IDENTITY.node, counter: n + 1 };
        let value = Some(Bytes::from(vec![n as u8; size]));
        let (write, context) = (crate::id::WriteId([1; 16]), VersionVector::default());
        versions.write(Sibling { dot, write, context, value }, &BTreeMap::new());
        Record::Kv(kv::Record::Key { counter: n + 1, key: Bytes::from(alloc::format!("large-{n}").as_str()), versions })
    }

    /// A checkpoint of one record and five batches of two, with the offset at which each batch starts.
    fn journal() -> (Vec<u8>, Vec<usize>) {
        let (mut writer, mut bytes) = create(&IDENTITY, 3, &[Record::Boot(Generation(4))]);
        let mut starts = Vec::new();
        for n in 0..5 {
            starts.push(bytes.len());
            bytes.extend(writer.batches(&[key(2 * n), key(2 * n + 1)]).concat());
        }
        (bytes, starts)
    }

    #[test]
    fn a_whole_journal_reads_back_and_goes_on() {
        let (mut bytes, _) = journal();
        let mut recovered = recover(&bytes, &IDENTITY).expect("whole");
        assert_eq!((recovered.records.len(), recovered.number, recovered.torn), (11, 3, 0));
        bytes.extend(recovered.writer.batches(&[key(99)]).concat());
        assert_eq!(recover(&bytes, &IDENTITY).expect("whole").records.len(), 12);
    }

    #[test]
    fn a_write_cut_anywhere_is_a_torn_tail() {
        let (bytes, starts) = journal();
        let last = *starts.last().expect("five batches");
        for cut in last..bytes.len() {
            let recovered = recover(&bytes[..cut], &IDENTITY).expect("only the tail is torn");
            assert_eq!((recovered.records.len(), recovered.length, recovered.torn), (9, last, cut - last));
        }
    }

    #[test]
    fn every_flipped_bit_in_a_sealed_batch_is_found() {
        let (bytes, starts) = journal();
        let last = *starts.last().expect("five batches");
        for at in 0..last {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                let error = recover(&damaged, &IDENTITY).expect_err("damage must not pass");
                match at {
                    0..SEGMENT_HEAD => assert_eq!(error, JournalError::BadHead, "byte {at}"),
                    _ => assert!(matches!(error, JournalError::Damaged { .. }), "byte {at}: {error}"),
                }
            }
        }
    }

    #[test]
    fn a_batch_taken_from_another_place_does_not_pass() {
        let (bytes, starts) = journal();
        let mut swapped = bytes[..starts[1]].to_vec();
        swapped.extend_from_slice(&bytes[starts[2]..]);
        assert_eq!(recover(&swapped, &IDENTITY), Err(JournalError::Damaged { at: starts[1] }));
    }

    #[test]
    fn a_checkpoint_without_its_end_does_not_count() {
        let (_, bytes) = create(&IDENTITY, 1, &[Record::Boot(Generation(1))]);
        for cut in 0..bytes.len() {
            assert_eq!(recover(&bytes[..cut], &IDENTITY), Err(JournalError::Unfinished));
        }
    }

    #[test]
    fn a_checkpoint_that_lost_a_page_before_its_sync_is_unfinished_and_not_damage() {
        let large: Vec<Record> = (0..40).map(|n| large_key(n, 64 << 10)).collect();
        let (_, bytes) = create(&IDENTITY, 1, &large);
        for at in [100, bytes.len() / 2] {
            let mut holed = bytes.clone();
            holed[at..at + 4_096].fill(0);
            assert_eq!(recover(&holed, &IDENTITY), Err(JournalError::Unfinished));
        }
    }

    #[test]
    fn whatever_is_written_reads_back_however_large() {
        let many: Vec<Record> = (0..400).map(|n| large_key(n, 64 << 10)).collect();
        let (mut writer, mut bytes) = create(&IDENTITY, 1, &many);
        let batches = writer.batches(&many);
        assert!(batches.len() > 1 && batches.iter().all(|batch| batch.len() <= limits::BATCH_BYTES));
        bytes.extend(batches.concat());
        let recovered = recover(&bytes, &IDENTITY).expect("whole");
        assert_eq!((recovered.records.len(), recovered.torn), (800, 0));
    }

    #[test]
    fn a_journal_stored_as_a_value_is_no_proof_of_damage() {
        let other = StorageIdentity { incarnation: [9; 16], ..IDENTITY };
        let (mut their_writer, mut theirs) = create(&other, 1, &[]);
        for n in 0..5 {
            theirs.extend(their_writer.batches(&[key(n)]).concat());
        }
        let (mut writer, mut bytes) = create(&IDENTITY, 1, &[]);
        let whole = bytes.len();
        let value = Bytes::from(theirs);
        let mut versions = Versions::default();
        let dot = Dot { node: IDENTITY.node, counter: 1 };
        let (write, context) = (crate::id::WriteId([1; 16]), VersionVector::default());
        versions.write(Sibling { dot, write, context, value: Some(value) }, &BTreeMap::new());
        bytes.extend(writer.batches(&[Record::Kv(kv::Record::Key { counter: 1, key: "k".into(), versions })]).concat());
        bytes.pop();
        assert_eq!(recover(&bytes, &IDENTITY).expect("a torn tail").length, whole);
    }

    #[test]
    fn storage_of_another_life_is_refused() {
        let (bytes, _) = journal();
        let other = StorageIdentity { incarnation: [8; 16], ..IDENTITY };
        assert_eq!(recover(&bytes, &other), Err(JournalError::StorageLost));
    }

    #[test]
    fn the_latest_record_of_a_key_survives_compaction() {
        let newer = Record::Kv(kv::Record::Key { counter: 9, key: "key-1".into(), versions: Versions::default() });
        let kept = latest([key(1), key(2), newer.clone(), Record::Boot(Generation(1)), Record::Boot(Generation(2))]);
        assert_eq!(kept, vec![Record::Boot(Generation(2)), newer, key(2)]);
    }

    #[test]
    fn a_removed_key_does_not_come_back_with_compaction() {
        let (partition, round) = (Partition(0), crate::id::Round(1));
        let (counter, collected, lacking) = (1, Vec::new(), false);
        let collected = Record::Kv(kv::Record::Partition { partition, counter, round, collected, lacking });
        let removed = Record::Kv(kv::Record::Removed { key: "key-1".into() });
        let once = latest([key(1), key(2), collected.clone(), removed]);
        assert_eq!(once, vec![key(2), collected]);
        assert_eq!(latest(once.clone()), once);
    }

    #[test]
    fn noise_never_panics() {
        let mut rng = Rng::new(3);
        let (bytes, _) = journal();
        for _ in 0..5_000 {
            let mut noisy = bytes.clone();
            for _ in 0..rng.below(20) {
                let at = rng.below(noisy.len() as u64) as usize;
                noisy[at] = rng.next_u64() as u8;
            }
            noisy.truncate(rng.below(noisy.len() as u64 + 1) as usize);
            let _ = recover(&noisy, &IDENTITY);
        }
    }
}

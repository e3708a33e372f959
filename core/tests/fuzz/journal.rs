//! A journal of any bytes, and a real one that was damaged.
//!
//! ```text
//!   any bytes        recover: an error, or records and a writer that goes on
//!   Written          create, write, damage, recover: an error, or a prefix of what was written
//! ```
//!
//! Damage that leaves the journal's length and its last batch alone is always an error: nothing that was durable is
//! dropped in silence. What is recovered restarts a node.

use qunlong_core::config::Config;
use qunlong_core::journal::{self, Recovered, StorageIdentity};
use qunlong_core::member::{Class, Durability, Profile};
use qunlong_core::{Generation, Input, Node, NodeId, Now, Record, Storage};
use serde::{Deserialize, Serialize};

/// Whose journals these are.
pub(crate) const IDENTITY: StorageIdentity = StorageIdentity { node: NodeId::small(1), incarnation: [7; 16] };

/// What is written, and what becomes of it. Its encoding is an input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Written {
    /// The segment's number.
    pub(crate) number: u64,
    /// What it begins with.
    pub(crate) checkpoint: Vec<Record>,
    /// What follows.
    pub(crate) batches: Vec<Vec<Record>>,
    /// What becomes of the bytes, in this order.
    pub(crate) damage: Vec<Damage>,
}

/// What can become of a journal's bytes. Places are taken modulo its length.
///
/// It cannot write bytes of its choice: whoever can do that can forge a checksum.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Damage {
    /// A bit has changed.
    Flip { at: u16, bit: u8 },
    /// A piece is all zeros.
    Zero { at: u16, length: u8 },
    /// A piece was written to another place.
    Copy { from: u16, to: u16, length: u8 },
    /// It ends here.
    Cut { at: u16 },
    /// A piece of it follows once more.
    Repeat { at: u16, length: u8 },
}

/// Returns whether it was a journal or could be written as one.
pub(crate) fn check(bytes: &[u8]) -> bool {
    let read = match journal::recover(bytes, &IDENTITY) {
        Ok(recovered) => {
            goes_on(bytes, &recovered);
            true
        }
        Err(error) => {
            assert!(!error.code().is_empty() && !error.to_string().is_empty());
            false
        }
    };
    assert!(journal::sealed(bytes, &IDENTITY) <= bytes.len());
    match postcard::from_bytes::<Written>(bytes) {
        Ok(written) => {
            write(&written);
            true
        }
        Err(_) => read,
    }
}

fn write(written: &Written) {
    let (mut writer, mut bytes) = journal::create(&IDENTITY, written.number, &written.checkpoint);
    for batch in &written.batches {
        bytes.extend(writer.batches(batch).concat());
    }
    let records: Vec<Record> = written.checkpoint.iter().chain(written.batches.iter().flatten()).cloned().collect();
    let expected = Recovered { records, writer, number: written.number, length: bytes.len(), torn: 0 };
    assert_eq!(journal::recover(&bytes, &IDENTITY).as_ref(), Ok(&expected), "what was written reads back");

    let latest = journal::latest(expected.records.iter().cloned());
    let (_, compacted) = journal::create(&IDENTITY, written.number, &latest);
    let compacted = journal::recover(&compacted, &IDENTITY).expect("a compacted journal reads back");
    assert_eq!(compacted.records, latest);
    assert_eq!(journal::latest(compacted.records), latest, "there is nothing left to compact");

    let damaged = damage(&bytes, &written.damage);
    match journal::recover(&damaged, &IDENTITY) {
        Ok(recovered) => {
            assert!(expected.records.starts_with(&recovered.records), "what is recovered was written, in this order");
            let sealed = journal::sealed(&bytes, &IDENTITY);
            let in_place = damaged.len() == bytes.len() && damaged[sealed..] == bytes[sealed..];
            assert!(!in_place || damaged == bytes, "damage before the last batch is noticed");
            goes_on(&damaged, &recovered);
            restart(recovered.records);
        }
        Err(error) => assert!(!error.code().is_empty() && !error.to_string().is_empty()),
    }
}

/// A journal that was recovered is cut, written on, and recovered again.
fn goes_on(bytes: &[u8], recovered: &Recovered) {
    assert_eq!(recovered.length + recovered.torn, bytes.len());
    let mut bytes = bytes[..recovered.length].to_vec();
    let mut writer = recovered.writer.clone();
    bytes.extend(writer.batches(&[Record::Boot(Generation(77))]).concat());
    bytes.extend(writer.seal());
    let mut records = recovered.records.clone();
    records.push(Record::Boot(Generation(77)));
    let expected = Recovered { records, writer, number: recovered.number, length: bytes.len(), torn: 0 };
    assert_eq!(journal::recover(&bytes, &IDENTITY), Ok(expected), "a recovered journal goes on");
}

fn restart(records: Vec<Record>) {
    let (class, durability) = (Class::Server, Durability::Durable);
    let profile = Profile::new("n1".to_owned(), class, durability, Storage(IDENTITY.incarnation));
    let mut node = Node::restore(Config::new(IDENTITY.node, profile), 7, records).expect("sound settings");
    node.handle(Now::default(), Input::Tick);
    assert!(node.poll().is_some(), "a boot is recorded");
}

fn damage(bytes: &[u8], damages: &[Damage]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for &damage in damages.iter().take(16) {
        if bytes.is_empty() {
            break;
        }
        let place = |at: u16| usize::from(at) % bytes.len();
        let piece = |at: u16, length: u8| place(at)..bytes.len().min(place(at) + usize::from(length));
        match damage {
            Damage::Flip { at, bit } => {
                let at = place(at);
                bytes[at] ^= 1 << (bit % 8);
            }
            Damage::Zero { at, length } => {
                let piece = piece(at, length);
                bytes[piece].fill(0);
            }
            Damage::Copy { from, to, length } => {
                let to = place(to);
                let from = piece(from, length);
                let from = from.start..from.end.min(from.start + (bytes.len() - to));
                bytes.copy_within(from, to);
            }
            Damage::Cut { at } => {
                let at = place(at);
                bytes.truncate(at);
            }
            Damage::Repeat { at, length } => {
                let piece = piece(at, length);
                bytes.extend_from_within(piece);
            }
        }
    }
    bytes
}

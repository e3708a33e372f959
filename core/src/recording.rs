//! Recordings: what nodes were told and when, which is all it takes to live through it again.
//!
//! A node is a function of its settings, its seed, the records it was restored from and its inputs with their times.
//! A recording holds these, of one live node or of a whole simulated cluster, and now and then a hash of the state that
//! they led to. Whoever replays it gets the same outputs and traces, and must come to the same hashes, natively and in
//! a browser.
//!
//! ```text
//!   file   = magic (8)  version (4)  entry*
//!   entry  = length (4)  CRC-32C (4)  body (postcard)
//!   Start n's settings, seed, records │ Input n at .. │ Drained n │ Stopped n │ State hash
//! ```
//!
//! Nodes are numbered by their starts: one that comes back has a new number. A host may handle several inputs before it
//! takes the outputs; batches of records are numbered when they are taken, so a recording says when that was.
//!
//! A recording that ends in the middle of an entry is one whose host was killed: what is there can be replayed. One
//! that is damaged elsewhere is refused. It may come from anybody, and never makes its reader panic.
//!
//! **It holds everything that its nodes stored and were told**, values included.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;

use crc::{CRC_32_ISCSI, Crc, Table};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::hash::hash_of;
use crate::lift::{Event, Record};
use crate::node::{Input, Node};
use crate::outbox::{Output, PersistId};
use crate::time::{Instant, Now};
use crate::trace::Level;

/// The format's version, in every head. It changes with the format of messages as well.
pub const VERSION: u32 = 1;

const CRC: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);
const MAGIC: [u8; 8] = *b"QUNLONGR";
const HEAD: usize = 12;
const ENTRY_HEAD: usize = 8;
/// No clock gets there.
const END_OF_TIME: Instant = Instant(1 << 62);

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// A node starts; starts are counted from 0.
    Start {
        /// Its settings.
        config: Config,
        /// Of its generator.
        seed: u64,
        /// What its journal held, oldest first.
        records: Vec<Record>,
    },
    /// A node was told something.
    Input {
        /// The number of its start.
        node: u32,
        /// When, on a clock that all nodes of the recording share.
        at: Instant,
        /// When, on its own clocks.
        now: Now,
        /// What.
        input: Input,
    },
    /// Its host took its outputs until there were none.
    Drained(u32),
    /// It stopped or crashed.
    Stopped(u32),
    /// The hash of all nodes that run, by number; see [`state_hash`].
    State(u64),
}

/// The hash of some nodes' states, as recordings hold it.
#[must_use]
pub fn state_hash<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> u64 {
    hash_of(&nodes.into_iter().map(Node::state_hash).collect::<Vec<_>>())
}

/// Writes a recording.
#[derive(Clone, Debug)]
pub struct Recorder {
    bytes: Vec<u8>,
    starts: u32,
}

impl Default for Recorder {
    fn default() -> Self {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        Self { bytes, starts: 0 }
    }
}

impl Recorder {
    /// A node starts; its number is returned.
    pub fn start(&mut self, config: &Config, seed: u64, records: &[Record]) -> u32 {
        self.write(&Entry::Start { config: config.clone(), seed, records: records.to_vec() });
        self.starts += 1;
        self.starts - 1
    }

    /// A node is told something.
    pub fn input(&mut self, node: u32, at: Instant, now: Now, input: &Input) {
        self.write(&Entry::Input { node, at, now, input: input.clone() });
    }

    /// All outputs of a node were taken.
    pub fn drained(&mut self, node: u32) {
        self.write(&Entry::Drained(node));
    }

    /// A node stopped.
    pub fn stopped(&mut self, node: u32) {
        self.write(&Entry::Stopped(node));
    }

    /// The state of all nodes that run, by number, after their outputs were taken.
    pub fn state<'a>(&mut self, nodes: impl IntoIterator<Item = &'a Node>) {
        self.write(&Entry::State(state_hash(nodes)));
    }

    /// The bytes since the last call, to be appended to a file.
    pub fn take(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.bytes)
    }

    /// Anything, as it is.
    pub fn write(&mut self, entry: &Entry) {
        let body = postcard::to_allocvec(entry).expect("plain data encodes into a growing buffer");
        let length = u32::try_from(body.len()).expect("an entry is far smaller than 4 GiB");
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(&CRC.checksum(&body).to_le_bytes());
        self.bytes.extend_from_slice(&body);
    }
}

/// Why a recording cannot be replayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordingError {
    /// It does not begin as one.
    NotARecording,
    /// It was written in another format.
    Version {
        /// The file's.
        theirs: u32,
    },
    /// It is damaged.
    Damaged {
        /// Offset of the entry.
        at: usize,
    },
    /// It says what no host can have seen: an input for a node that does not run, an acknowledgement of what was never
    /// handed out, settings that cannot work, a clock beyond all time.
    Unsound {
        /// Offset of the entry.
        at: usize,
    },
    /// The replay came to another state: this program is not the one that recorded it, or is not deterministic.
    Diverged {
        /// Offset of the entry.
        at: usize,
    },
}

impl RecordingError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotARecording => "NOT_A_RECORDING",
            Self::Version { .. } => "VERSION_UNSUPPORTED",
            Self::Damaged { .. } | Self::Unsound { .. } => "CORRUPT_RECORDING",
            Self::Diverged { .. } => "RECORDING_DIVERGED",
        }
    }
}

impl fmt::Display for RecordingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotARecording => f.write_str("this is no recording"),
            Self::Version { theirs } => {
                write!(f, "the recording has format version {theirs}, this program reads version {VERSION}")
            }
            Self::Damaged { at } => write!(f, "the recording is damaged at byte {at}"),
            Self::Unsound { at } => write!(f, "the recording says at byte {at} what cannot have happened"),
            Self::Diverged { at } => {
                write!(f, "the replay came to another state at byte {at}: another version of the program recorded it")
            }
        }
    }
}

impl core::error::Error for RecordingError {}

/// Reads a recording, entry by entry.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Begins to read.
    ///
    /// # Errors
    ///
    /// If it is no recording, or of another version.
    pub fn new(bytes: &'a [u8]) -> Result<Self, RecordingError> {
        let (magic, rest) = bytes.split_first_chunk::<8>().ok_or(RecordingError::NotARecording)?;
        let (version, _) = rest.split_first_chunk::<4>().ok_or(RecordingError::NotARecording)?;
        let theirs = u32::from_le_bytes(*version);
        match (*magic == MAGIC, theirs == VERSION) {
            (false, _) => Err(RecordingError::NotARecording),
            (true, false) => Err(RecordingError::Version { theirs }),
            (true, true) => Ok(Self { bytes, at: HEAD }),
        }
    }

    /// The next entry with its offset; `None` at the end, or where the recording was cut off.
    ///
    /// # Errors
    ///
    /// If the entry is damaged.
    pub fn next_entry(&mut self) -> Result<Option<(usize, Entry)>, RecordingError> {
        let at = self.at;
        let Some((head, rest)) = self.bytes.get(at..).and_then(|rest| rest.split_first_chunk::<ENTRY_HEAD>()) else {
            return Ok(None);
        };
        let word = |n: usize| u32::from_le_bytes([head[n], head[n + 1], head[n + 2], head[n + 3]]);
        let Some(body) = rest.get(..word(0) as usize) else {
            return Ok(None);
        };
        if CRC.checksum(body) != word(4) {
            return Err(RecordingError::Damaged { at });
        }
        let entry = postcard::from_bytes(body).map_err(|_| RecordingError::Damaged { at })?;
        self.at = at + ENTRY_HEAD + body.len();
        Ok(Some((at, entry)))
    }

    /// Whether the recording ends in the middle of an entry; known at its end.
    #[must_use]
    pub fn is_cut_off(&self) -> bool {
        self.at < self.bytes.len()
    }
}

/// What a replay came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Starts of nodes.
    pub starts: u32,
    /// Inputs that they handled.
    pub inputs: u64,
    /// Hashes that were compared, and were equal.
    pub states: u64,
    /// The last of them.
    pub hash: u64,
    /// From the first input to the last, on the shared clock.
    pub first: Instant,
    /// See `first`.
    pub last: Instant,
    /// Whether the recording ends in the middle of an entry.
    pub cut_off: bool,
}

/// A node that lives again.
struct Again {
    node: Node,
    /// The newest batch it has handed out.
    issued: PersistId,
}

/// Lives through a recording. `watch` sees what the nodes tell, with the time on the shared clock and the node as it
/// was when its outputs were taken.
///
/// # Errors
///
/// If it cannot be read, cannot have happened, or leads to another state than it did.
pub fn replay(
    bytes: &[u8],
    level: Level,
    watch: &mut dyn FnMut(Instant, &Node, Event),
) -> Result<Replayed, RecordingError> {
    let mut reader = Reader::new(bytes)?;
    let mut running: BTreeMap<u32, Again> = BTreeMap::new();
    let mut sum = Replayed::default();
    while let Some((at, entry)) = reader.next_entry()? {
        let unsound = || RecordingError::Unsound { at };
        match entry {
            Entry::Start { config, seed, records } => {
                if !records.iter().all(|record| record.is_sound(config.id)) {
                    return Err(unsound());
                }
                let mut node = Node::restore(config, seed, records).map_err(|_| unsound())?;
                node.set_level(level);
                running.insert(sum.starts, Again { node, issued: PersistId(0) });
                sum.starts += 1;
            }
            Entry::Input { node, at: time, now, input } => {
                let again = running.get_mut(&node).ok_or_else(unsound)?;
                // A timer cannot be set behind the end of time, and would fire without end.
                if now.mono > END_OF_TIME || matches!(input, Input::Persisted(id) if id > again.issued) {
                    return Err(unsound());
                }
                again.node.handle(now, input);
                if sum.inputs == 0 {
                    sum.first = time;
                }
                (sum.inputs, sum.last) = (sum.inputs + 1, time);
            }
            Entry::Drained(node) => {
                let again = running.get_mut(&node).ok_or_else(unsound)?;
                while let Some(output) = again.node.poll() {
                    match output {
                        Output::Persist { id, .. } => again.issued = id,
                        Output::Trace(event) => watch(sum.last, &again.node, event),
                        Output::Send { .. } | Output::Reply { .. } => (),
                    }
                }
            }
            Entry::Stopped(node) => {
                running.remove(&node).ok_or_else(unsound)?;
            }
            Entry::State(hash) => {
                if state_hash(running.values().map(|again| &again.node)) != hash {
                    return Err(RecordingError::Diverged { at });
                }
                (sum.states, sum.hash) = (sum.states + 1, hash);
            }
        }
    }
    sum.cut_off = reader.is_cut_off();
    Ok(sum)
}

#[cfg(test)]
#[cfg(feature = "sim")]
mod tests {
    use super::*;
    use crate::sim::Sim;
    use crate::time::Duration;

    fn recorded() -> Vec<u8> {
        let mut sim = Sim::recorded(7, 3, 1, 3, |_| ());
        sim.run_for(Duration::secs(3));
        sim.crash(1);
        sim.run_for(Duration::secs(2));
        sim.start(1);
        sim.run_for(Duration::secs(2));
        sim.take_recording().expect("it was recorded")
    }

    #[test]
    fn a_run_is_lived_through_again() {
        let bytes = recorded();
        let mut told = 0;
        let sum = replay(&bytes, Level::Messages, &mut |_, _, _| told += 1).expect("it replays");
        assert_eq!((sum.starts, sum.states, sum.cut_off), (5, 1, false));
        assert!(sum.inputs > 200 && told > 200, "{sum:?}, {told} events");
    }

    #[test]
    fn a_recording_that_was_cut_off_replays_as_far_as_it_goes() {
        let bytes = recorded();
        let whole = replay(&bytes, Level::Off, &mut |_, _, _| ()).expect("it replays");
        let sum = replay(&bytes[..bytes.len() * 3 / 4], Level::Off, &mut |_, _, _| ()).expect("most of it replays");
        assert!(sum.cut_off && sum.inputs > 0 && sum.inputs < whole.inputs, "{sum:?}");
    }

    #[test]
    fn damage_and_other_formats_are_refused() {
        let bytes = recorded();
        let with = |at: usize| {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            replay(&bytes, Level::Off, &mut |_, _, _| ()).err()
        };
        assert_eq!(with(0), Some(RecordingError::NotARecording));
        assert_eq!(with(8), Some(RecordingError::Version { theirs: VERSION ^ 1 }));
        assert_eq!(with(bytes.len() / 2 - 1).map(|error| error.code()), Some("CORRUPT_RECORDING"));
        assert_eq!(replay(b"", Level::Off, &mut |_, _, _| ()), Err(RecordingError::NotARecording));
    }

    #[test]
    fn another_course_of_events_is_noticed() {
        let mut reader = Recorder::default();
        let whole = recorded();
        let mut entries = Reader::new(&whole).expect("a recording");
        let mut left_out = false;
        while let Some((_, entry)) = entries.next_entry().expect("readable") {
            let is_message = matches!(entry, Entry::Input { input: Input::Message(_), .. });
            if is_message && !core::mem::replace(&mut left_out, true) {
                continue;
            }
            reader.write(&entry);
        }
        let outcome = replay(&reader.take(), Level::Off, &mut |_, _, _| ());
        assert!(
            matches!(outcome, Err(RecordingError::Diverged { .. } | RecordingError::Unsound { .. })),
            "{outcome:?}"
        );
    }

    #[test]
    fn what_no_host_can_have_seen_is_refused() {
        let mut recorder = Recorder::default();
        recorder.input(0, Instant(0), Now::default(), &Input::Tick);
        let unsound = Err(RecordingError::Unsound { at: HEAD });
        assert_eq!(replay(&recorder.take(), Level::Off, &mut |_, _, _| ()), unsound);
    }
}

//! A recording of any bytes, and one of any entries.
//!
//! ```text
//!   any bytes           replay: an error, or a sum
//!   Entry*              written and replayed: the same; what replays does so again, to the same sum
//! ```
//!
//! A recording comes from anybody, and its nodes are told whatever it says.

use qunlong_core::recording::{self, Entry, Recorder};
use qunlong_core::trace::Level;
use serde::{Deserialize, Serialize};

/// What is recorded. Its encoding is an input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Entries(pub(crate) Vec<Entry>);

/// Nodes of one input, at most; each may be large.
const STARTS: usize = 4;

/// Returns whether it was a recording or could be written as one.
pub(crate) fn check(bytes: &[u8]) -> bool {
    let is_recording = replays(bytes);
    let Ok(Entries(entries)) = postcard::from_bytes::<Entries>(bytes) else { return is_recording };
    if entries.iter().filter(|entry| matches!(entry, Entry::Start { .. })).count() > STARTS {
        return is_recording;
    }
    let mut recorder = Recorder::default();
    entries.iter().for_each(|entry| recorder.write(entry));
    let bytes = recorder.take();
    let mut reader = recording::Reader::new(&bytes).expect("it has a head");
    for entry in &entries {
        let (_, read) = reader.next_entry().expect("it is whole").expect("there is one more");
        assert_eq!(read, *entry);
    }
    assert!(reader.next_entry() == Ok(None) && !reader.is_cut_off());
    replays(&bytes);
    true
}

fn replays(bytes: &[u8]) -> bool {
    let mut told = 0_u64;
    let sum = recording::replay(bytes, Level::Messages, &mut |_, _, _| told += 1);
    match &sum {
        Ok(_) => {
            assert_eq!(recording::replay(bytes, Level::Off, &mut |_, _, _| ()), sum, "who watches changes nothing");
        }
        Err(error) => assert!(!error.code().is_empty() && !error.to_string().is_empty()),
    }
    sum.is_ok()
}

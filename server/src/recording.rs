//! `qunlong node --record FILE` writes down what a node is told; `qunlong replay FILE` lives through it again.
//!
//! A thread of its own writes, so that a slow disk slows nobody down. A recording that cannot be written any further
//! ends where it is; the node goes on.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use qunlong_core::config::Config;
use qunlong_core::recording::{self, Recorder};
use qunlong_core::trace::Level;
use qunlong_core::{Input, Node, Now, Record};

use crate::failure::Failure;

/// A recording that is being made.
pub(crate) struct Recording {
    recorder: Recorder,
    number: u32,
    bytes: Sender<Vec<u8>>,
    thread: thread::JoinHandle<()>,
}

impl Recording {
    /// Begins a recording with how the node starts. The file is new, and its owner's alone.
    pub(crate) fn start(path: &Path, config: &Config, seed: u64, records: &[Record]) -> Result<Self, Failure> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|error| {
            let message = format!("cannot record to {}: {error}; name a file that is not there yet", path.display());
            Failure::new("CANNOT_RECORD", message)
        })?;
        let mut recorder = Recorder::default();
        let number = recorder.start(config, seed, records);
        let (bytes, written) = channel();
        let path = path.to_owned();
        let body = move || write_all(&path, file, &written);
        let thread = thread::Builder::new().name("recording".to_owned()).spawn(body).expect("a thread can be started");
        Ok(Self { recorder, number, bytes, thread })
    }

    pub(crate) fn input(&mut self, now: Now, input: &Input) {
        // A single node's own clock is the one that all share.
        self.recorder.input(self.number, now.mono, now, input);
    }

    /// The node's outputs were taken.
    pub(crate) fn drained(&mut self) {
        self.recorder.drained(self.number);
        let _ = self.bytes.send(self.recorder.take());
    }

    /// Ends with the state that the node came to.
    pub(crate) fn finish(mut self, node: &Node) {
        self.recorder.state([node]);
        let _ = self.bytes.send(self.recorder.take());
        drop(self.bytes);
        let _ = self.thread.join();
    }
}

fn write_all(path: &Path, file: File, written: &Receiver<Vec<u8>>) {
    let mut file = BufWriter::new(file);
    let mut write = || -> io::Result<()> {
        while let Ok(bytes) = written.recv() {
            file.write_all(&bytes)?;
            while let Ok(bytes) = written.try_recv() {
                file.write_all(&bytes)?;
            }
            file.flush()?;
        }
        Ok(())
    };
    if let Err(error) = write() {
        tracing::error!("the recording {} ends here: {error}", path.display());
    }
}

/// Lives through a recording, tells what the nodes decided, and whether they came to the same state.
pub(crate) fn replay(path: &Path, trace: bool) -> Result<(), Failure> {
    let bytes = std::fs::read(path)
        .map_err(|error| Failure::new("CANNOT_READ", format!("cannot read {}: {error}", path.display())))?;
    let level = if trace { Level::Messages } else { Level::Decisions };
    let mut out = BufWriter::new(io::stdout().lock());
    let mut print = |line: std::fmt::Arguments<'_>| {
        // Whoever reads may have seen enough.
        let _ = writeln!(out, "{line}");
    };
    let replayed = recording::replay(&bytes, level, &mut |at, _, event| {
        print(format_args!("{at:>14} {} {}", event.node, event.kind));
    });
    let sum = replayed.map_err(|error| Failure::new(error.code(), format!("{}: {error}", path.display())))?;
    let span = sum.last.since(sum.first);
    print(format_args!("{} starts, {} inputs, {} s", sum.starts, sum.inputs, span.as_millis() / 1_000));
    if sum.states > 0 {
        print(format_args!("the same state, {:016x}", sum.hash));
    } else {
        print(format_args!("the recording ends before a state that could be compared"));
    }
    if sum.cut_off {
        print(format_args!("the last entry is cut off: the node was killed"));
    }
    Ok(())
}

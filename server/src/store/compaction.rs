//! Compaction: the latest record of each key goes to a new segment, while the old one is written on.
//!
//! ```text
//!   journal's thread   ── begin ──┬── appends to the old segment, and keeps what it appends ──┬── end ── the new one
//!   a thread beside it            └── reads, sorts out, writes and syncs `journal.new` ───────┘
//! ```
//!
//! At the end, what was appended meanwhile is appended to the new file as well and synced, and only then does that get the
//! name of a segment, and the old one goes. So at any moment one segment holds everything that was acknowledged, and a file
//! without that name counts for nothing. Nobody waits for the reading and writing of what is large.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;

use qunlong_core::Record;
use qunlong_core::journal::{self, JournalError, StorageIdentity, Writer};

use super::{COMPACT_RETRY_BYTES, Store, compact_at, corrupt, segment, sync_dir, write_file};
use crate::failure::Failure;
use crate::files::{Files, OpenFile};

/// One that is under way.
pub(super) struct Compaction {
    written: Receiver<Result<Option<Checkpoint>, Failure>>,
    /// What has been appended to the old segment since.
    tail: Vec<Record>,
}

/// The new segment, up to the moment when it was begun.
struct Checkpoint {
    file: Box<dyn OpenFile>,
    writer: Writer,
    length: u64,
}

impl Compaction {
    pub(super) fn extend(&mut self, records: Vec<Record>) {
        self.tail.extend(records);
    }
}

/// Where the next segment is written.
pub(super) fn staged(dir: &Path) -> PathBuf {
    dir.join("journal.new")
}

impl Store {
    /// Begins one if it is time to, and ends the one that has been written.
    pub(super) fn compact_in_turn(&mut self) -> Result<(), Failure> {
        let Some(compaction) = &self.compaction else {
            if self.length > self.compact_at && !self.full {
                self.begin_compaction();
            }
            return Ok(());
        };
        match compaction.written.try_recv() {
            Err(TryRecvError::Empty) => Ok(()),
            Ok(written) => self.end_compaction(written?),
            Err(TryRecvError::Disconnected) => Err(Failure::new("INTERNAL", "the compaction broke off")),
        }
    }

    pub(super) fn begin_compaction(&mut self) {
        let (tell, written) = channel();
        let (files, path, dir) = (Arc::clone(&self.files), self.path.clone(), self.dir.clone());
        let (identity, number, length) = (self.identity, self.number, self.length);
        let body = move || {
            // Whoever wanted it may be gone.
            let _ = tell.send(write(&*files, (&path, length), &staged(&dir), &identity, number + 1));
        };
        thread::Builder::new().name("compaction".to_owned()).spawn(body).expect("a thread can be started");
        self.compaction = Some(Compaction { written, tail: Vec::new() });
    }

    /// Waits for the one that is under way and throws it away.
    pub(super) fn give_up_compaction(&mut self) -> Result<(), Failure> {
        if let Some(compaction) = self.compaction.take() {
            let _ = compaction.written.recv();
            self.remove_if_there(&staged(&self.dir))?;
        }
        Ok(())
    }

    /// Gives back what one has written so far, and begins anew later. Returns whether there was one.
    pub(super) fn make_room(&mut self) -> Result<bool, Failure> {
        if self.compaction.is_none() {
            return Ok(false);
        }
        self.give_up_compaction()?;
        self.compact_at = self.length + COMPACT_RETRY_BYTES;
        Ok(true)
    }

    fn end_compaction(&mut self, checkpoint: Option<Checkpoint>) -> Result<(), Failure> {
        let tail = self.compaction.take().map(|compaction| compaction.tail).unwrap_or_default();
        let staged = staged(&self.dir);
        let Some(Checkpoint { mut file, mut writer, length }) = checkpoint else { return self.put_off(&staged) };
        let bytes = if tail.is_empty() { Vec::new() } else { writer.batches(&tail).concat() };
        if !append(&mut *file, &bytes, length).map_err(|error| Failure::io("write", &staged, &error))? {
            // The old segment is far larger than what is left to write, so the reserve is well spent on that.
            let spent = self.spend_reserve()?;
            let failed = |error| Failure::io("write", &staged, &error);
            if !spent || !append(&mut *file, &bytes, length).map_err(failed)? {
                return self.put_off(&staged);
            }
        }
        let (before, path) = (self.length, segment(&self.dir, self.number + 1));
        self.files.rename(&staged, &path).map_err(|error| Failure::io("rename", &staged, &error))?;
        sync_dir(&*self.files, &self.dir)?;
        self.files.remove(&self.path).map_err(|error| Failure::io("remove", &self.path, &error))?;
        // Or the old one could come back after a power cut, and be believed if the new one is damaged.
        sync_dir(&*self.files, &self.dir)?;
        self.length = length + bytes.len() as u64;
        (self.file, self.path, self.writer) = (file, path, writer);
        (self.number, self.compact_at, self.sealed) = (self.number + 1, compact_at(length), bytes.is_empty());
        tracing::info!(before, after = self.length, "compacted the journal");
        Ok(())
    }

    fn put_off(&mut self, staged: &Path) -> Result<(), Failure> {
        tracing::warn!("no room to compact the journal; it grows on");
        self.compact_at = self.length + COMPACT_RETRY_BYTES;
        self.remove_if_there(staged)
    }

    /// Begins one and waits until it is written.
    #[cfg(test)]
    pub(super) fn begin_compaction_and_wait(&mut self) {
        self.begin_compaction();
        if let Some(compaction) = &mut self.compaction {
            let written = compaction.written.recv().expect("it tells");
            let (tell, again) = channel();
            tell.send(written).expect("somebody hears");
            compaction.written = again;
        }
    }

    /// Ends the one that has been written.
    #[cfg(test)]
    pub(super) fn end_it(&mut self) -> Result<(), Failure> {
        let written = self.compaction.as_ref().map(|compaction| compaction.written.recv().expect("it tells"));
        written.map_or(Ok(()), |written| self.end_compaction(written?))
    }

    #[cfg(test)]
    pub(super) fn compact(&mut self) -> Result<(), Failure> {
        self.begin_compaction_and_wait();
        self.end_it()
    }
}

/// Appends to a file of this length and syncs. Returns whether there was room; without it nothing has changed.
fn append(file: &mut dyn OpenFile, bytes: &[u8], length: u64) -> io::Result<bool> {
    if bytes.is_empty() {
        return Ok(true);
    }
    match file.append(bytes) {
        Ok(()) => file.sync().map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::StorageFull => file.cut(length).map(|()| false),
        Err(error) => Err(error),
    }
}

/// Writes the latest record of each key in the first `length` bytes of a segment; `None` if there is no room.
fn write(
    files: &dyn Files,
    (from, length): (&Path, u64),
    to: &Path,
    identity: &StorageIdentity,
    number: u64,
) -> Result<Option<Checkpoint>, Failure> {
    let mut bytes = files.read(from).map_err(|error| Failure::io("read", from, &error))?;
    bytes.truncate(usize::try_from(length).unwrap_or(usize::MAX));
    let recovered = journal::recover(&bytes, identity).map_err(|error| corrupt(from, error))?;
    if recovered.torn > 0 || bytes.len() as u64 != length {
        // What was written and synced does not read back: nothing may be thrown away on its word.
        return Err(corrupt(from, JournalError::Damaged { at: recovered.length }));
    }
    let (writer, bytes) = journal::create(identity, number, &journal::latest(recovered.records));
    match write_file(files, to, &bytes) {
        Ok(file) => Ok(Some(Checkpoint { file, writer, length: bytes.len() as u64 })),
        Err(error) if error.kind() == io::ErrorKind::StorageFull => {
            // The room is wanted by whoever writes on.
            match files.remove(to) {
                Err(error) if files.exists(to) => Err(Failure::io("remove", to, &error)),
                Ok(()) | Err(_) => Ok(None),
            }
        }
        Err(error) => Err(Failure::io("write", to, &error)),
    }
}

//! The journal on a file system: one segment file, appended and synced by a thread of its own.
//!
//! The thread takes whatever batches have come in while it was syncing, writes them as one, syncs once and answers
//! with the newest number: group commit. A failed write or sync ends the process, because what the operating system
//! holds in memory after that may never reach the disk, and no later sync would say so.
//!
//! When the segment has grown to several times its checkpoint, the latest record of each key goes to the next
//! segment; the old one is removed once the new one and the folder's entry are durable.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use qunlong_core::journal::{self, JournalError, StorageIdentity, Writer};
use qunlong_core::{PersistId, Record};
use tokio::sync::mpsc::UnboundedSender;

use crate::failure::{EXIT_DISK, Failure};
use crate::identity::Identity;

/// A segment is compacted beyond this and [`GROWTH`] times its checkpoint, whichever is larger.
const COMPACT_BYTES: u64 = 16 << 20;
const GROWTH: u64 = 3;
/// With nothing to do for so long, the last batch is sealed, so that later damage to it is told from a torn write.
const SEAL_AFTER: Duration = Duration::from_millis(500);

/// What the journal has done since the node started.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) syncs: AtomicU64,
    pub(crate) records: AtomicU64,
    pub(crate) bytes: AtomicU64,
}

/// Records to be made durable under a number.
pub(crate) type Batch = (PersistId, Vec<Record>);

/// A node's folder, locked by this process.
pub(crate) struct Store {
    dir: PathBuf,
    identity: StorageIdentity,
    file: File,
    path: PathBuf,
    number: u64,
    writer: Writer,
    /// Bytes in the segment now, and right after its checkpoint.
    length: u64,
    checkpoint: u64,
    sealed: bool,
    counters: Arc<Counters>,
    _lock: File,
}

/// What a start finds.
pub(crate) struct Opened {
    pub(crate) store: Store,
    pub(crate) identity: Identity,
    pub(crate) records: Vec<Record>,
}

impl Store {
    /// Opens a node's folder, or makes one. With `new_identity`, whatever was there is moved aside first.
    pub(crate) fn open(dir: &Path, new_identity: bool) -> Result<Opened, Failure> {
        fs::create_dir_all(dir).map_err(|error| Failure::io("create", dir, &error))?;
        let lock = lock(dir)?;
        if new_identity {
            move_aside(dir)?;
        }
        let key = dir.join("key.json");
        if key.exists() {
            Self::reopen(dir, lock, Identity::read(&key)?)
        } else if segments(dir)?.is_empty() || dir.join("key.json.new").exists() {
            Self::create(dir, lock, &key)
        } else {
            Err(storage_lost(dir, "there is a journal, and no key beside it"))
        }
    }

    /// The first start: the key counts only once the journal is there, so a crash in between starts over.
    fn create(dir: &Path, lock: File, key: &Path) -> Result<Opened, Failure> {
        for (_, path) in segments(dir)? {
            fs::remove_file(&path).map_err(|error| Failure::io("remove", &path, &error))?;
        }
        let identity = Identity::mint()?;
        let staged = dir.join("key.json.new");
        identity.write(&staged)?;
        let (writer, bytes) = journal::create(&identity.storage(), 1, &[]);
        let (file, path) = write_segment(dir, 1, &bytes)?;
        fs::rename(&staged, key).map_err(|error| Failure::io("rename", &staged, &error))?;
        sync_dir(dir)?;
        let length = bytes.len() as u64;
        let store = Self {
            dir: dir.to_owned(),
            identity: identity.storage(),
            file,
            path,
            number: 1,
            writer,
            length,
            checkpoint: length,
            sealed: true,
            counters: Arc::default(),
            _lock: lock,
        };
        Ok(Opened { store, identity, records: Vec::new() })
    }

    fn reopen(dir: &Path, lock: File, identity: Identity) -> Result<Opened, Failure> {
        let (recovered, path) = recover_newest(dir, &identity.storage())?;
        if recovered.torn > 0 {
            tracing::warn!(bytes = recovered.torn, "cut off a write that a crash had torn");
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|error| Failure::io("open", &path, &error))?;
        // What was read may still be in memory only: it must be on the disk before anything is said because of it.
        let mut settle = || -> io::Result<()> {
            file.set_len(recovered.length as u64)?;
            file.seek(SeekFrom::End(0))?;
            file.sync_all()
        };
        settle().map_err(|error| Failure::io("sync", &path, &error))?;
        sync_dir(dir)?;
        let length = recovered.length as u64;
        let store = Self {
            dir: dir.to_owned(),
            identity: identity.storage(),
            file,
            path,
            number: recovered.number,
            writer: recovered.writer,
            length,
            // Unknown after a restart: half is a guess that compacts in time.
            checkpoint: length / 2,
            sealed: true,
            counters: Arc::default(),
            _lock: lock,
        };
        Ok(Opened { store, identity, records: recovered.records })
    }

    pub(crate) fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Starts the thread. It ends, everything synced, when the returned sender is dropped.
    pub(crate) fn spawn(mut self, durable: UnboundedSender<PersistId>) -> (Sender<Batch>, thread::JoinHandle<()>) {
        let (sender, batches) = channel();
        let body = move || {
            if let Err(failure) = self.serve(&batches, &durable) {
                eprintln!("qunlong: {failure}; stopping, because the disk can no longer be trusted");
                std::process::exit(i32::from(EXIT_DISK));
            }
        };
        let thread = thread::Builder::new().name("journal".to_owned()).spawn(body).expect("a thread can be started");
        (sender, thread)
    }

    fn serve(&mut self, batches: &Receiver<Batch>, durable: &UnboundedSender<PersistId>) -> Result<(), Failure> {
        loop {
            let (mut id, mut records) = match batches.recv_timeout(SEAL_AFTER) {
                Ok(batch) => batch,
                Err(RecvTimeoutError::Timeout) => {
                    self.seal()?;
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return self.seal(),
            };
            while let Ok((newer, more)) = batches.try_recv() {
                id = newer;
                records.extend(more);
            }
            for bytes in self.writer.batches(&records) {
                self.append(&bytes)?;
            }
            self.sealed = false;
            self.counters.records.fetch_add(records.len() as u64, Ordering::Relaxed);
            // The node may have stopped; then nobody waits for the answer.
            let _ = durable.send(id);
            if self.length > COMPACT_BYTES.max(GROWTH * self.checkpoint) {
                self.compact()?;
            }
        }
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = self.file.write_all(bytes).and_then(|()| self.file.sync_data());
        written.map_err(|error| Failure::io("write", &self.path, &error))?;
        self.length += bytes.len() as u64;
        self.counters.syncs.fetch_add(1, Ordering::Relaxed);
        self.counters.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn seal(&mut self) -> Result<(), Failure> {
        if !self.sealed {
            let bytes = self.writer.seal();
            self.append(&bytes)?;
            self.sealed = true;
        }
        Ok(())
    }

    fn compact(&mut self) -> Result<(), Failure> {
        let before = self.length;
        let bytes = fs::read(&self.path).map_err(|error| Failure::io("read", &self.path, &error))?;
        let recovered = journal::recover(&bytes, &self.identity).map_err(|error| corrupt(&self.path, error))?;
        if recovered.torn > 0 {
            // What was just written and synced does not read back: nothing may be thrown away on its word.
            return Err(corrupt(&self.path, JournalError::Damaged { at: recovered.length }));
        }
        let records = journal::latest(recovered.records);
        let (writer, bytes) = journal::create(&self.identity, self.number + 1, &records);
        let (file, path) = write_segment(&self.dir, self.number + 1, &bytes)?;
        sync_dir(&self.dir)?;
        fs::remove_file(&self.path).map_err(|error| Failure::io("remove", &self.path, &error))?;
        self.length = bytes.len() as u64;
        (self.file, self.path, self.writer) = (file, path, writer);
        (self.number, self.checkpoint) = (self.number + 1, self.length);
        tracing::info!(before, after = self.length, "compacted the journal");
        Ok(())
    }
}

/// The newest segment that was finished; unfinished ones never counted and are removed.
fn recover_newest(dir: &Path, identity: &StorageIdentity) -> Result<(journal::Recovered, PathBuf), Failure> {
    let mut found = segments(dir)?;
    found.sort_unstable();
    while let Some((_, path)) = found.pop() {
        let bytes = fs::read(&path).map_err(|error| Failure::io("read", &path, &error))?;
        match journal::recover(&bytes, identity) {
            Ok(recovered) => {
                for (_, older) in found {
                    fs::remove_file(&older).map_err(|error| Failure::io("remove", &older, &error))?;
                }
                return Ok((recovered, path));
            }
            // A crash in the middle of a compaction: the older one is still whole.
            Err(JournalError::Unfinished | JournalError::BadHead) if !found.is_empty() => {
                fs::remove_file(&path).map_err(|error| Failure::io("remove", &path, &error))?;
            }
            Err(error) => return Err(corrupt(&path, error)),
        }
    }
    Err(storage_lost(dir, "there is a key, and no journal beside it"))
}

fn corrupt(path: &Path, error: JournalError) -> Failure {
    let advice = match error {
        JournalError::Version { .. } => "use the version of the program that wrote it",
        _ => {
            "what this node promised may be lost, so it must not speak under its old name; the others repair its data: \
             start it with --new-identity (the old files are moved aside, not deleted)"
        }
    };
    Failure::new(error.code(), format!("{}: {error}; {advice}", path.display()))
}

fn storage_lost(dir: &Path, what: &str) -> Failure {
    Failure::new(
        "STORAGE_LOST",
        format!(
            "{}: {what}; what this node promised is lost, so it must not speak under its old name; start it with \
             --new-identity (the old files are moved aside, not deleted)",
            dir.display()
        ),
    )
}

/// Journal files by number.
fn segments(dir: &Path) -> Result<Vec<(u64, PathBuf)>, Failure> {
    let entries = fs::read_dir(dir).map_err(|error| Failure::io("read", dir, &error))?;
    let numbered = entries.filter_map(Result::ok).filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let number = name.strip_prefix("journal-")?.parse().ok()?;
        Some((number, entry.path()))
    });
    Ok(numbered.collect())
}

fn write_segment(dir: &Path, number: u64, bytes: &[u8]) -> Result<(File, PathBuf), Failure> {
    let path = dir.join(format!("journal-{number:08}"));
    let written = || -> io::Result<File> {
        let mut file = File::create(&path)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        Ok(file)
    };
    match written() {
        Ok(file) => Ok((file, path)),
        Err(error) => Err(Failure::io("write", &path, &error)),
    }
}

fn sync_dir(dir: &Path) -> Result<(), Failure> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| Failure::io("sync", dir, &error))
}

fn lock(dir: &Path) -> Result<File, Failure> {
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|error| Failure::io("open", &path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(_) => Err(Failure::new("DATA_IN_USE", format!("another process runs on {}", dir.display()))),
    }
}

fn move_aside(dir: &Path) -> Result<(), Failure> {
    let old: Vec<PathBuf> = segments(dir)?
        .into_iter()
        .map(|(_, path)| path)
        .chain(["key.json", "key.json.new"].map(|name| dir.join(name)))
        .filter(|path| path.exists())
        .collect();
    if old.is_empty() {
        return Ok(());
    }
    let number = (1..).find(|n| !dir.join(format!("lost-{n}")).exists()).expect("some number is free");
    let aside = dir.join(format!("lost-{number}"));
    fs::create_dir(&aside).map_err(|error| Failure::io("create", &aside, &error))?;
    for path in old {
        let name = path.file_name().expect("a file has a name");
        fs::rename(&path, aside.join(name)).map_err(|error| Failure::io("move", &path, &error))?;
    }
    sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use qunlong_core::Generation;
    use tokio::sync::mpsc::unbounded_channel;

    fn write(dir: &Path, generations: std::ops::Range<u64>) {
        let opened = Store::open(dir, false).expect("opens");
        let (durable, mut acks) = unbounded_channel();
        let (batches, thread) = opened.store.spawn(durable);
        for n in generations.clone() {
            batches.send((PersistId(n), vec![Record::Boot(Generation(n))])).expect("the thread runs");
        }
        while acks.blocking_recv() != Some(PersistId(generations.end - 1)) {}
        drop(batches);
        thread.join().expect("ends well");
    }

    fn refusal(dir: &Path) -> &'static str {
        Store::open(dir, false).err().expect("refused").code
    }

    fn segment(dir: &Path) -> PathBuf {
        segments(dir).expect("readable").pop().expect("one").1
    }

    #[test]
    fn what_was_acknowledged_is_there_after_a_restart() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        write(dir.path(), 1..5);
        write(dir.path(), 5..9);
        let opened = Store::open(dir.path(), false).expect("opens");
        assert_eq!(opened.records, (1..9).map(|n| Record::Boot(Generation(n))).collect::<Vec<_>>());
    }

    #[test]
    fn a_torn_tail_is_cut_off_and_damage_elsewhere_refused() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        write(dir.path(), 1..5);
        let path = segment(dir.path());
        let mut bytes = fs::read(&path).expect("readable");
        bytes.extend_from_slice(b"QLB\x01 and then the power failed");
        fs::write(&path, &bytes).expect("writable");
        assert_eq!(Store::open(dir.path(), false).expect("opens").records.len(), 4);

        bytes[100] ^= 1;
        fs::write(&path, &bytes).expect("writable");
        assert_eq!(refusal(dir.path()), "CORRUPT_RECORD");
    }

    #[test]
    fn a_key_without_its_journal_and_a_journal_without_its_key_are_refused() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        write(dir.path(), 1..2);
        let old = Store::open(dir.path(), false).expect("opens").identity.node();
        let (key, journal) = (dir.path().join("key.json"), segment(dir.path()));
        let kept = fs::read(&key).expect("readable");
        fs::remove_file(&key).expect("ours");
        assert_eq!(refusal(dir.path()), "STORAGE_LOST");
        let identity = Identity::mint().expect("randomness");
        identity.write(&key).expect("writable");
        assert_eq!(refusal(dir.path()), "STORAGE_LOST");
        fs::write(&key, kept).expect("writable");
        fs::remove_file(journal).expect("ours");
        assert_eq!(refusal(dir.path()), "STORAGE_LOST");
        let again = Store::open(dir.path(), true).expect("a new identity starts");
        assert_ne!(again.identity.node(), old);
        assert!(dir.path().join("lost-1").join("key.json").exists());
    }

    #[test]
    fn one_process_at_a_time() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let _opened = Store::open(dir.path(), false).expect("opens");
        assert_eq!(refusal(dir.path()), "DATA_IN_USE");
    }

    #[test]
    fn compaction_keeps_the_latest_record_of_each_key() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        write(dir.path(), 1..50);
        let mut opened = Store::open(dir.path(), false).expect("opens");
        opened.store.compact().expect("compacts");
        let bytes = opened.store.writer.batches(&[Record::Boot(Generation(99))]).concat();
        opened.store.append(&bytes).expect("appends");
        drop(opened);
        let opened = Store::open(dir.path(), false).expect("opens");
        assert_eq!(opened.records, [Record::Boot(Generation(49)), Record::Boot(Generation(99))]);
        assert_eq!(segments(dir.path()).expect("readable").len(), 1);
    }
}

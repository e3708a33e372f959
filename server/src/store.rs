//! The journal on a file system: one segment file, appended and synced by a thread of its own.
//!
//! The thread takes whatever batches have come in while it was syncing, writes them as one, syncs once and answers
//! with the newest number: group commit. A failed write or sync ends the process, because what the operating system
//! holds in memory after that may never reach the disk, and no later sync would say so.
//!
//! **A full disk** is the one failure that passes. A reserve lies beside the journal; when a write finds no room, the
//! reserve is given up for it, and the node is told, so that it takes in nothing new while what it has already begun
//! can still be finished. Once the reserve can be laid by again, there is room again, and the node is told that.
//!
//! When the segment has grown to several times its checkpoint, the latest record of each key goes to the next one, which
//! is written beside all that (`compaction.rs`).

mod compaction;

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread;
use std::time::Duration;

use qunlong_core::journal::{self, JournalError, StorageIdentity, Writer};
use qunlong_core::{PersistId, Record};
use tokio::sync::mpsc::UnboundedSender;

use crate::failure::{EXIT_DISK, Failure};
use crate::files::{Files, OpenFile, SystemFiles};
use crate::identity::Identity;
use compaction::{Compaction, staged};

/// A segment is compacted beyond this and [`GROWTH`] times its checkpoint, whichever is larger.
const COMPACT_BYTES: u64 = 16 << 20;
const GROWTH: u64 = 3;
/// With nothing to do for so long, the last batch is sealed, so that later damage to it is told from a torn write; and
/// a disk that was full is looked at again.
const IDLE: Duration = Duration::from_millis(500);
/// What is kept for the moment when the disk is full: room for what the node has begun by then. Less in tests, which
/// lay it by a thousand times.
const RESERVE_BYTES: usize = if cfg!(test) { 4 << 10 } else { 4 << 20 };
/// A write that finds no room even so is tried again after this.
const FULL_RETRY: Duration = Duration::from_millis(200);
/// A compaction that found no room is tried again when the segment has grown by so much.
const COMPACT_RETRY_BYTES: u64 = 1 << 20;

/// What the journal has done since the node started.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) syncs: AtomicU64,
    pub(crate) records: AtomicU64,
    pub(crate) bytes: AtomicU64,
}

/// Records to be made durable under a number.
pub(crate) type Batch = (PersistId, Vec<Record>);

/// What the journal's thread says to the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// This batch and all before it are durable.
    Durable(PersistId),
    /// The disk is full, or has room again.
    Full(bool),
}

/// A node's folder, locked by this process.
pub(crate) struct Store {
    dir: PathBuf,
    identity: StorageIdentity,
    files: Arc<dyn Files>,
    file: Box<dyn OpenFile>,
    path: PathBuf,
    number: u64,
    writer: Writer,
    /// Bytes in the segment that are known to be good; whatever lies behind was never synced.
    length: u64,
    /// The segment is compacted beyond this length.
    compact_at: u64,
    sealed: bool,
    /// The compaction that is under way.
    compaction: Option<Compaction>,
    /// Whether the reserve is spent.
    full: bool,
    counters: Arc<Counters>,
    _lock: Box<dyn Send>,
}

/// What a start finds.
pub(crate) struct Opened {
    pub(crate) store: Store,
    pub(crate) identity: Identity,
    pub(crate) records: Vec<Record>,
}

/// Why something was not written.
enum Unwritten {
    /// There is no room; nothing has changed, and it may be tried again.
    NoRoom,
    Failed(Failure),
}

impl From<Failure> for Unwritten {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Store {
    /// Opens a node's folder, or makes one. With `new_identity`, whatever was there is moved aside first.
    pub(crate) fn open(dir: &Path, new_identity: bool) -> Result<Opened, Failure> {
        if new_identity {
            SystemFiles.create_dir(dir).map_err(|error| Failure::io("create", dir, &error))?;
            let _lock = lock(&SystemFiles, dir)?;
            move_aside(dir)?;
        }
        Self::open_on(Arc::new(SystemFiles), dir)
    }

    fn open_on(files: Arc<dyn Files>, dir: &Path) -> Result<Opened, Failure> {
        files.create_dir(dir).map_err(|error| Failure::io("create", dir, &error))?;
        let lock = lock(&*files, dir)?;
        let key = dir.join("key.json");
        let mut opened = if files.exists(&key) {
            let identity = Identity::read(&*files, &key)?;
            Self::reopen(files, dir, lock, identity)?
        } else if segments(&*files, dir)?.is_empty() || files.exists(&dir.join("key.json.new")) {
            Self::create(files, dir, lock, &key)?
        } else {
            return Err(storage_lost(dir, "there is a journal, and no key beside it"));
        };
        opened.store.remove_if_there(&staged(dir))?;
        opened.store.lay_by_reserve()?;
        Ok(opened)
    }

    /// The first start: the key counts only once the journal is there, so a crash in between starts over.
    fn create(files: Arc<dyn Files>, dir: &Path, lock: Box<dyn Send>, key: &Path) -> Result<Opened, Failure> {
        for (_, path) in segments(&*files, dir)? {
            files.remove(&path).map_err(|error| Failure::io("remove", &path, &error))?;
        }
        let identity = Identity::mint()?;
        let staged = dir.join("key.json.new");
        identity.write(&*files, &staged)?;
        // Before the journal: one without a key beside it would be a storage that was lost.
        sync_dir(&*files, dir)?;
        let (writer, bytes) = journal::create(&identity.storage(), 1, &[]);
        let path = segment(dir, 1);
        let file = write_file(&*files, &path, &bytes).map_err(|error| Failure::io("write", &path, &error))?;
        // And before the key counts, for the same reason.
        sync_dir(&*files, dir)?;
        files.rename(&staged, key).map_err(|error| Failure::io("rename", &staged, &error))?;
        sync_dir(&*files, dir)?;
        let length = bytes.len() as u64;
        let store = Self {
            dir: dir.to_owned(),
            identity: identity.storage(),
            files,
            file,
            path,
            number: 1,
            writer,
            length,
            compact_at: compact_at(length),
            sealed: true,
            compaction: None,
            full: false,
            counters: Arc::default(),
            _lock: lock,
        };
        Ok(Opened { store, identity, records: Vec::new() })
    }

    fn reopen(files: Arc<dyn Files>, dir: &Path, lock: Box<dyn Send>, identity: Identity) -> Result<Opened, Failure> {
        let (recovered, path) = recover_newest(&*files, dir, &identity.storage())?;
        if recovered.torn > 0 {
            tracing::warn!(bytes = recovered.torn, "cut off a write that a crash had torn");
        }
        let length = recovered.length as u64;
        // What was read may still be in memory only: it must be on the disk before anything is said because of it.
        let settled = || -> io::Result<Box<dyn OpenFile>> {
            let mut file = files.open(&path)?;
            file.cut(length)?;
            file.sync()?;
            Ok(file)
        };
        let file = settled().map_err(|error| Failure::io("sync", &path, &error))?;
        sync_dir(&*files, dir)?;
        let store = Self {
            dir: dir.to_owned(),
            identity: identity.storage(),
            files,
            file,
            path,
            number: recovered.number,
            writer: recovered.writer,
            length,
            // How much of it is its checkpoint is unknown after a restart: half is a guess that compacts in time.
            compact_at: compact_at(length / 2),
            sealed: true,
            compaction: None,
            full: false,
            counters: Arc::default(),
            _lock: lock,
        };
        Ok(Opened { store, identity, records: recovered.records })
    }

    pub(crate) fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Starts the thread. It ends, everything synced, when the returned sender is dropped.
    pub(crate) fn spawn(mut self, words: UnboundedSender<Word>) -> (Sender<Batch>, thread::JoinHandle<()>) {
        let (sender, batches) = channel();
        let body = move || {
            if let Err(failure) = self.serve(&batches, &words) {
                eprintln!("qunlong: {failure}; stopping, because the disk can no longer be trusted");
                std::process::exit(i32::from(EXIT_DISK));
            }
        };
        let thread = thread::Builder::new().name("journal".to_owned()).spawn(body).expect("a thread can be started");
        (sender, thread)
    }

    fn serve(&mut self, batches: &Receiver<Batch>, words: &UnboundedSender<Word>) -> Result<(), Failure> {
        // The node may have stopped; then nobody waits for a word.
        let mut said = false;
        let mut say_full = |full: bool| {
            if std::mem::replace(&mut said, full) != full {
                let _ = words.send(Word::Full(full));
            }
        };
        say_full(self.full);
        let mut backlog = VecDeque::new();
        loop {
            if backlog.is_empty() {
                match batches.recv_timeout(IDLE) {
                    Ok(batch) => backlog.push_back(batch),
                    Err(RecvTimeoutError::Timeout) => {
                        self.seal()?;
                        self.compact_in_turn()?;
                        if self.full {
                            self.lay_by_reserve()?;
                            say_full(self.full);
                        }
                        continue;
                    }
                    Err(RecvTimeoutError::Disconnected) => {
                        self.give_up_compaction()?;
                        return self.seal();
                    }
                }
            }
            backlog.extend(batches.try_iter());
            let Some(&(id, _)) = backlog.back() else { continue };
            let records: Vec<Record> = backlog.drain(..).flat_map(|(_, records)| records).collect();
            for bytes in self.writer.batches(&records) {
                while let Err(unwritten) = self.append(&bytes) {
                    match unwritten {
                        Unwritten::Failed(failure) => return Err(failure),
                        Unwritten::NoRoom if self.make_room()? => (),
                        Unwritten::NoRoom if self.spend_reserve()? => say_full(true),
                        // What was to be written was never acknowledged, and now nobody waits for it.
                        Unwritten::NoRoom if !wait_for_room(batches, &mut backlog) => return Ok(()),
                        Unwritten::NoRoom => (),
                    }
                }
            }
            self.counters.records.fetch_add(records.len() as u64, Ordering::Relaxed);
            let _ = words.send(Word::Durable(id));
            if let Some(compaction) = &mut self.compaction {
                compaction.extend(records);
            }
            if self.full {
                self.lay_by_reserve()?;
                say_full(self.full);
            }
            self.compact_in_turn()?;
            say_full(self.full);
        }
    }

    /// Appends to the segment and syncs.
    fn append(&mut self, bytes: &[u8]) -> Result<(), Unwritten> {
        let failed = |path: &Path, error: &io::Error| Unwritten::Failed(Failure::io("write", path, error));
        if let Err(error) = self.file.append(bytes) {
            if error.kind() != io::ErrorKind::StorageFull {
                return Err(failed(&self.path, &error));
            }
            self.file.cut(self.length).map_err(|error| failed(&self.path, &error))?;
            return Err(Unwritten::NoRoom);
        }
        // No second try: what this sync did not bring to the disk, a later one may pass over in silence.
        self.file.sync().map_err(|error| failed(&self.path, &error))?;
        self.length += bytes.len() as u64;
        self.sealed = false;
        self.counters.syncs.fetch_add(1, Ordering::Relaxed);
        self.counters.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn seal(&mut self) -> Result<(), Failure> {
        if self.sealed {
            return Ok(());
        }
        let mut sealing = self.writer.clone();
        let bytes = sealing.seal();
        match self.append(&bytes) {
            Ok(()) => (self.writer, self.sealed) = (sealing, true),
            Err(Unwritten::NoRoom) => (),
            Err(Unwritten::Failed(failure)) => return Err(failure),
        }
        Ok(())
    }

    fn reserve(&self) -> PathBuf {
        self.dir.join("reserve")
    }

    /// Gives up the reserve, so that what was begun can be finished. Returns whether there was one.
    fn spend_reserve(&mut self) -> Result<bool, Failure> {
        self.full = true;
        let path = self.reserve();
        if !self.files.exists(&path) {
            return Ok(false);
        }
        tracing::warn!("DISK_FULL: the disk is full; nothing new is stored until some space is freed");
        self.files.remove(&path).map_err(|error| Failure::io("remove", &path, &error))?;
        Ok(true)
    }

    /// Lays the reserve by, if it is not there and there is room: the disk is full for as long as there is not.
    fn lay_by_reserve(&mut self) -> Result<(), Failure> {
        let path = self.reserve();
        let was_full = self.full;
        if !was_full && self.files.exists(&path) {
            return Ok(());
        }
        match write_file(&*self.files, &path, &vec![0; RESERVE_BYTES]) {
            Ok(_) => self.full = false,
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                self.full = true;
                self.remove_if_there(&path)?;
            }
            Err(error) => return Err(Failure::io("write", &path, &error)),
        }
        if was_full && !self.full {
            tracing::info!("there is room on the disk again");
        }
        Ok(())
    }

    fn remove_if_there(&self, path: &Path) -> Result<(), Failure> {
        if !self.files.exists(path) {
            return Ok(());
        }
        self.files.remove(path).map_err(|error| Failure::io("remove", path, &error))
    }
}

/// Lets some time pass, and takes in what comes meanwhile. Returns whether the node still runs.
fn wait_for_room(batches: &Receiver<Batch>, backlog: &mut VecDeque<Batch>) -> bool {
    thread::sleep(FULL_RETRY);
    loop {
        match batches.try_recv() {
            Ok(batch) => backlog.push_back(batch),
            Err(TryRecvError::Empty) => return true,
            Err(TryRecvError::Disconnected) => return false,
        }
    }
}

fn compact_at(checkpoint: u64) -> u64 {
    COMPACT_BYTES.max(GROWTH * checkpoint)
}

/// The newest segment that was finished; unfinished ones never counted and are removed.
fn recover_newest(
    files: &dyn Files,
    dir: &Path,
    identity: &StorageIdentity,
) -> Result<(journal::Recovered, PathBuf), Failure> {
    let remove = |path: &Path| files.remove(path).map_err(|error| Failure::io("remove", path, &error));
    let mut found = segments(files, dir)?;
    found.sort_unstable();
    while let Some((_, path)) = found.pop() {
        let bytes = files.read(&path).map_err(|error| Failure::io("read", &path, &error))?;
        match journal::recover(&bytes, identity) {
            Ok(recovered) => {
                found.iter().try_for_each(|(_, older)| remove(older))?;
                return Ok((recovered, path));
            }
            // A crash in the middle of a compaction: the older one is still whole.
            Err(JournalError::Unfinished | JournalError::BadHead) if !found.is_empty() => remove(&path)?,
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
fn segments(files: &dyn Files, dir: &Path) -> Result<Vec<(u64, PathBuf)>, Failure> {
    let paths = files.list(dir).map_err(|error| Failure::io("read", dir, &error))?;
    let numbered = paths.into_iter().filter_map(|path| {
        let number = path.file_name()?.to_str()?.strip_prefix("journal-")?.parse().ok()?;
        Some((number, path))
    });
    Ok(numbered.collect())
}

fn segment(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("journal-{number:08}"))
}

/// Writes a whole file and syncs it; its name is not durable yet.
fn write_file(files: &dyn Files, path: &Path, bytes: &[u8]) -> io::Result<Box<dyn OpenFile>> {
    let mut file = files.create(path)?;
    file.append(bytes)?;
    file.sync()?;
    Ok(file)
}

fn sync_dir(files: &dyn Files, dir: &Path) -> Result<(), Failure> {
    files.sync_dir(dir).map_err(|error| Failure::io("sync", dir, &error))
}

fn lock(files: &dyn Files, dir: &Path) -> Result<Box<dyn Send>, Failure> {
    let locked = files.lock(dir).map_err(|error| Failure::io("open", dir, &error))?;
    locked.ok_or_else(|| Failure::new("DATA_IN_USE", format!("another process runs on {}", dir.display())))
}

fn move_aside(dir: &Path) -> Result<(), Failure> {
    let old: Vec<PathBuf> = segments(&SystemFiles, dir)?
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
    sync_dir(&SystemFiles, dir)
}

#[cfg(test)]
mod faults;

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
        while acks.blocking_recv() != Some(Word::Durable(PersistId(generations.end - 1))) {}
        drop(batches);
        thread.join().expect("ends well");
    }

    fn refusal(dir: &Path) -> &'static str {
        Store::open(dir, false).err().expect("refused").code
    }

    fn segment(dir: &Path) -> PathBuf {
        segments(&SystemFiles, dir).expect("readable").pop().expect("one").1
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
        identity.write(&SystemFiles, &key).expect("writable");
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
        assert!(opened.store.append(&bytes).is_ok());
        drop(opened);
        let opened = Store::open(dir.path(), false).expect("opens");
        assert_eq!(opened.records, [Record::Boot(Generation(49)), Record::Boot(Generation(99))]);
        assert_eq!(segments(&SystemFiles, dir.path()).expect("readable").len(), 1);
    }
}

//! The journal on a file system that fails at any call, loses power at any call, and fills up.
//!
//! A life of the journal is written down as a script: a first start, commits, a seal, a compaction, more commits, an
//! end, a second start, more commits. It is run once for every call it makes of the file system, and that call fails
//! or is where the power goes. Afterwards the folder is opened again, without faults, and
//!
//! - whatever was acknowledged is there, in order;
//! - whatever is there was once handed in;
//! - after a call that failed nothing was acknowledged any more, and the failure says *stop*, with exit code 74.
//!
//! What the power leaves of a write that was not synced is drawn: nothing, all, or a part of its bytes; of names that
//! were not synced, either the old or the new.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use qunlong_core::kv;
use qunlong_core::rng::Rng;
use qunlong_core::version::Versions;
use tokio::sync::mpsc::unbounded_channel;

use super::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// The call with this number fails, having done a part of its work.
    Fails(u64),
    /// The power goes during the call with this number.
    Power(u64),
}

/// One file: what a reader sees, and what would be left after a power cut.
#[derive(Clone, Debug, Default)]
struct Inode {
    cached: Vec<u8>,
    durable: Vec<u8>,
}

#[derive(Debug, Default)]
struct Disk {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    /// Both names of a rename that is not durable: it is there as a whole or not at all.
    renamed: Vec<(PathBuf, PathBuf)>,
    calls: u64,
    dark: bool,
    /// Bytes that all files may have together.
    capacity: Option<usize>,
}

/// A file system in memory.
#[derive(Clone, Debug)]
struct Faulty {
    disk: Arc<Mutex<Disk>>,
    fault: Fault,
}

#[derive(Debug)]
struct FaultyFile {
    files: Faulty,
    inode: usize,
}

impl Faulty {
    fn new(fault: Fault) -> Self {
        Self { disk: Arc::default(), fault }
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().expect("no test panics while it holds this")
    }

    /// Counts a call. Returns the disk and whether the call is to fail after a part of its work.
    fn call(&self) -> io::Result<(MutexGuard<'_, Disk>, bool)> {
        let mut disk = self.disk();
        disk.calls += 1;
        if disk.dark {
            return Err(io::Error::other("the power is gone"));
        }
        let fails = match self.fault {
            Fault::None => false,
            Fault::Fails(call) => disk.calls == call,
            Fault::Power(call) => {
                disk.dark = disk.calls == call;
                disk.dark
            }
        };
        Ok((disk, fails))
    }

    /// What is left after the power came back.
    fn after_power_cut(&self, rng: &mut Rng) -> Self {
        let mut disk = self.disk();
        let mut left = Disk { names: disk.durable_names.clone(), ..Disk::default() };
        let renamed = disk.renamed.iter().map(|(from, to)| vec![from.clone(), to.clone()]);
        let known: BTreeSet<&PathBuf> = disk.names.keys().chain(disk.durable_names.keys()).collect();
        let is_alone = |name: &&PathBuf| !disk.renamed.iter().any(|(from, to)| from == *name || to == *name);
        let alone = known.into_iter().filter(is_alone).map(|name| vec![name.clone()]);
        for name in renamed.chain(alone).filter(|_| rng.chance(500)).flatten() {
            match disk.names.get(&name) {
                Some(&inode) => left.names.insert(name, inode),
                None => left.names.remove(&name),
            };
        }
        for inode in std::mem::take(&mut disk.inodes) {
            let Inode { cached, durable } = inode;
            let common = cached.iter().zip(&durable).take_while(|(one, other)| one == other).count();
            let kept = match rng.below(3) {
                0 => durable,
                1 => cached,
                _ if common == durable.len() => {
                    let more = rng.below((cached.len() - common) as u64 + 1) as usize;
                    cached[..common + more].to_vec()
                }
                _ => durable,
            };
            left.inodes.push(Inode { cached: kept.clone(), durable: kept });
        }
        left.durable_names = left.names.clone();
        Self { disk: Arc::new(Mutex::new(left)), fault: Fault::None }
    }

    fn without_faults(&self) -> Self {
        Self { disk: Arc::clone(&self.disk), fault: Fault::None }
    }
}

fn failed<T>() -> io::Result<T> {
    Err(io::Error::other("injected"))
}

impl Disk {
    fn inode(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn used(&self) -> usize {
        self.names.values().map(|&inode| self.inodes[inode].cached.len()).sum()
    }
}

impl Files for Faulty {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let (disk, fails) = self.call()?;
        if fails {
            return failed();
        }
        Ok(disk.names.keys().filter(|path| path.parent() == Some(dir)).cloned().collect())
    }

    fn exists(&self, path: &Path) -> bool {
        self.disk().names.contains_key(path)
    }

    fn mode(&self, _: &Path) -> io::Result<u32> {
        Ok(0o600)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let (disk, fails) = self.call()?;
        if fails {
            return failed();
        }
        Ok(disk.inodes[disk.inode(path)?].cached.clone())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn OpenFile>> {
        let (mut disk, fails) = self.call()?;
        let inode = disk.inodes.len();
        disk.inodes.push(Inode::default());
        disk.names.insert(path.to_owned(), inode);
        if fails {
            return failed();
        }
        Ok(Box::new(FaultyFile { files: self.clone(), inode }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn OpenFile>> {
        let (disk, fails) = self.call()?;
        if fails {
            return failed();
        }
        Ok(Box::new(FaultyFile { files: self.clone(), inode: disk.inode(path)? }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (mut disk, fails) = self.call()?;
        let inode = disk.inode(from)?;
        disk.names.remove(from);
        disk.names.insert(to.to_owned(), inode);
        disk.renamed.push((from.to_owned(), to.to_owned()));
        if fails { failed() } else { Ok(()) }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let (mut disk, fails) = self.call()?;
        disk.inode(path)?;
        disk.names.remove(path);
        if fails { failed() } else { Ok(()) }
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        let (mut disk, fails) = self.call()?;
        if fails {
            return failed();
        }
        disk.durable_names = disk.names.clone();
        disk.renamed.clear();
        Ok(())
    }

    fn lock(&self, _: &Path) -> io::Result<Option<Box<dyn Send>>> {
        Ok(Some(Box::new(())))
    }
}

impl OpenFile for FaultyFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (mut disk, fails) = self.files.call()?;
        let room = disk.capacity.map_or(usize::MAX, |capacity| capacity.saturating_sub(disk.used()));
        let written = if fails { bytes.len() / 2 } else { bytes.len().min(room) };
        disk.inodes[self.inode].cached.extend_from_slice(&bytes[..written]);
        match written == bytes.len() {
            true => Ok(()),
            false if fails => failed(),
            false => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        let (mut disk, fails) = self.files.call()?;
        disk.inodes[self.inode].cached.truncate(length as usize);
        if fails { failed() } else { Ok(()) }
    }

    fn sync(&mut self) -> io::Result<()> {
        let (mut disk, fails) = self.files.call()?;
        if fails {
            return failed();
        }
        let inode = &mut disk.inodes[self.inode];
        inode.durable = inode.cached.clone();
        Ok(())
    }
}

fn record(n: u64) -> Record {
    let key = format!("key {n:02}").as_str().into();
    Record::Kv(kv::Record::Key { counter: n, key, versions: Versions::default() })
}

const DIR: &str = "/node";

/// The script. Tells how many records were acknowledged, and how it ended.
fn live(files: &Faulty) -> (u64, Result<(), Failure>) {
    let mut acked = 0;
    let mut script = || -> Result<(), Failure> {
        for start in 0..2 {
            let mut store = Store::open_on(Arc::new(files.clone()), Path::new(DIR))?.store;
            for n in 1..=6 {
                for bytes in store.writer.batches(&[record(6 * start + n)]) {
                    match store.append(&bytes) {
                        Ok(()) => acked = 6 * start + n,
                        Err(Unwritten::Failed(failure)) => return Err(failure),
                        Err(Unwritten::NoRoom) => panic!("there is room"),
                    }
                }
                if let Some(compaction) = &mut store.compaction {
                    compaction.extend(vec![record(6 * start + n)]);
                }
                match n {
                    2 => store.seal()?,
                    // The fourth is in what is written beside, the fifth is appended meanwhile.
                    4 => store.begin_compaction_and_wait(),
                    5 => store.end_it()?,
                    _ => (),
                }
            }
        }
        Ok(())
    };
    let result = script();
    (acked, result)
}

/// Opens the folder without faults. Whatever was acknowledged is there, and at most one record more.
fn check(files: &Faulty, acked: u64, what: &str) {
    let opened = match Store::open_on(Arc::new(files.clone()), Path::new(DIR)) {
        Ok(opened) => opened,
        Err(failure) => panic!("{what}: does not open: {failure}"),
    };
    let found = opened.records.len() as u64;
    assert!((acked..=acked + 1).contains(&found), "{what}: {acked} were acknowledged and {found} are there");
    assert_eq!(opened.records, (1..=found).map(record).collect::<Vec<_>>(), "{what}");
}

fn calls() -> u64 {
    let files = Faulty::new(Fault::None);
    let (acked, result) = live(&files);
    assert!(result.is_ok() && acked == 12, "the script runs through without faults");
    let calls = files.disk().calls;
    assert!(calls > 40, "the script does something: {calls} calls");
    calls
}

#[test]
fn after_any_call_that_fails_nothing_is_acknowledged_and_nothing_is_lost() {
    let calls = calls();
    for call in 1..=calls {
        let files = Faulty::new(Fault::Fails(call));
        let (acked, result) = live(&files);
        let failure = result.err().unwrap_or_else(|| panic!("call {call} failed, and nobody said so"));
        assert_eq!((failure.code, failure.exit), ("DISK_FAILED", EXIT_DISK), "call {call}");
        let what = format!("call {call} of {calls} failed");
        // The process has ended; the machine goes on, or loses its power as well.
        check(&files.without_faults(), acked, &what);
        for seed in 0..20 {
            let files = Faulty::new(Fault::Fails(call));
            let (acked, _) = live(&files);
            check(&files.after_power_cut(&mut Rng::new(seed)), acked, &format!("{what}, seed {seed}"));
        }
    }
}

#[test]
fn a_power_cut_at_any_call_loses_nothing() {
    let calls = calls();
    for call in 1..=calls {
        for seed in 0..50 {
            let files = Faulty::new(Fault::Power(call));
            let (acked, result) = live(&files);
            assert!(result.is_err(), "call {call}");
            let left = files.after_power_cut(&mut Rng::new(seed));
            check(&left, acked, &format!("power went at call {call} of {calls}, seed {seed}"));
        }
    }
}

/// The judge itself: without its syncs the same script loses what it acknowledged.
#[test]
fn a_file_system_that_does_not_sync_is_found_out() {
    let lost = (0..50).any(|seed| {
        let files = Faulty::new(Fault::None);
        let (acked, _) = live(&files);
        {
            let mut disk = files.disk();
            disk.inodes.iter_mut().for_each(|inode| inode.durable.truncate(inode.durable.len().saturating_sub(100)));
        }
        let left = files.after_power_cut(&mut Rng::new(seed));
        let opened = Store::open_on(Arc::new(left), Path::new(DIR));
        opened.map_or(true, |opened| (opened.records.len() as u64) < acked)
    });
    assert!(lost);
}

#[test]
fn a_flipped_bit_in_a_sealed_batch_is_always_refused() {
    let files = Faulty::new(Fault::None);
    assert!(live(&files).1.is_ok());
    let mut opened =
        Store::open_on(Arc::new(files.clone()), Path::new(DIR)).unwrap_or_else(|failure| panic!("{failure}"));
    opened.store.seal().unwrap_or_else(|failure| panic!("{failure}"));
    let (path, identity) = (opened.store.path.clone(), opened.store.identity);
    drop(opened);
    let bytes = files.read(&path).expect("readable");
    let sealed = journal::sealed(&bytes, &identity);
    assert!(sealed > 300, "{sealed} of {} bytes are sealed", bytes.len());
    let mut rng = Rng::new(1);
    for n in 0..20_000 {
        let (at, bit) = (rng.below(sealed as u64) as usize, rng.below(8));
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << bit;
        assert!(journal::recover(&damaged, &identity).is_err(), "flip {n}: bit {bit} of byte {at} went unnoticed");
    }
    // And a whole start refuses it, by its code.
    files.disk().inodes.iter_mut().filter(|inode| inode.cached == bytes).for_each(|inode| inode.cached[100] ^= 1);
    let refusal = Store::open_on(Arc::new(files), Path::new(DIR)).err().map(|failure| failure.code);
    assert_eq!(refusal, Some("CORRUPT_RECORD"));
}

#[test]
fn a_full_disk_is_told_and_nothing_that_was_begun_is_lost_once_there_is_room() {
    let files = Faulty::new(Fault::None);
    let opened = Store::open_on(Arc::new(files.clone()), Path::new(DIR)).unwrap_or_else(|failure| panic!("{failure}"));
    let (words, mut heard) = unbounded_channel();
    let used = files.disk().used();
    files.disk().capacity = Some(used + 100);
    let (batches, thread) = opened.store.spawn(words);
    for n in 1..=20 {
        batches.send((PersistId(n), vec![record(n)])).expect("the thread runs");
    }
    let mut told = Vec::new();
    while told.last() != Some(&Word::Durable(PersistId(20))) {
        told.push(heard.blocking_recv().expect("the thread runs"));
    }
    // The reserve was given up for what had been begun.
    assert!(told.contains(&Word::Full(true)) && !told.contains(&Word::Full(false)), "{told:?}");
    assert!(!files.exists(&Path::new(DIR).join("reserve")));
    // Now even that is used up: what comes waits.
    let used = files.disk().used();
    files.disk().capacity = Some(used + 10);
    batches.send((PersistId(21), vec![record(21)])).expect("the thread runs");
    thread::sleep(2 * FULL_RETRY);
    assert!(heard.try_recv().is_err(), "nothing is acknowledged while there is no room");
    files.disk().capacity = None;
    assert_eq!(heard.blocking_recv(), Some(Word::Durable(PersistId(21))));
    assert_eq!(heard.blocking_recv(), Some(Word::Full(false)));
    assert!(files.exists(&Path::new(DIR).join("reserve")));
    drop(batches);
    thread.join().expect("ends well");
    check(&files, 21, "a full disk");
}

/// A journal that has just been begun and holds so many records.
fn holding(files: &Faulty, records: u64) -> Store {
    let opened = Store::open_on(Arc::new(files.clone()), Path::new(DIR)).unwrap_or_else(|failure| panic!("{failure}"));
    let mut store = opened.store;
    for n in 1..=records {
        store.writer.batches(&[record(n)]).iter().for_each(|bytes| assert!(store.append(bytes).is_ok()));
    }
    store
}

#[test]
fn a_compaction_without_room_is_put_off() {
    let files = Faulty::new(Fault::None);
    let mut store = holding(&files, 5);
    let used = files.disk().used();
    files.disk().capacity = Some(used + 50);
    store.compact().unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!((store.number, segments(&files, Path::new(DIR)).map_or(0, |found| found.len())), (1, 1));
    files.disk().capacity = None;
    store.compact().unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(store.number, 2);
    drop(store);
    check(&files, 5, "a compaction");
}

/// What a compaction has written is room, too: it is given back before anybody waits for the disk.
#[test]
fn a_compaction_gives_its_room_back_when_the_disk_is_full() {
    let files = Faulty::new(Fault::None);
    let mut store = holding(&files, 20);
    store.begin_compaction_and_wait();
    let written = files.disk().used();
    files.disk().capacity = Some(written);
    // The reserve is spent already, so nothing else is left.
    assert!(store.spend_reserve().is_ok_and(|spent| spent));
    let used = files.disk().used();
    files.disk().capacity = Some(used);
    let (words, mut heard) = unbounded_channel();
    let (batches, thread) = store.spawn(words);
    batches.send((PersistId(21), vec![record(21)])).expect("the thread runs");
    let mut told = Vec::new();
    while told.last() != Some(&Word::Durable(PersistId(21))) {
        told.push(heard.blocking_recv().expect("the thread runs"));
    }
    drop(batches);
    thread.join().expect("ends well");
    files.disk().capacity = None;
    check(&files, 21, "a compaction on a full disk");
}

/// The last of a compaction finds no room: the reserve is spent on it, for that frees the old segment.
#[test]
fn a_compaction_that_is_almost_done_spends_the_reserve() {
    let files = Faulty::new(Fault::None);
    let mut store = holding(&files, 5);
    store.begin_compaction_and_wait();
    store.writer.batches(&[record(6)]).iter().for_each(|bytes| assert!(store.append(bytes).is_ok()));
    store.compaction.as_mut().expect("it is under way").extend(vec![record(6)]);
    let used = files.disk().used();
    files.disk().capacity = Some(used);
    store.end_it().unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!((store.number, store.full), (2, true), "it is done, and the reserve is to be laid by again");
    files.disk().capacity = None;
    drop(store);
    check(&files, 6, "a compaction that spent the reserve");
}

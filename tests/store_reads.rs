//! Reads of the disk that meet: what is under way is not read twice, and what nobody waits for delays nobody by more than
//! one reading.

#[path = "blocks/disk.rs"]
mod disk;
#[path = "blocks/random.rs"]
mod random;

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

use cidfs::block::{Block, Cid};
use cidfs::config::StoreConfig;
use cidfs::store::Store;
use cidfs::store::disk::{Access, Disk, DiskFile, Lock, Space};
use disk::MemoryDisk;
use random::block;

/// A disk whose reads of segments wait until they are let go, one by one, by their offsets.
#[derive(Clone, Debug)]
struct SlowDisk {
    disk: MemoryDisk<()>,
    reads: Arc<Reads>,
}

#[derive(Debug, Default)]
struct Reads {
    state: Mutex<Underway>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Underway {
    is_slow: bool,
    waiting: Vec<u64>,
    begun: usize,
}

#[derive(Debug)]
struct SlowFile(Arc<dyn DiskFile>, Arc<Reads>);

impl SlowDisk {
    fn slow(&self) {
        let mut state = self.reads.state.lock().unwrap();
        (state.is_slow, state.begun) = (true, 0);
    }

    /// How many reads have begun since it is slow.
    fn begun(&self) -> usize {
        self.reads.state.lock().unwrap().begun
    }

    /// Waits until so many reads wait, and returns their offsets in the order in which they began.
    fn waiting(&self, count: usize) -> Vec<u64> {
        let state = self.reads.state.lock().unwrap();
        self.reads.changed.wait_while(state, |state| state.waiting.len() < count).unwrap().waiting.clone()
    }

    /// Lets the read at an offset go on.
    fn release(&self, offset: u64) {
        self.reads.state.lock().unwrap().waiting.retain(|waiting| *waiting != offset);
        self.reads.changed.notify_all();
    }

    fn release_all(&self) {
        let mut state = self.reads.state.lock().unwrap();
        state.is_slow = false;
        state.waiting.clear();
        self.reads.changed.notify_all();
    }
}

impl Disk for SlowDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.open(path, access)?;
        let is_segment = path.extension().is_some_and(|extension| extension == "car");
        Ok(if is_segment { Arc::new(SlowFile(file, self.reads.clone())) } else { file })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        self.disk.space(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Lock> {
        self.disk.lock(path)
    }
}

impl DiskFile for SlowFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.1.state.lock().unwrap();
        state.begun += 1;
        if state.is_slow {
            state.waiting.push(offset);
            self.1.changed.notify_all();
            drop(self.1.changed.wait_while(state, |state| state.waiting.contains(&offset)).unwrap());
        } else {
            drop(state);
        }
        self.0.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        self.0.write_at(offset, parts)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
}

/// A store with nothing in RAM and these blocks on its disk.
fn store_of(blocks: &[Block]) -> (SlowDisk, Store) {
    let disk = SlowDisk { disk: MemoryDisk::new(), reads: Arc::default() };
    let config = StoreConfig { ram_bytes: 0, free_ratio: 0.0, ..StoreConfig::default() };
    let open = || Store::open_on(Arc::new(disk.clone()), Path::new("/store"), &config).unwrap();
    let store = open();
    let mut writer = store.writer();
    for block in blocks {
        writer.put(block).unwrap();
    }
    drop((writer, store));
    let store = open();
    (disk, store)
}

fn cids(blocks: &[Block]) -> Vec<Cid> {
    blocks.iter().map(|block| block.cid().clone()).collect()
}

#[test]
fn a_block_that_is_being_read_is_not_read_twice() {
    let blocks: Vec<Block> = (0..8).map(|seed| block(seed, 50_000)).collect();
    let (disk, store) = store_of(&blocks);
    let cids = cids(&blocks);
    disk.slow();
    std::thread::scope(|scope| {
        let together = scope.spawn(|| store.get_many(&cids));
        disk.waiting(1);
        let readers: Vec<_> = cids.iter().map(|cid| scope.spawn(|| store.get(cid).unwrap())).collect();
        let parts: Vec<_> = cids.iter().map(|cid| scope.spawn(|| store.get_range(cid, 10..20).unwrap())).collect();
        disk.release_all();
        // Held until the readers have their blocks, as by one who pushes them.
        let together = together.join().unwrap();
        for ((reader, part), block) in readers.into_iter().zip(parts).zip(&blocks) {
            assert_eq!(reader.join().unwrap().as_ref(), Some(block));
            assert_eq!(part.join().unwrap().unwrap().data, block.data().slice(10..20));
        }
        assert!(together.blocks.iter().map(Option::as_ref).eq(blocks.iter().map(Some)));
    });
    assert_eq!(disk.begun(), 1);
    assert_eq!(store.stat().unwrap().counted.disk_read_bytes, 400_000);
}

#[test]
fn blocks_that_are_asked_for_together_and_twice_come_from_one_reading() {
    let blocks: Vec<Block> = (0..4).map(|seed| block(seed, 50_000)).collect();
    let (disk, store) = store_of(&blocks);
    let (cids, nowhere) = (cids(&blocks), block(99, 10));
    let asked = [&cids[1], nowhere.cid(), &cids[2], &cids[1], &cids[2], &cids[3]].map(Cid::clone);
    disk.slow();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| store.get(&cids[1]).unwrap());
        let offset = disk.waiting(1)[0];
        let many = scope.spawn(|| store.get_many(&asked));
        let others = disk.waiting(2);
        // The one that somebody else reads is waited for last, and is not in ours.
        disk.release(*others.iter().find(|other| **other != offset).unwrap());
        disk.release(offset);
        assert_eq!(first.join().unwrap().as_ref(), Some(&blocks[1]));
        let wanted = [Some(1), None, Some(2), Some(1), Some(2), Some(3)].map(|at| at.map(|at: usize| &blocks[at]));
        assert!(many.join().unwrap().blocks.iter().map(Option::as_ref).eq(wanted));
    });
    assert_eq!(disk.begun(), 2);
}

#[test]
fn a_reading_that_fails_is_no_answer_for_those_who_wait_for_it() {
    let blocks = [block(1, 50_000)];
    let (disk, store) = store_of(&blocks);
    let cid = blocks[0].cid();
    disk.slow();
    std::thread::scope(|scope| {
        let fails = scope.spawn(|| store.get(cid));
        disk.waiting(1);
        let waits = scope.spawn(|| store.get(cid));
        disk.disk.fail(|what, path| {
            (what == "read" && path.extension().is_some_and(|extension| extension == "car"))
                .then_some(io::ErrorKind::TimedOut)
        });
        disk.release_all();
        assert!(fails.join().unwrap().is_err());
        assert!(waits.join().unwrap().is_err(), "it has tried for itself");
        disk.disk.heal();
    });
    assert_eq!(store.get(cid).unwrap().as_ref(), Some(&blocks[0]));
}

#[test]
fn a_reader_is_delayed_by_one_reading_ahead_at_most() {
    // Far apart, so that each reading ahead is one request.
    let blocks: Vec<Block> = (0..24).map(|seed| block(seed, 200_000)).collect();
    let (disk, store) = store_of(&blocks);
    let cids = cids(&blocks);
    disk.slow();
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(store.get(&cids[0]).unwrap().as_ref(), Some(&blocks[0])));
        let demanded = disk.waiting(1)[0];
        for (index, cid) in cids.iter().enumerate().skip(2).step_by(2) {
            let store = &store;
            if index % 4 == 0 {
                scope.spawn(move || store.get_ahead(cid).unwrap());
            } else {
                scope.spawn(move || drop(store.get_many(std::slice::from_ref(cid))));
            }
        }
        for _ in (2..cids.len()).step_by(2) {
            let waiting = disk.waiting(2);
            assert_eq!(waiting.len(), 2, "one reading ahead beside the reader's");
            disk.release(*waiting.iter().find(|offset| **offset != demanded).unwrap());
        }
        disk.release(demanded);
    });
    // And where nobody waits, the disk has more to do at a time.
    std::thread::scope(|scope| {
        for cid in cids.iter().skip(1).step_by(2) {
            let store = &store;
            scope.spawn(move || store.get_ahead(cid).unwrap());
        }
        assert!(disk.waiting(2).len() >= 2);
        disk.release_all();
    });
    assert_eq!(disk.begun(), cids.len());
}

#[test]
fn what_waits_for_its_turn_begins_when_a_reader_comes_to_want_it() {
    let blocks: Vec<Block> = (0..6).map(|seed| block(seed, 200_000)).collect();
    let (disk, store) = store_of(&blocks);
    let cids = cids(&blocks);
    disk.slow();
    std::thread::scope(|scope| {
        scope.spawn(|| store.get(&cids[0]).unwrap());
        disk.waiting(1);
        scope.spawn(|| store.get_ahead(&cids[2]).unwrap());
        disk.waiting(2);
        // It has its turn when the other has ended, or when it is wanted: nothing ends here.
        scope.spawn(|| store.get_many(std::slice::from_ref(&cids[4])).blocks);
        scope.spawn(|| assert_eq!(store.get(&cids[4]).unwrap().as_ref(), Some(&blocks[4])));
        disk.waiting(3);
        disk.release_all();
    });
    assert_eq!(disk.begun(), 3);
}

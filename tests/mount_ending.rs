//! How a mount ends with its process: what was asked is answered, however long the disk takes, and nothing is begun.

#[path = "mounts/fixture.rs"]
mod fixture;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cidfs::config::StoreConfig;
use cidfs::fetch::Fetch;
use cidfs::fuse::MountOptions;
use cidfs::store::Store;
use cidfs::store::disk::{Access, Disk, DiskFile, Lock, RealDisk, Space};
use cidfs::tree::Tree;
use fixture::{Fixture, noise};
use parking_lot::{Condvar, Mutex};

/// Lets reads of blocks through, or holds them up.
#[derive(Debug, Default)]
struct Gate {
    /// Whether it is closed, and how many reads wait.
    state: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock();
        state.1 += 1;
        self.changed.notify_all();
        while state.0 {
            self.changed.wait(&mut state);
        }
        state.1 -= 1;
    }

    fn set(&self, closed: bool) {
        self.state.lock().0 = closed;
        self.changed.notify_all();
    }

    fn wait_for_a_read(&self) {
        let mut state = self.state.lock();
        while state.1 == 0 {
            assert!(!self.changed.wait_for(&mut state, Duration::from_secs(30)).timed_out(), "nobody reads");
        }
    }
}

/// The disk, with a gate before the blocks.
#[derive(Debug)]
struct SlowDisk(Arc<Gate>);

#[derive(Debug)]
struct SlowFile(Arc<dyn DiskFile>, Arc<Gate>);

impl Disk for SlowDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.create_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(dir)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let file = RealDisk.open(path, access)?;
        Ok(if path.extension().is_some_and(|ending| ending == "car") {
            Arc::new(SlowFile(file, self.0.clone()))
        } else {
            file
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        RealDisk.space(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Lock> {
        RealDisk.lock(path)
    }
}

impl DiskFile for SlowFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.1.pass();
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

    fn start_writeback(&self, offset: u64, len: u64) {
        self.0.start_writeback(offset, len);
    }

    fn forget(&self, offset: u64, len: u64) {
        self.0.forget(offset, len);
    }

    fn is_direct(&self) -> bool {
        self.0.is_direct()
    }
}

fn is_mounted(path: &Path) -> bool {
    std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains(path.to_str().unwrap())
}

#[test]
fn a_read_in_flight_is_answered_and_none_is_begun_when_the_process_ends() {
    let fixture = Fixture::new();
    let (slow, fast) = (noise(60_000, 1), noise(1 << 20, 2));
    let (slow_cid, fast_cid) = (fixture.raw(&slow).cid, fixture.raw(&fast).cid);
    let mountpoint = fixture.mountpoint();
    let gate = Arc::new(Gate::default());
    let directory = fixture.into_directory();
    let store =
        Store::open_on(Arc::new(SlowDisk(gate.clone())), &directory.path().join("store"), &StoreConfig::default())
            .unwrap();
    // One of the files is in RAM, and no disk holds up who reads it.
    store.get(&fast_cid).unwrap().unwrap();
    let mut options = MountOptions::default();
    options.parse("threads=4").unwrap();
    let mount = cidfs::fuse::mount(&mountpoint, Tree::new(Fetch::new(store)), &options)
        .expect("tests of mounts need root and /dev/fuse");
    let open = |cid: &cidfs::block::Cid| File::open(mountpoint.join(cid.to_string())).unwrap();
    let (reading, later) = (open(&slow_cid), open(&fast_cid));
    nix::fcntl::posix_fadvise(&later, 0, 0, nix::fcntl::PosixFadviseAdvice::POSIX_FADV_RANDOM).unwrap();
    gate.set(true);
    let reader = std::thread::spawn(move || {
        let mut bytes = vec![0; 60_000];
        reading.read_exact_at(&mut bytes, 0).map(|()| bytes)
    });
    gate.wait_for_a_read();
    let ending = std::thread::spawn(move || mount.end(Duration::from_mins(1)));
    let start = Instant::now();
    while is_mounted(&mountpoint) {
        assert!(start.elapsed() < Duration::from_secs(30));
        std::thread::yield_now();
    }
    // The mount is gone from its place; who has a file open of it is told so a moment later, page by page.
    let told = (0..256).find_map(|page| {
        let read = later.read_exact_at(&mut [0; 4096], page * 4096);
        std::thread::sleep(Duration::from_millis(1));
        read.err()
    });
    assert_eq!(told.and_then(|error| error.raw_os_error()), Some(libc::ENOTCONN));
    assert!(!reader.is_finished() && !ending.is_finished(), "both wait for the disk");
    gate.set(false);
    assert!(reader.join().unwrap().unwrap() == slow);
    ending.join().unwrap().unwrap();
}

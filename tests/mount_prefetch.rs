//! What is brought ahead of the readers of a mount: seen by the requests that they no longer make.

#[path = "mounts/fixture.rs"]
mod fixture;
#[path = "fetch/sources.rs"]
mod sources;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cidfs::block::{Cid, codec};
use cidfs::fuse::{Mount, MountOptions, RequestKind};
use cidfs::prefetch::{Fate, Settings, Upcoming};
use cidfs::tree::{Location, Tree};
use fixture::{Fixture, Link, noise};
use sources::{Fake, Local};

/// Classes of files: raw leaves in directories, as `cidfs add` makes them of a dataset.
struct Dataset {
    fixture: Fixture,
    root: Cid,
    files: Vec<(PathBuf, Link)>,
    file_bytes: usize,
}

impl Dataset {
    fn new(classes: usize, files_each: usize, file_bytes: usize) -> Dataset {
        let fixture = Fixture::new();
        let mut files = Vec::new();
        let mut directories = Vec::new();
        for class in 0..classes {
            let mut entries = Vec::new();
            for file in 0..files_each {
                let leaf = fixture.raw(&content(class * files_each + file, file_bytes));
                files.push((PathBuf::from(format!("class{class:02}/{file:04}.bin")), leaf.clone()));
                entries.push((format!("{file:04}.bin"), leaf));
            }
            let entries: Vec<(&str, &Link)> = entries.iter().map(|(name, link)| (name.as_str(), link)).collect();
            directories.push((format!("class{class:02}"), fixture.directory(&entries)));
        }
        let entries: Vec<(&str, &Link)> = directories.iter().map(|(name, link)| (name.as_str(), link)).collect();
        let root = fixture.directory(&entries).cid;
        Dataset { fixture, root, files, file_bytes }
    }

    fn mount(&self, change: impl FnOnce(&mut Settings)) -> Mount {
        let mut options = MountOptions::default();
        // What is pushed must not depend on what else this machine does.
        let machine = self.fixture.path().join("machine");
        fs::create_dir_all(&machine).unwrap();
        fs::write(machine.join("meminfo"), "MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\n").unwrap();
        options.prefetch.machine = machine;
        change(&mut options.prefetch);
        cidfs::fuse::mount(&self.fixture.mountpoint(), self.fixture.tree.clone(), &options)
            .expect("tests of mounts need root and /dev/fuse")
    }

    fn path(&self, file: usize) -> PathBuf {
        self.fixture.at(&self.root, "").join(&self.files[file].0)
    }

    /// Reads a file whole, and checks its bytes.
    fn read(&self, file: usize) {
        let data = fs::read(self.path(file)).unwrap();
        assert!(data == content(file, self.file_bytes), "file {file} has other bytes");
    }

    /// Waits until no more is pushed, and returns how much was.
    fn settled(mount: &Mount) -> u64 {
        let mut pushed = mount.prefetch().pushed_bytes();
        let mut quiet = 0;
        while quiet < 10 {
            std::thread::sleep(Duration::from_millis(10));
            let now = mount.prefetch().pushed_bytes();
            quiet = if now == pushed { quiet + 1 } else { 0 };
            pushed = now;
        }
        pushed
    }

    fn order(&self, files: &[usize]) -> Vec<Upcoming> {
        let upcoming = |file: &usize| {
            let (path, link) = &self.files[*file];
            let directory = PathBuf::from(self.root.to_string()).join(path.parent().unwrap());
            Upcoming { location: Location::new(link.cid.clone()), size: link.size, directory: Some(directory.into()) }
        };
        files.iter().map(upcoming).collect()
    }
}

/// The bytes of a file, its number among them.
fn content(file: usize, bytes: usize) -> Vec<u8> {
    noise(bytes, file as u64 + 1)
}

fn reads(mount: &Mount) -> u64 {
    mount.requests().get(RequestKind::Read)
}

/// Lists and stats all files of classes.
fn list(root: &Path) {
    for class in fs::read_dir(root).unwrap() {
        for file in fs::read_dir(class.unwrap().path()).unwrap() {
            file.unwrap().metadata().unwrap();
        }
    }
}

/// Waits until `done`, which must be soon.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_mins(1), "{what} has not come to pass");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The files in an order that is none, the same each time.
fn shuffled(files: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..files).collect();
    let mut state = 7_u64;
    for last in (1..files).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        order.swap(last, (state >> 33) as usize % (last + 1));
    }
    order
}

#[test]
fn files_that_follow_in_directory_order_are_read_without_requests() {
    let dataset = Dataset::new(4, 200, 30_000);
    let mount = dataset.mount(|_| {});
    // Nothing was listed: the kernel learns of each name as it comes, and of those ahead from us.
    for file in 0..8 {
        dataset.read(file);
    }
    until("the first window", || mount.prefetch().pushed_bytes() > 1_000_000);
    Dataset::settled(&mount);
    let before = (reads(&mount), mount.requests().get(RequestKind::Lookup));
    let mut requests = 0;
    for file in 8..800 {
        dataset.read(file);
        if file % 20 == 0 {
            Dataset::settled(&mount);
        }
        requests = reads(&mount) - before.0;
    }
    assert!(requests < 80, "{requests} requests for 792 files");
    let lookups = mount.requests().get(RequestKind::Lookup) - before.1;
    assert!(lookups < 40, "{lookups} lookups");
    let report = mount.prefetch().report();
    let of_root = report.iter().find(|report| report.root == dataset.root.to_string()).unwrap();
    assert!(of_root.figures.useful_bytes > 18_000_000 && of_root.figures.wasted_bytes == 0, "{of_root:?}");
    mount.unmount().unwrap();
}

#[test]
fn every_byte_is_right_whoever_is_faster() {
    // Sizes around those of pages, and readers that race with the pushes.
    for bytes in [1, 4095, 4096, 4097, 100_000] {
        let dataset = Dataset::new(3, 150, bytes);
        let mount = dataset.mount(|_| {});
        for file in 0..450 {
            dataset.read(file);
        }
        std::thread::scope(|scope| {
            for reader in 0..3 {
                let dataset = &dataset;
                scope.spawn(move || (0..150).for_each(|file| dataset.read(reader * 150 + file)));
            }
        });
        mount.unmount().unwrap();
    }
}

#[test]
fn pushes_stop_at_their_budget() {
    let dataset = Dataset::new(1, 400, 100_000);
    let mount = dataset.mount(|settings| settings.memory_bytes = 1_000_000);
    for file in 0..8 {
        dataset.read(file);
    }
    until("something", || mount.prefetch().pushed_bytes() > 0);
    // What is read makes room for as much again, and eight files were read.
    assert!(Dataset::settled(&mount) <= 1_000_000 + 8 * 100_000);
    let ahead: u64 = mount.prefetch().report().iter().map(|report| report.ahead_bytes).sum();
    assert!(ahead <= 1_000_000, "{ahead}");
    mount.unmount().unwrap();
    let none = dataset.mount(|settings| settings.memory_bytes = 0);
    for file in 0..50 {
        dataset.read(file);
    }
    assert_eq!(Dataset::settled(&none), 0);
    none.unmount().unwrap();
}

#[test]
fn who_reads_parts_of_files_causes_no_pushes() {
    let dataset = Dataset::new(2, 100, 300_000);
    let mount = dataset.mount(|_| {});
    let mut part = vec![0; 2000];
    // Directory order, but never a whole file; and parts at random.
    for file in 0..100 {
        let open = File::open(dataset.path(file)).unwrap();
        open.read_exact_at(&mut part, 0).unwrap();
        assert!(part == content(file, 300_000)[..2000]);
    }
    for (step, file) in shuffled(200).into_iter().enumerate() {
        let open = File::open(dataset.path(file)).unwrap();
        open.read_exact_at(&mut part, step as u64 * 1009 % 290_000).unwrap();
    }
    assert_eq!(Dataset::settled(&mount), 0);
    mount.unmount().unwrap();
}

#[test]
fn a_few_files_at_random_cause_no_pushes() {
    let dataset = Dataset::new(10, 100, 20_000);
    let mount = dataset.mount(|_| {});
    for file in shuffled(1000).into_iter().take(40) {
        dataset.read(file);
    }
    assert_eq!(Dataset::settled(&mount), 0);
    mount.unmount().unwrap();
}

#[test]
fn the_rest_of_a_shuffled_epoch_is_fetched_before_it_is_read() {
    let dataset = Dataset::new(10, 100, 20_000);
    let elsewhere = dataset.fixture.store.clone();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _entered = runtime.enter();
    let (local, source) = Local::new(Duration::from_mins(1)).with(Fake::new("peers", move |request| {
        let block = elsewhere.get(&request.cid).unwrap().unwrap();
        async move { Ok(block) }
    }));
    let mountpoint = local.directory.path().join("mount");
    fs::create_dir(&mountpoint).unwrap();
    let mut options = MountOptions::default();
    options.prefetch.siblings = false;
    let mount = cidfs::fuse::mount(&mountpoint, Tree::new(local.fetch.clone()), &options)
        .expect("tests of mounts need root and /dev/fuse");
    // Somebody lists the tree, as an ImageFolder does.
    let root = mountpoint.join(dataset.root.to_string());
    list(&root);
    assert_eq!(source.asked(), 11, "directories alone");
    let order = shuffled(1000);
    let read = |file: &usize| assert!(fs::read(root.join(&dataset.files[*file].0)).unwrap() == content(*file, 20_000));
    order[..40].iter().for_each(read);
    assert_eq!(source.asked(), 51, "a few files are no epoch");
    order[40..300].iter().for_each(read);
    until("all is here", || dataset.files.iter().all(|(_, link)| local.store.has(&link.cid)));
    order[300..].iter().for_each(read);
    assert_eq!(source.asked(), 1011, "nothing is fetched twice");
    assert_eq!(mount.prefetch().pushed_bytes(), 0);
    mount.unmount().unwrap();
}

#[test]
fn the_rest_of_a_shuffled_epoch_is_left_to_its_readers_where_it_is_here() {
    let dataset = Dataset::new(10, 100, 20_000);
    let mount = dataset.mount(|settings| settings.siblings = false);
    list(&dataset.fixture.at(&dataset.root, ""));
    for file in shuffled(1000) {
        dataset.read(file);
    }
    assert_eq!((Dataset::settled(&mount), reads(&mount)), (0, 1000));
    let before = mount.requests().waited_for();
    for file in shuffled(1000) {
        dataset.read(file);
    }
    assert_eq!(mount.requests().waited_for(), before, "a second epoch makes no request");
    mount.unmount().unwrap();
}

#[test]
fn a_plan_is_followed_and_one_that_is_wrong_is_dropped() {
    let dataset = Dataset::new(10, 100, 20_000);
    let mount = dataset.mount(|settings| settings.epochs = false);
    let order = shuffled(1000);
    let progress = mount.prefetch().follow(&dataset.root, dataset.order(&order).into_iter());
    until("the first window", || progress.pushed_bytes() > 1_000_000);
    Dataset::settled(&mount);
    let before = reads(&mount);
    for (step, file) in order.iter().enumerate() {
        dataset.read(*file);
        if step % 20 == 0 {
            Dataset::settled(&mount);
        }
    }
    let requests = reads(&mount) - before;
    assert!(requests < 100, "{requests} requests for 1000 files");
    assert_eq!((progress.fate(), progress.reached()), (Fate::Finished, 1000));
    mount.unmount().unwrap();

    let mount = dataset.mount(|settings| settings.epochs = false);
    let progress = mount.prefetch().follow(&dataset.root, dataset.order(&order[..500]).into_iter());
    for file in &order[500..] {
        dataset.read(*file);
    }
    assert_eq!(progress.fate(), Fate::Contradicted);
    let report = mount.prefetch().report();
    assert_eq!(report.iter().map(|report| report.figures.contradicted_plans).sum::<u64>(), 1);
    mount.unmount().unwrap();
}

#[test]
fn each_mechanism_can_be_turned_off() {
    let dataset = Dataset::new(2, 300, 20_000);
    let off: [fn(&mut Settings); 2] =
        [|settings| settings.push = false, |settings| (settings.siblings, settings.epochs) = (false, false)];
    for change in off {
        let mount = dataset.mount(change);
        for file in 0..600 {
            dataset.read(file);
        }
        assert_eq!(mount.prefetch().pushed_bytes(), 0);
        assert_eq!(reads(&mount), 600);
        mount.unmount().unwrap();
    }
}

#[test]
fn a_mount_is_taken_down_during_a_push() {
    for round in 0..5 {
        let dataset = Dataset::new(4, 200, 50_000);
        let mount = dataset.mount(|_| {});
        for file in 0..20 + round * 20 {
            dataset.read(file);
        }
        let began = Instant::now();
        mount.unmount().unwrap();
        assert!(began.elapsed() < Duration::from_secs(20), "it took {:?}", began.elapsed());
    }
}

#[test]
fn a_file_that_is_not_here_is_left_to_its_reader() {
    let fixture = Fixture::new();
    let gone = Cid::new_v1(codec::RAW, &cidfs::block::HashFunction::Sha2_256.digest(b"somewhere else"));
    let gone = Link { cid: gone, size: 14, tsize: 14 };
    let leaves: Vec<Link> = (0..50).map(|seed| fixture.raw(&noise(9000, seed + 1))).collect();
    let names: Vec<String> = (0..50).map(|index| format!("{index:02}")).collect();
    let leaf = |index: usize| if index == 20 { &gone } else { &leaves[index] };
    let entries: Vec<(&str, &Link)> =
        names.iter().enumerate().map(|(index, name)| (name.as_str(), leaf(index))).collect();
    let root = fixture.directory(&entries);
    let mount = fixture.mount("");
    for (index, name) in names.iter().enumerate() {
        let read = fs::read(fixture.at(&root.cid, name));
        if index == 20 {
            assert_eq!(read.unwrap_err().raw_os_error(), Some(libc::EIO));
        } else {
            assert!(read.unwrap() == noise(9000, index as u64 + 1));
        }
    }
    mount.unmount().unwrap();
}

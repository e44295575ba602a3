use std::collections::HashSet;

use tokio::runtime::Runtime;

use super::*;
use crate::block::{Block, HashFunction, codec};
use crate::config::StoreConfig;
use crate::dag::pb::{self, PbLink};
use crate::dag::unixfs::{Kind, Mtime, UnixFs};
use crate::fetch::Fetch;
use crate::limits::PREFETCH_BATCH_BYTES;
use crate::prefetch::worker::number;
use crate::store::Store;
use crate::tree::{Attr, Entry, FileKind, Inodes, Location, Tree};

const SIZE: u64 = 100_000;

struct Fixture {
    state: State,
    tree: Tree,
    inodes: Arc<Inodes>,
    now: Instant,
    _runtime: Runtime,
    _directory: tempfile::TempDir,
}

fn cid(name: &str) -> Cid {
    Cid::new_v1(codec::RAW, &HashFunction::Sha2_256.digest(name.as_bytes()))
}

fn file(root: &str, index: u64) -> Upcoming {
    Upcoming { location: Location::new(cid(&format!("{root}/{index}"))), size: SIZE, directory: None }
}

fn order(root: &'static str, files: u64) -> Order {
    Box::new((0..files).map(move |index| file(root, index)))
}

impl Fixture {
    fn new() -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let runtime = Runtime::new().unwrap();
        let tree = Tree::new(Fetch::new(Store::open(directory.path(), &StoreConfig::default()).unwrap()));
        let inodes = Arc::new(Inodes::new());
        let directories = Directories::new(tree.clone(), inodes.clone(), runtime.handle().clone());
        let state = State::new(Settings { epochs: true, ..Settings::default() }, Arc::new(directories));
        Fixture { state, tree, inodes, now: Instant::now(), _runtime: runtime, _directory: directory }
    }

    /// Follows an order that was seen, and may be none.
    fn guess(&mut self, root: &'static str, files: u64) -> Arc<Progress> {
        let order = order(root, files);
        self.state.add(Follower::new(cid(root), Origin::Siblings, "a guess".into(), order, self.now))
    }

    fn load(&self) -> Load {
        Load { room: u64::MAX, now: self.now }
    }

    /// The next piece, with whatever has to be pulled before.
    fn piece(&mut self) -> Option<(Owner, Vec<Bring>)> {
        loop {
            match self.state.next(&self.load())? {
                Task::Pull(owner, mut order, count) => {
                    let files: Vec<_> = order.by_ref().take(count).map(|file| (number(&file), file)).collect();
                    self.state.pulled(&owner, order, files, Vec::new());
                }
                Task::Bring { owner, batch, .. } => return Some((owner, batch)),
                _ => panic!("nothing else was to be done"),
            }
        }
    }

    fn done(&mut self, owner: &Owner, batch: Vec<Bring>) {
        let outcomes = batch.into_iter().map(|bring| (bring.clone(), Outcome::Pushed(bring.wanted))).collect();
        self.state.brought(owner, outcomes, self.now);
    }

    fn read(&mut self, root: &str, index: u64) {
        let begun = Begun { number: number(&file(root, index)), size: SIZE, root: cid(root), above: SmallVec::new() };
        self.state.begun(&begun, self.now);
    }
}

#[test]
fn pieces_that_are_brought_at_a_time_are_few_and_small() {
    let mut fixture = Fixture::new();
    for root in ["a", "b", "c", "d", "e"] {
        fixture.state.follow(cid(root), order(root, 10_000), fixture.now);
    }
    let mut pieces = Vec::new();
    while let Some((owner, batch)) = fixture.piece() {
        assert!(batch.iter().map(|bring| bring.wanted).sum::<u64>() <= PREFETCH_BATCH_BYTES);
        pieces.push((owner, batch));
    }
    assert_eq!(pieces.len(), MAX_BRINGING);
    let (owner, batch) = pieces.pop().unwrap();
    fixture.done(&owner, batch);
    assert!(fixture.piece().is_some() && fixture.piece().is_none());
}

#[test]
fn an_order_is_followed_once_however_often_it_is_found_before_its_files_are_known() {
    let mut fixture = Fixture::new();
    let names: Vec<String> = (0..100).map(|index| format!("{index:02}")).collect();
    let links = names.iter().zip(0..).map(|(name, index)| PbLink {
        cid: cid(&format!("a/{index}")),
        name: name.as_bytes(),
        tsize: Some(SIZE),
    });
    let data = UnixFs::new(Kind::Directory).encode();
    let node = Block::new(codec::DAG_PB, HashFunction::Sha2_256, pb::encode(links, Some(&data)).into());
    let root = node.cid().clone();
    fixture.tree.fetch().store().put(&node).unwrap();
    let attr = Attr { size: 0, mtime: Mtime::default(), permissions: 0o555, kind: FileKind::Directory };
    let entry = Entry { location: Location::new(root.clone()), attr };
    let directory = fixture.inodes.look_up(crate::tree::ROOT_INODE, 0, root.to_string().as_bytes(), &entry).unwrap();
    let read = |fixture: &mut Fixture, index: u64| {
        let above = SmallVec::from_slice(&[directory]);
        let begun = Begun { number: number(&file("a", index)), size: SIZE, root: root.clone(), above };
        fixture.state.begun(&begun, fixture.now);
        fixture.state.finished(&begun, fixture.now);
    };
    read(&mut fixture, 0);
    read(&mut fixture, 1);
    let Some(Task::Watch(watched)) = fixture.state.next(&fixture.load()) else { panic!("the directory is to be read") };
    read(&mut fixture, 2);
    let known = fixture.state.directories.known(watched, crate::prefetch::directories::Wait::Never);
    fixture.state.watch(watched, known, Some(root.clone()), fixture.now);
    for index in 3..8 {
        read(&mut fixture, index);
    }
    assert_eq!(fixture.state.followers.len(), 1);
    let mut brought = HashSet::new();
    for index in 8..60 {
        while let Some((owner, batch)) = fixture.piece() {
            assert!(batch.iter().all(|bring| brought.insert(bring.number)), "a file is brought twice");
            fixture.done(&owner, batch);
        }
        read(&mut fixture, index);
    }
    assert_eq!(fixture.state.followers.len(), 1);
    assert!(brought.len() > 40);
}

#[test]
fn files_that_a_reader_is_about_to_open_are_pushed_last_and_those_that_it_has_asked_for_are_not() {
    let mut fixture = Fixture::new();
    fixture.state.follow(cid("a"), order("a", 100), fixture.now);
    let (owner, batch) = fixture.piece().unwrap();
    let timings = |fixture: &Fixture| -> Vec<Timing> {
        batch.iter().take(8).map(|bring| fixture.state.timing(&owner, bring.at)).collect()
    };
    assert_eq!(timings(&fixture), [Timing::Now; 8], "nobody reads yet");
    fixture.read("a", 2);
    let (now, later) = (Timing::Now, Timing::Later);
    assert_eq!(timings(&fixture), [now, now, Timing::TooLate, later, later, later, now, now]);
    fixture.read("a", 0);
    assert_eq!(timings(&fixture)[..2], [Timing::TooLate, now], "another reader, who is a little behind");
}

#[test]
fn jobs_that_share_a_machine_get_the_same_from_the_moment_they_begin() {
    let mut fixture = Fixture::new();
    let mut jobs =
        ["a", "b"].map(|root| (root, fixture.state.follow(cid(root), order(root, 100_000), fixture.now))).to_vec();
    for step in 0..2000 {
        if step == 1000 {
            jobs.push(("c", fixture.state.follow(cid("c"), order("c", 100_000), fixture.now)));
        }
        let (owner, batch) = fixture.piece().expect("every reader wants more");
        fixture.done(&owner, batch);
        for (root, progress) in jobs.clone() {
            let pushed = progress.pushed_bytes() / SIZE;
            if pushed > 0 {
                fixture.read(root, pushed - 1);
            }
        }
    }
    let bytes: Vec<u64> = jobs.iter().map(|(_, progress)| progress.pushed_bytes()).collect();
    assert!(bytes[0].abs_diff(bytes[1]) < bytes[0] / 50, "{bytes:?}");
    // A third of the second half, where the others got a half of the first and a third of the second.
    let share = bytes[2] as f64 / bytes[1] as f64;
    assert!((0.38..0.42).contains(&share), "{bytes:?}");
}

#[test]
fn the_window_grows_as_it_proves_right_and_is_never_exceeded() {
    let mut fixture = Fixture::new();
    fixture.guess("a", 100_000);
    let mut pushed = 0;
    let mut reader = 0;
    let mut windows = Vec::new();
    for _ in 0..200 {
        let mut tripwires = Vec::new();
        while let Some((owner, batch)) = fixture.piece() {
            pushed += batch.len() as u64;
            tripwires.extend(batch.iter().filter(|bring| bring.tripwire).map(|bring| bring.at));
            fixture.done(&owner, batch);
        }
        let window = fixture.state.report(fixture.now)[0].1.window_bytes;
        assert!((pushed - reader) * SIZE <= window, "{pushed} files, {reader} read, {window}");
        assert!(!tripwires.is_empty(), "somebody must tell where the reader is");
        windows.push(window);
        // The reader comes to the last tripwire, and says so.
        reader = *tripwires.last().unwrap() + 1;
        fixture.read("a", reader - 1);
    }
    assert!(windows.is_sorted() && windows[0] < windows[199]);
    assert_eq!(windows[199], crate::limits::PREFETCH_WINDOW_BYTES);
    let report = fixture.state.report(fixture.now);
    assert_eq!((report[0].1.figures.wasted_bytes, report[0].1.figures.useful_bytes), (0, reader * SIZE));
}

#[test]
fn a_reader_who_overtakes_is_left_ahead_of_and_no_file_is_brought_twice() {
    let mut fixture = Fixture::new();
    fixture.state.follow(cid("a"), order("a", 10_000), fixture.now);
    let mut brought = HashSet::new();
    for step in 0..100 {
        let Some((owner, batch)) = fixture.piece() else { continue };
        for bring in &batch {
            assert!(brought.insert(bring.at), "{} twice", bring.at);
            assert!(bring.at >= step * 30, "{} is behind the reader", bring.at);
        }
        fixture.done(&owner, batch);
        for index in step * 30..(step + 1) * 30 {
            fixture.read("a", index);
        }
    }
}

#[test]
fn what_is_not_here_is_fetched_before_the_rest_of_an_epoch_and_pushed_when_it_comes() {
    let mut fixture = Fixture::new();
    fixture.state.follow(cid("a"), order("a", 10), fixture.now);
    let (owner, batch) = fixture.piece().unwrap();
    assert_eq!(batch.len(), 10);
    let outcomes = batch.into_iter().map(|bring| (bring, Outcome::Remote)).collect();
    fixture.state.brought(&owner, outcomes, fixture.now);
    assert!(fixture.piece().is_none());
    // The reader is past the third already.
    fixture.read("a", 2);
    let mut wants = Vec::new();
    while let Some(want) = fixture.state.next_want() {
        assert_eq!(want.priority, Priority::ReadAhead);
        wants.push(want);
    }
    assert_eq!(wants.iter().map(|want| want.at).collect::<Vec<_>>(), (3..10).collect::<Vec<_>>());
    for want in &wants {
        fixture.state.arrived(want, want.at != 5, fixture.now);
    }
    let (_, batch) = fixture.piece().unwrap();
    assert_eq!(batch.iter().map(|bring| bring.at).collect::<Vec<_>>(), [3, 4, 6, 7, 8, 9]);
    assert_eq!(fixture.state.report(fixture.now)[0].1.figures.fetched_bytes, 6 * SIZE);
}

#[test]
fn a_plan_that_readers_contradict_is_dropped_and_what_it_brought_counts_as_wasted() {
    let mut fixture = Fixture::new();
    let progress = fixture.state.follow(cid("a"), order("a", 1000), fixture.now);
    let (owner, batch) = fixture.piece().unwrap();
    let bytes: u64 = batch.iter().map(|bring| bring.wanted).sum();
    fixture.done(&owner, batch);
    for index in 0..64 {
        fixture.read("a", 500_000 + index);
        assert_eq!(progress.fate(), Fate::Followed, "after {index}");
    }
    fixture.read("a", 600_000);
    assert_eq!(progress.fate(), Fate::Contradicted);
    let report = &fixture.state.report(fixture.now)[0].1.figures;
    assert_eq!((report.wasted_bytes, report.contradicted_plans), (bytes, 1));
    assert!(fixture.piece().is_none());
}

#[test]
fn random_files_of_a_plan_s_root_beside_its_reader_do_not_drop_it() {
    let mut fixture = Fixture::new();
    let progress = fixture.state.follow(cid("a"), order("a", 100_000), fixture.now);
    let mut reader = 0;
    for step in 0..200 {
        while let Some((owner, batch)) = fixture.piece() {
            reader = batch.iter().filter(|bring| bring.tripwire).map(|bring| bring.at).next_back().unwrap_or(reader);
            fixture.done(&owner, batch);
        }
        fixture.read("a", reader);
        for other in 0..10 {
            fixture.read("a", 1_000_000 + step * 10 + other);
        }
    }
    assert_eq!(progress.fate(), Fate::Followed);
}

#[test]
fn epochs_of_a_small_dataset_are_followed_one_after_the_other_and_no_file_is_brought_twice_ahead() {
    const FILES: u64 = 60;
    let mut fixture = Fixture::new();
    let epochs = (0..1000_u64).flat_map(|epoch| (0..FILES).map(move |at| file("a", (at * 7 + epoch * 13) % FILES)));
    let progress = fixture.state.follow(cid("a"), Box::new(epochs), fixture.now);
    for epoch in 0..20 {
        for at in 0..FILES {
            let mut ahead = HashSet::new();
            while let Some((owner, batch)) = fixture.piece() {
                for bring in &batch {
                    assert!(ahead.insert(bring.number), "{} twice", bring.at);
                    assert!(bring.at < (epoch + 2) * FILES, "{} in epoch {epoch}", bring.at);
                }
                fixture.done(&owner, batch);
            }
            fixture.read("a", (at * 7 + epoch * 13) % FILES);
            assert_eq!(progress.reached(), epoch * FILES + at + 1);
        }
    }
    assert_eq!(progress.fate(), Fate::Followed);
    let pushed = fixture.state.report(fixture.now)[0].1.figures.pushed_bytes;
    assert!(pushed <= 21 * FILES * SIZE, "{pushed} bytes for 20 epochs");
}

#[test]
fn readers_in_random_order_do_not_confirm_an_order_that_is_none() {
    const SEEDS: u64 = 20;
    // In a small tree they come upon the files of any order often.
    for (files, most) in [(20_000, 6 << 20), (5_000, 12 << 20), (2_500, 24 << 20)] {
        let mut pushed = 0;
        for seed in 1..=SEEDS {
            let mut fixture = Fixture::new();
            let progress = fixture.guess("a", files);
            let mut state = seed;
            let mut silent = HashSet::new();
            for _ in 0..files {
                while let Some((owner, batch)) = fixture.piece() {
                    silent.extend(batch.iter().filter(|bring| !bring.tripwire).map(|bring| bring.at));
                    fixture.done(&owner, batch);
                }
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let index = (state >> 33) % files;
                // What was pushed is read without a word.
                if !silent.contains(&index) {
                    fixture.read("a", index);
                }
                if progress.fate() != Fate::Followed {
                    break;
                }
            }
            assert_ne!(progress.fate(), Fate::Followed, "of {files} files");
            pushed += fixture.state.report(fixture.now)[0].1.figures.pushed_bytes;
        }
        println!("{files} files: {} bytes", pushed / SEEDS);
        assert!(pushed / SEEDS < most, "{} bytes were pushed for nobody, of {files} files", pushed / SEEDS);
    }
}

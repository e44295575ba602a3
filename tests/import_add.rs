//! What `import::add` promises beside its CIDs: what is kept, what is pinned, and what is refused.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use cidfs::config::StoreConfig;
use cidfs::fetch::{Fetch, Priority};
use cidfs::import::{self, Event, ImportError, ImportOptions, Profile, Source};
use cidfs::limits::MAX_DIRECTORY_DEPTH;
use cidfs::store::Store;
use cidfs::tree::{Location, Tree};

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), &StoreConfig::default()).unwrap();
    (dir, store)
}

fn add(path: &Path, options: &ImportOptions) -> Result<(Vec<Event>, String, Store), ImportError> {
    let (_dir, store) = store();
    let mut events = Vec::new();
    let mut record = |event| {
        events.push(event);
        ControlFlow::Continue(())
    };
    let added = import::add(vec![Source::Path(path.into())], options, &store, &mut record)?;
    Ok((events, added.roots.last().unwrap().to_string(), store))
}

fn v0() -> ImportOptions {
    ImportOptions { profile: Profile::UnixfsV0_2015, ..ImportOptions::default() }
}

#[test]
fn a_small_tree_has_the_cid_that_kubo_gives_it() {
    let dir = tempfile::tempdir().unwrap();
    let planets = dir.path().join("planets");
    fs::create_dir(&planets).unwrap();
    fs::write(planets.join("mars.txt"), "Hello Mars!\n").unwrap();
    fs::write(planets.join("venus.txt"), "Hello Venus!\n").unwrap();
    let (events, root, store) = add(&planets, &v0()).unwrap();
    assert_eq!(root, "QmWSgS32xQEcXMeqd3YPJLrNBLSdsfYCep2U7CFkyrjXwY");
    let paths: Vec<_> = events
        .iter()
        .map(|event| match event {
            Event::Added(entry) => String::from_utf8(entry.path.0.clone()).unwrap(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(paths, ["planets/mars.txt", "planets/venus.txt", "planets"]);
    assert_eq!(store.pins().unwrap()[0].cid.to_string(), root);
    let options = ImportOptions { cid_version: Some(1), ..v0() };
    assert_eq!(add(&planets, &options).unwrap().1, "bafybeih7e5dmkyk25up5vxug4q3hrg2fxbzf23dfrac2fns5h7z4aa7ioi");
}

#[test]
fn a_socket_is_refused_by_name_and_nothing_is_pinned() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), "fine").unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("b.sock")).unwrap();
    let (_store_dir, store) = store();
    let error = import::add(vec![Source::Path(dir.path().into())], &v0(), &store, &mut ()).unwrap_err().to_string();
    assert!(error.contains("b.sock: it is a socket"), "{error}");
    assert!(store.pins().unwrap().is_empty());
}

#[test]
fn a_caller_that_stops_gets_no_pin() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), "fine").unwrap();
    symlink("a", dir.path().join("link")).unwrap();
    let (_store_dir, store) = store();
    let mut stop = |_| ControlFlow::Break(());
    let result = import::add(vec![Source::Path(dir.path().into())], &v0(), &store, &mut stop);
    assert!(matches!(result, Err(ImportError::Cancelled)));
    assert!(store.pins().unwrap().is_empty());
}

/// Adds a file of several parts, changes it when the first of them is kept, and gives the error.
fn add_while(change: impl Fn(&File)) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("written-to");
    fs::write(&path, noise(9 << 20)).unwrap();
    let file = File::options().append(true).open(&path).unwrap();
    let (_store_dir, store) = store();
    let mut changed = false;
    let mut progress = |event| {
        if matches!(event, Event::Progress { .. }) && !std::mem::replace(&mut changed, true) {
            change(&file);
        }
        ControlFlow::Continue(())
    };
    let error = import::add(vec![Source::Path(dir.path().into())], &v0(), &store, &mut progress).unwrap_err();
    assert!(matches!(error, ImportError::Changed { .. }), "{error}");
    assert!(store.pins().unwrap().is_empty());
    error.to_string()
}

#[test]
fn a_file_that_changes_while_it_is_read_is_refused_by_name_and_nothing_is_pinned() {
    let cut = add_while(|file| file.set_len(8 << 20).unwrap());
    assert!(cut.contains("written-to changed while it was read"), "{cut}");
    let grown = add_while(|mut file| file.write_all(b"more").unwrap());
    assert!(grown.contains("9437184 bytes and then 9437188"), "{grown}");
    // The same length, and other bytes.
    let rewritten = add_while(|file| {
        file.set_len(9 << 20).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    });
    assert!(rewritten.contains("its times did"), "{rewritten}");
}

#[test]
fn a_file_that_is_cut_short_under_the_reader_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cut");
    // More than an import reads ahead.
    let file = File::create(&path).unwrap();
    file.set_len(80 << 20).unwrap();
    let (_store_dir, store) = store();
    let mut progress = |event| {
        if matches!(event, Event::Progress { .. }) {
            file.set_len(1 << 20).unwrap();
        }
        ControlFlow::Continue(())
    };
    let options = ImportOptions { hash: Some("blake3".into()), cid_version: Some(1), ..v0() };
    let error = import::add(vec![Source::Path(path)], &options, &store, &mut progress).unwrap_err();
    assert!(matches!(&error, ImportError::Changed { how, .. } if how.contains("ended after")), "{error}");
    assert!(store.pins().unwrap().is_empty());
}

#[test]
fn an_unreadable_file_is_refused_by_name_and_nothing_is_pinned() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("tree")).unwrap();
    fs::write(dir.path().join("tree/a"), "fine").unwrap();
    fs::write(dir.path().join("tree/secret"), "not for everybody").unwrap();
    fs::set_permissions(dir.path().join("tree/secret"), fs::Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    // Nothing is unreadable for root: an ordinary user runs a copy of the program, in a place of their own.
    let program = dir.path().join("cidfs");
    fs::copy(env!("CARGO_BIN_EXE_cidfs"), &program).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command
            .args(arguments)
            .env_clear()
            .env("CIDFS_PATH", dir.path().join("repository"))
            .env("CIDFS_NETWORK_PROFILE", "offline");
        if nix::unistd::geteuid().is_root() {
            command.uid(65534).gid(65534);
        }
        command.current_dir(dir.path()).output().unwrap()
    };
    let output = run(&["add", "tree"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("tree/secret: Permission denied") && error.lines().count() == 1, "{error}");
    assert_eq!(String::from_utf8(run(&["pin", "ls"]).stdout).unwrap(), "");
}

#[test]
fn a_tree_that_is_too_deep_is_refused_by_name_and_nothing_is_pinned() {
    let dir = tempfile::tempdir().unwrap();
    let nested = |levels: usize| {
        let root = dir.path().join(format!("nested-{levels}"));
        fs::create_dir_all(root.join(vec!["d"; levels - 1].join("/"))).unwrap();
        root
    };
    add(&nested(MAX_DIRECTORY_DEPTH), &v0()).unwrap();
    let (_store_dir, store) = store();
    let deeper = nested(MAX_DIRECTORY_DEPTH + 1);
    let error = import::add(vec![Source::Path(deeper)], &v0(), &store, &mut ()).unwrap_err();
    assert!(matches!(error, ImportError::TooDeep { .. }), "{error}");
    assert!(error.to_string().contains("d/d/d: it is over 256 directories deep"), "{error}");
    assert!(store.pins().unwrap().is_empty());
}

fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Gives its bytes in pieces of odd sizes.
struct Dribble {
    data: Vec<u8>,
    at: usize,
    turn: usize,
}

impl Read for Dribble {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.turn += 1;
        let size = [1, 4096, 65_537, 7, 300_001][self.turn % 5];
        let len = size.min(buffer.len()).min(self.data.len() - self.at);
        buffer[..len].copy_from_slice(&self.data[self.at..self.at + len]);
        self.at += len;
        Ok(len)
    }
}

#[test]
fn chunks_are_cut_at_the_same_places_however_the_bytes_arrive() {
    let dir = tempfile::tempdir().unwrap();
    // Over the part that one task reads, so that cuts go across parts too.
    let data = noise((4 << 20) + 1_234_567);
    let path = dir.path().join("file");
    fs::write(&path, &data).unwrap();
    for chunker in ["size-1000003", "size-65536", "rabin", "rabin-1024-65536-131072", "buzhash"] {
        let options = ImportOptions { chunker: Some(chunker.to_owned()), ..v0() };
        let (_, whole, _) = add(&path, &options).unwrap();
        let (_store_dir, store) = store();
        let reader = Box::new(Dribble { data: data.clone(), at: 0, turn: 0 });
        let stream = Source::Stream { name: "file".into(), reader };
        let added = import::add(vec![stream], &options, &store, &mut ()).unwrap();
        assert_eq!(added.roots[0].to_string(), whole, "{chunker}");
    }
}

/// The result of a future of the tree, all of whose blocks are here.
fn now<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
        std::task::Poll::Ready(result) => result,
        std::task::Poll::Pending => panic!("every block is local, and the tree wants to wait"),
    }
}

#[test]
fn files_of_both_layouts_read_back_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let data = noise(300_007);
    let path = dir.path().join("file");
    fs::write(&path, &data).unwrap();
    for (trickle, raw_leaves, chunk, max_links) in [
        (false, true, 1000, 3),
        (false, false, 4096, 7),
        (true, true, 1000, 3),
        (true, false, 777, 4),
        (true, true, 100_000, 174),
    ] {
        let options = ImportOptions {
            trickle: Some(trickle),
            raw_leaves: Some(raw_leaves),
            chunker: Some(format!("size-{chunk}")),
            max_file_links: Some(max_links),
            ..v0()
        };
        let (_store_dir, store) = store();
        let root = import::add(vec![Source::Path(path.clone())], &options, &store, &mut ()).unwrap().roots.remove(0);
        let tree = Tree::new(Fetch::new(store));
        let location = Location::new(root);
        let read = |offset: usize, len| now(tree.read(&location, offset as u64, len, Priority::Demand)).unwrap();
        assert!(read(0, 1 << 20)[..] == data, "{options:?}");
        for (offset, len) in
            [(0, 1), (999, 2), (1000, 1000), (123_456, 65_536), (299_000, 5000), (300_006, 1), (300_007, 9)]
        {
            let expected = &data[offset..(offset + len).min(data.len())];
            assert!(read(offset, len)[..] == *expected, "{len} bytes at {offset}: {options:?}");
        }
    }
}

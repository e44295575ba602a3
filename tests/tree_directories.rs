//! Directories of every kind: found by name, listed from anywhere.

#[path = "mounts/fixture.rs"]
mod fixture;

use std::collections::BTreeSet;

use cidfs::block::Cid;
use cidfs::dag::hamt;
use cidfs::dag::unixfs::{Kind, Mtime, UnixFs};
use cidfs::fetch::{Fetch, Priority};
use cidfs::store::{PinKind, Store};
use cidfs::tree::{FIRST_CURSOR, FileKind, Inodes, Listed, Location, Tree, TreeError};
use fixture::{Fixture, Link, noise, now};

fn absent() -> Link {
    Link { cid: "bafkreiaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa".parse().unwrap(), size: 3, tsize: 3 }
}

fn list(fixture: &Fixture, directory: &Link, page: usize) -> Vec<Listed> {
    let location = Location::new(directory.cid.clone());
    let mut all: Vec<Listed> = Vec::new();
    loop {
        let cursor = all.last().map_or(0, |last| last.cursor);
        let next = now(fixture.tree.list(&location, cursor, page)).unwrap();
        assert!(next.len() <= page);
        if next.is_empty() {
            return all;
        }
        all.extend(next);
    }
}

fn names(listed: &[Listed]) -> Vec<&[u8]> {
    listed.iter().map(|entry| &entry.name[..]).collect()
}

#[test]
fn a_listing_can_begin_at_any_cursor_of_any_directory() {
    let fixture = Fixture::new();
    let leaf = fixture.raw(b"x");
    let names_of: Vec<String> = (0..3000).map(|index| format!("file-{index}")).collect();
    let entries: Vec<(&[u8], &Link)> = names_of.iter().map(|name| (name.as_bytes(), &leaf)).collect();
    let plain = fixture.node(&UnixFs::new(Kind::Directory), &entries);
    let directories = [
        plain,
        fixture.hamt(8, &entries),
        fixture.hamt(16, &entries),
        fixture.hamt(256, &entries),
        fixture.hamt(1024, &entries),
    ];
    for directory in directories {
        let whole = list(&fixture, &directory, usize::MAX);
        assert_eq!(whole.len(), 3000);
        assert_eq!(whole.iter().map(|entry| &entry.name).collect::<BTreeSet<_>>().len(), 3000);
        assert!(whole.is_sorted_by(|a, b| a.cursor < b.cursor));
        assert!(whole[0].cursor >= FIRST_CURSOR && whole[2999].cursor < i64::MAX as u64);
        for page in [1, 7, 200, 2999] {
            assert_eq!(names(&list(&fixture, &directory, page)), names(&whole));
        }
        let location = Location::new(directory.cid.clone());
        for index in [0, 1, 255, 256, 1500, 2998] {
            let rest = now(fixture.tree.list(&location, whole[index].cursor, 5)).unwrap();
            assert_eq!(names(&rest), names(&whole[index + 1..(index + 6).min(3000)]));
        }
        for name in ["file-0", "file-1234", "file-2999"] {
            let entry = now(fixture.tree.lookup(&location, name.as_bytes())).unwrap();
            assert_eq!(entry.location.cid, leaf.cid);
        }
        for name in ["file-3000", "", ".", "..", "file-0/", "FILE-0"] {
            let missing = now(fixture.tree.lookup(&location, name.as_bytes()));
            assert!(matches!(missing, Err(TreeError::NoEntry { .. })), "{name}");
        }
    }
}

#[test]
fn a_lookup_in_a_sharded_directory_reads_one_shard_a_level() {
    let fixture = Fixture::new();
    let leaf = fixture.raw(b"x");
    let names_of: Vec<String> = (0..2000).map(|index| format!("file-{index}")).collect();
    let entries: Vec<(&[u8], &Link)> = names_of.iter().map(|name| (name.as_bytes(), &leaf)).collect();
    let directory = fixture.hamt(16, &entries);
    // Only the shards on the way to one name are here.
    let other = Fixture::new();
    let mut cid = directory.cid.clone();
    let mut place = hamt::Place::ROOT;
    let mut copied = 0;
    loop {
        let block = fixture.store.get(&cid).unwrap().unwrap();
        other.store.put(&block).unwrap();
        copied += 1;
        let shard = hamt::Shard::decode(block.data().clone(), place).unwrap();
        match shard.find(b"file-1234", hamt::hash_name(b"file-1234")) {
            hamt::Found::Shard(child, at) => (cid, place) = (child, at),
            found => break assert!(matches!(found, hamt::Found::Entry(_))),
        }
    }
    assert!(copied >= 2);
    let location = Location::new(directory.cid.clone());
    // The leaf is raw: its link says enough.
    assert_eq!(now(other.tree.lookup(&location, b"file-1234")).unwrap().location.cid, leaf.cid);
    // A listing that cannot be whole is an error, not a short list.
    let mut cursor = 0;
    let error = loop {
        match now(other.tree.list(&location, cursor, 100)) {
            Ok(page) => cursor = page.last().expect("the listing does not end").cursor,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, TreeError::Fetch(_)), "{error}");
}

#[test]
fn a_broken_shard_is_an_error_for_its_names_and_the_rest_is_listed() {
    let fixture = Fixture::new();
    let leaf = fixture.raw(b"x");
    let broken = fixture.directory(&[("not", &leaf), ("a shard", &leaf)]);
    let name_in = |slot: usize| {
        let mut names = (0..).map(|index| format!("n{index}"));
        names.find(|name| hamt::hash_name(name.as_bytes()).slot(0, 4) == Some(slot)).unwrap()
    };
    let (good, lost) = (name_in(2), name_in(5));
    let directory = fixture.shard(16, &[(2, good.as_bytes(), leaf.clone()), (5, b"", broken), (9, b"stray?", leaf)]);
    let is_stray = hamt::hash_name(b"stray?").slot(0, 4) != Some(9);
    let listed = list(&fixture, &directory, 10);
    assert_eq!(listed.len(), if is_stray { 1 } else { 2 });
    assert_eq!(listed[0].name, good.as_bytes());
    assert_eq!(fixture.tree.hidden_names() > 0, is_stray);
    let location = Location::new(directory.cid);
    let error = now(fixture.tree.lookup(&location, lost.as_bytes())).unwrap_err();
    assert!(matches!(error, TreeError::Dag { .. }), "{error}");
}

#[test]
fn a_shard_that_contains_itself_at_every_depth_ends() {
    let fixture = Fixture::new();
    // No block can hold its own CID, so a long chain stands for an endless one.
    let chain = (0..200).fold(fixture.shard(8, &[]), |below, _| fixture.shard(8, &[(0, b"", below)]));
    assert!(list(&fixture, &chain, 10).is_empty());
}

#[test]
fn a_trie_that_names_one_shard_over_and_over_is_given_up() {
    let fixture = Fixture::new();
    let stray = fixture.shard(256, &[(0, b"found nowhere", fixture.raw(b"x"))]);
    let bomb = (0..7).fold(stray, |below, _| {
        let slots: Vec<(usize, &[u8], Link)> = (0..256).map(|slot| (slot, &b""[..], below.clone())).collect();
        fixture.shard(256, &slots)
    });
    let error = now(fixture.tree.list(&Location::new(bomb.cid), 0, 100)).unwrap_err();
    assert!(matches!(error, TreeError::Limit { .. }), "{error}");
}

#[test]
fn listing_a_directory_of_raw_leaves_fetches_directory_blocks_only() {
    let fixture = Fixture::new();
    let names_of: Vec<String> = (0..500).map(|index| format!("{index:03}")).collect();
    let leaves: Vec<Link> = (0..500).map(|index| fixture.raw(&noise(100 + index, index as u64))).collect();
    let entries: Vec<(&[u8], &Link)> = names_of.iter().map(String::as_bytes).zip(&leaves).collect();
    for directory in [fixture.node(&UnixFs::new(Kind::Directory), &entries), fixture.hamt(256, &entries)] {
        // Another machine, which has the directory's blocks alone.
        let other = Fixture::new();
        let mut shards = vec![directory.cid.clone()];
        while let Some(cid) = shards.pop() {
            let block = fixture.store.get(&cid).unwrap().unwrap();
            let node = cidfs::dag::pb::PbNode::decode(block.data().clone()).unwrap();
            shards.extend(node.links().filter(|link| link.cid.codec() == 0x70).map(|link| link.cid));
            other.store.put(&block).unwrap();
        }
        let listed = list(&other, &directory, 100);
        assert_eq!(listed.len(), 500);
        for (entry, attr) in listed.iter().zip(now(other.tree.attrs(&listed))) {
            let index: usize = std::str::from_utf8(&entry.name).unwrap().parse().unwrap();
            let attr = attr.unwrap();
            assert_eq!((attr.kind, attr.size, attr.permissions), (FileKind::File, 100 + index as u64, 0o444));
        }
    }
}

#[test]
fn a_second_listing_reads_no_child() {
    let fixture = Fixture::new();
    let mut file = UnixFs::new(Kind::File);
    file.data = Some(bytes::Bytes::from_static(b"#!/bin/sh"));
    (file.filesize, file.mode) = (Some(9), Some(0o755));
    file.mtime = Some(Mtime { seconds: -100, nanoseconds: 5 });
    let children =
        [fixture.node(&file, &[]), fixture.directory(&[]), fixture.symlink(b"target"), fixture.file(b"plain", &[])];
    let directory =
        fixture.directory(&[("a", &children[0]), ("b", &children[1]), ("c", &children[2]), ("d", &children[3])]);
    let learned = now(fixture.tree.attrs(&list(&fixture, &directory, 10)));
    // A tree with empty caches, over a store without the children but with what was remembered of them.
    let other = Fixture::new();
    other.store.put(&fixture.store.get(&directory.cid).unwrap().unwrap()).unwrap();
    for child in &children {
        let facts = fixture.store.facts(&child.cid).unwrap().expect("a listing remembers what it learned");
        other.store.remember(vec![(child.cid.clone(), facts)]).unwrap();
    }
    let remembered = now(other.tree.attrs(&list(&other, &directory, 10)));
    for (learned, remembered) in learned.into_iter().zip(remembered) {
        assert_eq!(learned.unwrap(), remembered.unwrap());
    }
}

#[test]
fn a_missing_child_fails_alone() {
    let fixture = Fixture::new();
    let gone = Link { cid: absent().cid.with_codec(0x70), ..absent() };
    let directory =
        fixture.directory(&[("here", &fixture.file(b"here", &[])), ("gone", &gone), ("raw and gone", &absent())]);
    let listed = list(&fixture, &directory, 10);
    assert_eq!(names(&listed), [&b"here"[..], b"gone", b"raw and gone"]);
    let attrs = now(fixture.tree.attrs(&listed));
    assert_eq!(attrs[0].as_ref().unwrap().size, 4);
    assert!(attrs[1].is_err());
    assert_eq!(attrs[2].as_ref().unwrap().size, 3);
}

#[test]
fn a_false_tsize_is_not_believed_where_the_block_is_here() {
    let fixture = Fixture::new();
    let liar = Link { tsize: 1 << 50, ..fixture.raw(b"short") };
    let directory = fixture.directory(&[("file", &liar)]);
    let entry = now(fixture.tree.lookup(&Location::new(directory.cid), b"file")).unwrap();
    assert_eq!(entry.attr.size, 5);
}

#[test]
fn paths_are_resolved_name_by_name() {
    let fixture = Fixture::new();
    let inner = fixture.directory(&[("file", &fixture.file(b"found", &[])), ("link", &fixture.symlink(b"file"))]);
    let root = fixture.directory(&[("inner", &inner)]);
    let resolve = |path: &str| now(fixture.tree.resolve(path.as_bytes()));
    for path in [
        format!("{}/inner/file", root.cid),
        format!("/ipfs/{}/inner/file", root.cid),
        format!("/{}//inner/file/", root.cid),
    ] {
        assert_eq!(resolve(&path).unwrap().attr.size, 5, "{path}");
    }
    assert_eq!(resolve(&root.cid.to_string()).unwrap().attr.kind, FileKind::Directory);
    let link = resolve(&format!("{}/inner/link", root.cid)).unwrap();
    assert_eq!((link.attr.kind, link.attr.size), (FileKind::Symlink, 4));
    assert_eq!(&now(fixture.tree.read_link(&link.location)).unwrap()[..], b"file");
    assert!(matches!(resolve(&format!("{}/outer", root.cid)), Err(TreeError::NoEntry { .. })));
    assert!(matches!(resolve(&format!("{}/inner/file/x", root.cid)), Err(TreeError::NotADirectory { .. })));
    assert!(matches!(resolve("favicon.ico"), Err(TreeError::NotACid { .. })));
    assert!(matches!(resolve(""), Err(TreeError::NotACid { .. })));
}

#[test]
fn a_path_of_256_directories_is_resolved_and_a_deeper_one_is_refused() {
    let fixture = Fixture::new();
    let chain = |levels| (0..levels).fold(fixture.raw(b"deep"), |below, _| fixture.directory(&[("d", &below)]));
    let path = |levels: usize| format!("{}{}", chain(levels).cid, "/d".repeat(levels));
    assert_eq!(now(fixture.tree.resolve(path(256).as_bytes())).unwrap().attr.size, 4);
    let error = now(fixture.tree.resolve(path(257).as_bytes())).unwrap_err();
    assert!(matches!(error, TreeError::TooDeep { .. }), "{error}");
}

#[test]
fn a_symbolic_link_over_the_limit_is_an_error() {
    let fixture = Fixture::new();
    let longest = Location::new(fixture.symlink(&[b'x'; 4095]).cid);
    assert_eq!(now(fixture.tree.read_link(&longest)).unwrap().len(), 4095);
    let longer = Location::new(fixture.symlink(&[b'x'; 4096]).cid);
    assert!(matches!(now(fixture.tree.read_link(&longer)), Err(TreeError::Limit { limit: 4095, .. })));
}

#[test]
fn the_root_lists_pins_in_an_order_that_new_pins_do_not_disturb() {
    let fixture = Fixture::new();
    let pin = |index: u8| {
        let link = fixture.raw(&[index]);
        fixture.store.pin(&link.cid, cidfs::store::PinKind::Recursive, "").unwrap();
        link.cid
    };
    let first: BTreeSet<Cid> = (0..20).map(pin).collect();
    let mut seen: Vec<Cid> = Vec::new();
    let mut cursor = 0;
    for round in 20.. {
        let page = fixture.tree.root_list(cursor, 3).unwrap();
        let Some(last) = page.last() else { break };
        cursor = last.cursor;
        seen.extend(page.into_iter().map(|entry| entry.location.cid));
        if round < 40 {
            pin(round);
        }
    }
    let distinct: BTreeSet<Cid> = seen.iter().cloned().collect();
    assert_eq!(distinct.len(), seen.len());
    assert!(distinct.is_superset(&first));
}

#[test]
fn one_file_is_one_inode_and_a_directory_is_one_for_each_path() {
    let fixture = Fixture::new();
    let file = fixture.file(b"same", &[]);
    let directory = fixture.directory(&[("file", &file)]);
    let entry = |link: &Link| now(fixture.tree.resolve(link.cid.to_string().as_bytes())).unwrap();
    let inodes = Inodes::new();
    let a = inodes.look_up(1, 0, b"a", &entry(&directory)).unwrap();
    let b = inodes.look_up(1, 0, b"b", &entry(&directory)).unwrap();
    assert_ne!(a, b);
    assert_eq!(a, inodes.look_up(1, 0, b"a", &entry(&directory)).unwrap());
    let one = inodes.look_up(a, 1, b"file", &entry(&file)).unwrap();
    assert_eq!(one, inodes.look_up(b, 1, b"another name", &entry(&file)).unwrap());
    // The same numbers on another mount, or after a restart.
    let again = Inodes::new();
    assert_eq!(one, again.look_up(b, 1, b"file", &entry(&file)).unwrap());
    assert_eq!(a, again.look_up(1, 0, b"a", &entry(&directory)).unwrap());
    assert_eq!(inodes.len(), 3);
    inodes.forget(one, 1);
    assert_eq!(inodes.get(one).unwrap().location.cid, file.cid);
    inodes.forget(one, 1);
    assert!(inodes.get(one).is_none());
    inodes.forget(a, 2);
    inodes.forget(b, 1);
    assert!(inodes.is_empty());
}

#[test]
fn a_tree_is_shared_by_its_clones_and_needs_nothing_but_a_store() {
    let fixture = Fixture::new();
    let root = fixture.directory(&[("x", &fixture.raw(b"x"))]);
    let store: Store = fixture.store.clone();
    let tree = Tree::new(Fetch::new(store));
    let entry = now(tree.clone().resolve(format!("{}/x", root.cid).as_bytes())).unwrap();
    assert_eq!(&now(tree.read(&entry.location, 0, 10, Priority::Demand)).unwrap()[..], b"x");
}

#[test]
fn the_time_of_the_root_moves_with_pins_and_names_and_nothing_is_read_in_between() {
    let fixture = Fixture::new();
    let roots: Vec<_> = (0..200_u32).map(|number| fixture.raw(&number.to_le_bytes()).cid).collect();
    for root in &roots {
        fixture.store.name(&format!("name of {root}"), root).unwrap();
    }
    let mut last = fixture.tree.root_changed().unwrap();
    let mut has_moved = || {
        let now = fixture.tree.root_changed().unwrap();
        std::mem::replace(&mut last, now) < now
    };
    fixture.store.pin(&roots[0], PinKind::Direct, "").unwrap();
    assert!(has_moved());
    fixture.store.unpin(&roots[0]).unwrap();
    assert!(has_moved());
    fixture.store.name("new", &roots[0]).unwrap();
    assert!(has_moved());
    fixture.store.name("new", &roots[1]).unwrap();
    assert!(has_moved(), "a name that leads elsewhere");
    fixture.store.unname("new").unwrap();
    assert!(has_moved());
    // A change that changes nothing, and a block, are none.
    fixture.store.unname("new").unwrap();
    fixture.raw(b"a block");
    assert!(!has_moved());
    let time = |act: &dyn Fn()| {
        let start = std::time::Instant::now();
        (0..100).for_each(|_| act());
        start.elapsed()
    };
    let reading = time(&|| assert_eq!(fixture.store.names().unwrap().len(), 200));
    let asking = time(&|| assert!(fixture.tree.root_changed().is_ok()));
    assert!(asking * 5 < reading, "asking took {asking:?}, reading the names {reading:?}");
}

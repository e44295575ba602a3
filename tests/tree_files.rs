//! Files by offset, whatever shape their trees have and whatever they claim.

#[path = "mounts/fixture.rs"]
mod fixture;

use bytes::Bytes;
use cidfs::block::{Cid, codec};
use cidfs::dag::unixfs::{Kind, UnixFs};
use cidfs::fetch::Priority;
use cidfs::limits::MAX_FILE_DEPTH;
use cidfs::tree::{Location, TreeError};
use fixture::{Fixture, Link, noise, now};

fn read(fixture: &Fixture, file: &Cid, offset: u64, len: usize) -> Result<Bytes, TreeError> {
    now(fixture.tree.read(&Location::new(file.clone()), offset, len, Priority::Demand))
}

fn size(fixture: &Fixture, file: &Cid) -> u64 {
    now(fixture.tree.resolve(file.to_string().as_bytes())).unwrap().attr.size
}

#[test]
fn every_range_of_every_shape_is_the_same_bytes() {
    let fixture = Fixture::new();
    let data = noise(10_000, 1);
    let leaf = |range: std::ops::Range<usize>| fixture.raw(&data[range]);
    let wrapped = |range: std::ops::Range<usize>| fixture.file(&data[range], &[]);
    // Data in inner nodes, leaves of both kinds and of all sizes, empty parts, different depths.
    let inner = fixture.file(&data[2000..2500], &[leaf(2500..2501), wrapped(2501..4000), fixture.raw(b"")]);
    let deep = fixture.file(b"", &[fixture.file(b"", &[fixture.file(&data[4000..4096], &[leaf(4096..9000)])])]);
    let mixed =
        fixture.file(&data[..1000], &[leaf(1000..2000), inner, fixture.file(b"", &[]), deep, leaf(9000..10_000)]);
    let shapes = [
        fixture.raw(&data),
        fixture.file(&data, &[]),
        fixture.chunked(&data, 777, 3),
        fixture.chunked(&data, 1, 174),
        mixed,
    ];
    for (shape, link) in shapes.iter().enumerate() {
        assert_eq!(size(&fixture, &link.cid), 10_000, "shape {shape}");
        for offset in [0, 1, 999, 1000, 1001, 2499, 2500, 2501, 4095, 4096, 8999, 9999, 10_000, 10_001, 1 << 40] {
            for len in [0, 1, 2, 500, 4096, 20_000] {
                let from = (offset as usize).min(10_000);
                let expected = &data[from..(from + len).min(10_000)];
                let got = read(&fixture, &link.cid, offset, len).unwrap();
                assert!(got[..] == *expected, "shape {shape}, {len} bytes at {offset}: got {}", got.len());
            }
        }
    }
    assert!(read(&fixture, &shapes[0].cid, u64::MAX, usize::MAX).unwrap().is_empty());
}

#[test]
fn a_read_within_one_leaf_is_not_copied() {
    let fixture = Fixture::new();
    let data = noise(3 << 20, 2);
    let file = fixture.chunked(&data, 1 << 20, 174);
    let leaf = fixture.raw(&data[1 << 20..2 << 20]);
    let block = fixture.store.get(&leaf.cid).unwrap().unwrap();
    let got = read(&fixture, &file.cid, (1 << 20) + 4096, 4096).unwrap();
    assert_eq!(got.as_ptr(), block.data()[4096..].as_ptr());
}

/// Changes one bit of the block in the store at `path` that holds `bytes`.
fn damage(path: &std::path::Path, bytes: &[u8]) {
    let files = std::fs::read_dir(path.join("segments")).unwrap().map(|file| file.unwrap().path());
    let damaged = files.filter(|file| file.extension().is_some_and(|ending| ending == "car")).any(|file| {
        let mut content = std::fs::read(&file).unwrap();
        let Some(at) = content.windows(bytes.len()).position(|window| window == bytes) else { return false };
        content[at] ^= 1;
        std::fs::write(&file, content).unwrap();
        true
    });
    assert!(damaged);
}

#[test]
fn a_jump_into_a_large_leaf_reads_and_checks_the_pieces_around_it_alone() {
    let fixture = Fixture::new();
    let data = noise(2 << 20, 6);
    let file = fixture.chunked(&data, 1 << 20, 174).cid;
    let leaf = fixture.raw(&data[..1 << 20]).cid;
    let fixture = fixture.reopened_after(|store| damage(store, &data[1_000_000..1_000_064]));
    for (file, offset) in [(&leaf, 500_000), (&file, 65_530), (&file, (1 << 20) + 500_000)] {
        assert_eq!(read(&fixture, file, offset, 4096).unwrap()[..], data[offset as usize..offset as usize + 4096]);
    }
    let stat = fixture.store.stat().unwrap();
    assert!(stat.counted.disk_read_bytes < 65_536, "{} bytes", stat.counted.disk_read_bytes);
    assert!(stat.ram_bytes < 65_536, "nothing of it is kept: {} bytes", stat.ram_bytes);
    // Where the damage is, nothing is served.
    assert!(matches!(read(&fixture, &file, 999_000, 4096), Err(TreeError::Fetch(_))));
}

#[test]
fn a_pass_over_a_file_reads_each_leaf_from_the_disk_once() {
    let fixture = Fixture::new();
    let data = noise(3 << 20, 7);
    let file = fixture.chunked(&data, 1 << 20, 174).cid;
    let fixture = fixture.reopened_after(|_| ());
    let step = 64 << 10;
    for offset in (0..data.len()).step_by(step) {
        assert_eq!(read(&fixture, &file, offset as u64, step).unwrap()[..], data[offset..offset + step]);
    }
    let counted = fixture.store.stat().unwrap().counted;
    assert_eq!(counted.disk_hits, 4, "three leaves, and the node above them");
    assert_eq!(counted.ram_hits, (data.len() / step - 3) as u64);
    assert_eq!(counted.misses, 0);
}

#[test]
fn a_file_whose_sizes_lie_is_an_error_and_never_shifted_bytes() {
    let fixture = Fixture::new();
    let leaf = fixture.raw(&noise(100, 3));
    let claim = |size| Link { size, ..leaf.clone() };
    let inner = fixture.file(b"", &[leaf.clone(), leaf.clone()]);
    for parts in [
        vec![claim(99), leaf.clone()],
        vec![claim(101), leaf.clone()],
        vec![Link { size: 201, ..inner.clone() }, leaf.clone()],
        vec![Link { size: 100, ..fixture.file(&[7; 99], &[]) }],
    ] {
        let file = fixture.file(b"", &parts);
        let error = read(&fixture, &file.cid, 0, 4096).unwrap_err();
        assert!(matches!(error, TreeError::Lies { .. }), "{error}");
        assert!(error.to_string().contains(&file.cid.to_string()), "{error}");
    }
    // What does not touch the lie is read.
    let file = fixture.file(b"", &[leaf.clone(), claim(99)]);
    assert_eq!(read(&fixture, &file.cid, 0, 100).unwrap().len(), 100);
    assert!(read(&fixture, &file.cid, 50, 100).is_err());
    // The size of the whole, too.
    let mut unixfs = UnixFs::new(Kind::File);
    unixfs.blocksizes = vec![100];
    unixfs.filesize = Some(1000);
    let file = fixture.node(&unixfs, &[(b"", &leaf)]);
    assert!(matches!(read(&fixture, &file.cid, 0, 10), Err(TreeError::Lies { claimed: 1000, found: 100, .. })));
}

#[test]
fn malformed_files_are_refused() {
    let fixture = Fixture::new();
    let leaf = fixture.raw(b"0123456789");
    let mut unixfs = UnixFs::new(Kind::File);
    unixfs.filesize = Some(10);
    let no_blocksizes = fixture.node(&unixfs, &[(b"", &leaf)]);
    unixfs.blocksizes = vec![10];
    let named = fixture.node(&unixfs, &[(b"name", &leaf)]);
    let directory = fixture.directory(&[]);
    let of_directories = fixture.node(&unixfs, &[(b"", &directory)]);
    unixfs.blocksizes = vec![u64::MAX, u64::MAX];
    let over_64_bits = fixture.node(&unixfs, &[(b"", &leaf), (b"", &leaf)]);
    let garbage = fixture.put(codec::DAG_PB, &b"\xff\xff\xff"[..]);
    for file in [no_blocksizes, named, of_directories, over_64_bits, garbage] {
        let error = read(&fixture, &file.cid, 0, 10).unwrap_err();
        assert!(matches!(error, TreeError::Dag { .. }), "{error}");
    }
    assert!(matches!(read(&fixture, &directory.cid, 0, 10), Err(TreeError::IsADirectory { .. })));
}

/// A file of `levels` nodes, each twice as large as the one below: one kilobyte of blocks for more than all disks hold.
fn doubling(fixture: &Fixture, leaf: &Link, levels: usize) -> Link {
    (0..levels).fold(leaf.clone(), |below, _| fixture.file(b"", &[below.clone(), below]))
}

#[test]
fn an_exabyte_file_from_a_kilobyte_is_read_lazily() {
    let fixture = Fixture::new();
    let leaf = fixture.raw(b"0123456789abcdef");
    let file = doubling(&fixture, &leaf, 56);
    assert_eq!(size(&fixture, &file.cid), 1 << 60);
    assert_eq!(&read(&fixture, &file.cid, (1 << 60) - 20, 100).unwrap()[..], b"cdef0123456789abcdef");
    assert_eq!(&read(&fixture, &file.cid, (1 << 59) + 3, 4).unwrap()[..], b"3456");
    let coverage = fixture.tree.coverage(&Location::new(file.cid)).unwrap();
    assert_eq!((coverage.cached_bytes, coverage.blocks), (1 << 60, 57));
}

#[test]
fn a_tree_that_is_too_deep_is_an_error_and_no_overflow() {
    let fixture = Fixture::new();
    let chain = |levels| (0..levels).fold(fixture.raw(b"deep"), |below, _| fixture.file(b"", &[below]));
    let deepest = chain(MAX_FILE_DEPTH);
    assert_eq!(&read(&fixture, &deepest.cid, 0, 10).unwrap()[..], b"deep");
    let deeper = chain(MAX_FILE_DEPTH + 1);
    assert!(matches!(read(&fixture, &deeper.cid, 0, 10), Err(TreeError::Limit { .. })));
    let endless = chain(20_000);
    assert!(matches!(read(&fixture, &endless.cid, 0, 10), Err(TreeError::Limit { .. })));
    assert_eq!(fixture.tree.coverage(&Location::new(endless.cid)).unwrap().cached_bytes, 4);
}

#[test]
fn parts_of_no_bytes_cost_nothing() {
    let fixture = Fixture::new();
    // The empty parts are not even here.
    let absent =
        Link { cid: "bafkreiaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa".parse().unwrap(), size: 0, tsize: 0 };
    let mut parts = vec![absent; 10_000];
    parts.push(fixture.raw(b"end"));
    let file = fixture.file(b"start ", &parts);
    assert_eq!(&read(&fixture, &file.cid, 0, 100).unwrap()[..], b"start end");
}

#[test]
fn unknown_codecs_read_back_raw_and_identity_blocks_need_no_store() {
    let fixture = Fixture::new();
    let unknown = fixture.put(0x30_0000, &b"whatever"[..]);
    assert_eq!(&read(&fixture, &unknown.cid, 4, 100).unwrap()[..], b"ever");
    assert_eq!(size(&fixture, &unknown.cid), 8);
    let identity = Cid::new_v1(codec::RAW, &cidfs::block::HashFunction::Identity.digest(b"inside"));
    assert_eq!(&read(&fixture, &identity, 2, 3).unwrap()[..], b"sid");
    assert_eq!(size(&fixture, &identity), 6);
}

#[test]
fn what_is_not_here_is_an_error_that_names_the_block() {
    let fixture = Fixture::new();
    let here = fixture.raw(&noise(100, 5));
    let gone: Cid = "bafkreiaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa".parse().unwrap();
    let file = fixture.file(b"", &[here, Link { cid: gone.clone(), size: 100, tsize: 100 }]);
    let error = read(&fixture, &file.cid, 0, 200).unwrap_err();
    assert!(error.to_string().contains(&gone.to_string()), "{error}");
    let coverage = fixture.tree.coverage(&Location::new(file.cid)).unwrap();
    assert_eq!((coverage.cached_bytes, coverage.blocks), (100, 3));
}

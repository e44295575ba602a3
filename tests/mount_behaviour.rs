//! What tools and kernels do to a mount beyond reading files from front to back.

#[path = "mounts/fixture.rs"]
mod fixture;

use std::collections::BTreeSet;
use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use cidfs::dag::unixfs::{Kind, Mtime, UnixFs};
use cidfs::fuse::{MountOptions, Profile, RequestKind};
use fixture::{Fixture, Link, noise};

fn run(program: &str, arguments: &[&OsStr]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn diff_finds_no_difference_to_the_tree_that_was_added() {
    let fixture = Fixture::new();
    let local = fixture.path().join("local");
    fs::create_dir_all(local.join("deep/er")).unwrap();
    let names: [&[u8]; 6] =
        [b"plain", b" spaces ", b"new\nline", b"\xff\xfe not utf-8", "größe".as_bytes(), &[b'x'; 255]];
    let mut entries: Vec<(&[u8], Link)> = Vec::new();
    for (name, len) in names.into_iter().zip([0, 1, 4096, (1 << 18) - 1, 1 << 18, (1 << 20) + 1]) {
        let data = noise(len, len as u64);
        fs::write(local.join(OsStr::from_bytes(name)), &data).unwrap();
        entries.push((name, fixture.chunked(&data, 1 << 18, 174)));
    }
    std::os::unix::fs::symlink("deep/er", local.join("link")).unwrap();
    entries.push((b"link", fixture.symlink(b"deep/er")));
    fs::write(local.join("deep/er/file"), b"deep").unwrap();
    let inner = fixture.directory(&[("file", &fixture.file(b"deep", &[]))]);
    entries.push((b"deep", fixture.directory(&[("er", &inner)])));
    let links: Vec<(&[u8], &Link)> = entries.iter().map(|(name, link)| (*name, link)).collect();
    for root in [fixture.node(&UnixFs::new(Kind::Directory), &links), fixture.hamt(8, &links)] {
        let mount = fixture.mount("");
        run(
            "diff",
            &["-r".as_ref(), "--no-dereference".as_ref(), local.as_os_str(), fixture.at(&root.cid, "").as_os_str()],
        );
        mount.unmount().unwrap();
    }
}

#[test]
fn a_sharded_directory_can_be_sought_like_any_other() {
    let fixture = Fixture::new();
    let leaf = fixture.raw(b"x");
    let names: Vec<String> = (0..5000).map(|index| format!("file-{index:05}")).collect();
    let entries: Vec<(&[u8], &Link)> = names.iter().map(|name| (name.as_bytes(), &leaf)).collect();
    let root = fixture.hamt(256, &entries);
    let mount = fixture.mount("");
    let path = CString::new(fixture.at(&root.cid, "").as_os_str().as_bytes()).unwrap();
    // SAFETY: the path is a C string; the stream is used by this thread alone and closed once.
    unsafe {
        let stream = libc::opendir(path.as_ptr());
        assert!(!stream.is_null());
        let next = || {
            let entry = libc::readdir(stream);
            (!entry.is_null()).then(|| std::ffi::CStr::from_ptr((*entry).d_name.as_ptr()).to_bytes().to_vec())
        };
        let mut order = Vec::new();
        let mut offsets = Vec::new();
        loop {
            offsets.push(libc::telldir(stream));
            let Some(name) = next() else { break };
            order.push(name);
        }
        assert_eq!(order.len(), 5002);
        assert_eq!(order.iter().collect::<BTreeSet<_>>().len(), 5002);
        for index in [4000, 0, 1, 2, 3, 4999, 2500, 5001] {
            libc::seekdir(stream, offsets[index]);
            assert_eq!(next().as_ref(), Some(&order[index]), "entry {index}");
        }
        libc::closedir(stream);
    }
    mount.unmount().unwrap();
}

#[test]
fn maps_of_files_and_readers_side_by_side_see_the_same_bytes() {
    let fixture = Fixture::new();
    let data = noise(20_000_000, 7);
    let file = fixture.chunked(&data, 1 << 20, 174);
    let mount = fixture.mount("");
    let path = fixture.mountpoint().join(file.cid.to_string());
    let open = File::open(&path).unwrap();
    // SAFETY: the file is immutable, and the mount outlives the map.
    let map = unsafe { memmap2::Mmap::map(&open).unwrap() };
    std::thread::scope(|scope| {
        for reader in 0..4_u64 {
            let (open, map, data) = (&open, &map, &data);
            scope.spawn(move || {
                for step in 0..200_u64 {
                    let at = ((step * 7919 + reader * 104_729) * 4099 % 19_990_000) as usize;
                    let mut got = [0; 8192];
                    open.read_exact_at(&mut got, at as u64).unwrap();
                    assert!(got[..] == data[at..at + 8192] && map[at..at + 8192] == data[at..at + 8192]);
                }
            });
        }
        scope.spawn(|| assert!(fs::read(&path).unwrap() == data));
    });
    drop(map);
    mount.unmount().unwrap();
}

#[test]
fn writes_are_refused_as_on_any_read_only_filesystem() {
    let fixture = Fixture::new();
    let root = fixture.directory(&[("file", &fixture.raw(b"content"))]);
    let mount = fixture.mount("");
    let file = fixture.at(&root.cid, "file");
    let refused = |result: std::io::Result<()>| assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EROFS));
    refused(fs::write(&file, b"other"));
    refused(fs::write(fixture.at(&root.cid, "new"), b"new"));
    refused(fs::remove_file(&file));
    refused(fs::rename(&file, fixture.at(&root.cid, "moved")));
    refused(fs::create_dir(fixture.mountpoint().join("directory")));
    refused(fs::set_permissions(&file, fs::Permissions::from_mode(0o600)));
    refused(std::os::unix::fs::symlink("a", fixture.at(&root.cid, "b")));
    assert_eq!(fs::read(&file).unwrap(), b"content");
    mount.unmount().unwrap();
}

#[test]
fn stat_shows_mode_time_and_size_and_one_inode_for_one_file() {
    let fixture = Fixture::new();
    let mut script = UnixFs::new(Kind::File);
    script.data = Some(bytes::Bytes::from_static(b"#!/bin/sh\necho ran\n"));
    (script.filesize, script.mode) = (Some(19), Some(0o755));
    script.mtime = Some(Mtime { seconds: 1_600_000_000, nanoseconds: 123_456_789 });
    let script = fixture.node(&script, &[]);
    let mut old = UnixFs::new(Kind::Directory);
    (old.mode, old.mtime) = (Some(0o2750), Some(Mtime { seconds: -86_400, nanoseconds: 500_000_000 }));
    let old = fixture.node(&old, &[(b"again", &script)]);
    let root = fixture.directory(&[("old", &old), ("script", &script), ("raw", &fixture.raw(&noise(5000, 1)))]);
    let mount = fixture.mount("");
    let stat = |path: &str| fs::symlink_metadata(fixture.at(&root.cid, path)).unwrap();
    let (script, again, old, raw) = (stat("script"), stat("old/again"), stat("old"), stat("raw"));
    assert_eq!((script.mode(), script.len(), script.nlink()), (libc::S_IFREG | 0o755, 19, 1));
    assert_eq!((script.mtime(), script.mtime_nsec()), (1_600_000_000, 123_456_789));
    assert_eq!(script.ino(), again.ino());
    assert_eq!((old.mode(), old.mtime()), (libc::S_IFDIR | 0o2750, -86_400));
    assert_eq!((raw.mode(), raw.len(), raw.blocks(), raw.mtime()), (libc::S_IFREG | 0o444, 5000, 10, 0));
    assert_eq!(raw.blksize(), 1 << 20);
    assert_eq!((raw.uid(), raw.gid()), (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw()));
    assert_eq!(run(fixture.at(&root.cid, "script").to_str().unwrap(), &[]), "ran\n");
    mount.unmount().unwrap();
}

#[test]
fn extended_attributes_tell_the_cid_and_what_is_here() {
    let fixture = Fixture::new();
    let file = fixture.chunked(&noise(1_000_000, 8), 100_000, 174);
    let mount = fixture.mount("");
    let path = fixture.mountpoint().join(file.cid.to_string());
    let cid = run("getfattr", &["--only-values".as_ref(), "-n".as_ref(), "ipfs.cid".as_ref(), path.as_os_str()]);
    assert_eq!(cid, file.cid.to_string());
    let all = run("getfattr", &["-d".as_ref(), path.as_os_str()]);
    assert!(all.contains("user.cidfs.cached_bytes=\"1000000\"") && all.contains("user.cidfs.blocks=\"11\""), "{all}");
    let none = Command::new("getfattr").args(["-n", "user.none"]).arg(&path).output().unwrap();
    assert!(String::from_utf8_lossy(&none.stderr).contains("No such attribute"));
    mount.unmount().unwrap();
}

#[test]
fn df_shows_what_the_store_takes_and_may_take() {
    let fixture = Fixture::new();
    fixture.raw(&noise(1 << 20, 9));
    let mount = fixture.mount("");
    let line =
        run("df", &["-B1".as_ref(), "--output=source,fstype,size,avail".as_ref(), fixture.mountpoint().as_os_str()]);
    let fields: Vec<&str> = line.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(fields[..2], ["cidfs", "fuse.cidfs"]);
    let (size, available): (u64, u64) = (fields[2].parse().unwrap(), fields[3].parse().unwrap());
    assert!(size > available && available > 0, "{line}");
    mount.unmount().unwrap();
}

/// Lists and reads everything below `path`, and returns how many bytes there were.
fn epoch(path: &Path) -> u64 {
    let mut bytes = 0;
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        if entry.metadata().unwrap().is_dir() {
            bytes += epoch(&entry.path());
        } else {
            bytes += fs::read(entry.path()).unwrap().len() as u64;
        }
    }
    bytes
}

#[test]
fn a_second_epoch_makes_no_request_at_all() {
    let fixture = Fixture::new();
    let leaves: Vec<Link> = (0..500).map(|seed| fixture.raw(&noise(10_000, seed))).collect();
    let names: Vec<String> = (0..100).map(|index| format!("{index}.jpg")).collect();
    let directories: Vec<Link> = leaves
        .chunks(100)
        .map(|leaves| {
            let entries: Vec<(&str, &Link)> = names.iter().map(String::as_str).zip(leaves).collect();
            fixture.directory(&entries)
        })
        .collect();
    let entries: Vec<(&str, &Link)> = names.iter().map(String::as_str).zip(&directories).collect();
    let root = fixture.directory(&entries);
    let mount = fixture.mount("");
    let path = fixture.at(&root.cid, "");
    assert_eq!(epoch(&path), 5_000_000);
    assert!(mount.requests().get(RequestKind::Lookup) < 20, "listings bring the attributes of their files");
    assert_eq!(mount.requests().get(RequestKind::Open), 1);
    let before = mount.requests().waited_for();
    assert_eq!(epoch(&path), 5_000_000);
    assert_eq!(mount.requests().waited_for(), before);
    mount.unmount().unwrap();
}

#[test]
fn a_missing_child_is_listed_and_its_stat_fails() {
    let fixture = Fixture::new();
    let gone =
        Link { cid: "bafybeiaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa".parse().unwrap(), size: 3, tsize: 3 };
    let root = fixture.directory(&[("gone", &gone), ("here", &fixture.raw(b"here"))]);
    let mount = fixture.mount("");
    let names: BTreeSet<_> =
        fs::read_dir(fixture.at(&root.cid, "")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, BTreeSet::from(["gone".into(), "here".into()]));
    assert_eq!(fs::metadata(fixture.at(&root.cid, "gone")).unwrap_err().raw_os_error(), Some(libc::EIO));
    assert_eq!(fs::read(fixture.at(&root.cid, "here")).unwrap(), b"here");
    mount.unmount().unwrap();
}

#[test]
fn an_exabyte_file_is_listed_and_its_last_bytes_are_read() {
    let fixture = Fixture::new();
    let file = (0..50).fold(fixture.raw(b"0123456789abcdef"), |below, _| fixture.file(b"", &[below.clone(), below]));
    let mount = fixture.mount("");
    let mut open = File::open(fixture.mountpoint().join(file.cid.to_string())).unwrap();
    assert_eq!(open.metadata().unwrap().len(), 1 << 54);
    open.seek(SeekFrom::End(-4)).unwrap();
    let mut end = String::new();
    open.read_to_string(&mut end).unwrap();
    assert_eq!(end, "cdef");
    drop(open);
    mount.unmount().unwrap();
}

#[test]
fn the_serving_profile_hands_large_files_to_the_kernel() {
    let fixture = Fixture::new();
    let data = noise(20 << 20, 11);
    let large = fixture.chunked(&data, 1 << 20, 174);
    let small = fixture.raw(b"small");
    let options = MountOptions {
        profile: Profile::Serving,
        copies_dir: Some(fixture.path().to_owned()),
        ..MountOptions::default()
    };
    let mount = cidfs::fuse::mount(&fixture.mountpoint(), fixture.tree.clone(), &options).unwrap();
    let path = fixture.mountpoint().join(large.cid.to_string());
    // The first open may not have waited long enough for the copy; a later one finds it.
    let mut reads = u64::MAX;
    for _ in 0..20 {
        let before = mount.requests().get(RequestKind::Read);
        assert!(fs::read(&path).unwrap() == data);
        let open = File::open(&path).unwrap();
        // SAFETY: the file is immutable, and the mount outlives the map.
        let map = unsafe { memmap2::Mmap::map(&open).unwrap() };
        let second = File::open(&path).unwrap();
        let mut middle = vec![0; 100_000];
        second.read_exact_at(&mut middle, 12_345_678).unwrap();
        assert!(map[..] == data[..] && middle[..] == data[12_345_678..12_445_678]);
        drop((map, open, second));
        reads = mount.requests().get(RequestKind::Read) - before;
        if reads == 0 {
            break;
        }
    }
    assert_eq!(reads, 0, "the kernel reads the copy by itself");
    assert_eq!(fs::read(fixture.mountpoint().join(small.cid.to_string())).unwrap(), b"small");
    mount.unmount().unwrap();
    let names: Vec<_> = fs::read_dir(fixture.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "a copy has no name: {names:?}");
}

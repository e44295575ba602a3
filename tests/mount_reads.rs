//! What programs read through a mount.

#[path = "mounts/fixture.rs"]
mod fixture;

use std::fs;

use fixture::{Fixture, noise};

#[test]
fn a_mounted_tree_is_listed_and_read_like_any_other() {
    let fixture = Fixture::new();
    let big = noise(5_000_000, 1);
    let root = fixture.directory(&[
        ("a.txt", &fixture.raw(b"hello")),
        ("big.bin", &fixture.chunked(&big, 1 << 20, 2)),
        ("dir", &fixture.directory(&[("empty", &fixture.raw(b"")), ("wrapped", &fixture.file(b"inside", &[]))])),
        ("link", &fixture.symlink(b"dir/wrapped")),
    ]);
    let mount = fixture.mount("");
    let path = |name: &str| fixture.at(&root.cid, name);
    let mut names: Vec<_> = fs::read_dir(path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["a.txt", "big.bin", "dir", "link"]);
    assert_eq!(fs::read(path("a.txt")).unwrap(), b"hello");
    assert!(fs::read(path("big.bin")).unwrap() == big);
    assert_eq!(fs::metadata(path("big.bin")).unwrap().len(), 5_000_000);
    assert_eq!(fs::read(path("dir/empty")).unwrap(), b"");
    assert_eq!(fs::read(path("link")).unwrap(), b"inside");
    assert_eq!(fs::read_link(path("link")).unwrap().to_str(), Some("dir/wrapped"));
    assert_eq!(fs::metadata(path("none")).unwrap_err().kind(), std::io::ErrorKind::NotFound);
    assert_eq!(fs::metadata(fixture.mountpoint().join(".git")).unwrap_err().kind(), std::io::ErrorKind::NotFound);
    mount.unmount().unwrap();
    assert_eq!(fs::read_dir(fixture.mountpoint()).unwrap().count(), 0);
}

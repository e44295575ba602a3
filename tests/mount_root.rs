//! The root of a mount: pins and names, as they come and go.

#[path = "mounts/fixture.rs"]
mod fixture;

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use cidfs::fuse::RequestKind;
use cidfs::store::PinKind;
use fixture::Fixture;

fn listed(fixture: &Fixture) -> BTreeSet<String> {
    let names = fs::read_dir(fixture.mountpoint()).unwrap();
    names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn set<S: ToString>(names: &[S]) -> BTreeSet<String> {
    names.iter().map(S::to_string).collect()
}

#[test]
fn the_next_listing_of_the_root_shows_what_was_pinned_named_or_dropped() {
    let fixture = Fixture::new();
    let directory = fixture.directory(&[("file", &fixture.raw(b"content"))]).cid;
    let file = fixture.raw(b"a file").cid;
    let mount = fixture.mount("");
    assert_eq!(listed(&fixture), set::<String>(&[]));
    fixture.store.pin(&directory, PinKind::Recursive, "not its name").unwrap();
    assert_eq!(listed(&fixture), set(&[directory.to_string()]));
    fixture.store.pin(&file, PinKind::Recursive, "").unwrap();
    fixture.store.name("imagenet", &directory).unwrap();
    assert_eq!(listed(&fixture), set(&["imagenet".to_string(), directory.to_string(), file.to_string()]));
    assert_eq!(fs::read(fixture.mountpoint().join("imagenet/file")).unwrap(), b"content");
    fixture.store.unpin(&directory).unwrap();
    fixture.store.unname("imagenet").unwrap();
    assert_eq!(listed(&fixture), set(&[file.to_string()]));
    // It is not listed, and still here.
    assert_eq!(fs::read(fixture.at(&directory, "file")).unwrap(), b"content");
    mount.unmount().unwrap();
}

#[test]
fn a_name_that_is_given_to_another_root_leads_there() {
    let fixture = Fixture::new();
    let version = |text: &[u8]| fixture.directory(&[("version", &fixture.raw(text))]).cid;
    let (old, new) = (version(b"old"), version(b"new"));
    fixture.store.name("data", &old).unwrap();
    let mount = fixture.mount("");
    let path = fixture.mountpoint().join("data/version");
    assert_eq!(fs::read(&path).unwrap(), b"old");
    fixture.store.name("data", &new).unwrap();
    // The kernel may keep the old meaning for a moment.
    let start = Instant::now();
    while fs::read(&path).unwrap() != b"new" {
        assert!(start.elapsed() < Duration::from_mins(1));
        std::thread::yield_now();
    }
    mount.unmount().unwrap();
}

#[test]
fn a_path_that_is_no_cid_is_not_found_at_once_and_a_cid_in_any_base_is_found() {
    let fixture = Fixture::new();
    let file = fixture.raw(b"x").cid;
    let mount = fixture.mount("");
    for name in [".git", "favicon.ico", "autorun.inf", ".Trash-0", "Qm", "bafy"] {
        assert_eq!(fs::metadata(fixture.mountpoint().join(name)).unwrap_err().kind(), ErrorKind::NotFound, "{name}");
    }
    for base in [multibase::Base::Base32Upper, multibase::Base::Base58Btc, multibase::Base::Base16Lower] {
        assert_eq!(fs::read(fixture.mountpoint().join(file.to_text(base))).unwrap(), b"x");
    }
    // A CID that is nowhere is there for all we know: it cannot be read, which is another error.
    let gone = fixture.mountpoint().join("bafkreiaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
    assert_eq!(fs::metadata(gone).unwrap_err().raw_os_error(), Some(libc::EIO));
    assert!(mount.requests().get(RequestKind::Lookup) >= 10);
    mount.unmount().unwrap();
}
